//! emptyDir: what it is made of, how large it may become, and making it once.

use std::path::Path;

use apimachinery::Quantity;
use k8s_openapi::api::core::v1::{EmptyDirVolumeSource, PodSpec};

use crate::disk::beneath::{Access, Folder};
use crate::disk::folders;
use crate::error::StepError;
use crate::pod::parsed_pod::all_of;
use crate::runtime::cgroup;
use crate::runtime::resources::quantity;

/// What an emptyDir is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Medium {
    /// The node's disk. What it may hold is watched, not bounded.
    Disk,
    /// Memory, so many bytes at most.
    Memory(i64),
}

/// How much a volume in memory may hold: no more than all pods of the node may use, and than the pod may. Bytes.
pub(super) fn memory_bound(spec: &PodSpec, node_memory: u64) -> i64 {
    let node = i64::try_from(node_memory).unwrap_or(i64::MAX);
    smaller(node, cgroup::memory_limit(spec))
}

fn smaller(bound: i64, other: Option<i64>) -> i64 {
    other.filter(|other| *other > 0).map_or(bound, |other| other.min(bound))
}

/// What the pod asks for; `memory` bounds what is in memory.
pub(super) fn medium(
    spec: &PodSpec,
    source: &EmptyDirVolumeSource,
    memory: i64,
) -> Result<Medium, StepError> {
    match source.medium.as_deref().unwrap_or_default() {
        "" => Ok(Medium::Disk),
        "Memory" => {
            let own = source.size_limit.as_ref().and_then(quantity).map(Quantity::units);
            Ok(Medium::Memory(smaller(memory, own)))
        }
        huge if huge == "HugePages" || huge.starts_with("HugePages-") => Err(huge_pages(spec, huge)),
        other => Err(StepError::Config(format!("unknown storage medium \"{other}\""))),
    }
}

/// Why there are none. A pod that asks for huge pages gets no further than admission, since the node has none to offer.
fn huge_pages(spec: &PodSpec, medium: &str) -> StepError {
    let requests = all_of(spec).filter_map(|container| container.resources.as_ref());
    let maps = requests.flat_map(|own| own.requests.iter().chain(&own.limits));
    let mut sizes: Vec<&str> =
        maps.flat_map(|map| map.keys()).filter_map(|key| key.strip_prefix("hugepages-")).collect();
    sizes.sort_unstable();
    sizes.dedup();
    let wanted = medium.strip_prefix("HugePages-");
    let text = match (wanted, sizes.as_slice()) {
        (None, [_, _, ..]) => {
            "medium: HugePages can't be used if container requests multiple huge page sizes".to_owned()
        }
        (None, [_]) => format!("medium {medium}: the node offers no huge pages"),
        (Some(size), sizes) if sizes.contains(&size) => {
            format!("medium {medium}: the node offers no huge pages")
        }
        _ => format!(
            "medium {medium}: hugePages storage requested, but there is no resource request for huge pages"
        ),
    };
    StepError::Config(text)
}

/// Made once, with the kubelet's mark `ready` outside of what a container can reach; a volume that is ready is left alone
/// from then on, also by an edgecore that was started anew: its mode and owner are its containers' (the kubelet's
/// `emptyDir.SetUpAt`). One without the mark was not made to its end.
pub(super) fn empty_dir(
    root: &Folder,
    at: &Path,
    ready: &Path,
    medium: Medium,
    group: Option<u32>,
) -> Result<(), StepError> {
    let in_memory = medium != Medium::Disk;
    let mounted = in_memory && root.is_mount(at)?;
    let there = if in_memory { mounted } else { root.find(at)?.is_some() };
    if there && root.tail(ready, 0)?.is_some() {
        return Ok(());
    }
    // Left from a volume that is gone, as one in memory after the machine was started anew: it says nothing of the next.
    root.remove(ready)?;
    let mut folder = folders::lead_to(root, at)?;
    if let (Medium::Memory(size), false) = (medium, mounted) {
        folder = root.tmpfs(at, Some(size))?;
    }
    // Memory is everyone's, as `/tmp` is.
    let mode = if in_memory { 0o1777 } else { 0o777 };
    let mode = if group.is_some() { mode | 0o2000 } else { mode };
    folder.set_access(Access { mode, owner: None, group })?;
    if let Some(marks) = ready.parent() {
        folders::lead_to(root, marks)?;
    }
    root.create(ready, b"", Access::mode(0o640))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::pod::parsed_pod::tests::pod;

    fn of(resources: Value, source: Value) -> Result<Medium, StepError> {
        let pod = pod(json!({"containers": [{"name": "c", "image": "x", "resources": resources}]}));
        let source = serde_json::from_value(source).unwrap();
        medium(pod.spec(), &source, memory_bound(pod.spec(), 1 << 30))
    }

    #[test]
    fn memory_is_bounded_by_the_node_the_pod_and_the_volume() {
        let limit = |memory: &str| json!({"limits": {"memory": memory}});
        let memory = |size: &str| json!({"medium": "Memory", "sizeLimit": size});
        for (resources, source, size) in [
            (json!({}), json!({"medium": "Memory"}), 1 << 30),
            (json!({}), memory("10Mi"), 10 << 20),
            (json!({}), memory("2Gi"), 1 << 30),
            (limit("64Mi"), json!({"medium": "Memory"}), 64 << 20),
            (limit("64Mi"), memory("1Gi"), 64 << 20),
            (limit("64Mi"), memory("0"), 64 << 20),
        ] {
            assert_eq!(
                of(resources.clone(), source.clone()),
                Ok(Medium::Memory(size)),
                "{resources} {source}"
            );
        }
        assert_eq!(of(json!({}), json!({"sizeLimit": "1Mi"})), Ok(Medium::Disk));
    }

    #[test]
    fn what_cannot_be_made_is_refused_in_the_kubelets_words() {
        let none = json!({"requests": {"hugepages-2Mi": "2Mi"}, "limits": {"hugepages-2Mi": "2Mi"}});
        let two = json!({"limits": {"hugepages-2Mi": "2Mi", "hugepages-1Gi": "1Gi"}});
        for (resources, medium, words) in [
            (json!({}), "Floppy", "unknown storage medium \"Floppy\""),
            (
                json!({}),
                "HugePages",
                "medium HugePages: hugePages storage requested, but there is no resource request for huge pages",
            ),
            (
                none.clone(),
                "HugePages-1Gi",
                "medium HugePages-1Gi: hugePages storage requested, but there is no resource request for huge pages",
            ),
            (
                two,
                "HugePages",
                "medium: HugePages can't be used if container requests multiple huge page sizes",
            ),
            (none, "HugePages-2Mi", "medium HugePages-2Mi: the node offers no huge pages"),
        ] {
            assert_eq!(of(resources, json!({"medium": medium})), Err(StepError::Config(words.to_owned())));
        }
    }
}
