//! The status of each pod as it was reported last, and the node's conditions: in memory for whoever asks, and in the store for
//! the next start.
//!
//! The cloud does not send a node's own reports back to it. Without a memory of its own a node that restarts would forget
//! when its pods started, since when their conditions and its own hold, and which of the pods have ended.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use contract::UpReport;
use contract::pod_status::is_terminal;
use edge_store::{Row, Store, StoreError, Table, Write};
use k8s_openapi::api::core::v1::PodStatus;
use serde_json::{Value, json};

use crate::typed_json;

/// The second key of the row that says how long a pod with a deadline has been active, in seconds.
const ACTIVE: &str = "active";
/// The row of the node's conditions.
const NODE: (&str, &str) = ("node", "conditions");

/// What is kept of one pod.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Kept {
    /// As it was reported last.
    pub(crate) status: Option<Arc<PodStatus>>,
    /// How long it has been active here, as far as that was kept.
    pub(crate) active: Duration,
}

/// What is kept of all pods, by uid. All clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct ReportedStatuses {
    /// `None` until the store has been read.
    kept: Arc<Mutex<Option<BTreeMap<String, Kept>>>>,
    /// The node's conditions as JSON: see [`node_conditions`].
    node: Arc<Mutex<Option<String>>>,
}

impl ReportedStatuses {
    /// Reads the store, the first time. Blocks.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub(crate) fn load(&self, store: &Store) -> Result<(), StoreError> {
        if self.with(|_| ()).is_none() {
            let node = store.get_row(Table::Facts, NODE.0, NODE.1)?;
            *self.node.lock().unwrap_or_else(PoisonError::into_inner) =
                node.and_then(|json| String::from_utf8(json).ok());
            let rows = store.list_rows(Table::PodStatuses, None)?;
            *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = Some(parse(rows));
        }
        Ok(())
    }

    /// `None` until the store has been read.
    fn with<T>(&self, work: impl FnOnce(&mut BTreeMap<String, Kept>) -> T) -> Option<T> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).as_mut().map(work)
    }

    /// What is kept of a pod.
    pub(crate) fn of(&self, uid: &str) -> Kept {
        self.with(|kept| kept.get(uid).cloned()).flatten().unwrap_or_default()
    }

    /// Of all pods, the statuses.
    pub(crate) fn all(&self) -> BTreeMap<String, Arc<PodStatus>> {
        let statuses = |kept: &mut BTreeMap<String, Kept>| {
            kept.iter().filter_map(|(uid, kept)| Some((uid.clone(), kept.status.clone()?))).collect()
        };
        self.with(statuses).unwrap_or_default()
    }

    /// Takes a report in that was committed.
    pub(crate) fn reported(&self, report: &UpReport) {
        match report {
            UpReport::PodStatus { uid, status_json, .. } => {
                let Ok(status) = typed_json::read::<PodStatus>(status_json.as_bytes()) else { return };
                self.with(|kept| kept.entry(uid.clone()).or_default().status = Some(Arc::new(status)));
            }
            UpReport::PodGone { uid, .. } => {
                if !self.has_ended(uid) {
                    self.with(|kept| kept.remove(uid));
                }
            }
            UpReport::Node { node_json } => {
                *self.node.lock().unwrap_or_else(PoisonError::into_inner) = node_conditions(node_json);
            }
            UpReport::Event { .. }
            | UpReport::MirrorPod { .. }
            | UpReport::ClaimExpansion { .. }
            | UpReport::Twin { .. }
            | UpReport::DeviceConditions { .. }
            | UpReport::MethodCalls { .. }
            | UpReport::NodeTask(_)
            | UpReport::DeviceState { .. } => {}
        }
    }

    /// The node's conditions and its boot where a Node has them, and nothing else of it: what they were before and since when.
    pub(crate) fn node(&self) -> Option<Value> {
        let node = self.node.lock().unwrap_or_else(PoisonError::into_inner);
        node.as_deref().and_then(|json| serde_json::from_str(json).ok())
    }

    /// What goes into the store with a report, in the same commit. Of the node that is seldom anything.
    pub(crate) fn write_with(&self, report: &UpReport) -> Option<Write> {
        match report {
            UpReport::PodStatus { uid, status_json, .. } => Some(Write::PutRow {
                table: Table::PodStatuses,
                key1: uid.clone(),
                key2: String::new(),
                value: status_json.clone().into_bytes(),
            }),
            UpReport::PodGone { uid, .. } => (!self.has_ended(uid)).then(|| forget(uid)),
            UpReport::Node { node_json } => {
                let conditions = node_conditions(node_json)?;
                let kept = self.node.lock().unwrap_or_else(PoisonError::into_inner);
                (kept.as_ref() != Some(&conditions)).then(|| Write::PutRow {
                    table: Table::Facts,
                    key1: NODE.0.to_owned(),
                    key2: NODE.1.to_owned(),
                    value: conditions.into_bytes(),
                })
            }
            UpReport::Event { .. }
            | UpReport::MirrorPod { .. }
            | UpReport::ClaimExpansion { .. }
            | UpReport::Twin { .. }
            | UpReport::DeviceConditions { .. }
            | UpReport::MethodCalls { .. }
            | UpReport::NodeTask(_)
            | UpReport::DeviceState { .. } => None,
        }
    }

    /// Whether it was reported how a pod has ended. That is kept until the cloud has taken the pod away, which hears of its going
    /// later than it goes: a restart in between would tell another end, and the node's own API none.
    fn has_ended(&self, uid: &str) -> bool {
        let status = self.of(uid).status;
        status.is_some_and(|status| status.phase.as_deref().is_some_and(is_terminal))
    }

    /// How long a pod has been active, once that was committed.
    pub(crate) fn was_active(&self, uid: &str, active: Duration) {
        self.with(|kept| kept.entry(uid.to_owned()).or_default().active = active);
    }

    /// Forgets a pod.
    pub(crate) fn forget(&self, uid: &str) {
        self.with(|kept| kept.remove(uid));
    }

    /// What is kept of pods that are not in the store any more.
    pub(crate) fn without(&self, uids: &BTreeSet<&str>) -> Vec<String> {
        let of_others = |kept: &mut BTreeMap<String, Kept>| {
            kept.keys().filter(|uid| !uids.contains(uid.as_str())).cloned().collect()
        };
        self.with(of_others).unwrap_or_default()
    }
}

