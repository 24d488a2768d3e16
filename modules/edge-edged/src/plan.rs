//! Which pods should run on the node, and which of what is found on it belongs to none. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use beehive::defect::{self, Defect};
use contract::pod_status::is_terminal;
use k8s_openapi::api::core::v1::PodStatus;

use crate::eviction::pressure::{EVICTED, Pressure};
use crate::images::reference;
use crate::pod::admission::{Admission, History};
use crate::pod::entry::PodUpdate;
use crate::pod::held;
use crate::pod::id::PodId;
use crate::pod::left::Left;
use crate::pod::parsed_pod::ParsedPod;
use crate::pod::plan::Intent;

/// Pods of the store, parsed.
#[derive(Debug, Clone, Default)]
pub(crate) struct StoredPods {
    pub(crate) valid: Vec<Arc<ParsedPod>>,
    /// Pods that are known by their names alone, and why.
    pub(crate) invalid: Vec<(PodId, String)>,
    /// What was reported of pods last, by uid.
    pub(crate) reported: BTreeMap<String, Arc<PodStatus>>,
    /// Pods that somebody on the node has released, by uid.
    pub(crate) released: BTreeSet<String>,
}

impl StoredPods {
    /// What is known of a pod from before: it was reported, or a node that has lost its store was told.
    pub(crate) fn history(&self, pod: &ParsedPod) -> History {
        let known = [self.reported.get(&pod.id.uid).map(Arc::as_ref), pod.cloud_status()];
        // One that was held has not begun.
        let mut known = known.into_iter().flatten().filter(|status| !held::was_held(status));
        let is_forgotten = defect::is_planted(Defect::EndForgotten);
        let has_ended = |status: &PodStatus| {
            status.phase.as_deref().is_some_and(is_terminal) && !pod.begins_again(status)
        };
        if known.clone().any(has_ended) && !is_forgotten {
            History::Ended
        } else if known.any(|status| status.start_time.is_some()) {
            History::Admitted
        } else {
            History::New
        }
    }
}

/// The pods that should run and have not ended.
pub(crate) fn active(stored: &StoredPods, updates: &[PodUpdate]) -> Vec<Arc<ParsedPod>> {
    let runs = updates.iter().filter(|update| update.intent == Intent::Run);
    let active = runs.filter(|update| stored.history(&update.pod) != History::Ended);
    active.map(|update| Arc::clone(&update.pod)).collect()
}

/// The pods that have something of the node: those that should run and have not ended, and those that end until their containers are gone
/// (kubelet's `filterOutInactivePods`). `left`: what is left of those that have a worker, by uid.
pub(crate) fn holding(
    stored: &StoredPods,
    updates: &[PodUpdate],
    left: &BTreeMap<String, Left>,
) -> Vec<Arc<ParsedPod>> {
    let holds = |update: &&PodUpdate| {
        let own = left.get(&update.pod.id.uid);
        match update.intent {
            Intent::Run => stored.history(&update.pod) != History::Ended,
            Intent::Terminate => Left::holds(own, stored.history(&update.pod) == History::Admitted),
            // One that has failed and still runs out its grace has what it has.
            Intent::Fail { .. } | Intent::Hold { .. } => own.is_some_and(|own| own.may_run),
        }
    };
    let decided: BTreeSet<&str> = updates.iter().map(|update| update.pod.id.uid.as_str()).collect();
    let others = left.iter().filter(|(uid, own)| {
        let may_hold = matches!(own.intent, Intent::Run | Intent::Terminate) || own.may_run;
        own.is_there && may_hold && !decided.contains(uid.as_str())
    });
    let of_store = updates.iter().filter(holds).map(|update| Arc::clone(&update.pod));
    of_store.chain(others.map(|(_, own)| Arc::clone(&own.pod))).collect()
}

/// The images of the pods that have not ended, as the runtime is asked for them.
pub(crate) fn images(stored: &StoredPods) -> BTreeSet<String> {
    let wanted = stored.valid.iter().filter(|pod| stored.history(pod) != History::Ended);
    let of_pod = |pod: &'_ Arc<ParsedPod>| {
        let containers = pod.init_containers().chain(&pod.spec().containers);
        let containers = containers.filter_map(|container| container.image.clone());
        let volumes = pod.spec().volumes.iter().flatten();
        let volumes = volumes.filter_map(|volume| volume.image.as_ref()?.reference.clone());
        containers.chain(volumes).collect::<Vec<_>>()
    };
    wanted.flat_map(of_pod).filter_map(|image| reference::with_tag(&image).ok()).collect()
}

