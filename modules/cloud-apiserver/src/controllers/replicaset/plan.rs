//! How many pods, which ones, and what is said about them.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::controllers::object::{
    annotation, condition, is_active, is_deleting, is_ready, labels, list, name, number, reference_to, text,
    time,
};
use crate::controllers::selector::picks_all;

/// 500 at once, as upstream: the rest comes in the next look.
const BURST: usize = 500;

/// What is to be done about the number of pods.
#[derive(Debug, PartialEq)]
pub(crate) enum Change<'a> {
    Create(usize),
    Delete(Vec<&'a Value>),
    Nothing,
}

/// Compares what is wanted with the active pods, and with those that were made and have not been seen yet.
pub(crate) fn change<'a>(wanted: usize, active: &[&'a Value], unseen: usize) -> Change<'a> {
    let there = active.len() + unseen;
    if there < wanted {
        return Change::Create((wanted - there).min(BURST));
    }
    // Who is to go is chosen among all of them.
    if there == wanted || unseen > 0 {
        return Change::Nothing;
    }
    let mut ranked = active.to_vec();
    rank(&mut ranked);
    ranked.truncate((there - wanted).min(BURST));
    Change::Delete(ranked)
}

/// Those who are missed least come first.
fn rank(pods: &mut [&Value]) {
    let mut together: BTreeMap<String, usize> = BTreeMap::new();
    for pod in pods.iter() {
        *together.entry(text(pod, "/spec/nodeName").to_owned()).or_default() += 1;
    }
    pods.sort_by_cached_key(|pod| {
        let node = text(pod, "/spec/nodeName");
        let phase = match text(pod, "/status/phase") {
            "Pending" | "" => 0,
            "Unknown" => 1,
            _ => 2,
        };
        let cost = annotation(pod, "controller.kubernetes.io/pod-deletion-cost");
        let cost: i32 = cost.and_then(|cost| cost.parse().ok()).unwrap_or_default();
        let crowd = together.get(node).copied().unwrap_or_default();
        let since = condition(pod, "Ready").and_then(|ready| time(ready, "/lastTransitionTime"));
        let restarts: i64 = list(pod, "/status/containerStatuses")
            .iter()
            .filter_map(|container| number(container, "/restartCount"))
            .sum();
        let younger = std::cmp::Reverse(time(pod, "/metadata/creationTimestamp"));
        (
            !node.is_empty(),
            phase,
            is_ready(pod),
            cost,
            std::cmp::Reverse(crowd),
            std::cmp::Reverse(since.filter(|_| is_ready(pod))),
            std::cmp::Reverse(restarts),
            younger,
        )
    });
}

/// How long a pod still has to be ready to count as available; `None` if it is not ready. `seen`: for how long it is known here to be
/// ready. That counts where it is more than what the clocks say: the node's own clock wrote since when the pod is ready, and where it is
/// ahead, or ours was set back, a rollout would wait for the clock.
pub(crate) fn until_available(
    pod: &Value,
    min_ready: i64,
    now: Timestamp,
    seen: Duration,
) -> Option<Duration> {
    if !is_ready(pod) || is_deleting(pod) {
        return None;
    }
    if min_ready <= 0 {
        return Some(Duration::ZERO);
    }
    let since = condition(pod, "Ready").and_then(|ready| time(ready, "/lastTransitionTime"))?;
    let left = since.as_second().saturating_add(min_ready).saturating_sub(now.as_second());
    let by_clock = Duration::from_secs(u64::try_from(left).unwrap_or_default());
    let min_ready = Duration::from_secs(u64::try_from(min_ready).unwrap_or_default());
    Some(by_clock.min(min_ready.saturating_sub(seen)))
}

