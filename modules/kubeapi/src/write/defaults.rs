//! What a Kubernetes API server fills in when a client leaves it out.

use apimachinery::{Quantity, resource};
use serde_json::{Value, json};

use super::pod_resources;
use crate::unstructured::{as_fields, default, entry, items, list, remove, text};

/// Fills in the defaults of a built-in kind.
pub(super) fn fill(group_resource: &str, object: &mut Value) {
    match group_resource {
        resource::PODS => {
            pod_spec(entry(object, "spec"));
            pod_resources::fill(entry(object, "spec"));
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
        resource::CUSTOM_RESOURCE_DEFINITIONS => definition(object),
        resource::EVENTS => {
            default(object, "reportingComponent", json!(""));
            default(object, "reportingInstance", json!(""));
        }
        resource::ROLES | resource::CLUSTER_ROLES => {}
        resource::ROLE_BINDINGS | resource::CLUSTER_ROLE_BINDINGS => {
            for subject in items(object, "subjects") {
                if matches!(text(subject, "/kind"), "User" | "Group") {
                    default(subject, "apiGroup", json!("rbac.authorization.k8s.io"));
                }
            }
            default(entry(object, "roleRef"), "apiGroup", json!("rbac.authorization.k8s.io"));
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

fn pod_spec(spec: &mut Value) {
    default(spec, "restartPolicy", json!("Always"));
    default(spec, "dnsPolicy", json!("ClusterFirst"));
    default(spec, "terminationGracePeriodSeconds", json!(30));
    default(spec, "schedulerName", json!("default-scheduler"));
    default(spec, "securityContext", json!({}));
    if spec.get("volumes").is_some() {
        for volume in items(spec, "volumes") {
            self::volume(volume);
        }
    }
    for name in ["initContainers", "containers"] {
        for container in items(spec, name) {
            self::container(container);
        }
    }
    if spec.get("ephemeralContainers").is_some_and(Value::is_array) {
        for container in items(spec, "ephemeralContainers") {
            self::container(container);
        }
    }
}

fn volume(volume: &mut Value) {
    let sources = as_fields(volume);
    if !sources.keys().any(|key| key != "name") {
        sources.insert("emptyDir".to_owned(), json!({}));
    }
    for source in ["secret", "configMap", "downwardAPI", "projected"] {
        if let Some(source) = volume.get_mut(source) {
            default(source, "defaultMode", json!(420));
        }
    }
    if let Some(path) = volume.get_mut("hostPath") {
        default(path, "type", json!(""));
    }
    if let Some(projected) = volume.get_mut("projected") {
        for source in items(projected, "sources") {
            if let Some(token) = source.get_mut("serviceAccountToken") {
                default(token, "expirationSeconds", json!(3600));
            }
        }
    }
}

fn container(container: &mut Value) {
    let image = text(container, "/image").to_owned();
    let tag = image.rsplit('/').next().unwrap_or_default();
    let latest = !image.contains('@') && tag.split_once(':').is_none_or(|(_, tag)| tag == "latest");
    default(container, "imagePullPolicy", json!(if latest { "Always" } else { "IfNotPresent" }));
    default(container, "resources", json!({}));
    default(container, "terminationMessagePath", json!("/dev/termination-log"));
    default(container, "terminationMessagePolicy", json!("File"));
    for port in items(container, "ports") {
        default(port, "protocol", json!("TCP"));
    }
    for variable in items(container, "env") {
        if let Some(field) = variable.pointer_mut("/valueFrom/fieldRef") {
            default(field, "apiVersion", json!("v1"));
        }
    }
    for (probe, successes) in [("livenessProbe", 1), ("readinessProbe", 1), ("startupProbe", 1)] {
        if let Some(probe) = container.get_mut(probe) {
            default(probe, "timeoutSeconds", json!(1));
            default(probe, "periodSeconds", json!(10));
            default(probe, "successThreshold", json!(successes));
            default(probe, "failureThreshold", json!(3));
            if let Some(get) = probe.get_mut("httpGet") {
                default(get, "path", json!("/"));
                default(get, "scheme", json!("HTTP"));
            }
            // kubectl reads it without asking whether it is there.
            if let Some(grpc) = probe.get_mut("grpc") {
                default(grpc, "service", json!(""));
            }
        }
    }
    let limits = container.pointer("/resources/limits").cloned();
    if let Some(Value::Object(limits)) = limits {
        let requests = as_fields(entry(entry(container, "resources"), "requests"));
        for (name, amount) in limits {
            requests.entry(name).or_insert(amount);
        }
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
