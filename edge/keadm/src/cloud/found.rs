//! Which CloudCores a cluster has: one of this project's, KubeEdge's, or both beside each other.

use anyhow::{Context as _, Result};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Namespace;
use kube::Client;
use kube::api::{Api, ListParams};

/// What CloudCore's pods here have and KubeEdge's have not.
const SETTINGS_ANNOTATION: &str = "kubehive.io/settings";
/// What both have by their charts.
const SELECTOR: &str = "kubeedge=cloudcore";

/// A CloudCore of a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FoundCloudCore {
    pub(crate) namespace: String,
    pub(crate) name: String,
    /// Its image, harmless for a terminal.
    pub(crate) image: String,
    /// It is this project's.
    pub(crate) is_ours: bool,
}

impl FoundCloudCore {
    fn of(deployment: &Deployment) -> Self {
        let metadata = &deployment.metadata;
        let template = deployment.spec.as_ref().map(|spec| &spec.template);
        let annotations = template.and_then(|template| template.metadata.as_ref()?.annotations.as_ref());
        let container = template.and_then(|template| template.spec.as_ref()?.containers.first());
        let image = container.and_then(|container| container.image.as_deref()).unwrap_or("no image");
        FoundCloudCore {
            namespace: metadata.namespace.clone().unwrap_or_default(),
            name: metadata.name.clone().unwrap_or_default(),
            image: image.escape_debug().to_string(),
            is_ours: annotations.is_some_and(|all| all.contains_key(SETTINGS_ANNOTATION)),
        }
    }
}

/// Whether KubeEdge's is among them.
pub(crate) fn has_kubeedges(found: &[FoundCloudCore]) -> bool {
    found.iter().any(|one| !one.is_ours)
}

/// All CloudCores that have a Deployment: those with the label that both charts give, and whatever has the name where KubeEdge's is, and in
/// `namespace`.
///
/// # Errors
/// When the cluster cannot be asked.
pub(crate) async fn find(client: &Client, namespace: &str) -> Result<Vec<FoundCloudCore>> {
    let all: Api<Deployment> = Api::all(client.clone());
    let labelled = all.list(&ListParams::default().labels(SELECTOR)).await;
    let labelled = labelled.context("cannot list the Deployments of CloudCore")?;
    let mut found: Vec<FoundCloudCore> = labelled.items.iter().map(FoundCloudCore::of).collect();
    for namespace in [helmchart::NAMESPACE, namespace] {
        let api: Api<Deployment> = Api::namespaced(client.clone(), namespace);
        let named = api.get_opt(helmchart::RELEASE).await;
        let named = named.with_context(|| format!("cannot read the Deployment {namespace}/cloudcore"))?;
        if let Some(named) = named.as_ref().map(FoundCloudCore::of)
            && !found.contains(&named)
        {
            found.push(named);
        }
    }
    Ok(found)
}

/// In which namespace CloudCore is: `asked`, or where this project's is. Where there is none, or this user may not see it, it is `kubeedge`.
///
/// # Errors
/// When the cluster cannot be asked.
pub async fn namespace_of(client: &Client, asked: Option<&str>) -> Result<String> {
    if let Some(asked) = asked {
        return Ok(asked.to_owned());
    }
    let found = match of_release(client).await? {
        Some(found) => Some(found),
        // Installed by nobody who says so on the objects (`helm template`, say).
        None => of_deployment(client).await?,
    };
    Ok(found.unwrap_or_else(|| helmchart::NAMESPACE.to_owned()))
}

/// The namespace of the release whose objects are in the cluster.
///
/// # Errors
/// When the cluster cannot be asked.
pub(crate) async fn of_release(client: &Client) -> Result<Option<String>> {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let name = helmchart::NODES_NAMESPACE;
    match namespaces.get_metadata_opt(name).await {
        Ok(found) => {
            let found = found.map(serde_json::to_value).transpose()?;
            Ok(found.as_ref().and_then(helmchart::release_namespace).map(str::to_owned))
        }
        Err(kube::Error::Api(status)) if status.code == 403 => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read the namespace {name}")),
    }
}

async fn of_deployment(client: &Client) -> Result<Option<String>> {
    let all: Api<Deployment> = Api::all(client.clone());
    match all.list(&ListParams::default().labels(SELECTOR)).await {
        Ok(list) => {
            let mut ours = list.items.iter().map(FoundCloudCore::of).filter(|found| found.is_ours);
            Ok(ours.next().map(|found| found.namespace))
        }
        // Whoever may make tokens need not be allowed to see that, and a cluster need not have the kind.
        Err(kube::Error::Api(status)) if matches!(status.code, 403 | 404) => Ok(None),
        Err(error) => Err(error).context("cannot list the Deployments of CloudCore"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn ours_is_told_from_kubeedges_by_what_its_pods_have() {
        let deployment = |annotations: Value| -> Deployment {
            let labels = json!({ "k8s-app": "kubeedge", "kubeedge": "cloudcore" });
            let pod = json!({ "containers": [{ "name": "cloudcore", "image": "r/cloudcore:v1\u{1b}" }] });
            let template =
                json!({ "metadata": { "labels": labels, "annotations": annotations }, "spec": pod });
            let spec = json!({ "selector": { "matchLabels": labels }, "template": template });
            let metadata = json!({ "name": "cloudcore", "namespace": "kubeedge" });
            serde_json::from_value(json!({ "metadata": metadata, "spec": spec })).unwrap()
        };
        let ours = FoundCloudCore::of(&deployment(json!({ "kubehive.io/settings": "abc" })));
        let theirs = FoundCloudCore::of(&deployment(Value::Null));
        assert!(ours.is_ours && !theirs.is_ours);
        assert_eq!((theirs.namespace.as_str(), theirs.name.as_str()), ("kubeedge", "cloudcore"));
        assert!(theirs.image.starts_with("r/cloudcore:v1") && !theirs.image.contains('\u{1b}'));
        assert!(!FoundCloudCore::of(&Deployment::default()).is_ours);
    }
}