/// What is wanted of each pod in the store. `before`: what was decided so far.
pub(crate) fn updates(
    stored: &StoredPods,
    before: &BTreeMap<String, Intent>,
    pressure: Pressure,
    mut admission: Admission<'_>,
) -> Vec<PodUpdate> {
    let history = |pod: &ParsedPod| match before.get(&pod.id.uid) {
        Some(Intent::Run) => stored.history(pod).max(History::Admitted),
        Some(Intent::Fail { .. } | Intent::Hold { .. } | Intent::Terminate) | None => stored.history(pod),
    };
    let mut valid: Vec<(History, Arc<ParsedPod>)> =
        stored.valid.iter().map(|pod| (history(pod), Arc::clone(pod))).collect();
    // Those that were admitted before keep their place. Of those that are new no clock says who comes first.
    valid.sort_by_cached_key(|(history, pod)| (std::cmp::Reverse(*history), pod.id.uid.clone()));
    let decided = valid.into_iter().map(|(history, pod)| {
        let intent = match before.get(&pod.id.uid) {
            // A pod that was turned away stays so.
            Some(Intent::Fail { reason, message }) if !pod.is_terminating() => {
                Intent::Fail { reason: reason.clone(), message: message.clone() }
            }
            Some(_) | None => {
                // A node that is short of something takes nobody new, whoever else would have room.
                let refused = (history == History::New && !pod.is_terminating())
                    .then(|| pressure.refusal(&pod))
                    .flatten();
                match (held::hold(&pod, history, &stored.released), refused) {
                    (Some(held), _) => held,
                    (None, Some(message)) => Intent::Fail { reason: EVICTED.to_owned(), message },
                    (None, None) => admission.decide(&pod, history),
                }
            }
        };
        PodUpdate { pod, intent, in_cloud: true, mirror: None, resize_pending: None }
    });
    let mut decided: Vec<PodUpdate> = decided.collect();
    for (uid, failed) in admission.preempted() {
        let victims = decided.iter_mut().filter(|update| update.pod.id.uid == uid);
        victims.for_each(|update| update.intent = failed.clone());
    }
    let held = stored.invalid.iter().cloned().map(|(id, reason)| {
        let intent = Intent::Hold { reason: "InvalidPod".to_owned(), message: reason };
        PodUpdate {
            pod: Arc::new(ParsedPod::without_spec(id)),
            intent,
            in_cloud: true,
            mirror: None,
            resize_pending: None,
        }
    });
    decided.into_iter().chain(held).collect()
}

/// What is to become of something that runs, or lies on the disk, and has no worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Orphan {
    /// Nobody wants it: it ends.
    Terminate,
    /// Nothing says that nobody wants it.
    Keep,
    /// The store has no such pod, but it is new or has lost rows.
    KeepForLostRows,
}

