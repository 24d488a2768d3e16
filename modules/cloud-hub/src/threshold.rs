//! Connections from the moment that the hub took them until they are closed: see [`crate::standing`].

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use beehive::Moment;
use beehive::link::door::{Rates, origin};
use beehive::link::{Connection, PeerName, Reader, Transport, Urgency, Writer};
use futures::future::{AbortHandle, AbortRegistration, BoxFuture};

use crate::standing::Standing;

/// 2 a second and 10 at once of one name from one address: a node whose link breaks dials over two transports.
const OF_NAME: (f64, f64) = (2.0, 10.0);

struct Inside {
    standing: Standing,
    rates: Rates<(String, Option<IpAddr>)>,
    /// Ends the waiting for a hello.
    shown_out: BTreeMap<u64, AbortHandle>,
}

/// Counts connections.
#[derive(Clone)]
pub(crate) struct Threshold(Arc<Mutex<Inside>>);

impl Threshold {
    pub(crate) fn new() -> Self {
        let (per_second, burst) = OF_NAME;
        let (standing, rates) = (Standing::default(), Rates::new(per_second, burst));
        Threshold(Arc::new(Mutex::new(Inside { standing, rates, shown_out: BTreeMap::new() })))
    }

    fn inside(&self) -> MutexGuard<'_, Inside> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts `connection` until it is dropped. Whoever has to leave for it is told. `None`: its name comes from its address
    /// more often than any node does; it is closed without a word. The same name from elsewhere is not touched by that.
    pub(crate) fn enter(&self, connection: Box<dyn Connection>, now: Moment) -> Option<Entered> {
        let (handle, until) = AbortHandle::new_pair();
        let (id, leaves) = {
            let mut inside = self.inside();
            let from = (connection.peer().as_str().to_owned(), connection.address().map(origin));
            if inside.rates.take(&from, now).is_err() {
                connection.close();
                return None;
            }
            let (id, leaves) = inside.standing.enter(connection.peer().as_str(), connection.address());
            inside.shown_out.insert(id, handle);
            (id, leaves.and_then(|id| inside.shown_out.remove(&id)))
        };
        if let Some(other) = leaves {
            other.abort();
        }
        let place = Place { threshold: self.clone(), id };
        let guest = Guest { threshold: self.clone(), id };
        Some(Entered { connection: Box::new(Counted { connection, _place: place }), guest, until })
    }
}

/// A connection that was counted.
pub(crate) struct Entered {
    pub(crate) connection: Box<dyn Connection>,
    pub(crate) guest: Guest,
    /// Until it has to leave.
    pub(crate) until: AbortRegistration,
}

/// Whose connection it is.
pub(crate) struct Guest {
    threshold: Threshold,
    id: u64,
}

impl Guest {
    /// It has said hello.
    ///
    /// # Errors
    /// How long it has to wait.
    pub(crate) fn asks(&self) -> Result<(), Duration> {
        self.threshold.inside().standing.asks(self.id)
    }

    /// It is let in.
    pub(crate) fn links(&self) {
        self.threshold.inside().standing.links(self.id);
    }
}

struct Place {
    threshold: Threshold,
    id: u64,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut inside = self.threshold.inside();
        inside.standing.leaves(self.id);
        inside.shown_out.remove(&self.id);
    }
}

struct Counted {
    connection: Box<dyn Connection>,
    _place: Place,
}

impl Connection for Counted {
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

    fn trespass(&self) -> BoxFuture<'_, ()> {
        self.connection.trespass()
    }

    fn close(&self) {
        self.connection.close();
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        // Shown out in the middle of a hello, it is not closed by anybody else.
        self.connection.close();
    }
}
