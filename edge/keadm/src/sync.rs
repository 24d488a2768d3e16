//! `keadm sync`: whether a node holds what it should, as the cluster sees it, and what it holds, as it sees itself.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use clap::Args;
use config::edge::EdgeCore;
use contract::NodeName;
use edge_store::StoreInspector;
use kube::api::{Api, ApiResource, DynamicObject};
use noderegistry::{Entry, Registry};
use serde_json::Value;

use crate::store::{age, plain, table};

/// The condition that CloudCore writes on the Node.
const SYNCED: &str = "kubehive.io/Synced";

/// Whose sync is shown.
#[derive(Debug, Clone, Args)]
pub struct Sync {
    /// A node of the cluster; without it, what this machine's own store holds
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
    let Some(node) = &order.node else { return of_this_node(&order.config, now, say) };
    let node = NodeName::parse(node)?;
    of_node(crate::client(order.kube_config.as_deref()).await?, &node, now, say).await
}

async fn of_node(client: kube::Client, node: &NodeName, now: u64, say: &mut dyn FnMut(String)) -> Result<()> {
    let resource = ApiResource {
        group: String::new(),
        version: "v1".to_owned(),
        api_version: "v1".to_owned(),
        kind: "Node".to_owned(),
        plural: "nodes".to_owned(),
    };
    let nodes: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
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
        Ok(entry) => barred(node, entry.as_ref().map(Entry::of).as_ref()),
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
fn barred(node: &NodeName, entry: Option<&Entry>) -> Option<Outdated> {
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
    let since = text("lastTransitionTime");
    let heads = ["NODE", "SYNCED", "REASON", "FOR", "WRITTEN"];
    let row = match outdated {
        Some(outdated) => {
            let since = for_how_long(&outdated.since, now);
            [node.to_string(), "Unknown".into(), outdated.reason.into(), since]
        }
        None => [node.to_string(), text("status"), text("reason"), for_how_long(&since, now)],
    };
    let written = for_how_long(&text("lastHeartbeatTime"), now);
    table(&heads, vec![row.into_iter().chain([format!("{written} ago")]).collect()], &mut say);
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
        assert_eq!(barred(&node, Some(&joined)), None);
        for (entry, reason) in [(Some(&revoked), "Revoked"), (None, "NotRegistered")] {
            let outdated = barred(&node, entry);
            let lines = of_condition(&node, &condition, outdated.as_ref(), 1_700_000_300);
            assert_eq!(lines[1].split_whitespace().collect::<Vec<_>>()[..3], ["edge-1", "Unknown", reason]);
            assert!(lines[3].ends_with("before that:"), "{lines:?}");
        }
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
        assert_eq!(lines[1..], ["edge-1  True    -       -    - ago", "", "the node has confirmed all"]);
    }
}
