//! The node's own broker: from the settings to its listeners, and what it does as a [`Bus`].

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use beehive::{Context, Env, Fault, Moment};
use contract::eventbus::{BrokerReport, EventBusMsg};
use edge_store::{Row, Store};
use futures::FutureExt as _;
use futures::future::LocalBoxFuture;
use serde_json::{Map, Value, json};
use tokio::sync::{Mutex, Notify, watch};

use crate::access::{Access, Files};
use crate::broker::Broker;
use crate::bus::{Bus, Said};
use crate::connection_limits::ConnectionLimits;
use crate::error::RouterError;
use crate::incoming::large_packets;
use crate::intake::Intake;
use crate::keeper::{end_in_time, keep, publish_last_wills, store_once};
use crate::kept_time::KeptTime;
use crate::message::Message;
use crate::places::{self, Places};
use crate::quotas::Quotas;
use crate::retained::Retained;
use crate::rumqttd_router::{self, RouterRx};
use crate::shared::Shared;
use crate::tls::Tls;
use crate::{events, figures, place, topic, web_socket};

/// 5 s: a router that has been handed a message and has not answered by then never will.
const STALL: Duration = Duration::from_secs(5);
/// A router that dies six times in a minute is not helped by another one.
const DEATHS: usize = 5;
const DEATHS_WITHIN: Duration = Duration::from_secs(60);

/// What the store has of an earlier run.
pub(crate) struct Kept {
    pub(crate) retained: Vec<Row>,
    pub(crate) sessions: Vec<Row>,
    /// Goes on from that run.
    pub(crate) time: KeptTime,
}

/// See the module.
pub(crate) struct OwnBroker {
    pub(crate) shared: Rc<Shared>,
    config: config::edge::EventBus,
    store: Store,
    places: Rc<RefCell<Places>>,
    deaths: RefCell<Vec<Moment>>,
}

impl OwnBroker {
    /// Takes up what was kept, and serves the places that the settings name. `news` hears of it when one could not be had.
    pub(crate) async fn start(
        config: &config::edge::EventBus,
        store: &Store,
        kept: Kept,
        intake: Rc<Intake>,
        news: &Rc<Notify>,
        cx: &Context<EventBusMsg>,
    ) -> Result<Rc<Self>, Fault> {
        let shared = shared(config, kept, intake, cx.env());
        start_router(&shared, cx)?;
        cx.spawn(keep(Rc::clone(&shared), store.clone()));
        let mut files = Files::new(config);
        // Before the first client, so that nobody gets in by what does not hold, and before the first will of those that may not any more.
        files.look(&shared).await;
        cx.spawn(files.keep(Rc::clone(&shared)));
        // Before the listeners, so that what an earlier run left to be said is said before any client is back.
        cx.spawn(end_in_time(Rc::clone(&shared)));
        cx.spawn(figures::tell(Rc::clone(&shared)));
        let bound = Rc::<RefCell<Places>>::default();
        for place in place::of(config) {
            cx.spawn(places::serve(place, Rc::clone(&shared), Rc::clone(&bound)).await);
        }
        news.notify_one();
        bound.borrow().announce();
        let (config, store, deaths) = (config.clone(), store.clone(), RefCell::default());
        Ok(Rc::new(OwnBroker { shared, config, store, places: bound, deaths }))
    }
}

fn shared(config: &config::edge::EventBus, kept: Kept, intake: Rc<Intake>, env: &Env) -> Rc<Shared> {
    let clocks = kept.time.clocks(env.now());
    let budget = usize::try_from(config.max_retained_bytes).unwrap_or(usize::MAX);
    let packet_bytes = usize::try_from(config.max_message_bytes).unwrap_or(usize::MAX);
    let access = Access::new(config);
    let limits = ConnectionLimits::of(config);
    let quotas = Quotas::of(config);
    let retained = Retained::load(kept.retained, budget, clocks);
    let broker = Broker::new(retained, rumqttd_router::CAPS, access.first_acl());
    let mut broker = broker.with_room(limits).with_shares(quotas).with_counters(intake.counts.clone());
    broker = broker.with_rate(config.max_messages_per_second).with_queue(config.mqtt_session_queue_size);
    broker.restore(kept.sessions, clocks);
    Rc::new(Shared {
        broker: RefCell::new(broker),
        stored: watch::Sender::new(0),
        storing: Mutex::new(()),
        time: kept.time,
        intake,
        access,
        tls: Tls::new(&config.tls),
        web_socket: web_socket::Rules::of(config),
        limits,
        packet_bytes,
        max_keep_alive: config.max_keep_alive,
        large: large_packets(packet_bytes),
        env: env.clone(),
    })
}

