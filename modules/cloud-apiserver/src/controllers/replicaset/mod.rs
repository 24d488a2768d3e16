//! Keeps as many pods as each replica set asks for.

mod plan;

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use apimachinery::{NamespacedName, kind};
use beehive::Moment;
use futures::future::join_all;
use kubewatch::status_code;
use serde_json::Value;

use self::plan::Change;
use super::api_error::{message, unless_stale};
use super::backoff::{Backoff, sooner};
use super::controller::Reconciler;
use super::informer::Lister;
use super::object::{
    controller_of, controller_uid, is_deleting, labels, name, namespace, number, reference_to, uid,
};
use super::selector::{LabelSelector, is_empty};
use super::{AT_ONCE, ControllerContext, controller_ref};

const NAME: &str = "replicaset-controller";
/// 30 s: after that a pod that was made and never seen is taken for removed by somebody before the watch told it.
const UNSEEN: Duration = Duration::from_secs(30);

pub(crate) struct ReplicaSets {
    context: Rc<ControllerContext>,
    /// Pods that were made and are not in the cache yet, by the uid of their set.
    unseen: BTreeMap<String, BTreeMap<String, Moment>>,
    /// Pods that were deleted and do not show it in the cache yet.
    going: BTreeSet<String>,
    /// Since when a pod is seen to be ready.
    ready: BTreeMap<String, Moment>,
    /// Why the last change of a set failed.
    failures: BTreeMap<NamespacedName, (&'static str, String)>,
    backoff: Backoff<NamespacedName>,
}

impl ReplicaSets {
    pub(crate) fn new(context: &Rc<ControllerContext>) -> Self {
        ReplicaSets {
            context: Rc::clone(context),
            unseen: BTreeMap::new(),
            going: BTreeSet::new(),
            ready: BTreeMap::new(),
            failures: BTreeMap::new(),
            backoff: context.backoff(),
        }
    }
}

impl Reconciler for ReplicaSets {
    fn listers(&self) -> Vec<Rc<Lister>> {
        vec![Rc::clone(&self.context.replica_sets), Rc::clone(&self.context.pods)]
    }

    async fn reconcile(&mut self) -> Option<Duration> {
        let context = Rc::clone(&self.context);
        let (sets, pods) = (context.replica_sets.list(), context.pods.list());
        let now = context.env().now();
        self.forget(&sets, &pods, now);
        let mut owned: BTreeMap<&str, Vec<&Arc<Value>>> = BTreeMap::new();
        let mut free: Vec<&Arc<Value>> = Vec::new();
        for pod in &pods {
            match controller_of(pod) {
                Some(_) => owned.entry(controller_uid(pod)).or_default().push(pod),
                None => free.push(pod),
            }
        }
        let mut wake = None;
        for set in &sets {
            let key = NamespacedName::of(set);
            if !self.backoff.is_due(&key, now) {
                continue;
            }
            context.breathe().await;
            let own = owned.get(uid(set)).map(Vec::as_slice).unwrap_or_default();
            let result = self.reconcile_one(set, own, &free).await;
            wake = sooner(wake, context.settle(&mut self.backoff, key, result).flatten());
        }
        let unseen =
            self.unseen.values().flat_map(BTreeMap::values).map(|since| (*since + UNSEEN).since(now)).min();
        sooner(sooner(wake, unseen), self.backoff.next(context.env().now()))
    }

    fn backing_off(&self) -> usize {
        self.backoff.len()
    }
}

impl ReplicaSets {
    /// What the cache shows by now is no expectation any more.
    fn forget(&mut self, sets: &[Arc<Value>], pods: &[Arc<Value>], now: Moment) {
        let seen: BTreeMap<&str, &Arc<Value>> = pods.iter().map(|pod| (uid(pod), pod)).collect();
        for made in self.unseen.values_mut() {
            made.retain(|pod, since| !seen.contains_key(pod.as_str()) && now.since(*since) < UNSEEN);
        }
        self.unseen.retain(|_, made| !made.is_empty());
        self.going.retain(|pod| seen.get(pod.as_str()).is_some_and(|pod| !is_deleting(pod)));
        let is_ready = |pod: &Value| super::object::is_ready(pod) && !is_deleting(pod);
        self.ready.retain(|pod, _| seen.get(pod.as_str()).is_some_and(|pod| is_ready(pod)));
        for pod in pods.iter().filter(|pod| is_ready(pod)) {
            self.ready.entry(uid(pod).to_owned()).or_insert(now);
        }
        let there: BTreeSet<NamespacedName> = sets.iter().map(|set| NamespacedName::of(set)).collect();
        self.backoff.retain(|key| there.contains(key));
        self.failures.retain(|key, _| there.contains(key));
    }

