//! `keadm debug get`: what the node's store holds, as kubectl would show it, with edgecore or without, with the cloud or without.
//!
//! Of Secrets it shows names, types, keys and sizes, in every form and whoever asks: what is printed here is pasted into tickets. Who needs a
//! value has kubectl, or the pod that the Secret is mounted into.

mod columns;

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail};
use clap::{Args, ValueEnum};
use config::edge::{DEFAULT_PATH, EdgeCore};
use edge_store::{InspectedRow, StoreInspector};
use serde_json::{Value, json};

use crate::config_location;
use crate::label_selector::{self, Selector};
use crate::node_socket::is_shown;
use crate::store::{mask, plain, table};

pub(crate) use columns::{containers, pod_state};

/// 16 MiB of objects are printed: a terminal has room for less.
const PRINTED_MAX: usize = 16 << 20;

/// Kinds of objects, as kubectl names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// Pods, Services, Devices, config maps and Secrets
    All,
    /// Pods
    #[value(alias = "pod", alias = "po")]
    Pods,
    /// The node itself
    #[value(alias = "node", alias = "no")]
    Nodes,
    /// Services
    #[value(alias = "service", alias = "svc")]
    Services,
    /// Secrets, without their values
    #[value(alias = "secret")]
    Secrets,
    /// Config maps
    #[value(alias = "configmap", alias = "cm")]
    Configmaps,
    /// No node holds any
    #[value(alias = "endpoint", alias = "ep")]
    Endpoints,
    /// Devices
    #[value(alias = "device")]
    Devices,
    /// Models of devices
    #[value(alias = "devicemodel")]
    Devicemodels,
    /// Claims
    #[value(alias = "persistentvolumeclaim", alias = "pvc")]
    Persistentvolumeclaims,
    /// Volumes
    #[value(alias = "persistentvolume", alias = "pv")]
    Persistentvolumes,
    /// Rules
    #[value(alias = "rule")]
    Rules,
    /// Ends of rules
    #[value(alias = "ruleendpoint")]
    Ruleendpoints,
}

impl Kind {
    /// The word of the API.
    fn word(self) -> &'static str {
        match self {
            Kind::All => "all",
            Kind::Pods => "pods",
            Kind::Nodes => "nodes",
            Kind::Services => "services",
            Kind::Secrets => "secrets",
            Kind::Configmaps => "configmaps",
            Kind::Endpoints => "endpoints",
            Kind::Devices => "devices",
            Kind::Devicemodels => "devicemodels",
            Kind::Persistentvolumeclaims => "persistentvolumeclaims",
            Kind::Persistentvolumes => "persistentvolumes",
            Kind::Rules => "rules",
            Kind::Ruleendpoints => "ruleendpoints",
        }
    }

    fn has_namespaces(self) -> bool {
        !matches!(self, Kind::Nodes | Kind::Persistentvolumes)
    }
}

/// How it is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum GetFormat {
    /// A table with more columns
    Wide,
    /// JSON
    Json,
    /// YAML
    Yaml,
}

/// What is shown.
#[derive(Debug, Clone, Args)]
pub struct GetArgs {
    /// The kind, as kubectl takes it
    #[arg(value_enum)]
    pub kind: Kind,
    /// The names; all if left out
    pub names: Vec<String>,
    /// The namespace
    #[arg(short = 'n', long, default_value = "default", conflicts_with = "all_namespaces")]
    pub namespace: String,
    /// All namespaces
    #[arg(short = 'A', long)]
    pub all_namespaces: bool,
    /// Print it as JSON or YAML, or with more columns; a table if left out
    #[arg(short = 'o', long, value_enum)]
    pub output: Option<GetFormat>,
    /// Only those with such labels: key=value, key!=value, key, !key, key in (a,b), key notin (a,b), and several with a comma between
    #[arg(short = 'l', long)]
    pub selector: Option<String>,
    /// The node's edgecore.yaml, which says where the store is
    #[arg(short = 'c', long, default_value = DEFAULT_PATH, value_parser = config_location::parser())]
    pub config: PathBuf,
    /// The store itself, wherever edgecore.yaml says it is
    #[arg(short = 'p', long)]
    pub edgedb_path: Option<PathBuf>,
}

/// The store of the node that these settings are of.
///
/// # Errors
/// When there is none, or it cannot be read.
pub(crate) fn open_store(config: &Path) -> Result<StoreInspector> {
    let settings = EdgeCore::load(config)
        .with_context(|| format!("the store's place is database.dataSource in {}", config.display()))?;
    Ok(StoreInspector::open(&settings.database.data_source)?)
}

