//! Files that a power cut leaves whole: written under another name, on the disk before they take their own.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{ErrorKind, Read, Seek as _, Write};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use aws_lc_rs::digest::{Context as Digest, SHA256};
use rustix::fs::{CWD, Mode, OFlags, RenameFlags, openat, renameat_with};

/// 64 KiB are read at once.
const PIECE: usize = 64 << 10;
/// 100 files of one name that were kept for a person: more are not numbered.
const KEPT_MAX: u32 = 100;

/// SHA-256 of what is read, in hexadecimal, and how many bytes that were.
///
/// # Errors
/// When it cannot be read, or is longer than `most`.
pub(crate) fn sum_of(from: &mut impl Read, most: u64) -> Result<(String, u64)> {
    copy_and_sum(from, &mut std::io::sink(), most)
}

/// SHA-256 of a file, in hexadecimal; `None`: there is no such file.
///
/// # Errors
/// When it is there and cannot be read.
pub(crate) fn sum_of_file(path: &Path) -> Result<Option<String>> {
    match open_named(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        opened => {
            let at = || format!("cannot read {}", path.display());
            Ok(Some(sum_of(&mut opened.with_context(at)?, u64::MAX).with_context(at)?.0))
        }
    }
}

/// Copies at most `most` bytes and answers their SHA-256 and how many they were.
///
/// # Errors
/// When there are more, or either side fails.
pub(crate) fn copy_and_sum(from: &mut impl Read, into: &mut impl Write, most: u64) -> Result<(String, u64)> {
    let mut digest = Digest::new(&SHA256);
    let mut piece = vec![0; PIECE];
    let mut length = 0_u64;
    loop {
        let read = match from.read(&mut piece) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            read => read?,
        };
        let Some(bytes) = piece.get(..read).filter(|bytes| !bytes.is_empty()) else { break };
        length = length.saturating_add(read as u64);
        if length > most {
            bail!("it is longer than {most} bytes");
        }
        digest.update(bytes);
        into.write_all(bytes)?;
    }
    Ok((hex::encode(digest.finish()), length))
}

/// A new file of this mode, whatever the umask, for whoever calls. What has the name is removed first: it is ours, from before a
/// power cut. Never through a link.
///
/// # Errors
/// When the folder does not take it.
pub(crate) fn make(path: &Path, mode: u32) -> Result<File> {
    let at = || format!("cannot make {}", path.display());
    remove(path)?;
    let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path).with_context(at)?;
    file.set_permissions(Permissions::from_mode(mode)).with_context(at)?;
    Ok(file)
}

/// Opens a file of somebody else's: never through a link, and without waiting for the other end of a pipe.
///
/// # Errors
/// When it is not there, or no regular file.
pub(crate) fn open_regular(path: &Path) -> Result<File> {
    let at = || format!("cannot read {}", path.display());
    let flags = i32::try_from((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits()).unwrap_or_default();
    let file = match OpenOptions::new().read(true).custom_flags(flags).open(path) {
        Err(_) if fs::symlink_metadata(path).is_ok_and(|found| found.is_symlink()) => {
            bail!("{} is a link, which somebody may lead elsewhere: name the file itself", path.display())
        }
        opened => opened.with_context(at)?,
    };
    if !file.metadata().with_context(at)?.is_file() {
        bail!("{} is not a regular file", path.display());
    }
    Ok(file)
}

/// What has a name, itself no link, and nothing is opened of it: no pipe waits, no device hears of it.
///
/// # Errors
/// When there is nothing.
pub(crate) fn look_at(path: &Path) -> Result<(OwnedFd, fs::Metadata)> {
    let at = || format!("cannot see {}", path.display());
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = File::from(openat(CWD, path, flags, Mode::empty()).with_context(at)?);
    let found = file.metadata().with_context(at)?;
    Ok((file.into(), found))
}

/// Opens a file to add to its end, if it is the very one that had this number on this disk: whatever has its name meanwhile, a link, a
/// pipe or another file, is not opened.
///
/// # Errors
/// When it is another one, or cannot be written.
pub(crate) fn open_to_append(path: &Path, (device, number): (u64, u64)) -> Result<File> {
    let (seen, found) = look_at(path)?;
    if !found.is_file() || (found.dev(), found.ino()) != (device, number) {
        bail!("{} is another file by now", path.display());
    }
    // By its number that very file.
    let itself = format!("/proc/self/fd/{}", seen.as_raw_fd());
    OpenOptions::new().append(true).open(itself).with_context(|| format!("cannot write {}", path.display()))
}

/// Opens a file of the node's own, or one that root has named: a link is followed, and no other end of a pipe is waited for.
///
/// # Errors
/// When it is not there, or no regular file.
fn open_named(path: &Path) -> std::io::Result<File> {
    let flags = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or_default();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(std::io::Error::new(ErrorKind::InvalidInput, "it is not a regular file"));
    }
    Ok(file)
}

/// Copies a file with this mode, on the disk when this returns, and answers its SHA-256.
///
/// # Errors
/// When either file cannot be used. The copy is removed then.
pub(crate) fn copy(from: &Path, into: &Path, mode: u32) -> Result<String> {
    let source = open_named(from).with_context(|| format!("cannot read {}", from.display()))?;
    copy_opened(&source, from, into, mode)
}

/// [`copy`] of a file that is open, from its begin. `from` is only what it is called.
///
/// # Errors
/// See [`copy`].
pub(crate) fn copy_opened(mut source: &File, from: &Path, into: &Path, mode: u32) -> Result<String> {
    let at = || format!("cannot copy {} to {}", from.display(), into.display());
    let mut write = || -> Result<String> {
        source.rewind()?;
        let mut target = make(into, mode)?;
        let (sum, _) = copy_and_sum(&mut source, &mut target, u64::MAX)?;
        target.sync_all()?;
        Ok(sum)
    };
    let made = write();
    if made.is_err() {
        // It is in nobody's way under its name.
        drop(fs::remove_file(into));
    }
    made.with_context(at)
}

