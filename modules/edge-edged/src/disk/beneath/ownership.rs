//! The group of what lies in a folder, by descriptors.

use std::ffi::OsString;
use std::os::fd::AsFd as _;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, OFlags, chmodat, chownat, fstat};
use rustix::io::Errno;

use super::file::own_name;
use super::{Folder, names_in};
use crate::error::StepError;

/// The kubelet's masks: what the group may with files, and beside that with folders.
const FILE: u32 = 0o660;
const FOLDER: u32 = 0o2110;
/// Of these the one that says at the root that all of the volume was given.
const MARK: u32 = 0o2000;
/// So many entries of one folder.
const ENTRIES_MAX: usize = 1 << 20;

/// What was found in a folder.
#[derive(Debug, Default)]
pub(crate) struct Given {
    pub(crate) seen: usize,
    pub(crate) failed: usize,
    /// There is more in it than was looked at.
    pub(crate) is_partial: bool,
    /// The folders in it that lie in the same file system.
    pub(crate) folders: Vec<OsString>,
}

impl Folder {
    /// Whether the folder is the group's already, as the kubelet looks at it.
    pub(crate) fn is_of_group(&self, group: u32) -> Result<bool, StepError> {
        let stat = self.stat()?;
        let wanted = FILE | FOLDER;
        Ok(stat.st_gid == group && stat.st_mode & wanted == wanted)
    }

    /// Gives the folder itself to the group; `is_whole`: all that is in it was given, and [`Folder::is_of_group`] shall say so.
    pub(crate) fn give_itself(&self, group: u32, is_whole: bool) -> Result<(), StepError> {
        let mode = self.stat()?.st_mode & 0o7777 & if is_whole { 0o7777 } else { !MARK };
        let more = (FILE | FOLDER) & if is_whole { 0o7777 } else { !MARK };
        let give = || {
            chownat(&self.fd, "", None, Some(Gid::from_raw(group)), AtFlags::EMPTY_PATH)?;
            chmodat(CWD, own_name(&self.fd), Mode::from_raw_mode(mode | more), AtFlags::empty())
        };
        give().map_err(|error| StepError::file("give to a group", self.shown(), &error))
    }

    /// Gives what lies in the folder to the group: links themselves, and no other file system.
    pub(crate) fn give_entries(&self, group: u32) -> Result<Given, StepError> {
        let fault = |error: Errno| StepError::file("list", self.shown(), &error);
        let device = self.stat()?.st_dev;
        let mut given = Given::default();
        let names = names_in(self.as_fd(), ENTRIES_MAX).map_err(fault)?;
        given.is_partial = names.len() >= ENTRIES_MAX;
        for name in names {
            given.seen += 1;
            match self.give_one(Path::new(&name), group, device) {
                Ok(true) => given.folders.push(name),
                Ok(false) | Err(Errno::NOENT) => {}
                Err(_) => given.failed += 1,
            }
        }
        Ok(given)
    }

    /// True: it is a folder to go into.
    fn give_one(&self, name: &Path, group: u32, device: u64) -> Result<bool, Errno> {
        let found = rustix::fs::openat(
            &self.fd,
            name,
            OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        let stat = fstat(&found)?;
        if stat.st_dev != device {
            return Ok(false);
        }
        let kind = FileType::from_raw_mode(stat.st_mode);
        chownat(&found, "", None, Some(Gid::from_raw(group)), AtFlags::EMPTY_PATH)?;
        if kind.is_symlink() {
            return Ok(false);
        }
        let more = if kind.is_dir() { FILE | FOLDER } else { FILE };
        let mode = Mode::from_raw_mode(stat.st_mode & 0o7777 | more);
        // The descriptor is what was looked at, whatever lies at the name by now.
        chmodat(CWD, own_name(&found), mode, AtFlags::empty())?;
        Ok(kind.is_dir())
    }
}
