//! `keadm ctl get device` and `keadm ctl describe device`: the Device as the node's store has it, and its twin as DeviceTwin sees it.

use std::time::SystemTime;

use anyhow::{Context as _, Result};
use clap::Args;
use edge_store::StoreInspector;
use serde_json::{Value, json};

use super::pod_list::{Which, list, text};
use super::pod_words::age;
use super::shape::{Shape, columns, document, plain};
use crate::node_socket::{self, OfNode};

/// 32 MiB: edgecore shows 512 devices with 64 properties each at the most.
const DEVICES_MAX: usize = 32 << 20;
const API_VERSION: &str = "devices.kubeedge.io/v1beta1";

/// Which devices are shown, and how.
#[derive(Args)]
pub struct GetDevices {
    #[command(flatten)]
    which: Which,
    /// How they are shown
    #[arg(short = 'o', long, value_enum)]
    output: Option<Shape>,
}

/// Which devices are described.
#[derive(Args)]
pub struct DescribeDevices {
    #[command(flatten)]
    which: Which,
}

/// All devices of the node, as DeviceTwin sees them, and how many there are beside.
///
/// # Errors
/// When edgecore does not answer at its socket.
async fn views(node: &OfNode) -> Result<(Vec<Value>, usize)> {
    let (status, said) = node_socket::get(node, "/devices", DEVICES_MAX).await?;
    if status != 200 {
        return Err(node_socket::refusal(status, &said));
    }
    let all: Value = serde_json::from_str(&said).context("what edgecore says of its devices is no JSON")?;
    let views = list(&all, "/devices").to_vec();
    let in_all = all["devicesInAll"].as_u64().and_then(|all| usize::try_from(all).ok()).unwrap_or(0);
    let more = in_all.saturating_sub(views.len());
    Ok((views, more))
}

/// One of them, with all properties that its Device names.
///
/// # Errors
/// When edgecore does not answer at its socket, or has no such device.
pub(crate) async fn view(node: &OfNode, namespace: &str, name: &str) -> Result<Value> {
    let (objects, more) = objects(node).await?;
    let is_it = |own: &Value| own["view"]["namespace"] == namespace && own["view"]["name"] == name;
    let found = objects.into_iter().find(is_it).map(|mut object| object["view"].take());
    found.with_context(|| {
        let beside =
            if more > 0 { format!(" or is among the {more} beyond the first 512") } else { String::new() };
        format!("device {name:?} of namespace {namespace} is not on this node{beside}")
    })
}

/// Adds the properties that the Device names and nobody has said a value of yet.
fn complete(view: &mut Value, object: &Value) {
    let in_all = view["propertiesInAll"].as_u64().and_then(|all| usize::try_from(all).ok());
    let Some(known) = view["properties"].as_array_mut() else { return };
    // What is not shown of a device with very many is not taken for silent.
    if in_all != Some(known.len()) {
        return;
    }
    for property in list(object, "/spec/properties") {
        if !known.iter().any(|own| own["name"] == property["name"]) {
            known.push(json!({ "name": property["name"] }));
        }
    }
    known.sort_by_cached_key(|own| text(own, "/name"));
    let all = known.len();
    view["propertiesInAll"] = all.into();
}

/// The Devices as objects: what the store has, with the twin in `status` as a DeviceStatus has it.
async fn objects(node: &OfNode) -> Result<(Vec<Value>, usize)> {
    let (views, more) = views(node).await?;
    let settings = node.settings()?;
    let stored: Vec<Value> = StoreInspector::open(&settings.database.data_source)?
        .entries(Some("devices"), None, true)?
        .into_iter()
        .filter_map(|row| serde_json::from_slice(&row.value?).ok())
        .collect();
    let of = |mut view: Value| {
        let same = |own: &&Value| {
            own["metadata"]["namespace"] == view["namespace"] && own["metadata"]["name"] == view["name"]
        };
        // One that its mapper or an MQTT client has told of alone is in no store as an object.
        let made = || json!({ "metadata": { "namespace": view["namespace"], "name": view["name"] } });
        let mut object = stored.iter().find(same).cloned().unwrap_or_else(made);
        complete(&mut view, &object);
        object["apiVersion"] = API_VERSION.into();
        object["kind"] = "Device".into();
        object["status"] = status(&view);
        object["view"] = view;
        object
    };
    Ok((views.into_iter().map(of).collect(), more))
}

