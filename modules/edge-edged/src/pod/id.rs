//! How a pod is named.

use apimachinery::NamespacedName;

/// Which pod: the names are for people, the uid is what counts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct PodId {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) uid: String,
}

impl PodId {
    /// Without the uid.
    pub(crate) fn namespaced_name(&self) -> NamespacedName {
        NamespacedName::new(&*self.namespace, &*self.name)
    }

    /// Whether it is another pod of the same name.
    pub(crate) fn is_namesake_of(&self, other: &PodId) -> bool {
        self.uid != other.uid && self.namespaced_name() == other.namespaced_name()
    }
}
