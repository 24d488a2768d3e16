//! How much of a disk a tree takes, whatever a container has put there: no link is followed, no mount entered, and it can be left
//! off after any folder.
//!
//! The tree is walked from the top down. Of each folder on the way only the names of one read wait, so that one with any number of
//! folders in it takes no more memory than another; and only the last ones are held open, however deep it goes. On the way back a
//! folder that was closed is opened again as the one above the one that was left, which takes as long wherever it lies; the kernel's
//! number tells whether it is the same. Only where somebody has moved folders meanwhile is the way gone anew from the top, and not
//! without end.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, RawDir, SeekFrom};
use rustix::io::Errno;

use super::{FOLDER, Folder, walk};
use crate::error::StepError;

/// 1 Mi names of one folder are counted.
const NAMES_MAX: usize = 1 << 20;
/// 16 KiB of a path: four times what programs can name at once, and of which moving folders below one another makes more.
const PATH_MAX: usize = 16 << 10;
/// 2 KiB of a path are opened at once.
const STEP_BYTES: usize = 2 << 10;
/// 4 MiB of names wait to be looked at: so many are in the reads of more than a hundred folders one below the other.
const WAITING_MAX: usize = 4 << 20;
/// So many folders are held open.
const OPEN_MAX: usize = 64;
/// 256 Ki folders are gone through anew for those that somebody moves: thirty times as many as lie on the longest way.
const ANEW_MAX: usize = 1 << 18;
/// 32 KiB of names are read at once, as the C library does.
const READ_BYTES: usize = 32 << 10;
/// 64 Ki files with several names are remembered, about 1 MiB. Of each further one every name counts for its part.
const SHARED_MAX: usize = 64 << 10;
/// The kernel counts blocks of this size.
const BLOCK: u64 = 512;

/// The counting of one tree, as far as it has come.
#[derive(Debug)]
pub(crate) struct Count {
    top: Folder,
    device: u64,
    /// From the top to the folder that is looked at.
    levels: Vec<Level>,
    /// The bytes of the path of all of them.
    path: usize,
    /// The bytes of the names that wait in all of them.
    waiting: usize,
    counted: Counted,
    /// The folder that was left last, through which the one above it is opened again.
    left: Option<OwnedFd>,
    /// How many folders were gone through anew.
    anew: usize,
    /// The files with several names that were counted: the first name counts, as with a kubelet and cadvisor.
    shared: HashSet<u64>,
    /// The parts of the inodes of those that are not remembered, in 2^32nds.
    parts: u64,
    /// There is something that was not counted.
    is_partial: bool,
}

/// What is in a tree or in one folder.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counted {
    pub(crate) bytes: u64,
    pub(crate) inodes: u64,
}

/// A folder on the way.
#[derive(Debug)]
struct Level {
    /// Its name; the top has none.
    name: OsString,
    /// `None`: it was closed for those below it.
    fd: Option<OwnedFd>,
    /// Its device and inode, by which it is known again.
    id: (u64, u64),
    /// Where to read on when it is opened again.
    position: u64,
    is_read: bool,
    names: usize,
    /// Folders of the last read that were not looked at yet.
    waiting: Vec<OsString>,
}

impl Level {
    fn new(name: OsString, fd: OwnedFd) -> Result<Level, Errno> {
        let id = id(&fd)?;
        Ok(Level { name, fd: Some(fd), id, position: 0, is_read: false, names: 0, waiting: Vec::new() })
    }
}

fn id(fd: &OwnedFd) -> Result<(u64, u64), Errno> {
    let stat = rustix::fs::fstat(fd)?;
    Ok((stat.st_dev, stat.st_ino))
}

/// Whether somebody has put something else in a folder's place since its name was read, or removed it.
fn has_vanished(error: Errno) -> bool {
    matches!(error, Errno::NOENT | Errno::LOOP | Errno::NOTDIR | Errno::STALE)
}

impl Folder {
    /// Begins to count what is below `at`; `None`: nothing is there.
    pub(crate) fn count(&self, at: &Path) -> Result<Option<Count>, StepError> {
        let Some(top) = self.find(at)? else { return Ok(None) };
        let device = top.stat()?.st_dev;
        let fd = top.same().map_err(|error| top.fault("open folder", Path::new(""), &error))?.fd;
        let level =
            Level::new(OsString::new(), fd).map_err(|error| top.fault("count", Path::new(""), &error))?;
        let (levels, counted) = (vec![level], Counted { bytes: 0, inodes: 1 });
        Ok(Some(Count {
            top,
            device,
            levels,
            path: 0,
            waiting: 0,
            counted,
            left: None,
            anew: 0,
            shared: HashSet::new(),
            parts: 0,
            is_partial: false,
        }))
    }

