//! A bounded queue for each node.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use contract::NodeName;

type Shared<T> = Rc<RefCell<BTreeMap<NodeName, VecDeque<T>>>>;

/// What waits of each node, in order. A node that has nothing here takes no room.
#[derive(Debug)]
pub struct NodeQueues<T> {
    bound: usize,
    queues: Shared<T>,
}

impl<T> NodeQueues<T> {
    /// Queues of which each holds so many items, beside the one in work.
    pub fn new(bound: usize) -> Self {
        NodeQueues { bound, queues: Rc::default() }
    }

    /// Puts it at the end of the node's queue. If nobody works on that queue yet, whoever called does from now on.
    ///
    /// # Errors
    /// The queue is full: what it was given.
    pub fn put(&self, node: &NodeName, item: T) -> Result<Option<NodeQueue<T>>, T> {
        let mut queues = self.queues.borrow_mut();
        match queues.get_mut(node) {
            Some(queue) if queue.len() >= self.bound => Err(item),
            Some(queue) => {
                queue.push_back(item);
                Ok(None)
            }
            None => {
                queues.insert(node.clone(), VecDeque::from([item]));
                Ok(Some(NodeQueue { node: node.clone(), queues: Rc::clone(&self.queues) }))
            }
        }
    }

    /// How many nodes' queues are worked on, and how much waits in all of them.
    pub fn load(&self) -> (usize, usize) {
        let queues = self.queues.borrow();
        (queues.len(), queues.values().map(VecDeque::len).sum())
    }
}

/// One node's queue, for whoever works on it. When it is dropped, what is left of the queue is, too.
#[derive(Debug)]
pub struct NodeQueue<T> {
    node: NodeName,
    queues: Shared<T>,
}

impl<T> NodeQueue<T> {
    /// Whose it is.
    pub fn node(&self) -> &NodeName {
        &self.node
    }

    /// The next one; `None`: the queue is empty.
    pub fn take(&mut self) -> Option<T> {
        self.queues.borrow_mut().get_mut(&self.node)?.pop_front()
    }
}

impl<T> Drop for NodeQueue<T> {
    fn drop(&mut self) {
        // What is left is dropped outside the borrow: it may hold anything.
        let left = self.queues.borrow_mut().remove(&self.node);
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
    fn a_queue_is_worked_on_by_one_in_order_and_is_bounded() {
        let queues = NodeQueues::new(2);
        let mut queue = queues.put(&node("a"), 1).unwrap().expect("nobody works on it");
        assert_eq!(queue.take(), Some(1));
        assert!(queues.put(&node("a"), 2).unwrap().is_none());
        assert!(queues.put(&node("a"), 3).unwrap().is_none());
        assert_eq!(queues.put(&node("a"), 4).unwrap_err(), 4);
        assert!(queues.put(&node("b"), 5).unwrap().is_some(), "another node's queue is another one");
        assert_eq!((queue.take(), queue.take(), queue.take()), (Some(2), Some(3), None));
        drop(queue);
        assert_eq!(queues.load(), (0, 0), "that of b was dropped with its worker");
        assert!(queues.put(&node("a"), 6).unwrap().is_some());
    }
}
