//! Whose objects fill the store: what a namespace may have of it, what all may have, and what is kept back.

use std::collections::BTreeMap;

use apimachinery::ObjectKey;
use kubeapi::{QuotaCheck, WriteError};

use super::StoreBounds;

/// What is there, by who has it.
#[derive(Debug, Clone, Default)]
pub(super) struct Usage {
    /// Bytes of all objects.
    pub(super) bytes: usize,
    pods: usize,
    namespaces: BTreeMap<String, NamespaceUsage>,
}

#[derive(Debug, Clone, Default)]
struct NamespaceUsage {
    bytes: usize,
    /// How many there are of each resource.
    counts: BTreeMap<String, usize>,
}

impl NamespaceUsage {
    fn count(&self, resource: &str) -> usize {
        self.counts.get(resource).copied().unwrap_or_default()
    }
}

/// A write as far as it changes a tally: the weights of what was there and of what is to be.
#[derive(Debug, Clone, Copy)]
pub(super) struct UsageChange<'a> {
    pub(super) key: &'a ObjectKey,
    pub(super) old: Option<usize>,
    pub(super) new: Option<usize>,
}

impl UsageChange<'_> {
    fn of(&self, bytes: usize) -> usize {
        bytes.saturating_sub(self.old.unwrap_or_default()).saturating_add(self.new.unwrap_or_default())
    }

    fn of_count(&self, count: usize) -> usize {
        (count + usize::from(self.new.is_some())).saturating_sub(usize::from(self.old.is_some()))
    }
}

impl Usage {
    /// Whether a write has quota. What makes nothing larger always has.
    ///
    /// # Errors
    /// Which bound is in the way.
    pub(super) fn admit(
        &self,
        change: UsageChange<'_>,
        quota: QuotaCheck,
        bounds: &StoreBounds,
    ) -> Result<(), WriteError> {
        if change.new.unwrap_or_default() <= change.old.unwrap_or_default() {
            return Ok(());
        }
        let bytes = change.of(self.bytes);
        if bytes > bounds.object_bytes {
            let most = told(bounds.object_bytes);
            return Err(WriteError::Full(format!(
                "the database is full ({most} of objects): delete some first"
            )));
        }
        if quota == QuotaCheck::Exempt {
            return Ok(());
        }
        let most = bounds.object_bytes.saturating_sub(bounds.reserve);
        if bytes > most {
            return Err(WriteError::Full(format!(
                "the database is full ({} of objects; the rest is kept for system:masters): delete some first",
                told(most)
            )));
        }
        let key = change.key;
        let creates = change.old.is_none();
        if creates && key.resource == "pods" && self.pods >= bounds.pods {
            return Err(WriteError::Quota(format!(
                "pods, used: {}, limited: {} in all",
                self.pods, bounds.pods
            )));
        }
        if key.namespace.is_empty() {
            return Ok(());
        }
        let (has, count) = match self.namespaces.get(&key.namespace) {
            Some(namespace_usage) => (namespace_usage.bytes, namespace_usage.count(&key.resource)),
            None => (0, 0),
        };
        if creates && count >= bounds.space_objects {
            return Err(WriteError::Quota(format!(
                "count/{}, used: {count}, limited: {} in namespace {}",
                key.resource, bounds.space_objects, key.namespace
            )));
        }
        if change.of(has) > bounds.space_bytes {
            let most = told(bounds.space_bytes);
            return Err(WriteError::Quota(format!(
                "the objects of namespace {}, limited: {most}: delete some first",
                key.namespace
            )));
        }
        Ok(())
    }

    /// Takes a write in.
    pub(super) fn take(&mut self, change: UsageChange<'_>) {
        self.bytes = change.of(self.bytes);
        if change.key.resource == "pods" {
            self.pods = change.of_count(self.pods);
        }
        if change.key.namespace.is_empty() {
            return;
        }
        let namespace_usage = self.namespaces.entry(change.key.namespace.clone()).or_default();
        namespace_usage.bytes = change.of(namespace_usage.bytes);
        let count = change.of_count(namespace_usage.count(&change.key.resource));
        if count > 0 {
            namespace_usage.counts.insert(change.key.resource.clone(), count);
        } else {
            namespace_usage.counts.remove(&change.key.resource);
        }
        if namespace_usage.counts.is_empty() {
            self.namespaces.remove(&change.key.namespace);
        }
    }
}

