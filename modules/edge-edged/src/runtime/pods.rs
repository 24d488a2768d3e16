//! What the runtime has of a pod.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use beehive::defect::{self, Defect};
use cri::Runtime;
use cri::pods::{CONTAINER_NAME, POD_NAME, POD_NAMESPACE, POD_UID};
use cri::v1::{
    Container, ContainerFilter, ContainerState, ContainerStatus, PodSandbox, PodSandboxFilter,
    PodSandboxState,
};
use futures::future::{try_join, try_join_all};

use crate::runtime::container::{GRACE, HASH, MESSAGE_PATH, MESSAGE_POLICY, OWN_HASH};
use crate::runtime::sandbox::NODE;

/// Instances of one container that are looked at, those of the latest attempts: ours remove what is older.
const INSTANCES_MAX: usize = 16;
/// Names of containers of one pod that are looked at. An API server takes a pod of 1.5 MiB at the most.
const NAMES_MAX: usize = 512;
/// Kubernetes' bound of a message.
const MESSAGE_MAX: usize = 4096;
/// Longer reasons, names and references are cut: they go into the pod's status.
const WORD_MAX: usize = 512;
/// A pod has one or two.
const IPS_MAX: usize = 16;
/// Groups of a container's user that are told.
const GROUPS_MAX: usize = 256;

/// What a runtime says is passed on, but not without end.
fn cut(text: &str, max: usize) -> String {
    let mut end = text.len().min(max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

/// A sandbox as the runtime lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RuntimeSandbox {
    pub(crate) id: String,
    pub(crate) attempt: u32,
    pub(crate) ready: bool,
    /// Which of the runtime's handlers it was made with; that of pods without a class has no name.
    pub(crate) handler: String,
}

/// Where a container is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RuntimeState {
    Created,
    Running,
    Exited,
    /// The runtime has lost it.
    Unknown,
}

impl RuntimeState {
    /// Whether nothing of it runs any more.
    pub(crate) fn has_ended(self) -> bool {
        match self {
            RuntimeState::Exited | RuntimeState::Unknown => true,
            RuntimeState::Created | RuntimeState::Running => false,
        }
    }
}

/// One instance of a container. Times in nanoseconds since 1970, by the runtime's clock and for people only; 0: not yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RuntimeContainer {
    pub(crate) id: String,
    pub(crate) sandbox: String,
    pub(crate) name: String,
    pub(crate) attempt: u32,
    pub(crate) state: RuntimeState,
    pub(crate) started_at: i64,
    pub(crate) finished_at: i64,
    pub(crate) exit_code: i32,
    pub(crate) reason: String,
    pub(crate) message: String,
    pub(crate) image: String,
    pub(crate) image_ref: String,
    /// What it was made of, as whoever made it reckons that.
    pub(crate) hash: Option<MadeOf>,
    /// `terminationMessagePath` and its policy, as they were at the start.
    pub(crate) message_path: String,
    pub(crate) message_policy: String,
    /// As whom it was started, where the runtime says it (containerd from 2.0 on).
    pub(crate) user: Option<ContainerUser>,
}

/// What a container was made of, as a hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MadeOf {
    /// By Edged's own reckoning.
    Own(u64),
    /// By the annotation that kubelets write, and the first Edged, too: the container may be of KubeEdge's edged.
    Kubelet(u64),
}

/// As whom a container's first process is started.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ContainerUser {
    pub(crate) uid: i64,
    pub(crate) gid: i64,
    pub(crate) groups: Vec<i64>,
}

/// Everything of one pod, the latest attempts first. What is newer is decided by the attempt that Edged gave it
/// (`metadata.attempt` of the CRI) and never by the runtime's clock, which may have been set back.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct RuntimePod {
    pub(crate) sandboxes: Vec<RuntimeSandbox>,
    pub(crate) containers: Vec<RuntimeContainer>,
    /// Of the newest sandbox.
    pub(crate) ips: Vec<String>,
}

impl RuntimePod {
    /// The newest sandbox, when it is ready.
    pub(crate) fn ready_sandbox(&self) -> Option<&RuntimeSandbox> {
        self.sandboxes.first().filter(|sandbox| sandbox.ready)
    }

    /// The newest instance of a container.
    pub(crate) fn newest(&self, name: &str) -> Option<&RuntimeContainer> {
        self.containers.iter().find(|container| container.name == name)
    }

