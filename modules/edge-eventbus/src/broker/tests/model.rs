//! Whatever clients do: a broker beside a model of what it owes them.

use super::*;

/// Deterministic noise: the sequence of splitmix64.
struct Rng(u64);

impl Rng {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % bound.max(1) as u64).unwrap()
    }
}

const NAMES: [&str; 6] = ["a/b", "a/c", "$hw/a", "\u{e9}/b", "b", "a"];
const FILTERS: [&str; 8] = ["#", "a/+", "a/#", "$hw/#", "+/b", "a/b", "+", "b"];

/// A client of the fuzz loop, and what it is owed.
struct Guest {
    id: ClientId,
    clean: bool,
    handle: Option<Rc<ConnectionHandle>>,
    filters: BTreeSet<&'static str>,
    /// What was published for it and has not come, in order.
    due: VecDeque<String>,
    /// What has come and is not acknowledged: these may come again.
    open: BTreeMap<u16, String>,
}

impl Guest {
    fn come(&mut self, broker: &mut Broker) {
        let (handle, _) = broker.attach(&self.id, self.clean, ConnectInfo::default());
        self.handle = Some(handle);
    }

    fn go(&mut self, broker: &mut Broker) {
        let Some(handle) = self.handle.take() else { return };
        broker.detach(&self.id, &handle, Moment::default());
        if self.clean {
            self.filters.clear();
            self.due.clear();
            self.open.clear();
        }
    }

    fn takes(&self, name: &str) -> bool {
        self.filters
            .iter()
            .any(|filter| topic::matches(&topic::router_form(filter), &topic::router_form(name)))
    }

    /// Reads what there is, and acknowledges `patience` out of ten.
    fn read(&mut self, broker: &mut Broker, noise: &mut Rng, patience: usize) {
        let Some(handle) = self.handle.clone() else { return };
        let mut out = BytesMut::new();
        broker.fill(&self.id, &handle, &mut out, Moment::default());
        while !out.is_empty() {
            let again = out[0] & 8 != 0;
            let packet = crate::packet::decode(&mut out, 1 << 20, Version::V311).unwrap().unwrap();
            let crate::packet::Packet::Publish(publish) = packet else { panic!("{packet:?}") };
            let payload = String::from_utf8(publish.payload.to_vec()).unwrap();
            if again {
                assert_eq!(self.open.get(&publish.pkid), Some(&payload));
            } else {
                assert_eq!(self.due.pop_front().as_ref(), Some(&payload), "{} on {}", self.id, publish.topic);
                assert!(self.open.insert(publish.pkid, payload).is_none(), "number used twice");
            }
        }
        assert!(self.open.len() <= plan::INFLIGHT);
        let known: Vec<u16> = self.open.keys().copied().collect();
        for pkid in known {
            if noise.below(10) < patience {
                self.open.remove(&pkid);
                broker.session_of(&self.id, &handle).unwrap().acknowledged(pkid);
            }
        }
        // Nonsense changes nothing.
        broker.session_of(&self.id, &handle).unwrap().acknowledged(60_000);
    }
}

/// Comings, goings, filters, publishes, half-read queues, full routers and dead ones, in any order: every message of
/// QoS 1 reaches every session that had a filter for it, in order, and again only if not acknowledged.
#[test]
fn whatever_clients_do_every_session_gets_what_it_is_owed() {
    run(async {
        for seed in 0..8 {
            let mut noise = Rng(seed);
            let (mut broker, mut out) =
                with_small_router(RouterCaps { filters: 6, topics: 5, topic_bytes: 1000 });
            let guest = |n: usize| Guest {
                id: n.to_string().into(),
                clean: n == 0,
                handle: None,
                filters: BTreeSet::new(),
                due: VecDeque::new(),
                open: BTreeMap::new(),
            };
            let mut guests: Vec<Guest> = (0..4).map(guest).collect();
            for guest in &mut guests {
                guest.come(&mut broker);
            }
            for step in 0..3000 {
                let who = noise.below(guests.len());
                let guest = guests.get_mut(who).unwrap();
                let filter = FILTERS[noise.below(FILTERS.len())];
                match noise.below(20) {
                    0 => {
                        settle_anew(&mut broker, &mut out).await;
                        guest.go(&mut broker);
                    }
                    1 | 2 => {
                        settle_anew(&mut broker, &mut out).await;
                        if guest.clean {
                            guest.go(&mut broker);
                        }
                        guest.come(&mut broker);
                    }
                    3 | 4 if guest.handle.is_some() => {
                        assert_eq!(broker.subscribe(&guest.id, &asks(filter, 2), None), 2);
                        guest.filters.insert(filter);
                    }
                    5 => {
                        settle_anew(&mut broker, &mut out).await;
                        if guest.handle.is_some() {
                            broker.unsubscribe(&guest.id, filter);
                            guest.filters.remove(filter);
                        }
                    }
                    6..=12 => {
                        let name = NAMES[noise.below(NAMES.len())];
                        let payload = format!("{seed}.{step}");
                        for guest in &mut guests {
                            if guest.takes(name) {
                                guest.due.push_back(payload.clone());
                            }
                        }
                        broker.publish(message(name, &payload), false);
                    }
                    13..=17 => {
                        let patience = noise.below(11);
                        guest.read(&mut broker, &mut noise, patience);
                    }
                    18 => settle_anew(&mut broker, &mut out).await,
                    _ => {
                        // One in many routers dies; what it was handed is not lost.
                        if noise.below(8) == 0 {
                            broker.router_died(&RouterError::Stalled);
                            let (router_tx, fresh) = rumqttd_router::start().unwrap();
                            broker.router_started(router_tx);
                            out = fresh;
                        }
                    }
                }
                let (_, sessions, subscriptions) = broker.sizes();
                assert!(sessions <= guests.len() && subscriptions <= guests.len() * FILTERS.len());
            }
            settle_anew(&mut broker, &mut out).await;
            for guest in &mut guests {
                if guest.handle.is_none() {
                    guest.come(&mut broker);
                }
                for _ in 0..200 {
                    guest.read(&mut broker, &mut noise, 10);
                }
                assert!(guest.due.is_empty(), "seed {seed}: {} is owed {:?}", guest.id, guest.due);
                assert!(guest.open.is_empty());
            }
            assert_eq!(
                (
                    broker.counts.of(events::QOS1_LOST),
                    broker.counts.of(events::CLIENT_CUT_OFF),
                    broker.pending.len()
                ),
                (0, 0, 0)
            );
            assert!(
                broker.counts.of(events::ROUTER_REPLACED) > 10,
                "{}",
                broker.counts.of(events::ROUTER_REPLACED)
            );
        }
    });
}
