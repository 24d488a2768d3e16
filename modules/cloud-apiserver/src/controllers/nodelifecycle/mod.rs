//! Tells which nodes are silent, keeps new pods away from them, and removes those that may not stay.

mod plan;

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use apimachinery::taint::{TolerationTime, toleration_time};
use apimachinery::{NamespacedName, kind};
use beehive::Moment;
use futures::future::join_all;
use serde_json::{Value, json};

use self::plan::NodeHealth;
use super::api_error::unless_stale;
use super::backoff::{Backoff, sooner};
use super::controller::Reconciler;
use super::informer::Lister;
use super::object::{condition_status, has_ended, is_deleting, list, name, namespace, text, uid, version};
use super::{AT_ONCE, ControllerContext, LEASE_NAMESPACE};
use crate::events;

const NAME: &str = "node-controller";
const EVICTION: &str = "taint-eviction-controller";

pub(crate) struct NodeLifecycle {
    context: Rc<ControllerContext>,
    health: BTreeMap<String, NodeHealth>,
    /// Since when pods, by uid, are on a node with taints that limit their stay.
    tainted: BTreeMap<String, Moment>,
    /// Since when nodes that pods are bound to are missing.
    lost: BTreeMap<String, Moment>,
    backoff: Backoff<NamespacedName>,
}

impl NodeLifecycle {
    pub(crate) fn new(context: &Rc<ControllerContext>) -> Self {
        NodeLifecycle {
            context: Rc::clone(context),
            health: BTreeMap::new(),
            tainted: BTreeMap::new(),
            lost: BTreeMap::new(),
            backoff: context.backoff(),
        }
    }
}

impl Reconciler for NodeLifecycle {
    fn listers(&self) -> Vec<Rc<Lister>> {
        let context = &self.context;
        vec![Rc::clone(&context.nodes), Rc::clone(&context.pods), Rc::clone(&context.leases)]
    }

    async fn reconcile(&mut self) -> Option<Duration> {
        let context = Rc::clone(&self.context);
        let (nodes, pods) = (context.nodes.list(), context.pods.list());
        self.backoff.retain(|key| context.nodes.get(key).is_some() || context.pods.get(key).is_some());
        let mut wake = (!nodes.is_empty()).then_some(context.settings.node_check_period);
        let known: BTreeSet<&str> = nodes.iter().map(|node| name(node)).collect();
        self.health.retain(|node, _| known.contains(node.as_str()));
        let mut unready = BTreeSet::new();
        for node in &nodes {
            let left = self.heard(node);
            if !left.is_zero() {
                wake = sooner(wake, Some(left));
            }
            if self.may(node) {
                let result = reconcile_one(&context, node, left.is_zero()).await;
                self.done(node, result);
            }
            // As the server told it: what was written just now is told by the next change.
            if matches!(condition_status(node, "Ready"), "False" | "Unknown") {
                unready.insert(name(node));
            }
        }
        for pod in pods.iter().filter(|pod| unready.contains(text(pod, "/spec/nodeName"))) {
            if let Some(conditions) = plan::unready(pod, context.client.wall()).filter(|_| self.may(pod)) {
                let status = json!({ "conditions": conditions });
                let result = unless_stale(context.client.patch_status(&kind::PODS, pod, status).await);
                self.done(pod, result);
            }
        }
        let by_name: BTreeMap<&str, &Value> = nodes.iter().map(|node| (name(node), &**node)).collect();
        wake = sooner(wake, self.evict(&pods, &by_name).await);
        wake = sooner(wake, self.collect(&pods, &by_name).await);
        self.collect_ended(&pods).await;
        sooner(wake, self.backoff.next(context.env().now()))
    }

    fn backing_off(&self) -> usize {
        self.backoff.len()
    }
}

impl NodeLifecycle {
    fn may(&self, object: &Value) -> bool {
        self.backoff.is_due(&NamespacedName::of(object), self.context.env().now())
    }

    fn done(&mut self, object: &Value, result: Result<(), kube::Error>) {
        self.context.settle(&mut self.backoff, NamespacedName::of(object), result);
    }

    /// Looks for signs of life. Answers for how much longer the node may be silent.
    fn heard(&mut self, node: &Value) -> Duration {
        let settings = &self.context.settings;
        let now = self.context.env().now();
        let lease = self.context.leases.get(&NamespacedName::new(LEASE_NAMESPACE, name(node)));
        let health = self.health.entry(name(node).to_owned()).or_insert_with(|| NodeHealth::first(now));
        health.look(node, lease.as_deref(), now);
        health.left(node, now, settings.node_grace, settings.node_startup_grace)
    }

    /// Removes pods whose time on a tainted node is over.
    async fn evict(&mut self, pods: &[Arc<Value>], nodes: &BTreeMap<&str, &Value>) -> Option<Duration> {
        let context = Rc::clone(&self.context);
        let now = context.env().now();
        let mut still = BTreeSet::new();
        let mut wake = None;
        for pod in pods.iter().filter(|pod| !is_deleting(pod)) {
            context.breathe().await;
            let Some(node) = nodes.get(text(pod, "/spec/nodeName")) else { continue };
            let tolerations = list(pod, "/spec/tolerations");
            let TolerationTime::For(limit) = toleration_time(tolerations, list(node, "/spec/taints")) else {
                continue;
            };
            still.insert(uid(pod));
            let since = *self.tainted.entry(uid(pod).to_owned()).or_insert(now);
            let left = limit.saturating_sub(now.since(since));
            if !left.is_zero() {
                wake = sooner(wake, Some(left));
            } else if self.may(pod) {
                let told = format!("Marking for deletion Pod {}/{}", namespace(pod), name(pod));
                context.client.event(EVICTION, pod, false, "TaintManagerEviction", &told).await;
                let why = "Taint manager: deleting due to NoExecute taint";
                let result = remove(&context, pod, "DeletionByTaintManager", why, None).await;
                self.done(pod, result);
            }
        }
        self.tainted.retain(|pod, _| still.contains(pod.as_str()));
        wake
    }

