//! Filters by their levels, so that a topic is held against those only that begin like it. Pure.
//!
//! What a search costs is told, because it is not always little: filters that differ late and have wildcards early are
//! all looked at. It is never more than the filters times the levels of the topic.

use std::collections::HashMap;

/// Filters in the form of [`crate::topic::router_form`], each with a value.
pub(crate) struct Trie<T> {
    root: Node<T>,
}

struct Node<T> {
    /// The filter that ends here.
    here: Option<T>,
    /// The filter that goes on with `#`.
    rest: Option<T>,
    /// Filters that go on with `+`.
    any: Option<Box<Node<T>>>,
    named: HashMap<Box<str>, Node<T>>,
}

impl<T> Default for Node<T> {
    fn default() -> Self {
        Node { here: None, rest: None, any: None, named: HashMap::new() }
    }
}

impl<T> Default for Trie<T> {
    fn default() -> Self {
        Trie { root: Node::default() }
    }
}

impl<T> Trie<T> {
    /// Puts a valid filter in, in place of what it had.
    pub(crate) fn insert(&mut self, filter: &str, value: T) {
        let mut node = &mut self.root;
        for level in filter.split('/') {
            match level {
                "#" => {
                    node.rest = Some(value);
                    return;
                }
                "+" => node = node.any.get_or_insert_default(),
                _ => node = node.named.entry(level.into()).or_default(),
            }
        }
        node.here = Some(value);
    }

    /// Takes a filter out, and with it what only it needed.
    pub(crate) fn remove(&mut self, filter: &str) {
        let levels: Vec<&str> = filter.split('/').collect();
        self.root.remove(&levels);
    }

    /// Shows `take` the value of every filter that takes `topic`. Returns how many places of the trie were looked at.
    pub(crate) fn find<'a>(&'a self, topic: &str, mut take: impl FnMut(&'a T)) -> usize {
        let levels: Vec<&str> = topic.split('/').collect();
        let mut looked_at = 0;
        let mut open = vec![(&self.root, 0)];
        while let Some((node, depth)) = open.pop() {
            looked_at += 1;
            // `#` takes the level above it, too.
            node.rest.iter().for_each(&mut take);
            let Some(level) = levels.get(depth) else {
                node.here.iter().for_each(&mut take);
                continue;
            };
            open.extend(node.any.iter().map(|next| (next.as_ref(), depth + 1)));
            open.extend(node.named.get(*level).map(|next| (next, depth + 1)));
        }
        looked_at
    }
}

impl<T> Node<T> {
    fn is_empty(&self) -> bool {
        self.here.is_none() && self.rest.is_none() && self.any.is_none() && self.named.is_empty()
    }

    fn remove(&mut self, levels: &[&str]) {
        match levels.split_first() {
            None => self.here = None,
            Some((&"#", _)) => self.rest = None,
            Some((&"+", rest)) => {
                if let Some(next) = &mut self.any {
                    next.remove(rest);
                }
                self.any.take_if(|next| next.is_empty());
            }
            Some((level, rest)) => {
                let Some(next) = self.named.get_mut(*level) else { return };
                next.remove(rest);
                if next.is_empty() {
                    self.named.remove(*level);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topic;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn filter() -> impl Strategy<Value = String> {
        (proptest::collection::vec("[ab+]|", 1..6), any::<bool>()).prop_map(|(mut levels, rest)| {
            if rest {
                levels.push("#".to_owned());
            }
            levels.join("/")
        })
    }

    proptest! {
        #[test]
        fn what_is_found_is_what_matches(
            steps in proptest::collection::vec((filter(), any::<bool>()), 0..40),
            topics in proptest::collection::vec(proptest::collection::vec("[ab]|", 1..7), 1..10),
        ) {
            let (mut trie, mut model) = (Trie::default(), BTreeSet::new());
            for (filter, stays) in &steps {
                if *stays {
                    trie.insert(filter, filter.clone());
                    model.insert(filter.clone());
                } else {
                    trie.remove(filter);
                    model.remove(filter);
                }
            }
            for topic in topics.iter().map(|levels| levels.join("/")) {
                let mut found = Vec::new();
                let looked_at = trie.find(&topic, |filter| found.push(filter.clone()));
                found.sort();
                let wanted: Vec<String> =
                    model.iter().filter(|filter| topic::matches(filter, &topic)).cloned().collect();
                prop_assert_eq!(found, wanted);
                prop_assert!(looked_at <= 1 + model.len() * topic.split('/').count());
            }
            model.iter().for_each(|filter| trie.remove(filter));
            prop_assert!(trie.root.is_empty(), "something is left");
        }
    }

    #[test]
    fn filters_with_the_same_wildcards_are_one_path() {
        let mut trie = Trie::default();
        for n in 0..1024 {
            trie.insert(&format!("{}{n}", "+/".repeat(31)), n);
        }
        let mut found = Vec::new();
        let looked_at = trie.find(&format!("{}7", "x/".repeat(31)), |n| found.push(*n));
        assert_eq!((found, looked_at), (vec![7], 33));
    }
}
