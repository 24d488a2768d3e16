//! Mounting and unmounting what was opened and checked, by its descriptor.

use std::ffi::{CString, OsString};
use std::fs;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, fchmod, fstat, mkdirat};
use rustix::io::Errno;
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind, mount_change, mount_remount, unmount,
};

use super::file::own_name;
use super::{Access, Folder, walk};
use crate::error::StepError;

/// So many mounts at one place, or below one pod, are undone.
const MOUNTS_MAX: usize = 4096;

/// What a sub-path leads to, held open: it is shown as it was found, whatever its name stands for by now.
#[derive(Debug)]
pub(crate) struct Found {
    fd: OwnedFd,
    is_dir: bool,
}

/// The kernel's number of the mount that a descriptor lies in.
pub(super) fn id(fd: &impl AsFd) -> Result<u64, Errno> {
    let path = format!("/proc/self/fdinfo/{}", fd.as_fd().as_raw_fd());
    let text = fs::read_to_string(path).map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    let line = text.lines().find_map(|line| line.strip_prefix("mnt_id:"));
    line.and_then(|number| number.trim().parse().ok()).ok_or(Errno::NOSYS)
}

impl Folder {
    /// Whether something is mounted at `at`.
    pub(crate) fn is_mount(&self, at: &Path) -> Result<bool, StepError> {
        let look = || {
            let place = self.open(at, OFlags::PATH, Mode::empty())?;
            Ok::<_, Errno>(id(&place)? != id(&self.parent_of(at)?)?)
        };
        match look() {
            Err(Errno::NOENT) => Ok(false),
            other => other.map_err(|error| self.fault("look at", at, &error)),
        }
    }

    /// The same folder, held once more.
    pub(super) fn same(&self) -> Result<Folder, Errno> {
        let fd = self.fd.try_clone().map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
        Ok(Folder { fd, shown: self.shown.clone(), way: self.way })
    }

