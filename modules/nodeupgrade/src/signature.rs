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
/// 16 MiB of an archive of signatures, each of a few hundred bytes.
const ARCHIVE_MAX: u64 = 16 << 20;
/// 64 signatures of an image: more people do not sign one.
const SIGNATURES_MAX: usize = 64;
/// 64 KiB of what is signed: an image's name and digest, and what the signer adds.
const PAYLOAD_MAX: usize = 64 << 10;
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
        if signature.len() as u64 > TEXT_MAX {
            return false;
        }
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
        let signatures = ImageArchive::open(archive, ARCHIVE_MAX)?;
        let (_, manifest) = signatures.manifest()?;
        let layers = manifest["layers"].as_array().map(Vec::as_slice).unwrap_or_default();
        if layers.len() > SIGNATURES_MAX {
            bail!("{} holds more than {SIGNATURES_MAX} signatures", archive.display());
        }
        for layer in layers {
            let Some(signature) = layer["annotations"][ANNOTATION].as_str() else { continue };
            let payload = signatures.blob(&text(layer, "digest")?)?;
            if payload.len() > PAYLOAD_MAX || !self.has_signed(&payload, signature) {
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

    /// An archive in cosign's layout, with `times` signatures of which each names the same payload.
    fn archive(payload: &[u8], signature: &str, times: usize) -> Vec<u8> {
        let sum = |bytes: &[u8]| files::sum_of(&mut &*bytes, u64::MAX).unwrap().0;
        let digest = |bytes: &[u8]| format!("sha256:{}", sum(bytes));
        let layer = serde_json::json!({"digest": digest(payload), "annotations": {ANNOTATION: signature}});
        let manifest = serde_json::json!({"layers": vec![layer; times]}).to_string().into_bytes();
        let index =
            serde_json::json!({"manifests": [{"digest": digest(&manifest)}]}).to_string().into_bytes();
        let mut archive = tar::Builder::new(Vec::new());
        for (name, bytes) in [
            ("index.json".to_owned(), index.as_slice()),
            (format!("blobs/sha256/{}", sum(&manifest)), &manifest),
            (format!("blobs/sha256/{}", sum(payload)), payload),
        ] {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            archive.append_data(&mut header, name, bytes).unwrap();
        }
        archive.into_inner().unwrap()
    }

    #[test]
    fn an_archive_of_signatures_costs_no_more_than_one_that_somebody_made_for_an_image() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let (public, sign) = keys().remove(0);
        std::fs::write(path("key.pub"), pem(&public)).unwrap();
        let key = PublicKey::read(&path("key.pub")).unwrap();
        let image = serde_json::json!({"docker-manifest-digest": "sha256:1"});
        let payload = serde_json::json!({"critical": {"type": KIND, "image": image}}).to_string();
        let check = |bytes: &[u8]| {
            std::fs::write(path("sig.tar"), bytes).unwrap();
            key.check_image("sha256:1", &path("sig.tar")).map_err(|error| format!("{error:#}"))
        };
        let signature = sign(payload.as_bytes());
        assert_eq!(check(&archive(payload.as_bytes(), &signature, 1)), Ok(()));
        let many = check(&archive(payload.as_bytes(), &signature, SIGNATURES_MAX + 1)).unwrap_err();
        assert!(many.contains("more than 64 signatures"), "{many}");
        // What is signed is small, and what is longer is not even decoded.
        let large = payload.clone() + &" ".repeat(PAYLOAD_MAX);
        let error = check(&archive(large.as_bytes(), &sign(large.as_bytes()), 1)).unwrap_err();
        assert!(error.contains("no signature by this key"), "{error}");
        let mut long = archive(payload.as_bytes(), &signature, 1);
        long.resize(usize::try_from(ARCHIVE_MAX).unwrap() + 1, 0);
        assert!(check(&long).unwrap_err().contains("is longer than"));
    }

    #[test]
    fn a_pipe_in_the_place_of_a_key_or_a_signature_is_waited_for_by_nobody() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        rustix::fs::mkfifoat(rustix::fs::CWD, path("pipe"), rustix::fs::Mode::RWXU).unwrap();
        std::fs::write(path("key.pub"), pem(&keys().remove(0).0)).unwrap();
        let key = PublicKey::read(&path("key.pub")).unwrap();
        let pipe = path("pipe");
        for error in [
            PublicKey::read(&pipe).map(drop).unwrap_err(),
            key.check_bytes(b"program", &path("file"), &pipe).unwrap_err(),
            key.check_image("sha256:1", &pipe).unwrap_err(),
            files::sum_of_file(&pipe).map(drop).unwrap_err(),
            files::copy(&pipe, &path("copy"), 0o600).map(drop).unwrap_err(),
        ] {
            assert!(format!("{error:#}").contains("not a regular file"), "{error:#}");
        }
    }
}
