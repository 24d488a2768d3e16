//! Whether a CloudCore sees what the API server holds.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use beehive::Moment;

use crate::Budget;

/// What all watches of a CloudCore share: what they may hold ([`Interruptions::budget`]), and who is whole. Which watches of a CloudCore have broken off and have not listed again since, by the resource that they are of. While one
/// has, its cache may be behind: whoever took a node over now and believed it would have the node forget what is new.
#[derive(Debug, Clone, Default)]
pub struct Interruptions(Arc<Mutex<Broken>>, Budget);

/// By the number of the interruption.
#[derive(Debug, Default)]
struct Broken {
    last: u64,
    watches: BTreeMap<u64, (&'static str, Moment)>,
}

impl Interruptions {
    /// None yet, of watches that may hold so much together.
    pub fn within(budget: Budget) -> Self {
        Interruptions(Arc::default(), budget)
    }

    /// What all of them may hold together.
    pub fn budget(&self) -> &Budget {
        &self.1
    }

    fn broken(&self) -> MutexGuard<'_, Broken> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether every watch of these resources is whole. One of another resource says nothing of them.
    pub fn are_whole(&self, resources: &[&str]) -> bool {
        !self.broken().watches.values().any(|(resource, _)| resources.contains(resource))
    }

    /// The resources whose watch has broken off, and since when.
    pub fn list(&self) -> BTreeMap<&'static str, Moment> {
        let mut list = BTreeMap::new();
        for (resource, since) in self.broken().watches.values() {
            let first = list.entry(*resource).or_insert(*since);
            *first = (*since).min(*first);
        }
        list
    }

    /// One more, until it is dropped.
    pub fn begin(&self, resource: &'static str, since: Moment) -> Interruption {
        let mut broken = self.broken();
        broken.last += 1;
        let number = broken.last;
        broken.watches.insert(number, (resource, since));
        Interruption { of: self.clone(), number }
    }
}

/// One watch that has broken off, as long as this lives.
#[derive(Debug)]
pub struct Interruption {
    of: Interruptions,
    number: u64,
}

impl Drop for Interruption {
    fn drop(&mut self) {
        self.of.broken().watches.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_watch_that_broke_off_says_nothing_of_other_resources() {
        let interruptions = Interruptions::default();
        let at = |seconds| Moment(Duration::from_secs(seconds));
        let later = interruptions.begin("devices", at(9));
        let first = interruptions.begin("devices", at(3));
        assert!(
            interruptions.are_whole(&["pods", "nodes"]) && !interruptions.are_whole(&["pods", "devices"])
        );
        assert_eq!(interruptions.list(), BTreeMap::from([("devices", at(3))]));
        drop(first);
        assert_eq!(interruptions.list(), BTreeMap::from([("devices", at(9))]));
        drop(later);
        assert!(interruptions.are_whole(&["devices"]) && interruptions.list().is_empty());
    }
}
