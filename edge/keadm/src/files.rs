//! Files that joining writes: never through a name that somebody else could have put there, never through a link.

use std::fs::{self, File, Permissions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use pki::TOKEN_MAX;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;
use tempfile::NamedTempFile;

/// Writes a new file that was never readable by others: under a name in the same folder that nobody can guess, made by this
/// call (`O_EXCL`), and given its own only if that is free.
///
/// # Errors
/// When the file is there already, be it a link to nowhere, or when everybody can rename files in its folder.
pub(crate) fn write(path: &Path, text: &str, mode: u32) -> Result<()> {
    let at = || format!("cannot write {}", path.display());
    let fresh = fresh_beside(path, text, mode).with_context(at)?;
    fresh.persist_noclobber(path).map_err(|error| error.error).with_context(at)?;
    File::open(folder_of(path)).and_then(|folder| folder.sync_all()).with_context(at)
}

/// Tries whether [`write`] will be able to: its folder, or the one where that will be made, takes a file of this size, which goes again.
///
/// # Errors
/// As [`write`].
pub(crate) fn try_write(path: &Path, size: usize) -> Result<()> {
    let at = || format!("cannot write {}", path.display());
    let folder = folder_of(path);
    let there = folder.ancestors().find(|folder| is_there(folder)).unwrap_or(Path::new("."));
    if there == folder {
        check_folder(folder).with_context(at)?;
    }
    let mut tried = tempfile::Builder::new().prefix(".keadm-").tempfile_in(there).with_context(at)?;
    tried.write_all(&vec![b'\n'; size]).with_context(at)?;
    tried.as_file().sync_all().with_context(at)
}

/// A file on the disk beside `path` that has no name of its own yet.
fn fresh_beside(path: &Path, text: &str, mode: u32) -> Result<NamedTempFile> {
    let folder = folder_of(path);
    // Whoever may read the file may pass its folder, and nobody else: a key's is 0700.
    let folder_mode = mode | 0o100 | ((mode & 0o044) >> 2);
    fs::DirBuilder::new().recursive(true).mode(folder_mode).create(folder)?;
    check_folder(folder)?;
    let mut fresh = tempfile::Builder::new()
        .prefix(".keadm-")
        .permissions(Permissions::from_mode(0o600))
        .tempfile_in(folder)?;
    fresh.write_all(text.as_bytes())?;
    fresh.as_file().set_permissions(Permissions::from_mode(mode))?;
    fresh.as_file().sync_all()?;
    Ok(fresh)
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Whether something has that name, a link to nowhere included.
pub(crate) fn is_there(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

/// A folder where everybody may rename everything is no place for a key.
fn check_folder(folder: &Path) -> Result<()> {
    let mode = fs::metadata(folder)?.mode();
    if mode & 0o002 != 0 && mode & 0o1000 == 0 {
        bail!("everybody may write in {}: `chmod o-w {0}` first", folder.display());
    }
    Ok(())
}

/// So long a pipe may say nothing: `keadm gettoken` at its other end asks a cluster first.
const PIPE_WAIT: Duration = Duration::from_secs(60);

/// A token from a file or a pipe (`/dev/stdin`, `<(keadm gettoken …)`, one with a name); `-`: from standard input, which may be
/// a person.
///
/// # Errors
/// When it cannot be read, is a folder, socket or block device, is longer than a token, or when a pipe says nothing for a
/// minute.
pub fn read_token(path: &Path) -> Result<String> {
    read_token_within(path, PIPE_WAIT)
}

fn read_token_within(path: &Path, wait: Duration) -> Result<String> {
    let at = || format!("cannot read the token from {}", path.display());
    let mut text = String::new();
    if path == Path::new("-") {
        bounded(std::io::stdin()).read_to_string(&mut text).with_context(at)?;
        return Ok(text.trim().to_owned());
    }
    let kind = fs::metadata(path).with_context(at)?.file_type();
    if kind.is_fifo() {
        // Opened like any other it would wait for somebody to write, for ever.
        let pipe = File::options()
            .read(true)
            .custom_flags(OFlags::NONBLOCK.bits().cast_signed())
            .open(path)
            .with_context(at)?;
        bounded(Pipe { pipe, wait }).read_to_string(&mut text).with_context(at)?;
    } else if kind.is_file() || kind.is_char_device() {
        bounded(File::open(path).with_context(at)?).read_to_string(&mut text).with_context(at)?;
    } else {
        let is = if kind.is_dir() { "a folder" } else { "neither a file nor a pipe" };
        return Err(anyhow!("it is {is}: name the file that holds the token").context(at()));
    }
    Ok(text.trim().to_owned())
}

fn bounded(source: impl Read) -> impl Read {
    source.take(TOKEN_MAX as u64 + 64)
}

/// A pipe that was opened without waiting, read with a bound on each wait.
struct Pipe {
    pipe: File,
    wait: Duration,
}

impl Read for Pipe {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let silent = || {
            let words = format!(
                "it is a pipe, and nobody wrote into it for {} s: write the token to it, or name a file",
                self.wait.as_secs()
            );
            std::io::Error::new(ErrorKind::TimedOut, words)
        };
        let wait = Timespec::try_from(self.wait).map_err(|_| silent())?;
        let mut waiting = [PollFd::new(&self.pipe, PollFlags::IN)];
        // Before the first writer it is neither ready nor at its end; behind the last one it is.
        if poll(&mut waiting, Some(&wait))? == 0 {
            return Err(silent());
        }
        self.pipe.read(into)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_link_that_waits_under_a_name_is_neither_followed_nor_replaced() {
        let (folder, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (path, target) = (folder.path().join("server.key"), elsewhere.path().join("stolen"));
        // The names that keadm used before, and the file's own.
        symlink(&target, folder.path().join("server.key.new")).unwrap();
        write(&path, "one", 0o600).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "one");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        let waiting = folder.path().join("edgecore.yaml");
        symlink(&target, &waiting).unwrap();
        assert!(is_there(&waiting));
        assert!(write(&waiting, "two", 0o640).is_err());
        assert!(!target.exists());
        assert!(write(&path, "three", 0o600).is_err(), "what is there stays");
        let left: Vec<_> =
            fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left.len(), 3, "{left:?}");
    }

    #[test]
    fn a_folder_where_everybody_writes_is_no_place_for_a_key() {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), Permissions::from_mode(0o777)).unwrap();
        let error = write(&folder.path().join("server.key"), "one", 0o600).unwrap_err();
        assert!(format!("{error:#}").contains("chmod o-w"), "{error:#}");
        fs::set_permissions(folder.path(), Permissions::from_mode(0o1777)).unwrap();
        write(&folder.path().join("server.key"), "one", 0o600).unwrap();
    }

    #[test]
    fn a_token_comes_from_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        fs::write(&path, "abc.d.e.f\n").unwrap();
        assert_eq!(read_token(&path).unwrap(), "abc.d.e.f");
        assert!(read_token(&folder.path().join("none")).is_err());
        let error = format!("{:#}", read_token(folder.path()).unwrap_err());
        assert!(error.contains("it is a folder"), "{error}");
        fs::write(&path, "a".repeat(1 << 20)).unwrap();
        assert!(read_token(&path).unwrap().len() <= TOKEN_MAX + 64, "more is not read");
    }

    #[test]
    fn a_token_comes_from_a_pipe_and_nobody_waits_for_ever_at_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pipe");
        rustix::fs::mkfifoat(rustix::fs::CWD, &path, 0o600.into()).unwrap();
        let error = format!("{:#}", read_token_within(&path, Duration::from_millis(50)).unwrap_err());
        assert!(error.contains("nobody wrote into it") && error.contains("pipe"), "{error}");
        // Somebody opens it, writes in two parts, and goes.
        let writes = path.clone();
        let writer = std::thread::spawn(move || {
            let mut pipe = File::options().write(true).open(writes).unwrap();
            pipe.write_all(b"abc.d").unwrap();
            pipe.write_all(b".e.f\n").unwrap();
        });
        assert_eq!(read_token(&path).unwrap(), "abc.d.e.f");
        writer.join().unwrap();
        // Somebody holds it and says nothing.
        let _holder = File::options().read(true).write(true).open(&path).unwrap();
        assert!(read_token_within(&path, Duration::from_millis(50)).is_err());
    }
}
