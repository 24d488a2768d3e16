//! Connections that have not sent a CONNECT yet: how many there may be, and which of them makes room.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use tokio::sync::Notify;

use crate::peer::PeerOrigin;
use crate::plan;

/// Connections of one listener that have not said who they are.
#[derive(Default)]
pub(crate) struct PendingConnects {
    /// The oldest first.
    waiting: RefCell<Vec<(PeerOrigin, Rc<Notify>)>>,
}

/// One of them, until it is dropped.
pub(crate) struct PendingConnect {
    all: Rc<PendingConnects>,
    leave: Rc<Notify>,
}

impl PendingConnect {
    /// It has to make room.
    pub(crate) async fn displaced(&self) {
        self.leave.notified().await;
    }
}

impl Drop for PendingConnect {
    fn drop(&mut self) {
        self.all.waiting.borrow_mut().retain(|(_, other)| !Rc::ptr_eq(other, &self.leave));
    }
}

/// Another one comes. Who says nothing shall not keep out who does: where there are too many, the oldest goes of the
/// source that has most.
pub(crate) fn enter(all: &Rc<PendingConnects>, source: PeerOrigin) -> PendingConnect {
    let leave = Rc::<Notify>::default();
    let mut waiting = all.waiting.borrow_mut();
    waiting.push((source, Rc::clone(&leave)));
    if waiting.len() > plan::PENDING_CONNECTS {
        let mut counts: BTreeMap<PeerOrigin, usize> = BTreeMap::new();
        for (source, _) in waiting.iter() {
            *counts.entry(*source).or_default() += 1;
        }
        let most = counts.into_iter().max_by_key(|(_, count)| *count).map(|(source, _)| source);
        if let Some(place) = waiting.iter().position(|(source, _)| Some(*source) == most) {
            waiting.remove(place).1.notify_one();
        }
    }
    drop(waiting);
    PendingConnect { all: Rc::clone(all), leave }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt as _;

    #[test]
    fn the_oldest_of_the_source_that_has_most_makes_room() {
        let all = Rc::<PendingConnects>::default();
        let other = enter(&all, PeerOrigin::Uid(2));
        let mut flood: Vec<PendingConnect> =
            (1..plan::PENDING_CONNECTS).map(|_| enter(&all, PeerOrigin::Uid(1))).collect();
        flood.push(enter(&all, PeerOrigin::Uid(1)));
        assert!(other.displaced().now_or_never().is_none());
        assert!(
            flood[0].displaced().now_or_never().is_some() && flood[1].displaced().now_or_never().is_none()
        );
        assert_eq!(all.waiting.borrow().len(), plan::PENDING_CONNECTS);
        drop((flood, other));
        assert!(all.waiting.borrow().is_empty());
    }
}
