//! A call that is open: its place in the shares, until it is dropped.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use beehive::{Clock, Metrics, Moment};
use contract::NodeName;

use crate::progress::Progress;
use crate::shares::{Full, Shares, Whose};

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// See the module.
pub(crate) struct OpenCall {
    shares: Arc<Mutex<Shares>>,
    metrics: Metrics,
    clock: Arc<dyn Clock>,
    pub(crate) node: NodeName,
    progress: Arc<Progress>,
    id: u64,
}

impl OpenCall {
    /// One more of a node, and of a user who speaks for himself; one that lasts or not.
    pub(crate) fn open(
        shares: &Arc<Mutex<Shares>>,
        (node, user, lasts): (&NodeName, Option<&str>, bool),
        metrics: &Metrics,
        clock: &Arc<dyn Clock>,
    ) -> Result<Self, Full> {
        let progress = Arc::default();
        let id = lock(shares).open(Whose { node, user, lasts }, &progress, clock.now())?;
        Ok(OpenCall {
            shares: Arc::clone(shares),
            metrics: metrics.clone(),
            clock: Arc::clone(clock),
            node: node.clone(),
            progress,
            id,
        })
    }

    /// What is known of its bytes.
    pub(crate) fn progress(&self) -> &Progress {
        &self.progress
    }

    pub(crate) fn now(&self) -> Moment {
        self.clock.now()
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    pub(crate) async fn sleep(&self, pause: Duration) {
        self.clock.sleep(pause).await;
    }
}

impl Drop for OpenCall {
    fn drop(&mut self) {
        lock(&self.shares).close(self.id);
    }
}
