//! Who may be connected: strangers, who have not shown a credential yet, and known users.
//!
//! Strangers are few and have to hurry. When their places are taken, the oldest one of the address that has most leaves
//! for the next, so that whoever sits there idle, from however many sockets, shuts nobody out. Users have a number of
//! connections each, and a watch is one.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use beehive::Moment;
use tokio::sync::Notify;

/// 256 strangers at a time.
const STRANGERS_MAX: usize = 256;
/// 1 s that a stranger has in any case; a handshake and the head of a request need a few milliseconds.
const GRACE: Duration = Duration::from_secs(1);
/// 1,024 connections of users.
const KNOWN_MAX: usize = 1024;
/// 256 connections of one user.
const PER_USER: usize = 256;
/// 128 more for administrators, so that users cannot shut them out.
const MASTERS: usize = 128;

struct Stranger {
    address: IpAddr,
    since: Moment,
    leave: Arc<Notify>,
}

/// The places and who has them.
#[derive(Default)]
pub(crate) struct Places {
    next: u64,
    strangers: BTreeMap<u64, Stranger>,
    known: BTreeMap<String, usize>,
    known_count: usize,
}

/// What comes of a connection.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    /// It has the place of this number.
    In(u64),
    /// All are taken by others who may stay a moment longer: ask again after it.
    Wait(Duration),
}

impl Places {
    /// A connection comes. It leaves when `leave` is notified.
    pub(crate) fn enter(&mut self, address: IpAddr, now: Moment, leave: &Arc<Notify>) -> Entry {
        if self.strangers.len() >= STRANGERS_MAX {
            match self.oldest_of_most() {
                Some((id, since)) if now.since(since) >= GRACE => {
                    if let Some(gone) = self.strangers.remove(&id) {
                        gone.leave.notify_one();
                    }
                }
                Some((_, since)) => return Entry::Wait(GRACE - now.since(since)),
                None => {}
            }
        }
        self.next += 1;
        self.strangers.insert(self.next, Stranger { address, since: now, leave: Arc::clone(leave) });
        Entry::In(self.next)
    }

    fn oldest_of_most(&self) -> Option<(u64, Moment)> {
        let mut counts: BTreeMap<IpAddr, usize> = BTreeMap::new();
        for stranger in self.strangers.values() {
            *counts.entry(stranger.address).or_default() += 1;
        }
        let (most, _) = counts.into_iter().max_by_key(|(_, count)| *count)?;
        // Numbers rise, so that the first one is the oldest.
        let (id, oldest) = self.strangers.iter().find(|(_, stranger)| stranger.address == most)?;
        Some((*id, oldest.since))
    }

    /// The stranger has shown whose it is. `false`: the user, or all of them, have too many; it stays a stranger.
    pub(crate) fn recognize(&mut self, id: u64, user: &str, is_master: bool) -> bool {
        let most = KNOWN_MAX + if is_master { MASTERS } else { 0 };
        let own = self.known.get(user).copied().unwrap_or_default();
        if self.known_count >= most || own >= PER_USER {
            return false;
        }
        // Who was just told to leave does so as a stranger.
        if self.strangers.remove(&id).is_none() {
            return false;
        }
        self.known.insert(user.to_owned(), own + 1);
        self.known_count += 1;
        true
    }

    /// The connection has ended. `user` is who it was recognized as.
    pub(crate) fn leave(&mut self, id: u64, user: Option<&str>) {
        self.strangers.remove(&id);
        let Some(user) = user else { return };
        self.known_count = self.known_count.saturating_sub(1);
        match self.known.get_mut(user) {
            Some(count) if *count > 1 => *count -= 1,
            _ => {
                self.known.remove(user);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));
    const START: Moment = Moment(GRACE);
    const B: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2));

    fn entered(places: &mut Places, address: IpAddr, now: Moment) -> Option<u64> {
        match places.enter(address, now, &Arc::new(Notify::new())) {
            Entry::In(id) => Some(id),
            Entry::Wait(_) => None,
        }
    }

    #[tokio::test]
    async fn idle_strangers_shut_nobody_out() {
        let (mut places, start) = (Places::default(), START);
        let first = Arc::new(Notify::new());
        let id = places.enter(A, start, &first);
        assert_eq!(id, Entry::In(1));
        for _ in 1..STRANGERS_MAX {
            assert!(entered(&mut places, A, start).is_some());
        }
        let early = places.enter(B, Moment(GRACE + GRACE / 2), &Arc::new(Notify::new()));
        assert_eq!(early, Entry::Wait(GRACE / 2));
        assert!(entered(&mut places, B, Moment(2 * GRACE)).is_some());
        first.notified().await;
        assert_eq!(places.strangers.len(), STRANGERS_MAX);
        // The one of the other address stays, however old it becomes.
        for _ in 0..STRANGERS_MAX {
            assert!(
                entered(&mut places, A, Moment(4 * GRACE)).is_some()
                    || places.strangers.len() == STRANGERS_MAX
            );
        }
        assert!(places.strangers.values().any(|stranger| stranger.address == B));
    }

    #[tokio::test]
    async fn users_have_a_number_of_connections_and_administrators_find_a_place() {
        let (mut places, now) = (Places::default(), START);
        let come = |places: &mut Places, user: &str, master: bool| {
            let id = entered(places, A, now).unwrap();
            let known = places.recognize(id, user, master);
            if !known {
                places.leave(id, None);
            }
            known.then_some(id)
        };
        let own: Vec<u64> = (0..PER_USER).map(|_| come(&mut places, "a", false).unwrap()).collect();
        assert_eq!(come(&mut places, "a", false), None);
        for user in ["b", "c", "d"] {
            for _ in 0..PER_USER {
                assert!(come(&mut places, user, false).is_some());
            }
        }
        assert_eq!(come(&mut places, "e", false), None);
        assert!(come(&mut places, "admin", true).is_some());
        places.leave(own[0], Some("a"));
        places.leave(own[1], Some("a"));
        assert!(come(&mut places, "e", false).is_some());
        for id in &own[2..] {
            places.leave(*id, Some("a"));
        }
        assert!(!places.known.contains_key("a"));
    }

    #[tokio::test]
    async fn who_was_told_to_leave_is_not_recognized() {
        let (mut places, now) = (Places::default(), START);
        let first = entered(&mut places, A, now).unwrap();
        for _ in 0..STRANGERS_MAX {
            entered(&mut places, A, Moment(now.0 + GRACE));
        }
        assert!(!places.recognize(first, "a", false));
        assert_eq!(places.known_count, 0);
    }
}
