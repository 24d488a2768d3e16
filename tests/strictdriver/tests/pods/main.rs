//! Edged and EdgeCsi against a real containerd and the strict driver: pods with claims.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod claims;
mod devices;
