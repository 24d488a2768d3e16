//! Certificates of the cluster that end and are made anew: the CA, what CloudCore shows, what nodes are given over their links.
//!
//! # How a CA gives way to its successor
//! 1. Ahead of its end, or when somebody asks for it, a successor is made ([`rotation`]) and signed by the CA as well. Both are trusted,
//!    at both ends of every link, and the elder signs.
//! 2. After the lead (`caLeadDuration`) the successor signs; the elder's key is forgotten. Both are trusted. Whoever knows the elder
//!    alone finds the way by the successor as the elder has signed it, which every server shows.
//! 3. When no certificate of the elder's may be renewed any more, it is trusted no longer.
//!
//! Each step is one compare-and-swap on the Secret, so that however many CloudCores come to it, one takes it, and the others read it.

mod clock_doubt;
mod keeper;
pub(crate) mod record;
mod renewal;
pub(crate) mod rotation;
mod server_certificate;

pub use clock_doubt::ClockDoubt;
pub(crate) use keeper::days_left;
pub use keeper::{CertificateKeeper, CertificatesMsg, KeeperDependencies};
pub use renewal::RenewalSettings;
pub(crate) use renewal::Renewals;
pub use rotation::AuthorityLives;
pub use server_certificate::{ServerCertificate, ShownChain};
