//! EdgeController's actor.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use beehive::{Actor, Address, Context, Fault, Moment};
use contract::cloudhub::{CloudHubMsg, SessionReader};
use contract::cloudstream::{CloudStreamMsg, KubeletEndpoint};
use contract::edgecontroller::{EdgeControllerMsg, EdgeUp};
use contract::ids::{CONFIG_MAPS, NODES, PODS, SECRETS, SERVICES};
use contract::nodelease::{NodeLeaseMsg, SessionState};
use contract::synccontroller::{Source, SyncMsg};
use contract::{NodeName, ObjectKey};
use fairshare::{Delivery, ReportQueues, ReportSender};
use kubewatch::{
    Cached, DesiredObjects, Interruptions, ObjectWatches, Presence, Publisher, ReadAs, SharedCache, Unread,
    WatchedKind,
};

use crate::eviction::Evictions;
use crate::kubelet_endpoint::{EndpointWriter, Endpoints};
use crate::last_status::{LastStatus, StatusWriter};
use crate::pod_addresses::PodAddresses;
use crate::pod_index::{PodIndex, Reconciled};
use crate::read_of_pod::read_of_pod;
use crate::status::NodeReportWriter;
use crate::token_rates::TokenRates;
use crate::tokens::{self, QueuedTokenRequest, TokenGranter, TokenQueues};
use crate::unread_pods;
use crate::volume_caches::VolumeCaches;
use crate::{events, plan, service_links};

/// 500 ms before something is looked at again that nobody will tell of: a session that is not current, a Node that is gone.
const AGAIN_AFTER: Duration = Duration::from_millis(500);
/// 10 s from the opening of a session: from then on an object that the API server cannot be brought to say (its key for it is lost, say)
/// holds up nothing but itself.
const UNREAD_WAIT: Duration = Duration::from_secs(10);
/// 2 s for NodeLease to say what a session is worth, which it does from memory.
const SESSION_DEADLINE: Duration = Duration::from_secs(2);

/// Those that are bound to a node: the others are nobody's yet.
const BOUND: &str = "spec.nodeName!=";

/// What an EdgeController is made of.
#[derive(Clone)]
pub struct Dependencies {
    /// The API server.
    pub client: kube::Client,
    /// SyncController, which is told what nodes should hold.
    pub sync: Address<SyncMsg>,
    /// NodeLease, which says what sessions are worth.
    pub lease: Address<NodeLeaseMsg>,
    /// CloudHub, which is asked who is linked.
    pub hub: Address<CloudHubMsg>,
    /// CloudStream, which is asked where kubelet endpoints are.
    pub stream: Address<CloudStreamMsg>,
    /// Counts the watches that have broken off.
    pub interruptions: Interruptions,
    /// As whom Secrets and config maps are read.
    pub read_as: ReadAs,
    /// Which addresses nodes may say of their pods (`modules.edgeController.podAddresses`).
    pub pod_addresses: PodAddresses,
    /// Whether this CloudCore is the kubelet endpoint of its nodes (`modules.cloudStream.enable`).
    pub is_kubelet_endpoint: bool,
}

/// The informers of this incarnation, and what stands on them.
struct Informers {
    nodes: SharedCache,
    pods: SharedCache,
    /// Services: those of its namespace go with a pod.
    services: SharedCache,
    /// Claims, volumes, their drivers and attachments.
    volumes: Rc<VolumeCaches>,
    /// Secrets and config maps that pods on edge nodes need.
    needs: ObjectWatches,
    reports: ReportQueues<NodeReportWriter>,
}

/// What has become of the Node that a session is of.
#[derive(Clone, Copy, PartialEq, Eq)]
enum NodeOfSession {
    /// It is there.
    Living,
    /// There is none yet, or nobody says so far.
    Awaited,
    /// It is gone or another one, or the session was ended for that already.
    Gone,
}

