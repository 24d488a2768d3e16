//! What the tasks share: the drivers, which volumes were mounted by this incarnation, and who works on which volume.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::{Arc, Weak};
use std::time::Duration;

use beehive::{Address, Env, Fault};
use contract::csi::CsiMounted;
use contract::csi_node::CsiNodeDriver;
use contract::edged::EdgedMsg;
use csi::Driver;
use tokio::sync::{Mutex, OwnedMutexGuard};

use crate::error::FileError;
use crate::events;
use crate::paths::{Root, VolumeId};
use crate::plan::Version;

/// A driver that is registered.
#[derive(Debug, Clone)]
pub(crate) struct Registered {
    /// The registrar's socket.
    pub(crate) registrar: String,
    /// The driver's own.
    pub(crate) endpoint: PathBuf,
    pub(crate) version: Version,
    pub(crate) node: CsiNodeDriver,
}

/// Shared by the actor and its tasks, which live on one thread.
pub(crate) struct State {
    pub(crate) root: Root,
    pub(crate) node: String,
    pub(crate) call_deadline: Duration,
    pub(crate) env: Env,
    pub(crate) edged: Address<EdgedMsg>,
    pub(crate) drivers: RefCell<BTreeMap<String, Registered>>,
    /// The registrars' sockets as they were seen last.
    pub(crate) sockets: RefCell<BTreeMap<String, (u64, u64)>>,
    /// Published by this incarnation, by the pod's uid and the volume's name.
    pub(crate) published: RefCell<BTreeMap<(String, String), CsiMounted>>,
    /// Staged by this incarnation.
    pub(crate) staged: RefCell<BTreeSet<VolumeId>>,
    /// How large volumes were made by this incarnation, in bytes.
    pub(crate) expanded: RefCell<BTreeMap<VolumeId, i64>>,
    /// Volumes that are mounted or may be.
    in_use: RefCell<BTreeSet<VolumeId>>,
    locks: RefCell<BTreeMap<VolumeId, Weak<Mutex<()>>>>,
    /// Edged was told once.
    is_told: Cell<bool>,
    /// Volumes of which it is being looked whether any pod has them still.
    pub(crate) releasing: RefCell<BTreeSet<VolumeId>>,
}

impl State {
    pub(crate) fn new(
        root: PathBuf,
        node: String,
        call_deadline: Duration,
        env: Env,
        edged: Address<EdgedMsg>,
    ) -> State {
        State {
            root: Root(root),
            node,
            call_deadline,
            env,
            edged,
            drivers: RefCell::default(),
            sockets: RefCell::default(),
            published: RefCell::default(),
            staged: RefCell::default(),
            expanded: RefCell::default(),
            in_use: RefCell::default(),
            locks: RefCell::default(),
            is_told: Cell::default(),
            releasing: RefCell::default(),
        }
    }

    /// Waits for its turn with a volume: there are never two calls at once about one.
    pub(crate) async fn turn(&self, id: &VolumeId) -> OwnedMutexGuard<()> {
        let lock = {
            let mut locks = self.locks.borrow_mut();
            locks.retain(|_, lock| lock.strong_count() > 0);
            let lock = locks.get(id).and_then(Weak::upgrade).unwrap_or_else(|| Arc::new(Mutex::new(())));
            locks.insert(id.clone(), Arc::downgrade(&lock));
            lock
        };
        lock.lock_owned().await
    }

    pub(crate) fn driver(&self, name: &str) -> Option<Driver> {
        let drivers = self.drivers.borrow();
        drivers.get(name).map(|found| Driver::at(&found.endpoint, self.call_deadline))
    }

    /// Works on the disk, beside the hive's thread.
    pub(crate) async fn on_disk<T: Send + 'static>(
        &self,
        work: impl FnOnce(Root) -> Result<T, FileError> + Send + 'static,
    ) -> Result<T, String> {
        let root = self.root.clone();
        match self.env.blocking(move || work(root)).await {
            Ok(result) => result.map_err(|error| error.to_string()),
            Err(fault) => Err(Fault::from_error(&fault).reason),
        }
    }

    /// Notes that a volume is mounted, or may be, or is not any more.
    pub(crate) fn set_in_use(self: &Rc<Self>, id: &VolumeId, is_in_use: bool) {
        let moved = match is_in_use {
            true => self.in_use.borrow_mut().insert(id.clone()),
            false => self.in_use.borrow_mut().remove(id),
        };
        if moved {
            self.tell();
        }
    }

    /// Takes what is on the disk as in use, and says so after a start.
    pub(crate) fn found_in_use(self: &Rc<Self>, all: BTreeSet<VolumeId>) {
        let is_news = !self.is_told.replace(true) || !all.is_subset(&self.in_use.borrow());
        self.in_use.borrow_mut().extend(all);
        if is_news {
            self.tell();
        }
    }

    pub(crate) fn in_use(&self) -> BTreeSet<VolumeId> {
        self.in_use.borrow().clone()
    }

    pub(crate) fn counts(&self) -> (usize, usize) {
        (self.drivers.borrow().len(), self.in_use.borrow().len())
    }

    /// Tells Edged which drivers there are and which volumes are in use, until its mailbox has room for it.
    pub(crate) fn tell(self: &Rc<Self>) {
        let state = Rc::clone(self);
        self.env.spawn(async move {
            let make = || {
                let drivers = state.drivers.borrow().values().map(|found| found.node.clone()).collect();
                let in_use = state.in_use.borrow();
                // As the attach-detach controller calls volumes.
                let in_use = in_use
                    .iter()
                    .map(|VolumeId { driver, handle, .. }| format!("kubernetes.io/csi/{driver}^{handle}"))
                    .collect();
                EdgedMsg::CsiDrivers { drivers, in_use }
            };
            state.edged.tell_with_retry(&state.env, make).await;
        });
    }

    /// Forgets what was registered by a socket.
    pub(crate) fn forget_registrar(self: &Rc<Self>, socket: &str) {
        let gone: Vec<String> = {
            let drivers = self.drivers.borrow();
            drivers
                .iter()
                .filter(|(_, found)| found.registrar == socket)
                .map(|(name, _)| name.clone())
                .collect()
        };
        for name in &gone {
            self.drivers.borrow_mut().remove(name);
            events::driver_gone(&self.env, name);
        }
        if !gone.is_empty() {
            self.tell();
        }
    }
}
