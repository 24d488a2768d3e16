//! Sessions, subscriptions and the messages on their way to them.
//!
//! Which filters take a message is the router's to say. The broker knows beforehand how many answers there must be, so
//! that no message is forgotten by a router that dies, stalls or drops; then it hands them out itself, as it does for the
//! few filters and topics for which the router would need memory that it never gives back.

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::rc::Rc;

use bytes::BytesMut;
use tokio::sync::Notify;

use crate::core::{self, CoreIn, Match};
use crate::error::CoreError;
use crate::retained::Retained;
use crate::session::{Cut, Message, Put, Session, Wires};
use crate::{plan, topic};

/// SUBACK's word for a refusal.
const REFUSED: u8 = 0x80;

type ClientId = Rc<str>;

struct Filter {
    number: usize,
    /// Whether the router knows it.
    routed: bool,
    members: BTreeMap<ClientId, u8>,
}

struct Pending {
    message: Rc<Message>,
    /// Who gets it, each once, with the highest QoS of its matching subscriptions.
    targets: BTreeMap<ClientId, u8>,
    /// Filters that the router has not named yet.
    missing: Vec<usize>,
    handed_in: bool,
}

/// Counts for the snapshot.
#[derive(Debug, Default, Clone)]
pub(crate) struct Counts {
    pub(crate) messages_in: u64,
    pub(crate) messages_out: u64,
    pub(crate) refused_topics: u64,
    pub(crate) refused_by_twin: u64,
    pub(crate) unanswered_by_twin: u64,
    pub(crate) refused_subscriptions: u64,
    pub(crate) refused_connections: u64,
    pub(crate) malformed: u64,
    pub(crate) dropped_qos0: u64,
    pub(crate) lost_qos1: u64,
    pub(crate) cut_off: u64,
    pub(crate) not_retained: u64,
    pub(crate) router_deaths: u64,
}

/// The broker's state. Lives on the hive's thread; never borrowed across an await.
pub(crate) struct Broker {
    core: Option<CoreIn>,
    sessions: BTreeMap<ClientId, Session>,
    filters: BTreeMap<String, Filter>,
    /// Filters and topics for which the router holds memory.
    core_filters: BTreeSet<String>,
    core_topics: HashSet<String>,
    pending: BTreeMap<u64, Pending>,
    /// Messages that the router has not been handed yet.
    backlog: VecDeque<u64>,
    /// Weight of what the router has been handed and has not given back.
    window: usize,
    next_message: u64,
    next_filter: usize,
    departures: u64,
    pub(crate) retained: Retained,
    /// There is something for the store.
    pub(crate) to_store: Rc<Notify>,
    /// The backlog got shorter.
    pub(crate) moved: Rc<Notify>,
    pub(crate) counts: Counts,
}

impl Broker {
    pub(crate) fn new(retained: Retained) -> Self {
        Broker {
            core: None,
            sessions: BTreeMap::new(),
            filters: BTreeMap::new(),
            core_filters: BTreeSet::new(),
            core_topics: HashSet::new(),
            pending: BTreeMap::new(),
            backlog: VecDeque::new(),
            window: 0,
            next_message: 0,
            next_filter: 1,
            departures: 0,
            retained,
            to_store: Rc::default(),
            moved: Rc::default(),
            counts: Counts::default(),
        }
    }

    /// A connection comes. Says whether there was a session to go on with.
    pub(crate) fn attach(&mut self, client: &ClientId, clean: bool) -> (Rc<Wires>, bool) {
        let mut known = false;
        if let Some(session) = self.sessions.get(client) {
            if let Some(old) = &session.wires {
                old.cut(Cut::TakenOver);
            }
            known = !clean && !session.clean;
            if !known {
                self.forget(client);
            }
        }
        if !known {
            self.make_room();
            self.sessions.insert(Rc::clone(client), Session::new(clean));
        }
        let wires = Rc::<Wires>::default();
        if let Some(session) = self.sessions.get_mut(client) {
            session.attach(Rc::clone(&wires));
        }
        (wires, known)
    }

