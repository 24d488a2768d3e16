//! What the node has left, and what its pods use.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use apimachinery::Quantity;
use beehive::{Env, Moment};
use contract::pod_status::is_terminal;
use cri::pods::{CONTAINER_NAME, POD_UID};
use cri::v1::{ContainerStats, ContainerStatsFilter, PodSandboxStats, PodSandboxStatsFilter};
use futures::future::join_all;
use k8s_openapi::api::core::v1::Container;

use super::limits::Limits;
use super::rank::{ContainerUse, PodStats, PodUse, Usage, VolumeUse};
use super::signal::{Observed, Signal};
use crate::dependencies::{Dependencies, blocking};
use crate::disk::beneath::{Counted, Folder};
use crate::disk::layout;
use crate::disk::removal::in_turn;
use crate::error::StepError;
use crate::events;
use crate::images::collector;
use crate::node::machine;
use crate::pod::parsed_pod::ParsedPod;
use crate::runtime::demand;
use crate::runtime::kubepods;

/// Entries that are counted at a turn of the disk's: some 10 ms.
const SLICE: usize = 1000;
/// 10 s, a kubelet's time between two looks: so long it is counted what pods have on the disk before one has to go.
const COUNTED_WITHIN: Duration = Duration::from_secs(10);
/// 200 ms before a runtime is asked again that did not answer what pods use, once.
const ASKED_AGAIN_AFTER: [Duration; 1] = [Duration::from_millis(200)];

/// One look at the node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Observation {
    pub(super) observed: Vec<Observed>,
    /// The images have a file system of their own.
    pub(super) own_imagefs: bool,
}

/// Looks at the node. What cannot be measured is left out.
pub(super) async fn observe(deps: &Rc<Dependencies>) -> Observation {
    let root = deps.settings.root.clone();
    // The PLEG warns of a runtime that does not answer.
    let images = collector::images_mount(deps).await.ok();
    let settings = &deps.settings;
    let (driver, cgroup, reserved) =
        (settings.cgroup_driver, settings.cgroup_root.clone(), settings.reserved.memory);
    let cgroups = settings.cgroups.clone();
    let look = move || {
        let mut observation = look(&root, images.as_deref());
        let pods = kubepods::working_set_of_pods(&cgroups, driver, &cgroup);
        let whole = observation.observed.iter().find(|own| own.signal == Signal::Memory);
        if let (Some(used), Some(whole)) = (pods, whole) {
            let capacity = whole.capacity.saturating_sub(reserved);
            let available = capacity.saturating_sub(used);
            observation.observed.push(Observed { signal: Signal::AllocatableMemory, available, capacity });
        }
        Ok(observation)
    };
    match blocking(&deps.env, "look at the node's disks and memory", look).await {
        Ok(observation) => observation,
        Err(error) => {
            if deps.is_news("measurement", &error) {
                events::node_not_measured(&deps.env, &error);
            }
            Observation::default()
        }
    }
}

fn look(root: &Path, images: Option<&Path>) -> Observation {
    let load = machine::load();
    let mut observed = vec![
        Observed { signal: Signal::Memory, available: load.memory_available, capacity: load.memory },
        Observed {
            signal: Signal::PidAvailable,
            available: load.pids_max.saturating_sub(load.pids),
            capacity: load.pids_max,
        },
    ];
    let node = machine::disk_of(root);
    let images = images.map(machine::disk_of);
    let mut disk = |disk: machine::Disk, room: Signal, inodes: Signal| {
        observed.push(Observed { signal: room, available: disk.available, capacity: disk.size });
        observed.push(Observed { signal: inodes, available: disk.inodes_free, capacity: disk.inodes });
    };
    disk(node, Signal::NodefsAvailable, Signal::NodefsInodesFree);
    if let Some(images) = images {
        disk(images, Signal::ImagefsAvailable, Signal::ImagefsInodesFree);
    }
    // Some file systems count no inodes.
    observed.retain(|observed| observed.capacity > 0);
    Observation { observed, own_imagefs: images.is_some_and(|images| images.device != node.device) }
}

/// What the runtime says of what pods and containers use, by the pod's uid.
#[derive(Default)]
struct RuntimeStats {
    pods: HashMap<String, PodSandboxStats>,
    containers: HashMap<(String, String), ContainerStats>,
}

/// What the runtime says now; `None`: it does not, and of no pod it is known what it uses.
async fn ask(deps: &Rc<Dependencies>) -> Option<RuntimeStats> {
    for pause in ASKED_AGAIN_AFTER {
        match ask_once(deps).await {
            Ok(told) => return Some(told),
            // A sandbox that has just ended may have failed the whole answer.
            Err(error) => tracing::debug!(%error, "the runtime does not say what pods use"),
        }
        deps.env.sleep(pause).await;
    }
    let told = ask_once(deps).await;
    let unknown = |error: &cri::Error| {
        if deps.is_news("use of pods", error) {
            events::use_unknown(&deps.env, error);
        }
    };
    told.inspect_err(unknown).ok()
}

