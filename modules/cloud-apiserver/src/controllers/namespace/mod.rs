//! Empties namespaces that are deleted, and lets them go.

mod plan;

use std::rc::Rc;
use std::time::Duration;

use apimachinery::{NamespacedName, kind};
use kube::api::{Api, DeleteParams, DynamicObject, ListParams, PostParams};
use kubewatch::status_code;
use serde_json::{Value, json};

use self::plan::RemainingContent;
use super::ControllerContext;
use super::api_error::{message, unless_stale};
use super::backoff::Backoff;
use super::controller::Reconciler;
use super::discovery::{self, ListableKind};
use super::informer::Lister;
use super::object::name;
use super::resource::path_segment;

/// 2 s: what is left goes by itself, a pod for example after its grace period; it is looked for that often.
const LOOK_AGAIN_MAX: Duration = Duration::from_secs(2);

pub(crate) struct Namespaces {
    context: Rc<ControllerContext>,
    backoff: Backoff<NamespacedName>,
}

impl Namespaces {
    pub(crate) fn new(context: &Rc<ControllerContext>) -> Self {
        let most = LOOK_AGAIN_MAX.min(context.settings.retry_most);
        Namespaces { context: Rc::clone(context), backoff: Backoff::new(context.settings.retry_first, most) }
    }
}

impl Reconciler for Namespaces {
    fn listers(&self) -> Vec<Rc<Lister>> {
        vec![Rc::clone(&self.context.namespaces)]
    }

    async fn reconcile(&mut self) -> Option<Duration> {
        let context = Rc::clone(&self.context);
        let now = context.env().now();
        let leaving: Vec<_> =
            context.namespaces.list().into_iter().filter(|namespace| plan::is_leaving(namespace)).collect();
        self.backoff.retain(|key| leaving.iter().any(|namespace| NamespacedName::of(namespace) == *key));
        for namespace in leaving {
            let key = NamespacedName::of(&namespace);
            if !self.backoff.is_due(&key, now) {
                continue;
            }
            match empty(&context, &namespace).await {
                // It is looked at again later and later, as after a failure.
                Ok(false) => self.backoff.failed(key, context.env()),
                result => {
                    context.settle(&mut self.backoff, key, result);
                }
            }
        }
        self.backoff.next(context.env().now())
    }

    fn backing_off(&self) -> usize {
        self.backoff.len()
    }
}

/// Deletes what is in the namespace. Answers whether it was let go.
async fn empty(context: &ControllerContext, namespace: &Value) -> Result<bool, kube::Error> {
    let kinds = discovery::kinds(context.client.client()).await?;
    let (mut left, mut failure) = (Vec::new(), None);
    for served in kinds.iter().filter(|served| served.namespaced && served.deleted) {
        match empty_of(context, name(namespace), served).await {
            Ok(Some(remaining)) => left.push(remaining),
            Ok(None) => {}
            // The kind went meanwhile, and its objects with it.
            Err(error) if status_code(&error) == Some(404) => {}
            Err(error) => failure = Some(error),
        }
    }
    if left.is_empty() && failure.is_none() {
        return finalize(context, namespace).await;
    }
    let told = failure.as_ref().map(message);
    if let Some(conditions) = plan::conditions(namespace, &left, told.as_deref(), context.client.wall()) {
        let status = json!({ "conditions": conditions });
        unless_stale(context.client.patch_status(&kind::NAMESPACES, namespace, status).await)?;
    }
    failure.map_or(Ok(false), Err)
}

/// Deletes all objects of one kind. Answers what is still there afterwards.
async fn empty_of(
    context: &ControllerContext,
    namespace: &str,
    served: &ListableKind,
) -> Result<Option<RemainingContent>, kube::Error> {
    let client = context.client.client().clone();
    let api: Api<DynamicObject> = Api::namespaced_with(client, namespace, &served.resource);
    if list(&api).await?.is_empty() {
        return Ok(None);
    }
    let how = DeleteParams::background();
    if served.deleted_together {
        let api = api.clone();
        let request = async move { api.delete_collection(&how, &ListParams::default()).await.map(|_| ()) };
        context.client.send(request).await?;
    } else {
        for object in list(&api).await? {
            let Some(name) = path_segment(object.metadata.name.as_deref().unwrap_or_default()) else {
                continue;
            };
            let (api, how) = (api.clone(), how.clone());
            let request = async move { api.delete(&name, &how).await.map(|_| ()) };
            unless_stale(context.client.send(request).await)?;
        }
    }
    let rest = list(&api).await?;
    if rest.is_empty() {
        return Ok(None);
    }
    let resource = format!("{}.{}", served.resource.plural, served.resource.group);
    let finalizers =
        rest.iter().flat_map(|object| plan::finalizers(&json!({ "metadata": object.metadata }))).collect();
    Ok(Some(RemainingContent { resource, count: rest.len(), finalizers }))
}

async fn list(
    api: &Api<DynamicObject>,
) -> Result<Vec<kube::core::PartialObjectMeta<DynamicObject>>, kube::Error> {
    Ok(api.list_metadata(&ListParams::default()).await?.items)
}

async fn finalize(context: &ControllerContext, namespace: &Value) -> Result<bool, kube::Error> {
    let api: Api<DynamicObject> =
        Api::all_with(context.client.client().clone(), &super::resource::api_resource(&kind::NAMESPACES));
    let next = plan::finalized(namespace);
    let name = name(namespace).to_owned();
    let request = async move {
        api.replace_subresource("finalize", &name, &PostParams::default(), &next).await.map(|_| ())
    };
    let answer = context.client.send(request).await;
    match answer {
        Ok(_) => Ok(true),
        Err(error) if status_code(&error) == Some(404) => Ok(true),
        // Changed meanwhile: again with what is there then.
        Err(error) if status_code(&error) == Some(409) => Ok(false),
        Err(error) => Err(error),
    }
}
