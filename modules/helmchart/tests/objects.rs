//! What the chart renders to: every object is one that Kubernetes takes, CloudCore takes its settings, and its pods need no rights.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod cases;

use std::collections::BTreeSet;

use k8s_openapi::api;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use cases::{CASES, rendered, rendered_in};

/// A field that the type does not know, or that is of another kind, is not there any more when the object comes back.
fn is_one<K: Serialize + DeserializeOwned>(object: &Value) {
    let typed: K = serde_json::from_value(object.clone()).unwrap_or_else(|error| panic!("{error}: {object}"));
    let mut back = serde_json::to_value(typed).unwrap();
    let mut wanted = object.clone();
    without_empty(&mut back);
    without_empty(&mut wanted);
    assert_eq!(back, wanted);
}

/// An empty list or mapping is one that is not there.
fn without_empty(value: &mut Value) {
    let is_empty = |value: &Value| match value {
        Value::Object(fields) => fields.is_empty(),
        Value::Array(items) => items.is_empty(),
        other => other.is_null(),
    };
    match value {
        Value::Object(fields) => {
            fields.values_mut().for_each(without_empty);
            fields.retain(|_, field| !is_empty(field));
        }
        Value::Array(items) => items.iter_mut().for_each(without_empty),
        _ => {}
    }
}

#[test]
fn every_object_is_one_that_kubernetes_knows_and_is_there_once() {
    for (name, ..) in CASES {
        let mut seen = BTreeSet::new();
        for object in rendered(name) {
            let metadata = &object["metadata"];
            let key = format!("{} {} {}", object["kind"], metadata["namespace"], metadata["name"]);
            assert!(seen.insert(key.clone()), "{name}: {key} is there twice");
            match object["kind"].as_str().unwrap() {
                "Namespace" => is_one::<api::core::v1::Namespace>(&object),
                "ServiceAccount" => is_one::<api::core::v1::ServiceAccount>(&object),
                "ConfigMap" => is_one::<api::core::v1::ConfigMap>(&object),
                "Service" => is_one::<api::core::v1::Service>(&object),
                "Deployment" => is_one::<api::apps::v1::Deployment>(&object),
                "PodDisruptionBudget" => is_one::<api::policy::v1::PodDisruptionBudget>(&object),
                "NetworkPolicy" => is_one::<api::networking::v1::NetworkPolicy>(&object),
                "ClusterRole" => is_one::<api::rbac::v1::ClusterRole>(&object),
                "ClusterRoleBinding" => is_one::<api::rbac::v1::ClusterRoleBinding>(&object),
                "Role" => is_one::<api::rbac::v1::Role>(&object),
                "RoleBinding" => is_one::<api::rbac::v1::RoleBinding>(&object),
                "ValidatingAdmissionPolicy" => {
                    is_one::<api::admissionregistration::v1::ValidatingAdmissionPolicy>(&object);
                }
                "ValidatingAdmissionPolicyBinding" => {
                    is_one::<api::admissionregistration::v1::ValidatingAdmissionPolicyBinding>(&object);
                }
                // Of a newer Kubernetes than the types here, and of the Prometheus operator.
                "MutatingAdmissionPolicy" | "MutatingAdmissionPolicyBinding" | "ServiceMonitor" => {}
                other => panic!("{name}: nobody has looked at a {other}"),
            }
        }
    }
}

#[test]
fn cloudcore_takes_the_settings_that_are_rendered() {
    for (name, given, _) in CASES {
        let given: Value = serde_json::from_str(given).unwrap();
        let objects = rendered(name);
        let map = objects.iter().find(|object| object["kind"] == "ConfigMap").unwrap();
        let text = map["data"]["cloudcore.yaml"].as_str().unwrap();
        let settings =
            config::cloud::CloudCore::parse(text).unwrap_or_else(|error| panic!("{name}: {error}"));
        let hub = given.pointer("/cloudCore/modules/cloudHub").cloned().unwrap_or_default();
        let limit = hub["nodeLimit"].as_u64().unwrap_or(1000);
        assert_eq!(settings.modules.cloud_hub.node_limit as u64, limit, "{name}");
        assert_eq!(json!(settings.modules.cloud_hub.advertise_address), hub["advertiseAddress"], "{name}");
    }
}

