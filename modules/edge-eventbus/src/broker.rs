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
use crate::events::Counters;
use crate::filters::{Filter, Filters};
use crate::identity::{self, Owner};
use crate::quotas::{Quotas, SessionRoom};
use crate::rate_limit::RateLimiter;
use crate::retained::Retained;
use crate::rumqttd_router::{self, RouterCaps, RouterTx};
use crate::session::{CloseReason, ConnectInfo, ConnectionHandle, EnqueueOutcome, Message, Session};
use crate::{plan, topic};

/// SUBACK's word for a refusal.
const REFUSED: u8 = 0x80;

type ClientId = Rc<str>;

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
        if self.handed_in { rumqttd_router::weight(&self.message.router_form) } else { 0 }
    }
}

/// What a publish has set going.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Published {
    /// With `retain`, the number of the change that the store has to take.
    pub(crate) change: Option<u64>,
    /// What it cost to find its subscribers: places looked at and members.
    pub(crate) looks: usize,
}

/// The broker's state. Lives on the hive's thread; never borrowed across an await.
pub(crate) struct Broker {
    acl: Acl,
    /// How many sessions there may be.
    room: usize,
    router: Option<RouterTx>,
    caps: RouterCaps,
    sessions: BTreeMap<ClientId, Session>,
    filters: Filters,
    quotas: Quotas,
    /// Who has had how much of the broker's time.
    pub(crate) rates: RateLimiter,
    /// Filters and topics for which the router holds memory.
    router_filters: BTreeSet<String>,
    router_topics: HashSet<String>,
    router_topic_bytes: usize,
    /// The router should be replaced: what it cannot forget is what keeps new topics or filters out.
    router_is_full: bool,
    /// The router is full.
    pub(crate) full: Rc<Notify>,
    pending: BTreeMap<u64, Pending>,
    /// Messages that the router has not been handed yet.
    backlog: VecDeque<u64>,
    /// Weight of what the router has been handed and has not given back.
    window: usize,
    next_message: u64,
    departures: u64,
    pub(crate) retained: Retained,
    /// There is something for the store.
    pub(crate) to_store: Rc<Notify>,
    /// A message was handed out.
    pub(crate) moved: Rc<Notify>,
    pub(crate) counts: Counters,
}

impl Broker {
    pub(crate) fn new(retained: Retained, caps: RouterCaps, acl: Acl) -> Self {
        Broker {
            acl,
            room: plan::SESSIONS,
            router: None,
            caps,
            sessions: BTreeMap::new(),
            filters: Filters::default(),
            quotas: Quotas::default(),
            rates: RateLimiter::default(),
            router_filters: BTreeSet::new(),
            router_topics: HashSet::new(),
            router_topic_bytes: 0,
            router_is_full: false,
            full: Rc::default(),
            pending: BTreeMap::new(),
            backlog: VecDeque::new(),
            window: 0,
            next_message: 0,
            departures: 0,
            retained,
            to_store: Rc::default(),
            moved: Rc::default(),
            counts: Counters::default(),
        }
    }

    /// A connection comes. Says whether there was a session to go on with.
    pub(crate) fn attach(
        &mut self,
        client: &ClientId,
        clean: bool,
        connect_info: ConnectInfo,
    ) -> (Rc<ConnectionHandle>, bool) {
        let mut known = false;
        if let Some(session) = self.sessions.get(client) {
            if let Some(old) = &session.handle {
                old.close(CloseReason::TakenOver);
            }
            known = !clean && !session.clean;
            if !known {
                self.forget(client);
            }
        }
        if !known {
            if let SessionRoom::Evict(absent) = self.room_for(client) {
                self.counts.session_forgotten(&absent);
                self.forget(&absent);
            }
            self.sessions.insert(Rc::clone(client), Session::new(clean, self.acl.rights(client)));
        }
        let handle = ConnectionHandle::of(connect_info);
        if let Some(session) = self.sessions.get_mut(client) {
            session.attach(Rc::clone(&handle));
        }
        (handle, known)
    }

