//! Services that go to nodes so that their pods' variables can name them, as a kubelet has them (`enableServiceLinks`): those of
//! the pod's namespace that have an address of their own. Pure.
//!
//! To the index all Services of a namespace are one need, whose key has no name: it is answered when the Services are
//! listed, and a pod waits for that no longer than for anything else that it needs.

use std::collections::{BTreeMap, BTreeSet};

use contract::ObjectKey;
use contract::ids::SERVICES;
use serde_json::Value;

/// What a pod needs of its namespace's Services: nothing when it wants no variables for them.
pub fn need_of(pod: &Value) -> Option<ObjectKey> {
    let wants = pod.pointer("/spec/enableServiceLinks").and_then(Value::as_bool).unwrap_or(true);
    let namespace = pod.pointer("/metadata/namespace").and_then(Value::as_str)?;
    wants.then(|| need_in(namespace))
}

/// All Services of a namespace.
pub fn need_in(namespace: &str) -> ObjectKey {
    ObjectKey::new(SERVICES, namespace, "")
}

/// Whether it is one of these needs, and no object.
pub fn is_need(key: &ObjectKey) -> bool {
    key.resource == SERVICES && key.name.is_empty()
}

/// Whether variables come from it: one without an address of its own, or without a port, gives none.
fn has_variables(service: &Value) -> bool {
    let ip = service.pointer("/spec/clusterIP").and_then(Value::as_str).unwrap_or_default();
    let ports =
        service.pointer("/spec/ports").and_then(Value::as_array).is_some_and(|ports| !ports.is_empty());
    !ip.is_empty() && ip != "None" && ports
}

/// The Services that give variables, by their namespaces.
#[derive(Debug, Default)]
pub struct LinkedServices(BTreeMap<String, BTreeSet<ObjectKey>>);

impl LinkedServices {
    /// A Service came, changed, or went (`None`). Whether that is anything to the nodes.
    pub fn put(&mut self, key: &ObjectKey, service: Option<&Value>) -> bool {
        let is_linked = service.is_some_and(has_variables);
        if is_linked {
            self.0.entry(key.namespace.clone()).or_default().insert(key.clone());
            return true;
        }
        let Some(own) = self.0.get_mut(&key.namespace) else { return false };
        let was_linked = own.remove(key);
        if own.is_empty() {
            self.0.remove(&key.namespace);
        }
        was_linked
    }

    /// Those of a namespace.
    pub fn of(&self, namespace: &str) -> impl Iterator<Item = &ObjectKey> {
        self.0.get(namespace).into_iter().flatten()
    }
}
