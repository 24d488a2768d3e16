//! The Unix socket: where it is bound, and who may open it.
//!
//! Pods mount its folder, so nothing here follows a link that one of them could have put there: the mode and the group
//! are set on the very file that was opened, and nobody is listened to before they are.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use socket2::{Domain, SockAddr, Socket, Type};
use tokio::net::UnixListener;

/// Owner and group may connect, which takes the right to write.
const MODE: u32 = 0o660;
/// 128 connections wait to be accepted.
const WAITING: i32 = 128;
/// 1 MiB of a file of groups is read.
const GROUPS_MAX: u64 = 1 << 20;

/// The file of a socket; it goes when this is dropped.
pub(crate) struct Bound {
    path: PathBuf,
    file: File,
}

/// What tells a socket from the next one that has its name, and may have its number, too.
type File = (u64, u64, i64, i64);

fn file(found: &fs::Metadata) -> File {
    (found.dev(), found.ino(), found.mtime(), found.mtime_nsec())
}

impl Drop for Bound {
    fn drop(&mut self) {
        // Another one's socket, which came later, stays.
        if fs::symlink_metadata(&self.path).is_ok_and(|found| file(&found) == self.file) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Binds the socket and listens on it.
pub(crate) fn bind(path: &Path, group: &str) -> io::Result<(UnixListener, Bound)> {
    let gid = if group.is_empty() { None } else { Some(gid(group)?) };
    clear(path)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking().cloexec(), None)?;
    socket.bind(&SockAddr::unix(path)?)?;
    let opened =
        fs::OpenOptions::new().read(true).custom_flags(libc::O_PATH | libc::O_NOFOLLOW).open(path)?;
    let found = opened.metadata()?;
    if !found.file_type().is_socket() {
        return Err(io::Error::other("something else was put in the socket's place"));
    }
    let bound = Bound { path: path.to_owned(), file: file(&found) };
    // By way of the opened file itself: its path may mean another one by now.
    let itself = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&opened));
    if let Some(gid) = gid {
        std::os::unix::fs::chown(&itself, None, Some(gid))?;
    }
    fs::set_permissions(&itself, fs::Permissions::from_mode(MODE))?;
    socket.listen(WAITING)?;
    let listener =
        UnixListener::from_std(std::os::unix::net::UnixListener::from(std::os::fd::OwnedFd::from(socket)))?;
    Ok((listener, bound))
}

/// Removes a socket that nobody listens on any more, and nothing else.
fn clear(path: &Path) -> io::Result<()> {
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if !found.file_type().is_socket() {
        return Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            "there is something else, which is no socket",
        ));
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        _ => Err(io::Error::new(io::ErrorKind::AddrInUse, "another program listens there")),
    }
}

/// The number of a group.
fn gid(group: &str) -> io::Result<u32> {
    if let Ok(gid) = group.parse() {
        return Ok(gid);
    }
    let mut text = String::new();
    io::Read::read_to_string(&mut io::Read::take(fs::File::open("/etc/group")?, GROUPS_MAX), &mut text)?;
    let unknown =
        || io::Error::new(io::ErrorKind::NotFound, format!("there is no group `{group}` in /etc/group"));
    find(&text, group).ok_or_else(unknown)
}

fn find(groups: &str, name: &str) -> Option<u32> {
    groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(name)).then(|| fields.nth(1))?.and_then(|gid| gid.parse().ok())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_groups_number_is_found_by_its_whole_name() {
        let text = "root:x:0:\nmqtt-x:x:7:a,b\nmqtt:x:115:plc\nbad:x:y:\n";
        assert_eq!((find(text, "mqtt"), find(text, "mqt"), find(text, "bad")), (Some(115), None, None));
        assert_eq!(gid("1234").unwrap(), 1234);
        assert!(gid("no such group, surely").is_err());
    }

    #[test]
    fn the_socket_is_for_owner_and_group_and_takes_the_place_of_a_dead_one_alone() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let _entered = runtime.enter();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mqtt.sock");
        let group = fs::metadata(folder.path()).unwrap().gid().to_string();
        let (listener, bound) = bind(&path, &group).unwrap();
        let found = fs::symlink_metadata(&path).unwrap();
        assert_eq!((found.mode() & 0o7777, found.gid().to_string()), (MODE, group));
        // A living one is left alone.
        assert_eq!(bind(&path, "").map(|_| ()).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(listener);
        let (listener, second) = bind(&path, "").unwrap();
        drop(bound);
        assert!(path.exists(), "the first one's end does not take the second one's socket");
        drop((listener, second));
        assert!(!path.exists());
        // A link to what must not be touched, and a file.
        let precious = folder.path().join("precious");
        fs::write(&precious, "x").unwrap();
        fs::set_permissions(&precious, fs::Permissions::from_mode(0o600)).unwrap();
        std::os::unix::fs::symlink(&precious, &path).unwrap();
        assert!(bind(&path, "").is_err());
        assert_eq!(fs::metadata(&precious).unwrap().mode() & 0o777, 0o600);
        assert!(bind(&precious, "").is_err() && precious.exists());
    }
}
