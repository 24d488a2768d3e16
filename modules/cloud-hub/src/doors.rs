//! Which connections to enrolment may be open, and which has to go for a new one. Pure.
//!
//! Whoever has shown a credential is left alone. Of the others the one goes that has been open longest, of the address that has
//! most: a thousand silent connections of one address cost that address its own places and nobody else's.

use std::collections::BTreeMap;
use std::net::IpAddr;

/// 256 connections at once: a fleet that joins retries.
pub(crate) const CONNECTIONS_MAX: usize = 256;
/// 64 of one address (IPv6: of one /64): a site behind one address that joins as a whole.
pub(crate) const OF_ONE_ADDRESS_MAX: usize = 64;

/// An address as places are counted: an IPv6 host has all of its /64.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Origin {
    V4([u8; 4]),
    V6([u8; 8]),
}

impl Origin {
    pub(crate) fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Origin::V4(address.octets()),
            IpAddr::V6(address) => {
                let mut prefix = [0; 8];
                prefix.copy_from_slice(&address.octets()[..8]);
                Origin::V6(prefix)
            }
        }
    }
}

/// The connections of one address, by number: the lowest is the oldest. `true`: it has shown a credential.
type Open = BTreeMap<u64, bool>;

/// All connections.
#[derive(Default)]
pub(crate) struct Doors {
    last: u64,
    count: usize,
    origins: BTreeMap<Origin, Open>,
}

/// What becomes of one that arrives.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// It has this number. The second has to go for it.
    Enters(u64, Option<u64>),
    /// There is no place: everybody else has shown a credential.
    Full,
}

impl Doors {
    /// One more arrives.
    pub(crate) fn arrive(&mut self, origin: Origin) -> Arrival {
        let of_its_own = self.origins.get(&origin).map_or(0, Open::len);
        let victim = if of_its_own >= OF_ONE_ADDRESS_MAX {
            Some(self.oldest_idle_of(origin))
        } else if self.count >= CONNECTIONS_MAX {
            Some(self.oldest_idle_of_the_heaviest())
        } else {
            None
        };
        let cut = match victim {
            None => None,
            Some(None) => return Arrival::Full,
            Some(Some((of, id))) => {
                self.leave(of, id);
                Some(id)
            }
        };
        self.last += 1;
        self.count += 1;
        self.origins.entry(origin).or_default().insert(self.last, false);
        Arrival::Enters(self.last, cut)
    }

    /// It has shown a credential that is good.
    pub(crate) fn trust(&mut self, origin: Origin, id: u64) {
        if let Some(trusted) = self.origins.get_mut(&origin).and_then(|open| open.get_mut(&id)) {
            *trusted = true;
        }
    }

    /// It has ended, or had to go.
    pub(crate) fn leave(&mut self, origin: Origin, id: u64) {
        let Some(open) = self.origins.get_mut(&origin) else { return };
        if open.remove(&id).is_some() {
            self.count -= 1;
        }
        if open.is_empty() {
            self.origins.remove(&origin);
        }
    }

    fn oldest_idle_of(&self, origin: Origin) -> Option<(Origin, u64)> {
        let open = self.origins.get(&origin)?;
        open.iter().find(|(_, trusted)| !**trusted).map(|(id, _)| (origin, *id))
    }

    fn oldest_idle_of_the_heaviest(&self) -> Option<(Origin, u64)> {
        let idle = self.origins.iter().filter_map(|(origin, open)| {
            let (_, id) = self.oldest_idle_of(*origin)?;
            let of_it = open.values().filter(|trusted| !**trusted).count();
            Some((of_it, std::cmp::Reverse(id), *origin))
        });
        idle.max().map(|(_, id, origin)| (origin, id.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(last: u8) -> Origin {
        Origin::of(IpAddr::from([127, 0, 0, last]))
    }

    fn enter(doors: &mut Doors, last: u8) -> (u64, Option<u64>) {
        match doors.arrive(origin(last)) {
            Arrival::Enters(id, cut) => (id, cut),
            Arrival::Full => panic!("no place for {last}"),
        }
    }

    #[test]
    fn an_address_has_its_own_places_and_loses_its_own_oldest() {
        let mut doors = Doors::default();
        let ids: Vec<u64> = (0..OF_ONE_ADDRESS_MAX).map(|_| enter(&mut doors, 1).0).collect();
        doors.trust(origin(1), ids[0]);
        let (stranger, cut) = enter(&mut doors, 2);
        assert_eq!(cut, None);
        assert_eq!(enter(&mut doors, 1).1, Some(ids[1]), "the oldest that has shown nothing");
        doors.leave(origin(1), ids[1]);
        doors.leave(origin(2), stranger);
        assert_eq!(doors.count, OF_ONE_ADDRESS_MAX);
    }

    #[test]
    fn when_all_places_are_taken_the_address_with_most_idle_ones_gives_one() {
        let mut doors = Doors::default();
        let mut first_of_two = None;
        for last in 2..=5 {
            for n in 0..(CONNECTIONS_MAX - 1) / 4 {
                let (id, cut) = enter(&mut doors, last);
                assert_eq!(cut, None);
                if (last, n) == (2, 0) {
                    first_of_two = Some(id);
                }
            }
        }
        while doors.count < CONNECTIONS_MAX {
            let (id, _) = enter(&mut doors, 6);
            doors.trust(origin(6), id);
        }
        assert_eq!(enter(&mut doors, 1).1, first_of_two);
        // The address that has just given one has fewer now.
        let (_, next) = enter(&mut doors, 1);
        assert!(next > first_of_two);
        assert_eq!(doors.count, CONNECTIONS_MAX);
    }

    #[test]
    fn whoever_has_shown_a_credential_is_not_cut() {
        let mut doors = Doors::default();
        for last in 1..=4 {
            for _ in 0..OF_ONE_ADDRESS_MAX {
                let (id, _) = enter(&mut doors, last);
                doors.trust(origin(last), id);
            }
        }
        assert_eq!(doors.arrive(origin(9)), Arrival::Full);
        assert_eq!(doors.arrive(origin(1)), Arrival::Full);
        doors.leave(origin(1), 1);
        assert_eq!(enter(&mut doors, 9).1, None);
    }

    #[test]
    fn a_network_of_ipv6_is_one_address() {
        let of = |text: &str| Origin::of(text.parse().unwrap());
        assert_eq!(of("2001:db8:1:2::1"), of("2001:db8:1:2:ffff::9"));
        assert_ne!(of("2001:db8:1:2::1"), of("2001:db8:1:3::1"));
        assert_eq!(of("::ffff:127.0.0.1"), of("127.0.0.1"));
        assert_ne!(of("127.0.0.1"), of("127.0.0.2"));
    }
}
