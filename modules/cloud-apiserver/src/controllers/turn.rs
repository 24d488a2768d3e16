//! How long a pass keeps the thread before others have their turn.

use std::cell::Cell;
use std::time::Duration;

use beehive::{Env, Moment};

/// 5 ms: then whoever else waits for this thread works before the pass goes on.
const TURN: Duration = Duration::from_millis(5);

/// Since when somebody works on this thread without having let others.
#[derive(Default)]
pub(super) struct Turn(Cell<Moment>);

impl Turn {
    /// Lets others work if the turn is over. It costs a look at the clock.
    pub(super) async fn breathe(&self, env: &Env) {
        if env.now().since(self.0.get()) >= TURN {
            tokio::task::yield_now().await;
            self.0.set(env.now());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::rc::Rc;

    #[tokio::test(start_paused = true)]
    async fn others_work_between_the_turns_of_a_long_pass() {
        let local = tokio::task::LocalSet::new();
        let work = async {
            let (env, others) = (Env::seeded(1), Rc::new(Cell::new(0)));
            let count = Rc::clone(&others);
            tokio::task::spawn_local(async move {
                loop {
                    count.set(count.get() + 1);
                    tokio::task::yield_now().await;
                }
            });
            let turn = Turn::default();
            turn.breathe(&env).await;
            let before = others.get();
            for _ in 0..100 {
                turn.breathe(&env).await;
            }
            assert_eq!(others.get(), before, "no time has passed");
            for passed in 1..4 {
                tokio::time::advance(TURN).await;
                let before = others.get();
                turn.breathe(&env).await;
                assert!(others.get() > before, "{passed}");
            }
        };
        local.run_until(work).await;
    }
}