/// Brings pods and what they need to their nodes, and their status back.
pub struct EdgeController {
    dependencies: Dependencies,
    informers: Option<Informers>,
    index: PodIndex,
    publisher: Publisher,
    tokens: TokenQueues,
    token_rates: Rc<RefCell<TokenRates>>,
    /// Of which Node the node's session is, as NodeLease has said.
    node_uids: BTreeMap<NodeName, (u64, String)>,
    /// Where the kubelet endpoints of the sessions are, as CloudStream has said.
    endpoints: Endpoints,
    /// What the nodes of the sessions reported last of themselves.
    last_status: LastStatus,
    /// Who keeps pods on nodes that are cut off.
    evictions: Evictions,
    /// NodeLease did not answer in this round; it is not asked for one node after the other.
    is_lease_silent: bool,
    /// Nodes that are told nothing until their link has ended, or until they have a Node.
    withheld: BTreeSet<NodeName>,
    /// Pods that are not read, which are to be told so.
    unread_pods: Vec<(ObjectKey, Unread)>,
    /// When the timer goes off that reconciles though nothing changes.
    wakes: Option<Moment>,
}

impl EdgeController {
    /// A controller that has listed nothing yet.
    pub fn new(dependencies: Dependencies) -> Self {
        EdgeController {
            publisher: Publisher::new(Source::Edge, dependencies.sync.clone()),
            endpoints: Endpoints::new(dependencies.is_kubelet_endpoint),
            dependencies,
            informers: None,
            index: PodIndex::default(),
            tokens: tokens::queues(),
            token_rates: Rc::default(),
            node_uids: BTreeMap::new(),
            last_status: LastStatus::default(),
            evictions: Evictions::default(),
            is_lease_silent: false,
            withheld: BTreeSet::new(),
            unread_pods: Vec::new(),
            wakes: None,
        }
    }
}

impl Actor for EdgeController {
    type Message = EdgeControllerMsg;

    async fn started(&mut self, cx: &mut Context<EdgeControllerMsg>) -> Result<(), Fault> {
        let Dependencies { client, lease, hub, stream, interruptions, read_as, .. } = &self.dependencies;
        let watch = |what: WatchedKind, selector| {
            kubewatch::watch(client, what, selector, interruptions, cx, || EdgeControllerMsg::Reconcile)
        };
        let needs = [WatchedKind::core(CONFIG_MAPS, "ConfigMap"), WatchedKind::core(SECRETS, "Secret")];
        let nodes = watch(WatchedKind::core(NODES, "Node"), None);
        let pods = watch(WatchedKind::core(PODS, "Pod").reading_by(read_of_pod), Some(BOUND));
        let services = watch(WatchedKind::core(SERVICES, "Service"), None);
        let writer = NodeReportWriter {
            client: client.clone(),
            lease: lease.clone(),
            nodes: nodes.clone(),
            pods: pods.clone(),
            pod_addresses: self.dependencies.pod_addresses,
            endpoints: self.endpoints.clone(),
            last_status: self.last_status.clone(),
            mirrors: Default::default(),
            rates: Default::default(),
            csi_written: Default::default(),
            own_said: Default::default(),
            labels_refused: Default::default(),
            left_out: Default::default(),
            unwritten: Default::default(),
            traffic: Default::default(),
            env: cx.env().clone(),
        };
        self.informers = Some(Informers {
            nodes,
            pods,
            services,
            volumes: Rc::new(VolumeCaches::watch(client, interruptions, cx)),
            needs: ObjectWatches::new(client, *read_as, &needs, interruptions.budget(), cx, || {
                EdgeControllerMsg::Reconcile
            }),
            reports: ReportQueues::new(writer, lease.clone()),
        });
        self.evictions.start(client, cx);
        cx.spawn_tell(hub, CloudHubMsg::TellSessions { to: SessionReader::EdgeController });
        cx.spawn_tell(stream, CloudStreamMsg::TellEndpoints);
        Ok(())
    }

