//! Empties namespaces that are deleted, and lets them go.

mod plan;

use std::rc::Rc;
use std::time::Duration;

use apimachinery::{NamespacedName, kind};
use kube::api::{Api, DeleteParams, DynamicObject, ListParams, PostParams};
use serde_json::{Value, json};

use self::plan::Left;
use super::api_error::{code, message, unless_stale};
use super::cache::Cache;
use super::discover::{self, Served};
use super::object::name;
use super::retry::Retry;
use super::{Controller, Shared};

/// 2 s: what is left goes by itself, a pod for example after its grace period; it is looked for that often.
const LOOK_AGAIN_MAX: Duration = Duration::from_secs(2);

pub(crate) struct Namespaces {
    shared: Rc<Shared>,
    retry: Retry<NamespacedName>,
}

impl Namespaces {
    pub(crate) fn new(shared: &Rc<Shared>) -> Self {
        let most = LOOK_AGAIN_MAX.min(shared.settings.retry_most);
        Namespaces { shared: Rc::clone(shared), retry: Retry::new(shared.settings.retry_first, most) }
    }
}

impl Controller for Namespaces {
    fn name(&self) -> &'static str {
        "namespace"
    }

    fn reads(&self) -> Vec<Rc<Cache>> {
        vec![Rc::clone(&self.shared.namespaces)]
    }

    async fn look(&mut self) -> Option<Duration> {
        let shared = Rc::clone(&self.shared);
        let now = shared.env().now();
        let leaving: Vec<_> =
            shared.namespaces.all().into_iter().filter(|namespace| plan::is_leaving(namespace)).collect();
        self.retry.keep(|key| leaving.iter().any(|namespace| NamespacedName::of(namespace) == *key));
        for namespace in leaving {
            let key = NamespacedName::of(&namespace);
            if !self.retry.may(&key, now) {
                continue;
            }
            match empty(&shared, &namespace).await {
                Ok(true) => self.retry.done(&key),
                Ok(false) => self.retry.failed(key, shared.env()),
                Err(error) => {
                    tracing::warn!(namespace = %key, error = message(&error), "namespace not emptied; it is tried again");
                    self.retry.failed(key, shared.env());
                }
            }
        }
        self.retry.next(shared.env().now())
    }
}

/// Deletes what is in the namespace. Answers whether it was let go.
async fn empty(shared: &Shared, namespace: &Value) -> Result<bool, kube::Error> {
    let kinds = discover::kinds(shared.writer.client()).await?;
    let (mut left, mut failure) = (Vec::new(), None);
    for served in kinds.iter().filter(|served| served.namespaced && served.deleted) {
        match empty_of(shared, name(namespace), served).await {
            Ok(Some(remaining)) => left.push(remaining),
            Ok(None) => {}
            // The kind went meanwhile, and its objects with it.
            Err(error) if code(&error) == Some(404) => {}
            Err(error) => failure = Some(error),
        }
    }
    if left.is_empty() && failure.is_none() {
        return finalize(shared, namespace).await;
    }
    let told = failure.as_ref().map(message);
    if let Some(conditions) = plan::conditions(namespace, &left, told.as_deref(), shared.writer.wall()) {
        let status = json!({ "conditions": conditions });
        unless_stale(shared.writer.patch_status(&kind::NAMESPACES, namespace, status).await)?;
    }
    failure.map_or(Ok(false), Err)
}

/// Deletes all objects of one kind. Answers what is still there afterwards.
async fn empty_of(shared: &Shared, namespace: &str, served: &Served) -> Result<Option<Left>, kube::Error> {
    let client = shared.writer.client().clone();
    let api: Api<DynamicObject> = Api::namespaced_with(client, namespace, &served.resource);
    if list(&api).await?.is_empty() {
        return Ok(None);
    }
    let how = DeleteParams::background();
    if served.deleted_together {
        api.delete_collection(&how, &ListParams::default()).await?;
    } else {
        for object in list(&api).await? {
            unless_stale(api.delete(&object.metadata.name.unwrap_or_default(), &how).await)?;
        }
    }
    let rest = list(&api).await?;
    if rest.is_empty() {
        return Ok(None);
    }
    let resource = format!("{}.{}", served.resource.plural, served.resource.group);
    let finalizers =
        rest.iter().flat_map(|object| plan::finalizers(&json!({ "metadata": object.metadata }))).collect();
    Ok(Some(Left { resource, count: rest.len(), finalizers }))
}

async fn list(
    api: &Api<DynamicObject>,
) -> Result<Vec<kube::core::PartialObjectMeta<DynamicObject>>, kube::Error> {
    Ok(api.list_metadata(&ListParams::default()).await?.items)
}

async fn finalize(shared: &Shared, namespace: &Value) -> Result<bool, kube::Error> {
    let api: Api<DynamicObject> =
        Api::all_with(shared.writer.client().clone(), &super::resource::api_resource(&kind::NAMESPACES));
    let next = plan::finalized(namespace);
    let answer = api.replace_subresource("finalize", name(namespace), &PostParams::default(), &next).await;
    match answer {
        Ok(_) => Ok(true),
        Err(error) if code(&error) == Some(404) => Ok(true),
        // Changed meanwhile: again with what is there then.
        Err(error) if code(&error) == Some(409) => Ok(false),
        Err(error) => Err(error),
    }
}
