//! How many tokens a node may ask for. Pure.
//!
//! Each question costs the API server a read of a pod and a signature. A node asks once for each token that a volume of a pod
//! names, keeps it across its restarts, and asks again when four fifths of its life are over.

use std::collections::BTreeMap;
use std::time::Duration;

use beehive::{Bucket, Moment};
use contract::NodeName;

/// 1,024 at once, and one in each second: 250 pods with four tokens each that start on a node which has none, and then eight times as
/// many as they ask for anew in each hour, when all of them live for the shortest time that is usual.
const OF_NODE: (u32, Duration) = (1024, Duration::from_secs(1));

/// What each node has asked for, over all its sessions: a new one is no fresh start. Only nodes that were admitted come here.
#[derive(Debug, Default)]
pub(crate) struct TokenRates(BTreeMap<NodeName, Bucket>);

impl TokenRates {
    /// Counts one more question of the node. Answers in how long it may be answered.
    pub(crate) fn take(&mut self, node: &NodeName, now: Moment) -> Duration {
        let (burst, every) = OF_NODE;
        self.0.entry(node.clone()).or_insert_with(|| Bucket::new(burst, every)).take_on_credit(1, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_starts_waits_for_nothing_and_one_that_goes_on_asking_waits() {
        let (mut rates, now) = (TokenRates::default(), Moment(Duration::from_secs(100)));
        let (honest, captured) = (NodeName::parse("a").unwrap(), NodeName::parse("b").unwrap());
        assert!((0..1024).all(|_| rates.take(&captured, now).is_zero()));
        assert_eq!(rates.take(&captured, now), Duration::from_secs(1));
        assert_eq!(rates.take(&captured, now), Duration::from_secs(2));
        assert!(rates.take(&honest, now).is_zero(), "each by itself");
        // 3,600 in an hour, whatever it does.
        let hour = now + Duration::from_secs(3602);
        assert!((0..1024).all(|_| rates.take(&captured, hour).is_zero()));
        assert!(!rates.take(&captured, hour).is_zero());
    }
}
