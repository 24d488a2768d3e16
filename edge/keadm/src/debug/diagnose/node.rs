//! What is found of a node. Pure, but for the outbox.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use contract::pod_status::{CHECKS, MQTT_BROKER};
use edge_store::StoreInspector;
use nodechecks::{Finding, Grade};
use serde_json::Value;

use crate::store::{age, plain};

const EDGECORE: &str = "EdgeCore";
const LINK: &str = "Link";
const REGISTERED: &str = "Registered";
const OUTBOX: &str = "Outbox";
/// Prints what the last dials came to, and why the last link ended, where the page does not say it.
const DIALS: &str =
    "`journalctl -u edgecore --no-pager | grep -E 'edgehub_(dial_failed|link_ended)' | tail -n 3`";
/// EdgeHub has a link once more; it has lost one.
const LINKED: (&str, &str) = ("edgehub_linked", "edgehub_link_ended");

/// Whether edgecore runs and is well.
pub(super) fn edgecore(
    runs: bool,
    health: Option<&Result<(u16, String), String>>,
    socket: Option<&Path>,
) -> Finding {
    let log = "`journalctl -u edgecore -n 50` says why";
    match (runs, health) {
        (_, Some(Ok((200, _)))) => Finding::passed(EDGECORE, "runs, and is well by its own word (/healthz)"),
        (_, Some(Ok((status, text)))) => Finding::failed(
            EDGECORE,
            format!(
                "runs, and is not well (/healthz answers {status}: {}): {log}; `systemctl restart edgecore` ends no container",
                failing(text)
            ),
        ),
        (true, Some(Err(why))) => {
            Finding::failed(EDGECORE, format!("runs, and does not answer: {}", plain(why)))
        }
        (false, Some(Err(_))) => Finding::failed(
            EDGECORE,
            format!("does not run: `systemctl enable --now edgecore`; where it ends again {log}"),
        ),
        (true, None) => Finding::warned(
            EDGECORE,
            "runs, and serves no socket at which it could be asked (modules.edgeStream.enable, modules.edgeStream.socket)",
        ),
        (false, None) => {
            debug_assert!(socket.is_none(), "one that serves a socket is asked");
            Finding::failed(
                EDGECORE,
                format!("does not run: `systemctl enable --now edgecore`; where it ends again {log}"),
            )
        }
    }
}

/// What of `/healthz` is not well, on one line: the lines that say what is well say nothing here.
fn failing(text: &str) -> String {
    let text = plain(text);
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let failing: Vec<&str> = lines.iter().filter_map(|line| line.strip_prefix("[-]")).collect();
    if failing.is_empty() { lines } else { failing }.join("; ")
}

/// Whether a process has ended and waits for its parent, by its `/proc/PID/stat`: its state stands behind its name, which may have brackets in it.
pub(super) fn is_zombie(stat: &str) -> bool {
    stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with(['Z', 'X']))
}

/// How often an event was counted, by a page of metrics.
fn count(page: &str, event: &str) -> Option<u64> {
    let series = format!("kubehive_edge_events_total{{event=\"{event}\"}} ");
    let value = page.lines().find_map(|line| line.strip_prefix(&series))?;
    value.trim().parse::<f64>().ok().map(|value| value as u64)
}

/// Whether there is a link: by the page what it is like, by the metrics alone whether there is one. `answers`: whether edgecore answered
/// at all.
pub(super) fn link(answers: bool, metrics: Option<&str>, page: Option<&Value>) -> Finding {
    let cure = "`keadm debug check network` looks at CloudCore's ports, its certificate and this machine's clock; pods and devices go on without it";
    if let Some(link) = page.and_then(|page| page.get("link")).filter(|link| link.is_object()) {
        let text = |pointer: &str| link.pointer(pointer).and_then(Value::as_str).map(plain);
        let since = age(link["sinceSeconds"].as_u64().unwrap_or_default());
        if link["up"] == true {
            let (server, carrier) =
                (text("/server").unwrap_or_default(), text("/carrier").unwrap_or_default());
            return Finding::passed(LINK, format!("to {server} over {carrier}, for {since}"));
        }
        let why = text("/lastFailure/reason").map(|why| format!(": {why}")).unwrap_or_default();
        return Finding::failed(
            LINK,
            format!("none for {since}, {} dials came to nothing{why}; {cure}", link["failedDials"]),
        );
    }
    let Some(metrics) = metrics else {
        let why = match answers {
            true => "edgecore did not say in time, as where it waits for the runtime",
            false => "edgecore does not answer",
        };
        return Finding::warned(LINK, format!("nobody says whether there is one: {why}"));
    };
    if count(metrics, LINKED.0).unwrap_or(0) > count(metrics, LINKED.1).unwrap_or(0) {
        return Finding::passed(LINK, "there is one");
    }
    Finding::failed(
        LINK,
        format!(
            "there is none; the last line of {DIALS} says why, as where CloudCore has refused this node by name; {cure}"
        ),
    )
}

