//! CloudCore in a cluster: `keadm init`, `manifest`, `config images` and `reset cloud`.
//!
//! The objects are those of the Helm chart (`cloud/deploy/chart`), which is within the program.

mod applier;
mod capabilities;
mod chart_args;
mod definitions;
mod found;
mod images;
mod init;
mod manifest;
mod preflight;
mod rollout;
mod teardown;

pub use chart_args::{ChartArgs, namespace};
pub use found::namespace_of;
pub use images::{ImagesCommand, show_images};
pub use init::{Init, init};
pub use manifest::{Manifest, manifest};
pub use teardown::{Teardown, teardown};
