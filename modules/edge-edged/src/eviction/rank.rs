//! Which pod goes first. Pure.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use apimachinery::Quantity;

use super::signal::Signal;

/// What a container uses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct ContainerUse {
    pub(super) name: String,
    /// The memory that it asked for, and the disk.
    pub(super) memory_request: u64,
    pub(super) disk_request: u64,
    /// `None`: it is not known.
    pub(super) memory: Option<u64>,
    /// Its own layer and its logs.
    pub(super) rootfs: Option<Usage>,
    pub(super) logs: Option<Usage>,
}

/// What of a disk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    pub(crate) bytes: u64,
    pub(crate) inodes: u64,
}

impl Usage {
    fn plus(self, other: Option<Usage>) -> Usage {
        let other = other.unwrap_or_default();
        Usage {
            bytes: self.bytes.saturating_add(other.bytes),
            inodes: self.inodes.saturating_add(other.inodes),
        }
    }
}

/// What a pod uses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct PodUse {
    pub(super) uid: String,
    pub(super) priority: i32,
    /// What the whole pod asked for.
    pub(super) memory_request: u64,
    pub(super) disk_request: u64,
    /// `None`: nothing of it runs, or nobody knows.
    pub(super) stats: Option<PodStats>,
    pub(super) containers: Vec<ContainerUse>,
}

/// What is known of a pod that runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct PodStats {
    pub(super) memory: u64,
    pub(super) processes: u64,
    /// Its emptyDirs by their names.
    pub(super) volumes: BTreeMap<String, VolumeUse>,
}

/// A volume of a pod's own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct VolumeUse {
    pub(super) usage: Usage,
    /// Not in memory.
    pub(super) is_on_disk: bool,
}

/// How the kubelet counts a pod's disk: with a file system of the images' own, its containers' layers are on that.
fn disk_of(pod: &PodUse, signal: Signal, own_imagefs: bool) -> Usage {
    let images = matches!(signal, Signal::ImagefsAvailable | Signal::ImagefsInodesFree);
    let (with_rootfs, with_rest) = if own_imagefs { (images, !images) } else { (true, true) };
    let mut all = Usage::default();
    for container in &pod.containers {
        if with_rootfs {
            all = all.plus(container.rootfs);
        }
        if with_rest {
            all = all.plus(container.logs);
        }
    }
    let volumes = pod.stats.iter().flat_map(|stats| stats.volumes.values());
    let counted = volumes.filter(|volume| with_rest && volume.is_on_disk);
    counted.fold(all, |all, volume| all.plus(Some(volume.usage)))
}

/// The pods in the order in which they go.
pub(super) fn ranked(mut pods: Vec<PodUse>, signal: Signal, own_imagefs: bool) -> Vec<PodUse> {
    // (Whether its use is known, whether it uses no more than it asked for, priority, how much more, uid).
    let key = |pod: &PodUse| {
        let (usage, request) = match (&pod.stats, signal) {
            (None, _) => (0, 0),
            (Some(stats), Signal::Memory | Signal::AllocatableMemory) => (stats.memory, pod.memory_request),
            (Some(stats), Signal::PidAvailable) => (stats.processes, 0),
            (Some(_), Signal::ImagefsAvailable | Signal::NodefsAvailable) => {
                (disk_of(pod, signal, own_imagefs).bytes, pod.disk_request)
            }
            (Some(_), Signal::ImagefsInodesFree | Signal::NodefsInodesFree) => {
                (disk_of(pod, signal, own_imagefs).inodes, 0)
            }
        };
        let over = i128::from(usage) - i128::from(request);
        // Who asks for processes asks for none.
        let within = over <= 0 && signal != Signal::PidAvailable;
        (pod.stats.is_some(), within, pod.priority, Reverse(over), pod.uid.clone())
    };
    match signal {
        Signal::PidAvailable => pods.sort_by_cached_key(|pod| {
            let (known, _, priority, over, uid) = key(pod);
            (priority, known, over, uid)
        }),
        Signal::Memory
        | Signal::AllocatableMemory
        | Signal::ImagefsAvailable
        | Signal::ImagefsInodesFree
        | Signal::NodefsAvailable
        | Signal::NodefsInodesFree => pods.sort_by_cached_key(key),
    }
    pods
}

