//! Which resources the containers of each pod are given: what they ask for when they are admitted, and what they ask for later
//! once there is room for it (kubelet's allocation manager). Pure.
//!
//! What was given survives a restart of EdgeCore in the status that was reported last, which the store keeps: a resize that was
//! given and not done by then is decided anew.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::PodStatus;

use crate::pod::admission::Capacity;
use crate::pod::entry::PodUpdate;
use crate::pod::parsed_pod::{ParsedPod, all_of};
use crate::pod::plan::Intent;
use crate::pod::resize;
use crate::pod::resize_policy::{ContainerResources, Pending};
use crate::runtime::demand::{self, Amounts};
use crate::runtime::resources::{Qos, amounts};

/// 3 min before a resize that waits for room is decided again though no pod comes, changes or goes (kubelet).
pub(crate) const AGAIN: Duration = Duration::from_secs(180);

/// What each pod is given, by uid.
#[derive(Debug, Default)]
pub(crate) struct Allocations {
    given: BTreeMap<String, ContainerResources>,
    /// Containers of guaranteed pods have CPUs of their own, which are given once (cpuManagerPolicy static).
    pub(crate) has_static_cpus: bool,
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
        self.given.retain(|uid, _| pods.iter().any(|pod| pod.id.uid == *uid));
        for pod in pods {
            let given = self.given.entry(pod.id.uid.clone()).or_insert_with(|| {
                let mut given = resize::resources_of(pod);
                let reported = known(pod).map(resize::reported).unwrap_or_default();
                given.extend(reported.into_iter().filter(|(name, _)| pod.container(name).is_some()));
                given
            });
            let wanted = resize::resources_of(pod);
            let differs = wanted.iter().any(|(name, wanted)| {
                given.get(name).is_some_and(|given| resize::differ(Some(given), Some(wanted)))
            });
            if differs {
                let as_given = Arc::new(pod.with_resources(given));
                asking.insert(pod.id.uid.clone(), std::mem::replace(pod, as_given));
            }
        }
        asking
    }

    /// Gives those that ask what there is room for; the others wait. `active`: the pods that take something from the node.
    /// Those that ask for less come first: what they leave is there for the next.
    pub(crate) fn settle(
        &mut self,
        updates: &mut [PodUpdate],
        asking: Asking,
        active: &[Arc<ParsedPod>],
        capacity: &Capacity,
    ) {
        let mut used = Amounts::new();
        for pod in active {
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
            (grows(&update.pod, wanted), priority, wanted.id.uid.clone())
        });
        for (update, wanted) in waiting {
            // What ends, or was turned away, keeps what it has.
            if update.intent != Intent::Run || !active.iter().any(|pod| pod.id.uid == wanted.id.uid) {
                continue;
            }
            if let Some(message) = self.hindrance(&update.pod, &wanted) {
                update.resize_pending = Some(Pending { reason: "Infeasible", message });
                continue;
            }
            match shortage(&update.pod, &wanted, &used, capacity) {
                Some(message) => update.resize_pending = Some(Pending { reason: "Deferred", message }),
                None => {
                    let (old, new) = (demand::of_pod(update.pod.spec()), demand::of_pod(wanted.spec()));
                    for (name, amount) in &old {
                        let own = used.entry(name.clone()).or_default();
                        *own = own.saturating_sub(*amount);
                    }
                    demand::add(&mut used, &new);
                    self.given.insert(wanted.id.uid.clone(), resize::resources_of(&wanted));
                    update.pod = wanted;
                }
            }
        }
    }
}

impl Allocations {
    /// What never lets a pod have what it asks for, in the kubelet's words (`allocation/handlers.go`).
    fn hindrance(&self, given: &ParsedPod, wanted: &ParsedPod) -> Option<String> {
        let cpus = |pod: &ParsedPod| -> Vec<(i64, i64)> {
            let all = all_of(pod.spec()).map(|container| amounts(container.resources.as_ref()));
            all.map(|own| (own.cpu_request, own.cpu_limit)).collect()
        };
        let is_fixed = self.has_static_cpus && wanted.qos == Qos::Guaranteed && cpus(given) != cpus(wanted);
        let words = "Resize is infeasible for Guaranteed Pods alongside CPU Manager policy \"static\"";
        is_fixed.then(|| words.to_owned())
    }
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
    fn cpus_of_its_own_are_given_once() {
        let guaranteed = |cpu: &str, memory: &str| {
            Arc::new(pod(json!({"containers": [{"name": "c", "image": "x", "resources": {
                "requests": {"cpu": cpu, "memory": memory}, "limits": {"cpu": cpu, "memory": memory}}}]})))
        };
        let mut allocations = Allocations { has_static_cpus: true, ..Allocations::default() };
        look(&mut allocations, &[guaranteed("200m", "1Mi")], None);
        let words = "Resize is infeasible for Guaranteed Pods alongside CPU Manager policy \"static\"";
        assert_eq!(
            look(&mut allocations, &[guaranteed("100m", "1Mi")], None),
            [("200m".to_owned(), Some(words.to_owned()))]
        );
        assert_eq!(look(&mut allocations, &[guaranteed("200m", "2Mi")], None), [("200m".to_owned(), None)]);
        allocations.has_static_cpus = false;
        assert_eq!(look(&mut allocations, &[guaranteed("100m", "2Mi")], None), [("100m".to_owned(), None)]);
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
