//! emptyDir: what it is made of, how large it may become, and making it once.

use std::collections::BTreeSet;
use std::path::Path;

use apimachinery::Quantity;
use k8s_openapi::api::core::v1::{EmptyDirVolumeSource, PodSpec};

use crate::disk::beneath::{Access, Folder};
use crate::disk::folders;
use crate::error::StepError;
use crate::pod::parsed_pod::all_of;
use crate::runtime::cgroup;
use crate::runtime::huge_pages::{self, PREFIX};
use crate::runtime::resources::quantity;

/// Bytes of a page of the kernel's.
const PAGE: u64 = 4096;
/// 1024 empty files take about 1 MiB.
const INODES_MIN: u64 = 1024;

/// What an emptyDir is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Medium {
    /// The node's disk. What it may hold is watched, not bounded.
    Disk,
    /// Memory, so many bytes at most.
    Memory(i64),
    /// Huge pages of this size, in bytes. How many there are is the pod's cgroup's to bound.
    HugePages(u64),
}

/// The inodes of a volume in memory of so many bytes: one for each page that it may hold, as a kernel has by itself for all memory, and
/// enough for what is small in a small one.
fn inodes(size: i64) -> u64 {
    u64::try_from(size).unwrap_or(0).div_ceil(PAGE).max(INODES_MIN)
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
        huge if huge == "HugePages" || huge.starts_with("HugePages-") => {
            page_size(spec, huge).map(Medium::HugePages)
        }
        other => Err(StepError::Config(format!("unknown storage medium \"{other}\""))),
    }
}

/// The size of the pages: the medium's own, or the only one that containers ask for (the kubelet's `getPageSizeMountOption`).
fn page_size(spec: &PodSpec, medium: &str) -> Result<u64, StepError> {
    let requests = all_of(spec).filter_map(|container| container.resources.as_ref());
    let maps = requests.flat_map(|own| own.requests.iter().chain(&own.limits));
    let sizes: BTreeSet<u64> =
        maps.flat_map(|map| map.keys()).filter_map(|name| huge_pages::size_of(name)).collect();
    let wanted =
        medium.strip_prefix("HugePages-").map(|size| huge_pages::size_of(&format!("{PREFIX}{size}")));
    match (wanted, sizes.first()) {
        (None, Some(_)) if sizes.len() > 1 => Err(StepError::Config(
            "medium: HugePages can't be used if container requests multiple huge page sizes".to_owned(),
        )),
        (None, Some(size)) => Ok(*size),
        (Some(Some(size)), _) if sizes.contains(&size) => Ok(size),
        _ => Err(StepError::Config(format!(
            "medium {medium}: hugePages storage requested, but there is no resource request for huge pages"
        ))),
    }
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
    match medium {
        Medium::Memory(size) if !mounted => folder = root.tmpfs(at, Some(size), inodes(size))?,
        Medium::HugePages(size) if !mounted => folder = root.hugetlbfs(at, size)?,
        Medium::Disk | Medium::Memory(_) | Medium::HugePages(_) => {}
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
        let one = json!({"requests": {"hugepages-2Mi": "2Mi"}, "limits": {"hugepages-2Mi": "2Mi"}});
        let two = json!({"limits": {"hugepages-2Mi": "2Mi", "hugepages-1Gi": "1Gi"}});
        for (resources, medium, words) in [
            (json!({}), "Floppy", "unknown storage medium \"Floppy\""),
            (
                json!({}),
                "HugePages",
                "medium HugePages: hugePages storage requested, but there is no resource request for huge pages",
            ),
            (
                one.clone(),
                "HugePages-1Gi",
                "medium HugePages-1Gi: hugePages storage requested, but there is no resource request for huge pages",
            ),
            (
                two,
                "HugePages",
                "medium: HugePages can't be used if container requests multiple huge page sizes",
            ),
        ] {
            assert_eq!(of(resources, json!({"medium": medium})), Err(StepError::Config(words.to_owned())));
        }
        for medium in ["HugePages", "HugePages-2Mi"] {
            assert_eq!(of(one.clone(), json!({"medium": medium})), Ok(Medium::HugePages(2 << 20)));
        }
    }

    #[test]
    fn what_lies_in_memory_has_so_many_files_and_no_more() {
        assert_eq!((inodes(64 << 20), inodes(1 << 20), inodes(0)), (16_384, 1024, 1024));
        let dir = tempfile::tempdir().unwrap();
        let root = Folder::root(dir.path()).unwrap();
        // Only root can mount.
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let (at, ready) = (Path::new("a/v"), Path::new("ready/v"));
        empty_dir(&root, at, ready, Medium::Memory(8 << 20), None).unwrap();
        let made = (0..4096).map(|file| std::fs::write(dir.path().join(at).join(file.to_string()), ""));
        let made = made.take_while(Result::is_ok).count();
        root.detach(at).unwrap();
        // The kernel's default is half of all pages; the top folder is one of the 2048, and some kernels count names, too.
        assert!((1000..2048).contains(&made), "{made} files");
    }

    #[test]
    fn huge_pages_are_a_file_system_of_their_own() {
        let filesystems = std::fs::read_to_string("/proc/filesystems").unwrap();
        let dir = tempfile::tempdir().unwrap();
        let root = Folder::root(dir.path()).unwrap();
        // Only root can mount, and not every kernel has them.
        if !filesystems.contains("hugetlbfs") || !rustix::process::geteuid().is_root() {
            return;
        }
        let (at, ready) = (Path::new("a/v"), Path::new("ready/v"));
        for _ in 0..2 {
            empty_dir(&root, at, ready, Medium::HugePages(2 << 20), Some(4242)).unwrap();
        }
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
        let own = mounts.lines().filter(|line| line.contains(&*dir.path().join(at).display().to_string()));
        let own: Vec<&str> = own.collect();
        assert!(own.len() == 1 && own[0].contains("hugetlbfs") && own[0].contains("pagesize=2M"), "{own:?}");
        root.detach(at).unwrap();
    }
}
