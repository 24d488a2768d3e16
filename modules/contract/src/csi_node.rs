//! What a node tells of its CSI drivers, as its CSINode and its Node say it to the cluster.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// On the Node that a node reports: the JSON of a list of [`CsiNodeDriver`]. Without it nothing is known of drivers; an empty
/// list says that there is none.
pub const CSI_DRIVERS_ANNOTATION: &str = "kubehive.io/csi-drivers";
/// 64 drivers of one node.
pub const CSI_DRIVERS_MAX: usize = 64;
/// 16 parts of a driver's topology.
pub const CSI_TOPOLOGY_MAX: usize = 16;
/// 317 bytes of a topology's key: a domain and a name, as labels have them.
pub const CSI_TOPOLOGY_KEY_MAX: usize = 317;
/// 63 bytes of its value, as labels have them.
pub const CSI_TOPOLOGY_VALUE_MAX: usize = 63;
/// 192 bytes of a driver's id of the node: what a CSINode may hold.
pub const CSI_NODE_ID_MAX: usize = 192;
/// 63 bytes of a driver's name (CSI's own bound).
pub const CSI_DRIVER_NAME_MAX: usize = 63;

/// One driver that is registered on the node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CsiNodeDriver {
    /// Its name.
    pub name: String,
    /// What it calls the node.
    #[serde(rename = "nodeID")]
    pub node_id: String,
    /// Where the node lies for it, as labels.
    #[serde(default)]
    pub topology: BTreeMap<String, String>,
    /// How many volumes it can attach there; 0 or less: it does not say.
    #[serde(default)]
    pub max_volumes: i64,
}

impl CsiNodeDriver {
    /// Whether its name and id are what Kubernetes takes.
    pub fn is_valid(&self) -> bool {
        is_driver_name(&self.name)
            && !self.node_id.is_empty()
            && self.node_id.len() <= CSI_NODE_ID_MAX
            && self.topology.len() <= CSI_TOPOLOGY_MAX
            && self.topology.iter().all(|(key, value)| {
                key.len() <= CSI_TOPOLOGY_KEY_MAX && value.len() <= CSI_TOPOLOGY_VALUE_MAX
            })
    }
}

/// Whether a text is a driver's name: at most 63 of letters, digits, `-`, `_` and `.`, letters or digits at the ends.
pub fn is_driver_name(name: &str) -> bool {
    let bytes = name.as_bytes();
    let is_end = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    bytes.len() <= CSI_DRIVER_NAME_MAX
        && is_end(bytes.first())
        && is_end(bytes.last())
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topology_is_no_longer_than_labels_are() {
        let with = |key: usize, value: usize| CsiNodeDriver {
            name: "d.io".to_owned(),
            node_id: "n".to_owned(),
            topology: [("k".repeat(key), "v".repeat(value))].into(),
            max_volumes: 0,
        };
        assert!(with(317, 63).is_valid());
        assert!(!with(318, 63).is_valid() && !with(317, 64).is_valid());
    }

    #[test]
    fn a_drivers_name_is_fit_to_be_a_folder() {
        for name in ["hostpath.csi.k8s.io", "a", "A_b-c.d"] {
            assert!(is_driver_name(name), "{name}");
        }
        for name in ["", ".", "..", "a/b", "-a", "a.", "a b", &"a".repeat(64)] {
            assert!(!is_driver_name(name), "{name}");
        }
    }
}
