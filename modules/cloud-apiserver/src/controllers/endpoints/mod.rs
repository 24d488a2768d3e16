//! Keeps Endpoints and EndpointSlices of services with a selector.

mod plan;

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use apimachinery::{Kind, NamespacedName, kind};
use serde_json::{Value, json};

use super::api_error::{code, message, unless_stale};
use super::cache::Cache;
use super::object::{labels, list, name, namespace, text, uid, version};
use super::retry::Retry;
use super::{Controller, Shared};

pub(crate) struct Endpoints {
    shared: Rc<Shared>,
    retry: Retry<NamespacedName>,
}

impl Endpoints {
    pub(crate) fn new(shared: &Rc<Shared>) -> Self {
        Endpoints { shared: Rc::clone(shared), retry: shared.retry() }
    }
}

impl Controller for Endpoints {
    fn name(&self) -> &'static str {
        "endpoints"
    }

    fn reads(&self) -> Vec<Rc<Cache>> {
        let shared = &self.shared;
        [&shared.services, &shared.pods, &shared.endpoints, &shared.endpoint_slices].map(Rc::clone).to_vec()
    }

    async fn look(&mut self) -> Option<Duration> {
        let shared = Rc::clone(&self.shared);
        let (services, pods, slices) =
            (shared.services.all(), shared.pods.all(), shared.endpoint_slices.all());
        let pods: Vec<&Value> = pods.iter().map(|pod| &**pod).collect();
        let now = shared.env().now();
        self.retry.keep(|key| shared.services.get(key).is_some());
        for service in services.iter().filter(|service| plan::is_selecting(service)) {
            let key = NamespacedName::of(service);
            if !self.retry.may(&key, now) {
                continue;
            }
            match settle(&shared, service, &pods, &slices).await {
                Ok(()) => self.retry.done(&key),
                Err(error) => {
                    tracing::warn!(service = %key, error = message(&error), "endpoints not written; it is tried again");
                    self.retry.failed(key, shared.env());
                }
            }
        }
        self.retry.next(shared.env().now())
    }
}

async fn settle(
    shared: &Shared,
    service: &Value,
    pods: &[&Value],
    slices: &[Arc<Value>],
) -> Result<(), kube::Error> {
    let there = shared.endpoints.get(&NamespacedName::of(service));
    put(shared, &kind::ENDPOINTS, there.as_deref(), plan::endpoints(service, pods), &["subsets"]).await?;
    let ours = |slice: &&Arc<Value>| {
        namespace(slice) == namespace(service)
            && labels(slice)["endpointslice.kubernetes.io/managed-by"] == plan::MANAGED_BY
            && list(slice, "/metadata/ownerReferences")
                .iter()
                .any(|owner| text(owner, "/uid") == uid(service))
    };
    let mut there: BTreeMap<&str, &Arc<Value>> =
        slices.iter().filter(ours).map(|slice| (name(slice), slice)).collect();
    for (slice_name, slice) in plan::slices(service, pods) {
        let old = there.remove(slice_name.as_str()).map(|old| &**old);
        put(shared, &kind::ENDPOINT_SLICES, old, slice, &["endpoints", "ports"]).await?;
    }
    for left in there.values() {
        unless_stale(shared.writer.delete(&kind::ENDPOINT_SLICES, left, None).await)?;
    }
    Ok(())
}

/// Creates the object, or brings these fields of it up to date.
async fn put(
    shared: &Shared,
    kind: &Kind,
    there: Option<&Value>,
    wanted: Value,
    fields: &[&str],
) -> Result<(), kube::Error> {
    let Some(there) = there else {
        let namespace = namespace(&wanted).to_owned();
        return match shared.writer.create(kind, &namespace, wanted).await {
            // The watch tells it soon; and a namespace that is on its way out needs none.
            Err(error) if matches!(code(&error), Some(403 | 404 | 409)) => Ok(()),
            Ok(_) => Ok(()),
            Err(error) => Err(error),
        };
    };
    let is_nothing = |value: &Value| value.is_null() || value.as_array().is_some_and(Vec::is_empty);
    let same = |field: &&&str| {
        there[**field] == wanted[**field] || is_nothing(&there[**field]) && is_nothing(&wanted[**field])
    };
    if fields.iter().filter(same).count() == fields.len() {
        return Ok(());
    }
    let mut patch = json!({ "metadata": { "uid": uid(there), "resourceVersion": version(there) } });
    for field in fields {
        patch[*field] = wanted[*field].clone();
    }
    unless_stale(shared.writer.patch(kind, &NamespacedName::of(there), &patch).await)
}
