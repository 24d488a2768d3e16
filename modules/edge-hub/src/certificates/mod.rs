//! The node's certificate, its key and the CAs that it trusts: on the disk, in use, and when they change.

mod files;
mod identity;
mod renewal_plan;
mod servers;

pub use files::{FilesError, IdentityFiles, StoredIdentity, WriteStep};
pub use identity::NodeCertificates;
pub(crate) use identity::{RenewalFailure, TrustTaken, judged_by};
pub use renewal_plan::RenewalPlan;
pub use servers::kept_servers;

#[cfg(test)]
pub(crate) use identity::tests as identity_tests;
