//! The server's folder: nobody but its owner reads what is in it.
//!
//! All Secrets, the CA's key and the key of the tokens lie there in the clear; what protects them is the mode of the
//! files and of the folder, and that nobody else can exchange a folder above. So this is checked at each start, also
//! when the folder was there before: what can be repaired is repaired and said, what cannot is refused.

use std::fs::{self, File, Metadata, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use thiserror::Error;

/// Bits of group and others.
const NOT_OWNER: u32 = 0o077;
/// Write bits of group and others.
const OTHERS_WRITE: u32 = 0o022;
/// In a folder with it only the owner of a file renames and removes it (`/tmp`).
const STICKY: u32 = 0o1000;

/// Why the folder is not used.
#[derive(Debug, Error)]
pub enum FolderError {
    /// It cannot be looked at, made or changed.
    #[error("cannot {what} `{path}`")]
    Io {
        /// What was tried.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Another cloudcore runs on it: two would each have a truth of their own.
    #[error(
        "`{path}` is in use by another cloudcore; stop that one or give this one a --standalone-dir of its own"
    )]
    InUse {
        /// Where.
        path: PathBuf,
    },
    /// Somebody else could read or exchange what is in it, and that is not repaired here.
    #[error("`{path}` {what}: {cure}")]
    Unsafe {
        /// Where.
        path: PathBuf,
        /// What is wrong.
        what: String,
        /// What to do.
        cure: &'static str,
    },
}

fn refused(path: &Path, what: impl Into<String>, cure: &'static str) -> FolderError {
    FolderError::Unsafe { path: path.to_owned(), what: what.into(), cure }
}

fn at(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FolderError {
    let path = path.to_owned();
    move |source| FolderError::Io { what, path, source }
}

/// The effective user, as the owner of a file that this process makes. `/proc/self` is owned by it.
fn own_uid() -> Result<u32, FolderError> {
    let path = Path::new("/proc/self");
    Ok(fs::metadata(path).map_err(at("look at", path))?.uid())
}

/// A folder that is this process's alone, until it is dropped.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

/// Locks the folder. The lock goes with the process, however that ends.
fn lock(folder: &Path) -> Result<Lock, FolderError> {
    let path = folder.join("lock");
    let mut how = OpenOptions::new();
    how.write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
    let file = how.open(&path).map_err(at("open", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(Lock { _file: file }),
        Err(TryLockError::WouldBlock) => Err(FolderError::InUse { path: folder.to_owned() }),
        Err(TryLockError::Error(error)) => Err(at("lock", &path)(error)),
    }
}

/// Makes `folder` or repairs it, locks it, and repairs every file in it. Answers the lock, and sentences about what was
/// repaired. Nothing in a folder that another process has is touched.
///
/// # Errors
/// See [`FolderError`].
pub(crate) fn open(folder: &Path) -> Result<(Lock, Vec<String>), FolderError> {
    let uid = own_uid()?;
    let folder = std::path::absolute(folder).map_err(at("find", folder))?;
    check_above(&folder, uid)?;
    match fs::symlink_metadata(&folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder);
            made.map_err(at("make folder", &folder))?;
        }
        Err(error) => return Err(at("look at", &folder)(error)),
        Ok(_) => {}
    }
    let found = fs::symlink_metadata(&folder).map_err(at("look at", &folder))?;
    if !found.is_dir() {
        let cure = "give the folder itself with --standalone-dir";
        return Err(refused(&folder, "is no folder, or a link to one", cure));
    }
    owned(&folder, &found, uid)?;
    let mut repaired = Vec::new();
    let mode = found.mode() & 0o7777;
    if mode & NOT_OWNER != 0 {
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).map_err(at("protect", &folder))?;
        repaired.push(format!("`{}` had mode {mode:04o} and has 0700 now", folder.display()));
    }
    let lock = lock(&folder)?;
    for entry in fs::read_dir(&folder).map_err(at("read", &folder))? {
        let path = entry.map_err(at("read", &folder))?.path();
        repaired.extend(secure_file(&path, uid)?);
    }
    Ok((lock, repaired))
}

