//! EdgeController's actor.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use beehive::defect::{self, Defect};
use beehive::{Actor, Address, Context, Fault, Moment, Reply};
use contract::edgecontroller::{EdgeControllerMsg, EdgeUp};
use contract::ids::{CONFIG_MAPS, NODES, PODS, SECRETS};
use contract::synccontroller::{Source, SyncMsg, SyncTruth};
use contract::{NodeName, ObjectKey, Report, TokenQuery};
use futures::StreamExt;
use kubewatch::{Held, Shared, Told, Watched};
use serde_json::Value;

use crate::plan::{self, EDGE_LABEL};
use crate::{synced, uplink};

/// 20 ms: the changes of one `kubectl apply` become one look at the caches.
const LOOK_PAUSE: Duration = Duration::from_millis(20);
/// 8 writes of one node's reports at once: reports of different objects do not wait for each other.
const WRITES_AT_ONCE: usize = 8;

struct Watches {
    nodes: Shared,
    pods: Shared,
    config_maps: Shared,
    secrets: Shared,
}

/// Brings pods and what they need to their nodes, and their status back.
pub struct EdgeController {
    client: kube::Client,
    sync: Address<SyncMsg>,
    lease_period: Duration,
    watches: Option<Watches>,
    told: Told,
    ready: bool,
    look_is_due: bool,
    up: BTreeSet<NodeName>,
    renewed: BTreeMap<NodeName, Moment>,
    /// What this CloudCore last wrote into each node's Lease.
    leased: BTreeMap<NodeName, jiff::Timestamp>,
}

impl EdgeController {
    /// A controller over `client` that renews Leases at most every `lease_period`.
    pub fn new(client: kube::Client, sync: Address<SyncMsg>, lease_period: Duration) -> Self {
        EdgeController {
            client,
            sync,
            lease_period,
            watches: None,
            told: Told::default(),
            ready: false,
            look_is_due: false,
            up: BTreeSet::new(),
            renewed: BTreeMap::new(),
            leased: BTreeMap::new(),
        }
    }
}

impl Actor for EdgeController {
    type Message = EdgeControllerMsg;

    async fn started(&mut self, cx: &mut Context<EdgeControllerMsg>) -> Result<(), Fault> {
        let watch = |resource, kind| {
            kubewatch::watch(&self.client, Watched::core(resource, kind), cx, || EdgeControllerMsg::Look)
        };
        self.watches = Some(Watches {
            nodes: watch(NODES, "Node"),
            pods: watch(PODS, "Pod"),
            config_maps: watch(CONFIG_MAPS, "ConfigMap"),
            secrets: watch(SECRETS, "Secret"),
        });
        Ok(())
    }

    async fn handle(
        &mut self,
        message: EdgeControllerMsg,
        cx: &mut Context<EdgeControllerMsg>,
    ) -> Result<(), Fault> {
        match message {
            EdgeControllerMsg::NodeUp { node } => {
                self.up.insert(node);
            }
            EdgeControllerMsg::NodeDown { node } => {
                self.up.remove(&node);
                self.renewed.remove(&node);
            }
            EdgeControllerMsg::Up { node, message: EdgeUp::Reports { reports, reply } } => {
                self.reports(node, reports, reply, cx);
            }
            EdgeControllerMsg::Up { node, message: EdgeUp::Alive } => self.alive(node, cx),
            EdgeControllerMsg::Up { node, message: EdgeUp::Token { query, reply } } => {
                self.token(node, query, reply, cx);
            }
            EdgeControllerMsg::Synced { node, truth, reply } => self.synced(node, truth, reply, cx),
            EdgeControllerMsg::Look => self.look_soon(cx),
            EdgeControllerMsg::LookNow => {
                self.look_is_due = false;
                self.look(cx).await;
            }
        }
        Ok(())
    }

    fn snapshot(&self) -> serde_json::Value {
        serde_json::json!({
            "listed": self.ready,
            "linkedNodes": self.up.len(),
            "edgeNodes": self.told.nodes(),
            "objects": self.told.objects(),
        })
    }
}

impl EdgeController {
    /// Many nudges become one look.
    fn look_soon(&mut self, cx: &Context<EdgeControllerMsg>) {
        if !std::mem::replace(&mut self.look_is_due, true) {
            cx.after(LOOK_PAUSE, EdgeControllerMsg::LookNow);
        }
    }

    /// Compares what nodes should hold with what they were told, and tells the difference.
    async fn look(&mut self, cx: &Context<EdgeControllerMsg>) {
        let Some(wanted) = self.wanted(cx) else { return };
        self.told.tell(&wanted, &self.sync).await;
        if !self.ready {
            self.ready = true;
            let _ = self.sync.tell(SyncMsg::SourceReady(Source::Edge)).await;
        }
    }