    /// A connection goes; its session stays if it is to.
    pub(crate) fn detach(&mut self, client: &ClientId, wires: &Rc<Wires>) {
        self.departures += 1;
        let left = self.departures;
        let Some(session) = self.session_of(client, wires) else { return };
        if session.clean {
            self.forget(client);
        } else {
            session.wires = None;
            session.left = left;
        }
        // Nobody waits any longer for this connection to move.
        wires.moved();
    }

    /// The session, as long as this connection has it.
    pub(crate) fn session_of(&mut self, client: &ClientId, wires: &Rc<Wires>) -> Option<&mut Session> {
        let session = self.sessions.get_mut(client)?;
        session.wires.as_ref().is_some_and(|current| Rc::ptr_eq(current, wires)).then_some(session)
    }

    /// What the connection should write next.
    pub(crate) fn fill(&mut self, client: &ClientId, wires: &Rc<Wires>, out: &mut BytesMut) {
        let Some(session) = self.session_of(client, wires) else { return };
        let count = session.fill(out);
        self.counts.messages_out += count;
    }

    /// Subscribes, and queues the retained messages. Returns SUBACK's code.
    pub(crate) fn subscribe(&mut self, client: &ClientId, filter: &str, qos: u8) -> u8 {
        let granted = qos.min(1);
        let inside = topic::inside(filter);
        let Some(session) = self.sessions.get_mut(client) else { return REFUSED };
        let is_new = !session.subscriptions.contains_key(&inside);
        let too_many = is_new
            && (session.subscriptions.len() >= plan::SUBSCRIPTIONS
                || (self.filters.len() >= plan::FILTERS && !self.filters.contains_key(&inside)));
        let defect = topic::filter_defect(filter);
        if defect.is_some() || too_many || !session.takes_retained() {
            self.counts.refused_subscriptions += 1;
            tracing::warn!(client = %client, ?defect, too_many, "subscription refused");
            return REFUSED;
        }
        session.subscriptions.insert(inside.clone(), granted);
        self.add_filter(&inside);
        if let Some(filter) = self.filters.get_mut(&inside) {
            filter.members.insert(Rc::clone(client), granted);
        }
        for message in self.retained.matching(&inside) {
            self.deliver(client, &message, granted.min(message.qos), true);
        }
        granted
    }

    pub(crate) fn unsubscribe(&mut self, client: &ClientId, filter: &str) {
        let inside = topic::inside(filter);
        if self.sessions.get_mut(client).is_some_and(|s| s.subscriptions.remove(&inside).is_some()) {
            self.leave_filter(client, &inside);
        }
    }

    /// Sends a message on its way. With `retain`, returns the number of the change that the store has to take.
    pub(crate) fn publish(&mut self, message: Message, retain: bool) -> Option<u64> {
        self.counts.messages_in += 1;
        let message = Rc::new(message);
        let change = if retain { self.retain(&message) } else { None };
        let mut targets: BTreeMap<ClientId, u8> = BTreeMap::new();
        let (mut by_router, mut by_us) = (Vec::new(), Vec::new());
        for (_, filter) in self.filters.iter().filter(|(name, _)| topic::matches(name, &message.inside)) {
            for (client, qos) in &filter.members {
                let highest = targets.entry(Rc::clone(client)).or_default();
                *highest = (*highest).max(*qos);
            }
            if filter.routed { by_router.push(filter.number) } else { by_us.push(filter.number) }
        }
        if !by_router.is_empty() && !self.topic_is_routed(&message.inside) {
            by_us.append(&mut by_router);
        }
        let mut pending = Pending { message, targets, missing: by_router, handed_in: false };
        for number in by_us {
            self.hand_out(&mut pending, number);
        }
        if !pending.missing.is_empty() {
            self.next_message += 1;
            self.pending.insert(self.next_message, pending);
            self.backlog.push_back(self.next_message);
            self.feed();
        }
        change
    }

