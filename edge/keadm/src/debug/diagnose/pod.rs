//! What is found of a pod. Pure.

use std::time::{SystemTime, UNIX_EPOCH};

use apimachinery::{ObjectKey, PodReferences};
use nodechecks::Finding;
use serde_json::Value;

use super::super::get::{containers, pod_state};
use crate::local::whole_or_cut;
use crate::store::{age, plain};

const POD: &str = "Pod";
const CONTAINER: &str = "Container";
const CONDITION: &str = "Condition";
const REFERENCES: &str = "References";
const EVENTS: &str = "Events";
/// So many names of other pods are said.
const NAMED: usize = 10;
/// So many events are shown.
const EVENTS_MAX: usize = 20;

/// A reason why a container waits or ended, and what cures it.
const CURES: [(&str, &str); 12] = [
    (
        "ErrImagePull",
        "the registry does not give it: is the name right, is there a way to it (`keadm debug check dns -d REGISTRY`), and an imagePullSecret?",
    ),
    (
        "ImagePullBackOff",
        "the registry does not give it: is the name right, is there a way to it (`keadm debug check dns -d REGISTRY`), and an imagePullSecret?",
    ),
    (
        "ErrImageNeverPull",
        "imagePullPolicy is Never and the image is not here: load it (`ctr -n k8s.io images import FILE`)",
    ),
    ("InvalidImageName", "write the image's name as registry/name:tag, in small letters"),
    (
        "CrashLoopBackOff",
        "it ends again and again: `keadm ctl logs POD --previous` shows its last words, also without the cloud",
    ),
    ("CreateContainerConfigError", "what it names of a Secret or config map is not there: see References"),
    (
        "CreateContainerError",
        "the runtime refuses it: the message says why, and the runtime's log (`journalctl -u containerd`)",
    ),
    (
        "RunContainerError",
        "the runtime cannot start it: is the command in the image, and the image for this architecture?",
    ),
    (
        "OOMKilled",
        "it went beyond its memory limit, or the machine has no more: raise resources.limits.memory, or find what it keeps",
    ),
    (
        "Error",
        "it ended with an error: `keadm ctl logs POD --previous` shows its last words, also without the cloud",
    ),
    (
        "Evicted",
        "the node was short of something (`keadm debug check`): its owner makes another pod once there is room",
    ),
    (
        "ContainerCreating",
        "its volumes, its network or its image are being made ready; the Events say what it waits for",
    ),
];

fn cure(reason: &str) -> String {
    let known = CURES.iter().find(|(known, _)| *known == reason);
    known.map(|(_, cure)| format!(": {cure}")).unwrap_or_default()
}

/// The node has no such pod.
pub(super) fn not_held(pods: &[Value], namespace: &str, name: &str) -> Finding {
    let text = |pod: &Value, key: &str| plain(pod["metadata"][key].as_str().unwrap_or_default());
    let named = |pod: &Value| format!("{}/{}", text(pod, "namespace"), text(pod, "name"));
    let same: Vec<String> = pods.iter().filter(|pod| pod["metadata"]["name"] == *name).map(named).collect();
    let (namespace, name) = (plain(namespace), plain(name));
    if let Some(other) = same.first() {
        let of = other.split('/').next().unwrap_or_default();
        return Finding::failed(
            POD,
            format!("this node holds no pod {namespace}/{name}, and it holds {other}: -n {of}"),
        );
    }
    let all: Vec<String> = pods.iter().take(NAMED).map(named).collect();
    let held = match all.len() {
        0 => "it holds none at all".to_owned(),
        _ => format!("it holds {}{}", all.join(", "), if pods.len() > NAMED { ", …" } else { "" }),
    };
    Finding::failed(
        POD,
        format!(
            "this node holds no pod {namespace}/{name}; {held}. It is on another node, not scheduled at all (`kubectl describe pod {name}`: taints, resources, \
             selectors), or it has not arrived (`keadm debug diagnose node`: Link)"
        ),
    )
}