    /// `None` before everything has been listed once: half a list would look like deletes.
    fn wanted(&self, cx: &Context<EdgeControllerMsg>) -> Option<BTreeMap<NodeName, Held>> {
        let watches = self.watches.as_ref()?;
        let (nodes, pods) = (watches.nodes.borrow(), watches.pods.borrow());
        let (config_maps, secrets) = (watches.config_maps.borrow(), watches.secrets.borrow());
        if ![&nodes, &pods, &config_maps, &secrets].iter().all(|cache| cache.listed) {
            return None;
        }
        let edge_nodes: BTreeSet<NodeName> = nodes
            .objects
            .iter()
            .filter(|(_, node)| node.value["metadata"]["labels"].get(EDGE_LABEL).is_some())
            .filter_map(|(key, _)| NodeName::parse(&key.name).ok())
            .collect();
        let find = |key: &ObjectKey| {
            let cache = match key.resource.as_str() {
                PODS => &pods,
                CONFIG_MAPS => &config_maps,
                _ => &secrets,
            };
            cache.objects.get(key).map(|cached| Arc::clone(&cached.object))
        };
        for (key, pod) in &pods.objects {
            self.lift_tolerations(&edge_nodes, key, &pod.value, cx);
        }
        let values = pods.objects.iter().map(|(key, cached)| (key, &cached.value));
        let wanted = plan::wanted(&edge_nodes, values, |key| find(key).is_some());
        let with_objects = wanted.into_iter().map(|(node, keys)| {
            let objects = keys.into_iter().filter_map(|key| find(&key).map(|object| (key, object)));
            (node, objects.collect())
        });
        Some(with_objects.collect())
    }

    fn lift_tolerations(
        &self,
        edge_nodes: &BTreeSet<NodeName>,
        key: &ObjectKey,
        pod: &Value,
        cx: &Context<EdgeControllerMsg>,
    ) {
        let Some(node) = plan::node_of(pod).filter(|node| edge_nodes.contains(node)) else { return };
        // Asked once per version of the pod: what was told already has been looked at.
        if self.told.knows(&node, key) {
            return;
        }
        if let Some(tolerations) = plan::lifted_tolerations(pod) {
            let (client, key) = (self.client.clone(), key.clone());
            cx.spawn(async move { uplink::lift(&client, &key.namespace, &key.name, tolerations).await });
        }
    }

    /// Writes the reports beside the actor, so that a slow API server holds up one node's delivery and nothing else.
    fn reports(
        &self,
        node: NodeName,
        reports: Vec<Report>,
        reply: Reply<Vec<i64>>,
        cx: &Context<EdgeControllerMsg>,
    ) {
        let (client, env) = (self.client.clone(), cx.env().clone());
        cx.spawn(async move {
            let done = std::cell::RefCell::new(Vec::new());
            let writes = futures::stream::iter(reports).for_each_concurrent(
                WRITES_AT_ONCE,
                |Report { row, report, .. }| {
                    let (client, node, done) = (&client, &node, &done);
                    async move {
                        match uplink::write(client, node, report).await {
                            Ok(()) => done.borrow_mut().push(row),
                            Err(_) if defect::is_planted(Defect::ConfirmBeforeWrite) => {
                                done.borrow_mut().push(row);
                            }
                            Err(error) => {
                                let reason = Fault::from_error(&error).reason;
                                tracing::warn!(%node, %reason, "report not written; the node sends it again");
                            }
                        }
                    }
                },
            );
            // What was written in time is confirmed; the rest comes again.
            let _ = env.timeout(uplink::WRITE_DEADLINE, writes).await;
            reply.send(done.into_inner());
        });
    }

    fn alive(&mut self, node: NodeName, cx: &Context<EdgeControllerMsg>) {
        let now = cx.now();
        let recently = self.renewed.get(&node).is_some_and(|at| now.since(*at) < self.lease_period / 2);
        if recently {
            return;
        }
        self.renewed.insert(node.clone(), now);
        let (client, wall) = (self.client.clone(), jiff::Timestamp::try_from(cx.wall()).unwrap_or_default());
        self.leased.insert(node.clone(), wall);
        cx.spawn(async move {
            if let Err(error) = uplink::renew(&client, &node, wall).await {
                tracing::warn!(%node, reason = %Fault::from_error(&error), "lease not renewed");
            }
        });
    }

    fn synced(&self, node: NodeName, truth: SyncTruth, reply: Reply<bool>, cx: &Context<EdgeControllerMsg>) {
        let (client, now) = (self.client.clone(), jiff::Timestamp::try_from(cx.wall()).unwrap_or_default());
        let renewed = self.leased.get(&node).copied();
        cx.spawn(async move {
            reply.send(synced::show(&client, &node, &truth, renewed, now).await);
        });
    }

    fn token(
        &self,
        node: NodeName,
        query: TokenQuery,
        reply: Reply<Result<contract::TokenGrant, String>>,
        cx: &Context<EdgeControllerMsg>,
    ) {
        let client = self.client.clone();
        let now = jiff::Timestamp::try_from(cx.wall()).unwrap_or_default().as_second();
        cx.spawn(async move {
            reply.send(uplink::token(&client, &node, query, now).await);
        });
    }
}
