//! Certificates in folders.

use super::*;
use std::os::unix::fs::PermissionsExt as _;

use framework::{Scalar, Settings};

fn address(more: &[(&str, &str)]) -> Address {
    let pairs = [&[("url", "opc.tcp://plc:4840"), ("securityPolicy", "Basic256Sha256")], more].concat();
    let pairs = pairs.into_iter().map(|(key, value)| (key, Scalar::Text(value.to_owned())));
    Address::read(&Settings::from_pairs(pairs)).unwrap()
}

/// Another application's certificate.
fn server() -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let own = Pki::at(folder.path().to_owned()).own(&address(&[])).unwrap();
    fs::read(own.certificate).unwrap()
}

fn words(outcome: Result<(), Fault>) -> String {
    match outcome {
        Err(Fault::NotSent(words)) => words,
        other => panic!("{other:?}"),
    }
}

#[test]
fn our_certificate_is_made_once_and_its_key_is_nobody_elses() {
    let folder = tempfile::tempdir().unwrap();
    let pki = Pki::at(folder.path().join("pki"));
    let own = pki.own(&address(&[])).unwrap();
    assert!(own.uri.starts_with("urn:") && own.uri.ends_with(":kubehive:opcua-mapper"), "{}", own.uri);
    assert_eq!(fs::metadata(&own.key).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(pki.own(&address(&[])).unwrap(), own);
    // Named by a Device.
    let (certificate, key) = (own.certificate.to_str().unwrap(), own.key.to_str().unwrap());
    let named = address(&[("certificate", certificate), ("privateKey", key)]);
    assert_eq!(pki.own(&named).unwrap().thumbprint, own.thumbprint);
    for (certificate, key, said) in [
        ("/nonexistent/c.der", key, "cannot be read"),
        (key, key, "is none"),
        (certificate, certificate, "no RSA key"),
        ("/proc/version", key, ".der or .pem"),
    ] {
        let named = address(&[("certificate", certificate), ("privateKey", key)]);
        let Err(Fault::NotSent(words)) = pki.own(&named) else { panic!("{said}") };
        assert!(words.contains(said), "{words}");
    }
}

#[test]
fn a_server_is_trusted_only_by_a_persons_hand() {
    let folder = tempfile::tempdir().unwrap();
    let pki = Pki::at(folder.path().to_owned());
    let der = server();
    let said = words(pki.check(&address(&[]), &der));
    assert!(said.contains("not trusted") && said.contains("thumbprint"), "{said}");
    // What it says to do is what helps.
    let kept: Vec<_> = fs::read_dir(folder.path().join("rejected")).unwrap().flatten().collect();
    let [kept] = kept.as_slice() else { panic!("{kept:?}") };
    assert!(said.contains(kept.path().to_str().unwrap()), "{said}");
    // Where the sentence says, as it stands there.
    assert!(said.contains(&format!("trusted/{}`", kept.file_name().to_str().unwrap())), "{said}");
    assert!(folder.path().join("trusted").is_dir());
    fs::rename(kept.path(), folder.path().join("trusted/plc.der")).unwrap();
    pki.check(&address(&[]), &der).unwrap();
    // Another one is not.
    let other = server();
    words(pki.check(&address(&[]), &other));
    // One that a Device names, as DER or PEM, is that Device's.
    let pem = folder.path().join("plc.crt");
    let body = x509_pem(&other);
    fs::write(&pem, body).unwrap();
    pki.check(&address(&[("trustList", pem.to_str().unwrap())]), &other).unwrap();
    words(pki.check(&address(&[]), &other));
    assert!(words(pki.check(&address(&[]), b"no certificate")).contains("is no certificate"));
}

#[test]
fn a_server_that_shows_ever_new_certificates_fills_no_disk() {
    let folder = tempfile::tempdir().unwrap();
    let pki = Pki::at(folder.path().to_owned());
    let rejected = folder.path().join("rejected");
    fs::create_dir(&rejected).unwrap();
    for at in 0..REJECTED_MAX {
        fs::write(rejected.join(format!("{at}.der")), b"x").unwrap();
    }
    let said = words(pki.check(&address(&[]), &server()));
    assert!(said.contains("put it into"), "{said}");
    assert_eq!(fs::read_dir(&rejected).unwrap().count(), REJECTED_MAX);
}

fn x509_pem(der: &[u8]) -> String {
    use opcua_types::ByteString;
    let base64 = ByteString::from(der.to_vec()).as_base64();
    let lines: Vec<&str> =
        base64.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}
