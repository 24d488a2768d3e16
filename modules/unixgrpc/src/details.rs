//! The details of a status, as they come in a header.

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use tonic::codegen::http::HeaderMap;

const DETAILS: &str = "grpc-status-details-bin";
/// As tonic reads it.
const ENGINE: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Takes the details away where they are no base64: [`tonic::Status::from_header_map`] panics at such. The status stays.
pub fn without_unsound(headers: &mut HeaderMap) {
    let is_unsound = headers.get(DETAILS).is_some_and(|value| ENGINE.decode(value.as_bytes()).is_err());
    if is_unsound {
        headers.remove(DETAILS);
    }
}

#[cfg(test)]
mod tests {
    use tonic::codegen::http::HeaderValue;
    use tonic::{Code, Status};

    use super::*;

    #[test]
    fn whatever_a_server_sends_for_details_its_status_is_read() {
        for (details, kept) in [
            ("!!!", false),
            ("A", false),
            ("AB==", false),
            ("=", false),
            ("AA==", true),
            ("AA", true),
            ("", true),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert("grpc-status", HeaderValue::from_static("9"));
            headers.insert(DETAILS, HeaderValue::from_static(details));
            without_unsound(&mut headers);
            assert_eq!(headers.contains_key(DETAILS), kept, "{details}");
            assert_eq!(Status::from_header_map(&headers).unwrap().code(), Code::FailedPrecondition);
        }
    }
}
