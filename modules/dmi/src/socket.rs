//! Unix sockets for both sides.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;
use tokio::net::{UnixListener, UnixStream};
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::Channel;
use unixsocket::{BindError, Bound, Existing, Folder};

use crate::SOCKET_NAME;

/// 107 bytes of a socket's path, besides its end (Linux).
const PATH_MAX: usize = 107;

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
    #[error("cannot serve on {}; check that its folder exists and is writable, and that the path has at most 107 bytes", path.display())]
    Bind {
        /// The path.
        path: PathBuf,
        /// The system's word for it.
        source: io::Error,
    },
}

/// Edgecore's socket.
#[derive(Debug)]
pub struct BoundSocket {
    /// Its listener.
    pub listener: UnixListener,
    /// What stood in its place and is there now: files and folders with a content.
    pub aside: Vec<PathBuf>,
}

/// Serves on `path`, in mode 0600 from the first moment. A socket that an earlier process left there is replaced.
///
/// # Errors
/// When the folder or the path does not allow it, or when something that is no socket is there.
pub fn listen(path: &Path) -> Result<UnixListener, SocketError> {
    let folder = path.parent().unwrap_or(Path::new(""));
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    serve(path, || Folder::open(folder)?.bind(name, None, Existing::ReplaceSocket))
        .map(|taken| taken.listener)
}

/// Serves on [`SOCKET_NAME`] in `folder`, in mode 0600 from the first moment, or 0660 for the group with the number
/// `group`. The name is edgecore's: an earlier socket, a link, an empty file or an empty folder that has it is removed, and
/// what has a content is moved aside. A folder that is not there is made: 0755, or 1770 and the group's.
///
/// # Errors
/// When the folder or the path does not allow it, when this process may not give a file to the group, and when somebody
/// exchanges what is there all the time.
pub fn take(folder: &Path, group: Option<u32>) -> Result<BoundSocket, SocketError> {
    serve(&folder.join(SOCKET_NAME), || {
        Folder::make(folder, group)?.bind(SOCKET_NAME, group, Existing::ReplaceAll)
    })
}

fn serve(path: &Path, bind: impl FnOnce() -> Result<Bound, BindError>) -> Result<BoundSocket, SocketError> {
    let failed = |source| SocketError::Bind { path: path.to_owned(), source };
    if path.as_os_str().len() > PATH_MAX {
        // It could be bound here, and dialled by nobody.
        return Err(failed(io::ErrorKind::InvalidFilename.into()));
    }
    match bind() {
        Ok(Bound { listener, aside, .. }) => {
            let listener = UnixListener::from_std(listener).map_err(failed)?;
            Ok(BoundSocket { listener, aside })
        }
        Err(BindError::NotASocket) => Err(SocketError::NotASocket { path: path.to_owned() }),
        Err(BindError::System(source)) => Err(failed(source)),
    }
}

/// The connections of a listener, as a gRPC server takes them.
pub fn incoming(listener: UnixListener) -> UnixListenerStream {
    UnixListenerStream::new(listener)
}

/// A channel to the server at `path`. It connects with the first call, and again when the connection was lost. A
/// leading `unix:` or `unix://` is not part of the path.
pub fn channel(path: &str) -> Channel {
    let path = PathBuf::from(path_of(path));
    unixgrpc::channel_by(move || UnixStream::connect(path.clone()))
}

/// The path in an address as gRPC writes it: without a leading `unix:` or `unix://`.
pub fn path_of(address: &str) -> &str {
    let path = address.strip_prefix("unix:").unwrap_or(address);
    path.strip_prefix("//").unwrap_or(path)
}
