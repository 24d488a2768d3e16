//! The file that stands for a key's: where the key is, and its public half.
//!
//! `PKCS#11 PROVIDER URI` is the PEM of OpenSSL's pkcs11-provider: a sequence of a VisibleString that says what it is and the URI as
//! UTF8String.

use pem::{EncodeConfig, LineEnding, Pem};
use yasna::{ASN1Error, ASN1ErrorKind};

use crate::error::TokenError;
use crate::uri::KeyUri;

const LABEL: &str = "PKCS#11 PROVIDER URI";
const PUBLIC: &str = "PUBLIC KEY";
const DESCRIPTION: &str = "PKCS#11 Provider URI v1.0";
/// 16 KiB: some twenty times what is written here.
const FILE_MAX: usize = 16 << 10;

/// Whether it is one, rather than a key.
pub(crate) fn is_reference(pem: &str) -> bool {
    pem.contains(&format!("-----BEGIN {LABEL}-----"))
}

pub(crate) fn write(uri: &KeyUri, public_der: &[u8]) -> String {
    let named = yasna::construct_der(|writer| {
        writer.write_sequence(|writer| {
            writer.next().write_visible_string(DESCRIPTION);
            writer.next().write_utf8_string(&uri.to_string());
        });
    });
    let parts = [Pem::new(LABEL, named), Pem::new(PUBLIC, public_der)];
    pem::encode_many_config(&parts, EncodeConfig::new().set_line_ending(LineEnding::LF))
}

/// The key's name, and its public half as SubjectPublicKeyInfo.
pub(crate) fn read(text: &str) -> Result<(KeyUri, Vec<u8>), TokenError> {
    if text.len() > FILE_MAX {
        return Err(TokenError::Reference(format!("it has more than {FILE_MAX} bytes")));
    }
    let parts = pem::parse_many(text).map_err(|error| TokenError::Reference(error.to_string()))?;
    let part = |label: &str| {
        let found = parts.iter().find(|part| part.tag() == label);
        found.ok_or_else(|| TokenError::Reference(format!("there is no {label} in it")))
    };
    let uri = yasna::parse_der(part(LABEL)?.contents(), |reader| {
        reader.read_sequence(|reader| {
            if reader.next().read_visible_string()? != DESCRIPTION {
                return Err(ASN1Error::new(ASN1ErrorKind::Invalid));
            }
            reader.next().read_utf8string()
        })
    });
    let uri = uri.map_err(|error| TokenError::Reference(error.to_string()))?;
    Ok((KeyUri::parse(&uri)?, part(PUBLIC)?.contents().to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_read_as_it_was_written_and_nothing_else_is_taken() {
        let uri = KeyUri::parse("pkcs11:token=a;object=b;id=%01?module-path=/m.so&pin-source=/p").unwrap();
        let text = write(&uri, &[1, 2, 3]);
        assert!(is_reference(&text));
        assert_eq!(read(&text).unwrap(), (uri, vec![1, 2, 3]));
        let without = text.split_once("-----BEGIN PUBLIC").unwrap().0;
        assert!(read(without).unwrap_err().to_string().contains("no PUBLIC KEY"));
        assert!(!is_reference("-----BEGIN PRIVATE KEY-----"));
        assert!(read("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n").is_err());
        assert!(read(&"x".repeat(FILE_MAX + 1)).unwrap_err().to_string().contains("more than"));
    }

    #[test]
    fn it_is_the_pem_of_openssls_provider() {
        // Made with `uri2pem.py` of pkcs11-provider's rules: the description, then the URI.
        let uri = "pkcs11:token=a;object=b;id=%01;type=private?module-path=/m.so&pin-source=file:/p";
        let mut der = vec![0x1a, 25];
        der.extend(b"PKCS#11 Provider URI v1.0");
        der.extend([0x0c, u8::try_from(uri.len()).unwrap()]);
        der.extend(uri.bytes());
        let mut whole = vec![0x30, u8::try_from(der.len()).unwrap()];
        whole.extend(der);
        let text = write(&KeyUri::parse(uri).unwrap(), &[0]);
        assert_eq!(pem::parse_many(&text).unwrap()[0].contents(), whole);
        // Of another version nothing is known.
        let later = whole.iter().map(|byte| if *byte == b'1' { b'2' } else { *byte }).collect::<Vec<u8>>();
        let later = pem::encode_many(&[Pem::new(LABEL, later), Pem::new(PUBLIC, [0])]);
        assert!(read(&later).is_err());
    }
}
