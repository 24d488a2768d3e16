//! What can be seen of an actor from outside: meters, state, snapshot.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::Serialize;

use crate::Moment;

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
    name: &'static str,
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
    pub(crate) fn new(name: &'static str, capacity: usize) -> Self {
        Meters {
            name,
            capacity,
            handled: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            restarts: AtomicU64::new(0),
            life: Mutex::new(Life { state: ActorState::Waiting, busy: None, last_fault: None }),
        }
    }

    pub(crate) fn name(&self) -> &'static str {
        self.name
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
        self.handled.fetch_add(1, Ordering::Relaxed);
        self.life().busy = None;
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
            name: self.name,
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
    /// The actor's name.
    pub name: &'static str,
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
    /// Its actors in the order they were registered.
    pub actors: Vec<ActorReport>,
}

impl HiveReport {
    /// Whether every actor runs and none has had one message in hand for longer than `limit`.
    pub fn is_healthy(&self, limit: Duration) -> bool {
        self.actors
            .iter()
            .all(|a| a.state == ActorState::Running && a.busy_ms.is_none_or(|busy| busy <= millis(limit)))
    }
}
