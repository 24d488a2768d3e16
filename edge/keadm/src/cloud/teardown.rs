//! `keadm reset cloud`: CloudCore out of a cluster.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use beehive::Env;
use clap::Args;
use contract::ids::EDGE_LABEL;
use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, ListParams};
use kube::core::GroupVersionKind;
use kube::{Client, ResourceExt};
use serde_json::{Value, json};

use super::applier::{Applier, Removed, named};
use super::capabilities::Cluster;
use super::definitions::name_of;
use super::found::{self, FoundCloudCore};

/// What a release may have, in the order in which it goes: the program, the account's rights, what bounded it, and the rest.
const KINDS: [(&str, &str); 17] = [
    ("apps/v1", "Deployment"),
    ("rbac.authorization.k8s.io/v1", "ClusterRoleBinding"),
    ("rbac.authorization.k8s.io/v1", "RoleBinding"),
    ("rbac.authorization.k8s.io/v1", "ClusterRole"),
    ("rbac.authorization.k8s.io/v1", "Role"),
    ("v1", "ServiceAccount"),
    ("admissionregistration.k8s.io/v1", "ValidatingAdmissionPolicyBinding"),
    ("admissionregistration.k8s.io/v1", "ValidatingAdmissionPolicy"),
    ("admissionregistration.k8s.io/v1", "MutatingAdmissionPolicyBinding"),
    ("admissionregistration.k8s.io/v1", "MutatingAdmissionPolicy"),
    ("monitoring.coreos.com/v1", "ServiceMonitor"),
    ("networking.k8s.io/v1", "NetworkPolicy"),
    ("policy/v1", "PodDisruptionBudget"),
    ("v1", "Service"),
    ("v1", "ConfigMap"),
    ("v1", "Secret"),
    ("v1", "Namespace"),
];
/// 120 s: pods have 30 s to end, and a namespace's objects go after them.
const GONE_WITHIN: Duration = Duration::from_secs(120);
/// 500 ms between two looks.
const PAUSE: Duration = Duration::from_millis(500);
/// 500 objects a page.
const PAGE: u32 = 500;

/// Said where no pod is CloudCore's.
const ELSEWHERE: &str = "No pod of CloudCore is in the cluster: one that runs outside of it (`cloudcore --kubeconfig FILE`) is ended first, since it would go on with its nodes by a CA and rights that are gone.";

/// `keadm reset cloud`.
#[derive(Debug, Args)]
pub struct Teardown {
    /// Path of the cluster's kubeconfig; else those of $KUBECONFIG, else /root/.kube/config
    #[arg(long)]
    pub kube_config: Option<PathBuf>,
    /// The namespace of CloudCore; where its objects say if left out
    #[arg(short = 'n', long, value_parser = super::chart_args::namespace)]
    pub namespace: Option<String>,
    /// Do not ask whether it is meant
    #[arg(long)]
    pub force: bool,
    /// Remove the definitions of Devices and Rules also while there are some, and these with them
    #[arg(long)]
    pub with_devices: bool,
}

/// Removes the release, its namespaces with the CA in them, and the definitions of which nobody has an object. What is of KubeEdge's CloudCore
/// stays, and so do the definitions that it reads.
///
/// # Errors
/// When nothing is there, it was not meant, or something does not go.
pub async fn teardown(
    order: &Teardown,
    env: &Env,
    is_meant: &mut dyn FnMut(&str) -> bool,
    say: &mut dyn FnMut(String),
) -> Result<()> {
    let client = crate::client(order.kube_config.as_deref()).await?;
    let cluster = Cluster::ask(&client).await?;
    let namespace = found::namespace_of(&client, order.namespace.as_deref()).await?;
    let there = found::find(&client, &namespace).await?;
    if let Some(theirs) = there.iter().find(|one| !one.is_ours && one.namespace == namespace) {
        bail!("nothing was removed: {}", kubeedges(theirs));
    }
    let outside = found::outside(&client, &there).await?;
    let is_own = there.iter().any(|one| one.is_ours && one.namespace == namespace);
    if let Some(outside) = outside.as_ref().filter(|_| !is_own && namespace == helmchart::NAMESPACE)
        && !outside.secrets.is_empty()
    {
        bail!(
            "nothing was removed: the namespace {namespace} is that of a CloudCore of KubeEdge's outside of the cluster ({}), with its CA; where it is gone for good `kubectl -n {namespace} delete secret casecret {}`, then reset again",
            outside.signs(),
            found::KUBEEDGES_SECRETS.join(" ")
        );
    }
    let is_beside = found::is_beside(&there, outside.as_ref());
    let objects = of_release(&client, &cluster, &namespace).await?;
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let has_namespace = namespaces
        .get_opt(&namespace)
        .await
        .with_context(|| format!("cannot read the namespace {namespace}"))?
        .is_some();
    let definitions = definitions(&client).await?;
    let has_any = definitions.iter().any(|one| !is_beside || one.spec.group == crd::HIVE_GROUP);
    if objects.is_empty() && !has_namespace && !has_any {
        bail!("nothing of CloudCore is in this cluster");
    }
    let has_pods =
        !cloudcore_pods(&client, &namespace).await.context("cannot list CloudCore's pods")?.is_empty();
    if !order.force && !is_meant(&question(objects.len(), &namespace, has_pods)) {
        bail!("nothing was removed");
    }
    if order.force && !has_pods {
        say(ELSEWHERE.to_owned());
    }
    let applier = Applier::new(client.clone(), &cluster);
    for object in &objects {
        if applier.remove(object).await? == Removed::Going {
            say(format!("removed {}", named(object)));
        }
        if object["kind"] == "Deployment" {
            pods_gone(&client, &namespace, env).await?;
        }
    }
    for name in [namespace.as_str(), helmchart::NODES_NAMESPACE] {
        namespace_gone(&namespaces, name, env, say).await?;
    }
    for definition in &definitions {
        if is_beside && definition.spec.group != crd::HIVE_GROUP {
            say(format!("{} stays, since KubeEdge's CloudCore reads it", name_of(definition)));
            continue;
        }
        remove_definition(&client, definition, order.with_devices, env, say).await?;
    }
    for node in left_nodes(&client).await? {
        say(format!(
            "the Node {node} stays, and its machine runs on: `kubectl delete node {node}`, and there `keadm reset --force`"
        ));
    }
    Ok(())
}

