//! An administrator's word about a node: `keadm adopt`, `keadm revoke`, `keadm free`. Everything here is a change of an object
//! that kubectl makes as well.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use contract::NodeName;
use contract::ids::{
    CONTROL_PLANE_ROLES, EDGE_ROLES, KUBELET_ADDRESS_ANNOTATION, OWN_LABEL, REPORTED_ANNOTATION,
};
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::api::rbac::v1::RoleBinding;
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use noderegistry::plan::{self, TokenClaims};
use noderegistry::{ADOPTED_ANNOTATION, ENROLMENT_ANNOTATION, Entry, Registry, Removal, Revoked};
use serde_json::{Value, json};

/// Where a RoleBinding of each Node of CloudCore's says so.
const OWN_NODES: &str = "kubehive-nodes";
/// What the types of the conditions begin with that CloudCore alone writes.
const OWN_CONDITIONS: &str = "kubehive.io/";
/// So often a Node is tried to be taken from CloudCore.
const UNDO_TRIES: usize = 5;

/// Lets the edge node of this name have the Node of this name; without a Node, lets one be made for it again.
///
/// # Errors
/// When there is neither a Node nor an edge node of that name, the name is revoked, or the Node is of the control plane.
pub async fn adopt(client: kube::Client, node: &NodeName, say: &mut dyn FnMut(String)) -> Result<()> {
    let registry = Registry::new(client.clone());
    let entry = registry.edge_node(node).await?.as_ref().map(Entry::of);
    if entry.as_ref().is_some_and(|entry| entry.is_ending) {
        bail!(
            "`{node}` is being freed, and finalizers hold its EdgeNode: remove them (`kubectl edit edgenode {node}`), then adopt"
        );
    }
    if entry.as_ref().is_some_and(|entry| entry.is_barred) {
        bail!("`{node}` is revoked: `keadm free {node}` first");
    }
    let nodes: Api<Node> = Api::all(client);
    let has_joined = entry.is_some_and(|entry| entry.living.is_some());
    match nodes.get_opt(node.as_str()).await.context("cannot read the Node")? {
        Some(found) => {
            mark(&nodes, node, &found).await?;
            say(format!(
                "Node `{node}` is adopted: CloudCore takes its status and gives its pods to the edge node of that name"
            ));
        }
        None if registry.allow_back(node).await? => {
            say(format!(
                "there is no Node `{node}`: CloudCore makes a new one when the edge node reports itself"
            ));
        }
        None => bail!(
            "the cluster has neither a Node `{node}` nor an edge node of that name: print a token with `keadm gettoken` and join it"
        ),
    }
    say(if has_joined {
        "the edge node has joined: it is let in within some 10 s".to_owned()
    } else {
        next(node)
    });
    Ok(())
}

/// Takes an adoption back, for a Node that goes back to KubeEdge: the Node stays as it is, an edge node, and is none of CloudCore's any
/// more. The name is free.
///
/// # Errors
/// When there is no such Node, when CloudCore made it itself, and when the cluster cannot be written.
pub async fn undo_adoption(client: kube::Client, node: &NodeName, say: &mut dyn FnMut(String)) -> Result<()> {
    let nodes: Api<Node> = Api::all(client.clone());
    let found = nodes.get_opt(node.as_str()).await.context("cannot read the Node")?;
    let found = found.with_context(|| format!("there is no Node `{node}`"))?;
    let annotations = found.metadata.annotations.clone().unwrap_or_default();
    if annotations.contains_key(ENROLMENT_ANNOTATION) {
        bail!("Node `{node}` was made by CloudCore and is no other's: `kubectl delete node {node}`");
    }
    let uid = found.metadata.uid.as_deref().context("the Node has no uid")?;
    // First who may have it: a policy keeps the label on the Node while it is there.
    let rights: Api<RoleBinding> = Api::namespaced(client.clone(), OWN_NODES);
    match Registry::new(client).free(node).await? {
        Removal::Gone | Removal::NotThere => {}
        Removal::Held(finalizers) => {
            bail!("the name is not free yet: {}", held("edgenode", node.as_str(), &finalizers))
        }
    }
    let patch = json!({ "metadata": { "uid": uid, "labels": { OWN_LABEL: null },
        "annotations": { ADOPTED_ANNOTATION: null, KUBELET_ADDRESS_ANNOTATION: null, REPORTED_ANNOTATION: null } } });
    let mut refused = None;
    // CloudCore may say once more that the Node is its own until it has seen that it is not.
    for _ in 0..UNDO_TRIES {
        match rights.delete(node.as_str(), &DeleteParams::default()).await {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(error) => {
                return Err(error)
                    .with_context(|| format!("cannot delete the RoleBinding {OWN_NODES}/{node}"));
            }
        }
        match nodes.patch(node.as_str(), &PatchParams::default(), &Patch::Merge(&patch)).await {
            Ok(taken) => {
                forget_conditions(&nodes, &taken).await?;
                say(format!(
                    "Node `{node}` is none of this CloudCore's any more; its label {} stays, by which KubeEdge has it",
                    EDGE_ROLES[0]
                ));
                return Ok(());
            }
            Err(error) => refused = Some(error),
        }
    }
    match refused {
        Some(error) => Err(error).context("the Node's annotation is not taken away"),
        None => Ok(()),
    }
}

