//! How one object is named.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Which object, of any kind.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ObjectKey {
    /// The GroupResource: the plural for the core group (`pods`), `plural.group` for the others
    /// (`devices.devices.kubeedge.io`).
    pub resource: String,
    /// The namespace; empty for cluster-scoped objects.
    pub namespace: String,
    /// The name.
    pub name: String,
}

impl ObjectKey {
    /// A key from its parts.
    pub fn new(resource: impl Into<String>, namespace: impl Into<String>, name: impl Into<String>) -> Self {
        ObjectKey { resource: resource.into(), namespace: namespace.into(), name: name.into() }
    }

    /// The key without its resource.
    pub fn namespaced_name(&self) -> NamespacedName {
        NamespacedName::new(&*self.namespace, &*self.name)
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.namespace.as_str() {
            "" => write!(f, "{}/{}", self.resource, self.name),
            namespace => write!(f, "{}/{namespace}/{}", self.resource, self.name),
        }
    }
}

/// Which object of one kind, as controllers and work queues name it (`types.NamespacedName`).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NamespacedName {
    /// The namespace; empty for cluster-scoped objects.
    pub namespace: String,
    /// The name.
    pub name: String,
}

impl NamespacedName {
    /// A name from its parts.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        NamespacedName { namespace: namespace.into(), name: name.into() }
    }

    /// The name in an object's metadata; empty parts where there is none.
    pub fn of(object: &Value) -> Self {
        let text = |pointer| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        NamespacedName::new(text("/metadata/namespace"), text("/metadata/name"))
    }

    /// The key of this object of `resource`, a GroupResource.
    pub fn of_resource(self, resource: impl Into<String>) -> ObjectKey {
        ObjectKey { resource: resource.into(), namespace: self.namespace, name: self.name }
    }
}

impl fmt::Display for NamespacedName {
    /// `namespace/name`, or `name` alone for a cluster-scoped object.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            f.write_str(&self.name)
        } else {
            write!(f, "{}/{}", self.namespace, self.name)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn keys_are_written_as_kubernetes_writes_them() {
        let pod = NamespacedName::of(&json!({"metadata": {"namespace": "shop", "name": "web-0"}}));
        assert_eq!(pod.to_string(), "shop/web-0");
        assert_eq!(NamespacedName::of(&json!({"metadata": {"name": "edge-1"}})).to_string(), "edge-1");
        let key = pod.of_resource(crate::resource::PODS);
        assert_eq!(key.to_string(), "pods/shop/web-0");
        assert_eq!(key.namespaced_name().to_string(), "shop/web-0");
    }
}
