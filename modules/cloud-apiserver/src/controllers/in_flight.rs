//! Requests of a controller that are not answered yet.

use std::cell::Cell;
use std::rc::Rc;

use beehive::Env;
use tokio::sync::{Notify, oneshot};

/// Counts requests that were sent. Each runs to its answer, whatever becomes of the incarnation that sent it: one that is cut off in
/// the middle may still be carried out later, after its successor has listed.
#[derive(Default)]
pub(super) struct InFlight {
    count: Cell<usize>,
    idle: Notify,
}

struct InFlightGuard(Rc<InFlight>);

impl Drop for InFlightGuard {
    fn drop(&mut self) {
        self.0.count.set(self.0.count.get() - 1);
        if self.0.count.get() == 0 {
            self.0.idle.notify_waiters();
        }
    }
}

/// The request's task is gone without an answer.
#[derive(Debug, thiserror::Error)]
#[error("the request was given up")]
struct RequestAborted;

impl InFlight {
    /// Runs a request to its answer.
    pub(super) async fn run<T: 'static>(
        self: &Rc<Self>,
        env: &Env,
        request: impl Future<Output = Result<T, kube::Error>> + 'static,
    ) -> Result<T, kube::Error> {
        self.count.set(self.count.get() + 1);
        let guard = InFlightGuard(Rc::clone(self));
        let (answer, answered) = oneshot::channel();
        env.spawn(async move {
            let result = request.await;
            drop(guard);
            let _ = answer.send(result);
        });
        answered.await.unwrap_or_else(|_| Err(kube::Error::Service(Box::new(RequestAborted))))
    }

    /// Completes when none is in flight.
    pub(super) async fn idle(&self) {
        loop {
            let idle = self.idle.notified();
            if self.count.get() == 0 {
                return;
            }
            idle.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test(start_paused = true)]
    async fn a_request_outlives_who_sent_it_and_is_waited_for() {
        let local = tokio::task::LocalSet::new();
        let work = async {
            let (env, in_flight) = (Env::seeded(1), Rc::new(InFlight::default()));
            let done = Rc::new(Cell::new(false));
            let request = {
                let (env, done) = (env.clone(), Rc::clone(&done));
                async move {
                    env.sleep(Duration::from_secs(5)).await;
                    done.set(true);
                    Ok(())
                }
            };
            // The sender is dropped after a second.
            assert!(env.timeout(Duration::from_secs(1), in_flight.run(&env, request)).await.is_none());
            assert!(!done.get());
            in_flight.idle().await;
            assert!(done.get());
            in_flight.idle().await;
            assert_eq!(in_flight.run(&env, async { Ok(7) }).await.unwrap(), 7);
        };
        local.run_until(work).await;
    }
}