/// What CloudCore had said of the Node: nobody else would ever take it back.
async fn forget_conditions(nodes: &Api<Node>, taken: &Node) -> Result<()> {
    let conditions =
        taken.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let own =
        conditions.iter().map(|condition| &condition.type_).filter(|kind| kind.starts_with(OWN_CONDITIONS));
    let gone: Vec<Value> = own.map(|kind| json!({ "type": kind, "$patch": "delete" })).collect();
    let Some(name) = taken.metadata.name.as_deref().filter(|_| !gone.is_empty()) else { return Ok(()) };
    let patch = json!({ "status": { "conditions": gone } });
    let patched = nodes.patch_status(name, &PatchParams::default(), &Patch::Strategic(&patch)).await;
    patched.map(drop).context("the Node's conditions of CloudCore are not taken away")
}

/// What brings a machine to a name. One that was a node has that node's certificate and store still, and `keadm join` refuses it.
fn next(node: &NodeName) -> String {
    format!(
        "next: `keadm gettoken --edgenode-name={node}`, and on the edge machine `keadm join` with it; one that was a node of CloudCore's before \
         needs `keadm reset` first, and one that KubeEdge's edgecore runs on `keadm join --from-kubeedge`, and no reset"
    )
}

/// That an object is there still, and the cure.
pub(crate) fn held(kind: &str, name: &str, finalizers: &[String]) -> String {
    format!(
        "its object is still there, held by finalizers ({}): it goes when they are removed (`kubectl edit {kind} {name}`)",
        listed(finalizers)
    )
}

fn listed(finalizers: &[String]) -> String {
    let shown: Vec<String> = finalizers.iter().map(|one| one.escape_debug().to_string()).collect();
    shown.join(", ")
}

async fn mark(nodes: &Api<Node>, node: &NodeName, found: &Node) -> Result<()> {
    let labels = found.metadata.labels.clone().unwrap_or_default();
    if let Some(label) = CONTROL_PLANE_ROLES.iter().find(|label| labels.contains_key(**label)) {
        bail!("Node `{node}` is of the control plane (label {label}): it is not for an edge machine");
    }
    let ending = || {
        anyhow::anyhow!(
            "Node `{node}` is being deleted, and finalizers hold it: it is nobody's. When it has gone (`kubectl get node {node} -o yaml` shows the finalizers), `keadm adopt {node}` has a new one made"
        )
    };
    if plan::is_ending(&found.metadata) {
        return Err(ending());
    }
    let uid = found.metadata.uid.as_deref().context("the Node has no uid")?;
    let labels: serde_json::Map<String, serde_json::Value> =
        EDGE_ROLES.iter().map(|label| ((*label).to_owned(), json!(""))).collect();
    // The uid holds the patch to the Node that was looked at.
    let patch =
        json!({ "metadata": { "uid": uid, "labels": labels, "annotations": { ADOPTED_ANNOTATION: uid } } });
    let patched = nodes.patch(node.as_str(), &PatchParams::default(), &Patch::Merge(&patch)).await;
    let now = patched.context("cannot annotate the Node")?.metadata;
    if plan::is_ending(&now) {
        return Err(ending());
    }
    let word = now.annotations.as_ref().and_then(|annotations| annotations.get(ADOPTED_ANNOTATION));
    if word.map(String::as_str) != Some(uid) {
        bail!(
            "the Node `{node}` does not have the annotation {ADOPTED_ANNOTATION} that was written: an admission webhook takes it away"
        );
    }
    Ok(())
}

