//! Finds who has one message in hand for too long, and a hive whose thread is blocked.
//!
//! It looks from a thread of its own, because a hive that is blocked cannot look at itself. Under a virtual clock it is
//! a task of the hive instead, so that two runs are alike; a blocked thread is not found there.
//!
//! The actors note what they have in hand without a clock; the watchdog counts for how long it sees the same. What it
//! counts is its own looks: a process that was stopped for an hour, with all its threads, was not stuck for an hour.

use std::any::Any;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::Duration;

use serde::Serialize;
use tokio::sync::Notify;

use crate::cell::Order;
use crate::env::Clock;
use crate::health::{Mark, Meters};
use crate::registry::{Id, Registry};
use crate::{Env, Moment};

/// 1 s between two looks.
const PERIOD: Duration = Duration::from_secs(1);
/// 15 s at the most between two looks on a virtual clock, where each is a turn of the run.
const VIRTUAL_PERIOD_MAX: Duration = Duration::from_secs(15);
/// 5 s without a turn of the hive's thread count as blocked: less is a burst of work on a small machine.
const BLOCKED_AFTER: Duration = Duration::from_secs(5);

/// Nobody is being polled.
const NOBODY: u64 = u64::MAX;

/// What a panic said.
pub(crate) fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or(panic.downcast_ref::<String>().map(String::as_str));
    format!("panicked: {}", text.unwrap_or("without words"))
}

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

struct Watched {
    meters: Arc<Meters>,
    stuck_after: Duration,
}

type AtTheEnd = Box<dyn FnOnce(Blocked) + Send>;

/// Where the hive's thread notes what it does, and the watchdog what it saw. Shared by both.
pub(crate) struct Board {
    cells: Mutex<BTreeMap<Id, Watched>>,
    /// Whose poll has the thread.
    polled: AtomicU64,
    /// Whether the thread has not yet answered the last call.
    called: AtomicBool,
    call: Notify,
    /// Who is stuck, for the hive's thread to replace.
    stuck: Mutex<Vec<(Id, Mark, Duration)>>,
    blocked: Mutex<Option<Blocked>>,
    end: Mutex<Option<(Duration, AtTheEnd)>>,
}

