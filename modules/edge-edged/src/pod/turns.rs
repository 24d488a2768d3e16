//! Turns: for how many pods the runtime works at a time.
//!
//! A runtime has an optimum, a few pods for each processor; with more at once everything takes longer. And when all calls of
//! all pods are under way at once, none of the pods runs before nearly all of them do. So a pod that starts keeps its turn
//! from its sandbox until its last container has been started, and one that ends from the stop of its first container until its
//! sandbox is removed. It gives the turn back while it waits for something else: a token, an image, a container that takes its time
//! to end.
//!
//! The order is that of arrival, but for three things: critical pods come first, then those that have begun and waited for something
//! else meanwhile, and a pod that takes more calls lets some that came after it pass, never more than a bounded number.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

/// 4 pods for each processor: measured with containerd and runc on two, where 8 pods at a time were the fastest.
const FOR_A_PROCESSOR: usize = 4;
/// How many later arrivals pass a pod for each call that it takes more than they do.
const PASSED_FOR_A_CALL: u64 = 4;

/// The queues of a node.
pub(crate) struct NodeTurns {
    /// Of pods that start.
    pub(crate) starting: Turns,
    /// Of pods that end: those that start don't wait for them, nor the reverse.
    pub(crate) ending: Turns,
}

/// A queue. All clones share it.
#[derive(Clone)]
pub(crate) struct Turns(Arc<Mutex<Queue>>);

struct Queue {
    free: usize,
    arrived: u64,
    waiting: BTreeMap<Place, oneshot::Sender<Turn>>,
}

/// Where a pod stands. The least is the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    is_ordinary: bool,
    is_new: bool,
    handicapped: u64,
    arrived: u64,
}

/// A pod's turn, until it is dropped.
pub(crate) struct Turn(Turns);

impl std::fmt::Debug for Turn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Turn")
    }
}

impl NodeTurns {
    /// For a machine with so many processors.
    pub(crate) fn of_machine(processors: usize) -> NodeTurns {
        let turns = || Turns::new(processors.saturating_mul(FOR_A_PROCESSOR));
        NodeTurns { starting: turns(), ending: turns() }
    }
}

impl Turns {
    /// `at_a_time` of them.
    pub(crate) fn new(at_a_time: usize) -> Turns {
        Turns(Arc::new(Mutex::new(Queue { free: at_a_time, arrived: 0, waiting: BTreeMap::new() })))
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a turn if one is free, else queues for one. The place is lost with the receiver.
    /// `has_begun`: it has had one and waited for something else meanwhile.
    pub(crate) fn take(
        &self,
        is_critical: bool,
        has_begun: bool,
        calls: usize,
    ) -> Result<Turn, oneshot::Receiver<Turn>> {
        let mut queue = self.queue();
        if queue.free > 0 {
            queue.free -= 1;
            return Ok(Turn(self.clone()));
        }
        queue.arrived += 1;
        let arrived = queue.arrived;
        let calls = u64::try_from(calls).unwrap_or(u64::MAX);
        let handicapped = arrived.saturating_add(calls.saturating_mul(PASSED_FOR_A_CALL));
        let (sender, receiver) = oneshot::channel();
        let place = Place { is_ordinary: !is_critical, is_new: !has_begun, handicapped, arrived };
        queue.waiting.insert(place, sender);
        Err(receiver)
    }
}

impl Drop for Turn {
    /// Gives the turn to the next who still waits.
    fn drop(&mut self) {
        let next = {
            let mut queue = self.0.queue();
            loop {
                match queue.waiting.pop_first() {
                    Some((_, left)) if left.is_closed() => {}
                    Some((_, next)) => break next,
                    None => {
                        queue.free += 1;
                        return;
                    }
                }
            }
        };
        // Whoever has left in this very moment passes it on, as the turn that comes back is dropped.
        let _ = next.send(Turn(self.0.clone()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Who of `waiting` has a turn now.
    fn came(waiting: &mut [(char, oneshot::Receiver<Turn>)]) -> Vec<(char, Turn)> {
        waiting.iter_mut().filter_map(|(name, turn)| Some((*name, turn.try_recv().ok()?))).collect()
    }

    fn order(turns: &Turns, first: Turn, mut waiting: Vec<(char, oneshot::Receiver<Turn>)>) -> String {
        let mut order = String::new();
        let mut held = first;
        for _ in 0..waiting.len() {
            drop(held);
            let mut came = came(&mut waiting);
            assert_eq!(came.len(), 1, "one turn, one pod");
            let (name, turn) = came.remove(0);
            order.push(name);
            held = turn;
        }
        drop(held);
        assert_eq!(turns.queue().free, 1);
        order
    }

    #[test]
    fn no_more_have_a_turn_than_there_are_and_the_first_to_come_is_the_next() {
        let turns = Turns::new(2);
        let (one, two) = (turns.take(false, false, 2).unwrap(), turns.take(false, false, 2).unwrap());
        let mut waiting = vec![
            ('a', turns.take(false, false, 2).unwrap_err()),
            ('b', turns.take(false, false, 2).unwrap_err()),
        ];
        assert!(came(&mut waiting).is_empty());
        drop(one);
        let a = came(&mut waiting);
        assert_eq!(a[0].0, 'a');
        assert_eq!(a.len(), 1);
        drop(two);
        assert_eq!(came(&mut waiting)[0].0, 'b');
        drop(a);
        assert_eq!(turns.queue().free, 2);
    }

    #[test]
    fn critical_pods_come_first_and_small_ones_pass_large_ones_but_not_for_ever() {
        let turns = Turns::new(1);
        let first = turns.take(false, false, 2).unwrap();
        let mut waiting = vec![('L', turns.take(false, false, 4).unwrap_err())];
        waiting.extend(('a'..='k').map(|name| (name, turns.take(false, false, 2).unwrap_err())));
        waiting.push(('C', turns.take(true, false, 9).unwrap_err()));
        // Two calls more let eight pass.
        assert_eq!(order(&turns, first, waiting), "CabcdefgLhijk");
    }

    #[test]
    fn a_pod_that_waited_for_its_token_comes_before_those_that_have_no_sandbox_yet() {
        let turns = Turns::new(1);
        let first = turns.take(false, false, 2).unwrap();
        let mut waiting: Vec<_> =
            ('a'..='c').map(|name| (name, turns.take(false, false, 2).unwrap_err())).collect();
        waiting.push(('T', turns.take(false, true, 2).unwrap_err()));
        waiting.push(('C', turns.take(true, false, 2).unwrap_err()));
        assert_eq!(order(&turns, first, waiting), "CTabc");
    }

    #[test]
    fn who_has_left_the_queue_holds_nobody_up_and_a_turn_that_nobody_took_is_passed_on() {
        let turns = Turns::new(1);
        let first = turns.take(false, false, 2).unwrap();
        let gone = turns.take(false, false, 2).unwrap_err();
        let late = turns.take(false, false, 2).unwrap_err();
        let mut last = turns.take(false, false, 2).unwrap_err();
        drop(gone);
        drop(first);
        // It was given a turn and never looked.
        drop(late);
        assert!(last.try_recv().is_ok());
        assert_eq!(turns.queue().free, 1);
    }
}
