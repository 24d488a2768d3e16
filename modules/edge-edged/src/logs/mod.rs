//! Containers' logs on the disk: they are rotated at a size, and found by a link below `/var/log/containers`.

pub(crate) mod actor;
mod compression;
pub(crate) mod files;
mod plan;
