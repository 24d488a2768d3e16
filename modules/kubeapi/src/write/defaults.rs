//! What a Kubernetes API server fills in when a client leaves it out.

use apimachinery::{Quantity, resource};
use serde_json::{Value, json};

use super::pod_defaults::{self, pod_spec, unset_text};
use crate::unstructured::{as_fields, default, entry, items, list, remove, text};

/// Fills in the defaults of a built-in kind.
pub(super) fn fill(group_resource: &str, object: &mut Value) {
    match group_resource {
        resource::PODS => {
            pod_defaults::pod(entry(object, "spec"));
            let qos = qos_class(object);
            let status = entry(object, "status");
            default(status, "phase", json!("Pending"));
            default(status, "qosClass", json!(qos));
        }
        resource::DEPLOYMENTS => deployment(object),
        resource::REPLICA_SETS => replica_set(object),
        resource::SERVICES => service(object),
        resource::NAMESPACES => {
            default(entry(object, "spec"), "finalizers", json!(["kubernetes"]));
            default(entry(object, "status"), "phase", json!("Active"));
            let name = text(object, "/metadata/name").to_owned();
            let labels = entry(entry(object, "metadata"), "labels");
            as_fields(labels).insert("kubernetes.io/metadata.name".to_owned(), json!(name));
        }
        resource::SECRETS => {
            default(object, "type", json!("Opaque"));
            string_data(object);
        }
        resource::PERSISTENT_VOLUMES => persistent_volume(object),
        resource::PERSISTENT_VOLUME_CLAIMS => {
            pod_defaults::claim_spec(entry(object, "spec"));
            default(entry(object, "status"), "phase", json!("Pending"));
        }
        resource::CSI_DRIVERS => csi_driver(entry(object, "spec")),
        resource::CUSTOM_RESOURCE_DEFINITIONS => definition(object),
        resource::EVENTS => {
            default(object, "reportingComponent", json!(""));
            default(object, "reportingInstance", json!(""));
        }
        resource::ENDPOINTS => {
            let ports = items(object, "subsets").iter_mut().flat_map(|subset| items(subset, "ports"));
            ports.for_each(|port| unset_text(port, "protocol", "TCP"));
        }
        resource::ENDPOINT_SLICES => {
            for port in items(object, "ports") {
                default(port, "name", json!(""));
                unset_text(port, "protocol", "TCP");
            }
        }
        resource::ROLE_BINDINGS | resource::CLUSTER_ROLE_BINDINGS => {
            // Go tells what is not there from what is empty as little here as elsewhere.
            for subject in items(object, "subjects") {
                if matches!(text(subject, "/kind"), "User" | "Group") {
                    unset_text(subject, "apiGroup", "rbac.authorization.k8s.io");
                }
            }
            unset_text(entry(object, "roleRef"), "apiGroup", "rbac.authorization.k8s.io");
        }
        _ => {}
    }
}

/// `stringData` is write-only: it goes into `data`, in base64.
fn string_data(object: &mut Value) {
    use base64::Engine as _;
    let Some(Value::Object(plain)) = remove(object, "stringData") else { return };
    let data = as_fields(entry(object, "data"));
    for (key, value) in plain {
        let encoded = base64::engine::general_purpose::STANDARD.encode(value.as_str().unwrap_or_default());
        data.insert(key, json!(encoded));
    }
}

/// Guaranteed, Burstable or BestEffort, as Kubernetes sorts pods: an amount of nothing is none. What is said for the pod as a whole
/// decides alone.
pub(super) fn qos_class(pod: &Value) -> &'static str {
    let containers: Vec<&Value> = match pod.get("spec").filter(|spec| spec["resources"].is_object()) {
        Some(whole) => vec![whole],
        None => list(pod, "/spec/initContainers").iter().chain(list(pod, "/spec/containers")).collect(),
    };
    let amount = |container: &Value, which: &str, name: &str| {
        let amount = container.pointer(&format!("/resources/{which}/{name}")).and_then(Quantity::from_json);
        amount.filter(|amount| *amount > Quantity::ZERO)
    };
    let asks = |container: &&Value, name: &&str| {
        amount(container, "limits", name).or(amount(container, "requests", name)).is_some()
    };
    let is_fixed = |container: &&Value, name: &&str| {
        let limit = amount(container, "limits", name);
        limit.is_some() && limit == amount(container, "requests", name)
    };
    if !containers.iter().any(|container| ["cpu", "memory"].iter().any(|name| asks(container, name))) {
        "BestEffort"
    } else if containers
        .iter()
        .all(|container| ["cpu", "memory"].iter().all(|name| is_fixed(container, name)))
    {
        "Guaranteed"
    } else {
        "Burstable"
    }
}

