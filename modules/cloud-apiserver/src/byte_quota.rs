//! How many bytes of bodies and of answers are held at a time, for each user and for all.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bytes in a permit.
const UNIT: usize = 1024;

/// A number of bytes for each user, and one for all of them together.
pub(crate) struct ByteQuota {
    per_user: usize,
    all: usize,
    total: Arc<Semaphore>,
    users: Mutex<BTreeMap<String, Arc<Semaphore>>>,
}

/// Bytes that are held until it is dropped.
pub(crate) struct BytesPermit {
    own: OwnedSemaphorePermit,
    total: OwnedSemaphorePermit,
}

impl BytesPermit {
    /// Gives back what is more than `bytes`.
    pub(crate) fn keep(&mut self, bytes: usize) {
        let units = bytes.div_ceil(UNIT);
        for permit in [&mut self.own, &mut self.total] {
            let over = permit.num_permits().saturating_sub(units);
            drop(permit.split(over));
        }
    }
}

impl ByteQuota {
    /// In bytes.
    pub(crate) fn new(per_user: usize, all: usize) -> Self {
        let (per_user, all) = (per_user / UNIT, all / UNIT);
        ByteQuota { per_user, all, total: Arc::new(Semaphore::new(all)), users: Mutex::default() }
    }

    fn of(&self, user: &str) -> Arc<Semaphore> {
        let mut users = self.users.lock().unwrap_or_else(PoisonError::into_inner);
        // Whoever holds or waits has a copy.
        users.retain(|_, own| Arc::strong_count(own) > 1);
        let own = users.entry(user.to_owned()).or_insert_with(|| Arc::new(Semaphore::new(self.per_user)));
        Arc::clone(own)
    }

    /// What is more than all there is waits for all of it.
    fn units(&self, bytes: usize) -> u32 {
        let units = bytes.div_ceil(UNIT).min(self.per_user).min(self.all);
        u32::try_from(units).unwrap_or(u32::MAX)
    }

    /// Waits until `user` may hold so many bytes.
    pub(crate) async fn acquire(&self, user: &str, bytes: usize) -> Option<BytesPermit> {
        let units = self.units(bytes);
        let own = self.of(user).acquire_many_owned(units).await.ok()?;
        let total = Arc::clone(&self.total).acquire_many_owned(units).await.ok()?;
        Some(BytesPermit { own, total })
    }

    /// The same now or not at all.
    pub(crate) fn try_acquire(&self, user: &str, bytes: usize) -> Option<BytesPermit> {
        let units = self.units(bytes);
        let own = self.of(user).try_acquire_many_owned(units).ok()?;
        let total = Arc::clone(&self.total).try_acquire_many_owned(units).ok()?;
        Some(BytesPermit { own, total })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_user_holds_no_more_than_his_share() {
        let quota = ByteQuota::new(4096, 8192);
        let first = quota.try_acquire("a", 4000).unwrap();
        assert!(quota.try_acquire("a", 1).is_none());
        let second = quota.acquire("b", 1 << 30).await.unwrap();
        // All is taken, whoever asks.
        assert!(quota.try_acquire("c", 1).is_none());
        drop(first);
        assert!(quota.try_acquire("c", 4096).is_some());
        // Who needs less than he thought gives back.
        let mut less = second;
        less.keep(1000);
        assert!(quota.try_acquire("b", 3072).is_some() && quota.try_acquire("b", 3073).is_none());
        drop(less);
        assert!(quota.try_acquire("a", 1).is_some());
        assert_eq!(quota.users.lock().unwrap().len(), 1);
    }
}
