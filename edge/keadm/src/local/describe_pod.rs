//! A pod as `kubectl describe pod` shows it. Pure.

use std::time::{SystemTime, UNIX_EPOCH};

use jiff::Timestamp;
use serde_json::{Map, Value};

use super::pod_list::{list, text};
use super::pod_words::span;
use super::shape::{columns, plain};

/// Lines with what stands before a colon on the left, and indented.
struct Page {
    lines: Vec<String>,
    indent: usize,
    width: usize,
}

impl Page {
    fn line(&mut self, name: &str, value: &str) {
        let (indent, width) = (self.indent, self.width);
        let named = format!("{name}:");
        let value = if value.is_empty() { "<none>".to_owned() } else { plain(value) };
        self.lines.push(format!("{:indent$}{named:width$} {value}", ""));
    }

    /// Only if there is something.
    fn if_any(&mut self, name: &str, value: &str) {
        if !value.is_empty() {
            self.line(name, value);
        }
    }

    fn head(&mut self, name: &str) {
        let indent = self.indent;
        self.lines.push(format!("{:indent$}{}:", "", plain(name)));
    }

    /// One under the other.
    fn several(&mut self, name: &str, values: &[String]) {
        let (first, rest) =
            values.split_first().map_or((String::new(), &[][..]), |(first, rest)| (first.clone(), rest));
        self.line(name, &first);
        let indent = self.indent + self.width + 1;
        self.lines.extend(rest.iter().map(|value| format!("{:indent$}{}", "", plain(value))));
    }

    /// Each below a head.
    fn below(&mut self, name: &str, values: &[String]) {
        if values.is_empty() {
            return self.line(name, "");
        }
        self.head(name);
        let indent = self.indent + 2;
        self.lines.extend(values.iter().map(|value| format!("{:indent$}{}", "", plain(value))));
    }
}

fn pairs(object: &Value, pointer: &str, between: &str) -> Vec<String> {
    let map = object.pointer(pointer).and_then(Value::as_object);
    map.into_iter().flatten().map(|(key, value)| format!("{key}{between}{}", shown(value))).collect()
}