    /// Removes pods of nodes that do not exist, and those that nobody will ever end.
    async fn collect(&mut self, pods: &[Arc<Value>], nodes: &BTreeMap<&str, &Value>) -> Option<Duration> {
        let context = Rc::clone(&self.context);
        let now = context.env().now();
        let (mut missing, mut gone, mut wake) = (BTreeSet::new(), BTreeMap::new(), None);
        for pod in pods {
            context.breathe().await;
            let node = text(pod, "/spec/nodeName");
            if node.is_empty() {
                if is_deleting(pod) && self.may(pod) {
                    let result = unless_stale(context.client.delete(&kind::PODS, pod, Some(0)).await);
                    self.done(pod, result);
                }
                continue;
            }
            if nodes.contains_key(node) {
                continue;
            }
            missing.insert(node);
            let since = *self.lost.entry(node.to_owned()).or_insert(now);
            let left = context.settings.lost_node_grace.saturating_sub(now.since(since));
            if !left.is_zero() {
                wake = sooner(wake, Some(left));
                continue;
            }
            if !self.may(pod) {
                continue;
            }
            let result = match gone.get(node) {
                Some(gone) => Ok(*gone),
                // The server is asked: a watch may be late.
                None => context
                    .client
                    .get(&kind::NODES, &NamespacedName::new("", node))
                    .await
                    .map(|found| found.is_none()),
            };
            let result = match result {
                Ok(is_gone) => {
                    gone.insert(node, is_gone);
                    if is_gone { forget(&context, pod).await } else { Ok(()) }
                }
                Err(error) => Err(error),
            };
            self.done(pod, result);
        }
        self.lost.retain(|node, _| missing.contains(node.as_str()));
        wake
    }

    /// Removes pods that have ended when there are too many of them: whatever makes a pod anew for each that fails would fill the
    /// store with them.
    async fn collect_ended(&mut self, pods: &[Arc<Value>]) {
        let context = Rc::clone(&self.context);
        let settings = &context.settings;
        let pods = pods.iter().map(|pod| &**pod);
        let surplus = plan::surplus(pods, settings.ended_pods_in_namespace, settings.ended_pods);
        let surplus: Vec<&Value> = surplus.into_iter().filter(|pod| self.may(pod)).collect();
        for batch in surplus.chunks(AT_ONCE) {
            let removals = batch.iter().map(|pod| context.client.delete(&kind::PODS, pod, Some(0)));
            for (pod, removed) in batch.iter().zip(join_all(removals).await) {
                if removed.is_ok() {
                    events::ended_pod_removed(context.env(), &NamespacedName::of(pod));
                }
                self.done(pod, unless_stale(removed));
            }
        }
    }
}

async fn reconcile_one(
    context: &ControllerContext,
    node: &Value,
    is_silent: bool,
) -> Result<(), kube::Error> {
    let wall = context.client.wall();
    if let Some(conditions) = is_silent.then(|| plan::silent(node, wall)).flatten() {
        let was = condition_status(node, "Ready").to_owned();
        match context.client.patch_status(&kind::NODES, node, json!({ "conditions": conditions })).await {
            Ok(()) if was == "True" => {
                let told = format!("Node {} status is now: NodeNotReady", name(node));
                events::node_not_ready(context.env(), name(node));
                context.client.event(NAME, node, false, "NodeNotReady", &told).await;
            }
            other => unless_stale(other)?,
        }
        // The taints follow from the conditions when the watch tells them.
        return Ok(());
    }
    if let Some(taints) = plan::taints(node, wall) {
        let patch = json!({
            "metadata": { "uid": uid(node), "resourceVersion": version(node) }, "spec": { "taints": taints },
        });
        unless_stale(context.client.patch(&kind::NODES, &NamespacedName::of(node), &patch).await)?;
    }
    Ok(())
}

/// Says why, and deletes.
async fn remove(
    context: &ControllerContext,
    pod: &Value,
    reason: &str,
    why: &str,
    grace: Option<u32>,
) -> Result<(), kube::Error> {
    let mut status = json!({ "conditions": plan::disrupted(pod, reason, why, context.client.wall()) });
    // Nobody is there to say how it ended.
    if grace == Some(0) && !has_ended(pod) {
        status["phase"] = json!("Failed");
    }
    unless_stale(context.client.patch_status(&kind::PODS, pod, status).await)?;
    unless_stale(context.client.delete(&kind::PODS, pod, grace).await)
}

async fn forget(context: &ControllerContext, pod: &Value) -> Result<(), kube::Error> {
    events::orphaned_pod_removed(context.env(), &NamespacedName::of(pod));
    remove(context, pod, "DeletionByPodGC", "PodGC: node no longer exists", Some(0)).await
}
