//! Removing whatever a container may have left: never through a link, never into a mount.
//!
//! A container can nest folders deeper than a process has descriptors or stack for. So the tree is not descended: a
//! folder that is not empty gives its children to the top, and goes.

use std::ffi::OsStr;
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

impl Folder {
    /// Removes a file, a link or a whole tree; nothing of this name is well too. What is mounted there is an error.
    pub(crate) fn remove(&self, at: &Path) -> Result<(), StepError> {
        let fault = |error: Errno| {
            let reason = match error {
                Errno::BUSY | Errno::XDEV => "something is mounted there".to_owned(),
                other => other.to_string(),
            };
            self.fault("remove", at, &reason)
        };
        let Some(name) = walk::names(at).map_err(fault)?.last().copied() else { return Ok(()) };
        let parent = match at.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            Some(parent) => match self.find(parent)? {
                Some(parent) => Some(parent),
                None => return Ok(()),
            },
            None => None,
        };
        remove_in(parent.as_ref().unwrap_or(self), name).map_err(fault)
    }
}

fn remove_in(parent: &Folder, name: &OsStr) -> Result<(), Errno> {
    for _ in 0..ROUNDS {
        if is_gone(parent.as_fd(), name)? {
            return Ok(());
        }
        if let Some(top) = enter(parent.as_fd(), name, parent)? {
            empty(&top, parent)?;
        }
    }
    Err(Errno::NOTEMPTY)
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

/// Opens a folder that is to be emptied, unless it is another file system's or has become something else.
fn enter(dir: BorrowedFd<'_>, name: &OsStr, like: &Folder) -> Result<Option<OwnedFd>, Errno> {
    let opened = match walk::open(dir, Path::new(name), FOLDER, Mode::empty(), like.way) {
        Ok(opened) => opened,
        Err(Errno::NOENT | Errno::LOOP | Errno::NOTDIR) => return Ok(None),
        Err(error) => return Err(error),
    };
    if mounts::id(&opened)? == mounts::id(&dir)? { Ok(Some(opened)) } else { Err(Errno::XDEV) }
}

fn empty(top: &OwnedFd, like: &Folder) -> Result<(), Errno> {
    let mut spare = 0_u64;
    for _ in 0..ROUNDS {
        let names = names_in(top.as_fd(), CHUNK)?;
        if names.is_empty() {
            return Ok(());
        }
        for name in names {
            if is_gone(top.as_fd(), &name)? {
                continue;
            }
            if let Some(inner) = enter(top.as_fd(), &name, like)? {
                lift(&inner, top, &mut spare)?;
            }
        }
    }
    Err(Errno::NOTEMPTY)
}

/// Removes the leaves of `inner` and moves its folders to `top`.
fn lift(inner: &OwnedFd, top: &OwnedFd, spare: &mut u64) -> Result<(), Errno> {
    for name in names_in(inner.as_fd(), CHUNK)? {
        if is_gone(inner.as_fd(), &name)? {
            continue;
        }
        loop {
            *spare += 1;
            match renameat(inner, &name, top, format!("..removed-{spare}")) {
                Ok(()) | Err(Errno::NOENT) => break,
                // A container has guessed the name.
                Err(Errno::EXIST | Errno::NOTEMPTY | Errno::NOTDIR | Errno::ISDIR) => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}
