//! Images: credentials, pulls, and which pod may use one that is present.

pub(crate) mod access;
pub(crate) mod credentials;
pub(crate) mod pull;
