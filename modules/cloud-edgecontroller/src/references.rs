//! Which Secrets and config maps the pods on edge nodes refer to, and from which nodes. Pure.

use std::collections::{BTreeMap, BTreeSet};

use contract::{NodeName, ObjectKey};

/// 3 nodes are named of those that need an object: whoever reads it as a node needs one, and another when that one may not.
pub const READERS: usize = 3;

/// What the pods on edge nodes refer to.
#[derive(Debug, Default)]
pub struct References {
    /// How many pods on each node need it.
    needs: BTreeMap<ObjectKey, BTreeMap<NodeName, usize>>,
    /// Whose nodes changed since somebody asked.
    touched: BTreeSet<ObjectKey>,
}

impl References {
    /// A pod on `node` needs these.
    pub fn add(&mut self, node: &NodeName, needs: &BTreeSet<ObjectKey>) {
        for need in needs {
            let nodes = self.needs.entry(need.clone()).or_default();
            let pods = nodes.entry(node.clone()).or_default();
            *pods += 1;
            if *pods == 1 {
                self.touched.insert(need.clone());
            }
        }
    }

    /// A pod that needed these is on `node` no more.
    pub fn remove(&mut self, node: &NodeName, needs: &BTreeSet<ObjectKey>) {
        for need in needs {
            let Some(nodes) = self.needs.get_mut(need) else { continue };
            let Some(pods) = nodes.get_mut(node) else { continue };
            *pods = pods.saturating_sub(1);
            if *pods == 0 {
                nodes.remove(node);
                self.touched.insert(need.clone());
            }
            if nodes.is_empty() {
                self.needs.remove(need);
            }
        }
    }

    /// Of each need whose nodes changed since the last call the first [`READERS`] nodes; none when no node needs it.
    pub fn take(&mut self) -> BTreeMap<ObjectKey, Vec<NodeName>> {
        let touched = std::mem::take(&mut self.touched);
        let readers = |need: &ObjectKey| {
            let nodes = self.needs.get(need).into_iter().flat_map(BTreeMap::keys);
            nodes.take(READERS).cloned().collect()
        };
        touched.into_iter().map(|need| (need.clone(), readers(&need))).collect()
    }

    /// Whether a pod on an edge node needs it.
    pub fn is_needed(&self, need: &ObjectKey) -> bool {
        self.needs.contains_key(need)
    }

    /// Everything that is needed.
    pub fn all(&self) -> impl Iterator<Item = &ObjectKey> {
        self.needs.keys()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(n: usize) -> NodeName {
        NodeName::parse(&format!("edge-{n}")).unwrap()
    }

    fn needs(names: &[&str]) -> BTreeSet<ObjectKey> {
        names.iter().map(|name| ObjectKey::new("secrets", "d", *name)).collect()
    }

    fn taken(references: &mut References) -> Vec<String> {
        let shown = |(need, nodes): (ObjectKey, Vec<NodeName>)| {
            let nodes: Vec<String> = nodes.iter().map(NodeName::to_string).collect();
            format!("{}: {}", need.name, nodes.join(" "))
        };
        references.take().into_iter().map(shown).collect()
    }

    #[test]
    fn a_need_is_there_as_long_as_a_pod_has_it() {
        let mut references = References::default();
        references.add(&node(1), &needs(&["a", "b"]));
        assert_eq!(taken(&mut references), ["a: edge-1", "b: edge-1"]);
        references.add(&node(1), &needs(&["a"]));
        assert!(taken(&mut references).is_empty(), "another pod there is no news");
        references.remove(&node(1), &needs(&["a", "b"]));
        assert_eq!(taken(&mut references), ["b: "]);
        references.remove(&node(1), &needs(&["a"]));
        assert_eq!(taken(&mut references), ["a: "]);
        assert_eq!(references.all().count(), 0);
        references.remove(&node(1), &needs(&["a"]));
        assert!(taken(&mut references).is_empty(), "it was not there");
    }

    #[test]
    fn thousands_of_pods_make_one_need_with_a_few_readers() {
        let mut references = References::default();
        for n in 0..5000 {
            references.add(&node(n % 1000), &needs(&["registry"]));
        }
        assert_eq!(taken(&mut references), ["registry: edge-0 edge-1 edge-10"]);
        for n in 0..4999 {
            references.remove(&node(n % 1000), &needs(&["registry"]));
        }
        assert_eq!(taken(&mut references), ["registry: edge-999"]);
    }
}
