//! Values that a device sends by itself.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

use crate::fault::Fault;
use crate::value::Value;

/// Where a session puts what its device sends by itself. Of each property the newest counts: whoever is faster than edgecore
/// loses what lies between, and takes no more room.
#[derive(Debug, Clone)]
pub struct Subscription {
    shared: Arc<Shared>,
    /// Which session it was made for.
    session: u64,
}

#[derive(Debug, Default)]
struct Shared {
    inside: Mutex<Inside>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Inside {
    session: u64,
    pushed: BTreeMap<usize, Result<Value, Fault>>,
}

/// What comes in: the device's side of it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pushed {
    shared: Arc<Shared>,
}

impl Subscription {
    /// The property at this place of those that were subscribed to has a value, or none, for this reason. A [`Fault::Link`] says
    /// that the session has ended.
    pub fn push(&self, place: usize, outcome: Result<Value, Fault>) {
        let mut inside = self.shared.inside.lock().unwrap_or_else(PoisonError::into_inner);
        if inside.session == self.session {
            inside.pushed.insert(place, outcome);
            self.shared.changed.notify_one();
        }
    }
}

impl Pushed {
    /// For another session, or for other properties: what is still pushed for those before is not taken.
    pub(crate) fn renew(&self) -> Subscription {
        let mut inside = self.shared.inside.lock().unwrap_or_else(PoisonError::into_inner);
        inside.session += 1;
        inside.pushed.clear();
        Subscription { shared: Arc::clone(&self.shared), session: inside.session }
    }

    /// What has come since.
    pub(crate) fn take(&self) -> BTreeMap<usize, Result<Value, Fault>> {
        let mut inside = self.shared.inside.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut inside.pushed)
    }

    /// Waits until something comes.
    pub(crate) async fn changed(&self) {
        self.shared.changed.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_newest_counts_and_what_a_former_session_says_does_not() {
        let pushed = Pushed::default();
        let former = pushed.renew();
        former.push(0, Ok(Value::Int(1)));
        let session = pushed.renew();
        assert_eq!(pushed.take(), BTreeMap::new());
        session.push(3, Ok(Value::Int(1)));
        session.push(3, Ok(Value::Int(2)));
        former.push(4, Ok(Value::Int(9)));
        pushed.changed().await;
        assert_eq!(pushed.take(), BTreeMap::from([(3, Ok(Value::Int(2)))]));
    }
}
