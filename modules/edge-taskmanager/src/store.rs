//! What outlives a restart: the jobs as the cloud sent them, and how far each part is, among the facts of the node.
//!
//! Version 1 is frozen: the test below holds it byte by byte. A row that is not understood is left out, and its part begins anew.

use std::collections::BTreeMap;

use contract::node_task::{TaskAction, TaskImage, TaskKind, TaskPhase};
use contract::rows::{CONFIRMED_TASKS_FACT, NODE_TASKS_FACT};
use contract::{UpReport, rows};
use edge_store::{Class, Store, StoreError, Table, Write};
use serde::{Deserialize, Serialize};

use crate::plan::{Progress, UpgradeProgress};
use crate::task::Task;

/// First key of the rows; the second is the job's uid.
const KEY: &str = NODE_TASKS_FACT;

#[derive(Serialize, Deserialize)]
struct ProgressV1 {
    v: u32,
    phase: String,
    /// The job's mark.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    of: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    reason: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    actions: Vec<ActionV1>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    images: Vec<ImageV1>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    fit: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    begun: Option<String>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    from: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    to: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    sum: String,
}

#[derive(Serialize, Deserialize)]
struct ActionV1 {
    action: String,
    ok: bool,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    reason: String,
    time: String,
}

#[derive(Serialize, Deserialize)]
struct ImageV1 {
    image: String,
    ok: bool,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    reason: String,
}

/// What the store has.
pub(crate) struct Loaded {
    /// The parts, by the jobs' uids.
    pub(crate) tasks: BTreeMap<String, Task>,
    /// How far they are, those of jobs that are gone included.
    pub(crate) kept: BTreeMap<String, Progress>,
}

/// Reads all of it.
pub(crate) fn load(store: &Store) -> Result<Loaded, StoreError> {
    let mut tasks = BTreeMap::new();
    for kind in TaskKind::ALL {
        for object in store.list_objects(kind.resource(), None)? {
            if let Some(task) = Task::read(&object.key, &object.uid, &object.json) {
                tasks.insert(task.uid.clone(), task);
            }
        }
    }
    let rows = store.list_rows(Table::Facts, Some(KEY))?;
    let kept = rows.into_iter().filter_map(|row| Some((row.key2, read(&row.value)?)));
    Ok(Loaded { tasks, kept: kept.collect() })
}

fn read(value: &[u8]) -> Option<Progress> {
    let ProgressV1 { v: 1, phase, of: mark, reason, actions, images, fit, begun, from, to, sum } =
        serde_json::from_slice(value).ok()?
    else {
        return None;
    };
    let actions = actions.into_iter();
    let actions = actions.map(|ActionV1 { action, ok, reason, time }| TaskAction {
        action,
        succeeded: ok,
        reason,
        time,
    });
    let images = images.into_iter();
    let images = images.map(|ImageV1 { image, ok, reason }| TaskImage { image, succeeded: ok, reason });
    let phase = TaskPhase::of_word(&phase)?;
    let upgrade = UpgradeProgress { is_fit: fit, begun_after: begun, from, to, sum };
    Some(Progress { mark, phase, reason, actions: actions.collect(), images: images.collect(), upgrade })
}

/// Keeps how far a part is, and sends it up: one commit.
///
/// # Errors
/// When it is no row of the outbox.
pub(crate) fn put(task: &Task, progress: &Progress) -> Result<Vec<Write>, rows::RowError> {
    let report = UpReport::NodeTask(progress.report(task));
    let body = rows::encode_report(&report)?;
    let key = report.newest_key().unwrap_or_default();
    Ok(vec![
        row(&task.uid, progress),
        Write::Enqueue { queue: report.queue(), class: Class::Status, key, body },
    ])
}

fn row(uid: &str, progress: &Progress) -> Write {
    let Progress { mark, phase, reason, actions, images, upgrade } = progress.clone();
    let UpgradeProgress { is_fit, begun_after, from, to, sum } = upgrade;
    let action =
        |TaskAction { action, succeeded, reason, time }| ActionV1 { action, ok: succeeded, reason, time };
    let image = |TaskImage { image, succeeded, reason }| ImageV1 { image, ok: succeeded, reason };
    let row = ProgressV1 {
        v: 1,
        phase: phase.word().to_owned(),
        of: mark,
        reason,
        actions: actions.into_iter().map(action).collect(),
        images: images.into_iter().map(image).collect(),
        fit: is_fit,
        begun: begun_after,
        from,
        to,
        sum,
    };
    // A struct of texts and numbers: this cannot fail.
    let value = serde_json::to_vec(&row).unwrap_or_default();
    Write::PutRow { table: Table::Facts, key1: KEY.to_owned(), key2: uid.to_owned(), value }
}

