//! A broker elsewhere, of which `edgecore` is a client: KubeEdge's `mqttMode` 1 and 2.
//!
//! Two connections, as KubeEdge has them. One listens to the topics that are clients' to publish for DeviceTwin and for the cloud,
//! with QoS 1, in a session that the broker keeps: what comes is acknowledged after DeviceTwin's commit or that of the outbox, so
//! that the broker says it again to whoever has not kept it. The other publishes what `edgecore` says with QoS 1: it waits in the
//! store until the broker has acknowledged it, in order, up to a bound.
//!
//! rumqttc is not used for that: its event loop forgets what was not acknowledged when the broker has no session any more, and has no
//! door for a connection that somebody else makes, so that its TLS would be a second one with known faults (`.deny.toml`). What
//! goes over the wire is the half of the broker's own codec that a client speaks (`packet/as_client.rs`).

mod dial;
mod fault;
mod link;
mod outbound;
mod publisher;
mod state;
mod subscriber;

use std::rc::Rc;

use beehive::{Context, Fault};
use config::edge::{EventBus as Config, ExternalServer, ExternalTls, Password};
use contract::eventbus::{BrokerReport, EventBusMsg};
use edge_store::{Row, Store, Table, Write};
use futures::FutureExt as _;
use futures::future::LocalBoxFuture;
use serde_json::{Map, Value, json};
use tokio::sync::Notify;

use crate::bus::{Bus, Said};
use crate::identity::EXTERNAL;
use crate::intake::Intake;
use crate::kept_time::KeptTime;
use crate::packet::as_client::Hello;
use crate::plan;
use link::Part as _;
use outbound::Outbound;
use publisher::Publisher;
use state::LinkStates;
use subscriber::Subscriber;

/// Which broker, and who `edgecore` is there.
#[derive(Debug, Clone)]
pub(crate) struct ExternalSettings {
    server: ExternalServer,
    tls: ExternalTls,
    user: String,
    password: Password,
    listens_as: String,
    publishes_as: String,
}

impl ExternalSettings {
    /// Those of `config` on the node of that name; `None` where there is no such broker.
    pub(crate) fn of(config: &Config, node: &str) -> Option<Self> {
        if !config.has_external_broker() {
            return None;
        }
        let or = |given: &str, prefix: &str| {
            if given.is_empty() { format!("{prefix}{node}") } else { given.to_owned() }
        };
        Some(ExternalSettings {
            // What cannot be read was refused with the file.
            server: config.external_server().ok()?,
            tls: config.external_tls.clone(),
            user: config.mqtt_username.clone(),
            password: config.mqtt_password.clone(),
            listens_as: or(&config.mqtt_sub_client_id, "hub-client-sub-"),
            publishes_as: or(&config.mqtt_pub_client_id, "hub-client-pub-"),
        })
    }
}

impl ExternalSettings {
    fn hello<'a>(&'a self, client_id: &'a str, clean: bool) -> Hello<'a> {
        let (user, password) = (self.user.as_str(), self.password.text());
        Hello { client_id, clean, keep_alive: link::KEEP_ALIVE, user, password }
    }
}

/// Whether a row of the sessions' table is of what waits for such a broker.
pub(crate) fn is_outbound(row: &Row) -> bool {
    row.key1 == EXTERNAL
}

/// There is no such broker any more, and nobody waits for what was to go there.
pub(crate) async fn forget(store: &Store, outbound: &[Row]) {
    if outbound.is_empty() {
        return;
    }
    tracing::info!(
        rows = outbound.len(),
        "what was to go to an external MQTT broker is forgotten: modules.eventBus.mqttMode names none"
    );
    let delete = Write::DeleteRows { table: Table::MqttSessions, key1: EXTERNAL.to_owned() };
    if let Err(error) = store.commit(vec![delete]).await {
        let reason = Fault::from_error(&error).reason;
        tracing::warn!(reason, "rows for an external MQTT broker stay in the store until the next start");
    }
}

/// See the module.
pub(crate) struct ExternalBus {
    server: String,
    outbound: Rc<Outbound>,
    links: Rc<LinkStates>,
    env: beehive::Env,
    store: Store,
}

impl ExternalBus {
    /// Takes up what was on its way (`kept`; `time` goes on from then), and connects. `news` hears when that changes.
    pub(crate) fn start(
        settings: ExternalSettings,
        store: Store,
        (kept, time): (Vec<Row>, KeptTime),
        intake: Rc<Intake>,
        news: &Rc<Notify>,
        cx: &Context<EventBusMsg>,
    ) -> Rc<Self> {
        let env = cx.env();
        let outbound = Outbound::restore(&kept, time, env.now(), intake.counts.clone());
        let links = LinkStates::new(&settings, Rc::clone(news));
        let settings = Rc::new(settings);
        cx.spawn(outbound::keep(Rc::clone(&outbound), store.clone(), env.clone()));
        let publisher = Publisher::new(Rc::clone(&outbound));
        cx.spawn(link::keep(Rc::clone(&settings), publisher, Rc::clone(&links), env.clone()));
        let subscriber = Subscriber::new(intake);
        cx.spawn(link::keep(Rc::clone(&settings), subscriber, Rc::clone(&links), env.clone()));
        let server = settings.server.to_string();
        Rc::new(ExternalBus { server, outbound, links, env: env.clone(), store })
    }
}

impl Bus for ExternalBus {
    fn publish(&self, said: Said) -> LocalBoxFuture<'_, ()> {
        self.outbound.put(said);
        std::future::ready(()).boxed_local()
    }

    /// Nobody but that broker knows.
    fn has_listeners(&self, _topic: &str) -> bool {
        true
    }

    fn report(&self) -> Option<BrokerReport> {
        self.links.report()
    }

    fn show(&self, view: &mut Map<String, Value>) {
        let external = json!({
            "server": self.server,
            "listens": self.links.shown(Subscriber::ROLE),
            "publishes": self.links.shown(Publisher::ROLE),
            "waiting": self.outbound.waiting(),
        });
        view.insert("external".to_owned(), external);
    }

    fn stop(&self) -> LocalBoxFuture<'_, ()> {
        async {
            self.env.timeout(plan::GOODBYE, self.links.end()).await;
            outbound::store_once(&self.outbound, &self.store, &self.env).await;
        }
        .boxed_local()
    }
}
