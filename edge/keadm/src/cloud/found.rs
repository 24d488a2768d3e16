//! Which CloudCores a cluster has: one of this project's, KubeEdge's, or both beside each other. KubeEdge's may run outside of it, as a unit of
//! some machine: then it is found by what it leaves there.

use std::collections::BTreeMap;
use std::net::IpAddr;

use anyhow::{Context as _, Result};
use contract::ids::EDGE_LABEL;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Node, Secret};
use kube::Client;
use kube::api::{Api, ListParams};

/// What CloudCore's pods here have and KubeEdge's have not.
const SETTINGS_ANNOTATION: &str = "kubehive.io/settings";
/// What both have by their charts.
const SELECTOR: &str = "kubeedge=cloudcore";
/// Secrets that KubeEdge's CloudCore makes in its namespace and ours never.
pub(crate) const KUBEEDGES_SECRETS: [&str; 2] = ["cloudcoresecret", "tokensecret"];
/// Where each of KubeEdge's CloudCores records at its start which tunnel port it has, by its address.
const TUNNEL_PORTS: (&str, &str) = ("tunnelport", "tunnelportrecord.kubeedge.io");
/// 4 names of nodes and addresses stand in a sentence.
const NAMED_MAX: usize = 4;
/// 500 Nodes a page.
const PAGE: u32 = 500;

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

/// Whether KubeEdge's has nodes still, in the cluster or outside of it: then what it reads stays as it is.
pub(crate) fn is_beside(found: &[FoundCloudCore], outside: Option<&Outside>) -> bool {
    has_kubeedges(found) || outside.is_some_and(Outside::has_nodes)
}

/// KubeEdge's CloudCore where it has no Deployment: it runs outside of the cluster, or did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Outside {
    /// Those of [`KUBEEDGES_SECRETS`] that are there: it makes them at its start, so that without any it is gone for good.
    pub(crate) secrets: Vec<&'static str>,
    /// Where it listens, by its own record.
    addresses: Vec<IpAddr>,
    /// Its nodes that are Ready: nobody else renews their Leases, and those of one that has ended stay so for some 40 s.
    ready: Vec<String>,
    /// How many nodes are its.
    nodes: usize,
}

impl Outside {
    /// Whether it has nodes still, and so is to be reckoned with.
    pub(crate) fn has_nodes(&self) -> bool {
        !self.secrets.is_empty() && self.nodes > 0
    }

    /// What it was found by.
    pub(crate) fn signs(&self) -> String {
        let mut signs = Vec::new();
        if !self.secrets.is_empty() {
            signs.push(format!("Secrets {}", self.secrets.join(", ")));
        }
        if !self.addresses.is_empty() {
            let addresses: Vec<String> = self.addresses.iter().map(ToString::to_string).collect();
            let (map, _) = TUNNEL_PORTS;
            signs.push(format!("the ConfigMap {map} names {}", some_of(&addresses)));
        }
        signs.push(match (self.ready.is_empty(), self.nodes) {
            (false, _) => format!("Ready by it: {}", some_of(&self.ready)),
            (true, 0) => "no node is its".to_owned(),
            (true, nodes) => format!("of its {nodes} nodes none is Ready"),
        });
        signs.join("; ")
    }

    /// One for tests.
    #[cfg(test)]
    pub(crate) fn testing(secrets: &[&'static str], ready: &[&str], nodes: usize) -> Outside {
        let ready = ready.iter().map(|name| (*name).to_owned()).collect();
        Outside { secrets: secrets.to_vec(), addresses: Vec::new(), ready, nodes }
    }

    /// By what its namespace and the edge nodes of the cluster say; `None`: nothing is there of it.
    fn of(
        secrets: Vec<&'static str>,
        record: Option<&BTreeMap<String, String>>,
        nodes: &[Node],
    ) -> Option<Outside> {
        let is_theirs = |node: &&Node| {
            let metadata = &node.metadata;
            !noderegistry::plan::is_ours(metadata) && !noderegistry::plan::is_ending(metadata)
        };
        let theirs: Vec<&Node> = nodes.iter().filter(is_theirs).collect();
        let ready = theirs.iter().filter(|node| is_ready(node));
        let ready =
            ready.map(|node| node.metadata.name.clone().unwrap_or_default().escape_debug().to_string());
        let ready: Vec<String> = ready.collect();
        if secrets.is_empty() && ready.is_empty() {
            return None;
        }
        Some(Outside { secrets, addresses: addresses(record), ready, nodes: theirs.len() })
    }
}

fn is_ready(node: &Node) -> bool {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.is_some_and(|all| all.iter().any(|one| one.type_ == "Ready" && one.status == "True"))
}

/// The addresses of `{"ipTunnelPort": {"192.0.2.9": 10351}, …}`. Whatever else stands there is none.
fn addresses(annotations: Option<&BTreeMap<String, String>>) -> Vec<IpAddr> {
    let (_, record) = TUNNEL_PORTS;
    let record = annotations.and_then(|all| all.get(record));
    let record = record.and_then(|text| serde_json::from_str::<serde_json::Value>(text).ok());
    let ports = record.as_ref().and_then(|record| record.get("ipTunnelPort")?.as_object());
    ports.into_iter().flatten().filter_map(|(address, _)| address.parse().ok()).collect()
}

fn some_of(all: &[String]) -> String {
    let shown = all.iter().take(NAMED_MAX).cloned().collect::<Vec<_>>().join(", ");
    match all.len().checked_sub(NAMED_MAX) {
        None | Some(0) => shown,
        Some(more) => format!("{shown} and {more} more"),
    }
}

/// Those of [`KUBEEDGES_SECRETS`] that a namespace has.
///
/// # Errors
/// When the cluster cannot be asked.
pub(crate) async fn kubeedges_secrets(client: &Client, namespace: &str) -> Result<Vec<&'static str>> {
    let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let mut there = Vec::new();
    for name in KUBEEDGES_SECRETS {
        let found = secrets.get_metadata_opt(name).await;
        if found.with_context(|| format!("cannot read the Secret {namespace}/{name}"))?.is_some() {
            there.push(name);
        }
    }
    Ok(there)
}