    fn parent_of(&self, at: &Path) -> Result<OwnedFd, Errno> {
        match at.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            Some(parent) => self.open(parent, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()),
            None => self.same().map(|same| same.fd),
        }
    }

    /// A file system in memory at `at`, which is there; `size` in bytes. What is in it is never swapped out where the kernel
    /// can promise that (since Linux 6.4). Answers the folder that it shows.
    pub(crate) fn tmpfs(&self, at: &Path, size: Option<i64>) -> Result<Folder, StepError> {
        let place = self.below(at)?;
        let size = size.filter(|size| *size > 0).map(|size| format!("size={size}"));
        let mount_with = |options: Vec<&str>| {
            let data = CString::new(options.join(",")).map_err(|_| Errno::INVAL)?;
            let flags = MountFlags::NOSUID | MountFlags::NODEV;
            mount("tmpfs", own_name(&place.fd), "tmpfs", flags, Some(data.as_c_str()))
        };
        let with_size = |more: Option<&'static str>| size.as_deref().into_iter().chain(more).collect();
        let mounted = match mount_with(with_size(Some("noswap"))) {
            Err(Errno::INVAL) => mount_with(with_size(None)),
            other => other,
        };
        mounted.map_err(|error| self.fault("mount tmpfs at", at, &error))?;
        self.below(at)
    }

    /// A file system of huge pages of a size, in bytes, at `at`, which is there. Answers the folder that it shows.
    pub(crate) fn hugetlbfs(&self, at: &Path, page_size: u64) -> Result<Folder, StepError> {
        let place = self.below(at)?;
        let data = CString::new(format!("pagesize={page_size}"));
        let data = data.map_err(|error| self.fault("mount huge pages at", at, &error))?;
        let flags = MountFlags::NOSUID | MountFlags::NODEV;
        let mounted = mount("nodev", own_name(&place.fd), "hugetlbfs", flags, Some(data.as_c_str()));
        mounted.map_err(|error| self.fault("mount huge pages at", at, &error))?;
        self.below(at)
    }

    /// Shows a folder of the host at `at`, which is there, with these options of a bind mount (`ro`, `nosuid`, …). Nothing that
    /// is mounted below the source is shown.
    pub(crate) fn bind(&self, source: &Path, at: &Path, options: &[String]) -> Result<(), StepError> {
        let fault = |what: &'static str| move |error: Errno| self.fault(what, at, &error);
        let place = self.open(at, OFlags::PATH, Mode::empty()).map_err(fault("open"))?;
        mount_bind(source, own_name(&place)).map_err(fault("bind-mount at"))?;
        let shown = self.open(at, OFlags::PATH, Mode::empty()).map_err(fault("open"))?;
        let flags = options.iter().fold(MountFlags::empty(), |flags, option| {
            flags
                | match option.as_str() {
                    "ro" => MountFlags::RDONLY,
                    "nosuid" => MountFlags::NOSUID,
                    "nodev" => MountFlags::NODEV,
                    "noexec" => MountFlags::NOEXEC,
                    "noatime" => MountFlags::NOATIME,
                    "nodiratime" => MountFlags::NODIRATIME,
                    "relatime" => MountFlags::RELATIME,
                    _ => MountFlags::empty(),
                }
        });
        if !flags.is_empty()
            && let Err(error) = mount_remount(own_name(&shown), MountFlags::BIND | flags, "")
        {
            // Half of what is wanted would be taken for it at the next look.
            self.detach(at)?;
            return Err(self.fault("set the options of the mount at", at, &error));
        }
        Ok(())
    }

    /// Finds what `inner` leads to below this folder, and makes the folders that are missing with this folder's mode.
    /// A link that a container put there can lead only to other parts of the folder; [`Errno::XDEV`] and
    /// [`Errno::LOOP`] say that it led out.
    pub(crate) fn sub_path(&self, inner: &Path) -> Result<Found, Errno> {
        let mode = Mode::from_raw_mode(fstat(&self.fd)?.st_mode & 0o7777);
        let mut relative = PathBuf::new();
        let mut opened: Option<OwnedFd> = None;
        for part in inner.components() {
            let Component::Normal(name) = part else { return Err(Errno::XDEV) };
            relative.push(name);
            let next = match walk::open_inside(self.as_fd(), &relative, self.way) {
                Err(Errno::NOENT) => {
                    let parent = opened.as_ref().map_or(self.as_fd(), |fd| fd.as_fd());
                    mkdirat(parent, name, Mode::from_raw_mode(0o700))?;
                    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
                    let made = walk::open(parent, Path::new(name), flags, Mode::empty(), self.way)?;
                    fchmod(&made, mode)?;
                    made
                }
                other => other?,
            };
            opened = Some(next);
        }
        let fd = opened.ok_or(Errno::INVAL)?;
        let is_dir = FileType::from_raw_mode(fstat(&fd)?.st_mode).is_dir();
        Ok(Found { fd, is_dir })
    }

    /// Shows at `at` what was found elsewhere; what was mounted there before goes.
    pub(crate) fn show(&self, found: &Found, at: &Path) -> Result<(), StepError> {
        self.detach(at)?;
        let fault = |what: &'static str| move |error: Errno| self.fault(what, at, &error);
        self.make_place(at, found.is_dir)?;
        let place = self.open(at, OFlags::PATH, Mode::empty()).map_err(fault("open"))?;
        mount_bind(own_name(&found.fd), own_name(&place)).map_err(fault("bind-mount at"))?;
        // Nothing that happens under the source later shall show here.
        let shown = self.open(at, OFlags::PATH, Mode::empty()).map_err(fault("open"))?;
        let number = |fd: &OwnedFd| fstat(fd).map(|stat| (stat.st_dev, stat.st_ino));
        if number(&shown).map_err(fault("look at"))? != number(&found.fd).map_err(fault("look at"))? {
            return Err(self.fault("bind-mount at", at, &"it shows something else than what was checked"));
        }
        mount_change(own_name(&shown), MountPropagationFlags::PRIVATE).map_err(fault("make private"))
    }

    fn make_place(&self, at: &Path, is_dir: bool) -> Result<(), StepError> {
        let parent = match at.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            Some(parent) => self.make(parent, Access::mode(0o750))?,
            None => self.same().map_err(|error| self.fault("open", at, &error))?,
        };
        let Some(name) = at.file_name().and_then(|name| name.to_str()) else {
            return Err(self.fault("make", at, &Errno::INVAL));
        };
        let wanted = if is_dir { FileType::Directory } else { FileType::RegularFile };
        let found = parent.kind(name)?;
        if found == Some(wanted) {
            return Ok(());
        }
        if found.is_some() {
            parent.remove(Path::new(name))?;
        }
        if is_dir {
            parent.make(Path::new(name), Access::mode(0o750)).map(drop)
        } else {
            parent.create(Path::new(name), b"", Access::mode(0o640))
        }
    }

    /// Unmounts what is at `at` until nothing is mounted there.
    pub(crate) fn detach(&self, at: &Path) -> Result<(), StepError> {
        for _ in 0..MOUNTS_MAX {
            if !self.is_mount(at)? {
                return Ok(());
            }
            let top =
                self.open(at, OFlags::PATH, Mode::empty()).map_err(|error| self.fault("open", at, &error))?;
            unmount(own_name(&top), UnmountFlags::DETACH)
                .map_err(|error| self.fault("unmount", at, &error))?;
        }
        Err(self.fault("unmount", at, &"there is no end of mounts"))
    }

    /// Unmounts everything below `at`, the latest first, and what is at `at` itself.
    pub(crate) fn detach_below(&self, at: &Path) -> Result<(), StepError> {
        let Some(folder) = self.find(at)? else { return Ok(()) };
        for _ in 0..MOUNTS_MAX {
            let points = folder.mounted_below()?;
            if points.is_empty() {
                return self.detach(at);
            }
            let mut undone = 0;
            for (number, inner) in points.iter().rev() {
                // Hidden below another mount: its turn comes when that is gone.
                let Ok(top) = folder.open(inner, OFlags::PATH, Mode::empty()) else { continue };
                if id(&top) == Ok(*number) {
                    unmount(own_name(&top), UnmountFlags::DETACH)
                        .map_err(|error| folder.fault("unmount", inner, &error))?;
                    undone += 1;
                }
            }
            if undone == 0 {
                let (_, inner) = &points[0];
                return Err(folder.fault("unmount", inner, &"it cannot be reached without following a link"));
            }
        }
        Err(self.fault("unmount", at, &"there is no end of mounts"))
    }

    /// Numbers and relative paths of the mounts below, in the order in which they were made.
    fn mounted_below(&self) -> Result<Vec<(u64, PathBuf)>, StepError> {
        // Where the folder really lies, links in the path of the root resolved: so the kernel's table has it.
        let real = fs::read_link(own_name(&self.fd))
            .map_err(|error| StepError::file("look at", self.shown(), &error))?;
        let table = fs::read("/proc/self/mountinfo")
            .map_err(|error| StepError::file("read", Path::new("/proc/self/mountinfo"), &error))?;
        Ok(points(&table, &real))
    }
}

