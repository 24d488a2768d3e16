//! The EventBus' actor.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use beehive::{Actor, Address, Context, Fault, Moment};
use bytes::Bytes;
use contract::devicetwin::TwinMsg;
use contract::eventbus::EventBusMsg;
use contract::metamanager::MetaMsg;
use edge_store::{Store, Table};
use tokio::sync::{Mutex, watch};

use crate::access::{Access, Files};
use crate::broker::Broker;
use crate::connection_limits::ConnectionLimits;
use crate::error::RouterError;
use crate::events::Counters;
use crate::incoming::large_packets;
use crate::keeper::{STORE_PAUSE, end_in_time, keep, store_once};
use crate::message::{Clocks, Message};
use crate::places::Places;
use crate::quotas::Quotas;
use crate::retained::Retained;
use crate::rule_topics::RuleTopics;
use crate::rumqttd_router::{self, RouterRx};
use crate::shared::Shared;
use crate::tls::Tls;
use crate::uploads::Uploads;
use crate::{events, figures, places, topic, uploads};

/// 5 s: a router that has been handed a message and has not answered by then never will.
const STALL: Duration = Duration::from_secs(5);
/// A router that dies six times in a minute is not helped by another one.
const DEATHS: usize = 5;
const DEATHS_WITHIN: Duration = Duration::from_secs(60);

/// The broker of a node.
pub struct EventBus {
    config: config::edge::EventBus,
    store: Store,
    twin: Address<TwinMsg>,
    meta: Address<MetaMsg>,
    running: Option<Running>,
    deaths: Vec<Moment>,
    /// Where a test finds the broker of the running incarnation.
    #[cfg(test)]
    spy: tests::Spy,
}

struct Running {
    shared: Rc<Shared>,
    places: Rc<RefCell<Places>>,
}

impl EventBus {
    /// A broker that listens where `config` says, keeps retained messages in `store` and asks `twin` about what clients
    /// publish on its topics; its address is to be granted for asking. What is for the cloud goes into the outbox of
    /// `store`, of which `meta` is told.
    pub fn new(
        config: &config::edge::EventBus,
        store: Store,
        twin: Address<TwinMsg>,
        meta: Address<MetaMsg>,
    ) -> Self {
        EventBus {
            config: config.clone(),
            store,
            twin,
            meta,
            running: None,
            deaths: Vec::new(),
            #[cfg(test)]
            spy: tests::Spy::default(),
        }
    }

    /// What a supervisor makes brokers with.
    pub fn factory(
        config: config::edge::EventBus,
        store: Store,
        twin: Address<TwinMsg>,
        meta: Address<MetaMsg>,
    ) -> impl FnMut() -> EventBus + 'static {
        move || EventBus::new(&config, store.clone(), twin.clone(), meta.clone())
    }
}

impl Actor for EventBus {
    type Message = EventBusMsg;

    async fn started(&mut self, cx: &mut Context<EventBusMsg>) -> Result<(), Fault> {
        // What an earlier incarnation has handed to the store is in it when this comes back.
        self.store.commit(Vec::new()).await.map_err(|e| Fault::from_error(&e))?;
        let store = self.store.clone();
        let rows = cx
            .env()
            .blocking(move || {
                store
                    .list_rows(Table::Retained, None)
                    .and_then(|retained| Ok((retained, store.list_rows(Table::MqttSessions, None)?)))
            })
            .await?;
        let (retained, sessions) = rows.map_err(|e| Fault::from_error(&e))?;
        let clocks = Clocks::of(cx.env());
        let budget = usize::try_from(self.config.max_retained_bytes).unwrap_or(usize::MAX);
        let packet_bytes = usize::try_from(self.config.max_message_bytes).unwrap_or(usize::MAX);
        let access = Access::new(&self.config);
        let limits = ConnectionLimits::of(&self.config);
        let quotas = Quotas::of(&self.config);
        let counters = Counters::new(cx.env().metrics());
        let retained = Retained::load(retained, budget, clocks);
        let broker = Broker::new(retained, rumqttd_router::CAPS, access.first_acl());
        let mut broker = broker.with_room(limits).with_shares(quotas).with_counters(counters.clone());
        broker.restore(sessions, clocks);
        let shared = Rc::new(Shared {
            broker: RefCell::new(broker),
            stored: watch::Sender::new(0),
            storing: Mutex::new(()),
            uploads: Rc::new(Uploads::new(quotas, counters)),
            rule_topics: RuleTopics::default(),
            access,
            tls: Tls::new(&self.config.tls),
            limits,
            packet_bytes,
            large: large_packets(packet_bytes),
            twin: self.twin.clone(),
            env: cx.env().clone(),
        });
        shared.rule_topics.read(cx.env(), self.store.clone()).await?;
        start_router(&shared, cx)?;
        cx.spawn(keep(Rc::clone(&shared), self.store.clone()));
        let uploads = Rc::clone(&shared.uploads);
        cx.spawn(uploads::keep(uploads, cx.env().clone(), self.store.clone(), self.meta.clone()));
        let mut files = Files::new(&self.config);
        // Before the first client, so that nobody gets in by what does not hold.
        files.look(&shared).await;
        if !self.config.password_file.as_os_str().is_empty() {
            let access = &shared.access;
            shared.broker.borrow_mut().forget_users(|user| access.knows(user));
        }
        cx.spawn(files.keep(Rc::clone(&shared)));
        cx.spawn(end_in_time(Rc::clone(&shared)));
        cx.spawn(figures::tell(Rc::clone(&shared)));
        let bound = Rc::<RefCell<Places>>::default();
        for place in places::of(&self.config) {
            cx.spawn(places::serve(place, Rc::clone(&shared), Rc::clone(&bound)).await);
        }
        {
            let Places { plain, tls, unix, .. } = &*bound.borrow();
            if plain.is_some() || tls.is_some() || unix.is_some() {
                tracing::info!(?plain, ?tls, unix = unix.is_some(), "MQTT clients may connect");
            }
        }
        #[cfg(test)]
        self.spy.replace(Some(Rc::clone(&shared)));
        self.running = Some(Running { shared, places: bound });
        Ok(())
    }

