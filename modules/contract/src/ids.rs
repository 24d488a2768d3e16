//! Names, parsed once at the border.

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// On an object that a node reports about: which of the node's reports it holds. On Nodes and pods `EPOCH.ROW/UID` (the
/// session's epoch, the outbox row, and the object, so that a mark which was copied with a manifest counts for nothing); on
/// a DeviceStatus JSON with a row for each property. CloudCore's own, and never sent to nodes.
pub const REPORTED_ANNOTATION: &str = "kubehive.io/reported";

/// 253: the longest DNS-1123 subdomain, which is what Kubernetes allows for most names.
pub const NAME_MAX: usize = 253;

/// Why a name was refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "{what} `{shown}` is not a DNS-1123 subdomain: use lower-case letters, digits, `-` and `.`, at most 253, beginning and ending with a letter or digit"
)]
pub struct ParseIdError {
    /// What kind of name it was to be.
    pub what: &'static str,
    /// The refused text, cut to 64 characters.
    pub shown: String,
}

/// Whether `text` is a DNS-1123 subdomain (RFC 1123, as Kubernetes checks it).
pub fn is_dns1123_subdomain(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= NAME_MAX
        && text.split('.').all(|label| {
            let bytes = label.as_bytes();
            let edge = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
            edge(bytes.first())
                && edge(bytes.last())
                && bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-')
        })
}

/// The name of an edge node, as in its Node object and in its certificate (`system:node:<name>`).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NodeName(String);

impl NodeName {
    /// Parses a node name.
    ///
    /// # Errors
    /// When it is not a DNS-1123 subdomain.
    pub fn parse(text: &str) -> Result<Self, ParseIdError> {
        if is_dns1123_subdomain(text) {
            Ok(NodeName(text.to_owned()))
        } else {
            Err(ParseIdError { what: "node name", shown: text.chars().take(64).collect() })
        }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for NodeName {
    type Error = ParseIdError;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        NodeName::parse(&text)
    }
}

impl From<NodeName> for String {
    fn from(name: NodeName) -> String {
        name.0
    }
}

impl std::fmt::Display for NodeName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// Which object: `resource` is the plural for the core group (`pods`) and `plural.group` for the others
/// (`devices.devices.kubeedge.io`), as Kubernetes writes a GroupResource. Cluster-scoped objects have no namespace.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ObjectKey {
    /// The GroupResource.
    pub resource: String,
    /// The namespace; empty for cluster-scoped objects.
    pub namespace: String,
    /// The name.
    pub name: String,
}

impl ObjectKey {
    /// A key from its parts.
    pub fn new(resource: &str, namespace: &str, name: &str) -> Self {
        ObjectKey { resource: resource.to_owned(), namespace: namespace.to_owned(), name: name.to_owned() }
    }
}

impl std::fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}/{}", self.resource, self.namespace, self.name)
    }
}

/// `pods`
pub const PODS: &str = "pods";
/// `configmaps`
pub const CONFIG_MAPS: &str = "configmaps";
/// `secrets`
pub const SECRETS: &str = "secrets";
/// `nodes`
pub const NODES: &str = "nodes";
/// `devices.devices.kubeedge.io`
pub const DEVICES: &str = "devices.devices.kubeedge.io";
/// `devicemodels.devices.kubeedge.io`
pub const DEVICE_MODELS: &str = "devicemodels.devices.kubeedge.io";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_dns_subdomains() {
        for good in ["a", "edge-1", "a.b-c.d", "0"] {
            assert!(NodeName::parse(good).is_ok(), "{good}");
        }
        for bad in ["", "-a", "a-", "A", "a..b", ".a", "a_b", "a/b", "é", &"a".repeat(254)] {
            assert!(NodeName::parse(bad).is_err(), "{bad}");
        }
    }
}
