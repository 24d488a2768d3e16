//! What the tasks share: the drivers, which volumes were mounted by this incarnation, and who works on which volume.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::rc::{self, Rc};
use std::sync::{Arc, PoisonError, Weak};
use std::time::Duration;

use beehive::{Address, Env, Fault};
use contract::csi::CsiMounted;
use contract::csi_node::{CSI_DRIVERS_MAX, CsiNodeDriver};
use contract::edged::EdgedMsg;
use csi::{CallError, Driver};
use tokio::sync::{Mutex, Notify, OwnedMutexGuard, mpsc, oneshot};

use crate::controller_calls::ControllerCalls;
use crate::error::FileError;
use crate::events;
use crate::paths::{Root, VolumeId};
use crate::plan::Version;

/// Whose turn it is with a volume, by `rootDirectory` and the volume. The process has one table, not an incarnation of EdgeCsi: what
/// one that has failed still does on the disk or with a driver holds its turn to its end, and the next one waits for it.
static TURNS: std::sync::Mutex<Turns> = std::sync::Mutex::new(BTreeMap::new());
type Turns = BTreeMap<(PathBuf, Subject), Weak<Mutex<()>>>;

/// What there is one call at a time about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Subject {
    /// A volume on the node.
    OnNode(VolumeId),
    /// A volume where it is made and attached, by its driver and its handle or, before it has one, its name.
    AtController(String, String),
}

/// The turn with a volume, as long as anybody holds it.
pub(crate) type Turn = Arc<OwnedMutexGuard<()>>;

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
    /// What is on the disk was read once: before that nothing is said, since it would be taken for all there is.
    is_scanned: Cell<bool>,
    /// There is something to tell Edged.
    news: Notify,
    /// Of each pod the mounts that are under way, each with the mark that it is over with them.
    mounting: RefCell<BTreeMap<String, Vec<rc::Weak<Cell<bool>>>>>,
    /// Takes volumes that may be unstaged, to a task of this incarnation.
    releases: mpsc::Sender<VolumeId>,
    /// Volumes of which it is being looked whether any pod has them still.
    pub(crate) releasing: RefCell<BTreeSet<VolumeId>>,
    /// A place for each call of a controller service.
    pub(crate) controller_calls: ControllerCalls,
}