/// The fields that the level `restricted` of the Pod Security Standards asks for.
#[test]
fn the_pods_need_no_rights_unless_they_are_of_the_host() {
    for (name, given, _) in CASES {
        let given: Value = serde_json::from_str(given).unwrap();
        let objects = rendered(name);
        let deployment = objects.iter().find(|object| object["kind"] == "Deployment").unwrap();
        let pod = &deployment["spec"]["template"]["spec"];
        let is_set = |key: &str| given["cloudCore"][key] == json!(true);
        assert_eq!(pod["hostNetwork"] == json!(true), is_set("hostNetWork"), "{name}");
        assert_eq!(pod["securityContext"]["runAsNonRoot"], true, "{name}");
        assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault", "{name}");
        for container in pod["containers"].as_array().unwrap() {
            let context = &container["securityContext"];
            assert_eq!(context["allowPrivilegeEscalation"], false, "{name}");
            assert_eq!(context["capabilities"], json!({"drop": ["ALL"]}), "{name}");
            let ports = container["ports"].as_array().unwrap();
            assert_eq!(ports.iter().any(|port| port["hostPort"].is_u64()), is_set("hostPorts"), "{name}");
        }
        let level =
            helmchart::namespace(&given, "hive")["metadata"]["labels"]["pod-security.kubernetes.io/enforce"]
                .clone();
        let wanted = if is_set("hostNetWork") || is_set("hostPorts") { "privileged" } else { "restricted" };
        assert_eq!(level, wanted, "{name}");
    }
}

#[test]
fn new_settings_and_nothing_else_start_the_pods_anew() {
    let annotation = |values: Value| {
        let objects = cases::render(&values, "1.36.0");
        let deployment = objects.into_iter().find(|object| object["kind"] == "Deployment").unwrap();
        deployment["spec"]["template"].clone()
    };
    let hub = |limit: u64| json!({"cloudCore": {"modules": {"cloudHub": {"advertiseAddress": ["192.0.2.1"], "nodeLimit": limit}}}});
    assert_ne!(annotation(hub(1000)), annotation(hub(900)));
    let mut others = hub(1000);
    others["cloudCore"]["service"] = json!({"type": "LoadBalancer"});
    others["rbac"] = json!({"secrets": true});
    assert_eq!(annotation(hub(1000)), annotation(others));
}

/// What the policies bound, the rest follows.
#[test]
fn what_a_server_has_decides_what_is_installed() {
    let has = |values: Value, version: &str, name: &str| {
        cases::render(&values, version).iter().any(|object| object["metadata"]["name"] == name)
    };
    let with = |mut values: Value| {
        values["cloudCore"]["modules"]["cloudHub"]["advertiseAddress"] = json!(["192.0.2.1"]);
        values
    };
    for (version, policies, keep, secrets) in
        [("v1.36.2", true, true, false), ("v1.30.1", true, false, true), ("v1.29.0", false, false, true)]
    {
        let values = with(json!({}));
        assert_eq!(has(values.clone(), version, "kubehive-cloudcore-pods"), policies, "{version}");
        assert_eq!(
            has(values.clone(), version, "cloudcore-mirrors"),
            policies,
            "never without what bounds it"
        );
        assert_eq!(has(values.clone(), version, "kubehive-edge-nodes-keep-pods"), keep, "{version}");
        assert_eq!(has(values, version, "cloudcore-secrets"), secrets, "{version}");
    }
    let off = with(json!({"policies": {"enable": false}}));
    for name in ["kubehive-cloudcore-pods", "kubehive-edge-nodes-keep-pods", "cloudcore-mirrors"] {
        assert!(!has(off.clone(), "v1.36.0", name), "{name}");
    }
    // A server that was asked, and has no such kind, whatever its version is.
    let capabilities =
        helmchart::Capabilities { version: "v1.36.0".to_owned(), kinds: vec!["v1/Pod".to_owned()] };
    let values = helmchart::with_defaults(&with(json!({}))).unwrap();
    let objects = helmchart::render(&values, &capabilities, helmchart::NAMESPACE).unwrap();
    assert!(!objects.iter().any(|object| object["kind"] == "ValidatingAdmissionPolicy"));
}

