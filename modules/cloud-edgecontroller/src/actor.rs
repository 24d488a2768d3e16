//! EdgeController's actor.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use beehive::defect::{self, Defect};
use beehive::link::Traffic;
use beehive::{Actor, Address, Context, Fault, Moment, Reply};
use contract::cloudhub::CloudHubMsg;
use contract::edgecontroller::{ClaimRefused, EdgeControllerMsg, EdgeUp};
use contract::ids::{CONFIG_MAPS, NODES, PODS, SECRETS};
use contract::synccontroller::{Source, SyncMsg, SyncTruth};
use contract::{NodeName, ObjectKey, Report, TokenQuery};
use futures::StreamExt;
use kubewatch::{Held, Interruptions, Named, Reading, Shared, Told, Watched};

use crate::index::{Index, Look};
use crate::plan;
use crate::synced::{self, Shown};
use crate::tenure::Tenures;
use crate::uplink::{self, Outcome, Uplink};

/// 20 ms: the changes of one `kubectl apply` become one look at the caches.
const LOOK_PAUSE: Duration = Duration::from_millis(20);
/// 8 writes of one node's reports at once: reports of different objects do not wait for each other.
const WRITES_AT_ONCE: usize = 8;
/// 5 s for taking a node, as long as the hub waits.
const CLAIM_DEADLINE: Duration = Duration::from_secs(5);
/// 2 s: what a node is asked to wait that could not be taken now.
const CLAIM_WAIT: Duration = Duration::from_secs(2);

/// Those that are bound to a node: the others are nobody's yet.
const BOUND: &str = "spec.nodeName!=";

struct Watches {
    nodes: Shared,
    pods: Shared,
    /// Secrets and config maps that pods on edge nodes need.
    needs: Named,
}

/// Brings pods and what they need to their nodes, and their status back.
pub struct EdgeController {
    client: kube::Client,
    sync: Address<SyncMsg>,
    lease_period: Duration,
    interruptions: Interruptions,
    reading: Reading,
    watches: Option<Watches>,
    index: Index,
    told: Told,
    ready: bool,
    look_is_due: bool,
    /// When it looks again for pods that wait.
    wakes: Option<Moment>,
    tenures: Tenures,
    /// Who is linked, since which epoch, and what crosses the link.
    up: BTreeMap<NodeName, (u64, Arc<Traffic>)>,
    /// When each Lease was last renewed, and in which epoch.
    renewed: BTreeMap<NodeName, (u64, Moment)>,
}

impl EdgeController {
    /// The controller of the CloudCore of that name, over `client`, which renews Leases at most every `lease_period`.
    pub fn new(
        client: kube::Client,
        sync: Address<SyncMsg>,
        hub: Address<CloudHubMsg>,
        cloudcore: &str,
        lease_period: Duration,
        interruptions: Interruptions,
        reading: Reading,
    ) -> Self {
        EdgeController {
            interruptions,
            reading,
            tenures: Tenures::new(client.clone(), cloudcore, hub),
            client,
            sync,
            lease_period,
            watches: None,
            index: Index::default(),
            told: Told::default(),
            ready: false,
            look_is_due: false,
            wakes: None,
            up: BTreeMap::new(),
            renewed: BTreeMap::new(),
        }
    }
}

impl Actor for EdgeController {
    type Message = EdgeControllerMsg;

    async fn started(&mut self, cx: &mut Context<EdgeControllerMsg>) -> Result<(), Fault> {
        let watch = |resource, kind, selector| {
            let what = Watched::core(resource, kind);
            kubewatch::watch(&self.client, what, selector, &self.interruptions, cx, || {
                EdgeControllerMsg::Look
            })
        };
        let needs = [Watched::core(CONFIG_MAPS, "ConfigMap"), Watched::core(SECRETS, "Secret")];
        self.watches = Some(Watches {
            nodes: watch(NODES, "Node", None),
            pods: watch(PODS, "Pod", Some(BOUND)),
            needs: Named::new(&self.client, self.reading, &needs, cx, || EdgeControllerMsg::Look),
        });
        Ok(())
    }