/// Gives a file its content in one step: whoever reads it sees what was there before or all of this.
///
/// # Errors
/// When the disk does not take it. What was there stays.
pub(crate) fn replace(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    let fresh = beside(path, ".new");
    let at = || format!("cannot write {}", path.display());
    let write = || -> Result<()> {
        let mut file = make(&fresh, mode)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        rename(&fresh, path)
    };
    let written = write();
    if written.is_err() {
        drop(fs::remove_file(&fresh));
    }
    written.with_context(at)
}

/// Renames within a folder; on the disk when this returns.
///
/// # Errors
/// When the folder does not take it.
pub(crate) fn rename(from: &Path, to: &Path) -> Result<()> {
    fs::rename(from, to).with_context(|| format!("cannot rename {} to {}", from.display(), to.display()))?;
    sync_folder_of(to)
}

/// Gives a file of a person's a name that nothing has, `NAME.suffix` or that with a number behind it, and answers which; on the disk when
/// this returns.
///
/// # Errors
/// When the folder does not take it, or all such names are taken.
pub(crate) fn keep_as(from: &Path, path: &Path, suffix: &str) -> Result<PathBuf> {
    for number in 1..=KEPT_MAX {
        let name = match number {
            1 => beside(path, suffix),
            number => beside(path, &format!("{suffix}-{number}")),
        };
        // Not every file system knows how to rename and replace nothing.
        if fs::symlink_metadata(&name).is_ok() {
            continue;
        }
        match renameat_with(CWD, from, CWD, &name, RenameFlags::NOREPLACE) {
            Err(rustix::io::Errno::EXIST) => continue,
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => rename(from, &name)?,
            renamed => {
                renamed.with_context(|| format!("cannot rename {} to {}", from.display(), name.display()))?;
                sync_folder_of(&name)?;
            }
        }
        return Ok(name);
    }
    bail!("{KEPT_MAX} files beside {} are called {suffix}: move them away", path.display())
}

/// A second name for a file, on the disk when this returns; a copy where the file system has no such names.
///
/// # Errors
/// When the folder does not take it.
pub(crate) fn keep_under(path: &Path, name: &Path) -> Result<()> {
    remove(name)?;
    if fs::hard_link(path, name).is_err() {
        let mode = mode_of(path)?;
        copy(path, name, mode)?;
    }
    sync_folder_of(name)
}

/// Removes a file; one that is not there is removed.
///
/// # Errors
/// When the folder does not let it go.
pub(crate) fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// A rename is on the disk when its folder is.
///
/// # Errors
/// When the disk says so.
pub(crate) fn sync_folder_of(path: &Path) -> Result<()> {
    let folder = folder_of(path);
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .with_context(|| format!("cannot sync {}", folder.display()))
}

/// Makes a folder for its owner alone, with those above it.
///
/// # Errors
/// When it cannot be made, or is no folder.
pub(crate) fn make_folder(path: &Path) -> Result<()> {
    let at = || format!("cannot make the folder {}", path.display());
    DirBuilder::new().recursive(true).mode(0o700).create(path).with_context(at)?;
    let found = fs::symlink_metadata(path).with_context(at)?;
    if !found.is_dir() {
        bail!("{} is a link: move it away", path.display());
    }
    if found.uid() != rustix::process::geteuid().as_raw() {
        bail!("{} is another user's, who could change what lies in it: move it away", path.display());
    }
    if found.mode() & 0o077 != 0 {
        fs::set_permissions(path, Permissions::from_mode(0o700)).with_context(at)?;
    }
    Ok(())
}

/// The bits of a file's mode.
///
/// # Errors
/// When it is not there.
pub(crate) fn mode_of(path: &Path) -> Result<u32> {
    let found = fs::metadata(path).with_context(|| format!("cannot see {}", path.display()))?;
    Ok(found.mode() & 0o7777)
}

/// The bytes of a file; 0 where there is none.
pub(crate) fn size_of(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |found| found.len())
}

/// The bytes that a file system has left for who may write there.
///
/// # Errors
/// When it cannot be asked.
pub(crate) fn room_at(folder: &Path) -> Result<u64> {
    let found = rustix::fs::statvfs(folder)
        .with_context(|| format!("cannot see how much room {} has", folder.display()))?;
    Ok(found.f_bavail.saturating_mul(found.f_frsize))
}

/// The folder of a file.
pub(crate) fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// The path with `suffix` behind it.
pub(crate) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// `.NAME.suffix` in the same folder: no program of that folder by accident.
pub(crate) fn hidden_beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(suffix);
    path.with_file_name(name)
}

/// A file of at most `most` bytes.
///
/// # Errors
/// When it is longer, or cannot be read.
pub(crate) fn read(path: &Path, most: u64) -> Result<Vec<u8>> {
    let at = || format!("cannot read {}", path.display());
    let mut bytes = Vec::new();
    let file = open_named(path).with_context(at)?;
    file.take(most.saturating_add(1)).read_to_end(&mut bytes).with_context(at)?;
    if bytes.len() as u64 > most {
        bail!("{} is longer than {most} bytes", path.display());
    }
    Ok(bytes)
}

/// Whether a file that could not be written wanted room.
pub(crate) fn is_full(error: &anyhow::Error) -> bool {
    let full = |cause: &(dyn std::error::Error + 'static)| {
        cause.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == ErrorKind::StorageFull)
    };
    error.chain().any(full)
}
