//! What a deployment needs next, and what is said about it.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::rollout::{self, ReplicaBounds, Resize, size, size_annotations, total};
use super::template;
use crate::controllers::object::{
    annotation, condition, condition_status, is_deleting, list, name, number, reference_to, seconds, text,
    time, uid, version, with_condition,
};

pub(crate) const REVISION: &str = "deployment.kubernetes.io/revision";
const HISTORY: &str = "deployment.kubernetes.io/revision-history";
/// Annotations that a replica set does not take over from its deployment.
const OWN: [&str; 6] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    HISTORY,
    rollout::DESIRED,
    rollout::MAX,
    "deprecated.deployment.rollback.to",
];
/// What upstream's history of revisions may take.
const HISTORY_MAX: usize = 2000;

/// One thing to write.
#[derive(Debug, PartialEq)]
pub(crate) enum RolloutStep {
    /// A replica set for the deployment's template.
    Create(Value),
    /// A merge patch of a replica set.
    Patch { set: String, patch: Value },
    /// A replica set gets another number of pods.
    Scale { set: String, patch: Value, from: i64, to: i64 },
    /// An old replica set that nobody rolls back to any more.
    Delete(String),
    /// A merge patch of the deployment.
    Revision(Value),
}

/// What to write, and when to look again if nothing changes.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    pub(crate) steps: Vec<RolloutStep>,
    pub(crate) status: Value,
    pub(crate) wake: Option<Duration>,
}

/// One look at a deployment. `sets` are those that it controls; `old_pods` tells whether pods of other templates than
/// the deployment's are still there.
pub(crate) fn plan(deployment: &Value, sets: &[&Value], old_pods: bool, now: Timestamp) -> Plan {
    let new = template::current(deployment, sets);
    let old: Vec<&Value> =
        sets.iter().copied().filter(|set| new.is_none_or(|new| uid(new) != uid(set))).collect();
    let mut plan = Plan::default();
    let mut progress = None;
    if !is_deleting(deployment) {
        progress = steps(deployment, new, &old, old_pods, &mut plan.steps);
    }
    let conditions = paused(deployment, list(deployment, "/status/conditions").to_vec(), now);
    plan.status = status(deployment, new, sets);
    let (conditions, wake) = conditions_of(deployment, new, conditions, &plan.status, progress, now);
    plan.status["conditions"] = Value::Array(conditions);
    plan.wake = wake;
    plan
}

/// Fills in the steps. Answers the reason for `Progressing` when a replica set was made or found.
fn steps(
    deployment: &Value,
    new: Option<&Value>,
    old: &[&Value],
    old_pods: bool,
    steps: &mut Vec<RolloutStep>,
) -> Option<(&'static str, String)> {
    let is_paused = deployment["spec"]["paused"] == json!(true);
    let all: Vec<&Value> = old.iter().copied().chain(new).collect();
    let highest = old.iter().map(|set| revision(set)).max().unwrap_or_default();
    let mut progress = None;
    if let Some(new) = new {
        if let Some(patch) = take_over(deployment, new, highest + 1) {
            steps.push(RolloutStep::Patch { set: name(new).to_owned(), patch });
        }
        let own = revision(new).max(highest + 1).to_string();
        say_revision(deployment, &own, steps);
        if condition(deployment, "Progressing").is_none() {
            progress = Some(("FoundNewReplicaSet", format!("Found new replica set \"{}\"", name(new))));
        }
    }
    if is_paused || rollout::is_scaled(deployment, &all) {
        resize(deployment, &rollout::scale(deployment, new, old), steps);
        if is_paused {
            steps.extend(leftovers(deployment, old));
        }
        return progress;
    }
    let Some(new) = new else {
        let shrunk: Vec<Resize<'_>> =
            if rollout::is_rolling(deployment) { Vec::new() } else { all_down(old) };
        resize(deployment, &shrunk, steps);
        // Recreate: what ran before is gone before the next comes.
        if rollout::is_rolling(deployment) || shrunk.is_empty() && !old_pods {
            let size = rollout::new_size(deployment, 0, total(old));
            let set = make(deployment, highest + 1, size);
            let made = format!("Created new replica set \"{}\"", name(&set));
            steps.push(RolloutStep::Create(set));
            say_revision(deployment, &(highest + 1).to_string(), steps);
            progress = Some(("NewReplicaSetCreated", made));
        }
        return progress;
    };
    if !rollout::is_rolling(deployment) {
        let shrunk = all_down(old);
        if shrunk.is_empty() && !old_pods {
            let wanted = ReplicaBounds::of(deployment).replicas;
            resize(deployment, &[(new, wanted)], steps);
        } else {
            resize(deployment, &shrunk, steps);
        }
    } else {
        let next = rollout::new_size(deployment, size(new), total(&all));
        if next != size(new) {
            resize(deployment, &[(new, next)], steps);
        } else {
            resize(deployment, &rollout::shrink_old(deployment, new, old), steps);
        }
    }
    if is_complete(deployment, &status(deployment, Some(new), &all)) {
        steps.extend(leftovers(deployment, old));
    }
    progress
}

