//! CloudCore's Helm chart (`cloud/deploy/chart`), and what it renders to without Helm.
//!
//! The chart is the one home of what CloudCore is installed with. `helm install` renders it, and so does `keadm init`, from here:
//! the templates are Go's, the functions in them those of Helm that the chart uses. Tests hold that both give the same objects.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod error;
mod files;
mod functions;
mod override_values;
mod ownership;
mod render;
mod schema;
mod semver;
mod values;
mod yaml_text;

pub use error::ChartError;
pub use override_values::set;
pub use ownership::{
    NAMESPACE, NODES_NAMESPACE, RELEASE, is_of_release, namespace, owned, release_namespace,
};
pub use render::{Capabilities, image, render};
pub use values::{VALUES_MAX, defaults, parse, with_defaults};

/// The version of the chart, and of the programs that it installs: `0.1.0`.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The chart's `values.yaml`, with what each value means.
pub const VALUES_FILE: &str = files::VALUES;
