//! What each check finds, from what the cluster says.

use k8s_openapi::api::core::v1::{Namespace, Service};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::DynamicObject;
use serde_json::Value;

use super::finding::Finding;
use super::nodes::NO_PODS;

/// Pod Security's levels, the strictest first.
const LEVELS: [&str; 3] = ["restricted", "baseline", "privileged"];
const LEVEL_LABEL: &str = "pod-security.kubernetes.io/enforce";
/// What CloudCore's pods here have and KubeEdge's have not.
const SETTINGS_ANNOTATION: &str = "/spec/template/metadata/annotations/kubehive.io~1settings";
/// Of the oldest Kubernetes that the chart is for; Chart.yaml says the same.
const OLDEST: [u64; 2] = [1, 30];

/// Whether the version is one that the chart is for; `has_policies`: whether anything bounds CloudCore's account there.
pub(crate) fn api_server_version(version: &str, is_stand_alone: bool, has_policies: bool) -> Finding {
    const CHECK: &str = "ApiServerVersion";
    let digits = version.trim_start_matches('v');
    let mut parts = digits.split(['.', '-', '+']).map(str::parse::<u64>);
    let (Some(Ok(major)), Some(Ok(minor))) = (parts.next(), parts.next()) else {
        return Finding::failed(CHECK, format!("`{}` is no version of Kubernetes", version.escape_debug()));
    };
    if is_stand_alone {
        return Finding::failed(
            CHECK,
            "this is `cloudcore --standalone`, which has CloudCore within: nothing is to be installed, go on with `keadm gettoken`",
        );
    }
    if [major, minor] < OLDEST {
        return Finding::failed(
            CHECK,
            format!("{version} is older than v{}.{}: upgrade the cluster first", OLDEST[0], OLDEST[1]),
        );
    }
    if !has_policies {
        return Finding::warned(
            CHECK,
            format!(
                "{version} without the admission policies: whoever has CloudCore's token may do all that its ClusterRoles say"
            ),
        );
    }
    Finding::passed(CHECK, version)
}

/// What the user lacks.
pub(crate) fn rights(denied: &[String]) -> Finding {
    const CHECK: &str = "Rights";
    if denied.is_empty() {
        return Finding::passed(CHECK, "this user may install");
    }
    Finding::failed(
        CHECK,
        format!(
            "this user may not {}: use the kubeconfig of an administrator of the cluster",
            denied.join(", ")
        ),
    )
}

/// Definitions of KubeEdge's that hold objects in a version which is not read any more.
pub(crate) fn definitions(found: &[CustomResourceDefinition]) -> Finding {
    const CHECK: &str = "Definitions";
    let is_old = |definition: &&CustomResourceDefinition| {
        let stored = definition.status.as_ref().and_then(|status| status.stored_versions.as_ref());
        let wanted = crd::manifests().into_iter().find(|ours| ours.metadata.name == definition.metadata.name);
        let Some(wanted) = wanted else { return false };
        let ours: Vec<&str> =
            wanted.spec.versions.iter().filter(|one| one.storage).map(|one| &*one.name).collect();
        stored.is_some_and(|stored| stored.iter().any(|version| !ours.contains(&version.as_str())))
    };
    let old: Vec<&str> = found.iter().filter(is_old).filter_map(|one| one.metadata.name.as_deref()).collect();
    if old.is_empty() {
        return Finding::passed(CHECK, format!("{} of ours are there", found.len()));
    }
    Finding::failed(
        CHECK,
        format!(
            "{} {} objects of an older version (status.storedVersions): save them (`kubectl get {} -A -o yaml`), write them as v1beta1, `kubectl delete crd {}`, then init and apply them",
            old.join(", "),
            if old.len() == 1 { "holds" } else { "hold" },
            old.join(","),
            old.join(" ")
        ),
    )
}

/// Whether there is a CloudCore already. `is_forced`: this one is to take its place.
pub(crate) fn installed(deployment: Option<&DynamicObject>, is_forced: bool) -> Finding {
    const CHECK: &str = "Installed";
    let Some(deployment) = deployment else { return Finding::passed(CHECK, "no CloudCore is there") };
    let image = deployment.data.pointer("/spec/template/spec/containers/0/image").and_then(Value::as_str);
    let image = image.unwrap_or("no image").escape_debug();
    if deployment.data.pointer(SETTINGS_ANNOTATION).is_none() {
        return Finding::failed(
            CHECK,
            format!(
                "the Deployment kubeedge/cloudcore ({image}) is not of this chart: remove it first, with what installed it (`helm -n kubeedge uninstall cloudcore`; its Secrets and Devices stay)"
            ),
        );
    }
    if is_forced {
        Finding::passed(CHECK, format!("{image} is replaced"))
    } else {
        Finding::failed(
            CHECK,
            format!(
                "CloudCore is there ({image}): --force installs over it, with the values that are given now and no others"
            ),
        )
    }
}

