//! How Kubernetes lets names, labels and their values be written (apimachinery `pkg/util/validation`).

/// 253: the longest DNS-1123 subdomain.
pub const SUBDOMAIN_MAX: usize = 253;
/// 63: the longest DNS-1123 label, name behind a prefix, and value of a label.
pub const LABEL_MAX: usize = 63;

/// Whether `text` is a DNS-1123 label (RFC 1123, as Kubernetes checks it).
pub fn is_dns1123_label(text: &str) -> bool {
    text.len() <= LABEL_MAX && is_part(text)
}

/// Whether `text` is a DNS-1123 subdomain (RFC 1123, as Kubernetes checks it).
pub fn is_dns1123_subdomain(text: &str) -> bool {
    // As Kubernetes has it, the labels of a subdomain are bounded by the whole alone.
    !text.is_empty() && text.len() <= SUBDOMAIN_MAX && text.split('.').all(is_part)
}

/// Lower-case letters, digits and `-`, beginning and ending with a letter or digit.
fn is_part(text: &str) -> bool {
    let bytes = text.as_bytes();
    let edge = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    edge(bytes.first())
        && edge(bytes.last())
        && bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-')
}

/// Whether `text` can be the value of a label: at most 63 of letters, digits, `-`, `_` and `.`, with letters or digits at the ends; or
/// nothing.
pub fn is_label_value(text: &str) -> bool {
    let bytes = text.as_bytes();
    let end = |byte: Option<&u8>| byte.is_none_or(u8::is_ascii_alphanumeric);
    bytes.len() <= LABEL_MAX
        && end(bytes.first())
        && end(bytes.last())
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(byte))
}

/// Whether `text` can be the key of a label or taint: `[PREFIX/]NAME`, the prefix a DNS-1123 subdomain.
pub fn is_qualified_name(text: &str) -> bool {
    let is_name = |name: &str| !name.is_empty() && is_label_value(name);
    match text.split_once('/') {
        Some((prefix, name)) => is_dns1123_subdomain(prefix) && is_name(name),
        None => is_name(text),
    }
}

/// Whether a resource of a Node or a container is one that Kubernetes itself knows nothing of (`IsExtendedResourceName`).
pub fn is_extended_resource(name: &str) -> bool {
    // A quota writes `requests.` before it, and that has to be a name, too.
    name.contains('/')
        && !name.contains("kubernetes.io/")
        && !name.starts_with("requests.")
        && is_qualified_name(&format!("requests.{name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_values_of_labels_are_kubernetes_own() {
        for key in ["a", "A-b_c.9", "example.com/site", &format!("{}/x", "a".repeat(253))] {
            assert!(is_qualified_name(key), "{key}");
        }
        let long = "a".repeat(64);
        for key in ["", "-a", "a b", "a/b/c", "/a", "a/", "Example.com/x", &long, &format!("a/{long}")] {
            assert!(!is_qualified_name(key), "{key}");
        }
        assert!(
            is_label_value("") && is_label_value("a.B_9") && !is_label_value("a/b") && !is_label_value(&long)
        );
        assert!(is_dns1123_label("a-1") && !is_dns1123_label("a.b") && !is_dns1123_label("A"));
        assert!(
            is_dns1123_subdomain("a.b-c") && !is_dns1123_subdomain("a..b") && !is_dns1123_subdomain("a_b")
        );
    }

    #[test]
    fn an_extended_resource_is_one_that_kubernetes_does_not_know() {
        for name in ["example.com/foo", "nvidia.com/gpu", "example.com/Foo_1.x"] {
            assert!(is_extended_resource(name), "{name}");
        }
        let long = format!("{}/x", "a".repeat(245));
        for name in ["cpu", "hugepages-2Mi", "kubernetes.io/x", "a.kubernetes.io/x", "requests.example.com/x"]
            .into_iter()
            .chain(["attachable-volumes-csi-x", "/x", "x/", "example.com/-x", "example.com/x/y", &long])
        {
            assert!(!is_extended_resource(name), "{name}");
        }
    }
}
