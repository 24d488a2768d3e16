//! Sessions, subscriptions and the messages on their way to them.
//!
//! Which filters take a message is the router's to say. The broker knows beforehand how many answers there must be, so
//! that no message is forgotten by a router that dies, stalls or drops; then it hands them out itself, as it does for the
//! few filters and topics for which the router would need memory that it never gives back. Whoever says it, messages are
//! handed out in the order in which they came.

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::rc::Rc;

use bytes::BytesMut;
use tokio::sync::Notify;

use crate::access::Acl;
use crate::core::{self, Caps, CoreIn};
use crate::retained::Retained;
use crate::session::{Arrival, Cut, Message, Put, Session, Wires};
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
    /// Filters that the router has not named yet. When there are none, only earlier messages are waited for.
    missing: Vec<usize>,
    handed_in: bool,
}

impl Pending {
    /// What it has in the router's window.
    fn weight(&self) -> usize {
        if self.handed_in { core::weight(&self.message.inside) } else { 0 }
    }
}

/// Counts for the snapshot.
#[derive(Debug, Default, Clone)]
pub(crate) struct Counts {
    pub(crate) messages_in: u64,
    pub(crate) messages_out: u64,
    pub(crate) refused_topics: u64,
    pub(crate) refused_publishes: u64,
    pub(crate) refused_wills: u64,
    pub(crate) refused_logins: u64,
    pub(crate) refused_unauthorized: u64,
    pub(crate) refused_full: u64,
    pub(crate) refused_handshakes: u64,
    pub(crate) displaced: u64,
    pub(crate) taken_over: u64,
    pub(crate) revoked: u64,
    pub(crate) refused_by_twin: u64,
    pub(crate) unanswered_by_twin: u64,
    pub(crate) refused_subscriptions: u64,
    pub(crate) refused_connections: u64,
    pub(crate) malformed: u64,
    pub(crate) dropped_qos0: u64,
    pub(crate) lost_qos1: u64,
    pub(crate) cut_off: u64,
    pub(crate) not_retained: u64,
    pub(crate) closed_for_uploads: u64,
    pub(crate) router_deaths: u64,
    pub(crate) router_rebuilds: u64,
}

/// The broker's state. Lives on the hive's thread; never borrowed across an await.
pub(crate) struct Broker {
    acl: Acl,
    /// How many sessions there may be.
    room: usize,
    core: Option<CoreIn>,
    caps: Caps,
    sessions: BTreeMap<ClientId, Session>,
    filters: BTreeMap<String, Filter>,
    /// Filters and topics for which the router holds memory.
    core_filters: BTreeSet<String>,
    core_topics: HashSet<String>,
    core_topic_bytes: usize,
    /// The router should be replaced: what it cannot forget is what keeps new topics or filters out.
    core_is_full: bool,
    /// The router is full.
    pub(crate) full: Rc<Notify>,
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
    /// A message was handed out.
    pub(crate) moved: Rc<Notify>,
    pub(crate) counts: Counts,
}

