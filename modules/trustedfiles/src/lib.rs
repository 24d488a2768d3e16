//! Files and programs that root trusts: nobody else can exchange what is in them, nor what is on the way to them.
//!
//! Each of them, and each folder above it, is root's or the own user's, and others cannot write there. What is ours and too open is
//! closed, and said, or else refused, as the caller wants it; what is another user's is refused: what he has written there until now may
//! be his, and only the administrator can say whether it is to be trusted.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, OFlags, Stat, fstat, openat};
use rustix::io::Errno;
use thiserror::Error;

/// Who writes to a file may exchange what is in it, and who writes to a folder may exchange its files.
pub const WRITE: u32 = 0o022;
/// Others than owner and group: folders on the way, like `/var/log`, may have a group of the system's that writes.
const OTHERS_WRITE: u32 = 0o002;
/// Nothing of these is for others.
pub const ALL: u32 = 0o077;
/// A key that a group of the system's may read (`ssl-cert`).
pub const KEY: u32 = 0o027;
/// `/tmp` and the like: everybody may add, and only the owner may exchange.
const STICKY: u32 = 0o1000;
/// 4 times before somebody who exchanges links all the time is given up on.
const TRIES: usize = 4;

/// What is wrong with a file or folder.
#[derive(Debug, Error)]
pub enum UntrustedFile {
    /// It is open to others and cannot be closed.
    #[error(
        "{what} `{path}` is open to other users of this machine and cannot be closed: chmod it to {mode:04o}"
    )]
    Open {
        /// What it is to the node.
        what: TrustedPath,
        /// Which.
        path: PathBuf,
        /// The mode that it should have.
        mode: u32,
        /// Why it could not be set.
        #[source]
        source: io::Error,
    },
    /// It is open to others, and not ours to close.
    #[error(
        "{what} `{path}` is open to other users of this machine, who could exchange what root runs: make sure that it is what it \
         should be, then chmod it to {mode:04o}"
    )]
    Exposed {
        /// What it is to the node.
        what: TrustedPath,
        /// Which.
        path: PathBuf,
        /// The mode that it should have.
        mode: u32,
    },
    /// It is neither root's nor the own user's.
    #[error(
        "{what} `{path}` is user {owner}'s, who can exchange what edgecore trusts: make sure that it is what it should be, \
         then `chown root: {path}`"
    )]
    OtherOwner {
        /// What it is to the node.
        what: TrustedPath,
        /// Which.
        path: PathBuf,
        /// Its owner.
        owner: u32,
    },
    /// It is a link, in the place of a file that the node makes and closes itself.
    #[error(
        "{what} `{path}` is a link, and what it leads to is not the store's to close: name the file itself"
    )]
    Link {
        /// What it is to the node.
        what: TrustedPath,
        /// Which.
        path: PathBuf,
    },
    /// It cannot be looked at.
    #[error("{what} `{path}` cannot be looked at")]
    Unreadable {
        /// What it is to the node.
        what: TrustedPath,
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// What a path is to the node: its key in the settings, and whether it is a folder on the way to that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustedPath {
    key: &'static str,
    above: bool,
}

impl fmt::Display for TrustedPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.above { write!(f, "the folder on the way to {},", self.key) } else { f.write_str(self.key) }
    }
}

/// A path that is trusted, and what others must not have of it.
#[derive(Debug, Clone)]
pub struct TrustedEntry {
    /// What it is called: its key in the settings.
    pub key: &'static str,
    /// Where it is, or will be.
    pub path: PathBuf,
    /// The bits of its mode that it must not have: [`WRITE`], [`KEY`] or [`ALL`].
    pub closed: u32,
    /// Whether it may be a link: one that leads to a file that is trusted.
    pub may_be_link: bool,
}

/// Looks at one path after another, and remembers what was repaired.
pub struct TrustCheck {
    myself: u32,
    closes: bool,
    /// The mappers' folder: the administrator lets others write there, and what lies in it has been refused or warned of.
    shared: Option<PathBuf>,
    seen: BTreeSet<PathBuf>,
    repaired: Vec<String>,
}

/// What becomes of a file or folder. Pure.
#[derive(Debug, PartialEq, Eq)]
enum PermissionCheck {
    Fine,
    Close(u32),
    OtherOwner,
}

fn check_permissions(owner: u32, mode: u32, myself: u32, closed: u32, is_folder: bool) -> PermissionCheck {
    let mode = mode & 0o7777;
    if owner != 0 && owner != myself {
        PermissionCheck::OtherOwner
    } else if mode & closed == 0 || (is_folder && mode & STICKY != 0) {
        PermissionCheck::Fine
    } else {
        PermissionCheck::Close(mode & !closed)
    }
}