    async fn handle(
        &mut self,
        message: EdgeControllerMsg,
        cx: &mut Context<EdgeControllerMsg>,
    ) -> Result<(), Fault> {
        match message {
            EdgeControllerMsg::AllNodesDown => self.all_nodes_down(cx).await,
            EdgeControllerMsg::NodeUp { node, session } => self.node_up(node, session, cx).await,
            EdgeControllerMsg::NodeDown { node, session } => self.node_down(&node, session, cx).await,
            EdgeControllerMsg::ListAgain => self.list_again(cx).await,
            EdgeControllerMsg::Up { node, session, message: EdgeUp::Reports { reports, reply } } => {
                if let Some(informers) = &self.informers {
                    informers.reports.put(&node, Delivery { session, reports, reply }, cx);
                }
            }
            EdgeControllerMsg::Up { node, session, message: EdgeUp::Alive } => {
                self.say_status_again(&node, session, cx);
                // One that is lost is followed by the next.
                let _ = self.dependencies.lease.try_tell(NodeLeaseMsg::Renew { node, session });
            }
            EdgeControllerMsg::Up { node, session, message: EdgeUp::Token { query, reply } } => {
                if let Some(asked) = QueuedTokenRequest::parse(cx.env(), &node, session, query, reply) {
                    self.token(&node, asked, cx);
                }
            }
            EdgeControllerMsg::KubeletEndpoint { node, session, endpoint } => {
                self.kubelet_endpoint(ReportSender { node, session }, endpoint, cx);
            }
            EdgeControllerMsg::Reconcile => self.reconcile(cx).await,
        }
        Ok(())
    }

    fn snapshot(&self) -> serde_json::Value {
        let informers = self.informers.as_ref();
        let (needs, open) = informers.map(|informers| informers.needs.counts()).unwrap_or_default();
        serde_json::json!({
            "deliveries": informers.map_or(0, |informers| informers.reports.in_work()),
            "listed": self.publisher.is_complete(),
            "linkedNodes": self.publisher.linked(),
            "edgeNodes": self.publisher.nodes(),
            "objects": self.publisher.objects(),
            "unreadable": informers.map_or(0, |informers| {
                informers.nodes.borrow().unreadable.len() + informers.pods.borrow().unreadable.len()
            }),
            "needs": needs,
            "needsNotWhole": open,
            "podsStayBy": self.evictions.rule().name(),
        })
    }
}

impl EdgeController {
    async fn all_nodes_down(&mut self, cx: &Context<EdgeControllerMsg>) {
        self.publisher.all_nodes_down();
        self.node_uids.clear();
        self.endpoints.clear();
        self.last_status.clear();
        for node in std::mem::take(&mut self.withheld) {
            self.index.touch(&node);
        }
        self.reconcile(cx).await;
    }

    async fn node_up(&mut self, node: NodeName, session: u64, cx: &Context<EdgeControllerMsg>) {
        self.publisher.node_up(node, session, cx.now());
        self.reconcile(cx).await;
    }

    async fn node_down(&mut self, node: &NodeName, session: u64, cx: &Context<EdgeControllerMsg>) {
        if self.publisher.node_down(node, session) {
            self.node_uids.remove(node);
            self.endpoints.remove(node);
            self.last_status.forget(node);
            if self.withheld.remove(node) {
                self.index.touch(node);
                self.reconcile(cx).await;
            }
        }
    }

    async fn list_again(&mut self, cx: &Context<EdgeControllerMsg>) {
        if self.publisher.list_again() {
            self.index.touch_all();
            self.reconcile(cx).await;
        }
    }

    /// The node is alive: if its Node says something else than the node reported, it is said again; its heartbeat, now and then.
    fn say_status_again(&self, node: &NodeName, session: u64, cx: &Context<EdgeControllerMsg>) {
        let key = ObjectKey::new(NODES, "", node.as_str());
        let mark = self.informers.as_ref().and_then(|informers| {
            let nodes = informers.nodes.borrow();
            nodes.objects.get(&key).map(|found| found.status_mark)
        });
        if let Some(mark) = mark
            && self.publisher.session_of(node) == Some(session)
            && let Some(look) = self.last_status.begin_look(node, mark, cx.now())
        {
            let writer = StatusWriter {
                client: self.dependencies.client.clone(),
                lease: self.dependencies.lease.clone(),
                last: self.last_status.clone(),
                endpoints: self.endpoints.clone(),
                env: cx.env().clone(),
            };
            cx.spawn(writer.write(ReportSender { node: node.clone(), session }, mark, look));
        }
    }