/// Whoever may write into a folder above can put another folder into this one's place. Symlinks on the way count by
/// the folder that they stand in, and what they lead to is looked at as well.
fn check_above(folder: &Path, uid: u32) -> Result<(), FolderError> {
    let Some(parent) = folder.parent() else { return Ok(()) };
    let existing = parent.ancestors().find(|above| above.symlink_metadata().is_ok()).unwrap_or(parent);
    let real = existing.canonicalize().map_err(at("find", existing))?;
    for above in existing.ancestors().chain(real.ancestors()) {
        let found = above.symlink_metadata().map_err(at("look at", above))?;
        if !matches!(found.uid(), 0) && found.uid() != uid {
            let what = format!("belongs to another user ({}), who could exchange what is below", found.uid());
            return Err(refused(above, what, "use a folder below ones of root or of the user of cloudcore"));
        }
        let mode = found.mode();
        if found.is_dir() && mode & OTHERS_WRITE != 0 && mode & STICKY == 0 {
            let what = format!("has mode {:04o}, so others could exchange what is below", mode & 0o7777);
            return Err(refused(above, what, "chmod go-w it, or use another folder"));
        }
    }
    Ok(())
}

fn owned(path: &Path, found: &Metadata, uid: u32) -> Result<(), FolderError> {
    if found.uid() == uid {
        return Ok(());
    }
    let what = format!("belongs to user {}, not to {uid}", found.uid());
    Err(refused(path, what, "somebody else may have put it there: remove it, or chown it if it is yours"))
}

/// One file of ours. Without following a link, and the file that is looked at is the one that is changed.
fn secure_file(path: &Path, uid: u32) -> Result<Option<String>, FolderError> {
    let found = fs::symlink_metadata(path).map_err(at("look at", path))?;
    owned(path, &found, uid)?;
    if found.is_dir() {
        // Nothing of ours; behind a folder of mode 0700 nobody reaches it.
        return Ok(None);
    }
    if !found.is_file() {
        return Err(refused(path, "is no plain file", "remove it"));
    }
    let file = open_itself(path).map_err(at("open", path))?;
    let found = file.metadata().map_err(at("look at", path))?;
    owned(path, &found, uid)?;
    if found.nlink() > 1 {
        return Err(refused(path, "has a second name elsewhere (a hard link)", "copy it and remove both"));
    }
    let mode = found.mode() & 0o7777;
    if mode & NOT_OWNER == 0 {
        return Ok(None);
    }
    file.set_permissions(fs::Permissions::from_mode(0o600)).map_err(at("protect", path))?;
    let told = format!(
        "`{}` had mode {mode:04o} and has 0600 now; if others were on this host, take what it holds for known to them",
        path.display()
    );
    Ok(Some(told))
}

/// Opens the file, never what a link leads to. Without waiting: it may have become a pipe.
fn open_itself(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path)
}

