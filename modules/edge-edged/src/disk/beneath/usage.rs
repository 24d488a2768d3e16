//! How much of a disk a tree takes, whatever a container has put there: no link is followed, no mount entered, and it can be left
//! off after any folder.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType};

use super::Folder;
use crate::error::StepError;

/// 1 Mi names of one folder are counted.
const NAMES_MAX: usize = 1 << 20;
/// 16 KiB of a path: four times what programs can name at once, and of which moving folders below one another makes more.
const PATH_MAX: usize = 16 << 10;
/// 2 KiB of a path are opened at once.
const STEP_BYTES: usize = 2 << 10;
/// 4 MiB of paths wait to be looked at.
const WAITING_MAX: usize = 4 << 20;
/// The kernel counts blocks of this size.
const BLOCK: u64 = 512;

/// The counting of one tree, as far as it has come.
#[derive(Debug)]
pub(crate) struct Count {
    top: Folder,
    device: u64,
    waiting: Waiting,
    counted: Counted,
    /// There is something that was not counted.
    is_partial: bool,
}

/// What is in a tree or in one folder.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counted {
    pub(crate) bytes: u64,
    pub(crate) inodes: u64,
}

/// Folders that are to be looked at, by their paths below the top; it is the first, and has none.
#[derive(Debug)]
struct Waiting {
    paths: Vec<PathBuf>,
    bytes: usize,
}

impl Waiting {
    /// False: there is no room for it.
    fn push(&mut self, path: PathBuf) -> bool {
        let bytes = path.as_os_str().len();
        let has_room = bytes <= PATH_MAX && self.bytes + bytes <= WAITING_MAX;
        if has_room {
            self.bytes += bytes;
            self.paths.push(path);
        }
        has_room
    }

    fn pop(&mut self) -> Option<PathBuf> {
        let path = self.paths.pop()?;
        self.bytes -= path.as_os_str().len();
        Some(path)
    }
}

impl Folder {
    /// Begins to count what is below `at`; `None`: nothing is there.
    pub(crate) fn count(&self, at: &Path) -> Result<Option<Count>, StepError> {
        let Some(top) = self.find(at)? else { return Ok(None) };
        let device = top.stat()?.st_dev;
        let counted = Counted { bytes: 0, inodes: 1 };
        let waiting = Waiting { paths: vec![PathBuf::new()], bytes: 0 };
        Ok(Some(Count { top, device, waiting, counted, is_partial: false }))
    }

    /// Opens a folder by a path that may be longer than the kernel takes at once.
    pub(crate) fn find_deep(&self, at: &Path) -> Result<Option<Folder>, StepError> {
        let mut folder: Option<Folder> = None;
        let mut step = PathBuf::new();
        for name in at {
            if step.as_os_str().len() + name.len() > STEP_BYTES {
                let Some(next) = folder.as_ref().unwrap_or(self).find(&step)? else { return Ok(None) };
                folder = Some(next);
                step = PathBuf::new();
            }
            step.push(name);
        }
        folder.as_ref().unwrap_or(self).find(&step)
    }
}

impl Count {
    /// Counts about `entries` more; true: it is done. What vanishes meanwhile counts as nothing.
    pub(crate) fn go_on(&mut self, entries: usize) -> bool {
        let mut left = entries;
        while let Some(at) = self.waiting.pop() {
            let below = if at.as_os_str().is_empty() { Ok(None) } else { self.top.find_deep(&at).map(Some) };
            let own = match &below {
                Ok(Some(None)) => Some(Counted::default()),
                Ok(Some(Some(folder))) => count_names(folder, self.device, &at, &mut self.waiting),
                Ok(None) => count_names(&self.top, self.device, &at, &mut self.waiting),
                Err(_) => None,
            };
            self.is_partial |= own.is_none();
            let own = own.unwrap_or_default();
            self.counted.bytes = self.counted.bytes.saturating_add(own.bytes);
            self.counted.inodes = self.counted.inodes.saturating_add(own.inodes);
            left = left.saturating_sub(usize::try_from(own.inodes).unwrap_or(usize::MAX).max(1));
            if self.is_partial {
                return true;
            }
            if left == 0 {
                return self.waiting.paths.is_empty();
            }
        }
        true
    }

    /// What was counted. Where something cannot be counted it may be anything: the most that there is, so that nobody gains by
    /// hiding.
    pub(crate) fn counted(&self) -> Counted {
        if self.is_partial { Counted { bytes: u64::MAX, inodes: u64::MAX } } else { self.counted }
    }
}

/// Bytes and inodes of what is in a folder; the folders among it wait from now on. `None`: not all of it can be counted.
fn count_names(folder: &Folder, device: u64, at: &Path, waiting: &mut Waiting) -> Option<Counted> {
    let mut counted = Counted::default();
    for (number, entry) in rustix::fs::Dir::read_from(&folder.fd).ok()?.enumerate() {
        let entry = entry.ok().filter(|_| number < NAMES_MAX)?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let Ok(stat) = rustix::fs::statat(&folder.fd, name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
        if stat.st_dev != device {
            continue;
        }
        counted.inodes += 1;
        let bytes = u64::try_from(stat.st_blocks).unwrap_or(0).saturating_mul(BLOCK);
        counted.bytes = counted.bytes.saturating_add(bytes);
        let is_folder = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        if is_folder && !waiting.push(at.join(OsStr::from_bytes(name.to_bytes()))) {
            return None;
        }
    }
    Some(counted)
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
        while !count.go_on(10) {
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
            while !count.go_on(10) {}
            (count.counted(), inodes)
        };
        let (counted, inodes) = deepen(4);
        assert!(counted.inodes == inodes && counted.bytes > 1 << 20, "{counted:?}, not {inodes}");
        let (counted, _) = deepen(6);
        assert_eq!(counted, Counted { bytes: u64::MAX, inodes: u64::MAX });
    }
}
