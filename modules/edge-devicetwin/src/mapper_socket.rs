//! The way to a mapper's own socket.
//!
//! A mapper says by a path where it listens, and `edgecore` is root: a path may lead to the container runtime. So the path
//! lies below the folder that mappers share, is followed without links from that folder on, ends at a socket of the
//! mapper's own user or root, and who listens there is asked of the kernel and must be the one who registered.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use contract::devicetwin::DmiCaller;
use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, fstat, openat, openat2};
use tokio::net::UnixStream;

use crate::peer::PeerResolver;

/// 107 bytes of a socket's path, besides its end (Linux).
const PATH_MAX: usize = 107;

/// Who is expected behind a mapper's socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ExpectedPeer {
    /// A process in one of these pods, by uid.
    Pods(BTreeSet<String>),
    /// A process of this user outside of pods.
    User(u32),
}

impl ExpectedPeer {
    fn is(&self, found: &DmiCaller) -> bool {
        match (self, &found.pod) {
            (ExpectedPeer::Pods(uids), Some(pod)) => uids.contains(pod),
            (ExpectedPeer::User(uid), None) => *uid == found.uid,
            (ExpectedPeer::Pods(_), None) | (ExpectedPeer::User(_), Some(_)) => false,
        }
    }
}

/// A mapper's socket and whose it has to be.
#[derive(Clone)]
pub(crate) struct MapperSocket {
    /// The folder that mappers share.
    pub(crate) folder: PathBuf,
    /// The socket's path below it.
    pub(crate) below: PathBuf,
    /// The user of the process that registered.
    pub(crate) uid: u32,
    /// Who has to listen.
    pub(crate) expected: ExpectedPeer,
    pub(crate) peers: Arc<dyn PeerResolver>,
}

/// The path below `folder` that a mapper's address names.
///
/// # Errors
/// A sentence for the mapper.
pub(crate) fn below(folder: &Path, address: &str) -> Result<PathBuf, String> {
    let path = dmi::path_of(address);
    if !path.starts_with('/') || path.len() > PATH_MAX || path.chars().any(char::is_control) {
        return Err("the mapper's address is not the absolute path of a socket, at most 107 bytes".to_owned());
    }
    let outside = || {
        format!(
            "the mapper's address does not lie below {}: a mapper's own socket lies in the folder of dmi.sock",
            folder.display()
        )
    };
    let below = Path::new(path).strip_prefix(folder).map_err(|_| outside())?;
    let is_plain = |part: Component<'_>| matches!(part, Component::Normal(_));
    if below.as_os_str().is_empty() || !below.components().all(is_plain) {
        return Err(outside());
    }
    if below == Path::new(dmi::SOCKET_NAME) {
        return Err("the mapper's address is edgecore's own socket".to_owned());
    }
    Ok(below.to_owned())
}

