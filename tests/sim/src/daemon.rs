//! A daemon that can be killed at any await: everything it has spawned goes with it.

use std::future::Future;

use tokio::sync::oneshot;
use tokio::task::{JoinHandle, LocalSet};

/// A process of the run.
pub(crate) struct Daemon {
    life: JoinHandle<()>,
}

impl Daemon {
    /// Starts `make` in a set of tasks of its own, and waits for what it makes.
    pub(crate) async fn start<T: 'static>(make: impl Future<Output = T> + 'static) -> (Daemon, T) {
        let (made, when_made) = oneshot::channel();
        let set = LocalSet::new();
        set.spawn_local(async move {
            let _ = made.send(make.await);
            std::future::pending::<()>().await;
        });
        let life = tokio::task::spawn_local(set);
        let made = when_made.await.expect("a daemon starts");
        (Daemon { life }, made)
    }

    /// Kills it where it stands.
    pub(crate) async fn kill(self) {
        self.life.abort();
        // The error says that it was aborted.
        let _ = self.life.await;
    }
}
