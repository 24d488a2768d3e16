use super::*;
use serde_json::json;

fn node(said: Value) -> (Value, Vec<String>) {
    let mut left_out = LeftOut::default();
    let status = node_status(&said, &mut left_out).unwrap();
    (json!(status), left_out.named().to_vec())
}

fn pod(said: Value) -> (Value, Vec<String>) {
    let mut left_out = LeftOut::default();
    let status = pod_status(&said, &mut left_out).unwrap();
    (json!(status), left_out.named().to_vec())
}

#[test]
fn of_a_nodes_status_what_a_kubelet_writes_is_taken() {
    let (status, left_out) = node(json!({
        "conditions": [
            { "type": "Ready", "status": "True", "message": "x".repeat(5000), "$patch": "delete" },
            { "type": "kubehive.io/Synced", "status": "True" },
            { "type": "NetworkUnavailable", "status": "False" },
            { "$patch": "replace", "type": "DiskPressure", "status": "False" },
        ],
        "addresses": [{ "type": "InternalIP", "address": "192.0.2.1" }],
        "volumesAttached": [{ "name": "v", "devicePath": "/dev/sda" }],
        "config": { "error": "e" },
        "phase": "Running",
        "$patch": "replace",
    }));
    let types: Vec<&Value> = status["conditions"].as_array().unwrap().iter().map(|c| &c["type"]).collect();
    assert_eq!(types, ["Ready", "DiskPressure"]);
    assert_eq!(status["conditions"][0]["message"].as_str().unwrap().len(), MESSAGE_MAX);
    assert!(!status.to_string().contains("$patch"), "{status}");
    assert_eq!(status.as_object().unwrap().keys().collect::<Vec<_>>(), ["addresses", "conditions"]);
    assert_eq!(left_out, [""; 0], "what is not a node's to say is no fault");
    assert_eq!(node_status(&json!(7), &mut LeftOut::default()), None);
}

#[test]
fn of_a_nodes_status_what_no_api_server_takes_is_left_out_by_itself() {
    let (status, left_out) = node(json!({
        "capacity": {"pods": "x", "cpu": "2", "memory": ["a"], "example.com/tpu": "1.5", "ephemeral-storage": 7,
            "hugepages-2Mi": "-1"},
        "allocatable": "x",
        "conditions": [
            {"type": "Ready", "status": "True", "lastHeartbeatTime": "yesterday"},
            {"type": "DiskPressure", "status": "No"},
            {"type": "PIDPressure", "status": "False"},
            {"type": "PIDPressure", "status": "True"},
        ],
        "addresses": [{"type": "InternalIP", "address": "zz"}, {"type": "Hostname", "address": "edge-1"},
            {"type": "Hostname", "address": "edge-1"}, {"type": "Other", "address": "192.0.2.1"}],
        "nodeInfo": {"machineID": 5},
        "volumesInUse": [5, "a/b"],
    }));
    assert_eq!(
        status,
        json!({
            "capacity": {"cpu": "2", "ephemeral-storage": "7"},
            "conditions": [{"type": "PIDPressure", "status": "False"}],
            "addresses": [{"type": "Hostname", "address": "edge-1"}],
            "volumesInUse": ["a/b"],
        })
    );
    assert!(left_out.contains(&"conditions[0]".to_owned()), "{left_out:?}");
    let mut all = LeftOut::default();
    let said = json!({"capacity": {"pods": "x", "x".repeat(5000): "y"}, "nodeInfo": "x", "images": "x"});
    node_status(&said, &mut all).unwrap();
    assert_eq!((all.count(), all.named().iter().map(String::len).max()), (4, Some(128)));
}

#[test]
fn of_a_pods_status_what_a_kubelet_writes_is_taken() {
    let (status, left_out) = pod(json!({
        "phase": "Running",
        "nominatedNodeName": "control-plane",
        "resourceClaimStatuses": [{ "name": "gpu", "resourceClaimName": "other" }],
        "conditions": [{ "type": "Ready", "status": "True" }, { "type": "example.com/gate", "status": "True" }],
    }));
    assert_eq!(status.as_object().unwrap().keys().collect::<Vec<_>>(), ["conditions", "phase"]);
    assert_eq!(status["conditions"].as_array().unwrap().len(), 1);
    assert_eq!(left_out, [""; 0]);
    assert!(pod_status(&json!([]), &mut LeftOut::default()).is_none());
}

#[test]
fn what_a_pod_has_as_a_whole_is_taken_as_far_as_it_is_amounts() {
    let mut left_out = LeftOut::default();
    let said = json!({
        "allocatedResources": {"cpu": "1", "memory": "64Mi"},
        "resources": {"requests": {"cpu": "x", "memory": "64Mi"}, "limits": {"cpu": "-1"}, "$patch": "replace"},
    });
    let taken = Value::Object(whole_resources(&said, &mut left_out));
    let wanted = json!({
        "allocatedResources": {"cpu": "1", "memory": "64Mi"},
        "resources": {"requests": {"memory": "64Mi"}, "limits": {}},
    });
    assert_eq!(taken, wanted);
    assert_eq!(left_out.named(), ["limits.cpu", "requests.cpu"]);
    let none = whole_resources(&json!({"resources": []}), &mut LeftOut::default());
    assert!(none.is_empty() && whole_resources(&json!("x"), &mut LeftOut::default()).is_empty());
}

#[test]
fn of_a_pods_status_what_no_api_server_takes_is_left_out_by_itself() {
    let container = |name: &str, more: Value| {
        let mut one = json!({"name": name, "image": "i", "imageID": "", "ready": true, "restartCount": 1});
        one.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        one
    };
    let (status, left_out) = pod(json!({
        "phase": "Foo", "qosClass": "Best", "startTime": "x", "podIP": "10.96.0.1; rm", "hostIP": 7,
        "podIPs": [{"ip": "zz"}, {"ip": "10.0.0.7"}, {"ip": "10.0.0.7"}, "x"],
        "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "zz"},
            {"type": "Initialized", "status": "True"}],
        "containerStatuses": [
            container("a", json!({"allocatedResources": {"cpu": "zz"}, "resources": {"limits": {"cpu": "q"}}})),
            container("b", json!({"restartCount": 1_i64 << 60})),
            container("c", json!({"user": {"linux": {"uid": -1, "gid": 0}}})),
        ],
        "initContainerStatuses": "x",
        "observedGeneration": -1,
        "message": "kept",
    }));
    assert_eq!(
        status,
        json!({
            "podIPs": [{"ip": "10.0.0.7"}],
            "conditions": [{"type": "Initialized", "status": "True"}],
            "containerStatuses": [container("a", json!({})), container("c", json!({}))],
            "message": "kept",
        })
    );
    assert_eq!(left_out.len(), 8, "{left_out:?}");
}

#[test]
fn no_character_is_cut_in_two() {
    assert_eq!(status_texts::cut_to("aé".to_owned(), 2), "a");
    assert_eq!(status_texts::cut_to("ab".to_owned(), 2), "ab");
}