/// `wanted`: the uids of the pods in the store; `None` when it could not be read. `absence_counts`: a pod that is not in
/// the store is not wanted.
pub(crate) fn orphan(uid: &str, wanted: Option<&BTreeSet<String>>, absence_counts: bool) -> Orphan {
    match wanted {
        // What could not be read says nothing of who is wanted.
        None => Orphan::Keep,
        Some(_) if !absence_counts => Orphan::KeepForLostRows,
        // One whose object waits for another of its name is no orphan.
        Some(wanted) if wanted.contains(uid) => Orphan::Keep,
        Some(_) => Orphan::Terminate,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::admission::Capacity;
    use crate::pod::admission::tests::plain_node;
    use crate::pod::parsed_pod::tests::pod;
    use serde_json::json;

    fn decide(before: &BTreeMap<String, Intent>, pods: u64, uids: &[&str]) -> Vec<(String, Intent)> {
        let valid = uids.iter().map(|uid| {
            let mut pod = pod(json!({}));
            pod.id.uid = (*uid).to_owned();
            Arc::new(pod)
        });
        let stored = StoredPods { valid: valid.collect(), ..StoredPods::default() };
        let capacity = Capacity { pods, cpu_milli: 1000, memory: 1 << 30, ..Capacity::default() };
        let decided = updates(&stored, before, Pressure::default(), Admission::new(capacity, plain_node()));
        decided.into_iter().map(|update| (update.pod.id.uid.clone(), update.intent)).collect()
    }

    #[test]
    fn a_pod_that_was_admitted_keeps_its_place_and_one_that_was_turned_away_stays_so() {
        let first = decide(&BTreeMap::new(), 1, &["a", "b"]);
        assert_eq!(first[0], ("a".to_owned(), Intent::Run));
        assert!(matches!(first[1].1, Intent::Fail { .. }), "{first:?}");
        // With room for both.
        let again = decide(&first.iter().cloned().collect(), 2, &["a", "b"]);
        assert_eq!(again, first);
        // A newcomer of a smaller uid doesn't take the place.
        let admitted = BTreeMap::from([("b".to_owned(), Intent::Run)]);
        let decided: BTreeMap<String, Intent> = decide(&admitted, 1, &["a", "b"]).into_iter().collect();
        assert_eq!(decided["b"], Intent::Run);
        assert!(matches!(decided["a"], Intent::Fail { .. }), "{decided:?}");
    }

    #[test]
    fn a_critical_pod_takes_the_place_of_another_and_keeps_it() {
        let made = |uid: &str, priority: i32| {
            let mut pod = pod(json!({"priority": priority}));
            pod.id.uid = uid.to_owned();
            Arc::new(pod)
        };
        let stored = |pods: &[Arc<ParsedPod>]| StoredPods { valid: pods.to_vec(), ..StoredPods::default() };
        let decide = |stored: &StoredPods, before: &BTreeMap<String, Intent>| -> BTreeMap<String, Intent> {
            let capacity = Capacity { pods: 2, cpu_milli: 1000, memory: 1 << 30, ..Capacity::default() };
            let decided =
                updates(stored, before, Pressure::default(), Admission::new(capacity, plain_node()));
            decided.into_iter().map(|update| (update.pod.id.uid.clone(), update.intent)).collect()
        };
        let (low, high, critical) = (made("low", 1), made("high", 5), made("critical", 2_000_000_000));
        let before = decide(&stored(&[low.clone(), high.clone()]), &BTreeMap::new());
        assert!(before.values().all(|intent| *intent == Intent::Run));
        let all = stored(&[low, high, critical, made("a-plain", 0)]);
        let after = decide(&all, &before);
        let failed: Vec<_> = after
            .iter()
            .filter_map(|(uid, intent)| match intent {
                Intent::Fail { reason, .. } => Some((uid.as_str(), reason.as_str())),
                _ => None,
            })
            .collect();
        // Both had asked for nothing; one is enough.
        assert_eq!(failed.len(), 2, "{after:?}");
        assert!(failed.contains(&("a-plain", "OutOfpods")), "{after:?}");
        assert!(failed.iter().any(|(_, reason)| *reason == "Preempting"), "{after:?}");
        assert_eq!(after["critical"], Intent::Run);
        assert_eq!(decide(&all, &after), after, "nothing changes by itself");
    }

    #[test]
    fn no_clock_and_no_loss_of_memory_takes_a_place_away() {
        // As after a restart of EdgeCore: nothing was decided, and one had been reported at a time that is yet to come.
        let started: PodStatus =
            serde_json::from_value(json!({"startTime": "2999-01-01T00:00:00Z"})).unwrap();
        let made = |uid: &str, time: &str, status: Option<PodStatus>| {
            let mut pod = pod(json!({}));
            pod.id.uid = uid.to_owned();
            pod.pod.metadata.creation_timestamp = serde_json::from_value(json!(time)).unwrap();
            pod.pod.status = status;
            Arc::new(pod)
        };
        let decide = |stored: &StoredPods| {
            let capacity = Capacity { pods: 1, cpu_milli: 1000, memory: 1 << 30, ..Capacity::default() };
            let decided = updates(
                stored,
                &BTreeMap::new(),
                Pressure::default(),
                Admission::new(capacity, plain_node()),
            );
            let runs = decided.iter().filter(|update| update.intent == Intent::Run);
            runs.map(|update| update.pod.id.uid.clone()).collect::<Vec<_>>()
        };
        let (old, new) = ("1970-01-01T00:00:00Z", "2999-01-01T00:00:00Z");
        // Reported by this node; told by the cloud to a node that has lost its store.
        let reported = BTreeMap::from([("b".to_owned(), Arc::new(started.clone()))]);
        for (reported, status) in [(reported, None), (BTreeMap::new(), Some(started))] {
            for (time_a, time_b) in [(old, new), (new, old)] {
                let valid = vec![made("a", time_a, None), made("b", time_b, status.clone())];
                let stored = StoredPods { valid, reported: reported.clone(), ..StoredPods::default() };
                assert_eq!(decide(&stored), ["b"]);
            }
        }
        // One that has ended takes no room.
        let ended: PodStatus = serde_json::from_value(json!({"phase": "Succeeded"})).unwrap();
        let valid = vec![made("a", old, None), made("b", old, None)];
        let reported = BTreeMap::from([("b".to_owned(), Arc::new(ended))]);
        assert_eq!(decide(&StoredPods { valid, reported, ..StoredPods::default() }), ["b", "a"]);
    }

    #[test]
    fn an_invalid_pod_is_held_and_named() {
        let id = PodId { namespace: "d".into(), name: "p".into(), uid: "u".into() };
        let invalid = vec![(id, "spec is missing".to_owned())];
        let stored = StoredPods { invalid, ..StoredPods::default() };
        let admission = Admission::new(Capacity::default(), plain_node());
        let decided = updates(&stored, &BTreeMap::new(), Pressure::default(), admission);
        let message = "spec is missing".to_owned();
        assert_eq!(decided[0].intent, Intent::Hold { reason: "InvalidPod".to_owned(), message });
    }

    #[test]
    fn a_pod_that_ends_has_what_it_has_until_it_has_left_the_runtime() {
        let made = |uid: &str| {
            let mut pod = pod(json!({}));
            pod.id.uid = uid.to_owned();
            Arc::new(pod)
        };
        let update = |uid: &str, intent: Intent| PodUpdate {
            pod: made(uid),
            intent,
            in_cloud: true,
            mirror: None,
            resize_pending: None,
        };
        let failed = || Intent::Fail { reason: "Preempting".to_owned(), message: String::new() };
        let updates = [
            update("runs", Intent::Run),
            update("begun-before", Intent::Terminate),
            update("never-begun", Intent::Terminate),
            update("just-told", Intent::Terminate),
            update("gone", Intent::Terminate),
            update("makes-room", failed()),
            update("has-made-room", failed()),
        ];
        let started: PodStatus =
            serde_json::from_value(json!({"startTime": "2999-01-01T00:00:00Z"})).unwrap();
        let reported =
            ["begun-before", "just-told", "gone"].map(|uid| (uid.to_owned(), Arc::new(started.clone())));
        let stored = StoredPods { reported: reported.into(), ..StoredPods::default() };
        let left = |uid: &str, intent: Intent, is_there: bool, may_run: bool| {
            (uid.to_owned(), Left { pod: made(uid), intent, is_there, may_run })
        };
        let left: BTreeMap<String, Left> = [
            // Its worker hears of it in a moment.
            left("just-told", Intent::Run, true, true),
            left("gone", Intent::Terminate, false, false),
            left("makes-room", failed(), true, true),
            left("has-made-room", failed(), true, false),
            // Of which the store knows nothing any more.
            left("orphan", Intent::Terminate, true, true),
            left("orphan-that-failed", failed(), true, true),
            left("orphan-that-is-gone", Intent::Terminate, false, false),
        ]
        .into();
        let holding = holding(&stored, &updates, &left);
        let uids: Vec<&str> = holding.iter().map(|pod| pod.id.uid.as_str()).collect();
        assert_eq!(uids, ["runs", "begun-before", "just-told", "makes-room", "orphan", "orphan-that-failed"]);
    }

    #[test]
    fn only_a_store_that_can_be_trusted_ends_what_it_does_not_name() {
        let wanted = BTreeSet::from(["u-1".to_owned()]);
        assert_eq!(orphan("u-2", Some(&wanted), true), Orphan::Terminate);
        assert_eq!(orphan("u-1", Some(&wanted), true), Orphan::Keep);
        assert_eq!(orphan("u-2", Some(&wanted), false), Orphan::KeepForLostRows);
        assert_eq!(orphan("u-2", None, true), Orphan::Keep);
    }
}
