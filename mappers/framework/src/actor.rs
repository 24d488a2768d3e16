//! The mapper's actor: its registration at edgecore, its device panel, its server of the device mapper interface, and
//! the devices as its children.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use apimachinery::NamespacedName;
use beehive::{Actor, Address, Context, Fault};
use dmi::v1beta1::{Device as DeviceObject, DeviceStatus, MapperInfo, MapperRegisterResponse};
use futures::future::AbortHandle;
use tokio::net::UnixListener;
use tokio::sync::watch;
use tonic::Status;

use crate::backoff::Backoff;
use crate::commands::CommandLog;
use crate::device::{Description, Device, DeviceInstance, DeviceMsg, policy};
use crate::edgecore::{EdgeCore, described, twin};
use crate::message::MapperMsg;
use crate::panel::DevicePanel;
use crate::protocol::Protocol;
use crate::push::{self, PUSH, Pusher, Pushers};
use crate::rest::Rest;
use crate::{events, rest, server};

/// 200 ms before the second try to register: soon, because edgecore is on the same machine. Doubles up to 5 s, so that a
/// mapper is back soon after a long repair.
const REGISTER_RETRY: Backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(5));
/// 20 s: an exchange and a report of a device that is removed may take their deadlines.
const REMOVED_STOPS_WITHIN: Duration = Duration::from_secs(20);
/// 5 s between two looks whether the mapper's socket is still where edgecore calls: somebody may have cleared the folder, and a
/// mapper whose socket is gone looks healthy and is told nothing.
const SOCKET_LOOK: Duration = Duration::from_secs(5);
/// The kind of a mapper's children.
pub(crate) const DEVICE: &str = "device";

/// What a mapper is made of.
pub(crate) struct MapperContext<P: Protocol> {
    pub(crate) protocol: Rc<P>,
    pub(crate) info: MapperInfo,
    /// The mapper's own socket.
    pub(crate) socket: PathBuf,
    /// Served by the first incarnation; later ones listen anew.
    pub(crate) listener: Rc<Cell<Option<UnixListener>>>,
    pub(crate) edgecore: EdgeCore,
    pub(crate) commands: CommandLog,
    /// Where readings are pushed.
    pub(crate) pushers: Pushers,
    /// The folder below which streams are saved.
    pub(crate) streams: Option<Arc<Path>>,
    /// Counts lost connections to edgecore.
    pub(crate) losses: watch::Receiver<u64>,
    /// The mapper's address, for its server.
    pub(crate) address: Address<MapperMsg>,
    /// Its REST interface, if there is one.
    pub(crate) rest: Option<Rest>,
}

impl<P: Protocol> Clone for MapperContext<P> {
    fn clone(&self) -> Self {
        MapperContext {
            protocol: Rc::clone(&self.protocol),
            info: self.info.clone(),
            socket: self.socket.clone(),
            listener: Rc::clone(&self.listener),
            edgecore: self.edgecore.clone(),
            commands: self.commands.clone(),
            pushers: self.pushers.clone(),
            streams: self.streams.clone(),
            losses: self.losses.clone(),
            address: self.address.clone(),
            rest: self.rest.clone(),
        }
    }
}

pub(crate) struct Mapper<P: Protocol> {
    parts: MapperContext<P>,
    panel: DevicePanel,
    devices: BTreeMap<NamespacedName, (Rc<DeviceInstance>, Address<DeviceMsg>)>,
    retry: Backoff,
    /// The server of its socket, and the look at it.
    serving: Vec<AbortHandle>,
    /// Why the last registration failed, so that each reason is logged once.
    fault: Option<String>,
}

impl<P: Protocol> Mapper<P> {
    pub(crate) fn new(parts: MapperContext<P>) -> Self {
        Mapper {
            parts,
            panel: DevicePanel::default(),
            devices: BTreeMap::new(),
            retry: REGISTER_RETRY,
            serving: Vec::new(),
            fault: None,
        }
    }
}

impl<P: Protocol> Actor for Mapper<P> {
    type Message = MapperMsg;

    async fn started(&mut self, cx: &mut Context<MapperMsg>) -> Result<(), Fault> {
        // Served before the registration, because edgecore may call back at once.
        let listener = match self.parts.listener.take() {
            Some(listener) => listener,
            None => dmi::listen(&self.parts.socket).map_err(|error| Fault::from_error(&error))?,
        };
        self.serve(listener, cx);
        // The actors of the targets have ended with the incarnation before.
        self.parts.pushers.restarted();
        if let Some(rest) = &self.parts.rest {
            let (listener, allowed, address) = rest.parts().map_err(|error| Fault::from_error(&error))?;
            let (env, myself) = (cx.env().clone(), cx.myself());
            cx.spawn(async move {
                rest::serve(listener, allowed, address, env).await;
                let _ = myself.tell(MapperMsg::ServerEnded("the REST interface ended".to_owned())).await;
            });
        }
        cx.after(Duration::ZERO, MapperMsg::Register);
        Ok(())
    }

