//! Unix sockets for both sides.

use std::fs::Permissions;
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};

use hyper_util::rt::TokioIo;
use thiserror::Error;
use tokio::net::{UnixListener, UnixStream};
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::{Channel, Endpoint, Uri};
use tower::service_fn;

/// What a new socket is called until it has its permissions.
const FRESH: &str = ".new";

/// Why a socket cannot be served.
#[derive(Debug, Error)]
pub enum SocketError {
    /// Something else has the name.
    #[error("{} is not a socket; move it away or configure another path", path.display())]
    NotASocket {
        /// The path.
        path: PathBuf,
    },
    /// The system refused.
    #[error("cannot serve on {}; check that its folder exists and is writable, and that the path has less than 104 bytes", path.display())]
    Bind {
        /// The path.
        path: PathBuf,
        /// The system's word for it.
        source: io::Error,
    },
}

/// Serves on `path`, in mode 0600 from the first moment. A socket that an earlier process left there is replaced.
///
/// # Errors
/// When the folder or the path does not allow it, or when something that is no socket is there.
pub fn listen(path: &Path) -> Result<UnixListener, SocketError> {
    listen_for(path, None)
}

/// The same, in mode 0660 for the group with the number `group`, if there is one.
///
/// # Errors
/// As [`listen`], and when this process may not give a file to the group.
pub fn listen_for(path: &Path, group: Option<u32>) -> Result<UnixListener, SocketError> {
    let failed = |source| SocketError::Bind { path: path.to_owned(), source };
    if let Ok(found) = std::fs::symlink_metadata(path)
        && !found.file_type().is_socket()
    {
        return Err(SocketError::NotASocket { path: path.to_owned() });
    }
    let mut fresh = path.as_os_str().to_owned();
    fresh.push(FRESH);
    let fresh = PathBuf::from(fresh);
    match std::fs::remove_file(&fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        Ok(()) | Err(_) => {}
    }
    let listener = UnixListener::bind(&fresh).map_err(failed)?;
    // Nobody can know the name yet; it gets its real one only when nobody else may open it.
    std::fs::set_permissions(&fresh, Permissions::from_mode(0o600)).map_err(failed)?;
    if let Some(group) = group {
        std::os::unix::fs::lchown(&fresh, None, Some(group)).map_err(failed)?;
        std::fs::set_permissions(&fresh, Permissions::from_mode(0o660)).map_err(failed)?;
    }
    std::fs::rename(&fresh, path).map_err(failed)?;
    Ok(listener)
}

/// The connections of a listener, as a gRPC server takes them.
pub fn incoming(listener: UnixListener) -> UnixListenerStream {
    UnixListenerStream::new(listener)
}

/// A channel to the server at `path`. It connects with the first call, and again when the connection was lost. A
/// leading `unix:` or `unix://` is not part of the path.
pub fn channel(path: &str) -> Channel {
    let path = PathBuf::from(path_of(path));
    channel_by(move || UnixStream::connect(path.clone()))
}

/// A channel over the connections that `connect` makes: one with the first call, and another when that was lost.
pub fn channel_by<F>(connect: impl Fn() -> F + Send + Sync + 'static) -> Channel
where
    F: Future<Output = io::Result<UnixStream>> + Send + 'static,
{
    // The URI only fills a header; where the connection goes, the connector says.
    Endpoint::from_static("http://localhost").connect_with_connector_lazy(service_fn(move |_: Uri| {
        let connecting = connect();
        async move { connecting.await.map(TokioIo::new) }
    }))
}

/// The path in an address as gRPC writes it: without a leading `unix:` or `unix://`.
pub fn path_of(address: &str) -> &str {
    let path = address.strip_prefix("unix:").unwrap_or(address);
    path.strip_prefix("//").unwrap_or(path)
}
