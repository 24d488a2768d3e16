//! `keadm sync`: whether a node holds what it should, as the cluster sees it, and what it holds, as it sees itself.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use clap::Args;
use config::edge::EdgeCore;
use contract::NodeName;
use contract::ids::EDGE_LABEL;
use crd::EdgeNode;
use edge_store::StoreInspector;
use kube::ResourceExt as _;
use kube::api::{Api, ApiResource, DynamicObject, ListParams};
use noderegistry::{Entry, Registry};
use serde_json::Value;

use crate::store::{age, plain, table};

const HEADS: [&str; 5] = ["NODE", "SYNCED", "REASON", "FOR", "WRITTEN"];
/// The condition that CloudCore writes on the Node.
const SYNCED: &str = "kubehive.io/Synced";

/// Whose sync is shown.
#[derive(Debug, Clone, Args)]
pub struct Sync {
    /// A node of the cluster; without it, what this machine's own store holds, or all edge nodes where no edgecore.yaml is
    pub node: Option<String>,
    /// Path of the cluster's kubeconfig; else those of $KUBECONFIG, else /root/.kube/config
    #[arg(long)]
    pub kube_config: Option<PathBuf>,
    /// This node's edgecore.yaml
    #[arg(long, default_value = config::edge::DEFAULT_PATH)]
    pub config: PathBuf,
}

/// Shows what `order` asks for, at the time `now`, a line each. Nothing is changed.
///
/// # Errors
/// When the cluster or the store cannot be read.
pub async fn show_sync(order: &Sync, now: SystemTime, say: &mut dyn FnMut(String)) -> Result<()> {
    let now = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let Some(node) = &order.node else {
        // A machine that is no edge node: whoever asks there asks for those of the cluster.
        let is_told = order.config != Path::new(config::edge::DEFAULT_PATH) && order.kube_config.is_none();
        if is_told || order.config.exists() {
            return of_this_node(&order.config, now, say);
        }
        let client = crate::client(order.kube_config.as_deref()).await.with_context(|| {
            format!(
                "this machine is no edge node ({} is not there), and its cluster is not known",
                order.config.display()
            )
        })?;
        return of_all(client, now, say).await;
    };
    let node = NodeName::parse(node)?;
    of_node(crate::client(order.kube_config.as_deref()).await?, &node, now, say).await
}

fn nodes(client: kube::Client) -> Api<DynamicObject> {
    let resource = ApiResource {
        group: String::new(),
        version: "v1".to_owned(),
        api_version: "v1".to_owned(),
        kind: "Node".to_owned(),
        plural: "nodes".to_owned(),
    };
    Api::all_with(client, &resource)
}

/// Every edge node of the cluster, a row each.
async fn of_all(client: kube::Client, now: u64, say: &mut dyn FnMut(String)) -> Result<()> {
    let edge = ListParams::default().labels(EDGE_LABEL);
    let found = nodes(client.clone()).list(&edge).await.context("cannot read the nodes")?;
    let register: Api<DynamicObject> = Api::all_with(client, &ApiResource::erase::<EdgeNode>(&()));
    // Whoever may not read it is shown what the Nodes say.
    let register = register.list(&ListParams::default()).await.ok();
    let entries = register.map(|list| {
        list.items
            .into_iter()
            .filter_map(|object| {
                let object: EdgeNode = object.try_parse().ok()?;
                Some((object.name_any(), Entry::of(&object)))
            })
            .collect()
    });
    let rows = rows(&found.items, entries.as_ref(), now);
    if rows.is_empty() {
        say("the cluster has no edge node: `keadm gettoken` prints a token that one joins with".to_owned());
        return Ok(());
    }
    table(&HEADS, rows, say);
    Ok(())
}

/// The rows of Nodes and, after them, of names in the register that have none.
fn rows(nodes: &[DynamicObject], entries: Option<&BTreeMap<String, Entry>>, now: u64) -> Vec<Vec<String>> {
    let mut rows = Vec::new();
    for node in nodes {
        let (name, conditions) = (plain(&node.name_any()), node.data.pointer("/status/conditions"));
        let all = conditions.and_then(Value::as_array).into_iter().flatten();
        let condition = all.into_iter().find(|condition| condition["type"] == SYNCED);
        let outdated = entries.and_then(|entries| barred(&name, entries.get(&node.name_any())));
        let outdated = outdated.or_else(|| unheard(conditions));
        rows.push(row(&name, condition.unwrap_or(&Value::Null), outdated.as_ref(), now));
    }
    let has_node = |name: &String| nodes.iter().any(|node| node.name_any() == *name);
    for (name, entry) in entries.into_iter().flatten().filter(|(name, _)| !has_node(name)) {
        let outdated = barred(name, Some(entry)).unwrap_or(Outdated {
            reason: "NoNode",
            since: "-".to_owned(),
            words: String::new(),
        });
        rows.push(row(&plain(name), &Value::Null, Some(&outdated), now));
    }
    rows
}

