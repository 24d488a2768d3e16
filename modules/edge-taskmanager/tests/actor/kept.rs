//! What an edgecore before has kept of parts that were under way.

use edge_store::{Table, Write};
use serde_json::json;

/// What is kept of a part that began with a job of this mark.
pub(crate) fn with_mark(kept: &str, mark: &str) -> String {
    kept.replacen(r#"{"v":1"#, &format!(r#"{{"v":1,"of":"{mark}""#), 1)
}

pub(crate) fn fact(key1: &str, value: &str) -> Write {
    Write::PutRow { table: Table::Facts, key1: key1.into(), key2: "u".into(), value: value.into() }
}

pub(crate) const FETCHED: &str =
    r#"{"v":1,"phase":"InProgress","actions":[{"action":"Check","ok":true,"time":"t"}],"fit":true}"#;
pub(crate) const EXAMINED: &str =
    r#"{"v":1,"phase":"InProgress","actions":[{"action":"Check","ok":true,"time":"t"}]}"#;
pub(crate) const BEGUN: &str = r#"{"v":1,"phase":"InProgress","actions":[{"action":"Check","ok":true,"time":"t"}],"fit":true,"begun":"3 7 0.0.9 0.1.0"}"#;

pub(crate) fn journal(phase: &str, outcome: &str) -> String {
    let step = |phase: &str, action: &str| json!({"phase": phase, "action": action, "succ": true, "time": 20, "reason": ""});
    let outcome = if outcome.is_empty() { json!(null) } else { json!(outcome) };
    json!({
        "layout": 1, "event": "Upgrade", "fromVersion": "0.1.0", "toVersion": "0.2.0",
        "progress": {"phase": phase, "outcome": outcome, "cause": null, "resumes": 0, "mustRestoreStore": false, "isBooting": false},
        "exchanges": [], "config": "/c", "store": "/s", "backup": "/b", "isStoreCurrent": false, "storeFrom": null,
        "launch": {"Unit": "edgecore.service"}, "bar": {"socket": null, "offlineOk": false, "within": 300},
        "steps": [step("PreCheck", "Check"), step("BackUp", "BackUp"), step("Swap", "Upgrade")],
    })
    .to_string()
}