/// What is told of the containers that use more than they asked for.
pub(super) fn offenders(pod: &PodUse, signal: Signal) -> String {
    let mut text = String::new();
    if pod.stats.is_none() {
        return text;
    }
    for container in &pod.containers {
        let (usage, request) = match signal {
            Signal::Memory | Signal::AllocatableMemory => (container.memory, container.memory_request),
            Signal::ImagefsAvailable | Signal::NodefsAvailable => {
                let both = container.rootfs.zip(container.logs);
                (both.map(|(rootfs, logs)| rootfs.plus(Some(logs)).bytes), container.disk_request)
            }
            Signal::ImagefsInodesFree | Signal::NodefsInodesFree | Signal::PidAvailable => (None, 0),
        };
        if let Some(usage) = usage.filter(|usage| *usage > request) {
            text.push_str(&format!(
                "Container {} was using {}, request is {}, has larger consumption of {}. ",
                container.name,
                Quantity::binary_text(usage),
                Quantity::binary_text(request),
                signal.resource()
            ));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(uid: &str, priority: i32, request: u64, used: Option<u64>) -> PodUse {
        let stats = used.map(|memory| PodStats {
            memory,
            processes: memory,
            volumes: [
                (
                    "v".to_owned(),
                    VolumeUse { usage: Usage { bytes: memory, inodes: memory }, is_on_disk: true },
                ),
                (
                    "in memory".to_owned(),
                    VolumeUse { usage: Usage { bytes: 9999, inodes: 9999 }, is_on_disk: false },
                ),
            ]
            .into(),
        });
        let (memory_request, disk_request) = (request, request);
        PodUse { uid: uid.to_owned(), priority, memory_request, disk_request, stats, containers: Vec::new() }
    }

    fn order(pods: &[PodUse], signal: Signal) -> Vec<String> {
        ranked(pods.to_vec(), signal, false).into_iter().map(|pod| pod.uid).collect()
    }

    #[test]
    fn who_uses_more_than_it_asked_for_goes_first_then_who_matters_less() {
        let pods = [
            pod("guaranteed", 0, 100, Some(90)),
            pod("over a little", 0, 100, Some(110)),
            pod("over a lot", 0, 100, Some(500)),
            pod("important and over", 1000, 0, Some(900)),
            pod("unimportant within", -5, 100, Some(10)),
            pod("unknown", 5000, 100, None),
        ];
        let expected = [
            "unknown",
            "over a lot",
            "over a little",
            "important and over",
            "unimportant within",
            "guaranteed",
        ];
        assert_eq!(order(&pods, Signal::Memory), expected);
        assert_eq!(order(&pods, Signal::NodefsAvailable), expected);
        let by_priority = [
            "unimportant within",
            "over a lot",
            "over a little",
            "guaranteed",
            "important and over",
            "unknown",
        ];
        assert_eq!(order(&pods, Signal::PidAvailable), by_priority);
    }

    #[test]
    fn a_disk_of_the_images_own_counts_layers_alone() {
        let usage = |bytes| Some(Usage { bytes, inodes: 1 });
        let container = |rootfs, logs| ContainerUse {
            name: "c".into(),
            rootfs: usage(rootfs),
            logs: usage(logs),
            memory: Some(3 << 20),
            memory_request: 1 << 20,
            ..ContainerUse::default()
        };
        let layers = PodUse {
            uid: "layers".into(),
            stats: Some(PodStats::default()),
            containers: vec![container(100, 1)],
            ..PodUse::default()
        };
        let logs = PodUse { uid: "logs".into(), containers: vec![container(1, 200)], ..layers.clone() };
        let first = |signal, own| ranked(vec![layers.clone(), logs.clone()], signal, own).remove(0).uid;
        assert_eq!(first(Signal::ImagefsAvailable, true), "layers");
        assert_eq!(first(Signal::NodefsAvailable, true), "logs");
        assert_eq!(first(Signal::ImagefsAvailable, false), "logs");
        assert_eq!(
            offenders(&logs, Signal::Memory),
            "Container c was using 3Mi, request is 1Mi, has larger consumption of memory. "
        );
        assert_eq!(
            offenders(&logs, Signal::NodefsAvailable),
            "Container c was using 201, request is 0, has larger consumption of ephemeral-storage. "
        );
        assert_eq!(offenders(&logs, Signal::PidAvailable), "");
    }
}
