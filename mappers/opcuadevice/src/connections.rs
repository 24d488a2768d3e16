//! One session for all Devices at one server with one login: servers have few to give.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use framework::Fault;
use tokio::time::Instant;

use crate::address::Address;
use crate::connection::Connection;
use crate::dropped_sessions::Dropped;
use crate::opening;
use crate::pki::Pki;

/// 60 s until a login is tried again that was refused: servers lock users out.
const REFUSED_FOR: Duration = Duration::from_secs(60);
/// 1 s until a server is dialled again that did not answer another of its Devices.
const AWAY_FOR: Duration = Duration::from_secs(1);

/// The sessions that there are.
#[derive(Debug, Clone)]
pub(crate) struct Connections {
    pki: Pki,
    places: Arc<Mutex<Places>>,
}

/// Each server, and the login at it.
type Places = Vec<(Address, Arc<Slot>)>;

/// A session, and who opens it is the only one who does.
type Slot = tokio::sync::Mutex<Place>;

#[derive(Debug, Default)]
struct Place {
    connection: Weak<Connection>,
    /// Why there is none, and until when that is not tried again.
    failed: Option<(Fault, Instant)>,
    dropped: Arc<Dropped>,
}

impl Connections {
    pub(crate) fn new(pki: Pki) -> Self {
        Connections { pki, places: Arc::default() }
    }

    /// The folder of certificates and passwords.
    pub(crate) fn folder(&self) -> &Path {
        self.pki.folder()
    }

    /// The session at this server with this login, opened if there is none.
    pub(crate) async fn at(&self, address: &Address) -> Result<Arc<Connection>, Fault> {
        let slot = self.slot(address);
        let mut place = slot.lock().await;
        if let Some(connection) = place.connection.upgrade().filter(|connection| !connection.has_ended()) {
            return Ok(connection);
        }
        if let Some((fault, until)) = &place.failed
            && Instant::now() < *until
        {
            return Err(fault.clone());
        }
        match opening::open(address, &self.pki).await {
            Ok(mut connection) => {
                connection.dropped = Arc::clone(&place.dropped);
                let connection = Arc::new(connection);
                (place.connection, place.failed) = (Arc::downgrade(&connection), None);
                Ok(connection)
            }
            Err(failed) => {
                let pause = if failed.is_refused { REFUSED_FOR } else { AWAY_FOR };
                place.failed = Some((failed.fault.clone(), Instant::now() + pause));
                Err(failed.fault)
            }
        }
    }

    fn slot(&self, address: &Address) -> Arc<Slot> {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        // Those that nobody opens or has any more, but for what a server has refused not long ago.
        places.retain(|(_, slot)| {
            Arc::strong_count(slot) > 1 || slot.try_lock().is_ok_and(|place| place.is_of_use())
        });
        if let Some((_, slot)) = places.iter().find(|(there, _)| there == address) {
            return Arc::clone(slot);
        }
        let slot = Arc::default();
        places.push((address.clone(), Arc::clone(&slot)));
        slot
    }
}

impl Place {
    fn is_of_use(&self) -> bool {
        self.connection.strong_count() > 0
            || self.failed.as_ref().is_some_and(|(_, until)| Instant::now() < *until)
            || self.dropped.is_of_use(Instant::now())
    }
}
