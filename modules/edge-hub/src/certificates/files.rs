//! Certificate, key and CAs on the disk: read, and written so that a power cut at any instant leaves a pair that belongs together.
//!
//! Two files are not renamed at once. So a new pair is first written whole into a third file beside the certificate, `NAME.renewed`; from
//! that instant it counts. Then the key and the certificate are replaced, and the third file goes. Whoever reads takes the third file
//! where it is there and whole, and finishes what was begun.
//!
//! Whether a third file counts is judged by what works: where what is in place is no pair, or is the very one that the third file was written
//! to replace, it does. The dates of both decide only where somebody has put another pair in place since.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use beehive::link::tls::{Credentials, EndpointError, PrivateKey};
use pkcs11key::TokenKey;
use pki::{is_pair, node_of_certificate, serial_of, validity_of};
use thiserror::Error;

use super::renewal_plan::first_of_pem;

/// 256 KiB: the largest certificate or key file that is read.
const FILE_MAX: u64 = 256 << 10;
/// What its owner alone reads.
const SECRET: u32 = 0o600;
/// What everybody may read.
const PUBLIC: u32 = 0o644;
/// What stands before the certificate in the third file.
const CERTIFICATE_BEGINS: &str = "-----BEGIN CERTIFICATE-----";
/// What stands behind it, before the serial of the certificate that it was written to replace.
const IN_PLACE_OF: &str = "# in place of ";

/// Why the node's files are not used.
#[derive(Debug, Error)]
pub enum FilesError {
    /// A file is not there or cannot be read.
    #[error("cannot read `{path}`: run `keadm join` on this machine first")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file is too large to be what it should be.
    #[error("`{0}` is larger than 256 KiB and no certificate or key: run `keadm reset` and `keadm join`")]
    TooLarge(PathBuf),
    /// A file cannot be written.
    #[error("cannot write `{path}`: look at the disk and at the folder's mode (modules.edgeHub)")]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// What a node shows and trusts. All PEM.
#[derive(Clone)]
pub struct StoredIdentity {
    /// The node's certificate.
    pub certificate: String,
    /// Its key, or what names it in a token.
    pub key: String,
    /// The CAs of the cloud.
    pub authorities: String,
}

impl StoredIdentity {
    /// The same for a link.
    ///
    /// # Errors
    /// When the key's file names a key in a token and is not whole. Whether the token has it shows when it signs.
    pub fn credentials(&self) -> Result<Credentials, EndpointError> {
        let StoredIdentity { certificate, key, authorities } = self.clone();
        let in_token = TokenKey::of_pem(&key)
            .map_err(|error| EndpointError::Unreadable { what: "key", reason: error.to_string() })?;
        let key = match in_token {
            Some(key) => PrivateKey::Elsewhere(Arc::new(key)),
            None => PrivateKey::Pem(key),
        };
        Ok(Credentials { certificate, key, authority: authorities })
    }
}

/// Where they lie.
#[derive(Debug, Clone)]
pub struct IdentityFiles {
    /// The node's certificate.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// The CAs of the cloud.
    pub authorities: PathBuf,
}

/// What is done to replace a pair, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteStep {
    /// The new pair is written beside.
    Beside,
    /// The key is replaced.
    Key,
    /// The certificate is replaced.
    Certificate,
    /// What was written beside goes.
    Clear,
}

impl WriteStep {
    /// All of them, in their order.
    pub const ALL: [WriteStep; 4] =
        [WriteStep::Beside, WriteStep::Key, WriteStep::Certificate, WriteStep::Clear];
}

/// What stands in the third file.
enum ThirdFile {
    /// Nothing: there is none.
    Absent,
    /// A pair that counts.
    Counts { certificate: String, key: String },
    /// One that is older than what somebody has put in place since, is of another node, or is not whole.
    CountsNot,
}

impl IdentityFiles {
    /// The third file.
    pub fn renewed(&self) -> PathBuf {
        IdentityFiles::renewed_beside(&self.certificate)
    }

    /// The third file beside a certificate.
    pub fn renewed_beside(certificate: &Path) -> PathBuf {
        let mut name = real(certificate).into_os_string();
        name.push(".renewed");
        PathBuf::from(name)
    }

