//! One EdgeCore of a cluster: its settings and its folder, how it starts and ends, and what a test sees of it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use beehive::link::memory::NetworkPath;
use beehive::{Env, Message};
use config::Threshold;
use config::edge::CgroupDriver;
use contract::NodeName;
use edge::{Dependencies, EdgeCore};
use edge_hub::Endpoints;
use edge_taskmanager::NodePrograms;
use serde_json::Value;

use crate::{Recorded, StandInRuntime, identity};

/// 60 s of the environment's clock: what a test waits for a fact at the most.
pub const LONG: Duration = Duration::from_secs(60);
/// 20 ms between looks at a fact.
pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(20);

/// An EdgeCore of a cluster.
pub struct Node {
    name: NodeName,
    env: Env,
    settings: config::edge::EdgeCore,
    folder: PathBuf,
    network_path: NetworkPath,
    /// `None`: by its own files.
    endpoints: Option<Endpoints>,
    runtime: Arc<dyn cri::Runtime>,
    stand_in: Option<StandInRuntime>,
    /// What jobs exchange; `None`: nothing.
    programs: Option<NodePrograms>,
    core: Option<EdgeCore>,
}

impl Node {
    /// One that was not started yet, in its folder. With `None` for its endpoints it dials by its own files.
    pub(crate) fn unstarted(
        (name, folder): (&str, PathBuf),
        settings: config::edge::EdgeCore,
        runtime: Arc<dyn cri::Runtime>,
        (network_path, endpoints): (NetworkPath, Option<Endpoints>),
        env: Env,
    ) -> Node {
        std::fs::create_dir_all(&folder).unwrap();
        let name = NodeName::parse(name).unwrap();
        Node {
            name,
            env,
            settings,
            folder,
            network_path,
            endpoints,
            runtime,
            stand_in: None,
            programs: None,
            core: None,
        }
    }

    /// A node that has joined by itself: it dials `quic`, a list of servers, by the files that its settings name. It is not started yet.
    ///
    /// # Panics
    /// When the name is no node's, or its folder cannot be made.
    pub fn joined(name: &str, folder: PathBuf, quic: String, runtime: StandInRuntime) -> Node {
        let settings = Node::joined_settings(folder.clone(), name, quic);
        let ways = (NetworkPath::new(), None);
        let mut node =
            Node::unstarted((name, folder), settings, Arc::new(runtime.clone()), ways, Env::real());
        node.stands_on(runtime);
        node
    }

    /// The settings of such a node: they name the files into which it is to join.
    pub fn joined_settings(folder: PathBuf, name: &str, quic: String) -> config::edge::EdgeCore {
        Node::settings_in(folder, name, (quic, String::new()))
    }

    /// Settings of a node whose folder this is, and which dials QUIC's and WebSocket's lists; an empty one: not that.
    pub(crate) fn settings_in(
        folder: PathBuf,
        name: &str,
        (quic, websocket): (String, String),
    ) -> config::edge::EdgeCore {
        let mut settings = config::edge::EdgeCore::default();
        // The machine's own plugins are none of a test's.
        settings.modules.edged.device_plugin_path = Default::default();
        settings.modules.edged.pod_resources_path = Default::default();
        settings.database.data_source = folder.join("edgecore.db");
        settings.modules.edged.hostname_override = name.to_owned();
        settings.modules.edged.node_ip = "127.0.0.1".to_owned();
        settings.modules.edged.root_directory = folder.join("kubelet");
        settings.modules.edged.tailored_kubelet_config.pod_logs_dir = folder.join("logs");
        // Many nodes share this machine.
        settings.modules.edged.tailored_kubelet_config.read_only_port = 0;
        settings.modules.edge_stream.socket = PathBuf::new();
        // A test is not about how full this machine's disk is.
        settings.modules.edged.tailored_kubelet_config.eviction_hard.nodefs_available = Threshold::Part(0);
        settings.modules.edged.tailored_kubelet_config.eviction_hard.imagefs_available = Threshold::Part(0);
        settings.modules.edged.tailored_kubelet_config.image_gc_high_threshold_percent = 100;
        settings.modules.event_bus.mqtt_server_internal = "127.0.0.1:0".to_owned();
        let hub = &mut settings.modules.edge_hub;
        hub.websocket.enable = !websocket.is_empty();
        hub.quic.server = quic;
        if hub.websocket.enable {
            hub.websocket.server = websocket;
        }
        hub.tls_ca_file = folder.join("pki/rootCA.crt");
        hub.tls_cert_file = folder.join("pki/server.crt");
        hub.tls_private_key_file = folder.join("pki/server.key");
        settings.modules.device_twin.dmi_sock_path = folder;
        settings
    }

    /// Its runtime is this one in memory. Nothing runs there, so nothing is bounded: it is said to make the pods' cgroups.
    pub(crate) fn stands_on(&mut self, runtime: StandInRuntime) {
        self.stand_in = Some(runtime);
        self.settings.modules.edged.tailored_kubelet_config.cgroup_driver = CgroupDriver::Systemd;
    }

    /// Its name.
    pub fn name(&self) -> &str {
        self.name.as_str()
    }

    /// Its folder: store, volumes, `dmi.sock`.
    pub fn folder(&self) -> &std::path::Path {
        &self.folder
    }

