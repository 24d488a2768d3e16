//! Roles and bindings as they are asked about, parsed once for each of their revisions: every request asks, and a namespace full
//! of large bindings must not cost each of them a parse.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use apimachinery::ObjectKey;
use k8s_openapi::api::rbac::v1::{RoleRef, Subject};
use kubeapi::Item;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;

/// 64 MiB of JSON whose parsed form is kept. What is beyond is parsed each time: the store's own bounds for a namespace keep that
/// little.
const BYTES_MAX: usize = 64 << 20;

/// A RoleBinding or ClusterRoleBinding.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Binding {
    #[serde(default, deserialize_with = "lenient")]
    pub(crate) subjects: Vec<Subject>,
    #[serde(default, deserialize_with = "lenient")]
    pub(crate) role_ref: RoleRef,
}

/// What cannot be read stands for nothing: it gives nobody a right.
fn lenient<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Read<T> {
        Whole(T),
        Else(IgnoredAny),
    }
    Ok(match Read::deserialize(deserializer)? {
        Read::Whole(whole) => whole,
        Read::Else(_) => T::default(),
    })
}

/// An object in the form in which it is asked about.
#[derive(Debug, Clone)]
enum Parsed {
    Binding(Arc<Binding>),
    Rules(Arc<Vec<Value>>),
}

struct Entry {
    revision: u64,
    bytes: usize,
    parsed: Parsed,
}

/// What was parsed.
#[derive(Default)]
pub(crate) struct RbacCache {
    entries: Mutex<Entries>,
}

#[derive(Default)]
struct Entries {
    by_key: HashMap<ObjectKey, Entry>,
    bytes: usize,
}

impl RbacCache {
    /// The binding that an object of the store is.
    pub(crate) fn binding(&self, item: &Item) -> Arc<Binding> {
        if let Some(Parsed::Binding(binding)) = self.known(item) {
            return binding;
        }
        let binding: Arc<Binding> = Arc::new(serde_json::from_slice(&item.json).unwrap_or_default());
        self.keep(item, Parsed::Binding(Arc::clone(&binding)));
        binding
    }

    /// The rules of the role that an object of the store is.
    pub(crate) fn rules(&self, item: &Item) -> Arc<Vec<Value>> {
        if let Some(Parsed::Rules(rules)) = self.known(item) {
            return rules;
        }
        let mut role: Value = serde_json::from_slice(&item.json).unwrap_or_default();
        let rules = match role.get_mut("rules").map(Value::take) {
            Some(Value::Array(rules)) => rules,
            _ => Vec::new(),
        };
        let rules = Arc::new(rules);
        self.keep(item, Parsed::Rules(Arc::clone(&rules)));
        rules
    }

    fn known(&self, item: &Item) -> Option<Parsed> {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = entries.by_key.get(&item.key).filter(|entry| entry.revision == item.revision)?;
        Some(entry.parsed.clone())
    }

    fn keep(&self, item: &Item, parsed: Parsed) {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let Entries { by_key, bytes } = &mut *entries;
        if let Some(before) = by_key.remove(&item.key) {
            *bytes -= before.bytes;
        }
        if *bytes + item.json.len() > BYTES_MAX {
            // Those of objects that are gone are not told from the others: what is still asked about comes again.
            by_key.clear();
            *bytes = 0;
        }
        *bytes += item.json.len();
        let entry = Entry { revision: item.revision, bytes: item.json.len(), parsed };
        by_key.insert(item.key.clone(), entry);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use serde_json::json;

    fn item(name: &str, revision: u64, json: &Value) -> Item {
        let key = ObjectKey::new("rolebindings.rbac.authorization.k8s.io", "ns", name);
        Item { key, revision, json: Bytes::from(serde_json::to_vec(json).unwrap()) }
    }

    #[test]
    fn each_revision_is_parsed_once() {
        let cache = RbacCache::default();
        let of = |user: &str| json!({ "subjects": [{ "kind": "User", "name": user }], "roleRef": { "kind": "Role", "name": "r" } });
        let first = cache.binding(&item("b", 1, &of("a")));
        assert!(Arc::ptr_eq(&first, &cache.binding(&item("b", 1, &of("a")))));
        assert_eq!(cache.binding(&item("b", 2, &of("b"))).subjects[0].name, "b");
        let rules = cache.rules(&item("r", 3, &json!({ "rules": [{ "verbs": ["get"] }] })));
        assert_eq!(rules.len(), 1);
    }

    #[test]
    fn what_is_ill_typed_gives_nobody_a_right() {
        let cache = RbacCache::default();
        for (revision, object) in [
            json!({ "subjects": 7, "roleRef": [] }),
            json!({ "subjects": null }),
            json!({ "subjects": [{ "kind": 7, "name": "a" }], "roleRef": { "kind": "Role", "name": "r" } }),
            json!([]),
            json!({ "rules": { "verbs": ["*"] } }),
        ]
        .iter()
        .enumerate()
        {
            let binding = cache.binding(&item("b", revision as u64, object));
            assert!(binding.subjects.is_empty(), "{object}");
            assert!(cache.rules(&item("r", revision as u64, object)).is_empty(), "{object}");
        }
    }

    #[test]
    fn it_holds_no_more_than_its_bound() {
        let cache = RbacCache::default();
        let large = json!({ "subjects": [], "pad": "x".repeat(1 << 20) });
        for name in 0..100 {
            cache.binding(&item(&name.to_string(), 1, &large));
        }
        assert!(cache.entries.lock().unwrap().bytes <= BYTES_MAX);
    }
}