    /// All files in which a renewal that was cut off may have left a key or a part of what it wrote.
    pub fn leftovers(&self) -> Vec<PathBuf> {
        let renewed = self.renewed();
        let written = [&self.key, &self.certificate, &self.authorities].map(|path| real(path));
        let halves = written.iter().chain([&renewed]).map(|path| half(path));
        halves.chain([renewed.clone()]).collect()
    }

    /// Reads what the node shows and trusts: the pair that was written last, also where a power cut came in between; what is left to do
    /// then is done. A third file that does not count is removed.
    ///
    /// # Errors
    /// See [`FilesError`].
    pub fn read(&self) -> Result<StoredIdentity, FilesError> {
        let authorities = read(&self.authorities)?;
        match self.begun()? {
            ThirdFile::Counts { certificate, key } => {
                tracing::info!("the node's new certificate was written in part: the rest is done");
                self.finish(&certificate, &key);
                return Ok(StoredIdentity { certificate, key, authorities });
            }
            ThirdFile::CountsNot => {
                let path = self.renewed();
                tracing::warn!(path = %path.display(), "it holds no certificate of this node and its key that would replace what is in place; it is removed");
                remove(&path)?;
            }
            ThirdFile::Absent => {}
        }
        self.in_place(authorities)
    }

    /// The same, and nothing is written or removed.
    ///
    /// # Errors
    /// See [`FilesError`].
    pub fn look(&self) -> Result<StoredIdentity, FilesError> {
        let authorities = read(&self.authorities)?;
        match self.begun()? {
            ThirdFile::Counts { certificate, key } => Ok(StoredIdentity { certificate, key, authorities }),
            ThirdFile::CountsNot | ThirdFile::Absent => self.in_place(authorities),
        }
    }

    fn in_place(&self, authorities: String) -> Result<StoredIdentity, FilesError> {
        Ok(StoredIdentity { certificate: read(&self.certificate)?, key: read(&self.key)?, authorities })
    }

    /// A new pair that was begun to be written.
    fn begun(&self) -> Result<ThirdFile, FilesError> {
        let text = match read(&self.renewed()) {
            Err(FilesError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                return Ok(ThirdFile::Absent);
            }
            text => text?,
        };
        let (pair, replaces) = match text.split_once(IN_PLACE_OF) {
            Some((pair, replaces)) => (pair, Some(replaces.trim())),
            None => (text.as_str(), None),
        };
        let pair = pair.find(CERTIFICATE_BEGINS).and_then(|at| pair.split_at_checked(at));
        Ok(match pair {
            Some((key, certificate)) if self.counts(certificate, key, replaces) => {
                ThirdFile::Counts { certificate: certificate.to_owned(), key: key.to_owned() }
            }
            Some(_) | None => ThirdFile::CountsNot,
        })
    }

    /// Whether a pair that stands beside counts, which was written to replace the certificate with the serial `replaces`.
    fn counts(&self, certificate: &str, key: &str, replaces: Option<&str>) -> bool {
        let Some(der) = first_of_pem(certificate) else { return false };
        if !is_pair(&der, key).unwrap_or(false) {
            return false;
        }
        // Without one in its place there is nothing better.
        let Some(before) = read(&self.certificate).ok().as_deref().and_then(first_of_pem) else {
            return true;
        };
        let is_same_node = matches!((node_of_certificate(&der), node_of_certificate(&before)), (Ok(one), Ok(other)) if one == other);
        if !is_same_node {
            return false;
        }
        let works = read(&self.key).is_ok_and(|key| is_pair(&before, &key).unwrap_or(false));
        let is_replaced = || replaces.is_some() && serial_of(&before).ok().as_deref() == replaces;
        !works || is_replaced() || is_later(&der, &before)
    }

    /// The serial of the certificate that is in place, if that is a pair.
    fn serial_in_place(&self) -> Option<String> {
        let der = first_of_pem(&read(&self.certificate).ok()?)?;
        let key = read(&self.key).ok()?;
        is_pair(&der, &key).unwrap_or(false).then(|| serial_of(&der).ok()).flatten()
    }

