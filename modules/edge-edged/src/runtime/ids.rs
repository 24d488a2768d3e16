//! Whose a sandbox or a container of the runtime is.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

/// The sandboxes and containers of each pod, by the pod's uid: an event of the runtime names one of them and no pod.
/// Written by the pods' workers, read by Edged, both on the hive's thread.
#[derive(Debug, Default)]
pub(crate) struct RuntimeIds(RefCell<BTreeMap<String, BTreeSet<String>>>);

impl RuntimeIds {
    /// All of a pod, as they were last read.
    pub(crate) fn set(&self, uid: &str, ids: BTreeSet<String>) {
        self.0.borrow_mut().insert(uid.to_owned(), ids);
    }

    /// One more: it may end before the runtime is read again.
    pub(crate) fn add(&self, uid: &str, id: &str) {
        self.0.borrow_mut().entry(uid.to_owned()).or_default().insert(id.to_owned());
    }

    /// Nothing of the pod is left.
    pub(crate) fn forget(&self, uid: &str) {
        self.0.borrow_mut().remove(uid);
    }

    /// The uid of the pod that a sandbox or container belongs to.
    pub(crate) fn owner(&self, id: &str) -> Option<String> {
        let ids = self.0.borrow();
        ids.iter().find(|(_, own)| own.contains(id)).map(|(uid, _)| uid.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_belongs_to_the_pod_that_had_it_last() {
        let ids = RuntimeIds::default();
        ids.set("u-1", BTreeSet::from(["a".to_owned(), "b".to_owned()]));
        ids.add("u-2", "c");
        assert_eq!(ids.owner("b").as_deref(), Some("u-1"));
        assert_eq!(ids.owner("c").as_deref(), Some("u-2"));
        ids.set("u-1", BTreeSet::from(["a".to_owned()]));
        assert_eq!(ids.owner("b"), None);
        ids.forget("u-2");
        assert_eq!(ids.owner("c"), None);
    }
}