    async fn handle(
        &mut self,
        message: EdgeControllerMsg,
        cx: &mut Context<EdgeControllerMsg>,
    ) -> Result<(), Fault> {
        match message {
            EdgeControllerMsg::Claim { node, reply, .. } => self.claim(node, reply, cx),
            EdgeControllerMsg::Holds { node, epoch, reply } => self.holds(node, epoch, reply, cx),
            EdgeControllerMsg::NodeUp { node, epoch, traffic } => {
                self.up.insert(node, (epoch, traffic));
            }
            EdgeControllerMsg::NodeDown { node, epoch } => self.node_down(&node, epoch),
            EdgeControllerMsg::Up { node, epoch, message: EdgeUp::Reports { reports, reply } } => {
                self.reports(node, epoch, reports, reply, cx);
            }
            EdgeControllerMsg::Up { node, epoch, message: EdgeUp::Alive } => self.alive(node, epoch, cx),
            EdgeControllerMsg::Up { node, message: EdgeUp::Token { query, reply }, .. } => {
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
        let (needs, open) = self.watches.as_ref().map(|watches| watches.needs.counts()).unwrap_or_default();
        serde_json::json!({
            "cloudCore": self.tenures.cloudcore(),
            "listed": self.ready,
            "linkedNodes": self.up.len(),
            "edgeNodes": self.told.nodes(),
            "objects": self.told.objects(),
            "needs": needs,
            "needsNotWhole": open,
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

    /// Compares what nodes should hold with what they were told, as far as anything moved, and tells the difference.
    async fn look(&mut self, cx: &Context<EdgeControllerMsg>) {
        let Some((look, wanted)) = self.moved(cx.now()) else { return };
        self.lift_tolerations(&look, cx);
        self.told.tell(&wanted, &self.sync).await;
        if look.is_complete && !self.ready {
            self.ready = true;
            let _ = self.sync.tell(SyncMsg::SourceReady(Source::Edge)).await;
        }
        if let Some(pause) = look.again {
            self.look_again(pause, cx);
        }
        if self.watches.as_ref().is_some_and(|watches| watches.needs.has_moved()) {
            self.look_soon(cx);
        }
    }

    /// One look is timed at a time, unless an earlier one is needed.
    fn look_again(&mut self, pause: Duration, cx: &Context<EdgeControllerMsg>) {
        let (now, at) = (cx.now(), cx.now() + pause);
        if self.wakes.is_none_or(|wakes| wakes <= now || at < wakes) {
            self.wakes = Some(at);
            cx.after(pause, EdgeControllerMsg::LookNow);
        }
    }

    /// What the nodes should hold that anything touched. `None` before everything has been listed once: half a list
    /// would look like deletes.
    fn moved(&mut self, now: Moment) -> Option<(Look, BTreeMap<NodeName, Held>)> {
        let Watches { nodes, pods, needs } = self.watches.as_ref()?;
        let [mut nodes, mut pods] = [nodes, pods].map(|cache| cache.borrow_mut());
        if !nodes.listed || !pods.listed {
            return None;
        }
        for key in nodes.take_moved() {
            self.index.node(&key, nodes.objects.get(&key).map(|cached| &cached.value), now);
        }
        for key in pods.take_moved() {
            self.index.pod(&key, pods.objects.get(&key).map(|cached| &cached.value), now);
        }
        for key in needs.take_moved() {
            self.index.need(&key);
        }
        let look = self.index.look(|key| needs.known(key), now);
        for (key, readers) in &look.needs {
            needs.want(key, readers.clone());
        }
        let find = |key: &ObjectKey| match key.resource.as_str() {
            PODS => pods.objects.get(key).map(|cached| Arc::clone(&cached.object)),
            _ => needs.object(key),
        };
        let with_objects = look.wanted.iter().map(|(node, keys)| {
            let objects = keys.iter().filter_map(|key| Some((key.clone(), find(key)?)));
            (node.clone(), objects.collect())
        });
        let wanted = with_objects.collect();
        Some((look, wanted))
    }

    /// Why this CloudCore should not begin to speak for the node now: it would have the node forget what it does not know.
    fn is_behind(&self, node: &NodeName) -> Option<String> {
        if !self.interruptions.none() {
            return Some("a watch of the API server has broken off and has not listed again".to_owned());
        }
        let needs = &self.watches.as_ref()?.needs;
        let key = self.index.holds_up(node, |key| needs.is_whole(key))?;
        Some(format!("the API server has not said what `{key}` is, which belongs on this node"))
    }

    /// Asked once per version of a pod on an edge node.
    fn lift_tolerations(&self, look: &Look, cx: &Context<EdgeControllerMsg>) {
        let Some(watches) = &self.watches else { return };
        let pods = watches.pods.borrow();
        for key in &look.pods {
            let lifted = pods.objects.get(key).and_then(|pod| plan::lifted_tolerations(&pod.value));
            if pods.objects.get(key).is_some_and(|pod| plan::needs_of(&pod.value).len() == plan::NEEDS_MAX) {
                tracing::warn!(%key, most = plan::NEEDS_MAX, "the pod names more Secrets and config maps than are looked after");
            }
            if let Some(tolerations) = lifted {
                let (client, key) = (self.client.clone(), key.clone());
                cx.spawn(async move { uplink::lift(&client, &key.namespace, &key.name, tolerations).await });
            }
        }
    }

    /// Beside the actor, as whatever asks the API server.
    fn claim(
        &self,
        node: NodeName,
        reply: Reply<Result<u64, ClaimRefused>>,
        cx: &Context<EdgeControllerMsg>,
    ) {
        // Whoever asked may have been sent away meanwhile: its node has another link by now.
        if reply.is_abandoned() {
            return;
        }
        if let Some(reason) = self.is_behind(&node) {
            return reply.send(Err(ClaimRefused { reason, wait: Some(CLAIM_WAIT) }));
        }
        let (tenures, env) = (self.tenures.clone(), cx.env().clone());
        cx.spawn(async move {
            let answer = match env.timeout(CLAIM_DEADLINE, tenures.claim(&node)).await {
                Some(taken) => taken.map_err(|error| Fault::from_error(&error).reason),
                None => Err("API server did not answer in time".to_owned()),
            };
            reply.send(answer.map_err(|reason| ClaimRefused { reason, wait: Some(CLAIM_WAIT) }));
        });
    }

    fn holds(
        &self,
        node: NodeName,
        epoch: u64,
        reply: Reply<Result<bool, String>>,
        cx: &Context<EdgeControllerMsg>,
    ) {
        let tenures = self.tenures.clone();
        cx.spawn(async move {
            let held = tenures.holds(&node, epoch).await;
            reply.send(held.map_err(|error| Fault::from_error(&error).reason));
        });
    }

    /// The end of an older session may be told after a newer one has begun.
    fn node_down(&mut self, node: &NodeName, epoch: u64) {
        if self.up.get(node).is_some_and(|(of, _)| *of == epoch) {
            self.up.remove(node);
        }
        if self.renewed.get(node).is_some_and(|(of, _)| *of == epoch) {
            self.renewed.remove(node);
        }
    }

    /// Writes the reports beside the actor, so that a slow API server holds up one node's delivery and nothing else.
    fn reports(
        &self,
        node: NodeName,
        epoch: u64,
        reports: Vec<Report>,
        reply: Reply<Vec<i64>>,
        cx: &Context<EdgeControllerMsg>,
    ) {
        let (client, tenures, env) = (self.client.clone(), self.tenures.clone(), cx.env().clone());
        cx.spawn(async move {
            let uplink = Uplink { client, tenures, node, epoch };
            let done = std::cell::RefCell::new(Vec::new());
            let writes = futures::stream::iter(reports).for_each_concurrent(
                WRITES_AT_ONCE,
                |Report { row, report, .. }| {
                    let (uplink, done) = (&uplink, &done);
                    async move {
                        let node = &uplink.node;
                        match uplink.write(row, report).await {
                            Ok(Outcome::Done) => done.borrow_mut().push(row),
                            Ok(Outcome::Superseded) => {
                                tracing::info!(%node, epoch, "report of an ended session was not written");
                            }
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

    fn alive(&mut self, node: NodeName, epoch: u64, cx: &Context<EdgeControllerMsg>) {
        let now = cx.now();
        let recently = |(of, at): &(u64, Moment)| *of == epoch && now.since(*at) < self.lease_period / 2;
        if self.renewed.get(&node).is_some_and(recently) {
            return;
        }
        self.renewed.insert(node.clone(), (epoch, now));
        let tenures = self.tenures.clone();
        let wall = jiff::Timestamp::try_from(cx.wall()).unwrap_or_default();
        cx.spawn(async move {
            if let Err(error) = tenures.renew(&node, epoch, wall).await {
                tracing::warn!(%node, reason = %Fault::from_error(&error), "lease not renewed");
            }
        });
    }

    fn synced(&self, node: NodeName, truth: SyncTruth, reply: Reply<bool>, cx: &Context<EdgeControllerMsg>) {
        let (client, tenures) = (self.client.clone(), self.tenures.clone());
        let now = jiff::Timestamp::try_from(cx.wall()).unwrap_or_default();
        let bytes = self.up.get(&node).map(|(_, traffic)| (traffic.received(), traffic.sent()));
        cx.spawn(async move {
            reply.send(synced::show(&client, &tenures, &node, &Shown { truth, bytes, now }).await);
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
