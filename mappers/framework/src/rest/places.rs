//! Who may be connected. A connection that has asked for nothing yet, or not for all of it, gives way to a newer one, as at the other
//! servers of a node; one whose request is in hand keeps its place until it is answered.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

use beehive::Moment;
use beehive::link::accept_limiter::AcceptLimiter;
use tokio::sync::Notify;

use crate::rest::turns::IN_HAND_MAX;

/// 256 connections at once: more than may have a request in hand, so that there is always one that can give way.
const CONNECTIONS_MAX: usize = 256;
const _: () = assert!(IN_HAND_MAX < CONNECTIONS_MAX);

/// The places of all connections.
#[derive(Clone)]
pub(super) struct Places(Rc<RefCell<Taken>>);

struct Taken {
    limiter: AcceptLimiter,
    /// By number: how a connection is told to end.
    ends: BTreeMap<u64, Rc<Notify>>,
}

impl Taken {
    fn take(&mut self, from: IpAddr, end: &Rc<Notify>, now: Moment) -> Option<u64> {
        let (id, instead_of) = self.limiter.acquire(from, now)?;
        if let Some(displaced) = instead_of.and_then(|id| self.ends.remove(&id)) {
            displaced.notify_one();
        }
        self.ends.insert(id, Rc::clone(end));
        Some(id)
    }

    fn give_back(&mut self, id: u64) {
        self.limiter.release(id);
        self.ends.remove(&id);
    }
}

/// A connection's place, until this is dropped.
pub(super) struct Place {
    places: Places,
    from: IpAddr,
    id: Cell<u64>,
    end: Rc<Notify>,
}

impl Places {
    pub(super) fn new() -> Self {
        // Of one address all of them: behind loopback is everybody.
        let limiter = AcceptLimiter::new(CONNECTIONS_MAX, CONNECTIONS_MAX, Duration::ZERO);
        Places(Rc::new(RefCell::new(Taken { limiter, ends: BTreeMap::new() })))
    }

    /// A place for a connection from there, for which the one that has waited longest is told to end if need be.
    pub(super) fn enter(&self, from: IpAddr, now: Moment) -> Option<Place> {
        let end = Rc::new(Notify::new());
        let id = self.0.borrow_mut().take(from, &end, now)?;
        Some(Place { places: self.clone(), from, id: Cell::new(id), end })
    }
}

impl Place {
    /// Completes when the place is another's.
    pub(super) async fn lost(&self) {
        self.end.notified().await;
    }

    /// A request is in hand until what this gives back is dropped.
    pub(super) fn keep(&self, now: Moment) -> Kept<'_> {
        self.places.0.borrow_mut().limiter.pin(self.id.get());
        Kept { place: self, since: now }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.0.borrow_mut().give_back(self.id.get());
    }
}

/// A place that is not lost.
pub(super) struct Kept<'a> {
    place: &'a Place,
    since: Moment,
}

impl Drop for Kept<'_> {
    /// It is one among those again that may give way.
    fn drop(&mut self) {
        let Place { places, from, id, end } = self.place;
        let mut taken = places.0.borrow_mut();
        if taken.limiter.holds(id.get()) {
            taken.give_back(id.get());
            match taken.take(*from, end, self.since) {
                Some(renewed) => id.set(renewed),
                None => end.notify_one(),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt as _;

    const FROM: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    #[test]
    fn the_oldest_that_asks_for_nothing_gives_way_and_a_request_in_hand_does_not() {
        let places = Places::new();
        let enter = || places.enter(FROM, Moment::default()).unwrap();
        let old: Vec<Place> = (0..CONNECTIONS_MAX).map(|_| enter()).collect();
        let asks = old[0].keep(Moment::default());
        let _new = enter();
        assert_eq!(old[0].lost().now_or_never(), None, "it is being answered");
        assert_eq!(old[1].lost().now_or_never(), Some(()));
        assert_eq!(old[2].lost().now_or_never(), None);
        drop(asks);
        let _newer: Vec<Place> = (2..CONNECTIONS_MAX).map(|_| enter()).collect();
        assert_eq!(old[0].lost().now_or_never(), None, "it has asked last of all those");
        let _newest = [enter(), enter()];
        assert_eq!(old[0].lost().now_or_never(), Some(()), "it is idle");
        drop(old);
        assert_eq!(
            places.0.borrow().ends.len(),
            CONNECTIONS_MAX,
            "who was told to end gives back nothing of another's"
        );
    }
}
