//! A node as light as it can be and still be one to the cloud.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Result;
use beehive::link::quic::Credentials;
use beehive::link::quic_dialer::QuicDialer;
use beehive::link::{Connection, DialError, Dialer};
use beehive::{Actor, Address, AskError, Capacity, Context, Env, Fault, Flow, Hive, Policy, Reply};
use contract::digest::{bucket_of, buckets_for};
use contract::edgecontroller::EdgeUp;
use contract::edgehub::EdgeHubMsg;
use contract::metamanager::{Inventory, MetaDown, MetaMsg, NoToken, NotApplied};
use contract::rule_call::RuleAnswer;
use contract::{Change, Digest, ObjectKey, ObjectVersion, Report, UpReport};
use edge_hub::EdgeHub;
use futures::future::BoxFuture;
use serde_json::json;

/// 10 s: as Edged.
const ALIVE_EVERY: Duration = Duration::from_secs(10);
const REPORT_WITHIN: Duration = Duration::from_secs(30);

/// What is seen of one node, from whatever thread.
#[derive(Default)]
pub(super) struct NodeStats {
    pub(super) dials: AtomicU32,
    pub(super) ends: AtomicU32,
    linked_at: Mutex<Option<Instant>>,
    beats: Mutex<BTreeMap<u64, Instant>>,
}

impl NodeStats {
    /// When its link came up last.
    pub(super) fn linked_at(&self) -> MutexGuard<'_, Option<Instant>> {
        self.linked_at.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When which beat arrived.
    pub(super) fn beats(&self) -> MutexGuard<'_, BTreeMap<u64, Instant>> {
        self.beats.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The node.
pub(super) struct Edge {
    hub: Address<EdgeHubMsg>,
    _hive: Hive,
}

impl Edge {
    /// A node that dials CloudCore's port from now on.
    pub(super) fn start(
        env: &Env,
        name: &str,
        port: u16,
        credentials: &Credentials,
        stats: &Arc<NodeStats>,
    ) -> Result<Edge> {
        let inner = QuicDialer::new("127.0.0.1", port, credentials)?;
        let dialer: Rc<dyn Dialer> = Rc::new(CountingDialer { inner, stats: Arc::clone(stats) });
        let mut hive = Hive::new("edge", env.clone());
        let meta = hive.mailbox::<MetaMsg>("meta", Capacity::new(64, "as a node's"));
        let hub = hive.mailbox::<EdgeHubMsg>("hub", Capacity::new(16, "as a node's"));
        let hub_to_meta = hive.grant("hub", &meta, Flow::Tell);
        let to_hub = hive.grant("storm", &hub, Flow::Tell);
        let (name, seen) = (name.to_owned(), Arc::clone(stats));
        let common_name = format!("system:node:{name}");
        hive.supervise(meta, Policy::default(), move || MetaStandIn {
            name: name.clone(),
            stats: Arc::clone(&seen),
            cloud: None,
            held: BTreeMap::new(),
            inventory: None,
        });
        hive.supervise(hub, Policy::default(), move || {
            EdgeHub::new(dialer.clone(), &common_name, hub_to_meta.clone())
        });
        hive.open()?;
        Ok(Edge { hub: to_hub, _hive: hive })
    }

    /// Ends its link; the hub dials again at once.
    pub(super) async fn end_link(&self) {
        let _ = self.hub.tell(EdgeHubMsg::MetaBegan).await;
    }
}

struct CountingDialer {
    inner: QuicDialer,
    stats: Arc<NodeStats>,
}

impl Dialer for CountingDialer {
    fn dial(&self) -> BoxFuture<'_, Result<Box<dyn Connection>, DialError>> {
        self.stats.dials.fetch_add(1, Ordering::Relaxed);
        self.inner.dial()
    }
}

/// The inventory that counts: its number, how many buckets it has, and the sequence of the last batch.
struct OpenInventory {
    number: u64,
    buckets: usize,
    sequence: u64,
}

/// Answers as MetaManager does, and holds heads only.
struct MetaStandIn {
    name: String,
    stats: Arc<NodeStats>,
    cloud: Option<Address<EdgeUp>>,
    held: BTreeMap<ObjectKey, (String, String)>,
    inventory: Option<OpenInventory>,
}

impl Actor for MetaStandIn {
    type Message = MetaMsg;

    async fn started(&mut self, cx: &mut Context<MetaMsg>) -> Result<(), Fault> {
        cx.every(ALIVE_EVERY, || MetaMsg::EdgedAlive);
        Ok(())
    }

