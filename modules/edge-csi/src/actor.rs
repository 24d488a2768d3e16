//! EdgeCsi's actor: who registers, and a task for each volume.

use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use beehive::{Actor, Address, Context, Fault};
use contract::csi::CsiMsg;
use contract::edged::EdgedMsg;
use futures::StreamExt as _;
use serde_json::Value;
use tokio::sync::mpsc;

use crate::paths::VolumeId;
use crate::state::State;
use crate::{controller, events, expand, registration, stats, volumes};

/// 2 min: a kubelet's bound of a driver's call.
const CALL_DEADLINE: Duration = Duration::from_secs(120);
/// 1 s between looks for registrars' sockets, as with a kubelet.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// After so many looks those volumes are tried again that could not be unstaged.
const RELEASE_EVERY: u32 = 60;

/// 256 volumes wait for a look whether any pod has them still.
const RELEASES_MAX: usize = 256;

/// What EdgeCsi is told by the configuration.
#[derive(Debug, Clone)]
pub struct Settings {
    root: PathBuf,
    node: String,
    call_deadline: Duration,
    look_every: Duration,
}

impl Settings {
    /// `root`: Edged's `rootDirectory`. `node`: the node's name.
    pub fn new(root: impl Into<PathBuf>, node: &str) -> Settings {
        Settings {
            root: root.into(),
            node: node.to_owned(),
            call_deadline: CALL_DEADLINE,
            look_every: LOOK_EVERY,
        }
    }

    /// Other times than a kubelet's: a call's deadline, and between two looks for registrars.
    #[must_use]
    pub fn times(self, call_deadline: Duration, look_every: Duration) -> Settings {
        Settings { call_deadline, look_every, ..self }
    }
}

/// Registers CSI drivers and mounts their volumes.
pub struct EdgeCsi {
    settings: Settings,
    edged: Address<EdgedMsg>,
    state: Option<Rc<State>>,
    is_looking: bool,
    looks: u32,
}

impl EdgeCsi {
    /// EdgeCsi over what is on the disk, made anew by its factory after a fault.
    pub fn new(settings: Settings, edged: Address<EdgedMsg>) -> EdgeCsi {
        EdgeCsi { settings, edged, state: None, is_looking: false, looks: 0 }
    }
}

impl Actor for EdgeCsi {
    type Message = CsiMsg;

    async fn started(&mut self, cx: &mut Context<CsiMsg>) -> Result<(), Fault> {
        let Settings { root, node, call_deadline, look_every } = self.settings.clone();
        let (env, edged) = (cx.env().clone(), self.edged.clone());
        let (releases, mut to_release) = mpsc::channel(RELEASES_MAX);
        let state = Rc::new(State::new(root, node, call_deadline, env, edged, releases));
        self.state = Some(Rc::clone(&state));
        // Before anybody can ask for a mount.
        if let Err(reason) = state.on_disk(|root| root.prepare()).await {
            events::folders_not_made(&state.env, &reason);
        }
        // By tasks of this incarnation: whoever comes after it says and does these things itself.
        let telling = Rc::clone(&state);
        cx.spawn(async move { telling.tell_news().await });
        let to_release = futures::stream::poll_fn(move |cx| to_release.poll_recv(cx));
        // Beside each other: a driver that hangs holds up its own.
        cx.spawn(to_release.for_each_concurrent(None, move |id| volumes::release(Rc::clone(&state), id)));
        cx.every(look_every, || CsiMsg::Look);
        self.look(cx);
        Ok(())
    }

    async fn handle(&mut self, message: CsiMsg, cx: &mut Context<CsiMsg>) -> Result<(), Fault> {
        let Some(state) = self.state.clone() else { return Ok(()) };
        match message {
            CsiMsg::Mount { volume, reply } => {
                let is_over = state.begin_mount(&volume.pod_uid);
                cx.spawn(async move {
                    let is_needless = || is_over.get() || reply.is_abandoned();
                    let device = volume.is_block.then(|| volume.name.clone());
                    let id =
                        VolumeId { driver: volume.driver.clone(), handle: volume.handle.clone(), device };
                    let done = volumes::mount(Rc::clone(&state), *volume, is_needless).await;
                    // It may be staged for a pod that is not there any more. One that asks again needs it so.
                    if done.is_err() && is_over.get() {
                        state.release(id);
                    }
                    reply.send(done);
                });
            }
            CsiMsg::Unmount { pod_uid, reply } => {
                state.end_mounts(&pod_uid);
                cx.spawn(async move { reply.send(volumes::unmount(state, pod_uid).await) });
            }
            CsiMsg::Expand { volume, size, secrets, reply } => {
                cx.spawn(async move { reply.send(expand::of_volume(&state, &volume, size, secrets).await) });
            }
            CsiMsg::Stats { pod_uid, name, reply } => {
                cx.spawn(async move { reply.send(stats::of_volume(&state, &pod_uid, &name).await) });
            }
            CsiMsg::Call { call, body, reply } => controller::call(&state, call, &body, reply),
            CsiMsg::TellDrivers => state.tell(),
            CsiMsg::Look => self.look(cx),
            CsiMsg::Found(sockets) => {
                self.is_looking = false;
                let before = state.sockets.replace(sockets.clone());
                for (socket, _) in before.iter().filter(|(socket, seen)| sockets.get(*socket) != Some(*seen))
                {
                    state.forget_registrar(socket);
                }
                for (socket, seen) in sockets {
                    if before.get(&socket) != Some(&seen) {
                        cx.spawn(registration::register(Rc::clone(&state), socket, seen));
                    }
                }
            }
        }
        Ok(())
    }

    fn snapshot(&self) -> Value {
        let (drivers, volumes) = self.state.as_ref().map(|state| state.counts()).unwrap_or_default();
        serde_json::json!({ "drivers": drivers, "volumes": volumes })
    }
}

impl EdgeCsi {
    /// Looks for registrars, one look at a time, and now and then for volumes that nobody has any more.
    fn look(&mut self, cx: &Context<CsiMsg>) {
        let Some(state) = self.state.clone() else { return };
        if std::mem::replace(&mut self.is_looking, true) {
            return;
        }
        self.looks = self.looks.wrapping_add(1);
        let releases = self.looks.is_multiple_of(RELEASE_EVERY);
        let myself = cx.myself();
        cx.spawn(async move {
            let sockets = match state.on_disk(|root| root.sockets()).await {
                Ok(sockets) => sockets,
                Err(reason) => {
                    events::folder_unreadable(&state.env, &reason);
                    state.sockets.borrow().clone()
                }
            };
            let _ = myself.tell(CsiMsg::Found(sockets)).await;
            // Nothing of it counts as not there: what was mounted before is in use until it is undone.
            if releases || !state.is_scanned() {
                match volumes::on_disk(&state).await {
                    Ok(all) => state.found_in_use(all),
                    Err(reason) => events::folder_unreadable(&state.env, &reason),
                }
            }
            if releases {
                state.in_use().into_iter().for_each(|id| state.release(id));
            }
        });
    }
}
