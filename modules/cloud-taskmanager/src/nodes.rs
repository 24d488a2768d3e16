//! The nodes that a job names, as the API server has them.

use std::collections::{BTreeMap, BTreeSet};

use contract::NodeName;
use contract::ids::EDGE_LABEL;
use crd::NodeSelector;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement, ObjectMeta};
use kube::api::{Api, ListParams};
use kube::core::Selector;
use noderegistry::plan::{is_ending, is_ours};

use crate::job::{JobStatus, NODES_MAX, NodeChoice};
use crate::plan::Fitness;
use crate::whose::Whose;

/// 200 Nodes in one answer.
const PAGE: u32 = 200;
/// 16 Nodes are asked for one by one. For more all edge nodes are listed: what that costs is the cluster's size, and not the job's.
const ONE_BY_ONE: usize = 16;

/// What stands in the way of a job before it has begun.
#[derive(Debug)]
pub(crate) enum Unfound {
    /// The job makes no sense, and why.
    Senseless(String),
    /// The API server could not be asked.
    Api(kube::Error),
}

impl From<kube::Error> for Unfound {
    fn from(error: kube::Error) -> Self {
        Unfound::Api(error)
    }
}

/// The nodes of a job, in the order of their turns.
pub(crate) async fn chosen(
    client: &kube::Client,
    choice: &NodeChoice,
) -> Result<Vec<(NodeName, Fitness)>, Unfound> {
    match choice {
        NodeChoice::Names(names) if names.len() <= ONE_BY_ONE => {
            let mut found = looked_up(client, names).await?;
            Ok(names.iter().filter_map(|name| found.remove_entry(name)).collect())
        }
        NodeChoice::Names(names) => {
            let wanted: BTreeSet<&NodeName> = names.iter().collect();
            let mut found = BTreeMap::new();
            let keep = |name: NodeName, fitness| {
                if wanted.contains(&name) {
                    found.insert(name, fitness);
                }
                Ok(())
            };
            each_edge_node(client, EDGE_LABEL, keep).await?;
            let missing = || Fitness::Unfit("there is no edge node of this name".to_owned());
            let fitness = |name: &NodeName| found.remove(name).unwrap_or_else(missing);
            Ok(names.iter().cloned().zip(names.iter().map(fitness)).collect())
        }
        NodeChoice::Labels(selector) => with_labels(client, selector).await,
    }
}

/// Whose a job is that names these nodes. Of one that somebody has begun the nodes are those that stand in its status.
pub(crate) async fn whose(
    client: &kube::Client,
    choice: Option<&NodeChoice>,
    status: &JobStatus,
) -> Result<Whose, kube::Error> {
    let begun = status.node_status.iter().filter_map(|node| NodeName::parse(&node.node_name).ok());
    let mut names: BTreeSet<NodeName> = begun.collect();
    let mut labels = EDGE_LABEL.to_owned();
    let mut by_labels = false;
    match choice {
        _ if !names.is_empty() => {}
        None => return Ok(Whose::Ours),
        Some(NodeChoice::Names(chosen)) => names.extend(chosen.iter().cloned()),
        Some(NodeChoice::Labels(selector)) => match selector_text(selector) {
            Ok(text) => (labels, by_labels) = (format!("{EDGE_LABEL},{text}"), true),
            // What is wrong with it is said by whoever begins it.
            Err(_) => return Ok(Whose::Ours),
        },
    }
    let nodes: Api<Node> = Api::all(client.clone());
    if !by_labels && names.len() <= ONE_BY_ONE {
        for name in &names {
            let found = nodes.get_metadata_opt(name.as_str()).await?;
            if found.is_some_and(|node| is_anothers(&node.metadata)) {
                return Ok(Whose::Anothers);
            }
        }
        return Ok(Whose::Ours);
    }
    let mut params = ListParams::default().labels(&labels).limit(PAGE);
    loop {
        let page = match nodes.list_metadata(&params).await {
            Err(kube::Error::Api(status)) if status.code == 400 => return Ok(Whose::Ours),
            page => page?,
        };
        let is_named = |metadata: &ObjectMeta| {
            let name = metadata.name.as_deref().and_then(|name| NodeName::parse(name).ok());
            by_labels || name.is_some_and(|name| names.contains(&name))
        };
        if page.items.iter().any(|node| is_named(&node.metadata) && is_anothers(&node.metadata)) {
            return Ok(Whose::Anothers);
        }
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => return Ok(Whose::Ours),
        }
    }
}

/// Whether a Node is that of an edge node which is not CloudCore's. One that somebody has deleted is nobody's.
fn is_anothers(metadata: &ObjectMeta) -> bool {
    let is_edge = metadata.labels.as_ref().is_some_and(|labels| labels.contains_key(EDGE_LABEL));
    is_edge && !is_ending(metadata) && !is_ours(metadata)
}

/// What of some nodes the API server has.
pub(crate) async fn looked_up(
    client: &kube::Client,
    names: &[NodeName],
) -> Result<BTreeMap<NodeName, Fitness>, kube::Error> {
    let nodes: Api<Node> = Api::all(client.clone());
    let mut found = BTreeMap::new();
    for name in names {
        let fitness = match nodes.get_opt(name.as_str()).await? {
            Some(node) => fitness(&node),
            None => Fitness::Unfit("there is no Node of this name".to_owned()),
        };
        found.insert(name.clone(), fitness);
    }
    Ok(found)
}

