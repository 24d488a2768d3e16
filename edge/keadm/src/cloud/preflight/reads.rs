//! Asks the cluster what the checks look at.

use anyhow::{Context as _, Result};
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::authorization::v1::SelfSubjectAccessReview;
use k8s_openapi::api::core::v1::{Namespace, Node, Pod, Service};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Client;
use kube::api::{Api, ListParams, PostParams};
use nodechecks::Finding;
use serde_json::{Value, json};

use super::daemon_sets::{Landing, landing};
use super::{nodes as machines, plan, ports};
use crate::cloud::capabilities::Cluster;
use crate::cloud::definitions::name_of;
use crate::cloud::found::{self, FoundCloudCore, Outside};

/// By which labels pods of CoreDNS are found.
const DNS_SELECTORS: [&str; 2] = ["k8s-app=kube-dns", "app=coredns"];
/// 500 objects a page.
const PAGE: u32 = 500;

/// What was found.
pub(crate) struct Checked {
    pub(crate) findings: Vec<Finding>,
    /// Daemon sets that would land on edge nodes.
    pub(crate) landing: Vec<Landing>,
}

/// What is to be installed.
pub(crate) struct Order<'a> {
    pub(crate) values: &'a Value,
    pub(crate) objects: &'a [Value],
    /// Where CloudCore is to be.
    pub(crate) namespace: &'a str,
    /// One of ours that is there is to be replaced.
    pub(crate) is_forced: bool,
    /// The CloudCores that are there.
    pub(crate) found: &'a [FoundCloudCore],
    /// KubeEdge's outside of the cluster.
    pub(crate) outside: Option<&'a Outside>,
}

/// Looks at everything.
///
/// # Errors
/// When the cluster cannot be asked.
pub(crate) async fn check(client: &Client, cluster: &Cluster, order: &Order<'_>) -> Result<Checked> {
    let Order { values, objects, namespace, is_forced, found, outside } = *order;
    let has_policies = objects.iter().any(|object| object["kind"] == "ValidatingAdmissionPolicy");
    let mut findings = vec![
        plan::api_server_version(&cluster.version, cluster.is_stand_alone(), has_policies),
        plan::advertised(values),
        plan::rights(&denied(client, cluster, objects).await?),
    ];
    let nodes = all::<Node>(Api::all(client.clone()), "Nodes").await?;
    let replicas = replicas(values);
    findings.push(machines::nodes_ready(&nodes, replicas));
    findings.push(machines::cloud_provider(&nodes));
    findings.push(machines::cluster_dns(&dns_pods(client).await?, replicas));
    findings.push(plan::definitions(&definitions(client).await?, found::is_beside(found, outside)));
    let theirs = found::kubeedges_secrets(client, namespace).await?;
    findings.push(plan::installed(found, (&theirs, outside), namespace, is_forced));
    let services = all::<Service>(Api::all(client.clone()), "Services").await?;
    findings.push(ports::node_ports(objects, &services));
    let pods = match plan::is_on_host(values) {
        true => all::<Pod>(Api::all(client.clone()), "pods").await?,
        false => Vec::new(),
    };
    findings.push(ports::host_ports(objects, namespace, &pods, &machines::places(&nodes), replicas));
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let there = namespaces.get_opt(namespace).await;
    let there = there.with_context(|| format!("cannot read the namespace {namespace}"))?;
    findings.push(plan::pod_security(there.as_ref(), &helmchart::namespace(values, namespace), replicas));
    let sets = match cluster.serves("apps/v1", "DaemonSet") {
        true => all::<DaemonSet>(Api::all(client.clone()), "DaemonSets").await?,
        false => Vec::new(),
    };
    let landing = landing(&sets);
    findings.push(daemon_sets(&landing));
    Ok(Checked { findings, landing })
}

/// How many pods of CloudCore are asked for; 0: it runs outside of the cluster.
pub(crate) fn replicas(values: &Value) -> u64 {
    values.pointer("/cloudCore/replicaCount").and_then(Value::as_u64).unwrap_or(1)
}

