//! Files that a mapper keeps for itself in a folder that it may share with others: the one of its socket is a group's, or mounted into
//! pods. No link is followed, no pipe waited for, nobody else's file read or written, and what is written is whole at any moment.

use std::fs::{self, File, Metadata};
use std::hash::{BuildHasher as _, RandomState};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// Nobody else reads or writes it.
const FILE_MODE: u32 = 0o600;
const FOLDER_MODE: u32 = 0o700;
/// By others than the owner.
const WRITABLE: u32 = 0o022;
const NO_WAY_AROUND: i32 = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC;

fn refused(path: &Path, what: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::PermissionDenied,
        format!("`{}` {what}: somebody else has put it there; remove it", path.display()),
    )
}

/// By whose rights this program acts.
fn own_user() -> io::Result<u32> {
    fs::metadata("/proc/self").map(|own| own.uid())
}

fn check_file(path: &Path, found: &Metadata) -> io::Result<()> {
    if !found.is_file() {
        return Err(refused(path, "is no file"));
    }
    if found.uid() != own_user()? {
        return Err(refused(path, "is another user's"));
    }
    Ok(())
}

/// Opens a file of our own, as `options` say.
///
/// # Errors
/// The system's; that it is a link, no file, or another user's, with the cure.
fn open(path: &Path, options: &mut fs::OpenOptions) -> io::Result<File> {
    let file = options.mode(FILE_MODE).custom_flags(NO_WAY_AROUND).open(path).map_err(|error| {
        if error.raw_os_error() == Some(libc::ELOOP) { refused(path, "is a link") } else { error }
    })?;
    check_file(path, &file.metadata()?)?;
    Ok(file)
}

/// Opens a file for a lock, and makes it if it is not there.
///
/// # Errors
/// As [`open`].
pub(crate) fn open_or_make(path: &Path) -> io::Result<File> {
    open(path, File::options().create(true).truncate(false).write(true))
}

/// What a file of our own holds, at most `most` bytes of it; `None` if there is none.
///
/// # Errors
/// The system's; that it is a link, no file, another user's, or larger.
pub fn read(path: &Path, most: u64) -> io::Result<Option<Vec<u8>>> {
    let file = match open(path, File::options().read(true)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    let mut bytes = Vec::new();
    file.take(most + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        let text = format!("`{}` has more than {most} bytes", path.display());
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, text));
    }
    Ok(Some(bytes))
}

/// Writes a file of our own, mode 0600, in the place of whatever has its name: by way of a name that nobody knows before.
///
/// # Errors
/// The system's.
pub fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".{:016x}.new", RandomState::new().hash_one(bytes)));
    let beside = PathBuf::from(beside);
    let written = open(&beside, File::options().create_new(true).write(true)).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&beside, path)
    });
    if let Err(error) = written {
        // If it is not there any more, all the better.
        let _ = fs::remove_file(&beside);
        return Err(error);
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

/// Puts bytes at the end of a file of our own, mode 0600, which is made if it is not there; they are on the disk then, as far as they are
/// its content. What is cut off by a power cut is for its reader to tell.
///
/// # Errors
/// As [`open`].
pub(crate) fn append(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = open(path, File::options().create(true).append(true))?;
    file.write_all(bytes)?;
    file.sync_data()
}

/// A folder of our own in one that may be shared; made, mode 0700, if it is not there. Whoever shares the one above cannot exchange it
/// where that has the sticky bit, as `edgecore` makes it.
///
/// # Errors
/// The system's; that it is a link, no folder, another user's, or one that others write.
pub fn folder(path: &Path) -> io::Result<()> {
    match fs::DirBuilder::new().mode(FOLDER_MODE).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        made => return made,
    }
    let found = fs::symlink_metadata(path)?;
    if !found.is_dir() {
        return Err(refused(path, "is no folder"));
    }
    if found.uid() != own_user()? {
        return Err(refused(path, "is another user's"));
    }
    if found.mode() & WRITABLE != 0 {
        let text = format!("`{}` is written by others, too: `chmod go-w` it", path.display());
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    #[test]
    fn what_others_put_there_is_neither_followed_nor_waited_for() {
        let shared = tempfile::tempdir().unwrap();
        let at = |name: &str| shared.path().join(name);
        fs::write(at("victim"), "untouched").unwrap();
        symlink(at("victim"), at("link")).unwrap();
        assert!(read(&at("link"), 99).unwrap_err().to_string().contains("is a link"));
        open_or_make(&at("link")).unwrap_err();
        write(&at("link"), b"new").unwrap();
        assert_eq!(fs::read_to_string(at("victim")).unwrap(), "untouched");
        assert_eq!(read(&at("link"), 99).unwrap().unwrap(), b"new", "the link was replaced");
        assert_eq!(fs::symlink_metadata(at("link")).unwrap().mode() & 0o777, FILE_MODE);
        let made = std::process::Command::new("mkfifo").arg(at("pipe")).status().unwrap();
        assert!(made.success());
        assert!(read(&at("pipe"), 99).unwrap_err().to_string().contains("is no file"));
        assert_eq!(read(&at("none"), 99).unwrap(), None);
        read(&at("link"), 2).unwrap_err();
        // Nothing half-written is left.
        let left = fs::read_dir(shared.path())
            .unwrap()
            .flatten()
            .filter(|entry| entry.file_name().to_string_lossy().ends_with(".new"));
        assert_eq!(left.count(), 0);
    }

    #[test]
    fn a_folder_that_others_made_or_write_is_refused() {
        let shared = tempfile::tempdir().unwrap();
        let at = |name: &str| shared.path().join(name);
        folder(&at("own")).unwrap();
        folder(&at("own")).unwrap();
        fs::set_permissions(at("own"), fs::Permissions::from_mode(0o770)).unwrap();
        assert!(folder(&at("own")).unwrap_err().to_string().contains("chmod go-w"));
        symlink(shared.path(), at("link")).unwrap();
        assert!(folder(&at("link")).unwrap_err().to_string().contains("is no folder"));
        if own_user().unwrap() == 0 {
            fs::create_dir(at("others")).unwrap();
            std::os::unix::fs::chown(at("others"), Some(4711), None).unwrap();
            assert!(folder(&at("others")).unwrap_err().to_string().contains("another user's"));
        }
    }
}