    /// A connected client whose queue a message on `inside` would make longer than it should be.
    pub(crate) fn slow_subscriber(&self, publisher: &ClientId, inside: &str) -> Option<Rc<Wires>> {
        let matching = self.filters.iter().filter(|(name, _)| topic::matches(name, inside));
        let mut members = matching.flat_map(|(_, filter)| &filter.members).filter(|(_, qos)| **qos > 0);
        members.find_map(|(client, _)| {
            let session = self.sessions.get(client)?;
            // A client cannot wait for itself: its acknowledgements come behind its publishes.
            (publisher != client && session.is_slow()).then(|| session.wires.clone()).flatten()
        })
    }

    pub(crate) fn backlog_is_long(&self) -> bool {
        self.backlog.len() >= plan::BACKLOG
    }

    /// The router has found a filter that takes a message.
    pub(crate) fn matched(&mut self, found: Match) {
        let Some(mut pending) = self.pending.remove(&found.message) else { return };
        if let Some(place) = pending.missing.iter().position(|number| *number == found.filter) {
            pending.missing.swap_remove(place);
            self.hand_out(&mut pending, found.filter);
        }
        if pending.missing.is_empty() {
            self.given_back(&pending);
            self.feed();
        } else {
            self.pending.insert(found.message, pending);
        }
    }

    /// A router is there: it learns the filters.
    pub(crate) fn core_started(&mut self, core: CoreIn) {
        self.core = Some(core);
        let names: Vec<String> = self.filters.keys().cloned().collect();
        for name in names {
            self.teach(&name);
        }
    }

    pub(crate) fn has_core(&self) -> bool {
        self.core.is_some()
    }

    /// The oldest message of which the router owes an answer.
    pub(crate) fn owed(&self) -> Option<u64> {
        self.pending.first_key_value().filter(|(_, pending)| pending.handed_in).map(|(message, _)| *message)
    }

    /// The router is gone: what it has not given back is handed out without it, in order.
    pub(crate) fn core_died(&mut self) {
        if self.core.take().is_none() {
            return;
        }
        self.counts.router_deaths += 1;
        self.core_filters.clear();
        self.core_topics.clear();
        self.filters.values_mut().for_each(|filter| filter.routed = false);
        self.backlog.clear();
        self.window = 0;
        for (_, mut pending) in std::mem::take(&mut self.pending) {
            for number in std::mem::take(&mut pending.missing) {
                self.hand_out(&mut pending, number);
            }
        }
        self.moved.notify_waiters();
    }

    pub(crate) fn close_all(&self) {
        for wires in self.sessions.values().filter_map(|session| session.wires.as_ref()) {
            wires.cut(Cut::Ending);
        }
    }

    /// Clients that are there, sessions, subscriptions.
    pub(crate) fn sizes(&self) -> (usize, usize, usize) {
        let here = self.sessions.values().filter(|session| session.wires.is_some()).count();
        let subscriptions = self.sessions.values().map(|session| session.subscriptions.len()).sum();
        (here, self.sessions.len(), subscriptions)
    }

    #[cfg(test)]
    pub(crate) fn kill_core(&mut self) {
        if let Some(core) = &mut self.core {
            core.kill();
        }
    }

    fn retain(&mut self, message: &Rc<Message>) -> Option<u64> {
        let change = self.retained.put(message);
        self.to_store.notify_one();
        if change.is_none() {
            self.counts.not_retained += 1;
            tracing::warn!(topic = %message.topic, "no room for another retained message");
        }
        change
    }

    /// Hands the message to the members of a filter who have not got it by another one.
    fn hand_out(&mut self, pending: &mut Pending, number: usize) {
        let Some(filter) = self.filters.values().find(|filter| filter.number == number) else { return };
        let members: Vec<ClientId> = filter.members.keys().cloned().collect();
        for client in members {
            if let Some(qos) = pending.targets.remove(&client) {
                self.deliver(&client, &pending.message, qos.min(pending.message.qos), false);
            }
        }
    }