fn deployment(object: &mut Value) {
    let spec = entry(object, "spec");
    default(spec, "replicas", json!(1));
    default(spec, "revisionHistoryLimit", json!(10));
    default(spec, "progressDeadlineSeconds", json!(600));
    let strategy = entry(spec, "strategy");
    default(strategy, "type", json!("RollingUpdate"));
    if text(strategy, "/type") == "RollingUpdate" {
        let rolling = entry(strategy, "rollingUpdate");
        default(rolling, "maxUnavailable", json!("25%"));
        default(rolling, "maxSurge", json!("25%"));
    }
    pod_spec(entry(entry(spec, "template"), "spec"));
}

fn replica_set(object: &mut Value) {
    let spec = entry(object, "spec");
    default(spec, "replicas", json!(1));
    pod_spec(entry(entry(spec, "template"), "spec"));
    let labels = object.pointer("/spec/template/metadata/labels").cloned();
    if object.pointer("/metadata/labels").is_none()
        && let Some(labels) = labels
    {
        default(entry(object, "metadata"), "labels", labels);
    }
    let replicas = object.pointer("/status/replicas").cloned().unwrap_or(json!(0));
    default(entry(object, "status"), "replicas", replicas);
}

fn service(object: &mut Value) {
    let spec = entry(object, "spec");
    default(spec, "type", json!("ClusterIP"));
    default(spec, "sessionAffinity", json!("None"));
    if text(spec, "/type") != "ExternalName" {
        default(spec, "internalTrafficPolicy", json!("Cluster"));
        default(spec, "ipFamilyPolicy", json!("SingleStack"));
        default(spec, "ipFamilies", json!(["IPv4"]));
    }
    for port in items(spec, "ports") {
        default(port, "protocol", json!("TCP"));
        // What a client in Go sends for one that it leaves open (Kubernetes: SetDefaults_Service).
        if matches!(&port["targetPort"], Value::Null) || port["targetPort"] == 0 || port["targetPort"] == "" {
            port["targetPort"] = port["port"].clone();
        }
    }
    default(entry(object, "status"), "loadBalancer", json!({}));
}

fn persistent_volume(object: &mut Value) {
    let spec = entry(object, "spec");
    pod_defaults::volume_source(spec);
    default(spec, "persistentVolumeReclaimPolicy", json!("Retain"));
    default(spec, "volumeMode", json!("Filesystem"));
    default(entry(object, "status"), "phase", json!("Pending"));
}

fn csi_driver(spec: &mut Value) {
    default(spec, "attachRequired", json!(true));
    for switch in ["podInfoOnMount", "storageCapacity", "requiresRepublish", "seLinuxMount"] {
        default(spec, switch, json!(false));
    }
    default(spec, "fsGroupPolicy", json!("ReadWriteOnceWithFSType"));
    default(spec, "volumeLifecycleModes", json!(["Persistent"]));
}

