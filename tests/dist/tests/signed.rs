//! Signatures that openssl finds good, of either kind of key, and keys that are refused.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod fixture;

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

const ED25519: &[&str] = &["genpkey", "-algorithm", "ed25519"];
const P256: &[&str] = &["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"];
/// In the form of RFC 5915, as older tools write it.
const P256_OF_OLD: &[&str] = &["ecparam", "-name", "prime256v1", "-genkey", "-noout"];

fn key(folder: &Path, how: &[&str]) -> String {
    let path = folder.join("key.pem");
    fixture::output(Command::new("openssl").args(how).arg("-out").arg(&path));
    std::fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    path.to_str().unwrap().to_owned()
}

/// Whether openssl finds this signature in base64 good.
fn is_good(folder: &Path, public: &Path, raw: bool, message: &[u8], signature: &str) -> bool {
    let (signed, signature_file) = (folder.join("message"), folder.join("signature"));
    std::fs::write(&signed, message).unwrap();
    std::fs::write(&signature_file, STANDARD.decode(signature).unwrap()).unwrap();
    let mut command = Command::new("openssl");
    if raw {
        command.args(["pkeyutl", "-verify", "-rawin", "-pubin", "-inkey"]).arg(public);
        command.arg("-sigfile").arg(&signature_file).arg("-in").arg(&signed);
    } else {
        command.args(["dgst", "-sha256", "-verify"]).arg(public);
        command.arg("-signature").arg(&signature_file).arg(&signed);
    }
    command.output().unwrap().status.success()
}

#[test]
fn openssl_finds_every_signature_good() {
    let programs = fixture::programs();
    for (how, raw) in [(ED25519, true), (P256, false), (P256_OF_OLD, false)] {
        let folder = tempfile::tempdir().unwrap();
        let key = key(folder.path(), how);
        let (_parent, out) = fixture::release(programs.path(), &["--only", "keadm", "--key", &key]).unwrap();
        let files = fixture::files(&out);
        let public = out.join("signatures/key.pub");
        let good = |message: &[u8], signature: &str| is_good(folder.path(), &public, raw, message, signature);

        let sums = &files["SHA256SUMS"];
        let signature = String::from_utf8(files["signatures/SHA256SUMS.sig"].clone()).unwrap();
        assert!(good(sums, &signature), "{how:?}");
        let mut forged = sums.clone();
        forged[0] ^= 1;
        assert!(!good(&forged, &signature), "{how:?}");

        let envelope: Value = serde_json::from_slice(&files["signatures/provenance.dsse.json"]).unwrap();
        let payload = STANDARD.decode(envelope["payload"].as_str().unwrap()).unwrap();
        assert_eq!(payload, files["provenance.json"]);
        let kind = envelope["payloadType"].as_str().unwrap();
        let mut message = format!("DSSEv1 {} {kind} {} ", kind.len(), payload.len()).into_bytes();
        message.extend(&payload);
        assert!(good(&message, envelope["signatures"][0]["sig"].as_str().unwrap()), "{how:?}");

        // The image's, where cosign has it: the layer is what was signed, and names the digest of the image beside it.
        let (name, archive) =
            files.iter().find(|(name, _)| name.ends_with(".sig.tar")).expect("an image's signature");
        let blobs = entries(archive);
        let index: Value = serde_json::from_slice(&blobs["index.json"]).unwrap();
        let blob = |descriptor: &Value| {
            let digest = descriptor["digest"].as_str().unwrap().trim_start_matches("sha256:").to_owned();
            blobs[&format!("blobs/sha256/{digest}")].clone()
        };
        let manifest: Value = serde_json::from_slice(&blob(&index["manifests"][0])).unwrap();
        let layer = &manifest["layers"][0];
        let signed = blob(layer);
        assert!(good(&signed, layer["annotations"]["dev.cosignproject.cosign/signature"].as_str().unwrap()));
        let said: Value = serde_json::from_slice(&signed).unwrap();
        let image = entries(
            &files[&format!("images/{}", name.trim_start_matches("signatures/").replace(".sig.", "."))],
        );
        let index: Value = serde_json::from_slice(&image["index.json"]).unwrap();
        assert_eq!(said["critical"]["image"]["docker-manifest-digest"], index["manifests"][0]["digest"]);
        assert_eq!(
            said["critical"]["identity"]["docker-reference"],
            "docker.io/kubeedge/installation-package"
        );
    }
}

fn entries(archive: &[u8]) -> std::collections::BTreeMap<String, Vec<u8>> {
    let mut archive = tar::Archive::new(archive);
    let entries = archive.entries().unwrap().map(|entry| {
        let mut entry = entry.unwrap();
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut entry, &mut bytes).unwrap();
        (String::from_utf8(entry.path_bytes().into_owned()).unwrap(), bytes)
    });
    entries.collect()
}

#[test]
fn sums_and_the_statement_name_every_file() {
    let programs = fixture::programs();
    let (_parent, out) = fixture::release(programs.path(), &["--only", "keadm"]).unwrap();
    let files = fixture::files(&out);
    let sums = String::from_utf8(files["SHA256SUMS"].clone()).unwrap();
    let statement: Value = serde_json::from_slice(&files["provenance.json"]).unwrap();
    let subjects = statement["subject"].as_array().unwrap();
    for (name, bytes) in files.iter().filter(|(name, _)| *name != "SHA256SUMS") {
        let sum = hex::encode(Sha256::digest(bytes));
        assert!(sums.contains(&format!("{sum}  {name}\n")), "{name}");
        let is_subject =
            subjects.iter().any(|subject| subject["name"] == **name && subject["digest"]["sha256"] == sum);
        assert!(is_subject || name == "provenance.json", "{name}");
    }
    fixture::output(Command::new("sha256sum").args(["--check", "--strict", "SHA256SUMS"]).current_dir(&out));
}

#[test]
fn keys_that_others_read_and_keys_of_other_kinds_are_refused() {
    let programs = fixture::programs();
    let folder = tempfile::tempdir().unwrap();
    let refused =
        |key: &str| fixture::release(programs.path(), &["--only", "keadm", "--key", key]).unwrap_err();
    let open = key(folder.path(), ED25519);
    std::fs::set_permissions(&open, Permissions::from_mode(0o644)).unwrap();
    assert!(refused(&open).contains("chmod 600"));
    let rsa = key(folder.path(), &["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"]);
    assert!(refused(&rsa).contains("another kind"));
    let other_curve =
        key(folder.path(), &["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"]);
    assert!(refused(&other_curve).contains("another kind"));
    let encrypted = key(folder.path(), &[P256, &["-aes256", "-pass", "pass:x"]].concat());
    assert!(refused(&encrypted).contains("encrypted"));
    assert!(refused("/nonexistent/key").contains("/nonexistent/key"));
}