/// Of the report of a node its conditions, without the times of a heartbeat, and which boot it was.
fn node_conditions(node_json: &str) -> Option<String> {
    let node: Value = serde_json::from_str(node_json).ok()?;
    let conditions = node.pointer("/status/conditions")?.as_array()?.iter().map(|condition| {
        json!({
            "type": condition["type"],
            "status": condition["status"],
            "lastTransitionTime": condition["lastTransitionTime"],
        })
    });
    let mut kept = json!({"status": {"conditions": conditions.collect::<Vec<_>>()}});
    if let Some(boot) = node.pointer("/status/nodeInfo/bootID") {
        kept["status"]["nodeInfo"] = json!({"bootID": boot});
    }
    Some(kept.to_string())
}

/// Forgets a pod in the store.
pub(crate) fn forget(uid: &str) -> Write {
    Write::DeleteRows { table: Table::PodStatuses, key1: uid.to_owned() }
}

/// Keeps how long a pod has been active.
pub(crate) fn keep_active(uid: &str, active: Duration) -> Write {
    Write::PutRow {
        table: Table::PodStatuses,
        key1: uid.to_owned(),
        key2: ACTIVE.to_owned(),
        value: active.as_secs().to_string().into_bytes(),
    }
}

/// A row that makes no sense is passed over: the pod then starts from what the cloud has sent.
fn parse(rows: Vec<Row>) -> BTreeMap<String, Kept> {
    let mut all: BTreeMap<String, Kept> = BTreeMap::new();
    for row in rows {
        let kept = all.entry(row.key1.clone()).or_default();
        if row.key2 == ACTIVE {
            let seconds = std::str::from_utf8(&row.value).ok().and_then(|text| text.parse().ok());
            kept.active = Duration::from_secs(seconds.unwrap_or(0));
            continue;
        }
        match typed_json::read::<PodStatus>(&row.value) {
            Ok(status) => kept.status = Some(Arc::new(status)),
            Err(_) => {
                tracing::error!(uid = %row.key1, "the status of a pod that is kept in the store cannot be read")
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use edge_store::Options;

    #[tokio::test]
    async fn the_nodes_conditions_are_kept_when_they_change() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path().join("db"), Options::new([1; 16])).unwrap();
        let report = |ready: &str, heartbeat: &str| UpReport::Node {
            node_json: json!({"status": {"images": ["many"], "nodeInfo": {"bootID": "b", "machineID": "m"},
                "conditions": [{"type": "Ready", "status": ready,
                "lastTransitionTime": "2026-11-28T08:00:00Z", "lastHeartbeatTime": heartbeat}]}})
            .to_string(),
        };
        let reported = ReportedStatuses::default();
        reported.load(&store).unwrap();
        let mut writes = 0;
        for (ready, heartbeat) in [("False", "1"), ("False", "2"), ("True", "3"), ("True", "4")] {
            let report = report(ready, heartbeat);
            let kept: Vec<Write> = reported.write_with(&report).into_iter().collect();
            writes += kept.len();
            store.commit(kept).await.unwrap();
            reported.reported(&report);
        }
        assert_eq!(writes, 2);
        let restarted = ReportedStatuses::default();
        restarted.load(&store).unwrap();
        assert_eq!(
            restarted.node(),
            Some(json!({"status": {"nodeInfo": {"bootID": "b"}, "conditions": [
                {"type": "Ready", "status": "True", "lastTransitionTime": "2026-11-28T08:00:00Z"}]}}))
        );
    }

    #[tokio::test]
    async fn a_restart_knows_what_was_reported() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path().join("db"), Options::new([1; 16])).unwrap();
        let status = |uid: &str, phase: &str| UpReport::PodStatus {
            namespace: "d".into(),
            name: "p".into(),
            uid: uid.into(),
            status_json: format!("{{\"phase\":\"{phase}\"}}"),
        };
        let gone = |uid: &str| UpReport::PodGone { namespace: "d".into(), name: "p".into(), uid: uid.into() };
        let reported = ReportedStatuses::default();
        assert_eq!(reported.of("u-1"), Kept::default(), "not loaded yet");
        reported.load(&store).unwrap();
        for report in [
            status("u-1", "Running"),
            status("u-2", "Running"),
            status("u-1", "Failed"),
            gone("u-2"),
            // How it ended is known until the cloud has taken it away.
            gone("u-1"),
        ] {
            store.commit(reported.write_with(&report).into_iter().collect()).await.unwrap();
            reported.reported(&report);
        }
        store.commit(vec![keep_active("u-1", Duration::from_secs(70))]).await.unwrap();
        reported.was_active("u-1", Duration::from_secs(70));
        let odd = |uid: &str| Write::PutRow {
            table: Table::PodStatuses,
            key1: uid.to_owned(),
            key2: String::new(),
            value: b"{".to_vec(),
        };
        store.commit(vec![odd("u-3")]).await.unwrap();
        let restarted = ReportedStatuses::default();
        restarted.load(&store).unwrap();
        for reported in [&reported, &restarted] {
            let kept = reported.of("u-1");
            assert_eq!(kept.status.unwrap().phase.as_deref(), Some("Failed"));
            assert_eq!(kept.active, Duration::from_secs(70));
            assert_eq!((reported.of("u-2"), reported.all().len()), (Kept::default(), 1));
        }
        assert_eq!(restarted.without(&BTreeSet::from(["u-3"])), ["u-1"]);
        store.commit(vec![forget("u-1")]).await.unwrap();
        restarted.forget("u-1");
        assert_eq!(restarted.of("u-1"), Kept::default());
        assert!(store.list_rows(Table::PodStatuses, Some("u-1")).unwrap().is_empty());
    }
}
