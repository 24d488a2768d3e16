//! The files beside the database: their names, their modes, and broken ones that are set aside.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::ErrorKind;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::StoreError;
use crate::holders::Holders;

/// Broken files beside the database; older ones are deleted.
const BROKEN_KEPT: usize = 3;

/// Refuses what stands in a file's place and is none: whoever opens a named pipe waits for its other end, for ever. A link, too:
/// SQLite has the log beside what it leads to, and we look for it beside the link; and whoever follows it changes modes and
/// contents of what is not the store's.
pub(crate) fn check_regular(path: &Path) -> Result<(), StoreError> {
    for suffix in ["", "-wal", "-shm", "-journal", ".key", ".lock"] {
        let path = if suffix.is_empty() { path.to_owned() } else { beside(path, suffix) };
        let Ok(found) = fs::symlink_metadata(&path).map(|meta| meta.file_type()) else { continue };
        let is = match found {
            found if found.is_file() => continue,
            found if found.is_symlink() => "a symbolic link",
            found if found.is_dir() => "a folder",
            found if found.is_fifo() => "a named pipe",
            found if found.is_socket() => "a socket",
            _ => "a device",
        };
        let cure = if suffix.is_empty() {
            "name the file itself in database.dataSource, or move this away"
        } else {
            "move this away"
        };
        return Err(StoreError::NotAFile { path, is, cure });
    }
    Ok(())
}

/// SQLite lets two processes write; our counters and the setting aside do not.
pub(crate) fn lock(path: &Path) -> Result<File, StoreError> {
    check_regular(path)?;
    let lock_path = beside(path, ".lock");
    let opened = match private().write(true).create(true).truncate(false).open(&lock_path) {
        // A disk that takes no writes still says who holds the file.
        Err(e) if e.kind() == ErrorKind::ReadOnlyFilesystem => File::open(&lock_path).map_err(|_| e),
        opened => opened,
    };
    let file = opened.map_err(|e| StoreError::file("open", &lock_path, e))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            Err(StoreError::InUse { path: path.to_owned(), by: Holders::of_lock_file(&lock_path) })
        }
        Err(TryLockError::Error(e)) => Err(StoreError::file("lock", &lock_path, e)),
    }
}

/// A store that nobody can open while this is kept.
#[derive(Debug)]
pub struct HeldStore {
    pub(crate) path: PathBuf,
    #[expect(dead_code, reason = "it holds the lock")]
    lock: File,
}

/// Holds the store at `path`, so that it can be removed or replaced.
///
/// # Errors
/// [`StoreError::InUse`] while an edgecore has it, and when its lock cannot be taken.
pub fn hold(path: &Path) -> Result<HeldStore, StoreError> {
    Ok(HeldStore { path: path.to_owned(), lock: lock(path)? })
}

/// The numbers of the broken files beside `path`, ascending.
fn broken_numbers(path: &Path) -> Result<Vec<u64>, StoreError> {
    let fail = |e| StoreError::file("list the folder of", path, e);
    let prefix = format!("{}.broken-", path.file_name().unwrap_or_default().to_string_lossy());
    let mut numbers = Vec::new();
    for entry in fs::read_dir(folder(path).unwrap_or(Path::new("."))).map_err(fail)? {
        let name = entry.map_err(fail)?.file_name();
        let name = name.to_string_lossy();
        let number = name.strip_prefix(&prefix).map(|rest| rest.strip_suffix("-wal").unwrap_or(rest));
        numbers.extend(number.and_then(|n| n.parse::<u64>().ok()));
    }
    numbers.sort_unstable();
    numbers.dedup();
    Ok(numbers)
}

fn broken(path: &Path, number: u64) -> PathBuf {
    beside(path, &format!(".broken-{number}"))
}

pub(crate) fn newest_broken(path: &Path) -> Result<Option<PathBuf>, StoreError> {
    Ok(broken_numbers(path)?.last().map(|n| broken(path, *n)))
}

pub(crate) fn next_broken(path: &Path) -> Result<PathBuf, StoreError> {
    let last = broken_numbers(path)?.last().copied().unwrap_or(0);
    Ok(broken(path, last.saturating_add(1)))
}

pub(crate) fn forget_oldest(path: &Path) -> Result<(), StoreError> {
    let numbers = broken_numbers(path)?;
    for number in numbers.iter().take(numbers.len().saturating_sub(BROKEN_KEPT)) {
        remove_database(&broken(path, *number))?;
    }
    Ok(())
}

pub(crate) fn remove_database(path: &Path) -> Result<(), StoreError> {
    remove(path)?;
    remove(&beside(path, "-wal"))?;
    remove(&beside(path, "-shm"))
}

pub(crate) fn remove(path: &Path) -> Result<(), StoreError> {
    match fs::remove_file(path) {
        // A read-only disk says so before it looks whether the file is there.
        Err(_) if !path.exists() => Ok(()),
        Err(e) => Err(StoreError::file("remove", path, e)),
        Ok(()) => Ok(()),
    }
}

pub(crate) fn rename(from: &Path, to: &Path) -> Result<(), StoreError> {
    fs::rename(from, to).map_err(|e| StoreError::file("rename", from, e))
}

/// The file's length; 0 when there is none.
pub(crate) fn size(path: &Path) -> Result<u64, StoreError> {
    match fs::metadata(path) {
        Ok(meta) => Ok(meta.len()),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(0),
        Err(e) => Err(StoreError::file("see the size of", path, e)),
    }
}

/// A rename is only on disk when its folder is.
pub(crate) fn sync_folder(path: &Path) -> Result<(), StoreError> {
    let folder = folder(path).unwrap_or(Path::new("."));
    File::open(folder).and_then(|f| f.sync_all()).map_err(|e| StoreError::file("sync", folder, e))
}

pub(crate) fn folder(path: &Path) -> Option<&Path> {
    path.parent().filter(|parent| !parent.as_os_str().is_empty())
}

pub(crate) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Makes an empty file that only its owner may read, unless there is one.
pub(crate) fn make_private(path: &Path, truncate: bool) -> Result<(), StoreError> {
    let made = private().write(true).create(true).truncate(truncate).open(path);
    made.map(drop).map_err(|e| StoreError::file("open", path, e))
}

fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.mode(0o600);
    options
}
