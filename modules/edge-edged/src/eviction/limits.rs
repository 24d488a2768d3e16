//! What of the node's disk a pod may use: the limits of its containers and of its volumes (kubelet's `localStorageEviction`).
//! Pure.

use std::collections::BTreeMap;

use apimachinery::Quantity;
use k8s_openapi::api::core::v1::{Container, Volume};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;

use super::rank::{PodUse, Usage};
use crate::pod::parsed_pod::{ParsedPod, is_sidecar};

/// The resource's name.
const STORAGE: &str = "ephemeral-storage";

/// How much, in bytes and as it was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Limit {
    bytes: u64,
    shown: String,
}

/// The kubelet's name for the bound of which [`Limits::exceeded`] has these words.
pub(super) fn signal(words: &str) -> &'static str {
    if words.starts_with("Usage of EmptyDir") {
        "emptydirfs.limit"
    } else if words.starts_with("Pod ") {
        "ephemeralpodfs.limit"
    } else {
        "ephemeralcontainerfs.limit"
    }
}

/// What one pod may use.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Limits {
    /// By the volume's name.
    volumes: BTreeMap<String, Limit>,
    /// Of everything together.
    pod: Option<Limit>,
    /// By the container's name.
    containers: BTreeMap<String, Limit>,
}

impl Limits {
    /// Those of a pod; `None`: it has none.
    pub(super) fn of(pod: &ParsedPod) -> Option<Limits> {
        let spec = pod.spec();
        let volume = |volume: &Volume| {
            let size = volume.empty_dir.as_ref()?.size_limit.as_ref()?;
            Some((volume.name.clone(), limit(size)?))
        };
        let container = |container: &Container| Some((container.name.clone(), limit(own_limit(container)?)?));
        let limits = Limits {
            volumes: spec.volumes.iter().flatten().filter_map(volume).collect(),
            pod: pod_limit(pod),
            containers: spec.containers.iter().filter_map(container).collect(),
        };
        (limits != Limits::default()).then_some(limits)
    }

    /// What the pod uses too much of, in the kubelet's words; `None`: nothing. `own_imagefs`: layers lie on a disk of their own.
    pub(super) fn exceeded(&self, used: &PodUse, own_imagefs: bool) -> Option<String> {
        let volumes = used.stats.as_ref().map(|stats| &stats.volumes);
        for (name, limit) in &self.volumes {
            let bytes = volumes.and_then(|volumes| volumes.get(name)).map_or(0, |volume| volume.usage.bytes);
            if bytes > limit.bytes {
                return Some(format!(
                    "Usage of EmptyDir volume {name:?} exceeds the limit {:?}. ",
                    limit.shown
                ));
            }
        }
        let bytes = |usage: Option<Usage>| usage.map_or(0, |usage| usage.bytes);
        let on_disk = volumes.into_iter().flat_map(BTreeMap::values).filter(|volume| volume.is_on_disk);
        let on_disk = on_disk.map(|volume| volume.usage.bytes);
        let of_containers = used.containers.iter().flat_map(|own| [bytes(own.rootfs), bytes(own.logs)]);
        let all = of_containers.chain(on_disk).fold(0, u64::saturating_add);
        if let Some(limit) = self.pod.as_ref().filter(|limit| all > limit.bytes) {
            let words = "Pod ephemeral local storage usage exceeds the total limit of containers";
            return Some(format!("{words} {}. ", limit.shown));
        }
        let over = used.containers.iter().find_map(|own| {
            let limit = self.containers.get(&own.name)?;
            let layer = if own_imagefs { 0 } else { bytes(own.rootfs) };
            (layer.saturating_add(bytes(own.logs)) > limit.bytes).then_some((&own.name, limit))
        });
        let (name, limit) = over?;
        Some(format!("Container {name} exceeded its local ephemeral storage limit {:?}. ", limit.shown))
    }
}

fn own_limit(container: &Container) -> Option<&Text> {
    container.resources.as_ref()?.limits.as_ref()?.get(STORAGE)
}

/// One of nothing is none.
fn limit(text: &Text) -> Option<Limit> {
    let bytes = u64::try_from(text.0.parse::<Quantity>().ok()?.units()).ok()?;
    (bytes > 0).then(|| Limit { bytes, shown: text.0.clone() })
}

