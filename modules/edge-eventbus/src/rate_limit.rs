//! How much of the broker's time a client may have. Pure.
//!
//! Everything a client says costs the hive's one thread some of its time. Who asks for more than his share is read more
//! slowly: nothing is dropped, and what he sends waits in his own socket.

use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::rc::Rc;
use std::time::Duration;

use beehive::Moment;

use crate::identity;
use crate::packet::Packet;
use crate::peer::PeerOrigin;
use crate::plan;

/// 2 KiB of a publish are what a small one is allowed for (4 MiB a second where there may be 2,000 of them).
const BYTES_OF_PUBLISH: u64 = 2 << 10;
/// All connections of one user, or all anonymous ones of one address or uid, have twice that.
const TOGETHER: u32 = 2;
/// 1 s: what was not used may be used at once.
const BURST: Duration = Duration::from_secs(1);
/// 25 ms of the common share is the most that one packet costs the others of an address: who sends dearer ones waits
/// for that himself, and not his neighbours.
const COMMON_MOST: Duration = Duration::from_millis(25);
/// 5 s: the most that a connection finds owed by others of its source that have left, however much they spent.
const OWED_MOST: Duration = Duration::from_secs(5);
/// 256 sources are kept in mind, before those are forgotten that have nothing to pay.
const SOURCES: usize = 256;

/// Units of a publish, before it is known who gets it.
const PUBLISH: u64 = 4;
/// Units of a message for the cloud beside that: 500 a second of one connection.
const UPLOAD: u64 = 12;
/// Places of the trie or members of filters for one unit.
const LOOKED_AT: usize = 8;

/// What a packet costs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Cost {
    pub(crate) work: u64,
    pub(crate) bytes: u64,
}

impl Cost {
    /// What `packet` costs by itself, with so many retained messages to look through.
    pub(crate) fn of(packet: &Packet, retained: usize) -> Cost {
        let (work, bytes) = match packet {
            Packet::Publish(publish) => {
                let upload = if plan::is_for_the_cloud(&publish.topic) { UPLOAD } else { 0 };
                (PUBLISH + upload, publish.topic.len() + publish.payload.len())
            }
            Packet::Oversized { publish, size } => (PUBLISH, publish.topic.len() + size),
            Packet::Subscribe { filters, .. } => {
                // A filter without a wildcard has its one retained message without a search, and such as have one look
                // through those only that begin like them, eight times as fast as a place of the trie.
                let wild = |filter: &str| filter.contains(['+', '#']);
                let searches = filters.iter().filter(|asked| wild(&asked.filter)).count() as u64;
                let work = PUBLISH * filters.len() as u64 + searches * looking_at(retained / 8);
                (work, filters.iter().map(|asked| asked.filter.len()).sum())
            }
            Packet::Unsubscribe { filters, .. } => {
                (1 + filters.len() as u64, filters.iter().map(String::len).sum())
            }
            _ => (1, 0),
        };
        Cost { work, bytes: bytes as u64 }
    }

    /// The same with so many places looked at.
    pub(crate) fn with_looks(self, looks: usize) -> Cost {
        Cost { work: self.work + looking_at(looks), ..self }
    }

    /// How long a connection that sends nothing else may take for it, of so many small publishes a second.
    fn span(self, a_second: NonZeroU64) -> Duration {
        let at = |amount: u64, of_publish: u64| {
            let rate = u128::from(a_second.get()) * u128::from(of_publish);
            let nanos = u128::from(amount) * 1_000_000_000 / rate;
            Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
        };
        at(self.work, PUBLISH).max(at(self.bytes, BYTES_OF_PUBLISH))
    }
}

fn looking_at(places: usize) -> u64 {
    (places / LOOKED_AT) as u64
}

impl std::ops::Add for Cost {
    type Output = Cost;

    fn add(self, more: Cost) -> Cost {
        Cost { work: self.work + more.work, bytes: self.bytes + more.bytes }
    }
}

/// Up to when somebody's share is used.
#[derive(Debug, Clone, Copy, Default)]
struct Bucket(Moment);

impl Bucket {
    fn pause(self, now: Moment) -> Duration {
        self.0.since(now).saturating_sub(BURST)
    }

    /// Returns how long to wait before the next.
    fn charge(&mut self, now: Moment, span: Duration) -> Duration {
        self.0 = self.0.max(now) + span;
        self.pause(now)
    }
}

/// Who pays together.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Payer {
    User(Rc<str>),
    PeerOrigin(PeerOrigin),
}

