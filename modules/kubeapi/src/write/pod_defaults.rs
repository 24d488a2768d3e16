//! What a Kubernetes API server fills in of a pod's spec, in a Pod and in a template (Kubernetes 1.36:
//! `pkg/apis/core/v1/defaults.go` and `zz_generated.defaults.go`). What a Pod alone gets, a template must not have: a client
//! that writes a template back would have changed it.
//!
//! With it goes what is no default and stands in every answer all the same, as Go always writes it: an empty `resources`, and the
//! `divisor` of a `resourceFieldRef`. A client in Go that reads a template and writes it back (`kubectl rollout undo`) adds these.

use serde_json::{Value, json};

use super::pod_resources;
use crate::unstructured::{as_fields, default, entry, items, text};

/// The lists of containers that ask for resources of their own.
const LISTS: [&str; 2] = ["initContainers", "containers"];
const DEFAULT_MODE: i64 = 0o644;

/// Fields of sources of volumes with a text that is filled in: source, field, text.
const SOURCE_TEXTS: [(&str, &str, &str); 10] = [
    ("hostPath", "type", ""),
    ("iscsi", "iscsiInterface", "default"),
    ("rbd", "pool", "rbd"),
    ("rbd", "user", "admin"),
    ("rbd", "keyring", "/etc/ceph/keyring"),
    ("azureDisk", "cachingMode", "ReadWrite"),
    ("azureDisk", "fsType", "ext4"),
    ("azureDisk", "kind", "Shared"),
    ("scaleIO", "storageMode", "ThinProvisioned"),
    ("scaleIO", "fsType", "xfs"),
];

/// Fills in the spec of a Pod.
pub(super) fn pod(spec: &mut Value) {
    for name in LISTS {
        for container in items(spec, name) {
            requests_from_limits(container);
        }
    }
    pod_spec(spec);
    pod_resources::fill(spec);
    if spec["hostNetwork"] == json!(true) {
        for name in LISTS {
            let ports = items(spec, name).iter_mut().flat_map(|container| items(container, "ports"));
            for port in ports {
                let own = port["containerPort"].clone();
                unset_number(port, "hostPort", own);
            }
        }
    }
}

/// Fills in the spec of a Pod or of a template.
pub(super) fn pod_spec(spec: &mut Value) {
    unset_text(spec, "restartPolicy", "Always");
    unset_text(spec, "dnsPolicy", "ClusterFirst");
    default(spec, "terminationGracePeriodSeconds", json!(30));
    unset_text(spec, "schedulerName", "default-scheduler");
    default(spec, "securityContext", json!({}));
    items(spec, "volumes").iter_mut().for_each(volume);
    for name in LISTS.into_iter().chain(["ephemeralContainers"]) {
        items(spec, name).iter_mut().for_each(container);
    }
}

/// Fills in the spec of a PersistentVolumeClaim.
pub(super) fn claim_spec(spec: &mut Value) {
    default(spec, "volumeMode", json!("Filesystem"));
    default(spec, "resources", json!({}));
}

/// Sets a text that is not there, or is empty, as Go does not tell the two apart.
pub(super) fn unset_text(object: &mut Value, name: &str, value: &str) {
    if object[name] == Value::Null || object[name] == json!("") {
        as_fields(object).insert(name.to_owned(), json!(value));
    }
}

/// Sets a number that is not there, or is 0.
fn unset_number(object: &mut Value, name: &str, value: Value) {
    if object[name] == Value::Null || object[name] == json!(0) {
        as_fields(object).insert(name.to_owned(), value);
    }
}

fn volume(volume: &mut Value) {
    let sources = as_fields(volume);
    if !sources.iter().any(|(name, source)| name != "name" && !source.is_null()) {
        sources.insert("emptyDir".to_owned(), json!({}));
    }
    volume_source(volume);
}

