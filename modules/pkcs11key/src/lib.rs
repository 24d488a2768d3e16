//! A private key in a PKCS#11 token (a TPM, a smart card, an HSM): it is made there, it signs there, and never leaves it.
//!
//! Our programs are linked with their C library and load nothing, so the module that speaks to the token is loaded by a process of its
//! own: `pkcs11-tool` of [OpenSC](https://github.com/OpenSC/OpenSC), begun for each signature. It is given arguments and no shell, its PIN by
//! its environment, and a time to end in.
//!
//! * Which token it is stands in a URI (RFC 7512, [`TokenUri`]).
//! * Where a key's file is wanted there is one that names the key instead ([`TokenKey::pem`]): PEM as OpenSSL's pkcs11-provider
//!   writes and reads it, with the public key behind it. So files, their order and their permissions are what they are for other keys.
//! * Keys are of EC P-256, as all keys of nodes are.
//! * A PIN that the token has refused is not shown to it again, so that it does not lock itself.
//!
//! All of it blocks for as long as the token takes.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod error;
mod key;
mod pin;
mod reference;
mod tool;
mod uri;
mod words;

pub use error::TokenError;
pub use key::TokenKey;
pub use tool::SIGNED_WITHIN;
pub use uri::TokenUri;
pub use words::PROGRAM;
