//! Whether a pod may run on this node: the kubelet's admission, with its reasons and words. Pure.

use std::collections::{BTreeMap, BTreeSet};

use apimachinery::names::is_extended_resource;
use contract::containermanager::DeviceCount;
use k8s_openapi::api::core::v1::Taint;

use crate::pod::host_ports::HostPorts;
use crate::pod::left::Left;
use crate::pod::node_match;
use crate::pod::parsed_pod::ParsedPod;
use crate::pod::plan::Intent;
use crate::pod::preemption::{self, PODS, PREEMPTED, Standing};
use crate::runtime::app_armor;
use crate::runtime::demand::{self, Amounts};
use crate::runtime::huge_pages;
use crate::runtime::sysctls::Sysctls;
use crate::shutdown::plan::REFUSED;

/// The operating system whose pods run here.
const OS: &str = "linux";

/// What the node has to give.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Capacity {
    pub(crate) pods: u64,
    pub(crate) cpu_milli: u64,
    pub(crate) memory: u64,
    pub(crate) ephemeral_storage: u64,
    /// Bytes of huge pages, by the resources of their sizes.
    pub(crate) huge_pages: BTreeMap<String, u64>,
    /// The extended resources that plugins have.
    pub(crate) devices: BTreeMap<String, DeviceCount>,
    /// Which these are is not known yet.
    pub(crate) devices_unknown: bool,
    /// The extended resources that the Node has. Of what no plugin has, these count, as operators wrote them there.
    pub(crate) of_node: BTreeMap<String, u64>,
}

impl Capacity {
    /// What there is of a resource; of one that the node does not have, nothing.
    pub(crate) fn of(&self, resource: &str) -> i64 {
        let amount = match resource {
            PODS => self.pods,
            "cpu" => self.cpu_milli,
            "memory" => self.memory,
            "ephemeral-storage" => self.ephemeral_storage,
            name if name.starts_with(huge_pages::PREFIX) => self.huge_pages.get(name).copied().unwrap_or(0),
            name => match self.devices.get(name) {
                // Whoever asks for devices whose plugin may yet come waits for it.
                Some(devices) if devices.is_awaited => u64::MAX,
                Some(devices) => devices.allocatable,
                None if self.devices_unknown && is_extended_resource(name) => u64::MAX,
                None => self.of_node.get(name).copied().unwrap_or(0),
            },
        };
        i64::try_from(amount).unwrap_or(i64::MAX)
    }
}

/// What the node is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NodeTraits<'a> {
    pub(crate) name: &'a str,
    pub(crate) labels: &'a BTreeMap<String, String>,
    pub(crate) taints: &'a [Taint],
    pub(crate) sysctls: &'a Sysctls,
    /// Whether the host has AppArmor.
    pub(crate) app_armor: bool,
    /// The machine is about to end.
    pub(crate) shutting_down: bool,
    /// What the runtime can do; `None` while it has not said.
    pub(crate) features: Option<cri::Features>,
}

/// What is known of a pod from before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum History {
    /// Nothing.
    New,
    /// It was admitted here.
    Admitted,
    /// It has ended for good.
    Ended,
}

/// Takes the pods one after another, the ones that have started before first.
#[derive(Debug)]
pub(crate) struct Admission<'a> {
    room: Capacity,
    node: NodeTraits<'a>,
    used: Amounts,
    ports: HostPorts,
    /// Those that run, by their uids.
    running: Vec<(String, Standing)>,
    /// The uids of those that had to make room.
    preempted: BTreeSet<String>,
    /// What is left of those that have a worker, by uid.
    left: Option<&'a BTreeMap<String, Left>>,
}

/// Why a pod is turned away: the reason and the message of its status.
type Refusal = (String, String);

impl<'a> Admission<'a> {
    pub(crate) fn new(room: Capacity, node: NodeTraits<'a>) -> Self {
        let (used, ports) = (Amounts::new(), HostPorts::default());
        Admission { room, node, used, ports, running: Vec::new(), preempted: BTreeSet::new(), left: None }
    }

