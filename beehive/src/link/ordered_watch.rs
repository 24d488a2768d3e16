//! A value that many wait on. Whoever waited first is woken first, so that two runs of a seed are alike: tokio's `watch`
//! draws lots.

use std::pin::pin;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

#[derive(Default)]
pub(super) struct OrderedWatch<T> {
    value: Mutex<T>,
    changed: Notify,
}

impl<T> OrderedWatch<T> {
    pub(super) fn new(value: T) -> Self {
        OrderedWatch { value: Mutex::new(value), changed: Notify::new() }
    }

    fn value(&self) -> MutexGuard<'_, T> {
        self.value.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn look<R>(&self, at: impl FnOnce(&T) -> R) -> R {
        at(&self.value())
    }

    /// Changes it, and wakes those who wait.
    pub(super) fn change(&self, how: impl FnOnce(&mut T)) {
        how(&mut self.value());
        self.changed.notify_waiters();
    }

    /// Waits until `seen` finds what it looks for.
    pub(super) async fn until<R>(&self, mut seen: impl FnMut(&T) -> Option<R>) -> R {
        loop {
            let mut changed = pin!(self.changed.notified());
            // In the line before the look, so that no change falls between the two.
            changed.as_mut().enable();
            if let Some(found) = seen(&self.value()) {
                return found;
            }
            changed.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    #[test]
    fn a_waiter_is_woken_by_the_change_and_sees_it() {
        let watch = OrderedWatch::new(0);
        let mut waits = pin!(watch.until(|value| (*value > 1).then_some(*value)));
        assert_eq!(waits.as_mut().now_or_never(), None);
        watch.change(|value| *value = 1);
        assert_eq!(waits.as_mut().now_or_never(), None);
        watch.change(|value| *value = 2);
        assert_eq!(waits.now_or_never(), Some(2));
        assert_eq!(watch.look(|value| *value), 2);
    }
}