/// Whether the cluster knows the node.
pub(super) fn registered(node: Option<&Value>, name: &str) -> Vec<Finding> {
    let name = plain(name);
    let Some(node) = node else {
        return vec![Finding::failed(
            REGISTERED,
            format!(
                "the cloud has sent no Node `{name}`: it was never linked, or its Node was deleted; once there is a link CloudCore makes one, unless the \
                 name is revoked (`kubectl get edgenode {name}`) or the Node is somebody else's (`keadm adopt {name}`)"
            ),
        )];
    };
    let mut findings = Vec::new();
    if node["metadata"]["deletionTimestamp"].is_string() {
        findings
            .push(Finding::failed(REGISTERED, format!("the Node `{name}` is being deleted in the cluster")));
    } else {
        findings.push(Finding::passed(
            REGISTERED,
            format!("as `{}`", plain(node["metadata"]["name"].as_str().unwrap_or_default())),
        ));
    }
    if node["spec"]["unschedulable"] == true {
        let says = format!("the node is cordoned, and gets no new pods: `kubectl uncordon {name}`");
        findings.push(Finding::warned("Schedulable", says));
    }
    let taints = node["spec"]["taints"].as_array().into_iter().flatten();
    let keys: Vec<String> = taints
        .filter(|taint| taint["effect"] == "NoSchedule" || taint["effect"] == "NoExecute")
        .filter_map(|taint| taint["key"].as_str())
        .map(plain)
        .collect();
    if !keys.is_empty() {
        let says = format!("taints keep off pods that do not tolerate them: {}", keys.join(", "));
        findings.push(Finding::warned("Taints", says));
    }
    findings
}

/// The node's conditions, the page's where there is one: those of the store have no words when they are newer than the Node, and then what the
/// runtime itself says now (`complaints`) are the words. `is_of_now`: an edgecore runs that looks after them.
pub(super) fn conditions(
    node: Option<&Value>,
    page: Option<&Value>,
    is_of_now: bool,
    complaints: &[Finding],
) -> Vec<Finding> {
    let failed: Vec<&str> = complaints
        .iter()
        .filter(|finding| finding.grade == Grade::Failed)
        .map(|finding| finding.check)
        .collect();
    let before = if is_of_now { "" } else { ", by what edgecore said before it fell silent" };
    let of_page = page.and_then(|page| page.pointer("/nodeStatus/conditions")).and_then(Value::as_array);
    let of_node = node.and_then(|node| node.pointer("/status/conditions")).and_then(Value::as_array);
    let all = of_page.filter(|conditions| !conditions.is_empty()).or(of_node);
    let Some(all) = all else {
        return vec![Finding::warned(
            "Ready",
            "the node has reported nothing yet: edgecore does so within seconds of its start",
        )];
    };
    // Of others than a kubelet's it is theirs to say what is good: of ours the checks of the machine are looked at.
    let is_own = |kind: &str| !kind.contains('/') || kind == CHECKS || kind == MQTT_BROKER;
    let own = all.iter().filter(|one| one["type"].as_str().is_some_and(is_own));
    own.filter_map(|one| {
        let text = |key: &str| plain(one[key].as_str().unwrap_or_default());
        if one["type"] == CHECKS {
            // Without the node's page the store alone says it, and that has no words.
            let words = match text("message") {
                message if message.is_empty() => "something that stops a node was found: `keadm debug check` says what".to_owned(),
                message => format!("{message}; `keadm debug check` looks again"),
            };
            return (one["status"] != "True").then(|| Finding::warned("Checks", words));
        }
        if one["type"] == MQTT_BROKER {
            let words = match (text("reason"), text("message")) {
                (reason, message) if reason.is_empty() && message.is_empty() => {
                    "devices and mappers cannot use it; edgecore's log says why (`journalctl -u edgecore -n 200`)".to_owned()
                }
                (reason, message) => format!("{reason}: {message}"),
            };
            return (one["status"] != "True").then(|| Finding::failed("MqttBroker", words));
        }
        let is_ready = one["type"] == "Ready";
        let is_well = (one["status"] == "True") == is_ready && one["status"] != "Unknown";
        let words = match (text("reason"), text("message")) {
            (reason, message) if reason.is_empty() && message.is_empty() => {
                let why = match (is_ready, failed.is_empty()) {
                    (true, false) => format!("the runtime says why: {}", failed.join(", ")),
                    _ => "edgecore's log says why (`journalctl -u edgecore -n 200`)".to_owned(),
                };
                format!("{} is {}{before}; {why}", text("type"), text("status"))
            }
            (reason, message) => {
                format!("{} is {}{before}: {reason}: {message}", text("type"), text("status"))
            }
        };
        match (is_well, is_ready) {
            (true, true) if !is_of_now => Some(Finding::warned(
                "Ready",
                "the node was Ready before edgecore fell silent; without it the cluster takes it for lost within a minute",
            )),
            (true, true) if !failed.is_empty() => Some(Finding::warned(
                "Ready",
                format!(
                    "the node is Ready by edgecore's last report, and by what the runtime says now it will not stay so: {}",
                    failed.join(", ")
                ),
            )),
            (true, true) => Some(Finding::passed("Ready", "the node is Ready")),
            (true, false) => None,
            (false, true) => Some(Finding::failed(
                "Ready",
                format!("{words}; `keadm debug check runtime` looks at the runtime"),
            )),
            (false, false) => Some(Finding::failed("Pressure", words)),
        }
    })
    .collect()
}

