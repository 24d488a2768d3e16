//! Which resources the containers of each pod are given: what they ask for when they are admitted, and what they ask for later
//! once there is room for it (kubelet's allocation manager). Pure.
//!
//! What was given survives a restart of EdgeCore in the status that was reported last, which the store keeps: a resize that was
//! given and not done by then is decided anew.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, PodStatus, ResourceRequirements};

use crate::pod::actuated;
use crate::pod::admission::Capacity;
use crate::pod::entry::PodUpdate;
use crate::pod::parsed_pod::{ParsedPod, all_of};
use crate::pod::plan::Intent;
use crate::pod::resize;
use crate::pod::resize_policy::{ContainerResources, Pending, restarting};
use crate::runtime::demand::{self, Amounts};
use crate::runtime::resources::{Amounts as ResourceAmounts, Qos, amounts};
use crate::runtime::swap::{self, Swap};

/// 3 min before a resize that waits for room is decided again though no pod comes, changes or goes (kubelet).
pub(crate) const AGAIN: Duration = Duration::from_secs(180);

/// What each pod is given, by uid.
#[derive(Debug, Default)]
pub(crate) struct Allocations {
    given: BTreeMap<String, Given>,
    /// What of the node decides.
    pub(crate) node: NodePolicies,
    /// Pods whose resize waits, by uid, in the order in which they began to.
    waiting: BTreeMap<String, u64>,
    waited: u64,
}

/// What one pod is given.
#[derive(Debug, Default)]
struct Given {
    containers: ContainerResources,
    /// What it is given as a whole (`spec.resources`).
    whole: Option<ResourceRequirements>,
}

/// What of the node says which resizes can never be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct NodePolicies {
    /// Containers of guaranteed pods have CPUs of their own, which are given once (cpuManagerPolicy static).
    pub(crate) has_static_cpus: bool,
    /// And memory of NUMA nodes (memoryManagerPolicy Static).
    pub(crate) has_static_memory: bool,
    pub(crate) swap: Swap,
}

/// Pods that ask for something else than they are given, as they ask for it, by uid.
pub(crate) type Asking = BTreeMap<String, Arc<ParsedPod>>;

impl Allocations {
    /// Puts in the place of each pod that asks for something else than it is given the pod as it is given. `known`: what was
    /// reported of a pod, or is known of it from before.
    pub(crate) fn apply<'a>(
        &mut self,
        pods: &mut [Arc<ParsedPod>],
        known: impl Fn(&ParsedPod) -> Option<&'a PodStatus>,
    ) -> Asking {
        let mut asking = Asking::new();
        let uids: BTreeSet<String> = pods.iter().map(|pod| pod.id.uid.clone()).collect();
        self.given.retain(|uid, _| uids.contains(uid));
        for pod in pods {
            let given = self.given.entry(pod.id.uid.clone()).or_insert_with(|| {
                let mut containers = resize::resources_of(pod);
                let reported = known(pod).map(resize::reported).unwrap_or_default();
                containers.extend(reported.into_iter().filter(|(name, _)| pod.container(name).is_some()));
                Given { containers, whole: pod.spec().resources.clone() }
            });
            let wanted = resize::resources_of(pod);
            let differs = wanted.iter().any(|(name, wanted)| {
                given.containers.get(name).is_some_and(|given| actuated::differ(Some(given), Some(wanted)))
            });
            if differs || given.whole != pod.spec().resources {
                let as_given = pod.with_resources(&given.containers).with_resources_of_whole(&given.whole);
                let as_given = Arc::new(as_given);
                asking.insert(pod.id.uid.clone(), std::mem::replace(pod, as_given));
            }
        }
        asking
    }

    /// Gives those that ask what there is room for; the others wait. `holding`: the pods that have something of the node, also those that
    /// end and whose containers are not gone yet.
    /// Those that ask for less come first: what they leave is there for the next.
    pub(crate) fn settle(
        &mut self,
        updates: &mut [PodUpdate],
        asking: Asking,
        holding: &[Arc<ParsedPod>],
        capacity: &Capacity,
    ) {
        let mut used = Amounts::new();
        for pod in holding {
            demand::add(&mut used, &demand::of_pod(pod.spec()));
        }
        let mut waiting: Vec<(&mut PodUpdate, Arc<ParsedPod>)> = updates
            .iter_mut()
            .filter_map(|update| {
                let wanted = asking.get(&update.pod.id.uid)?;
                Some((update, Arc::clone(wanted)))
            })
            .collect();
        waiting.sort_by_cached_key(|(update, wanted)| {
            let priority = std::cmp::Reverse(wanted.spec().priority.unwrap_or_default());
            let waits_since = self.waiting.get(&wanted.id.uid).copied().unwrap_or(u64::MAX);
            let class = wanted.qos != Qos::Guaranteed;
            (grows(&update.pod, wanted), priority, class, waits_since, wanted.id.uid.clone())
        });
        self.waiting.retain(|uid, _| asking.contains_key(uid));
        for (update, wanted) in waiting {
            // What ends, or was turned away, keeps what it has.
            if update.intent != Intent::Run || !holding.iter().any(|pod| pod.id.uid == wanted.id.uid) {
                continue;
            }
            if let Some(message) = hindrance(&update.pod, &wanted, self.node) {
                update.resize_pending = Some(pending("Infeasible", message, &wanted));
                self.waiting.remove(&wanted.id.uid);
                continue;
            }
            // Also what the whole node does not have: it may become another one.
            match shortage(&update.pod, &wanted, &used, capacity) {
                Some(message) => {
                    update.resize_pending = Some(pending("Deferred", message, &wanted));
                    self.waited += 1;
                    self.waiting.entry(wanted.id.uid.clone()).or_insert(self.waited);
                }
                None => {
                    self.waiting.remove(&wanted.id.uid);
                    let (old, new) = (demand::of_pod(update.pod.spec()), demand::of_pod(wanted.spec()));
                    for (name, amount) in &old {
                        let own = used.entry(name.clone()).or_default();
                        *own = own.saturating_sub(*amount);
                    }
                    demand::add(&mut used, &new);
                    let (containers, whole) =
                        (resize::resources_of(&wanted), wanted.spec().resources.clone());
                    self.given.insert(wanted.id.uid.clone(), Given { containers, whole });
                    update.pod = wanted;
                }
            }
        }
    }
}

