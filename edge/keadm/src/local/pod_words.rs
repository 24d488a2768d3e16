//! How a pod is, in kubectl's words (`printPod`). Pure.

use std::time::{SystemTime, UNIX_EPOCH};

use jiff::Timestamp;
use serde_json::Value;

use super::pod_list::{list, text};

/// A pod in the columns of `kubectl get pods`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Words {
    pub(crate) ready: usize,
    pub(crate) containers: usize,
    pub(crate) status: String,
    pub(crate) restarts: String,
}

/// What `kubectl get pods` says of it.
pub(crate) fn words(pod: &Value, now: SystemTime) -> Words {
    let mut reason = match text(pod, "/status/reason") {
        reason if reason.is_empty() => text(pod, "/status/phase"),
        reason => reason,
    };
    if reason.is_empty() {
        "Unknown".clone_into(&mut reason);
    }
    let inits = list(pod, "/spec/initContainers");
    let is_sidecar =
        |name: &Value| inits.iter().any(|init| init["name"] == *name && init["restartPolicy"] == "Always");
    let mut counts = Counts::default();
    let mut of_sidecars = Counts::default();
    let mut ready = 0;
    let mut is_initializing = false;
    for (at, own) in list(pod, "/status/initContainerStatuses").iter().enumerate() {
        counts.add(own);
        let sidecar = is_sidecar(&own["name"]);
        if sidecar {
            of_sidecars.add(own);
        }
        let ended = own.pointer("/state/terminated");
        let waits = text(own, "/state/waiting/reason");
        if ended.is_some_and(|ended| ended["exitCode"] == 0) {
            continue;
        }
        if sidecar && own["started"] == true {
            ready += usize::from(own["ready"] == true);
            continue;
        }
        reason = match ended {
            Some(ended) => format!("Init:{}", end_of(ended)),
            None if !waits.is_empty() && waits != "PodInitializing" => format!("Init:{waits}"),
            None => format!("Init:{at}/{}", inits.len()),
        };
        is_initializing = true;
        break;
    }
    if !is_initializing || has_condition(pod, "Initialized") {
        counts = of_sidecars;
        let mut runs = false;
        for own in list(pod, "/status/containerStatuses").iter().rev() {
            counts.add(own);
            let waits = text(own, "/state/waiting/reason");
            if !waits.is_empty() {
                reason = waits;
            } else if let Some(ended) = own.pointer("/state/terminated") {
                reason = end_of(ended);
            } else if own["ready"] == true && own.pointer("/state/running").is_some() {
                runs = true;
                ready += 1;
            }
        }
        if reason == "Completed" && runs {
            let is_ready = has_condition(pod, "Ready");
            if is_ready { "Running" } else { "NotReady" }.clone_into(&mut reason);
        }
    }
    let is_over = matches!(text(pod, "/status/phase").as_str(), "Succeeded" | "Failed");
    if pod.pointer("/metadata/deletionTimestamp").is_some_and(Value::is_string) && !is_over {
        "Terminating".clone_into(&mut reason);
    }
    let sidecars = inits.iter().filter(|init| init["restartPolicy"] == "Always").count();
    Words {
        ready,
        containers: list(pod, "/spec/containers").len() + sidecars,
        status: reason,
        restarts: counts.words(now),
    }
}

/// How often containers were started again, and when last.
#[derive(Default)]
struct Counts {
    restarts: u64,
    last: Option<Timestamp>,
}

impl Counts {
    fn add(&mut self, status: &Value) {
        self.restarts = self.restarts.saturating_add(status["restartCount"].as_u64().unwrap_or(0));
        let ended = text(status, "/lastState/terminated/finishedAt").parse().ok();
        self.last = self.last.max(ended);
    }

    fn words(&self, now: SystemTime) -> String {
        match self.last.filter(|_| self.restarts > 0) {
            Some(last) => format!("{} ({} ago)", self.restarts, span(seconds_since(last, now))),
            None => self.restarts.to_string(),
        }
    }
}

fn end_of(ended: &Value) -> String {
    let (reason, signal) = (text(ended, "/reason"), ended["signal"].as_i64().unwrap_or(0));
    match (reason.is_empty(), signal) {
        (false, _) => reason,
        (true, 0) => format!("ExitCode:{}", ended["exitCode"].as_i64().unwrap_or(0)),
        (true, signal) => format!("Signal:{signal}"),
    }
}

/// Whether a condition of the pod is True.
pub(crate) fn has_condition(pod: &Value, kind: &str) -> bool {
    list(pod, "/status/conditions").iter().any(|own| own["type"] == kind && own["status"] == "True")
}

/// How long ago an RFC 3339 time is, as kubectl says it.
pub(crate) fn age(time: &str, now: SystemTime) -> String {
    match time.parse::<Timestamp>() {
        Ok(time) => span(seconds_since(time, now)),
        Err(_) => "<unknown>".to_owned(),
    }
}

fn seconds_since(time: Timestamp, now: SystemTime) -> u64 {
    let now = now.duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
    u64::try_from(time.as_second()).map_or(now, |time| now.saturating_sub(time))
}