    /// A connection goes; its session stays if it is to.
    pub(crate) fn detach(&mut self, client: &ClientId, handle: &Rc<ConnectionHandle>) {
        self.departures += 1;
        let left = self.departures;
        let Some(session) = self.session_of(client, handle) else { return };
        if session.clean {
            self.forget(client);
        } else {
            session.handle = None;
            session.left = left;
        }
        // Nobody waits any longer for this connection to move.
        handle.moved();
    }

    /// The session, as long as this connection has it.
    pub(crate) fn session_of(
        &mut self,
        client: &ClientId,
        handle: &Rc<ConnectionHandle>,
    ) -> Option<&mut Session> {
        let session = self.sessions.get_mut(client)?;
        session.handle.as_ref().is_some_and(|current| Rc::ptr_eq(current, handle)).then_some(session)
    }

    /// What the connection should write next.
    pub(crate) fn fill(&mut self, client: &ClientId, handle: &Rc<ConnectionHandle>, out: &mut BytesMut) {
        let Some(session) = self.session_of(client, handle) else { return };
        let count = session.fill(out);
        self.counts.messages_out(count);
    }

    /// Subscribes, and queues the retained messages. Returns SUBACK's code.
    pub(crate) fn subscribe(&mut self, client: &ClientId, filter: &str, qos: u8) -> u8 {
        let granted = qos.min(1);
        let router_form = topic::router_form(filter);
        let Some(session) = self.sessions.get_mut(client) else { return REFUSED };
        let allowed = session.rights.may_subscribe(&router_form);
        let is_new = !session.subscriptions.contains_key(&router_form);
        let owner = identity::owner(client);
        let too_many = is_new
            && (session.subscriptions.len() >= plan::SUBSCRIPTIONS
                || self.filters.owned_with(&owner, &router_form) > self.quotas.quota(&owner, plan::FILTERS)
                || (self.filters.len() >= plan::FILTERS && !self.filters.contains(&router_form)));
        let defect = topic::filter_defect(filter);
        if defect.is_some() || !allowed || too_many || !session.takes_retained() {
            let reason = match defect {
                Some(defect) => defect.reason(),
                None if !allowed => "the client has no right to it",
                None if too_many => "too many subscriptions or filters",
                None => "the client has too many retained messages to read first",
            };
            self.counts.subscription_refused(client, filter, reason);
            return REFUSED;
        }
        session.subscriptions.insert(router_form.clone(), granted);
        if self.filters.join(&router_form, client, granted) {
            self.teach(&router_form);
        }
        for message in self.retained_for(client, &router_form) {
            self.deliver(client, &message, granted.min(message.qos), true);
        }
        granted
    }

    pub(crate) fn unsubscribe(&mut self, client: &ClientId, filter: &str) {
        let router_form = topic::router_form(filter);
        if self.sessions.get_mut(client).is_some_and(|s| s.subscriptions.remove(&router_form).is_some()) {
            self.leave_filter(client, &router_form);
        }
    }