/// Shows what the store holds, at the time `now`, a line each.
///
/// # Errors
/// When there is no store, nothing of that name in it, or flags that make no sense together.
pub(super) fn get(order: &GetArgs, now: SystemTime, say: &mut dyn FnMut(String)) -> Result<()> {
    let GetArgs { kind, names, output, .. } = order;
    if *kind == Kind::Endpoints {
        bail!(
            "no node holds Endpoints: nothing on an edge node leads a Service's address anywhere (the README: Services, on an edge node)"
        );
    }
    if !names.is_empty() && (order.all_namespaces || order.selector.is_some()) {
        bail!("names are not for --all-namespaces and --selector: leave out one of them");
    }
    if !names.is_empty() && *kind == Kind::All {
        bail!("names are not for `all`: name a kind, as pods");
    }
    let selector = label_selector::parse(order.selector.as_deref().unwrap_or_default())?;
    let inspector = match &order.edgedb_path {
        Some(path) => StoreInspector::open(path)?,
        None => open_store(&order.config)?,
    };
    let kinds: &[Kind] = match kind {
        Kind::All => &[Kind::Pods, Kind::Services, Kind::Devices, Kind::Configmaps, Kind::Secrets],
        one => &[*one],
    };
    let mut held = Vec::new();
    let mut damaged = Vec::new();
    for kind in kinds {
        let (objects, torn) = read(&inspector, *kind, order, &selector)?;
        damaged.extend(torn);
        held.push((*kind, objects));
    }
    if let Some(missing) = names
        .iter()
        .find(|name| !held.iter().any(|(_, objects)| objects.iter().any(|one| is_named(one, name))))
    {
        let within = if kind.has_namespaces() {
            format!(" in the namespace {}", plain(&order.namespace))
        } else {
            String::new()
        };
        let hint = damaged
            .iter()
            .find(|key| key.ends_with(missing.as_str()))
            .map_or("", |_| " that can be read: its row is damaged (`keadm store show`)");
        bail!("this node holds no {} `{}`{within}{hint}", kind.word(), plain(missing));
    }
    let now = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    match output {
        Some(GetFormat::Json | GetFormat::Yaml) => {
            document(held, names.len() == 1, *output == Some(GetFormat::Json), say)?
        }
        wide => tables(&held, order, wide.is_some(), now, say),
    }
    if !damaged.is_empty() {
        say(format!(
            "{} rows are damaged and not shown: {} (`keadm store show`)",
            damaged.len(),
            damaged.join(", ")
        ));
    }
    Ok(())
}

fn is_named(object: &Value, name: &str) -> bool {
    object["metadata"]["name"] == name
}

/// The objects of a kind that are asked for, and the names of those whose rows cannot be read.
fn read(
    inspector: &StoreInspector,
    kind: Kind,
    order: &GetArgs,
    selector: &Selector,
) -> Result<(Vec<Value>, Vec<String>)> {
    let is_wanted = |row: &InspectedRow| {
        let (namespace, name) = &row.key;
        (!kind.has_namespaces() || order.all_namespaces || *namespace == order.namespace)
            && (order.names.is_empty() || order.names.contains(name))
    };
    let (mut objects, mut damaged) = (Vec::new(), Vec::new());
    for row in inspector.entries(Some(kind.word()), None, true)?.into_iter().filter(is_wanted) {
        let value = row.value.as_deref().filter(|_| row.damage.is_none());
        match value.and_then(|value| serde_json::from_slice::<Value>(value).ok()) {
            Some(object) => objects.push(object),
            None => damaged.push(format!("{}/{}", kind.word(), plain(&row.key.1))),
        }
    }
    objects.retain(|object| selector.matches(object));
    match kind {
        Kind::Pods => objects.iter_mut().for_each(|pod| own_status(inspector, pod)),
        Kind::Nodes => objects.iter_mut().for_each(|node| own_conditions(inspector, node)),
        Kind::Devices => objects.iter_mut().for_each(|device| own_state(inspector, device)),
        Kind::Secrets => objects.iter_mut().for_each(mask),
        _ => {}
    }
    Ok((objects, damaged))
}

/// A row of a module's, as JSON.
fn row(inspector: &StoreInspector, table: &str, key: (&str, &str)) -> Option<Value> {
    let rows = inspector.entries(Some(table), Some(key.0), true).ok()?;
    let row = rows.into_iter().find(|row| row.key.0 == key.0 && row.key.1 == key.1)?;
    serde_json::from_slice(&row.value?).ok()
}