/// Ports of the Service that another Service has.
pub(crate) fn node_ports(objects: &[Value], services: &[Service]) -> Finding {
    const CHECK: &str = "NodePorts";
    let ours = objects.iter().filter(|object| object["kind"] == "Service");
    let wanted: Vec<i64> = ours
        .flat_map(|service| service["spec"]["ports"].as_array().into_iter().flatten())
        .filter_map(|port| port["nodePort"].as_i64())
        .collect();
    let mut taken = Vec::new();
    for service in services {
        let (namespace, name) = (&service.metadata.namespace, &service.metadata.name);
        let is_ours = |object: &Value| {
            object["kind"] == "Service"
                && object["metadata"]["name"].as_str() == name.as_deref()
                && object["metadata"]["namespace"].as_str() == namespace.as_deref()
        };
        if objects.iter().any(is_ours) {
            continue;
        }
        let ports = service.spec.iter().flat_map(|spec| spec.ports.iter().flatten());
        let theirs =
            ports.filter_map(|port| port.node_port).filter(|port| wanted.contains(&i64::from(*port)));
        let (namespace, name) =
            (namespace.as_deref().unwrap_or_default(), name.as_deref().unwrap_or_default());
        taken.extend(theirs.map(|port| format!("{port} (Service {namespace}/{name})")));
    }
    if taken.is_empty() {
        return Finding::passed(CHECK, if wanted.is_empty() { "none is asked for" } else { "free" });
    }
    Finding::failed(
        CHECK,
        format!(
            "taken: {}: choose others with --set cloudCore.service.cloudhubNodePort=PORT, cloudhubQuicNodePort and cloudhubHttpsNodePort",
            taken.join(", ")
        ),
    )
}

/// Whether the namespace lets the pods in, if it is there and says a level.
pub(crate) fn pod_security(found: Option<&Namespace>, wanted: &Value, replicas: u64) -> Finding {
    const CHECK: &str = "PodSecurity";
    if replicas == 0 {
        return Finding::passed(CHECK, NO_PODS);
    }
    let needed =
        wanted.pointer("/metadata/labels/pod-security.kubernetes.io~1enforce").and_then(Value::as_str);
    let needed = needed.unwrap_or("privileged");
    let level = found.and_then(|found| found.metadata.labels.as_ref()?.get(LEVEL_LABEL));
    let rank = |level: &str| LEVELS.iter().position(|one| *one == level);
    match level {
        Some(level) if rank(level) < rank(needed) => Finding::failed(
            CHECK,
            format!(
                "the namespace kubeedge allows {} pods, and these are {needed}: `kubectl label namespace kubeedge {LEVEL_LABEL}={needed} --overwrite`, or without cloudCore.hostNetWork, hostPorts and hostPath volumes",
                level.escape_debug()
            ),
        ),
        Some(level) => Finding::passed(CHECK, format!("the namespace allows {}", level.escape_debug())),
        None => Finding::passed(CHECK, format!("the namespace will allow {needed}")),
    }
}