fn pending(reason: &'static str, message: String, wanted: &ParsedPod) -> Pending {
    let generation = wanted.pod.metadata.generation.unwrap_or_default();
    Pending { reason, asked: resize::described(wanted, Some(&message)), message, generation }
}

/// What never lets a pod have what it asks for, in the kubelet's words (`allocation/handlers.go`).
fn hindrance(given: &ParsedPod, wanted: &ParsedPod, node: NodePolicies) -> Option<String> {
    let changes = |part: fn(&ResourceAmounts) -> (i64, i64)| {
        let of = |pod: &ParsedPod| -> Vec<(i64, i64)> {
            all_of(pod.spec()).map(|container| part(&amounts(container.resources.as_ref()))).collect()
        };
        of(given) != of(wanted)
    };
    let (cpu, memory) = (
        changes(|own| (own.cpu_request, own.cpu_limit)),
        changes(|own| (own.memory_request, own.memory_limit)),
    );
    let words = if moves_swap(given, wanted, node.swap) {
        "In-place resize of containers with swap is not supported."
    } else if given.spec().resources != wanted.spec().resources {
        // The node does not declare that feature, by which an API server of 1.36 refuses this first.
        "InPlacePodLevelResourcesVerticalScaling is disabled"
    } else if wanted.qos == Qos::Guaranteed && node.has_static_cpus && cpu {
        "Resize is infeasible for Guaranteed Pods alongside CPU Manager policy \"static\""
    } else if wanted.qos == Qos::Guaranteed && node.has_static_memory && memory {
        "Resize is infeasible for Guaranteed Pods alongside Memory Manager policy \"Static\""
    } else {
        return None;
    };
    Some(words.to_owned())
}

/// Whether a container that has swap, or would have some, is to have another request for memory, by which its share of the swap
/// goes, without a restart.
fn moves_swap(given: &ParsedPod, wanted: &ParsedPod, node: Swap) -> bool {
    all_of(given.spec()).any(|before| {
        let Some(after) = wanted.container(&before.name) else { return false };
        let request = |container: &Container| amounts(container.resources.as_ref()).memory_request;
        let restarts = restarting(before).any(|resource| resource == "memory");
        let has_swap = swap::is_allowed(given, before, node) || swap::is_allowed(wanted, after, node);
        request(before) != request(after) && !restarts && has_swap
    })
}

/// Whether a pod asks for more of anything.
fn grows(given: &ParsedPod, wanted: &ParsedPod) -> bool {
    let (old, new) = (demand::of_pod(given.spec()), demand::of_pod(wanted.spec()));
    new.iter().any(|(name, amount)| old.get(name).copied().unwrap_or(0) < *amount)
}

