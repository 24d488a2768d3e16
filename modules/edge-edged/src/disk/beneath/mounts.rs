//! Mounting and unmounting what was opened and checked, by its descriptor.

use std::ffi::CString;
use std::fs;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use mountinfo::Mount;
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
    /// Whether something is mounted at `at`. What is mounted is not asked, where the kernel can tell.
    pub(crate) fn is_mount(&self, at: &Path) -> Result<bool, StepError> {
        let look = || {
            let (parent, name) = (self.parent_of(at)?, at.file_name().ok_or(Errno::INVAL)?);
            if let Some(is_mount) = walk::is_crossed(parent.as_fd(), name, self.way)? {
                return Ok(is_mount);
            }
            let place = self.open(at, OFlags::PATH, Mode::empty())?;
            Ok::<_, Errno>(id(&place)? != id(&parent)?)
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

    /// A file system in memory at `at`, which is there; `size` in bytes, and so many inodes: an empty file is no byte of it, but
    /// memory of the kernel's all the same. What is in it is never swapped out where the kernel can promise that (since Linux 6.4).
    /// Answers the folder that it shows.
    pub(crate) fn tmpfs(&self, at: &Path, size: Option<i64>, inodes: u64) -> Result<Folder, StepError> {
        let place = self.below(at)?;
        let inodes = format!("nr_inodes={}", inodes.max(1));
        let size = size.filter(|size| *size > 0).map(|size| format!("size={size}"));
        let mount_with = |options: Vec<&str>| {
            let data = CString::new(options.join(",")).map_err(|_| Errno::INVAL)?;
            let flags = MountFlags::NOSUID | MountFlags::NODEV;
            mount("tmpfs", own_name(&place.fd), "tmpfs", flags, Some(data.as_c_str()))
        };
        let with_size = |more: Option<&'static str>| {
            size.as_deref().into_iter().chain([inodes.as_str()]).chain(more).collect()
        };
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
        // Nothing but dots is the folder itself.
        let fd = match opened {
            Some(fd) => fd,
            None => self.same()?.fd,
        };
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
            self.unmount_top(at).map_err(|error| self.fault("unmount", at, &error))?;
        }
        Err(self.fault("unmount", at, &"there is no end of mounts"))
    }

    /// Unmounts what is on top at `at`, with all that is mounted below it. By its name in a folder that is held open: nothing is
    /// followed, and what is mounted is not asked, which may be a server that does not answer.
    fn unmount_top(&self, at: &Path) -> Result<(), Errno> {
        let (parent, name) = (self.parent_of(at)?, at.file_name().ok_or(Errno::INVAL)?);
        unmount(own_name(&parent).join(name), UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)
    }

    /// Unmounts everything below `at`, and what is at `at` itself.
    pub(crate) fn detach_below(&self, at: &Path) -> Result<(), StepError> {
        let Some(folder) = self.find(at)? else { return Ok(()) };
        for _ in 0..MOUNTS_MAX {
            let points = folder.mounted_below()?;
            if points.is_empty() {
                return self.detach(at);
            }
            let mut undone = 0;
            for inner in &points {
                match folder.unmount_top(inner) {
                    Ok(()) => undone += 1,
                    Err(Errno::BUSY | Errno::PERM) => {
                        return Err(folder.fault("unmount", inner, &"it is not ours to unmount"));
                    }
                    // Hidden below what lies on the way: it is looked at again.
                    Err(_) => {}
                }
            }
            if undone == 0 {
                let inner = &points[0];
                return Err(folder.fault("unmount", inner, &"it cannot be reached without following a link"));
            }
        }
        Err(self.fault("unmount", at, &"there is no end of mounts"))
    }

    /// Where the folder really lies, links in the path of the root resolved: so the kernel's table of mounts has it.
    pub(crate) fn real(&self) -> Result<PathBuf, StepError> {
        fs::read_link(own_name(&self.fd)).map_err(|error| StepError::file("look at", self.shown(), &error))
    }

    /// Where else below this folder the same is mounted as at `at`.
    pub(crate) fn shown_elsewhere(&self, at: &Path) -> Result<Vec<PathBuf>, StepError> {
        let real = self.real()?;
        let table = mountinfo::here()
            .map_err(|error| StepError::file("read", Path::new(mountinfo::TABLE), &error))?;
        let place = real.join(at);
        // Of two at one place the later one is on top.
        let Some(own) = table.iter().rev().find(|mount| mount.point == place) else { return Ok(Vec::new()) };
        let same =
            |mount: &&Mount| mount.device == own.device && mount.root == own.root && mount.point != place;
        let others = table.iter().filter(same).filter_map(|mount| mount.point.strip_prefix(&real).ok());
        Ok(others.map(Path::to_owned).collect())
    }

    /// Relative paths of the mounts below that no other one of them is above.
    fn mounted_below(&self) -> Result<Vec<PathBuf>, StepError> {
        let real = self.real()?;
        let table = mountinfo::here()
            .map_err(|error| StepError::file("read", Path::new(mountinfo::TABLE), &error))?;
        Ok(outermost(&table, &real))
    }
}

