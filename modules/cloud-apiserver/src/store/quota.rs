//! Whose objects fill the store: what a namespace may have of it, what all may have, and what is kept back.

use std::collections::BTreeMap;

use apimachinery::ObjectKey;
use kubeapi::{QuotaCheck, WriteError};

use super::Bounds;

/// What is there, by who has it.
#[derive(Debug, Clone, Default)]
pub(super) struct Tally {
    /// Bytes of all objects.
    pub(super) bytes: usize,
    pods: usize,
    spaces: BTreeMap<String, Space>,
}

#[derive(Debug, Clone, Default)]
struct Space {
    bytes: usize,
    /// How many there are of each resource.
    counts: BTreeMap<String, usize>,
}

impl Space {
    fn count(&self, resource: &str) -> usize {
        self.counts.get(resource).copied().unwrap_or_default()
    }
}

/// A write as far as it changes a tally: the weights of what was there and of what is to be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Step<'a> {
    pub(super) key: &'a ObjectKey,
    pub(super) old: Option<usize>,
    pub(super) new: Option<usize>,
}

impl Step<'_> {
    fn of(&self, bytes: usize) -> usize {
        bytes.saturating_sub(self.old.unwrap_or_default()).saturating_add(self.new.unwrap_or_default())
    }

    fn of_count(&self, count: usize) -> usize {
        (count + usize::from(self.new.is_some())).saturating_sub(usize::from(self.old.is_some()))
    }
}

impl Tally {
    /// Whether a write has quota. What makes nothing larger always has.
    ///
    /// # Errors
    /// Which bound is in the way.
    pub(super) fn admit(&self, step: Step<'_>, quota: QuotaCheck, bounds: &Bounds) -> Result<(), WriteError> {
        if step.new.unwrap_or_default() <= step.old.unwrap_or_default() {
            return Ok(());
        }
        let bytes = step.of(self.bytes);
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
        let key = step.key;
        let creates = step.old.is_none();
        if creates && key.resource == "pods" && self.pods >= bounds.pods {
            return Err(WriteError::Quota(format!(
                "pods, used: {}, limited: {} in all",
                self.pods, bounds.pods
            )));
        }
        if key.namespace.is_empty() {
            return Ok(());
        }
        let (has, count) = match self.spaces.get(&key.namespace) {
            Some(space) => (space.bytes, space.count(&key.resource)),
            None => (0, 0),
        };
        if creates && count >= bounds.space_objects {
            return Err(WriteError::Quota(format!(
                "count/{}, used: {count}, limited: {} in namespace {}",
                key.resource, bounds.space_objects, key.namespace
            )));
        }
        if step.of(has) > bounds.space_bytes {
            let most = told(bounds.space_bytes);
            return Err(WriteError::Quota(format!(
                "the objects of namespace {}, limited: {most}: delete some first",
                key.namespace
            )));
        }
        Ok(())
    }

    /// Takes a write in.
    pub(super) fn take(&mut self, step: Step<'_>) {
        self.bytes = step.of(self.bytes);
        if step.key.resource == "pods" {
            self.pods = step.of_count(self.pods);
        }
        if step.key.namespace.is_empty() {
            return;
        }
        let space = self.spaces.entry(step.key.namespace.clone()).or_default();
        space.bytes = step.of(space.bytes);
        let count = step.of_count(space.count(&step.key.resource));
        if count > 0 {
            space.counts.insert(step.key.resource.clone(), count);
        } else {
            space.counts.remove(&step.key.resource);
        }
        if space.counts.is_empty() {
            self.spaces.remove(&step.key.namespace);
        }
    }
}

fn told(bytes: usize) -> String {
    if bytes >= 1 << 20 { format!("{} MiB", bytes >> 20) } else { format!("{bytes} bytes") }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds {
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
        tally: &mut Tally,
        key: &ObjectKey,
        old: Option<usize>,
        new: usize,
        quota: QuotaCheck,
    ) -> Option<String> {
        let step = Step { key, old, new: Some(new) };
        let refused = tally.admit(step, quota, &BOUNDS).err();
        if refused.is_none() {
            tally.take(step);
        }
        refused.map(|error| error.to_string())
    }

    #[test]
    fn one_namespace_has_its_share_and_no_more() {
        let mut tally = Tally::default();
        let a = key("a", "configmaps", "m");
        assert!(put(&mut tally, &a, None, 501, QuotaCheck::Enforced).unwrap().contains("namespace a"));
        assert_eq!(put(&mut tally, &a, None, 400, QuotaCheck::Enforced), None);
        assert!(
            put(&mut tally, &a, Some(400), 501, QuotaCheck::Enforced).unwrap().contains("exceeded quota")
        );
        assert!(put(&mut tally, &key("a", "configmaps", "n"), None, 101, QuotaCheck::Enforced).is_some());
        // Others have theirs, and the reserve is nobody's but the masters'.
        assert_eq!(put(&mut tally, &key("b", "configmaps", "m"), None, 390, QuotaCheck::Enforced), None);
        let c = key("c", "configmaps", "m");
        assert!(put(&mut tally, &c, None, 20, QuotaCheck::Enforced).unwrap().contains("is full"));
        assert_eq!(put(&mut tally, &c, None, 20, QuotaCheck::Exempt), None);
        assert_eq!(put(&mut tally, &key("a", "configmaps", "o"), None, 190, QuotaCheck::Exempt), None);
        assert!(put(&mut tally, &key("", "nodes", "n"), None, 1, QuotaCheck::Exempt).is_some());
        // Less is always let in, and makes quota.
        assert_eq!(put(&mut tally, &a, Some(400), 10, QuotaCheck::Enforced), None);
        assert_eq!(tally.bytes, 610);
        for (key, old) in [(&a, 10), (&c, 20)] {
            tally.take(Step { key, old: Some(old), new: None });
        }
        assert_eq!((tally.bytes, tally.spaces.len()), (580, 2));
    }

    #[test]
    fn objects_are_counted_and_pods_in_all() {
        let mut tally = Tally::default();
        for n in 0..3 {
            assert_eq!(
                put(&mut tally, &key("a", "pods", &n.to_string()), None, 1, QuotaCheck::Enforced),
                None
            );
        }
        let refused = put(&mut tally, &key("a", "pods", "x"), None, 1, QuotaCheck::Enforced).unwrap();
        assert!(refused.contains("count/pods, used: 3, limited: 3 in namespace a"), "{refused}");
        assert_eq!(put(&mut tally, &key("a", "secrets", "x"), None, 1, QuotaCheck::Enforced), None);
        assert_eq!(put(&mut tally, &key("b", "pods", "x"), None, 1, QuotaCheck::Enforced), None);
        let refused = put(&mut tally, &key("b", "pods", "y"), None, 1, QuotaCheck::Enforced).unwrap();
        assert!(refused.contains("limited: 4 in all"), "{refused}");
        // One that is there may change.
        assert_eq!(put(&mut tally, &key("b", "pods", "x"), Some(1), 2, QuotaCheck::Enforced), None);
        tally.take(Step { key: &key("a", "pods", "0"), old: Some(1), new: None });
        assert_eq!(put(&mut tally, &key("b", "pods", "y"), None, 1, QuotaCheck::Enforced), None);
    }
}