/// Bars the name of an edge node, at the time `now`.
///
/// # Errors
/// When the cluster cannot be written, and when no edge node has the name.
pub async fn revoke(
    client: kube::Client,
    node: &NodeName,
    now: SystemTime,
    say: &mut dyn FnMut(String),
) -> Result<()> {
    let registry = Registry::new(client.clone());
    // One that is not understood is there all the same.
    if matches!(registry.edge_node(node).await, Ok(None)) {
        bail!(
            "no edge node has the name `{node}`, and nothing was changed: `kubectl get edgenodes` lists them. `keadm revoke --unused {node}` bars a name that nobody has"
        );
    }
    bar(client, node, now, say).await
}

/// Bars a name, whoever has it, at the time `now`.
///
/// # Errors
/// When the cluster cannot be written.
pub async fn bar(
    client: kube::Client,
    node: &NodeName,
    now: SystemTime,
    say: &mut dyn FnMut(String),
) -> Result<()> {
    let registry = Registry::new(client);
    match registry.revoke(node).await? {
        Revoked::Node => {
            say(format!(
                "`{node}` is revoked: its links end within seconds, and nothing is signed for the name until `keadm free {node}`"
            ));
            // Whoever may not read Nodes is not told of one.
            if matches!(registry.node_metadata(node).await, Ok(Some(_))) {
                say(format!(
                    "its Node and pods stay in the cluster: `kubectl delete node {node}` takes them away"
                ));
            }
            say("what it was given it still knows: change the Secrets of its pods, if the machine is in foreign hands".to_owned());
            if let Some(id) = good_token(&registry, node, now).await {
                say(format!(
                    "the token that it joined with is still good: `keadm token revoke {id}` withdraws it"
                ));
            }
        }
        Revoked::Nobody => {
            say(format!("no edge node has the name `{node}`; it is barred until `keadm free {node}`"))
        }
        Revoked::Ending(finalizers) => {
            say(format!("`{node}` was freed before: its links end, and nothing is signed for the name now"));
            bail!(
                "the bar goes with its EdgeNode, which only finalizers hold ({}): remove them (`kubectl edit edgenode {node}`), then `keadm revoke {node}` again",
                listed(&finalizers)
            );
        }
    }
    Ok(())
}

/// The token that the edge node joined with, if somebody may join with it still. What is not understood is barred as well; and such
/// a token is good for nothing.
async fn good_token(registry: &Registry, node: &NodeName, now: SystemTime) -> Option<String> {
    let id = registry.edge_node(node).await.ok().flatten()?.spec.token?;
    let token = registry.token(&id).await.ok().flatten()?;
    let now_unix = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let claims = TokenClaims { id: id.clone(), node: None };
    plan::may_use(&claims, Some(&token), node, now_unix).is_ok().then_some(id)
}

/// Frees a name: its certificate is worth nothing any more, and whoever has a token for it may join.
///
/// # Errors
/// When nobody has the name.
pub async fn free(client: kube::Client, node: &NodeName, say: &mut dyn FnMut(String)) -> Result<()> {
    let registry = Registry::new(client);
    match registry.free(node).await? {
        Removal::Gone => {}
        Removal::NotThere => bail!("no edge node has the name `{node}`, and it is not barred"),
        Removal::Held(finalizers) => {
            say(format!("a certificate that `{node}` had is worth nothing any more"));
            bail!("the name is not free yet: {}", held("edgenode", node.as_str(), &finalizers));
        }
    }
    say(format!("the name `{node}` is free; a certificate that it had is worth nothing any more"));
    if registry.node_metadata(node).await?.is_some() {
        say(format!(
            "its Node is still there: `kubectl delete node {node}`, or `keadm adopt {node}` for the machine that joins next"
        ));
    }
    say(next(node));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_step_holds_for_a_machine_that_was_a_node_too() {
        let said = next(&NodeName::parse("edge-1").unwrap());
        let (token, join, reset) =
            (said.find("gettoken --edgenode-name=edge-1"), said.find("keadm join"), said.find("keadm reset"));
        assert!(token.is_some() && token < join && reset.is_some(), "{said}");
    }
}