/// What all that pay together have used.
#[derive(Debug, Default)]
struct Share {
    /// All of them.
    common: Bucket,
    /// Those that have left without having paid: whoever comes next from there pays for them. Otherwise a connection for
    /// each dear packet would cost nothing but its neighbours' common share.
    departed: Bucket,
}

/// What all that pay together have used.
#[derive(Debug, Default)]
pub(crate) struct RateLimiter {
    /// Small publishes a second of one connection; `None`: no bound.
    a_second: Option<NonZeroU64>,
    shares: BTreeMap<Payer, Share>,
}

/// One connection's account.
#[derive(Debug)]
pub(crate) struct RateAccount {
    payer: Payer,
    own: Bucket,
    /// What it found owed.
    found: Bucket,
}

impl RateAccount {
    /// How long nothing is to be read yet.
    pub(crate) fn pause(&self, now: Moment) -> Duration {
        self.own.pause(now)
    }
}

impl RateLimiter {
    /// With so many small publishes a second of one connection; 0: no bound.
    pub(crate) fn new(a_second: u32) -> Self {
        RateLimiter { a_second: NonZeroU64::new(a_second.into()), shares: BTreeMap::new() }
    }

    /// An account for a connection of `client`; what others of its source owe that have left, it owes.
    pub(crate) fn open(&mut self, client: &str, source: PeerOrigin, now: Moment) -> RateAccount {
        let payer = match identity::parts(client).0 {
            Some(user) => Payer::User(user.into()),
            None => Payer::PeerOrigin(source),
        };
        let owed = self.shares.get(&payer).map(|share| share.departed.0).unwrap_or_default();
        let found = Bucket(owed.min(now + OWED_MOST));
        RateAccount { payer, own: found, found }
    }

    /// The connection is over.
    pub(crate) fn close(&mut self, account: &RateAccount, now: Moment) {
        let unpaid = account.own.0.since(account.found.0.max(now));
        if let Some(share) = self.shares.get_mut(&account.payer) {
            share.departed.0 = (share.departed.0.max(now) + unpaid).min(now + OWED_MOST);
        }
    }