fn status(view: &Value) -> Value {
    let twins = list(view, "/properties").iter().map(|own| {
        let mut twin = json!({ "propertyName": own["name"] });
        if let Some(value) = own["reported"].as_str() {
            let millis = own["reportedUnixMs"].as_i64().map(|at| at.to_string());
            twin["reported"] = json!({ "value": value, "metadata": { "timestamp": millis } });
        }
        if let Some(value) = own["desired"].as_str() {
            twin["observedDesired"] = json!({ "value": value });
        }
        if let Some(error) = own["error"].as_str() {
            twin["error"] = error.into();
        }
        twin
    });
    json!({ "state": view["state"], "reason": view["reason"], "lastOnlineTime": view["lastOnline"],
        "conditions": view["conditions"], "twins": twins.collect::<Vec<_>>() })
}

pub(crate) async fn get(order: &GetDevices, now: SystemTime, say: &mut dyn FnMut(String)) -> Result<()> {
    let which = &order.which;
    let (all, more) = objects(&which.node).await?;
    let mut found = which.of("device", all)?;
    match order.output {
        Some(shape @ (Shape::Json | Shape::Yaml)) => {
            for object in found.iter_mut().filter_map(Value::as_object_mut) {
                object.remove("view");
            }
            say(document(shape, found, which.names.len() == 1)?);
        }
        Some(Shape::Name) => {
            found
                .iter()
                .for_each(|own| say(format!("device.devices.kubeedge.io/{}", text(own, "/metadata/name"))));
        }
        None | Some(Shape::Wide) if found.is_empty() => which.say_nothing(),
        None => table(&found, which.all_namespaces, false, now).into_iter().for_each(&mut *say),
        Some(Shape::Wide) => table(&found, which.all_namespaces, true, now).into_iter().for_each(&mut *say),
    }
    if more > 0 && !matches!(order.output, Some(Shape::Json | Shape::Yaml | Shape::Name)) {
        say(format!("({more} devices of this node are beyond the first 512, and not looked at)"));
    }
    Ok(())
}

fn table(devices: &[Value], with_namespace: bool, is_wide: bool, now: SystemTime) -> Vec<String> {
    let mut heads = vec!["NAME", "STATE", "PROTOCOL", "PROPERTIES", "AGE"];
    if with_namespace {
        heads.insert(0, "NAMESPACE");
    }
    if is_wide {
        heads.extend(["LAST ONLINE", "PROBLEM"]);
    }
    let rows = devices.iter().map(|own| {
        let view = &own["view"];
        let mut row = vec![
            text(view, "/name"),
            text(view, "/state"),
            text(view, "/protocol"),
            view["propertiesInAll"].as_u64().unwrap_or(0).to_string(),
            age(&text(own, "/metadata/creationTimestamp"), now),
        ];
        if with_namespace {
            row.insert(0, text(view, "/namespace"));
        }
        if is_wide {
            let last = text(view, "/lastOnline");
            row.push(if last.is_empty() { "<unknown>".to_owned() } else { last });
            let problem = problems(view).into_iter().next();
            row.push(problem.unwrap_or_else(|| "<none>".to_owned()));
        }
        row
    });
    columns(&heads, &rows.collect::<Vec<_>>())
}

/// What is wrong with a device itself.
fn problems(view: &Value) -> Vec<String> {
    let conditions = list(view, "/conditions");
    let told = conditions.iter().map(|own| format!("{}: {}", text(own, "/reason"), text(own, "/message")));
    let reason = text(view, "/reason");
    let is_news = !reason.is_empty() && !conditions.iter().any(|own| text(own, "/message").contains(&reason));
    is_news.then_some(reason).into_iter().chain(told).collect()
}

pub(crate) async fn describe(
    order: &DescribeDevices,
    now: SystemTime,
    say: &mut dyn FnMut(String),
) -> Result<()> {
    let which = &order.which;
    let (all, more) = objects(&which.node).await?;
    let found = which.of("device", all)?;
    if found.is_empty() {
        which.say_nothing();
    }
    for (at, device) in found.iter().enumerate() {
        if at > 0 {
            say("\n".to_owned());
        }
        lines(device, now).into_iter().for_each(&mut *say);
    }
    if more > 0 {
        say(format!("({more} devices of this node are beyond the first 512, and not looked at)"));
    }
    Ok(())
}

