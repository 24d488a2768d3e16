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
                Some(letter) = self.mailbox.control.recv() => letter.message,
                Some(letter) = self.mailbox.work.recv() => letter.message,
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
    /// The variant's name; `None` for any message. `started` and `stopping` are the handlers of those names.
    pub message: Option<&'static str>,
    /// The nth such message from now on, counted from 1.
    pub nth: u64,
    /// After so many awaits at which the handler had to wait: 0 is before the first line.
    pub awaits: u32,
}

/// A panic that was planned.
#[derive(Debug, Clone)]
pub struct PlannedPanic(Rc<Cell<Option<&'static str>>>);

impl PlannedPanic {
    /// Whether the actor has panicked. A handler that ended before its point has not, and will not.
    pub fn has_happened(&self) -> bool {
        self.0.get().is_some()
    }

    /// The message at which it has; [`TASK`] when it was a task of the actor.
    pub fn happened_at(&self) -> Option<&'static str> {
        self.0.get()
    }
}

/// What [`PlannedPanic::happened_at`] says of a task.
pub const TASK: &str = "a task";

/// What a planned panic says.
pub const PLANNED: &str = "a test planned it";

/// Plans one panic of the actor with that full name or kind.
pub fn plan_panic(hive: &Inspector, actor: &str, point: PanicPoint) -> PlannedPanic {
    plan(hive, actor, At::Message(point))
}

/// Plans the panic of the next task that the actor with that full name or kind spawns, after so many awaits at which the task
/// had to wait.
pub fn plan_task_panic(hive: &Inspector, actor: &str, awaits: u32) -> PlannedPanic {
    plan(hive, actor, At::Task { awaits })
}

fn plan(hive: &Inspector, actor: &str, at: At) -> PlannedPanic {
    let happened = Happened::default();
    let planned = Planned { actor: actor.to_owned(), at, seen: 0, happened: Rc::clone(&happened) };
    hive.panics().planned.borrow_mut().push(planned);
    hive.panics().is_any.set(true);
    PlannedPanic(happened)
}

type Happened = Rc<Cell<Option<&'static str>>>;

#[derive(Clone, Copy)]
enum At {
    Message(PanicPoint),
    Task { awaits: u32 },
}

struct Planned {
    actor: String,
    at: At,
    seen: u64,
    happened: Happened,
}

impl Planned {
    /// After how many awaits it is due here.
    fn due(&mut self, site: PanicSite) -> Option<u32> {
        match (self.at, site) {
            (At::Task { awaits }, PanicSite::Task) => Some(awaits),
            (At::Message(point), PanicSite::Phase(name)) => {
                (point.message == Some(name)).then_some(point.awaits)
            }
            (At::Message(point), PanicSite::Message(name))
                if point.message.is_none_or(|meant| meant == name) =>
            {
                self.seen += 1;
                (self.seen >= point.nth).then_some(point.awaits)
            }
            _ => None,
        }
    }
}

/// Where in an actor a panic may be due.
#[derive(Clone, Copy)]
enum PanicSite {
    Message(&'static str),
    Phase(&'static str),
    Task,
}

/// What is planned in a hive. In a daemon: nothing.
#[derive(Default)]
pub(crate) struct Panics {
    is_any: Cell<bool>,
    planned: RefCell<Vec<Planned>>,
}

impl Panics {
    /// The panic that is due with this message.
    pub(crate) fn due(&self, meters: &Meters, message: &'static str) -> Option<PanicAt> {
        self.find(meters.name(), meters.kind(), PanicSite::Message(message))
    }

    /// The panic that is due while the actor starts or stops.
    pub(crate) fn due_in_phase(&self, meters: &Meters, phase: &'static str) -> Option<PanicAt> {
        self.find(meters.name(), meters.kind(), PanicSite::Phase(phase))
    }

    /// The panic that is due with a task of the actor.
    pub(crate) fn due_in_task(&self, name: &str, kind: &str) -> Option<PanicAt> {
        self.find(name, kind, PanicSite::Task)
    }

    fn find(&self, name: &str, kind: &str, site: PanicSite) -> Option<PanicAt> {
        if !self.is_any.get() {
            return None;
        }
        let mut planned = self.planned.borrow_mut();
        let mut due = None;
        planned.retain_mut(|plan| {
            let is_meant = plan.actor == name || plan.actor == kind;
            let Some(awaits) = is_meant.then(|| plan.due(site)).flatten() else { return true };
            // One panic is of one plan: others that are due wait for the next occasion.
            if due.is_some() {
                return true;
            }
            let happened = Rc::clone(&plan.happened);
            let place = match site {
                PanicSite::Message(name) | PanicSite::Phase(name) => name,
                PanicSite::Task => TASK,
            };
            due = Some(PanicAt { awaits, place, happened });
            false
        });
        self.is_any.set(!planned.is_empty());
        due
    }
}

/// A panic that waits for its await.
pub(crate) struct PanicAt {
    awaits: u32,
    place: &'static str,
    happened: Happened,
}

impl PanicAt {
    /// Called in each poll of the handler or the task.
    #[allow(clippy::panic)]
    pub(crate) fn poll(&mut self) {
        match self.awaits.checked_sub(1) {
            Some(left) => self.awaits = left,
            None => {
                self.happened.set(Some(self.place));
                panic!("{PLANNED}");
            }
        }
    }
}
