//! Gives pods that have no node one.

mod plan;

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use apimachinery::{NamespacedName, kind};
use futures::StreamExt;
use serde_json::{Value, json};

use self::plan::{NodeInfo, Placement, ScheduleResult};
use super::api_error::{is_stale, unless_stale};
use super::backoff::Backoff;
use super::controller::Reconciler;
use super::informer::Lister;
use super::object::{condition, list, name, namespace, text, uid, with_condition};
use super::{AT_ONCE, ControllerContext};

const NAME: &str = "default-scheduler";

pub(crate) struct Scheduler {
    context: Rc<ControllerContext>,
    /// Pods by uid whose binding was written and is not in the cache yet.
    bound: BTreeMap<String, String>,
    backoff: Backoff<NamespacedName>,
}

impl Scheduler {
    pub(crate) fn new(context: &Rc<ControllerContext>) -> Self {
        Scheduler { context: Rc::clone(context), bound: BTreeMap::new(), backoff: context.backoff() }
    }
}

impl Reconciler for Scheduler {
    fn listers(&self) -> Vec<Rc<Lister>> {
        vec![Rc::clone(&self.context.nodes), Rc::clone(&self.context.pods)]
    }

    async fn reconcile(&mut self) -> Option<Duration> {
        let context = Rc::clone(&self.context);
        let (nodes, pods) = (context.nodes.list(), context.pods.list());
        let unbound: BTreeSet<&str> =
            pods.iter().filter(|pod| text(pod, "/spec/nodeName").is_empty()).map(|pod| uid(pod)).collect();
        self.bound.retain(|uid_bound, _| unbound.contains(uid_bound.as_str()));
        self.backoff.retain(|key| context.pods.get(key).is_some());
        let mut node_infos: BTreeMap<String, NodeInfo<'_>> =
            nodes.iter().map(|node| (name(node).to_owned(), NodeInfo::new(node))).collect();
        for pod in &pods {
            let assumed = self.bound.get(uid(pod)).map(String::as_str);
            if let Some(node_info) = node_infos.get_mut(assumed.unwrap_or(text(pod, "/spec/nodeName"))) {
                node_info.take(pod);
            }
            context.breathe().await;
        }
        let now = context.env().now();
        let mut waiting: Vec<&Value> =
            pods.iter().map(|pod| &**pod).filter(|pod| plan::is_waiting(pod)).collect();
        waiting.retain(|pod| {
            !self.bound.contains_key(uid(pod)) && self.backoff.is_due(&NamespacedName::of(pod), now)
        });
        plan::sort(&mut waiting);
        let mut decisions = Vec::new();
        for pod in waiting {
            if plan::is_gated(pod) {
                let why = "Scheduling is blocked due to non-empty scheduling gates".to_owned();
                decisions.push(Decision::Wait(pod, "SchedulingGated", why));
                continue;
            }
            let mut placement = Placement::new(pod);
            for node_info in node_infos.values() {
                placement.look(node_info);
                context.breathe().await;
            }
            match placement.result() {
                ScheduleResult::Nowhere(why) => decisions.push(Decision::Wait(pod, "Unschedulable", why)),
                ScheduleResult::Best(best) => {
                    let pick = context.env().random_below(u64::try_from(best.len()).unwrap_or_default());
                    let Some(node) = best.into_iter().nth(usize::try_from(pick).unwrap_or_default()) else {
                        continue;
                    };
                    if let Some(node_info) = node_infos.get_mut(&node) {
                        node_info.take(pod);
                    }
                    decisions.push(Decision::Bind(pod, node));
                }
            }
        }
        self.write(decisions).await;
        self.backoff.next(context.env().now())
    }

    fn backing_off(&self) -> usize {
        self.backoff.len()
    }
}

enum Decision<'a> {
    Bind(&'a Value, String),
    Wait(&'a Value, &'static str, String),
}

impl Scheduler {
    async fn write(&mut self, decisions: Vec<Decision<'_>>) {
        let context = Rc::clone(&self.context);
        let written = futures::stream::iter(decisions)
            .map(|decision| async {
                let result = match &decision {
                    Decision::Bind(pod, node) => bind(&context, pod, node).await,
                    Decision::Wait(pod, reason, why) => wait(&context, pod, reason, why).await,
                };
                (decision, result)
            })
            .buffer_unordered(AT_ONCE);
        let written: Vec<_> = written.collect().await;
        for (decision, result) in written {
            let (pod, node) = match decision {
                Decision::Bind(pod, node) => (pod, Some(node)),
                Decision::Wait(pod, ..) => (pod, None),
            };
            let key = NamespacedName::of(pod);
            match (result, node) {
                (Ok(()), Some(node)) => {
                    self.backoff.done(&key);
                    self.bound.insert(uid(pod).to_owned(), node);
                }
                (Ok(()), None) => self.backoff.done(&key),
                (Err(error), _) => {
                    // A conflict is told by the watch; but if the watch has told it already, nothing else wakes us.
                    if !is_stale(&error) {
                        context.failed(&key, &error);
                    }
                    self.backoff.failed(key, context.env());
                }
            }
        }
    }
}

async fn bind(context: &ControllerContext, pod: &Value, node: &str) -> Result<(), kube::Error> {
    context.client.bind(pod, node).await?;
    let told = format!("Successfully assigned {}/{} to {node}", namespace(pod), name(pod));
    context.client.event(NAME, pod, false, "Scheduled", &told).await;
    Ok(())
}

/// Says once why a pod waits.
async fn wait(context: &ControllerContext, pod: &Value, reason: &str, why: &str) -> Result<(), kube::Error> {
    let said = condition(pod, "PodScheduled");
    let same = said.is_some_and(|said| text(said, "/reason") == reason && text(said, "/message") == why);
    if same {
        return Ok(());
    }
    let new = json!({ "type": "PodScheduled", "status": "False", "reason": reason, "message": why, "lastProbeTime": null });
    let conditions = with_condition(list(pod, "/status/conditions"), new, context.client.wall());
    let patched = context.client.patch_status(&kind::PODS, pod, json!({ "conditions": conditions })).await;
    unless_stale(patched)?;
    if reason == "Unschedulable" {
        context.client.event(NAME, pod, true, "FailedScheduling", why).await;
    }
    Ok(())
}