fn all_down<'a>(sets: &[&'a Value]) -> Vec<Resize<'a>> {
    sets.iter().copied().filter(|set| size(set) > 0).map(|set| (set, 0)).collect()
}

/// The patch carries the version that was read: a size is never decided from numbers that have changed.
fn patch_of(set: &Value, annotations: serde_json::Map<String, Value>) -> Value {
    json!({ "metadata": { "uid": uid(set), "resourceVersion": version(set), "annotations": annotations } })
}

fn resize(deployment: &Value, resizes: &[Resize<'_>], steps: &mut Vec<RolloutStep>) {
    for (set, to) in resizes {
        let from = size(set);
        let annotations = size_annotations(deployment);
        let same = |(key, value): &(&str, Value)| annotation(set, key) == value.as_str();
        if from == *to && annotations.iter().all(same) {
            continue;
        }
        let mut fields: serde_json::Map<String, Value> =
            annotations.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        // One write per set: what else was to be said about it goes along.
        steps.retain(|step| match step {
            RolloutStep::Patch { set: other, patch } if other == name(set) => {
                let more = patch["metadata"]["annotations"].as_object().cloned().unwrap_or_default();
                fields.extend(
                    more.into_iter().filter(|(key, _)| key != rollout::DESIRED && key != rollout::MAX),
                );
                false
            }
            RolloutStep::Patch { .. }
            | RolloutStep::Create(_)
            | RolloutStep::Scale { .. }
            | RolloutStep::Delete(_)
            | RolloutStep::Revision(_) => true,
        });
        let mut patch = patch_of(set, fields);
        patch["spec"] = json!({ "replicas": to, "minReadySeconds": min_ready(deployment) });
        steps.push(RolloutStep::Scale { set: name(set).to_owned(), patch, from, to: *to });
    }
}

fn min_ready(deployment: &Value) -> i64 {
    number(deployment, "/spec/minReadySeconds").unwrap_or_default()
}

fn revision(object: &Value) -> i64 {
    annotation(object, REVISION).and_then(|text| text.parse().ok()).unwrap_or_default()
}

fn say_revision(deployment: &Value, revision: &str, steps: &mut Vec<RolloutStep>) {
    if annotation(deployment, REVISION) != Some(revision) {
        steps.push(RolloutStep::Revision(json!({
            "metadata": { "uid": uid(deployment), "annotations": { REVISION: revision } },
        })));
    }
}

fn copied(deployment: &Value) -> serde_json::Map<String, Value> {
    let all = deployment["metadata"]["annotations"].as_object().into_iter().flatten();
    all.filter(|(key, _)| !OWN.contains(&key.as_str()))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

fn make(deployment: &Value, revision: i64, size: i64) -> Value {
    let mut annotations = copied(deployment);
    annotations.extend(size_annotations(deployment).map(|(key, value)| (key.to_owned(), value)));
    annotations.insert(REVISION.to_owned(), json!(revision.to_string()));
    let owner = reference_to(deployment, "apps/v1", "Deployment");
    template::replica_set(deployment, owner, Value::Object(annotations), size)
}

/// What the current replica set has to say about its deployment: its annotations, its revision, minReadySeconds.
fn take_over(deployment: &Value, set: &Value, least: i64) -> Option<Value> {
    let mut changed: serde_json::Map<String, Value> = copied(deployment)
        .into_iter()
        .filter(|(key, value)| annotation(set, key) != value.as_str())
        .collect();
    let own = revision(set);
    if own < least {
        changed.insert(REVISION.to_owned(), json!(least.to_string()));
        // It was rolled back to: under which number it ran before is kept.
        if own > 0 {
            let mut history = annotation(set, HISTORY).unwrap_or_default().to_owned();
            if !history.is_empty() {
                history.push(',');
            }
            history.push_str(&own.to_string());
            while history.len() > HISTORY_MAX {
                history = history.split_once(',').map(|(_, rest)| rest.to_owned()).unwrap_or_default();
            }
            changed.insert(HISTORY.to_owned(), json!(history));
        }
    }
    let ready = number(set, "/spec/minReadySeconds").unwrap_or_default() != min_ready(deployment);
    if changed.is_empty() && !ready {
        return None;
    }
    let mut patch = patch_of(set, changed);
    if ready {
        patch["spec"] = json!({ "minReadySeconds": min_ready(deployment) });
    }
    Some(patch)
}

/// Old replica sets beyond the history that is kept.
fn leftovers(deployment: &Value, old: &[&Value]) -> Vec<RolloutStep> {
    let Some(limit) = number(deployment, "/spec/revisionHistoryLimit") else { return Vec::new() };
    let mut idle: Vec<&Value> = old.iter().copied().filter(|set| !is_deleting(set)).collect();
    idle.sort_by_key(|set| revision(set));
    let over = idle.len().saturating_sub(usize::try_from(limit).unwrap_or(usize::MAX));
    let is_idle = |set: &&Value| {
        size(set) == 0
            && number(set, "/status/replicas").unwrap_or_default() == 0
            && number(set, "/status/observedGeneration") >= number(set, "/metadata/generation")
    };
    idle.into_iter().take(over).filter(is_idle).map(|set| RolloutStep::Delete(name(set).to_owned())).collect()
}

fn status(deployment: &Value, new: Option<&Value>, sets: &[&Value]) -> Value {
    let sum =
        |field: &str| -> i64 { sets.iter().filter_map(|set| number(set, &format!("/status/{field}"))).sum() };
    let available = sum("availableReplicas");
    let updated = new.and_then(|new| number(new, "/status/replicas")).unwrap_or_default();
    json!({
        "observedGeneration": number(deployment, "/metadata/generation").unwrap_or_default(),
        "replicas": sum("replicas"),
        "updatedReplicas": updated,
        "readyReplicas": sum("readyReplicas"),
        "availableReplicas": available,
        "unavailableReplicas": (total(sets) - available).max(0),
    })
}

fn is_complete(deployment: &Value, status: &Value) -> bool {
    let wanted = number(deployment, "/spec/replicas").unwrap_or(1);
    ["updatedReplicas", "replicas", "availableReplicas"].iter().all(|field| status[field] == json!(wanted))
}

/// A pause is told once, and its end, too.
fn paused(deployment: &Value, conditions: Vec<Value>, now: Timestamp) -> Vec<Value> {
    let reason =
        condition(deployment, "Progressing").map(|condition| text(condition, "/reason")).unwrap_or_default();
    let is_paused = deployment["spec"]["paused"] == json!(true);
    let new = match (is_paused, reason) {
        (_, "ProgressDeadlineExceeded") => None,
        (true, reason) if reason != "DeploymentPaused" => Some(("DeploymentPaused", "Deployment is paused")),
        (false, "DeploymentPaused") => Some(("DeploymentResumed", "Deployment is resumed")),
        (true | false, _) => None,
    };
    let Some((reason, message)) = new.filter(|_| has_deadline(deployment)) else { return conditions };
    let new = json!({
        "type": "Progressing", "status": "Unknown", "reason": reason, "message": message,
        "lastUpdateTime": seconds(now),
    });
    with_condition(&conditions, new, now)
}

fn has_deadline(deployment: &Value) -> bool {
    deadline(deployment).is_some()
}

fn deadline(deployment: &Value) -> Option<i64> {
    number(deployment, "/spec/progressDeadlineSeconds").filter(|seconds| *seconds < i64::from(i32::MAX))
}

/// Available and Progressing, as `kubectl rollout status` and `kubectl wait` read them.
fn conditions_of(
    deployment: &Value,
    new: Option<&Value>,
    conditions: Vec<Value>,
    status: &Value,
    progress: Option<(&'static str, String)>,
    now: Timestamp,
) -> (Vec<Value>, Option<Duration>) {
    let told = |kind: &str, state: &str, reason: &str, message: &str| json!({ "type": kind, "status": state, "reason": reason, "message": message, "lastUpdateTime": seconds(now) });
    let enough =
        status["availableReplicas"].as_i64().unwrap_or_default() >= ReplicaBounds::of(deployment).fewest();
    let (state, reason, message) = if enough {
        ("True", "MinimumReplicasAvailable", "Deployment has minimum availability.")
    } else {
        ("False", "MinimumReplicasUnavailable", "Deployment does not have minimum availability.")
    };
    let mut conditions = conditions;
    if condition_status(deployment, "Available") != state {
        conditions = with_condition(&conditions, told("Available", state, reason, message), now);
    }
    let failed = new.and_then(|new| condition(new, "ReplicaFailure"));
    match failed {
        Some(failed) => {
            let (reason, message) = (text(failed, "/reason"), text(failed, "/message"));
            let new = told("ReplicaFailure", "True", reason, message);
            let said = condition(deployment, "ReplicaFailure").map(|said| text(said, "/message"));
            if said != Some(message) {
                conditions = with_condition(&conditions, new, now);
            }
        }
        None => conditions.retain(|condition| text(condition, "/type") != "ReplicaFailure"),
    }
    let is_paused = deployment["spec"]["paused"] == json!(true);
    let Some(deadline) = deadline(deployment).filter(|_| !is_paused) else { return (conditions, None) };
    if let Some((reason, message)) = progress {
        conditions = with_condition(&conditions, told("Progressing", "True", reason, &message), now);
        return (conditions, Some(wait(deadline)));
    }
    let subject = new.map_or_else(
        || format!("Deployment \"{}\"", name(deployment)),
        |new| format!("ReplicaSet \"{}\"", name(new)),
    );
    let current = conditions.iter().find(|condition| text(condition, "/type") == "Progressing").cloned();
    let reason = current.as_ref().map(|current| text(current, "/reason")).unwrap_or_default();
    if is_complete(deployment, status) {
        if reason != "NewReplicaSetAvailable" {
            let message = format!("{subject} has successfully progressed.");
            conditions = with_condition(
                &conditions,
                told("Progressing", "True", "NewReplicaSetAvailable", &message),
                now,
            );
        }
        return (conditions, None);
    }
    // All pods are of the new template, and some are away for a while: that is no rollout.
    if reason == "NewReplicaSetAvailable" && status["replicas"] == status["updatedReplicas"] {
        return (conditions, None);
    }
    // What was complete and is not any more has just begun to roll.
    if reason == "NewReplicaSetAvailable" || has_progressed(deployment, status) {
        let message = format!("{subject} is progressing.");
        conditions =
            with_condition(&conditions, told("Progressing", "True", "ReplicaSetUpdated", &message), now);
        return (conditions, Some(wait(deadline)));
    }
    let since = current.as_ref().and_then(|current| time(current, "/lastUpdateTime")).unwrap_or(now);
    let left = since.as_second().saturating_add(deadline).saturating_sub(now.as_second());
    if left > 0 {
        return (conditions, Some(wait(left)));
    }
    if reason != "ProgressDeadlineExceeded" {
        let message = format!("{subject} has timed out progressing.");
        conditions = with_condition(
            &conditions,
            told("Progressing", "False", "ProgressDeadlineExceeded", &message),
            now,
        );
    }
    (conditions, None)
}

fn wait(seconds: i64) -> Duration {
    Duration::from_secs(u64::try_from(seconds).unwrap_or_default())
}

fn has_progressed(deployment: &Value, status: &Value) -> bool {
    let before = |field: &str| number(deployment, &format!("/status/{field}")).unwrap_or_default();
    let after = |field: &str| status[field].as_i64().unwrap_or_default();
    after("updatedReplicas") > before("updatedReplicas")
        || after("replicas") - after("updatedReplicas") < before("replicas") - before("updatedReplicas")
        || after("readyReplicas") > before("readyReplicas")
        || after("availableReplicas") > before("availableReplicas")
}

/// Whether the deployment says this already.
pub(crate) fn is_said(deployment: &Value, status: &Value) -> bool {
    status.as_object().into_iter().flatten().all(|(field, value)| {
        let said = &deployment["status"][field];
        said == value || said.is_null() && (value == &json!(0) || value == &json!([]))
    })
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
