//! Looking at everything, at most once a second.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use apimachinery::NamespacedName;
use beehive::{Clock, Moment};
use config::edge::CgroupDriver;
use cri::pods::{CONTAINER_NAME, POD_NAME, POD_NAMESPACE, POD_UID};
use cri::v1::{
    Container, ContainerFilter, ContainerState, ContainerStateValue, ContainerStats, ContainerStatsFilter,
    CpuUsage, MemoryUsage, PodSandbox, PodSandboxFilter, PodSandboxState, PodSandboxStateValue,
    PodSandboxStats, PodSandboxStatsFilter, UInt64Value,
};
use cri::{Error, Runtime};
use rustix::fs::FileType;
use tokio::sync::Mutex;

use crate::beneath::Folder;
use crate::disk::Disk as Blocking;
use crate::stats::cgroup::{Cgroup, Tree};
use crate::stats::image_names::ImageNames;
use crate::stats::proc::{self, Disk, Interface};
use crate::stats::rates::Rates;
use crate::stats::sample::{ContainerUse, Cpu, Memory, NodeUse, PodUse, Sample, Swap};

/// 1 s: whoever asks sooner gets the last look.
const FRESH: Duration = Duration::from_secs(1);
/// The cgroup of the pods.
const PODS: &str = "kubepods";
/// Their classes below it.
const CLASSES: [&str; 3] = ["", "burstable", "besteffort"];

/// Where to look.
#[derive(Debug, Clone)]
pub(crate) struct Places {
    pub(crate) logs: PathBuf,
    pub(crate) root: PathBuf,
    pub(crate) cgroups: PathBuf,
    pub(crate) driver: CgroupDriver,
}

/// Looks at everything for whoever asks.
pub(crate) struct Collector {
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) blocking: Blocking,
    pub(crate) places: Places,
    kept: Mutex<SampleCache>,
}

#[derive(Default)]
struct SampleCache {
    last: Option<(Moment, Arc<Sample>)>,
    rates: Rates,
}

/// What the runtime says.
struct RuntimeReport {
    sandboxes: Vec<PodSandbox>,
    containers: Vec<Container>,
    of_sandboxes: HashMap<String, PodSandboxStats>,
    of_containers: HashMap<String, ContainerStats>,
    image_mount: Option<PathBuf>,
    images: Disk,
    image_names: ImageNames,
}

impl Collector {
    pub(crate) fn new(
        runtime: Arc<dyn Runtime>,
        clock: Arc<dyn Clock>,
        blocking: Blocking,
        places: Places,
    ) -> Collector {
        Collector { runtime, clock, blocking, places, kept: Mutex::default() }
    }

    /// The last look, or a new one. Two who ask at once get one.
    ///
    /// # Errors
    /// When the runtime does not say what there is.
    pub(crate) async fn sample(&self) -> Result<Arc<Sample>, Error> {
        let mut kept = self.kept.lock().await;
        if let Some((at, sample)) = &kept.last
            && self.clock.now().since(*at) < FRESH
        {
            return Ok(Arc::clone(sample));
        }
        let told = self.ask().await?;
        let at = self.clock.wall().duration_since(UNIX_EPOCH).unwrap_or_default();
        let at = i64::try_from(at.as_nanos()).unwrap_or(i64::MAX);
        let places = self.places.clone();
        let look = self.blocking.blocking(move || Ok(look(&places, told, at))).await;
        let mut sample = look.map_err(|error| Error::Failed { call: "stats", message: error.to_string() })?;
        rate(&mut sample, &mut kept.rates);
        let sample = Arc::new(sample);
        kept.last = Some((self.clock.now(), Arc::clone(&sample)));
        Ok(sample)
    }