    async fn handle(&mut self, message: MapperMsg, cx: &mut Context<MapperMsg>) -> Result<(), Fault> {
        match message {
            MapperMsg::Register => self.register(cx),
            MapperMsg::RegistrationAnswered(since, answer) => self.registration_answered(since, *answer, cx),
            MapperMsg::EdgeCoreLost => {
                events::edgecore_lost(cx.env());
                self.register_later(cx);
            }
            MapperMsg::SocketGone => {
                events::socket_gone(cx.env(), &self.parts.socket);
                let listener = dmi::listen(&self.parts.socket).map_err(|error| Fault::from_error(&error))?;
                self.serve(listener, cx);
                // What edgecore wanted meanwhile comes with its answer.
                self.register(cx);
            }
            MapperMsg::ServerEnded(reason) => {
                let socket = self.parts.socket.display();
                return Err(Fault::new(format!("serving on {socket} failed: {reason}")));
            }
            MapperMsg::RegisterDevice(device, reply) => {
                let outcome = self.panel.register_device(*device).map(|(name, is_changed)| {
                    self.put(&name, is_changed, cx);
                });
                reply.send(outcome);
            }
            MapperMsg::RemoveDevice(name, reply) => {
                let was_there = self.panel.remove_device(&name);
                self.remove(&name, cx);
                reply.send(was_there);
            }
            MapperMsg::RegisterModel(model, reply) => {
                let outcome = self.panel.register_model(*model).map(|devices| {
                    devices.iter().for_each(|name| self.put(name, true, cx));
                });
                reply.send(outcome);
            }
            MapperMsg::RemoveModel(name, reply) => {
                self.panel.remove_model(&name);
                reply.send(());
            }
            MapperMsg::FindDevice(name, reply) => {
                reply.send(self.devices.get(&name).map(|(_, address)| address.clone()));
            }
            MapperMsg::DescribeDevice(name, reply) => {
                let (methods, model) = (self.panel.methods(&name), self.panel.model(&name));
                reply.send(methods.zip(model));
            }
            MapperMsg::GetDevice(name, reply) => reply.send(self.device(&name).map(Box::new)),
        }
        let (devices, models) = self.panel.sizes();
        #[allow(clippy::cast_precision_loss)]
        for (name, size) in [("mapper_devices", devices), ("mapper_models", models)] {
            cx.env().measure(name, size as f64);
        }
        Ok(())
    }

    fn snapshot(&self) -> serde_json::Value {
        let (devices, models) = self.panel.sizes();
        serde_json::json!({ "devices": devices, "models": models, "fault": self.fault })
    }
}

/// Which file it is; `None`: there is none.
fn identity(socket: &Path) -> Option<(u64, u64)> {
    let found = std::fs::symlink_metadata(socket).ok()?;
    Some((found.dev(), found.ino()))
}

impl<P: Protocol> Mapper<P> {
    /// Serves the socket in the place of the one before, and looks after it.
    fn serve(&mut self, listener: UnixListener, cx: &Context<MapperMsg>) {
        self.serving.drain(..).for_each(|before| before.abort());
        let (serving, myself) = (server::serve(listener, self.parts.address.clone()), cx.myself());
        let server = cx.spawn(async move {
            let reason = match serving.await {
                Ok(()) => "the server ended".to_owned(),
                Err(error) => Fault::from_error(&error).reason,
            };
            let _ = myself.tell(MapperMsg::ServerEnded(reason)).await;
        });
        let (env, myself, socket) = (cx.env().clone(), cx.myself(), self.parts.socket.clone());
        let look = cx.spawn(async move {
            let look = async || {
                let socket = socket.clone();
                env.blocking(move || identity(&socket)).await.ok().flatten()
            };
            let made = look().await;
            loop {
                env.sleep(SOCKET_LOOK).await;
                if look().await != made {
                    let _ = myself.tell(MapperMsg::SocketGone).await;
                    return;
                }
            }
        });
        self.serving = vec![server, look];
    }

    fn register(&mut self, cx: &Context<MapperMsg>) {
        let since = self.panel.registering();
        let (edgecore, info, myself) = (self.parts.edgecore.clone(), self.parts.info.clone(), cx.myself());
        self.parts.losses.borrow_and_update();
        cx.spawn(async move {
            let answer = edgecore.register(info).await;
            let _ = myself.tell(MapperMsg::RegistrationAnswered(since, Box::new(answer))).await;
        });
    }

