//! The CAs that an image of a program has which calls servers of others: Mozilla's, in the edition that the lock file names.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Length of a line (RFC 7468).
const LINE: usize = 64;

/// As PEM.
pub(crate) fn bundle() -> Vec<u8> {
    webpki_root_certs::TLS_SERVER_ROOT_CERTS
        .iter()
        .flat_map(|certificate| pem("CERTIFICATE", certificate))
        .collect()
}

/// One block of PEM.
pub(crate) fn pem(label: &str, der: &[u8]) -> Vec<u8> {
    let text = STANDARD.encode(der);
    let mut block = format!("-----BEGIN {label}-----\n");
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(LINE));
        block.push_str(line);
        block.push('\n');
        rest = after;
    }
    block.push_str(&format!("-----END {label}-----\n"));
    block.into_bytes()
}

#[cfg(test)]
mod tests {
    use rustls_pki_types::CertificateDer;
    use rustls_pki_types::pem::PemObject as _;

    use super::*;

    #[test]
    fn each_certificate_comes_back() {
        let bundle = bundle();
        let read: Vec<CertificateDer<'static>> =
            CertificateDer::pem_slice_iter(&bundle).collect::<Result<_, _>>().unwrap();
        assert!(read.len() > 50);
        assert_eq!(read, webpki_root_certs::TLS_SERVER_ROOT_CERTS);
    }
}
