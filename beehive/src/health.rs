//! What can be seen of an actor from outside: meters, state, snapshot.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::Serialize;

use crate::{Actor, Name, Sample};

/// Where an actor is in its life.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ActorState {
    /// Made, not started yet.
    Waiting,
    /// Taking messages.
    Running,
    /// Between a fault and the next start.
    Restarting,
    /// Past its restart budget.
    Failed,
    /// Stopped in order.
    Stopped,
}

/// What an actor has in hand, in one atomic word: the number of the job, and in the low bits which of [`Meters::names`] it
/// is, counted from 1; 0 there when nothing is in hand. Written by the hive's thread alone and without a clock: the
/// watchdog counts for how long it stays the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct CurrentJob(u64);

/// 16 bits: an enum has far fewer variants.
const NAME_BITS: u32 = 16;

impl CurrentJob {
    fn of(number: u64, name: usize) -> Self {
        CurrentJob((number << NAME_BITS) | (name as u64 + 1) & ((1 << NAME_BITS) - 1))
    }

    fn idle(self) -> Self {
        CurrentJob(self.0 & !((1 << NAME_BITS) - 1))
    }

    fn number(self) -> u64 {
        self.0 >> NAME_BITS
    }

    fn name(self) -> Option<usize> {
        usize::try_from(self.0 & ((1 << NAME_BITS) - 1)).ok()?.checked_sub(1)
    }

    pub(crate) fn is_busy(self) -> bool {
        self.name().is_some()
    }
}

/// Counters of one actor. Shared by its addresses, its cell and the watchdog.
pub(crate) struct Meters {
    name: Name,
    full: Arc<str>,
    parent: Option<Arc<str>>,
    capacity: usize,
    handled: AtomicU64,
    refused: AtomicU64,
    restarts: AtomicU64,
    current_job: AtomicU64,
    /// The names of the jobs so far, each once.
    names: Mutex<Vec<&'static str>>,
    /// What the watchdog saw last, and since when in milliseconds.
    watched: AtomicU64,
    watched_ms: AtomicU64,
    status: Mutex<Status>,
}

struct Status {
    state: ActorState,
    last_fault: Option<String>,
}

impl Meters {
    pub(crate) fn new(name: Name, full: Arc<str>, parent: Option<Arc<str>>, capacity: usize) -> Self {
        Meters {
            name,
            full,
            parent,
            capacity,
            handled: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            restarts: AtomicU64::new(0),
            current_job: AtomicU64::new(0),
            names: Mutex::default(),
            watched: AtomicU64::new(0),
            watched_ms: AtomicU64::new(0),
            status: Mutex::new(Status { state: ActorState::Waiting, last_fault: None }),
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.full
    }

    pub(crate) fn full_name(&self) -> Arc<str> {
        Arc::clone(&self.full)
    }

    pub(crate) fn kind(&self) -> &'static str {
        self.name.kind()
    }

    fn status(&self) -> std::sync::MutexGuard<'_, Status> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn names(&self) -> std::sync::MutexGuard<'_, Vec<&'static str>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// A job is in hand; `known` is its place in the cell's own copy of the names, to which a new one is added.
    pub(crate) fn begin(&self, what: &'static str, known: &mut Vec<&'static str>) {
        // The same literal has one address nearly always; where it has two it is noted twice.
        let found = known.iter().position(|name| std::ptr::eq(*name, what));
        let name = found.unwrap_or_else(|| {
            known.push(what);
            self.names().push(what);
            known.len() - 1
        });
        let number = self.current_job().number() + 1;
        self.current_job.store(CurrentJob::of(number, name).0, Ordering::Relaxed);
    }

    /// Nothing is in hand any more.
    pub(crate) fn end(&self) {
        self.current_job.store(self.current_job().idle().0, Ordering::Relaxed);
    }

    pub(crate) fn current_job(&self) -> CurrentJob {
        CurrentJob(self.current_job.load(Ordering::Relaxed))
    }