/// Why nothing is removed where KubeEdge's CloudCore is: its objects have the names that ours have, and say that they are of a release of
/// that name in that namespace.
fn kubeedges(theirs: &FoundCloudCore) -> String {
    format!(
        "the Deployment {}/{} ({}) is KubeEdge's, and so is what is in that namespace: KubeEdge's keadm, or `helm -n {0} uninstall cloudcore`, takes it away. One of this release is in another namespace: --namespace",
        theirs.namespace, theirs.name, theirs.image
    )
}

/// What is asked before anything goes.
fn question(objects: usize, namespace: &str, has_pods: bool) -> String {
    let what = format!(
        "{objects} objects of the release cloudcore go, and the namespace {namespace} with the CA: nodes that are joined now cannot come back without joining anew."
    );
    if has_pods { what } else { format!("{what}\n{ELSEWHERE}") }
}

/// All objects of the release, in the order in which they go.
async fn of_release(client: &Client, cluster: &Cluster, namespace: &str) -> Result<Vec<Value>> {
    let mut found = Vec::new();
    for (api_version, kind) in KINDS {
        let Some(resource) = cluster.resources.get(&(api_version.to_owned(), kind.to_owned())) else {
            continue;
        };
        let (group, version) = api_version.rsplit_once('/').unwrap_or(("", api_version));
        let gvk = GroupVersionKind::gvk(group, version, kind);
        let api: Api<DynamicObject> =
            Api::all_with(client.clone(), &ApiResource::from_gvk_with_plural(&gvk, &resource.plural));
        let mut page = ListParams::default().labels("app.kubernetes.io/managed-by=Helm").limit(PAGE);
        loop {
            let list =
                api.list(&page).await.with_context(|| format!("cannot list the {}", resource.plural))?;
            for object in list.items {
                let mut object = serde_json::to_value(object)?;
                (object["apiVersion"], object["kind"]) = (api_version.into(), kind.into());
                if helmchart::is_of_release(&object, namespace) {
                    found.push(json!({
                        "apiVersion": api_version, "kind": kind,
                        "metadata": { "name": object["metadata"]["name"], "namespace": object["metadata"]["namespace"] },
                    }));
                }
            }
            match list.metadata.continue_.filter(|next| !next.is_empty()) {
                Some(next) => page = page.continue_token(&next),
                None => break,
            }
        }
    }
    Ok(found)
}

async fn definitions(client: &Client) -> Result<Vec<CustomResourceDefinition>> {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    let mut there = Vec::new();
    for ours in crd::manifests() {
        let name = name_of(&ours);
        if api.get_opt(name).await.with_context(|| format!("cannot read the definition {name}"))?.is_some() {
            there.push(ours);
        }
    }
    Ok(there)
}

async fn cloudcore_pods(client: &Client, namespace: &str) -> Result<Vec<Pod>, kube::Error> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let of_cloudcore = ListParams::default().labels("k8s-app=kubeedge,kubeedge=cloudcore");
    Ok(pods.list(&of_cloudcore).await?.items)
}

