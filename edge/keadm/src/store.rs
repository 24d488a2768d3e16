//! `keadm store show`: what the node's store holds, with secrets masked.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use clap::Subcommand;
use config::edge::EdgeCore;
use edge_store::{Damage, InspectedReport, InspectedRow, StoreInspector};
use serde_json::Value;

use crate::node_socket::is_shown;

/// A terminal is no place for more of one document.
const DOCUMENT_MAX: usize = 256 << 10;

/// What can be done with a node's store.
#[derive(Debug, Clone, Subcommand)]
pub enum StoreCommand {
    /// Shows what the store holds, also beside a running edgecore; secrets are masked and nothing is changed
    Show {
        /// The node's edgecore.yaml
        #[arg(long, default_value = config::edge::DEFAULT_PATH)]
        config: PathBuf,
        /// Only this kind: pods, secrets, devices, twins, tokens, …, or outbox; an unknown one is answered with all of them
        #[arg(long)]
        kind: Option<String>,
        /// Only this name, or namespace/name; with --kind its content too
        #[arg(long)]
        name: Option<String>,
    },
}

/// Does what `verb` says, at the time `now`, a line each.
///
/// # Errors
/// When there is no configuration, no store, no such kind, or nothing of that kind and name in it.
pub fn show_store(verb: &StoreCommand, now: SystemTime, say: &mut dyn FnMut(String)) -> Result<()> {
    let StoreCommand::Show { config, kind, name } = verb;
    let (kind, name) = (kind.as_deref(), name.as_deref());
    let settings = EdgeCore::load(config)
        .with_context(|| format!("the store's place is database.dataSource in {}", config.display()))?;
    let path = &settings.database.data_source;
    let inspector = StoreInspector::open(path)?;
    if let Some(kind) = kind {
        check_kind(kind, &inspector.kinds()?)?;
    }
    let wants_reports = kind.is_none_or(|kind| kind == InspectedReport::KIND);
    let entries = if kind == Some(InspectedReport::KIND) {
        Vec::new()
    } else {
        inspector.entries(kind, name, kind.is_some() && name.is_some())?
    };
    let reports = if wants_reports { inspector.reports(name)? } else { Vec::new() };
    if entries.is_empty() && reports.is_empty() && (kind.is_some() || name.is_some()) {
        bail!(
            "{} holds nothing of that kind and name; without --kind and --name all is shown",
            path.display()
        );
    }
    say(format!("{} at revision {}", path.display(), inspector.revision()));
    if let Some(trouble) = inspector.key_trouble() {
        say(format!("{trouble}; edgecore fetches them again from the cloud when it starts"));
    }
    if kind != Some(InspectedReport::KIND) {
        say(String::new());
        entries_table(&entries, say);
    }
    if wants_reports {
        say(String::new());
        reports_table(&reports, now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()), say);
    }
    for entry in &entries {
        if let Some(value) = &entry.value {
            say(String::new());
            say(document(entry, value));
        }
    }
    summary(&entries, &reports, say);
    Ok(())
}

/// A kind that no store has is none that is just not there.
fn check_kind(kind: &str, kinds: &BTreeSet<String>) -> Result<()> {
    let word = kind.split('.').next().unwrap_or_default();
    if !kinds.contains(word) {
        let all: Vec<&str> = kinds.iter().map(String::as_str).collect();
        bail!("a store has no kind `{}`; --kind takes {}", plain(kind), all.join(", "));
    }
    Ok(())
}

/// Rows as a table, without their values.
pub(crate) fn entries_table(entries: &[InspectedRow], say: &mut dyn FnMut(String)) {
    let heads = ["CLASS", "KEY", "VERSION", "CONTENT", "SIZE", "SEALED", "STATE"];
    table(&heads, entries.iter().map(row_of).collect(), say);
}

/// Reports as a table, at `now` in seconds since 1970.
pub(crate) fn reports_table(reports: &[InspectedReport], now: u64, say: &mut dyn FnMut(String)) {
    let heads = ["SEQ", "QUEUE", "CLASS", "KEY", "SIZE", "AGE", "STATE"];
    table(&heads, reports.iter().map(|report| row_of_report(report, now)).collect(), say);
}

fn row_of(entry: &InspectedRow) -> Vec<String> {
    let (first, second) = &entry.key;
    let key = match (first.as_str(), second.as_str()) {
        (first, "") => first.to_owned(),
        ("", second) => second.to_owned(),
        (first, second) => format!("{first}/{second}"),
    };
    vec![
        entry.class.clone(),
        key,
        entry.version.clone(),
        if entry.content_hash.is_empty() { "-".to_owned() } else { entry.content_hash.clone() },
        entry.size.to_string(),
        if entry.sealed { "yes" } else { "no" }.to_owned(),
        state(entry.known, entry.damage),
    ]
}

fn row_of_report(report: &InspectedReport, now: u64) -> Vec<String> {
    let age = report.queued.and_then(|at| u64::try_from(at).ok()).map(|at| age(now.saturating_sub(at)));
    vec![
        report.seq.to_string(),
        report.queue.clone(),
        report.class.clone(),
        report.key.clone(),
        report.size.to_string(),
        age.unwrap_or_else(|| "-".to_owned()),
        state(report.known, report.damage),
    ]
}

fn state(known: bool, damage: Option<Damage>) -> String {
    match damage {
        Some(damage) => format!("damaged: {}", damage.as_str()),
        None if known => "ok".to_owned(),
        None => "kept for a newer edgecore".to_owned(),
    }
}

