//! Removing whatever a container may have left: never through a link, never into a mount.
//!
//! A container can nest folders deeper than a process has descriptors or stack for. So the tree is not descended: a
//! folder that is not empty gives its children to the top, and goes. How long that takes is a container's choice, too:
//! a [`Removal`] can be left off after any entry and taken up again.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, Mode, renameat, unlinkat};
use rustix::io::Errno;

use super::{FOLDER, Folder, mounts, names_in, walk};
use crate::error::StepError;

/// Names that are looked at in one go.
const CHUNK: usize = 1024;
/// A million folders below each other, or somebody who fills a folder as fast as it is emptied.
const ROUNDS: usize = 1 << 20;

/// The removal of one name, as far as it has come.
#[derive(Debug)]
pub(crate) struct Removal {
    parent: Folder,
    name: OsString,
    /// Makes the names of folders that were moved to the top.
    spare: u64,
    rounds: usize,
}

impl Folder {
    /// Removes a file, a link or a whole tree; nothing of this name is well too. What is mounted there is an error.
    pub(crate) fn remove(&self, at: &Path) -> Result<(), StepError> {
        if let Some(mut removal) = self.removal(at)? {
            while !removal.go_on(CHUNK)? {}
        }
        Ok(())
    }

    /// The same, to be done bit by bit. `None`: not even the folder that holds it is there.
    pub(crate) fn removal(&self, at: &Path) -> Result<Option<Removal>, StepError> {
        let fault = |error: Errno| self.fault("remove", at, &error);
        let Some(name) = walk::names(at).map_err(fault)?.last().copied() else { return Ok(None) };
        let parent = match at.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            Some(parent) => self.find(parent)?,
            None => Some(self.same().map_err(fault)?),
        };
        Ok(parent.map(|parent| Removal { parent, name: name.to_owned(), spare: 0, rounds: 0 }))
    }
}

impl Removal {
    /// Goes on for about `entries` entries, at least one. True: nothing of the name is left.
    pub(crate) fn go_on(&mut self, entries: usize) -> Result<bool, StepError> {
        let mut left = entries.max(1);
        self.rounds_on(&mut left).map_err(|error| {
            let reason = match error {
                Errno::BUSY | Errno::XDEV => "something is mounted there".to_owned(),
                other => other.to_string(),
            };
            self.parent.fault("remove", Path::new(&self.name), &reason)
        })
    }

    fn rounds_on(&mut self, left: &mut usize) -> Result<bool, Errno> {
        loop {
            self.count_round()?;
            if is_gone(self.parent.as_fd(), &self.name)? {
                return Ok(true);
            }
            if let Some(top) = self.enter(self.parent.as_fd(), &self.name)?
                && !self.empty(&top, left)?
            {
                return Ok(false);
            }
        }
    }

    fn count_round(&mut self) -> Result<(), Errno> {
        self.rounds += 1;
        if self.rounds > ROUNDS { Err(Errno::NOTEMPTY) } else { Ok(()) }
    }

    /// Opens a folder that is to be emptied, unless it is another file system's or has become something else.
    fn enter(&self, dir: BorrowedFd<'_>, name: &OsStr) -> Result<Option<OwnedFd>, Errno> {
        let opened = match walk::open(dir, Path::new(name), FOLDER, Mode::empty(), self.parent.way) {
            Ok(opened) => opened,
            Err(Errno::NOENT | Errno::LOOP | Errno::NOTDIR) => return Ok(None),
            Err(error) => return Err(error),
        };
        if mounts::id(&opened)? == mounts::id(&dir)? { Ok(Some(opened)) } else { Err(Errno::XDEV) }
    }

    /// False: `left` is used up before the folder is empty.
    fn empty(&mut self, top: &OwnedFd, left: &mut usize) -> Result<bool, Errno> {
        loop {
            self.count_round()?;
            let names = names_in(top.as_fd(), CHUNK)?;
            if names.is_empty() {
                return Ok(true);
            }
            for name in names {
                if *left == 0 {
                    return Ok(false);
                }
                *left -= 1;
                if is_gone(top.as_fd(), &name)? {
                    continue;
                }
                if let Some(inner) = self.enter(top.as_fd(), &name)? {
                    self.lift(&inner, top, left)?;
                }
            }
        }
    }

    /// Removes the leaves of `inner` and moves its folders to `top`; at least one of them, so that whoever goes on gets
    /// on.
    fn lift(&mut self, inner: &OwnedFd, top: &OwnedFd, left: &mut usize) -> Result<(), Errno> {
        for name in names_in(inner.as_fd(), CHUNK.min((*left).max(1)))? {
            *left = left.saturating_sub(1);
            if is_gone(inner.as_fd(), &name)? {
                continue;
            }
            loop {
                self.spare += 1;
                match renameat(inner, &name, top, format!("..removed-{}", self.spare)) {
                    Ok(()) | Err(Errno::NOENT) => break,
                    // A container has guessed the name.
                    Err(Errno::EXIST | Errno::NOTEMPTY | Errno::NOTDIR | Errno::ISDIR) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }
}

/// Removes what needs no descent: a file, a link, an empty folder. False: a folder with something in it.
fn is_gone(dir: BorrowedFd<'_>, name: &OsStr) -> Result<bool, Errno> {
    match unlinkat(dir, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(true),
        // POSIX' answer for a folder, and Linux'.
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(error) => return Err(error),
    }
    match unlinkat(dir, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(true),
        Err(Errno::NOTEMPTY | Errno::EXIST) => Ok(false),
        // It was a folder, and something else has its name by now.
        Err(Errno::NOTDIR) => match unlinkat(dir, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(true),
            Err(error) => Err(error),
        },
        Err(error) => Err(error),
    }
}
