//! A key in a token: made, used, forgotten.

use std::sync::Arc;

use rcgen::{PKCS_ECDSA_P256_SHA256, PublicKeyData, SigningKey};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::SubjectPublicKeyInfoDer;
use rustls::sign::Signer;
use rustls::{SignatureAlgorithm, SignatureScheme};
use sha2::{Digest as _, Sha256};

use crate::error::TokenError;
use crate::reference;
use crate::tool::{MADE_WITHIN, SIGNED_WITHIN, Work, run};
use crate::uri::{KeyUri, TokenUri};

/// How nodes' keys sign.
const SCHEME: SignatureScheme = SignatureScheme::ECDSA_NISTP256_SHA256;
/// What a SubjectPublicKeyInfo of EC P-256 with an uncompressed point begins with (RFC 5480): id-ecPublicKey, prime256v1, a bit string, and
/// the point's first byte, which is a part of it.
const P256: [u8; 27] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86,
    0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00, 0x04,
];
/// 64 bytes of the point and the byte before.
const POINT: usize = 65;
/// 64 keys of one name: two are there while one follows the other.
const IDS_MAX: usize = 64;

/// A key pair in a token. Whoever has this has no key: it names one.
#[derive(Debug, Clone)]
pub struct TokenKey {
    uri: KeyUri,
    /// SubjectPublicKeyInfo.
    public: Vec<u8>,
}

impl TokenKey {
    /// Makes an EC P-256 pair in `token` that never leaves it. Keys that are to follow one another have one `name`; `id` tells them apart.
    ///
    /// # Errors
    /// See [`TokenError`].
    pub fn make(token: &TokenUri, name: &str, id: [u8; 16]) -> Result<Self, TokenError> {
        let hex = hex::encode(id);
        let pair = ["--keypairgen", "--key-type", "EC:prime256v1", "--usage-sign", "--sensitive"];
        let arguments: Vec<&str> = pair.into_iter().chain(["--label", name, "--id", &hex]).collect();
        let doing = "make a key pair";
        run(token, &Work { doing, arguments: &arguments, input: &[], within: MADE_WITHIN })?;
        let arguments = ["--read-object", "--type", "pubkey", "--id", &hex];
        let public = run(
            token,
            &Work { doing: "give the public key", arguments: &arguments, input: &[], within: MADE_WITHIN },
        )?;
        let uri = KeyUri { token: token.clone(), object: name.to_owned(), id: id.to_vec() };
        let key = TokenKey { uri, public };
        if key.point().is_none() {
            key.destroy()?;
            return Err(key.refused(doing, "its public key is none of EC P-256"));
        }
        Ok(key)
    }

    /// What a file of a key names; `None` where the key itself is in it. Does not look at the token.
    ///
    /// # Errors
    /// When it begins to name one and is not whole.
    pub fn of_pem(pem: &str) -> Result<Option<Self>, TokenError> {
        if !reference::is_reference(pem) {
            return Ok(None);
        }
        let (uri, public) = reference::read(pem)?;
        let key = TokenKey { uri, public };
        match key.point() {
            Some(_) => Ok(Some(key)),
            None => Err(TokenError::Reference("its PUBLIC KEY is none of EC P-256".to_owned())),
        }
    }

    /// What is written where a key's file is wanted (RFC 7468): the key's URI, and its public half.
    pub fn pem(&self) -> String {
        reference::write(&self.uri, &self.public)
    }

    /// Where it is.
    pub fn token(&self) -> &TokenUri {
        &self.uri.token
    }

    /// Its name in the token.
    pub fn name(&self) -> &str {
        &self.uri.object
    }

    /// Signs (ECDSA with SHA-256) and answers the signature in DER.
    ///
    /// # Errors
    /// See [`TokenError`]; a signature of another key is among them.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, TokenError> {
        let (digest, id, doing) = (Sha256::digest(message), hex::encode(&self.uri.id), "sign");
        let arguments = ["--sign", "--mechanism", "ECDSA", "--signature-format", "openssl", "--id", &id];
        let work = Work { doing, arguments: &arguments, input: digest.as_slice(), within: SIGNED_WITHIN };
        let signature = run(self.token(), &work)?;
        // Else the other end would be the first to see it, and say little of it.
        let is_good = self.is_by_this(message, &signature);
        is_good.then_some(signature).ok_or_else(|| self.refused(doing, "its signature is not of this key"))
    }

    /// Destroys the pair. One that is not there is not missed.
    ///
    /// # Errors
    /// See [`TokenError`].
    pub fn destroy(&self) -> Result<(), TokenError> {
        self.destroy_id(&hex::encode(&self.uri.id))
    }

    /// Destroys the other pairs of this one's name: those that it follows, and those that a power cut has left.
    ///
    /// # Errors
    /// See [`TokenError`].
    pub fn destroy_others(&self) -> Result<(), TokenError> {
        let own = hex::encode(&self.uri.id);
        for id in self.ids()?.iter().filter(|id| **id != own) {
            self.destroy_id(id)?;
        }
        Ok(())
    }

    fn destroy_id(&self, id: &str) -> Result<(), TokenError> {
        // The public half of some tokens goes with the private one.
        for kind in ["privkey", "pubkey"] {
            let arguments = ["--delete-object", "--type", kind, "--id", id];
            let work =
                Work { doing: "destroy a key", arguments: &arguments, input: &[], within: MADE_WITHIN };
            match run(self.token(), &work) {
                Err(TokenError::Refused { said, .. }) if said.contains("not found") => {}
                done => drop(done?),
            }
        }
        Ok(())
    }

    /// The ids of all private keys of this one's name, in hex.
    fn ids(&self) -> Result<Vec<String>, TokenError> {
        let arguments = ["--list-objects", "--type", "privkey"];
        let work = Work { doing: "list its keys", arguments: &arguments, input: &[], within: MADE_WITHIN };
        Ok(ids_of(&String::from_utf8_lossy(&run(self.token(), &work)?), self.name()))
    }

    /// The public key, from its form on.
    fn point(&self) -> Option<&[u8]> {
        let is_one = self.public.starts_with(&P256) && self.public.len() == P256.len() - 1 + POINT;
        is_one.then(|| &self.public[P256.len() - 1..])
    }

    fn is_by_this(&self, message: &[u8], signature: &[u8]) -> bool {
        let known = default_provider().signature_verification_algorithms;
        let of_scheme = known.mapping.iter().find(|(scheme, _)| *scheme == SCHEME);
        let Some((algorithm, point)) = of_scheme.and_then(|(_, all)| all.first()).zip(self.point()) else {
            return false;
        };
        algorithm.verify_signature(point, message, signature).is_ok()
    }

    fn refused(&self, doing: &'static str, said: &str) -> TokenError {
        let TokenUri { token, module, .. } = self.token().clone();
        TokenError::Refused { token, module, doing, said: said.to_owned() }
    }
}