    /// Beside what is left of the pods that have a worker, by uid.
    pub(crate) fn beside(self, left: &'a BTreeMap<String, Left>) -> Self {
        Admission { left: Some(left), ..self }
    }

    /// What is to become of a pod. One that was admitted before stays so.
    pub(crate) fn decide(&mut self, pod: &ParsedPod, history: History) -> Intent {
        if pod.is_terminating() {
            // Until the runtime has nothing of it any more it has what it has; its object may stay for as long as the cloud is away.
            let own = self.left.and_then(|left| left.get(&pod.id.uid));
            if history == History::Admitted && Left::holds(own, true) {
                self.take(pod);
            }
            return Intent::Terminate;
        }
        // What has ended stays as it ended, whatever it asks for.
        if history == History::Ended {
            return Intent::Run;
        }
        if let Some(message) = pod.review.refused_message() {
            return Intent::Hold { reason: "FieldsNotSupported".to_owned(), message };
        }
        if history == History::New
            && let Some((reason, message)) = self.refusal(pod)
        {
            return Intent::Fail { reason, message: format!("Pod was rejected: {message}") };
        }
        let standing = self.take(pod);
        self.running.push((pod.id.uid.clone(), standing));
        Intent::Run
    }

    /// What has become of the pods that had to make room for a critical one: by now they have failed.
    pub(crate) fn preempted(&self) -> impl Iterator<Item = (&str, Intent)> {
        let failed = || Intent::Fail {
            reason: PREEMPTED.to_owned(),
            message: "Preempted in order to admit critical pod".to_owned(),
        };
        self.preempted.iter().map(move |uid| (uid.as_str(), failed()))
    }

    fn take(&mut self, pod: &ParsedPod) -> Standing {
        let standing = Standing::of(pod);
        demand::add(&mut self.used, &standing.has);
        self.ports.add(HostPorts::of_pod(pod.spec()));
        standing
    }

    /// The first of the kubelet's checks that the pod does not pass.
    fn refusal(&mut self, pod: &ParsedPod) -> Option<Refusal> {
        let refusal = |reason: &str, message: &str| Some((reason.to_owned(), message.to_owned()));
        if self.node.shutting_down {
            return refusal(REFUSED.0, REFUSED.1);
        }
        if let Some(forbidden) = self.node.sysctls.refusal(pod.spec()) {
            return refusal("SysctlForbidden", &forbidden);
        }
        let shortage = self.shortage(pod);
        let found = if shortage.is_some() && pod.is_critical() {
            // Too little is no reason to turn a critical pod away: others make room, if nothing else is in its way.
            self.other_kind(pod).or_else(|| self.unfit(pod)).or_else(|| self.make_room(pod))
        } else {
            self.other_kind(pod).or(shortage).or_else(|| self.unfit(pod))
        };
        if found.is_some() {
            return found;
        }
        if app_armor::is_wanted(pod) && !self.node.app_armor {
            return refusal("AppArmor", "Cannot enforce AppArmor: AppArmor is not enabled on the host");
        }
        None
    }

    /// Ends other pods for a critical one.
    fn make_room(&mut self, pod: &ParsedPod) -> Option<Refusal> {
        let standing = Standing::of(pod);
        let missing = standing.has.iter().map(|(name, wanted)| {
            let left = self.room.of(name).saturating_sub(self.used.get(name).copied().unwrap_or(0));
            (name.clone(), wanted.saturating_sub(left))
        });
        let short: Amounts = missing.filter(|(_, amount)| *amount > 0).collect();
        let running: Vec<&Standing> = self.running.iter().map(|(_, standing)| standing).collect();
        let victims = match preemption::victims(&standing, &running, &short) {
            Ok(victims) => victims,
            Err(error) => {
                let why = "Unexpected error while attempting to recover from admission failure";
                return Some(("UnexpectedAdmissionError".to_owned(), format!("{why}: {error}")));
            }
        };
        let mut victims: Vec<usize> = victims;
        victims.sort_unstable();
        for at in victims.into_iter().rev() {
            let (uid, standing) = self.running.remove(at);
            for (name, amount) in &standing.has {
                let used = self.used.entry(name.clone()).or_default();
                *used = used.saturating_sub(*amount);
            }
            self.preempted.insert(uid);
        }
        None
    }