/// What waits for the cloud.
pub(super) fn outbox(inspector: Option<&StoreInspector>, now: SystemTime) -> Option<Finding> {
    let reports = inspector?.reports(None).ok()?;
    if reports.is_empty() {
        return Some(Finding::passed(OUTBOX, "nothing waits for the cloud"));
    }
    let now = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let oldest = reports.iter().filter_map(|report| u64::try_from(report.queued?).ok()).min();
    let since = oldest.map_or_else(|| "-".to_owned(), |at| age(now.saturating_sub(at)));
    Some(Finding::passed(
        OUTBOX,
        format!("{} reports wait for the cloud, the oldest for {since}", reports.len()),
    ))
}

#[cfg(test)]
mod tests {
    use nodechecks::Grade::{Failed, Passed, Warned};
    use serde_json::json;

    use super::*;
    use crate::debug::testing::grade;

    #[test]
    fn an_edgecore_that_is_down_and_one_that_is_stuck_have_different_cures() {
        let well = Ok((200, "ok".to_owned()));
        let socket = Path::new("/s");
        grade(&edgecore(true, Some(&well), Some(socket)), Passed, "is well");
        grade(
            &edgecore(false, Some(&Err("refused".to_owned())), Some(socket)),
            Failed,
            "does not run: `systemctl enable --now",
        );
        grade(
            &edgecore(true, Some(&Err("says nothing".to_owned())), Some(socket)),
            Failed,
            "does not answer: says nothing",
        );
        grade(&edgecore(true, Some(&Ok((500, "bad".to_owned()))), Some(socket)), Failed, "answers 500: bad");
        let several = "[+]ping ok\n[-]readonlyport failed: reason withheld\nhealthz check failed\n";
        let found = edgecore(true, Some(&Ok((500, several.to_owned()))), Some(socket));
        grade(&found, Failed, "answers 500: readonlyport failed: reason withheld)");
        assert!(!found.line().contains('\n'), "{}", found.line());
        grade(&edgecore(true, None, None), Warned, "serves no socket");
        grade(&edgecore(false, None, None), Failed, "does not run");
    }

    #[test]
    fn a_link_is_told_by_the_page_and_without_one_by_the_counters() {
        let page = json!({"link": {"up": true, "sinceSeconds": 60, "server": "c:10001", "carrier": "quic"}});
        grade(&link(true, None, Some(&page)), Passed, "to c:10001 over quic, for 60s");
        let page = json!({"link": {"up": false, "sinceSeconds": 60, "failedDials": 7, "lastFailure": {"reason": "nobody is there"}}});
        grade(
            &link(true, None, Some(&page)),
            Failed,
            "7 dials came to nothing: nobody is there; `keadm debug check network`",
        );
        let metrics = |linked: u8, ended: u8| {
            format!(
                "kubehive_edge_events_total{{event=\"edgehub_linked\"}} {linked}\nkubehive_edge_events_total{{event=\"edgehub_link_ended\"}} {ended}\n"
            )
        };
        grade(&link(true, Some(&metrics(2, 1)), None), Passed, "there is one");
        grade(
            &link(true, Some(&metrics(2, 2)), None),
            Failed,
            "there is none; the last line of `journalctl -u edgecore",
        );
        grade(&link(true, Some(""), None), Failed, "there is none");
        grade(&link(false, None, None), Warned, "edgecore does not answer");
        grade(&link(true, None, None), Warned, "did not say in time");
    }