    async fn handle(&mut self, message: MetaMsg, cx: &mut Context<MetaMsg>) -> Result<(), Fault> {
        match message {
            MetaMsg::LinkUp { edge, .. } => {
                *self.stats.linked_at() = Some(Instant::now());
                self.report(&edge, cx);
                self.cloud = Some(edge);
                self.alive();
            }
            MetaMsg::LinkDown => {
                if self.cloud.take().is_some() {
                    self.stats.ends.fetch_add(1, Ordering::Relaxed);
                }
            }
            MetaMsg::Down(MetaDown::Inventory { reply }) => self.inventory(reply, cx),
            MetaMsg::Down(MetaDown::ObjectVersions { inventory, buckets, reply }) => {
                self.object_versions(inventory, &buckets, reply)
            }
            MetaMsg::Down(MetaDown::Apply { inventory, sequence, changes, reply }) => {
                reply.send(self.apply(inventory, sequence, changes));
            }
            MetaMsg::EdgedAlive => self.alive(),
            MetaMsg::OutboxGrew | MetaMsg::Delivered { .. } => {}
            MetaMsg::Token { reply, .. } => reply.send(Err(NoToken::OutOfReach)),
            MetaMsg::RuleCall { reply, .. } => {
                reply.send(RuleAnswer::failed(501, "a node of the storm has no rules"));
            }
            MetaMsg::RulesDue => {}
        }
        Ok(())
    }
}

impl MetaStandIn {
    fn alive(&self) {
        if let Some(cloud) = &self.cloud {
            let _ = cloud.try_tell(EdgeUp::Alive);
        }
    }

    /// The newest status of the node, which has waited in its outbox.
    fn report(&self, cloud: &Address<EdgeUp>, cx: &Context<MetaMsg>) {
        let node = json!({
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": self.name, "labels": {"kubernetes.io/hostname": self.name, "kubernetes.io/os": "linux"}},
            "spec": {},
            "status": {
                "capacity": {"cpu": "2", "memory": "1Gi", "pods": "110"},
                "allocatable": {"cpu": "2", "memory": "1Gi", "pods": "110"},
                "conditions": [{"type": "Ready", "status": "True", "reason": "EdgeReady", "message": "edge is posting ready status"}],
            },
        });
        let report = UpReport::Node { node_json: node.to_string() };
        let reports = vec![Report { row: 1, repeat: true, report: report.into() }];
        let cloud = cloud.clone();
        cx.spawn(async move {
            let _ =
                cloud.ask(REPORT_WITHIN, |reply| EdgeUp::Reports { reports: reports.into(), reply }).await;
        });
    }

    fn inventory(&mut self, reply: Reply<Inventory>, cx: &Context<MetaMsg>) {
        let marks = self.held.iter().map(|(key, (uid, version))| (key, uid.as_str(), version.as_str()));
        let digest = Digest::of(marks, buckets_for(self.held.len()));
        let number = cx.env().random_id().iter().take(8).fold(0, |sum, byte| (sum << 8) | u64::from(*byte));
        self.inventory = Some(OpenInventory { number, buckets: digest.buckets.len(), sequence: 0 });
        reply.send(Inventory { number, digest });
    }

    fn object_versions(&self, inventory: u64, buckets: &[u16], reply: Reply<Vec<ObjectVersion>>) {
        let Some(open) = self.inventory.as_ref().filter(|open| open.number == inventory) else {
            return reply.fail(AskError::Rejected("the inventory has ended".to_owned()));
        };
        let asked = |key: &ObjectKey| {
            u16::try_from(bucket_of(key, open.buckets)).is_ok_and(|at| buckets.contains(&at))
        };
        let held = self.held.iter().filter(|(key, _)| asked(key));
        let held = held.map(|(key, (uid, version))| ObjectVersion {
            key: key.clone(),
            uid: uid.clone(),
            content_hash: version.clone(),
        });
        reply.send(held.collect());
    }

    fn apply(&mut self, inventory: u64, sequence: u64, changes: Vec<Change>) -> Result<(), NotApplied> {
        let open =
            self.inventory.as_mut().filter(|open| open.number == inventory && open.sequence + 1 == sequence);
        let Some(open) = open else {
            return Err(NotApplied::Stale);
        };
        open.sequence = sequence;
        for change in changes {
            match change {
                Change::Upsert(object) => {
                    self.note_beat(&object.json);
                    self.held.insert(object.key, (object.uid, object.content_hash));
                }
                Change::Delete { key, .. } => {
                    self.held.remove(&key);
                }
            }
        }
        Ok(())
    }

    /// A beat is a number in a ConfigMap.
    fn note_beat(&self, json: &[u8]) {
        let beat = serde_json::from_slice::<serde_json::Value>(json).ok();
        let beat = beat.and_then(|object| object["data"]["beat"].as_str()?.parse().ok());
        if let Some(beat) = beat {
            self.stats.beats().entry(beat).or_insert_with(Instant::now);
        }
    }
}
