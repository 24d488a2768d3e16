//! What our ends say beside KubeEdge's messages, as metadata of a call: whoever does not know a key passes over it, as gRPC has it, and
//! the messages stay KubeEdge's.

use tonic::Request;
use tonic::metadata::{BinaryMetadataValue, MetadataValue};

/// At a report of a state: why the device is in it, in UTF-8.
const STATE_REASON: &str = "kubehive-state-reason-bin";
/// At a registration: the mapper reads a DoubleValue in `configData`, which KubeEdge's SDKs do not.
const DOUBLES: &str = "kubehive-doubles";
/// 1024 characters of a reason, paths and a cure included: at most 5.4 KiB in a head, of which edgecore takes 8.
const REASON_MAX: usize = 1024;
/// Stands for the end of a reason that is longer.
pub const ELLIPSIS: char = '…';

/// Says why a device is in its state, cut to 1024 characters, of which the last is [`ELLIPSIS`] where that leaves something out.
pub fn set_state_reason<T>(request: &mut Request<T>, reason: &str) {
    let reason = cut(reason.chars());
    let value = BinaryMetadataValue::from_bytes(reason.as_bytes());
    request.metadata_mut().insert_bin(STATE_REASON, value);
}

/// Why a device is in its state, in one line; `None`: the mapper says nothing that can be read.
pub fn state_reason<T>(request: &Request<T>) -> Option<String> {
    let bytes = request.metadata().get_bin(STATE_REASON)?.to_bytes().ok()?;
    let text = std::str::from_utf8(&bytes).ok()?;
    let line = cut(text.chars().map(|c| if c.is_control() { ' ' } else { c }));
    Some(line.trim().to_owned()).filter(|line| !line.is_empty())
}

fn cut(letters: impl Iterator<Item = char>) -> String {
    let mut letters = letters.peekable();
    let mut text: String = letters.by_ref().take(REASON_MAX).collect();
    if letters.peek().is_some() {
        text.pop();
        text.push(ELLIPSIS);
    }
    text
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
        let whole = "é".repeat(REASON_MAX);
        set_state_reason(&mut request, &whole);
        assert_eq!(state_reason(&request).as_deref(), Some(whole.as_str()));
        let cut = format!("{}{ELLIPSIS}", "é".repeat(REASON_MAX - 1));
        let too_long = "é".repeat(REASON_MAX + 1);
        set_state_reason(&mut request, &too_long);
        assert_eq!(state_reason(&request).as_deref(), Some(cut.as_str()));
        // A mapper of somebody else's cuts nothing.
        request.metadata_mut().insert_bin(STATE_REASON, BinaryMetadataValue::from_bytes(too_long.as_bytes()));
        assert_eq!(state_reason(&request).as_deref(), Some(cut.as_str()));
        for bytes in [&b"\xff"[..], b"", b" \n"] {
            request.metadata_mut().insert_bin(STATE_REASON, BinaryMetadataValue::from_bytes(bytes));
            assert_eq!(state_reason(&request), None);
        }
    }
}
