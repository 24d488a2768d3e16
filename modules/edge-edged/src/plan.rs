//! Which pods should run on the node, and which of what is found on it belongs to none. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::pod::admission::Admission;
use crate::pod::entry::PodUpdate;
use crate::pod::parsed_pod::{ParsedPod, PodId};
use crate::pod::plan::Intent;

/// Pods of the store, parsed.
#[derive(Debug, Clone, Default)]
pub(crate) struct StoredPods {
    pub(crate) valid: Vec<Arc<ParsedPod>>,
    /// Pods that are known by their names alone, and why.
    pub(crate) invalid: Vec<(PodId, String)>,
}

/// What is wanted of each pod in the store. `before`: what was decided so far.
pub(crate) fn updates(
    stored: StoredPods,
    before: &BTreeMap<String, Intent>,
    mut admission: Admission<'_>,
) -> Vec<PodUpdate> {
    let StoredPods { mut valid, invalid } = stored;
    // Those that have started before keep their place.
    valid.sort_by_cached_key(|pod| {
        let started = pod.cloud_status().and_then(|status| status.start_time.as_ref().map(|time| time.0));
        let made = pod.pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
        let admitted = before.get(&pod.id.uid) == Some(&Intent::Run);
        (!admitted, started.is_none(), started.or(made), pod.id.uid.clone())
    });
    let decided = valid.into_iter().map(|pod| {
        let running = pod.cloud_status().and_then(|status| status.phase.as_deref()) == Some("Running");
        let intent = match before.get(&pod.id.uid) {
            // A pod that was turned away stays so.
            Some(Intent::Fail { reason, message }) if !pod.is_terminating() => {
                Intent::Fail { reason: reason.clone(), message: message.clone() }
            }
            before => admission.decide(&pod, running || before == Some(&Intent::Run)),
        };
        PodUpdate { pod, intent, in_cloud: true }
    });
    let held = invalid.into_iter().map(|(id, reason)| {
        let intent = Intent::Hold { reason: "InvalidPod".to_owned(), message: reason };
        PodUpdate { pod: Arc::new(ParsedPod::nameless(id)), intent, in_cloud: true }
    });
    decided.chain(held).collect()
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
    use crate::pod::parsed_pod::tests::pod;
    use crate::runtime::sysctls::Sysctls;
    use serde_json::json;

    fn decide(before: &BTreeMap<String, Intent>, pods: u64, uids: &[&str]) -> Vec<(String, Intent)> {
        let valid = uids.iter().map(|uid| {
            let mut pod = pod(json!({}));
            pod.id.uid = (*uid).to_owned();
            Arc::new(pod)
        });
        let stored = StoredPods { valid: valid.collect(), invalid: Vec::new() };
        let (labels, sysctls) = (BTreeMap::new(), Sysctls::new(&[], "6.1.0"));
        let capacity = Capacity { pods, cpu_milli: 1000, memory: 1 << 30 };
        let decided = updates(stored, before, Admission::new(capacity, &labels, &sysctls));
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
    fn an_invalid_pod_is_held_and_named() {
        let id = PodId { namespace: "d".into(), name: "p".into(), uid: "u".into() };
        let stored = StoredPods { valid: Vec::new(), invalid: vec![(id, "spec is missing".to_owned())] };
        let (labels, sysctls) = (BTreeMap::new(), Sysctls::new(&[], "6.1.0"));
        let admission = Admission::new(Capacity::default(), &labels, &sysctls);
        let decided = updates(stored, &BTreeMap::new(), admission);
        let message = "spec is missing".to_owned();
        assert_eq!(decided[0].intent, Intent::Hold { reason: "InvalidPod".to_owned(), message });
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
