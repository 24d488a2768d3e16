//! How much of a disk a tree takes, whatever a container has put there: no link is followed, no mount entered, and it can be left
//! off after any folder.

use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType};

use super::Folder;
use crate::error::StepError;

/// So many names of one folder are counted.
const NAMES_MAX: usize = 1 << 16;
/// So many folders wait to be looked at; what is beyond counts as nothing.
const WAITING_MAX: usize = 1 << 16;
/// The kernel counts blocks of this size.
const BLOCK: u64 = 512;

/// The counting of one tree, as far as it has come.
#[derive(Debug)]
pub(crate) struct Count {
    top: Folder,
    device: u64,
    waiting: Vec<PathBuf>,
    /// What was counted.
    pub(crate) bytes: u64,
    pub(crate) inodes: u64,
}

impl Folder {
    /// Begins to count what is below `at`; `None`: nothing is there.
    pub(crate) fn count(&self, at: &Path) -> Result<Option<Count>, StepError> {
        let Some(top) = self.find(at)? else { return Ok(None) };
        let device = top.stat()?.st_dev;
        Ok(Some(Count { top, device, waiting: vec![PathBuf::new()], bytes: 0, inodes: 1 }))
    }
}

impl Count {
    /// Counts about `entries` more; true: it is done. What vanishes meanwhile counts as nothing.
    pub(crate) fn go_on(&mut self, entries: usize) -> bool {
        let mut left = entries;
        while let Some(at) = self.waiting.pop() {
            let (bytes, inodes, folders) = if at.as_os_str().is_empty() {
                count_names(&self.top, self.device)
            } else if let Ok(Some(folder)) = self.top.find(&at) {
                count_names(&folder, self.device)
            } else {
                // Nested too deep, or gone.
                continue;
            };
            self.bytes = self.bytes.saturating_add(bytes);
            self.inodes = self.inodes.saturating_add(inodes);
            let room = WAITING_MAX.saturating_sub(self.waiting.len());
            self.waiting.extend(folders.into_iter().take(room).map(|name| at.join(name)));
            left = left.saturating_sub(usize::try_from(inodes).unwrap_or(usize::MAX).max(1));
            if left == 0 {
                return self.waiting.is_empty();
            }
        }
        true
    }
}

/// Bytes and inodes of what is in a folder, and the folders among it.
fn count_names(folder: &Folder, device: u64) -> (u64, u64, Vec<PathBuf>) {
    let (mut bytes, mut inodes, mut folders) = (0_u64, 0_u64, Vec::new());
    for name in folder.names(NAMES_MAX).unwrap_or_default() {
        let Ok(stat) = rustix::fs::statat(&folder.fd, name.as_os_str(), AtFlags::SYMLINK_NOFOLLOW) else {
            continue;
        };
        if stat.st_dev != device {
            continue;
        }
        inodes += 1;
        bytes = bytes.saturating_add(u64::try_from(stat.st_blocks).unwrap_or(0).saturating_mul(BLOCK));
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            folders.push(PathBuf::from(name));
        }
    }
    (bytes, inodes, folders)
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
        assert_eq!(count.inodes, 55);
        assert!(count.bytes >= 50 * 8192 + 4096 && count.bytes < 1 << 20, "{}", count.bytes);
        assert!(root.count(Path::new("none")).unwrap().is_none());
    }
}