/// A text as it is, anything else as JSON.
fn shown(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// All but its events.
pub(crate) fn lines(pod: &Value, now: SystemTime) -> Vec<String> {
    let mut page = Page { lines: Vec::new(), indent: 0, width: 17 };
    page.line("Name", &text(pod, "/metadata/name"));
    page.line("Namespace", &text(pod, "/metadata/namespace"));
    page.if_any("Priority", &pod.pointer("/spec/priority").map(shown).unwrap_or_default());
    page.if_any("Priority Class", &text(pod, "/spec/priorityClassName"));
    page.if_any("Runtime Class", &text(pod, "/spec/runtimeClassName"));
    page.line("Service Account", &text(pod, "/spec/serviceAccountName"));
    page.line("Node", &[text(pod, "/spec/nodeName"), text(pod, "/status/hostIP")].join("/"));
    page.line("Start Time", &text(pod, "/status/startTime"));
    page.several("Labels", &pairs(pod, "/metadata/labels", "="));
    page.several("Annotations", &pairs(pod, "/metadata/annotations", ": "));
    status(&mut page, pod, now);
    page.if_any("Reason", &text(pod, "/status/reason"));
    page.if_any("Message", &text(pod, "/status/message"));
    page.line("IP", &text(pod, "/status/podIP"));
    let ips: Vec<String> = list(pod, "/status/podIPs").iter().map(|own| text(own, "/ip")).collect();
    page.several("IPs", &ips);
    let owner = list(pod, "/metadata/ownerReferences").iter().find(|owner| owner["controller"] == true);
    page.if_any(
        "Controlled By",
        &owner.map(|own| format!("{}/{}", text(own, "/kind"), text(own, "/name"))).unwrap_or_default(),
    );
    for (head, spec, statuses) in [
        ("Init Containers", "/spec/initContainers", "/status/initContainerStatuses"),
        ("Containers", "/spec/containers", "/status/containerStatuses"),
        ("Ephemeral Containers", "/spec/ephemeralContainers", "/status/ephemeralContainerStatuses"),
    ] {
        let containers = list(pod, spec);
        if containers.is_empty() {
            continue;
        }
        page.head(head);
        for own in containers {
            let status = list(pod, statuses).iter().find(|status| status["name"] == own["name"]);
            container(&mut page, own, status.unwrap_or(&Value::Null));
        }
    }
    conditions(&mut page, pod);
    volumes(&mut page, pod);
    let (indent, width) = (0, 28);
    (page.indent, page.width) = (indent, width);
    page.line("QoS Class", &text(pod, "/status/qosClass"));
    page.several("Node-Selectors", &pairs(pod, "/spec/nodeSelector", "="));
    page.several("Tolerations", &list(pod, "/spec/tolerations").iter().map(toleration).collect::<Vec<_>>());
    page.lines
}

fn status(page: &mut Page, pod: &Value, now: SystemTime) {
    let deleted = text(pod, "/metadata/deletionTimestamp");
    if deleted.is_empty() {
        return page.line("Status", &text(pod, "/status/phase"));
    }
    let since = super::pod_words::age(&deleted, now);
    page.line("Status", &format!("Terminating (lasts {since})"));
    let grace = pod.pointer("/metadata/deletionGracePeriodSeconds").map(shown).unwrap_or_default();
    page.if_any("Termination Grace Period", &format!("{grace}s"));
}

fn container(page: &mut Page, own: &Value, status: &Value) {
    (page.indent, page.width) = (2, 0);
    page.head(&text(own, "/name"));
    (page.indent, page.width) = (4, 15);
    page.line("Container ID", &text(status, "/containerID"));
    page.line("Image", &text(own, "/image"));
    page.line("Image ID", &text(status, "/imageID"));
    let ports = list(own, "/ports").iter().map(|port| {
        let protocol = port["protocol"].as_str().unwrap_or("TCP");
        format!("{}/{protocol}", port["containerPort"])
    });
    page.line("Ports", &ports.collect::<Vec<_>>().join(", "));
    for (name, pointer) in [("Command", "/command"), ("Args", "/args")] {
        let words: Vec<String> = list(own, pointer).iter().map(shown).collect();
        if !words.is_empty() {
            page.below(name, &words);
        }
    }
    state(page, "State", &status["state"]);
    if status["lastState"].as_object().is_some_and(|last| !last.is_empty()) {
        state(page, "Last State", &status["lastState"]);
    }
    page.line("Ready", if status["ready"] == true { "True" } else { "False" });
    page.line("Restart Count", &status["restartCount"].as_u64().unwrap_or(0).to_string());
    for (name, pointer) in [("Limits", "/resources/limits"), ("Requests", "/resources/requests")] {
        let amounts = pairs(own, pointer, ": ");
        if !amounts.is_empty() {
            page.below(name, &amounts);
        }
    }
    for (name, key) in
        [("Liveness", "livenessProbe"), ("Readiness", "readinessProbe"), ("Startup", "startupProbe")]
    {
        if let Some(probe) = own[key].as_object() {
            page.line(name, &probe_words(probe));
        }
    }
    let from = list(own, "/envFrom").iter().filter_map(|from| {
        let (kind, name) = [("ConfigMap", "configMapRef"), ("Secret", "secretRef")]
            .into_iter()
            .find_map(|(kind, key)| Some((kind, from.pointer(&format!("/{key}/name"))?.as_str()?)))?;
        Some(format!("{name}  {kind}"))
    });
    let from: Vec<String> = from.collect();
    if !from.is_empty() {
        page.below("Environment Variables from", &from);
    }
    page.below("Environment", &list(own, "/env").iter().map(variable).collect::<Vec<_>>());
    page.below("Mounts", &list(own, "/volumeMounts").iter().map(mount).collect::<Vec<_>>());
}

fn state(page: &mut Page, name: &str, state: &Value) {
    let (word, own) = match state.as_object().and_then(|state| state.iter().next()) {
        Some((word, own)) => (word.as_str(), own),
        None => ("waiting", &Value::Null),
    };
    let word = match word {
        "running" => "Running",
        "terminated" => "Terminated",
        _ => "Waiting",
    };
    page.line(name, word);
    page.indent += 2;
    page.width -= 2;
    page.if_any("Reason", &text(own, "/reason"));
    page.if_any("Message", &text(own, "/message"));
    if word == "Terminated" {
        page.line("Exit Code", &shown(&own["exitCode"]));
    }
    page.if_any("Started", &text(own, "/startedAt"));
    page.if_any("Finished", &text(own, "/finishedAt"));
    page.indent -= 2;
    page.width += 2;
}

fn probe_words(probe: &Map<String, Value>) -> String {
    let what = if let Some(get) = probe.get("httpGet") {
        let scheme = get["scheme"].as_str().unwrap_or("HTTP").to_lowercase();
        format!("http-get {scheme}://{}:{}{}", text(get, "/host"), shown(&get["port"]), text(get, "/path"))
    } else if let Some(exec) = probe.get("exec") {
        let words: Vec<String> = list(exec, "/command").iter().map(shown).collect();
        format!("exec [{}]", words.join(" "))
    } else if let Some(socket) = probe.get("tcpSocket") {
        format!("tcp-socket {}:{}", text(socket, "/host"), shown(&socket["port"]))
    } else if let Some(grpc) = probe.get("grpc") {
        format!("grpc <pod>:{} {}", shown(&grpc["port"]), text(grpc, "/service"))
    } else {
        "unknown".to_owned()
    };
    let number = |key: &str, default: u64| probe.get(key).and_then(Value::as_u64).unwrap_or(default);
    format!(
        "{what} delay={}s timeout={}s period={}s #success={} #failure={}",
        number("initialDelaySeconds", 0),
        number("timeoutSeconds", 1),
        number("periodSeconds", 10),
        number("successThreshold", 1),
        number("failureThreshold", 3)
    )
}

fn variable(own: &Value) -> String {
    let name = text(own, "/name");
    let of = |what: &str, kind: &str| {
        let from = own.pointer(&format!("/valueFrom/{what}"))?;
        Some(format!(
            "{name}:  <set to the key '{}' in {kind} '{}'>",
            text(from, "/key"),
            text(from, "/name")
        ))
    };
    let field = || {
        let path = own.pointer("/valueFrom/fieldRef/fieldPath").and_then(Value::as_str)?;
        Some(format!("{name}:   ({path})"))
    };
    let resource = || {
        let from = own.pointer("/valueFrom/resourceFieldRef")?;
        Some(format!("{name}:  {} ({})", text(from, "/containerName"), text(from, "/resource")))
    };
    of("secretKeyRef", "secret")
        .or_else(|| of("configMapKeyRef", "config map"))
        .or_else(field)
        .or_else(resource)
        .unwrap_or_else(|| format!("{name}:  {}", text(own, "/value")))
}

fn mount(own: &Value) -> String {
    let how = if own["readOnly"] == true { "ro" } else { "rw" };
    let part = match text(own, "/subPath") {
        part if part.is_empty() => String::new(),
        part => format!(",path=\"{part}\""),
    };
    format!("{} from {} ({how}{part})", text(own, "/mountPath"), text(own, "/name"))
}

fn conditions(page: &mut Page, pod: &Value) {
    let rows: Vec<Vec<String>> = list(pod, "/status/conditions")
        .iter()
        .map(|own| {
            vec![text(own, "/type"), text(own, "/status"), text(own, "/reason"), text(own, "/message")]
        })
        .collect();
    (page.indent, page.width) = (0, 17);
    if rows.is_empty() {
        return page.line("Conditions", "");
    }
    page.head("Conditions");
    page.lines.extend(
        columns(&["Type", "Status", "Reason", "Message"], &rows).iter().map(|line| format!("  {line}")),
    );
}

fn volumes(page: &mut Page, pod: &Value) {
    let all = list(pod, "/spec/volumes");
    if all.is_empty() {
        return page.line("Volumes", "");
    }
    page.head("Volumes");
    for volume in all.iter().filter_map(Value::as_object) {
        let Some((kind, own)) = volume.iter().find(|(key, _)| *key != "name") else { continue };
        (page.indent, page.width) = (2, 0);
        page.head(&volume.get("name").map(shown).unwrap_or_default());
        (page.indent, page.width) = (4, 12);
        let mut letters = kind.chars();
        let named: String = letters.next().into_iter().flat_map(char::to_uppercase).chain(letters).collect();
        page.line("Type", &named);
        for (key, value) in own.as_object().into_iter().flatten() {
            page.line(key, &shown(value));
        }
    }
}

fn toleration(own: &Value) -> String {
    let (key, value, effect) = (text(own, "/key"), text(own, "/value"), text(own, "/effect"));
    let mut words = key;
    if !value.is_empty() {
        words = format!("{words}={value}");
    }
    if !effect.is_empty() {
        words = format!("{words}:{effect}");
    }
    if own["operator"] == "Exists" {
        words = format!("{words} op=Exists");
    }
    match own["tolerationSeconds"].as_i64() {
        Some(seconds) => format!("{words} for {seconds}s"),
        None => words,
    }
}

/// Edged keeps so many bytes of an event's message, and less by the part of a letter.
const MESSAGE_MAX: usize = 256;

/// An event's message, with a mark where Edged has cut it.
pub(crate) fn whole_or_cut(message: &str) -> String {
    // A letter has 4 bytes at the most.
    match message.len() > MESSAGE_MAX - 4 {
        true => format!("{message} …"),
        false => message.to_owned(),
    }
}

/// Of the node's last events those of the pod.
pub(crate) fn events(pod: &Value, all: &[Value], now: SystemTime) -> Vec<String> {
    let about = format!("Pod {}/{}", text(pod, "/metadata/namespace"), text(pod, "/metadata/name"));
    let now = now.duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
    let since = |event: &Value| {
        let at = event["unix"].as_i64().and_then(|at| Timestamp::from_second(at).ok());
        let at = at.and_then(|at| u64::try_from(at.as_second()).ok());
        at.map_or_else(|| "<unknown>".to_owned(), |at| span(now.saturating_sub(at)))
    };
    let own = all.iter().filter(|event| event["about"] == *about);
    let rows: Vec<Vec<String>> = own
        .rev()
        .map(|event| {
            let times = event["count"].as_u64().filter(|count| *count > 1);
            let times = times.map(|count| format!(" (x{count})")).unwrap_or_default();
            let kind = if event["isWarning"] == true { "Warning" } else { "Normal" };
            vec![
                kind.to_owned(),
                text(event, "/reason"),
                format!("{}{times}", since(event)),
                "edgecore".to_owned(),
                whole_or_cut(&text(event, "/message")),
            ]
        })
        .collect();
    if rows.is_empty() {
        return vec!["Events:                      <none> since edgecore began".to_owned()];
    }
    let table = columns(&["Type", "Reason", "Age", "From", "Message"], &rows);
    std::iter::once("Events:".to_owned()).chain(table.iter().map(|line| format!("  {line}"))).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;

    #[test]
    fn a_pod_is_described_with_its_containers_and_no_value_of_a_secret() {
        let pod = json!({
            "metadata": {"name": "till", "namespace": "shop", "labels": {"a": "1", "b": "2"}},
            "spec": {"nodeName": "edge-1", "tolerations": [{"key": "k", "operator": "Exists", "tolerationSeconds": 300}],
                "volumes": [{"name": "v", "configMap": {"name": "prices"}}],
                "containers": [{"name": "c", "image": "x:1", "command": ["sh", "-c"],
                    "env": [{"name": "A", "value": "b\u{1b}[2J"}, {"name": "P", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}],
                    "volumeMounts": [{"name": "v", "mountPath": "/p", "readOnly": true}],
                    "livenessProbe": {"exec": {"command": ["true"]}, "periodSeconds": 3}}]},
            "status": {"phase": "Running", "podIP": "10.0.0.1", "hostIP": "192.0.2.1",
                "conditions": [{"type": "Ready", "status": "True"}],
                "containerStatuses": [{"name": "c", "containerID": "containerd://abc", "ready": true, "restartCount": 1,
                    "state": {"running": {"startedAt": "2001-09-09T01:46:40Z"}},
                    "lastState": {"terminated": {"exitCode": 137, "reason": "Error"}}}]}});
        let text = lines(&pod, UNIX_EPOCH).join("\n");
        for wanted in [
            "Name:             till",
            "Node:             edge-1/192.0.2.1",
            "Labels:           a=1\n                  b=2",
            "    State:          Running\n      Started:      2001-09-09T01:46:40Z",
            "    Last State:     Terminated\n      Reason:       Error\n      Exit Code:    137",
            "      A:  b[2J",
            "      P:  <set to the key 'k' in secret 's'>",
            "      /p from v (ro)",
            "    Liveness:       exec [true] delay=0s timeout=1s period=3s #success=1 #failure=3",
            "  Ready   True",
            "  v:\n    Type:        ConfigMap\n    name:        prices",
            "Tolerations:                 k op=Exists for 300s",
        ] {
            assert!(text.contains(wanted), "{wanted}\n---\n{text}");
        }
    }

    #[test]
    fn events_are_those_of_the_pod() {
        let pod = json!({"metadata": {"name": "till", "namespace": "shop"}});
        let event = |about: &str| json!({"unix": 100, "isWarning": true, "about": about, "reason": "BackOff", "message": "m", "count": 3});
        let all = [event("Pod shop/till"), event("Pod shop/tilly")];
        let said = events(&pod, &all, UNIX_EPOCH + Duration::from_secs(160));
        assert_eq!(said.len(), 3, "{said:?}");
        assert_eq!(said[2], "  Warning   BackOff   60s (x3)   edgecore   m");
        assert_eq!(events(&pod, &[], UNIX_EPOCH).len(), 1);
        let mut long = event("Pod shop/till");
        long["message"] = json!("x".repeat(MESSAGE_MAX));
        assert!(events(&pod, &[long], UNIX_EPOCH)[2].ends_with("xx …"));
    }
}