    /// Opens a folder by a path that may be longer than the kernel takes at once; `None`: it has gone, or is something else now.
    pub(crate) fn find_deep(&self, at: &Path) -> Result<Option<Folder>, StepError> {
        match self.open_deep(at) {
            Ok(fd) => Ok(Some(Folder { fd, shown: self.shown.join(at), way: self.way })),
            Err(error) if has_vanished(error) => Ok(None),
            Err(error) => Err(self.fault("open folder", at, &error)),
        }
    }

    fn open_deep(&self, at: &Path) -> Result<OwnedFd, Errno> {
        let mut fd: Option<OwnedFd> = None;
        let open = |fd: Option<&OwnedFd>, step: &Path| {
            let from = fd.map_or_else(|| self.as_fd(), |fd| fd.as_fd());
            walk::open(from, step, FOLDER, Mode::empty(), self.way)
        };
        let mut step = PathBuf::new();
        for name in at {
            if step.as_os_str().len() + name.len() > STEP_BYTES {
                fd = Some(open(fd.as_ref(), &step)?);
                step = PathBuf::new();
            }
            step.push(name);
        }
        open(fd.as_ref(), &step)
    }
}

impl Count {
    /// Counts about `entries` more, of names that are read and folders that are opened; true: it is done. What vanishes meanwhile, or becomes something else, counts as nothing.
    ///
    /// # Errors
    /// What has nothing to do with what is there, as a want of descriptors: how much there is nobody knows then.
    pub(crate) fn go_on(&mut self, entries: usize) -> Result<bool, StepError> {
        let mut left = entries;
        while !self.levels.is_empty() && !self.is_partial {
            if left == 0 {
                return Ok(false);
            }
            let looked_at = self.step().map_err(|error| self.top.fault("count", Path::new(""), &error))?;
            left = left.saturating_sub(looked_at.max(1));
        }
        Ok(true)
    }

    /// What was counted. Where something cannot be counted it may be anything: the most that there is, so that nobody gains by
    /// hiding.
    pub(crate) fn counted(&self) -> Counted {
        if self.is_partial {
            return Counted { bytes: u64::MAX, inodes: u64::MAX };
        }
        // Rounded up: what there are parts of is there.
        let inodes = self.parts.div_ceil(1 << 32);
        Counted { inodes: self.counted.inodes.saturating_add(inodes), ..self.counted }
    }

    /// Enters the next folder, reads on in the one that it has come to, or leaves it. Answers how many names it has read and
    /// folders opened for that.
    fn step(&mut self) -> Result<usize, Errno> {
        let Some(level) = self.levels.last_mut() else { return Ok(0) };
        if level.is_read && level.waiting.is_empty() {
            self.leave();
            return self.return_to_last().map(|opened| opened + 1);
        }
        match level.waiting.pop() {
            Some(name) => {
                self.waiting -= name.len();
                self.enter(name)?;
                Ok(1)
            }
            None => self.read_on(),
        }
    }

    /// Opens the folder that it has come to again, where that was closed. Answers how many it has opened.
    fn return_to_last(&mut self) -> Result<usize, Errno> {
        let Some(level) = self.levels.last_mut().filter(|level| level.fd.is_none()) else { return Ok(0) };
        let above =
            self.left.take().and_then(|left| rustix::fs::openat(&left, "..", FOLDER, Mode::empty()).ok());
        if let Some(fd) = above
            && id(&fd)? == level.id
        {
            rustix::fs::seek(&fd, SeekFrom::Start(level.position))?;
            level.fd = Some(fd);
            return Ok(1);
        }
        self.go_anew()
    }

    /// Goes the way from the top to the last folder that is still where it was, which is the one that it has come to. What waits in
    /// those behind it has vanished with them. Answers how many it has opened.
    fn go_anew(&mut self) -> Result<usize, Errno> {
        let mut at: Option<OwnedFd> = None;
        let mut opened = 0;
        for level in self.levels.iter().skip(1) {
            let from = at.as_ref().map_or_else(|| self.top.as_fd(), |fd| fd.as_fd());
            match walk::open(from, Path::new(&level.name), FOLDER, Mode::empty(), self.top.way) {
                Ok(fd) if id(&fd)? == level.id => at = Some(fd),
                Ok(_) => break,
                Err(error) if has_vanished(error) => break,
                Err(error) => return Err(error),
            }
            opened += 1;
        }
        self.anew += opened + 1;
        self.is_partial |= self.anew > ANEW_MAX;
        while self.levels.len() > opened + 1 {
            self.leave();
        }
        self.left = None;
        // The top was never closed.
        if let (Some(level), Some(fd)) = (self.levels.last_mut().filter(|level| level.fd.is_none()), at) {
            rustix::fs::seek(&fd, SeekFrom::Start(level.position))?;
            level.fd = Some(fd);
        }
        Ok(opened + 1)
    }

