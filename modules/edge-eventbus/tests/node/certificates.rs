//! Certificates that a test makes.

use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, IsCa, KeyPair, SanType,
};
use tokio::process::Child;

use super::child::mosquitto;

/// An authority with its folder of files.
pub(crate) struct Ca {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: PathBuf,
    name: &'static str,
}

impl Ca {
    pub(crate) fn new(folder: &Path, name: &'static str) -> Ca {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let ca = Ca { issuer, folder: folder.to_owned(), name };
        ca.write("ca", &ca.issuer.pem());
        ca
    }

    pub(crate) fn path(&self, file: &str) -> PathBuf {
        self.folder.join(format!("{}-{file}", self.name))
    }

    pub(crate) fn shown(&self, file: &str) -> String {
        self.path(file).to_str().unwrap().to_owned()
    }

    pub(crate) fn write(&self, file: &str, text: &str) {
        std::fs::write(self.folder.join("fresh"), text).unwrap();
        std::fs::rename(self.folder.join("fresh"), self.path(file)).unwrap();
    }

    /// A certificate of these common names and its key, with a serial number of its own.
    pub(crate) fn issue(&self, file: &str, names: &[&str], serial: u64) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        for name in names {
            params.distinguished_name.push(DnType::CommonName, *name);
        }
        params.serial_number = Some(serial.into());
        params.subject_alt_names = vec![SanType::IpAddress([127, 0, 0, 1].into())];
        self.write(&format!("{file}.crt"), &params.signed_by(&key, &self.issuer).unwrap().pem());
        self.write(&format!("{file}.key"), &key.serialize_pem());
    }

    pub(crate) fn revoke(&self, serials: &[u64]) {
        let day = |year| rcgen::date_time_ymd(year, 1, 1);
        let revoked = serials.iter().map(|serial| rcgen::RevokedCertParams {
            serial_number: (*serial).into(),
            revocation_time: day(2025),
            reason_code: None,
            invalidity_date: None,
        });
        let list = rcgen::CertificateRevocationListParams {
            this_update: day(2025),
            next_update: day(2070),
            crl_number: 1_u64.into(),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: rcgen::KeyIdMethod::Sha256,
        };
        self.write("crl", &list.signed_by(&self.issuer).unwrap().pem().unwrap());
    }
}

/// The tool with a certificate, or without one.
pub(crate) fn secure(
    tool: &str,
    port: &str,
    ca: &Ca,
    certificate: Option<&str>,
    arguments: &[&str],
) -> Child {
    let mut all = vec!["-h", "127.0.0.1", "-p", port, "--cafile"];
    let (authority, crt, key);
    authority = ca.shown("ca");
    all.push(&authority);
    if let Some(name) = certificate {
        crt = ca.shown(&format!("{name}.crt"));
        key = ca.shown(&format!("{name}.key"));
        all.extend(["--cert", &crt, "--key", &key]);
    }
    mosquitto(tool, &[&all, arguments].concat())
}
