//! A socket in a folder that others write to.
//!
//! At every step a name in it can be a link to anywhere. So the folder is
//! opened once and everything goes by its descriptor; the socket is born with its mode (Linux takes that of the socket's
//! own inode), and group and mode are set on the opened file, after it has shown that it leads to our own listener.
//! This is the only file here that touches files (rule 10).

use std::io;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, RenameFlags, Stat, chmod, chownat, fchmod, fchown, fstat,
    mkdirat, openat, renameat_with, statat, unlinkat,
};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, connect, listen, socket_with,
    sockopt,
};
use rustix::rand::{GetRandomFlags, getrandom};
use thiserror::Error;

/// 8 times before somebody who exchanges names all the time has won; the caller tries again later.
const TRIES: usize = 8;
/// 128 connections wait to be accepted.
const WAITING: i32 = 128;
/// The socket's own user alone.
const OWNER: Mode = Mode::RUSR.union(Mode::WUSR);
/// And its group.
const GROUP: Mode = OWNER.union(Mode::RGRP).union(Mode::WGRP);

/// What becomes of what has the name already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    /// A socket that nobody listens on goes; all else stays, and nothing is bound.
    ReplaceDead,
    /// A socket goes; all else stays, and nothing is bound.
    ReplaceSocket,
    /// It goes, whatever it is. What has a content is moved aside.
    ReplaceAll,
}

/// Why nothing is bound.
#[derive(Debug, Error)]
pub enum BindError {
    /// Something that is no socket stays there.
    #[error("there is something else, which is no socket")]
    NotASocket,
    /// The system refused, or somebody listens there.
    #[error(transparent)]
    System(#[from] io::Error),
}

impl From<Errno> for BindError {
    fn from(error: Errno) -> Self {
        BindError::System(error.into())
    }
}

/// A socket that is listened on.
#[derive(Debug)]
pub struct Bound {
    /// Its listener, which never blocks.
    pub listener: UnixListener,
    /// Where what stood in its place is now.
    pub aside: Vec<PathBuf>,
    /// Its file.
    pub file: OwnFile,
}

/// The file of a socket, told from the next one that has its name.
#[derive(Debug)]
pub struct OwnFile {
    folder: Arc<OwnedFd>,
    name: String,
    made: Stat,
}

/// By device, inode, and when it was made: another file may have the inode later.
fn is_same(one: &Stat, other: &Stat) -> bool {
    (one.st_dev, one.st_ino, one.st_mtime, one.st_mtime_nsec)
        == (other.st_dev, other.st_ino, other.st_mtime, other.st_mtime_nsec)
}

impl OwnFile {
    /// Removes it. Another one's socket, which came later, stays.
    pub fn remove(&self) {
        let found = statat(&self.folder, &self.name, AtFlags::SYMLINK_NOFOLLOW);
        if found.is_ok_and(|found| is_same(&found, &self.made)) {
            // Nobody is left who could be told.
            let _ = unlinkat(&self.folder, &self.name, AtFlags::empty());
        }
    }
}

/// An opened folder.
#[derive(Debug)]
pub struct Folder {
    folder: Arc<OwnedFd>,
    shown: PathBuf,
}

impl Folder {
    /// Opens a folder. The way to it is the administrator's, with the links on it: who mounts a folder cannot exchange it.
    ///
    /// # Errors
    /// The system's.
    pub fn open(path: &Path) -> io::Result<Folder> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = openat(CWD, path, flags, Mode::empty())?;
        Ok(Folder { folder: Arc::new(folder), shown: path.to_owned() })
    }

    /// The same, and makes it if it is not there, whatever the umask: 0755, or 1770 for `group`, whose members make their
    /// sockets in it and remove only their own. One that is there stays as it is.
    ///
    /// # Errors
    /// The system's.
    pub fn make(path: &Path, group: Option<u32>) -> io::Result<Folder> {
        match Folder::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => return other,
        }
        let (Some(above), Some(name)) = (path.parent(), path.file_name()) else { return Folder::open(path) };
        std::fs::create_dir_all(above)?;
        let above = Folder::open(above)?;
        match mkdirat(&above.folder, name, Mode::RWXU) {
            // Somebody else has made it meanwhile, and said whose it is.
            Err(Errno::EXIST) => return Folder::open(path),
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
        Ok(Folder { folder: Arc::new(folder), shown: path.to_owned() })
    }

    /// Binds a socket and listens on it: mode 0600, or with a group 0660 and the group's. Answers what had to be moved
    /// aside for it, too.
    ///
    /// # Errors
    /// When what has the name has to stay, when this process may not give a file to the group, and when somebody
    /// exchanges what is there all the time.
    pub fn bind(&self, name: &str, group: Option<u32>, existing: Existing) -> Result<Bound, BindError> {
        let mut aside = Vec::new();
        for _ in 0..TRIES {
            self.clear(name, existing, &mut aside)?;
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
            fchmod(&socket, OWNER)?;
            match bind(&socket, &SocketAddrUnix::new(by_number(&self.folder).join(name))?) {
                Err(Errno::ADDRINUSE) => continue,
                bound => bound?,
            }
            listen(&socket, WAITING)?;
            if let Some(made) = self.give(name, &socket, group)? {
                let file = OwnFile { folder: Arc::clone(&self.folder), name: name.to_owned(), made };
                return Ok(Bound { listener: UnixListener::from(socket), aside, file });
            }
        }
        Err(BindError::System(io::Error::other(
            "somebody puts other things in the socket's place all the time",
        )))
    }

    /// Sets group and mode of our own socket, and says whether it is the one that has the name.
    fn give(&self, name: &str, socket: &OwnedFd, group: Option<u32>) -> Result<Option<Stat>, Errno> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = match openat(&self.folder, name, flags, Mode::empty()) {
            Err(Errno::NOENT) => return Ok(None),
            file => file?,
        };
        let own = fstat(&file)?;
        if kind(own.st_mode) != FileType::Socket || !leads_to(&file, socket)? {
            return Ok(None);
        }
        if let Some(group) = group {
            chownat(&file, "", None, Some(Gid::from_raw(group)), AtFlags::EMPTY_PATH)?;
        }
        // By its number the very file that was opened, whatever has its name by now.
        chmod(by_number(&file), if group.is_some() { GROUP } else { OWNER })?;
        match statat(&self.folder, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => Ok(None),
            found => found.map(|found| Some(found).filter(|found| is_same(found, &own))),
        }
    }

    /// Makes the name free, as far as nobody takes it again at once: [`Folder::bind`] sees that.
    fn clear(&self, name: &str, existing: Existing, aside: &mut Vec<PathBuf>) -> Result<(), BindError> {
        let found = match statat(&self.folder, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => return Ok(()),
            found => found?,
        };
        let (kind, empty) = (kind(found.st_mode), found.st_size == 0);
        if kind != FileType::Socket && existing != Existing::ReplaceAll {
            return Err(BindError::NotASocket);
        }
        if existing == Existing::ReplaceDead && self.is_listened_on(name)? {
            return Err(BindError::System(io::Error::new(
                io::ErrorKind::AddrInUse,
                "another program listens there",
            )));
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

    /// Whether somebody listens on the socket. Of one that says neither yes nor no it is assumed.
    fn is_listened_on(&self, name: &str) -> Result<bool, Errno> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let caller = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        let file = match openat(
            &self.folder,
            name,
            OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
            Mode::empty(),
        ) {
            Err(Errno::NOENT) => return Ok(false),
            file => file?,
        };
        Ok(connect(&caller, &SocketAddrUnix::new(by_number(&file))?) != Err(Errno::CONNREFUSED))
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