/// Whether somebody on the node has confirmed the part, with this mark and no other. Blocks.
pub(crate) fn is_confirmed(store: &Store, uid: &str, mark: &str) -> Result<bool, StoreError> {
    let confirmed = store.get_row(Table::Facts, CONFIRMED_TASKS_FACT, uid)?;
    Ok(!mark.is_empty() && confirmed.is_some_and(|confirmed| confirmed == mark.as_bytes()))
}

/// Forgets that a part was confirmed.
pub(crate) fn delete_confirmation(uid: &str) -> Write {
    Write::DeleteRow { table: Table::Facts, key1: CONFIRMED_TASKS_FACT.to_owned(), key2: uid.to_owned() }
}

/// Forgets a part.
pub(crate) fn delete(uid: &str) -> Write {
    Write::DeleteRow { table: Table::Facts, key1: KEY.to_owned(), key2: uid.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use contract::rows::WaitingTask;
    use edge_store::Options;

    #[test]
    fn version_1_is_frozen_and_comes_back() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path().join("edgecore.db"), Options::new([1; 16])).unwrap();
        let progress = Progress {
            mark: String::new(),
            phase: TaskPhase::InProgress,
            reason: String::new(),
            actions: vec![TaskAction {
                action: "Check".into(),
                succeeded: true,
                reason: String::new(),
                time: "t".into(),
            }],
            images: vec![TaskImage { image: "a:1".into(), succeeded: false, reason: "no".into() }],
            upgrade: UpgradeProgress::default(),
        };
        let written = row("u", &progress);
        let Write::PutRow { key1, key2, value, .. } = written.clone() else { panic!("no row") };
        assert_eq!((key1.as_str(), key2.as_str()), ("node-task", "u"));
        let text = r#"{"v":1,"phase":"InProgress","actions":[{"action":"Check","ok":true,"time":"t"}],"images":[{"image":"a:1","ok":false,"reason":"no"}]}"#;
        assert_eq!(String::from_utf8(value).unwrap(), text);
        let newer = Write::PutRow {
            table: Table::Facts,
            key1,
            key2: "newer".into(),
            value: text.replace("\"v\":1", "\"v\":2").into(),
        };
        store.commit_blocking(vec![written, newer]).unwrap();
        let Loaded { tasks, kept } = load(&store).unwrap();
        assert!(tasks.is_empty());
        assert_eq!(kept, [("u".to_owned(), progress)].into());
        // What later releases have added, where it is anything.
        let mut more = kept["u"].clone();
        (more.mark, more.upgrade.sum) = ("m".into(), "5a".into());
        let Write::PutRow { value, .. } = row("u", &more) else { panic!("no row") };
        let with = text.replace(r#""phase":"InProgress","#, r#""phase":"InProgress","of":"m","#);
        let with = format!(r#"{},"sum":"5a"}}"#, with.strip_suffix('}').unwrap());
        assert_eq!(String::from_utf8(value.clone()).unwrap(), with);
        assert_eq!(read(&value), Some(more.clone()));
        // Whoever shows what waits reads the same.
        let waiting = |progress: &Progress| {
            let Write::PutRow { value, .. } = row("u", progress) else { panic!("no row") };
            WaitingTask::read(&value)
        };
        assert_eq!(waiting(&more), Some(WaitingTask { mark: "m".into(), sum: "5a".into() }));
        let mut begun = more.clone();
        begun.upgrade.begun_after = Some(String::new());
        assert_eq!(waiting(&begun), None);
        more.phase = TaskPhase::Failure;
        assert_eq!(waiting(&more), None);
        let confirmed = Write::PutRow {
            table: Table::Facts,
            key1: CONFIRMED_TASKS_FACT.to_owned(),
            key2: "u".to_owned(),
            value: b"m".to_vec(),
        };
        store.commit_blocking(vec![confirmed]).unwrap();
        let is_confirmed = |mark: &str| is_confirmed(&store, "u", mark).unwrap();
        assert!(is_confirmed("m") && !is_confirmed("another") && !is_confirmed(""));
        store.commit_blocking(vec![delete("u")]).unwrap();
        assert!(load(&store).unwrap().kept.is_empty());
    }
}