/// How it is, and why its containers do not run.
pub(super) fn state(pod: &Value, now: SystemTime) -> Vec<Finding> {
    let (ready, all, restarts) = containers(pod);
    let state = pod_state(pod);
    let words = format!("{state}, {ready} of {all} containers are ready, {restarts} restarts");
    let is_well = (state == "Running" && ready == all) || matches!(state.as_str(), "Completed" | "Succeeded");
    let message = pod["status"]["message"]
        .as_str()
        .filter(|message| !message.is_empty())
        .map(|message| format!(" ({})", plain(message)));
    let mut findings = vec![match is_well {
        true => Finding::passed(POD, words),
        false if state == "Terminating" => terminating(pod, &words, now),
        false => Finding::failed(POD, format!("{words}{}{}", message.unwrap_or_default(), cure(&state))),
    }];
    let gates: Vec<&str> = pod["spec"]["schedulingGates"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|gate| gate["name"].as_str())
        .collect();
    if !gates.is_empty() {
        findings.push(Finding::failed(
            CONDITION,
            format!("it has scheduling gates: {}", plain(&gates.join(", "))),
        ));
    }
    if pod["metadata"]["annotations"]["edge.kubeedge.io/hold-upgrade"] == "true" {
        let says = "it has the annotation edge.kubeedge.io/hold-upgrade: a new version of it waits until `keadm ctl unhold-upgrade pod`";
        findings.push(Finding::warned(CONDITION, says));
    }
    for one in
        pod["status"]["conditions"].as_array().into_iter().flatten().filter(|one| one["status"] == "False")
    {
        let text = |key: &str| plain(one[key].as_str().unwrap_or_default());
        // That of a pod that has ended is no fault.
        if !is_well {
            findings.push(Finding::warned(
                CONDITION,
                format!("{} is False: {} {}", text("type"), text("reason"), text("message"))
                    .trim_end()
                    .trim_end_matches(':')
                    .to_owned(),
            ));
        }
    }
    for statuses in ["initContainerStatuses", "containerStatuses"] {
        findings.extend(pod["status"][statuses].as_array().into_iter().flatten().filter_map(container));
    }
    findings
}

fn terminating(pod: &Value, words: &str, now: SystemTime) -> Finding {
    let deleted =
        pod["metadata"]["deletionTimestamp"].as_str().and_then(|at| at.parse::<jiff::Timestamp>().ok());
    let now = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let since = deleted.and_then(|at| now.checked_sub(u64::try_from(at.as_second()).ok()?));
    match since {
        // Its grace is over since then.
        Some(since) if since > 60 => Finding::failed(
            POD,
            format!(
                "{words}; its grace ended {} ago: a volume or the runtime does not let it go, which edgecore's log names (`journalctl -u edgecore`)",
                age(since)
            ),
        ),
        Some(_) | None => Finding::warned(POD, format!("{words}; it is being ended")),
    }
}

/// Why a container does not run, or ended before.
fn container(status: &Value) -> Option<Finding> {
    let name = plain(status["name"].as_str().unwrap_or_default());
    let text = |value: &Value, key: &str| plain(value[key].as_str().unwrap_or_default());
    let waiting = &status["state"]["waiting"];
    if waiting.is_object() {
        let (reason, message) = (text(waiting, "reason"), text(waiting, "message"));
        let last = ended(&status["lastState"]["terminated"])
            .map(|last| format!("; last time {last}"))
            .unwrap_or_default();
        return Some(Finding::failed(
            CONTAINER,
            format!("{name} waits ({reason}): {message}{last}{}", cure(&reason)),
        ));
    }
    if let Some(words) = ended(&status["state"]["terminated"]) {
        let reason = text(&status["state"]["terminated"], "reason");
        return match status["state"]["terminated"]["exitCode"] == 0 {
            true => Some(Finding::passed(CONTAINER, format!("{name} {words}"))),
            false => Some(Finding::failed(CONTAINER, format!("{name} {words}{}", cure(&reason)))),
        };
    }
    if status["state"]["running"].is_object() && status["ready"] != true {
        let says = format!(
            "{name} runs, and is not ready: its readiness or startup probe fails (the Events say with what)"
        );
        return Some(Finding::warned(CONTAINER, says));
    }
    let last = ended(&status["lastState"]["terminated"])?;
    let reason = text(&status["lastState"]["terminated"], "reason");
    Some(Finding::warned(CONTAINER, format!("{name} runs; before that it {last}{}", cure(&reason))))
}