impl Broker {
    pub(crate) fn new(retained: Retained, caps: Caps, acl: Acl) -> Self {
        Broker {
            acl,
            room: plan::SESSIONS,
            core: None,
            caps,
            sessions: BTreeMap::new(),
            filters: BTreeMap::new(),
            core_filters: BTreeSet::new(),
            core_topics: HashSet::new(),
            core_topic_bytes: 0,
            core_is_full: false,
            full: Rc::default(),
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
    pub(crate) fn attach(&mut self, client: &ClientId, clean: bool, arrival: Arrival) -> (Rc<Wires>, bool) {
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
            self.sessions.insert(Rc::clone(client), Session::new(clean, self.acl.rights(client)));
        }
        let wires = Wires::of(arrival);
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
        let allowed = session.rights.may_subscribe(&inside);
        let is_new = !session.subscriptions.contains_key(&inside);
        let too_many = is_new
            && (session.subscriptions.len() >= plan::SUBSCRIPTIONS
                || (self.filters.len() >= plan::FILTERS && !self.filters.contains_key(&inside)));
        let defect = topic::filter_defect(filter);
        if defect.is_some() || !allowed || too_many || !session.takes_retained() {
            self.counts.refused_subscriptions += 1;
            let refused = self.counts.refused_subscriptions;
            if refused.is_power_of_two() {
                tracing::warn!(client = %client, ?filter, ?defect, allowed, too_many, refused, "subscription refused");
            }
            return REFUSED;
        }
        session.subscriptions.insert(inside.clone(), granted);
        self.add_filter(&inside);
        if let Some(filter) = self.filters.get_mut(&inside) {
            filter.members.insert(Rc::clone(client), granted);
        }
        for message in self.retained_for(client, &inside) {
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
        let mut missing = Vec::new();
        for (_, filter) in self.filters.iter().filter(|(name, _)| topic::matches(name, &message.inside)) {
            for (client, qos) in &filter.members {
                if !self.sessions.get(client).is_some_and(|session| session.rights.may_read(&message.inside))
                {
                    continue;
                }
                let highest = targets.entry(Rc::clone(client)).or_default();
                *highest = (*highest).max(*qos);
            }
            if filter.routed {
                missing.push(filter.number);
            }
        }
        if !missing.is_empty() && !self.topic_is_routed(&message.inside) {
            missing.clear();
        }
        if targets.is_empty() {
            return change;
        }
        self.next_message += 1;
        if !missing.is_empty() {
            self.backlog.push_back(self.next_message);
        }
        self.pending.insert(self.next_message, Pending { message, targets, missing, handed_in: false });
        self.feed();
        self.hand_out();
        change
    }

    /// A connected client whose queue a message on `inside` would make longer than it should be.
    pub(crate) fn slow_subscriber(&self, publisher: &ClientId, inside: &str) -> Option<Rc<Wires>> {
        let matching = self.filters.iter().filter(|(name, _)| topic::matches(name, inside));
        let mut members = matching.flat_map(|(_, filter)| &filter.members).filter(|(_, qos)| **qos > 0);
        members.find_map(|(client, _)| {
            let session = self.sessions.get(client)?;
            // A client cannot wait for itself: its acknowledgements come behind its publishes.
            let takes = publisher != client && session.rights.may_read(inside);
            (takes && session.is_slow()).then(|| session.wires.clone()).flatten()
        })
    }

    pub(crate) fn backlog_is_long(&self) -> bool {
        self.pending.len() >= plan::BACKLOG
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

    fn retain(&mut self, message: &Rc<Message>) -> Option<u64> {
        let change = self.retained.put(message);
        self.to_store.notify_one();
        if change.is_none() {
            self.counts.not_retained += 1;
            let refused = self.counts.not_retained;
            if refused.is_power_of_two() {
                tracing::warn!(topic = %message.topic, refused, "no room for another retained message");
            }
        }
        change
    }

    /// Hands out the oldest messages, up to the first that the router owes an answer for.
    fn hand_out(&mut self) {
        while let Some(oldest) = self.pending.first_entry().filter(|oldest| oldest.get().missing.is_empty()) {
            let Pending { message, targets, .. } = oldest.remove();
            for (client, qos) in targets {
                self.deliver(&client, &message, qos.min(message.qos), false);
            }
            self.moved.notify_waiters();
        }
    }

    fn deliver(&mut self, client: &ClientId, message: &Rc<Message>, qos: u8, retain: bool) {
        let Some(session) = self.sessions.get_mut(client) else { return };
        match session.put(message, qos, retain) {
            Put::Queued if session.held() > plan::HELD_LITTLE => self.relieve(),
            Put::Queued | Put::NotKept => {}
            Put::Dropped => {
                self.counts.dropped_qos0 += 1;
                tracing::debug!(client = %client, topic = %message.topic, "queue is full, message of QoS 0 dropped");
            }
            Put::Lost => {
                self.counts.lost_qos1 += 1;
                session.lost += 1;
                if session.lost.is_power_of_two() {
                    let (topic, lost) = (&message.topic, session.lost);
                    tracing::warn!(client = %client, %topic, lost, "client is away and its queue is full, message lost");
                }
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

    /// Makes the session that holds most give way if all together hold too much.
    fn relieve(&mut self) {
        if self.sessions.values().map(Session::held).sum::<usize>() <= plan::HELD_BYTES {
            return;
        }
        let Some((client, session)) = self.sessions.iter_mut().max_by_key(|(_, session)| session.held())
        else {
            return;
        };
        let lost = session.give_up();
        self.counts.lost_qos1 += lost;
        tracing::warn!(client = %client, lost, "sessions hold too much, and this one most: it is given up");
        match &session.wires {
            Some(wires) => {
                self.counts.cut_off += 1;
                wires.cut(Cut::Stuck);
            }
            None => {
                let client = Rc::clone(client);
                self.forget(&client);
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
        for pending in self.pending.values_mut().filter(|pending| pending.missing.contains(&number)) {
            pending.missing.retain(|missing| *missing != number);
            if pending.missing.is_empty() {
                self.window = self.window.saturating_sub(pending.weight());
            }
        }
        if let Some(core) = &mut self.core
            && let Err(error) = core.remove(inside)
        {
            self.core_failed(&error);
        }
        self.feed();
        self.hand_out();
    }

    fn make_room(&mut self) {
        if self.sessions.len() < self.room {
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
        // A later session of the same name is owed nothing.
        for pending in self.pending.values_mut() {
            pending.targets.remove(client);
        }
        for filter in session.subscriptions.keys() {
            self.leave_filter(client, filter);
        }
    }
}

mod clients;
mod routing;
#[cfg(test)]
mod tests;
