//! What can be seen of an actor from outside: meters, state, snapshot.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::Serialize;

use crate::{Moment, Name, Sample};

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

/// Counters of one actor. Shared by its addresses and its supervisor.
pub struct Meters {
    name: Name,
    full: Arc<str>,
    parent: Option<Arc<str>>,
    capacity: usize,
    handled: AtomicU64,
    refused: AtomicU64,
    restarts: AtomicU64,
    life: Mutex<Life>,
}

struct Life {
    state: ActorState,
    /// When the message in hand was taken, and what it is.
    busy: Option<(Moment, &'static str)>,
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
            life: Mutex::new(Life { state: ActorState::Waiting, busy: None, last_fault: None }),
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.full
    }

    pub(crate) fn kind(&self) -> &'static str {
        self.name.kind()
    }

    fn life(&self) -> std::sync::MutexGuard<'_, Life> {
        self.life.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn begin(&self, what: &'static str, now: Moment) {
        self.life().busy = Some((now, what));
    }

    pub(crate) fn end(&self) {
        self.life().busy = None;
    }

    pub(crate) fn handled(&self) {
        self.handled.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn enter(&self, state: ActorState) {
        let mut life = self.life();
        life.state = state;
        life.busy = None;
    }

    pub(crate) fn fault(&self, reason: &str) {
        self.restarts.fetch_add(1, Ordering::Relaxed);
        let mut life = self.life();
        life.last_fault = Some(reason.to_owned());
        life.busy = None;
    }

    /// The actor as it is now. `queued` is the length of its work lane.
    pub(crate) fn report(&self, now: Moment, queued: usize, snapshot: serde_json::Value) -> ActorReport {
        let life = self.life();
        ActorReport {
            name: self.full.to_string(),
            kind: self.name.kind(),
            instance: self.name.instance().map(str::to_owned),
            parent: self.parent.as_deref().map(str::to_owned),
            state: life.state.clone(),
            queued,
            capacity: self.capacity,
            handled: self.handled.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
            restarts: self.restarts.load(Ordering::Relaxed),
            busy_with: life.busy.map(|(_, what)| what),
            busy_ms: life.busy.map(|(since, _)| millis(now.since(since))),
            last_fault: life.last_fault.clone(),
            snapshot,
        }
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
    /// For how long, in milliseconds.
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
