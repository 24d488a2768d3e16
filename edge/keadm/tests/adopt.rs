//! A Node from elsewhere becomes CloudCore's by an administrator's word, and goes again by another one.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use beehive::Env;
use contract::NodeName;
use harness::StandAlone;
use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, Patch, PatchParams, PostParams};
use noderegistry::{ADOPTED_ANNOTATION, ENROLMENT_ANNOTATION};
use serde_json::{Value, json};

fn node(name: &str, more: Value) -> Node {
    let mut metadata = json!({ "name": name, "labels": { "node-role.kubernetes.io/edge": "" } });
    metadata.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    serde_json::from_value(json!({ "metadata": metadata })).unwrap()
}

#[actix_rt::test]
async fn a_node_of_kubeedges_is_adopted_and_let_go_as_it_was() {
    let env = Env::real();
    let api = StandAlone::start(&env).await;
    let nodes: Api<Node> = Api::all(api.client());
    let name = |text: &str| NodeName::parse(text).unwrap();
    nodes.create(&PostParams::default(), &node("edge-1", json!({}))).await.unwrap();
    let mut said = Vec::new();
    keadm::adopt(api.client(), &name("edge-1"), &mut |line| said.push(line)).await.unwrap();
    assert!(said.iter().any(|line| line.contains("keadm join")), "{said:?}");
    // As CloudCore does, once the node reports.
    let own = json!({ "metadata": { "labels": { "kubehive.io/own": "" }, "annotations": { "kubehive.io/kubelet-address": "1" } } });
    nodes.patch("edge-1", &PatchParams::default(), &Patch::Merge(own)).await.unwrap();
    let conditions = ["Ready", "kubehive.io/Link", "kubehive.io/Synced"]
        .map(|kind| json!({ "type": kind, "status": "True" }));
    let status = json!({ "status": { "conditions": conditions } });
    nodes.patch_status("edge-1", &PatchParams::default(), &Patch::Strategic(status)).await.unwrap();
    let adopted = nodes.get("edge-1").await.unwrap().metadata;
    assert_eq!(adopted.annotations.unwrap().get(ADOPTED_ANNOTATION), adopted.uid.as_ref());

    keadm::undo_adoption(api.client(), &name("edge-1"), &mut |_| {}).await.unwrap();
    let free = nodes.get("edge-1").await.unwrap().metadata;
    assert_eq!((free.uid, free.annotations.unwrap_or_default().len()), (adopted.uid, 0));
    let conditions = nodes.get("edge-1").await.unwrap().status.unwrap().conditions.unwrap();
    let left: Vec<&str> = conditions.iter().map(|condition| condition.type_.as_str()).collect();
    assert_eq!(left, ["Ready"], "what CloudCore said of it goes with it");
    let labels: Vec<String> = free
        .labels
        .unwrap()
        .into_keys()
        .filter(|label| label.contains("role") || label.contains("own"))
        .collect();
    assert_eq!(labels, ["node-role.kubernetes.io/agent", "node-role.kubernetes.io/edge"]);
    // Once more, and over again.
    keadm::undo_adoption(api.client(), &name("edge-1"), &mut |_| {}).await.unwrap();
    keadm::adopt(api.client(), &name("edge-1"), &mut |_| {}).await.unwrap();

    let own = node("edge-2", json!({ "annotations": { ENROLMENT_ANNOTATION: "0a" } }));
    nodes.create(&PostParams::default(), &own).await.unwrap();
    let refused = keadm::undo_adoption(api.client(), &name("edge-2"), &mut |_| {}).await.unwrap_err();
    assert!(refused.to_string().contains("was made by CloudCore"), "{refused}");
    let none = keadm::undo_adoption(api.client(), &name("edge-3"), &mut |_| {}).await.unwrap_err();
    assert!(none.to_string().contains("there is no Node"), "{none}");
}
