//! How many contexts are taken of each end of links. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::{Bucket, Moment};

/// 512 at once (eight batches in which everything is followed), and then 20 a second. Over all links of one name, so that a new one is no
/// fresh start.
const OF_ONE: (u32, Duration) = (512, Duration::from_millis(50));
/// 4,096 names: more than may be linked. Those beyond are taken nothing of, until others have been quiet for a while.
const PEERS_MAX: usize = 4096;

/// What of each end may still be taken.
#[derive(Debug, Default)]
pub(super) struct PeerRates(BTreeMap<String, Bucket>);

impl PeerRates {
    /// Whether one more is taken of `peer`.
    pub(super) fn take(&mut self, peer: &str, now: Moment) -> bool {
        if let Some(bucket) = self.0.get_mut(peer) {
            return bucket.take(now);
        }
        if self.0.len() >= PEERS_MAX {
            self.0.retain(|_, bucket| !bucket.is_full(now));
        }
        if self.0.len() >= PEERS_MAX {
            return false;
        }
        self.0.entry(peer.to_owned()).or_insert_with(|| Bucket::new(OF_ONE.0, OF_ONE.1)).take(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_end_has_its_rate_and_takes_nothing_of_anothers() {
        let mut rates = PeerRates::default();
        let mut taken =
            |peer: &str, at| (0..2000).filter(|_| rates.take(peer, Moment(Duration::from_secs(at)))).count();
        assert_eq!((taken("a", 100), taken("b", 100)), (512, 512));
        assert_eq!(taken("a", 101), 20);
        assert_eq!(taken("a", 1000), 512);
    }

    #[test]
    fn there_are_no_more_names_than_the_bound() {
        let (mut rates, now) = (PeerRates::default(), Moment(Duration::from_secs(9)));
        let all = (0..2 * PEERS_MAX).filter(|number| rates.take(&format!("p{number}"), now)).count();
        assert_eq!((all, rates.0.len()), (PEERS_MAX, PEERS_MAX));
        assert!(rates.take("later", Moment(Duration::from_secs(10))));
        assert_eq!(rates.0.len(), 1);
    }
}
