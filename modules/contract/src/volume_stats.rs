//! What the volumes of pods hold, as `/stats/summary` and the node's metrics show it.

use std::collections::BTreeMap;

/// A volume and the file system that it is on. What is not known is 0, as with a kubelet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct VolumeUsage {
    /// When it was measured, in nanoseconds since 1970.
    pub at: i64,
    /// Bytes that can still be written.
    pub available: u64,
    /// Bytes of the whole.
    pub capacity: u64,
    /// Bytes that the volume takes.
    pub used: u64,
    /// Inodes that can still be made.
    pub inodes_free: u64,
    /// Inodes of the whole.
    pub inodes: u64,
    /// Inodes that the volume takes.
    pub inodes_used: u64,
}

/// One volume of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeStats {
    /// As the pod calls it.
    pub name: String,
    /// The claim that it is of, in the pod's namespace.
    pub claim: Option<String>,
    /// It is on the node's disk and counts as the pod's ephemeral storage.
    pub is_ephemeral: bool,
    /// What it holds.
    pub usage: VolumeUsage,
}

/// The volumes of pods, by the pods' uids.
pub type VolumesOfPods = BTreeMap<String, Vec<VolumeStats>>;
