//! Against SoftHSM, a token that we did not write, by `pkcs11-tool`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::process::Command;

use pkcs11key::{TokenError, TokenKey, TokenUri};
use rcgen::{CertificateParams, PublicKeyData as _};
use testhost::SoftToken;

const NAME: &str = "kubehive edge-1";

#[test]
fn a_key_is_made_signs_and_is_forgotten_in_the_token() {
    let folder = tempfile::tempdir().unwrap();
    let Some(token) = SoftToken::under(folder.path()).unwrap() else { return };
    let uri = TokenUri::parse(&token.uri()).unwrap();
    let key = TokenKey::make(&uri, NAME, [7; 16]).unwrap();

    // What it signs is right by somebody else's judgement: rcgen's of a request, openssl's of a message.
    let request = CertificateParams::default().serialize_request(&key).unwrap();
    let parsed = rcgen::CertificateSigningRequestParams::from_der(request.der()).unwrap();
    assert_eq!(parsed.public_key.der_bytes(), key.der_bytes());
    let write = |name: &str, bytes: &[u8]| std::fs::write(folder.path().join(name), bytes).unwrap();
    write("public.pem", key.pem().as_bytes());
    write("message", b"a message");
    write("signature", &key.sign(b"a message").unwrap());
    let verified = Command::new("openssl")
        .current_dir(folder.path())
        .args(["dgst", "-sha256", "-verify", "public.pem", "-signature", "signature", "message"])
        .output()
        .unwrap();
    assert!(verified.status.success(), "{verified:?}");

    // What is kept in its place finds it again.
    let again = TokenKey::of_pem(&key.pem()).unwrap().unwrap();
    again.sign(b"once more").unwrap();

    // The next one of the name takes its place; a key of another name stays.
    let stranger = TokenKey::make(&uri, "kubehive edge-11", [8; 16]).unwrap();
    let next = TokenKey::make(again.token(), again.name(), [9; 16]).unwrap();
    assert_eq!(token.keys().unwrap(), 3);
    next.destroy_others().unwrap();
    assert_eq!(token.keys().unwrap(), 2);
    next.sign(b"it stays").unwrap();
    stranger.sign(b"so does this").unwrap();
    let gone = again.sign(b"gone").unwrap_err().to_string();
    assert!(gone.contains("could not sign") && gone.contains("keadm join"), "{gone}");
    next.destroy().unwrap();
    next.destroy().unwrap();
    assert_eq!(token.keys().unwrap(), 1);

    // What goes wrong is named, with what to do.
    let elsewhere = TokenUri { token: "elsewhere".to_owned(), ..uri.clone() };
    let absent = TokenKey::make(&elsewhere, NAME, [1; 16]).unwrap_err().to_string();
    assert!(absent.contains("`elsewhere`") && absent.contains("plugged in"), "{absent}");
    token.write_pin("4321").unwrap();
    for _ in 0..10 {
        let wrong = stranger.sign(b"x").unwrap_err();
        assert!(matches!(wrong, TokenError::RefusedPin { .. }), "{wrong}");
    }
    token.right_pin().unwrap();
    stranger.sign(b"a token that had seen the wrong one ten times would be locked").unwrap();
    let nowhere = TokenUri { module: folder.path().join("none.so"), ..uri };
    let none = TokenKey::make(&nowhere, NAME, [2; 16]).unwrap_err().to_string();
    assert!(none.contains("module-path"), "{none}");
}
