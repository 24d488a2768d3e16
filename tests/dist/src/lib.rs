//! Makes what is shipped, reproducibly: programs, images without a daemon, a Debian package, bills of materials, sums, where all comes
//! from, and signatures.
//!
//! `release` says the order; `parts` what there is to ship; `target` for which machines; `compile` has cargo build, with neither folder
//! nor user in the programs; `programs` looks at what is packed (with `modules/elf`); `archive`, `image` and `deb` pack; `crates` and `sbom` say what
//! is linked, and `notices` its licences; `provenance`, `signing` and
//! `cosign` vouch.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod archive;
mod certificates;
mod command;
pub mod compile;
pub mod cosign;
pub mod crates;
pub mod deb;
pub mod folder;
pub mod image;
mod json;
pub mod notices;
pub mod order;
pub mod parts;
pub mod programs;
pub mod provenance;
pub mod release;
pub mod sbom;
pub mod signing;
pub mod source;
pub mod target;

use std::path::PathBuf;

use anyhow::{Context as _, Result};

/// The repository that this crate belongs to: as cargo says at run time, because a clone may be moved after a build.
///
/// # Errors
/// When this crate lies in none.
pub fn root() -> Result<PathBuf> {
    let folder = std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    Ok(folder.ancestors().nth(2).context("no workspace above this crate")?.to_path_buf())
}
