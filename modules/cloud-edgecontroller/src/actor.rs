//! EdgeController's actor.

mod sessions;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use beehive::link::Traffic;
use beehive::{Actor, Address, Context, Fault, Moment};
use contract::cloudhub::CloudHubMsg;
use contract::edgecontroller::{EdgeControllerMsg, EdgeUp};
use contract::ids::{CONFIG_MAPS, NODES, PODS, SECRETS};
use contract::synccontroller::{Source, SyncMsg};
use contract::{NodeName, ObjectKey};
use fairshare::Lines;
use kubewatch::{Held, Interruptions, Named, Reading, Shared, Told, Watched};

use crate::accounts::Accounts;
use crate::deliveries::{self, Delivery, Question};
use crate::index::{Index, Look};
use crate::plan;
use crate::residents::Residents;
use crate::tenure::Tenures;
use crate::uplink;

/// 20 ms: the changes of one `kubectl apply` become one look at the caches.
const LOOK_PAUSE: Duration = Duration::from_millis(20);

/// Those that are bound to a node: the others are nobody's yet.
const BOUND: &str = "spec.nodeName!=";

struct Watches {
    nodes: Shared,
    pods: Shared,
    /// Secrets and config maps that pods on edge nodes need.
    needs: Named,
}

/// What a look at the caches found.
struct Moved {
    look: Look,
    wanted: BTreeMap<NodeName, Held>,
    /// The Nodes that moved.
    nodes: Vec<NodeName>,
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
    residents: Residents,
    accounts: Accounts,
    deliveries: Lines<Delivery>,
    questions: Lines<Question>,
    /// Who is linked, since which epoch, and what crosses the link.
    up: BTreeMap<NodeName, (u64, Arc<Traffic>)>,
    /// Nodes that are told nothing until their link has ended.
    withheld: BTreeSet<NodeName>,
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
        let (deliveries, questions) = deliveries::lines();
        EdgeController {
            interruptions,
            reading,
            tenures: Tenures::new(client.clone(), cloudcore, hub.clone()),
            residents: Residents::new(client.clone(), hub),
            accounts: Accounts::default(),
            deliveries,
            questions,
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
            withheld: BTreeSet::new(),
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
        let nodes = watch(NODES, "Node", None);
        self.residents.watch(&nodes);
        self.watches = Some(Watches {
            nodes,
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
            EdgeControllerMsg::Claim { node, certificate, reply } => self.claim(node, certificate, reply, cx),
            EdgeControllerMsg::Holds { node, epoch, reply } => self.holds(node, epoch, reply, cx),
            EdgeControllerMsg::Counts { node, epoch, reply } => reply.send(self.counts(&node, epoch, cx)),
            EdgeControllerMsg::AllNodesDown => self.up.clear(),
            EdgeControllerMsg::NodeUp { node, epoch, traffic } => {
                self.up.insert(node, (epoch, traffic));
            }
            EdgeControllerMsg::NodeDown { node, epoch } => self.node_down(&node, epoch, cx),
            EdgeControllerMsg::Up { node, epoch, message: EdgeUp::Reports { reports, reply } } => {
                self.reports(&node, Delivery { epoch, reports, reply }, cx);
            }
            EdgeControllerMsg::Up { node, epoch, message: EdgeUp::Alive } => self.alive(node, epoch, cx),
            EdgeControllerMsg::Up { node, epoch, message: EdgeUp::Token { query, reply } } => {
                self.token(&node, Question { epoch, query, reply }, cx);
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
        let (refused, too_many, turned_away) = self.accounts.sums();
        serde_json::json!({
            "sessions": self.residents.len(),
            "refusedReports": refused,
            "droppedEvents": too_many,
            "turnedAway": turned_away,
            "deliveries": self.deliveries.load().0,
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
        let Some(Moved { look, mut wanted, nodes }) = self.moved(cx.now()) else { return };
        self.look_into(nodes, cx);
        self.withhold(&mut wanted);
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

    /// A node whose Node was deleted is not told to let go of its pods: its link ends instead, and its pods run on. A word of
    /// that kind would else overtake the end of the link.
    fn withhold(&mut self, wanted: &mut BTreeMap<NodeName, Held>) {
        wanted.retain(|node, _| {
            let is_leaving = self.up.contains_key(node) && self.residents.is_over(node);
            if is_leaving {
                self.withheld.insert(node.clone());
            }
            !is_leaving
        });
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
    fn moved(&mut self, now: Moment) -> Option<Moved> {
        let Watches { nodes, pods, needs } = self.watches.as_ref()?;
        let [mut nodes, mut pods] = [nodes, pods].map(|cache| cache.borrow_mut());
        if !nodes.listed || !pods.listed {
            return None;
        }
        let moved = nodes.take_moved();
        for key in &moved {
            self.index.node(key, nodes.objects.get(key).map(|cached| &cached.value), now);
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
        let nodes = moved.iter().filter_map(|key| NodeName::parse(&key.name).ok()).collect();
        Some(Moved { look, wanted, nodes })
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
}