/// A pod's status as this node reported it last: the cloud does not send it back.
pub(crate) fn own_status(inspector: &StoreInspector, pod: &mut Value) {
    let uid = pod["metadata"]["uid"].as_str().unwrap_or_default().to_owned();
    if let Some(status) = row(inspector, "pod_status", (&uid, ""))
        && pod.is_object()
    {
        pod["status"] = status;
    }
}

/// The node's conditions as this node reported them last.
pub(crate) fn own_conditions(inspector: &StoreInspector, node: &mut Value) {
    let kept = row(inspector, "facts", ("node", "conditions"));
    let Some(own) = kept.and_then(|kept| kept.pointer("/status/conditions")?.as_array().cloned()) else {
        return;
    };
    let Some(object) = node.as_object_mut() else { return };
    let status = object.entry("status").or_insert_with(|| json!({}));
    let before = status["conditions"].as_array().cloned().unwrap_or_default();
    let is_own = |one: &Value| own.iter().any(|own| own["type"] == one["type"]);
    // What is kept has neither reason nor message; where nothing changed since, those of the Node are true.
    let mut conditions: Vec<Value> = own
        .iter()
        .map(|own| {
            let same = before.iter().find(|one| one["type"] == own["type"] && one["status"] == own["status"]);
            same.unwrap_or(own).clone()
        })
        .collect();
    conditions.extend(before.iter().filter(|one| !is_own(one)).cloned());
    if let Some(status) = status.as_object_mut() {
        status.insert("conditions".to_owned(), Value::from(conditions));
    }
}

/// A device's state as its mapper reported it last.
fn own_state(inspector: &StoreInspector, device: &mut Value) {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let id = format!("{}/{}", text(&device["metadata"]["namespace"]), text(&device["metadata"]["name"]));
    let state = row(inspector, "device_state", (&id, "")).and_then(|row| row.get("state").cloned());
    if let (Some(state), Some(object)) = (state, device.as_object_mut()) {
        object.insert("status".to_owned(), json!({ "state": state }));
    }
}

fn tables(held: &[(Kind, Vec<Value>)], order: &GetArgs, wide: bool, now: u64, say: &mut dyn FnMut(String)) {
    let mut has_said = false;
    for (kind, objects) in held.iter().filter(|(_, objects)| !objects.is_empty()) {
        if has_said {
            say(String::new());
        }
        has_said = true;
        let with_namespace = order.all_namespaces && kind.has_namespaces();
        let mut heads = kind.heads(wide);
        if with_namespace {
            heads.insert(0, "NAMESPACE");
        }
        let rows = objects.iter().map(|object| {
            let mut cells = kind.cells(object, wide, now);
            // As kubectl has it where several kinds are shown.
            if held.len() > 1
                && let Some(name) = cells.first_mut()
            {
                *name = format!("{}/{name}", kind.word().trim_end_matches('s'));
            }
            if with_namespace {
                cells.insert(0, plain(object["metadata"]["namespace"].as_str().unwrap_or_default()));
            }
            cells
        });
        let mut rows: Vec<Vec<String>> = rows.collect();
        if *kind == Kind::Nodes {
            columns::without_unknown(&mut heads, &mut rows);
        }
        table(&heads, rows, say);
    }
    if !has_said {
        let within = if order.all_namespaces {
            String::new()
        } else {
            format!(" in the namespace {}", plain(&order.namespace))
        };
        say(format!("this node holds none{within}"));
    }
}

fn document(
    held: Vec<(Kind, Vec<Value>)>,
    is_one: bool,
    is_json: bool,
    say: &mut dyn FnMut(String),
) -> Result<()> {
    let mut objects: Vec<Value> = held.into_iter().flat_map(|(_, objects)| objects).collect();
    let document = match objects.len() {
        1 if is_one => objects.remove(0),
        _ => json!({"apiVersion": "v1", "kind": "List", "items": objects}),
    };
    let text =
        if is_json { serde_json::to_string_pretty(&document)? } else { serde_saphyr::to_string(&document)? };
    if text.len() > PRINTED_MAX {
        bail!("that is {} MiB of text: name one of them, or a namespace", text.len() >> 20);
    }
    // Whole, and harmless for a terminal.
    say(text.trim_end().chars().filter(|letter| *letter == '\n' || is_shown(*letter)).collect());
    Ok(())
}