    async fn ask(&self) -> Result<RuntimeReport, Error> {
        let ready = PodSandboxStateValue { state: PodSandboxState::SandboxReady.into() };
        let running = ContainerStateValue { state: ContainerState::ContainerRunning.into() };
        let sandboxes = PodSandboxFilter { state: Some(ready), ..PodSandboxFilter::default() };
        let containers = ContainerFilter { state: Some(running), ..ContainerFilter::default() };
        let runtime = &self.runtime;
        let (sandboxes, containers, of_sandboxes, of_containers, images, named) = tokio::join!(
            runtime.list_sandboxes(sandboxes),
            runtime.list_containers(containers),
            runtime.sandbox_stats(PodSandboxStatsFilter::default()),
            runtime.container_stats(ContainerStatsFilter::default()),
            runtime.image_filesystems(),
            runtime.list_images(),
        );
        let is_pods = |labels: &HashMap<String, String>| labels.contains_key(POD_UID);
        let mut sandboxes = sandboxes?;
        sandboxes.retain(|sandbox| is_pods(&sandbox.labels));
        let mut containers = containers?;
        containers.retain(|container| is_pods(&container.labels));
        // Of some the kernel says more, and a sandbox that just ended fails the whole answer.
        let of_sandboxes = of_sandboxes.unwrap_or_default().into_iter();
        let of_containers = of_containers.unwrap_or_default().into_iter();
        let images = images.unwrap_or_default().into_iter().next();
        let image_mount = images.as_ref().and_then(|images| images.fs_id.as_ref());
        let image_mount = image_mount.map(|fs| PathBuf::from(&fs.mountpoint));
        let value = |value: &Option<UInt64Value>| value.as_ref().map(|value| value.value);
        let images = images.map(|images| Disk {
            used: value(&images.used_bytes),
            inodes_used: value(&images.inodes_used),
            ..Disk::default()
        });
        Ok(RuntimeReport {
            sandboxes,
            containers,
            of_sandboxes: of_sandboxes
                .filter_map(|stats| Some((stats.attributes.as_ref()?.id.clone(), stats)))
                .collect(),
            of_containers: of_containers
                .filter_map(|stats| Some((stats.attributes.as_ref()?.id.clone(), stats)))
                .collect(),
            image_mount,
            images: images.unwrap_or_default(),
            image_names: ImageNames::of(named.unwrap_or_default()),
        })
    }
}

fn rate(sample: &mut Sample, rates: &mut Rates) {
    let node = sample.node.cpu.iter_mut().map(|cpu| ("node".to_owned(), cpu));
    let pods = sample.pods.iter_mut();
    let pods = pods.filter_map(|pod| Some((format!("pod/{}", pod.sandbox), pod.cpu.as_mut()?)));
    let containers = sample.containers.iter_mut();
    let containers = containers.filter_map(|own| Some((format!("container/{}", own.id), own.cpu.as_mut()?)));
    for (name, cpu) in node.chain(pods).chain(containers) {
        *cpu = rates.of(&name, *cpu);
    }
    rates.forget_before(sample.at);
}

