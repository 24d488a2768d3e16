//! What the actor shares with the tasks of its incarnation: they live on one thread.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use beehive::Env;
use contract::containermanager::PluginRegistration;
use edge_store::{Store, Write};
use tokio::sync::watch;

use crate::client::PluginClient;
use crate::events;
use crate::machine::Machine;
use crate::plan::ledger::{Changes, Ledger};
use crate::plan::placement::Placement;
use crate::settings::Settings;
use crate::store;

pub(crate) struct Shared {
    pub(crate) settings: Settings,
    pub(crate) env: Env,
    pub(crate) store: Store,
    pub(crate) machine: Machine,
    pub(crate) ledger: RefCell<Ledger>,
    /// Counts what may let somebody go on who waits for a plugin.
    changes: watch::Sender<u64>,
    clients: RefCell<BTreeMap<u64, PluginClient>>,
}

impl Shared {
    pub(crate) fn new(
        settings: Settings,
        env: Env,
        store: Store,
        machine: Machine,
        ledger: Ledger,
    ) -> Rc<Shared> {
        let (changes, _) = watch::channel(0);
        let (ledger, clients) = (RefCell::new(ledger), RefCell::default());
        Rc::new(Shared { settings, env, store, machine, ledger, changes, clients })
    }

    /// The rules by which containers are placed.
    pub(crate) fn placement(&self) -> Placement<'_> {
        Placement {
            machine: &self.machine.cpus,
            cpus: &self.machine.cpu_policy,
            memory: &self.machine.memory,
            policy: self.settings.topology,
        }
    }

    /// Something about plugins has changed.
    pub(crate) fn changed(&self) {
        self.changes.send_modify(|count| *count += 1);
    }

    /// Hears of the changes from now on.
    pub(crate) fn hears(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// A plugin has registered.
    pub(crate) fn add_client(&self, session: u64, registration: &PluginRegistration) -> PluginClient {
        let client = PluginClient::new(&self.settings.plugins, &registration.endpoint);
        self.clients.borrow_mut().insert(session, client.clone());
        client
    }

    pub(crate) fn forget_client(&self, session: u64) {
        self.clients.borrow_mut().remove(&session);
    }

    /// The way to the plugin that has a resource now.
    pub(crate) fn client(&self, resource: &str) -> Option<(PluginClient, PluginRegistration)> {
        let live = self.ledger.borrow().live_plugin(resource)?;
        let client = self.clients.borrow().get(&live.session).cloned()?;
        Some((client, live.registration))
    }

    /// Writes what changed. What can't be written is in memory all the same, and said.
    pub(crate) async fn keep(&self, changes: Changes) -> Result<(), String> {
        let mut writes: Vec<Write> = changes.freed.iter().map(|uid| store::forget(uid)).collect();
        {
            let ledger = self.ledger.borrow();
            for uid in &changes.changed {
                if let Some(pod) = ledger.pod(uid) {
                    writes.push(store::put(uid, pod).map_err(|error| error.to_string())?);
                }
            }
        }
        if writes.is_empty() {
            return Ok(());
        }
        let committed = self.store.commit(writes).await.map(drop).map_err(|error| error.to_string());
        if let Err(error) = &committed {
            events::not_kept(&self.env, error);
        }
        committed
    }
}
