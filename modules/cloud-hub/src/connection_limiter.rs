//! Counts connections from the moment that the hub took them until they are closed: see [`crate::connection_table`].

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use beehive::Moment;
use beehive::link::accept_limiter::{RateLimiter, address_prefix};
use beehive::link::{Connection, PeerName, Reader, Transport, Urgency, Writer};
use futures::future::{AbortHandle, AbortRegistration, BoxFuture};

use crate::connection_table::ConnectionTable;
use crate::known_certificates::{Holder, KnownCertificates};

/// 2 a second and 10 at once of one holder from one address: a node whose link breaks dials over two transports.
const OF_HOLDER: (f64, f64) = (2.0, 10.0);

struct State {
    table: ConnectionTable,
    rates: RateLimiter<(Holder, Option<IpAddr>)>,
    /// Ends the waiting for a hello.
    waiting: BTreeMap<u64, AbortHandle>,
}

/// Counts connections.
#[derive(Clone)]
pub(crate) struct ConnectionLimiter {
    state: Arc<Mutex<State>>,
    known: KnownCertificates,
}

impl ConnectionLimiter {
    /// One that goes by what is `known` of certificates.
    pub(crate) fn new(known: KnownCertificates) -> Self {
        let (per_second, burst) = OF_HOLDER;
        let (table, rates) = (ConnectionTable::default(), RateLimiter::new(per_second, burst));
        let state = Arc::new(Mutex::new(State { table, rates, waiting: BTreeMap::new() }));
        ConnectionLimiter { state, known }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts `connection` until it is dropped. One that has to end for it is ended. `None`: its holder comes from its address
    /// more often than any node does; it is closed without a word. The same holder from elsewhere is not touched by that.
    pub(crate) fn enter(&self, connection: Box<dyn Connection>, now: Moment) -> Option<CountedConnection> {
        let (handle, until) = AbortHandle::new_pair();
        let (id, leaves) = {
            let from = (self.known.holder(connection.peer()), connection.address().map(address_prefix));
            let mut state = self.state();
            if state.rates.take(&from, now).is_err() {
                connection.close();
                return None;
            }
            let (id, leaves) = state.table.enter(from.0, connection.address());
            state.waiting.insert(id, handle);
            (id, leaves.and_then(|id| state.waiting.remove(&id)))
        };
        if let Some(other) = leaves {
            other.abort();
        }
        let permit = ConnectionPermit { limiter: self.clone(), id };
        let progress = Progress { limiter: self.clone(), id };
        Some(CountedConnection {
            connection: Box::new(LimitedConnection { connection, _permit: permit }),
            progress,
            until,
        })
    }
}

/// A connection that was counted.
pub(crate) struct CountedConnection {
    pub(crate) connection: Box<dyn Connection>,
    pub(crate) progress: Progress,
    /// Ends when it has to end for another.
    pub(crate) until: AbortRegistration,
}

/// How far a connection has come.
pub(crate) struct Progress {
    limiter: ConnectionLimiter,
    id: u64,
}

impl Progress {
    /// It has said hello, as `holder`.
    ///
    /// # Errors
    /// How long it has to wait.
    pub(crate) fn hello(&self, holder: &Holder) -> Result<(), Duration> {
        self.limiter.state().table.hello(self.id, holder)
    }

    /// It is let in, as `holder`.
    pub(crate) fn session(&self, holder: &Holder) {
        self.limiter.state().table.session(self.id, holder);
    }
}

struct ConnectionPermit {
    limiter: ConnectionLimiter,
    id: u64,
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        let mut state = self.limiter.state();
        state.table.leave(self.id);
        state.waiting.remove(&self.id);
    }
}

struct LimitedConnection {
    connection: Box<dyn Connection>,
    _permit: ConnectionPermit,
}

impl Connection for LimitedConnection {
    fn open(&self, urgency: Urgency) -> BoxFuture<'_, io::Result<(Writer, Reader)>> {
        self.connection.open(urgency)
    }

    fn accept(&self) -> BoxFuture<'_, io::Result<(Writer, Reader)>> {
        self.connection.accept()
    }

    fn peer(&self) -> &PeerName {
        self.connection.peer()
    }

    fn transport(&self) -> Transport {
        self.connection.transport()
    }

    fn address(&self) -> Option<IpAddr> {
        self.connection.address()
    }

    fn admitted(&self) {
        self.connection.admitted();
    }

    fn early_traffic(&self) -> BoxFuture<'_, ()> {
        self.connection.early_traffic()
    }

    fn close(&self) {
        self.connection.close();
    }
}

impl Drop for LimitedConnection {
    fn drop(&mut self) {
        // Ended in the middle of a hello, it is closed by nobody else.
        self.connection.close();
    }
}