fn outermost(table: &[Mount], below: &Path) -> Vec<PathBuf> {
    let inner = table.iter().filter_map(|mount| mount.point.strip_prefix(below).ok());
    let mut all: Vec<&Path> = inner.filter(|inner| !inner.as_os_str().is_empty()).collect();
    // What is below something comes right behind it.
    all.sort_unstable();
    let mut found: Vec<PathBuf> = Vec::new();
    for inner in all {
        if found.last().is_none_or(|outer| !inner.starts_with(outer)) {
            found.push(inner.to_owned());
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_mounts_below_each_other_the_outermost_is_found() {
        let table = mountinfo::parse(
            b"36 35 98:0 / /a/b rw - tmpfs t rw\n37 35 98:0 / /a/b/c\\040d rw - tmpfs t rw\n\
              38 37 98:0 / /a/b/c\\040d/\xff rw - tmpfs t rw\n39 35 98:0 / /a/bc rw - tmpfs t rw\n\
              40 35 98:0 / /a/b/c rw - tmpfs t rw\n41 37 98:0 / /a/b/c\\040d rw - tmpfs t rw\n",
        );
        let found = outermost(&table, Path::new("/a/b"));
        assert_eq!(found, [PathBuf::from("c"), PathBuf::from("c d")]);
    }

    /// A file system whose server never answers: whatever asks it waits until the server's end is closed.
    fn silent(at: &Path) -> Option<std::fs::File> {
        let server = std::fs::OpenOptions::new().read(true).write(true).open("/dev/fuse").ok()?;
        let options = format!("fd={},rootmode=40000,user_id=0,group_id=0", server.as_raw_fd());
        let options = CString::new(options).unwrap();
        mount("silent", at, "fuse", MountFlags::NOSUID | MountFlags::NODEV, Some(options.as_c_str())).ok()?;
        Some(server)
    }

    #[test]
    fn a_mount_whose_server_does_not_answer_is_known_and_undone_without_it() {
        let dir = tempfile::tempdir().unwrap();
        for at in ["pod/v", "pod/w"] {
            fs::create_dir_all(dir.path().join(at)).unwrap();
        }
        // Only root can mount, and not every machine has FUSE.
        let Some(server) = silent(&dir.path().join("pod/v")) else { return };
        let Some(other) = silent(&dir.path().join("pod/w")) else { return };
        let (done, is_done) = std::sync::mpsc::channel();
        let root = dir.path().to_owned();
        std::thread::spawn(move || {
            let root = Folder::root(&root).unwrap();
            let was_mount = root.is_mount(Path::new("pod/v")).unwrap();
            root.detach(Path::new("pod/w")).unwrap();
            root.detach_below(Path::new("pod")).unwrap();
            let left = ["pod/v", "pod/w"].map(|at| root.is_mount(Path::new(at)).unwrap());
            done.send((was_mount, left)).unwrap();
        });
        let told = is_done.recv_timeout(std::time::Duration::from_secs(20));
        // Whoever waits for it goes on with an error.
        drop((server, other));
        assert_eq!(told, Ok((true, [false, false])), "it was asked");
    }
}