impl State {
    pub(crate) fn new(
        root: PathBuf,
        node: String,
        call_deadline: Duration,
        env: Env,
        edged: Address<EdgedMsg>,
        releases: mpsc::Sender<VolumeId>,
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
            is_scanned: Cell::default(),
            news: Notify::new(),
            mounting: RefCell::default(),
            releases,
            releasing: RefCell::default(),
            controller_calls: ControllerCalls::default(),
        }
    }

    /// Waits for its turn with a volume: there are never two calls at once about one.
    pub(crate) async fn turn(&self, id: &VolumeId) -> Turn {
        self.turn_with(Subject::OnNode(id.clone())).await
    }

    /// The same with anything that is called about.
    pub(crate) async fn turn_with(&self, subject: Subject) -> Turn {
        let key = (self.root.0.clone(), subject);
        let lock = {
            let mut turns = TURNS.lock().unwrap_or_else(PoisonError::into_inner);
            turns.retain(|_, lock| lock.strong_count() > 0);
            let lock = turns.get(&key).and_then(Weak::upgrade).unwrap_or_else(|| Arc::new(Mutex::new(())));
            turns.insert(key, Arc::downgrade(&lock));
            lock
        };
        Arc::new(lock.lock_owned().await)
    }

    /// Works on the disk, beside the hive's thread, and holds the turn until that is done, whatever becomes of who waits for it.
    pub(crate) async fn on_disk_in<T: Send + 'static>(
        &self,
        turn: &Turn,
        work: impl FnOnce(Root) -> Result<T, FileError> + Send + 'static,
    ) -> Result<T, String> {
        let turn = Arc::clone(turn);
        let in_turn = move |root| {
            let done = work(root);
            drop(turn);
            done
        };
        self.on_disk(in_turn).await
    }

    /// Calls a driver, and holds the turn until that has ended, whatever becomes of who waits for it: the next incarnation calls the
    /// driver about the volume when this call is over.
    pub(crate) async fn call_in<T: 'static, F: Future<Output = Result<T, CallError>> + 'static>(
        &self,
        turn: &Turn,
        driver: &Driver,
        call: impl FnOnce(Driver) -> F,
    ) -> Result<T, CallError> {
        let (turn, called, (done, answer)) = (Arc::clone(turn), call(driver.clone()), oneshot::channel());
        self.env.spawn(async move {
            // Who waited may have gone.
            let _ = done.send(called.await);
            drop(turn);
        });
        answer.await.unwrap_or(Err(CallError::Late))
    }

    /// Notes that a mount for a pod is under way. What is answered becomes true when the pod's volumes are to be unmounted: then
    /// nothing is mounted any more.
    pub(crate) fn begin_mount(&self, pod_uid: &str) -> Rc<Cell<bool>> {
        let is_over = Rc::new(Cell::new(false));
        let mut mounting = self.mounting.borrow_mut();
        mounting.retain(|_, marks| {
            marks.retain(|mark| mark.strong_count() > 0);
            !marks.is_empty()
        });
        mounting.entry(pod_uid.to_owned()).or_default().push(Rc::downgrade(&is_over));
        is_over
    }

    /// It is over with all mounts for a pod that are under way.
    pub(crate) fn end_mounts(&self, pod_uid: &str) {
        let marks = self.mounting.borrow_mut().remove(pod_uid).unwrap_or_default();
        marks.iter().filter_map(rc::Weak::upgrade).for_each(|mark| mark.set(true));
    }

    /// Lets a volume be unstaged if no pod has it any more, beside whoever asks.
    pub(crate) fn release(&self, id: VolumeId) {
        let is_first = self.releasing.borrow_mut().insert(id.clone());
        if is_first && self.releases.try_send(id.clone()).is_err() {
            // What finds no room is in use still, and looked at again within a minute.
            self.releasing.borrow_mut().remove(&id);
        }
    }

    /// Whether one more driver of this name is no more than a CSINode may hold.
    pub(crate) fn has_room_for(&self, name: &str) -> bool {
        let drivers = self.drivers.borrow();
        drivers.contains_key(name) || drivers.len() < CSI_DRIVERS_MAX
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
    pub(crate) fn set_in_use(&self, id: &VolumeId, is_in_use: bool) {
        let moved = match is_in_use {
            true => self.in_use.borrow_mut().insert(id.clone()),
            false => self.in_use.borrow_mut().remove(id),
        };
        if moved {
            self.tell();
        }
    }

    /// Takes what is on the disk as in use, and says so after a start.
    pub(crate) fn found_in_use(&self, all: BTreeSet<VolumeId>) {
        let is_news = !self.is_scanned.replace(true) || !all.is_subset(&self.in_use.borrow());
        self.in_use.borrow_mut().extend(all);
        if is_news {
            self.tell();
        }
    }

    pub(crate) fn is_scanned(&self) -> bool {
        self.is_scanned.get()
    }

    pub(crate) fn in_use(&self) -> BTreeSet<VolumeId> {
        self.in_use.borrow().clone()
    }

    pub(crate) fn counts(&self) -> (usize, usize) {
        (self.drivers.borrow().len(), self.in_use.borrow().len())
    }

    /// Has Edged told which drivers there are and which volumes are in use, once that is known.
    pub(crate) fn tell(&self) {
        if self.is_scanned.get() {
            self.news.notify_one();
        }
    }

    /// Tells Edged whenever there is something to tell, until its mailbox has room for it. Never ends.
    pub(crate) async fn tell_news(&self) {
        let make = || {
            let drivers = self.drivers.borrow().values().map(|found| found.node.clone()).collect();
            let in_use = self.in_use.borrow();
            // As the attach-detach controller calls volumes.
            let in_use = in_use
                .iter()
                .map(|VolumeId { driver, handle, .. }| format!("kubernetes.io/csi/{driver}^{handle}"))
                .collect();
            EdgedMsg::CsiDrivers { drivers, in_use }
        };
        loop {
            self.news.notified().await;
            self.edged.tell_with_retry(&self.env, make).await;
        }
    }

    /// Forgets what was registered by a socket.
    pub(crate) fn forget_registrar(&self, socket: &str) {
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

#[cfg(test)]
pub(crate) mod tests {
    use beehive::testing::Probe;

    use super::*;

    fn id(handle: &str) -> VolumeId {
        VolumeId { driver: "d.io".to_owned(), handle: handle.to_owned(), device: None }
    }

    pub(crate) fn state(env: &Env) -> (State, Probe<EdgedMsg>) {
        let (probe, edged) = Probe::new(env, 16);
        let (releases, _) = mpsc::channel(1);
        let limit = Duration::from_secs(1);
        (State::new("/root-of-this-test".into(), "edge-1".into(), limit, env.clone(), edged, releases), probe)
    }

    /// The actor is made anew while it works on the disk: that ends before the next one's turn begins.
    #[test]
    fn what_an_incarnation_left_behind_on_the_disk_runs_beside_nothing_of_the_next() {
        actix_rt::System::new().block_on(async {
            let env = Env::real();
            let ((old, _a), (new, _b)) = (state(&env), state(&env));
            let id = id("h");
            let (began, has_begun) = tokio::sync::oneshot::channel();
            let (go, may_go) = std::sync::mpsc::channel::<()>();
            let of_old = id.clone();
            let task = tokio::task::spawn_local(async move {
                let turn = old.turn(&of_old).await;
                let work = move |_| {
                    began.send(()).unwrap();
                    may_go.recv().unwrap();
                    Ok(())
                };
                old.on_disk_in(&turn, work).await
            });
            has_begun.await.unwrap();
            task.abort();
            assert!(task.await.unwrap_err().is_cancelled());
            let mut next = std::pin::pin!(new.turn(&id));
            assert!(futures::poll!(next.as_mut()).is_pending(), "the next one works beside it");
            go.send(()).unwrap();
            next.await;
        });
    }

    #[test]
    fn nothing_is_said_before_the_disk_was_read() {
        actix_rt::System::new().block_on(async {
            let env = Env::real();
            let (state, mut probe) = state(&env);
            let state = Rc::new(state);
            let telling = Rc::clone(&state);
            let teller = tokio::task::spawn_local(async move { telling.tell_news().await });
            state.tell();
            let own = id("h");
            state.set_in_use(&own, true);
            state.found_in_use(BTreeSet::from([id("g")]));
            let Some(EdgedMsg::CsiDrivers { in_use, .. }) = probe.next(Duration::from_secs(20)).await else {
                panic!()
            };
            assert_eq!(in_use.len(), 2, "the first word is whole: {in_use:?}");
            teller.abort();
        });
    }

    #[test]
    fn the_end_of_a_pod_is_the_end_of_its_mounts_alone() {
        actix_rt::System::new().block_on(async {
            let (state, _probe) = state(&Env::real());
            let (first, second) = (state.begin_mount("u1"), state.begin_mount("u1"));
            let other = state.begin_mount("u2");
            drop(second);
            state.end_mounts("u1");
            assert!(first.get() && !other.get());
            assert!(!state.begin_mount("u1").get(), "a mount that is asked for later is none of these");
            drop((first, other));
            state.begin_mount("u3");
            assert_eq!(state.mounting.borrow().len(), 1, "what is over is not kept");
        });
    }
}
