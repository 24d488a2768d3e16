//! Keeps Endpoints and EndpointSlices of services with a selector.

mod plan;

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use apimachinery::{Kind, NamespacedName, kind};
use kubewatch::status_code;
use serde_json::{Value, json};

use super::ControllerContext;
use super::api_error::unless_stale;
use super::backoff::Backoff;
use super::controller::Reconciler;
use super::informer::Lister;
use super::object::{labels, list, name, namespace, text, uid, version};

const NAME: &str = "endpoint-controller";

pub(crate) struct Endpoints {
    context: Rc<ControllerContext>,
    backoff: Backoff<NamespacedName>,
}

impl Endpoints {
    pub(crate) fn new(context: &Rc<ControllerContext>) -> Self {
        Endpoints { context: Rc::clone(context), backoff: context.backoff() }
    }
}

impl Reconciler for Endpoints {
    fn listers(&self) -> Vec<Rc<Lister>> {
        let context = &self.context;
        [&context.services, &context.pods, &context.endpoints, &context.endpoint_slices]
            .map(Rc::clone)
            .to_vec()
    }

    async fn reconcile(&mut self) -> Option<Duration> {
        let context = Rc::clone(&self.context);
        let (services, pods, slices) =
            (context.services.list(), context.pods.list(), context.endpoint_slices.list());
        let (pods, slices) = (by_namespace(&pods), by_namespace(&slices));
        let now = context.env().now();
        self.backoff.retain(|key| context.services.get(key).is_some());
        for service in services.iter().filter(|service| plan::is_selecting(service)) {
            let key = NamespacedName::of(service);
            if !self.backoff.is_due(&key, now) {
                continue;
            }
            context.breathe().await;
            let (pods, slices) = (pods.get(namespace(service)), slices.get(namespace(service)));
            let pods = pods.map(Vec::as_slice).unwrap_or_default();
            let slices = slices.map(Vec::as_slice).unwrap_or_default();
            let result = reconcile_one(&context, service, pods, slices).await;
            context.settle(&mut self.backoff, key, result);
        }
        self.backoff.next(context.env().now())
    }

    fn backing_off(&self) -> usize {
        self.backoff.len()
    }
}

/// Each service looks at what is in its own namespace.
fn by_namespace(objects: &[Arc<Value>]) -> BTreeMap<&str, Vec<&Value>> {
    let mut spaces: BTreeMap<&str, Vec<&Value>> = BTreeMap::new();
    for object in objects {
        spaces.entry(namespace(object)).or_default().push(&**object);
    }
    spaces
}

async fn reconcile_one(
    context: &ControllerContext,
    service: &Value,
    pods: &[&Value],
    slices: &[&Value],
) -> Result<(), kube::Error> {
    let subsets = match plan::subsets(service, pods) {
        Ok(subsets) => subsets,
        Err(error) => {
            let told = format!("Failed to update endpoints: {error}");
            context.client.event(NAME, service, true, "FailedToUpdateEndpoint", &told).await;
            return Err(kube::Error::Service(Box::new(error)));
        }
    };
    let there = context.endpoints.get(&NamespacedName::of(service));
    let wanted = plan::endpoints(service, &subsets);
    put(context, &kind::ENDPOINTS, there.as_deref(), wanted, &["subsets"]).await?;
    let ours = |slice: &&Value| {
        labels(slice)["endpointslice.kubernetes.io/managed-by"] == plan::MANAGED_BY
            && list(slice, "/metadata/ownerReferences")
                .iter()
                .any(|owner| text(owner, "/uid") == uid(service))
    };
    let mut there: BTreeMap<&str, &Value> =
        slices.iter().copied().filter(ours).map(|slice| (name(slice), slice)).collect();
    for (slice_name, slice) in plan::slices(service, &subsets) {
        let old = there.remove(slice_name.as_str());
        put(context, &kind::ENDPOINT_SLICES, old, slice, &["endpoints", "ports"]).await?;
    }
    for left in there.values() {
        unless_stale(context.client.delete(&kind::ENDPOINT_SLICES, left, None).await)?;
    }
    Ok(())
}

/// Creates the object, or brings these fields of it up to date.
async fn put(
    context: &ControllerContext,
    kind: &Kind,
    there: Option<&Value>,
    wanted: Value,
    fields: &[&str],
) -> Result<(), kube::Error> {
    let Some(there) = there else {
        let namespace = namespace(&wanted).to_owned();
        return match context.client.create(kind, &namespace, wanted).await {
            // The watch tells it soon; and a namespace that is on its way out needs none.
            Err(error) if matches!(status_code(&error), Some(403 | 404 | 409)) => Ok(()),
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
    unless_stale(context.client.patch(kind, &NamespacedName::of(there), &patch).await)
}
