//! The defaults of Kubernetes 1.36 as a table.

use super::*;
use crate::unstructured::list;

/// A rule of Kubernetes 1.36: where in a pod's spec, what is there, what it becomes.
type Case = (&'static str, Value, Value);

fn of_both() -> Vec<Case> {
    let claim = json!({"volumeClaimTemplate": {"spec": {"accessModes": []}}});
    let claim_then = json!({"volumeClaimTemplate": {"metadata": {}, "spec": {"accessModes": [], "volumeMode": "Filesystem", "resources": {}}}});
    let field = json!({"path": "f", "fieldRef": {"fieldPath": "metadata.name"}});
    let field_then = json!({"path": "f", "fieldRef": {"fieldPath": "metadata.name", "apiVersion": "v1"}});
    let resource = json!({"path": "r", "resourceFieldRef": {"resource": "limits.cpu"}});
    let resource_then = json!({"path": "r", "resourceFieldRef": {"resource": "limits.cpu", "divisor": "0"}});
    let (files, files_then) = (json!([field, resource]), json!([field_then, resource_then]));
    let mut cases = vec![
        ("/restartPolicy", json!(""), json!("Always")),
        ("/dnsPolicy", Value::Null, json!("ClusterFirst")),
        ("/schedulerName", Value::Null, json!("default-scheduler")),
        ("/securityContext", Value::Null, json!({})),
        ("/terminationGracePeriodSeconds", Value::Null, json!(30)),
        ("/terminationGracePeriodSeconds", json!(0), json!(0)),
        ("/enableServiceLinks", Value::Null, Value::Null),
        ("/volumes/0", json!({"name": "v"}), json!({"name": "v", "emptyDir": {}})),
        ("/volumes/0/hostPath", json!({"path": "/x"}), json!({"path": "/x", "type": ""})),
        ("/volumes/0/secret", json!({"secretName": "s"}), json!({"secretName": "s", "defaultMode": 420})),
        ("/volumes/0/configMap", json!({"name": "c"}), json!({"name": "c", "defaultMode": 420})),
        ("/volumes/0/configMap", json!({"defaultMode": 0}), json!({"defaultMode": 0})),
        ("/volumes/0/downwardAPI", json!({"items": files}), json!({"items": files_then, "defaultMode": 420})),
        (
            "/volumes/0/projected",
            json!({"sources": [{"serviceAccountToken": {"path": "t"}}, {"downwardAPI": {"items": files}}]}),
            json!({"sources": [{"serviceAccountToken": {"path": "t", "expirationSeconds": 3600}},
                {"downwardAPI": {"items": files_then}}], "defaultMode": 420}),
        ),
        ("/volumes/0/iscsi", json!({}), json!({"iscsiInterface": "default"})),
        (
            "/volumes/0/rbd",
            json!({"user": "u"}),
            json!({"user": "u", "pool": "rbd", "keyring": "/etc/ceph/keyring"}),
        ),
        (
            "/volumes/0/azureDisk",
            json!({}),
            json!({"cachingMode": "ReadWrite", "fsType": "ext4", "readOnly": false, "kind": "Shared"}),
        ),
        ("/volumes/0/scaleIO", json!({}), json!({"storageMode": "ThinProvisioned", "fsType": "xfs"})),
        (
            "/volumes/0/image",
            json!({"reference": "i:1"}),
            json!({"reference": "i:1", "pullPolicy": "IfNotPresent"}),
        ),
        ("/volumes/0/image", json!({"reference": "i"}), json!({"reference": "i", "pullPolicy": "Always"})),
        ("/volumes/0/ephemeral", claim, claim_then),
    ];
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        cases.extend(
            of_containers()
                .into_iter()
                .map(|(at, before, after)| -> Case { (format!("/{list}/0{at}").leak(), before, after) }),
        );
    }
    cases
}

