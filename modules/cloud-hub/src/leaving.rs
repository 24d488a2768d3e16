//! The end of the hub, for those who are not linked yet: a node that waits for the answer to its hello would wait for 10 s, and is told to go on
//! to another CloudCore instead.

use std::cell::Cell;
use std::rc::Rc;

use beehive::link::Refused;
use tokio::sync::Notify;

/// Whether the hub stops, and who is still to be told.
#[derive(Default)]
pub(crate) struct Leaving {
    is_begun: Cell<bool>,
    begun: Notify,
    /// Connections that have neither a session nor an answer.
    arrivals: Cell<usize>,
    left: Notify,
}

impl Leaving {
    /// It stops.
    pub(crate) fn begin(&self) {
        self.is_begun.set(true);
        self.begun.notify_waiters();
    }

    /// A connection is to have an answer, until the guard goes.
    pub(crate) fn arrival(self: &Rc<Self>) -> Arrival {
        self.arrivals.set(self.arrivals.get() + 1);
        Arrival(Rc::clone(self))
    }

    /// What `work` comes to, unless the hub stops before.
    pub(crate) async fn unless<T>(
        &self,
        work: impl Future<Output = Result<T, Refused>>,
    ) -> Result<T, Refused> {
        let mut begun = std::pin::pin!(self.begun.notified());
        // In the line before the look, so that nothing falls between the two.
        begun.as_mut().enable();
        if self.is_begun.get() {
            return Err(stops());
        }
        tokio::select! {
            biased;
            () = begun => Err(stops()),
            outcome = work => outcome,
        }
    }

    /// Waits until everybody has an answer.
    pub(crate) async fn everybody_told(&self) {
        while self.arrivals.get() > 0 {
            self.left.notified().await;
        }
    }
}

/// Without a wait: another one may have the node at once, and where there is none the node has a pace of its own.
fn stops() -> Refused {
    Refused {
        reason: "this CloudCore stops: another one, or its successor, has the node".to_owned(),
        wait: None,
    }
}

/// A connection that is to have an answer.
pub(crate) struct Arrival(Rc<Leaving>);

impl Drop for Arrival {
    fn drop(&mut self) {
        self.0.arrivals.set(self.0.arrivals.get().saturating_sub(1));
        self.0.left.notify_one();
    }
}
