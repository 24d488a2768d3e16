//! How many connections may be accepted, and from where. Pure.
//!
//! Before a certificate was seen, all that is known of a client is its address: each address has a rate and a share of the
//! slots, so that one that floods takes none of another's. What is kept per address is bounded as well.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use crate::Moment;

/// 100 a second from one address, as many as a hub lets in: a fleet behind one address is in as fast as it could be.
pub const PER_SECOND: f64 = 100.0;
/// 4096: keys that are remembered. Beyond them all others share one.
const KNOWN_MAX: usize = 4096;
/// A second between two searches for what may be forgotten.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// The prefix that counts as one address: an IPv6 host has a whole /64 (RFC 4291), an IPv4 host its address.
pub fn address_prefix(address: IpAddr) -> IpAddr {
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
pub struct RateLimiter<K> {
    per_second: f64,
    burst: f64,
    /// What each has left, and when that was so. Who has its whole burst is not remembered.
    known: BTreeMap<K, (f64, Moment)>,
    /// Of all keys that are not known because the table is full.
    others: (f64, Moment),
    /// When those were forgotten last who have their whole burst again.
    swept: Option<Moment>,
}

impl<K: Ord + Clone> RateLimiter<K> {
    /// So many a second for each key, and at most `burst` at once.
    pub fn new(per_second: f64, burst: f64) -> Self {
        RateLimiter {
            per_second,
            burst,
            known: BTreeMap::new(),
            others: (burst, Moment::default()),
            swept: None,
        }
    }

    /// Whether one more of `key` may come; nothing is taken.
    ///
    /// # Errors
    /// How long until it may come.
    pub fn check(&self, key: &K, now: Moment) -> Result<(), Duration> {
        let (left, at) = match self.known.get(key) {
            Some(bucket) => *bucket,
            None if self.known.len() < KNOWN_MAX => return Ok(()),
            None => self.others,
        };
        let left = (left + now.since(at).as_secs_f64() * self.per_second).min(self.burst);
        if left < 1.0 { Err(Duration::from_secs_f64((1.0 - left) / self.per_second)) } else { Ok(()) }
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

/// Slots for connections that have shown no credential yet, each for the time of a handshake.
///
/// When all are taken, an address that holds fewer slots than the largest holder takes one of that one's, whatever its age:
/// an address that holds much, and be it anew each second, keeps nobody out who holds less. Of its own share an address
/// loses what it has held for long.
#[derive(Debug)]
pub struct AcceptLimiter {
    most: usize,
    each: usize,
    yields_after: Duration,
    last: u64,
    taken: BTreeMap<u64, IpAddr>,
    shares: BTreeMap<IpAddr, Share>,
}

/// What one address holds, by number: the lowest was taken first.
#[derive(Debug, Default)]
struct Share {
    /// And since when. Those have to leave for others.
    open: BTreeMap<u64, Moment>,
    kept: BTreeSet<u64>,
}

impl Share {
    fn oldest(&self) -> Option<(u64, Moment)> {
        self.open.first_key_value().map(|(id, since)| (*id, *since))
    }
}

/// The slot that a new connection finds.
enum Slot {
    Free,
    /// Of the one with this number.
    Of(u64),
}

impl AcceptLimiter {
    /// At most `most` slots, `each` of them for one address. What an address has held for `yields_after` it loses to a
    /// new connection of its own that finds no other slot: with zero to any, and else those that are sooner done are not driven
    /// out by those that come after them.
    pub fn new(most: usize, each: usize, yields_after: Duration) -> Self {
        AcceptLimiter { most, each, yields_after, last: 0, taken: BTreeMap::new(), shares: BTreeMap::new() }
    }

    /// A slot for `address`, and which other one is lost for it. `None`: there is none.
    pub fn acquire(&mut self, address: IpAddr, now: Moment) -> Option<(u64, Option<u64>)> {
        let address = address_prefix(address);
        let leaves = match self.room(address, now)? {
            Slot::Free => None,
            Slot::Of(id) => Some(id),
        };
        if let Some(id) = leaves {
            self.release(id);
        }
        self.last += 1;
        self.taken.insert(self.last, address);
        self.shares.entry(address).or_default().open.insert(self.last, now);
        Some((self.last, leaves))
    }

    /// Whether `address` would find a slot.
    pub fn has_slot(&self, address: IpAddr, now: Moment) -> bool {
        self.room(address_prefix(address), now).is_some()
    }

    fn room(&self, address: IpAddr, now: Moment) -> Option<Slot> {
        let own = self.shares.get(&address);
        let (open, kept) = own.map_or((0, 0), |share| (share.open.len(), share.kept.len()));
        let within_its_share = open + kept < self.each;
        if within_its_share && self.taken.len() < self.most {
            return Some(Slot::Free);
        }
        if within_its_share
            && let Some(largest_holder) = self.largest_holder()
            && largest_holder.open.len() > open
        {
            return largest_holder.oldest().map(|(id, _)| Slot::Of(id));
        }
        let (id, since) = own?.oldest()?;
        (now.since(since) >= self.yields_after).then_some(Slot::Of(id))
    }

    /// The address with the most slots that can be lost; of several, the one that has held one for longest.
    fn largest_holder(&self) -> Option<&Share> {
        self.shares.values().max_by_key(|share| (share.open.len(), share.oldest().map(|(id, _)| Reverse(id))))
    }

    /// The slot is not lost to others any more.
    pub fn pin(&mut self, id: u64) {
        let share = self.taken.get(&id).and_then(|address| self.shares.get_mut(address));
        if let Some(share) = share
            && share.open.remove(&id).is_some()
        {
            share.kept.insert(id);
        }
    }

    /// The slot is free again.
    pub fn release(&mut self, id: u64) {
        let Some(address) = self.taken.remove(&id) else { return };
        let Some(share) = self.shares.get_mut(&address) else { return };
        share.open.remove(&id);
        share.kept.remove(&id);
        if share.open.is_empty() && share.kept.is_empty() {
            self.shares.remove(&address);
        }
    }

    /// Whether the slot was not lost yet.
    pub fn holds(&self, id: u64) -> bool {
        self.taken.contains_key(&id)
    }

    /// How many are in use.
    pub fn in_use(&self) -> usize {
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
        let mut rates = RateLimiter::new(10.0, 3.0);
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
        let mut rates = RateLimiter::new(1.0, 2.0);
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
    fn an_address_has_its_share_and_loses_its_oldest_slot() {
        let mut limiter = AcceptLimiter::new(5, 3, Duration::from_secs(3));
        let first = limiter.acquire(ip(1), at(0)).unwrap();
        assert_eq!(first, (1, None));
        assert_eq!(limiter.acquire(ip(1), at(10)), Some((2, None)));
        assert_eq!(limiter.acquire(ip(1), at(20)), Some((3, None)));
        assert!(!limiter.has_slot(ip(1), at(2999)));
        assert_eq!(limiter.acquire(ip(1), at(2999)), None);
        assert_eq!(limiter.acquire(ip(1), at(3000)), Some((4, Some(1))));
        assert!(!limiter.holds(1) && limiter.holds(4));
        // Whoever left for another leaves once.
        limiter.release(1);
        assert_eq!(limiter.in_use(), 3);
        // With no time of its own each new connection takes the slot of the oldest.
        let mut limiter = AcceptLimiter::new(5, 2, Duration::ZERO);
        let entered: Vec<_> = (0..4).filter_map(|_| limiter.acquire(ip(1), at(0))).collect();
        assert_eq!(entered, [(1, None), (2, None), (3, Some(1)), (4, Some(2))]);
    }

    #[test]
    fn when_all_slots_are_taken_the_largest_holder_loses_one_to_an_address_with_fewer() {
        let mut limiter = AcceptLimiter::new(6, 3, Duration::from_secs(3));
        for from in [1, 1, 1, 2, 2, 2] {
            assert!(matches!(limiter.acquire(ip(from), at(0)), Some((_, None))));
        }
        assert_eq!(limiter.acquire(ip(3), at(0)), Some((7, Some(1))));
        assert_eq!(limiter.acquire(ip(3), at(0)), Some((8, Some(4))));
        // All have two: none of them has one of another's, and somebody new has.
        for from in 1..=3 {
            assert_eq!(limiter.acquire(ip(from), at(0)), None);
        }
        assert_eq!(limiter.acquire(ip(4), at(0)), Some((9, Some(2))));
        // It has fewer than the others, and those who have lost one do not take its.
        assert_eq!(limiter.acquire(ip(1), at(0)), Some((10, Some(5))));
        assert!(limiter.holds(9));
        assert_eq!(limiter.in_use(), 6);
    }

    #[test]
    fn a_flood_from_a_few_addresses_leaves_slots_for_others() {
        let mut limiter = AcceptLimiter::new(512, 128, Duration::from_secs(3));
        let mut held = std::collections::VecDeque::new();
        for turn in 0..20_000_u64 {
            // 560 of four addresses, each for less than a second.
            let now = at(turn);
            if let Some((id, _)) = limiter.acquire(ip(u8::try_from(turn % 4).unwrap()), now) {
                held.push_back(id);
            }
            if held.len() > 560 {
                held.pop_front().into_iter().for_each(|id| limiter.release(id));
            }
            if turn > 1000 && turn % 50 == 0 {
                let (honest, _) = limiter.acquire(ip(9), now).unwrap();
                for other in 0..100_u8 {
                    let _ = limiter.acquire(ip(other % 4), now).map(|(id, _)| held.push_back(id));
                }
                assert!(limiter.holds(honest), "turn {turn}");
                limiter.release(honest);
            }
        }
    }

    #[test]
    fn a_pinned_slot_is_not_lost() {
        let mut limiter = AcceptLimiter::new(4, 2, Duration::ZERO);
        let of_one: Vec<u64> = (0..2).map(|_| limiter.acquire(ip(1), at(0)).unwrap().0).collect();
        limiter.pin(of_one[0]);
        assert_eq!(limiter.acquire(ip(1), at(0)), Some((3, Some(of_one[1]))));
        limiter.pin(3);
        assert_eq!(limiter.acquire(ip(1), at(0)), None);
        let (fourth, _) = limiter.acquire(ip(2), at(0)).unwrap();
        let (fifth, _) = limiter.acquire(ip(2), at(0)).unwrap();
        // The other address has more, and all of it is kept.
        assert_eq!(limiter.acquire(ip(3), at(0)), Some((6, Some(fourth))));
        [fifth, 6].into_iter().for_each(|id| limiter.pin(id));
        assert_eq!(limiter.acquire(ip(9), at(0)), None);
        // A number that has left is nobody's.
        limiter.pin(fourth);
        limiter.release(3);
        assert_eq!(limiter.acquire(ip(9), at(0)), Some((7, None)));
        assert_eq!(limiter.in_use(), 4);
    }

    #[test]
    fn a_network_of_one_host_is_one_address() {
        let of = |text: &str| address_prefix(text.parse().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff"));
        assert_ne!(of("2001:db8:0:1::1"), of("2001:db8::1"));
        assert_eq!(of("::ffff:10.0.0.1"), of("10.0.0.1"));
    }
}