impl Bus for OwnBroker {
    fn publish(&self, said: Said) -> LocalBoxFuture<'_, ()> {
        let retain = said.retain || (self.config.mqtt_retain && said.least_qos == 0);
        let qos = self.config.mqtt_qos.min(2).max(said.least_qos);
        publish(&self.shared, said, qos, retain).boxed_local()
    }

    /// What is retained is for those, too, who come later.
    fn has_listeners(&self, topic: &str) -> bool {
        self.config.mqtt_retain || self.shared.broker.borrow().has_subscribers(topic)
    }

    fn router_died(&self, cx: &Context<EventBusMsg>) -> Result<(), Fault> {
        if self.shared.broker.borrow().has_router() {
            return Ok(());
        }
        let now = cx.now();
        let mut deaths = self.deaths.borrow_mut();
        deaths.retain(|death| now.since(*death) < DEATHS_WITHIN);
        deaths.push(now);
        if deaths.len() > DEATHS {
            return Err(Fault::new("MQTT router dies again and again"));
        }
        start_router(&self.shared, cx)
    }

    fn report(&self) -> Option<BrokerReport> {
        let missing = &self.places.borrow().missing;
        let (is_usable, reason, message) = if missing.is_empty() {
            (true, "Usable", "the node's own broker serves its clients".to_owned())
        } else {
            let why: Vec<&str> = missing.values().map(String::as_str).collect();
            (false, "CannotListen", format!("the node's own broker {}", why.join(", and ")))
        };
        Some(BrokerReport { is_usable, is_external: false, reason, message })
    }

    fn show(&self, view: &mut Map<String, Value>) {
        show(&self.shared, &self.places.borrow(), &self.config, view);
    }

    fn stop(&self) -> LocalBoxFuture<'_, ()> {
        async {
            publish_last_wills(&self.shared).await;
            self.shared.broker.borrow().close_all();
            store_once(&self.shared, &self.store, &self.shared.env).await;
            self.places.borrow_mut().unix = None;
        }
        .boxed_local()
    }
}

async fn publish(shared: &Shared, said: Said, qos: u8, retain: bool) {
    let Said { topic: name, payload, .. } = said;
    if let Some(defect) = topic::name_defect(&name) {
        shared.broker.borrow().counts.own_topic_refused(&name, defect.reason());
        return;
    }
    let message = Message::of_node(name, payload, qos, retain);
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

/// What there is to see of the broker.
fn show(shared: &Shared, places: &Places, config: &config::edge::EventBus, view: &mut Map<String, Value>) {
    let Places { plain, tls, web_socket, unix, missing } = places;
    let broker = shared.broker.borrow();
    let (clients, sessions, subscriptions) = broker.sizes();
    let seen = json!({
        "listening": plain,
        "listeningTls": tls,
        "listeningWebSocket": web_socket,
        "listeningUnix": unix.as_ref().map(|_| &config.unix_socket.path),
        "notListening": missing,
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
        "wills": broker.wills(),
    });
    view.extend(seen.as_object().cloned().unwrap_or_default());
    for (key, event) in COUNTED {
        view.insert((*key).to_owned(), broker.counts.of(event).into());
    }
}

/// What is counted, under the name that it is shown by.
const COUNTED: [(&str, &str); 30] = [
    ("messagesIn", events::MESSAGE_IN),
    ("messagesOut", events::MESSAGE_OUT),
    ("refusedTopics", events::TOPIC_REFUSED),
    ("refusedPublishes", events::PUBLISH_REFUSED),
    ("refusedWills", events::WILL_REFUSED),
    ("refusedLogins", events::LOGIN_REFUSED),
    ("refusedUnauthorized", events::UNAUTHORIZED_REFUSED),
    ("refusedBusy", events::BUSY_REFUSED),
    ("refusedHandshakes", events::HANDSHAKE_REFUSED),
    ("refusedVersions", events::VERSION_REFUSED),
    ("displacedClients", events::CLIENT_DISPLACED),
    ("takenOver", events::SESSION_TAKEN_OVER),
    ("revoked", events::CONNECTION_REVOKED),
    ("refusedByTwin", events::TWIN_REFUSED),
    ("unansweredByTwin", events::TWIN_UNANSWERED),
    ("refusedSubscriptions", events::SUBSCRIPTION_REFUSED),
    ("refusedConnections", events::CONNECTION_REFUSED),
    ("brokenConnections", events::CONNECTION_MALFORMED),
    ("droppedQos0", events::QOS0_DROPPED),
    ("lostQos1", events::QOS1_LOST),
    ("cutOff", events::CLIENT_CUT_OFF),
    ("notRetained", events::NOT_RETAINED),
    ("notKeptWills", events::WILL_NOT_KEPT),
    ("routerDeaths", events::ROUTER_DIED),
    ("routerRebuilds", events::ROUTER_REPLACED),
    ("forgottenSessions", events::SESSION_FORGOTTEN),
    ("refusedSessions", events::SESSION_REFUSED),
    ("expiredSessions", events::SESSION_EXPIRED),
    ("slowed", events::CLIENT_SLOWED),
    ("oversized", events::OVERSIZED),
];