/// Makes an empty file of mode 0600 if there is none, so that whoever opens it later does not choose the mode.
pub(crate) fn make_private(path: &Path) -> Result<(), FolderError> {
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(at("make", path)(error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn mode(path: &Path) -> u32 {
        fs::symlink_metadata(path).unwrap().mode() & 0o7777
    }

    fn chmod(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    fn secure(folder: &Path) -> Result<Vec<String>, FolderError> {
        open(folder).map(|(_, repaired)| repaired)
    }

    #[test]
    fn a_folder_is_of_one_process_at_a_time() {
        let temp = tempfile::tempdir().unwrap();
        let folder = temp.path().join("data");
        let (lock, _) = open(&folder).unwrap();
        fs::write(folder.join("api.db-wal"), "x").unwrap();
        chmod(&folder.join("api.db-wal"), 0o644);
        assert!(refusal(&folder).contains("is in use by another cloudcore; stop that one"));
        assert_eq!(mode(&folder.join("api.db-wal")), 0o644, "what another has is not touched");
        drop(lock);
        assert_eq!(secure(&folder).unwrap().len(), 1);
        assert_eq!(mode(&folder.join("lock")), 0o600);
    }

    fn refusal(folder: &Path) -> String {
        secure(folder).unwrap_err().to_string()
    }

    #[test]
    fn a_new_folder_is_the_owners_alone() {
        let temp = tempfile::tempdir().unwrap();
        let folder = temp.path().join("a/b");
        assert_eq!(secure(&folder).unwrap(), [""; 0]);
        assert_eq!((mode(&folder), mode(&temp.path().join("a"))), (0o700, 0o700));
    }

    #[test]
    fn what_was_there_before_is_repaired_and_said() {
        let temp = tempfile::tempdir().unwrap();
        let folder = temp.path().join("data");
        fs::create_dir(&folder).unwrap();
        chmod(&folder, 0o755);
        for file in ["api.db", "api.db-wal", "ca.key"] {
            fs::write(folder.join(file), "x").unwrap();
            chmod(&folder.join(file), 0o644);
        }
        chmod(&folder.join("ca.key"), 0o600);
        let told = secure(&folder).unwrap();
        assert_eq!(told.len(), 3, "{told:?}");
        assert!(told.iter().any(|told| told.contains("api.db-wal` had mode 0644")), "{told:?}");
        assert_eq!(mode(&folder), 0o700);
        for file in ["api.db", "api.db-wal", "ca.key"] {
            assert_eq!(mode(&folder.join(file)), 0o600, "{file}");
        }
        assert_eq!(secure(&folder).unwrap(), [""; 0]);
    }

    #[test]
    fn what_others_could_have_put_there_is_refused() {
        let temp = tempfile::tempdir().unwrap();
        let target = temp.path().join("target");
        fs::create_dir(&target).unwrap();
        let link = temp.path().join("link");
        symlink(&target, &link).unwrap();
        assert!(refusal(&link).contains("is no folder, or a link"), "{}", refusal(&link));
        // Links and second names inside.
        fs::write(temp.path().join("elsewhere"), "x").unwrap();
        symlink(temp.path().join("elsewhere"), target.join("api.db")).unwrap();
        assert!(refusal(&target).contains("is no plain file"));
        assert_eq!(mode(&temp.path().join("elsewhere")) & 0o777, 0o644);
        fs::remove_file(target.join("api.db")).unwrap();
        fs::hard_link(temp.path().join("elsewhere"), target.join("sa.key")).unwrap();
        assert!(refusal(&target).contains("hard link"));
        fs::remove_file(target.join("sa.key")).unwrap();
        // A parent that everybody writes to.
        let open = temp.path().join("open");
        fs::create_dir(&open).unwrap();
        chmod(&open, 0o777);
        assert!(refusal(&open.join("data")).contains("others could exchange"));
        assert!(!open.join("data").exists());
        chmod(&open, 0o1777);
        secure(&open.join("data")).unwrap();
    }

    #[test]
    fn what_belongs_to_somebody_else_is_refused() {
        let temp = tempfile::tempdir().unwrap();
        let folder = temp.path().join("data");
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("admin.token"), "known to somebody else").unwrap();
        if std::os::unix::fs::chown(folder.join("admin.token"), Some(65_534), None).is_err() {
            // Only root gives files away; the rule itself is the same without.
            let other = fs::metadata("/proc/1").unwrap();
            assert!(owned(Path::new("/proc/1"), &other, other.uid() + 1).is_err());
            return;
        }
        assert!(refusal(&folder).contains("belongs to user 65534"));
        fs::remove_file(folder.join("admin.token")).unwrap();
        std::os::unix::fs::chown(&folder, Some(65_534), None).unwrap();
        assert!(refusal(&folder).contains("belongs to user 65534"));
        // Nor below a folder of somebody else.
        assert!(refusal(&folder.join("inner")).contains("belongs to another user"));
    }
}