/// Addresses by which no other machine reaches this one.
pub(crate) fn advertised(values: &Value) -> Finding {
    const CHECK: &str = "AdvertiseAddress";
    let addresses = values.pointer("/cloudCore/modules/cloudHub/advertiseAddress").and_then(Value::as_array);
    let addresses: Vec<&str> = addresses.into_iter().flatten().filter_map(Value::as_str).collect();
    let is_own = |address: &&&str| {
        address
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback() || address.is_unspecified())
    };
    if addresses.is_empty() {
        return Finding::failed(
            CHECK,
            "--advertise-address is missing: name the addresses at which nodes reach CloudCore, of the load balancer or of the machines with its NodePorts",
        );
    }
    match addresses.iter().find(is_own) {
        Some(address) => Finding::warned(
            CHECK,
            format!("{address} leads each machine to itself: nodes elsewhere do not get here by it"),
        ),
        None => Finding::passed(CHECK, addresses.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cloud::preflight::finding::Grade;
    use crate::cloud::preflight::finding::tests::grade;
    use serde_json::json;

    #[test]
    fn old_servers_and_the_stand_alone_are_no_place_for_the_chart() {
        use Grade::{Failed, Passed, Warned};
        for (version, stand_alone, policies, wanted, word) in [
            ("v1.36.2", false, true, Passed, "v1.36.2"),
            ("v1.30.0-gke.1", false, true, Passed, "gke"),
            ("1.31+", false, false, Warned, "token"),
            ("v1.29.9", false, true, Failed, "older"),
            ("v1.36.0+kubehive.0.1.0", true, false, Failed, "gettoken"),
            ("latest", false, true, Failed, "no version"),
        ] {
            grade(&api_server_version(version, stand_alone, policies), wanted, word);
        }
    }

    #[test]
    fn objects_of_an_older_version_stop_it() {
        let definition = |name: &str, stored: Value| {
            let mut ours =
                crd::manifests().into_iter().find(|one| one.metadata.name.as_deref() == Some(name)).unwrap();
            ours.status = Some(serde_json::from_value(json!({ "storedVersions": stored })).unwrap());
            ours
        };
        let device = "devices.devices.kubeedge.io";
        grade(&definitions(&[]), Grade::Passed, "0");
        grade(&definitions(&[definition(device, json!(["v1beta1"]))]), Grade::Passed, "1");
        for stored in [json!(["v1alpha2"]), json!(["v1alpha2", "v1beta1"])] {
            grade(
                &definitions(&[definition(device, stored)]),
                Grade::Failed,
                &format!("kubectl delete crd {device}"),
            );
        }
    }

    #[test]
    fn a_cloudcore_that_is_there_is_replaced_only_on_purpose_and_kubeedges_never() {
        let deployment = |annotations: Value| -> DynamicObject {
            let template = json!({ "metadata": { "annotations": annotations }, "spec": { "containers": [{ "image": "x:1" }] } });
            serde_json::from_value(json!({ "metadata": {}, "spec": { "template": template } })).unwrap()
        };
        grade(&installed(None, false), Grade::Passed, "no CloudCore");
        let ours = deployment(json!({ "kubehive.io/settings": "abc" }));
        grade(&installed(Some(&ours), false), Grade::Failed, "--force");
        grade(&installed(Some(&ours), true), Grade::Passed, "x:1");
        for forced in [false, true] {
            grade(
                &installed(Some(&deployment(json!({}))), forced),
                Grade::Failed,
                "helm -n kubeedge uninstall",
            );
        }
    }

    #[test]
    fn a_port_that_another_service_has_is_named_with_it() {
        let service = |namespace: &str, name: &str, port: i64| {
            json!({
                "kind": "Service", "metadata": { "namespace": namespace, "name": name },
                "spec": { "ports": [{ "port": 1, "nodePort": port }] },
            })
        };
        let typed = |of: Value| -> Service { serde_json::from_value(of).unwrap() };
        let ours = [service("kubeedge", "cloudcore", 30000)];
        grade(&node_ports(&ours, &[typed(service("kubeedge", "cloudcore", 30000))]), Grade::Passed, "free");
        grade(&node_ports(&ours, &[typed(service("web", "shop", 30001))]), Grade::Passed, "free");
        grade(
            &node_ports(&ours, &[typed(service("web", "shop", 30000))]),
            Grade::Failed,
            "30000 (Service web/shop)",
        );
    }

    #[test]
    fn a_namespace_that_is_stricter_than_the_pods_is_named() {
        let found = |level: &str| -> Namespace {
            serde_json::from_value(json!({ "metadata": { "labels": { LEVEL_LABEL: level } } })).unwrap()
        };
        let (plain, host) = (
            helmchart::namespace(&json!({})),
            helmchart::namespace(&json!({"cloudCore": {"hostPorts": true}})),
        );
        grade(&pod_security(None, &host, 2), Grade::Passed, "privileged");
        grade(&pod_security(Some(&found("restricted")), &plain, 2), Grade::Passed, "restricted");
        grade(&pod_security(Some(&found("privileged")), &plain, 2), Grade::Passed, "privileged");
        grade(&pod_security(Some(&found("restricted")), &host, 0), Grade::Passed, "no pod is asked for");
        for level in ["restricted", "baseline"] {
            grade(
                &pod_security(Some(&found(level)), &host, 2),
                Grade::Failed,
                "enforce=privileged --overwrite",
            );
        }
    }

    #[test]
    fn an_address_leads_other_machines_here() {
        let of = |addresses: Value| {
            advertised(&json!({"cloudCore": {"modules": {"cloudHub": {"advertiseAddress": addresses}}}}))
        };
        grade(&of(json!([])), Grade::Failed, "--advertise-address is missing");
        grade(&of(json!(["192.0.2.1", "::1"])), Grade::Warned, "::1");
        grade(&of(json!(["192.0.2.1"])), Grade::Passed, "192.0.2.1");
    }
}
