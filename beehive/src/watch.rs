//! What the hive's thread notes of its work, and what the watchdog makes of it. Both share one [`WatchState`].
//!
//! The actors note what they have in hand without a clock; the watchdog counts for how long it sees the same. What it
//! counts is its own looks: a process that was stopped for an hour, with all its threads, was not stuck for an hour.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;
use tokio::sync::Notify;

use crate::Moment;
use crate::health::{CurrentJob, Meters};

/// 1 s between two looks.
pub(crate) const PERIOD: Duration = Duration::from_secs(1);
/// 15 s at the most between two looks on a virtual clock, where each is a turn of the run.
const VIRTUAL_PERIOD_MAX: Duration = Duration::from_secs(15);
/// 5 s without a turn of the hive's thread count as blocked: less is a burst of work on a small machine.
const BLOCKED_AFTER: Duration = Duration::from_secs(5);

/// Nobody is being polled.
const NOBODY: u64 = u64::MAX;

/// The hive's thread is blocked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Blocked {
    /// The full name of the actor that has the thread, if an actor has it.
    pub actor: Option<String>,
    /// The message that it has in hand; `None` when one of its spawned tasks has the thread.
    pub message: Option<&'static str>,
    /// For how long, in whole seconds.
    pub seconds: u64,
}

impl std::fmt::Display for Blocked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the hive's thread is blocked for {} s", self.seconds)?;
        match (&self.actor, self.message) {
            (Some(actor), Some(message)) => write!(f, " by `{actor}`, which has `{message}` in hand"),
            (Some(actor), None) => write!(f, " by a task of `{actor}`"),
            (None, _) => f.write_str(", by no actor"),
        }
    }
}

/// The number of an actor in its hive, as the registry gives it.
pub(crate) type Id = u64;

/// Who has had one job in hand for too long: which job, and for how long.
pub(crate) type Stuck = (Id, CurrentJob, Duration);

struct Watched {
    meters: Arc<Meters>,
    stuck_after: Duration,
}

type BlockedHandler = Box<dyn FnOnce(Blocked) + Send>;

pub(crate) struct WatchState {
    cells: Mutex<BTreeMap<Id, Watched>>,
    /// Whose poll has the thread.
    polled: AtomicU64,
    /// Whether the thread has not yet answered the last call.
    called: AtomicBool,
    call: Notify,
    /// Who is stuck, for the hive's thread to replace.
    stuck: Mutex<Vec<Stuck>>,
    blocked: Mutex<Option<Blocked>>,
    on_blocked: Mutex<Option<(Duration, BlockedHandler)>>,
}

