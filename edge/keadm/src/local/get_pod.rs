//! `keadm ctl get pod` and `keadm ctl describe pod`.

use std::time::SystemTime;

use anyhow::Result;
use clap::Args;
use serde_json::Value;

use super::describe_pod;
use super::pod_list::{Which, list, pods, text};
use super::pod_words::{age, words};
use super::shape::{Shape, columns, document};
use crate::node_socket;

/// 1 MiB: the last events that Edged keeps, some dozens of sentences.
const EVENTS_MAX: usize = 1 << 20;

/// Which pods are shown, and how.
#[derive(Args)]
pub struct GetPods {
    #[command(flatten)]
    which: Which,
    /// How they are shown
    #[arg(short = 'o', long, value_enum)]
    output: Option<Shape>,
}

/// Which pods are described.
#[derive(Args)]
pub struct DescribePods {
    #[command(flatten)]
    which: Which,
    /// Whether the last events are shown, as far as this edgecore knows them: since it began
    #[arg(long, default_value_t = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    show_events: bool,
}

pub(crate) async fn get(order: &GetPods, now: SystemTime, say: &mut dyn FnMut(String)) -> Result<()> {
    let which = &order.which;
    let found = which.of("pod", pods(&which.node).await?)?;
    match order.output {
        Some(shape @ (Shape::Json | Shape::Yaml)) => say(document(shape, found, which.names.len() == 1)?),
        Some(Shape::Name) => found.iter().for_each(|pod| say(format!("pod/{}", text(pod, "/metadata/name")))),
        None | Some(Shape::Wide) if found.is_empty() => which.say_nothing(),
        None => table(&found, which.all_namespaces, false, now).into_iter().for_each(say),
        Some(Shape::Wide) => table(&found, which.all_namespaces, true, now).into_iter().for_each(say),
    }
    Ok(())
}

fn table(pods: &[Value], with_namespace: bool, is_wide: bool, now: SystemTime) -> Vec<String> {
    let mut heads = vec!["NAME", "READY", "STATUS", "RESTARTS", "AGE"];
    if with_namespace {
        heads.insert(0, "NAMESPACE");
    }
    if is_wide {
        heads.extend(["IP", "NODE", "NOMINATED NODE", "READINESS GATES"]);
    }
    let rows = pods.iter().map(|pod| row(pod, with_namespace, is_wide, now));
    columns(&heads, &rows.collect::<Vec<_>>())
}

fn row(pod: &Value, with_namespace: bool, is_wide: bool, now: SystemTime) -> Vec<String> {
    let own = words(pod, now);
    let mut row = vec![
        text(pod, "/metadata/name"),
        format!("{}/{}", own.ready, own.containers),
        own.status,
        own.restarts,
        age(&text(pod, "/metadata/creationTimestamp"), now),
    ];
    if with_namespace {
        row.insert(0, text(pod, "/metadata/namespace"));
    }
    if is_wide {
        let or_none = |text: String| if text.is_empty() { "<none>".to_owned() } else { text };
        let gates = list(pod, "/spec/readinessGates");
        let good = gates.iter().filter(|gate| {
            gate["conditionType"].as_str().is_some_and(|kind| super::pod_words::has_condition(pod, kind))
        });
        row.extend([
            or_none(text(pod, "/status/podIP")),
            or_none(text(pod, "/spec/nodeName")),
            or_none(text(pod, "/status/nominatedNodeName")),
            if gates.is_empty() { "<none>".to_owned() } else { format!("{}/{}", good.count(), gates.len()) },
        ]);
    }
    row
}

pub(crate) async fn describe(
    order: &DescribePods,
    now: SystemTime,
    say: &mut dyn FnMut(String),
) -> Result<()> {
    let which = &order.which;
    let found = which.of("pod", pods(&which.node).await?)?;
    if found.is_empty() {
        which.say_nothing();
        return Ok(());
    }
    let events = if order.show_events { events(which).await } else { None };
    for (at, pod) in found.iter().enumerate() {
        if at > 0 {
            say("\n".to_owned());
        }
        describe_pod::lines(pod, now).into_iter().for_each(&mut *say);
        match &events {
            Some(events) => describe_pod::events(pod, events, now).into_iter().for_each(&mut *say),
            None if order.show_events => say("Events:  <unknown>: edgecore does not say".to_owned()),
            None => {}
        }
    }
    Ok(())
}

/// The last events of the node; `None`: nobody says.
async fn events(which: &Which) -> Option<Vec<Value>> {
    let (status, said) = node_socket::get(&which.node, "/events", EVENTS_MAX).await.ok()?;
    serde_json::from_str(&said).ok().filter(|_| status == 200)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use serde_json::json;

    use super::*;

    #[test]
    fn a_table_is_kubectls() {
        let pod = json!({"metadata": {"name": "till", "namespace": "shop", "creationTimestamp": "2001-09-09T01:44:00Z"},
            "spec": {"containers": [{"name": "c"}], "nodeName": "edge-1"},
            "status": {"phase": "Running", "podIP": "10.1.2.3",
                "containerStatuses": [{"name": "c", "ready": true, "state": {"running": {}}}]}});
        let now = UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        assert_eq!(
            table(std::slice::from_ref(&pod), true, false, now),
            [
                "NAMESPACE   NAME   READY   STATUS    RESTARTS   AGE",
                "shop        till   1/1     Running   0          2m40s"
            ]
        );
        assert_eq!(
            table(&[pod], false, true, now)[1],
            "till   1/1     Running   0          2m40s   10.1.2.3   edge-1   <none>           <none>"
        );
    }
}
