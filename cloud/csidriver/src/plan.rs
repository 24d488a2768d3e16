//! What flags and answers mean. Pure.

use std::path::PathBuf;
use std::time::Duration;

use contract::csi_call::CONTENT_TYPE;
use http::StatusCode;
use prost::bytes::Bytes;
use tonic::Status;

use crate::error::EndpointError;

const UNIX: &str = "unix://";
const HTTPS: &str = "https://";
/// The kernel's own bound, its end mark included.
const SOCKET_MAX: usize = 107;
/// 1 KiB of what others say.
const WORDS_MAX: usize = 1 << 10;

/// By whom the node is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KubeEdgeEndpoint {
    /// CloudCore, at its socket on this machine.
    Socket(PathBuf),
    /// The API server, at this URL.
    ApiServer(String),
}

/// The path of `--endpoint`.
///
/// # Errors
/// [`EndpointError::NoSocket`].
pub fn socket_path(endpoint: &str) -> Result<PathBuf, EndpointError> {
    let path = endpoint.strip_prefix(UNIX).map(PathBuf::from);
    let path = path.filter(|path| {
        path.is_absolute() && path.file_name().is_some() && path.as_os_str().len() <= SOCKET_MAX
    });
    path.ok_or_else(|| EndpointError::NoSocket(endpoint.to_owned()))
}

impl std::str::FromStr for KubeEdgeEndpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        match text.strip_prefix(HTTPS) {
            Some(host) if !host.is_empty() => Ok(KubeEdgeEndpoint::ApiServer(text.to_owned())),
            _ => socket_path(text)
                .map(KubeEdgeEndpoint::Socket)
                .map_err(|_| EndpointError::Unknown(text.to_owned())),
        }
    }
}

/// The time of a call by its header `grpc-timeout` (`PROTOCOL-HTTP2.md` of gRPC); `None`: none is said, or one that is none.
pub(crate) fn timeout(header: &str) -> Option<Duration> {
    let (number, unit) = header.split_at_checked(header.len().checked_sub(1)?)?;
    if number.is_empty() || number.len() > 8 || !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number = number.parse::<u64>().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(3600 * number),
        "M" => Duration::from_secs(60 * number),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

/// What came back by HTTP. Where no driver has answered, the status is one by which sidecars know that the call may be repeated, unless it
/// will never be let through. `node`: whose it is; `by_socket`: whether CloudCore was asked directly.
pub(crate) fn answered(
    (status, content_type, body): (StatusCode, Option<&str>, &[u8]),
    node: &str,
    by_socket: bool,
) -> Result<Bytes, Status> {
    if status == StatusCode::OK && content_type == Some(CONTENT_TYPE) {
        return csi::web::answered(body);
    }
    let words = words(body);
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(Status::permission_denied(format!(
            "node {node}: {words} (csidriver's account needs the verb create on nodes/proxy of this node)"
        ))),
        StatusCode::NOT_IMPLEMENTED => Err(Status::unimplemented(words)),
        StatusCode::SERVICE_UNAVAILABLE if by_socket => Err(Status::unavailable(format!(
            "{words} (where another CloudCore may have the node, give csidriver --kubeedge-endpoint=https://kubernetes.default.svc)"
        ))),
        _ => Err(Status::unavailable(format!("node {node}: {words} (HTTP status {})", status.as_u16()))),
    }
}

/// The sentence of a `metav1.Status`, or of a text.
fn words(body: &[u8]) -> String {
    let said = serde_json::from_slice::<serde_json::Value>(body).ok();
    let said = said.as_ref().and_then(|said| said.get("message")?.as_str());
    let text = String::from_utf8_lossy(body);
    let text = said.unwrap_or(&text).trim();
    let text = text.get(..text.floor_char_boundary(WORDS_MAX)).unwrap_or_default();
    if text.is_empty() { "no words came with it".to_owned() } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic::Code;

    #[test]
    fn kubeedges_endpoints_are_understood_and_an_api_server_beside_them() {
        assert_eq!(socket_path("unix:///csi/csi.sock"), Ok(PathBuf::from("/csi/csi.sock")));
        for wrong in ["", "/csi/csi.sock", "unix://", "unix:///", "unix://csi/csi.sock", "tcp://127.0.0.1:1"]
        {
            assert_eq!(socket_path(wrong), Err(EndpointError::NoSocket(wrong.to_owned())), "{wrong}");
        }
        assert!(socket_path(&format!("unix:///{}", "x".repeat(107))).is_err());
        let of = |text: &str| text.parse::<KubeEdgeEndpoint>();
        let socket = KubeEdgeEndpoint::Socket(PathBuf::from("/kubeedge/kubeedge.sock"));
        assert_eq!(of("unix:///kubeedge/kubeedge.sock"), Ok(socket));
        let api = "https://kubernetes.default.svc";
        assert_eq!(of(api), Ok(KubeEdgeEndpoint::ApiServer(api.to_owned())));
        for wrong in ["https://", "http://kubernetes", "kubeedge.sock"] {
            assert_eq!(of(wrong), Err(EndpointError::Unknown(wrong.to_owned())));
        }
    }

    #[test]
    fn a_callers_time_is_read() {
        for (header, expected) in [
            ("10S", Some(Duration::from_secs(10))),
            ("9999m", Some(Duration::from_millis(9999))),
            ("1H", Some(Duration::from_secs(3600))),
            ("2M", Some(Duration::from_secs(120))),
            ("99999999n", Some(Duration::from_nanos(99_999_999))),
            ("5u", Some(Duration::from_micros(5))),
            ("", None),
            ("S", None),
            ("-1S", None),
            ("1s", None),
            ("123456789S", None),
            ("1ü", None),
        ] {
            assert_eq!(timeout(header), expected, "{header}");
        }
    }

    #[test]
    fn a_drivers_status_passes_and_what_stands_in_the_way_may_be_tried_again() {
        let web = csi::web::answer(&Err(Status::failed_precondition("in use")));
        let ok = (StatusCode::OK, Some(CONTENT_TYPE), &web[..]);
        let said = answered(ok, "n", true).unwrap_err();
        assert_eq!((said.code(), said.message()), (Code::FailedPrecondition, "in use"));
        let of = |status: u16, body: &str| {
            let status = StatusCode::from_u16(status).unwrap();
            answered((status, Some("text/plain"), body.as_bytes()), "edge-1", true).unwrap_err()
        };
        let offline = of(503, "node `edge-1` is not linked to this CloudCore\n");
        assert_eq!(offline.code(), Code::Unavailable);
        assert!(
            offline.message().starts_with("node `edge-1` is not linked to this CloudCore ("),
            "{offline}"
        );
        let status = r#"{"kind":"Status","message":"nodes \"edge-1\" not found","code":404}"#;
        let missing = of(404, status);
        assert_eq!(
            (missing.code(), missing.message()),
            (Code::Unavailable, "node edge-1: nodes \"edge-1\" not found (HTTP status 404)")
        );
        for (status, code) in [
            (200, Code::Unavailable),
            (301, Code::Unavailable),
            (400, Code::Unavailable),
            (401, Code::PermissionDenied),
            (403, Code::PermissionDenied),
            (429, Code::Unavailable),
            (500, Code::Unavailable),
            (501, Code::Unimplemented),
            (502, Code::Unavailable),
            (504, Code::Unavailable),
        ] {
            assert_eq!(of(status, "").code(), code, "{status}");
        }
        assert!(of(502, &"ü".repeat(10_000)).message().len() < 1200);
    }
}
