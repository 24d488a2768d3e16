//! What a Kubernetes API server fills in when a client leaves it out.

use serde_json::{Value, json};

use crate::field::{as_fields, default, entry, list, text};

/// Fills in the defaults of a built-in kind.
pub(crate) fn fill(group_resource: &str, object: &mut Value) {
    match group_resource {
        "pods" => {
            pod_spec(entry(object, "spec"));
            let qos = qos_class(object);
            let status = entry(object, "status");
            default(status, "phase", json!("Pending"));
            default(status, "qosClass", json!(qos));
        }
        "deployments.apps" => deployment(object),
        "replicasets.apps" => replica_set(object),
        "services" => service(object),
        "namespaces" => {
            default(entry(object, "spec"), "finalizers", json!(["kubernetes"]));
            default(entry(object, "status"), "phase", json!("Active"));
            let name = text(object, "/metadata/name").to_owned();
            let labels = entry(entry(object, "metadata"), "labels");
            as_fields(labels).insert("kubernetes.io/metadata.name".to_owned(), json!(name));
        }
        "secrets" => {
            default(object, "type", json!("Opaque"));
            string_data(object);
        }
        "customresourcedefinitions.apiextensions.k8s.io" => definition(object),
        "events" => {
            default(object, "reportingComponent", json!(""));
            default(object, "reportingInstance", json!(""));
        }
        "roles.rbac.authorization.k8s.io" | "clusterroles.rbac.authorization.k8s.io" => {}
        "rolebindings.rbac.authorization.k8s.io" | "clusterrolebindings.rbac.authorization.k8s.io" => {
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

fn items<'a>(object: &'a mut Value, name: &str) -> &'a mut [Value] {
    object.get_mut(name).and_then(Value::as_array_mut).map(Vec::as_mut_slice).unwrap_or_default()
}

/// `stringData` is write-only: it goes into `data`, in base64.
fn string_data(object: &mut Value) {
    use base64::Engine as _;
    let Some(Value::Object(plain)) = crate::field::remove(object, "stringData") else { return };
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

/// Guaranteed, Burstable or BestEffort, as Kubernetes sorts pods.
fn qos_class(pod: &Value) -> &'static str {
    let containers: Vec<&Value> =
        list(pod, "/spec/initContainers").iter().chain(list(pod, "/spec/containers")).collect();
    let amount = |container: &Value, which: &str, name: &str| {
        container.pointer(&format!("/resources/{which}/{name}")).map(Value::to_string)
    };
    let any = containers.iter().any(|container| {
        ["cpu", "memory"]
            .iter()
            .any(|name| amount(container, "limits", name).or(amount(container, "requests", name)).is_some())
    });
    let all_equal = containers.iter().all(|container| {
        ["cpu", "memory"].iter().all(|name| {
            let limit = amount(container, "limits", name);
            limit.is_some() && limit == amount(container, "requests", name)
        })
    });
    match (any, all_equal) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
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
        let number = port["port"].clone();
        default(port, "targetPort", number);
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

/// The volume and the mounts that give a pod its service account's token (the ServiceAccount admission plugin).
pub(crate) fn mount_token(pod: &mut Value, account: &Value, suffix: &str) {
    const MOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
    let wants = pod
        .pointer("/spec/automountServiceAccountToken")
        .or(account.get("automountServiceAccountToken"))
        .and_then(Value::as_bool)
        .unwrap_or(true);
    let spec = entry(pod, "spec");
    if list(spec, "/imagePullSecrets").is_empty()
        && let Some(secrets) = account.get("imagePullSecrets")
    {
        as_fields(spec).insert("imagePullSecrets".to_owned(), secrets.clone());
    }
    if !wants {
        return;
    }
    let volume = format!("kube-api-access-{suffix}");
    let mut mounted = false;
    for kind in ["initContainers", "containers"] {
        for container in items(spec, kind) {
            if list(container, "/volumeMounts").iter().any(|mount| text(mount, "/mountPath") == MOUNT) {
                continue;
            }
            mounted = true;
            let mounts = entry(container, "volumeMounts");
            let mount = json!({"name": volume, "readOnly": true, "mountPath": MOUNT});
            match mounts {
                Value::Array(mounts) => mounts.push(mount),
                other => *other = json!([mount]),
            }
        }
    }
    if !mounted {
        return;
    }
    let projected = json!({
        "name": volume,
        "projected": {"defaultMode": 420, "sources": [
            {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
            {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
            {"downwardAPI": {"items": [
                {"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]}},
        ]},
    });
    match entry(spec, "volumes") {
        Value::Array(volumes) => volumes.push(projected),
        other => *other = json!([projected]),
    }
}

/// What admission plugins of a plain cluster add to every new pod.
pub(crate) fn admit_pod(pod: &mut Value) {
    let spec = entry(pod, "spec");
    default(spec, "serviceAccountName", json!("default"));
    let account = spec["serviceAccountName"].clone();
    default(spec, "serviceAccount", account);
    default(spec, "enableServiceLinks", json!(true));
    default(spec, "preemptionPolicy", json!("PreemptLowerPriority"));
    default(spec, "priority", json!(0));
    let tolerations = entry(spec, "tolerations");
    if !tolerations.is_array() {
        *tolerations = json!([]);
    }
    let Value::Array(tolerations) = tolerations else { return };
    for key in ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"] {
        let tolerated = tolerations.iter().any(|toleration| {
            matches!(text(toleration, "/key"), "") && text(toleration, "/operator") == "Exists"
                || text(toleration, "/key") == key && matches!(text(toleration, "/effect"), "" | "NoExecute")
        });
        if !tolerated {
            tolerations.push(
                json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        admit_pod(&mut pod);
        mount_token(&mut pod, &json!({}), "abcde");
        assert_eq!(pod["spec"]["tolerations"].as_array().map(Vec::len), Some(2));
        assert_eq!(pod["spec"]["volumes"][2]["name"], "kube-api-access-abcde");
        assert_eq!(pod["spec"]["containers"][1]["volumeMounts"][0]["name"], "kube-api-access-abcde");
        let once = pod.clone();
        fill("pods", &mut pod);
        admit_pod(&mut pod);
        assert_eq!(pod, once);
    }

    #[test]
    fn an_account_can_say_that_no_token_is_mounted() {
        let mut pod = json!({"spec": {"containers": [{"name": "a"}]}});
        mount_token(&mut pod, &json!({"automountServiceAccountToken": false}), "x");
        assert_eq!(pod["spec"].get("volumes"), None);
    }
}
