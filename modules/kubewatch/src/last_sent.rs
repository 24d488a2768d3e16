//! What SyncController was last sent of each node, and the difference to what the node should hold.

use std::collections::BTreeMap;
use std::sync::Arc;

use beehive::defect::{self, Defect};
use contract::ids::{DEVICES, PODS};
use contract::synccontroller::SyncMsg;
use contract::{NodeName, Object, ObjectKey};

/// The objects that a node should hold.
pub type DesiredObjects = BTreeMap<ObjectKey, Arc<Object>>;

/// What one controller last sent of each node.
#[derive(Debug, Default)]
pub struct LastSent {
    nodes: BTreeMap<NodeName, DesiredObjects>,
}

impl LastSent {
    /// Takes `wanted` as what was sent, and answers the messages that make it true. Nothing is said of nodes that are not
    /// in it.
    pub fn difference(&mut self, wanted: &BTreeMap<NodeName, DesiredObjects>) -> Vec<SyncMsg> {
        let mut messages = Vec::new();
        for (node, objects) in wanted {
            self.compare(node, objects, &mut messages);
        }
        messages
    }

    fn compare(&mut self, node: &NodeName, objects: &DesiredObjects, messages: &mut Vec<SyncMsg>) {
        let sent = self.nodes.entry(node.clone()).or_default();
        // What pods and devices need is sent before them, so that it goes with or before them.
        let (needing, others): (Vec<_>, Vec<_>) =
            objects.iter().partition(|(key, _)| matches!(key.resource.as_str(), PODS | DEVICES));
        for (key, object) in others.into_iter().chain(needing) {
            // What a node itself reported moves an object without making it another one: SyncController is told, and
            // sends it with the object when the node needs that anew.
            let same = sent.get(key).is_some_and(|t| {
                Arc::ptr_eq(t, object)
                    || (t.uid == object.uid && t.content_hash == object.content_hash && t.json == object.json)
            });
            if !same {
                messages.push(SyncMsg::Upsert { node: node.clone(), object: Arc::clone(object) });
                let before = sent.insert(key.clone(), Arc::clone(object));
                if let (Some(object), true) = (before, defect::is_planted(Defect::StaleVersion)) {
                    messages.push(SyncMsg::Upsert { node: node.clone(), object });
                }
            }
        }
        let gone: Vec<ObjectKey> = sent.keys().filter(|key| !objects.contains_key(*key)).cloned().collect();
        for key in gone {
            sent.remove(&key);
            if defect::is_planted(Defect::DroppedDelete) {
                continue;
            }
            messages.push(SyncMsg::Delete { node: node.clone(), key });
        }
        if sent.is_empty() {
            self.nodes.remove(node);
        }
    }

    /// Whether the node was sent another object of this key, or none.
    pub fn is_news(&self, node: &NodeName, object: &Object) -> bool {
        let sent = self.nodes.get(node).and_then(|sent| sent.get(&object.key));
        sent.is_none_or(|sent| sent.uid != object.uid || sent.content_hash != object.content_hash)
    }

    /// Nodes that hold anything.
    pub fn nodes(&self) -> usize {
        self.nodes.len()
    }

    /// Objects on all nodes.
    pub fn objects(&self) -> usize {
        self.nodes.values().map(BTreeMap::len).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn held(entries: &[(&str, &str)]) -> DesiredObjects {
        let object = |name: &str, version: &str| Object {
            key: ObjectKey::new("pods", "d", name),
            uid: format!("uid-{name}"),
            content_hash: version.to_owned(),
            resource_version: "1".to_owned(),
            json: Bytes::new(),
        };
        entries.iter().map(|(n, v)| object(n, v)).map(|o| (o.key.clone(), Arc::new(o))).collect()
    }

    fn sent(messages: &[SyncMsg]) -> Vec<String> {
        messages
            .iter()
            .map(|message| match message {
                SyncMsg::Upsert { object, .. } => format!("+{}@{}", object.key.name, object.content_hash),
                SyncMsg::Delete { key, .. } => format!("-{}", key.name),
                other => beehive::Message::name(other).to_owned(),
            })
            .collect()
    }

    #[test]
    fn what_a_pod_needs_is_sent_before_it() {
        let mut objects = held(&[("a-pod", "1")]);
        let pod = objects.values().next().cloned().unwrap();
        for resource in ["configmaps", "secrets"] {
            let key = ObjectKey::new(resource, "d", resource);
            objects.insert(key.clone(), Arc::new(Object { key, ..Object::clone(&pod) }));
        }
        let wanted = BTreeMap::from([(NodeName::parse("edge-1").unwrap(), objects)]);
        let messages = LastSent::default().difference(&wanted);
        assert_eq!(sent(&messages), ["+configmaps@1", "+secrets@1", "+a-pod@1"]);
    }

    #[test]
    fn only_the_difference_is_sent() {
        let node = NodeName::parse("edge-1").unwrap();
        let mut last_sent = LastSent::default();
        let mut wanted = BTreeMap::from([(node.clone(), held(&[("a", "1"), ("b", "1")]))]);
        assert_eq!(sent(&last_sent.difference(&wanted)), ["+a@1", "+b@1"]);
        assert!(last_sent.difference(&wanted).is_empty());
        let is_news = |last_sent: &LastSent, version| {
            last_sent.is_news(&node, held(&[("a", version)]).values().next().unwrap())
        };
        assert_eq!((is_news(&last_sent, "1"), is_news(&last_sent, "2")), (false, true));
        wanted.insert(node.clone(), held(&[("a", "2")]));
        assert_eq!(sent(&last_sent.difference(&wanted)), ["+a@2", "-b"]);
        wanted.insert(node, DesiredObjects::new());
        assert_eq!(sent(&last_sent.difference(&wanted)), ["-a"]);
        assert_eq!((last_sent.nodes(), last_sent.objects()), (0, 0));
    }

    #[test]
    fn nothing_is_sent_of_nodes_that_nothing_touched() {
        let [one, two] = ["edge-1", "edge-2"].map(|name| NodeName::parse(name).unwrap());
        let mut last_sent = LastSent::default();
        let both = BTreeMap::from([(one.clone(), held(&[("a", "1")])), (two.clone(), held(&[("b", "1")]))]);
        assert_eq!(sent(&last_sent.difference(&both)), ["+a@1", "+b@1"]);
        assert_eq!(
            sent(&last_sent.difference(&BTreeMap::from([(one.clone(), held(&[("a", "2")]))]))),
            ["+a@2"]
        );
        assert_eq!((last_sent.nodes(), last_sent.objects()), (2, 2));
        assert_eq!(sent(&last_sent.difference(&BTreeMap::from([(two, DesiredObjects::new())]))), ["-b"]);
        assert_eq!((last_sent.nodes(), last_sent.objects()), (1, 1));
    }
}