async fn of_node(client: kube::Client, node: &NodeName, now: u64, say: &mut dyn FnMut(String)) -> Result<()> {
    let nodes = nodes(client.clone());
    let Some(found) = nodes.get_opt(node.as_str()).await.context("cannot read the node")? else {
        bail!("the cluster has no node `{node}`: `kubectl get nodes` lists them");
    };
    let conditions = found.data.pointer("/status/conditions").and_then(Value::as_array);
    let condition = conditions.into_iter().flatten().find(|condition| condition["type"] == SYNCED);
    let Some(condition) = condition else {
        bail!(
            "node `{node}` has no condition {SYNCED}: CloudCore writes it some seconds after the node is linked"
        );
    };
    let outdated = match Registry::new(client).edge_node(node).await {
        Ok(entry) => barred(node.as_str(), entry.as_ref().map(Entry::of).as_ref()),
        // Whoever may not read it is shown what the Node says.
        Err(_) => None,
    };
    let outdated = outdated.or_else(|| unheard(found.data.pointer("/status/conditions")));
    of_condition(node, condition, outdated.as_ref(), now).into_iter().for_each(say);
    Ok(())
}

/// Why a condition is of before.
#[derive(Debug, PartialEq, Eq)]
struct Outdated {
    /// As the reason of a condition.
    reason: &'static str,
    /// When it became so; `-`: nobody has noted it.
    since: String,
    /// In words.
    words: String,
}

/// A name that CloudCore has no link of and takes none of: what it wrote before stays in the Node.
fn barred(node: &str, entry: Option<&Entry>) -> Option<Outdated> {
    let (reason, words) = match entry {
        Some(entry) if entry.is_barred => (
            "Revoked",
            format!(
                "`{node}` is revoked: CloudCore tells it nothing and hears nothing of it (`keadm free {node}` frees the name); before that:"
            ),
        ),
        Some(_) => return None,
        None => (
            "NotRegistered",
            format!(
                "no edge node has the name `{node}`: it was freed, or never joined (`kubectl get edgenodes` lists them); before that:"
            ),
        ),
    };
    Some(Outdated { reason, since: "-".to_owned(), words })
}

/// Since when nothing was heard of the node, if nothing is. CloudCore's own conditions stay as it wrote them last when there is no
/// CloudCore any more: who knows of that is who watches the nodes' Leases, and says so in `Ready` (Kubernetes' node lifecycle
/// controller).
fn unheard(conditions: Option<&Value>) -> Option<Outdated> {
    let conditions = conditions?.as_array()?;
    let ready = conditions.iter().find(|condition| condition["type"] == "Ready")?;
    (ready["status"] == "Unknown").then(|| Outdated {
        reason: "NodeUnheard",
        since: plain(ready["lastTransitionTime"].as_str().unwrap_or("-")),
        words: "no CloudCore has heard of the node since then; before that:".to_owned(),
    })
}

