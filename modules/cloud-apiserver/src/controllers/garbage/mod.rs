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
use serde_json::{Value, json};
use tokio::sync::Notify;

use self::graph::Picture;
use self::plan::{Entry, FOREGROUND, ORPHAN, Owner, Step};
use super::api_error::{is_stale, message};
use super::cache::Cache;
use super::object::list;
use super::retry::Retry;
use super::{AT_ONCE, Controller, Shared};

pub(crate) use graph::Graph;

pub(crate) struct Garbage {
    shared: Rc<Shared>,
    graph: Rc<Graph>,
    retry: Retry<String>,
}

impl Garbage {
    pub(crate) fn new(shared: &Rc<Shared>, graph: &Rc<Graph>) -> Self {
        Garbage { shared: Rc::clone(shared), graph: Rc::clone(graph), retry: shared.retry() }
    }
}

impl Controller for Garbage {
    fn name(&self) -> &'static str {
        "garbage collector"
    }

    fn reads(&self) -> Vec<Rc<Cache>> {
        Vec::new()
    }

    fn nudge(&self) -> Option<Rc<Notify>> {
        Some(Rc::clone(&self.graph.changed))
    }

    async fn look(&mut self) -> Option<Duration> {
        let shared = Rc::clone(&self.shared);
        let picture = self.graph.picture();
        let now = shared.env().now();
        let there: BTreeSet<&str> = picture.objects.iter().map(|object| object.uid.as_str()).collect();
        self.retry.keep(|uid| there.contains(uid.as_str()));
        let steps = plan::plan(&picture.objects, &picture.kinds);
        let due: Vec<Step> =
            steps.into_iter().filter(|step| self.retry.may(&step.object().uid, now)).collect();
        let done: Vec<(String, Result<(), kube::Error>)> = futures::stream::iter(due)
            .map(|step| {
                let (shared, picture) = (&shared, &picture);
                async move { (step.object().uid.clone(), write(shared, picture, &step).await) }
            })
            .buffer_unordered(AT_ONCE)
            .collect()
            .await;
        for (uid, result) in done {
            match result {
                Ok(()) => self.retry.done(&uid),
                Err(error) => {
                    if !is_stale(&error) {
                        tracing::warn!(
                            uid,
                            error = message(&error),
                            "dependent not settled; it is tried again"
                        );
                    }
                    self.retry.failed(uid, shared.env());
                }
            }
        }
        self.retry.next(shared.env().now())
    }
}

fn api(shared: &Shared, resource: &ApiResource, namespace: &str) -> Api<DynamicObject> {
    let client = shared.writer.client().clone();
    if namespace.is_empty() {
        Api::all_with(client, resource)
    } else {
        Api::namespaced_with(client, namespace, resource)
    }
}

async fn write(shared: &Shared, picture: &Picture, step: &Step) -> Result<(), kube::Error> {
    match step {
        Step::Delete { object, verify, foreground } => {
            let gone = gone(shared, picture, object, verify).await?;
            if gone.len() < verify.len() {
                // The watch was late: an owner is there.
                return Ok(());
            }
            delete(shared, picture, object, *foreground).await
        }
        Step::Unlink { object, verify, surely } => {
            let mut owners = gone(shared, picture, object, verify).await?;
            owners.extend(surely.iter().cloned());
            if owners.is_empty() {
                return Ok(());
            }
            change(shared, picture, object, |live| {
                let mut left = list(live, "/metadata/ownerReferences").to_vec();
                left.retain(|owner| !owners.iter().any(|gone| owner["uid"] == gone.as_str()));
                json!({ "ownerReferences": left })
            })
            .await
        }
        Step::Release { object, finalizer } => {
            change(shared, picture, object, |live| {
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
    shared: &Shared,
    picture: &Picture,
    object: &Entry,
    owners: &[(usize, Owner)],
) -> Result<Vec<String>, kube::Error> {
    let mut gone = Vec::new();
    for (kind, owner) in owners {
        let (Some(resource), Some(seen)) = (picture.resources.get(*kind), picture.kinds.get(*kind)) else {
            continue;
        };
        let namespace = if seen.namespaced { object.key.namespace.as_str() } else { "" };
        let live = api(shared, resource, namespace).get_metadata_opt(&owner.name).await?;
        if live.is_none_or(|live| live.metadata.uid.as_deref() != Some(&owner.uid)) {
            gone.push(owner.uid.clone());
        }
    }
    Ok(gone)
}

async fn delete(
    shared: &Shared,
    picture: &Picture,
    object: &Arc<Entry>,
    foreground: bool,
) -> Result<(), kube::Error> {
    let Some(resource) = picture.resources.get(object.kind) else { return Ok(()) };
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
    match api(shared, resource, &object.key.namespace).delete(&object.key.name, &how).await {
        Ok(_) => {
            tracing::debug!(kind = resource.kind, object = %object.key, "removed: no owner is left");
            Ok(())
        }
        Err(error) if is_stale(&error) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Changes metadata of the object as it is now, if it is still the same one.
async fn change(
    shared: &Shared,
    picture: &Picture,
    object: &Entry,
    next: impl Fn(&Value) -> Value,
) -> Result<(), kube::Error> {
    let Some(resource) = picture.resources.get(object.kind) else { return Ok(()) };
    let api = api(shared, resource, &object.key.namespace);
    let Some(live) = api.get_metadata_opt(&object.key.name).await? else { return Ok(()) };
    if live.metadata.uid.as_deref() != Some(&object.uid) {
        return Ok(());
    }
    let live = json!({ "metadata": live.metadata });
    let mut metadata = next(&live);
    metadata["uid"] = live["metadata"]["uid"].clone();
    metadata["resourceVersion"] = live["metadata"]["resourceVersion"].clone();
    let patch = json!({ "metadata": metadata });
    match api.patch(&object.key.name, &PatchParams::default(), &Patch::Merge(&patch)).await {
        Err(error) if error_is_gone(&error) => Ok(()),
        Ok(_) => Ok(()),
        Err(error) => Err(error),
    }
}

fn error_is_gone(error: &kube::Error) -> bool {
    super::api_error::code(error) == Some(404)
}
