//! How many calls of controller services are under way.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// 16 calls of one driver at once, those that wait for their turn among them: one that hangs takes no places of others.
pub(crate) const CALLS_MAX: usize = 16;
/// 64 calls of all drivers at once.
const OF_ALL: usize = 64;

/// The places.
#[derive(Debug)]
pub(crate) struct ControllerCalls {
    all: Arc<Semaphore>,
    /// Of the drivers that have a call under way.
    of_driver: RefCell<BTreeMap<String, Weak<Semaphore>>>,
}

/// A call that has its place, until this is dropped.
#[derive(Debug)]
pub(crate) struct ControllerCall {
    _of_all: OwnedSemaphorePermit,
    _of_driver: OwnedSemaphorePermit,
}

impl Default for ControllerCalls {
    fn default() -> Self {
        ControllerCalls { all: Arc::new(Semaphore::new(OF_ALL)), of_driver: RefCell::default() }
    }
}

impl ControllerCalls {
    /// A place for a call of this driver; `None`: there is none.
    pub(crate) fn enter(&self, driver: &str) -> Option<ControllerCall> {
        let mut of_driver = self.of_driver.borrow_mut();
        of_driver.retain(|_, places| places.strong_count() > 0);
        let places = of_driver.get(driver).and_then(Weak::upgrade);
        let places = places.unwrap_or_else(|| Arc::new(Semaphore::new(CALLS_MAX)));
        of_driver.insert(driver.to_owned(), Arc::downgrade(&places));
        let of_all = Arc::clone(&self.all).try_acquire_owned().ok()?;
        let of_driver = places.try_acquire_owned().ok()?;
        Some(ControllerCall { _of_all: of_all, _of_driver: of_driver })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_driver_that_hangs_takes_no_place_of_another() {
        let calls = ControllerCalls::default();
        let hung: Vec<_> = (0..CALLS_MAX).map(|_| calls.enter("slow").unwrap()).collect();
        assert!(calls.enter("slow").is_none());
        assert!(calls.enter("other").is_some());
        drop(hung);
        assert!(calls.enter("slow").is_some());
        let all: Vec<_> = (0..OF_ALL).filter_map(|number| calls.enter(&format!("d{number}"))).collect();
        assert!(all.len() == OF_ALL && calls.enter("one more").is_none());
    }
}