/// KubeEdge's CloudCore outside of the cluster; `None`: nothing is there of it, or it has a Deployment and is among those that were `found`.
///
/// # Errors
/// When the cluster cannot be asked.
pub(crate) async fn outside(client: &Client, found: &[FoundCloudCore]) -> Result<Option<Outside>> {
    if has_kubeedges(found) {
        return Ok(None);
    }
    let namespace = helmchart::NAMESPACE;
    let secrets = kubeedges_secrets(client, namespace).await?;
    let (map, _) = TUNNEL_PORTS;
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    let record = maps.get_metadata_opt(map).await;
    let record = record.with_context(|| format!("cannot read the ConfigMap {namespace}/{map}"))?;
    let api: Api<Node> = Api::all(client.clone());
    let (mut nodes, mut page) = (Vec::new(), ListParams::default().labels(EDGE_LABEL).limit(PAGE));
    loop {
        let list = api.list(&page).await.context("cannot list the edge nodes")?;
        nodes.extend(list.items);
        match list.metadata.continue_.filter(|next| !next.is_empty()) {
            Some(next) => page = page.continue_token(&next),
            None => break,
        }
    }
    let annotations = record.as_ref().and_then(|record| record.metadata.annotations.as_ref());
    Ok(Outside::of(secrets, annotations, &nodes))
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

    #[test]
    fn a_cloudcore_of_kubeedges_outside_of_the_cluster_is_known_by_what_it_leaves_there() {
        let node = |name: &str, ready: &str, annotations: Value| -> Node {
            let metadata = json!({ "name": name, "uid": "u", "annotations": annotations });
            let conditions = json!([{ "type": "Ready", "status": ready }]);
            serde_json::from_value(json!({ "metadata": metadata, "status": { "conditions": conditions } }))
                .unwrap()
        };
        let ours = node("edge-1", "True", json!({ "kubehive.io/enrolment": "aa" }));
        let (old, cut) = (node("old-1", "True", Value::Null), node("old-2", "Unknown", Value::Null));
        let written = r#"{"ipTunnelPort":{"192.0.2.9":10351,"nonsense":1},"port":{"10351":true}}"#;
        let record =
            |text: &str| BTreeMap::from([("tunnelportrecord.kubeedge.io".to_owned(), text.to_owned())]);
        let record_of = record(written);
        assert_eq!(
            Outside::of(Vec::new(), Some(&record_of), &[ours.clone(), cut.clone()]),
            None,
            "it is gone for good"
        );
        let runs =
            Outside::of(vec!["tokensecret"], Some(&record_of), &[ours.clone(), old.clone(), cut.clone()])
                .unwrap();
        assert!(runs.has_nodes());
        assert_eq!(
            runs.signs(),
            "Secrets tokensecret; the ConfigMap tunnelport names 192.0.2.9; Ready by it: old-1"
        );
        let cut = Outside::of(vec!["tokensecret"], Some(&record("torn {")), &[cut]).unwrap();
        assert!(cut.has_nodes());
        assert_eq!(cut.signs(), "Secrets tokensecret; of its 1 nodes none is Ready");
        let left = Outside::of(vec!["tokensecret"], None, &[ours]).unwrap();
        assert!(!left.has_nodes(), "the last one has moved");
        assert_eq!(left.signs(), "Secrets tokensecret; no node is its");
        // Its Secrets were deleted, which says that it is not to come back; who has ended it a moment ago sees its nodes Ready for a while.
        let ended = Outside::of(Vec::new(), None, &[old]).unwrap();
        assert!(!ended.has_nodes());
        let many: Vec<String> = (0..6).map(|at| at.to_string()).collect();
        assert_eq!(some_of(&many), "0, 1, 2, 3 and 2 more");
    }
}