fn told(bytes: usize) -> String {
    if bytes >= 1 << 20 { format!("{} MiB", bytes >> 20) } else { format!("{bytes} bytes") }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: StoreBounds = StoreBounds {
        changes: 1,
        change_bytes: 1,
        object_bytes: 1000,
        reserve: 200,
        space_bytes: 500,
        space_objects: 3,
        pods: 4,
    };

    fn key(namespace: &str, resource: &str, name: &str) -> ObjectKey {
        ObjectKey { resource: resource.into(), namespace: namespace.into(), name: name.into() }
    }

    /// Writes if there is quota; says what was in the way.
    fn put(
        usage: &mut Usage,
        key: &ObjectKey,
        old: Option<usize>,
        new: usize,
        quota: QuotaCheck,
    ) -> Option<String> {
        let change = UsageChange { key, old, new: Some(new) };
        let refused = usage.admit(change, quota, &BOUNDS).err();
        if refused.is_none() {
            usage.take(change);
        }
        refused.map(|error| error.to_string())
    }

    #[test]
    fn one_namespace_has_its_share_and_no_more() {
        let mut usage = Usage::default();
        let a = key("a", "configmaps", "m");
        assert!(put(&mut usage, &a, None, 501, QuotaCheck::Enforced).unwrap().contains("namespace a"));
        assert_eq!(put(&mut usage, &a, None, 400, QuotaCheck::Enforced), None);
        assert!(
            put(&mut usage, &a, Some(400), 501, QuotaCheck::Enforced).unwrap().contains("exceeded quota")
        );
        assert!(put(&mut usage, &key("a", "configmaps", "n"), None, 101, QuotaCheck::Enforced).is_some());
        // Others have theirs, and the reserve is nobody's but the masters'.
        assert_eq!(put(&mut usage, &key("b", "configmaps", "m"), None, 390, QuotaCheck::Enforced), None);
        let c = key("c", "configmaps", "m");
        assert!(put(&mut usage, &c, None, 20, QuotaCheck::Enforced).unwrap().contains("is full"));
        assert_eq!(put(&mut usage, &c, None, 20, QuotaCheck::Exempt), None);
        assert_eq!(put(&mut usage, &key("a", "configmaps", "o"), None, 190, QuotaCheck::Exempt), None);
        assert!(put(&mut usage, &key("", "nodes", "n"), None, 1, QuotaCheck::Exempt).is_some());
        // Less is always let in, and makes quota.
        assert_eq!(put(&mut usage, &a, Some(400), 10, QuotaCheck::Enforced), None);
        assert_eq!(usage.bytes, 610);
        for (key, old) in [(&a, 10), (&c, 20)] {
            usage.take(UsageChange { key, old: Some(old), new: None });
        }
        assert_eq!((usage.bytes, usage.namespaces.len()), (580, 2));
    }

    #[test]
    fn objects_are_counted_and_pods_in_all() {
        let mut usage = Usage::default();
        for n in 0..3 {
            assert_eq!(
                put(&mut usage, &key("a", "pods", &n.to_string()), None, 1, QuotaCheck::Enforced),
                None
            );
        }
        let refused = put(&mut usage, &key("a", "pods", "x"), None, 1, QuotaCheck::Enforced).unwrap();
        assert!(refused.contains("count/pods, used: 3, limited: 3 in namespace a"), "{refused}");
        assert_eq!(put(&mut usage, &key("a", "secrets", "x"), None, 1, QuotaCheck::Enforced), None);
        assert_eq!(put(&mut usage, &key("b", "pods", "x"), None, 1, QuotaCheck::Enforced), None);
        let refused = put(&mut usage, &key("b", "pods", "y"), None, 1, QuotaCheck::Enforced).unwrap();
        assert!(refused.contains("limited: 4 in all"), "{refused}");
        // One that is there may change.
        assert_eq!(put(&mut usage, &key("b", "pods", "x"), Some(1), 2, QuotaCheck::Enforced), None);
        usage.take(UsageChange { key: &key("a", "pods", "0"), old: Some(1), new: None });
        assert_eq!(put(&mut usage, &key("b", "pods", "y"), None, 1, QuotaCheck::Enforced), None);
    }
}
