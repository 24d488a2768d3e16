//! A socket on the node, and its connections.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use beehive::{Context, Env, Message};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, open, openat, statat, unlinkat};
use tokio::net::UnixListener;
use unixgrpc::Calls;
use unixsocket::{BindError, Existing, Folder};

use crate::events;

/// The kubelet's name for it, in each of its folders.
pub(crate) const SOCKET_NAME: &str = "kubelet.sock";
/// 5 s before a socket that could not be served is tried again.
const AGAIN_AFTER: Duration = Duration::from_secs(5);
/// 0750, as a kubelet makes it.
const FOLDER: Mode = Mode::RWXU.union(Mode::RGRP).union(Mode::XGRP);

/// Listens in `folder` beside an actor, as [`listen`] does, and serves `calls`, a connection for `lifetime` at most. The actor is told by
/// `ended` when that is over, and why.
pub(crate) fn serve_beside<M: Message>(
    cx: &Context<M>,
    folder: PathBuf,
    sweep: bool,
    lifetime: Duration,
    calls: Calls,
    ended: fn(String) -> M,
) {
    let (clock, myself, env) = (cx.env().clock(), cx.myself(), cx.env().clone());
    cx.spawn(async move {
        let reason = match bind(&env, folder, sweep).await {
            Ok(listener) => return unixgrpc::serve_listener(listener, clock, Some(lifetime), calls).await,
            Err(reason) => reason,
        };
        let _ = myself.tell(ended(reason)).await;
    });
}

/// Says that the socket in `folder` is not served, and has the actor listen again by `listen` after a while.
pub(crate) fn listen_later<M: Message>(cx: &Context<M>, folder: &Path, reason: &str, listen: M) {
    events::not_served(cx.env(), &folder.join(SOCKET_NAME).to_string_lossy(), reason);
    cx.after(cx.env().jitter(AGAIN_AFTER), listen);
}

/// Makes the folder, takes all sockets out of it whose listeners are of an earlier time, and listens at [`SOCKET_NAME`] in it.
/// The folder itself stays: plugins watch it. Blocks.
///
/// # Errors
/// A sentence.
pub(crate) fn listen(folder: &Path, sweep: bool) -> Result<std::os::unix::net::UnixListener, String> {
    let failed = |error: io::Error| format!("{}: {error}", folder.display());
    make(folder).map_err(failed)?;
    if sweep {
        remove_sockets(folder).map_err(failed)?;
    }
    let bound = Folder::open(folder).map_err(failed)?.bind(SOCKET_NAME, None, Existing::ReplaceSocket);
    match bound {
        Ok(bound) => Ok(bound.listener),
        Err(BindError::NotASocket) => {
            Err(format!("{} is not a socket; move it away", folder.join(SOCKET_NAME).display()))
        }
        Err(BindError::System(error)) => Err(failed(error)),
    }
}

/// [`listen`] beside the hive's thread, for tasks on it.
///
/// # Errors
/// A sentence.
pub(crate) async fn bind(env: &Env, folder: PathBuf, sweep: bool) -> Result<UnixListener, String> {
    let listener = env.blocking(move || listen(&folder, sweep)).await;
    let listener = listener.map_err(|fault| fault.reason)??;
    UnixListener::from_std(listener).map_err(|error| error.to_string())
}

fn make(folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    if let Some(above) = folder.parent() {
        std::fs::create_dir_all(above)?;
    }
    rustix::fs::mkdir(folder, FOLDER)?;
    // Whatever the umask.
    rustix::fs::chmod(folder, FOLDER)?;
    Ok(())
}

/// All else in the folder stays: a kubelet keeps its own checkpoint there.
fn remove_sockets(folder: &Path) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let opened = open(folder, flags, Mode::empty())?;
    let listed = Dir::new(openat(&opened, ".", flags, Mode::empty())?)?;
    for entry in listed {
        let entry = entry?;
        let Ok(found) = statat(&opened, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW) else { continue };
        if FileType::from_raw_mode(found.st_mode) == FileType::Socket {
            match unlinkat(&opened, entry.file_name(), AtFlags::empty()) {
                Ok(()) | Err(rustix::io::Errno::NOENT) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt as _;
    use std::os::unix::net::{UnixListener as Blocking, UnixStream};

    #[test]
    fn stale_sockets_go_and_all_else_stays() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("a/device-plugins");
        let first = listen(&folder, true).unwrap();
        let made = std::fs::metadata(&folder).unwrap();
        assert_eq!(made.mode() & 0o777, 0o750);
        let _plugin = Blocking::bind(folder.join("plugin.sock")).unwrap();
        std::fs::write(folder.join("kubelet_internal_checkpoint"), "{}").unwrap();
        std::fs::create_dir(folder.join("sub")).unwrap();
        std::os::unix::fs::symlink("plugin.sock", folder.join("link")).unwrap();
        let made_at = |found: std::fs::Metadata| (found.ino(), found.ctime(), found.ctime_nsec());
        let before = made_at(std::fs::metadata(folder.join(SOCKET_NAME)).unwrap());
        drop(first);
        let _second = listen(&folder, true).unwrap();
        let after = made_at(std::fs::metadata(folder.join(SOCKET_NAME)).unwrap());
        assert_ne!(after, before, "plugins see a new one");
        assert_eq!(std::fs::metadata(&folder).unwrap().ino(), made.ino(), "and the same folder");
        assert!(!folder.join("plugin.sock").exists());
        assert!(folder.join("kubelet_internal_checkpoint").exists() && folder.join("sub").exists());
        UnixStream::connect(folder.join(SOCKET_NAME)).unwrap();
        std::fs::remove_file(folder.join(SOCKET_NAME)).unwrap();
        std::fs::write(folder.join(SOCKET_NAME), "mine").unwrap();
        assert!(listen(&folder, true).unwrap_err().contains("not a socket"));
    }
}