    /// Where a node's kubelet endpoint is. Of a session that was not told yet, or has ended, it counts for nothing: its Node is not
    /// this session's to write.
    fn kubelet_endpoint(
        &self,
        from: ReportSender,
        endpoint: KubeletEndpoint,
        cx: &Context<EdgeControllerMsg>,
    ) {
        if self.publisher.session_of(&from.node) != Some(from.session) {
            return;
        }
        self.endpoints.put(&from, endpoint);
        let writer = EndpointWriter {
            client: self.dependencies.client.clone(),
            lease: self.dependencies.lease.clone(),
            endpoints: self.endpoints.clone(),
            env: cx.env().clone(),
        };
        cx.spawn(writer.write(from, endpoint));
    }

    fn token(&self, node: &NodeName, asked: QueuedTokenRequest, cx: &Context<EdgeControllerMsg>) {
        match self.tokens.put(node, asked) {
            Ok(None) => {}
            Ok(Some(queue)) => {
                let Some(informers) = &self.informers else { return };
                let granter = TokenGranter {
                    client: self.dependencies.client.clone(),
                    lease: self.dependencies.lease.clone(),
                    env: cx.env().clone(),
                    volumes: Rc::clone(&informers.volumes),
                    rates: Rc::clone(&self.token_rates),
                };
                cx.spawn(granter.answer(queue));
            }
            Err(asked) => {
                if let Some(informers) = &self.informers {
                    informers.reports.turned_away(cx.env(), node);
                }
                asked.turn_away();
            }
        }
    }

    /// Compares what nodes should hold with what was sent, as far as anything changed, and sends the difference.
    async fn reconcile(&mut self, cx: &Context<EdgeControllerMsg>) {
        self.is_lease_silent = false;
        // What is answered while it is asked for is answered without a message.
        loop {
            let Some((found, mut desired_keys)) = self.changed(cx.now()) else { return };
            if !self.unread_pods.is_empty() {
                let (client, unread) =
                    (self.dependencies.client.clone(), std::mem::take(&mut self.unread_pods));
                cx.spawn(unread_pods::say(client, unread, cx.env().clone()));
            }
            self.withhold(&mut desired_keys, cx).await;
            self.keep_pods(&found, cx);
            self.publisher.publish(&desired_keys, cx.env().traces()).await;
            if found.is_complete {
                self.publisher.complete().await;
            }
            for pause in found.again.into_iter().chain(self.evict(cx)) {
                self.reconcile_after(pause, cx);
            }
            if !self.informers.as_ref().is_some_and(|informers| informers.needs.has_moved()) {
                break;
            }
        }
        self.say_current(cx).await;
        if !self.withheld.is_empty() || !self.publisher.not_current().is_empty() {
            self.reconcile_after(AGAIN_AFTER, cx);
        }
    }

    /// One timer at a time, unless an earlier one is needed.
    fn reconcile_after(&mut self, pause: Duration, cx: &Context<EdgeControllerMsg>) {
        let (now, at) = (cx.now(), cx.now() + pause);
        if self.wakes.is_none_or(|wakes| wakes <= now || at < wakes) {
            self.wakes = Some(at);
            cx.after(pause, EdgeControllerMsg::Reconcile);
        }
    }