/// The first resource of which there is not enough, in the kubelet's words.
fn shortage(given: &ParsedPod, wanted: &ParsedPod, used: &Amounts, capacity: &Capacity) -> Option<String> {
    let (old, new) = (demand::of_pod(given.spec()), demand::of_pod(wanted.spec()));
    let of = |own: &Amounts, name: &str| own.get(name).copied().unwrap_or(0);
    ["cpu", "memory"].into_iter().find_map(|name| {
        let (before, requested) = (of(&old, name), of(&new, name));
        let (others, room) = (of(used, name).saturating_sub(before), capacity.of(name));
        // What asks for no more than it has always fits.
        (requested > before && requested > room.saturating_sub(others)).then(|| {
            format!(
                "Node didn't have enough resource: {name}, requested: {requested}, used: {others}, capacity: {room}"
            )
        })
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::pod::parsed_pod::tests::pod;

    fn asks(uid: &str, cpu: &str) -> Arc<ParsedPod> {
        let mut pod = pod(json!({"containers": [
            {"name": "c", "image": "x", "resources": {"requests": {"cpu": cpu}}}]}));
        pod.id.uid = uid.to_owned();
        Arc::new(pod)
    }

    fn cpu_of(pod: &ParsedPod) -> String {
        pod.spec().containers[0].resources.as_ref().unwrap().requests.as_ref().unwrap()["cpu"].0.clone()
    }

    /// What each is given, and why it waits.
    fn look(
        allocations: &mut Allocations,
        pods: &[Arc<ParsedPod>],
        known: Option<&PodStatus>,
    ) -> Vec<(String, Option<String>)> {
        let mut pods = pods.to_vec();
        let asking = allocations.apply(&mut pods, |_| known);
        let update = |pod: &Arc<ParsedPod>| PodUpdate {
            pod: Arc::clone(pod),
            intent: Intent::Run,
            in_cloud: true,
            mirror: None,
            resize_pending: None,
        };
        let mut updates: Vec<PodUpdate> = pods.iter().map(update).collect();
        let capacity = Capacity { pods: 9, cpu_milli: 1000, memory: 1 << 30, ..Capacity::default() };
        allocations.settle(&mut updates, asking, &pods, &capacity);
        updates
            .iter()
            .map(|update| {
                (cpu_of(&update.pod), update.resize_pending.as_ref().map(|own| own.message.clone()))
            })
            .collect()
    }

    #[test]
    fn a_pod_is_given_more_when_there_is_room_and_waits_else() {
        let mut allocations = Allocations::default();
        let given =
            |own: Vec<(String, Option<String>)>| own.into_iter().map(|(cpu, _)| cpu).collect::<Vec<_>>();
        assert_eq!(
            given(look(&mut allocations, &[asks("a", "300m"), asks("b", "600m")], None)),
            ["300m", "600m"]
        );
        let found = look(&mut allocations, &[asks("a", "500m"), asks("b", "600m")], None);
        let words = "Node didn't have enough resource: cpu, requested: 500, used: 600, capacity: 1000";
        assert_eq!(found[0], ("300m".to_owned(), Some(words.to_owned())));
        // The other one leaves room, in the same moment.
        assert_eq!(
            look(&mut allocations, &[asks("a", "500m"), asks("b", "500m")], None)[0],
            ("500m".to_owned(), None)
        );
        assert_eq!(
            given(look(&mut allocations, &[asks("a", "5"), asks("b", "400m")], None)),
            ["500m", "400m"]
        );
        // It asks for what it has again.
        assert_eq!(
            look(&mut allocations, &[asks("a", "500m"), asks("b", "400m")], None)[0],
            ("500m".to_owned(), None)
        );
    }

    #[test]
    fn what_a_pod_has_that_ends_is_not_given_to_another_before_it_is_gone() {
        let mut allocations = Allocations::default();
        let capacity = Capacity { pods: 9, cpu_milli: 1000, memory: 1 << 30, ..Capacity::default() };
        let mut settle = |a: &str, ends: &[Arc<ParsedPod>]| {
            let mut pods = vec![asks("a", a)];
            let asking = allocations.apply(&mut pods, |_| None);
            let mut updates = [PodUpdate {
                pod: Arc::clone(&pods[0]),
                intent: Intent::Run,
                in_cloud: true,
                mirror: None,
                resize_pending: None,
            }];
            let holding: Vec<_> = pods.iter().chain(ends).cloned().collect();
            allocations.settle(&mut updates, asking, &holding, &capacity);
            let pending = updates[0].resize_pending.as_ref().map(|own| own.message.clone());
            (cpu_of(&updates[0].pod), pending)
        };
        settle("300m", &[]);
        let words = "Node didn't have enough resource: cpu, requested: 500, used: 600, capacity: 1000";
        assert_eq!(settle("500m", &[asks("b", "600m")]), ("300m".to_owned(), Some(words.to_owned())));
        assert_eq!(settle("500m", &[]), ("500m".to_owned(), None));
    }

    #[test]
    fn cpus_of_its_own_are_given_once() {
        let guaranteed = |cpu: &str, memory: &str| {
            Arc::new(pod(json!({"containers": [{"name": "c", "image": "x", "resources": {
                "requests": {"cpu": cpu, "memory": memory}, "limits": {"cpu": cpu, "memory": memory}}}]})))
        };
        let mut allocations = Allocations::default();
        allocations.node.has_static_cpus = true;
        look(&mut allocations, &[guaranteed("200m", "1Mi")], None);
        let words = "Resize is infeasible for Guaranteed Pods alongside CPU Manager policy \"static\"";
        assert_eq!(
            look(&mut allocations, &[guaranteed("100m", "1Mi")], None),
            [("200m".to_owned(), Some(words.to_owned()))]
        );
        assert_eq!(look(&mut allocations, &[guaranteed("200m", "2Mi")], None), [("200m".to_owned(), None)]);
        allocations.node = NodePolicies { has_static_memory: true, ..NodePolicies::default() };
        let words = "Resize is infeasible for Guaranteed Pods alongside Memory Manager policy \"Static\"";
        assert_eq!(look(&mut allocations, &[guaranteed("100m", "3Mi")], None)[0].1.as_deref(), Some(words));
        allocations.node = NodePolicies::default();
        assert_eq!(look(&mut allocations, &[guaranteed("100m", "3Mi")], None), [("100m".to_owned(), None)]);
    }

    #[test]
    fn those_that_have_waited_longest_come_first_and_what_no_node_has_waits_too() {
        let mut allocations = Allocations::default();
        let look = |allocations: &mut Allocations, a: &str, b: &str, c: &str| {
            let found = look(allocations, &[asks("a", a), asks("b", b), asks("c", c)], None);
            found.into_iter().map(|(cpu, why)| (cpu, why.is_some())).collect::<Vec<_>>()
        };
        look(&mut allocations, "100m", "100m", "600m");
        let of = |all: [(&str, bool); 3]| all.map(|(cpu, waits)| (cpu.to_owned(), waits));
        let waits = of([("100m", false), ("100m", true), ("600m", false)]);
        assert_eq!(look(&mut allocations, "100m", "5", "600m"), waits, "more than the whole node");
        let waits = of([("100m", true), ("100m", true), ("600m", false)]);
        assert_eq!(look(&mut allocations, "450m", "450m", "600m"), waits);
        assert_eq!(
            look(&mut allocations, "450m", "450m", "200m"),
            of([("100m", true), ("450m", false), ("200m", false)]),
            "b waited first"
        );
    }

    #[test]
    fn what_a_pod_has_as_a_whole_stays_and_the_event_says_what_was_asked_for() {
        let whole = |cpu: &str| {
            let mut own = pod(json!({"resources": {"requests": {"cpu": cpu}}, "containers": [
                {"name": "c", "image": "x", "resources": {"requests": {"cpu": cpu}}}]}));
            own.pod.metadata.generation = Some(if cpu == "100m" { 1 } else { 2 });
            Arc::new(own)
        };
        let mut allocations = Allocations::default();
        look(&mut allocations, &[whole("100m")], None);
        let words = "InPlacePodLevelResourcesVerticalScaling is disabled";
        let (given, wanted) = (whole("100m"), whole("200m"));
        let found = look(&mut allocations, &[Arc::clone(&wanted)], None);
        assert_eq!(found, [("100m".to_owned(), Some(words.to_owned()))]);
        let mut pods = [Arc::clone(&wanted)];
        allocations.apply(&mut pods, |_| None);
        assert_eq!(pods[0].spec().resources, given.spec().resources);
        let own = pending("Infeasible", words.to_owned(), &wanted);
        assert!(own.generation == 2 && own.asked.contains(r#"{"cpu":"200m"}"#), "{}", own.asked);
    }

    #[test]
    fn what_was_given_is_known_after_a_restart() {
        let status: PodStatus =
            serde_json::from_value(json!({"containerStatuses": [{"name": "c", "image": "x",
            "imageID": "", "ready": true, "restartCount": 0, "resources": {"requests": {"cpu": "300m"}}}]}))
            .unwrap();
        let mut restarted = Allocations::default();
        let found = look(&mut restarted, &[asks("a", "2")], Some(&status));
        assert_eq!(
            (found[0].0.as_str(), found[0].1.is_some()),
            ("300m", true),
            "it is not given 2 for being new"
        );
        let mut restarted = Allocations::default();
        assert_eq!(look(&mut restarted, &[asks("a", "900m")], Some(&status))[0], ("900m".to_owned(), None));
    }
}