    fn deliver(&mut self, client: &ClientId, message: &Rc<Message>, qos: u8, retain: bool) {
        let Some(session) = self.sessions.get_mut(client) else { return };
        match session.put(message, qos, retain) {
            Put::Queued | Put::NotKept => {}
            Put::Dropped => {
                self.counts.dropped_qos0 += 1;
                tracing::debug!(client = %client, topic = %message.topic, "queue is full, message of QoS 0 dropped");
            }
            Put::Lost => {
                self.counts.lost_qos1 += 1;
                tracing::warn!(client = %client, topic = %message.topic, "client is away and its queue is full, message lost");
            }
            Put::Overflow => {
                self.counts.lost_qos1 += 1;
                if let Some(wires) = &session.wires {
                    if !wires.is_cut() {
                        self.counts.cut_off += 1;
                        tracing::warn!(client = %client, topic = %message.topic, "client does not keep up and is cut off");
                    }
                    wires.cut(Cut::Stuck);
                }
            }
        }
    }

    fn add_filter(&mut self, inside: &str) {
        if self.filters.contains_key(inside) {
            return;
        }
        let number = self.next_filter;
        self.next_filter += 1;
        let filter = Filter { number, routed: false, members: BTreeMap::new() };
        self.filters.insert(inside.to_owned(), filter);
        self.teach(inside);
    }

    /// Makes a filter the router's, if it may have another one.
    fn teach(&mut self, inside: &str) {
        let room = self.core_filters.len() < core::FILTERS || self.core_filters.contains(inside);
        let (Some(core), Some(filter), true) = (&mut self.core, self.filters.get_mut(inside), room) else {
            return;
        };
        match core.add(inside, filter.number) {
            Ok(()) => {
                filter.routed = true;
                self.core_filters.insert(inside.to_owned());
            }
            Err(error) => self.core_failed(&error),
        }
    }

    fn leave_filter(&mut self, client: &ClientId, inside: &str) {
        let Some(filter) = self.filters.get_mut(inside) else { return };
        filter.members.remove(client);
        if !filter.members.is_empty() {
            return;
        }
        let (number, routed) = (filter.number, filter.routed);
        self.filters.remove(inside);
        if !routed {
            return;
        }
        let mut settled = Vec::new();
        for (message, pending) in &mut self.pending {
            pending.missing.retain(|missing| *missing != number);
            if pending.missing.is_empty() {
                settled.push(*message);
            }
        }
        for message in settled {
            if let Some(pending) = self.pending.remove(&message) {
                self.given_back(&pending);
            }
        }
        if let Some(core) = &mut self.core
            && let Err(error) = core.remove(inside)
        {
            self.core_failed(&error);
        }
        self.feed();
    }

    fn given_back(&mut self, pending: &Pending) {
        if pending.handed_in {
            self.window = self.window.saturating_sub(core::weight(&pending.message.inside));
        }
        self.moved.notify_waiters();
    }

    /// Hands the router what its logs surely hold.
    fn feed(&mut self) {
        while let Some(next) = self.backlog.front().copied() {
            if let Some(pending) = self.pending.get_mut(&next) {
                let weight = core::weight(&pending.message.inside);
                if self.window > 0 && self.window + weight > core::WINDOW_BYTES {
                    return;
                }
                let Some(core) = &mut self.core else { return };
                if let Err(error) = core.route(&pending.message.inside, next) {
                    self.core_failed(&error);
                    return;
                }
                pending.handed_in = true;
                self.window += weight;
            }
            self.backlog.pop_front();
        }
    }

    fn topic_is_routed(&mut self, inside: &str) -> bool {
        if self.core.is_none() {
            return false;
        }
        if self.core_topics.contains(inside) {
            return true;
        }
        let room = self.core_topics.len() < core::TOPICS;
        if room {
            self.core_topics.insert(inside.to_owned());
        }
        room
    }

