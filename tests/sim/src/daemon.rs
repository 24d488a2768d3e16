//! A daemon that can be killed at any await: everything it has spawned goes with it.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use beehive::{Clock, Env, Moment};
use futures::future::LocalBoxFuture;
use tokio::sync::{Notify, oneshot};
use tokio::task::{JoinHandle, LocalSet};

/// 200,000 turns within one moment of the simulated clock, which stands still as long as anything has a turn to take: whoever
/// takes more goes round in circles. It stops then, and what it should have done is missed at the end of the run.
const TURNS_WITHIN_A_MOMENT: u64 = 200_000;

/// A process of the run.
pub(crate) struct Daemon {
    life: JoinHandle<()>,
    turn_limit: Rc<TurnLimit>,
}

/// How many more turns of its tasks a daemon lives. A turn goes from one await to the next.
struct TurnLimit {
    turns_left: Cell<Option<u64>>,
    over: Notify,
    clock: Arc<dyn Clock>,
    /// The moment of the last turn, and how many there were in it.
    moment: Cell<(Moment, u64)>,
}

impl TurnLimit {
    fn new(clock: Arc<dyn Clock>) -> Self {
        TurnLimit { turns_left: Cell::default(), over: Notify::default(), clock, moment: Cell::default() }
    }

    /// Takes a turn, if there is one left.
    fn turn(&self) -> bool {
        let (moment, turns) = self.moment.get();
        let now = self.clock.now();
        let turns = if now == moment { turns + 1 } else { 0 };
        self.moment.set((now, turns));
        if turns >= TURNS_WITHIN_A_MOMENT {
            self.turns_left.set(Some(0));
        }
        match self.turns_left.get() {
            None => true,
            Some(0) => {
                self.over.notify_one();
                false
            }
            Some(left) => {
                self.turns_left.set(Some(left - 1));
                true
            }
        }
    }
}

struct LimitedTask {
    task: LocalBoxFuture<'static, ()>,
    turn_limit: Rc<TurnLimit>,
}

impl Future for LimitedTask {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        // What has died does not move any more, and nobody wakes it.
        if self.turn_limit.turn() { self.task.as_mut().poll(cx) } else { Poll::Pending }
    }
}

impl Daemon {
    /// Starts what `make` makes in a set of tasks of its own, and waits for it.
    pub(crate) async fn start<T: 'static, F: Future<Output = T> + 'static>(
        env: &Env,
        make: impl FnOnce(Env) -> F,
    ) -> (Daemon, T) {
        let turn_limit = Rc::new(TurnLimit::new(env.clock()));
        let shared = Rc::clone(&turn_limit);
        let env = env.clone().spawned_by(move |task| {
            tokio::task::spawn_local(LimitedTask { task, turn_limit: Rc::clone(&shared) });
        });
        let (made, when_made) = oneshot::channel();
        let set = LocalSet::new();
        let work = make(env);
        set.spawn_local(async move {
            let _ = made.send(work.await);
            std::future::pending::<()>().await;
        });
        let life = tokio::task::spawn_local(set);
        let made = when_made.await.expect("a daemon starts");
        (Daemon { life, turn_limit }, made)
    }

    /// Its tasks take so many more turns, and then none.
    pub(crate) fn limit_turns(&self, turns: u64) {
        self.turn_limit.turns_left.set(Some(turns));
    }

    /// Resolves when the last turn was taken.
    pub(crate) async fn over(&self) {
        self.turn_limit.over.notified().await;
    }

    /// Kills it where it stands.
    pub(crate) async fn kill(self) {
        self.life.abort();
        // The error says that it was aborted.
        let _ = self.life.await;
    }
}
