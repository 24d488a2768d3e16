//! The other end of a connection, as a protocol and its handlers see it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustls_pki_types::CertificateDer;
use thiserror::Error;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::admission::{Admission, AdmissionOutcome};
use crate::events::{Counters, Event};
use crate::{Counts, Limits};

/// A user's connection finds no place; it stays a stranger's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum TooMany {
    /// The user has as many as are his share.
    #[error("the user has too many connections")]
    OfOne,
    /// All places are taken.
    #[error("all users together have too many connections")]
    InAll,
}

/// All places of a server.
pub(crate) struct Connections {
    state: Mutex<State>,
    emptied: Notify,
    pub(crate) counters: Counters,
}

struct State {
    admission: Admission,
    /// By number: how a connection is told to end.
    ends: BTreeMap<u64, CancellationToken>,
}

impl Connections {
    pub(crate) fn new(limits: &Limits) -> Arc<Self> {
        let state = State { admission: Admission::new(limits), ends: BTreeMap::new() };
        Arc::new(Connections {
            state: Mutex::new(state),
            emptied: Notify::new(),
            counters: Counters::default(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a connection of `address`, which `end` ends; and whether another was ended for it.
    pub(crate) fn enter(
        self: &Arc<Self>,
        address: SocketAddr,
        now: beehive::Moment,
        end: CancellationToken,
    ) -> Result<(ConnectionPermit, bool), Event> {
        let mut state = self.state();
        match state.admission.enter(address.ip(), now) {
            AdmissionOutcome::Full => Err(Event::Refused),
            AdmissionOutcome::Admitted { id, instead_of } => {
                let displaced = instead_of.and_then(|id| state.ends.remove(&id));
                if let Some(displaced) = &displaced {
                    displaced.cancel();
                }
                state.ends.insert(id, end);
                let permit = ConnectionPermit { connections: Arc::clone(self), id, user: Mutex::default() };
                Ok((permit, displaced.is_some()))
            }
        }
    }

    pub(crate) fn counts(&self) -> Counts {
        let state = self.state();
        self.counters.counts(state.admission.open(), state.admission.identified())
    }

    /// Completes when no connection is open.
    pub(crate) async fn empty(&self) {
        loop {
            let emptied = self.emptied.notified();
            if self.state().admission.open() == 0 {
                return;
            }
            emptied.await;
        }
    }
}

/// A connection's place, until it ends.
pub(crate) struct ConnectionPermit {
    connections: Arc<Connections>,
    id: u64,
    user: Mutex<Option<String>>,
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        let user = self.user.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        let mut state = self.connections.state();
        state.admission.leave(self.id, user.as_deref());
        state.ends.remove(&self.id);
        if state.admission.open() == 0 {
            self.connections.emptied.notify_waiters();
        }
    }
}

/// The other end of a connection. Its place is taken as long as a clone of this is held.
#[derive(Clone)]
pub struct Peer(Arc<Connected>);

struct Connected {
    address: SocketAddr,
    port: SocketAddr,
    certificate: Option<CertificateDer<'static>>,
    permit: ConnectionPermit,
    end: CancellationToken,
    stopping: CancellationToken,
}

impl Peer {
    pub(crate) fn new(
        (address, port): (SocketAddr, SocketAddr),
        certificate: Option<CertificateDer<'static>>,
        permit: ConnectionPermit,
        end: CancellationToken,
        stopping: CancellationToken,
    ) -> Self {
        Peer(Arc::new(Connected { address, port, certificate, permit, end, stopping }))
    }

    /// Where it comes from; 0.0.0.0:0 when it came by a Unix socket.
    pub fn address(&self) -> SocketAddr {
        self.0.address
    }

    /// The port that it came in at, with the address that this is bound to.
    pub fn port(&self) -> SocketAddr {
        self.0.port
    }

    /// The certificate that it showed, verified against the CAs of [`ClientCertificates`](crate::ClientCertificates).
    pub fn certificate(&self) -> Option<&CertificateDer<'static>> {
        self.0.certificate.as_ref()
    }

    /// It has shown a credential of `user`: from now on its connection is closed for no other's, and counts as one of the user's. The
    /// first credential of a connection decides. Privileged users have [`Limits::reserved`] more, and no bound of their own.
    ///
    /// # Errors
    /// [`TooMany`].
    pub fn identify(&self, user: &str, is_privileged: bool) -> Result<(), TooMany> {
        let permit = &self.0.permit;
        let mut known = permit.user.lock().unwrap_or_else(PoisonError::into_inner);
        if known.is_some() {
            return Ok(());
        }
        permit.connections.state().admission.identify(permit.id, user, is_privileged)?;
        *known = Some(user.to_owned());
        Ok(())
    }

    /// Whether it has shown a credential.
    pub(crate) fn is_identified(&self) -> bool {
        self.0.permit.user.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Completes when the server, or what listens at its port, stops: an answer without an end, as a watch, is to end then.
    pub fn stopping(&self) -> impl Future<Output = ()> + Send + use<> {
        self.0.stopping.clone().cancelled_owned()
    }

    /// Completes when the connection has to end at once.
    pub(crate) fn end(&self) -> tokio_util::sync::WaitForCancellationFutureOwned {
        self.0.end.clone().cancelled_owned()
    }

    pub(crate) fn counters(&self) -> &Counters {
        &self.0.permit.connections.counters
    }
}
