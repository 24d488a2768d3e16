//! What a cell is told from outside of its mailbox: by the hive, the watchdog and its own incarnation.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::Fault;
use crate::health::{CurrentJob, View};

/// What the hive and the watchdog want of a cell.
pub(crate) enum Command {
    /// The actor's view, when it has no message in hand.
    Inspect(oneshot::Sender<View>),
    /// Stop the children, empty the queue, stop, and say so; all within the time.
    Stop(oneshot::Sender<()>, Duration),
    /// This job has been in hand for so long: replace the incarnation if it still is.
    Replace(CurrentJob, Duration),
    /// Something of [`Signals`] has changed.
    Wake,
}

impl actix::Message for Command {
    type Result = ();
}

/// What the parts of an incarnation tell their cell, on the hive's thread.
pub(crate) struct Signals {
    has_failed: Cell<bool>,
    fault: Cell<Option<Fault>>,
    /// Set when the actor has said that it ends, or was told to.
    pub(crate) ending: Rc<Cell<bool>>,
    cell: actix::Recipient<Command>,
}

impl Signals {
    pub(crate) fn new(ending: Rc<Cell<bool>>, cell: actix::Recipient<Command>) -> Self {
        Signals { has_failed: Cell::new(false), fault: Cell::new(None), ending, cell }
    }

    /// Ends the incarnation; the first fault counts.
    pub(crate) fn fail(&self, fault: Fault) {
        if !self.has_failed.replace(true) {
            self.fault.set(Some(fault));
            self.wake();
        }
    }

    /// A cell whose own queue is full is polled anyway.
    pub(crate) fn wake(&self) {
        drop(self.cell.try_send(Command::Wake));
    }

    pub(crate) fn take_fault(&self) -> Option<Fault> {
        if self.has_failed.get() { self.fault.take() } else { None }
    }
}
