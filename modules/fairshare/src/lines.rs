//! A line for each node.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use contract::NodeName;

type Shared<T> = Rc<RefCell<BTreeMap<NodeName, VecDeque<T>>>>;

/// What waits of each node, in order. A node that has nothing here takes no room.
#[derive(Debug)]
pub struct Lines<T> {
    room: usize,
    lines: Shared<T>,
}

impl<T> Lines<T> {
    /// Lines of which each has room for so many that wait, beside the one that is being served.
    pub fn new(room: usize) -> Self {
        Lines { room, lines: Rc::default() }
    }

    /// Puts it at the end of the node's line. If nobody serves that line yet, whoever called does from now on.
    ///
    /// # Errors
    /// The line is full: what it was given.
    pub fn put(&self, node: &NodeName, item: T) -> Result<Option<Serving<T>>, T> {
        let mut lines = self.lines.borrow_mut();
        match lines.get_mut(node) {
            Some(line) if line.len() >= self.room => Err(item),
            Some(line) => {
                line.push_back(item);
                Ok(None)
            }
            None => {
                lines.insert(node.clone(), VecDeque::from([item]));
                Ok(Some(Serving { node: node.clone(), lines: Rc::clone(&self.lines) }))
            }
        }
    }

    /// How many lines are being served, and how much waits in all of them.
    pub fn load(&self) -> (usize, usize) {
        let lines = self.lines.borrow();
        (lines.len(), lines.values().map(VecDeque::len).sum())
    }
}

/// That somebody serves a node's line. When it is dropped, what is left of the line is, too.
#[derive(Debug)]
pub struct Serving<T> {
    node: NodeName,
    lines: Shared<T>,
}

impl<T> Serving<T> {
    /// The next one; `None`: the line has ended, and the next that comes finds nobody serving.
    pub fn take(&mut self) -> Option<T> {
        self.lines.borrow_mut().get_mut(&self.node)?.pop_front()
    }
}

impl<T> Drop for Serving<T> {
    fn drop(&mut self) {
        // What is left is dropped outside the borrow: it may hold anything.
        let left = self.lines.borrow_mut().remove(&self.node);
        drop(left);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str) -> NodeName {
        NodeName::parse(name).unwrap()
    }

    #[test]
    fn a_line_is_served_by_one_in_order_and_has_an_end() {
        let lines = Lines::new(2);
        let mut serving = lines.put(&node("a"), 1).unwrap().expect("it was nobody's");
        assert_eq!(serving.take(), Some(1));
        assert!(lines.put(&node("a"), 2).unwrap().is_none());
        assert!(lines.put(&node("a"), 3).unwrap().is_none());
        assert_eq!(lines.put(&node("a"), 4).unwrap_err(), 4);
        assert!(lines.put(&node("b"), 5).unwrap().is_some(), "another node's line is another one");
        assert_eq!((serving.take(), serving.take(), serving.take()), (Some(2), Some(3), None));
        drop(serving);
        assert_eq!(lines.load(), (0, 0), "that of b was dropped with its server");
        assert!(lines.put(&node("a"), 6).unwrap().is_some());
    }
}
