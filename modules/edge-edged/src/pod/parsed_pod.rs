//! A pod as it should be, parsed once at the border.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use apimachinery::PodReferences;
use contract::json_values::{VALUES_MAX, has_at_most};
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, PodStatus, ResourceRequirements};
use serde::Deserialize;
use serde_json::Value;

use crate::error::ParseError;
use crate::json_error;
use crate::pod::end_reason::TERMINATED;
use crate::pod::ephemeral::{self, EphemeralContainer};
use crate::pod::field_support::{self, Review};
use crate::pod::id::PodId;
use crate::pod::newer_fields::NewerFields;
use crate::pod::resize_policy::{self, ContainerResources};
use crate::pod::restart_rule::{self, RestartRule};
pub(crate) use crate::pod::spec_containers::{all_of, is_sidecar};
use crate::runtime::qos;
use crate::runtime::resources::{self, Qos};

/// From here on a pod is one that the cluster needs (`system-cluster-critical`).
pub(crate) const CRITICAL: i32 = 2_000_000_000;
/// 2 MiB: more than the API server stores in one object.
pub(crate) const JSON_MAX: usize = 2 << 20;
/// Kubernetes' own default.
const GRACE: i64 = 30;

/// A pod that was read and whose names are fit to be parts of paths.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ParsedPod {
    pub(crate) id: PodId,
    pub(crate) pod: Pod,
    pub(crate) review: Review,
    pub(crate) qos: Qos,
    /// The config maps and Secrets that it names.
    pub(crate) references: PodReferences,
    /// What the types of `pod` do not have.
    pub(crate) newer: NewerFields,
    /// FNV-1a over what a container is made of; a change restarts it.
    pub(crate) hashes: Vec<(String, u64)>,
    pub(crate) ephemeral: Vec<EphemeralContainer>,
    /// By the containers' names.
    pub(crate) restart_rules: BTreeMap<String, Vec<RestartRule>>,
    /// A file of the node describes it, and its uid is not the API's.
    pub(crate) is_static: bool,
}

/// Of which pod that is said is read without taking it apart.
fn too_many_values(json: &[u8]) -> ParseError {
    #[derive(Default, Deserialize)]
    struct Head {
        metadata: Metadata,
    }
    #[derive(Default, Deserialize)]
    struct Metadata {
        namespace: String,
        name: String,
        uid: String,
    }
    let Head { metadata: Metadata { namespace, name, uid } } =
        serde_json::from_slice(json).unwrap_or_default();
    let is_name = contract::ids::is_dns1123_subdomain;
    if !is_path_safe(&uid) || !is_name(&namespace) || !is_name(&name) {
        return ParseError::TooLarge { size: json.len() };
    }
    let reason = format!("it has more than {VALUES_MAX} values, lists and maps counted");
    ParseError::NotAPod { id: Box::new(PodId { namespace, name, uid }), reason }
}

impl ParsedPod {
    /// Reads a pod.
    pub(crate) fn parse(json: &[u8]) -> Result<ParsedPod, ParseError> {
        if json.len() > JSON_MAX {
            return Err(ParseError::TooLarge { size: json.len() });
        }
        if !has_at_most(json, VALUES_MAX) {
            return Err(too_many_values(json));
        }
        let raw: Value = serde_json::from_slice(json)
            .map_err(|error| ParseError::NotJson(json_error::describe(&error)))?;
        let review = raw.get("spec").map(field_support::review).unwrap_or_default();
        let restart_rules = raw.get("spec").map(restart_rule::rules_of).unwrap_or_default();
        let text = |path: &str| raw.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned();
        let references = raw.get("spec").map(|spec| PodReferences::of_pod(&text("/metadata/name"), spec));
        let references = references.unwrap_or_default();
        let id = PodId {
            namespace: text("/metadata/namespace"),
            name: text("/metadata/name"),
            uid: text("/metadata/uid"),
        };
        if !is_path_safe(&id.uid) {
            return Err(ParseError::BadName { what: "metadata.uid", shown: shown(&id.uid) });
        }
        for (what, name) in [("metadata.namespace", &id.namespace), ("metadata.name", &id.name)] {
            if !contract::ids::is_dns1123_subdomain(name) {
                return Err(ParseError::BadName { what, shown: shown(name) });
            }
        }
        let not_a_pod = |source: serde_json::Error| ParseError::NotAPod {
            id: Box::new(id.clone()),
            reason: format!("the object {}", json_error::describe(&source)),
        };
        let newer = NewerFields::of_pod(&raw).map_err(not_a_pod)?;
        let ephemeral = raw.get("spec").map(ephemeral::of_spec).transpose().map_err(not_a_pod)?;
        let ephemeral = ephemeral.unwrap_or_default();
        let pod: Pod = serde_json::from_value(raw).map_err(|source| {
            let place = json_error::place::<Pod>(&serde_json::from_slice(json).unwrap_or_default());
            let place = if place.is_empty() { "the object" } else { &place };
            invalid(&id, format!("{place} {}", json_error::describe(&source)))
        })?;
        let spec = pod.spec.as_ref();
        let spec = spec.ok_or_else(|| invalid(&id, "spec is missing".to_owned()))?;
        check(spec, &ephemeral).map_err(|reason| invalid(&id, reason))?;
        let qos = qos::class_of(spec);
        let all = all_of(spec).chain(ephemeral.iter().map(|one| &one.container));
        let hashes = all.map(|container| (container.name.clone(), hash_of(container))).collect();
        let is_static = false;
        Ok(ParsedPod { id, review, qos, references, newer, hashes, ephemeral, restart_rules, is_static, pod })
    }

