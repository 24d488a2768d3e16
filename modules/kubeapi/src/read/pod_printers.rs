//! What `kubectl get pods` prints of a pod (Kubernetes 1.36: `printPod`).

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::cells::age;
use crate::unstructured::{list, number, text};

/// What is said of a pod's containers: one walk over them gives all three columns, since each follows from how far the walk gets.
#[derive(Default)]
struct Summary<'a> {
    /// Those that count as ready.
    ready: usize,
    /// The STATUS column.
    word: String,
    restarts: Restarts<'a>,
}

/// How often containers started anew.
#[derive(Clone, Copy, Default)]
struct Restarts<'a> {
    count: i64,
    /// When the last one had ended, in RFC 3339; empty: never, or nobody knows.
    last_end: &'a str,
}

impl<'a> Restarts<'a> {
    fn add(&mut self, status: &'a Value) {
        self.count = self.count.saturating_add(number(status, "/restartCount").unwrap_or_default());
        // RFC 3339 in UTC sorts as text.
        self.last_end = self.last_end.max(text(status, "/lastState/terminated/finishedAt"));
    }
}

/// Sidecars count as containers.
pub(super) fn ready(pod: &Value) -> Value {
    json!(format!("{}/{}", summary(pod).ready, list(pod, "/spec/containers").len() + sidecars(pod).len()))
}

/// The word in the STATUS column, as kubectl users know it.
pub(super) fn status(pod: &Value) -> Value {
    json!(summary(pod).word)
}

/// How often containers started anew, and how long ago the last time was.
pub(super) fn restarts(pod: &Value, now: Timestamp) -> Value {
    let Restarts { count, last_end } = summary(pod).restarts;
    if count > 0 && !last_end.is_empty() {
        json!(format!("{count} ({} ago)", age(last_end, now)))
    } else {
        json!(count.to_string())
    }
}

/// How many of the conditions that a pod's readiness waits for are true, of how many.
pub(super) fn readiness_gates(pod: &Value) -> Value {
    let gates = list(pod, "/spec/readinessGates");
    let met = gates.iter().filter(|gate| has_condition(pod, text(gate, "/conditionType"))).count();
    json!(if gates.is_empty() { "<none>".to_owned() } else { format!("{met}/{}", gates.len()) })
}

/// Whether the pod's condition of this type is true.
fn has_condition(pod: &Value, kind: &str) -> bool {
    list(pod, "/status/conditions").iter().any(|one| text(one, "/type") == kind && one["status"] == "True")
}

/// The names of the init containers that run on beside the others.
fn sidecars(pod: &Value) -> BTreeSet<&str> {
    let all = list(pod, "/spec/initContainers").iter();
    all.filter(|container| text(container, "/restartPolicy") == "Always")
        .map(|one| text(one, "/name"))
        .collect()
}

fn summary(pod: &Value) -> Summary<'_> {
    let phase = text(pod, "/status/phase");
    let reason = text(pod, "/status/reason");
    let is_gated =
        |one: &Value| text(one, "/type") == "PodScheduled" && text(one, "/reason") == "SchedulingGated";
    let word = if list(pod, "/status/conditions").iter().any(is_gated) {
        "SchedulingGated"
    } else if reason.is_empty() {
        phase
    } else {
        reason
    };
    let mut summary = Summary { word: word.to_owned(), ..Summary::default() };
    let (is_initialising, of_sidecars) = of_init_containers(pod, &mut summary);
    // Once initialised, what becomes of a sidecar is no step of the beginning any more.
    if !is_initialising || has_condition(pod, "Initialized") {
        // What init containers had to do over again is past; sidecars go on.
        summary.restarts = of_sidecars;
        of_containers(pod, &mut summary);
    }
    if !text(pod, "/metadata/deletionTimestamp").is_empty() {
        if reason == "NodeLost" {
            "Unknown".clone_into(&mut summary.word);
        } else if !matches!(phase, "Succeeded" | "Failed") {
            "Terminating".clone_into(&mut summary.word);
        }
    }
    summary
}

/// Walks as far as the first one that keeps the others waiting, and says whether there is one; and how often sidecars up to there
/// started anew.
fn of_init_containers<'a>(pod: &'a Value, summary: &mut Summary<'a>) -> (bool, Restarts<'a>) {
    let (initial, sidecars) = (list(pod, "/spec/initContainers").len(), sidecars(pod));
    let mut of_sidecars = Restarts::default();
    for (at, status) in list(pod, "/status/initContainerStatuses").iter().enumerate() {
        let is_sidecar = sidecars.contains(text(status, "/name"));
        summary.restarts.add(status);
        if is_sidecar {
            of_sidecars.add(status);
        }
        let ended = &status["state"]["terminated"];
        let waits_for = text(status, "/state/waiting/reason");
        if ended.is_object() && exit_code(ended) == 0 {
            continue;
        }
        if is_sidecar && status["started"] == true {
            summary.ready += usize::from(status["ready"] == true);
            continue;
        }
        summary.word = if ended.is_object() {
            format!("Init:{}", end_word(ended))
        } else if waits_for.is_empty() || waits_for == "PodInitializing" {
            format!("Init:{at}/{initial}")
        } else {
            format!("Init:{waits_for}")
        };
        return (true, of_sidecars);
    }
    (false, of_sidecars)
}

/// Of the words of several the first container's counts, and a failure before an end that was none.
fn of_containers<'a>(pod: &'a Value, summary: &mut Summary<'a>) {
    let (mut runs, mut failed) = (false, None);
    for status in list(pod, "/status/containerStatuses").iter().rev() {
        summary.restarts.add(status);
        let (waits_for, ended) = (text(status, "/state/waiting/reason"), &status["state"]["terminated"]);
        if !waits_for.is_empty() {
            waits_for.clone_into(&mut summary.word);
        } else if ended.is_object() {
            summary.word = end_word(ended);
            if exit_code(ended) != 0 {
                failed = Some(summary.word.clone());
            }
        } else if status["ready"] == true && status["state"]["running"].is_object() {
            runs = true;
            summary.ready += 1;
        }
    }
    if summary.word == "Completed" {
        match failed {
            _ if runs && has_condition(pod, "Ready") => "Running".clone_into(&mut summary.word),
            Some(failed) => summary.word = failed,
            None if runs => "NotReady".clone_into(&mut summary.word),
            None => {}
        }
    }
}

fn exit_code(ended: &Value) -> i64 {
    number(ended, "/exitCode").unwrap_or_default()
}

fn end_word(ended: &Value) -> String {
    let signal = number(ended, "/signal").unwrap_or_default();
    match text(ended, "/reason") {
        "" if signal != 0 => format!("Signal:{signal}"),
        "" => format!("ExitCode:{}", exit_code(ended)),
        reason => reason.to_owned(),
    }
}

#[cfg(test)]
mod tests;