impl Default for WatchState {
    fn default() -> Self {
        WatchState {
            cells: Mutex::default(),
            polled: AtomicU64::new(NOBODY),
            called: AtomicBool::new(false),
            call: Notify::new(),
            stuck: Mutex::default(),
            blocked: Mutex::default(),
            on_blocked: Mutex::default(),
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl WatchState {
    pub(crate) fn add(&self, id: Id, meters: Arc<Meters>, stuck_after: Duration) {
        locked(&self.cells).insert(id, Watched { meters, stuck_after });
    }

    pub(crate) fn remove(&self, id: Id) {
        locked(&self.cells).remove(&id);
    }

    /// A poll of `id` begins on the hive's thread; the answer is for [`WatchState::leave`].
    pub(crate) fn enter(&self, id: Id) -> u64 {
        let before = self.polled.load(Ordering::Relaxed);
        self.polled.store(id, Ordering::Relaxed);
        before
    }

    pub(crate) fn leave(&self, before: u64) {
        self.polled.store(before, Ordering::Relaxed);
    }

    pub(crate) fn down(&self) -> Vec<String> {
        let cells = locked(&self.cells);
        let down = cells.values().filter(|watched| watched.meters.is_down());
        down.map(|watched| watched.meters.name().to_owned()).collect()
    }

    pub(crate) fn blocked(&self) -> Option<Blocked> {
        locked(&self.blocked).clone()
    }

    pub(crate) fn when_blocked(&self, limit: Duration, handler: BlockedHandler) {
        *locked(&self.on_blocked) = Some((limit, handler));
    }

    /// Waits until the watchdog asks whether the hive's thread runs, answers, and takes over who is stuck.
    pub(crate) async fn answer(&self) -> Vec<Stuck> {
        self.call.notified().await;
        self.called.store(false, Ordering::Release);
        std::mem::take(&mut *locked(&self.stuck))
    }

    /// Asks whether the hive's thread runs, and hands over who is stuck. `false`: the last call was not answered.
    pub(crate) fn call(&self, stuck: Vec<Stuck>) -> bool {
        if !stuck.is_empty() {
            *locked(&self.stuck) = stuck;
        }
        let was_answered = !self.called.swap(true, Ordering::AcqRel);
        self.call.notify_one();
        was_answered
    }

    /// The hive's thread has answered after `unanswered`.
    pub(crate) fn runs_again(&self, unanswered: Duration) {
        if unanswered >= BLOCKED_AFTER {
            tracing::warn!(seconds = unanswered.as_secs(), "the hive's thread runs again");
            *locked(&self.blocked) = None;
        }
    }

    /// The hive's thread has not answered for so long.
    pub(crate) fn not_answered(&self, unanswered: Duration) {
        if unanswered < BLOCKED_AFTER {
            return;
        }
        let blocked = self.who(unanswered);
        let was = locked(&self.blocked).replace(blocked.clone());
        if was.is_none() {
            tracing::error!(
                actor = blocked.actor.as_deref(),
                message = blocked.message,
                seconds = blocked.seconds,
                "the hive's thread is blocked"
            );
        }
        let mut handler = locked(&self.on_blocked);
        if handler.as_ref().is_some_and(|(limit, _)| unanswered >= *limit)
            && let Some((_, handler)) = handler.take()
        {
            handler(blocked);
        }
    }

    /// Who has the thread, for so long.
    fn who(&self, held: Duration) -> Blocked {
        let found = self.polled.load(Ordering::Relaxed);
        let cells = locked(&self.cells);
        let meters = cells.get(&found).map(|watched| &watched.meters);
        Blocked {
            actor: meters.map(|meters| meters.name().to_owned()),
            message: meters.and_then(|meters| meters.name_of(meters.current_job())),
            seconds: held.as_secs(),
        }
    }

    /// Looks at all actors once.
    pub(crate) fn observe(&self, history: &mut History, now: Moment, longest: Duration) -> Vec<Stuck> {
        let cells = locked(&self.cells);
        let jobs = cells.iter().map(|(id, watched)| (*id, watched.meters.current_job(), watched.stuck_after));
        let stuck = history.observe(now, longest, jobs);
        for (id, (job, held)) in &history.seen {
            if let Some(watched) = cells.get(id) {
                watched.meters.watched(*job, *held);
            }
        }
        stuck
    }

    /// A period of a virtual clock: a quarter of the shortest patience.
    pub(crate) fn virtual_period(&self) -> Duration {
        let shortest = locked(&self.cells).values().map(|watched| watched.stuck_after).min();
        (shortest.unwrap_or(VIRTUAL_PERIOD_MAX) / 4).clamp(PERIOD, VIRTUAL_PERIOD_MAX)
    }
}

/// For how long the watchdog has seen each job. Pure.
#[derive(Default)]
pub(crate) struct History {
    last: Option<Moment>,
    seen: BTreeMap<Id, (CurrentJob, Duration)>,
}

impl History {
    /// Notes what everybody has in hand, and says who has had the same for its limit. A look that comes late counts as
    /// `longest` at the most.
    fn observe(&mut self, now: Moment, longest: Duration, jobs: impl Iterator<Item = Stuck>) -> Vec<Stuck> {
        let passed = self.last.map_or(Duration::ZERO, |last| now.since(last)).min(longest);
        self.last = Some(now);
        let before = std::mem::take(&mut self.seen);
        let mut stuck = Vec::new();
        for (id, job, limit) in jobs.filter(|(_, job, _)| job.is_busy()) {
            let held = match before.get(&id) {
                Some((same, held)) if *same == job => *held + passed,
                _ => Duration::ZERO,
            };
            self.seen.insert(id, (job, held));
            if held >= limit {
                stuck.push((id, job, held));
            }
        }
        stuck
    }
}

/// Notes that a task of an actor is polled, until it is dropped.
pub(crate) struct PollGuard<'a>(&'a WatchState, u64);

impl<'a> PollGuard<'a> {
    pub(crate) fn new(watch: &'a WatchState, id: Id) -> Self {
        PollGuard(watch, watch.enter(id))
    }
}

impl Drop for PollGuard<'_> {
    fn drop(&mut self) {
        self.0.leave(self.1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Moment {
        Moment(Duration::from_secs(seconds))
    }

    fn busy(job: u64) -> CurrentJob {
        let meters = Meters::new("x".into(), "x".into(), None, 1);
        let mut known = Vec::new();
        for _ in 0..job {
            meters.begin("Work", &mut known);
        }
        meters.current_job()
    }

    const LIMIT: Duration = Duration::from_secs(10);

    #[test]
    fn who_has_one_job_for_its_limit_is_stuck_and_who_takes_another_is_not() {
        let mut history = History::default();
        for second in 0..10 {
            let stuck = history.observe(
                at(second),
                LIMIT,
                [(1, busy(7), LIMIT), (2, busy(second), LIMIT)].into_iter(),
            );
            assert!(stuck.is_empty(), "after {second} s");
        }
        let stuck = history.observe(at(10), LIMIT, [(1, busy(7), LIMIT), (2, busy(10), LIMIT)].into_iter());
        assert_eq!(stuck, [(1, busy(7), LIMIT)]);
    }

    #[test]
    fn a_process_that_was_stopped_was_not_stuck() {
        let mut history = History::default();
        let two = Duration::from_secs(2);
        history.observe(at(0), two, [(1, busy(7), LIMIT)].into_iter());
        assert!(history.observe(at(3600), two, [(1, busy(7), LIMIT)].into_iter()).is_empty());
    }

    #[test]
    fn an_idle_actor_is_not_looked_at() {
        let mut history = History::default();
        let idle = CurrentJob::default();
        history.observe(at(0), LIMIT, [(1, idle, LIMIT)].into_iter());
        assert!(history.observe(at(3600), LIMIT * 1000, [(1, idle, LIMIT)].into_iter()).is_empty());
    }
}