/// Looks at the machine and the kernel. Blocks.
fn look(places: &Places, told: RuntimeReport, at: i64) -> Sample {
    let tree = Tree::at(&places.cgroups);
    let logs_disk = proc::disk_of(&places.logs);
    let image_disk = told.image_mount.as_deref().map(proc::disk_of).unwrap_or_default();
    let logs = Folder::root(&places.logs).ok();
    let images = Disk::part_of(image_disk, told.images.used, told.images.inodes_used);
    let mut sample = Sample { at, node: node(places, &tree, at), images, ..Sample::default() };
    let mut parents = HashMap::new();
    for sandbox in &told.sandboxes {
        let uid = label(&sandbox.labels, POD_UID);
        let parent = pod_cgroup(&tree, places.driver, &uid);
        let stats = told.of_sandboxes.get(&sandbox.id).and_then(|stats| stats.linux.as_ref());
        let own = parent.as_deref().and_then(|parent| cgroup_of(&tree, places.driver, parent, &sandbox.id));
        let cgroup = parent.clone().and_then(|path| Some((path.clone(), tree.read(&path)?)));
        let network = own.as_ref().and_then(|(path, _)| tree.process(path)).map(proc::network_of);
        let told_network = || {
            let told = stats.and_then(|stats| stats.network.as_ref());
            told.map(|network| {
                let all = network.default_interface.iter().chain(&network.interfaces);
                all.map(interface).collect()
            })
        };
        let kernel = cgroup.as_ref().map(|(_, cgroup)| cgroup);
        sample.pods.push(PodUse {
            pod: named(&sandbox.labels),
            sandbox: sandbox.id.clone(),
            created: sandbox.created_at,
            cpu: stats.and_then(|stats| cpu(stats.cpu.as_ref())).or_else(|| cpu_of(kernel, at)),
            memory: memory(stats.and_then(|stats| stats.memory.as_ref()), kernel, at),
            processes: stats
                .and_then(|stats| stats.process.as_ref()?.process_count.as_ref())
                .map(|count| count.value),
            network: network.or_else(told_network).unwrap_or_default(),
            cgroup,
            sandbox_cgroup: own,
            logs: folder_use(logs.as_ref(), &pod_folder(&sandbox.labels), logs_disk),
            uid: uid.clone(),
        });
        parents.insert(uid, parent);
    }
    for container in &told.containers {
        let uid = label(&container.labels, POD_UID);
        let parent = parents.get(&uid).cloned().flatten();
        let own = parent.and_then(|parent| cgroup_of(&tree, places.driver, &parent, &container.id));
        let stats = told.of_containers.get(&container.id);
        let kernel = own.as_ref().map(|(_, cgroup)| cgroup);
        let name = label(&container.labels, CONTAINER_NAME);
        let layer = stats.and_then(|stats| stats.writable_layer.as_ref());
        let amount = |value: Option<&UInt64Value>| value.map(|value| value.value);
        let used = amount(layer.and_then(|layer| layer.used_bytes.as_ref()));
        let inodes = amount(layer.and_then(|layer| layer.inodes_used.as_ref()));
        sample.containers.push(ContainerUse {
            pod: named(&container.labels),
            id: container.id.clone(),
            image: told.image_names.shown(container),
            created: container.created_at,
            cpu: stats.and_then(|stats| cpu(stats.cpu.as_ref())).or_else(|| cpu_of(kernel, at)),
            memory: memory(stats.and_then(|stats| stats.memory.as_ref()), kernel, at),
            swap: kernel.and_then(|kernel| {
                let usage = kernel.swap?;
                Some(Swap { available: kernel.swap_limit.map(|limit| limit.saturating_sub(usage)), usage })
            }),
            rootfs: Disk::part_of(image_disk, used, inodes),
            logs: folder_use(logs.as_ref(), &pod_folder(&container.labels).join(&name), logs_disk),
            cgroup: own,
            name,
            uid,
        });
    }
    sample
}

fn node(places: &Places, tree: &Tree, at: i64) -> NodeUse {
    let machine = proc::machine();
    let mut cgroups = std::collections::BTreeMap::new();
    let classes = CLASSES.iter().map(|class| class_path(places.driver, class));
    for path in ["/".to_owned()].into_iter().chain(classes) {
        if let Some(cgroup) = tree.read(&path) {
            cgroups.insert(path, cgroup);
        }
    }
    let root = cgroups.get("/");
    let counted = root.and_then(|root| root.memory);
    let usage = counted.unwrap_or(machine.memory.saturating_sub(machine.memory_available));
    let working_set = root.and_then(Cgroup::working_set).unwrap_or(usage);
    let memory = Memory {
        at,
        available: Some(machine.memory.saturating_sub(working_set)),
        usage: Some(usage),
        working_set: Some(working_set),
        rss: root.and_then(|root| root.rss),
        page_faults: root.and_then(|root| root.page_faults),
        major_page_faults: root.and_then(|root| root.major_page_faults),
    };
    let usage = root.and_then(|root| root.cpu).unwrap_or(machine.cpu);
    let swap = (machine.swap > 0).then(|| Swap {
        available: Some(machine.swap_free),
        usage: machine.swap.saturating_sub(machine.swap_free),
    });
    NodeUse {
        cpu: Some(Cpu { at, usage, rate: None }),
        memory,
        swap,
        network: proc::network_of_machine(),
        disk: proc::disk_of(&places.root),
        disks: proc::disks_here(),
        cgroups,
        machine,
    }
}