fn points(table: &[u8], below: &Path) -> Vec<(u64, PathBuf)> {
    let entry = |line: &[u8]| {
        let mut fields = line.split(|byte| *byte == b' ');
        let number = std::str::from_utf8(fields.next()?).ok()?.parse().ok()?;
        let path = unescape(fields.nth(3)?);
        let inner = path.strip_prefix(below).ok()?;
        (!inner.as_os_str().is_empty()).then(|| (number, inner.to_owned()))
    };
    table.split(|byte| *byte == b'\n').filter_map(entry).collect()
}

/// The kernel writes blanks and the like as `\040`.
fn unescape(field: &[u8]) -> PathBuf {
    let mut out = Vec::with_capacity(field.len());
    let mut at = 0;
    while let Some(byte) = field.get(at) {
        let octal = field.get(at + 1..at + 4).and_then(|digits| std::str::from_utf8(digits).ok());
        let code = octal.and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match (byte, code) {
            (b'\\', Some(code)) => {
                out.push(code);
                at += 4;
            }
            _ => {
                out.push(*byte);
                at += 1;
            }
        }
    }
    PathBuf::from(OsString::from_vec(out))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_table_is_read_with_its_escapes() {
        assert_eq!(unescape(br"/a\040b\134c"), PathBuf::from("/a b\\c"));
        assert_eq!(unescape(br"/plain\"), PathBuf::from("/plain\\"));
        let table = b"36 35 98:0 / /a/b rw - tmpfs t rw\n37 35 98:0 / /a/b/c\\040d rw - tmpfs t rw\n38 35 98:0 / /a/bc rw - tmpfs t rw\n";
        assert_eq!(points(table, Path::new("/a/b")), [(37, PathBuf::from("c d"))]);
    }
}
