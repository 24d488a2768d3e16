//! DeviceTwin's actor.

mod clients;
mod look;
mod mappers;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::SystemTime;

use beehive::{Actor, Address, Context, Fault};
use bytes::Bytes;
use contract::NodeName;
use contract::devicetwin::TwinMsg;
use contract::eventbus::EventBusMsg;
use contract::metamanager::MetaMsg;
use edge_store::{Store, Write};
use tokio::sync::mpsc;

use crate::mapper::Session;
use crate::members::{self, Member};
use crate::payload::Base;
use crate::push::{Catalog, Met};
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
    socket: PathBuf,
    store: Store,
    bus: Address<EventBusMsg>,
    meta: Address<MetaMsg>,
    outgoing: Option<mpsc::Sender<Publication>>,
    outgoing_bytes: Rc<Cell<usize>>,
    dropped: u64,
    catalog: Catalog,
    members: BTreeMap<DeviceId, Member>,
    sessions: BTreeMap<String, Session>,
    session_number: u64,
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
            socket: settings.dmi_sock_path.join(dmi::SOCKET_NAME),
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
        }
    }
}

impl Actor for DeviceTwin {
    type Message = TwinMsg;

    async fn started(&mut self, cx: &mut Context<TwinMsg>) -> Result<(), Fault> {
        self.load().map_err(|error| Fault::from_error(&error))?;
        self.publish_beside(cx);
        self.look(cx).await;
        let (socket, twin, env) = (self.socket.clone(), cx.myself(), cx.env().clone());
        cx.spawn(async move { server::serve(&socket, twin, env).await });
        Ok(())
    }

    async fn handle(&mut self, message: TwinMsg, cx: &mut Context<TwinMsg>) -> Result<(), Fault> {
        match message {
            TwinMsg::Look => self.look(cx).await,
            TwinMsg::Mqtt { topic, payload, reply } => reply.send(self.mqtt(&topic, &payload, cx).await),
            TwinMsg::Dmi { call, reply } => self.dmi(call, reply, cx).await,
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
                    "name": session.name, "version": session.version, "address": session.address,
                    "devices": session.sent.devices.len(), "failures": session.failures,
                });
                (protocol.clone(), shown)
            })
            .collect();
        serde_json::json!({
            "devices": self.members.len(), "twins": twins, "mappers": mappers, "droppedPublications": self.dropped,
        })
    }
}

/// Beginning, publishing and time.
impl DeviceTwin {
    fn load(&mut self) -> Result<(), edge_store::StoreError> {
        self.members = members::load(&self.store)?;
        for (name, row) in rows::mappers(&self.store)? {
            self.session_number += 1;
            let session = Session::new(name, &row, Met::default(), self.session_number);
            self.sessions.insert(row.protocol, session);
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