    async fn handle(&mut self, message: EventBusMsg, cx: &mut Context<EventBusMsg>) -> Result<(), Fault> {
        let Some(Running { shared, .. }) = &self.running else {
            return Err(Fault::new("broker has not started"));
        };
        match message {
            EventBusMsg::Publish { topic, payload, qos, retain } => {
                publish(shared, topic, payload, qos, retain).await;
                Ok(())
            }
            EventBusMsg::Deliver { topic, payload, reply } => {
                reply.send(deliver(shared, topic, payload).await);
                Ok(())
            }
            EventBusMsg::ObjectsChanged(_) => shared.rule_topics.read(cx.env(), self.store.clone()).await,
            EventBusMsg::RouterDied => revive(shared, &mut self.deaths, cx),
        }
    }

    async fn stopping(&mut self, cx: &mut Context<EventBusMsg>) {
        let Some(Running { shared, .. }) = &self.running else { return };
        shared.broker.borrow().close_all();
        // What a device sent without asking for a word back is kept, too, if the store is quick.
        cx.env().timeout(STORE_PAUSE, shared.uploads.settled()).await;
        store_once(shared, &self.store, cx.env()).await;
        if let Some(running) = &mut self.running {
            running.places.borrow_mut().unix = None;
        }
    }

    fn snapshot(&self) -> serde_json::Value {
        let Some(Running { shared, places }) = &self.running else {
            return serde_json::Value::Null;
        };
        let Places { plain, tls, unix, missing } = &*places.borrow();
        let broker = shared.broker.borrow();
        let (clients, sessions, subscriptions) = broker.sizes();
        let counts = &broker.counts;
        let mut view = serde_json::json!({
            "listening": plain,
            "listeningTls": tls,
            "listeningUnix": unix.as_ref().map(|_| &self.config.unix_socket.path),
            "router": if broker.has_router() { "up" } else { "down" },
            "clients": clients,
            "namedClients": broker.named(),
            "clientsByUid": broker.by_uid(),
            "users": shared.access.users(),
            "passwordsWaiting": shared.access.waiting(),
            "refusedFiles": *shared.access.problems.borrow(),
            "sessions": sessions,
            "subscriptions": subscriptions,
            "retained": broker.retained.len(),
            "messagesIn": counts.of(events::MESSAGE_IN),
            "messagesOut": counts.of(events::MESSAGE_OUT),
            "refusedTopics": counts.of(events::TOPIC_REFUSED),
            "refusedPublishes": counts.of(events::PUBLISH_REFUSED),
            "refusedWills": counts.of(events::WILL_REFUSED),
            "refusedLogins": counts.of(events::LOGIN_REFUSED),
            "refusedUnauthorized": counts.of(events::UNAUTHORIZED_REFUSED),
            "refusedBusy": counts.of(events::BUSY_REFUSED),
            "refusedHandshakes": counts.of(events::HANDSHAKE_REFUSED),
            "displacedClients": counts.of(events::CLIENT_DISPLACED),
            "takenOver": counts.of(events::SESSION_TAKEN_OVER),
            "revoked": counts.of(events::CONNECTION_REVOKED),
            "refusedByTwin": counts.of(events::TWIN_REFUSED),
            "unansweredByTwin": counts.of(events::TWIN_UNANSWERED),
            "refusedSubscriptions": counts.of(events::SUBSCRIPTION_REFUSED),
            "refusedConnections": counts.of(events::CONNECTION_REFUSED),
            "brokenConnections": counts.of(events::CONNECTION_MALFORMED),
            "droppedQos0": counts.of(events::QOS0_DROPPED),
            "lostQos1": counts.of(events::QOS1_LOST),
            "cutOff": counts.of(events::CLIENT_CUT_OFF),
            "uploaded": counts.of(events::UPLOAD_KEPT),
            "uploadsWaiting": shared.uploads.waiting(),
            "uploadSources": shared.uploads.sources(),
            "refusedUploads": counts.of(events::UPLOAD_REFUSED),
            "droppedUploads": counts.of(events::UPLOAD_DROPPED),
            "notRetained": counts.of(events::NOT_RETAINED),
            "routerDeaths": counts.of(events::ROUTER_DIED),
            "routerRebuilds": counts.of(events::ROUTER_REPLACED),
        });
        let shared_out = [
            ("forgottenSessions", counts.of(events::SESSION_FORGOTTEN)),
            ("expiredSessions", counts.of(events::SESSION_EXPIRED)),
            ("slowed", counts.of(events::CLIENT_SLOWED)),
            ("oversized", counts.of(events::OVERSIZED)),
            ("refusedVersions", counts.of(events::VERSION_REFUSED)),
        ];
        for (key, count) in shared_out {
            view[key] = count.into();
        }
        view["ruleTopics"] = shared.rule_topics.len().into();
        view["notListening"] = serde_json::json!(missing);
        view
    }
}

