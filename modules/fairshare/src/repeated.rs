//! What fails again and again for one reason.

use std::cell::RefCell;
use std::collections::BTreeMap;

use contract::NodeName;

/// How often in a row something failed for each node for one and the same reason: a log says it ever more seldom (see
/// [`is_logged`](crate::is_logged)), and another reason at once.
#[derive(Debug, Default)]
pub struct RepeatedReasons(RefCell<BTreeMap<NodeName, (String, u64)>>);

impl RepeatedReasons {
    /// One more failed. Answers how many in a row have by now for this reason, 1 or more.
    pub fn count(&self, node: &NodeName, reason: &str) -> u64 {
        let mut reasons = self.0.borrow_mut();
        let (last, times) = reasons.entry(node.clone()).or_default();
        if last != reason {
            (*last, *times) = (reason.to_owned(), 0);
        }
        *times = times.saturating_add(1);
        *times
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_again_is_counted_for_each_node_and_something_else_begins_anew() {
        let reasons = RepeatedReasons::default();
        let [one, two] = ["edge-1", "edge-2"].map(|name| NodeName::parse(name).unwrap());
        let counts = [(&one, "a"), (&one, "a"), (&two, "a"), (&one, "b"), (&one, "a"), (&two, "a")]
            .map(|(node, reason)| reasons.count(node, reason));
        assert_eq!(counts, [1, 2, 1, 1, 1, 2]);
    }
}