    /// The newest instance of a container in a sandbox.
    pub(crate) fn newest_in(&self, name: &str, sandbox: &str) -> Option<&RuntimeContainer> {
        self.containers.iter().find(|container| container.name == name && container.sandbox == sandbox)
    }

    /// The newest instance of a container before an attempt.
    pub(crate) fn before(&self, name: &str, attempt: u32) -> Option<&RuntimeContainer> {
        self.containers.iter().find(|container| container.name == name && container.attempt < attempt)
    }

    /// The instance before the newest.
    pub(crate) fn previous(&self, name: &str) -> Option<&RuntimeContainer> {
        self.containers.iter().filter(|container| container.name == name).nth(1)
    }
}

/// What need not be asked twice: how an instance is cannot change within one state, nor a sandbox's addresses.
#[derive(Debug, Default)]
pub(crate) struct StatusCache {
    containers: BTreeMap<(String, i32), RuntimeContainer>,
    ips: Option<(String, Vec<String>)>,
}

/// Looks at one pod. A container that vanishes meanwhile is left out.
pub(crate) async fn get_pod(
    runtime: &Arc<dyn Runtime>,
    uid: &str,
    known: &mut StatusCache,
) -> Result<RuntimePod, cri::Error> {
    let by_uid = || HashMap::from([(POD_UID.to_owned(), uid.to_owned())]);
    let sandboxes =
        runtime.list_sandboxes(PodSandboxFilter { label_selector: by_uid(), ..Default::default() });
    let containers =
        runtime.list_containers(ContainerFilter { label_selector: by_uid(), ..Default::default() });
    let (mut sandboxes, mut containers) = try_join(sandboxes, containers).await?;
    keep_latest(&mut containers);

    if defect::is_planted(Defect::OrderByClock) {
        sandboxes.sort_by_key(|sandbox| std::cmp::Reverse(sandbox.created_at));
    } else {
        sandboxes.sort_by_key(|sandbox| {
            let attempt = sandbox.metadata.as_ref().map_or(0, |metadata| metadata.attempt);
            std::cmp::Reverse((attempt, sandbox.state() == PodSandboxState::SandboxReady, sandbox.id.clone()))
        });
    }
    let sandboxes: Vec<RuntimeSandbox> = sandboxes.iter().map(sandbox_of).collect();
    let listed: BTreeMap<(String, i32), &Container> =
        containers.iter().map(|container| ((container.id.clone(), container.state), container)).collect();
    known.containers.retain(|key, _| listed.contains_key(key));
    let unknown = listed.keys().filter(|key| !known.containers.contains_key(*key)).map(|(id, _)| id.clone());
    let asked = try_join_all(unknown.map(|id| async move {
        match runtime.container_status(&id).await {
            Ok(status) => Ok(Some(status)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }))
    .await?;
    for status in asked.into_iter().flatten() {
        let sandbox = containers.iter().find(|container| container.id == status.id);
        let seen = container_of(&status, sandbox.map_or("", |container| &container.pod_sandbox_id));
        known.containers.insert((status.id.clone(), status.state), seen);
    }
    let mut containers: Vec<RuntimeContainer> = known.containers.values().cloned().collect();
    containers.sort_by(|a, b| (b.attempt, &b.id).cmp(&(a.attempt, &a.id)));
    // Two states of one instance, when it changed between the list and the question: the later one counts.
    containers.dedup_by(|a, b| a.id == b.id);

    let ips = match sandboxes.first() {
        Some(first) => addresses(runtime, first, known).await?,
        None => Vec::new(),
    };
    Ok(RuntimePod { sandboxes, containers, ips })
}

/// Of each container the instances of the latest attempts, so that one which restarts without end hides no other.
fn keep_latest(containers: &mut Vec<Container>) {
    let place = |container: &Container| {
        container.metadata.as_ref().map_or((String::new(), 0), |own| (own.name.clone(), own.attempt))
    };
    containers.sort_by_cached_key(|container| {
        let (name, attempt) = place(container);
        (name, std::cmp::Reverse(attempt), container.id.clone())
    });
    let mut kept: BTreeMap<String, usize> = BTreeMap::new();
    containers.retain(|container| {
        let (name, _) = place(container);
        if !kept.contains_key(&name) && kept.len() >= NAMES_MAX {
            return false;
        }
        let count = kept.entry(name).or_default();
        *count += 1;
        *count <= INSTANCES_MAX
    });
}

async fn addresses(
    runtime: &Arc<dyn Runtime>,
    sandbox: &RuntimeSandbox,
    known: &mut StatusCache,
) -> Result<Vec<String>, cri::Error> {
    if let Some((id, ips)) = &known.ips
        && *id == sandbox.id
    {
        return Ok(ips.clone());
    }
    if !sandbox.ready {
        return Ok(Vec::new());
    }
    let status = match runtime.sandbox_status(&sandbox.id).await {
        Ok(status) => status,
        Err(error) if error.is_not_found() => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let network = status.network.unwrap_or_default();
    let more = network.additional_ips.into_iter().map(|ip| ip.ip);
    // They go into files of the pod and into its status, so they are addresses and nothing else.
    let is_address = |ip: &String| ip.parse::<std::net::IpAddr>().is_ok();
    let ips: Vec<String> = std::iter::once(network.ip).chain(more).filter(is_address).take(IPS_MAX).collect();
    known.ips = Some((sandbox.id.clone(), ips.clone()));
    Ok(ips)
}

fn sandbox_of(sandbox: &PodSandbox) -> RuntimeSandbox {
    RuntimeSandbox {
        id: sandbox.id.clone(),
        attempt: sandbox.metadata.as_ref().map_or(0, |metadata| metadata.attempt),
        ready: sandbox.state() == PodSandboxState::SandboxReady,
        handler: cut(&sandbox.runtime_handler, WORD_MAX),
    }
}

pub(crate) fn container_of(status: &ContainerStatus, sandbox: &str) -> RuntimeContainer {
    let note = |key: &str| status.annotations.get(key).cloned().unwrap_or_default();
    let life = match status.state() {
        ContainerState::ContainerCreated => RuntimeState::Created,
        ContainerState::ContainerRunning => RuntimeState::Running,
        ContainerState::ContainerExited => RuntimeState::Exited,
        ContainerState::ContainerUnknown => RuntimeState::Unknown,
    };
    let metadata = status.metadata.clone().unwrap_or_default();
    RuntimeContainer {
        id: status.id.clone(),
        sandbox: sandbox.to_owned(),
        name: status.labels.get(CONTAINER_NAME).cloned().unwrap_or(metadata.name),
        attempt: metadata.attempt,
        state: life,
        started_at: status.started_at,
        finished_at: status.finished_at,
        exit_code: status.exit_code,
        reason: cut(&status.reason, WORD_MAX),
        message: cut(&status.message, MESSAGE_MAX),
        image: status.image.as_ref().map(|image| cut(&image.image, WORD_MAX)).unwrap_or_default(),
        image_ref: cut(&status.image_ref, WORD_MAX),
        hash: hash_of(&note(OWN_HASH), &note(HASH)),
        message_path: note(MESSAGE_PATH),
        message_policy: note(MESSAGE_POLICY),
        user: status.user.as_ref().and_then(|user| user.linux.as_ref()).map(user_of),
    }
}

fn hash_of(own: &str, kubelets: &str) -> Option<MadeOf> {
    let number = |text: &str| u64::from_str_radix(text, 16).ok();
    number(own).map(MadeOf::Own).or_else(|| number(kubelets).map(MadeOf::Kubelet))
}

fn user_of(user: &cri::v1::LinuxContainerUser) -> ContainerUser {
    let groups = user.supplemental_groups.iter().copied().take(GROUPS_MAX).collect();
    ContainerUser { uid: user.uid, gid: user.gid, groups }
}

/// A pod of which the runtime, or the disk, has something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ListedPod {
    pub(crate) namespace: String,
    pub(crate) name: String,
    /// Changes whenever a sandbox or container of the pod comes, goes or changes its state.
    pub(crate) fingerprint: Vec<(String, i32)>,
    /// Its sandbox does, or a container.
    pub(crate) runs: bool,
    /// The longest grace that one of its containers was started with, in seconds.
    pub(crate) grace: Option<u32>,
}

/// Everything in the runtime that is of this node, by pod uid. What carries no node's name, as of a kubelet, is of this one where its
/// pod is among the `adopted`.
pub(crate) async fn get_pods(
    runtime: &Arc<dyn Runtime>,
    node: &str,
    adopted: &BTreeSet<String>,
) -> Result<BTreeMap<String, ListedPod>, cri::Error> {
    let own = || match adopted.is_empty() {
        true => HashMap::from([(NODE.to_owned(), node.to_owned())]),
        // There is no selector for what lacks a label.
        false => HashMap::new(),
    };
    let is_own = |labels: &HashMap<String, String>, uid: &str| match labels.get(NODE) {
        Some(named) => named == node,
        None => adopted.contains(uid),
    };
    let sandboxes = runtime.list_sandboxes(PodSandboxFilter { label_selector: own(), ..Default::default() });
    let containers = runtime.list_containers(ContainerFilter { label_selector: own(), ..Default::default() });
    let (sandboxes, containers) = try_join(sandboxes, containers).await?;
    let mut found: BTreeMap<String, ListedPod> = BTreeMap::new();
    let sandboxes = sandboxes.into_iter().map(|sandbox| {
        let runs = sandbox.state == PodSandboxState::SandboxReady as i32;
        (sandbox.labels, sandbox.id, sandbox.state, runs, None)
    });
    let containers = containers.into_iter().map(|container| {
        let runs = container.state == ContainerState::ContainerRunning as i32;
        let grace = container.annotations.get(GRACE).and_then(|seconds| seconds.parse().ok());
        (container.labels, container.id, container.state, runs, grace)
    });
    for (labels, id, state, runs, grace) in sandboxes.chain(containers) {
        let label = |key: &str| labels.get(key).cloned().unwrap_or_default();
        let uid = label(POD_UID);
        if !crate::pod::parsed_pod::is_path_safe(&uid) || !is_own(&labels, &uid) {
            continue;
        }
        // They become parts of paths, too.
        let safe = |key: &str| Some(label(key)).filter(|name| crate::pod::parsed_pod::is_path_safe(name));
        let entry = found.entry(uid).or_insert_with(|| ListedPod {
            namespace: safe(POD_NAMESPACE).unwrap_or_default(),
            name: safe(POD_NAME).unwrap_or_default(),
            fingerprint: Vec::new(),
            runs: false,
            grace: None,
        });
        entry.fingerprint.push((id, state));
        entry.runs |= runs;
        entry.grace = entry.grace.max(grace);
    }
    for pod in found.values_mut() {
        pod.fingerprint.sort();
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use cri::v1::ContainerMetadata;

    #[test]
    fn one_that_restarts_without_end_hides_no_other() {
        let container = |name: &str, attempt: u32| Container {
            id: format!("{name}-{attempt}"),
            metadata: Some(ContainerMetadata { name: name.to_owned(), attempt }),
            // As after the clock was set back.
            created_at: -i64::from(attempt),
            ..Container::default()
        };
        let mut all: Vec<Container> = (0..1000).map(|attempt| container("crashes", attempt)).collect();
        all.push(container("runs", 0));
        keep_latest(&mut all);
        let ids: Vec<&str> = all.iter().map(|container| container.id.as_str()).collect();
        assert_eq!((ids.len(), ids[0], ids[INSTANCES_MAX]), (INSTANCES_MAX + 1, "crashes-999", "runs-0"));
    }

    #[test]
    fn what_a_hostile_runtime_says_is_cut() {
        let status = ContainerStatus {
            id: "c".to_owned(),
            reason: "é".repeat(1 << 20),
            message: "x".repeat(1 << 20),
            image_ref: "r".repeat(1 << 20),
            user: Some(cri::v1::ContainerUser {
                linux: Some(cri::v1::LinuxContainerUser {
                    uid: 7,
                    gid: 8,
                    supplemental_groups: vec![9; 1 << 20],
                }),
            }),
            ..ContainerStatus::default()
        };
        let seen = container_of(&status, "s");
        assert!(seen.reason.len() <= WORD_MAX && seen.message.len() == MESSAGE_MAX);
        assert_eq!(seen.image_ref.len(), WORD_MAX);
        let user = seen.user.unwrap();
        assert_eq!((user.uid, user.gid, user.groups.len()), (7, 8, GROUPS_MAX));
        assert_eq!(cut("aé", 2), "a");
    }
}