/// What a rule brings; it has QoS 1 and is not retained.
async fn deliver(shared: &Rc<Shared>, name: String, payload: Bytes) -> Result<(), String> {
    if !contract::rule_stream::may_publish(&name) {
        return Err(contract::rule_stream::RuleStreamError::Topic.to_string());
    }
    if let Some(defect) = topic::name_defect(&name) {
        return Err(format!("topic of the rule: {}", defect.reason()));
    }
    publish(shared, name, payload, 1, false).await;
    Ok(())
}

async fn publish(shared: &Rc<Shared>, name: String, payload: Bytes, qos: u8, retain: bool) {
    if let Some(defect) = topic::name_defect(&name) {
        shared.broker.borrow().counts.own_topic_refused(&name, defect.reason());
        return;
    }
    let message = Message::of_node(name, payload, qos.min(2), retain);
    shared.broker.borrow_mut().publish(message, retain);
    loop {
        let moved = {
            let broker = shared.broker.borrow();
            if !broker.backlog_is_long() {
                return;
            }
            Rc::clone(&broker.moved)
        };
        moved.notified().await;
    }
}

fn revive(shared: &Rc<Shared>, deaths: &mut Vec<Moment>, cx: &Context<EventBusMsg>) -> Result<(), Fault> {
    if shared.broker.borrow().has_router() {
        return Ok(());
    }
    let now = cx.now();
    deaths.retain(|death| now.since(*death) < DEATHS_WITHIN);
    deaths.push(now);
    if deaths.len() > DEATHS {
        return Err(Fault::new("MQTT router dies again and again"));
    }
    start_router(shared, cx)?;
    Ok(())
}

fn start_router(shared: &Rc<Shared>, cx: &Context<EventBusMsg>) -> Result<(), Fault> {
    let (router_tx, router_rx) = rumqttd_router::start().map_err(|e| Fault::from_error(&e))?;
    shared.broker.borrow_mut().router_started(router_tx);
    let (shared, myself) = (Rc::clone(shared), cx.myself());
    cx.spawn(async move {
        let error = route(&shared, router_rx).await;
        shared.broker.borrow_mut().router_died(&error);
        let _ = myself.tell(EventBusMsg::RouterDied).await;
    });
    Ok(())
}

/// Takes the answers of one router after the other until one dies.
async fn route(shared: &Shared, mut router_rx: RouterRx) -> RouterError {
    loop {
        if let Some(error) = pump(shared, &mut router_rx).await {
            return error;
        }
        let router_tx = match rumqttd_router::start() {
            Ok((router_tx, fresh)) => {
                router_rx = fresh;
                router_tx
            }
            Err(error) => return error,
        };
        shared.broker.borrow_mut().router_replaced(router_tx);
    }
}

/// Takes the router's answers until it dies, which is an error, or is full, which is none.
async fn pump(shared: &Shared, router_rx: &mut RouterRx) -> Option<RouterError> {
    let mut oldest: Option<(u64, Moment)> = None;
    let full = Rc::clone(&shared.broker.borrow().full);
    loop {
        tokio::select! {
            next = shared.env.timeout(STALL, router_rx.next()) => match next {
                Some(Ok(found)) => shared.broker.borrow_mut().matched(found),
                Some(Err(error)) => return Some(error),
                None => {}
            },
            () = full.notified() => {}
        }
        let (now, broker) = (shared.env.now(), shared.broker.borrow());
        let owed = broker.owed();
        let same = oldest.filter(|(message, _)| owed == Some(*message));
        if !broker.has_router() || same.is_some_and(|(_, since)| now.since(since) >= STALL) {
            return Some(RouterError::Stalled);
        }
        if broker.router_is_full() {
            return None;
        }
        oldest = same.or_else(|| owed.map(|message| (message, now)));
    }
}

#[cfg(test)]
mod tests;
