//! Volumes: what they hold, how they get onto the node's disk, and how they go.

mod atomic;
pub(crate) mod claims;
mod content;
mod csi_volume;
pub(crate) mod devices;
mod empty_dir;
mod env_file;
pub(crate) mod expansion;
pub(crate) mod external;
pub(crate) mod host;
mod hosts_file;
mod mount_program;
mod nested;
mod others_sub_path;
pub(crate) mod ownership;
mod payload;
mod prepare;
mod projected;
mod subpath;
mod teardown;
#[cfg(test)]
mod tests;
pub(crate) mod uses;

pub(crate) use env_file::{EnvFiles, read_env_files};
pub(crate) use hosts_file::write_hosts;
pub(crate) use others_sub_path::{OthersSubPath, others_sub_paths};
pub(crate) use prepare::{Prepared, PreparedVolumes, Volume, VolumeLocation, named, prepare};
pub(crate) use projected::{TokenRequest, Tokens, token_requests};
pub(crate) use subpath::{MountContext, mounts_of, recursive_read_only};
pub(crate) use teardown::Teardown;
pub(crate) use uses::used;
