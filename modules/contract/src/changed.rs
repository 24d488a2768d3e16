//! What MetaManager tells the modules of its node after a commit: which objects in the store changed.

use std::collections::BTreeSet;

use crate::ObjectKey;

/// 1024 keys of one message: more than a node's pods, and as many devices as most nodes have. A node that comes back after
/// a long cut has more, and lists.
pub const KEYS_MAX: usize = 1024;

/// Which objects in the node's store changed. It says nothing about how: whoever is told reads them there, and finds what
/// is newest. So it may be told twice, late, or together with others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChangedObjects {
    /// Any of them may have: list them.
    Any,
    /// These, and no other: at most [`KEYS_MAX`].
    Keys(BTreeSet<ObjectKey>),
}

impl Default for ChangedObjects {
    fn default() -> Self {
        ChangedObjects::Keys(BTreeSet::new())
    }
}

impl ChangedObjects {
    /// Of these keys.
    pub fn of(keys: impl IntoIterator<Item = ObjectKey>) -> Self {
        let mut all = ChangedObjects::default();
        keys.into_iter().for_each(|key| all.add(key));
        all
    }

    /// Whether there is nothing to tell.
    pub fn is_empty(&self) -> bool {
        matches!(self, ChangedObjects::Keys(keys) if keys.is_empty())
    }

    /// This key too.
    pub fn add(&mut self, key: ObjectKey) {
        if let ChangedObjects::Keys(keys) = self {
            keys.insert(key);
            if keys.len() > KEYS_MAX {
                *self = ChangedObjects::Any;
            }
        }
    }

    /// These too.
    pub fn merge(&mut self, others: ChangedObjects) {
        match others {
            ChangedObjects::Any => *self = ChangedObjects::Any,
            ChangedObjects::Keys(keys) => keys.into_iter().for_each(|key| self.add(key)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_many_keys_are_any() {
        let key = |n: usize| ObjectKey::new("pods", "d", n.to_string());
        let mut changed = ChangedObjects::of((0..KEYS_MAX).map(key));
        changed.add(key(0));
        assert!(matches!(&changed, ChangedObjects::Keys(keys) if keys.len() == KEYS_MAX));
        changed.merge(ChangedObjects::of([key(KEYS_MAX)]));
        changed.add(key(1));
        assert_eq!(changed, ChangedObjects::Any);
        let mut none = ChangedObjects::default();
        assert!(none.is_empty() && !changed.is_empty());
        none.merge(changed);
        assert_eq!(none, ChangedObjects::Any);
    }
}
