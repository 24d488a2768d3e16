//! What was seen of nodes, pods, links, containers and volumes, and what of it must not have been. Pure: whoever sees something says
//! when, since the beginning.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::Value;

use crate::Samples;

/// Taints of a node that is not well. Each may stand on one that has just come, until it has been without.
const BAD_TAINTS: [&str; 2] = ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"];

#[derive(Default)]
struct NodeSeen {
    uid: String,
    /// It was Ready once, and no bad taint stood on it then or later.
    was_ready: bool,
    was_clean: bool,
    /// The last look was a violation: the next one is told when it has been well again.
    is_unready: bool,
    is_tainted: bool,
    is_linked: bool,
    unlinked_at: Option<Duration>,
    longest_gap: Duration,
    links: usize,
    /// The newest value that its volume showed.
    shown: u64,
}

#[derive(Default)]
struct PodSeen {
    name: String,
    node: String,
    phase: String,
    is_ready: bool,
    has_restarted: bool,
    seen_at: Duration,
    running_at: Option<Duration>,
    deleted_at: Option<Duration>,
}

impl PodSeen {
    fn shown(&self) -> String {
        let node = if self.node.is_empty() { "no node" } else { &self.node };
        format!("pod {} on {node}", self.name)
    }
}

/// All of it.
#[derive(Default)]
pub(super) struct Witness {
    nodes: BTreeMap<String, NodeSeen>,
    /// By uid; those that are there.
    pods: BTreeMap<String, PodSeen>,
    /// Uids of all that ever were.
    ever: BTreeSet<String>,
    /// How often each container was started, by the pod's uid and its name.
    started: BTreeMap<(String, String), u32>,
    /// Uids of pods that the story has deleted.
    asked: BTreeSet<String>,
    /// The story deletes everything.
    is_over: bool,
    /// When each value was sent to the API.
    sent: BTreeMap<u64, Duration>,
    accepted: u64,
    violations: Vec<String>,
    /// From a pod's first sight to Running.
    pub(super) to_running: Samples,
    /// From a pod's deletion to its end.
    pub(super) to_gone: Samples,
    /// From a value's way to the API to a node's volume.
    pub(super) to_volume: Samples,
}

impl Witness {
    /// Of these nodes; others in the cluster are nobody's business.
    pub(super) fn of(nodes: impl IntoIterator<Item = String>) -> Witness {
        let nodes = nodes.into_iter().map(|name| (name, NodeSeen::default())).collect();
        Witness { nodes, ..Witness::default() }
    }

    /// Something must not have been.
    pub(super) fn violation(&mut self, at: Duration, what: &str) {
        self.violations.push(format!("at {:.1} s: {what}", at.as_secs_f64()));
    }

    pub(super) fn take_violations(&mut self) -> Vec<String> {
        std::mem::take(&mut self.violations)
    }

    /// The API server shows a Node so.
    pub(super) fn node(&mut self, at: Duration, node: &Value) {
        let name = text(&node["metadata"]["name"]);
        let Some(seen) = self.nodes.get_mut(name) else { return };
        let mut wrong = Vec::new();
        let uid = text(&node["metadata"]["uid"]);
        if !seen.uid.is_empty() && seen.uid != uid {
            wrong.push("is another one of its name".to_owned());
        }
        uid.clone_into(&mut seen.uid);
        let ready = condition(&node["status"]["conditions"], "Ready");
        let is_ready = ready.is_some_and(|ready| ready["status"] == "True");
        if seen.was_ready && !is_ready && !seen.is_unready {
            wrong.push(format!("is not Ready any more: {}", ready.map_or("no condition".to_owned(), said)));
        }
        seen.is_unready = seen.was_ready && !is_ready;
        seen.was_ready |= is_ready;
        let taints = node["spec"]["taints"].as_array().map_or(&[] as &[_], Vec::as_slice);
        let bad = taints.iter().map(|taint| text(&taint["key"])).find(|key| BAD_TAINTS.contains(key));
        if let Some(bad) = bad.filter(|_| seen.was_clean && !seen.is_tainted) {
            wrong.push(format!("has the taint {bad}"));
        }
        seen.is_tainted = seen.was_clean && bad.is_some();
        seen.was_clean |= seen.was_ready && bad.is_none();
        for wrong in wrong {
            self.violation(at, &format!("node {name} {wrong}"));
        }
    }

