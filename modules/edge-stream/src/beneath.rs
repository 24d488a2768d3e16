//! Files below a folder that others write to, looked at without following a link.
//!
//! Containers can reach log folders by a hostPath, and who writes into /var/log is not always root. So a path is walked name by
//! name, each step from the descriptor of the one before and none through a link: without links and `..` no step leaves the
//! folder that it starts from. A file is opened as a mere place first and read only if it is plain, so that no FIFO holds up
//! its reader and no device is touched.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat, fstat, openat, statat};
use rustix::io::Errno;

const PLACE: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
/// 4096 names of a folder.
const NAMES_MAX: usize = 4096;

/// A folder that is held open.
#[derive(Debug)]
pub(crate) struct Folder(OwnedFd);

/// What a folder holds under a name.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) name: OsString,
    pub(crate) kind: FileType,
    pub(crate) stat: Stat,
}

/// A plain file and what tells it from another one of its name.
#[derive(Debug)]
pub(crate) struct Plain {
    pub(crate) file: File,
    pub(crate) inode: (u64, u64),
}

fn not_found() -> io::Error {
    io::Error::from(Errno::NOENT)
}

/// The names of a relative path; an error when it holds anything but plain names.
fn names(at: &Path) -> io::Result<Vec<&OsStr>> {
    let plain = |part: Component<'_>| matches!(part, Component::Normal(_));
    if !at.components().all(plain) || at.as_os_str().as_bytes().contains(&0) {
        return Err(not_found());
    }
    Ok(at.iter().collect())
}

impl Folder {
    /// Opens a folder by a path that only the administrator changes.
    pub(crate) fn root(path: &Path) -> io::Result<Folder> {
        Ok(Folder(rustix::fs::open(path, FOLDER, Mode::empty())?))
    }

    /// A folder below this one.
    pub(crate) fn below(&self, at: &Path) -> io::Result<Folder> {
        let place = self.place(at)?;
        Ok(Folder(openat(place, ".", FOLDER, Mode::empty())?))
    }

    /// The place of what lies at `at`: not opened for anything yet.
    fn place(&self, at: &Path) -> io::Result<OwnedFd> {
        let mut found: Option<OwnedFd> = None;
        for name in names(at)? {
            let from = found.as_ref().map_or(self.0.as_fd(), |fd| fd.as_fd());
            let next = openat(from, name, PLACE, Mode::empty())?;
            if FileType::from_raw_mode(fstat(&next)?.st_mode) == FileType::Symlink {
                return Err(io::Error::from(Errno::LOOP));
            }
            found = Some(next);
        }
        found.map_or_else(|| self.0.try_clone(), Ok)
    }

    /// What the kernel says of what lies at `at`, and never of what a link leads to.
    pub(crate) fn stat(&self, at: &Path) -> io::Result<Stat> {
        Ok(fstat(self.place(at)?)?)
    }

    /// A plain file, to be read.
    pub(crate) fn file(&self, at: &Path) -> io::Result<Plain> {
        let place = self.place(at)?;
        let stat = fstat(&place)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a plain file"));
        }
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = File::from(rustix::fs::open(own_name(&place), flags, Mode::empty())?);
        Ok(Plain { file, inode: (stat.st_dev, stat.st_ino) })
    }

    /// What is in the folder, by name; of very many a part.
    pub(crate) fn entries(&self) -> io::Result<Vec<Entry>> {
        let mut found = Vec::new();
        for entry in Dir::read_from(&self.0)?.take(NAMES_MAX) {
            let entry = entry?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name == "." || name == ".." {
                continue;
            }
            // It may be gone by now.
            let Ok(stat) = statat(&self.0, name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
            found.push(Entry { name: name.to_owned(), kind: FileType::from_raw_mode(stat.st_mode), stat });
        }
        found.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }

    /// The name of this very folder, whatever becomes of its path.
    pub(crate) fn own_name(&self) -> PathBuf {
        own_name(&self.0)
    }
}

fn own_name(fd: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;
    use std::os::unix::fs::symlink;

    #[test]
    fn no_link_leads_out_and_nothing_but_a_plain_file_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let (inside, outside) = (dir.path().join("in"), dir.path().join("out"));
        std::fs::create_dir_all(inside.join("a/b")).unwrap();
        std::fs::create_dir(&outside).unwrap();
        std::fs::write(inside.join("a/b/0.log"), "log").unwrap();
        std::fs::write(outside.join("secret"), "secret").unwrap();
        symlink(&outside, inside.join("link")).unwrap();
        symlink(outside.join("secret"), inside.join("a/1.log")).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, inside.join("a/fifo"), FileType::Fifo, Mode::RUSR, 0).unwrap();
        let folder = Folder::root(&inside).unwrap();
        let mut text = String::new();
        folder.file(Path::new("a/b/0.log")).unwrap().file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "log");
        for at in [
            "link/secret",
            "a/1.log",
            "../out/secret",
            "/etc/passwd",
            "a/fifo",
            "a",
            "a/../../out/secret",
            "",
        ] {
            assert!(folder.file(Path::new(at)).is_err(), "{at}");
        }
        assert!(folder.below(Path::new("link")).is_err());
        let names: Vec<_> = folder.entries().unwrap().into_iter().map(|entry| entry.name).collect();
        assert_eq!(names, ["a", "link"]);
        let below = folder.below(Path::new("a/b")).unwrap();
        assert_eq!(std::fs::read_dir(below.own_name()).unwrap().count(), 1);
    }
}
