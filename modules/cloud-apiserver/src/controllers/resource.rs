//! A kind as the client names it.

use apimachinery::Kind;
use kube::api::ApiResource;

/// The resource of a kind.
pub(crate) fn api_resource(kind: &Kind) -> ApiResource {
    ApiResource {
        group: kind.group.to_string(),
        version: kind.version.to_string(),
        api_version: kind.api_version(),
        kind: kind.kind.to_string(),
        plural: kind.plural.to_string(),
    }
}

/// A name as one part of a path. Names of roles and their like hold spaces and more (`IsValidPathSegmentName`), and what an owner
/// is called is the choice of whoever wrote the reference. `None`: nothing can have that name.
pub(super) fn path_segment(name: &str) -> Option<String> {
    if matches!(name, "" | "." | "..") || name.contains(['/', '%']) {
        return None;
    }
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~' | b':');
    let mut segment = String::with_capacity(name.len());
    for byte in name.bytes() {
        if plain(byte) {
            segment.push(char::from(byte));
        } else {
            segment.push_str(&format!("%{byte:02X}"));
        }
    }
    Some(segment)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_an_object_is_called_its_path_can_be_asked_for() {
        assert_eq!(path_segment("system:node-1.x").as_deref(), Some("system:node-1.x"));
        assert_eq!(path_segment("a b?c#d\u{1}ü").as_deref(), Some("a%20b%3Fc%23d%01%C3%BC"));
        for odd in ["a b", "ü\n", "?x=1", "#", "\u{7f}", "a\\b", "{}"] {
            let path = format!("/api/v1/namespaces/d/configmaps/{}", path_segment(odd).unwrap());
            path.parse::<http::Uri>().unwrap();
        }
        for none in ["", ".", "..", "a/b", "%2e"] {
            assert_eq!(path_segment(none), None, "{none}");
        }
    }
}
