//! Volumes: what they hold, how they get onto the node's disk, and how they go.

mod atomic;
mod host;
mod payload;
mod prepare;
mod subpath;
mod teardown;
#[cfg(test)]
mod tests;

pub(crate) use host::write_hosts;
pub(crate) use payload::{TokenRequest, Tokens, token_requests};
pub(crate) use prepare::{PreparedVolumes, Volume, VolumeLocation, prepare};
pub(crate) use subpath::mounts_of;
pub(crate) use teardown::Teardown;
