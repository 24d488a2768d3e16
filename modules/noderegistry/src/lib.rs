//! The register of edge nodes and join tokens, and the one place where it is decided and written down whose a Node is.
//!
//! # The rule
//! A Node object is ours if CloudCore made it for a node that joined, or if an administrator adopted it; both are meant by
//! uid, so that a Node that is deleted and made again under the same name is another one. See [`plan::ownership`].
//! # Where it stands
//! One [`crd::EdgeNode`] for each name and one [`crd::JoinToken`] for each token, so that nothing grows with the fleet: a
//! join is a fixed number of calls. Every write is a compare-and-swap on the object's resource version.
//! # Who uses it
//! CloudHub (enrolment, and the watch that ends links), EdgeController (makes the Nodes, admits the nodes' sessions) and
//! keadm's verbs. All that `keadm` does here, `kubectl` does as well, on the same objects.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod error;
pub mod plan;
mod register;
mod tokens;
mod watch;

pub use error::{AdmissionError, EnrolmentError, RegistryError};
pub use plan::{AdmittedNode, Certificate, Entry, NodeObject, Ownership, Refusal, TokenClaims};
pub use register::{EnrolmentRequest, Registry, Removal, Revoked};
pub use tokens::{ListedToken, NewToken, TOKEN_USES};
pub use watch::{RegistryEvent, RegistryStatus};

/// Annotation of a Node: the uid of the Node that an administrator adopted. Of any other uid (a manifest that was copied, a
/// Node that was made anew) it says nothing.
pub const ADOPTED_ANNOTATION: &str = "kubehive.io/adopted";
/// Annotation of a Node that CloudCore made: the serial of the certificate that it was made for.
pub const ENROLMENT_ANNOTATION: &str = "kubehive.io/enrolment";