/// The ids of the objects of a label, of what `pkcs11-tool --list-objects` writes: objects begin at the line's begin, and what is said of
/// them is indented.
fn ids_of(listed: &str, name: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut is_named = false;
    for line in listed.lines() {
        if !line.starts_with(char::is_whitespace) {
            is_named = false;
        } else if let Some(label) = line.trim_start().strip_prefix("label:") {
            is_named = label.trim() == name;
        } else if let Some(id) = line.trim_start().strip_prefix("ID:")
            && is_named
            && found.len() < IDS_MAX
        {
            let id: String = id.chars().filter(char::is_ascii_hexdigit).collect();
            found.push(id.to_ascii_lowercase());
        }
    }
    found
}

impl PublicKeyData for TokenKey {
    fn der_bytes(&self) -> &[u8] {
        self.point().unwrap_or_default()
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}

impl SigningKey for TokenKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        // Its error has no room for the reason.
        TokenKey::sign(self, message).map_err(|error| {
            tracing::warn!(%error, "a request was not signed");
            rcgen::Error::RemoteKeyError
        })
    }
}

impl rustls::sign::SigningKey for TokenKey {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        let signer = || Box::new(HandshakeSigner(Arc::new(self.clone()))) as Box<dyn Signer>;
        offered.contains(&SCHEME).then(signer)
    }

    fn public_key(&self) -> Option<SubjectPublicKeyInfoDer<'_>> {
        Some(SubjectPublicKeyInfoDer::from(self.public.as_slice()))
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::ECDSA
    }
}

#[derive(Debug)]
struct HandshakeSigner(Arc<TokenKey>);

impl Signer for HandshakeSigner {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rustls::Error> {
        // What is left of it in QUIC is an alert: the log says why.
        self.0.sign(message).map_err(|error| {
            tracing::warn!(%error, "a handshake was not signed");
            rustls::Error::General(error.to_string())
        })
    }

    fn scheme(&self) -> SignatureScheme {
        SCHEME
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uri() -> KeyUri {
        KeyUri::parse("pkcs11:token=a;object=b;id=%01?module-path=/m.so&pin-source=/p").unwrap()
    }

    #[test]
    fn the_ids_of_a_name_are_found_in_what_the_program_lists() {
        // OpenSC 0.23 with SoftHSM 2.6.1; the second has no label, the third another one.
        let listed = "Private Key Object; EC\n  label:      kubehive edge-1\n  ID:         0aFF\n  Usage:      sign\n\
                      Private Key Object; RSA \n  ID:         03\n\
                      Private Key Object; EC\n  label:      kubehive edge-11\n  ID:         04\n\
                      Private Key Object; EC\n  label:      kubehive edge-1\n  ID:         05\n";
        assert_eq!(ids_of(listed, "kubehive edge-1"), ["0aff", "05"]);
        assert!(ids_of("", "a").is_empty());
        let many = "X\n  label: a\n  ID: 01\n".repeat(1000);
        assert_eq!(ids_of(&many, "a").len(), IDS_MAX);
    }

    #[test]
    fn a_file_that_holds_a_key_names_none() {
        let key = rcgen::KeyPair::generate().unwrap();
        assert!(TokenKey::of_pem(&key.serialize_pem()).unwrap().is_none());
    }

    #[test]
    fn a_public_key_of_another_kind_is_refused() {
        let fits = rcgen::KeyPair::generate().unwrap();
        let named = reference::write(&uri(), &fits.subject_public_key_info());
        let read = TokenKey::of_pem(&named).unwrap().unwrap();
        assert_eq!(read.der_bytes(), fits.public_key_raw());
        assert_eq!((read.name(), read.token().token.as_str()), ("b", "a"));
        let other = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
        for public in [other.subject_public_key_info(), Vec::new(), fits.public_key_raw().to_vec()] {
            assert!(TokenKey::of_pem(&reference::write(&uri(), &public)).is_err());
        }
    }

    #[test]
    fn a_signature_counts_by_its_key_and_what_was_signed() {
        let (own, other) = (rcgen::KeyPair::generate().unwrap(), rcgen::KeyPair::generate().unwrap());
        let key = TokenKey { uri: uri(), public: own.subject_public_key_info() };
        assert!(key.is_by_this(b"a", &own.sign(b"a").unwrap()));
        assert!(!key.is_by_this(b"b", &own.sign(b"a").unwrap()));
        assert!(!key.is_by_this(b"a", &other.sign(b"a").unwrap()));
        assert!(!key.is_by_this(b"a", b""));
    }
}