async fn ask_once(deps: &Rc<Dependencies>) -> Result<RuntimeStats, cri::Error> {
    let runtime = &deps.runtime;
    let (pods, containers) = tokio::try_join!(
        runtime.sandbox_stats(PodSandboxStatsFilter::default()),
        runtime.container_stats(ContainerStatsFilter::default()),
    )?;
    let mut told = RuntimeStats::default();
    for stats in pods {
        let labels = stats.attributes.as_ref().map(|attributes| &attributes.labels);
        if let Some(uid) = labels.and_then(|labels| labels.get(POD_UID)).cloned() {
            told.pods.insert(uid, stats);
        }
    }
    for stats in containers {
        let labels = stats.attributes.as_ref().map(|attributes| &attributes.labels);
        let label = |key: &str| labels.and_then(|labels| labels.get(key)).cloned();
        if let (Some(uid), Some(name)) = (label(POD_UID), label(CONTAINER_NAME)) {
            told.containers.insert((uid, name), stats);
        }
    }
    Ok(told)
}

/// What the pods use that have not ended. `with_disk`: what they have on the disk is counted, too, of all beside each other and not for
/// long: what was found of the largest by then is the most, and a node that has no room left does not wait for its last file. Whose
/// cannot be counted is left out. `None`: the runtime does not say, and whoever had to go would go by chance.
pub(super) async fn pods(deps: &Rc<Dependencies>, with_disk: bool) -> Option<Vec<(Arc<ParsedPod>, PodUse)>> {
    let told = ask(deps).await?;
    let until = Some(deps.now() + COUNTED_WITHIN);
    let counts = active(deps).map(async |pod| {
        let on_disk = if with_disk { count(deps, &pod, until).await } else { Some(OnDisk::default()) };
        on_disk.map(|on_disk| (pod, on_disk))
    });
    let counted = join_all(counts).await.into_iter().flatten();
    let all = counted.map(|(pod, on_disk)| {
        let used = use_of(&pod, &told, on_disk);
        (pod, used)
    });
    Some(all.collect())
}

/// The pods that use more of the disk than they may, and the words for that.
pub(super) async fn over_limits(deps: &Rc<Dependencies>, own_imagefs: bool) -> Vec<(Arc<ParsedPod>, String)> {
    let watched = |pod: Arc<ParsedPod>| Limits::of(&pod).map(|limits| (pod, limits));
    let watched: Vec<(Arc<ParsedPod>, Limits)> = active(deps).filter_map(watched).collect();
    if watched.is_empty() {
        return Vec::new();
    }
    let Some(told) = ask(deps).await else { return Vec::new() };
    let mut over = Vec::new();
    for (pod, limits) in watched {
        let Some(on_disk) = count(deps, &pod, None).await else { continue };
        if let Some(words) = limits.exceeded(&use_of(&pod, &told, on_disk), own_imagefs) {
            over.push((pod, words));
        }
    }
    over
}

/// The pods that have not ended.
fn active(deps: &Rc<Dependencies>) -> impl Iterator<Item = Arc<ParsedPod>> {
    let active: Vec<Arc<ParsedPod>> = deps.active_pods.borrow().clone();
    let deps = Rc::clone(deps);
    active.into_iter().filter(move |pod| {
        let status = deps.store.reported.of(&pod.id.uid).status;
        !status.is_some_and(|status| status.phase.as_deref().is_some_and(is_terminal))
    })
}

/// What of a pod is on the disk.
#[derive(Default)]
struct OnDisk {
    /// By the volume's name.
    volumes: BTreeMap<String, VolumeUse>,
    /// By the container's name.
    logs: BTreeMap<String, Usage>,
}

