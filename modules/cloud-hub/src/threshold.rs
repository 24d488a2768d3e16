//! Connections from the moment that the hub took them until they are closed: see [`crate::standing`].

use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use beehive::link::{Connection, PeerName, Reader, Urgency, Writer};
use futures::future::{AbortHandle, AbortRegistration, BoxFuture};

use crate::standing::Standing;

#[derive(Default)]
struct Inside {
    standing: Standing,
    /// Ends the waiting for a hello.
    shown_out: std::collections::BTreeMap<u64, AbortHandle>,
}

/// Counts connections.
#[derive(Clone, Default)]
pub(crate) struct Threshold(Arc<Mutex<Inside>>);

impl Threshold {
    fn inside(&self) -> MutexGuard<'_, Inside> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts `connection` until it is dropped. Whoever has to leave for it is told.
    pub(crate) fn enter(&self, connection: Box<dyn Connection>) -> Entered {
        let (handle, until) = AbortHandle::new_pair();
        let (id, leaves) = {
            let mut inside = self.inside();
            let (id, leaves) = inside.standing.enter(connection.peer().as_str(), connection.address());
            inside.shown_out.insert(id, handle);
            (id, leaves.and_then(|id| inside.shown_out.remove(&id)))
        };
        if let Some(other) = leaves {
            other.abort();
        }
        let place = Place { threshold: self.clone(), id };
        let guest = Guest { threshold: self.clone(), id };
        Entered { connection: Box::new(Counted { connection, _place: place }), guest, until }
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
