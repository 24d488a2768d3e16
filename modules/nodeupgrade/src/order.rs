//! What is asked for, and what the files are called that it is about.

use std::path::PathBuf;

/// What edgecore is called in an image and in a backup.
pub(crate) const EDGECORE: &str = "edgecore";
pub(crate) const KEADM: &str = "keadm";
pub(crate) const SETTINGS: &str = "edgecore.yaml";

/// What holds for an upgrade and for a rollback.
#[derive(Debug, Clone)]
pub struct Order {
    /// The node's `edgecore.yaml`.
    pub config: PathBuf,
    /// The program that takes up what a power cut ends.
    pub keadm: PathBuf,
    /// It is enough that the new edgecore answers and stays, without the cloud.
    pub offline_ok: bool,
    /// Seconds within which it has to be healthy.
    pub within: u64,
}