impl Default for Board {
    fn default() -> Self {
        Board {
            cells: Mutex::default(),
            polled: AtomicU64::new(NOBODY),
            called: AtomicBool::new(false),
            call: Notify::new(),
            stuck: Mutex::default(),
            blocked: Mutex::default(),
            end: Mutex::default(),
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Board {
    pub(crate) fn add(&self, id: Id, meters: Arc<Meters>, stuck_after: Duration) {
        locked(&self.cells).insert(id, Watched { meters, stuck_after });
    }

    pub(crate) fn remove(&self, id: Id) {
        locked(&self.cells).remove(&id);
    }

    /// A poll of `id` begins on the hive's thread; the answer is for [`Board::leave`].
    pub(crate) fn enter(&self, id: Id) -> u64 {
        let before = self.polled.load(Ordering::Relaxed);
        self.polled.store(id, Ordering::Relaxed);
        before
    }

    pub(crate) fn leave(&self, before: u64) {
        self.polled.store(before, Ordering::Relaxed);
    }

    pub(crate) fn blocked(&self) -> Option<Blocked> {
        locked(&self.blocked).clone()
    }

    pub(crate) fn at_the_end(&self, after: Duration, end: AtTheEnd) {
        *locked(&self.end) = Some((after, end));
    }

    /// Who has the thread, for so long.
    fn who(&self, held: Duration) -> Blocked {
        let found = self.polled.load(Ordering::Relaxed);
        let cells = locked(&self.cells);
        let meters = cells.get(&found).map(|watched| &watched.meters);
        Blocked {
            actor: meters.map(|meters| meters.name().to_owned()),
            message: meters.and_then(|meters| meters.name_of(meters.mark())),
            seconds: held.as_secs(),
        }
    }

    /// One look at all actors.
    fn look(&self, looks: &mut Looks, now: Moment, longest: Duration) -> Vec<(Id, Mark, Duration)> {
        let cells = locked(&self.cells);
        let marks = cells.iter().map(|(id, watched)| (*id, watched.meters.mark(), watched.stuck_after));
        let stuck = looks.look(now, longest, marks);
        for (id, (mark, held)) in &looks.seen {
            if let Some(watched) = cells.get(id) {
                watched.meters.watched(*mark, *held);
            }
        }
        stuck
    }

    /// A period of a virtual clock: a quarter of the shortest patience.
    fn virtual_period(&self) -> Duration {
        let shortest = locked(&self.cells).values().map(|watched| watched.stuck_after).min();
        (shortest.unwrap_or(VIRTUAL_PERIOD_MAX) / 4).clamp(PERIOD, VIRTUAL_PERIOD_MAX)
    }
}

/// For how long the watchdog has seen each job. Pure.
#[derive(Default)]
struct Looks {
    last: Option<Moment>,
    seen: BTreeMap<Id, (Mark, Duration)>,
}

impl Looks {
    /// Notes what everybody has in hand, and says who has had the same for its limit. A look that comes late counts as
    /// `longest` at the most.
    fn look(
        &mut self,
        now: Moment,
        longest: Duration,
        marks: impl Iterator<Item = (Id, Mark, Duration)>,
    ) -> Vec<(Id, Mark, Duration)> {
        let passed = self.last.map_or(Duration::ZERO, |last| now.since(last)).min(longest);
        self.last = Some(now);
        let before = std::mem::take(&mut self.seen);
        let mut stuck = Vec::new();
        for (id, mark, limit) in marks.filter(|(_, mark, _)| mark.is_busy()) {
            let held = match before.get(&id) {
                Some((same, held)) if *same == mark => *held + passed,
                _ => Duration::ZERO,
            };
            self.seen.insert(id, (mark, held));
            if held >= limit {
                stuck.push((id, mark, held));
            }
        }
        stuck
    }
}

/// Ends the watchdog's thread when it is dropped.
pub(crate) struct Watchdog {
    _bell: Option<mpsc::SyncSender<()>>,
}

impl Watchdog {
    /// Starts to watch.
    ///
    /// # Errors
    /// When the machine gives no thread.
    pub(crate) fn start(env: &Env, registry: &Registry) -> std::io::Result<Self> {
        if env.is_virtual() {
            let (env, registry) = (env.clone(), registry.clone());
            env.clone().spawn(async move { watch_here(&env, &registry).await });
            return Ok(Watchdog { _bell: None });
        }
        env.spawn(replace(registry.clone()));
        let (bell, rung) = mpsc::sync_channel(1);
        let (board, clock) = (Arc::clone(&registry.board), env.clock());
        std::thread::Builder::new()
            .name("watchdog".to_owned())
            .spawn(move || watch_beside(&board, &*clock, &rung))?;
        Ok(Watchdog { _bell: Some(bell) })
    }
}

/// The hive's half: answers the call, and hands on who is to be replaced.
async fn replace(registry: Registry) {
    let board = Arc::clone(&registry.board);
    loop {
        board.call.notified().await;
        board.called.store(false, Ordering::Release);
        let stuck = std::mem::take(&mut *locked(&board.stuck));
        hand_on(&registry, stuck);
    }
}

fn hand_on(registry: &Registry, stuck: Vec<(Id, Mark, Duration)>) {
    for (id, mark, held) in stuck {
        if let Some(entry) = registry.entry(id) {
            // What finds the cell's queue full is found again at the next look.
            drop(entry.orders.try_send(Order::Replace(mark, held)));
        }
    }
}

async fn watch_here(env: &Env, registry: &Registry) {
    let mut looks = Looks::default();
    loop {
        let period = registry.board.virtual_period();
        env.sleep(period).await;
        let stuck = registry.board.look(&mut looks, env.now(), period);
        hand_on(registry, stuck);
    }
}

fn watch_beside(board: &Board, clock: &dyn Clock, rung: &mpsc::Receiver<()>) {
    let mut looks = Looks::default();
    let mut unanswered = Duration::ZERO;
    let mut last = clock.now();
    // Two periods: a look that comes later was held up itself.
    let longest = PERIOD * 2;
    while rung.recv_timeout(PERIOD) == Err(mpsc::RecvTimeoutError::Timeout) {
        let now = clock.now();
        let passed = now.since(last).min(longest);
        last = now;
        let stuck = board.look(&mut looks, now, longest);
        if !stuck.is_empty() {
            *locked(&board.stuck) = stuck;
        }
        if board.called.swap(true, Ordering::AcqRel) {
            unanswered += passed;
            not_answered(board, unanswered);
        } else if unanswered >= BLOCKED_AFTER {
            tracing::warn!(seconds = unanswered.as_secs(), "the hive's thread runs again");
            *locked(&board.blocked) = None;
            unanswered = Duration::ZERO;
        } else {
            unanswered = Duration::ZERO;
        }
        board.call.notify_one();
    }
}

fn not_answered(board: &Board, unanswered: Duration) {
    if unanswered < BLOCKED_AFTER {
        return;
    }
    let blocked = board.who(unanswered);
    let was = locked(&board.blocked).replace(blocked.clone());
    if was.is_none() {
        tracing::error!(
            actor = blocked.actor.as_deref(),
            message = blocked.message,
            seconds = blocked.seconds,
            "the hive's thread is blocked"
        );
    }
    let mut end = locked(&board.end);
    if end.as_ref().is_some_and(|(after, _)| unanswered >= *after)
        && let Some((_, end)) = end.take()
    {
        end(blocked);
    }
}

/// Says from any thread whether the hive's own thread runs.
#[derive(Clone)]
pub struct Pulse(Arc<Board>);

impl Pulse {
    pub(crate) fn of(board: &Arc<Board>) -> Self {
        Pulse(Arc::clone(board))
    }

    /// Who blocks the hive's thread, if it has not taken a turn for 5 seconds.
    pub fn blocked(&self) -> Option<Blocked> {
        self.0.blocked()
    }
}

/// A mark on the board while a task of an actor is polled.
pub(crate) struct AtIt<'a>(&'a Board, u64);

impl<'a> AtIt<'a> {
    pub(crate) fn new(board: &'a Board, id: Id) -> Self {
        AtIt(board, board.enter(id))
    }
}

impl Drop for AtIt<'_> {
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

    fn busy(job: u64) -> Mark {
        let meters = Meters::new("x".into(), "x".into(), None, 1);
        let mut known = Vec::new();
        for _ in 0..job {
            meters.begin("Work", &mut known);
        }
        meters.mark()
    }

    const LIMIT: Duration = Duration::from_secs(10);

    #[test]
    fn who_has_one_job_for_its_limit_is_stuck_and_who_takes_another_is_not() {
        let mut looks = Looks::default();
        for second in 0..10 {
            let stuck =
                looks.look(at(second), LIMIT, [(1, busy(7), LIMIT), (2, busy(second), LIMIT)].into_iter());
            assert!(stuck.is_empty(), "after {second} s");
        }
        let stuck = looks.look(at(10), LIMIT, [(1, busy(7), LIMIT), (2, busy(10), LIMIT)].into_iter());
        assert_eq!(stuck, [(1, busy(7), LIMIT)]);
    }

    #[test]
    fn a_process_that_was_stopped_was_not_stuck() {
        let mut looks = Looks::default();
        let two = Duration::from_secs(2);
        looks.look(at(0), two, [(1, busy(7), LIMIT)].into_iter());
        assert!(looks.look(at(3600), two, [(1, busy(7), LIMIT)].into_iter()).is_empty());
    }

    #[test]
    fn an_idle_actor_is_not_looked_at() {
        let mut looks = Looks::default();
        let idle = Mark::default();
        looks.look(at(0), LIMIT, [(1, idle, LIMIT)].into_iter());
        assert!(looks.look(at(3600), LIMIT * 1000, [(1, idle, LIMIT)].into_iter()).is_empty());
    }
}
