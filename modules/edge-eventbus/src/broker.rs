//! Sessions, subscriptions and the messages on their way to them.
//!
//! Which filters take a topic is the router's to say; what it has said holds until a filter comes or goes, so that it is not asked
//! about each message. The broker knows beforehand how many answers there must be, so that no message is forgotten by a router that
//! dies, stalls or drops; then it hands them out itself, as it does for the few filters and topics for which the router would need
//! memory that it never gives back. Whoever says it, messages are handed out in the order in which they came.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::rc::Rc;

use beehive::Moment;
use tokio::sync::{Notify, oneshot};

use crate::access::Acl;
use crate::events::Counters;
use crate::filters::Filters;
use crate::held_bytes::HeldBytes;
use crate::message::Message;
use crate::outbox::PacketSink;
use crate::packet::Will;
use crate::plan;
use crate::quotas::{Quotas, SessionRoom};
use crate::rate_limit::RateLimiter;
use crate::retained::Retained;
use crate::rumqttd_router::{self, RouterCaps, RouterTx};
use crate::session::{CloseReason, ConnectInfo, ConnectionHandle, KEPT_FOR_EVER, RowKey, Session};
use crate::topic;
use crate::wills::Wills;

type ClientId = Rc<str>;

struct Pending {
    message: Rc<Message>,
    /// Who gets it.
    targets: Vec<delivery::Target>,
    /// Is told which change the store has to take, once it is in the queues of sessions that outlive the daemon.
    queued: Option<oneshot::Sender<u64>>,
    /// Filters that the router has not named yet. When there are none, only earlier messages are waited for.
    missing: Vec<usize>,
    handed_in: bool,
    /// Which filters there were when it came.
    generation: u64,
}

impl Pending {
    /// What it has in the router's window.
    fn weight(&self) -> usize {
        if self.handed_in { rumqttd_router::weight(&self.message.router_form) } else { 0 }
    }
}

/// What a publish has set going.
#[derive(Debug)]
pub(crate) struct Published {
    /// With `retain`, the number of the change that the store has to take.
    pub(crate) change: Option<u64>,
    /// Somebody gets it.
    pub(crate) has_subscribers: bool,
    /// There was no room for it among the retained messages.
    pub(crate) is_not_retained: bool,
    /// What it cost to find its subscribers: places looked at and members.
    pub(crate) looks: usize,
    /// The same as `change` for the sessions that outlive the daemon, as soon as the message is in their queues.
    pub(crate) queued: Option<oneshot::Receiver<u64>>,
}

