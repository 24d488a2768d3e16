//! EdgeCore from its first read to its end.

use std::time::{Duration, SystemTime};

use beehive::{Actor, Address, Ended, Env, Fault, Hive, Message, WiringError};
use config::edge::EdgeCore as Settings;
use contract::NodeName;
use contract::devicetwin::TwinMsg;
use contract::edged::EdgedMsg;
use contract::eventbus::EventBusMsg;
use contract::metamanager::MetaMsg;
use edge_eventbus::EventBus;
use edge_store::{Options, Store, StoreError, WallClock};
use thiserror::Error;
use tokio::sync::oneshot;
use trace_exporter::Service;

use crate::topology::Dependencies;
use crate::{known_time, topology};

/// A minute between the looks whether the store's files are where they were.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// 60 looks, an hour, between the moves of the store's log into its file.
const CHECKPOINT_EVERY: u32 = 60;

/// Why EdgeCore did not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// The map is wrong.
    #[error("wiring")]
    Wiring(#[from] WiringError),
}

/// Opens the store of `node` where the settings say. Blocks while the file is checked.
///
/// # Errors
/// See [`Store::open`]. That of another node is refused: what waits in it is not this node's to report.
pub fn open_store(settings: &Settings, node: &NodeName, env: &Env) -> Result<Store, StoreError> {
    let clock = env.clock();
    let mut options = Options::new(env.random_id());
    options.node = Some(node.to_string());
    options.clock = Some(WallClock::new(move || seconds(clock.wall())));
    Store::open(&settings.database.data_source, options)
}

/// A running EdgeCore.
pub struct EdgeCore {
    hive: Hive,
    store: Store,
    env: Env,
    /// It cannot go on: its end is nobody's word.
    has_given_up: bool,
    /// Dropped with EdgeCore: what runs beside the actors ends then.
    _running: oneshot::Sender<()>,
}

impl EdgeCore {
    /// Starts every actor. Waits for nobody: neither the cloud nor the runtime has to be there.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn start(
        settings: &Settings,
        dependencies: Dependencies,
        env: Env,
    ) -> Result<Self, StartError> {
        let (broker, kept) = (settings.modules.event_bus.clone(), dependencies.store.clone());
        let node = dependencies.node.clone();
        let boot_id_file = settings.modules.edged.boot_id_file.clone();
        let bus = move |twin, meta, edged| {
            let bus = EventBus::new(&broker, kept.clone(), twin, meta).on_node(node.as_str(), edged);
            bus.booted_as(boot_id_file.clone())
        };
        Self::start_over(settings, dependencies, env, bus).await
    }

    /// [`EdgeCore::start`] with something else in EventBus' place: a harness brings its own.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn start_over<B: Actor<Message = EventBusMsg>>(
        settings: &Settings,
        dependencies: Dependencies,
        env: Env,
        bus: impl Fn(Address<TwinMsg>, Address<MetaMsg>, Address<EdgedMsg>) -> B + 'static,
    ) -> Result<Self, StartError> {
        let store = dependencies.store.clone();
        tracing::info!(opened = ?store.opened(), revision = store.revision(), "store is open");
        let traces = &settings.modules.edged.tailored_kubelet_config.tracing;
        let env = trace_exporter::traced(env, traces, ("EdgeHub send", "EdgeHub receive"));
        let mut hive = Hive::new("edgecore", env.clone());
        // First, so that it stops last.
        let service = Service { name: "edgecore", node: Some(dependencies.node.to_string()) };
        trace_exporter::supervise(&mut hive, traces, service);
        let mailboxes = topology::mailboxes(&mut hive);
        topology::actors(&mut hive, mailboxes, settings, dependencies, bus);
        hive.open()?;
        hive.depend_on(store.writer_ended());
        let (kept, sleeper) = (store.clone(), env.clone());
        let (running, mut ended) = oneshot::channel();
        env.spawn(async move {
            let mut looks = 0_u32;
            // Ends with EdgeCore, so that the file is let go.
            while sleeper.timeout(LOOK_EVERY, &mut ended).await.is_none() {
                kept.look_after_files();
                looks = looks.wrapping_add(1);
                if !looks.is_multiple_of(CHECKPOINT_EVERY) {
                    continue;
                }
                keep_time(&kept, &sleeper).await;
                if let Err(error) = kept.checkpoint().await {
                    tracing::warn!(reason = %Fault::from_error(&error).reason, "store's log not moved");
                }
            }
        });
        Ok(EdgeCore { hive, store, env, has_given_up: false, _running: running })
    }

    /// Reads the state of every actor.
    pub fn inspector(&self) -> beehive::Inspector {
        self.hive.inspector()
    }

    /// The node's store.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Lets a probe look at every message that an actor is handed: see [`Hive::tap`].
    ///
    /// # Errors
    /// See [`Hive::tap`].
    pub fn tap<M: Message>(
        &self,
        mailbox: &str,
        see: impl Fn(&M) + Send + Sync + 'static,
    ) -> Result<(), WiringError> {
        self.hive.tap(mailbox, see)
    }

    /// Waits until EdgeCore cannot go on, and says why: an actor has given up, the store's writer has died, or the store's
    /// file broke and is to be set aside by the next start, or was taken away and has to be opened anew.
    pub async fn gave_up(&mut self) -> String {
        let reason = tokio::select! {
            reason = self.hive.gave_up() => reason,
            reason = self.store.broken() => reason,
        };
        self.has_given_up = true;
        reason
    }

    /// Stops everything in order, within `deadline`. Containers go on.
    pub async fn stop(self, deadline: Duration) -> Ended {
        let until = self.env.now() + deadline;
        // A disk that doesn't answer takes no more of the stop than an actor's share.
        let keep = async {
            keep_time(&self.store, &self.env).await;
            if !self.has_given_up {
                keep_end(&self.store, &self.env).await;
            }
        };
        if self.env.timeout(deadline / 5, keep).await.is_none() {
            tracing::warn!(
                "neither the last known time nor the end of this run is kept: the store does not answer"
            );
        }
        self.hive.shutdown(until.since(self.env.now())).await
    }
}

impl daemon::Running for EdgeCore {
    fn gave_up(&mut self) -> impl Future<Output = String> {
        EdgeCore::gave_up(self)
    }

    fn inspector(&self) -> beehive::Inspector {
        EdgeCore::inspector(self)
    }

    fn stop(self, deadline: Duration) -> impl Future<Output = Ended> {
        EdgeCore::stop(self, deadline)
    }
}

/// Without it the next start believes a clock that is behind for longer.
async fn keep_time(store: &Store, env: &Env) {
    if let Err(error) = known_time::keep(store, env).await {
        tracing::warn!(reason = %error.reason, "the last known time is not kept");
    }
}

/// Without it the next start takes this run's end for a fault.
async fn keep_end(store: &Store, env: &Env) {
    if let Err(error) = edge_edged::end_run(store, env).await {
        tracing::warn!(reason = %error.reason, "the end of this run is not kept");
    }
}

fn seconds(wall: SystemTime) -> i64 {
    let since = wall.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_store_that_a_disk_image_brought_along_is_refused_with_both_names() {
        let folder = tempfile::tempdir().unwrap();
        let mut settings = Settings::default();
        settings.database.data_source = folder.path().join("edgecore.db");
        let open = |name: &str| open_store(&settings, &NodeName::parse(name).unwrap(), &Env::real());
        drop(open("golden").unwrap());
        let said = open("edge-7").unwrap_err().to_string();
        assert!(said.contains("`golden`") && said.contains("`edge-7`"), "{said}");
        open("golden").unwrap();
    }
}
