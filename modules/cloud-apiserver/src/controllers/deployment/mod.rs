//! Rolls replica sets so that each deployment runs its template.

mod plan;
mod rollout;
mod template;

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use apimachinery::{NamespacedName, kind};
use kubewatch::status_code;
use serde_json::{Value, json};

use self::plan::RolloutStep;
use super::api_error::{message, unless_stale};
use super::backoff::{Backoff, sooner};
use super::controller::Reconciler;
use super::informer::Lister;
use super::object::{
    controller_of, controller_uid, has_ended, is_deleting, labels, name, namespace, number, reference_to, uid,
};
use super::selector::{LabelSelector, is_empty};
use super::{ControllerContext, controller_ref};

const NAME: &str = "deployment-controller";

pub(crate) struct Deployments {
    context: Rc<ControllerContext>,
    backoff: Backoff<NamespacedName>,
}

impl Deployments {
    pub(crate) fn new(context: &Rc<ControllerContext>) -> Self {
        Deployments { context: Rc::clone(context), backoff: context.backoff() }
    }
}

impl Reconciler for Deployments {
    fn listers(&self) -> Vec<Rc<Lister>> {
        let context = &self.context;
        vec![Rc::clone(&context.deployments), Rc::clone(&context.replica_sets), Rc::clone(&context.pods)]
    }

    async fn reconcile(&mut self) -> Option<Duration> {
        let context = Rc::clone(&self.context);
        let (deployments, sets) = (context.deployments.list(), context.replica_sets.list());
        let pods = context.pods.list();
        let running: BTreeSet<&str> =
            pods.iter().filter(|pod| !has_ended(pod)).map(|pod| controller_uid(pod)).collect();
        let mut owned: BTreeMap<&str, Vec<&Arc<Value>>> = BTreeMap::new();
        for set in &sets {
            let owner = if controller_of(set).is_some() { controller_uid(set) } else { "" };
            owned.entry(owner).or_default().push(set);
        }
        self.backoff.retain(|key| context.deployments.get(key).is_some());
        let now = context.env().now();
        let mut wake = None;
        for deployment in &deployments {
            let key = NamespacedName::of(deployment);
            if !self.backoff.is_due(&key, now) {
                continue;
            }
            context.breathe().await;
            let own = owned.get(uid(deployment)).map(Vec::as_slice).unwrap_or_default();
            let free = owned.get("").map(Vec::as_slice).unwrap_or_default();
            let result = reconcile_one(&context, deployment, own, free, &running).await;
            wake = sooner(wake, context.settle(&mut self.backoff, key, result).flatten());
        }
        sooner(wake, self.backoff.next(context.env().now()))
    }

    fn backing_off(&self) -> usize {
        self.backoff.len()
    }
}

async fn reconcile_one(
    context: &ControllerContext,
    deployment: &Value,
    own: &[&Arc<Value>],
    free: &[&Arc<Value>],
    running: &BTreeSet<&str>,
) -> Result<Option<Duration>, kube::Error> {
    let selector = &deployment["spec"]["selector"];
    if is_empty(selector) {
        return Ok(None);
    }
    let selector = LabelSelector::of(selector);
    let (own, strange): (Vec<&Value>, Vec<&Value>) =
        own.iter().map(|set| &***set).partition(|set| selector.picks(labels(set)));
    if !is_deleting(deployment) {
        for set in strange {
            unless_stale(controller_ref::release(context, &kind::REPLICA_SETS, set, uid(deployment)).await)?;
        }
        let reference = reference_to(deployment, "apps/v1", "Deployment");
        let orphans = free.iter().filter(|set| {
            namespace(set) == namespace(deployment) && selector.picks(labels(set)) && !is_deleting(set)
        });
        let mut adopted = false;
        for set in orphans {
            unless_stale(controller_ref::adopt(context, &kind::REPLICA_SETS, set, &reference).await)?;
            adopted = true;
        }
        if adopted {
            // It counts as soon as the watch tells.
            return Ok(None);
        }
    }
    let old_pods = own.iter().any(|set| running.contains(uid(set)) && !template::is_same(deployment, set));
    let plan = plan::plan(deployment, &own, old_pods, context.client.wall());
    // The deployment's own annotation comes last: the status is written against the version that was read.
    let (last, first): (Vec<RolloutStep>, Vec<RolloutStep>) =
        plan.steps.into_iter().partition(|step| matches!(step, RolloutStep::Revision(_)));
    for step in first {
        write(context, deployment, &own, step).await?;
    }
    if !plan::is_said(deployment, &plan.status) {
        unless_stale(context.client.patch_status(&kind::DEPLOYMENTS, deployment, plan.status).await)?;
    }
    for step in last {
        write(context, deployment, &own, step).await?;
    }
    Ok(plan.wake)
}

async fn write(
    context: &ControllerContext,
    deployment: &Value,
    own: &[&Value],
    step: RolloutStep,
) -> Result<(), kube::Error> {
    let key = |set: &str| NamespacedName::new(namespace(deployment), set);
    match step {
        RolloutStep::Create(set) => {
            let (set_name, size) = (name(&set).to_owned(), rollout::size(&set));
            match context.client.create(&kind::REPLICA_SETS, namespace(deployment), set).await {
                Ok(_) => {
                    let told = format!("Scaled up replica set {set_name} from 0 to {size}");
                    context.client.event(NAME, deployment, false, "ScalingReplicaSet", &told).await;
                    Ok(())
                }
                Err(error) if status_code(&error) == Some(409) => {
                    taken(context, deployment, &key(&set_name)).await
                }
                Err(error) => {
                    let told =
                        format!("Failed to create new replica set \"{set_name}\": {}", message(&error));
                    context.client.event(NAME, deployment, true, "ReplicaSetCreateError", &told).await;
                    Err(error)
                }
            }
        }
        RolloutStep::Patch { set, patch } => {
            unless_stale(context.client.patch(&kind::REPLICA_SETS, &key(&set), &patch).await)
        }
        RolloutStep::Scale { set, patch, from, to } => {
            match context.client.patch(&kind::REPLICA_SETS, &key(&set), &patch).await {
                Ok(()) => {
                    if from != to {
                        let way = if to > from { "up" } else { "down" };
                        let told = format!("Scaled {way} replica set {set} from {from} to {to}");
                        context.client.event(NAME, deployment, false, "ScalingReplicaSet", &told).await;
                    }
                    Ok(())
                }
                Err(error) => unless_stale::<()>(Err(error)),
            }
        }
        RolloutStep::Delete(set) => match own.iter().find(|own| name(own) == set) {
            Some(set) => unless_stale(context.client.delete(&kind::REPLICA_SETS, set, None).await),
            None => Ok(()),
        },
        RolloutStep::Revision(patch) => unless_stale(
            context.client.patch(&kind::DEPLOYMENTS, &NamespacedName::of(deployment), &patch).await,
        ),
    }
}

/// The name is taken: by ourselves a moment ago, or by another template with the same hash. Then the next hash is
/// another one.
async fn taken(
    context: &ControllerContext,
    deployment: &Value,
    key: &NamespacedName,
) -> Result<(), kube::Error> {
    let Some(set) = context.client.get(&kind::REPLICA_SETS, key).await? else { return Ok(()) };
    if template::is_owned(&set, uid(deployment)) && template::is_same(deployment, &set) {
        return Ok(());
    }
    let collisions = number(deployment, "/status/collisionCount").unwrap_or_default() + 1;
    let status = json!({ "collisionCount": collisions });
    unless_stale(context.client.patch_status(&kind::DEPLOYMENTS, deployment, status).await)
}