impl MapperSocket {
    /// Connects.
    pub(crate) async fn connect(self) -> io::Result<UnixStream> {
        let denied = |what: String| io::Error::new(io::ErrorKind::PermissionDenied, what);
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = openat(CWD, &self.folder, flags, Mode::empty())?;
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let socket = openat2(&folder, &self.below, flags, Mode::empty(), resolve)?;
        let found = fstat(&socket)?;
        if FileType::from_raw_mode(found.st_mode) != FileType::Socket {
            return Err(denied("the mapper's address is no socket".to_owned()));
        }
        if found.st_uid != self.uid && found.st_uid != 0 {
            let (owner, uid) = (found.st_uid, self.uid);
            return Err(denied(format!(
                "the mapper's socket is user {owner}'s, and the mapper is user {uid}'s"
            )));
        }
        // By its number the file that was looked at is the one that is connected to, whatever has its name by now.
        let stream = UnixStream::connect(format!("/proc/self/fd/{}", socket.as_raw_fd())).await?;
        let listener = self.peers.identify(&stream).map_err(denied)?;
        if !self.expected.is(&listener) {
            return Err(denied("somebody else than the mapper listens at its address".to_owned()));
        }
        Ok(stream)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer::KernelPeerResolver;
    use std::os::unix::fs::symlink;
    use tokio::net::UnixListener;

    #[test]
    fn an_address_lies_below_the_mappers_folder() {
        let folder = Path::new("/etc/kubeedge/");
        for good in [
            "/etc/kubeedge/modbus.sock",
            "unix:///etc/kubeedge/modbus.sock",
            "unix:/etc/kubeedge//./modbus.sock",
        ] {
            assert_eq!(below(folder, good), Ok(PathBuf::from("modbus.sock")), "{good}");
        }
        assert_eq!(below(folder, "/etc/kubeedge/a/b.sock"), Ok(PathBuf::from("a/b.sock")));
        let long = format!("/etc/kubeedge/{}", "a".repeat(100));
        for bad in [
            "",
            "modbus.sock",
            "/run/containerd/containerd.sock",
            "/etc/kubeedge",
            "/etc/kubeedge/",
            "/etc/kubeedgex/m.sock",
            "/etc/kubeedge/../../run/containerd/containerd.sock",
            "/etc/kubeedge/a/../b.sock",
            "/etc/kubeedge/dmi.sock",
            "unix:///etc/kubeedge/./dmi.sock",
            "/etc/kubeedge/a\0b",
            "/etc/kubeedge/a\nb",
            "http://etc/kubeedge/a",
            &long,
        ] {
            assert!(below(folder, bad).is_err(), "{bad}");
        }
    }

    fn reach(folder: &Path, below: &str) -> MapperSocket {
        let uid = rustix::process::geteuid().as_raw();
        MapperSocket {
            folder: folder.to_owned(),
            below: PathBuf::from(below),
            uid,
            expected: ExpectedPeer::User(uid),
            peers: Arc::new(KernelPeerResolver),
        }
    }

    async fn refused(reach: MapperSocket) -> io::Error {
        reach.connect().await.expect_err("not connected to")
    }

    #[tokio::test]
    async fn only_the_mappers_own_socket_is_connected_to() {
        let root = tempfile::tempdir().unwrap();
        let (folder, outside) = (root.path().join("mappers"), root.path().join("run"));
        std::fs::create_dir(&folder).unwrap();
        std::fs::create_dir(&outside).unwrap();
        let _runtime = UnixListener::bind(outside.join("containerd.sock")).unwrap();
        let _mapper = UnixListener::bind(folder.join("m.sock")).unwrap();
        reach(&folder, "m.sock").connect().await.unwrap();

        symlink("m.sock", folder.join("near.sock")).unwrap();
        symlink(outside.join("containerd.sock"), folder.join("far.sock")).unwrap();
        symlink(&outside, folder.join("door")).unwrap();
        symlink("/proc/self/root", folder.join("magic")).unwrap();
        for name in [
            "near.sock",
            "far.sock",
            "door/containerd.sock",
            "magic/run/containerd.sock",
            "../run/containerd.sock",
        ] {
            refused(reach(&folder, name)).await;
        }
        std::fs::write(folder.join("file.sock"), "").unwrap();
        assert!(refused(reach(&folder, "file.sock")).await.to_string().contains("no socket"));
        assert_eq!(refused(reach(&folder, "none.sock")).await.kind(), io::ErrorKind::NotFound);
    }

    #[tokio::test]
    async fn who_listens_is_who_registered() {
        let folder = tempfile::tempdir().unwrap();
        // A name for the runtime's socket below the folder, without a link: what a hard link makes.
        let _runtime = UnixListener::bind(folder.path().join("m.sock")).unwrap();
        let mapper = reach(folder.path(), "m.sock");
        let in_a_pod = ExpectedPeer::Pods(["u-1".to_owned()].into());
        let error = refused(MapperSocket { expected: in_a_pod, ..mapper.clone() }).await;
        assert!(error.to_string().contains("somebody else"), "{error}");
        let of_another_user = ExpectedPeer::User(mapper.uid + 1);
        refused(MapperSocket { expected: of_another_user, ..mapper.clone() }).await;
        mapper.connect().await.unwrap();
    }
}
