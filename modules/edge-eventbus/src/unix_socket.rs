//! The Unix socket: where it is bound, and who may open it.

use std::io;
use std::path::Path;

use tokio::net::UnixListener;
use unixsocket::{Existing, OwnFile};

/// The file of a socket; it goes when this is dropped.
#[derive(Debug)]
pub(crate) struct SocketFile(OwnFile);

impl Drop for SocketFile {
    fn drop(&mut self) {
        self.0.remove();
    }
}

/// Binds the socket and listens on it. Owner and group may connect, which takes the right to write; without a group that
/// of this process.
pub(crate) fn bind(path: &Path, group: &str) -> io::Result<(UnixListener, SocketFile)> {
    let group = unixsocket::group_id(group)?.unwrap_or_else(unixsocket::own_group);
    let bound = unixsocket::bind(path, Some(group), Existing::ReplaceDead)?;
    Ok((UnixListener::from_std(bound.listener)?, SocketFile(bound.file)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

    #[test]
    fn the_socket_is_for_owner_and_group_and_takes_the_place_of_a_dead_one_alone() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let _entered = runtime.enter();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mqtt.sock");
        let group = fs::metadata(folder.path()).unwrap().gid();
        let (listener, bound) = bind(&path, &group.to_string()).unwrap();
        let found = fs::symlink_metadata(&path).unwrap();
        assert_eq!((found.mode() & 0o7777, found.gid()), (0o660, group));
        // A living one is left alone.
        assert_eq!(bind(&path, "").map(|_| ()).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(listener);
        let (listener, second) = bind(&path, "").unwrap();
        assert_eq!(fs::symlink_metadata(&path).unwrap().mode() & 0o7777, 0o660);
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
        assert!(bind(&path, "no such group, surely").is_err());
    }
}