/// As Kubernetes shows it: the two largest units at most.
pub(crate) fn age(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7200 => format!("{minutes}m"),
        7200..172_800 => format!("{hours}h{}m", minutes % 60),
        172_800.. => format!("{days}d{}h", hours % 24),
    }
}

fn summary(entries: &[InspectedRow], reports: &[InspectedReport], say: &mut dyn FnMut(String)) {
    let damaged = entries.iter().filter(|entry| entry.damage.is_some()).count()
        + reports.iter().filter(|report| report.damage.is_some()).count();
    say(String::new());
    say(format!("{} rows, {} reports wait for the cloud, {damaged} damaged", entries.len(), reports.len()));
}

pub(crate) fn table(heads: &[&str], rows: Vec<Vec<String>>, say: &mut dyn FnMut(String)) {
    let width = |at: usize| {
        let cells = rows.iter().filter_map(|row| row.get(at)).map(|cell| cell.chars().count());
        cells.chain([heads.get(at).map_or(0, |head| head.len())]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..heads.len()).map(width).collect();
    let line = |cells: Vec<&str>| {
        let padded: Vec<String> =
            cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        padded.join("  ").trim_end().to_owned()
    };
    say(line(heads.to_vec()));
    for row in &rows {
        say(line(row.iter().map(String::as_str).collect()));
    }
}

/// The content for a person: JSON as such, and of what is not for every eye only its shape.
fn document(entry: &InspectedRow, value: &[u8]) -> String {
    let mut json: Value = match serde_json::from_slice(value) {
        Ok(json) => json,
        Err(_) if entry.secret => return masked(value.len()),
        Err(_) => return plain(&String::from_utf8_lossy(value)),
    };
    if entry.secret {
        mask(&mut json);
    }
    // A value that was parsed can be written.
    plain(&serde_json::to_string_pretty(&json).unwrap_or_default())
}

fn masked(bytes: usize) -> String {
    format!("({bytes} bytes, masked)")
}

/// Leaves what tells who and when, and masks the rest: what is not known to be harmless is not.
pub(crate) fn mask(document: &mut Value) {
    const SHOWN: [&str; 4] = ["apiVersion", "kind", "type", "immutable"];
    const SHOWN_OF_METADATA: [&str; 6] =
        ["name", "namespace", "uid", "resourceVersion", "creationTimestamp", "labels"];
    const SHOWN_OF_TOKENS: [&str; 2] = ["expires_unix", "lifetime_seconds"];
    let Value::Object(fields) = document else { return mask_all(document) };
    for (name, value) in fields {
        let name = name.as_str();
        if let ("metadata", Value::Object(metadata)) = (name, &mut *value) {
            metadata.iter_mut().filter(|(name, _)| !SHOWN_OF_METADATA.contains(&name.as_str())).for_each(
                |(_, value)| {
                    mask_all(value);
                },
            );
        } else {
            let is_shown = SHOWN.contains(&name) || (SHOWN_OF_TOKENS.contains(&name) && value.is_number());
            if !is_shown {
                mask_all(value);
            }
        }
    }
}

fn mask_all(value: &mut Value) {
    match value {
        Value::Object(fields) => fields.values_mut().for_each(mask_all),
        Value::Array(values) => values.iter_mut().for_each(mask_all),
        Value::String(text) => *value = Value::from(masked(text.len())),
        Value::Number(_) | Value::Bool(_) => *value = Value::from("(masked)"),
        Value::Null => {}
    }
}

/// Harmless for a terminal.
pub(crate) fn plain(text: &str) -> String {
    let cut = text.len() > DOCUMENT_MAX;
    let shown = text.chars().filter(|c| *c == '\n' || is_shown(*c)).take(DOCUMENT_MAX);
    shown.chain(if cut { "\n…" } else { "" }.chars()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn of_a_secret_only_its_shape_is_shown() {
        let mut secret = json!({
            "apiVersion": "v1", "kind": "Secret", "type": "Opaque", "immutable": true,
            "metadata": {"name": "n", "labels": {"a": "b"}, "managedFields": [{"x": "hunter"}],
                "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{\"data\":\"hunter\"}"}},
            "data": {"password": "d29yZA==", "more": {"deep": ["hunter", 4711]}},
            "stringData": {"p": "hunter"}, "other": 4711,
        });
        mask(&mut secret);
        let text = secret.to_string();
        for leaked in ["hunter", "d29yZA", "4711", "\\\"data"] {
            assert!(!text.contains(leaked), "{leaked}: {text}");
        }
        assert_eq!(secret["metadata"]["name"], "n");
        assert_eq!(secret["metadata"]["labels"], json!({"a": "b"}));
        assert_eq!(secret["data"]["password"], "(8 bytes, masked)");
        let mut token = json!({"token": "eyJ", "expires_unix": 17, "lifetime_seconds": 3600});
        mask(&mut token);
        assert_eq!(
            token,
            json!({"token": "(3 bytes, masked)", "expires_unix": 17, "lifetime_seconds": 3600})
        );
        let mut list = json!(["word"]);
        mask(&mut list);
        assert_eq!(list, json!(["(4 bytes, masked)"]));
    }

    #[test]
    fn ages_are_short() {
        let ages = [5, 119, 120, 7199, 7260, 172_799, 180_000].map(age);
        assert_eq!(ages, ["5s", "119s", "2m", "119m", "2h1m", "47h59m", "2d2h"]);
    }

    #[test]
    fn nothing_reaches_the_terminal_that_it_would_obey() {
        assert_eq!(plain("a\u{1b}[2J\nb"), "a[2J\nb");
        assert!(plain(&"x".repeat(DOCUMENT_MAX + 1)).ends_with('…'));
    }
}