/// The status, and when it changes by time alone. `failure` is why pods could not be made or removed, `seen` for how long a pod is known
/// to be ready.
pub(crate) fn status(
    set: &Value,
    active: &[&Value],
    failure: Option<(&str, &str)>,
    now: Timestamp,
    seen: impl Fn(&Value) -> Duration,
) -> (Value, Option<Duration>) {
    let min_ready = number(set, "/spec/minReadySeconds").unwrap_or_default();
    let wanted_labels = &set["spec"]["template"]["metadata"]["labels"];
    let labelled = active.iter().filter(|pod| picks_all(wanted_labels, labels(pod))).count();
    let waits: Vec<Duration> =
        active.iter().filter_map(|pod| until_available(pod, min_ready, now, seen(pod))).collect();
    let available = waits.iter().filter(|wait| wait.is_zero()).count();
    let next = waits.iter().filter(|wait| !wait.is_zero()).min().copied();
    let mut conditions = list(set, "/status/conditions").to_vec();
    match failure {
        Some((reason, message)) => {
            let new =
                json!({ "type": "ReplicaFailure", "status": "True", "reason": reason, "message": message });
            conditions = crate::controllers::object::with_condition(&conditions, new, now);
        }
        None => conditions.retain(|condition| text(condition, "/type") != "ReplicaFailure"),
    }
    let status = json!({
        "replicas": active.len(),
        "fullyLabeledReplicas": labelled,
        "readyReplicas": active.iter().filter(|pod| is_ready(pod)).count(),
        "availableReplicas": available,
        "observedGeneration": number(set, "/metadata/generation").unwrap_or_default(),
        "conditions": conditions,
    });
    (status, next)
}

/// Whether the set says this already.
pub(crate) fn is_said(set: &Value, status: &Value) -> bool {
    status.as_object().into_iter().flatten().all(|(field, value)| {
        let said = &set["status"][field];
        said == value || said.is_null() && (value == &json!(0) || value == &json!([]))
    })
}

/// A new pod of the set.
pub(crate) fn pod(set: &Value) -> Value {
    let template = &set["spec"]["template"];
    let mut metadata = json!({
        "generateName": format!("{}-", name(set)),
        "ownerReferences": [reference_to(set, "apps/v1", "ReplicaSet")],
    });
    for field in ["labels", "annotations", "finalizers"] {
        if let Some(value) = template["metadata"].get(field).filter(|value| !value.is_null()) {
            metadata[field] = value.clone();
        }
    }
    json!({ "metadata": metadata, "spec": template["spec"] })
}

