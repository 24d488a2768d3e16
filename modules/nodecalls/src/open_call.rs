//! A call that is open: its place in the shares, until it is dropped.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use beehive::{Clock, Metrics};
use contract::NodeName;

use crate::shares::{Full, Shares};

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// See the module.
pub(crate) struct OpenCall {
    shares: Arc<Mutex<Shares>>,
    metrics: Metrics,
    clock: Arc<dyn Clock>,
    pub(crate) node: NodeName,
    user: Option<String>,
    lasts: bool,
}

impl OpenCall {
    /// One more of a node, and of a user who speaks for himself; one that lasts or not.
    pub(crate) fn open(
        shares: &Arc<Mutex<Shares>>,
        (node, user, lasts): (&NodeName, Option<&str>, bool),
        metrics: &Metrics,
        clock: &Arc<dyn Clock>,
    ) -> Result<Self, Full> {
        lock(shares).open(node, user, lasts)?;
        Ok(OpenCall {
            shares: Arc::clone(shares),
            metrics: metrics.clone(),
            clock: Arc::clone(clock),
            node: node.clone(),
            user: user.map(str::to_owned),
            lasts,
        })
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
        lock(&self.shares).close(&self.node, self.user.as_deref(), self.lasts);
    }
}