    /// A pod of which only the name is known: what the runtime still has of it can be ended, nothing can be started.
    pub(crate) fn without_spec(id: PodId) -> ParsedPod {
        let pod = Pod { spec: Some(PodSpec::default()), ..Pod::default() };
        let (review, references, newer, hashes, ephemeral, restart_rules) = Default::default();
        let (qos, is_static) = (Qos::BestEffort, false);
        ParsedPod { id, pod, review, qos, references, newer, hashes, ephemeral, restart_rules, is_static }
    }

    /// As [`ParsedPod::without_spec`], of one that nobody wants any more: its containers say how long its grace is, in seconds. At most
    /// 30, as if they said nothing: nobody waits for it.
    pub(crate) fn left_over(id: PodId, grace: Option<u32>) -> ParsedPod {
        let mut pod = ParsedPod::without_spec(id);
        let grace = grace.map(|seconds| i64::from(seconds).min(GRACE));
        pod.pod.spec = Some(PodSpec { termination_grace_period_seconds: grace, ..PodSpec::default() });
        pod
    }

    /// The same pod with other resources for its containers, by their names: what the node gives it, which may be another thing
    /// than what is asked for.
    pub(crate) fn with_resources(&self, resources: &ContainerResources) -> ParsedPod {
        let mut pod = self.clone();
        if let Some(spec) = &mut pod.pod.spec {
            let all = spec.init_containers.iter_mut().flatten().chain(&mut spec.containers);
            for container in all {
                if let Some(given) = resources.get(&container.name) {
                    container.resources = Some(given.clone());
                }
            }
        }
        let changed = all_of(self.spec()).filter(|container| resources.contains_key(&container.name));
        for name in changed.map(|container| &container.name) {
            let hash = pod.container(name).map(hash_of);
            let own = pod.hashes.iter_mut().find(|(own, _)| own == name);
            if let (Some((_, own)), Some(hash)) = (own, hash) {
                *own = hash;
            }
        }
        pod
    }

    /// The same pod with other resources for it as a whole.
    pub(crate) fn with_resources_of_whole(mut self, resources: &Option<ResourceRequirements>) -> ParsedPod {
        if let Some(spec) = &mut self.pod.spec {
            spec.resources.clone_from(resources);
        }
        self
    }

    /// The spec; `parse` has seen to it that there is one.
    pub(crate) fn spec(&self) -> &PodSpec {
        static EMPTY: std::sync::OnceLock<PodSpec> = std::sync::OnceLock::new();
        self.pod.spec.as_ref().unwrap_or_else(|| EMPTY.get_or_init(PodSpec::default))
    }

    /// The status that the cloud has sent: what others than this node wrote, and what this node had reported by then.
    pub(crate) fn cloud_status(&self) -> Option<&PodStatus> {
        self.pod.status.as_ref()
    }

    /// Whether the cluster needs it, so that others make room for it and it is never evicted (Kubernetes: `IsCriticalPod`): a
    /// static pod, and one whose priority says so, which admission sets. The annotations by which a kubelet knows its static pods
    /// (`kubernetes.io/config.source`, `config.mirror`) are words that whoever makes a pod can write.
    pub(crate) fn is_critical(&self) -> bool {
        self.is_static || self.spec().priority.is_some_and(|own| own >= CRITICAL)
    }

