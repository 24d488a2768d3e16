//! Images: credentials, pulls, which pod may use one that is present, and the removal of those that nothing uses.

pub(crate) mod access;
pub(crate) mod collection;
pub(crate) mod collector;
pub(crate) mod credentials;
mod keyring;
pub(crate) mod pull;
pub(crate) mod pull_words;
pub(crate) mod pulls;
pub(crate) mod reference;
pub(crate) mod volume;
