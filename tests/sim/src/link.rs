//! The link of a run: network paths in memory, and a cloud that may be gone.

use std::sync::{Arc, Mutex, PoisonError};

use beehive::link::memory::{MemoryPort, NetworkPath};
use beehive::link::{Connection, DialError, Dialer, PeerName};
use futures::FutureExt;
use futures::future::BoxFuture;

/// Where CloudCore listens now, if it runs.
#[derive(Clone, Default)]
pub(crate) struct ListenAddress(Arc<Mutex<Option<MemoryPort>>>);

impl ListenAddress {
    pub(crate) fn set(&self, port: Option<MemoryPort>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = port;
    }
}

/// Dials wherever CloudCore listens now.
pub(crate) struct ToCloud {
    pub(crate) place: ListenAddress,
    pub(crate) network_path: NetworkPath,
    pub(crate) me: PeerName,
}

impl Dialer for ToCloud {
    fn dial(&self) -> BoxFuture<'_, Result<Box<dyn Connection>, DialError>> {
        let port = self.place.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        async move {
            match port {
                Some(port) => port.dialer(self.me.clone(), self.network_path.clone()).dial().await,
                None => Err(DialError::Connect {
                    target: "the cloud".to_owned(),
                    reason: "nobody listens".to_owned(),
                }),
            }
        }
        .boxed()
    }
}
