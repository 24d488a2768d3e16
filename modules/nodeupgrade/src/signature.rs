//! Whether a release is of whom it is said to be: cosign's signatures by a key, of an image ("simple signing") or of a file.

use std::path::Path;

use anyhow::{Context as _, Result, bail};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, ED25519, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls_pki_types::SubjectPublicKeyInfoDer;
use rustls_pki_types::pem::PemObject as _;
use serde_json::Value;

use crate::files;
use crate::image::{ImageArchive, text};

/// 16 KiB of a key or a signature: both have a few hundred bytes.
const TEXT_MAX: u64 = 16 << 10;
/// Where cosign has the signature of a layer.
const ANNOTATION: &str = "dev.cosignproject.cosign/signature";
/// What an image's signature says it is.
const KIND: &str = "cosign container image signature";

/// A public key of Ed25519 or ECDSA P-256.
pub(crate) struct PublicKey(Vec<u8>);

impl PublicKey {
    /// Reads the key in a PEM file.
    ///
    /// # Errors
    /// When there is none in it.
    pub(crate) fn read(path: &Path) -> Result<PublicKey> {
        let bytes = files::read(path, TEXT_MAX)?;
        let key = SubjectPublicKeyInfoDer::from_pem_slice(&bytes).map_err(|_| {
            anyhow::anyhow!("{} holds no public key in PEM (key.pub of a release)", path.display())
        })?;
        Ok(PublicKey(key.to_vec()))
    }

    fn has_signed(&self, message: &[u8], signature: &str) -> bool {
        let Ok(signature) = STANDARD.decode(signature.trim()) else { return false };
        let by_curve = UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, &self.0).verify(message, &signature);
        by_curve.is_ok() || UnparsedPublicKey::new(&ED25519, &self.0).verify(message, &signature).is_ok()
    }

    /// Checks the signature of an image of this digest, in the archive in which cosign keeps it beside the image
    /// (`signatures/NAME.sig.tar` of a release).
    ///
    /// # Errors
    /// When the archive holds none, another image's, or one of another key.
    pub(crate) fn check_image(&self, digest: &str, archive: &Path) -> Result<()> {
        let signatures = ImageArchive::open(archive)?;
        let (_, manifest) = signatures.manifest()?;
        let layers = manifest["layers"].as_array().map(Vec::as_slice).unwrap_or_default();
        for layer in layers {
            let Some(signature) = layer["annotations"][ANNOTATION].as_str() else { continue };
            let payload = signatures.blob(&text(layer, "digest")?)?;
            if !self.has_signed(&payload, signature) {
                continue;
            }
            let said: Value = serde_json::from_slice(&payload).context("what was signed is not JSON")?;
            let critical = &said["critical"];
            if critical["type"] == KIND && critical["image"]["docker-manifest-digest"] == digest {
                return Ok(());
            }
            bail!(
                "{} is the signature of another image: {}",
                archive.display(),
                critical["image"]["docker-manifest-digest"].as_str().unwrap_or("none").escape_debug()
            );
        }
        bail!("{} holds no signature by this key", archive.display())
    }

    /// Checks the signature of a file's bytes (`cosign sign-blob`, in base64). `file` is only what it is called.
    ///
    /// # Errors
    /// When it is not this key's, or of another file.
    pub(crate) fn check_bytes(&self, message: &[u8], file: &Path, signature: &Path) -> Result<()> {
        let text = files::read(signature, TEXT_MAX)?;
        if !self.has_signed(message, &String::from_utf8_lossy(&text)) {
            bail!("{} is no signature of {} by this key", signature.display(), file.display());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_lc_rs::encoding::{AsDer as _, PublicKeyX509Der};
    use aws_lc_rs::rand::SystemRandom;
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _};

    type Sign = Box<dyn Fn(&[u8]) -> String>;

    fn keys() -> Vec<(Vec<u8>, Sign)> {
        let ed = Ed25519KeyPair::generate().unwrap();
        let p256 = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap();
        let der: PublicKeyX509Der<'_> = ed.public_key().as_der().unwrap();
        let first = der.as_ref().to_vec();
        let der: PublicKeyX509Der<'_> = p256.public_key().as_der().unwrap();
        let second = der.as_ref().to_vec();
        vec![
            (first, Box::new(move |message: &[u8]| STANDARD.encode(ed.sign(message)))),
            (
                second,
                Box::new(move |message: &[u8]| {
                    STANDARD.encode(p256.sign(&SystemRandom::new(), message).unwrap())
                }),
            ),
        ]
    }

    fn pem(der: &[u8]) -> String {
        format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", STANDARD.encode(der))
    }

    #[test]
    fn a_file_is_of_the_key_that_signed_it_and_of_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let other = keys().remove(0);
        std::fs::write(path("other.pub"), pem(&other.0)).unwrap();
        for (public, sign) in keys() {
            std::fs::write(path("key.pub"), pem(&public)).unwrap();
            std::fs::write(path("sig"), format!("{}\n", sign(b"program"))).unwrap();
            let key = PublicKey::read(&path("key.pub")).unwrap();
            key.check_bytes(b"program", &path("file"), &path("sig")).unwrap();
            let foreign = PublicKey::read(&path("other.pub")).unwrap();
            assert!(foreign.check_bytes(b"program", &path("file"), &path("sig")).is_err());
            let error = key.check_bytes(b"programs", &path("file"), &path("sig")).unwrap_err().to_string();
            assert!(error.contains("no signature of"), "{error}");
        }
        std::fs::write(path("key.pub"), "none").unwrap();
        assert!(PublicKey::read(&path("key.pub")).is_err());
    }
}