fn ended(terminated: &Value) -> Option<String> {
    terminated.is_object().then(|| {
        let text = |key: &str| plain(terminated[key].as_str().unwrap_or_default());
        let message = text("message");
        let message = if message.is_empty() { message } else { format!(": {message}") };
        format!(
            "ended with {} ({}) at {}{message}",
            terminated["exitCode"],
            text("reason"),
            text("finishedAt")
        )
    })
}

/// What it refers to and the node does not have.
pub(super) fn references(pod: &Value, is_held: &dyn Fn(&ObjectKey) -> bool) -> Option<Finding> {
    let text = |key: &str| pod["metadata"][key].as_str().unwrap_or_default();
    let keys = |spec: &Value| -> Vec<ObjectKey> {
        PodReferences::of_pod(text("name"), spec).keys(text("namespace")).collect()
    };
    let all = keys(&pod["spec"]);
    if all.is_empty() {
        return None;
    }
    let mut spec = pod["spec"].clone();
    take_optional(&mut spec);
    let needed = keys(&spec);
    let (missing, spared): (Vec<&ObjectKey>, Vec<&ObjectKey>) =
        all.iter().filter(|key| !is_held(key)).partition(|key| needed.contains(key));
    let named = |keys: &[&ObjectKey]| {
        let names: Vec<String> =
            keys.iter().map(|key| plain(&format!("{} {}", key.resource, key.name))).collect();
        names.join(", ")
    };
    Some(match (missing.is_empty(), spared.is_empty()) {
        (true, true) => {
            Finding::passed(REFERENCES, format!("all {} objects that it refers to are here", all.len()))
        }
        (true, false) => Finding::passed(
            REFERENCES,
            format!("all that it needs are here; not here, and `optional`: {}", named(&spared)),
        ),
        (false, _) => Finding::warned(
            REFERENCES,
            format!(
                "not here: {}: made in the cluster they come by themselves while there is a link",
                named(&missing)
            ),
        ),
    })
}

/// Takes out of a pod's spec what it does without: each reference with `optional: true`.
fn take_optional(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, field| field["optional"] != true);
            fields.values_mut().for_each(take_optional);
        }
        Value::Array(values) => values.iter_mut().for_each(take_optional),
        _ => {}
    }
}