    /// What the nodes should hold that anything touched. `None` before everything has been listed once: half a list
    /// would look like deletes.
    fn changed(&mut self, now: Moment) -> Option<(Reconciled, BTreeMap<NodeName, DesiredObjects>)> {
        let Informers { nodes, pods, services, needs, volumes, .. } = self.informers.as_ref()?;
        let moved = volumes.take_moved();
        let volumes = volumes.read();
        let stored = |key: &ObjectKey| volumes.value(key);
        let [mut nodes, mut pods, mut services] = [nodes, pods, services].map(|cache| cache.borrow_mut());
        if !nodes.listed || !pods.listed {
            return None;
        }
        for key in nodes.take_moved() {
            let found = nodes.objects.get(&key);
            self.index.node(&key, found.map(Cached::value).as_deref(), now);
            self.evictions.node(&key.name, found.map(|cached| cached.readiness).unwrap_or_default());
            // Its labels and taints decide what runs there.
            self.index.touch_edge_node(&key.name);
        }
        for key in pods.take_moved() {
            let pod = pods.objects.get(&key).map(Cached::value);
            self.index.pod(&key, pod.as_deref(), &stored, now);
            self.evictions.pod(&key, pod.as_deref());
            if let Some(unread) = pods.unreadable.get(&key).filter(|unread| !unread.uid.is_empty()) {
                self.unread_pods.push((key, unread.clone()));
            }
        }
        for need in &moved {
            for key in self.index.needing(need) {
                self.index.pod(&key, pods.objects.get(&key).map(Cached::value).as_deref(), &stored, now);
            }
            self.index.need(need);
        }
        for key in services.take_moved() {
            self.index.service(&key, services.objects.get(&key).map(Cached::value).as_deref());
        }
        for key in needs.take_moved() {
            self.index.need(&key);
        }
        for node in &self.withheld {
            self.index.touch(node);
        }
        if self.evictions.has_turned() {
            self.index.change_all();
        }
        let listed = if services.listed { Presence::Present } else { Presence::Unknown };
        let presence = |key: &ObjectKey| match volumes.presence(key) {
            _ if service_links::is_need(key) => listed,
            Some(presence) => presence,
            None => needs.presence(key),
        };
        let found = self.index.reconcile(presence, now);
        for (key, readers) in found.needs.iter().filter(|(key, _)| !plan::is_watched_whole(key)) {
            needs.want(key, readers.clone());
        }
        let find = |key: &ObjectKey| match key.resource.as_str() {
            PODS => pods.objects.get(key).map(|cached| Arc::clone(&cached.object)),
            SERVICES => services.objects.get(key).map(|cached| Arc::clone(&cached.object)),
            _ if plan::is_watched_whole(key) => volumes.object(key),
            _ => needs.object(key),
        };
        let with_objects = found.desired_keys.iter().map(|(node, keys)| {
            let objects = keys.iter().filter_map(|key| Some((key.clone(), find(key)?)));
            let own = ObjectKey::new(NODES, "", node.as_str());
            let own = nodes.objects.get(&own).map(|cached| (own, Arc::clone(&cached.object)));
            (node.clone(), objects.chain(own.filter(|_| self.index.is_edge_node(node))).collect())
        });
        let desired_keys = with_objects.collect();
        Some((found, desired_keys))
    }

    /// A node whose Node was deleted is not told to let go of its pods: its link ends instead, and its pods run on. A word of
    /// that kind would else overtake the end of the link. Nor is one that has no Node yet, which may be one that was deleted, and
    /// comes back: what it should hold is known when its Node is there again. Nor is one whose Node somebody has taken the label of an edge
    /// node from.
    async fn withhold(
        &mut self,
        desired_keys: &mut BTreeMap<NodeName, DesiredObjects>,
        cx: &Context<EdgeControllerMsg>,
    ) {
        let linked: Vec<(NodeName, u64)> = desired_keys
            .keys()
            .filter_map(|node| Some((node.clone(), self.publisher.session_of(node)?)))
            .collect();
        for (node, session) in linked {
            if self.is_withheld(&node, session, cx).await {
                desired_keys.remove(&node);
            }
        }
    }

    /// Whether nothing is to be said to the node now; as long as that is so it is looked at again.
    async fn is_withheld(&mut self, node: &NodeName, session: u64, cx: &Context<EdgeControllerMsg>) -> bool {
        let whose = self.node_of_session(node, session).await;
        if whose == NodeOfSession::Living && self.index.is_edge_node(node) {
            self.withheld.remove(node);
            return false;
        }
        if self.withheld.insert(node.clone()) && whose != NodeOfSession::Awaited {
            events::node_withheld(cx.env(), node);
        }
        true
    }

    /// What has become of the Node of a session, as far as is known.
    async fn node_of_session(&mut self, node: &NodeName, session: u64) -> NodeOfSession {
        let living = self.living_uid(node);
        let is = |uid: &String| {
            if living.as_ref() == Some(uid) { NodeOfSession::Living } else { NodeOfSession::Gone }
        };
        if let Some((of, uid)) = self.node_uids.get(node)
            && *of == session
        {
            return is(uid);
        }
        if self.is_lease_silent {
            return NodeOfSession::Awaited;
        }
        let ask = |reply| NodeLeaseMsg::Session { node: node.clone(), session, reply };
        match self.dependencies.lease.ask(SESSION_DEADLINE, ask).await {
            Ok(SessionState::Open { node_uid }) => {
                let found = is(&node_uid);
                self.node_uids.insert(node.clone(), (session, node_uid));
                found
            }
            Ok(SessionState::WithoutNode { .. }) => NodeOfSession::Awaited,
            Ok(SessionState::InDoubt | SessionState::Ended) => NodeOfSession::Gone,
            Err(_) => {
                self.is_lease_silent = true;
                NodeOfSession::Awaited
            }
        }
    }