    /// The network path to the cloud. A carrier of packets has none that can be cut: use a relay.
    pub fn network_path(&self) -> &NetworkPath {
        &self.network_path
    }

    /// Its runtime in memory.
    ///
    /// # Panics
    /// When it was made over another one.
    pub fn runtime(&self) -> &StandInRuntime {
        self.stand_in.as_ref().unwrap()
    }

    /// The EdgeCore itself: its store and its actors.
    ///
    /// # Panics
    /// While it is stopped.
    pub fn core(&self) -> &EdgeCore {
        self.core.as_ref().unwrap()
    }

    /// Puts a probe at one of its mailboxes: what `pick` makes of each message is noted before the actor is handed
    /// it. A mailbox has room for one probe, and an EdgeCore that is started again has none.
    ///
    /// # Panics
    /// When no mailbox of `M` has that name.
    pub fn probe<M: Message, T: Send + 'static>(
        &self,
        mailbox: &str,
        pick: impl Fn(&M) -> Option<T> + Send + Sync + 'static,
    ) -> Recorded<T> {
        let recorded = Recorded::default();
        self.core().tap(mailbox, recorded.tap(pick)).unwrap();
        recorded
    }

    /// The snapshot of one of its actors.
    pub async fn snapshot(&self, actor: &str) -> Value {
        let report = self.core().inspector().report(LONG).await;
        report.actors.into_iter().find(|a| a.name == actor).map(|a| a.snapshot).unwrap_or_default()
    }

    /// Whether it runs.
    pub fn is_up(&self) -> bool {
        self.core.is_some()
    }

    /// Its settings, as `edgecore.yaml` would have them.
    pub fn settings(&self) -> &config::edge::EdgeCore {
        &self.settings
    }

    /// Other settings, for its next start.
    pub fn configure(&mut self, set: impl FnOnce(&mut config::edge::EdgeCore)) {
        set(&mut self.settings);
    }

    /// Starts it. Neither the cloud nor the runtime has to be there.
    pub async fn start(&mut self) {
        // The tasks of one that was stopped a moment ago may still hold the store: a process would have ended.
        let opened = async {
            loop {
                match edge::open_store(&self.settings, &self.name, &self.env) {
                    Err(edge_store::StoreError::InUse { .. }) => self.env.sleep(LOOK_EVERY).await,
                    other => return other.unwrap(),
                }
            }
        };
        let store = self.env.timeout(LONG, opened).await.expect("the store is let go");
        let (endpoints, certificates) = match self.endpoints.clone() {
            Some(endpoints) => (endpoints, None),
            None => {
                let (endpoints, certificates, named) = identity::identity(&self.settings, &store, &self.env);
                (endpoints, Some((certificates, named)))
            }
        };
        let parts = Dependencies {
            node: self.name.clone(),
            common_name: format!("system:node:{}", self.name),
            endpoints,
            certificates,
            network: None,
            programs: self.programs.clone(),
            checks: None,
            runtime: Arc::clone(&self.runtime),
            store,
        };
        self.core = Some(EdgeCore::start(&self.settings, parts, self.env.clone()).await.unwrap());
    }

    /// Has jobs exchange an `edgecore.yaml` that says this and nothing else, by this `keadm`, from the next start on. Answers where it is.
    pub fn exchange_settings_by(&mut self, keadm: &Path, text: &str) -> PathBuf {
        let config = self.folder.join("edgecore.yaml");
        std::fs::write(&config, text).unwrap();
        self.programs = Some(NodePrograms {
            keadm: keadm.to_owned(),
            config: config.clone(),
            store: self.settings.database.data_source.clone(),
            runtime_endpoint: String::new(),
            settings: Arc::new(config::edge::EdgeCore::load(&config).unwrap()),
            fits: |_| Ok(()),
        });
        config
    }

    /// Ends it and starts it with other settings.
    pub async fn reconfigure(&mut self, set: impl FnOnce(&mut config::edge::EdgeCore)) {
        self.stop().await;
        set(&mut self.settings);
        self.start().await;
    }

    /// As when `edgecore` has begun so often in one boot of the machine, each time soon after the last, and nobody told it to end.
    ///
    /// # Panics
    /// While it runs.
    pub async fn begin_runs(&self, times: usize) {
        assert!(self.core.is_none(), "the store is in use");
        let boot_id = self.settings.database.data_source.with_extension("boot_id");
        std::fs::write(&boot_id, "one boot").unwrap();
        let store = edge::open_store(&self.settings, &self.name, &self.env).unwrap();
        for _ in 0..times {
            edge::begin_run(&store, &self.env, &boot_id).await.unwrap();
        }
    }

    /// Takes its store away, as when its disk was replaced; the settings and the certificate stay.
    ///
    /// # Panics
    /// While it runs.
    pub fn lose_store(&self) {
        assert!(self.core.is_none(), "the store is in use");
        let path = &self.settings.database.data_source;
        let folder = path.parent().unwrap();
        let name = path.file_name().unwrap().to_str().unwrap();
        for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
            if entry.file_name().to_str().is_some_and(|found| found.starts_with(name)) {
                std::fs::remove_file(entry.path()).unwrap();
            }
        }
    }

    /// Ends it in order; containers go on.
    pub async fn stop(&mut self) {
        if let Some(core) = self.core.take() {
            core.stop(LONG).await;
        }
    }
}
