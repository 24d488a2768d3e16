//! Whether the containers run that somebody follows: one question to the runtime a second for all of them.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use beehive::Clock;
use cri::Runtime;
use cri::v1::{ContainerFilter, ContainerState, ContainerStateValue};
use tokio::sync::watch;

/// 1 s, as a kubelet looks.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Who runs. The runtime is asked while somebody follows, and no longer.
#[derive(Clone)]
pub(crate) struct Running(Arc<Inner>);

struct Inner {
    runtime: Arc<dyn Runtime>,
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    followed: HashMap<String, Followed>,
    is_looking: bool,
}

struct Followed {
    ended: watch::Sender<bool>,
    followers: usize,
}

impl Running {
    pub(crate) fn new(runtime: Arc<dyn Runtime>, clock: Arc<dyn Clock>) -> Running {
        Running(Arc::new(Inner { runtime, clock, state: Mutex::default() }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hears of the end of a container. Needs a tokio runtime.
    pub(crate) fn follow(&self, id: &str) -> Following {
        let mut state = self.state();
        let followed = state
            .followed
            .entry(id.to_owned())
            .or_insert_with(|| Followed { ended: watch::Sender::new(false), followers: 0 });
        followed.followers += 1;
        let ended = followed.ended.subscribe();
        if !std::mem::replace(&mut state.is_looking, true) {
            let own = self.clone();
            tokio::spawn(async move { own.look().await });
        }
        Following { running: self.clone(), id: id.to_owned(), ended }
    }

    async fn look(&self) {
        let running = ContainerStateValue { state: ContainerState::ContainerRunning.into() };
        let filter = ContainerFilter { state: Some(running), ..ContainerFilter::default() };
        loop {
            self.0.clock.sleep(LOOK_EVERY).await;
            // Only those that were followed before the question can be missing from the answer.
            let asked: Vec<String> = {
                let mut state = self.state();
                if state.followed.is_empty() {
                    state.is_looking = false;
                    return;
                }
                state.followed.keys().cloned().collect()
            };
            // Of a runtime that does not answer nobody knows that a container has ended.
            let Ok(listed) = self.0.runtime.list_containers(filter.clone()).await else { continue };
            let listed: HashSet<String> = listed.into_iter().map(|container| container.id).collect();
            let state = self.state();
            for id in asked.iter().filter(|id| !listed.contains(*id)) {
                if let Some(followed) = state.followed.get(id) {
                    followed.ended.send_replace(true);
                }
            }
        }
    }
}

/// Hears of the end of one container.
pub(crate) struct Following {
    running: Running,
    id: String,
    ended: watch::Receiver<bool>,
}

impl Following {
    pub(crate) fn has_ended(&self) -> bool {
        *self.ended.borrow()
    }

    /// Completes when the container has ended.
    pub(crate) async fn ended(&mut self) {
        if self.ended.wait_for(|ended| *ended).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        let mut state = self.running.state();
        if let Some(followed) = state.followed.get_mut(&self.id) {
            followed.followers -= 1;
            if followed.followers == 0 {
                state.followed.remove(&self.id);
            }
        }
    }
}
