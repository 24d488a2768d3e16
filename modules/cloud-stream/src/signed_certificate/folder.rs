//! Where the key and the certificate lie that a signer was asked for: a folder that nobody else reads or writes.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use thiserror::Error;

/// 256 KiB: more is in none of its files.
const FILE_MAX: u64 = 256 << 10;
/// Bits of group and others.
const NOT_OWNER: u32 = 0o077;

/// The key and the certificate that are shown, one PEM after the other: a crash leaves both or neither.
pub(crate) const CURRENT: &str = "current.pem";
/// The key of the request that is not decided.
pub(crate) const PENDING: &str = "pending.key";

/// Why the folder is not used.
#[derive(Debug, Error)]
pub(crate) enum FolderError {
    #[error("cannot {what} `{path}`: {source}: see modules.cloudStream.kubeletEndpoint.certificate.folder")]
    Io { what: &'static str, path: PathBuf, source: io::Error },
    #[error("`{0}` is in use by another cloudcore: give each a certificate.folder of its own")]
    InUse(PathBuf),
    #[error(
        "`{0}` is not a folder of mode 0700 that belongs to cloudcore's user: remove it, it is made anew"
    )]
    NotOurs(PathBuf),
    #[error("`{0}` holds more than it may: remove it")]
    TooLarge(PathBuf),
}

fn at(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FolderError {
    let path = path.to_owned();
    move |source| FolderError::Io { what, path, source }
}

/// The folder, while this CloudCore has it.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    _lock: File,
}

impl Folder {
    /// Makes it or takes it as it is, and keeps others away from it.
    ///
    /// # Errors
    /// See [`FolderError`].
    pub(crate) fn open(path: &Path) -> Result<Self, FolderError> {
        if let Some(above) = path.parent() {
            DirBuilder::new().recursive(true).mode(0o755).create(above).map_err(at("make", above))?;
        }
        match DirBuilder::new().mode(0o700).create(path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(at("make", path)(error));
            }
            _ => {}
        }
        let found = fs::symlink_metadata(path).map_err(at("look at", path))?;
        // `/proc/self` is owned by the effective user of this process.
        let own = fs::metadata("/proc/self").map_err(at("look at", Path::new("/proc/self")))?.uid();
        if !found.is_dir() || found.uid() != own || found.mode() & NOT_OWNER != 0 {
            return Err(FolderError::NotOurs(path.to_owned()));
        }
        let lock = path.join("lock");
        let opened = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&lock);
        let file = opened.map_err(at("open", &lock))?;
        match file.try_lock() {
            Ok(()) => Ok(Folder { path: path.to_owned(), _lock: file }),
            Err(TryLockError::WouldBlock) => Err(FolderError::InUse(path.to_owned())),
            Err(TryLockError::Error(error)) => Err(at("lock", &lock)(error)),
        }
    }

    /// What a file of it holds; `None`: it is not there.
    pub(crate) fn read(&self, name: &str) -> Result<Option<String>, FolderError> {
        let path = self.path.join(name);
        let file = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened.map_err(at("read", &path))?,
        };
        let mut text = String::new();
        file.take(FILE_MAX + 1).read_to_string(&mut text).map_err(at("read", &path))?;
        if text.len() as u64 > FILE_MAX {
            return Err(FolderError::TooLarge(path));
        }
        Ok(Some(text))
    }

    /// Writes beside and renames, so that a crash leaves the old file or the new one. Its owner alone may read it.
    pub(crate) fn write(&self, name: &str, text: &str) -> Result<(), FolderError> {
        let (path, beside) = (self.path.join(name), self.path.join(format!("{name}.new")));
        self.remove(&format!("{name}.new"))?;
        let opened = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside);
        let mut file = opened.map_err(at("write", &beside))?;
        file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(at("write", &beside))?;
        fs::rename(&beside, &path).map_err(at("write", &path))?;
        let folder = File::open(&self.path).and_then(|folder| folder.sync_all());
        folder.map_err(at("write", &self.path))
    }

    pub(crate) fn remove(&self, name: &str) -> Result<(), FolderError> {
        let path = self.path.join(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(at("remove", &path)(error)),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn what_is_kept_is_read_by_its_owner_alone_and_by_one_cloudcore_at_a_time() {
        let above = tempfile::tempdir().unwrap();
        let path = above.path().join("a/b");
        let folder = Folder::open(&path).unwrap();
        assert_eq!(folder.read(CURRENT).unwrap(), None);
        folder.write(CURRENT, "one").unwrap();
        folder.write(CURRENT, "two").unwrap();
        assert_eq!(folder.read(CURRENT).unwrap().as_deref(), Some("two"));
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
        assert_eq!((mode(&path), mode(&path.join(CURRENT))), (0o700, 0o600));
        assert!(matches!(Folder::open(&path), Err(FolderError::InUse(_))));
        drop(folder);
        let folder = Folder::open(&path).unwrap();
        assert_eq!(folder.read(CURRENT).unwrap().as_deref(), Some("two"), "after a restart");
        folder.remove(CURRENT).unwrap();
        folder.remove(CURRENT).unwrap();
        assert_eq!(folder.read(CURRENT).unwrap(), None);
        fs::write(path.join(PENDING), "x".repeat(300_000)).unwrap();
        assert!(matches!(folder.read(PENDING), Err(FolderError::TooLarge(_))));
        drop(folder);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o750)).unwrap();
        assert!(matches!(Folder::open(&path), Err(FolderError::NotOurs(_))));
        let link = above.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(matches!(Folder::open(&link), Err(FolderError::NotOurs(_))));
    }
}