    /// The API server has a Node no more.
    pub(super) fn node_gone(&mut self, at: Duration, name: &str) {
        if self.nodes.contains_key(name) && !self.is_over {
            self.violation(at, &format!("node {name} is gone"));
        }
    }

    /// The API server shows a pod so.
    pub(super) fn pod(&mut self, at: Duration, pod: &Value) {
        let (metadata, status) = (&pod["metadata"], &pod["status"]);
        let uid = text(&metadata["uid"]);
        let seen = self.pods.entry(uid.to_owned()).or_insert_with(|| PodSeen {
            name: text(&metadata["name"]).to_owned(),
            seen_at: at,
            ..PodSeen::default()
        });
        self.ever.insert(uid.to_owned());
        text(&pod["spec"]["nodeName"]).clone_into(&mut seen.node);
        let mut wrong = Vec::new();
        if metadata["deletionTimestamp"].is_string() && seen.deleted_at.is_none() {
            seen.deleted_at = Some(at);
            if !self.is_over && !self.asked.contains(uid) {
                wrong.push("is deleted, and not by the story".to_owned());
            }
        }
        let phase = text(&status["phase"]);
        // What one that is deleted says last is its own affair.
        if seen.deleted_at.is_none() {
            if seen.phase == "Running" && phase != "Running" {
                wrong.push(format!("was Running, and is {phase} ({})", text(&status["reason"])));
            } else if phase != seen.phase && !matches!(phase, "Pending" | "Running") {
                wrong.push(format!("is {phase} ({})", text(&status["reason"])));
            }
            let ready = condition(&status["conditions"], "Ready");
            let is_ready = ready.is_some_and(|ready| ready["status"] == "True");
            if seen.is_ready && !is_ready {
                wrong.push(format!(
                    "is not Ready any more: {}",
                    ready.map_or("no condition".to_owned(), said)
                ));
            }
            seen.is_ready = is_ready;
            let containers = status["containerStatuses"].as_array().map_or(&[] as &[_], Vec::as_slice);
            let restarts: u64 = containers.iter().filter_map(|one| one["restartCount"].as_u64()).sum();
            if restarts > 0 && !seen.has_restarted {
                seen.has_restarted = true;
                wrong.push(format!("says {restarts} restarts"));
            }
        }
        if phase == "Running" && seen.running_at.is_none() {
            seen.running_at = Some(at);
            self.to_running.add(at.saturating_sub(seen.seen_at));
        }
        phase.clone_into(&mut seen.phase);
        let shown = seen.shown();
        for wrong in wrong {
            self.violation(at, &format!("{shown} {wrong}"));
        }
    }

    /// The API server has a pod no more.
    pub(super) fn pod_gone(&mut self, at: Duration, uid: &str) {
        let Some(seen) = self.pods.remove(uid) else { return };
        match seen.deleted_at {
            Some(deleted) => self.to_gone.add(at.saturating_sub(deleted)),
            None if self.is_over || self.asked.contains(uid) => {}
            None => self.violation(at, &format!("{} is gone, and nobody deleted it", seen.shown())),
        }
    }

    /// The uids of all pods that are there.
    pub(super) fn pods(&self) -> Vec<String> {
        self.pods.keys().cloned().collect()
    }