/// What the containers that run together may use, or an init container beside the sidecars before it if that is more. Those
/// without a limit add nothing.
fn pod_limit(pod: &ParsedPod) -> Option<Limit> {
    let spec = pod.spec();
    let of = |container: &Container| own_limit(container).and_then(limit);
    let all: Vec<Limit> = pod.init_containers().chain(&spec.containers).filter_map(of).collect();
    let first = all.first()?;
    let bytes = |container: &Container| of(container).map_or(0, |limit| limit.bytes);
    let (mut beside, mut most) = (0_u64, 0_u64);
    for container in pod.init_containers() {
        let own = bytes(container);
        most = most.max(beside.saturating_add(own));
        if is_sidecar(container) {
            beside = beside.saturating_add(own);
        }
    }
    let together = spec.containers.iter().map(bytes).fold(beside, u64::saturating_add);
    let most = most.max(together);
    let shown = if first.bytes == most { first.shown.clone() } else { Quantity::binary_text(most) };
    Some(Limit { bytes: most, shown })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eviction::rank::{ContainerUse, PodStats, VolumeUse};
    use crate::pod::parsed_pod::tests::pod;
    use serde_json::json;

    fn used(rootfs: u64, logs: u64, volumes: &[(&str, u64, bool)]) -> PodUse {
        let usage = |bytes| Usage { bytes, inodes: 1 };
        let volume = |(name, bytes, is_on_disk): &(&str, u64, bool)| {
            ((*name).to_owned(), VolumeUse { usage: usage(*bytes), is_on_disk: *is_on_disk })
        };
        let container = ContainerUse {
            name: "c".into(),
            rootfs: Some(usage(rootfs)),
            logs: Some(usage(logs)),
            ..ContainerUse::default()
        };
        let stats = PodStats { volumes: volumes.iter().map(volume).collect(), ..PodStats::default() };
        PodUse { containers: vec![container], stats: Some(stats), ..PodUse::default() }
    }

    fn limited(containers: serde_json::Value, size: serde_json::Value) -> Option<Limits> {
        Limits::of(&pod(json!({"containers": containers, "volumes": [{"name": "v", "emptyDir": size}]})))
    }

    #[test]
    fn who_has_no_limit_is_not_watched() {
        let plain = json!([{"name": "c", "image": "x", "resources": {"limits": {"cpu": "1"}}}]);
        assert_eq!(limited(plain.clone(), json!({})), None);
        assert_eq!(limited(plain, json!({"sizeLimit": "0"})), None);
    }

    #[test]
    fn a_volume_that_is_too_large_is_named_and_one_in_memory_too() {
        let plain = json!([{"name": "c", "image": "x"}]);
        let limits = limited(plain, json!({"sizeLimit": "1Mi"})).unwrap();
        let exceeded = |bytes, on_disk| limits.exceeded(&used(9 << 20, 0, &[("v", bytes, on_disk)]), false);
        assert_eq!(exceeded(1 << 20, true), None, "as much as it may");
        let words = "Usage of EmptyDir volume \"v\" exceeds the limit \"1Mi\". ".to_owned();
        assert_eq!(exceeded((1 << 20) + 1, true), Some(words.clone()));
        assert_eq!(exceeded(2 << 20, false), Some(words));
    }

    #[test]
    fn everything_of_a_pod_counts_against_the_sum_of_its_limits() {
        let container = |name: &str| json!({"name": name, "image": "x", "resources": {"limits": {"ephemeral-storage": "5Mi"}}});
        let one = limited(json!([container("c")]), json!({})).unwrap();
        let words = |sum: &str| {
            Some(format!("Pod ephemeral local storage usage exceeds the total limit of containers {sum}. "))
        };
        assert_eq!(one.exceeded(&used(2 << 20, 1 << 20, &[("v", 2 << 20, true)]), false), None);
        assert_eq!(one.exceeded(&used(2 << 20, 1 << 20, &[("v", 3 << 20, true)]), true), words("5Mi"));
        assert_eq!(one.exceeded(&used(0, 0, &[("v", 9 << 20, false)]), false), None, "memory is no disk");
        let two = limited(json!([container("c"), container("d")]), json!({})).unwrap();
        assert_eq!(two.exceeded(&used(11 << 20, 0, &[]), false), words("10Mi"));
    }

    #[test]
    fn a_container_has_its_layer_and_its_logs() {
        let own = json!({"name": "c", "image": "x", "resources": {"limits": {"ephemeral-storage": "5Mi"}}});
        let other = json!({"name": "d", "image": "x", "resources": {"limits": {"ephemeral-storage": "1Gi"}}});
        let limits = limited(json!([own, other]), json!({})).unwrap();
        let words = "Container c exceeded its local ephemeral storage limit \"5Mi\". ".to_owned();
        assert_eq!(limits.exceeded(&used(4 << 20, 2 << 20, &[]), false), Some(words));
        assert_eq!(limits.exceeded(&used(4 << 20, 2 << 20, &[]), true), None, "layers lie elsewhere");
    }

    #[test]
    fn an_init_container_may_need_more_than_those_that_run_together() {
        let limits = |bytes: &str| json!({"limits": {"ephemeral-storage": bytes}});
        let own = pod(json!({
            "initContainers": [
                {"name": "s", "image": "x", "restartPolicy": "Always", "resources": limits("1")},
                {"name": "i", "image": "x", "resources": limits("10")},
            ],
            "containers": [{"name": "c", "image": "x", "resources": limits("3")}],
        }));
        assert_eq!(pod_limit(&own).unwrap().bytes, 11);
    }
}
