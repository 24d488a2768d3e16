//! Publishes of QoS 2 that a client has sent and not released (MQTT 3.1.1, 4.3.3).

use std::cell::RefCell;
use std::collections::BTreeMap;

use tokio::sync::Notify;

/// How far a publish has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    /// Subscribers have it; DeviceTwin or the store are waited for.
    Settling,
    /// Subscribers have it; DeviceTwin or the store did not take it, so it was not acknowledged.
    HandedOut,
    /// It was taken, and is acknowledged as often as it is sent again.
    Taken,
}

/// The unreleased publishes of one session by their packet identifiers. It outlives the connection that they came by, as what
/// settles does: one that is sent again over the next connection is known.
#[derive(Debug, Default)]
pub(crate) struct Unreleased {
    all: RefCell<BTreeMap<u16, Progress>>,
    settled: Notify,
}

impl Unreleased {
    pub(crate) fn len(&self) -> usize {
        self.all.borrow().len()
    }

    pub(crate) fn progress(&self, pkid: u16) -> Option<Progress> {
        self.all.borrow().get(&pkid).copied()
    }

    pub(crate) fn pkids(&self) -> Vec<u16> {
        self.all.borrow().keys().copied().collect()
    }

    /// Subscribers get it now.
    pub(crate) fn begin(&self, pkid: u16) {
        self.all.borrow_mut().insert(pkid, Progress::Settling);
    }

    /// What it was waited for has been said.
    pub(crate) fn settle(&self, pkid: u16, is_taken: bool) {
        let progress = if is_taken { Progress::Taken } else { Progress::HandedOut };
        self.all.borrow_mut().insert(pkid, progress);
        self.settled.notify_waiters();
    }

    /// PUBREL: the identifier is free. Says whether it was taken.
    pub(crate) fn release(&self, pkid: u16) -> bool {
        self.all.borrow_mut().remove(&pkid).is_some()
    }

    /// Waits until one that an earlier connection brought has settled. Answers whether it was taken.
    pub(crate) async fn settled(&self, pkid: u16) -> bool {
        loop {
            let settled = self.settled.notified();
            match self.progress(pkid) {
                Some(Progress::Settling) => settled.await,
                other => return other == Some(Progress::Taken),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_was_not_taken_is_known_until_it_is_released() {
        let unreleased = Unreleased::default();
        unreleased.begin(7);
        assert_eq!(unreleased.progress(7), Some(Progress::Settling));
        unreleased.settle(7, false);
        assert_eq!((unreleased.progress(7), unreleased.len()), (Some(Progress::HandedOut), 1));
        unreleased.settle(7, true);
        assert_eq!(unreleased.progress(7), Some(Progress::Taken));
        unreleased.release(7);
        assert_eq!((unreleased.progress(7), unreleased.len()), (None, 0));
    }
}