    /// Somebody has cost so much. Returns how long nothing more is to be read from him.
    pub(crate) fn charge(&mut self, account: &mut RateAccount, cost: Cost, now: Moment) -> Duration {
        let Some(a_second) = self.a_second else { return Duration::ZERO };
        let span = cost.span(a_second);
        if self.shares.len() >= SOURCES && !self.shares.contains_key(&account.payer) {
            self.shares.retain(|_, share| share.common.0.max(share.departed.0) > now);
        }
        let share = self.shares.entry(account.payer.clone()).or_default();
        let together = share.common.charge(now, (span / TOGETHER).min(COMMON_MOST));
        account.own.charge(now, span).max(together)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::Publish;
    use crate::peer::Peer;

    fn publish(topic: &str, size: usize) -> Packet {
        let payload = vec![0; size].into();
        Packet::Publish(Publish {
            topic: topic.into(),
            payload,
            qos: 0,
            retain: false,
            dup: false,
            pkid: 0,
            alias: None,
            expiry: None,
            properties: bytes::Bytes::new(),
        })
    }

    /// How many of `cost` a connection, out of `many` of one source, gets through in ten seconds.
    fn in_ten_seconds(cost: Cost, many: usize) -> usize {
        let (mut rates, end) = (RateLimiter::new(2_000), Duration::from_secs(10));
        let mut account = |n: usize| {
            (Duration::ZERO, n, rates.open(&n.to_string(), Peer::default().source, Moment::default()))
        };
        let mut all: Vec<_> = (0..many).map(&mut account).collect();
        let mut done = 0;
        loop {
            let Some((at, n, account)) = all.iter_mut().min_by_key(|(at, _, _)| *at) else { return done };
            if *at >= end {
                return done;
            }
            done += usize::from(*n == 0);
            let now = *at;
            *at = now + rates.charge(account, cost, Moment(now)) + Duration::from_nanos(1);
        }
    }

    #[test]
    fn a_connection_has_its_rate_and_a_source_twice_that_in_equal_parts() {
        let small = Cost::of(&publish("a", 10), 0);
        // Ten seconds and the burst.
        assert!((21_500..=22_500).contains(&in_ten_seconds(small, 1)));
        assert!((21_500..=22_500).contains(&in_ten_seconds(small, 2)));
        assert!((4_200..=4_600).contains(&in_ten_seconds(small, 10)));
        let large = Cost::of(&publish("a", 256 << 10), 0);
        assert!((170..=180).contains(&in_ten_seconds(large, 1)));
        let upload = Cost::of(&publish("$hw/events/upload/x", 10), 0);
        assert!((5_400..=5_600).contains(&in_ten_seconds(upload, 1)));
    }

    #[test]
    fn another_rate_is_that_rate_and_none_is_no_bound() {
        let small = Cost::of(&publish("a", 10), 0);
        let (mut slow, mut free) = (RateLimiter::new(100), RateLimiter::new(0));
        let mut account = slow.open("n", Peer::default().source, Moment::default());
        let pause = (0..200).map(|_| slow.charge(&mut account, small, Moment::default())).last();
        assert_eq!(pause, Some(Duration::from_secs(1)));
        let mut account = free.open("n", Peer::default().source, Moment::default());
        assert!((0..100_000).all(|_| free.charge(&mut account, small, Moment::default()).is_zero()));
    }

    #[test]
    fn what_is_dear_to_find_is_dear_and_neighbours_do_not_pay_for_it() {
        let cost = Cost::of(&publish("a", 1), 0).with_looks(20_000);
        assert!(in_ten_seconds(cost, 1) < 100);
        let (mut rates, source) = (RateLimiter::new(2_000), Peer::default().source);
        let mut open = |client| rates.open(client, source, Moment::default());
        let (mut greedy, mut modest) = (open("greedy"), open("modest"));
        let filters = vec![String::new(); 80_000];
        let flood = Cost::of(&Packet::Unsubscribe { pkid: 1, filters }, 0);
        assert!(rates.charge(&mut greedy, flood, Moment::default()) > Duration::from_secs(5));
        assert_eq!(rates.charge(&mut modest, Cost { work: 1, bytes: 0 }, Moment::default()), Duration::ZERO);
    }

    /// Whoever takes a connection for each dear packet is as slow as with one connection, and his neighbour hears of it as
    /// little.
    #[test]
    fn a_connection_for_each_packet_gains_nothing() {
        let (mut rates, source) = (RateLimiter::new(2_000), Peer::default().source);
        let dear = Cost::of(&publish("a", 1), 0).with_looks(30_000);
        let modest_cost = Cost::of(&publish("a", 10), 0);
        let mut modest = rates.open("modest", source, Moment::default());
        let (mut done, mut longest) = (0, Duration::ZERO);
        // Thirty at a time: each waits until nothing is owed, sends one packet, and leaves.
        let mut turns = vec![Moment::default(); 30];
        for millis in 0..60_000 {
            let now = Moment(Duration::from_millis(millis));
            for turn in turns.iter_mut().filter(|turn| **turn <= now) {
                let mut greedy = rates.open("greedy", source, now);
                rates.charge(&mut greedy, dear, now);
                rates.close(&greedy, now);
                done += 1;
                *turn = now + rates.open("next", source, now).pause(now);
            }
            if millis % 200 == 0 {
                longest = longest.max(rates.charge(&mut modest, modest_cost, now));
            }
        }
        assert!((30..=500).contains(&done), "{done}");
        assert!(longest < Duration::from_secs(1), "{longest:?}");
        let fresh = rates.open("fresh", source, Moment(Duration::from_secs(60)));
        assert!(fresh.pause(Moment(Duration::from_secs(60))) <= OWED_MOST);
    }

    #[test]
    fn a_user_pays_for_himself_and_who_owes_nothing_is_forgotten() {
        let (mut rates, source) = (RateLimiter::new(2_000), Peer::default().source);
        let mut open = |client| rates.open(client, source, Moment::default());
        let (mut nobody, mut user) = (open("n"), open("user=plc;n"));
        for _ in 0..20_000 {
            rates.charge(&mut nobody, Cost { work: 8, bytes: 0 }, Moment::default());
        }
        assert_eq!(rates.charge(&mut user, Cost { work: 8, bytes: 0 }, Moment::default()), Duration::ZERO);
        let later = Moment(Duration::from_secs(3600));
        for uid in 0..2_000 {
            let mut one = rates.open("n", PeerOrigin::Uid(uid), later);
            rates.charge(&mut one, Cost { work: 1, bytes: 0 }, later + Duration::from_secs(u64::from(uid)));
        }
        assert!(rates.shares.len() <= SOURCES);
    }
}