/// The pods that count.
pub(crate) fn active<'a>(pods: impl IntoIterator<Item = &'a Value>) -> Vec<&'a Value> {
    pods.into_iter().filter(|pod| is_active(pod)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod_named(name: &str, node: &str, phase: &str, ready: bool) -> Value {
        let ready = if ready { "True" } else { "False" };
        json!({
            "metadata": {"name": name, "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"nodeName": node},
            "status": {"phase": phase, "conditions": [
                {"type": "Ready", "status": ready, "lastTransitionTime": "2026-01-01T00:00:00Z"}]},
        })
    }

    fn names(change: &Change<'_>) -> Vec<String> {
        match change {
            Change::Delete(pods) => pods.iter().map(|pod| name(pod).to_owned()).collect(),
            Change::Create(count) => vec![format!("+{count}")],
            Change::Nothing => Vec::new(),
        }
    }

    #[test]
    fn what_was_made_and_not_seen_counts() {
        let pods = [pod_named("a", "n", "Running", true), pod_named("b", "n", "Running", true)];
        let active: Vec<&Value> = pods.iter().collect();
        assert_eq!(names(&change(5, &active, 0)), ["+3"]);
        assert_eq!(names(&change(5, &active, 2)), ["+1"]);
        assert_eq!(change(4, &active, 2), Change::Nothing);
        assert_eq!(change(2, &active, 2), Change::Nothing, "nobody is chosen before all have been seen");
        assert_eq!(names(&change(1000, &active, 0)), ["+500"]);
    }

    #[test]
    fn those_who_are_missed_least_go_first() {
        let mut cheap = pod_named("cheap", "n1", "Running", true);
        cheap["metadata"]["annotations"] = json!({"controller.kubernetes.io/pod-deletion-cost": "-5"});
        let mut restarted = pod_named("restarted", "n2", "Running", true);
        restarted["status"]["containerStatuses"] = json!([{"restartCount": 3}]);
        let mut young = pod_named("young", "n2", "Running", true);
        young["metadata"]["creationTimestamp"] = json!("2026-02-01T00:00:00Z");
        let pods = [
            pod_named("steady", "n2", "Running", true),
            young,
            restarted,
            pod_named("crowded", "n1", "Running", true),
            pod_named("crowded-too", "n1", "Running", true),
            pod_named("crowded-as-well", "n1", "Running", true),
            cheap,
            pod_named("unready", "n1", "Running", false),
            pod_named("pending", "n1", "Pending", false),
            pod_named("unscheduled", "", "Pending", false),
        ];
        let active: Vec<&Value> = pods.iter().collect();
        let order = names(&change(0, &active, 0));
        assert_eq!(order[..4], ["unscheduled", "pending", "unready", "cheap"]);
        assert!(order[4..7].iter().all(|name| name.starts_with("crowded")), "{order:?}");
        assert_eq!(order[7..], ["restarted", "young", "steady"]);
    }

    #[test]
    fn a_pod_is_available_after_it_was_ready_for_long_enough() {
        let set = json!({"metadata": {"generation": 2}, "spec": {"minReadySeconds": 10}});
        let pods = [pod_named("a", "n", "Running", true), pod_named("b", "n", "Running", false)];
        let active: Vec<&Value> = pods.iter().collect();
        let at = |second: i64| {
            let ready: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
            Timestamp::from_second(ready.as_second() + second).unwrap()
        };
        let status = |now| status(&set, &active, None, now, |_| Duration::ZERO);
        let (early, wait) = status(at(4));
        assert_eq!((&early["readyReplicas"], &early["availableReplicas"]), (&json!(1), &json!(0)));
        assert_eq!(wait, Some(Duration::from_secs(6)));
        let (late, wait) = status(at(10));
        assert_eq!((&late["availableReplicas"], wait), (&json!(1), None));
        assert_eq!(late["observedGeneration"], 2);
    }

    #[test]
    fn a_node_whose_clock_is_ahead_holds_up_no_rollout() {
        let pod = pod_named("a", "n", "Running", true);
        let hour_before = "2025-12-31T23:00:00Z".parse().unwrap();
        let left = |seen| until_available(&pod, 10, hour_before, Duration::from_secs(seen));
        assert_eq!(left(0), Some(Duration::from_secs(10)));
        assert_eq!(left(4), Some(Duration::from_secs(6)));
        assert_eq!((left(10), left(11)), (Some(Duration::ZERO), Some(Duration::ZERO)));
        let later = "2026-01-01T00:00:30Z".parse().unwrap();
        assert_eq!(
            until_available(&pod, 10, later, Duration::ZERO),
            Some(Duration::ZERO),
            "as after a restart"
        );
    }

    #[test]
    fn a_pod_is_made_from_the_template() {
        let set = json!({
            "metadata": {"name": "web-1", "uid": "u"},
            "spec": {"template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c"}]}}},
        });
        let pod = pod(&set);
        assert_eq!(pod["metadata"]["generateName"], "web-1-");
        assert_eq!(pod["metadata"]["labels"], json!({"a": "b"}));
        assert_eq!(pod["metadata"]["ownerReferences"][0]["uid"], "u");
        assert_eq!(pod["spec"]["containers"][0]["name"], "c");
    }

    #[test]
    fn nothing_is_said_twice() {
        let set = json!({"metadata": {"generation": 1}, "status": {"replicas": 0, "observedGeneration": 1}});
        let (new, _) = status(&set, &[], None, Timestamp::UNIX_EPOCH, |_| Duration::ZERO);
        assert!(is_said(&set, &new));
        let (failed, _) =
            status(&set, &[], Some(("FailedCreate", "no")), Timestamp::UNIX_EPOCH, |_| Duration::ZERO);
        assert!(!is_said(&set, &failed));
    }
}