    /// What `job` is, if it is still in hand.
    pub(crate) fn name_of(&self, job: CurrentJob) -> Option<&'static str> {
        if self.current_job() != job {
            return None;
        }
        self.names().get(job.name()?).copied()
    }

    /// The watchdog has seen `job` for so long.
    pub(crate) fn watched(&self, job: CurrentJob, held: Duration) {
        self.watched.store(job.0, Ordering::Relaxed);
        self.watched_ms.store(millis(held), Ordering::Relaxed);
    }

    /// A message was handled. The cell alone counts.
    pub(crate) fn handled(&self) {
        self.handled.store(self.handled.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }

    pub(crate) fn enter(&self, state: ActorState) {
        self.status().state = state;
    }

    /// An actor of the hive itself, no child, that takes no messages though it has not ended in order.
    pub(crate) fn is_down(&self) -> bool {
        let is_up = matches!(self.status().state, ActorState::Running | ActorState::Stopped);
        self.parent.is_none() && !is_up
    }

    pub(crate) fn fault(&self, reason: &str) {
        self.restarts.fetch_add(1, Ordering::Relaxed);
        self.status().last_fault = Some(reason.to_owned());
    }

    /// The actor as it is now. `queued` is the length of its work lane.
    pub(crate) fn report(&self, queued: usize, snapshot: serde_json::Value) -> ActorReport {
        let job = self.current_job();
        let is_watched = self.watched.load(Ordering::Relaxed) == job.0;
        let held = if is_watched { self.watched_ms.load(Ordering::Relaxed) } else { 0 };
        let status = self.status();
        ActorReport {
            name: self.full.to_string(),
            kind: self.name.kind(),
            instance: self.name.instance().map(str::to_owned),
            parent: self.parent.as_deref().map(str::to_owned),
            state: status.state.clone(),
            queued,
            capacity: self.capacity,
            handled: self.handled.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
            restarts: self.restarts.load(Ordering::Relaxed),
            busy_with: self.name_of(job),
            busy_ms: job.is_busy().then_some(held),
            last_fault: status.last_fault.clone(),
            snapshot,
        }
    }
}

/// What an actor shows of itself.
#[derive(Debug, Default)]
pub(crate) struct View {
    pub(crate) snapshot: serde_json::Value,
    pub(crate) samples: Vec<Sample>,
}

impl View {
    /// A view that panics is empty: it must not end the actor.
    pub(crate) fn of<A: Actor>(actor: &A) -> Self {
        let view = || View { snapshot: actor.snapshot(), samples: actor.samples() };
        catch_unwind(AssertUnwindSafe(view)).unwrap_or_default()
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// One actor, as the admin endpoint, the metrics and the tests read it.
#[derive(Debug, Clone, Serialize)]
pub struct ActorReport {
    /// The actor's full name: `kind`, or `parent/kind:instance`.
    pub name: String,
    /// What it is.
    pub kind: &'static str,
    /// Which of its kind, where there are several.
    pub instance: Option<String>,
    /// Its parent's full name, if it is a child.
    pub parent: Option<String>,
    /// Where it is in its life.
    pub state: ActorState,
    /// Messages waiting in the work lane.
    pub queued: usize,
    /// How many the work lane may hold.
    pub capacity: usize,
    /// Messages handled since the daemon started.
    pub handled: u64,
    /// Messages refused because the mailbox was full.
    pub refused: u64,
    /// Restarts after a fault.
    pub restarts: u64,
    /// The message in hand.
    pub busy_with: Option<&'static str>,
    /// For how long, in milliseconds, as far as the watchdog has seen: it looks about once a second.
    pub busy_ms: Option<u64>,
    /// Why it was restarted last.
    pub last_fault: Option<String>,
    /// The actor's own view; null while it is busy or down.
    pub snapshot: serde_json::Value,
}

/// Every actor of a hive.
#[derive(Debug, Clone, Serialize)]
pub struct HiveReport {
    /// The daemon.
    pub daemon: &'static str,
    /// Its actors in the order they were registered, each followed by its children.
    pub actors: Vec<ActorReport>,
    /// How often each named event was counted, since the daemon started.
    pub counters: BTreeMap<&'static str, u64>,
    /// The gauges that were set, and those that the actors read from their state.
    pub gauges: Vec<Sample>,
}

impl HiveReport {
    /// The actor with that full name.
    pub fn actor(&self, name: &str) -> Option<&ActorReport> {
        self.actors.iter().find(|actor| actor.name == name)
    }

    /// How often `event` was counted.
    pub fn counter(&self, event: &str) -> u64 {
        self.counters.get(event).copied().unwrap_or_default()
    }

    /// The value of the gauge without labels.
    pub fn gauge(&self, name: &str) -> Option<f64> {
        self.gauges
            .iter()
            .find(|gauge| gauge.name == name && gauge.labels.is_empty())
            .map(|gauge| gauge.value)
    }

    /// Whether every actor runs and none has had one message in hand for longer than `limit`.
    pub fn is_healthy(&self, limit: Duration) -> bool {
        self.actors
            .iter()
            .all(|a| a.state == ActorState::Running && a.busy_ms.is_none_or(|busy| busy <= millis(limit)))
    }
}