    /// A node's runtime has started a container.
    pub(super) fn started(&mut self, at: Duration, node: &str, uid: &str, (pod, container): (&str, &str)) {
        let times = self.started.entry((uid.to_owned(), container.to_owned())).or_default();
        *times += 1;
        if *times > 1 {
            let what = format!("node {node} has started {container} of pod {pod} {times} times");
            self.violation(at, &what);
        }
    }

    /// A node has a link.
    pub(super) fn linked(&mut self, at: Duration, node: &str) {
        let Some(seen) = self.nodes.get_mut(node) else { return };
        seen.is_linked = true;
        seen.links += 1;
        if let Some(gone) = seen.unlinked_at.take() {
            seen.longest_gap = seen.longest_gap.max(at.saturating_sub(gone));
        }
    }

    /// A node has no link any more.
    pub(super) fn unlinked(&mut self, at: Duration, node: &str) {
        let Some(seen) = self.nodes.get_mut(node) else { return };
        if std::mem::take(&mut seen.is_linked) {
            seen.unlinked_at = Some(at);
        }
    }

    /// The counter goes to the API with this value.
    pub(super) fn sent(&mut self, at: Duration, value: u64) {
        self.sent.insert(value, at);
    }

    /// The API has taken it.
    pub(super) fn accepted(&mut self, value: u64) {
        self.accepted = self.accepted.max(value);
    }

    /// The newest value that the API has taken.
    pub(super) fn newest(&self) -> u64 {
        self.accepted
    }

    /// A node's volume shows this value.
    pub(super) fn shown(&mut self, at: Duration, node: &str, value: u64) {
        let Some(seen) = self.nodes.get_mut(node) else { return };
        let before = seen.shown;
        if value > before {
            seen.shown = value;
            if let Some(sent) = self.sent.get(&value) {
                self.to_volume.add(at.saturating_sub(*sent));
            }
        } else if value < before {
            self.violation(at, &format!("node {node}: its volume shows {value}, and has shown {before}"));
        }
    }

    /// A node's volume shows no value.
    pub(super) fn unreadable(&mut self, at: Duration, node: &str, why: &str) {
        if !self.is_over {
            self.violation(at, &format!("node {node}: its volume shows nothing: {why}"));
        }
    }

    /// From now on the story deletes everything.
    pub(super) fn is_over(&mut self) {
        self.is_over = true;
    }

    /// Names of so many pods that run and whose name begins so, from all over; they are deleted next.
    pub(super) fn choose(&mut self, prefix: &str, count: usize) -> Vec<String> {
        let run = self.pods.iter().filter(|(_, pod)| {
            pod.name.starts_with(prefix) && pod.phase == "Running" && pod.deleted_at.is_none()
        });
        let run: Vec<(String, String)> = run.map(|(uid, pod)| (uid.clone(), pod.name.clone())).collect();
        let every = (run.len() / count.max(1)).max(1);
        let chosen: Vec<(String, String)> = run.into_iter().step_by(every).take(count).collect();
        self.asked.extend(chosen.iter().map(|(uid, _)| uid.clone()));
        chosen.into_iter().map(|(_, name)| name).collect()
    }

    /// Which nodes were never Ready yet.
    pub(super) fn not_ready_yet(&self) -> Vec<&str> {
        self.nodes.iter().filter(|(_, seen)| !seen.was_clean).map(|(name, _)| name.as_str()).collect()
    }

    /// What is still missing until so many pods run, none goes, every node has a link, and every volume shows at least this value.
    pub(super) fn missing(&self, pods: usize, value: u64) -> Vec<String> {
        let mut missing = Vec::new();
        let stay = self.pods.values().filter(|pod| pod.deleted_at.is_none()).count();
        if stay != pods {
            missing.push(format!("there are {stay} pods, and {pods} should be"));
        }
        for pod in self.pods.values() {
            let (shown, since) = (pod.shown(), pod.seen_at.as_secs_f64());
            match pod.deleted_at {
                Some(deleted) => {
                    missing.push(format!("{shown} goes since {:.1} s", deleted.as_secs_f64()));
                }
                None if pod.phase != "Running" || !pod.is_ready => {
                    let ready = if pod.is_ready { "" } else { " and not Ready" };
                    missing.push(format!("{shown} is {}{ready}, there since {since:.1} s", pod.phase));
                }
                None => {}
            }
        }
        for (name, node) in &self.nodes {
            if !node.is_linked {
                missing.push(format!("node {name} has no link"));
            }
            if node.shown < value {
                missing
                    .push(format!("node {name}: its volume shows {}, and {value} was accepted", node.shown));
            }
        }
        missing
    }

