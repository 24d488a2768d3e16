//! Removes what is owned by nobody any more.

mod graph;
mod plan;

use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use kube::api::{
    Api, ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, Preconditions, PropagationPolicy,
};
use kubewatch::status_code;
use serde_json::{Value, json};

use self::graph::GraphSnapshot;
use self::plan::{CollectorAction, FOREGROUND, ORPHAN, ObjectNode, Owner};
use super::api_error::{is_stale, message};
use super::backoff::Backoff;
use super::controller::Reconciler;
use super::informer::Lister;
use super::object::list;
use super::resource::path_segment;
use super::{AT_ONCE, ControllerContext};
use crate::events;

pub(crate) use graph::{Graph, METADATA_INFORMER, OwnerGraph, discover_again};

pub(crate) struct GarbageCollector {
    context: Rc<ControllerContext>,
    graph: Rc<Graph>,
    backoff: Backoff<String>,
}

impl GarbageCollector {
    pub(crate) fn new(context: &Rc<ControllerContext>, graph: &Rc<Graph>) -> Self {
        GarbageCollector { context: Rc::clone(context), graph: Rc::clone(graph), backoff: context.backoff() }
    }
}

impl Reconciler for GarbageCollector {
    fn listers(&self) -> Vec<Rc<Lister>> {
        Vec::new()
    }

    async fn reconcile(&mut self) -> Option<Duration> {
        let context = Rc::clone(&self.context);
        let snapshot = self.graph.snapshot();
        let now = context.env().now();
        let there: BTreeSet<&str> = snapshot.objects.iter().map(|object| object.uid.as_str()).collect();
        self.backoff.retain(|uid| there.contains(uid.as_str()));
        let (objects, kinds) = (snapshot.objects.clone(), snapshot.kinds.clone());
        // All objects of all kinds at once: not on the hive's thread.
        let steps = match context.env().blocking(move || plan::plan(&objects, &kinds)).await {
            Ok(steps) => steps,
            Err(fault) => {
                events::plan_failed(context.env(), context.name, &fault.reason);
                return Some(context.settings.retry_most);
            }
        };
        let due: Vec<CollectorAction> =
            steps.into_iter().filter(|step| self.backoff.is_due(&step.object().uid, now)).collect();
        let done: Vec<(String, Result<(), kube::Error>)> = futures::stream::iter(due)
            .map(|step| {
                let (context, snapshot) = (&context, &snapshot);
                async move { (step.object().uid.clone(), write(context, snapshot, &step).await) }
            })
            .buffer_unordered(AT_ONCE)
            .collect()
            .await;
        for (uid, result) in done {
            match result {
                Ok(()) => self.backoff.done(&uid),
                Err(error) => {
                    if !is_stale(&error) {
                        events::dependent_failed(context.env(), &uid, &message(&error));
                    }
                    self.backoff.failed(uid, context.env());
                }
            }
        }
        self.backoff.next(context.env().now())
    }

    fn backing_off(&self) -> usize {
        self.backoff.len()
    }
}

fn api(context: &ControllerContext, resource: &ApiResource, namespace: &str) -> Api<DynamicObject> {
    let client = context.client.client().clone();
    if namespace.is_empty() {
        Api::all_with(client, resource)
    } else {
        Api::namespaced_with(client, namespace, resource)
    }
}

async fn write(
    context: &ControllerContext,
    snapshot: &GraphSnapshot,
    step: &CollectorAction,
) -> Result<(), kube::Error> {
    match step {
        CollectorAction::Delete { object, verify, foreground } => {
            let gone = gone(context, snapshot, object, verify).await?;
            if gone.len() < verify.len() {
                // The watch was late: an owner is there.
                return Ok(());
            }
            delete(context, snapshot, object, *foreground).await
        }
        CollectorAction::Unlink { object, verify, surely } => {
            let mut owners = gone(context, snapshot, object, verify).await?;
            owners.extend(surely.iter().cloned());
            if owners.is_empty() {
                return Ok(());
            }
            let owners: BTreeSet<&str> = owners.iter().map(String::as_str).collect();
            change(context, snapshot, object, |live| {
                let mut left = list(live, "/metadata/ownerReferences").to_vec();
                left.retain(|owner| !owner["uid"].as_str().is_some_and(|uid| owners.contains(uid)));
                json!({ "ownerReferences": left })
            })
            .await
        }
        CollectorAction::Release { object, finalizer } => {
            change(context, snapshot, object, |live| {
                let mut left = list(live, "/metadata/finalizers").to_vec();
                left.retain(|known| known != finalizer);
                json!({ "finalizers": left })
            })
            .await
        }
    }
}

