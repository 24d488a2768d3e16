//! Finds who has one message in hand for too long, and a hive whose thread is blocked.
//!
//! It looks from a thread of its own, because a hive that is blocked cannot look at itself. Under a virtual clock it is
//! a task of the hive instead, so that two runs are alike; a blocked thread is not found there.

use std::sync::{Arc, mpsc};
use std::time::Duration;

use crate::command::Command;
use crate::env::Clock;
use crate::registry::Registry;
use crate::watch::{Blocked, History, PERIOD, Stuck, WatchState};
use crate::{Env, Fault, Thread};

/// Ends the watchdog's thread when it is dropped.
pub(crate) struct Watchdog {
    thread: Option<Thread>,
    _stop: Option<mpsc::SyncSender<()>>,
}

impl Watchdog {
    /// Starts to watch.
    ///
    /// # Errors
    /// When the machine gives no thread.
    pub(crate) fn start(env: &Env, registry: &Registry) -> std::io::Result<Self> {
        if env.is_virtual() {
            let (env, registry) = (env.clone(), registry.clone());
            env.clone().spawn(async move { watch_from_task(&env, &registry).await });
            return Ok(Watchdog { thread: None, _stop: None });
        }
        env.spawn(replace_stuck(registry.clone()));
        let (stop, stopped) = mpsc::sync_channel(1);
        let (watch, clock) = (Arc::clone(&registry.watch), env.clock());
        let thread = Thread::start("watchdog", move || watch_from_thread(&watch, &*clock, &stopped))?;
        Ok(Watchdog { thread: Some(thread), _stop: Some(stop) })
    }

    /// Completes when its thread has ended; `None` if it has none.
    pub(crate) fn ended(&self) -> Option<impl Future<Output = Fault> + use<>> {
        self.thread.as_ref().map(Thread::ended)
    }
}

/// The hive's half: shows that its thread runs, and hands on who is to be replaced.
async fn replace_stuck(registry: Registry) {
    let watch = Arc::clone(&registry.watch);
    loop {
        let stuck = watch.answer().await;
        replace(&registry, stuck);
    }
}

fn replace(registry: &Registry, stuck: Vec<Stuck>) {
    for (id, job, held) in stuck {
        if let Some(entry) = registry.entry(id) {
            // Where the cell's queue is full the next look finds it again.
            drop(entry.commands.try_send(Command::Replace(job, held)));
        }
    }
}

async fn watch_from_task(env: &Env, registry: &Registry) {
    let mut history = History::default();
    loop {
        let period = registry.watch.virtual_period();
        env.sleep(period).await;
        let stuck = registry.watch.observe(&mut history, env.now(), period);
        replace(registry, stuck);
    }
}

fn watch_from_thread(watch: &WatchState, clock: &dyn Clock, stopped: &mpsc::Receiver<()>) {
    let mut history = History::default();
    let mut unanswered = Duration::ZERO;
    let mut last = clock.now();
    // Two periods: a look that comes later was held up itself.
    let longest = PERIOD * 2;
    while stopped.recv_timeout(PERIOD) == Err(mpsc::RecvTimeoutError::Timeout) {
        let now = clock.now();
        let passed = now.since(last).min(longest);
        last = now;
        let stuck = watch.observe(&mut history, now, longest);
        if watch.call(stuck) {
            watch.runs_again(unanswered);
            unanswered = Duration::ZERO;
        } else {
            unanswered += passed;
            watch.not_answered(unanswered);
        }
    }
}

/// Says from any thread whether the hive's own thread and its actors run.
#[derive(Clone)]
pub struct Liveness(Arc<WatchState>);

impl Liveness {
    pub(crate) fn of(watch: &Arc<WatchState>) -> Self {
        Liveness(Arc::clone(watch))
    }

    /// Who blocks the hive's thread, if it has not taken a turn for 5 seconds.
    pub fn blocked(&self) -> Option<Blocked> {
        self.0.blocked()
    }

    /// The actors that take no messages: not begun yet, between a fault and the next start, or given up. Children are their parents'
    /// business.
    pub fn down(&self) -> Vec<String> {
        self.0.down()
    }
}