/// CloudCore ends in order while it has its rights still.
async fn pods_gone(client: &Client, namespace: &str, env: &Env) -> Result<()> {
    let gone = env.timeout(GONE_WITHIN, async {
        while !cloudcore_pods(client, namespace).await?.is_empty() {
            env.sleep(PAUSE).await;
        }
        Ok::<(), kube::Error>(())
    });
    match gone.await {
        Some(gone) => gone.context("cannot list CloudCore's pods"),
        None => bail!(
            "pods of CloudCore are there still after {} s: `kubectl -n {namespace} get pods -l kubeedge=cloudcore`, then reset again",
            GONE_WITHIN.as_secs()
        ),
    }
}

async fn namespace_gone(
    namespaces: &Api<Namespace>,
    name: &str,
    env: &Env,
    say: &mut dyn FnMut(String),
) -> Result<()> {
    match namespaces.delete(name, &DeleteParams::background()).await {
        Ok(_) => {}
        Err(kube::Error::Api(status)) if status.code == 404 => return Ok(()),
        // It is on its way.
        Err(kube::Error::Api(status)) if status.code == 409 => {}
        Err(error) => return Err(error).with_context(|| format!("cannot remove the namespace {name}")),
    }
    let gone = env.timeout(GONE_WITHIN, async {
        while namespaces.get_opt(name).await?.is_some() {
            env.sleep(PAUSE).await;
        }
        Ok::<(), kube::Error>(())
    });
    match gone.await {
        Some(gone) => gone.with_context(|| format!("cannot read the namespace {name}"))?,
        None => bail!(
            "the namespace {name} is there still after {} s: `kubectl get namespace {name} -o yaml` says what holds it, then reset again",
            GONE_WITHIN.as_secs()
        ),
    }
    say(format!("removed the namespace {name} with all that was in it"));
    Ok(())
}

/// The register of nodes is CloudCore's own. Devices, models and rules are somebody's, and stay while there are some.
async fn remove_definition(
    client: &Client,
    definition: &CustomResourceDefinition,
    with_devices: bool,
    env: &Env,
    say: &mut dyn FnMut(String),
) -> Result<()> {
    let name = name_of(definition);
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    let is_own = definition.spec.group == crd::HIVE_GROUP || definition.spec.names.kind == "DeviceStatus";
    if !is_own && !with_devices {
        let storage = definition.spec.versions.iter().find(|version| version.storage);
        let version = storage.map_or("", |version| &version.name);
        let gvk = GroupVersionKind::gvk(&definition.spec.group, version, &definition.spec.names.kind);
        let objects: Api<DynamicObject> = Api::all_with(
            client.clone(),
            &ApiResource::from_gvk_with_plural(&gvk, &definition.spec.names.plural),
        );
        let some = objects.list(&ListParams::default().limit(1)).await;
        if !some.with_context(|| format!("cannot list the objects of {name}"))?.items.is_empty() {
            say(format!("{name} stays, since there are some: --with-devices removes them, too"));
            return Ok(());
        }
    }
    match api.delete(name, &DeleteParams::background()).await {
        Ok(_) => {}
        Err(kube::Error::Api(status)) if status.code == 404 => return Ok(()),
        Err(error) => return Err(error).with_context(|| format!("cannot remove the definition {name}")),
    }
    let gone = env.timeout(GONE_WITHIN, async {
        while api.get_opt(name).await?.is_some() {
            env.sleep(PAUSE).await;
        }
        Ok::<(), kube::Error>(())
    });
    match gone.await {
        Some(gone) => gone.with_context(|| format!("cannot read the definition {name}"))?,
        None => bail!(
            "the definition {name} is there still after {} s: finalizers hold objects of it (`kubectl get {name} -A -o yaml`)",
            GONE_WITHIN.as_secs()
        ),
    }
    say(format!("removed the definition {name}"));
    Ok(())
}

/// Nodes that CloudCore made or was given. Those of KubeEdge's CloudCore have the label, too.
async fn left_nodes(client: &Client) -> Result<Vec<String>> {
    let nodes: Api<Node> = Api::all(client.clone());
    let edge = nodes.list(&ListParams::default().labels(EDGE_LABEL)).await;
    let ours = |node: &&Node| noderegistry::plan::is_ours(&node.metadata);
    Ok(edge.context("cannot list the Nodes")?.items.iter().filter(ours).map(ResourceExt::name_any).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_has_a_cloudcore_outside_of_the_cluster_is_told_to_end_it_first() {
        assert!(
            question(3, "hive", false).contains("cloudcore --kubeconfig FILE")
                && question(3, "hive", false).contains("ended first")
        );
        assert!(!question(3, "hive", true).contains("outside"), "its own pods are ended by this");
        assert!(question(3, "hive", true).contains("the namespace hive with the CA"));
    }
}
