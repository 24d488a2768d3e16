//! Whom we trust, and who we are: certificates in a folder of the mapper's, laid out as every OPC UA product lays them out
//! (`trusted`, `rejected`, `own`, `private`).

mod own;

use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use framework::{Fault, own_file};
use opcua_crypto::X509;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::address::Address;

pub(crate) use own::OwnCertificate;

/// 64 KiB of a certificate, or of a key.
const FILE_MAX: u64 = 64 << 10;
/// 256 certificates of a folder are looked at.
const TRUSTED_MAX: usize = 256;
/// 32 certificates that were refused are kept for whoever wants to trust them: a server can make as many as it likes.
const REJECTED_MAX: usize = 32;
/// Where those lie that any server may show.
const TRUSTED: &str = "trusted";
/// Where those are put that were refused.
const REJECTED: &str = "rejected";

/// The folder.
#[derive(Debug, Clone)]
pub(crate) struct Pki {
    folder: PathBuf,
}

impl Pki {
    pub(crate) fn at(folder: PathBuf) -> Self {
        Pki { folder }
    }

    /// Makes it, in a folder that others may share.
    ///
    /// # Errors
    /// When it is not the mapper's alone, with the cure.
    pub(crate) fn prepare(&self) -> Result<(), Fault> {
        if let Some(above) = self.folder.parent() {
            fs::create_dir_all(above)
                .map_err(|error| Fault::NotSent(format!("`{}`: {error}", above.display())))?;
        }
        own_file::folder(&self.folder)
            .map_err(|error| Fault::NotSent(format!("the mapper's certificates have no place: {error}")))
    }

    /// The folder, from which passwords may be read, too.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where the client library keeps certificates that have passed [`Pki::check`]. Nothing is trusted for lying there.
    pub(crate) fn checked(&self) -> PathBuf {
        self.folder.join("checked")
    }

    /// Clears them when there are many: of a Device that looks at none, a server can show as many as it likes.
    pub(crate) fn clear_checked(&self) {
        let folder = self.checked().join(TRUSTED);
        let is_full =
            fs::read_dir(&folder).is_ok_and(|entries| entries.take(TRUSTED_MAX).count() == TRUSTED_MAX);
        if is_full && let Err(error) = fs::remove_dir_all(&folder) {
            tracing::warn!(folder = %folder.display(), %error, "certificates that were checked cannot be cleared away");
        }
    }

    /// Our certificate and key: those that the Device names, or those that the mapper has made for itself.
    ///
    /// # Errors
    /// When they cannot be read or made, with the file and the cure.
    pub(crate) fn own(&self, address: &Address) -> Result<OwnCertificate, Fault> {
        self.prepare()?;
        own::own(&self.folder, address.certificate.as_ref()).map_err(Fault::NotSent)
    }

    /// Whether the server's certificate is one that somebody has said is trusted: that very one, and valid now. It is kept among the
    /// rejected ones if not.
    ///
    /// # Errors
    /// With its name, its thumbprint, and the cure.
    pub(crate) fn check(&self, address: &Address, der: &[u8]) -> Result<(), Fault> {
        let url = &address.url;
        let Ok((certificate, parsed)) = X509::from_der(der).map_err(drop).and_then(|certificate| {
            let (_, parsed) = X509Certificate::from_der(der).map_err(drop)?;
            Ok((certificate, parsed))
        }) else {
            return Err(Fault::NotSent(format!(
                "what {url} shows is no certificate; it needs one for this policy"
            )));
        };
        let (name, thumbprint) = (certificate.subject_name(), certificate.thumbprint().as_hex_string());
        let of_device = address.trusted.iter().cloned();
        let trusted = self.folder.join(TRUSTED);
        if !of_device.chain([trusted.clone()]).any(|path| is_among(&path, der)) {
            let kept = self.reject(&thumbprint, der);
            let cure = match kept {
                Some(kept) => format!(
                    "if it is the server's, move `{}` to `{}`, or name it in `trustList`",
                    kept.display(),
                    trusted.join(kept.file_name().unwrap_or_default()).display()
                ),
                None => format!(
                    "if it is the server's, put it into `{}`, or name it in `trustList`",
                    trusted.display()
                ),
            };
            return Err(Fault::NotSent(format!(
                "the certificate of {url} is not trusted: {name}, SHA-1 thumbprint {thumbprint}; {cure}"
            )));
        }
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        let now = x509_parser::time::ASN1Time::from_timestamp(i64::try_from(now).unwrap_or(i64::MAX));
        let validity = parsed.validity();
        if !now.is_ok_and(|now| validity.is_valid_at(now)) {
            return Err(Fault::NotSent(format!(
                "the certificate of {url} is trusted and not valid now: {name}, from {} to {}; renew it, or see to the node's clock",
                validity.not_before, validity.not_after
            )));
        }
        Ok(())
    }

    /// Keeps a certificate for whoever wants to trust it.
    fn reject(&self, thumbprint: &str, der: &[u8]) -> Option<PathBuf> {
        let folder = self.folder.join(REJECTED);
        own_file::folder(&folder).ok()?;
        // Who moves a file to where there is no folder makes that file, which the next one replaces. One file in its place is heeded as well.
        let trusted = self.folder.join(TRUSTED);
        if !trusted.exists() {
            own_file::folder(&trusted).ok()?;
        }
        let path = folder.join(format!("{thumbprint}.der"));
        if !path.exists() && fs::read_dir(&folder).ok()?.take(REJECTED_MAX).count() >= REJECTED_MAX {
            return None;
        }
        own_file::write(&path, der).ok().map(|()| path)
    }
}

/// Whether a certificate is this file, or one of this folder's.
fn is_among(path: &Path, der: &[u8]) -> bool {
    let is_it = |path: &Path| contents(path).is_ok_and(|found| is_same(&found, der));
    match fs::read_dir(path) {
        Ok(entries) => entries.flatten().take(TRUSTED_MAX).any(|entry| is_it(&entry.path())),
        Err(_) => is_it(path),
    }
}

/// DER or PEM.
fn is_same(found: &[u8], der: &[u8]) -> bool {
    found == der
        || x509_parser::pem::Pem::iter_from_buffer(found)
            .flatten()
            .any(|pem| pem.label == "CERTIFICATE" && pem.contents == der)
}

/// What a file holds, if it is no larger than a certificate.
fn contents(path: &Path) -> Result<Vec<u8>, String> {
    let said = |reason: String| format!("`{}` {reason}", path.display());
    let file = File::open(path).map_err(|error| said(format!("cannot be read: {error}")))?;
    if !file.metadata().is_ok_and(|metadata| metadata.is_file()) {
        return Err(said("is no file".to_owned()));
    }
    let mut bytes = Vec::new();
    file.take(FILE_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| said(format!("cannot be read: {error}")))?;
    if bytes.len() as u64 > FILE_MAX {
        Err(said(format!("has more than {FILE_MAX} bytes")))
    } else {
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests;