    /// The pod is for another kind of node.
    fn other_kind(&self, pod: &ParsedPod) -> Option<Refusal> {
        let refusal = |reason: &str, message: &str| Some((reason.to_owned(), message.to_owned()));
        // The kubelet reads the pod's label, and so do we.
        let label = pod.pod.metadata.labels.as_ref().and_then(|labels| labels.get("kubernetes.io/os"));
        if label.is_some_and(|os| os != OS) {
            return refusal(
                "PodOSSelectorNodeLabelDoesNotMatch",
                "Failed to admit pod as the `kubernetes.io/os` label doesn't match node label",
            );
        }
        if pod.spec().os.as_ref().is_some_and(|os| os.name != OS) {
            return refusal("PodOSNotSupported", "Failed to admit pod as the OS field doesn't match node OS");
        }
        let policy = pod.spec().security_context.as_ref();
        let policy = policy.and_then(|own| own.supplemental_groups_policy.as_deref());
        let able = self.node.features.is_none_or(|features| features.supplemental_groups_policy);
        if policy == Some("Strict") && !able {
            return refusal(
                "SupplementalGroupsPolicyNotSupported",
                "SupplementalGroupsPolicy=Strict is not supported in this node",
            );
        }
        None
    }

    /// The node has not enough of something: pods first, then CPU, memory and disk, then all else by name.
    fn shortage(&self, pod: &ParsedPod) -> Option<Refusal> {
        let refusal = |resource: &str, wanted: i64, used: i64, capacity: i64| {
            let message = format!(
                "Node didn't have enough resource: {resource}, requested: {wanted}, used: {used}, capacity: {capacity}"
            );
            Some((format!("OutOf{resource}"), message))
        };
        let demand = Standing::of(pod).has;
        let first = [PODS, "cpu", "memory", "ephemeral-storage"];
        let others = demand.keys().map(String::as_str).filter(|name| !first.contains(name));
        for resource in first.into_iter().chain(others) {
            let wanted = demand.get(resource).copied().unwrap_or(0);
            let used = self.used.get(resource).copied().unwrap_or(0);
            let capacity = self.room.of(resource);
            // Beyond what there is already, as after a restart with less room, what asks for nothing still fits.
            if wanted > 0 && wanted > capacity.saturating_sub(used) {
                return refusal(resource, wanted, used, capacity);
            }
        }
        None
    }

    /// The pod does not fit to the node or to its other pods.
    fn unfit(&self, pod: &ParsedPod) -> Option<Refusal> {
        let (spec, node) = (pod.spec(), &self.node);
        let failed = if !node_match::is_wanted(spec, node.name, node.labels) {
            ("NodeAffinity", "node(s) didn't match Pod's node affinity/selector")
        } else if spec.node_name.as_deref().is_some_and(|name| !name.is_empty() && name != node.name) {
            ("NodeName", "node(s) didn't match the requested node name")
        } else if self.ports.clash_with(&HostPorts::of_pod(spec)) {
            ("NodePorts", "node(s) didn't have free ports for the requested pod ports")
        } else if !node_match::tolerates(spec, node.taints) {
            ("TaintToleration", "node(s) had taints that the pod didn't tolerate")
        } else {
            return None;
        };
        let (predicate, why) = failed;
        Some((predicate.to_owned(), format!("Predicate {predicate} failed: {why}")))
    }
}

#[cfg(test)]
#[path = "admission_tests.rs"]
pub(crate) mod tests;
