//! The EventBus' actor: which brokers there are, and what they share.

use std::path::PathBuf;
use std::rc::Rc;

use beehive::{Actor, Address, Context, Fault};
use bytes::Bytes;
use contract::devicetwin::TwinMsg;
use contract::edged::EdgedMsg;
use contract::eventbus::EventBusMsg;
use contract::metamanager::MetaMsg;
use edge_store::{Row, Store, StoreError, Table};
use tokio::sync::Notify;

use crate::bus::{self, Bus, Said};
use crate::events::Counters;
use crate::external::{ExternalBus, ExternalSettings};
use crate::intake::Intake;
use crate::keeper::STORE_PAUSE;
use crate::kept_time::{self, MachineClocks};
use crate::own_broker::{Kept, OwnBroker};
use crate::quotas::Quotas;
use crate::uploads::Uploads;
use crate::{events, external, topic, uploads};

/// The brokers of a node.
pub struct EventBus {
    config: config::edge::EventBus,
    store: Store,
    twin: Address<TwinMsg>,
    meta: Address<MetaMsg>,
    node: String,
    edged: Option<Address<EdgedMsg>>,
    boot_id_file: PathBuf,
    running: Option<Running>,
    /// Where a test finds the broker of the running incarnation.
    #[cfg(test)]
    spy: tests::Spy,
}

struct Running {
    intake: Rc<Intake>,
    buses: Vec<Rc<dyn Bus>>,
}

impl EventBus {
    /// The brokers that `config` names: the node's own one, which keeps sessions and retained messages in `store`, and one
    /// elsewhere. They ask `twin` about what clients publish on its topics; its address is to be granted for asking. What is for
    /// the cloud goes into the outbox of `store`, of which `meta` is told.
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
            node: "node".to_owned(),
            edged: None,
            boot_id_file: PathBuf::from("/proc/sys/kernel/random/boot_id"),
            running: None,
            #[cfg(test)]
            spy: tests::Spy::default(),
        }
    }

    /// On the node of that name, by which a broker elsewhere knows it. `edged` is told whether the brokers can be used.
    pub fn on_node(self, node: &str, edged: Address<EdgedMsg>) -> Self {
        EventBus { node: node.to_owned(), edged: Some(edged), ..self }
    }

    /// On a machine whose boot id stands there.
    pub fn booted_as(self, boot_id_file: PathBuf) -> Self {
        EventBus { boot_id_file, ..self }
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

    /// What the store has: retained messages, sessions of clients, what is on its way to a broker elsewhere, and where the time stood,
    /// which goes on from there.
    async fn kept(&self, cx: &Context<EventBusMsg>) -> Result<(Kept, Vec<Row>), Fault> {
        // What an earlier incarnation has handed to the store is in it when this comes back.
        self.store.commit(Vec::new()).await.map_err(|e| Fault::from_error(&e))?;
        let (store, boot_id_file) = (self.store.clone(), self.boot_id_file.clone());
        let rows = cx
            .env()
            .blocking(move || {
                let retained = store.list_rows(Table::Retained, None)?;
                let sessions = store.list_rows(Table::MqttSessions, None)?;
                let time = kept_time::row(&store)?;
                Ok::<_, StoreError>((retained, sessions, time, MachineClocks::read(&boot_id_file)))
            })
            .await?;
        let (retained, sessions, time, machine) = rows.map_err(|e| Fault::from_error(&e))?;
        let time = kept_time::begin(time.as_deref(), &machine, cx.env());
        cx.spawn(kept_time::keep(time, machine, self.store.clone(), cx.env().clone()));
        let (outbound, sessions) = sessions.into_iter().partition(external::is_outbound);
        Ok((Kept { retained, sessions, time }, outbound))
    }

    /// Starts the brokers that the settings name.
    async fn start(
        &mut self,
        intake: &Rc<Intake>,
        news: &Rc<Notify>,
        cx: &Context<EventBusMsg>,
    ) -> Result<Vec<Rc<dyn Bus>>, Fault> {
        let (kept, outbound) = self.kept(cx).await?;
        let time = kept.time;
        let mut buses: Vec<Rc<dyn Bus>> = Vec::new();
        if self.config.has_own_broker() {
            let own = OwnBroker::start(&self.config, &self.store, kept, Rc::clone(intake), news, cx).await?;
            #[cfg(test)]
            self.spy.replace(Some(Rc::clone(&own.shared)));
            buses.push(own);
        }
        match ExternalSettings::of(&self.config, &self.node) {
            Some(settings) => {
                let store = self.store.clone();
                buses.push(ExternalBus::start(
                    settings,
                    store,
                    (outbound, time),
                    Rc::clone(intake),
                    news,
                    cx,
                ));
            }
            None => external::forget(&self.store, &outbound).await,
        }
        Ok(buses)
    }
}

