//! The rows of rules in the node's store, among its facts: whether a rule has triggered, and what of that is not done yet.
//!
//! Version 1 is frozen: the test below holds it byte by byte. A row that is not understood is left out, and its rule begins anew.

use std::collections::BTreeMap;

use contract::content_hash;
use contract::ids::DeviceName;
use edge_store::{Store, StoreError, Table, Write};
use serde::{Deserialize, Serialize};

/// First key of the rows; the second is `namespace/device/rule`.
const KEY: &str = "device-rule";

/// What outlives a restart of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeptRule {
    /// The uid of its device: another one is another device.
    pub(crate) uid: String,
    /// What the rule says ([`digest`]): another one is another rule.
    pub(crate) digest: String,
    /// It has triggered.
    pub(crate) is_triggered: bool,
    /// The actions, by their place, of its last change that are not known to be done.
    pub(crate) due: Vec<usize>,
}

#[derive(Serialize, Deserialize)]
struct RuleV1 {
    v: u32,
    uid: String,
    rule: String,
    triggered: bool,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    due: Vec<usize>,
}

/// What a rule says. A rule of another text is another one.
pub(crate) fn digest(rule: &crd::EdgeRule) -> String {
    content_hash(&serde_json::Value::String(rule.written.clone()))
}

fn key2(device: &DeviceName, rule: &str) -> String {
    format!("{device}/{rule}")
}

/// Reads all of them, by device and rule.
pub(crate) fn load(store: &Store) -> Result<BTreeMap<(DeviceName, String), KeptRule>, StoreError> {
    let rows = store.list_rows(Table::Facts, Some(KEY))?;
    let kept = rows.into_iter().filter_map(|row| {
        let (device, rule) = row.key2.rsplit_once('/')?;
        let read: RuleV1 = serde_json::from_slice(&row.value).ok().filter(|read: &RuleV1| read.v == 1)?;
        let RuleV1 { v: _, uid, rule: digest, triggered, due } = read;
        let kept = KeptRule { uid, digest, is_triggered: triggered, due };
        Some(((device.parse().ok()?, rule.to_owned()), kept))
    });
    Ok(kept.collect())
}

/// Keeps a rule.
pub(crate) fn put(device: &DeviceName, rule: &str, kept: &KeptRule) -> Write {
    let KeptRule { uid, digest, is_triggered, due } = kept.clone();
    let row = RuleV1 { v: 1, uid, rule: digest, triggered: is_triggered, due };
    // A struct of texts and numbers: this cannot fail.
    let value = serde_json::to_vec(&row).unwrap_or_default();
    Write::PutRow { table: Table::Facts, key1: KEY.to_owned(), key2: key2(device, rule), value }
}

/// Forgets a rule.
pub(crate) fn delete(device: &DeviceName, rule: &str) -> Write {
    Write::DeleteRow { table: Table::Facts, key1: KEY.to_owned(), key2: key2(device, rule) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use edge_store::Options;

    #[test]
    fn version_1_is_frozen_and_comes_back() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path().join("edgecore.db"), Options::new([1; 16])).unwrap();
        let device = DeviceName::parse("d", "gantry").unwrap();
        let kept = KeptRule { uid: "u".into(), digest: "00ff".into(), is_triggered: true, due: vec![1] };
        let Write::PutRow { key1, key2, value, .. } = put(&device, "cool", &kept) else { panic!("no row") };
        assert_eq!((key1.as_str(), key2.as_str()), ("device-rule", "d/gantry/cool"));
        let text = r#"{"v":1,"uid":"u","rule":"00ff","triggered":true,"due":[1]}"#;
        assert_eq!(String::from_utf8(value).unwrap(), text);
        let newer = Write::PutRow {
            table: Table::Facts,
            key1,
            key2: "d/gantry/newer".into(),
            value: text.replace("\"v\":1", "\"v\":2").into(),
        };
        store.commit_blocking(vec![put(&device, "cool", &kept), newer]).unwrap();
        assert_eq!(load(&store).unwrap(), [((device.clone(), "cool".into()), kept)].into());
        store.commit_blocking(vec![delete(&device, "cool")]).unwrap();
        assert!(load(&store).unwrap().is_empty());
    }

    #[test]
    fn another_text_is_another_rule() {
        let rule = |limit: u32| {
            let text = format!(
                "[{{name: a, when: {{property: p, above: {limit}}}, then: [{{publish: {{topic: t}}}}]}}]"
            );
            digest(&crd::parse_edge_rules(&text).unwrap()[0])
        };
        assert_eq!(rule(80), rule(80));
        assert_ne!(rule(80), rule(81));
    }
}