fn label(labels: &HashMap<String, String>, name: &str) -> String {
    labels.get(name).cloned().unwrap_or_default()
}

fn named(labels: &HashMap<String, String>) -> NamespacedName {
    NamespacedName::new(label(labels, POD_NAMESPACE), label(labels, POD_NAME))
}

/// `<namespace>_<name>_<uid>`: the pod's folder of logs.
fn pod_folder(labels: &HashMap<String, String>) -> PathBuf {
    let (namespace, name) = (label(labels, POD_NAMESPACE), label(labels, POD_NAME));
    PathBuf::from(format!("{namespace}_{name}_{}", label(labels, POD_UID)))
}

/// The cgroup of a class of pods.
fn class_path(driver: CgroupDriver, class: &str) -> String {
    match (driver, class) {
        (CgroupDriver::Cgroupfs, "") => format!("/{PODS}"),
        (CgroupDriver::Cgroupfs, class) => format!("/{PODS}/{class}"),
        (CgroupDriver::Systemd, "") => format!("/{PODS}.slice"),
        (CgroupDriver::Systemd, class) => format!("/{PODS}.slice/{PODS}-{class}.slice"),
    }
}

/// A pod's cgroup: that of its class which is there.
fn pod_cgroup(tree: &Tree, driver: CgroupDriver, uid: &str) -> Option<String> {
    let path = |class: &str| {
        let parent = class_path(driver, class);
        match driver {
            CgroupDriver::Cgroupfs => format!("{parent}/pod{uid}"),
            CgroupDriver::Systemd => {
                let class = if class.is_empty() { String::new() } else { format!("-{class}") };
                format!("{parent}/{PODS}{class}-pod{}.slice", uid.replace('-', "_"))
            }
        }
    };
    CLASSES.iter().map(|class| path(class)).find(|path| tree.has(path))
}

/// The cgroup of a container or sandbox in its pod's.
fn cgroup_of(tree: &Tree, driver: CgroupDriver, parent: &str, id: &str) -> Option<(String, Cgroup)> {
    let path = match driver {
        CgroupDriver::Cgroupfs => format!("{parent}/{id}"),
        CgroupDriver::Systemd => format!("{parent}/cri-containerd-{id}.scope"),
    };
    let cgroup = tree.read(&path)?;
    Some((path, cgroup))
}

/// The size of the files directly in a folder of logs.
fn folder_use(logs: Option<&Folder>, at: &Path, disk: Disk) -> Disk {
    let entries = || -> io::Result<(u64, u64)> {
        let Some(logs) = logs else { return Err(io::Error::from(io::ErrorKind::NotFound)) };
        let entries = logs.below(at)?.entries()?;
        let files = entries.iter().filter(|entry| entry.kind == FileType::RegularFile);
        let bytes =
            files.map(|entry| u64::try_from(entry.stat.st_blocks).unwrap_or(0).saturating_mul(512)).sum();
        Ok((bytes, entries.len() as u64 + 1))
    };
    match entries() {
        Ok((bytes, inodes)) => Disk::part_of(disk, Some(bytes), Some(inodes)),
        Err(_) => Disk::part_of(disk, None, None),
    }
}

fn interface(told: &cri::v1::NetworkInterfaceUsage) -> Interface {
    let value = |value: &Option<UInt64Value>| value.as_ref().map_or(0, |value| value.value);
    Interface {
        name: told.name.clone(),
        rx_bytes: value(&told.rx_bytes),
        rx_errors: value(&told.rx_errors),
        tx_bytes: value(&told.tx_bytes),
        tx_errors: value(&told.tx_errors),
        ..Interface::default()
    }
}