fn daemon_sets(landing: &[Landing]) -> Finding {
    const CHECK: &str = "DaemonSets";
    if landing.is_empty() {
        return Finding::passed(CHECK, "none lands on edge nodes by mistake");
    }
    let names: Vec<String> = landing.iter().map(|set| format!("{}/{}", set.namespace, set.name)).collect();
    let commands: Vec<String> = landing
        .iter()
        .map(|set| {
            format!(
                "  kubectl -n {} patch daemonset {} --type=merge -p '{}'",
                set.namespace, set.name, set.patch
            )
        })
        .collect();
    Finding::warned(
        CHECK,
        format!(
            "{} would run on edge nodes, too, and find no API server there: --keep-daemonsets-off has init keep them off, or\n{}",
            names.join(", "),
            commands.join("\n")
        ),
    )
}

async fn all<K>(api: Api<K>, named: &str) -> Result<Vec<K>>
where
    K: Clone + std::fmt::Debug + serde::de::DeserializeOwned,
{
    let (mut items, mut page) = (Vec::new(), ListParams::default().limit(PAGE));
    loop {
        let list = api.list(&page).await.with_context(|| format!("cannot list the {named}"))?;
        items.extend(list.items);
        match list.metadata.continue_.filter(|next| !next.is_empty()) {
            Some(next) => page = page.continue_token(&next),
            None => return Ok(items),
        }
    }
}

async fn dns_pods(client: &Client) -> Result<Vec<Pod>> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), "kube-system");
    let mut found = Vec::new();
    for selector in DNS_SELECTORS {
        let list = pods.list(&ListParams::default().labels(selector)).await;
        found.extend(list.context("cannot list the pods of kube-system")?.items);
    }
    Ok(found)
}

async fn definitions(client: &Client) -> Result<Vec<CustomResourceDefinition>> {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    let mut found = Vec::new();
    for ours in crd::manifests() {
        let theirs = api.get_opt(name_of(&ours)).await;
        found.extend(theirs.with_context(|| format!("cannot read the definition {}", name_of(&ours)))?);
    }
    Ok(found)
}

/// What this user may not write of what is to be written, a word for each kind.
async fn denied(client: &Client, cluster: &Cluster, objects: &[Value]) -> Result<Vec<String>> {
    let mut wanted: Vec<(String, String, Option<&str>)> = vec![
        (String::new(), "namespaces".to_owned(), None),
        ("apiextensions.k8s.io".to_owned(), "customresourcedefinitions".to_owned(), None),
    ];
    for object in objects {
        let text = |name: &str| object[name].as_str().unwrap_or_default().to_owned();
        let (api_version, kind) = (text("apiVersion"), text("kind"));
        let Some(resource) = cluster.resources.get(&(api_version.clone(), kind)) else { continue };
        let group = api_version.rsplit_once('/').map_or("", |(group, _)| group).to_owned();
        let one = (group, resource.plural.clone(), object["metadata"]["namespace"].as_str());
        if !wanted.contains(&one) {
            wanted.push(one);
        }
    }
    let reviews: Api<SelfSubjectAccessReview> = Api::all(client.clone());
    let mut denied = Vec::new();
    for (group, resource, namespace) in wanted {
        for verb in ["create", "patch"] {
            let attributes =
                json!({ "verb": verb, "group": group, "resource": resource, "namespace": namespace });
            let review = serde_json::from_value(
                json!({ "metadata": {}, "spec": { "resourceAttributes": attributes } }),
            )?;
            let answer = reviews
                .create(&PostParams::default(), &review)
                .await
                .context("cannot ask what this user may do")?;
            if answer.status.is_some_and(|status| !status.allowed) {
                denied.push(format!(
                    "{verb} {resource}{}",
                    namespace.map_or(String::new(), |of| format!(" in {of}"))
                ));
            }
        }
    }
    Ok(denied)
}
