//! What our ends say beside KubeEdge's messages, as metadata of a call: whoever does not know a key passes over it, as gRPC has it, and
//! the messages stay KubeEdge's.

use tonic::Request;
use tonic::metadata::{BinaryMetadataValue, MetadataValue};

/// At a report of a state: why the device is in it, in UTF-8.
const STATE_REASON: &str = "kubehive-state-reason-bin";
/// At a registration: the mapper reads a DoubleValue in `configData`, which KubeEdge's SDKs do not.
const DOUBLES: &str = "kubehive-doubles";
/// 256 characters of a reason.
const REASON_MAX: usize = 256;

/// Says why a device is in its state, cut to 256 characters.
pub fn set_state_reason<T>(request: &mut Request<T>, reason: &str) {
    let reason: String = reason.chars().take(REASON_MAX).collect();
    let value = BinaryMetadataValue::from_bytes(reason.as_bytes());
    request.metadata_mut().insert_bin(STATE_REASON, value);
}

/// Why a device is in its state, in one line; `None`: the mapper says nothing that can be read.
pub fn state_reason<T>(request: &Request<T>) -> Option<String> {
    let bytes = request.metadata().get_bin(STATE_REASON)?.to_bytes().ok()?;
    let text = std::str::from_utf8(&bytes).ok()?;
    let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(REASON_MAX).collect();
    Some(line.trim().to_owned()).filter(|line| !line.is_empty())
}

/// Says that the mapper reads a DoubleValue.
pub fn set_doubles<T>(request: &mut Request<T>) {
    request.metadata_mut().insert(DOUBLES, MetadataValue::from_static("true"));
}

/// Whether the mapper reads a DoubleValue.
pub fn doubles<T>(request: &Request<T>) -> bool {
    request.metadata().get(DOUBLES).is_some_and(|value| value == "true")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_beside_a_message_comes_through_and_what_is_none_is_nothing() {
        let mut request = Request::new(());
        assert_eq!((state_reason(&request), doubles(&request)), (None, false));
        set_state_reason(&mut request, "kein Gerät\n\u{1b}[2J an 192.0.2.1");
        set_doubles(&mut request);
        assert_eq!(state_reason(&request).as_deref(), Some("kein Gerät  [2J an 192.0.2.1"));
        assert!(doubles(&request));
        set_state_reason(&mut request, &"é".repeat(1000));
        assert_eq!(state_reason(&request).unwrap().chars().count(), REASON_MAX);
        for bytes in [&b"\xff"[..], b"", b" \n"] {
            request.metadata_mut().insert_bin(STATE_REASON, BinaryMetadataValue::from_bytes(bytes));
            assert_eq!(state_reason(&request), None);
        }
    }
}