    /// Each node's longest time without a link, and who had the longest one of all.
    pub(super) fn gaps(&self) -> (Samples, String) {
        let mut gaps = Samples::default();
        self.nodes.values().for_each(|node| gaps.add(node.longest_gap));
        let longest = self.nodes.iter().max_by_key(|(_, node)| node.longest_gap);
        (gaps, longest.map(|(name, _)| name.clone()).unwrap_or_default())
    }

    /// How many links all nodes had, and how many containers were started.
    pub(super) fn counts(&self) -> (usize, usize) {
        let starts: u32 = self.started.values().sum();
        (self.nodes.values().map(|node| node.links).sum(), starts as usize)
    }

    /// How many pods there were in all.
    pub(super) fn pods_in_all(&self) -> usize {
        self.ever.len()
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn condition<'a>(conditions: &'a Value, kind: &str) -> Option<&'a Value> {
    conditions.as_array()?.iter().find(|condition| condition["type"] == kind)
}

fn said(condition: &Value) -> String {
    format!(
        "{} ({}: {})",
        text(&condition["status"]),
        text(&condition["reason"]),
        text(&condition["message"])
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const S: Duration = Duration::from_secs(1);

    fn node(ready: &str, taints: &[&str]) -> Value {
        let taints: Vec<Value> = taints.iter().map(|key| json!({"key": key})).collect();
        let condition = json!({"type": "Ready", "status": ready, "reason": "R", "message": "m"});
        json!({"metadata": {"name": "n", "uid": "1"}, "spec": {"taints": taints}, "status": {"conditions": [condition]}})
    }

    fn pod(phase: &str, ready: &str, restarts: u32) -> Value {
        json!({
            "metadata": {"name": "web-0", "uid": "u"}, "spec": {"nodeName": "n"},
            "status": {
                "phase": phase, "conditions": [{"type": "Ready", "status": ready}],
                "containerStatuses": [{"restartCount": restarts}],
            },
        })
    }

    fn deleted() -> Value {
        let mut pod = pod("Running", "False", 0);
        pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        pod
    }

    fn witness() -> Witness {
        Witness::of(["n".to_owned()])
    }

    #[test]
    fn a_node_that_was_ready_stays_so_and_comes_with_its_taint() {
        let mut seen = witness();
        seen.node(S, &node("False", &[BAD_TAINTS[0]]));
        seen.node(S, &node("True", &[BAD_TAINTS[0]]));
        assert_eq!(seen.not_ready_yet(), ["n"]);
        seen.node(S, &node("True", &["other"]));
        assert!(seen.not_ready_yet().is_empty() && seen.take_violations().is_empty());
        seen.node(S * 2, &node("Unknown", &[]));
        seen.node(S * 3, &node("Unknown", &[BAD_TAINTS[1]]));
        seen.node(S * 4, &node("Unknown", &[BAD_TAINTS[1]]));
        let told = seen.take_violations();
        let ready = "at 2.0 s: node n is not Ready any more: Unknown (R: m)";
        assert_eq!(told, [ready, "at 3.0 s: node n has the taint node.kubernetes.io/unreachable"]);
        seen.node(S, &node("True", &[]));
        seen.node(S, &node("False", &[]));
        let mut other = node("True", &[]);
        other["metadata"]["uid"] = json!("2");
        seen.node(S, &other);
        seen.node_gone(S, "n");
        seen.node_gone(S, "somebody's");
        assert_eq!(seen.take_violations().len(), 3);
    }

    #[test]
    fn a_pod_that_runs_goes_on_running_until_the_story_deletes_it() {
        let mut seen = witness();
        seen.pod(S, &pod("Pending", "False", 0));
        seen.pod(S * 3, &pod("Running", "True", 0));
        assert_eq!(seen.missing(1, 0), ["node n has no link"]);
        assert_eq!(seen.to_running.quantile(1.0), Some(2.0));
        assert_eq!(seen.choose("web", 1), ["web-0"]);
        seen.pod(S * 4, &deleted());
        assert!(seen.missing(0, 0).contains(&"pod web-0 on n goes since 4.0 s".to_owned()));
        seen.pod_gone(S * 5, "u");
        assert!(seen.take_violations().is_empty());
        assert_eq!((seen.to_gone.quantile(1.0), seen.pods_in_all()), (Some(1.0), 1));
    }

    #[test]
    fn each_way_in_which_a_pod_goes_back_is_told_once() {
        let mut seen = witness();
        seen.pod(S, &pod("Running", "True", 0));
        for _ in 0..2 {
            seen.pod(S, &pod("Pending", "False", 1));
        }
        seen.pod(S, &deleted());
        let told = seen.take_violations().join("; ");
        for what in
            ["was Running, and is Pending", "not Ready any more", "says 1 restarts", "not by the story"]
        {
            assert_eq!(told.matches(what).count(), 1, "{what}: {told}");
        }
        assert!(told.contains("at 1.0 s: pod web-0 on n"), "{told}");
        let mut seen = witness();
        seen.pod(S, &pod("Pending", "False", 0));
        assert!(seen.missing(1, 0)[0].contains("is Pending and not Ready, there since 1.0 s"));
        seen.pod(S, &pod("Failed", "False", 0));
        seen.pod_gone(S, "u");
        assert_eq!(seen.take_violations().len(), 2);
    }

    #[test]
    fn a_container_is_started_once_for_a_pod() {
        let mut seen = witness();
        seen.started(S, "n", "u", ("web-0", "web"));
        seen.started(S, "n", "u", ("web-0", "side"));
        seen.started(S, "n", "v", ("web-0", "web"));
        assert!(seen.take_violations().is_empty());
        seen.started(S * 2, "n", "u", ("web-0", "web"));
        assert_eq!(seen.take_violations(), ["at 2.0 s: node n has started web of pod web-0 2 times"]);
        assert_eq!(seen.counts().1, 4);
    }

    #[test]
    fn a_volume_never_goes_back_and_ends_at_the_newest() {
        let mut seen = witness();
        seen.sent(S, 7);
        seen.shown(S * 3, "n", 7);
        seen.accepted(7);
        seen.linked(S, "n");
        assert!(seen.missing(0, seen.newest()).is_empty());
        seen.accepted(8);
        assert_eq!(seen.missing(0, 8), ["node n: its volume shows 7, and 8 was accepted"]);
        seen.shown(S * 4, "n", 5);
        assert_eq!(seen.take_violations(), ["at 4.0 s: node n: its volume shows 5, and has shown 7"]);
        assert_eq!(seen.to_volume.quantile(1.0), Some(2.0));
    }

    #[test]
    fn the_longest_time_without_a_link_is_kept() {
        let mut seen = witness();
        seen.linked(S, "n");
        for (gone, back) in [(2, 5), (6, 7)] {
            seen.unlinked(S * gone, "n");
            seen.unlinked(S * back, "n");
            seen.linked(S * back, "n");
        }
        let (gaps, node) = seen.gaps();
        assert_eq!((gaps.quantile(1.0), node.as_str(), seen.counts().0), (Some(3.0), "n", 3));
    }
}