    /// Sends a message on its way.
    pub(crate) fn publish(&mut self, message: Message, retain: bool) -> Published {
        self.counts.message_in();
        let message = Rc::new(message);
        let change = if retain { self.retain(&message) } else { None };
        let mut targets: BTreeMap<ClientId, u8> = BTreeMap::new();
        let mut missing = Vec::new();
        let (matching, looks) = self.filters.matching(&message.router_form);
        for filter in matching {
            for (client, qos) in &filter.members {
                if !self
                    .sessions
                    .get(client)
                    .is_some_and(|session| session.rights.may_read(&message.router_form))
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
        if !missing.is_empty() && !self.topic_is_routed(&message.router_form) {
            missing.clear();
        }
        if targets.is_empty() {
            return Published { change, looks };
        }
        self.next_message += 1;
        if !missing.is_empty() {
            self.backlog.push_back(self.next_message);
        }
        self.pending.insert(self.next_message, Pending { message, targets, missing, handed_in: false });
        self.feed();
        self.hand_out();
        Published { change, looks }
    }

    /// A connected client whose queue a message on `router_form` would make longer than it should be.
    pub(crate) fn slow_subscriber(
        &self,
        publisher: &ClientId,
        router_form: &str,
    ) -> Option<Rc<ConnectionHandle>> {
        let (matching, _) = self.filters.matching(router_form);
        let mut members = matching.iter().flat_map(|filter| &filter.members).filter(|(_, qos)| **qos > 0);
        members.find_map(|(client, _)| {
            let session = self.sessions.get(client)?;
            // A client cannot wait for itself: its acknowledgements come behind its publishes.
            let takes = publisher != client && session.rights.may_read(router_form);
            (takes && session.is_slow()).then(|| session.handle.clone()).flatten()
        })
    }

    pub(crate) fn backlog_is_long(&self) -> bool {
        self.pending.len() >= plan::BACKLOG
    }

    pub(crate) fn close_all(&self) {
        for handle in self.sessions.values().filter_map(|session| session.handle.as_ref()) {
            handle.close(CloseReason::Ending);
        }
    }

    /// Clients that are there, sessions, subscriptions.
    pub(crate) fn sizes(&self) -> (usize, usize, usize) {
        let here = self.sessions.values().filter(|session| session.handle.is_some()).count();
        let subscriptions = self.sessions.values().map(|session| session.subscriptions.len()).sum();
        (here, self.sessions.len(), subscriptions)
    }

    fn retain(&mut self, message: &Rc<Message>) -> Option<u64> {
        let change = self.retained.put(message);
        self.to_store.notify_one();
        if change.is_none() {
            self.counts.not_retained(&message.from, &message.topic);
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
            EnqueueOutcome::Queued if session.held() > plan::HELD_LITTLE => self.relieve(),
            EnqueueOutcome::Queued | EnqueueOutcome::NotKept => {}
            EnqueueOutcome::Dropped => self.counts.qos0_dropped(client, &message.topic),
            EnqueueOutcome::Lost => self.counts.qos1_lost(client, &message.topic),
            EnqueueOutcome::Overflow => {
                self.counts.qos1_lost(client, &message.topic);
                if let Some(handle) = &session.handle {
                    if !handle.is_closing() {
                        self.counts.client_cut_off(client);
                    }
                    handle.close(CloseReason::Stuck);
                }
            }
        }
    }

    /// Makes the session that holds most give way if all together hold too much; one of the anonymous clients' if they
    /// have more than their share.
    fn relieve(&mut self) {
        let (mut all, mut anonymous) = (0, 0);
        for (client, session) in &self.sessions {
            all += session.held();
            anonymous += if identity::owner(client) == Owner::Anonymous { session.held() } else { 0 };
        }
        if all <= plan::HELD_BYTES {
            return;
        }
        let from_anonymous = anonymous > self.quotas.quota(&Owner::Anonymous, plan::HELD_BYTES);
        let may = |client: &ClientId| !from_anonymous || identity::owner(client) == Owner::Anonymous;
        let held = self.sessions.iter_mut().filter(|(client, _)| may(client));
        let Some((client, session)) = held.max_by_key(|(_, session)| session.held()) else {
            return;
        };
        let lost = session.give_up();
        self.counts.session_given_up(client, lost);
        match &session.handle {
            Some(handle) => {
                self.counts.client_cut_off(client);
                handle.close(CloseReason::Stuck);
            }
            None => {
                let client = Rc::clone(client);
                self.forget(&client);
            }
        }
    }

    fn leave_filter(&mut self, client: &ClientId, router_form: &str) {
        let Some(Filter { number, routed: true, .. }) = self.filters.leave(router_form, client) else {
            return;
        };
        for pending in self.pending.values_mut().filter(|pending| pending.missing.contains(&number)) {
            pending.missing.retain(|missing| *missing != number);
            if pending.missing.is_empty() {
                self.window = self.window.saturating_sub(pending.weight());
            }
        }
        if let Some(router) = &mut self.router
            && let Err(error) = router.remove(router_form)
        {
            self.router_failed(&error);
        }
        self.feed();
        self.hand_out();
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