fn definition(object: &mut Value) {
    let spec = entry(object, "spec");
    let names = entry(spec, "names");
    let kind = text(names, "/kind").to_owned();
    default(names, "singular", json!(kind.to_ascii_lowercase()));
    default(names, "listKind", json!(format!("{kind}List")));
    default(spec, "conversion", json!({"strategy": "None"}));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_services_open_target_is_its_port() {
        for open in [json!(null), json!(0), json!("")] {
            let mut object = json!({"spec": {"ports": [{"port": 80, "targetPort": open}, {"port": 81, "targetPort": "web"}]}});
            service(&mut object);
            let ports = &object["spec"]["ports"];
            assert_eq!((&ports[0]["targetPort"], &ports[1]["targetPort"]), (&json!(80), &json!("web")));
        }
    }

    #[test]
    fn volumes_and_claims_are_pending_until_somebody_binds_them() {
        let mut claim = json!({"spec": {"accessModes": ["ReadWriteOnce"]}});
        fill("persistentvolumeclaims", &mut claim);
        assert_eq!(
            claim,
            json!({"spec": {"accessModes": ["ReadWriteOnce"], "volumeMode": "Filesystem", "resources": {}},
                "status": {"phase": "Pending"}})
        );
        claim["status"]["phase"] = json!("Bound");
        fill("persistentvolumeclaims", &mut claim);
        assert_eq!(claim["status"]["phase"], "Bound");
        let mut volume =
            json!({"spec": {"hostPath": {"path": "/x"}, "persistentVolumeReclaimPolicy": "Delete"}});
        fill("persistentvolumes", &mut volume);
        assert_eq!(
            volume,
            json!({"spec": {"hostPath": {"path": "/x", "type": ""}, "persistentVolumeReclaimPolicy": "Delete",
                "volumeMode": "Filesystem"}, "status": {"phase": "Pending"}})
        );
        let mut driver = json!({"spec": {"attachRequired": false}});
        fill("csidrivers.storage.k8s.io", &mut driver);
        assert_eq!(
            driver["spec"],
            json!({"attachRequired": false, "podInfoOnMount": false, "storageCapacity": false,
                "requiresRepublish": false, "seLinuxMount": false, "fsGroupPolicy": "ReadWriteOnceWithFSType",
                "volumeLifecycleModes": ["Persistent"]})
        );
    }

    #[test]
    fn a_pod_gets_what_users_see_in_a_cluster() {
        let mut pod = json!({"spec": {"containers": [
            {"name": "a", "image": "reg:5000/x", "resources": {"limits": {"cpu": "1", "memory": "1Gi"}}, "ports": [{"containerPort": 1}]},
            {"name": "b", "image": "x:1", "resources": {"limits": {"cpu": "1", "memory": "1Gi"}}}],
            "volumes": [{"name": "v"}, {"name": "s", "secret": {"secretName": "s"}}]}});
        fill("pods", &mut pod);
        assert_eq!(pod["spec"]["containers"][0]["imagePullPolicy"], "Always");
        assert_eq!(pod["spec"]["containers"][1]["imagePullPolicy"], "IfNotPresent");
        assert_eq!(pod["spec"]["containers"][0]["ports"][0]["protocol"], "TCP");
        assert_eq!(pod["spec"]["volumes"][0]["emptyDir"], json!({}));
        assert_eq!(pod["spec"]["volumes"][1]["secret"]["defaultMode"], 420);
        assert_eq!(pod["status"], json!({"phase": "Pending", "qosClass": "Guaranteed"}));
        let once = pod.clone();
        fill("pods", &mut pod);
        assert_eq!(pod, once);
    }

    #[test]
    fn the_class_of_service_goes_by_amounts_and_not_by_their_spelling() {
        let class = |limits: Value, requests: Value| {
            qos_class(
                &json!({"spec": {"containers": [{"resources": {"limits": limits, "requests": requests}}]}}),
            )
        };
        let limits = json!({"cpu": "1", "memory": "1Gi"});
        assert_eq!(class(limits.clone(), json!({"cpu": "1000m", "memory": "1024Mi"})), "Guaranteed");
        assert_eq!(class(limits, json!({"cpu": "500m", "memory": "1Gi"})), "Burstable");
        assert_eq!(class(json!({"cpu": "0"}), json!({"memory": 0})), "BestEffort");
        let full =
            json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1", "memory": "1Gi"}});
        let whole = |own: &Value| {
            qos_class(
                &json!({"spec": {"resources": own, "containers": [{"resources": {"limits": {"cpu": "1"}}}]}}),
            )
        };
        assert_eq!((whole(&full), whole(&json!({"requests": {"cpu": "1"}}))), ("Guaranteed", "Burstable"));
        let mut pod = json!({"spec": {"resources": {"limits": {"cpu": "1", "memory": "1Gi"}}, "containers": [{"image": "x"}]}});
        fill("pods", &mut pod);
        assert_eq!(pod["status"]["qosClass"], "Guaranteed");
    }
}
