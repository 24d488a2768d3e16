//! Answers that are kept for a while, not more than so many. Pure.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use beehive::Moment;

/// The digest of a question: what was asked is not kept, a token least of all.
pub(crate) type Key = [u8; 32];

/// See the module.
#[derive(Debug)]
pub(crate) struct Cache<V> {
    most: usize,
    held: BTreeMap<Key, (V, Moment)>,
    /// In the order in which they came, with those that came again.
    order: VecDeque<(Key, Moment)>,
}

impl<V: Clone> Cache<V> {
    pub(crate) fn new(most: usize) -> Self {
        Cache { most, held: BTreeMap::new(), order: VecDeque::new() }
    }

    pub(crate) fn get(&self, key: &Key, now: Moment) -> Option<V> {
        self.held.get(key).filter(|(_, until)| now < *until).map(|(value, _)| value.clone())
    }

    /// Keeps an answer for `span`. The oldest goes for it where there is no room.
    pub(crate) fn put(&mut self, key: Key, value: V, span: Duration, now: Moment) {
        let until = now + span;
        self.held.insert(key, (value, until));
        self.order.push_back((key, until));
        while self.held.len() > self.most || self.order.len() > 2 * self.most {
            let Some((oldest, of)) = self.order.pop_front() else { return };
            // One that came again has a later place.
            if self.held.get(&oldest).is_some_and(|(_, until)| *until == of) {
                self.held.remove(&oldest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Moment {
        Moment(Duration::from_secs(seconds))
    }

    #[test]
    fn an_answer_is_kept_for_its_span_and_the_oldest_makes_room() {
        let (mut cache, minute) = (Cache::new(2), Duration::from_secs(60));
        cache.put([1; 32], "a", minute, at(0));
        assert_eq!((cache.get(&[1; 32], at(59)), cache.get(&[1; 32], at(60))), (Some("a"), None));
        cache.put([2; 32], "b", minute, at(1));
        cache.put([1; 32], "c", minute, at(2));
        cache.put([3; 32], "d", minute, at(3));
        assert_eq!(cache.get(&[2; 32], at(3)), None, "the oldest");
        assert_eq!((cache.get(&[1; 32], at(3)), cache.get(&[3; 32], at(3))), (Some("c"), Some("d")));
        for round in 0..1000 {
            cache.put([1; 32], "e", minute, at(round));
        }
        assert!(cache.order.len() <= 4 && cache.held.len() <= 2);
    }
}