    async fn reconcile_one(
        &mut self,
        set: &Arc<Value>,
        own: &[&Arc<Value>],
        free: &[&Arc<Value>],
    ) -> Result<Option<Duration>, kube::Error> {
        let context = Rc::clone(&self.context);
        let selector = &set["spec"]["selector"];
        if is_empty(selector) {
            return Ok(None);
        }
        let selector = LabelSelector::of(selector);
        let (own, strange): (Vec<&Arc<Value>>, Vec<&Arc<Value>>) =
            own.iter().copied().partition(|pod| selector.picks(labels(pod)));
        if !is_deleting(set) {
            let reference = reference_to(set, "apps/v1", "ReplicaSet");
            for pod in strange {
                unless_stale(controller_ref::release(&context, &kind::PODS, pod, uid(set)).await)?;
            }
            let orphans = free.iter().filter(|pod| {
                namespace(pod) == namespace(set) && selector.picks(labels(pod)) && !is_deleting(pod)
            });
            let mut adopted = false;
            for pod in orphans.filter(|pod| !super::object::has_ended(pod)) {
                unless_stale(controller_ref::adopt(&context, &kind::PODS, pod, &reference).await)?;
                adopted = true;
            }
            if adopted {
                // It counts as soon as the watch tells.
                return Ok(None);
            }
        }
        let staying = own.iter().map(|pod| &***pod).filter(|pod| !self.going.contains(uid(pod)));
        let active = plan::active(staying);
        let key = NamespacedName::of(set);
        let unseen = self.unseen.get(uid(set)).map(BTreeMap::len).unwrap_or_default();
        let wanted = number(set, "/spec/replicas").unwrap_or(1);
        let change = plan::change(usize::try_from(wanted).unwrap_or_default(), &active, unseen);
        let result = match change {
            _ if is_deleting(set) => Ok(()),
            Change::Nothing => Ok(()),
            Change::Create(count) => self.create(set, count).await.map_err(|error| ("FailedCreate", error)),
            Change::Delete(pods) => self.delete(set, &pods).await.map_err(|error| ("FailedDelete", error)),
        };
        match &result {
            Ok(()) => self.failures.remove(&key),
            Err((reason, error)) => self.failures.insert(key.clone(), (reason, message(error))),
        };
        let failure = self.failures.get(&key).map(|(reason, message)| (*reason, message.as_str()));
        let now = context.env().now();
        let seen = |pod: &Value| self.ready.get(uid(pod)).map(|since| now.since(*since)).unwrap_or_default();
        let (status, next) = plan::status(set, &active, failure, context.client.wall(), seen);
        if !plan::is_said(set, &status) {
            unless_stale(context.client.patch_status(&kind::REPLICA_SETS, set, status).await)?;
        }
        result.map(|()| next).map_err(|(_, error)| error)
    }

    /// One, then two, then four…: a template that is refused is not sent five hundred times.
    async fn create(&mut self, set: &Value, count: usize) -> Result<(), kube::Error> {
        let context = Rc::clone(&self.context);
        let pod = plan::pod(set);
        let (mut left, mut batch) = (count, 1);
        while left > 0 {
            let now = batch.min(left).min(AT_ONCE);
            let made =
                join_all((0..now).map(|_| context.client.create(&kind::PODS, namespace(set), pod.clone())))
                    .await;
            let mut failed = None;
            for result in made {
                match result {
                    Ok(made) => {
                        let since = context.env().now();
                        self.unseen
                            .entry(uid(set).to_owned())
                            .or_default()
                            .insert(uid(&made).to_owned(), since);
                        let told = format!("Created pod: {}", name(&made));
                        context.client.event(NAME, set, false, "SuccessfulCreate", &told).await;
                    }
                    Err(error) => failed = Some(error),
                }
            }
            if let Some(error) = failed {
                let told = format!("Error creating: {}", message(&error));
                context.client.event(NAME, set, true, "FailedCreate", &told).await;
                return Err(error);
            }
            left -= now;
            batch *= 2;
        }
        Ok(())
    }

    async fn delete(&mut self, set: &Value, pods: &[&Value]) -> Result<(), kube::Error> {
        let context = Rc::clone(&self.context);
        for batch in pods.chunks(AT_ONCE) {
            let results =
                join_all(batch.iter().map(|pod| context.client.delete(&kind::PODS, pod, None))).await;
            for (pod, result) in batch.iter().zip(results) {
                match result {
                    Ok(()) => {
                        self.going.insert(uid(pod).to_owned());
                        let told = format!("Deleted pod: {}", name(pod));
                        context.client.event(NAME, set, false, "SuccessfulDelete", &told).await;
                    }
                    // Somebody was faster, or it is another pod by now.
                    Err(error) if matches!(status_code(&error), Some(404 | 409)) => {
                        self.going.insert(uid(pod).to_owned());
                    }
                    Err(error) => {
                        let told = format!("Error deleting: {}", message(&error));
                        context.client.event(NAME, set, true, "FailedDelete", &told).await;
                        return Err(error);
                    }
                }
            }
        }
        Ok(())
    }
}