fn lines(device: &Value, now: SystemTime) -> Vec<String> {
    let view = &device["view"];
    let named = |name: &str, value: String| {
        let value = if value.is_empty() { "<none>".to_owned() } else { plain(&value) };
        format!("{:<14}{value}", format!("{name}:"))
    };
    let mut lines = vec![
        named("Name", text(view, "/name")),
        named("Namespace", text(view, "/namespace")),
        named("Model", text(device, "/spec/deviceModelRef/name")),
        named("Protocol", text(view, "/protocol")),
        named("State", text(view, "/state")),
        named("Last Online", text(view, "/lastOnline")),
    ];
    match problems(view) {
        problems if problems.is_empty() => lines.push(named("Problems", String::new())),
        problems => {
            lines.push("Problems:".to_owned());
            lines.extend(problems.iter().map(|problem| format!("  {}", plain(problem))));
        }
    }
    let methods: Vec<String> = list(device, "/spec/methods").iter().map(|own| text(own, "/name")).collect();
    lines.push(named("Methods", methods.join(", ")));
    let properties = list(view, "/properties");
    if properties.is_empty() {
        lines.push(named("Properties", String::new()));
        return lines;
    }
    lines.push("Properties:".to_owned());
    let rows: Vec<Vec<String>> = properties.iter().map(|own| property(own, now)).collect();
    let table = columns(&["NAME", "DESIRED", "REPORTED", "WHEN", "PROBLEM"], &rows);
    lines.extend(table.iter().map(|line| format!("  {line}")));
    let in_all = view["propertiesInAll"].as_u64().and_then(|all| usize::try_from(all).ok()).unwrap_or(0);
    if in_all > properties.len() {
        lines.push(format!("  ({} more are not shown)", in_all - properties.len()));
    }
    lines
}

fn property(own: &Value, now: SystemTime) -> Vec<String> {
    let or_none = |key: &str| own[key].as_str().map_or_else(|| "<none>".to_owned(), str::to_owned);
    let at = own["reportedUnixMs"].as_i64().and_then(|at| jiff::Timestamp::from_millisecond(at).ok());
    let when = at.map_or_else(|| "<never>".to_owned(), |at| format!("{} ago", age(&at.to_string(), now)));
    let problem = match own["error"].as_str() {
        Some(error) => error.to_owned(),
        None if own["isStale"] == true => "nothing heard since".to_owned(),
        None => "<none>".to_owned(),
    };
    vec![text(own, "/name"), or_none("desired"), or_none("reported"), when, problem]
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    fn device() -> Value {
        let view = json!({"namespace": "plant", "name": "tank", "state": "offline", "reason": "no answer", "protocol": "modbus",
            "lastOnline": "2001-09-09T01:40:00Z", "propertiesInAll": 3,
            "conditions": [{"type": "Valid", "reason": "NotHonoured", "message": "no such model"}],
            "properties": [
                {"name": "level", "desired": "42", "reported": "40", "reportedUnixMs": 999_999_940_000_i64, "isStale": true},
                {"name": "mode", "error": "it is read-only"}]});
        json!({"metadata": {"namespace": "plant", "name": "tank", "creationTimestamp": "2001-09-09T00:46:40Z"},
            "spec": {"deviceModelRef": {"name": "tanks"}, "methods": [{"name": "Fill"}]}, "view": view, "status": status(&view)})
    }

    const NOW: Duration = Duration::from_secs(1_000_000_000);

    #[test]
    fn a_device_is_described_with_what_is_desired_reported_and_wrong() {
        let text = lines(&device(), UNIX_EPOCH + NOW).join("\n");
        for wanted in [
            "Model:        tanks",
            "Problems:\n  no answer\n  NotHonoured: no such model",
            "Methods:      Fill",
            "  NAME    DESIRED   REPORTED   WHEN      PROBLEM\n  level   42        40         60s ago   nothing heard since",
            "  mode    <none>    <none>     <never>   it is read-only",
            "  (1 more are not shown)",
        ] {
            assert!(text.contains(wanted), "{wanted}\n---\n{text}");
        }
    }

    #[test]
    fn a_property_of_which_nobody_has_said_anything_is_there() {
        let mut object = device();
        object["spec"]["properties"] = json!([{"name": "fill"}, {"name": "mode"}]);
        let mut view = object["view"].clone();
        complete(&mut view, &object);
        assert_eq!(list(&view, "/properties").len(), 2, "of one that is not shown whole nothing is known");
        view["propertiesInAll"] = 2.into();
        complete(&mut view, &object);
        let names: Vec<String> = list(&view, "/properties").iter().map(|own| text(own, "/name")).collect();
        assert_eq!(
            (names, &view["propertiesInAll"]),
            (vec!["fill".into(), "level".into(), "mode".into()], &json!(3))
        );
    }

    #[test]
    fn a_table_and_a_status_say_the_same() {
        let now = UNIX_EPOCH + NOW;
        assert_eq!(
            table(&[device()], true, true, now)[1],
            "plant       tank   offline   modbus     3            60m   2001-09-09T01:40:00Z   no answer"
        );
        let twins = device()["status"]["twins"].clone();
        assert_eq!(twins[0]["reported"]["value"], "40");
        assert_eq!(twins[0]["observedDesired"]["value"], "42");
        assert_eq!(twins[1], json!({"propertyName": "mode", "error": "it is read-only"}));
    }
}
