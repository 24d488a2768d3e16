//! Which objects belong to which node, and what they refer to: an index that is kept up by what changed. Pure.

use std::collections::{BTreeMap, BTreeSet};

use contract::{NodeName, ObjectKey};

/// Where an object belongs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    /// The node.
    pub node: NodeName,
    /// What it needs there.
    pub needs: BTreeSet<ObjectKey>,
}

/// The places of all objects that have one, found by object, by node and by need.
#[derive(Debug, Default)]
pub struct NodeIndex {
    places: BTreeMap<ObjectKey, Placement>,
    by_node: BTreeMap<NodeName, BTreeSet<ObjectKey>>,
    by_need: BTreeMap<ObjectKey, BTreeSet<ObjectKey>>,
}

impl NodeIndex {
    /// The object came, changed, or went (`None`). The nodes that should look again are put into `touched`.
    pub fn put(&mut self, key: &ObjectKey, place: Option<Placement>, touched: &mut BTreeSet<NodeName>) {
        if let Some(before) = self.places.remove(key) {
            leave(&mut self.by_node, &before.node, key);
            for need in &before.needs {
                leave(&mut self.by_need, need, key);
            }
            touched.insert(before.node);
        }
        if let Some(place) = place {
            touched.insert(place.node.clone());
            self.by_node.entry(place.node.clone()).or_default().insert(key.clone());
            for need in &place.needs {
                self.by_need.entry(need.clone()).or_default().insert(key.clone());
            }
            self.places.insert(key.clone(), place);
        }
    }

    /// The nodes that objects belong to.
    pub fn nodes(&self) -> impl Iterator<Item = &NodeName> {
        self.by_node.keys()
    }

    /// Something that objects may need came, changed or went.
    pub fn need_changed(&self, need: &ObjectKey, touched: &mut BTreeSet<NodeName>) {
        for key in self.by_need.get(need).into_iter().flatten() {
            touched.extend(self.places.get(key).map(|place| place.node.clone()));
        }
    }

    /// The objects that need it.
    pub fn needing(&self, need: &ObjectKey) -> impl Iterator<Item = &ObjectKey> {
        self.by_need.get(need).into_iter().flatten()
    }

    /// Where `key` belongs.
    pub fn place(&self, key: &ObjectKey) -> Option<&Placement> {
        self.places.get(key)
    }

    /// What belongs on `node`.
    pub fn on(&self, node: &NodeName) -> impl Iterator<Item = (&ObjectKey, &Placement)> {
        let keys = self.by_node.get(node).into_iter().flatten();
        keys.filter_map(|key| self.places.get_key_value(key))
    }
}

fn leave<K: Ord>(index: &mut BTreeMap<K, BTreeSet<ObjectKey>>, at: &K, key: &ObjectKey) {
    if let Some(keys) = index.get_mut(at) {
        keys.remove(key);
        if keys.is_empty() {
            index.remove(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(node: &str, needs: &[&str]) -> Option<Placement> {
        let needs = needs.iter().map(|name| ObjectKey::new("secrets", "d", *name)).collect();
        Some(Placement { node: NodeName::parse(node).unwrap(), needs })
    }

    fn pod(name: &str) -> ObjectKey {
        ObjectKey::new("pods", "d", name)
    }

    fn touched(act: impl FnOnce(&mut BTreeSet<NodeName>)) -> Vec<String> {
        let mut touched = BTreeSet::new();
        act(&mut touched);
        touched.iter().map(NodeName::to_string).collect()
    }

    #[test]
    fn a_need_leads_to_the_nodes_of_those_who_have_it_now() {
        let mut index = NodeIndex::default();
        let need = ObjectKey::new("secrets", "d", "s");
        assert_eq!(touched(|t| index.put(&pod("a"), place("n1", &["s"]), t)), ["n1"]);
        assert_eq!(touched(|t| index.put(&pod("b"), place("n2", &["s", "x"]), t)), ["n2"]);
        assert_eq!(touched(|t| index.need_changed(&need, t)), ["n1", "n2"]);
        assert_eq!(touched(|t| index.put(&pod("a"), place("n3", &["x"]), t)), ["n1", "n3"]);
        assert_eq!(touched(|t| index.need_changed(&need, t)), ["n2"]);
        assert_eq!(touched(|t| index.put(&pod("b"), None, t)), ["n2"]);
        assert_eq!(touched(|t| index.put(&pod("b"), None, t)), Vec::<String>::new());
        let on = |node: &str| index.on(&NodeName::parse(node).unwrap()).count();
        assert_eq!([on("n1"), on("n2"), on("n3")], [0, 0, 1]);
        assert_eq!((index.by_node.len(), index.by_need.len()), (1, 1), "nothing is left of what went");
    }
}