/// The condition as tables. What cannot be taken apart is shown as it is.
fn of_condition(node: &NodeName, condition: &Value, outdated: Option<&Outdated>, now: u64) -> Vec<String> {
    let text = |name: &str| plain(condition[name].as_str().unwrap_or("-"));
    let mut lines = Vec::new();
    let mut say = |line| lines.push(line);
    table(&HEADS, vec![row(node.as_str(), condition, outdated, now)], &mut say);
    let message = text("message");
    say(String::new());
    if let Some(outdated) = outdated {
        say(outdated.words.clone());
    }
    // What the node refuses is its own text, and comes last.
    let (parts, refused) = match message.split_once("; refused: ") {
        Some((parts, refused)) => (parts, Some(refused)),
        None => (message.as_str(), None),
    };
    let mut parts = parts.split("; ").peekable();
    let waiting = parts.peek().and_then(|part| part.strip_suffix(" waiting"));
    let oldest = parts.clone().nth(1).and_then(|part| part.strip_prefix("oldest ")?.rsplit_once(" since "));
    let confirmed = parts.clone().find_map(|part| part.strip_prefix("last confirmed "));
    let link = parts.clone().find_map(|part| part.strip_prefix("link "));
    match (waiting, oldest) {
        (Some(waiting), Some((oldest, since))) => {
            let row = vec![waiting.to_owned(), oldest.to_owned(), for_how_long(since, now)];
            table(&["WAITING", "OLDEST", "FOR"], vec![row], &mut say);
        }
        _ => say(parts.next().unwrap_or_default().to_owned()),
    }
    if let Some(confirmed) = confirmed {
        // Without a link there is no session that anything could be said of.
        let session = link.map_or_else(|| "no session".to_owned(), |link| format!("this session: {link}"));
        say(format!("last confirmed {} ago; {session}", for_how_long(confirmed, now)));
    }
    if let Some(why) = refused {
        say(String::new());
        say(format!("the node refused it: {why}"));
    }
    lines
}

fn row(node: &str, condition: &Value, outdated: Option<&Outdated>, now: u64) -> Vec<String> {
    let text = |name: &str| plain(condition[name].as_str().unwrap_or("-"));
    let row = match outdated {
        Some(outdated) => ["Unknown".into(), outdated.reason.into(), for_how_long(&outdated.since, now)],
        None => [text("status"), text("reason"), for_how_long(&text("lastTransitionTime"), now)],
    };
    let written = for_how_long(&text("lastHeartbeatTime"), now);
    let written = if written == "-" { written } else { format!("{written} ago") };
    [node.to_owned()].into_iter().chain(row).chain([written]).collect()
}

fn for_how_long(since: &str, now: u64) -> String {
    let since = since.parse::<jiff::Timestamp>().ok().and_then(|at| u64::try_from(at.as_second()).ok());
    since.map_or_else(|| "-".to_owned(), |since| age(now.saturating_sub(since)))
}

