//! The pod lifecycle event generator (kubelet's PLEG): the runtime's events where it has them, and a list of everything
//! now and then in any case.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use beehive::{Address, Env, Moment};
use contract::edged::EdgedMsg;
use cri::{Error, EventKind, Runtime};
use futures::StreamExt as _;

use crate::dependencies::{Dependencies, blocking};
use crate::disk::folders;
use crate::events;
use crate::runtime::pods::{self, ListedPod};

/// After the runtime was lost.
const RETRY: Duration = Duration::from_secs(1);
/// 20 s between two looks at a runtime that tells of its changes: containerd 1.7 gives each CRI event to one listener only, so
/// that one can be lost to a neighbour.
const RELIST_EVERY: Duration = Duration::from_secs(20);
/// 1 s between two looks at one that does not.
const POLL_EVERY: Duration = Duration::from_secs(1);

/// The last list of everything, until Edged takes it.
pub(crate) type Listing = Rc<RefCell<Option<BTreeMap<String, ListedPod>>>>;

/// What the generator needs.
pub(crate) struct Pleg {
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) node: String,
    /// What pods have on the disk lies below these.
    pub(crate) root: PathBuf,
    pub(crate) logs: PathBuf,
    pub(crate) env: Env,
    pub(crate) edged: Address<EdgedMsg>,
    pub(crate) listing: Listing,
    /// Whether the last list failed.
    pub(crate) lost: Cell<bool>,
    /// When it was made.
    pub(crate) relisted_at: Cell<Option<Moment>>,
    pub(crate) deps: Rc<Dependencies>,
}

impl Pleg {
    /// Pleges as long as it is polled.
    pub(crate) async fn run(self) {
        let mut every = RELIST_EVERY;
        loop {
            if self.relist().await.is_err() {
                self.env.sleep(RETRY).await;
                continue;
            }
            let supported = self.follow(every).await;
            if supported {
                every = RELIST_EVERY;
                self.env.sleep(RETRY).await;
            } else {
                events::runtime_without_events(&self.env, POLL_EVERY);
                every = POLL_EVERY;
                self.poll(every).await;
            }
        }
    }

    /// Passes events on until the stream ends. False when the runtime has none.
    async fn follow(&self, every: Duration) -> bool {
        let mut events = self.runtime.events();
        // What happened before the runtime took the question is seen by a look soon after it.
        let mut pause = RETRY;
        loop {
            tokio::select! {
                // What has happened is passed on before anybody looks for what was missed. Events end; the pause is only
                // put off.
                biased;
                event = events.next() => match event {
                    Some(Ok(event)) => self.pass_on(event).await,
                    Some(Err(Error::Unsupported { .. })) => return false,
                    Some(Err(error)) => {
                        events::runtime_events_interrupted(&self.env, &error);
                        return true;
                    }
                    None => return true,
                },
                () = self.env.sleep(pause) => {
                    pause = every;
                    if self.relist().await.is_err() {
                        return true;
                    }
                }
            }
        }
    }

    async fn pass_on(&self, event: cri::Event) {
        match event.kind {
            // Only Edged's workers create and start, and they know.
            EventKind::Created | EventKind::Started => {}
            EventKind::Stopped | EventKind::Deleted | EventKind::OutOfMemory => {
                let _ = self.edged.tell(EdgedMsg::RuntimeEvent { id: event.id }).await;
            }
        }
    }

    /// Looks from time to time until the runtime is lost.
    async fn poll(&self, every: Duration) {
        loop {
            self.env.sleep(every).await;
            if self.relist().await.is_err() {
                return;
            }
        }
    }

    async fn relist(&self) -> Result<(), Error> {
        let begun = self.env.now();
        let adopted = self.adopted().await;
        match pods::get_pods(&self.runtime, &self.node, &adopted).await {
            Ok(mut found) => {
                self.list_disk(&mut found).await;
                let since = self.relisted_at.replace(Some(begun)).map(|before| begun.since(before));
                self.deps.counts.relisted(self.env.now().since(begun), since);
                if self.lost.replace(false) {
                    events::runtime_found(&self.env);
                }
                *self.listing.borrow_mut() = Some(found);
                let _ = self.edged.tell(EdgedMsg::RuntimeRelisted).await;
                Ok(())
            }
            Err(error) => {
                if !self.lost.replace(true) {
                    events::runtime_lost(&self.env, &error);
                }
                Err(error)
            }
        }
    }

    /// The pods whose containers may be another daemon's: those that were taken over with the node, and with them, whatever of theirs
    /// could not be read then, all that should run here. Nothing on a node that was none of another's.
    async fn adopted(&self) -> BTreeSet<String> {
        let store = self.deps.store.clone();
        let mut adopted = match self.env.blocking(move || store.adopted_pods()).await {
            Ok(Ok(adopted)) => adopted,
            // It is read again at the next list.
            Ok(Err(_)) | Err(_) => BTreeSet::new(),
        };
        if !adopted.is_empty() {
            adopted.extend(self.deps.active_pods.borrow().iter().map(|pod| pod.id.uid.clone()));
        }
        adopted
    }

    /// Adds the pods of which only a folder is left. An end that was cut short, when the pod was gone from the store and
    /// from the runtime but not from the disk, is known by nothing else.
    async fn list_disk(&self, found: &mut BTreeMap<String, ListedPod>) {
        let (root, logs) = (self.root.clone(), self.logs.clone());
        match blocking(&self.env, "look for pods below", move || folders::pods(&root, &logs)).await {
            Ok(pods) => {
                for id in pods {
                    let left = ListedPod {
                        namespace: id.namespace,
                        name: id.name,
                        fingerprint: Vec::new(),
                        runs: false,
                        grace: None,
                    };
                    found.entry(id.uid).or_insert(left);
                }
            }
            Err(error) => tracing::warn!(%error, "folders of pods cannot be looked at"),
        }
    }
}
