//! The real Helm, 3 and 4, beside ours: the same objects, the same refusals.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod cases;
mod helm_program;

use serde_json::{Value, json};

use cases::{CASES, rendered_in};
use helm_program::{Helm, chart};

fn template(
    helm: &mut Helm,
    helm_version: &str,
    (values, version): (&Value, &str),
    namespace: &str,
) -> Result<Vec<Value>, String> {
    let arguments = json!({
        "release_name": "cloudcore", "chart": chart(), "namespace": namespace, "values": values, "kube_version": version,
        "helm_version": helm_version,
    });
    let text = helm.run("helm_template", arguments)?;
    let documents = serde_saphyr::from_multiple::<Value>(&text).unwrap();
    Ok(sorted(documents.into_iter().filter(|document| !document.is_null()).collect()))
}

fn sorted(mut objects: Vec<Value>) -> Vec<Value> {
    objects.sort_by_key(|object| {
        let metadata = &object["metadata"];
        format!("{} {} {}", object["kind"], metadata["namespace"], metadata["name"])
    });
    objects
}

#[test]
fn helm_and_keadm_install_the_same_objects() {
    let mut helm = Helm::start();
    for helm_version in ["v3", "v4"] {
        for (name, given, version) in CASES {
            let values = serde_json::from_str(given).unwrap();
            // In the usual namespace, and beside KubeEdge's CloudCore.
            let namespace =
                if *name == "every right" || *name == "rules and metrics" { "hive" } else { "kubeedge" };
            let theirs = template(&mut helm, helm_version, (&values, version), namespace).unwrap();
            let ours = sorted(rendered_in(name, namespace));
            let names = |objects: &[Value]| -> Vec<String> {
                objects
                    .iter()
                    .map(|object| format!("{} {}", object["kind"], object["metadata"]["name"]))
                    .collect()
            };
            assert_eq!(names(&ours), names(&theirs), "{helm_version} {name}");
            for (ours, theirs) in ours.iter().zip(&theirs) {
                assert_eq!(ours, theirs, "{helm_version} {name}");
            }
        }
    }
}

#[test]
fn helm_and_keadm_refuse_the_same_values() {
    let mut helm = Helm::start();
    let hub = json!({"advertiseAddress": ["192.0.2.10"]});
    let with = |key: &str, value: Value| {
        let mut values = json!({"cloudCore": {"modules": {"cloudHub": hub}}});
        let (section, key) = key.rsplit_once('/').unwrap();
        let mut place = &mut values;
        for part in section.split('/').filter(|part| !part.is_empty()) {
            place = &mut place[part];
        }
        place[key] = value;
        values
    };
    for (values, word) in [
        (with("/cloudCore/modules/cloudHub/advertiseAddress", json!([])), "advertiseAddress"),
        (with("/cloudCore/replicas", json!(2)), "replicas"),
        (with("/cloudCore/modules/dynamicController", json!({"enable": true})), "dynamicController"),
        (with("/cloudCore/replicaCount", json!(-1)), "replicaCount"),
        (with("/cloudCore/service/type", json!("Ingress")), "type"),
        (with("/rbac/secrets", json!("yes")), "secrets"),
        (with("/iptablesManager", json!({})), "iptablesManager"),
    ] {
        let theirs = template(&mut helm, "v4", (&values, "1.36.2"), "kubeedge").unwrap_err();
        let capabilities = helmchart::Capabilities { version: "v1.36.2".to_owned(), kinds: Vec::new() };
        let ours = helmchart::with_defaults(&values)
            .and_then(|values| helmchart::render(&values, &capabilities, "kubeedge"));
        let ours = ours.unwrap_err().to_string();
        assert!(theirs.contains(word) && ours.contains(word), "{theirs}\n{ours}");
    }
    // In their own words where a right would be without its bound, or in a namespace that is for others.
    let mut unbound = with("/policies/enable", json!(false));
    unbound["rbac"]["endpointCheckNodes"] = json!(["edge-1"]);
    let theirs = template(&mut helm, "v4", (&unbound, "1.36.2"), "kubeedge").unwrap_err();
    assert!(theirs.contains("rbac.endpointCheckNodes needs policies.enable"), "{theirs}");
    let elsewhere = json!({"release_name": "cloudcore", "chart": chart(), "namespace": "default", "values": with("/rbac/secrets", json!(true))});
    let theirs = helm.run("helm_template", elsewhere).unwrap_err();
    assert!(theirs.contains("a namespace of its own"), "{theirs}");
}

#[test]
fn helms_lint_finds_nothing() {
    let mut helm = Helm::start();
    for helm_version in ["v3", "v4"] {
        for (name, given, _) in CASES {
            let values: Value = serde_json::from_str(given).unwrap();
            let arguments =
                json!({"paths": [chart()], "values": values, "strict": true, "helm_version": helm_version});
            let said: Value = serde_json::from_str(&helm.run("helm_lint", arguments).unwrap()).unwrap();
            assert_eq!(said["passed"], true, "{helm_version} {name}: {said}");
            let is_grave = |message: &&Value| message["severity"] != "INFO";
            let grave: Vec<&Value> =
                said["messages"].as_array().into_iter().flatten().filter(is_grave).collect();
            assert_eq!(grave, [] as [&Value; 0], "{helm_version} {name}");
        }
    }
}
