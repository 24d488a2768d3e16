//! For tests: a mailbox whose messages the test reads itself, and panics that it plans.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use crate::health::Meters;
use crate::{Address, Capacity, Env, Flow, Inspector, Mailbox, Message};

/// An address and everything that is told to it.
pub struct Probe<M: Message> {
    mailbox: Mailbox<M>,
    env: Env,
}

impl<M: Message> Probe<M> {
    /// A probe that holds up to `capacity` messages, and its address (asking allowed).
    pub fn new(env: &Env, capacity: usize) -> (Probe<M>, Address<M>) {
        let mailbox = Mailbox::new("probe", Capacity::new(capacity, "a test's choice"));
        let address = Address::local(mailbox.local.clone(), Flow::Ask, env.clock());
        (Probe { mailbox, env: env.clone() }, address)
    }

    /// The next message, control first, or `None` when `limit` passes.
    pub async fn next(&mut self, limit: Duration) -> Option<M> {
        let env = self.env.clone();
        env.timeout(limit, async {
            tokio::select! {
                biased;
                Some(message) = self.mailbox.control.recv() => message,
                Some(message) = self.mailbox.work.recv() => message,
            }
        })
        .await
    }

    /// The next message that `wanted` maps to something, dropping the others, or `None` when `limit` passes.
    pub async fn find<T>(&mut self, limit: Duration, mut wanted: impl FnMut(M) -> Option<T>) -> Option<T> {
        let until = self.env.now() + limit;
        loop {
            let message = self.next(until.since(self.env.now())).await?;
            if let Some(found) = wanted(message) {
                return Some(found);
            }
        }
    }
}

/// At which point an actor panics: inside the poll of its handler, as a mistake in the handler would.
#[derive(Debug, Clone, Copy)]
pub struct PanicPoint {
    /// The variant's name; `None` for any message.
    pub message: Option<&'static str>,
    /// The nth such message from now on, counted from 1.
    pub nth: u64,
    /// After so many awaits at which the handler had to wait: 0 is before the first line.
    pub awaits: u32,
}

/// A panic that was planned.
#[derive(Debug, Clone)]
pub struct PlannedPanic(Rc<Cell<bool>>);

impl PlannedPanic {
    /// Whether the actor has panicked. A handler that ended before its point has not, and will not.
    pub fn has_happened(&self) -> bool {
        self.0.get()
    }
}

/// Plans one panic of the actor with that full name or kind.
pub fn plan_panic(hive: &Inspector, actor: &str, point: PanicPoint) -> PlannedPanic {
    let happened = Rc::<Cell<bool>>::default();
    let planned = Planned { actor: actor.to_owned(), point, seen: 0, happened: Rc::clone(&happened) };
    hive.panics().planned.borrow_mut().push(planned);
    hive.panics().is_any.set(true);
    PlannedPanic(happened)
}

struct Planned {
    actor: String,
    point: PanicPoint,
    seen: u64,
    happened: Rc<Cell<bool>>,
}

/// What is planned in a hive. In a daemon: nothing.
#[derive(Default)]
pub(crate) struct Panics {
    is_any: Cell<bool>,
    planned: RefCell<Vec<Planned>>,
}

impl Panics {
    /// The panic that is due with this message.
    pub(crate) fn due(&self, meters: &Meters, message: &str) -> Option<PanicAt> {
        if !self.is_any.get() {
            return None;
        }
        let mut planned = self.planned.borrow_mut();
        let mut due = None;
        planned.retain_mut(|plan| {
            let is_meant = (plan.actor == meters.name() || plan.actor == meters.kind())
                && plan.point.message.is_none_or(|name| name == message);
            plan.seen += u64::from(is_meant);
            let is_due = is_meant && plan.seen >= plan.point.nth;
            if is_due {
                due = Some(PanicAt { awaits: plan.point.awaits, happened: Rc::clone(&plan.happened) });
            }
            !is_due
        });
        self.is_any.set(!planned.is_empty());
        due
    }
}

/// A panic that waits for its await.
pub(crate) struct PanicAt {
    awaits: u32,
    happened: Rc<Cell<bool>>,
}

impl PanicAt {
    /// Called in each poll of the handler.
    #[allow(clippy::panic)]
    pub(crate) fn poll(&mut self) {
        match self.awaits.checked_sub(1) {
            Some(left) => self.awaits = left,
            None => {
                self.happened.set(true);
                panic!("a test planned it");
            }
        }
    }
}