    /// What waits in it still has vanished with it.
    fn leave(&mut self) {
        if let Some(level) = self.levels.pop() {
            self.path = self.path.saturating_sub(level.name.len() + 1);
            self.waiting -= level.waiting.iter().map(|name| name.len()).sum::<usize>();
            self.left = level.fd;
        }
    }

    fn enter(&mut self, name: OsString) -> Result<(), Errno> {
        let Some(fd) = self.levels.last().and_then(|level| level.fd.as_ref()) else { return Ok(()) };
        let opened = walk::open(fd.as_fd(), Path::new(&name), FOLDER, Mode::empty(), self.top.way);
        let opened = match opened {
            Ok(opened) => opened,
            Err(error) if has_vanished(error) => return Ok(()),
            Err(error) => return Err(error),
        };
        let path = self.path + name.len() + 1;
        if path > PATH_MAX {
            self.is_partial = true;
            return Ok(());
        }
        self.path = path;
        self.levels.push(Level::new(name, opened)?);
        // The top stays open: there is no path to it from itself.
        let closing = self.levels.len().checked_sub(OPEN_MAX).filter(|at| *at > 0);
        let closing = closing.and_then(|at| self.levels.get_mut(at));
        if let Some(level) = closing
            && let Some(fd) = level.fd.take()
        {
            level.position = rustix::fs::tell(&fd)?;
        }
        Ok(())
    }

