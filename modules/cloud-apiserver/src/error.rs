//! Why the stand-alone API does not start.

use std::net::SocketAddr;

use beehive::WiringError;
use thiserror::Error;

use crate::folder::FolderError;
use crate::keys::KeyError;
use crate::store::OpenError;

/// Why the server did not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// Others could read or exchange what is in the folder.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// A key is not usable.
    #[error(transparent)]
    Keys(#[from] KeyError),
    /// The database is not usable.
    #[error(transparent)]
    Store(#[from] OpenError),
    /// Its certificate could not be made.
    #[error("server certificate: {0}")]
    Certificate(String),
    /// The port is taken or the address is not ours.
    #[error("cannot listen at {address}: free the port, or give another --standalone-listen")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The first objects could not be written.
    #[error("the first objects were refused: {0}")]
    Bootstrap(String),
    /// The map of its actors is wrong.
    #[error("wiring")]
    Wiring(#[from] WiringError),
}
