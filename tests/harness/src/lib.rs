//! What tests are built with: stand-ins that refuse what the real parts refuse.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod cloud;
mod objects;

pub use cloud::EnrolmentCloud;
pub use objects::Objects;
