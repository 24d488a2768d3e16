//! The other end of a connection, as a protocol and its handlers see it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustls_pki_types::CertificateDer;
use thiserror::Error;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::admission::{Admission, Entry};
use crate::events::{Event, Meter};
use crate::{Counts, Limits};

/// The user has too many connections, or all of them have; the connection stays a stranger's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("too many connections")]
pub struct TooMany;

/// All places of a server.
pub(crate) struct Places {
    inside: Mutex<Inside>,
    emptied: Notify,
    pub(crate) meter: Meter,
}

struct Inside {
    admission: Admission,
    /// By number: how a connection is told to end.
    ends: BTreeMap<u64, CancellationToken>,
}

impl Places {
    pub(crate) fn new(limits: &Limits) -> Arc<Self> {
        let inside = Inside { admission: Admission::new(limits), ends: BTreeMap::new() };
        Arc::new(Places { inside: Mutex::new(inside), emptied: Notify::new(), meter: Meter::default() })
    }

    fn inside(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a connection of `address`, which `end` ends; and whether another was ended for it.
    pub(crate) fn enter(
        self: &Arc<Self>,
        address: SocketAddr,
        now: beehive::Moment,
        end: CancellationToken,
    ) -> Result<(Place, bool), Event> {
        let mut inside = self.inside();
        match inside.admission.enter(address.ip(), now) {
            Entry::Full => Err(Event::Refused),
            Entry::In { id, instead_of } => {
                let displaced = instead_of.and_then(|id| inside.ends.remove(&id));
                if let Some(displaced) = &displaced {
                    displaced.cancel();
                }
                inside.ends.insert(id, end);
                let place = Place { places: Arc::clone(self), id, user: Mutex::default() };
                Ok((place, displaced.is_some()))
            }
        }
    }

    pub(crate) fn counts(&self) -> Counts {
        let inside = self.inside();
        self.meter.counts(inside.admission.open(), inside.admission.identified())
    }

    /// Completes when no connection is open.
    pub(crate) async fn empty(&self) {
        loop {
            let emptied = self.emptied.notified();
            if self.inside().admission.open() == 0 {
                return;
            }
            emptied.await;
        }
    }
}

/// A connection's place, until it ends.
pub(crate) struct Place {
    places: Arc<Places>,
    id: u64,
    user: Mutex<Option<String>>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let user = self.user.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        let mut inside = self.places.inside();
        inside.admission.leave(self.id, user.as_deref());
        inside.ends.remove(&self.id);
        if inside.admission.open() == 0 {
            self.places.emptied.notify_waiters();
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
    place: Place,
    end: CancellationToken,
    stopping: CancellationToken,
}

impl Peer {
    pub(crate) fn new(
        (address, port): (SocketAddr, SocketAddr),
        certificate: Option<CertificateDer<'static>>,
        place: Place,
        end: CancellationToken,
        stopping: CancellationToken,
    ) -> Self {
        Peer(Arc::new(Connected { address, port, certificate, place, end, stopping }))
    }

    /// Where it comes from.
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
    /// first credential of a connection decides. Privileged users have [`Limits::reserved`] more.
    ///
    /// # Errors
    /// [`TooMany`].
    pub fn identify(&self, user: &str, is_privileged: bool) -> Result<(), TooMany> {
        let place = &self.0.place;
        let mut known = place.user.lock().unwrap_or_else(PoisonError::into_inner);
        if known.is_some() {
            return Ok(());
        }
        if !place.places.inside().admission.identify(place.id, user, is_privileged) {
            return Err(TooMany);
        }
        *known = Some(user.to_owned());
        Ok(())
    }

    /// Completes when the server, or what listens at its port, stops: an answer without an end, as a watch, is to end then.
    pub fn stopping(&self) -> impl Future<Output = ()> + Send + use<> {
        self.0.stopping.clone().cancelled_owned()
    }

    /// Completes when the connection has to end at once.
    pub(crate) fn end(&self) -> tokio_util::sync::WaitForCancellationFutureOwned {
        self.0.end.clone().cancelled_owned()
    }

    pub(crate) fn meter(&self) -> &Meter {
        &self.0.place.places.meter
    }
}
