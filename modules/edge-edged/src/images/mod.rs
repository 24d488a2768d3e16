//! Images: credentials, pulls, and which pod may use one that is present.

pub(crate) mod access;
pub(crate) mod credentials;
mod keyring;
pub(crate) mod pull;
pub(crate) mod pull_words;
mod reference;