    /// Whether an end that was reported is none: a static pod that ended with the machine runs again with it, as its file says.
    pub(crate) fn begins_again(&self, status: &PodStatus) -> bool {
        self.is_static && status.reason.as_deref() == Some(TERMINATED)
    }

    /// Whether the pod is to end.
    pub(crate) fn is_terminating(&self) -> bool {
        self.pod.metadata.deletion_timestamp.is_some()
    }

    /// How long its containers may take to end.
    pub(crate) fn grace(&self) -> Duration {
        let own =
            || u64::try_from(self.spec().termination_grace_period_seconds.unwrap_or(GRACE)).unwrap_or(0);
        self.deletion_grace().unwrap_or_else(|| Duration::from_secs(own()))
    }

    /// How long they may take by whoever deletes the pod.
    pub(crate) fn deletion_grace(&self) -> Option<Duration> {
        let given = self.pod.metadata.deletion_grace_period_seconds.filter(|_| self.is_terminating())?;
        Some(Duration::from_secs(u64::try_from(given).unwrap_or(0)))
    }

    pub(crate) fn host_network(&self) -> bool {
        self.spec().host_network.unwrap_or(false)
    }

    /// The hash of what a container is made of.
    pub(crate) fn hash(&self, container: &str) -> u64 {
        self.hashes.iter().find(|(name, _)| name == container).map_or(0, |(_, hash)| *hash)
    }

    pub(crate) fn restart_policy(&self) -> RestartPolicy {
        match self.spec().restart_policy.as_deref() {
            Some("Never") => RestartPolicy::Never,
            Some("OnFailure") => RestartPolicy::OnFailure,
            _ => RestartPolicy::Always,
        }
    }

    /// A container by its name, of whatever kind.
    pub(crate) fn container(&self, name: &str) -> Option<&Container> {
        let ephemeral = || self.ephemeral(name).map(|one| &one.container);
        all_of(self.spec()).find(|container| container.name == name).or_else(ephemeral)
    }

    /// How events name one of its containers (Kubernetes: `fieldPath`).
    pub(crate) fn field_path(&self, name: &str) -> String {
        let list = if self.ephemeral(name).is_some() {
            "ephemeralContainers"
        } else if self.init_containers().any(|init| init.name == name) {
            "initContainers"
        } else {
            "containers"
        };
        format!("spec.{list}{{{name}}}")
    }

    /// An ephemeral container by its name.
    pub(crate) fn ephemeral(&self, name: &str) -> Option<&EphemeralContainer> {
        self.ephemeral.iter().find(|one| one.container.name == name)
    }

    pub(crate) fn init_containers(&self) -> impl DoubleEndedIterator<Item = &Container> {
        self.spec().init_containers.iter().flatten()
    }
}

/// What happens to a container that has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RestartPolicy {
    Always,
    OnFailure,
    Never,
}

fn invalid(id: &PodId, reason: String) -> ParseError {
    ParseError::NotAPod { id: Box::new(id.clone()), reason }
}

fn shown(text: &str) -> String {
    text.chars().take(64).collect()
}

/// Whether a text from outside may be one part of a path.
pub(crate) fn is_path_safe(text: &str) -> bool {
    let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    !text.is_empty() && text.len() <= 253 && !text.starts_with('.') && text.bytes().all(fits)
}

fn check(spec: &PodSpec, ephemeral: &[EphemeralContainer]) -> Result<(), String> {
    let all = || all_of(spec).chain(ephemeral.iter().map(|one| &one.container));
    let mut names = BTreeSet::new();
    let label =
        |name: &str| name.len() <= 63 && !name.contains('.') && contract::ids::is_dns1123_subdomain(name);
    if spec.containers.is_empty() {
        return Err("spec.containers is empty".to_owned());
    }
    for container in all() {
        if !label(&container.name) {
            return Err(format!("container name `{}` is not a DNS label", shown(&container.name)));
        }
        if !names.insert(container.name.as_str()) {
            return Err(format!("two containers are named `{}`", container.name));
        }
        if container.image.as_deref().unwrap_or_default().is_empty() {
            return Err(format!("container `{}` has no image", container.name));
        }
    }
    let mut volumes = BTreeSet::new();
    for volume in spec.volumes.iter().flatten() {
        if !label(&volume.name) {
            return Err(format!("volume name `{}` is not a DNS label", shown(&volume.name)));
        }
        if !volumes.insert(volume.name.as_str()) {
            return Err(format!("two volumes are named `{}`", volume.name));
        }
    }
    for container in all() {
        for mount in container.volume_mounts.iter().flatten() {
            if !volumes.contains(mount.name.as_str()) {
                let (volume, container) = (shown(&mount.name), &container.name);
                return Err(format!("container `{container}` mounts volume `{volume}`, which is not there"));
            }
        }
    }
    Ok(())
}

