//! DeviceTwin's actor.

mod calls;
mod describe;
mod dmi;
mod mqtt;
mod objects;
mod publisher;
mod registration;
mod rules;
mod updates;
mod watch;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::SystemTime;

use apimachinery::NamespacedName;
use beehive::trace::{Span, Traces};
use beehive::{Actor, Address, Context, Fault, Policy};
use bytes::Bytes;
use contract::devicerules::DeviceRulesMsg;
use contract::devicetwin::TwinMsg;
use contract::eventbus::EventBusMsg;
use contract::ids::DeviceName;
use contract::metamanager::MetaMsg;
use contract::{ChangedObjects, NodeName, traced};
use edge_store::{Store, Write};

use self::publisher::Publications;
use crate::calls::Calls;
use crate::catalog::{self, Catalog};
use crate::connections::CallerQuotas;
use crate::denials::Denials;
use crate::events::Event;
use crate::known_mapper::KnownMapper;
use crate::mapper::{PushOutcome, Session};
use crate::members::Member;
use crate::object_reader::Pod;
use crate::payload::Base;
use crate::peer::{KernelPeerResolver, PeerResolver};
use crate::push::{Pending, SentThisRun};
use crate::quota::Usage;
use crate::rule_table::RuleTable;
use crate::server::{DmiEndpoint, Server};
use crate::store;

/// Keeps the twins of the node's devices and speaks with their mappers.
pub struct DeviceTwin {
    node: NodeName,
    settings: config::edge::DeviceTwin,
    peers: Arc<dyn PeerResolver>,
    caller_quotas: Arc<CallerQuotas>,
    store: Store,
    bus: Address<EventBusMsg>,
    meta: Address<MetaMsg>,
    publications: Option<Publications>,
    dropped: u64,
    catalog: Catalog,
    members: BTreeMap<DeviceName, Member>,
    /// The mapper of each protocol.
    sessions: BTreeMap<String, Session>,
    session_number: u64,
    /// Mappers that had registered with KubeEdge's edgecore, by their protocols, and did not speak since.
    known_mappers: BTreeMap<String, KnownMapper>,
    /// Protocols whose mappers have to be told of changes that the store has not taken yet.
    unpushed: BTreeSet<String>,
    /// The node's pods, for mappers may be in one.
    pods: BTreeMap<NamespacedName, Pod>,
    /// What the devices of a protocol weigh, from the first change on.
    usages: BTreeMap<String, Usage>,
    /// The reports that wait have their turn soon.
    reporting: bool,
    /// Calls of mappers that were not theirs to make.
    denials: Denials,
    /// Who waits for the calls of methods that are under way, by device and id.
    waiters: BTreeMap<(DeviceName, String), calls::Waiter>,
    /// How often it was looked whether anybody has fallen silent.
    probes: u64,
    /// The next look is due soon.
    probing: bool,
    rules: RuleTable,
    /// The objects were read from the store in this life.
    has_read: bool,
    /// Where the rules of devices are.
    rules_actor: Option<Address<DeviceRulesMsg>>,
    /// They know that this life has begun.
    rules_know: bool,
    /// What is followed, if anything is.
    traces: Option<Traces>,
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
            peers: Arc::new(KernelPeerResolver),
            caller_quotas: Arc::default(),
            store,
            bus,
            meta,
            publications: None,
            dropped: 0,
            catalog: Catalog::default(),
            members: BTreeMap::new(),
            sessions: BTreeMap::new(),
            session_number: 0,
            known_mappers: BTreeMap::new(),
            unpushed: BTreeSet::new(),
            pods: BTreeMap::new(),
            usages: BTreeMap::new(),
            reporting: false,
            denials: Denials::default(),
            waiters: BTreeMap::new(),
            probes: 0,
            probing: false,
            rules: RuleTable::default(),
            has_read: false,
            rules_actor: None,
            rules_know: false,
            traces: None,
        }
    }

    /// Asks `peers` who calls, in place of the kernel.
    #[must_use]
    pub fn with_peers(mut self, peers: Arc<dyn PeerResolver>) -> Self {
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
        self.publications = Some(Publications::start(&self.bus, cx));
        self.traces = Some(cx.env().traces().clone()).filter(Traces::is_on);
        self.load(cx).await?;
        self.objects_changed(ChangedObjects::Any, cx).await?;
        self.push_all(cx);
        if self.members.values().any(Member::waits) {
            self.report_later(cx);
        }
        self.probe_later(cx);
        let endpoint = DmiEndpoint {
            folder: self.folder().to_owned(),
            group: self.settings.dmi_sock_group.clone(),
            peers: Arc::clone(&self.peers),
            caller_quotas: Arc::clone(&self.caller_quotas),
        };
        let twin = cx.for_children();
        cx.child("dmi-server", Policy::default(), move || Server::new(endpoint.clone(), twin.clone()));
        self.tell_rules();
        Ok(())
    }

    async fn handle(&mut self, message: TwinMsg, cx: &mut Context<TwinMsg>) -> Result<(), Fault> {
        match message {
            TwinMsg::ObjectsChanged(changed) => self.objects_changed(changed, cx).await?,
            TwinMsg::Mqtt { topic, payload, listeners, reply } => {
                reply.send(self.mqtt(&topic, &payload, listeners, cx).await);
            }
            TwinMsg::Dmi { caller, call, reply } => reply.send(self.dmi(&caller, call, cx).await),
            TwinMsg::Down(message) => self.down(message, cx).await,
            TwinMsg::CallMethod { device, call, reply } => {
                self.call_from_node(&device, call, reply, cx).await;
            }
            TwinMsg::MethodCalled { device, id, outcome } => {
                self.method_called(&device, &id, outcome, cx).await;
            }
            TwinMsg::Describe { bounds, reply } => reply.send(self.describe(bounds)),
            TwinMsg::Report => self.report_now(cx).await,
            TwinMsg::Push { protocol } => self.retry(&protocol, cx),
            TwinMsg::Pushed { protocol, session, done, refused, failure } => {
                self.pushed(&protocol, session, PushOutcome { done, refused, failure }, cx).await;
            }
            TwinMsg::ListFacts { reply } => reply.send(self.list_facts()),
            TwinMsg::SetDesired { device, property, value, reply } => {
                reply.send(self.set_desired(&device, &property, value, cx).await);
            }
            TwinMsg::RulesSay { device, conditions } => self.rules.say(device, conditions),
            TwinMsg::Probe => self.probe(cx).await?,
        }
        self.tell_rules();
        Ok(())
    }

    fn snapshot(&self) -> serde_json::Value {
        let twins: usize = self.members.values().map(|member| member.twins.len()).sum();
        let mappers: serde_json::Map<String, serde_json::Value> = self
            .sessions
            .iter()
            .map(|(protocol, session)| {
                let mapper = &session.mapper;
                let json = serde_json::json!({
                    "name": mapper.name, "version": mapper.version, "address": mapper.address,
                    "identity": mapper.identity.to_string(),
                    "devices": session.has.devices.len(), "failures": session.failures,
                });
                (catalog::shown(protocol), json)
            })
            .collect();
        serde_json::json!({
            "devices": self.members.len(), "twins": twins, "mappers": mappers, "droppedPublications": self.dropped,
            "methodsUnderWay": self.waiters.len(),
            "deniedCalls": self.denials.total(), "connectionsTurnedAway": self.caller_quotas.turned_away(),
        })
    }
}