/// Which owners are gone indeed: the server is asked, because one watch may be ahead of another.
async fn gone(
    context: &ControllerContext,
    snapshot: &GraphSnapshot,
    object: &ObjectNode,
    owners: &[(usize, Owner)],
) -> Result<Vec<String>, kube::Error> {
    let mut gone = Vec::new();
    for (kind, owner) in owners {
        let (Some(resource), Some(seen)) = (snapshot.resources.get(*kind), snapshot.kinds.get(*kind)) else {
            continue;
        };
        let namespace = if seen.namespaced { object.key.namespace.as_str() } else { "" };
        // What nothing can be called is not there.
        let live = match path_segment(&owner.name) {
            Some(name) => api(context, resource, namespace).get_metadata_opt(&name).await?,
            None => None,
        };
        if live.is_none_or(|live| live.metadata.uid.as_deref() != Some(&owner.uid)) {
            gone.push(owner.uid.clone());
        }
    }
    Ok(gone)
}

async fn delete(
    context: &ControllerContext,
    snapshot: &GraphSnapshot,
    object: &Arc<ObjectNode>,
    foreground: bool,
) -> Result<(), kube::Error> {
    let Some(resource) = snapshot.resources.get(object.kind) else { return Ok(()) };
    let has = |wanted: &str| object.finalizers.iter().any(|finalizer| finalizer == wanted);
    // What its own finalizers ask for is kept.
    let policy = match () {
        () if has(ORPHAN) => PropagationPolicy::Orphan,
        () if has(FOREGROUND) || foreground => PropagationPolicy::Foreground,
        () => PropagationPolicy::Background,
    };
    let how = DeleteParams {
        propagation_policy: Some(policy),
        preconditions: Some(Preconditions { uid: Some(object.uid.clone()), resource_version: None }),
        ..DeleteParams::default()
    };
    let Some(name) = path_segment(&object.key.name) else { return Ok(()) };
    let api = api(context, resource, &object.key.namespace);
    match context.client.send(async move { api.delete(&name, &how).await.map(|_| ()) }).await {
        Ok(_) => {
            events::dependent_removed(context.env(), &resource.kind, &object.key);
            Ok(())
        }
        Err(error) if is_stale(&error) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Changes metadata of the object as it is now, if it is still the same one.
async fn change(
    context: &ControllerContext,
    snapshot: &GraphSnapshot,
    object: &ObjectNode,
    next: impl Fn(&Value) -> Value,
) -> Result<(), kube::Error> {
    let Some(resource) = snapshot.resources.get(object.kind) else { return Ok(()) };
    let api = api(context, resource, &object.key.namespace);
    let Some(name) = path_segment(&object.key.name) else { return Ok(()) };
    let Some(live) = api.get_metadata_opt(&name).await? else { return Ok(()) };
    if live.metadata.uid.as_deref() != Some(&object.uid) {
        return Ok(());
    }
    let live = json!({ "metadata": live.metadata });
    let mut metadata = next(&live);
    metadata["uid"] = live["metadata"]["uid"].clone();
    metadata["resourceVersion"] = live["metadata"]["resourceVersion"].clone();
    let patch = json!({ "metadata": metadata });
    let patch = Patch::Merge(patch);
    let request = async move { api.patch(&name, &PatchParams::default(), &patch).await.map(|_| ()) };
    match context.client.send(request).await {
        Err(error) if error_is_gone(&error) => Ok(()),
        Ok(_) => Ok(()),
        Err(error) => Err(error),
    }
}

fn error_is_gone(error: &kube::Error) -> bool {
    status_code(error) == Some(404)
}