fn use_of(pod: &ParsedPod, told: &RuntimeStats, on_disk: OnDisk) -> PodUse {
    let uid = pod.id.uid.clone();
    let spec = pod.spec();
    let value = |value: Option<&cri::v1::UInt64Value>| value.map(|value| value.value);
    let stats = told.pods.get(&uid).and_then(|stats| stats.linux.as_ref()).map(|linux| PodStats {
        memory: value(linux.memory.as_ref().and_then(|memory| memory.working_set_bytes.as_ref()))
            .unwrap_or(0),
        processes: value(linux.process.as_ref().and_then(|process| process.process_count.as_ref()))
            .unwrap_or(0),
        volumes: on_disk.volumes,
    });
    let containers = pod.init_containers().chain(&spec.containers).filter_map(|container| {
        let stats = told.containers.get(&(uid.clone(), container.name.clone()))?;
        let layer = stats.writable_layer.as_ref();
        let bytes = value(layer.and_then(|layer| layer.used_bytes.as_ref()));
        let inodes = value(layer.and_then(|layer| layer.inodes_used.as_ref()));
        Some(ContainerUse {
            name: container.name.clone(),
            memory_request: request(container, "memory"),
            disk_request: request(container, "ephemeral-storage"),
            memory: value(stats.memory.as_ref().and_then(|memory| memory.working_set_bytes.as_ref())),
            rootfs: bytes.map(|bytes| Usage { bytes, inodes: inodes.unwrap_or(0) }),
            logs: on_disk.logs.get(&container.name).copied(),
        })
    });
    let memory_request = demand::of_pod(spec).remove("memory").unwrap_or(0);
    let disk = |container: &Container| request(container, "ephemeral-storage");
    let most = pod.init_containers().map(disk).max().unwrap_or(0);
    PodUse {
        priority: spec.priority.unwrap_or(0),
        memory_request: u64::try_from(memory_request).unwrap_or(0),
        disk_request: spec.containers.iter().map(disk).fold(0, u64::saturating_add).max(most),
        stats,
        containers: containers.collect(),
        uid,
    }
}

fn request(container: &Container, resource: &str) -> u64 {
    let requests = container.resources.as_ref().and_then(|resources| resources.requests.as_ref());
    let amount = requests.and_then(|requests| requests.get(resource)?.0.parse::<Quantity>().ok());
    amount.and_then(|amount| u64::try_from(amount.units()).ok()).unwrap_or(0)
}

/// The pod's volumes that lie on the disk, its emptyDirs in memory, and its containers' logs. Secrets and tokens lie in memory, too, and
/// are bounded there. `until`: see [`count_at`]. `None`: the node itself was not able to count it this time.
async fn count(deps: &Rc<Dependencies>, pod: &ParsedPod, until: Option<Moment>) -> Option<OnDisk> {
    let counted = count_all(deps, pod, until).await;
    let unknown = |error: &StepError| {
        if deps.is_news(&format!("disk of pod {}", pod.id.uid), error) {
            events::pod_disk_unknown(&deps.env, &pod.id, error);
        }
    };
    counted.inspect_err(unknown).ok()
}

async fn count_all(
    deps: &Rc<Dependencies>,
    pod: &ParsedPod,
    until: Option<Moment>,
) -> Result<OnDisk, StepError> {
    let (env, root, logs) = (&deps.env, &deps.settings.root, &deps.settings.logs);
    let mut found = OnDisk::default();
    for volume in pod.spec().volumes.iter().flatten() {
        let medium = volume.empty_dir.as_ref().map(|source| source.medium.as_deref().unwrap_or_default());
        let (kind, is_on_disk) = match medium {
            Some(medium) => ("empty-dir", medium.is_empty()),
            None if volume.config_map.is_some() => ("configmap", true),
            None if volume.downward_api.is_some() => ("downward-api", true),
            None => continue,
        };
        let at = layout::volume(&pod.id.uid, kind, &volume.name);
        let usage = count_at(env, root.clone(), at, until).await?;
        found.volumes.insert(volume.name.clone(), VolumeUse { usage, is_on_disk });
    }
    let names = pod.init_containers().chain(&pod.spec().containers).map(|container| container.name.clone());
    for name in names {
        let at = layout::pod_logs(&pod.id).join(&name);
        found.logs.insert(name, count_at(env, logs.clone(), at, until).await?);
    }
    Ok(found)
}

/// Counts what is below `at`, slice by slice. Where that takes beyond `until` it is what was counted by then, and one slice at least.
pub(crate) async fn count_at(
    env: &Env,
    root: PathBuf,
    at: PathBuf,
    until: Option<Moment>,
) -> Result<Usage, StepError> {
    let begin = move || Folder::find_root(&root)?.map_or(Ok(None), |root| root.count(&at));
    let Some(mut count) = in_turn(env, begin).await? else { return Ok(Usage::default()) };
    loop {
        let step = move || count.go_on(SLICE).map(|over| (count, over));
        let (further, over) = in_turn(env, step).await?;
        if over || until.is_some_and(|until| until <= env.now()) {
            let Counted { bytes, inodes } = further.counted();
            return Ok(Usage { bytes, inodes });
        }
        count = further;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_counted_in_time_is_as_much_as_was_found_by_then() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("v")).unwrap();
        let all = 4 * SLICE;
        for name in 0..all {
            std::fs::write(dir.path().join("v").join(name.to_string()), "").unwrap();
        }
        actix_rt::System::new().block_on(async {
            let env = Env::real();
            let count = |until| count_at(&env, dir.path().to_owned(), "v".into(), until);
            let whole = count(None).await.unwrap().inodes;
            assert_eq!(whole, all as u64 + 1);
            let by_now = count(Some(env.now())).await.unwrap().inodes;
            assert!(by_now > 1 && by_now < whole, "{by_now}");
        });
    }
}
