//! A CSI driver for tests that takes nothing but what the specification of CSI allows: the order of calls, their paths, their
//! fields. What a node agent does against it is kept as a fault, and answered with an error.
//!
//! A volume is a folder beside the driver; staging and publishing bind-mount it, as root. It can be told to hang, to fail, to
//! flood and to lie.

mod both;
mod controller;
mod device;
mod node;
mod registrar;
mod rules;
mod sidecar;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use csi::registration::registration_server::RegistrationServer;
use csi::v1::controller_server::ControllerServer;
use csi::v1::node_server::NodeServer;
use csi::v1::node_service_capability::rpc::Type as Capability;
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use tokio::net::UnixListener;
use tokio::sync::oneshot;
use tonic::body::Body;
use tower::Service;

use both::Both;
use controller::{ControllerService, Made};
use node::NodeService;
use registrar::Registrar;
use rules::Rules;

pub use sidecar::Sidecar;

/// 1 GiB: how large it says that a volume is.
pub const SIZE: i64 = 1 << 30;

/// What it does instead of its work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Behaviour {
    /// Its work.
    #[default]
    Right,
    /// Takes calls of volumes and never answers.
    Hangs,
    /// Refuses to publish, for good.
    FailsFinally,
    /// Says that it is busy, having done its work.
    FailsUncertainly,
    /// Its work, but that it never says what volumes hold.
    HangsAtStats,
    /// Answers with more than anybody takes.
    Floods,
    /// Says that it has published, and has not.
    Lies,
    /// Its work, but that no volume can become larger.
    TooSmall,
}

/// How it presents itself.
#[derive(Debug, Clone)]
pub struct Options {
    /// Its name.
    pub name: String,
    /// What it can do.
    pub capabilities: Vec<Capability>,
    /// As whom it registers: `CSIPlugin`.
    pub kind: String,
    /// The versions that it says.
    pub versions: Vec<String>,
}

impl Options {
    /// One that stages, and presents itself as it should.
    pub fn new(name: &str) -> Options {
        Options {
            name: name.to_owned(),
            capabilities: vec![Capability::StageUnstageVolume],
            kind: "CSIPlugin".to_owned(),
            versions: vec!["1.0.0".to_owned()],
        }
    }
}

#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) calls: Vec<String>,
    pub(crate) behaviour: Behaviour,
    pub(crate) rules: Rules,
    /// The devices that volumes are, by handle, while they are staged or published.
    pub(crate) devices: BTreeMap<String, PathBuf>,
    /// The registrations that it was told of.
    pub(crate) told: Vec<Result<(), String>>,
    /// The fields of the last call to publish, by their names.
    pub(crate) published_with: BTreeMap<String, String>,
    /// What its controller service has made and attached.
    pub(crate) made: Made,
}

impl Drop for State {
    fn drop(&mut self) {
        for device in self.devices.values() {
            drop(device::detach(device));
        }
    }
}

pub(crate) type Shared = Arc<Mutex<State>>;

