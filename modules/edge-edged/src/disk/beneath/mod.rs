//! The one door to everything below a folder that a container can reach: volumes, termination messages, log folders,
//! the pods' `/etc/hosts`.
//!
//! `edgecore` is root on the host, and a container is root, or in the right group, inside its own mounts. Whatever is
//! looked up there by path can be another thing at the next step: a folder becomes a link to `/etc`, and who writes,
//! gives away or removes by path does so wherever the link leads (the class of CVE-2017-1002102).
//!
//! # The plan
//! * A [`Folder`] is an open file descriptor. Only the two roots (`rootDirectory`, `podLogsDir`) are opened by their
//!   path, which no container can change. All else is a relative path of plain names (no `..`, no `/` in front) below
//!   an open folder.
//! * Every look-up is `openat2` with `RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS`: a link on the way
//!   is an error, never followed. On a kernel without it (before 5.6, or where a filter forbids it) the path is walked
//!   name by name with `O_NOFOLLOW`, each step from the descriptor of the one before. That gives the same: without
//!   links and `..` no step can leave the folder it starts from.
//! * Modes and owners are set on the descriptor of what was opened or made, never by name. New files are made with
//!   `O_EXCL`, so that what is written is what was made.
//! * What is read is opened as a mere place (`O_PATH`) first, and read only if it is a plain file: a FIFO does not
//!   hang the reader and no device is touched. Reads have a bound.
//! * Removal never follows a link and never enters a mount, needs two descriptors however deep the tree is, and can be
//!   left off and taken up again however much there is.
//! * Mounts are made and undone on `/proc/self/fd/N`, which is the very thing that was checked.
//! * The one place where links are followed is a `subPath`, as in the kubelet, and there only inside its volume.
//!
//! `rustix` gives the system calls. `cap-std` and `pathrs` resolve links inside a root, which is what we refuse, and
//! neither mounts; both would bring more code than this holds.
//!
//! A rule in `tests/tidy` holds the rest of the crate to this door.

mod file;
mod mounts;
mod ownership;
mod removal;
#[cfg(test)]
pub(crate) mod tests;
mod usage;
mod walk;

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Dir, FileType, Gid, Mode, OFlags, Stat, StatVfs, Uid};
use rustix::io::Errno;

use crate::error::StepError;

pub(crate) use removal::Removal;
pub(crate) use usage::Counted;
use walk::Way;

const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// A file that was opened here.
pub(crate) type OpenFile = fs::File;

/// Mode and owner of what is made. `None`: stays as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Access {
    pub(crate) mode: u32,
    pub(crate) owner: Option<u32>,
    pub(crate) group: Option<u32>,
}

impl Access {
    /// A mode; owner and group stay.
    pub(crate) fn mode(mode: u32) -> Access {
        Access { mode, owner: None, group: None }
    }
}

/// A folder that is held open. All paths are relative to it.
#[derive(Debug)]
pub(crate) struct Folder {
    fd: OwnedFd,
    /// For words only.
    shown: PathBuf,
    way: Way,
}

impl AsFd for Folder {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Folder {
    /// Opens a folder by a path that no container can change.
    pub(crate) fn root(path: &Path) -> Result<Folder, StepError> {
        Folder::root_by(path, walk::way()).map_err(|error| StepError::file("open folder", path, &error))
    }

    /// The same; `None` when it is not there.
    pub(crate) fn find_root(path: &Path) -> Result<Option<Folder>, StepError> {
        match Folder::root_by(path, walk::way()) {
            Ok(folder) => Ok(Some(folder)),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(StepError::file("open folder", path, &error)),
        }
    }

    /// Opens a folder by a path that no container can change, and makes it with `mode` when it is not there.
    pub(crate) fn make_root(path: &Path, mode: u32) -> Result<Folder, StepError> {
        if let Some(folder) = Folder::find_root(path)? {
            return Ok(folder);
        }
        fs::create_dir_all(path).map_err(|error| StepError::file("make folder", path, &error))?;
        let folder = Folder::root(path)?;
        folder.set_access(Access::mode(mode))?;
        Ok(folder)
    }