async fn with_labels(
    client: &kube::Client,
    selector: &NodeSelector,
) -> Result<Vec<(NodeName, Fitness)>, Unfound> {
    let labels = format!("{EDGE_LABEL},{}", selector_text(selector).map_err(Unfound::Senseless)?);
    let mut found = Vec::new();
    let keep = |name, fitness| {
        found.push((name, fitness));
        if found.len() > NODES_MAX {
            let why = format!("more than {NODES_MAX} nodes have these labels: make several jobs");
            return Err(Unfound::Senseless(why));
        }
        Ok(())
    };
    each_edge_node(client, &labels, keep).await?;
    Ok(found)
}

/// Lists the Nodes with these labels, and hands each of them out.
async fn each_edge_node(
    client: &kube::Client,
    labels: &str,
    mut keep: impl FnMut(NodeName, Fitness) -> Result<(), Unfound>,
) -> Result<(), Unfound> {
    let nodes: Api<Node> = Api::all(client.clone());
    let mut params = ListParams::default().labels(labels).limit(PAGE);
    loop {
        let page = match nodes.list(&params).await {
            Err(kube::Error::Api(status)) if status.code == 400 => {
                let why = contract::node_task::sentence(&status.message);
                return Err(Unfound::Senseless(format!("labelSelector: {why}")));
            }
            page => page?,
        };
        for node in &page.items {
            let Some(name) = node.metadata.name.as_deref() else { continue };
            if let Ok(name) = NodeName::parse(name) {
                keep(name, fitness(node))?;
            }
        }
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => return Ok(()),
        }
    }
}

fn selector_text(selector: &NodeSelector) -> Result<String, String> {
    let requirement = |one: &crd::NodeSelectorRequirement| LabelSelectorRequirement {
        key: one.key.clone(),
        operator: one.operator.clone(),
        values: Some(one.values.clone()).filter(|values| !values.is_empty()),
    };
    let labels = LabelSelector {
        match_labels: Some(selector.match_labels.clone()),
        match_expressions: Some(selector.match_expressions.iter().map(requirement).collect()),
    };
    let selector = Selector::try_from(labels).map_err(|error| format!("labelSelector: {error}"))?;
    Ok(selector.to_string())
}

fn fitness(node: &Node) -> Fitness {
    let unfit = |why: &str| Fitness::Unfit(why.to_owned());
    if !node.metadata.labels.as_ref().is_some_and(|labels| labels.contains_key(EDGE_LABEL)) {
        return unfit("it is no edge node");
    }
    if is_anothers(&node.metadata) {
        return unfit("it is an edge node of another CloudCore");
    }
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
    let ready = conditions.into_iter().flatten().find(|condition| condition.type_ == "Ready");
    match ready.map(|ready| ready.status.as_str()) {
        Some("True") => Fitness::Fit,
        Some("False") => unfit("it is not Ready"),
        Some(_) | None => unfit("nothing is heard of it"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn node(labels: Value, ready: &str) -> Node {
        let status = json!({"conditions": [{"type": "Ready", "status": ready}]});
        let metadata = json!({"name": "n", "labels": labels, "annotations": {"kubehive.io/enrolment": "1"}});
        serde_json::from_value(json!({"metadata": metadata, "status": status})).unwrap()
    }

    #[test]
    fn an_edge_node_that_neither_joined_nor_was_adopted_is_anothers() {
        let metadata = |annotations: Value, deleted: Value| -> ObjectMeta {
            let labels = json!({ EDGE_LABEL: "" });
            let all = json!({"uid": "u", "labels": labels, "annotations": annotations, "deletionTimestamp": deleted});
            serde_json::from_value(all).unwrap()
        };
        let adopted = |uid: &str| json!({"kubehive.io/adopted": uid});
        assert!(
            is_anothers(&metadata(Value::Null, Value::Null))
                && is_anothers(&metadata(adopted("v"), Value::Null))
        );
        assert!(!is_anothers(&metadata(adopted("u"), Value::Null)));
        assert!(!is_anothers(&metadata(Value::Null, json!("2026-11-30T00:00:00Z"))), "nobody's");
        assert!(!is_anothers(&ObjectMeta::default()), "no edge node");
        let mut left = node(json!({ EDGE_LABEL: "" }), "True");
        left.metadata.annotations = None;
        assert_eq!(fitness(&left), Fitness::Unfit("it is an edge node of another CloudCore".to_owned()));
    }

    #[test]
    fn an_edge_node_that_is_ready_is_fit() {
        let edge = json!({ EDGE_LABEL: "" });
        assert_eq!(fitness(&node(edge.clone(), "True")), Fitness::Fit);
        assert_eq!(fitness(&node(json!({}), "True")), Fitness::Unfit("it is no edge node".to_owned()));
        assert_eq!(fitness(&node(edge.clone(), "False")), Fitness::Unfit("it is not Ready".to_owned()));
        assert_eq!(fitness(&node(edge, "Unknown")), Fitness::Unfit("nothing is heard of it".to_owned()));
        assert!(matches!(fitness(&Node::default()), Fitness::Unfit(_)));
    }

    #[test]
    fn a_selector_is_written_as_the_api_server_reads_it() {
        let text = |selector: Value| selector_text(&serde_json::from_value(selector).unwrap());
        assert_eq!(text(json!({"matchLabels": {"a": "b"}})).unwrap(), "a=b");
        let expressions = json!({"matchExpressions": [
            {"key": "a", "operator": "In", "values": ["b", "c"]}, {"key": "d", "operator": "DoesNotExist"},
        ]});
        assert_eq!(text(expressions).unwrap(), "a in (b,c),!d");
        assert!(text(json!({"matchExpressions": [{"key": "a", "operator": "Near"}]})).is_err());
    }
}