pub(crate) fn lock(shared: &Shared) -> MutexGuard<'_, State> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Serves until it is to stop, each connection in a task of its own.
fn serve<S>(listener: UnixListener, service: S, mut stops: oneshot::Receiver<()>)
where
    S: Service<hyper::Request<Incoming>, Response = hyper::Response<Body>, Error = Infallible>,
    S: Clone + Send + 'static,
    S::Future: Send,
{
    tokio::spawn(async move {
        loop {
            let stream = tokio::select! {
                accepted = listener.accept() => accepted,
                _ = &mut stops => return,
            };
            let Ok((stream, _)) = stream else { return };
            let service = TowerToHyperService::new(service.clone());
            let server = http2::Builder::new(TokioExecutor::new());
            tokio::spawn(async move {
                // How a connection ends is its client's business.
                let _ = server.serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
}

/// A driver that serves, until it is dropped.
#[derive(Debug)]
pub struct StrictDriver {
    shared: Shared,
    registry: PathBuf,
    socket: PathBuf,
    volumes: PathBuf,
    _ends: [oneshot::Sender<()>; 2],
}

impl StrictDriver {
    /// Begins to serve below a kubelet's root: `plugins/NAME/csi.sock`, and the registrar in `plugins_registry`. What an earlier one
    /// of this name has mounted is known from `before`.
    ///
    /// # Errors
    /// When a folder or a socket cannot be made.
    pub fn start(
        root: &Path,
        options: &Options,
        before: Option<&StrictDriver>,
    ) -> std::io::Result<StrictDriver> {
        let own = root.join("plugins").join(&options.name);
        let volumes = own.join("volumes");
        std::fs::create_dir_all(&volumes)?;
        std::fs::create_dir_all(root.join("plugins_registry"))?;
        let (socket, registry) =
            (own.join("csi.sock"), root.join("plugins_registry").join(format!("{}-reg.sock", options.name)));
        for path in [&socket, &registry] {
            if path.exists() {
                std::fs::remove_file(path)?;
            }
        }
        let shared: Shared = before.map(|before| Arc::clone(&before.shared)).unwrap_or_default();
        lock(&shared).rules.stages = options.capabilities.contains(&Capability::StageUnstageVolume);
        lock(&shared).rules.root = root.to_owned();
        let service =
            NodeService { shared: Arc::clone(&shared), options: options.clone(), volumes: volumes.clone() };
        let controller = ControllerService { shared: Arc::clone(&shared), options: options.clone() };
        let registrar =
            Registrar { shared: Arc::clone(&shared), options: options.clone(), endpoint: socket.clone() };
        let (stop_node, node_stops) = oneshot::channel::<()>();
        let (stop_registrar, registrar_stops) = oneshot::channel::<()>();
        let both = Both { node: NodeServer::new(service), controller: ControllerServer::new(controller) };
        serve(UnixListener::bind(&socket)?, both, node_stops);
        serve(UnixListener::bind(&registry)?, RegistrationServer::new(registrar), registrar_stops);
        Ok(StrictDriver { shared, registry, socket, volumes, _ends: [stop_node, stop_registrar] })
    }

    /// The calls so far, in short: `stage h`, `publish h`, ….
    pub fn calls(&self) -> Vec<String> {
        lock(&self.shared).calls.clone()
    }

    /// How many volumes it has made, those that it found made not among them.
    pub fn made(&self) -> usize {
        lock(&self.shared).made.made
    }

    /// How many calls of its controller service are under way.
    pub fn under_way(&self) -> usize {
        lock(&self.shared).made.under_way.len()
    }

    /// What was done against CSI, in sentences.
    pub fn faults(&self) -> Vec<String> {
        lock(&self.shared).rules.faults.clone()
    }

    /// What it was told of its registrations.
    pub fn told(&self) -> Vec<Result<(), String>> {
        lock(&self.shared).told.clone()
    }

    /// The attributes, secrets and the like of the last call to publish.
    pub fn published_with(&self) -> BTreeMap<String, String> {
        lock(&self.shared).published_with.clone()
    }

    /// The last call to expand a volume: how large, where, where it is staged.
    pub fn expanded_to(&self, handle: &str) -> Option<(i64, String, String)> {
        lock(&self.shared).rules.expanded(handle)
    }

    /// From now on it behaves so.
    pub fn behave(&self, behaviour: Behaviour) {
        lock(&self.shared).behaviour = behaviour;
    }

    /// The folder that is a volume's content.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn volume(&self, handle: &str) -> std::io::Result<PathBuf> {
        let at = self.volumes.join(handle);
        std::fs::create_dir_all(&at)?;
        Ok(at)
    }

    /// The file that is a volume's content, where it is a block device.
    pub fn device_file(&self, handle: &str) -> PathBuf {
        self.volumes.join(format!("{handle}.img"))
    }

    /// Whether nothing is staged and nothing published.
    pub fn is_idle(&self) -> bool {
        lock(&self.shared).rules.is_idle()
    }

    /// The machine was started anew: no mount is left, and the driver knows of none.
    pub fn lost_mounts(&self) {
        lock(&self.shared).rules.forget();
    }

    /// Takes its sockets away, as one that ends does.
    pub fn remove_sockets(&self) {
        for socket in [&self.registry, &self.socket] {
            drop(std::fs::remove_file(socket));
        }
    }
}
