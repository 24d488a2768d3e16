//! When to try again what failed: a rate limiter by key.

use std::collections::BTreeMap;
use std::time::Duration;

use beehive::{Env, Moment};

/// What failed, how often, and when it is tried again.
pub(crate) struct Backoff<K> {
    first: Duration,
    most: Duration,
    failed: BTreeMap<K, (u32, Moment)>,
}

impl<K: Ord> Backoff<K> {
    /// Tries again after `first`, then after twice as long, and never later than after `most`.
    pub(crate) fn new(first: Duration, most: Duration) -> Self {
        Backoff { first, most, failed: BTreeMap::new() }
    }

    /// Whether it may be tried now.
    pub(crate) fn is_due(&self, key: &K, now: Moment) -> bool {
        self.failed.get(key).is_none_or(|(_, at)| *at <= now)
    }

    pub(crate) fn failed(&mut self, key: K, env: &Env) {
        let (times, at) = self.failed.entry(key).or_default();
        let pause = self.first.saturating_mul(1 << (*times).min(20)).min(self.most);
        *at = env.now() + env.jitter(pause);
        *times += 1;
    }

    pub(crate) fn done(&mut self, key: &K) {
        self.failed.remove(key);
    }

    /// Forgets what is not there any more.
    pub(crate) fn retain(&mut self, is_there: impl Fn(&K) -> bool) {
        self.failed.retain(|key, _| is_there(key));
    }

    /// How many wait to be tried again.
    pub(crate) fn len(&self) -> usize {
        self.failed.len()
    }

    /// How long until the next try is due.
    pub(crate) fn next(&self, now: Moment) -> Option<Duration> {
        self.failed.values().map(|(_, at)| at.since(now)).min()
    }
}

/// The shorter of two waits, where none means for ever.
pub(crate) fn sooner(one: Option<Duration>, other: Option<Duration>) -> Option<Duration> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn waits_grow_to_a_bound_and_end_with_success() {
        let env = Env::seeded(1);
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
        assert!(backoff.is_due(&"a", env.now()));
        assert_eq!(backoff.next(env.now()), None);
        let mut waits = Vec::new();
        for _ in 0..8 {
            backoff.failed("a", &env);
            waits.push(backoff.next(env.now()).unwrap());
        }
        assert!(!backoff.is_due(&"a", env.now()));
        assert!(waits[0] <= Duration::from_millis(100) && waits[0] >= Duration::from_millis(50));
        assert!(waits[7] <= Duration::from_secs(1) && waits[7] >= Duration::from_millis(500));
        env.sleep(Duration::from_secs(1)).await;
        assert!(backoff.is_due(&"a", env.now()));
        backoff.done(&"a");
        assert_eq!(backoff.next(env.now()), None);
    }
}
