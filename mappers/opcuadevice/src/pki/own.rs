//! Our own certificate: made once, with a key that leaves the node never, and known to servers by its URI (Part 6 §6.2.2).

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use framework::own_file;
use opcua_crypto::{PrivateKey, X509};
use rcgen::string::Ia5String;
use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose,
    RsaKeySize, SanType,
};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::pki::contents;

/// 10 years: each new one has to be trusted at every server again.
const LIFE: Duration = Duration::from_secs(10 * 365 * 86_400);
/// Clocks of nodes are off by this much without being noticed: the certificate begins earlier by it.
const BACKDATE: Duration = Duration::from_secs(3600);
/// What the mapper says it is.
const PRODUCT: &str = "KubeHive OPC UA mapper";

/// Our certificate, as files that the client library reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OwnCertificate {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
    /// The application's URI, which servers compare with what we say.
    pub(crate) uri: String,
    /// By what servers and their people know it.
    pub(crate) thumbprint: String,
}

/// The one that a Device names, or the mapper's own, made if there is none.
pub(crate) fn own(folder: &Path, named: Option<&(PathBuf, PathBuf)>) -> Result<OwnCertificate, String> {
    let (certificate, key) = match named {
        Some((certificate, key)) => (certificate.clone(), key.clone()),
        None => {
            let (certificate, key) = (folder.join("own/cert.der"), folder.join("private/private.pem"));
            if !certificate.exists() || !key.exists() {
                make(&certificate, &key).map_err(|reason| {
                    format!(
                        "a certificate of ours cannot be made: {reason}; let the mapper write into `{}`, or name `certificate` and \
                         `privateKey`",
                        folder.display()
                    )
                })?;
            }
            (certificate, key)
        }
    };
    read(&certificate, &key)
}

fn read(certificate: &Path, key: &Path) -> Result<OwnCertificate, String> {
    let bytes = contents(certificate).map_err(|reason| format!("our certificate {reason}"))?;
    let extension = certificate.extension().and_then(|extension| extension.to_str());
    let parsed = match extension {
        Some("der") => X509::from_der(&bytes),
        Some("pem") => X509::from_pem(&bytes),
        _ => return Err(format!("our certificate `{}` has to end with .der or .pem", certificate.display())),
    };
    let parsed = parsed.map_err(|_| format!("our certificate `{}` is none", certificate.display()))?;
    let der = parsed.to_der().map_err(|_| format!("our certificate `{}` is none", certificate.display()))?;
    let uri = uri(&der).ok_or_else(|| {
        format!(
            "our certificate `{}` names no URI, by which servers know an application",
            certificate.display()
        )
    })?;
    let bytes = contents(key).map_err(|reason| format!("our key {reason}"))?;
    PrivateKey::from_pem(&bytes).map_err(|_| format!("our key `{}` is no RSA key in PEM", key.display()))?;
    let thumbprint = parsed.thumbprint().as_hex_string();
    Ok(OwnCertificate { certificate: certificate.to_owned(), key: key.to_owned(), uri, thumbprint })
}

/// The first URI among a certificate's names.
fn uri(der: &[u8]) -> Option<String> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let names = certificate.subject_alternative_name().ok()??;
    names.value.general_names.iter().find_map(|name| match name {
        GeneralName::URI(uri) => Some((*uri).to_owned()),
        _ => None,
    })
}

fn make(certificate: &Path, key: &Path) -> Result<(), String> {
    // Policies of OPC UA rest on RSA.
    let pair = KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_2048)
        .map_err(|error| error.to_string())?;
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host: String =
        host.trim().chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').take(63).collect();
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, format!("{PRODUCT} on {host}"));
    params.distinguished_name.push(DnType::OrganizationName, "KubeHive");
    let uri = format!("urn:{host}:kubehive:opcua-mapper");
    let uri = Ia5String::try_from(uri).map_err(|error| error.to_string())?;
    params.subject_alt_names = vec![SanType::URI(uri)];
    if let Ok(host) = Ia5String::try_from(host.as_str())
        && !host.as_str().is_empty()
    {
        params.subject_alt_names.push(SanType::DnsName(host));
    }
    params.key_usages = vec![
        KeyUsagePurpose::DigitalSignature,
        KeyUsagePurpose::ContentCommitment,
        KeyUsagePurpose::KeyEncipherment,
        KeyUsagePurpose::DataEncipherment,
    ];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params.not_before = (SystemTime::now() - BACKDATE).into();
    params.not_after = (SystemTime::now() + LIFE).into();
    let made = params.self_signed(&pair).map_err(|error| error.to_string())?;
    // The key first: a certificate without one would be taken for whole.
    write(key, pair.serialize_pem().as_bytes())?;
    write(certificate, made.der())
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), String> {
    let said = |error: std::io::Error| format!("`{}`: {error}", path.display());
    if let Some(folder) = path.parent() {
        own_file::folder(folder).map_err(said)?;
    }
    own_file::write(path, bytes).map_err(said)
}
