//! Signatures by a key that the releaser gives: of the list of sums, of the statement where all comes from, and of each image.

use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use anyhow::{Context as _, Result, anyhow, bail};
use aws_lc_rs::encoding::{AsDer as _, PublicKeyX509Der};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject as _;
use serde_json::json;
use sha2::{Digest as _, Sha256};

use crate::certificates::pem;
use crate::json;

/// A key file is a few hundred bytes.
const KEY_MAX: u64 = 16 << 10;
/// What a signed statement is (in-toto's specification).
const STATEMENT: &str = "application/vnd.in-toto+json";
const KINDS: &str = "an unencrypted private key of Ed25519 or ECDSA P-256 in PEM is wanted (`openssl genpkey -algorithm ed25519`, or \
                     `openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256`)";

/// A private key.
pub struct Signer {
    key: Key,
    /// `SubjectPublicKeyInfo`.
    public: Vec<u8>,
}

enum Key {
    Ed25519(Ed25519KeyPair),
    P256(EcdsaKeyPair),
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Signer({})", self.key_id())
    }
}

impl Signer {
    /// Reads the key in a file that nobody but its owner can read.
    ///
    /// # Errors
    /// Names the file, what is wrong with it, and what to do; never anything of the key.
    pub fn read(path: &Path) -> Result<Signer> {
        let shown = path.display();
        let file = std::fs::File::open(path).with_context(|| format!("--key: cannot read {shown}"))?;
        let found = file.metadata().with_context(|| format!("--key: cannot read {shown}"))?;
        if found.mode() & 0o077 != 0 {
            bail!("--key: others than its owner can reach {shown}: chmod 600 {shown}");
        }
        let mut text = Vec::new();
        file.take(KEY_MAX).read_to_end(&mut text).with_context(|| format!("--key: cannot read {shown}"))?;
        Signer::parse(&text).map_err(|error| anyhow!("--key: {shown}: {error}"))
    }

    fn parse(text: &[u8]) -> Result<Signer> {
        if text.windows(9).any(|window| window == b"ENCRYPTED") {
            bail!("the key is encrypted, and nobody is asked for a passphrase here: {KINDS}");
        }
        let der =
            PrivateKeyDer::from_pem_slice(text).map_err(|_| anyhow!("there is no key in it: {KINDS}"))?;
        let algorithm = &ECDSA_P256_SHA256_ASN1_SIGNING;
        let p256 = match &der {
            PrivateKeyDer::Pkcs8(der) => {
                if let Ok(pair) = Ed25519KeyPair::from_pkcs8(der.secret_pkcs8_der()) {
                    let public: PublicKeyX509Der<'_> = pair.public_key().as_der()?;
                    return Ok(Signer { public: public.as_ref().to_vec(), key: Key::Ed25519(pair) });
                }
                EcdsaKeyPair::from_pkcs8(algorithm, der.secret_pkcs8_der()).ok()
            }
            PrivateKeyDer::Sec1(der) => {
                EcdsaKeyPair::from_private_key_der(algorithm, der.secret_sec1_der()).ok()
            }
            _ => None,
        };
        let pair = p256.ok_or_else(|| anyhow!("the key is of another kind: {KINDS}"))?;
        let public: PublicKeyX509Der<'_> = pair.public_key().as_der()?;
        Ok(Signer { public: public.as_ref().to_vec(), key: Key::P256(pair) })
    }

    /// The signature of `message` in base64: of Ed25519, or of ECDSA over SHA-256 in DER. cosign and openssl check either.
    ///
    /// # Errors
    /// When the machine has no randomness.
    pub fn sign(&self, message: &[u8]) -> Result<String> {
        let failed = |_: Unspecified| anyhow!("signing failed");
        Ok(match &self.key {
            Key::Ed25519(pair) => STANDARD.encode(pair.try_sign(message).map_err(failed)?),
            Key::P256(pair) => STANDARD.encode(pair.sign(&SystemRandom::new(), message).map_err(failed)?),
        })
    }

    /// A statement with its signature, as DSSE has it.
    ///
    /// # Errors
    /// See [`Signer::sign`].
    pub fn envelope(&self, statement: &[u8]) -> Result<Vec<u8>> {
        let signature = self.sign(&pre_authentication(STATEMENT, statement))?;
        json::pretty(&json!({
            "payloadType": STATEMENT,
            "payload": STANDARD.encode(statement),
            "signatures": [{ "keyid": self.key_id(), "sig": signature }],
        }))
    }

    /// The public key as PEM.
    pub fn public_key(&self) -> Vec<u8> {
        pem("PUBLIC KEY", &self.public)
    }

    /// SHA-256 of the public key's `SubjectPublicKeyInfo`, in hexadecimal.
    pub fn key_id(&self) -> String {
        hex::encode(Sha256::digest(&self.public))
    }
}

/// What DSSE signs.
fn pre_authentication(kind: &str, payload: &[u8]) -> Vec<u8> {
    let mut bytes = format!("DSSEv1 {} {kind} {} ", kind.len(), payload.len()).into_bytes();
    bytes.extend(payload);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_signed_is_in_the_form_of_dsse() {
        // The example of DSSE's own specification.
        let bytes = pre_authentication("http://example.com/HelloWorld", b"hello world");
        assert_eq!(bytes, b"DSSEv1 29 http://example.com/HelloWorld 11 hello world");
    }

    #[test]
    fn what_is_no_fit_key_is_told_without_a_word_of_it() {
        for (text, why) in [
            ("", "no key"),
            ("-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----\nsecret\n", "encrypted"),
            ("-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n", "another kind"),
            ("-----BEGIN RSA PRIVATE KEY-----\nc2VjcmV0\n-----END RSA PRIVATE KEY-----\n", "another kind"),
        ] {
            let error = Signer::parse(text.as_bytes()).unwrap_err().to_string();
            assert!(
                error.contains(why) && error.contains("openssl genpkey") && !error.contains("ecret"),
                "{error}"
            );
        }
    }
}