    fn core_failed(&mut self, error: &CoreError) {
        tracing::error!(%error, "router takes nothing more");
        self.core_died();
    }

    fn make_room(&mut self) {
        if self.sessions.len() < plan::SESSIONS {
            return;
        }
        let away = self.sessions.iter().filter(|(_, session)| session.wires.is_none());
        if let Some(client) =
            away.min_by_key(|(_, session)| session.left).map(|(client, _)| Rc::clone(client))
        {
            tracing::warn!(client = %client, "too many sessions: the one that was away longest is forgotten");
            self.forget(&client);
        }
    }

    fn forget(&mut self, client: &ClientId) {
        let Some(session) = self.sessions.remove(client) else { return };
        for filter in session.subscriptions.keys() {
            self.leave_filter(client, filter);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::CoreOut;
    use bytes::Bytes;

    fn message(topic: &str, payload: &str) -> Message {
        let payload = Bytes::copy_from_slice(payload.as_bytes());
        Message { topic: topic.into(), inside: topic::inside(topic), payload, qos: 1 }
    }

    fn with_router() -> (Broker, CoreOut) {
        let mut broker = Broker::new(Retained::default());
        let (core_in, core_out) = core::start().unwrap();
        broker.core_started(core_in);
        (broker, core_out)
    }

    fn client(broker: &mut Broker, name: &str, filters: &[&str]) -> (ClientId, Rc<Wires>) {
        let id: ClientId = name.into();
        let (wires, _) = broker.attach(&id, true);
        for filter in filters {
            assert_eq!(broker.subscribe(&id, filter, 1), 1);
        }
        (id, wires)
    }

    fn payloads(broker: &mut Broker, (id, wires): &(ClientId, Rc<Wires>)) -> Vec<String> {
        let mut seen = Vec::new();
        loop {
            let mut out = BytesMut::new();
            broker.fill(id, wires, &mut out);
            if out.is_empty() {
                return seen;
            }
            while let Some(packet) = crate::packet::decode(&mut out, 1 << 20).unwrap() {
                if let crate::packet::Packet::Publish(publish) = packet {
                    seen.push(String::from_utf8_lossy(&publish.payload).into_owned());
                    broker.session_of(id, wires).unwrap().acknowledged(publish.pkid);
                }
            }
        }
    }

    async fn settle(broker: &mut Broker, out: &mut CoreOut) {
        while broker.owed().is_some() {
            let found = tokio::time::timeout(std::time::Duration::from_secs(10), out.next()).await;
            broker.matched(found.unwrap().unwrap());
        }
    }

    fn run(test: impl Future<Output = ()>) {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test);
    }

    #[test]
    fn many_messages_through_small_logs_all_arrive_once_and_in_order() {
        run(async {
            let (mut broker, mut out) = with_router();
            let all = client(&mut broker, "all", &["#", "t/+", "$hw/#"]);
            let one = client(&mut broker, "one", &["t/é"]);
            let mut wanted = Vec::new();
            for round in 0..20 {
                for n in 0..100 {
                    broker.publish(
                        message(if n % 2 == 0 { "t/é" } else { "$hw/x" }, &format!("{round}.{n}")),
                        false,
                    );
                    wanted.push(format!("{round}.{n}"));
                }
                settle(&mut broker, &mut out).await;
                let seen = payloads(&mut broker, &all);
                // Order holds per topic.
                for parity in [0, 1] {
                    let of = |list: &[String]| -> Vec<String> {
                        let even = |s: &&String| s.ends_with(['0', '2', '4', '6', '8']) == (parity == 0);
                        list.iter().filter(even).cloned().collect()
                    };
                    assert_eq!(of(&seen), of(&wanted));
                }
                assert_eq!(payloads(&mut broker, &one).len(), 50);
                wanted.clear();
            }
        });
    }

    #[test]
    fn a_dead_router_loses_nothing_and_a_new_one_goes_on() {
        run(async {
            let (mut broker, mut out) = with_router();
            let one = client(&mut broker, "one", &["a/#", "a/b"]);
            broker.kill_core();
            let wanted: Vec<String> = (0..60).map(|n| n.to_string()).collect();
            for n in &wanted {
                broker.publish(message("a/b", n), false);
            }
            assert!(out.next().await.is_err());
            broker.core_died();
            broker.publish(message("a/b", "between"), false);
            let (core_in, mut out) = core::start().unwrap();
            broker.core_started(core_in);
            broker.publish(message("a/b", "after"), false);
            assert!(broker.owed().is_some(), "the new router is not used");
            settle(&mut broker, &mut out).await;
            let mut wanted = wanted;
            wanted.extend(["between".to_owned(), "after".to_owned()]);
            assert_eq!(payloads(&mut broker, &one), wanted);
        });
    }

    #[test]
    fn filters_and_topics_beyond_the_routers_are_served_all_the_same() {
        run(async {
            let (mut broker, mut out) = with_router();
            let names: Vec<String> = (0..core::FILTERS + 20).map(|n| format!("f/{n}")).collect();
            let mut clients = Vec::new();
            for (n, part) in names.chunks(plan::SUBSCRIPTIONS).enumerate() {
                let part: Vec<&str> = part.iter().map(String::as_str).collect();
                clients.push(client(&mut broker, &n.to_string(), &part));
            }
            let all = client(&mut broker, "all", &["f/#"]);
            for name in &names {
                broker.publish(message(name, name), false);
            }
            settle(&mut broker, &mut out).await;
            let mut seen = Vec::new();
            for one in &clients {
                seen.extend(payloads(&mut broker, one));
            }
            seen.sort();
            let mut wanted = names.clone();
            wanted.sort();
            assert_eq!(seen, wanted);
            assert_eq!(payloads(&mut broker, &all).len(), names.len());
        });
    }

    #[test]
    fn a_filter_that_is_left_while_messages_are_under_way_owes_nothing() {
        run(async {
            let (mut broker, mut out) = with_router();
            let one = client(&mut broker, "one", &["a"]);
            let two = client(&mut broker, "two", &["+"]);
            for n in 0..200 {
                broker.publish(message("a", &n.to_string()), false);
            }
            broker.unsubscribe(&one.0, "a");
            settle(&mut broker, &mut out).await;
            assert_eq!(payloads(&mut broker, &two).len(), 200);
            broker.detach(&two.0, &two.1);
            broker.publish(message("a", "x"), false);
            assert!(!broker.owed().is_some());
            assert_eq!(broker.sizes(), (1, 1, 0));
        });
    }

    #[test]
    fn too_many_subscriptions_and_shared_ones_are_refused() {
        let mut broker = Broker::new(Retained::default());
        let (id, _) = client(&mut broker, "one", &[]);
        for n in 0..plan::SUBSCRIPTIONS {
            assert_eq!(broker.subscribe(&id, &n.to_string(), 2), 1);
        }
        assert_eq!(broker.subscribe(&id, "more", 0), REFUSED);
        assert_eq!(broker.subscribe(&id, "7", 0), 0);
        assert_eq!(broker.subscribe(&id, "$share/g/7", 0), REFUSED);
        assert_eq!(broker.counts.refused_subscriptions, 2);
    }

    #[test]
    fn the_session_that_was_away_longest_makes_room() {
        let mut broker = Broker::new(Retained::default());
        for n in 0..=plan::SESSIONS {
            let id: ClientId = n.to_string().into();
            let (wires, present) = broker.attach(&id, false);
            assert!(!present);
            broker.detach(&id, &wires);
        }
        assert_eq!(broker.sizes().1, plan::SESSIONS);
        assert!(broker.attach(&"1".into(), false).1 && !broker.attach(&"0".into(), false).1);
    }
}