#[test]
fn the_ports_of_the_kubelet_endpoints_are_the_same_everywhere() {
    let objects = rendered("ports");
    let text = serde_json::to_string(&objects).unwrap();
    assert!(text.contains("port >= 20000 && port <= 20499"), "the policy");
    assert!(text.contains(r#""endPort":20499"#), "the NetworkPolicy");
    assert!(!text.contains("12000"));
}

#[test]
fn no_node_port_is_taken_that_would_lead_to_no_pod() {
    let services = |name: &str| rendered(name).iter().filter(|object| object["kind"] == "Service").count();
    assert_eq!((services("plain"), services("outside")), (1, 0));
    let deployment = rendered("outside").into_iter().find(|object| object["kind"] == "Deployment").unwrap();
    assert_eq!(deployment["spec"]["replicas"], 0);
}

#[test]
fn cloudcores_reach_each_other_for_rules_and_nobody_else_reaches_that_port() {
    let spec = |name| {
        let policy = rendered(name).into_iter().find(|object| object["kind"] == "NetworkPolicy");
        policy.unwrap()["spec"].clone()
    };
    let (own, ports) = (
        json!([{"podSelector": {"matchLabels": {"k8s-app": "kubeedge", "kubeedge": "cloudcore"}}}]),
        json!([{"port": 9444, "protocol": "TCP"}]),
    );
    let with_rules = spec("rules and metrics");
    for (way, peers) in
        [("ingress", json!({"from": own, "ports": ports})), ("egress", json!({"to": own, "ports": ports}))]
    {
        let there: Vec<&Value> = with_rules[way].as_array().unwrap().iter().collect();
        let with_port = there.iter().filter(|rule| rule.to_string().contains("9444"));
        assert_eq!(with_port.copied().collect::<Vec<_>>(), [&peers], "{way}");
    }
    assert!(!spec("ports").to_string().contains("9444"), "without rules nobody listens there");
}

/// What KubeEdge's chart (1.22 and 1.23) installs in its namespace `kubeedge`, beside what has other names anyway.
const KUBEEDGES: [(&str, Option<&str>, &str); 12] = [
    ("Deployment", Some("kubeedge"), "cloudcore"),
    ("Service", Some("kubeedge"), "cloudcore"),
    ("ConfigMap", Some("kubeedge"), "cloudcore"),
    ("ConfigMap", Some("kubeedge"), "tunnelport"),
    ("Secret", Some("kubeedge"), "cloudcore"),
    ("Secret", Some("kubeedge"), "casecret"),
    ("Secret", Some("kubeedge"), "tokensecret"),
    ("ServiceAccount", Some("kubeedge"), "cloudcore"),
    ("ClusterRole", None, "cloudcore"),
    ("ClusterRole", None, "cloudcore-common"),
    ("ClusterRole", None, "cloudcore-feature"),
    ("ClusterRoleBinding", None, "cloudcore"),
];

#[test]
fn in_another_namespace_no_object_is_one_of_kubeedges_and_nothing_speaks_of_that_namespace() {
    for (name, ..) in CASES {
        for object in rendered_in(name, "hive") {
            let metadata = &object["metadata"];
            let (kind, of) = (object["kind"].as_str().unwrap(), metadata["namespace"].as_str());
            let called = metadata["name"].as_str().unwrap();
            assert!(!KUBEEDGES.contains(&(kind, of, called)), "{name}: {kind} {called}");
            let is_shared = !matches!(of, Some("hive" | "kubehive-nodes"));
            let is_own_name = called.starts_with("hive-") || called.starts_with("kubehive-");
            assert!(!is_shared || is_own_name, "{name}: {kind} {called} may be another's");
            // Names of policies say what they are about, and `k8s-app` and `kubeedge` are labels.
            let mut told = object.to_string().replace("powerful-kubeedge-", "");
            for label in [
                r#""k8s-app":"kubeedge""#,
                r#""kubeedge":"cloudcore""#,
                "/etc/kubeedge/",
                ".kubeedge.io",
                "kubeedge/cloudcore:",
            ] {
                told = told.replace(label, "");
            }
            assert!(!told.contains("kubeedge"), "{name}: {told}");
        }
    }
}

#[test]
fn cloudcore_knows_by_its_settings_in_which_namespace_it_is() {
    let settings = |namespace| {
        let map =
            rendered_in("placed by hand", namespace).into_iter().find(|object| object["kind"] == "ConfigMap");
        config::cloud::CloudCore::parse(map.unwrap()["data"]["cloudcore.yaml"].as_str().unwrap()).unwrap()
    };
    assert_eq!(settings("hive").common_config.namespace, "hive");
    assert_eq!(settings("hive").common_config.monitor_server.bind_address, "127.0.0.1:9090");
    assert_eq!(settings("kubeedge").common_config.namespace, "kubeedge");
}

#[test]
fn a_namespace_that_is_for_others_is_none_for_cloudcore() {
    let values = json!({"cloudCore": {"modules": {"cloudHub": {"advertiseAddress": ["192.0.2.1"]}}}});
    let values = helmchart::with_defaults(&values).unwrap();
    let capabilities = helmchart::Capabilities { version: "v1.36.0".to_owned(), kinds: Vec::new() };
    for namespace in ["default", "kube-system", "kubehive-nodes"] {
        let refused = helmchart::render(&values, &capabilities, namespace).unwrap_err().to_string();
        assert!(refused.contains("a namespace of its own"), "{refused}");
    }
}

/// The rules that bound CloudCore's account are about that account, and about the namespace that it is in.
#[test]
fn the_policies_bound_the_account_of_the_namespace() {
    let of = |namespace: &str| {
        let objects = rendered_in("plain", namespace);
        let policies = objects.iter().filter(|object| object["kind"] == "ValidatingAdmissionPolicy");
        serde_json::to_string(&policies.collect::<Vec<_>>()).unwrap()
    };
    let (own, other) = (of("kubeedge"), of("hive"));
    assert!(own.contains("system:serviceaccount:kubeedge:cloudcore"));
    assert_eq!(
        own.replace("system:serviceaccount:kubeedge:", "system:serviceaccount:hive:")
            .replace("namespace('kubeedge')", "namespace('hive')")
            .replace("namespace == 'kubeedge'", "namespace == 'hive'")
            .replace("in kubeedge", "in hive")
            .replace("of kubeedge", "of hive"),
        other
    );
}
