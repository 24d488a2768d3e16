//! What the reports of each node make go between CloudCore and the API server.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::{self, Write};

use contract::NodeName;
use serde::Serialize;

/// Bytes of objects that were read or written for a node, until somebody has the node pay for them.
#[derive(Debug, Default)]
pub struct Traffic(RefCell<BTreeMap<NodeName, usize>>);

impl Traffic {
    /// An object was read or written for the node.
    pub fn add(&self, node: &NodeName, object: &impl Serialize) {
        self.add_bytes(node, json_bytes(object));
    }

    /// So many bytes more.
    pub fn add_bytes(&self, node: &NodeName, bytes: usize) {
        let mut all = self.0.borrow_mut();
        let sum = all.entry(node.clone()).or_default();
        *sum = sum.saturating_add(bytes);
    }

    /// How much that was since it was asked last.
    pub fn take(&self, node: &NodeName) -> usize {
        self.0.borrow_mut().remove(node).unwrap_or_default()
    }
}

/// How many bytes it is as JSON. Nothing is kept of them.
pub fn json_bytes(object: &impl Serialize) -> usize {
    struct Count(usize);
    impl Write for Count {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut count = Count(0);
    // What cannot be written as JSON went nowhere.
    let _ = serde_json::to_writer(&mut count, object);
    count.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_read_and_written_for_a_node_is_paid_for_once() {
        let (one, other) = (NodeName::parse("a").unwrap(), NodeName::parse("b").unwrap());
        let traffic = Traffic::default();
        traffic.add(&one, &vec!["x"; 100]);
        traffic.add(&one, &"y");
        traffic.add(&other, &7);
        assert_eq!((traffic.take(&one), traffic.take(&one), traffic.take(&other)), (404, 0, 1));
    }
}