/// kubectl's `HumanDuration`.
pub(crate) fn span(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    let two = |large: u64, of: &str, small: u64, unit: &str| match small {
        0 => format!("{large}{of}"),
        _ => format!("{large}{of}{small}{unit}"),
    };
    match seconds {
        0..120 => format!("{seconds}s"),
        120..600 => two(minutes, "m", seconds % 60, "s"),
        600..10_800 => format!("{minutes}m"),
        10_800..28_800 => two(hours, "h", minutes % 60, "m"),
        28_800..172_800 => format!("{hours}h"),
        172_800..691_200 => two(days, "d", hours % 24, "h"),
        691_200..63_072_000 => format!("{days}d"),
        63_072_000..252_288_000 => two(days / 365, "y", days % 365, "d"),
        252_288_000.. => format!("{}y", days / 365),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;

    fn of(spec: Value, status: Value) -> (String, String, String) {
        let pod = json!({"metadata": {"name": "p"}, "spec": spec, "status": status});
        let now = UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        let words = words(&pod, now);
        (format!("{}/{}", words.ready, words.containers), words.status, words.restarts)
    }

    fn said(ready: &str, status: &str, restarts: &str) -> (String, String, String) {
        (ready.to_owned(), status.to_owned(), restarts.to_owned())
    }

    #[test]
    fn a_pod_is_said_to_be_as_kubectl_says_it() {
        let one = json!({"containers": [{"name": "c"}]});
        let running = json!({"name": "c", "ready": true, "restartCount": 2, "state": {"running": {}},
            "lastState": {"terminated": {"finishedAt": "2001-09-09T01:46:00Z"}}});
        assert_eq!(
            of(one.clone(), json!({"phase": "Running", "containerStatuses": [running]})),
            said("1/1", "Running", "2 (40s ago)")
        );
        let waiting =
            json!({"name": "c", "state": {"waiting": {"reason": "CrashLoopBackOff"}}, "restartCount": 1});
        assert_eq!(
            of(one.clone(), json!({"phase": "Running", "containerStatuses": [waiting]})),
            said("0/1", "CrashLoopBackOff", "1")
        );
        let ended = |state: Value| json!({"phase": "Failed", "containerStatuses": [{"name": "c", "state": {"terminated": state}}]});
        assert_eq!(of(one.clone(), ended(json!({"exitCode": 3}))), said("0/1", "ExitCode:3", "0"));
        assert_eq!(
            of(one.clone(), ended(json!({"exitCode": 137, "signal": 9}))),
            said("0/1", "Signal:9", "0")
        );
        assert_eq!(
            of(one.clone(), ended(json!({"exitCode": 1, "reason": "Error"}))),
            said("0/1", "Error", "0")
        );
        assert_eq!(
            of(one.clone(), json!({"phase": "Failed", "reason": "Evicted"})),
            said("0/1", "Evicted", "0")
        );
        assert_eq!(of(one, Value::Null), said("0/1", "Unknown", "0"));
    }

    #[test]
    fn init_containers_and_sidecars_count_as_with_kubectl() {
        let spec = json!({"containers": [{"name": "c"}],
            "initContainers": [{"name": "side", "restartPolicy": "Always"}, {"name": "i"}]});
        let side = json!({"name": "side", "ready": true, "started": true, "restartCount": 1, "state": {"running": {}}});
        let status = |init: Value| {
            json!({"phase": "Pending", "initContainerStatuses": [side, init],
            "containerStatuses": [{"name": "c", "state": {"waiting": {"reason": "PodInitializing"}}}]})
        };
        let running = json!({"name": "i", "state": {"running": {}}});
        assert_eq!(of(spec.clone(), status(running)), said("1/2", "Init:1/2", "1"));
        let failed =
            json!({"name": "i", "restartCount": 4, "state": {"waiting": {"reason": "CrashLoopBackOff"}}});
        assert_eq!(of(spec.clone(), status(failed)), said("1/2", "Init:CrashLoopBackOff", "5"));
        let done = json!({"name": "i", "restartCount": 4, "state": {"terminated": {"exitCode": 0}}});
        assert_eq!(of(spec, status(done)), said("1/2", "PodInitializing", "1"));
    }

    #[test]
    fn a_pod_that_is_being_deleted_says_so() {
        let pod = json!({"metadata": {"deletionTimestamp": "2001-09-09T01:46:00Z"}, "spec": {}, "status": {"phase": "Running"}});
        assert_eq!(words(&pod, UNIX_EPOCH).status, "Terminating");
    }

    #[test]
    fn spans_are_kubectls() {
        for (seconds, text) in [
            (119, "119s"),
            (120, "2m"),
            (185, "3m5s"),
            (600, "10m"),
            (10_800, "3h"),
            (10_860, "3h1m"),
            (90_000, "25h"),
            (172_800, "2d"),
            (180_000, "2d2h"),
            (864_000, "10d"),
            (63_072_000, "2y"),
        ] {
            assert_eq!(span(seconds), text);
        }
    }
}