    /// Counts the names of one read; the folders among them wait from now on.
    fn read_on(&mut self) -> Result<usize, Errno> {
        let Some(level) = self.levels.last_mut() else { return Ok(0) };
        let Some(fd) = level.fd.as_ref() else { return Ok(0) };
        let (before, mut buffer) = (level.names, Vec::with_capacity(READ_BYTES));
        let mut read = RawDir::new(fd, buffer.spare_capacity_mut());
        level.is_read = true;
        while let Some(entry) = read.next() {
            let entry = match entry {
                Ok(entry) => entry,
                // It was removed while it was open.
                Err(Errno::NOENT) => break,
                Err(error) => return Err(error),
            };
            level.names += 1;
            let name = entry.file_name();
            if !matches!(name.to_bytes(), b"." | b"..")
                && let Ok(stat) = rustix::fs::statat(fd, name, AtFlags::SYMLINK_NOFOLLOW)
                && stat.st_dev == self.device
            {
                let is_folder = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
                // How wide it is depends on the machine.
                #[allow(clippy::useless_conversion)]
                let links = u64::from(stat.st_nlink);
                let names = if is_folder { 1 } else { links.max(1) };
                let bytes = u64::try_from(stat.st_blocks).unwrap_or(0).saturating_mul(BLOCK);
                if names == 1 || (self.shared.len() < SHARED_MAX && self.shared.insert(stat.st_ino)) {
                    self.counted.inodes = self.counted.inodes.saturating_add(1);
                    self.counted.bytes = self.counted.bytes.saturating_add(bytes);
                } else if !self.shared.contains(&stat.st_ino) {
                    self.parts = self.parts.saturating_add((1 << 32) / names);
                    self.counted.bytes = self.counted.bytes.saturating_add(bytes / names);
                }
                if is_folder {
                    self.waiting += name.to_bytes().len();
                    level.waiting.push(OsStr::from_bytes(name.to_bytes()).to_owned());
                }
            }
            if read.is_buffer_empty() {
                // There may be more.
                level.is_read = false;
                break;
            }
        }
        self.is_partial |= level.names > NAMES_MAX || self.waiting > WAITING_MAX;
        Ok(level.names - before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_is_counted_bit_by_bit_and_no_link_is_followed() {
        let dir = tempfile::tempdir().unwrap();
        let root = Folder::root(dir.path()).unwrap();
        std::fs::create_dir_all(dir.path().join("v/a/b")).unwrap();
        for name in 0..50 {
            std::fs::write(dir.path().join(format!("v/a/{name}")), vec![1; 8192]).unwrap();
        }
        std::fs::write(dir.path().join("v/a/b/deep"), vec![1; 4096]).unwrap();
        std::os::unix::fs::symlink("/usr", dir.path().join("v/link")).unwrap();
        let mut count = root.count(Path::new("v")).unwrap().unwrap();
        let mut steps = 1;
        while !count.go_on(10).unwrap() {
            steps += 1;
        }
        assert!(steps > 1);
        // The top, a, b, the link, 50 files and the deep one.
        let counted = count.counted();
        assert_eq!(counted.inodes, 55);
        assert!(counted.bytes >= 50 * 8192 + 4096 && counted.bytes < 1 << 20, "{counted:?}");
        assert!(root.count(Path::new("none")).unwrap().is_none());
    }

    /// A chain of folders that is longer than a path may be, made by moving one below another, with a file at its end.
    #[test]
    fn what_lies_deeper_than_a_path_reaches_is_counted_or_counts_as_all_there_is() {
        let dir = tempfile::tempdir().unwrap();
        let root = Folder::root(dir.path()).unwrap();
        let part: PathBuf = (0..10).map(|_| "d".repeat(200)).collect();
        let mut inodes = 0;
        let mut deepen = |parts: usize| {
            for _ in 0..parts {
                std::fs::create_dir_all(dir.path().join("next").join(&part)).unwrap();
                inodes += 11;
                if dir.path().join("v").exists() {
                    std::fs::rename(dir.path().join("v"), dir.path().join("next").join(&part).join("v"))
                        .unwrap();
                } else {
                    std::fs::write(dir.path().join("next").join(&part).join("file"), vec![1; 1 << 20])
                        .unwrap();
                    inodes += 1;
                }
                std::fs::rename(dir.path().join("next"), dir.path().join("v")).unwrap();
            }
            let mut count = root.count(Path::new("v")).unwrap().unwrap();
            while !count.go_on(10).unwrap() {}
            (count.counted(), inodes)
        };
        let (counted, inodes) = deepen(4);
        assert!(counted.inodes == inodes && counted.bytes > 1 << 20, "{counted:?}, not {inodes}");
        let (counted, _) = deepen(6);
        assert_eq!(counted, Counted { bytes: u64::MAX, inodes: u64::MAX });
    }

    fn whole(count: &mut Count) -> Counted {
        while !count.go_on(1000).unwrap() {}
        count.counted()
    }

    /// 22,000 names of 200 bytes: more than 4 MiB.
    #[test]
    fn a_folder_with_many_folders_is_counted_as_any_other() {
        let dir = tempfile::tempdir().unwrap();
        let root = Folder::root(dir.path()).unwrap();
        let name = "d".repeat(194);
        let many: u32 = 22_000;
        std::fs::create_dir(dir.path().join("v")).unwrap();
        for number in 0..many {
            std::fs::create_dir(dir.path().join(format!("v/{name}{number:06}"))).unwrap();
        }
        let counted = whole(&mut root.count(Path::new("v")).unwrap().unwrap());
        assert_eq!(counted.inodes, u64::from(many) + 1);
        assert!(counted.bytes < u64::MAX);
    }

    /// Each of 200 folders, one below the other, has two more in it: they are counted on the way back.
    #[test]
    fn what_lies_beside_a_deep_folder_is_counted_when_it_was_closed_for_that() {
        let dir = tempfile::tempdir().unwrap();
        let root = Folder::root(dir.path()).unwrap();
        let mut at = dir.path().join("v");
        for _ in 0..200 {
            for beside in ["a", "z"] {
                std::fs::create_dir_all(at.join(beside)).unwrap();
                std::fs::write(at.join(beside).join("file"), "").unwrap();
            }
            at.push("m");
        }
        let mut count = root.count(Path::new("v")).unwrap().unwrap();
        while !count.go_on(1).unwrap() {
            let open = count.levels.iter().filter(|level| level.fd.is_some()).count();
            assert!(open <= OPEN_MAX, "{open}");
        }
        // 200 levels with two folders and two files each, of which all but the top lie in another.
        assert_eq!(count.counted().inodes, 200 * 5);
        assert_eq!(count.path, 0, "the path is as short again as it was");
        // 600 folders to enter and to leave, and some 2200 names, those of each folder itself and of the one above it included: to go
        // from the top for each of 136 that were closed would be 13,600 more.
        let (mut count, mut slices) = (root.count(Path::new("v")).unwrap().unwrap(), 1);
        while !count.go_on(200).unwrap() {
            slices += 1;
        }
        assert!(slices < 30, "{slices}");
        assert_eq!(count.anew, 0);
    }

    /// Somebody moves what is counted to where the way back leads out of the tree.
    #[test]
    fn what_is_moved_away_while_it_is_counted_leads_nowhere_else() {
        let dir = tempfile::tempdir().unwrap();
        let root = Folder::root(dir.path()).unwrap();
        let part: PathBuf = (0..150).map(|_| "d").collect();
        std::fs::create_dir_all(dir.path().join("v").join(&part)).unwrap();
        for name in 0..100 {
            std::fs::write(dir.path().join(format!("outside-{name}")), "").unwrap();
        }
        let mut count = root.count(Path::new("v")).unwrap().unwrap();
        while count.levels.len() < 151 {
            assert!(!count.go_on(1).unwrap());
        }
        // A folder that was closed: the one above it is another now, and the one in its place has something in it.
        let at = |folders: usize| dir.path().join("v").join((0..folders).map(|_| "d").collect::<PathBuf>());
        std::fs::rename(at(50), dir.path().join("away")).unwrap();
        std::fs::create_dir(at(50)).unwrap();
        std::fs::write(at(50).join("new"), "").unwrap();
        let counted = whole(&mut count);
        assert!((151..=153).contains(&counted.inodes), "{counted:?}: nothing of what lies outside");
        assert!((50..=60).contains(&count.anew), "{} folders", count.anew);
        assert_eq!((count.path, count.waiting), (0, 0));
        // Who moves it for ever gains nothing.
        let mut count = root.count(Path::new("v")).unwrap().unwrap();
        count.anew = ANEW_MAX;
        while count.levels.len() < 50 {
            assert!(!count.go_on(1).unwrap());
        }
        count.go_anew().unwrap();
        assert_eq!(whole(&mut count), Counted { bytes: u64::MAX, inodes: u64::MAX });
    }

    /// As a package store, or copies that share what has not changed, have it.
    #[test]
    fn a_file_with_several_names_is_counted_once() {
        let dir = tempfile::tempdir().unwrap();
        let root = Folder::root(dir.path()).unwrap();
        let at = |place: String| dir.path().join("v").join(place);
        let files: u32 = 20;
        let mut inodes = 1;
        for copy in 0..4 {
            std::fs::create_dir_all(at(copy.to_string())).unwrap();
            inodes += 1;
            for file in 0..files {
                match copy {
                    0 => std::fs::write(at(format!("0/{file}")), vec![1; 64 << 10]).unwrap(),
                    _ => std::fs::hard_link(at(format!("0/{file}")), at(format!("{copy}/{file}"))).unwrap(),
                }
            }
        }
        let most = u64::from(files + 1) * (64 << 10) + (1 << 16);
        let mut count = root.count(Path::new("v")).unwrap().unwrap();
        let counted = whole(&mut count);
        assert_eq!(counted.inodes, inodes + u64::from(files));
        assert!(counted.bytes >= u64::from(files) << 16 && counted.bytes < most, "{counted:?}");
        // Where no more are remembered, all names of a file come to one file.
        let mut count = root.count(Path::new("v")).unwrap().unwrap();
        count.shared = (0..SHARED_MAX as u64).map(|number| u64::MAX - number).collect();
        let parts = whole(&mut count);
        assert_eq!(parts.inodes, counted.inodes);
        assert!(parts.bytes.abs_diff(counted.bytes) < 4096, "{parts:?}, not {counted:?}");
    }

    #[test]
    fn what_becomes_something_else_while_it_is_counted_counts_as_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let root = Folder::root(dir.path()).unwrap();
        for name in ["a", "b", "c", "d"] {
            std::fs::create_dir_all(dir.path().join("v").join(name)).unwrap();
        }
        let mut count = root.count(Path::new("v")).unwrap().unwrap();
        assert!(!count.go_on(1).unwrap());
        let at = |name: &str| dir.path().join("v").join(name);
        for name in ["a", "b", "c"] {
            std::fs::remove_dir(at(name)).unwrap();
        }
        std::os::unix::fs::symlink("/usr", at("a")).unwrap();
        std::fs::write(at("b"), "").unwrap();
        assert_eq!(whole(&mut count).inodes, 5, "as they were when they were read of");
    }

    #[test]
    fn what_the_node_itself_cannot_do_is_no_use_of_the_disk() {
        let dir = tempfile::tempdir().unwrap();
        let root = Folder::root(dir.path()).unwrap();
        std::fs::create_dir_all(dir.path().join("v/a")).unwrap();
        let mut count = root.count(Path::new("v")).unwrap().unwrap();
        // A descriptor that nothing can be read by.
        let place = rustix::fs::OFlags::PATH | rustix::fs::OFlags::DIRECTORY;
        let fd = root.open(Path::new("v"), place, Mode::empty()).unwrap();
        count.levels[0].fd = Some(fd);
        count.go_on(10).unwrap_err();
    }
}
