//! A place for a socket in a folder that others write to.
//!
//! Mappers mount the folder, most of them as root: at every step a name in it can be a link to anywhere. So the folder is
//! opened once and everything goes by its descriptor; the socket is born with its mode (Linux takes that of the socket's
//! own inode), and group and mode are set on the opened file, after it has shown that it leads to our own listener.
//! This is the only file here that touches files (rule 10).

use std::io;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, RenameFlags, chmod, chownat, fchmod, fchown, fstat, mkdirat,
    openat, renameat_with, statat, unlinkat,
};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, connect, listen, socket_with,
    sockopt,
};
use rustix::rand::{GetRandomFlags, getrandom};

/// 8 times before somebody who exchanges names all the time has won; the caller tries again later.
const TRIES: usize = 8;
/// 128 connections wait to be accepted.
const WAITING: i32 = 128;
/// The socket's own user alone.
const OWNER: Mode = Mode::RUSR.union(Mode::WUSR);
/// And its group.
const GROUP: Mode = OWNER.union(Mode::RGRP).union(Mode::WGRP);

/// What becomes of something that is no socket and has the name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It stays, and nothing is bound.
    Stays,
    /// It goes. What has a content is moved aside.
    Goes,
}

/// Why nothing is bound.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Something that is no socket stays there.
    NotASocket,
    /// The system refused.
    System(io::Error),
}

impl From<Errno> for Failure {
    fn from(error: Errno) -> Self {
        Failure::System(error.into())
    }
}

/// An opened folder.
pub(crate) struct Place {
    folder: OwnedFd,
    shown: PathBuf,
}

impl Place {
    /// Opens a folder. The way to it is the administrator's, with the links on it: who mounts a folder cannot exchange it.
    pub(crate) fn open(path: &Path) -> io::Result<Place> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = openat(CWD, path, flags, Mode::empty())?;
        Ok(Place { folder, shown: path.to_owned() })
    }

    /// The same, and makes it if it is not there, whatever the umask: 0755, or 1770 for `group`, whose members make their
    /// sockets in it and remove only their own. One that is there stays as it is.
    pub(crate) fn make(path: &Path, group: Option<u32>) -> io::Result<Place> {
        match Place::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => return other,
        }
        let (Some(above), Some(name)) = (path.parent(), path.file_name()) else { return Place::open(path) };
        std::fs::create_dir_all(above)?;
        let above = Place::open(above)?;
        match mkdirat(&above.folder, name, Mode::RWXU) {
            // Somebody else has made it meanwhile, and said whose it is.
            Err(Errno::EXIST) => return Place::open(path),
            made => made?,
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let folder = openat(&above.folder, name, flags, Mode::empty())?;
        let mode = if let Some(group) = group {
            fchown(&folder, None, Some(Gid::from_raw(group)))?;
            0o1770
        } else {
            0o755
        };
        fchmod(&folder, Mode::from_raw_mode(mode))?;
        Ok(Place { folder, shown: path.to_owned() })
    }

    /// Binds a socket and listens on it: mode 0600, or with a group 0660 and the group's. Answers what had to be moved
    /// aside for it, too.
    pub(crate) fn bind(
        &self,
        name: &str,
        group: Option<u32>,
        standing: Standing,
    ) -> Result<(UnixListener, Vec<PathBuf>), Failure> {
        let mut aside = Vec::new();
        for _ in 0..TRIES {
            self.clear(name, standing, &mut aside)?;
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
            fchmod(&socket, OWNER)?;
            match bind(&socket, &SocketAddrUnix::new(by_number(&self.folder).join(name))?) {
                Err(Errno::ADDRINUSE) => continue,
                bound => bound?,
            }
            listen(&socket, WAITING)?;
            if self.give(name, &socket, group)? {
                return Ok((UnixListener::from(socket), aside));
            }
        }
        Err(Failure::System(io::Error::other(
            "somebody puts other things in the socket's place all the time",
        )))
    }

    /// Sets group and mode of our own socket, and says whether it is the one that has the name.
    fn give(&self, name: &str, socket: &OwnedFd, group: Option<u32>) -> Result<bool, Errno> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = match openat(&self.folder, name, flags, Mode::empty()) {
            Err(Errno::NOENT) => return Ok(false),
            file => file?,
        };
        let own = fstat(&file)?;
        if kind(own.st_mode) != FileType::Socket || !leads_to(&file, socket)? {
            return Ok(false);
        }
        if let Some(group) = group {
            chownat(&file, "", None, Some(Gid::from_raw(group)), AtFlags::EMPTY_PATH)?;
        }
        // By its number the very file that was opened, whatever has its name by now.
        chmod(by_number(&file), if group.is_some() { GROUP } else { OWNER })?;
        match statat(&self.folder, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => Ok(false),
            found => found.map(|found| (found.st_dev, found.st_ino) == (own.st_dev, own.st_ino)),
        }
    }

    /// Makes the name free, as far as nobody takes it again at once: [`Place::bind`] sees that.
    fn clear(&self, name: &str, standing: Standing, aside: &mut Vec<PathBuf>) -> Result<(), Failure> {
        let found = match statat(&self.folder, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => return Ok(()),
            found => found?,
        };
        let (kind, empty) = (kind(found.st_mode), found.st_size == 0);
        if kind != FileType::Socket && standing == Standing::Stays {
            return Err(Failure::NotASocket);
        }
        let removed = match kind {
            FileType::Directory => unlinkat(&self.folder, name, AtFlags::REMOVEDIR),
            FileType::RegularFile if !empty => Err(Errno::NOTEMPTY),
            _ => unlinkat(&self.folder, name, AtFlags::empty()),
        };
        match removed {
            // Gone, or another thing by now.
            Ok(()) | Err(Errno::NOENT | Errno::ISDIR | Errno::NOTDIR) => Ok(()),
            Err(Errno::NOTEMPTY | Errno::EXIST) => Ok(self.move_aside(name, aside)?),
            Err(error) => Err(error.into()),
        }
    }

    fn move_aside(&self, name: &str, aside: &mut Vec<PathBuf>) -> Result<(), Errno> {
        // A name that nobody can have taken before: a file's name, and nothing that a run depends on.
        let mut random = [0; 8];
        getrandom(&mut random, GetRandomFlags::empty())?;
        let new = format!("{name}.aside-{:016x}", u64::from_ne_bytes(random));
        match renameat_with(&self.folder, name, &self.folder, &new, RenameFlags::NOREPLACE) {
            Err(Errno::NOENT) => Ok(()),
            moved => {
                moved?;
                aside.push(self.shown.join(new));
                Ok(())
            }
        }
    }
}

/// The path of an opened file itself.
fn by_number(file: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

fn kind(mode: u32) -> FileType {
    FileType::from_raw_mode(mode)
}

/// Whether who connects to `file` arrives at `listener`: the file's number says nothing about that. Whoever has connected
/// before, while only its own user could, is turned away by it.
fn leads_to(file: &OwnedFd, listener: &OwnedFd) -> Result<bool, Errno> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let caller = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    if connect(&caller, &SocketAddrUnix::new(by_number(file))?).is_err() {
        return Ok(false);
    }
    let myself = rustix::process::getpid();
    for _ in 0..=WAITING {
        match accept_with(listener.as_fd(), flags) {
            Ok(arrived) if sockopt::socket_peercred(&arrived)?.pid == myself => return Ok(true),
            Ok(_) => {}
            Err(Errno::AGAIN) => break,
            Err(error) => return Err(error),
        }
    }
    Ok(false)
}
