//! EdgeCore from its first read to its end.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use beehive::link::Dialer;
use beehive::{Ended, Env, Fault, Hive, WiringError};
use config::edge::EdgeCore as Settings;
use contract::NodeName;
use cri::Runtime;
use edge_store::{Options, Store, StoreError};
use thiserror::Error;

use crate::topology;

/// An hour between the moves of the store's log into its file.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(3600);

/// Why EdgeCore did not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// The store does not open.
    #[error("the node's store (database.dataSource)")]
    Store(#[from] StoreError),
    /// The map is wrong.
    #[error("wiring")]
    Wiring(#[from] WiringError),
}

/// What EdgeCore is given from outside.
pub struct Parts {
    /// The node's name, from its certificate.
    pub node: NodeName,
    /// The common name of its certificate.
    pub common_name: String,
    /// How the cloud is reached.
    pub dialer: Rc<dyn Dialer>,
    /// The container runtime.
    pub runtime: Arc<dyn Runtime>,
}

/// A running EdgeCore.
pub struct EdgeCore {
    hive: Hive,
    store: Store,
}

impl EdgeCore {
    /// Opens the store and starts every actor. Waits for nobody: neither the cloud nor the runtime has to be there.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn start(settings: &Settings, parts: Parts, env: Env) -> Result<Self, StartError> {
        let store = Store::open(&settings.database.data_source, Options::new(env.random_id()))?;
        tracing::info!(opened = ?store.opened(), revision = store.revision(), "store is open");
        let mut hive = Hive::new("edgecore", env.clone());
        let seats = topology::seats(&mut hive);
        topology::actors(&mut hive, seats, settings, parts, &store);
        hive.open()?;
        let (kept, sleeper) = (store.clone(), env.clone());
        env.spawn(async move {
            loop {
                sleeper.sleep(CHECKPOINT_EVERY).await;
                if let Err(error) = kept.checkpoint().await {
                    tracing::warn!(reason = %Fault::from_error(&error).reason, "store's log not moved");
                }
            }
        });
        Ok(EdgeCore { hive, store })
    }

    /// Reads the state of every actor.
    pub fn inspector(&self) -> beehive::Inspector {
        self.hive.inspector()
    }

    /// The node's store.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Waits until an actor has given up, and says why.
    pub async fn gave_up(&mut self) -> String {
        self.hive.gave_up().await
    }

    /// Stops everything in order, within `deadline`. Containers go on.
    pub async fn stop(self, deadline: Duration) -> Ended {
        self.hive.shutdown(deadline).await
    }
}
