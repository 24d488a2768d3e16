//! What waits for a target: in order, and bounded. Where it is full, the oldest is dropped: what is new says more of a device. Pure.

use std::cell::Cell;
use std::collections::VecDeque;
use std::rc::Rc;

/// 10 000 readings wait for one target: an hour of three readings a second.
pub(crate) const COUNT_MAX: usize = 10_000;
/// 4 MiB wait for one target.
pub(crate) const BYTES_MAX: usize = 4 << 20;
/// 16 MiB wait for all targets of a mapper together: a mapper has little memory.
pub(crate) const TOTAL_MAX: usize = 16 << 20;

/// What waits for a target. Each has a number, which grows.
#[derive(Debug)]
pub(crate) struct Spool<T> {
    waiting: VecDeque<(u64, usize, Rc<T>)>,
    bytes: usize,
    next: u64,
    /// The bytes of all spools.
    total: Rc<Cell<usize>>,
}

impl<T> Spool<T> {
    /// An empty one that shares this count of bytes with others.
    pub(crate) fn new(total: Rc<Cell<usize>>) -> Self {
        Spool { waiting: VecDeque::new(), bytes: 0, next: 0, total }
    }

    /// Puts it at the end. How many were dropped for it; one that has no room at all is dropped itself.
    pub(crate) fn push(&mut self, it: T, cost: usize) -> usize {
        let mut dropped = 0;
        let is_full = |spool: &Self| {
            spool.waiting.len() >= COUNT_MAX
                || spool.bytes.saturating_add(cost) > BYTES_MAX
                || spool.total.get().saturating_add(cost) > TOTAL_MAX
        };
        while is_full(self) {
            dropped += 1;
            if self.pop().is_none() {
                return dropped;
            }
        }
        self.waiting.push_back((self.next, cost, Rc::new(it)));
        self.next += 1;
        self.bytes += cost;
        self.total.set(self.total.get() + cost);
        dropped
    }

    /// The first ones, which stay until they are [done](Spool::done).
    pub(crate) fn first(&self, count: usize) -> Vec<(u64, Rc<T>)> {
        self.waiting.iter().take(count).map(|(number, _, it)| (*number, Rc::clone(it))).collect()
    }

    /// Those up to this number have not to be sent any more. Some may have been dropped since.
    pub(crate) fn done(&mut self, number: u64) {
        while self.waiting.front().is_some_and(|(first, ..)| *first <= number) {
            self.pop();
        }
    }

    /// The numbers of the first and the last.
    pub(crate) fn span(&self) -> Option<(u64, u64)> {
        Some((self.waiting.front()?.0, self.waiting.back()?.0))
    }

    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }

    fn pop(&mut self) -> Option<Rc<T>> {
        let (_, cost, it) = self.waiting.pop_front()?;
        self.bytes -= cost;
        self.total.set(self.total.get().saturating_sub(cost));
        Some(it)
    }
}

impl<T> Drop for Spool<T> {
    fn drop(&mut self) {
        self.total.set(self.total.get().saturating_sub(self.bytes));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(spool: &Spool<u64>, count: usize) -> Vec<u64> {
        spool.first(count).iter().map(|(_, it)| **it).collect()
    }

    #[test]
    fn what_waits_is_in_order_and_the_oldest_goes_where_it_is_full() {
        let total = Rc::new(Cell::new(0));
        let mut spool = Spool::new(Rc::clone(&total));
        for number in 0..=COUNT_MAX as u64 {
            assert_eq!(spool.push(number, 1), usize::from(number == COUNT_MAX as u64));
        }
        assert_eq!((numbers(&spool, 3), spool.len(), total.get()), (vec![1, 2, 3], COUNT_MAX, COUNT_MAX));
        drop(spool);
        assert_eq!(total.get(), 0);
    }

    #[test]
    fn bytes_are_bounded_for_each_and_for_all() {
        let total = Rc::new(Cell::new(0));
        let mut spool = Spool::new(Rc::clone(&total));
        assert_eq!((spool.push(1, BYTES_MAX), spool.push(2, 1)), (0, 1));
        assert_eq!(numbers(&spool, 9), [2]);
        assert_eq!(spool.push(3, BYTES_MAX + 1), 2, "itself as well");
        assert_eq!(spool.len(), 0);
        let mut others: Vec<_> = (0..TOTAL_MAX / BYTES_MAX).map(|_| Spool::new(Rc::clone(&total))).collect();
        for other in &mut others {
            other.push(0, BYTES_MAX);
        }
        assert_eq!(spool.push(4, 1), 1, "there is no room for it at all");
        assert_eq!(others[0].push(5, 1), 1, "a spool that has something drops its own");
    }

    #[test]
    fn what_was_sent_is_gone_even_if_some_of_it_was_dropped_meanwhile() {
        let mut spool = Spool::new(Rc::default());
        for number in 0..COUNT_MAX as u64 {
            spool.push(number, 1);
        }
        let sent = spool.first(3);
        for number in 0..2 {
            spool.push(number, 1);
        }
        spool.done(sent[1].0);
        assert_eq!(numbers(&spool, 1), [2], "the third was not taken");
        spool.done(sent[2].0);
        assert_eq!(numbers(&spool, 1), [3]);
    }
}