/// The broker's state. Lives on the hive's thread; never borrowed across an await.
pub(crate) struct Broker {
    acl: Acl,
    /// How many sessions there may be.
    room: usize,
    /// Messages of a session's queue, see [`Session::with_queue`].
    queue: usize,
    router: Option<RouterTx>,
    caps: RouterCaps,
    sessions: BTreeMap<ClientId, Session>,
    filters: Filters,
    quotas: Quotas,
    /// What messages take that clients have not got yet.
    held: HeldBytes,
    /// Who has had how much of the broker's time.
    pub(crate) rates: RateLimiter,
    /// Filters and topics for which the router holds memory, the topics with the generation of filters for which it has said which
    /// of them take it, or 0.
    router_filters: BTreeSet<String>,
    router_topics: HashMap<String, u64>,
    router_topic_bytes: usize,
    /// Grows with each filter that comes or goes.
    generation: u64,
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
    /// Counts what the store has to take.
    change: u64,
    /// Clients whose rows in the store are nobody's any more.
    forgotten: BTreeSet<ClientId>,
    /// Those that are not published yet, for the store.
    wills: Wills,
    /// Wills of sessions that have ended.
    due_wills: Vec<(ClientId, Rc<Will>)>,
    /// Clients with a will of an earlier run of which it is not known yet whether they could connect now.
    unjudged: BTreeSet<ClientId>,
    /// The broker ends, and lets nobody in.
    pub(crate) is_ending: bool,
    /// A session or a will has got an end.
    pub(crate) timers: Rc<Notify>,
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
            queue: plan::QUEUE_SIZE,
            router: None,
            caps,
            sessions: BTreeMap::new(),
            filters: Filters::default(),
            quotas: Quotas::default(),
            held: HeldBytes::default(),
            rates: RateLimiter::new(plan::MESSAGES_A_SECOND),
            router_filters: BTreeSet::new(),
            router_topics: HashMap::new(),
            router_topic_bytes: 0,
            generation: 1,
            router_is_full: false,
            full: Rc::default(),
            pending: BTreeMap::new(),
            backlog: VecDeque::new(),
            window: 0,
            next_message: 0,
            departures: 0,
            retained,
            change: 0,
            forgotten: BTreeSet::new(),
            wills: Wills::default(),
            due_wills: Vec::new(),
            unjudged: BTreeSet::new(),
            is_ending: false,
            timers: Rc::default(),
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
        let known = !clean && self.sessions.get(client).is_some_and(Session::is_persistent);
        if let Some(old) = self.sessions.get(client).and_then(|session| session.handle.as_ref()) {
            old.close(CloseReason::TakenOver { resumed: known });
        }
        let expiry = connect_info.session_expiry.unwrap_or(if clean { 0 } else { KEPT_FOR_EVER });
        if !known {
            self.forget(client);
            if let SessionRoom::Evict(absent) = self.room_for(client) {
                self.counts.session_forgotten(&absent);
                self.forget(&absent);
            }
            let session = Session::new(expiry, self.acl.rights(client)).with_queue(self.queue);
            self.sessions.insert(Rc::clone(client), session);
        }
        let handle = ConnectionHandle::of(connect_info);
        if let Some(session) = self.sessions.get_mut(client) {
            session.attach(Rc::clone(&handle));
        }
        if known {
            self.set_expiry(client, expiry);
        }
        self.to_store.notify_one();
        (handle, known)
    }

    /// How long a session outlives its connection from now on.
    pub(crate) fn set_expiry(&mut self, client: &ClientId, expiry: u32) {
        let Some(session) = self.sessions.get_mut(client) else { return };
        let was = std::mem::replace(&mut session.expiry, expiry);
        if was == 0 {
            session.soil_all();
        } else if expiry == 0 {
            self.forgotten.insert(Rc::clone(client));
        } else if was != expiry {
            session.soil(RowKey::Session);
        }
        self.to_store.notify_one();
    }

    /// A connection goes; its session stays if it is to.
    pub(crate) fn detach(&mut self, client: &ClientId, handle: &Rc<ConnectionHandle>, now: Moment) {
        self.departures += 1;
        let left = self.departures;
        let Some(session) = self.session_of(client, handle) else { return };
        if session.is_persistent() {
            session.handle = None;
            (session.left, session.left_at) = (left, now);
            self.timers.notify_one();
        } else {
            self.forget(client);
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

    /// What the connection should write next. Says whether there may be more even if that is nothing.
    pub(crate) fn fill(
        &mut self,
        client: &ClientId,
        handle: &Rc<ConnectionHandle>,
        out: &mut impl PacketSink,
        now: Moment,
    ) -> bool {
        if self.session_of(client, handle).is_none() {
            return false;
        }
        let more = self.queue_retained(client, now);
        let Some(session) = self.sessions.get_mut(client) else { return false };
        let count = session.fill(out, now);
        self.counts.messages_out(count);
        more
    }

    /// A connected client whose queue a message on `router_form` would make longer than it should be, and for which publishers
    /// wait; and the publisher.
    pub(crate) fn slow_subscriber(
        &self,
        publisher: &ClientId,
        router_form: &str,
        now: Moment,
    ) -> Option<[Rc<ConnectionHandle>; 2]> {
        let own = self.sessions.get(publisher)?.handle.as_ref()?;
        own.patience.renew(now);
        if own.patience.left(now).is_zero() {
            return None;
        }
        let (matching, _) = self.filters.matching(router_form);
        let mut members =
            matching.iter().flat_map(|filter| &filter.members).filter(|(_, member)| member.qos > 0);
        members.find_map(|(client, _)| {
            let session = self.sessions.get(client)?;
            // A client cannot wait for itself: its acknowledgements come behind its publishes.
            let takes = publisher != client && session.rights.may_read(router_form);
            let handle = session.handle.as_ref().filter(|_| takes && session.is_waited_for(now))?;
            Some([handle, own].map(Rc::clone))
        })
    }

    /// Whether a session is subscribed to a topic, be its client there or not.
    pub(crate) fn has_subscribers(&self, topic: &str) -> bool {
        !self.filters.matching(&topic::router_form(topic)).0.is_empty()
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

    fn forget(&mut self, client: &ClientId) {
        let Some(session) = self.sessions.remove(client) else { return };
        if session.is_persistent() {
            self.forgotten.insert(Rc::clone(client));
            self.to_store.notify_one();
        }
        if let Some(will) = session.will {
            self.due_wills.push((Rc::clone(client), will.will));
            self.timers.notify_one();
        }
        // A later session of the same name is owed nothing.
        for pending in self.pending.values_mut() {
            pending.targets.retain(|target| target.client != *client);
        }
        for filter in session.subscriptions.keys() {
            self.leave_filter(client, filter);
        }
    }
}

mod clients;
mod delivery;
mod keeping;
mod routing;
mod subscriptions;
#[cfg(test)]
mod tests;
mod wills;
