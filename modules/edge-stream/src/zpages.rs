//! `/statusz` and `/flagz`: what the process is and what it was told, for people who look for a fault (Kubernetes' zpages; text by
//! default, JSON for who asks for the kind).

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use crate::answer::Reply;
use crate::error::Refusal;

/// Kubernetes' name of the component.
const COMPONENT: &str = "kubelet";
/// The version of the kinds that are written as JSON.
const VERSION: &str = "config.k8s.io/v1beta1";
/// What a person may look at.
const PATHS: [&str; 11] = [
    "/configz",
    "/flagz",
    "/healthz",
    "/logs/",
    "/metrics",
    "/metrics/cadvisor",
    "/metrics/probes",
    "/metrics/resource",
    "/metrics/slis",
    "/pods",
    "/stats/summary",
];

/// `/statusz`. `started`: seconds since 1970 when the process began, `now` likewise.
///
/// # Errors
/// When the caller takes neither text nor the kind.
pub(crate) fn statusz(accept: Option<&str>, started: Duration, now: Duration) -> Result<Reply, Refusal> {
    let up = now.saturating_sub(started).as_secs();
    let time =
        |at: Duration| i64::try_from(at.as_secs()).ok().and_then(|at| jiff::Timestamp::from_second(at).ok());
    let began = time(started).map(|at| at.to_string()).unwrap_or_default();
    let version = env!("CARGO_PKG_VERSION");
    match form(accept, "Statusz")? {
        Form::Text => {
            let paths = PATHS.join(" ");
            let text = format!("Started: {began}\nUp: {up} s\nBinary version: {version}\nPaths: {paths}\n");
            Ok(Reply::text(format!("{}\n{text}", head("statusz"))))
        }
        Form::Json => Ok(Reply::json(
            json!({
                "kind": "Statusz", "apiVersion": VERSION, "metadata": {"name": COMPONENT},
                "startTime": began, "uptimeSeconds": up, "binaryVersion": version, "paths": PATHS,
            })
            .to_string(),
        )),
    }
}

/// `/flagz`. `settings`: what the process was told, as `/configz` shows it.
///
/// # Errors
/// When the caller takes neither text nor the kind.
pub(crate) fn flagz(accept: Option<&str>, settings: &Value) -> Result<Reply, Refusal> {
    let flags: BTreeMap<&str, String> = settings.as_object().into_iter().flatten().map(flag).collect();
    match form(accept, "Flagz")? {
        Form::Text => {
            let lines: String = flags.iter().map(|(name, value)| format!("{name}={value}\n")).collect();
            Ok(Reply::text(format!("{}{lines}", head("flagz"))))
        }
        Form::Json => {
            let kind = json!({
                "kind": "Flagz", "apiVersion": VERSION, "metadata": {"name": COMPONENT}, "flags": flags,
            });
            Ok(Reply::json(kind.to_string()))
        }
    }
}

fn flag<'a>((name, value): (&'a String, &Value)) -> (&'a str, String) {
    let text = match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    (name, text)
}

fn head(page: &str) -> String {
    format!(
        "\n{COMPONENT} {page}\nWarning: This endpoint is not meant to be machine parseable, has no formatting compatibility \
         guarantees and is for debugging purposes only.\n"
    )
}

#[derive(Debug, PartialEq, Eq)]
enum Form {
    Text,
    Json,
}

/// What the caller takes, by its `Accept`: the first that can be had. JSON only as the kind.
fn form(accept: Option<&str>, kind: &str) -> Result<Form, Refusal> {
    let accept = accept.unwrap_or_default();
    if accept.trim().is_empty() {
        return Ok(Form::Text);
    }
    for clause in accept.split(',') {
        let mut parts = clause.split(';').map(str::trim);
        let media_type = parts.next().unwrap_or_default();
        let parameters: BTreeMap<&str, &str> = parts.filter_map(|part| part.split_once('=')).collect();
        let is_kind = parameters.get("as") == Some(&kind) && parameters.get("v") == Some(&"v1beta1");
        match media_type {
            "text/plain" | "text/*" | "*/*" => return Ok(Form::Text),
            "application/json" | "application/*"
                if is_kind && parameters.get("g") == Some(&"config.k8s.io") =>
            {
                return Ok(Form::Json);
            }
            _ => {}
        }
    }
    let words = format!(
        "only the following media types are accepted: text/plain, application/json;v=v1beta1;g=config.k8s.io;as={kind}\n"
    );
    Err(Refusal::new(406, words))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answer::Body;

    fn text(reply: Result<Reply, Refusal>) -> String {
        let Body::Whole(bytes) = reply.unwrap().body else { panic!("no text") };
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn who_runs_is_told_as_text_or_as_the_kind() {
        let (started, now) = (Duration::from_secs(60), Duration::from_secs(100));
        // As `kubectl get --raw` asks.
        let shown = text(statusz(Some("application/json, */*"), started, now));
        assert!(shown.starts_with("\nkubelet statusz\nWarning: "), "{shown}");
        assert!(shown.contains("\nStarted: 1970-01-01T00:01:00Z\nUp: 40 s\n"), "{shown}");
        let kind = "application/json;v=v1beta1;g=config.k8s.io;as=Statusz";
        let shown: Value = serde_json::from_str(&text(statusz(Some(kind), started, now))).unwrap();
        assert_eq!((&shown["kind"], &shown["uptimeSeconds"]), (&json!("Statusz"), &json!(40)));
        assert_eq!(statusz(Some("application/json"), started, now).unwrap_err().status, 406);
        assert_eq!(
            statusz(Some("text/plain"), now, started).unwrap().status,
            200,
            "a clock that was set back"
        );
    }

    #[test]
    fn settings_are_told_a_line_each() {
        let settings = json!({"maxPods": 110, "podLogsDir": "/var/log/pods"});
        let shown = text(flagz(None, &settings));
        assert!(shown.ends_with("purposes only.\nmaxPods=110\npodLogsDir=/var/log/pods\n"), "{shown}");
        let kind = "application/json;as=Flagz;v=v1beta1;g=config.k8s.io";
        let shown: Value = serde_json::from_str(&text(flagz(Some(kind), &settings))).unwrap();
        assert_eq!(shown["flags"]["maxPods"], json!("110"));
        assert_eq!(flagz(Some("image/png"), &settings).unwrap_err().status, 406);
    }
}