impl TrustCheck {
    /// One that closes what is ours and too open. Folders on the way that lie in `shared` are passed over.
    pub fn closing(shared: Option<&Path>) -> TrustCheck {
        TrustCheck {
            myself: rustix::process::geteuid().as_raw(),
            closes: true,
            shared: shared.and_then(|shared| shared.canonicalize().ok()),
            seen: BTreeSet::new(),
            repaired: Vec::new(),
        }
    }

    /// One that changes nothing, and refuses what is too open.
    pub fn refusing() -> TrustCheck {
        TrustCheck { closes: false, ..TrustCheck::closing(None) }
    }

    /// What was closed, a sentence each.
    pub fn into_repaired(self) -> Vec<String> {
        self.repaired
    }

    /// From the root down, and each where it really lies: once a folder is closed, nobody exchanges what is in it.
    ///
    /// # Errors
    /// What is another user's, or too open and stays so.
    pub fn path(&mut self, trusted: &TrustedEntry) -> Result<(), UntrustedFile> {
        for _ in 0..TRIES {
            let real = real(&trusted.path);
            // The folder of the name itself, too, if it is a link to somewhere else.
            let named = trusted.path.parent().and_then(|folder| folder.canonicalize().ok());
            let above = real.parent().into_iter().chain(named.as_deref());
            let folders: BTreeSet<&Path> = above.flat_map(Path::ancestors).collect();
            let near = [real.parent(), named.as_deref()];
            // A folder sorts before what lies in it.
            for folder in folders {
                let closed = if near.contains(&Some(folder)) { WRITE } else { OTHERS_WRITE };
                self.entry(folder, trusted.key, closed, true)?;
            }
            // Nobody else writes there any more, so it stays what it is.
            if !trusted.may_be_link && trusted.path.is_symlink() {
                let what = TrustedPath { key: trusted.key, above: false };
                return Err(UntrustedFile::Link { what, path: trusted.path.clone() });
            }
            self.entry(&real, trusted.key, trusted.closed, false)?;
            if self::real(&trusted.path) == real {
                return Ok(());
            }
        }
        Err(UntrustedFile::Unreadable {
            what: TrustedPath { key: trusted.key, above: false },
            path: trusted.path.clone(),
            source: io::Error::other("somebody exchanges it all the time"),
        })
    }

    fn entry(
        &mut self,
        path: &Path,
        key: &'static str,
        closed: u32,
        above: bool,
    ) -> Result<(), UntrustedFile> {
        let is_shared = self.shared.as_ref().is_some_and(|shared| path.starts_with(shared));
        if is_shared && above {
            return Ok(());
        }
        let what = TrustedPath { key, above };
        let unseen = |source: Errno| UntrustedFile::Unreadable {
            what: what.clone(),
            path: path.to_owned(),
            source: source.into(),
        };
        let Some((opened, found)) = open(path).map_err(unseen)? else { return Ok(()) };
        let is_folder = FileType::from_raw_mode(found.st_mode) == FileType::Directory;
        match check_permissions(found.st_uid, found.st_mode, self.myself, closed, is_folder) {
            PermissionCheck::Fine => {}
            PermissionCheck::OtherOwner => {
                return Err(UntrustedFile::OtherOwner { what, path: path.to_owned(), owner: found.st_uid });
            }
            PermissionCheck::Close(mode) if !self.closes => {
                return Err(UntrustedFile::Exposed { what, path: path.to_owned(), mode });
            }
            PermissionCheck::Close(mode) => {
                // By its number the very file that was looked at, whatever has its name by now.
                let itself = format!("/proc/self/fd/{}", opened.as_raw_fd());
                rustix::fs::chmod(itself, Mode::from_raw_mode(mode)).map_err(|source| {
                    UntrustedFile::Open { what, path: path.to_owned(), mode, source: source.into() }
                })?;
                let before = found.st_mode & 0o7777;
                if self.seen.insert(path.to_owned()) {
                    self.repaired
                        .push(format!("`{}` had mode {before:04o} and has {mode:04o} now", path.display()));
                }
            }
        }
        Ok(())
    }
}

/// Where a path leads, all links followed; of one that is not there yet, as far as it is.
fn real(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    for known in absolute.ancestors() {
        if let Ok(found) = known.canonicalize() {
            let rest = absolute.strip_prefix(known).unwrap_or(Path::new(""));
            // Joining nothing would add a slash.
            return if rest.as_os_str().is_empty() { found } else { found.join(rest) };
        }
    }
    absolute
}

/// What lies there, itself no link; `None`: nothing yet, and it is made closed.
fn open(path: &Path) -> Result<Option<(OwnedFd, Stat)>, Errno> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match openat(CWD, path, flags, Mode::empty()) {
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        opened => {
            let opened = opened?;
            let found = fstat(&opened)?;
            // A link that leads nowhere, or was put there just now: its mode says nothing.
            let is_link = FileType::from_raw_mode(found.st_mode) == FileType::Symlink;
            Ok((!is_link).then_some((opened, found)))
        }
    }
}

#[cfg(test)]
mod tests;