/// Like the kubelet's since 1.31, the hash covers the two fields that may change in a living pod, and with them the resources whose
/// change is to restart the container (`resizePolicy`): so that restarts it whatever else its policy says, and whoever has
/// restarted meanwhile.
fn hash_of(container: &Container) -> u64 {
    let image = container.image.as_deref().unwrap_or_default();
    let mut text = format!("{}\n{image}", container.name);
    let own = resources::amounts(container.resources.as_ref());
    for resource in resize_policy::restarting(container) {
        let (request, limit) = match resource {
            "cpu" => (own.cpu_request, own.cpu_limit),
            _ => (own.memory_request, own.memory_limit),
        };
        text.push_str(&format!("\n{resource} {request} {limit}"));
    }
    fnv1a(text.as_bytes())
}

/// FNV-1a, 64 bits: stable across builds, which the standard hasher does not promise.
pub(crate) fn fnv1a(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A pod of one busybox container, with `spec` merged over it.
    pub(crate) fn pod(spec: Value) -> ParsedPod {
        let mut raw = serde_json::json!({
            "metadata": {"name": "p", "namespace": "default", "uid": "u-1"},
            "spec": {"containers": [{"name": "c", "image": "x:1"}]},
        });
        for (key, value) in spec.as_object().cloned().unwrap_or_default() {
            raw["spec"][key] = value;
        }
        ParsedPod::parse(&serde_json::to_vec(&raw).unwrap()).unwrap()
    }

    #[test]
    fn names_that_could_leave_the_folder_are_refused() {
        for (path, bad) in [("uid", "../x"), ("uid", ".."), ("name", "a/b"), ("namespace", "")] {
            let mut raw = serde_json::json!({
                "metadata": {"name": "p", "namespace": "d", "uid": "u"},
                "spec": {"containers": [{"name": "c", "image": "x"}]},
            });
            raw["metadata"][path] = bad.into();
            let error = ParsedPod::parse(&serde_json::to_vec(&raw).unwrap()).unwrap_err();
            assert!(matches!(error, ParseError::BadName { .. }), "{path} {bad}: {error:?}");
        }
    }

    #[test]
    fn a_pod_that_makes_no_sense_says_why() {
        for (spec, want) in [
            (serde_json::json!({"containers": []}), "is empty"),
            (serde_json::json!({"containers": [{"name": "../c", "image": "x"}]}), "is not a DNS label"),
            (serde_json::json!({"containers": [{"name": "c"}]}), "has no image"),
            (
                serde_json::json!({"containers": [{"name": "c", "image": "x"}, {"name": "c", "image": "x"}]}),
                "two",
            ),
            (
                serde_json::json!({"containers": [{"name": "c", "image": "x",
                    "volumeMounts": [{"name": "v", "mountPath": "/v"}]}]}),
                "which is not there",
            ),
        ] {
            let raw =
                serde_json::json!({"metadata": {"name": "p", "namespace": "d", "uid": "u"}, "spec": spec});
            let error = ParsedPod::parse(&serde_json::to_vec(&raw).unwrap()).unwrap_err();
            assert!(error.to_string().contains(want), "{error}");
        }
        assert!(matches!(ParsedPod::parse(b"{"), Err(ParseError::NotJson(_))));
        assert!(matches!(ParsedPod::parse(&vec![b' '; JSON_MAX + 1]), Err(ParseError::TooLarge { .. })));
        let args = vec!["\"a\""; 350_000].join(",");
        let pod = |uid: &str| {
            format!(
                r#"{{"metadata":{{"namespace":"d","name":"p","uid":"{uid}"}},"spec":{{"containers":[{{"name":"c","args":[{args}]}}]}}}}"#
            )
        };
        let Err(ParseError::NotAPod { id, reason }) = ParsedPod::parse(pod("u").as_bytes()) else { panic!() };
        assert!(id.name == "p" && reason.contains("more than 40000 values"), "{reason}");
        let unnamed = ParsedPod::parse(pod("../u").as_bytes());
        assert!(matches!(unnamed, Err(ParseError::TooLarge { .. })));
    }
}