    fn register_later(&mut self, cx: &Context<MapperMsg>) {
        cx.after(cx.env().jitter(self.retry.delay()), MapperMsg::Register);
    }

    fn registration_answered(
        &mut self,
        since: u64,
        answer: Result<MapperRegisterResponse, Status>,
        cx: &Context<MapperMsg>,
    ) {
        let answer = match answer {
            Ok(answer) => answer,
            Err(status) => {
                let reason = described(&status);
                let is_new = self.fault.as_ref() != Some(&reason);
                events::registration_failed(cx.env(), &reason, is_new);
                self.fault = Some(reason);
                return self.register_later(cx);
            }
        };
        events::registered(cx.env(), answer.device_list.len(), answer.model_list.len());
        self.retry.reset();
        self.fault = None;
        // Before new devices come, which have reported nothing yet that would have to be reported again.
        for (instance, address) in self.devices.values() {
            instance.registered();
            let _ = address.try_tell(DeviceMsg::Registered);
        }
        let outcome = self.panel.registered(since, answer);
        for error in &outcome.refused {
            events::registration_refused(cx.env(), error);
        }
        for name in &outcome.removed {
            self.remove(name, cx);
        }
        for name in outcome.put.union(&outcome.changed) {
            self.put(name, outcome.changed.contains(name), cx);
        }
        let lost = self.parts.pushers.all_have_come();
        events::push_lost(cx.env(), lost);
        let (mut losses, myself) = (self.parts.losses.clone(), cx.myself());
        cx.spawn(async move {
            if losses.changed().await.is_ok() {
                let _ = myself.tell(MapperMsg::EdgeCoreLost).await;
            }
        });
    }

    /// A device of the panel is new or changed, or was named again.
    fn put(&mut self, name: &NamespacedName, is_changed: bool, cx: &Context<MapperMsg>) {
        let Some((device, model)) = self.panel.device(name) else { return };
        if is_changed {
            // Before its actor looks for them.
            self.push_to(name, push::targets(device), cx);
        }
        let describe = || Description { device: device.clone(), model: model.cloned() };
        if let Some((instance, address)) = self.devices.get(name) {
            if is_changed || instance.is_refused() {
                instance.describe(Some(describe()));
                // One whose mailbox is full is about to look anyway.
                let _ = address.try_tell(DeviceMsg::Described);
            }
            return;
        }
        let instance = Rc::new(DeviceInstance::new(name.clone(), describe()));
        let MapperContext { protocol, edgecore, commands, pushers, streams, .. } = self.parts.clone();
        let shared = Rc::clone(&instance);
        let address = cx.child((DEVICE, name.to_string()), policy(), move || {
            let (commands, pushers, streams) = (commands.clone(), pushers.clone(), streams.clone());
            Device::new(
                Rc::clone(&shared),
                Rc::clone(&protocol),
                edgecore.clone(),
                commands,
                pushers,
                streams,
            )
        });
        self.devices.insert(name.clone(), (instance, address));
    }

    fn remove(&mut self, name: &NamespacedName, cx: &Context<MapperMsg>) {
        if let Some((instance, _)) = self.devices.remove(name) {
            instance.describe(None);
            drop(cx.stop_child((DEVICE, name.to_string()), REMOVED_STOPS_WITHIN));
        }
        self.push_to(name, BTreeSet::new(), cx);
    }

    /// The device pushes to these targets from now on.
    fn push_to(&self, name: &NamespacedName, targets: BTreeSet<push::Target>, cx: &Context<MapperMsg>) {
        let change = self.parts.pushers.follow(name, targets);
        for ended in change.ended {
            drop(cx.stop_child((PUSH, ended), REMOVED_STOPS_WITHIN));
        }
        for (started, outbox) in change.started {
            let pushers = self.parts.pushers.clone();
            // The outbox is how it is told of readings; nobody else has its address.
            drop(cx.child((PUSH, started), push::policy(), move || {
                Pusher::new(Rc::clone(&outbox), pushers.clone())
            }));
        }
    }

    /// A device with what is known of its twins.
    fn device(&self, name: &NamespacedName) -> Option<DeviceObject> {
        let (device, _) = self.panel.device(name)?;
        let twins = self.devices.get(name).map(|(instance, _)| instance.twins().iter().map(twin).collect());
        let status = device.status.clone().unwrap_or_default();
        let status = DeviceStatus { twins: twins.unwrap_or_default(), ..status };
        Some(DeviceObject { status: Some(status), ..device.clone() })
    }
}
