//! What the rules are given by whoever serves them: clock, randomness, version.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use jiff::Timestamp;

/// What `/version` says.
#[derive(Debug, Clone)]
pub struct VersionInfo {
    /// `1`
    pub major: String,
    /// `33`
    pub minor: String,
    /// `v1.36.0+…`
    pub git_version: String,
}

/// Clock, randomness and version.
#[derive(Clone)]
pub struct Options {
    /// Wall time.
    pub now: Arc<dyn Fn() -> Timestamp + Send + Sync>,
    /// Random bytes for uids and names.
    pub random: Arc<dyn Fn() -> [u8; 16] + Send + Sync>,
    /// Completes after a pause, for the ends of watches.
    pub sleep: Arc<dyn Fn(Duration) -> BoxFuture<'static, ()> + Send + Sync>,
    /// What `/version` says.
    pub version: VersionInfo,
}
