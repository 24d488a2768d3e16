//! DeviceTwin's actor.

mod clients;
mod keeping;
mod look;
mod mappers;
mod registration;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::SystemTime;

use beehive::{Actor, Address, Context, Fault};
use bytes::Bytes;
use contract::NodeName;
use contract::devicetwin::TwinMsg;
use contract::eventbus::EventBusMsg;
use contract::metamanager::MetaMsg;
use edge_store::{Store, Write};
use tokio::sync::mpsc;

use crate::door::Callers;
use crate::holder::Holder;
use crate::mapper::Session;
use crate::members::{self, Member};
use crate::payload::Base;
use crate::peer::{Kernel, Peers};
use crate::push::{Catalog, Met};
use crate::share::Share;
use crate::topic::DeviceId;
use crate::{rows, server};

/// 1024 messages may wait for EventBus; what comes on top is dropped and counted.
const OUTGOING_MAX: usize = 1024;
/// 8 MiB of payloads may wait for EventBus: messages are a few hundred bytes, unless somebody tries it on.
const OUTGOING_BYTES_MAX: usize = 8 << 20;

type Publication = (String, Bytes);

/// Keeps the twins of the node's devices and speaks with their mappers.
pub struct DeviceTwin {
    node: NodeName,
    settings: config::edge::DeviceTwin,
    peers: Arc<dyn Peers>,
    callers: Arc<Callers>,
    store: Store,
    bus: Address<EventBusMsg>,
    meta: Address<MetaMsg>,
    outgoing: Option<mpsc::Sender<Publication>>,
    outgoing_bytes: Rc<Cell<usize>>,
    dropped: u64,
    catalog: Catalog,
    members: BTreeMap<DeviceId, Member>,
    /// The mapper of each protocol.
    sessions: BTreeMap<String, Session>,
    session_number: u64,
    /// For whom the pods that called speak, by uid.
    holders: BTreeMap<String, Holder>,
    /// What the devices of a protocol weigh, from the first change after a look on.
    shares: BTreeMap<String, Share>,
    /// The reports that wait have their turn soon.
    reporting: bool,
    /// Calls of mappers that were not theirs to make.
    denied: u64,
}

impl DeviceTwin {
    /// The twins of `node` over `store`, with their neighbours. Publications go to `bus`.
    pub fn new(
        node: NodeName,
        settings: &config::edge::DeviceTwin,
        store: Store,
        bus: Address<EventBusMsg>,
        meta: Address<MetaMsg>,
    ) -> Self {
        DeviceTwin {
            node,
            settings: settings.clone(),
            peers: Arc::new(Kernel),
            callers: Arc::default(),
            store,
            bus,
            meta,
            outgoing: None,
            outgoing_bytes: Rc::default(),
            dropped: 0,
            catalog: Catalog::default(),
            members: BTreeMap::new(),
            sessions: BTreeMap::new(),
            session_number: 0,
            holders: BTreeMap::new(),
            shares: BTreeMap::new(),
            reporting: false,
            denied: 0,
        }
    }

    /// Asks `peers` who calls, in place of the kernel.
    #[must_use]
    pub fn told_by(mut self, peers: Arc<dyn Peers>) -> Self {
        self.peers = peers;
        self
    }

    /// The folder that mappers share.
    fn folder(&self) -> &std::path::Path {
        &self.settings.dmi_sock_path
    }
}

impl Actor for DeviceTwin {
    type Message = TwinMsg;

    async fn started(&mut self, cx: &mut Context<TwinMsg>) -> Result<(), Fault> {
        self.load().map_err(|error| Fault::from_error(&error))?;
        self.publish_beside(cx);
        if self.members.values().any(Member::waits) {
            self.report_later(cx);
        }
        self.look(cx).await;
        let place = server::Place {
            folder: self.folder().to_owned(),
            group: self.settings.dmi_sock_group.clone(),
            peers: Arc::clone(&self.peers),
            callers: Arc::clone(&self.callers),
        };
        let (twin, env) = (cx.myself(), cx.env().clone());
        cx.spawn(async move { server::serve(place, twin, env).await });
        Ok(())
    }