fn of_this_node(config: &Path, now: u64, say: &mut dyn FnMut(String)) -> Result<()> {
    let settings = EdgeCore::load(config)
        .with_context(|| format!("the store's place is database.dataSource in {}", config.display()))?;
    let path = &settings.database.data_source;
    let inspector = StoreInspector::open(path)?;
    say(format!("{} at revision {}", path.display(), inspector.revision()));
    let mut kinds: BTreeMap<String, (usize, usize)> = BTreeMap::new();
    for entry in inspector.entries(None, None, false)? {
        let (count, damaged) = kinds.entry(entry.class).or_default();
        *count += 1;
        *damaged += usize::from(entry.damage.is_some());
    }
    say(String::new());
    let row = |(kind, (count, damaged)): (String, (usize, usize))| {
        vec![kind, count.to_string(), damaged.to_string()]
    };
    table(&["KIND", "HELD", "DAMAGED"], kinds.into_iter().map(row).collect(), say);
    let reports = inspector.reports(None)?;
    let queued = reports.iter().filter_map(|report| u64::try_from(report.queued?).ok());
    let oldest = queued.min().map_or_else(|| "-".to_owned(), |at| age(now.saturating_sub(at)));
    say(String::new());
    table(&["OUTBOX", "OLDEST"], vec![vec![reports.len().to_string(), oldest]], say);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn shown(condition: &Value) -> Vec<String> {
        of_condition(&NodeName::parse("edge-1").unwrap(), condition, None, 1_700_000_300)
    }

    #[test]
    fn what_was_written_before_nothing_was_heard_any_more_is_of_before() {
        let ready = |status: &str| json!([{"type": "Ready", "status": status, "lastTransitionTime": "2023-11-14T22:17:20Z"}]);
        assert_eq!(unheard(Some(&ready("True"))), None);
        assert_eq!(unheard(None), None);
        let unheard = unheard(Some(&ready("Unknown")));
        let condition = json!({"type": SYNCED, "status": "True", "reason": "InSync", "message": "the node has confirmed all that it should hold",
            "lastHeartbeatTime": "2023-11-14T22:10:00Z"});
        let lines =
            of_condition(&NodeName::parse("edge-1").unwrap(), &condition, unheard.as_ref(), 1_700_000_300);
        assert_eq!(
            lines[1].split_whitespace().collect::<Vec<_>>()[..4],
            ["edge-1", "Unknown", "NodeUnheard", "60s"]
        );
        assert_eq!(lines[3], "no CloudCore has heard of the node since then; before that:");
    }

    #[test]
    fn a_name_that_is_barred_or_freed_is_in_sync_with_nobody() {
        let node = NodeName::parse("edge-1").unwrap();
        let condition = json!({"type": SYNCED, "status": "True", "reason": "InSync",
            "message": "the node has confirmed all that it should hold"});
        let (joined, revoked) = (Entry::default(), Entry { is_barred: true, ..Entry::default() });
        assert_eq!(barred(node.as_str(), Some(&joined)), None);
        for (entry, reason) in [(Some(&revoked), "Revoked"), (None, "NotRegistered")] {
            let outdated = barred(node.as_str(), entry);
            let lines = of_condition(&node, &condition, outdated.as_ref(), 1_700_000_300);
            assert_eq!(lines[1].split_whitespace().collect::<Vec<_>>()[..3], ["edge-1", "Unknown", reason]);
            assert!(lines[3].ends_with("before that:"), "{lines:?}");
        }
    }

    #[test]
    fn every_edge_node_has_a_row() {
        let node = |name: &str, conditions: Value| -> DynamicObject {
            serde_json::from_value(json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name},
                "status": {"conditions": conditions}}))
            .unwrap()
        };
        let synced = json!({"type": SYNCED, "status": "True", "reason": "InSync",
            "lastTransitionTime": "2023-11-14T22:14:20Z", "lastHeartbeatTime": "2023-11-14T22:18:15Z"});
        let away =
            json!({"type": "Ready", "status": "Unknown", "lastTransitionTime": "2023-11-14T22:17:20Z"});
        let nodes = [
            node("a", json!([synced])),
            node("b", json!([synced, away])),
            node("c", json!([synced])),
            node("d", json!([])),
        ];
        let barred = Entry { is_barred: true, ..Entry::default() };
        let entries: BTreeMap<String, Entry> = [
            ("a", Entry::default()),
            ("b", Entry::default()),
            ("d", Entry::default()),
            ("e", Entry::default()),
            ("f", barred),
        ]
        .map(|(name, entry)| (name.to_owned(), entry))
        .into();
        let shown: Vec<String> =
            rows(&nodes, Some(&entries), 1_700_000_300).iter().map(|row| row.join(" ")).collect();
        assert_eq!(
            shown,
            [
                "a True InSync 4m 5s ago",
                "b Unknown NodeUnheard 60s 5s ago",
                "c Unknown NotRegistered - 5s ago",
                "d - - - -",
                "e Unknown NoNode - -",
                "f Unknown Revoked - -",
            ]
        );
        assert_eq!(rows(&nodes, None, 1_700_000_300).len(), 4);
    }

    #[test]
    fn a_refusal_is_taken_apart() {
        let lines = shown(&json!({
            "type": SYNCED, "status": "False", "reason": "EdgeRefused",
            "message": "3 waiting; oldest pods/default/web since 2023-11-14T22:13:20Z; last confirmed 2023-11-14T22:18:10Z; link 9 bytes in, 8 bytes out; refused: disk; full\u{1b}[2J",
            "lastTransitionTime": "2023-11-14T22:14:20Z", "lastHeartbeatTime": "2023-11-14T22:18:15Z",
        }));
        assert_eq!(
            lines,
            [
                "NODE    SYNCED  REASON       FOR  WRITTEN",
                "edge-1  False   EdgeRefused  4m   5s ago",
                "",
                "WAITING  OLDEST            FOR",
                "3        pods/default/web  5m",
                "last confirmed 10s ago; this session: 9 bytes in, 8 bytes out",
                "",
                "the node refused it: disk; full[2J",
            ]
        );
    }

    #[test]
    fn a_node_that_is_cut_has_no_session() {
        let message = "the node has confirmed all that it should hold; last confirmed 2023-11-14T22:18:10Z";
        let lines = shown(&json!({"type": SYNCED, "status": "True", "reason": "InSync", "message": message}));
        assert_eq!(lines.last().unwrap(), "last confirmed 10s ago; no session");
    }

    #[test]
    fn what_is_written_otherwise_is_shown_as_it_is() {
        let lines =
            shown(&json!({"type": SYNCED, "status": "True", "message": "the node has confirmed all"}));
        assert_eq!(lines[1..], ["edge-1  True    -       -    -", "", "the node has confirmed all"]);
    }
}
