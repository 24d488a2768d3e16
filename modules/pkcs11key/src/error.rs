//! Why a token did not do what was asked.

use std::path::PathBuf;

use thiserror::Error;
use trustedfiles::UntrustedFile;

use crate::words::{EXAMPLE, PROGRAM};

/// Why a key in a token could not be named, made or used.
#[derive(Debug, Error)]
pub enum TokenError {
    /// It is no URI of a token.
    #[error("`{uri}` does not name a PKCS#11 token: {reason} (as in {})", EXAMPLE)]
    Uri {
        /// What was given, without a PIN.
        uri: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The file that should name a key in a token does not.
    #[error("what should name a key in a PKCS#11 token does not: {0}")]
    Reference(String),
    /// Somebody else could exchange what is trusted here.
    #[error(transparent)]
    Untrusted(#[from] UntrustedFile),
    /// There is no PIN to be had.
    #[error("the PIN of the token cannot be read from `{path}` (pin-source): {reason}")]
    Pin {
        /// Where it should be.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// The token has refused this PIN before, and is not asked again.
    #[error(
        "the PKCS#11 token `{token}` has refused the PIN in `{path}` (pin-source), and is not shown it again, for it would lock itself: \
         write the right one there"
    )]
    RefusedPin {
        /// The token's label.
        token: String,
        /// Where the PIN is.
        path: PathBuf,
    },
    /// The program that speaks to tokens is not there.
    #[error(
        "{} is not there, which speaks to PKCS#11 tokens: install OpenSC (apt-get install opensc)",
        PROGRAM
    )]
    NoProgram,
    /// The program could not be run.
    #[error("{} cannot be run: {reason}", PROGRAM)]
    Program {
        /// Why.
        reason: String,
    },
    /// The token or its module refused.
    #[error("the PKCS#11 token `{token}` (module {module}) could not {doing}: {said}{}", cure(.said))]
    Refused {
        /// The token's label.
        token: String,
        /// Where its module lies.
        module: PathBuf,
        /// What it was to do.
        doing: &'static str,
        /// What the program said, in one line.
        said: String,
    },
    /// It did not end in time, and was ended.
    #[error(
        "the PKCS#11 token `{token}` (module {module}) did not {doing} within {seconds} s: look whether the device answers"
    )]
    Slow {
        /// The token's label.
        token: String,
        /// Where its module lies.
        module: PathBuf,
        /// What it was to do.
        doing: &'static str,
        /// How long it was waited for.
        seconds: u64,
    },
}

/// What to do about what the program says. Nothing where its words say it all.
fn cure(said: &str) -> &'static str {
    let known = [
        (
            "CKR_PIN_LOCKED",
            "; the token has locked itself after wrong PINs: its security officer can unlock it",
        ),
        (
            "No slot with",
            "; look whether the device is plugged in, and with `pkcs11-tool --module FILE -T` what its label is",
        ),
        ("Failed to load pkcs11 module", "; module-path has to be the device's PKCS#11 module"),
        (
            "not found",
            "; the key is not in this token (any more): `keadm reset`, then `keadm join` make another one",
        ),
    ];
    known.iter().find(|(word, _)| said.contains(word)).map_or("", |(_, cure)| cure)
}