/// The last events of it, which edgecore has in memory and says at its socket, at `now`.
pub(super) fn events(all: Option<&Value>, namespace: &str, name: &str, now: SystemTime) -> Vec<Finding> {
    let Some(all) = all else {
        let says = format!(
            "edgecore, which has the last ones in memory, does not say them; in the cluster `kubectl describe pod -n {} {}` has them",
            plain(namespace),
            plain(name)
        );
        return vec![Finding::passed(EVENTS, says)];
    };
    let about = format!("Pod {namespace}/{name}");
    let all = all.as_array().into_iter().flatten();
    let own: Vec<&Value> = all.filter(|event| event["about"] == about).take(EVENTS_MAX).collect();
    if own.is_empty() {
        return vec![Finding::passed(EVENTS, "none since edgecore began")];
    }
    let now = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let line = |event: &&Value| {
        let text = |key: &str| plain(event[key].as_str().unwrap_or_default());
        let since = event["unix"]
            .as_i64()
            .and_then(|at| u64::try_from(at).ok())
            .map_or_else(|| "-".to_owned(), |at| age(now.saturating_sub(at)));
        let message = plain(&whole_or_cut(event["message"].as_str().unwrap_or_default()));
        let words = format!("{since} ago {}: {message}", text("reason"));
        if event["isWarning"] == true {
            Finding::warned(EVENTS, words)
        } else {
            Finding::passed(EVENTS, words)
        }
    };
    own.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use nodechecks::Grade::{Failed, Passed, Warned};
    use serde_json::json;

    use super::*;
    use crate::debug::testing::grade;

    fn now() -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_700_000_300)
    }

    fn pod(status: Value) -> Value {
        json!({"metadata": {"namespace": "shop", "name": "till"}, "spec": {"containers": [{"name": "a"}]}, "status": status})
    }

    fn waiting(reason: &str, message: &str) -> Value {
        pod(
            json!({"phase": "Pending", "containerStatuses": [{"name": "a", "state": {"waiting": {"reason": reason, "message": message}}}]}),
        )
    }

    #[test]
    fn why_a_container_waits_is_said_with_its_cure() {
        let found = state(&waiting("ImagePullBackOff", "Back-off pulling image \"r/x:1\""), now());
        grade(&found[0], Failed, "ImagePullBackOff, 0 of 1 containers");
        grade(
            found.last().unwrap(),
            Failed,
            "a waits (ImagePullBackOff): Back-off pulling image \"r/x:1\": the registry",
        );
        let crash = pod(json!({"phase": "Running", "containerStatuses": [{"name": "a", "restartCount": 4,
            "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}},
            "lastState": {"terminated": {"exitCode": 137, "reason": "OOMKilled", "finishedAt": "t"}}}]}));
        grade(state(&crash, now()).last().unwrap(), Failed, "last time ended with 137 (OOMKilled)");
        let well = pod(
            json!({"phase": "Running", "conditions": [{"type": "PodReadyToStartContainers", "status": "False"}],
            "containerStatuses": [{"name": "a", "ready": true, "state": {"running": {}}}]}),
        );
        assert_eq!(state(&well, now()).len(), 1);
        grade(&state(&well, now())[0], Passed, "Running, 1 of 1");
        let unready = pod(
            json!({"phase": "Running", "containerStatuses": [{"name": "a", "ready": false, "state": {"running": {}}}]}),
        );
        grade(state(&unready, now()).last().unwrap(), Warned, "probe fails");
    }

    #[test]
    fn a_pod_that_does_not_end_is_told_from_one_that_is_about_to() {
        let deleted = |at: &str| {
            let mut pod = pod(json!({"phase": "Running"}));
            pod["metadata"]["deletionTimestamp"] = json!(at);
            pod
        };
        grade(&state(&deleted("2023-11-14T22:18:10Z"), now())[0], Warned, "it is being ended");
        grade(&state(&deleted("2023-11-14T22:13:20Z"), now())[0], Failed, "its grace ended 5m ago");
    }

    #[test]
    fn a_pod_of_another_namespace_or_node_is_said() {
        let held = [pod(json!({}))];
        grade(&not_held(&held, "default", "till"), Failed, "it holds shop/till: -n shop");
        grade(&not_held(&held, "shop", "web"), Failed, "it holds shop/till. It is on another node");
        grade(&not_held(&[], "shop", "web"), Failed, "none at all");
    }

    #[test]
    fn what_it_refers_to_and_is_not_here_is_named() {
        let mut refers = pod(json!({}));
        refers["spec"]["volumes"] = json!([{"name": "s", "secret": {"secretName": "login"}}, {"name": "c", "configMap": {"name": "menu"}}]);
        let found = references(&refers, &|key: &ObjectKey| key.resource == "configmaps").unwrap();
        grade(&found, Warned, "not here: secrets login");
        grade(&references(&refers, &|_: &ObjectKey| true).unwrap(), Passed, "all 2");
        assert_eq!(references(&pod(json!({})), &|_: &ObjectKey| false), None);
        // Who refers to it twice, and once needs it, needs it.
        refers["spec"]["volumes"][0]["secret"]["optional"] = json!(true);
        let found = references(&refers, &|key: &ObjectKey| key.resource == "configmaps").unwrap();
        grade(&found, Passed, "`optional`: secrets login");
        refers["spec"]["containers"][0]["envFrom"] = json!([{"secretRef": {"name": "login"}}]);
        let found = references(&refers, &|key: &ObjectKey| key.resource == "configmaps").unwrap();
        grade(&found, Warned, "not here: secrets login");
    }

    #[test]
    fn its_events_are_those_that_edgecore_has() {
        let all = json!([
            {"about": "Pod shop/till", "unix": 1_700_000_240, "isWarning": true, "reason": "Failed", "message": "no such image"},
            {"about": "Pod shop/web", "unix": 1_700_000_240, "reason": "Started", "message": ""}]);
        let found = events(Some(&all), "shop", "till", now());
        assert_eq!(found.len(), 1);
        grade(&found[0], Warned, "60s ago Failed: no such image");
        grade(&events(Some(&all), "shop", "other", now())[0], Passed, "none since");
        grade(&events(None, "shop", "till", now())[0], Passed, "kubectl describe pod -n shop till");
    }
}
