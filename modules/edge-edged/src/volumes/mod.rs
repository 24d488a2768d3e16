//! Volumes: what they hold, how they get onto the node's disk, and how they go.

mod atomic;
mod host;
mod mounts;
mod payload;
mod prepare;
mod subpath;

pub(crate) use host::write_hosts;
pub(crate) use payload::{TokenWant, Tokens, token_wants};
pub(crate) use prepare::{Prepared, prepare, teardown};
pub(crate) use subpath::mounts_of;
