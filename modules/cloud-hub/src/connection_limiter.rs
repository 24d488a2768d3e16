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

/// 2 a second and 10 at once of one name from one address: a node whose link breaks dials over two transports.
const OF_NAME: (f64, f64) = (2.0, 10.0);

struct State {
    table: ConnectionTable,
    rates: RateLimiter<(String, Option<IpAddr>)>,
    /// Ends the waiting for a hello.
    waiting: BTreeMap<u64, AbortHandle>,
}

/// Counts connections.
#[derive(Clone)]
pub(crate) struct ConnectionLimiter(Arc<Mutex<State>>);

impl ConnectionLimiter {
    pub(crate) fn new() -> Self {
        let (per_second, burst) = OF_NAME;
        let (table, rates) = (ConnectionTable::default(), RateLimiter::new(per_second, burst));
        ConnectionLimiter(Arc::new(Mutex::new(State { table, rates, waiting: BTreeMap::new() })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts `connection` until it is dropped. One that has to end for it is ended. `None`: its name comes from its address
    /// more often than any node does; it is closed without a word. The same name from elsewhere is not touched by that.
    pub(crate) fn enter(&self, connection: Box<dyn Connection>, now: Moment) -> Option<CountedConnection> {
        let (handle, until) = AbortHandle::new_pair();
        let (id, leaves) = {
            let mut state = self.state();
            let from = (connection.peer().as_str().to_owned(), connection.address().map(address_prefix));
            if state.rates.take(&from, now).is_err() {
                connection.close();
                return None;
            }
            let (id, leaves) = state.table.enter(connection.peer().as_str(), connection.address());
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
    /// It has said hello.
    ///
    /// # Errors
    /// How long it has to wait.
    pub(crate) fn hello(&self) -> Result<(), Duration> {
        self.limiter.state().table.hello(self.id)
    }

    /// It is let in.
    pub(crate) fn session(&self) {
        self.limiter.state().table.session(self.id);
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
