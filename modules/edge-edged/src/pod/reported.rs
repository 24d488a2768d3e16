//! The status of each pod as it was reported last: in memory for whoever asks, and in the store for the next start.
//!
//! The cloud does not send a node's own reports back to it. Without a memory of its own a node that restarts would forget
//! when its pods started, since when their conditions hold, and which of them have ended.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use contract::UpReport;
use edge_store::{Row, Store, StoreError, Table, Write};
use k8s_openapi::api::core::v1::PodStatus;

/// The second key of the row that says how long a pod with a deadline has been active, in seconds.
const ACTIVE: &str = "active";

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
}

impl ReportedStatuses {
    /// Reads the store, the first time. Blocks.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub(crate) fn load(&self, store: &Store) -> Result<(), StoreError> {
        if self.with(|_| ()).is_none() {
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
                let Ok(status) = serde_json::from_str(status_json) else { return };
                self.with(|kept| kept.entry(uid.clone()).or_default().status = Some(Arc::new(status)));
            }
            UpReport::PodGone { uid, .. } => {
                self.with(|kept| kept.remove(uid));
            }
            UpReport::Node { .. }
            | UpReport::Event { .. }
            | UpReport::Twin { .. }
            | UpReport::DeviceState { .. } => {}
        }
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

/// What goes into the store with a report, in the same commit.
pub(crate) fn write_with(report: &UpReport) -> Option<Write> {
    match report {
        UpReport::PodStatus { uid, status_json, .. } => Some(Write::PutRow {
            table: Table::PodStatuses,
            key1: uid.clone(),
            key2: String::new(),
            value: status_json.clone().into_bytes(),
        }),
        UpReport::PodGone { uid, .. } => Some(forget(uid)),
        UpReport::Node { .. }
        | UpReport::Event { .. }
        | UpReport::Twin { .. }
        | UpReport::DeviceState { .. } => None,
    }
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
        match serde_json::from_slice(&row.value) {
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
    async fn a_restart_knows_what_was_reported() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path().join("db"), Options::new([1; 16])).unwrap();
        let status = |uid: &str, phase: &str| UpReport::PodStatus {
            namespace: "d".into(),
            name: "p".into(),
            uid: uid.into(),
            status_json: format!("{{\"phase\":\"{phase}\"}}"),
        };
        let gone = UpReport::PodGone { namespace: "d".into(), name: "p".into(), uid: "u-2".into() };
        let reported = ReportedStatuses::default();
        assert_eq!(reported.of("u-1"), Kept::default(), "not loaded yet");
        reported.load(&store).unwrap();
        for report in [status("u-1", "Running"), status("u-2", "Running"), status("u-1", "Failed"), gone] {
            store.commit(write_with(&report).into_iter().collect()).await.unwrap();
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