    #[test]
    fn a_node_that_nobody_registered_or_that_is_cordoned_is_said() {
        grade(&registered(None, "edge-1")[0], Failed, "keadm adopt edge-1");
        let node = json!({"metadata": {"name": "edge-1"}, "spec": {"unschedulable": true, "taints": [
            {"key": "a", "effect": "NoSchedule"}, {"key": "b", "effect": "PreferNoSchedule"}]}});
        let found = registered(Some(&node), "edge-1");
        grade(&found[0], Passed, "as `edge-1`");
        grade(&found[1], Warned, "kubectl uncordon edge-1");
        grade(&found[2], Warned, "tolerate them: a");
        assert!(!found[2].says.ends_with('b'));
    }

    #[test]
    fn conditions_that_are_not_well_are_said_with_their_words() {
        let of = |conditions: Value| conditions_of(&conditions);
        let ready = json!({"type": "Ready", "status": "False", "reason": "KubeletNotReady", "message": "cni plugin not initialized"});
        grade(&of(json!([ready]))[0], Failed, "cni plugin not initialized; `keadm debug check runtime`");
        let pressed = json!({"type": "DiskPressure", "status": "True", "reason": "r", "message": "m"});
        let found = of(
            json!([{"type": "Ready", "status": "True"}, pressed, {"type": "PIDPressure", "status": "False"}, {"type": "kubehive.io/Link", "status": "False"}]),
        );
        assert_eq!(found.len(), 2, "{found:?}");
        let checks = |status: &str| json!({"type": "kubehive.io/Checks", "status": status, "reason": "ResolvConf", "message": "ResolvConf: own: set it"});
        grade(&of(json!([checks("False")]))[0], Warned, "ResolvConf: own: set it; `keadm debug check`");
        assert!(of(json!([checks("True")])).is_empty());
        let broker = |status: &str| json!({"type": "kubehive.io/MqttBroker", "status": status, "reason": "CannotListen", "message": "1883 is taken"});
        grade(&of(json!([broker("False")]))[0], Failed, "CannotListen: 1883 is taken");
        assert!(of(json!([broker("True")])).is_empty());
        let bare = json!([{"type": "kubehive.io/Checks", "status": "False"}]);
        grade(&of(bare)[0], Warned, "was found: `keadm debug check` says what");
        grade(&found[0], Passed, "Ready");
        grade(&found[1], Failed, "DiskPressure is True: r: m");
        grade(&conditions(None, None, true, &[])[0], Warned, "reported nothing yet");
        // The page is newer than the Node.
        let page = json!({"nodeStatus": {"conditions": [{"type": "Ready", "status": "True"}]}});
        grade(
            &conditions(Some(&json!({"status": {"conditions": [ready]}})), Some(&page), true, &[])[0],
            Passed,
            "Ready",
        );
    }

    fn conditions_of(conditions: &Value) -> Vec<Finding> {
        super::conditions(Some(&json!({"status": {"conditions": conditions}})), None, true, &[])
    }

    #[test]
    fn what_the_runtime_says_now_is_the_reason_that_the_store_does_not_keep() {
        let node = |status: &str| json!({"status": {"conditions": [{"type": "Ready", "status": status}]}});
        let down = [
            Finding::failed("RuntimeEndpoint", "nobody answers"),
            Finding::warned("Iptables", "is not there"),
        ];
        let of = |status: &str, is_of_now, complaints: &[Finding]| {
            conditions(Some(&node(status)), None, is_of_now, complaints).remove(0)
        };
        grade(&of("False", true, &down), Failed, "Ready is False; the runtime says why: RuntimeEndpoint; ");
        grade(&of("False", true, &[]), Failed, "`journalctl -u edgecore -n 200`");
        // A kubelet's 30 s, before it says so itself.
        grade(&of("True", true, &down), Warned, "last report");
        grade(&of("True", true, &down[1..]), Passed, "the node is Ready");
        grade(&of("True", false, &[]), Warned, "was Ready before edgecore fell silent");
        grade(&of("False", false, &[]), Failed, "before it fell silent");
    }

    #[test]
    fn a_process_that_has_ended_is_none() {
        assert!(is_zombie("7 (edgecore) Z 1 7"));
        assert!(is_zombie("7 (a) Z) Z 1 7") && !is_zombie("7 (a) Z) S 1 7"));
        assert!(!is_zombie("7 (edgecore) S 1 7") && !is_zombie(""));
    }
}