    fn root_by(path: &Path, way: Way) -> Result<Folder, Errno> {
        let fd = rustix::fs::open(path, FOLDER, Mode::empty())?;
        Ok(Folder { fd, shown: path.to_owned(), way })
    }

    /// A root on a kernel without `openat2`.
    #[cfg(test)]
    pub(crate) fn root_on_older(path: &Path) -> Folder {
        Folder::root_by(path, Way::Walk).unwrap()
    }

    /// Where it lies, for words and for the runtime.
    pub(crate) fn shown(&self) -> &Path {
        &self.shown
    }

    fn fault(&self, what: &'static str, at: &Path, error: &dyn std::fmt::Display) -> StepError {
        StepError::file(what, &self.shown.join(at), error)
    }

    fn open(&self, at: &Path, flags: OFlags, mode: Mode) -> Result<OwnedFd, Errno> {
        walk::open(self.as_fd(), at, flags, mode, self.way)
    }

    /// Opens a folder below this one.
    pub(crate) fn below(&self, at: &Path) -> Result<Folder, StepError> {
        let fd =
            self.open(at, FOLDER, Mode::empty()).map_err(|error| self.fault("open folder", at, &error))?;
        Ok(Folder { fd, shown: self.shown.join(at), way: self.way })
    }

    /// The same; `None` when it is not there.
    pub(crate) fn find(&self, at: &Path) -> Result<Option<Folder>, StepError> {
        match self.open(at, FOLDER, Mode::empty()) {
            Ok(fd) => Ok(Some(Folder { fd, shown: self.shown.join(at), way: self.way })),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(self.fault("open folder", at, &error)),
        }
    }

    /// Opens a folder below this one and makes what is missing on the way, each new folder with `access`.
    pub(crate) fn make(&self, at: &Path, access: Access) -> Result<Folder, StepError> {
        let mut folder: Option<Folder> = None;
        for name in walk::names(at).map_err(|error| self.fault("make folder", at, &error))? {
            let next = folder.as_ref().unwrap_or(self).make_one(name, access)?;
            folder = Some(next);
        }
        folder.ok_or_else(|| self.fault("make folder", at, &Errno::INVAL))
    }

    fn make_one(&self, name: &OsStr, access: Access) -> Result<Folder, StepError> {
        let at = Path::new(name);
        // The mode is set on what was opened, whatever the process' mask is.
        match rustix::fs::mkdirat(&self.fd, at, Mode::from_raw_mode(0o700)) {
            Ok(()) => {
                let made = self.below(at)?;
                made.set_access(access)?;
                Ok(made)
            }
            Err(Errno::EXIST) => self.below(at),
            Err(error) => Err(self.fault("make folder", at, &error)),
        }
    }

    /// Sets mode and owner of the folder itself.
    pub(crate) fn set_access(&self, access: Access) -> Result<(), StepError> {
        set_access(self.as_fd(), access)
            .map_err(|error| StepError::file("set mode and owner of", &self.shown, &error))
    }

    /// Takes from others what they may do here beyond `allowed`, and the folder from another owner. Answers what was
    /// repaired, in a sentence.
    pub(crate) fn tighten(&self, allowed: u32) -> Result<Option<String>, StepError> {
        let stat = self.stat()?;
        let (mode, owner) = (stat.st_mode & 0o7777, rustix::process::geteuid().as_raw());
        if mode & !allowed == 0 && stat.st_uid == owner {
            return Ok(None);
        }
        self.set_access(Access { mode: mode & allowed, owner: Some(owner), group: None })?;
        Ok(Some(format!(
            "{} had mode {mode:04o} and belonged to user {}: it has {:04o} and belongs to user {owner} now",
            self.shown.display(),
            stat.st_uid,
            mode & allowed
        )))
    }