fn of_containers() -> Vec<(&'static str, Value, Value)> {
    let get = json!({"httpGet": {"port": 1}});
    let get_then = json!({"httpGet": {"port": 1, "path": "/", "scheme": "HTTP"}});
    let mut cases = vec![
        ("/terminationMessagePath", json!(""), json!("/dev/termination-log")),
        ("/terminationMessagePolicy", Value::Null, json!("File")),
        ("/resources", Value::Null, json!({})),
        (
            "/ports/0",
            json!({"containerPort": 1, "protocol": ""}),
            json!({"containerPort": 1, "protocol": "TCP"}),
        ),
        (
            "/env/0/valueFrom",
            json!({"fieldRef": {"fieldPath": "a"}}),
            json!({"fieldRef": {"fieldPath": "a", "apiVersion": "v1"}}),
        ),
        (
            "/env/0/valueFrom/resourceFieldRef",
            json!({"resource": "limits.cpu"}),
            json!({"resource": "limits.cpu", "divisor": "0"}),
        ),
        (
            "/env/0/valueFrom/resourceFieldRef",
            json!({"resource": "limits.cpu", "divisor": "1m"}),
            json!({"resource": "limits.cpu", "divisor": "1m"}),
        ),
        ("/lifecycle/postStart", get.clone(), get_then.clone()),
        ("/lifecycle/preStop", get, get_then),
    ];
    for probe in ["/livenessProbe", "/readinessProbe", "/startupProbe"] {
        let with = |own: Value| {
            let mut probe = json!({"timeoutSeconds": 1, "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3});
            for (name, value) in own.as_object().unwrap() {
                probe[name] = value.clone();
            }
            probe
        };
        let tcp = json!({"tcpSocket": {"port": 1}, "periodSeconds": 0, "failureThreshold": 7});
        cases.push((probe, tcp, with(json!({"tcpSocket": {"port": 1}, "failureThreshold": 7}))));
        let get = json!({"httpGet": {"port": 1, "path": "", "scheme": "HTTPS"}});
        cases.push((probe, get, with(json!({"httpGet": {"port": 1, "path": "/", "scheme": "HTTPS"}}))));
        cases.push((probe, json!({"grpc": {"port": 1}}), with(json!({"grpc": {"port": 1, "service": ""}}))));
    }
    let digest = "sha256:0000000000000000000000000000000000000000000000000000000000000000";
    for (image, policy) in [
        ("x".to_owned(), "Always"),
        ("x:latest".to_owned(), "Always"),
        ("reg:5000/x".to_owned(), "Always"),
        ("reg:5000/x:1".to_owned(), "IfNotPresent"),
        (format!("x@{digest}"), "IfNotPresent"),
        (format!("x:latest@{digest}"), "Always"),
        (format!("x:1@{digest}"), "IfNotPresent"),
    ] {
        let before = json!({"image": image});
        let after = json!({"image": image, "imagePullPolicy": policy, "resources": {},
            "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File"});
        cases.push(("", before, after));
    }
    cases
}

/// A Pod, and not a template.
fn of_a_pod_alone() -> Vec<Case> {
    let limits = json!({"limits": {"cpu": "1"}, "requests": {"memory": "1Mi"}});
    let limits_then = json!({"limits": {"cpu": "1"}, "requests": {"memory": "1Mi", "cpu": "1"}});
    let whole = json!({"limits": {"cpu": "2"}});
    vec![
        ("/containers/0/resources", limits.clone(), limits_then.clone()),
        ("/initContainers/0/resources", limits, limits_then),
        ("/resources", whole, json!({"limits": {"cpu": "2"}, "requests": {"cpu": "2"}})),
    ]
}

/// A spec with `value` at `pointer`, and nothing else.
fn at(pointer: &str, value: &Value) -> Value {
    let steps: Vec<&str> = pointer.split('/').skip(1).collect();
    let around = |inner, step: &&str| if *step == "0" { json!([inner]) } else { json!({ *step: inner }) };
    steps.iter().rev().fold(value.clone(), around)
}

#[test]
fn every_default_of_kubernetes_is_filled_in_and_nothing_else() {
    for (pointer, before, after) in of_both() {
        let mut spec = at(pointer, &before);
        pod_spec(&mut spec);
        assert_eq!(spec.pointer(pointer).unwrap_or(&Value::Null), &after, "{pointer}: {before}");
        let once = spec.clone();
        pod_spec(&mut spec);
        assert_eq!(spec, once, "{pointer}: a template that was written back is another");
        let mut of_pod = at(pointer, &before);
        pod(&mut of_pod);
        assert_eq!(of_pod.pointer(pointer).unwrap_or(&Value::Null), &after, "{pointer} of a Pod: {before}");
    }
}

#[test]
fn a_template_does_not_get_what_a_pod_alone_gets() {
    for (pointer, before, after) in of_a_pod_alone() {
        let (mut of_pod, mut of_template) = (at(pointer, &before), at(pointer, &before));
        pod(&mut of_pod);
        pod_spec(&mut of_template);
        assert_eq!(of_pod.pointer(pointer), Some(&after), "{pointer}");
        assert_eq!(of_template.pointer(pointer), Some(&before), "{pointer}");
    }
    let host = json!({"hostNetwork": true, "containers": [{"ports": [{"containerPort": 80}, {"containerPort": 81, "hostPort": 8081}]}],
        "initContainers": [{"ports": [{"containerPort": 82, "hostPort": 0}]}]});
    let ports = |spec: &Value| -> Vec<Value> {
        let lists = ["/containers/0/ports", "/initContainers/0/ports"];
        lists.iter().flat_map(|at| list(spec, at)).map(|port| port["hostPort"].clone()).collect()
    };
    let (mut of_pod, mut of_template) = (host.clone(), host);
    pod(&mut of_pod);
    pod_spec(&mut of_template);
    assert_eq!(ports(&of_pod), [json!(80), json!(8081), json!(82)]);
    assert_eq!(ports(&of_template), [Value::Null, json!(8081), json!(0)]);
}