/// Fills in the source of a volume: of a pod, or of a PersistentVolume.
pub(super) fn volume_source(of: &mut Value) {
    for (source, field, value) in SOURCE_TEXTS {
        if let Some(source) = of.get_mut(source) {
            unset_text(source, field, value);
        }
    }
    for source in ["secret", "configMap", "downwardAPI", "projected"] {
        if let Some(source) = of.get_mut(source) {
            default(source, "defaultMode", json!(DEFAULT_MODE));
        }
    }
    if let Some(disk) = of.get_mut("azureDisk") {
        default(disk, "readOnly", json!(false));
    }
    if let Some(image) = of.get_mut("image") {
        let policy = pull_policy(text(image, "/reference"));
        unset_text(image, "pullPolicy", policy);
    }
    if let Some(template) = of.pointer_mut("/ephemeral/volumeClaimTemplate") {
        default(template, "metadata", json!({}));
        claim_spec(entry(template, "spec"));
    }
    if let Some(source) = of.get_mut("downwardAPI") {
        items(source, "items").iter_mut().for_each(references);
    }
    for source in of.get_mut("projected").map(|projected| items(projected, "sources")).unwrap_or_default() {
        if let Some(token) = source.get_mut("serviceAccountToken") {
            default(token, "expirationSeconds", json!(3600));
        }
        if let Some(source) = source.get_mut("downwardAPI") {
            items(source, "items").iter_mut().for_each(references);
        }
    }
}

/// The references of a variable or a file to fields of the pod.
fn references(of: &mut Value) {
    if let Some(field) = of.get_mut("fieldRef") {
        unset_text(field, "apiVersion", "v1");
    }
    if let Some(resource) = of.get_mut("resourceFieldRef") {
        default(resource, "divisor", json!("0"));
    }
}

/// `Always` for an image whose tag is `latest`, or that has neither a tag nor a digest (Kubernetes: `ParseImageName`).
fn pull_policy(image: &str) -> &'static str {
    let (name, digest) = image.split_once('@').map_or((image, None), |(name, digest)| (name, Some(digest)));
    let last = name.rsplit('/').next().unwrap_or_default();
    let is_latest = match last.split_once(':') {
        Some((_, tag)) => tag == "latest",
        None => digest.is_none(),
    };
    if is_latest { "Always" } else { "IfNotPresent" }
}

fn container(container: &mut Value) {
    let policy = pull_policy(text(container, "/image"));
    unset_text(container, "imagePullPolicy", policy);
    default(container, "resources", json!({}));
    unset_text(container, "terminationMessagePath", "/dev/termination-log");
    unset_text(container, "terminationMessagePolicy", "File");
    for port in items(container, "ports") {
        unset_text(port, "protocol", "TCP");
    }
    for variable in items(container, "env") {
        if let Some(source) = variable.get_mut("valueFrom") {
            references(source);
        }
    }
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(probe) = container.get_mut(probe) {
            self::probe(probe);
        }
    }
    for hook in ["postStart", "preStop"] {
        if let Some(get) = container.pointer_mut(&format!("/lifecycle/{hook}/httpGet")) {
            http_get(get);
        }
    }
}

fn probe(probe: &mut Value) {
    for (field, value) in
        [("timeoutSeconds", 1), ("periodSeconds", 10), ("successThreshold", 1), ("failureThreshold", 3)]
    {
        unset_number(probe, field, json!(value));
    }
    if let Some(get) = probe.get_mut("httpGet") {
        http_get(get);
    }
    // kubectl reads it without asking whether it is there.
    if let Some(grpc) = probe.get_mut("grpc") {
        default(grpc, "service", json!(""));
    }
}

fn http_get(get: &mut Value) {
    unset_text(get, "path", "/");
    unset_text(get, "scheme", "HTTP");
}

fn requests_from_limits(container: &mut Value) {
    let limits = container.pointer("/resources/limits").cloned();
    if let Some(Value::Object(limits)) = limits {
        let requests = as_fields(entry(entry(container, "resources"), "requests"));
        for (name, amount) in limits {
            requests.entry(name).or_insert(amount);
        }
    }
}

#[cfg(test)]
mod tests;