    /// Replaces the pair. Blocks until it is on the disk. Where it cannot take its place (the disk is full, say), it is kept beside, and
    /// the next start goes on from there.
    ///
    /// # Errors
    /// See [`FilesError`]: what counted before does. Where the disk has failed in the very last step it may be the new pair at the next
    /// start, which the cloud takes for good as well until it hears which is used. Nothing is removed: what stands beside from before may be
    /// the only pair that is good.
    pub fn keep(&self, certificate: &str, key: &str) -> Result<(), FilesError> {
        self.take(WriteStep::Beside, certificate, key)?;
        self.finish(certificate, key);
        Ok(())
    }

    /// What is left to do when the new pair is beside, where it counts already.
    fn finish(&self, certificate: &str, key: &str) {
        let steps = [WriteStep::Key, WriteStep::Certificate, WriteStep::Clear];
        if let Err(error) = steps.into_iter().try_for_each(|step| self.take(step, certificate, key)) {
            tracing::warn!(%error, "the node's new certificate is not in its place yet: the next start finds it beside");
        }
    }

    /// One step of [`IdentityFiles::keep`].
    ///
    /// # Errors
    /// See [`FilesError`].
    pub fn take(&self, step: WriteStep, certificate: &str, key: &str) -> Result<(), FilesError> {
        match step {
            WriteStep::Beside => {
                let replaces = self.serial_in_place().map(|serial| format!("{IN_PLACE_OF}{serial}\n"));
                let text = format!("{key}{certificate}{}", replaces.unwrap_or_default());
                write(&self.renewed(), &text, SECRET)
            }
            WriteStep::Key => write(&real(&self.key), key, SECRET),
            WriteStep::Certificate => write(&real(&self.certificate), certificate, PUBLIC),
            WriteStep::Clear => remove(&self.renewed()),
        }
    }

    /// Replaces the CAs. Blocks until they are on the disk.
    ///
    /// # Errors
    /// See [`FilesError`].
    pub fn keep_authorities(&self, bundle: &str) -> Result<(), FilesError> {
        write(&real(&self.authorities), bundle, PUBLIC)
    }
}

/// Whether a certificate was signed no earlier than the one that is in place.
fn is_later(der: &[u8], before: &[u8]) -> bool {
    let signed = |der: &[u8]| validity_of(der).map(|validity| validity.signed_at()).ok();
    // By whole seconds.
    signed(der).map(|at| at + Duration::from_secs(1)) >= signed(before)
}

/// What a link leads to: it stays, and what it leads to is replaced.
fn real(path: &Path) -> PathBuf {
    fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())
}

fn read(path: &Path) -> Result<String, FilesError> {
    let at = |source| FilesError::Read { path: path.to_owned(), source };
    let mut text = String::new();
    File::open(path).map_err(at)?.take(FILE_MAX + 1).read_to_string(&mut text).map_err(at)?;
    if text.len() as u64 > FILE_MAX { Err(FilesError::TooLarge(path.to_owned())) } else { Ok(text) }
}

/// Under which name a file is written first.
fn half(path: &Path) -> PathBuf {
    let mut name = path.to_owned().into_os_string();
    name.push(".new");
    PathBuf::from(name)
}

/// Under a name of its own first, which nobody has opened, and then at once in the place of what was there.
fn write(path: &Path, text: &str, mode: u32) -> Result<(), FilesError> {
    let at = |source| FilesError::Write { path: path.to_owned(), source };
    let beside = half(path);
    // Of a power cut.
    remove(&beside)?;
    let opened = OpenOptions::new().write(true).create_new(true).mode(SECRET).open(&beside);
    let mut file = opened.map_err(at)?;
    file.write_all(text.as_bytes()).map_err(at)?;
    file.set_permissions(fs::Permissions::from_mode(mode)).map_err(at)?;
    file.sync_all().map_err(at)?;
    fs::rename(&beside, path).map_err(at)?;
    sync_folder(path)
}

fn remove(path: &Path) -> Result<(), FilesError> {
    match fs::remove_file(path) {
        Ok(()) => sync_folder(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(FilesError::Write { path: path.to_owned(), source }),
    }
}

fn sync_folder(path: &Path) -> Result<(), FilesError> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let synced = File::open(folder).and_then(|folder| folder.sync_all());
    synced.map_err(|source| FilesError::Write { path: folder.to_owned(), source })
}
