//! Calls that change the runtime or the disk for a pod, and outlive the worker that made them.
//!
//! A call that is broken off leaves half of what it makes behind, and the next incarnation of the worker would not see
//! it yet. So it is seen to its end although its worker has failed, and the next incarnation reads the runtime only
//! after that.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use cri::Runtime;
use tokio::sync::{OwnedRwLockReadGuard, RwLock};

type Lock = RwLock<()>;

thread_local! {
    /// By the runtime and the pod's uid. The hive's thread has one map, not an incarnation of Edged: calls outlive both.
    static UNDER_WAY: RefCell<BTreeMap<(usize, String), Weak<Lock>>> = const { RefCell::new(BTreeMap::new()) };
}

/// The calls of one pod that are under way.
pub(crate) struct Effects(Arc<Lock>);

/// One call, until it is dropped.
pub(crate) struct Effect {
    _until_dropped: Option<OwnedRwLockReadGuard<()>>,
}

impl Effects {
    /// Those of a pod in a runtime, whoever began them.
    pub(crate) fn of(runtime: &Arc<dyn Runtime>, uid: &str) -> Effects {
        let key = (Arc::as_ptr(runtime).cast::<()>() as usize, uid.to_owned());
        UNDER_WAY.with_borrow_mut(|all| {
            all.retain(|_, lock| lock.strong_count() > 0);
            let lock = all.get(&key).and_then(Weak::upgrade).unwrap_or_default();
            all.insert(key, Arc::downgrade(&lock));
            Effects(lock)
        })
    }

    /// Begins a call.
    pub(crate) fn begin(&self) -> Effect {
        // Free for a worker that has waited for the calls of the one before; a pod has one worker at a time.
        Effect { _until_dropped: Arc::clone(&self.0).try_read_owned().ok() }
    }

    /// Resolves when none is under way any more.
    pub(crate) fn settled(&self) -> impl Future<Output = ()> + use<> {
        let lock = Arc::clone(&self.0);
        async move { drop(lock.write_owned().await) }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn the_next_incarnation_waits_for_the_calls_of_the_one_before() {
        let grpc = cri::Grpc::new("unix:///nowhere", "unix:///nowhere", std::time::Duration::from_secs(1));
        let runtime: Arc<dyn Runtime> = Arc::new(grpc.unwrap());
        let first = Effects::of(&runtime, "u-1");
        let (one, two) = (first.begin(), first.begin());
        drop(first);
        let next = Effects::of(&runtime, "u-1");
        let settled = next.settled();
        let mut settled = std::pin::pin!(settled);
        assert!(settled.as_mut().now_or_never().is_none());
        assert!(Effects::of(&runtime, "u-2").settled().now_or_never().is_some(), "another pod's are its own");
        drop(one);
        assert!(settled.as_mut().now_or_never().is_none());
        drop(two);
        assert!(settled.as_mut().now_or_never().is_some());
        assert!(next.begin()._until_dropped.is_some());
    }
}
