//! What of a node's redirects leaves CloudCore. Pure.
//!
//! Whoever asks follows one with his credentials: `kubectl` would bring an administrator's token wherever a captured node says, or
//! run a command elsewhere in his name (as CVE-2020-8559 and CVE-2022-3172 of Kubernetes). A kubelet redirects in one place only:
//! a folder of `/logs/` is asked for without its slash. Where that leads is known here, and the node is not asked.

use http::{HeaderValue, StatusCode};

/// Folders of logs.
const LOGS: &str = "/logs/";

/// Whether a client may go elsewhere for such a status.
pub(crate) fn is_one(status: StatusCode) -> bool {
    status.is_redirection() && status != StatusCode::NOT_MODIFIED
}

/// The same path with its slash, as seen from there; `None` where nobody is to be sent elsewhere.
pub(crate) fn to_folder(path: &str) -> Option<HeaderValue> {
    let last = path.strip_prefix(LOGS)?.rsplit('/').next().filter(|last| !last.is_empty())?;
    // With "./" before it, a name with a colon is no scheme.
    HeaderValue::from_str(&format!("./{last}/")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_sent_elsewhere_but_to_a_folder_of_logs() {
        let there = |path: &str| to_folder(path).map(|value| value.to_str().unwrap().to_owned());
        assert_eq!(there("/logs/pods"), Some("./pods/".to_owned()));
        assert_eq!(there("/logs/pods/a%2Fb:c"), Some("./a%2Fb:c/".to_owned()));
        for path in ["/logs/", "/logs/pods/", "/containerLogs/d/p/c", "/exec/d/p/c", "/metrics", "/healthz"] {
            assert_eq!(there(path), None, "{path}");
        }
        let all =
            [(301, true), (302, true), (304, false), (307, true), (308, true), (200, false), (404, false)];
        for (status, expected) in all {
            assert_eq!(is_one(StatusCode::from_u16(status).unwrap()), expected, "{status}");
        }
    }
}