impl Actor for EventBus {
    type Message = EventBusMsg;

    async fn started(&mut self, cx: &mut Context<EventBusMsg>) -> Result<(), Fault> {
        let counters = Counters::new(cx.env().metrics());
        let own = Rc::new(Uploads::new(Quotas::of(&self.config), counters.clone()));
        cx.spawn(uploads::keep(Rc::clone(&own), cx.env().clone(), self.store.clone(), self.meta.clone()));
        let intake = Intake::new(self.twin.clone(), own, counters, cx.env().clone());
        intake.rule_topics.read(cx.env(), self.store.clone()).await?;
        let news = Rc::<Notify>::default();
        let buses = self.start(&intake, &news, cx).await?;
        intake.began(&buses);
        if let Some(edged) = &self.edged {
            cx.spawn(bus::tell_edged(buses.clone(), news, edged.clone(), cx.env().clone()));
        }
        self.running = Some(Running { intake, buses });
        Ok(())
    }

    async fn handle(&mut self, message: EventBusMsg, cx: &mut Context<EventBusMsg>) -> Result<(), Fault> {
        let Some(Running { intake, buses }) = &self.running else {
            return Err(Fault::new("broker has not started"));
        };
        match message {
            EventBusMsg::Publish { topic, payload, retain } => {
                let said = Said { topic, payload, retain, least_qos: 0 };
                for bus in buses {
                    bus.publish(said.clone()).await;
                }
                Ok(())
            }
            EventBusMsg::Deliver { topic, payload, reply } => {
                reply.send(deliver(buses, topic, payload).await);
                Ok(())
            }
            EventBusMsg::ObjectsChanged(_) => intake.rule_topics.read(cx.env(), self.store.clone()).await,
            EventBusMsg::RouterDied => buses.iter().try_for_each(|bus| bus.router_died(cx)),
        }
    }

    async fn stopping(&mut self, cx: &mut Context<EventBusMsg>) {
        let Some(Running { intake, buses }) = &self.running else { return };
        for bus in buses {
            bus.stop().await;
        }
        // What a device sent without asking for a word back is kept, too, if the store is quick.
        cx.env().timeout(STORE_PAUSE, intake.uploads.settled()).await;
    }

    fn snapshot(&self) -> serde_json::Value {
        let Some(Running { intake, buses }) = &self.running else {
            return serde_json::Value::Null;
        };
        let mut view = serde_json::Map::new();
        for bus in buses {
            bus.show(&mut view);
        }
        let counts = &intake.counts;
        let of_uploads = [
            ("uploaded", counts.of(events::UPLOAD_KEPT)),
            ("uploadsWaiting", intake.uploads.waiting() as u64),
            ("uploadSources", intake.uploads.sources() as u64),
            ("ruleTopics", intake.rule_topics.len() as u64),
            ("refusedUploads", counts.of(events::UPLOAD_REFUSED)),
            ("droppedUploads", counts.of(events::UPLOAD_DROPPED)),
        ];
        view.extend(of_uploads.map(|(key, count)| (key.to_owned(), count.into())));
        view.into()
    }
}

/// What a rule brings; it has QoS 1 at least and is not retained.
async fn deliver(buses: &[Rc<dyn Bus>], topic: String, payload: Bytes) -> Result<(), String> {
    if !contract::rule_stream::may_publish(&topic) {
        return Err(contract::rule_stream::RuleStreamError::Topic.to_string());
    }
    if let Some(defect) = topic::name_defect(&topic) {
        return Err(format!("topic of the rule: {}", defect.reason()));
    }
    let said = Said { topic, payload, retain: false, least_qos: 1 };
    for bus in buses {
        bus.publish(said.clone()).await;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
