//! How many may come to a door, and from where. Pure.
//!
//! Before a certificate was seen, all that is known of whoever comes is an address: each address has a rate and a share of
//! the places, so that one that floods takes none of another's. What is kept per address is bounded as well.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use crate::Moment;

/// 100 a second from one address, as many as a hub lets in: a fleet behind one address is in as fast as it could be.
pub const PER_SECOND: f64 = 100.0;
/// 4096: keys that are remembered. Beyond them all others share one.
const KNOWN_MAX: usize = 4096;
/// A second between two searches for what may be forgotten.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// What counts as one address: an IPv6 host has a whole /64 (RFC 4291).
pub fn origin(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let bits = u128::from(address) & (u128::MAX << 64);
            IpAddr::V6(Ipv6Addr::from(bits))
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

/// Token buckets by key: each key has a rate of its own.
#[derive(Debug)]
pub struct Rates<K> {
    per_second: f64,
    burst: f64,
    /// What each has left, and when that was so. Who has its whole burst is not remembered.
    known: BTreeMap<K, (f64, Moment)>,
    /// Of all who found no place among the known.
    others: (f64, Moment),
    /// When those were forgotten last who have their whole burst again.
    swept: Option<Moment>,
}

impl<K: Ord + Clone> Rates<K> {
    /// So many a second for each key, and at most `burst` at once.
    pub fn new(per_second: f64, burst: f64) -> Self {
        Rates { per_second, burst, known: BTreeMap::new(), others: (burst, Moment::default()), swept: None }
    }

    /// One more of `key`.
    ///
    /// # Errors
    /// How long until it may come.
    pub fn take(&mut self, key: &K, now: Moment) -> Result<(), Duration> {
        let (rate, burst) = (self.per_second, self.burst);
        let filled = |(left, at): (f64, Moment)| (left + now.since(at).as_secs_f64() * rate).min(burst);
        let full = self.known.len() >= KNOWN_MAX && !self.known.contains_key(key);
        // A flood of keys does not pay for the search with each of them.
        if full && self.swept.is_none_or(|at| now.since(at) >= SWEEP_EVERY) {
            self.swept = Some(now);
            self.known.retain(|_, bucket| filled(*bucket) < burst);
        }
        let room = self.known.len() < KNOWN_MAX;
        let bucket = match self.known.get_mut(key) {
            Some(bucket) => bucket,
            None if room => self.known.entry(key.clone()).or_insert((burst, now)),
            None => &mut self.others,
        };
        let left = filled(*bucket);
        if left < 1.0 {
            *bucket = (left, now);
            return Err(Duration::from_secs_f64((1.0 - left) / rate));
        }
        *bucket = (left - 1.0, now);
        Ok(())
    }
}

/// The places in front of a door, each for the time of a handshake.
#[derive(Debug)]
pub struct Places {
    most: usize,
    each: usize,
    /// How long a place is nobody else's, whoever wants it.
    yields_after: Duration,
    last: u64,
    taken: BTreeMap<u64, (IpAddr, Moment)>,
}

impl Places {
    /// At most `most` places, `each` of them for one address. One that was held for `yields_after` is given to a newcomer
    /// who finds no other.
    pub fn new(most: usize, each: usize, yields_after: Duration) -> Self {
        Places { most, each, yields_after, last: 0, taken: BTreeMap::new() }
    }

    /// A place for `address`, and who has to leave for it. `None`: there is none.
    pub fn enter(&mut self, address: IpAddr, now: Moment) -> Option<(u64, Option<u64>)> {
        let address = origin(address);
        let own = self.taken.values().filter(|(of, _)| *of == address).count();
        let from = if own >= self.each {
            Some(address)
        } else if self.taken.len() >= self.most {
            Some(self.greediest()?)
        } else {
            None
        };
        let leaves = match from {
            None => None,
            Some(from) => {
                // In the order in which they came.
                let (id, (_, since)) = self.taken.iter().find(|(_, (of, _))| *of == from)?;
                (now.since(*since) >= self.yields_after).then_some(*id).map(Some)?
            }
        };
        if let Some(id) = leaves {
            self.taken.remove(&id);
        }
        self.last += 1;
        self.taken.insert(self.last, (address, now));
        Some((self.last, leaves))
    }

    /// The address with the most places.
    fn greediest(&self) -> Option<IpAddr> {
        let mut counts = BTreeMap::<IpAddr, usize>::new();
        for (address, _) in self.taken.values() {
            *counts.entry(*address).or_default() += 1;
        }
        counts.into_iter().max_by_key(|(_, count)| *count).map(|(address, _)| address)
    }

    /// The place is free again.
    pub fn leave(&mut self, id: u64) {
        self.taken.remove(&id);
    }

    /// How many are taken.
    pub fn taken(&self) -> usize {
        self.taken.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Moment {
        Moment(Duration::from_millis(millis))
    }

    fn ip(last: u8) -> IpAddr {
        [10, 0, 0, last].into()
    }

    #[test]
    fn each_key_has_a_rate_of_its_own() {
        let mut rates = Rates::new(10.0, 3.0);
        let taken = (0..5).filter(|_| rates.take(&"a", at(0)).is_ok()).count();
        assert_eq!(taken, 3);
        assert_eq!(rates.take(&"a", at(0)), Err(Duration::from_millis(100)));
        assert_eq!(rates.take(&"b", at(0)), Ok(()));
        assert_eq!(rates.take(&"a", at(100)), Ok(()));
        assert!(rates.take(&"a", at(100)).is_err());
        assert_eq!((0..9).filter(|_| rates.take(&"a", at(60_000)).is_ok()).count(), 3);
    }

    #[test]
    fn what_is_remembered_is_bounded_and_a_flood_of_keys_shares_one_rate() {
        let mut rates = Rates::new(1.0, 2.0);
        let taken = (0..100_000_u32).filter(|key| rates.take(key, at(0)).is_ok()).count();
        assert_eq!(taken, KNOWN_MAX + 2);
        assert_eq!(rates.known.len(), KNOWN_MAX);
        // Who was known before the flood is not touched by it.
        assert_eq!(rates.take(&7, at(0)), Ok(()));
        // And what has its burst again is forgotten.
        assert!(rates.take(&200_000, at(10_000)).is_ok());
        assert_eq!(rates.known.len(), 1);
    }

    #[test]
    fn an_address_has_its_share_and_what_is_held_too_long_yields() {
        let mut places = Places::new(5, 3, Duration::from_secs(3));
        let first = places.enter(ip(1), at(0)).unwrap();
        assert_eq!(first, (1, None));
        assert_eq!(places.enter(ip(1), at(10)), Some((2, None)));
        assert_eq!(places.enter(ip(1), at(20)), Some((3, None)));
        assert_eq!(places.enter(ip(1), at(2999)), None);
        assert_eq!(places.enter(ip(1), at(3000)), Some((4, Some(1))));
        // Another one finds its places, and when all are taken the one with the most gives one up.
        assert_eq!(places.enter(ip(2), at(3000)), Some((5, None)));
        assert_eq!(places.enter(ip(2), at(3000)), Some((6, None)));
        assert_eq!(places.enter(ip(3), at(3010)), Some((7, Some(2))));
        assert_eq!(places.enter(ip(4), at(3010)), None);
        places.leave(6);
        assert_eq!(places.enter(ip(4), at(3010)), Some((8, None)));
        assert_eq!(places.taken(), 5);
    }

    #[test]
    fn a_network_of_one_host_is_one_address() {
        let of = |text: &str| origin(text.parse().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff"));
        assert_ne!(of("2001:db8:0:1::1"), of("2001:db8::1"));
        assert_eq!(of("::ffff:10.0.0.1"), of("10.0.0.1"));
    }
}