/// Beginning, publishing and committing.
impl DeviceTwin {
    async fn load(&mut self, cx: &Context<TwinMsg>) -> Result<(), Fault> {
        let store = self.store.clone();
        let kept = cx.env().blocking(move || store::load(&store)).await?;
        let mut kept = kept.map_err(|error| Fault::from_error(&error))?;
        kept.tell(cx.env());
        self.known_mappers = std::mem::take(&mut kept.known_mappers);
        let now = updates::rfc3339(cx.wall()).unwrap_or_default();
        for (id, state) in std::mem::take(&mut kept.states) {
            let twins = kept.twins.remove(&id).unwrap_or_default();
            self.catalog.put_edge_desired(&id, &twins);
            let mut member = Member::new(state, twins, cx.now());
            let calls = kept.calls.remove(&id).unwrap_or_default();
            (member.calls, member.calls_untold) = Calls::restored(calls, &now);
            self.members.insert(id, member);
        }
        for (protocol, (mapper, has)) in std::mem::take(&mut kept.mappers) {
            self.session_number += 1;
            self.catalog.put_part(&protocol, true);
            let known = (has, SentThisRun::default());
            let session = Session::new(mapper, known, Pending::default(), self.session_number, cx.now());
            self.sessions.insert(protocol, session);
        }
        Ok(())
    }

    /// Nobody knows what the mappers have kept since an earlier incarnation told them.
    fn push_all(&mut self, cx: &Context<TwinMsg>) {
        let protocols: Vec<String> = self.sessions.keys().cloned().collect();
        for protocol in protocols {
            if let Some(session) = self.sessions.get_mut(&protocol) {
                session.pending = Pending::all(&protocol, &self.catalog, &session.has);
            }
            self.push(&protocol, cx);
        }
    }

    fn publish(&mut self, topic: String, payload: Bytes, cx: &Context<TwinMsg>) {
        let Some(publications) = &self.publications else { return };
        if !publications.publish(topic, payload) {
            self.dropped += 1;
            Event::PublicationDropped { dropped: self.dropped }.happened(cx.env());
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
        let followed = self.traces.as_ref().map(|traces| (traces, reporting(&writes, traces)));
        self.store.commit(writes).await.map_err(|error| Fault::from_error(&error).reason)?;
        if let Some((traces, spans)) = followed {
            for (key, span) in spans {
                traces.follow(|| traced::reported(&key), span.context());
            }
        }
        if reports {
            let _ = self.meta.try_tell(MetaMsg::OutboxGrew);
        }
        Ok(())
    }
}

/// The steps of devices' traces in which something of them is reported, by the reports' keys.
fn reporting(writes: &[Write], traces: &Traces) -> Vec<(String, Span)> {
    let spans = writes.iter().filter_map(|write| {
        let Write::Enqueue { key, .. } = write else { return None };
        let device = traced::about(key)?;
        let span = traces.step("DeviceTwin report", traces.of(|| traced::held(&device)));
        span.is_followed().then(|| (key.clone(), traced::named(span, &device)))
    });
    spans.collect()
}

fn millis(time: SystemTime) -> i64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
