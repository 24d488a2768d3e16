//! Names, parsed once at the border.

use apimachinery::NamespacedName;
pub use apimachinery::ObjectKey;
pub use apimachinery::names::{LABEL_MAX, SUBDOMAIN_MAX as NAME_MAX, is_dns1123_label, is_dns1123_subdomain};
pub use apimachinery::node_label::{CONTROL_PLANE_ROLES, EDGE_LABEL, EDGE_ROLES};
pub use apimachinery::resource::{
    CONFIG_MAPS, CONFIG_UPDATE_JOBS, CSI_DRIVERS, DEVICE_MODELS, DEVICES, IMAGE_PRE_PULL_JOBS,
    NODE_UPGRADE_JOBS, NODES, PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES, PODS, RULE_ENDPOINTS, RULES,
    SECRETS, SERVICES, VOLUME_ATTACHMENTS,
};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// On an object that a node reports about: which of the node's reports it holds. On Nodes and pods `EPOCH.ROW/UID` (the
/// session's epoch, the outbox row, and the object, so that one which was copied with a manifest counts for nothing), and
/// `/PHASE` behind it once the node has reported a pod's end (module `pod_status`); on a DeviceStatus JSON with a row for
/// each property. CloudCore's own, and never sent to nodes.
pub const REPORTED_ANNOTATION: &str = "kubehive.io/reported";

/// Which address of a Node is a CloudCore's, so that the next one can tell it from the node's own. Empty: none.
pub const KUBELET_ADDRESS_ANNOTATION: &str = "kubehive.io/kubelet-address";

/// On a pod with the value `true`: it begins only when somebody on the node releases it (KubeEdge).
pub const HOLD_UPGRADE_ANNOTATION: &str = "edge.kubeedge.io/hold-upgrade";

/// On the Nodes that are CloudCore's, by CloudCore, with nothing as its value. Whose a Node is, it does not decide.
pub const OWN_LABEL: &str = "kubehive.io/own";

/// On a Namespace with the value `allowed`: the mirrors of static pods there have the labels that their nodes say.
pub const MIRROR_LABELS_LABEL: &str = "kubehive.io/mirror-labels";

/// 64: the longest uid that is taken. The API server's own are UUIDs, those of static pods hashes.
pub const UID_MAX: usize = 64;

/// 128: the longest name of a device's property (KubeEdge).
pub const PROPERTY_MAX: usize = 128;

/// Why a name was refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{what} `{shown}` is not {rule}")]
pub struct ParseIdError {
    /// What kind of name it was to be.
    pub what: &'static str,
    /// The refused text, cut to 64 characters and escaped: whoever chose it cannot write a log line of its own.
    pub shown: String,
    /// What it would have to be.
    pub rule: &'static str,
}

impl ParseIdError {
    fn new(what: &'static str, text: &str, rule: &'static str) -> Self {
        ParseIdError { what, shown: text.chars().take(64).flat_map(char::escape_default).collect(), rule }
    }
}

const SUBDOMAIN: &str = "a DNS-1123 subdomain: use lower-case letters, digits, `-` and `.`, at most 253, beginning and ending with a letter or digit";
const LABEL: &str = "a DNS-1123 label: use lower-case letters, digits and `-`, at most 63, beginning and ending with a letter or digit";
const UID: &str = "1 to 64 of a-z A-Z 0-9 - . _, beginning with a letter or digit";
const PROPERTY: &str = "1 to 128 of a-z A-Z 0-9 - _ . , : / @ #";

fn is_uid(text: &str) -> bool {
    text.len() <= UID_MAX
        && text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b))
}

fn is_property(text: &str) -> bool {
    (1..=PROPERTY_MAX).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.,:/@#".contains(&b))
}

/// A text that has been parsed: there is no other way to one.
macro_rules! parsed {
    ($(#[$doc:meta])* $name:ident, $what:literal, $holds:path, $rule:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(String);

        impl $name {
            /// Parses it.
            ///
            /// # Errors
            /// When it is something else; the error says what it would have to be.
            pub fn parse(text: &str) -> Result<Self, ParseIdError> {
                if $holds(text) {
                    Ok($name(text.to_owned()))
                } else {
                    Err(ParseIdError::new($what, text, $rule))
                }
            }

            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

parsed!(
    /// The namespace of an object that a node speaks of.
    Namespace,
    "namespace",
    is_dns1123_label,
    LABEL
);
parsed!(
    /// The name of an object that a node speaks of: a pod, an event, a device, a service account.
    ObjectName,
    "name",
    is_dns1123_subdomain,
    SUBDOMAIN
);
parsed!(
    /// The uid of an object. It is compared, and stands in the body of a request, never in its path.
    Uid,
    "uid",
    is_uid,
    UID
);
parsed!(
    /// The name of a device's property.
    PropertyName,
    "property",
    is_property,
    PROPERTY
);

/// The namespace and name of a Device or a DeviceModel. Both parts have been parsed: there is no other way to one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceName(NamespacedName);

impl DeviceName {
    /// Parses both parts.
    ///
    /// # Errors
    /// When a part is no such name.
    pub fn parse(namespace: &str, name: &str) -> Result<Self, ParseIdError> {
        let (namespace, name) = (Namespace::parse(namespace)?, ObjectName::parse(name)?);
        Ok(DeviceName(NamespacedName::new(namespace.0, name.0)))
    }
}

impl std::str::FromStr for DeviceName {
    type Err = ParseIdError;

    /// `namespace/name`, as it is displayed.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (namespace, name) = text.split_once('/').unwrap_or((text, ""));
        DeviceName::parse(namespace, name)
    }
}

impl std::ops::Deref for DeviceName {
    type Target = NamespacedName;

    fn deref(&self) -> &NamespacedName {
        &self.0
    }
}

impl From<DeviceName> for NamespacedName {
    fn from(name: DeviceName) -> Self {
        name.0
    }
}

impl std::fmt::Display for DeviceName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
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
            Err(ParseIdError::new("node name", text, SUBDOMAIN))
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

    /// Whatever would mean something in a path or a query.
    #[test]
    fn nothing_that_parses_means_anything_in_a_url() {
        for bad in
            ["", "a/b", "dev1?x=", "a#b", "a%2fb", "..", ".", "a b", "a\nb", "a\0", "../nodes", "a\\b", "&a"]
        {
            assert!(Namespace::parse(bad).is_err() && ObjectName::parse(bad).is_err(), "{bad:?}");
        }
        for bad in ["", "a/b", "a?b", "a%b", "a b", "a\nb", &"a".repeat(65)] {
            assert!(Uid::parse(bad).is_err(), "{bad:?}");
        }
        for bad in ["", "a?b", "a b", "a\nb", "\u{e9}", &"a".repeat(129)] {
            assert!(PropertyName::parse(bad).is_err(), "{bad:?}");
        }
        assert!(Namespace::parse("a.b").is_err() && Namespace::parse(&"a".repeat(64)).is_err());
        assert!(Namespace::parse("kube-system").is_ok() && ObjectName::parse("web-0.x").is_ok());
        assert!(Uid::parse("0b9a7f6e-1d2c-4e5f-8a9b-0c1d2e3f4a5b").is_ok());
        assert!(PropertyName::parse("room/temp:1,2@x#y").is_ok());
    }

    #[test]
    fn what_is_refused_cannot_write_a_log_line_of_its_own() {
        let error = Namespace::parse("a\n2026-01-01 ERROR root: all is lost").unwrap_err().to_string();
        assert!(
            !error.contains('\n') && error.contains("a\\n2026") && error.contains("DNS-1123 label"),
            "{error}"
        );
    }
}