fn cpu(told: Option<&CpuUsage>) -> Option<Cpu> {
    let told = told?;
    Some(Cpu { at: told.timestamp, usage: told.usage_core_nano_seconds.as_ref()?.value, rate: None })
}

fn cpu_of(kernel: Option<&Cgroup>, at: i64) -> Option<Cpu> {
    Some(Cpu { at, usage: kernel?.cpu?, rate: None })
}

/// The runtime's word, and where it has none the kernel's.
fn memory(told: Option<&MemoryUsage>, kernel: Option<&Cgroup>, at: i64) -> Option<Memory> {
    if told.is_none() && kernel.is_none() {
        return None;
    }
    let told_value = |of: fn(&MemoryUsage) -> &Option<UInt64Value>| {
        told.and_then(|told| of(told).as_ref()).map(|value| value.value)
    };
    let own = |of: fn(&Cgroup) -> Option<u64>| kernel.and_then(of);
    let working_set = told_value(|told| &told.working_set_bytes).or_else(|| own(Cgroup::working_set));
    let limit = own(|own| own.memory_limit);
    Some(Memory {
        at: told.map_or(at, |told| told.timestamp),
        // Without a limit the runtime says 0.
        available: limit.zip(working_set).map(|(limit, used)| limit.saturating_sub(used)),
        usage: told_value(|told| &told.usage_bytes).or_else(|| own(|own| own.memory)),
        working_set,
        rss: told_value(|told| &told.rss_bytes).or_else(|| own(|own| own.rss)),
        page_faults: told_value(|told| &told.page_faults).or_else(|| own(|own| own.page_faults)),
        major_page_faults: told_value(|told| &told.major_page_faults)
            .or_else(|| own(|own| own.major_page_faults)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pods_cgroup_is_found_by_either_driver() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("cgroup.controllers"), "").unwrap();
        std::fs::create_dir_all(dir.path().join("kubepods/burstable/poda-b/c1")).unwrap();
        let scope = "kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-poda_b.slice/cri-containerd-c2.scope";
        std::fs::create_dir_all(dir.path().join(scope)).unwrap();
        let tree = Tree::at(dir.path());
        let pod = pod_cgroup(&tree, CgroupDriver::Cgroupfs, "a-b").unwrap();
        assert_eq!(pod, "/kubepods/burstable/poda-b");
        assert_eq!(cgroup_of(&tree, CgroupDriver::Cgroupfs, &pod, "c1").unwrap().0, format!("{pod}/c1"));
        let pod = pod_cgroup(&tree, CgroupDriver::Systemd, "a-b").unwrap();
        assert_eq!(cgroup_of(&tree, CgroupDriver::Systemd, &pod, "c2").unwrap().0, format!("/{scope}"));
        assert_eq!(pod_cgroup(&tree, CgroupDriver::Cgroupfs, "x"), None);
    }

    #[test]
    fn memory_is_available_only_where_there_is_a_limit() {
        let told = MemoryUsage {
            timestamp: 5,
            working_set_bytes: Some(UInt64Value { value: 40 }),
            available_bytes: Some(UInt64Value { value: 0 }),
            ..MemoryUsage::default()
        };
        let kernel = Cgroup { memory: Some(60), memory_limit: Some(100), ..Cgroup::default() };
        let both = memory(Some(&told), Some(&kernel), 9).unwrap();
        assert_eq!(
            (both.at, both.working_set, both.usage, both.available),
            (5, Some(40), Some(60), Some(60))
        );
        let unlimited = memory(Some(&told), None, 9).unwrap();
        assert_eq!((unlimited.available, unlimited.usage), (None, None));
        assert_eq!(memory(None, None, 9), None);
    }
}