    /// Of the Node that the informer has, unless it was deleted: one that finalizers hold counts as gone.
    fn living_uid(&self, node: &NodeName) -> Option<String> {
        let nodes = self.informers.as_ref()?.nodes.borrow();
        let found = nodes.objects.get(&ObjectKey::new(NODES, "", node.as_str()))?;
        let is_ending = found.value().pointer("/metadata/deletionTimestamp").is_some();
        (!is_ending).then(|| found.object.uid.clone())
    }

    /// Says of the sessions that opened that all was sent which their nodes should hold, where nothing is missing: neither
    /// the watch of Nodes nor that of pods has broken off, and the API server has said of everything that belongs on the node what it is.
    async fn say_current(&mut self, cx: &Context<EdgeControllerMsg>) {
        if !self.dependencies.interruptions.are_whole(&[NODES, PODS]) {
            return;
        }
        let interruptions = self.dependencies.interruptions.clone();
        for node in self.publisher.not_current() {
            let Some(session) = self.publisher.session_of(&node) else { continue };
            let opened = self.publisher.opened(&node).unwrap_or(cx.now());
            let is_late = cx.now().since(opened) >= UNREAD_WAIT;
            let blocked = self.informers.as_ref().and_then(|informers| {
                let services = informers.services.borrow().listed && interruptions.are_whole(&[SERVICES]);
                let volumes = informers.volumes.read();
                let is_whole = |key: &ObjectKey| match volumes.is_listed(key) {
                    _ if service_links::is_need(key) => services,
                    Some(is_listed) => is_listed && interruptions.are_whole(&[&key.resource]),
                    None => is_late || informers.needs.is_whole(key),
                };
                self.index.blocked_by(&node, is_whole).cloned()
            });
            if let Some(key) = blocked {
                tracing::debug!(%node, session, %key, "the API server has not said what this is, which belongs on the node");
                continue;
            }
            if self.is_withheld(&node, session, cx).await {
                continue;
            }
            let unread = self.unread_on(&node);
            let first = unread.first().cloned();
            if self.publisher.current(&node, unread).await
                && let Some(key) = first
            {
                events::object_unread(cx.env(), &node, &key);
            }
        }
    }

    /// What belongs on the node and is not known as the API server has it.
    fn unread_on(&self, node: &NodeName) -> BTreeSet<ObjectKey> {
        let Some(informers) = &self.informers else { return BTreeSet::new() };
        let is_unread = |key: &ObjectKey| {
            let is_one_by_one = !service_links::is_need(key) && !plan::is_watched_whole(key);
            is_one_by_one && !informers.needs.is_whole(key)
        };
        self.index.needs_on(node).filter(|key| is_unread(key)).cloned().collect()
    }

    /// Asked once per version of a pod on an edge node.
    fn keep_pods(&self, found: &Reconciled, cx: &Context<EdgeControllerMsg>) {
        let Some(informers) = &self.informers else { return };
        let pods = informers.pods.borrow();
        for (key, pod) in found.pods.iter().filter_map(|key| Some((key, pods.objects.get(key)?))) {
            let volumes = informers.volumes.read();
            if plan::needs_of(&pod.value(), &|key| volumes.value(key)).len() == plan::NEEDS_MAX {
                events::too_many_references(cx.env(), key, plan::NEEDS_MAX);
            }
            self.evictions.lift(&self.dependencies.client, key, &pod.value(), cx);
        }
    }

    fn evict(&mut self, cx: &Context<EdgeControllerMsg>) -> Option<Duration> {
        let index = &self.index;
        self.evictions.evict(&self.dependencies.client, |node| index.is_edge_node(node), cx)
    }
}