    /// What the kernel says about the folder itself.
    pub(crate) fn stat(&self) -> Result<Stat, StepError> {
        rustix::fs::fstat(&self.fd).map_err(|error| StepError::file("look at", &self.shown, &error))
    }

    /// The file system that the folder is on.
    pub(crate) fn file_system(&self) -> Result<StatVfs, StepError> {
        rustix::fs::fstatvfs(&self.fd).map_err(|error| StepError::file("measure", &self.shown, &error))
    }

    /// Makes a link at the plain name `name` that says `target`.
    pub(crate) fn link(&self, target: &Path, name: &str) -> Result<(), StepError> {
        let at = self.plain("link", name)?;
        rustix::fs::symlinkat(target, &self.fd, at).map_err(|error| self.fault("link", at, &error))
    }

    /// What the link `name` says; `None` when there is no link of this name.
    pub(crate) fn link_target(&self, name: &str) -> Option<PathBuf> {
        let at = self.plain("read link", name).ok()?;
        let target = rustix::fs::readlinkat(&self.fd, at, Vec::new()).ok()?;
        Some(PathBuf::from(OsStr::from_bytes(target.as_bytes())))
    }

    /// Moves `from` to `to`, both plain names; what is at `to` goes.
    pub(crate) fn rename(&self, from: &str, to: &str) -> Result<(), StepError> {
        let (from, to) = (self.plain("move", from)?, self.plain("move", to)?);
        rustix::fs::renameat(&self.fd, from, &self.fd, to).map_err(|error| self.fault("move to", to, &error))
    }

    /// Up to `max` of the names in the folder.
    pub(crate) fn names(&self, max: usize) -> Result<Vec<OsString>, StepError> {
        names_in(self.as_fd(), max).map_err(|error| StepError::file("list", &self.shown, &error))
    }

    /// What kind of thing `name` is, without following it; `None` when it is not there.
    pub(crate) fn kind(&self, name: &str) -> Result<Option<FileType>, StepError> {
        let at = self.plain("look at", name)?;
        match rustix::fs::statat(&self.fd, at, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(FileType::from_raw_mode(stat.st_mode))),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(self.fault("look at", at, &error)),
        }
    }

    /// When the content of `name` was changed last, in whole seconds; `None` when it is not there.
    pub(crate) fn changed_at(&self, name: &str) -> Result<Option<jiff::Timestamp>, StepError> {
        let at = self.plain("look at", name)?;
        match rustix::fs::statat(&self.fd, at, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(jiff::Timestamp::from_second(stat.st_mtime).unwrap_or_default())),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(self.fault("look at", at, &error)),
        }
    }

    /// Whether `name` is a folder itself, and no link to one.
    pub(crate) fn has_folder(&self, name: &str) -> Result<bool, StepError> {
        Ok(self.kind(name)? == Some(FileType::Directory))
    }

    /// One plain name, or the fault that says it is none.
    fn plain<'a>(&self, what: &'static str, name: &'a str) -> Result<&'a Path, StepError> {
        let at = Path::new(name);
        match walk::names(at) {
            Ok(names) if names.len() == 1 => Ok(at),
            Ok(_) => Err(self.fault(what, at, &Errno::INVAL)),
            Err(error) => Err(self.fault(what, at, &error)),
        }
    }
}

fn set_access(fd: BorrowedFd<'_>, access: Access) -> Result<(), Errno> {
    if access.owner.is_some() || access.group.is_some() {
        rustix::fs::fchown(fd, access.owner.map(Uid::from_raw), access.group.map(Gid::from_raw))?;
    }
    // After the owner: a change of owner clears the set-group bit.
    rustix::fs::fchmod(fd, Mode::from_raw_mode(access.mode))
}

fn names_in(fd: BorrowedFd<'_>, max: usize) -> Result<Vec<OsString>, Errno> {
    let mut found = Vec::new();
    for entry in Dir::read_from(fd)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            found.push(OsStr::from_bytes(name).to_owned());
            if found.len() >= max {
                break;
            }
        }
    }
    Ok(found)
}