    async fn handle(&mut self, message: TwinMsg, cx: &mut Context<TwinMsg>) -> Result<(), Fault> {
        match message {
            TwinMsg::Look => self.look(cx).await,
            TwinMsg::Mqtt { topic, payload, reply } => reply.send(self.mqtt(&topic, &payload, cx).await),
            TwinMsg::Dmi { caller, call, reply } => reply.send(self.dmi(&caller, call, cx).await),
            TwinMsg::Report => self.report_now(cx).await,
            TwinMsg::Push { protocol } => self.retry(&protocol, cx),
            TwinMsg::Pushed { protocol, session, done, failure } => {
                self.pushed(&protocol, session, &done, failure, cx).await;
            }
        }
        Ok(())
    }

    fn snapshot(&self) -> serde_json::Value {
        let twins: usize = self.members.values().map(|member| member.twins.len()).sum();
        let mappers: serde_json::Map<String, serde_json::Value> = self
            .sessions
            .iter()
            .map(|(protocol, session)| {
                let shown = serde_json::json!({
                    "name": session.row.name, "version": session.row.version, "address": session.row.address,
                    "holder": session.row.holder.to_string(),
                    "devices": session.row.sent.devices.len(), "failures": session.failures,
                });
                (protocol.clone(), shown)
            })
            .collect();
        serde_json::json!({
            "devices": self.members.len(), "twins": twins, "mappers": mappers, "droppedPublications": self.dropped,
            "deniedCalls": self.denied, "connectionsTurnedAway": self.callers.turned_away(),
        })
    }
}

/// Beginning, publishing and time.
impl DeviceTwin {
    fn load(&mut self) -> Result<(), edge_store::StoreError> {
        self.members = members::load(&self.store)?;
        for (protocol, row) in rows::mappers(&self.store)? {
            self.session_number += 1;
            self.sessions.insert(protocol, Session::new(row, Met::default(), self.session_number));
        }
        Ok(())
    }

    /// Publications leave in order, and beside this actor: EventBus may be waiting for it.
    fn publish_beside(&mut self, cx: &Context<TwinMsg>) {
        let (queue, mut waiting) = mpsc::channel(OUTGOING_MAX);
        self.outgoing = Some(queue);
        let (bus, bytes) = (self.bus.clone(), Rc::clone(&self.outgoing_bytes));
        cx.spawn(async move {
            while let Some((topic, payload)) = waiting.recv().await {
                bytes.set(bytes.get().saturating_sub(payload.len()));
                let message = EventBusMsg::Publish { topic, payload, qos: 1, retain: false };
                if bus.tell(message).await.is_err() {
                    return;
                }
            }
        });
    }

    fn publish(&mut self, topic: String, payload: Bytes) {
        let Some(queue) = &self.outgoing else { return };
        let bytes = self.outgoing_bytes.get() + payload.len();
        if bytes <= OUTGOING_BYTES_MAX && queue.try_send((topic, payload)).is_ok() {
            self.outgoing_bytes.set(bytes);
        } else {
            self.dropped += 1;
            if self.dropped.is_power_of_two() {
                tracing::warn!(
                    dropped = self.dropped,
                    "the broker does not keep up; publications are dropped"
                );
            }
        }
    }

    /// The head of a message, with an event id to echo or a fresh one.
    fn base(event_id: Option<&str>, cx: &Context<TwinMsg>) -> Base {
        let fresh = || uuid::Builder::from_random_bytes(cx.env().random_id()).into_uuid().to_string();
        Base { event_id: event_id.map_or_else(fresh, str::to_owned), timestamp: millis(cx.wall()) }
    }

    /// Commits, and lets MetaManager know if reports are among it. A full mailbox of MetaManager looks by itself.
    async fn commit(&self, writes: Vec<Write>) -> Result<(), String> {
        if writes.is_empty() {
            return Ok(());
        }
        let reports = writes.iter().any(|write| matches!(write, Write::Enqueue { .. }));
        self.store.commit(writes).await.map_err(|error| Fault::from_error(&error).reason)?;
        if reports {
            let _ = self.meta.try_tell(MetaMsg::OutboxGrew);
        }
        Ok(())
    }
}

fn millis(time: SystemTime) -> i64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
