//! Where it plays: a host with a private containerd, a cloud of one process, a node, and a relay between the two.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use testhost::{Daemon, TestHost, free_ports};
use tokio::task::block_in_place;

use crate::Console;
use crate::kubectl::{Kubectl, said};
use crate::log::Log;
use crate::metrics::Metrics;
use crate::process;
use crate::relay::{Relay, TcpRelay};
use crate::uploads;

/// The node's name.
pub(crate) const NODE: &str = "edge-1";
/// For a cold, shared machine.
pub(crate) const LONG: Duration = Duration::from_secs(60);
/// 50 ms between looks at what is waited for.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// 10 ms between looks at the metrics: they say when the last acknowledgement was taken.
const METRICS_EVERY: Duration = Duration::from_millis(10);
/// The broker's port: the node has a network of its own.
const MQTT: u16 = 1883;

/// Ports of the cloud on loopback that were free a moment ago.
struct Ports {
    api: u16,
    link: u16,
    websocket: u16,
    enrolment: u16,
    monitor: u16,
}

/// What the node may reach its cloud over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transports {
    /// QUIC alone: nothing gets around what happens to UDP.
    Quic,
    /// WebSocket, too, once the relay serves TCP.
    QuicAndWebSocket,
}

/// The stage. Dropping it ends and removes all of it.
pub struct Testbed {
    pub(crate) relay: Relay,
    pub(crate) tcp: TcpRelay,
    transports: Transports,
    pub(crate) kubectl: Kubectl,
    cloudcore: Option<Daemon>,
    edgecore: Option<Daemon>,
    binaries: PathBuf,
    folder: PathBuf,
    ports: Ports,
    /// More settings of CloudHub.
    hub_settings: String,
    /// At least this long is waited for whatever should come.
    patience: Duration,
    /// More addresses for CloudCore's certificate.
    advertised: Vec<String>,
    /// The node's address as the cloud's side sees it, and the reverse.
    addresses: (String, String),
    // The last, so that nothing of ours is left in its namespace.
    pub(crate) host: TestHost,
}

impl Testbed {
    /// Brings up a cloud and a node that is Ready and linked over QUIC. `name` shows in the folder and the namespace.
    ///
    /// # Errors
    /// When something is missing on this machine, or a daemon does not come up.
    pub async fn new(
        name: &str,
        binaries: &Path,
        transports: Transports,
        seed: u64,
        console: &Console,
    ) -> Result<Testbed> {
        Testbed::with_settings(name, binaries, transports, seed, console, String::new()).await
    }

    /// The same for programs that take their time, with which nothing is given up before.
    pub(crate) async fn with_patience(
        name: &str,
        binaries: &Path,
        seed: u64,
        console: &Console,
        patience: Duration,
    ) -> Result<Testbed> {
        Testbed::make(name, binaries, Transports::Quic, seed, console, String::new(), patience).await
    }

    /// The same with more lines below `cloudHub:` in `cloudcore.yaml`.
    ///
    /// # Errors
    /// See [`Testbed::new`].
    pub async fn with_settings(
        name: &str,
        binaries: &Path,
        transports: Transports,
        seed: u64,
        console: &Console,
        hub_settings: String,
    ) -> Result<Testbed> {
        Testbed::make(name, binaries, transports, seed, console, hub_settings, Duration::ZERO).await
    }

    async fn make(
        name: &str,
        binaries: &Path,
        transports: Transports,
        seed: u64,
        console: &Console,
        hub_settings: String,
        patience: Duration,
    ) -> Result<Testbed> {
        console.at("bringing up a cloud, and a node in a network namespace with a containerd of its own");
        let host = block_in_place(|| TestHost::builder(name).uplink().start())?;
        let addresses = host.uplink().context("the host has no uplink")?;
        let folder = host.dir().join("stage");
        std::fs::create_dir_all(&folder).context("make the stage's folder")?;
        let [api, link, websocket, enrolment, monitor] = free_ports()?;
        let relay = Relay::start(([127, 0, 0, 1], link).into(), seed).await?;
        let tcp = TcpRelay::start(([127, 0, 0, 1], websocket).into(), &relay).await?;
        let kubectl = Kubectl {
            kubeconfig: folder.join("cloud/admin.kubeconfig"),
            cache: folder.join("kubectl-cache"),
        };
        let mut testbed = Testbed {
            relay,
            tcp,
            transports,
            kubectl,
            cloudcore: None,
            edgecore: None,
            binaries: binaries.to_owned(),
            folder,
            ports: Ports { api, link, websocket, enrolment, monitor },
            hub_settings,
            patience,
            advertised: Vec::new(),
            addresses,
            host,
        };
        if let Err(error) = testbed.up().await {
            bail!("{error:#}\n{}", testbed.log_tails());
        }
        Ok(testbed)
    }

    async fn up(&mut self) -> Result<()> {
        self.write_cloudcore_config()?;
        self.start_cloudcore()?;
        self.until("the API server answers kubectl", LONG, async |testbed| {
            if !testbed.kubectl.kubeconfig.exists() {
                return Ok(None);
            }
            let served =
                testbed.kubectl.run(&["get", "crd", "devices.devices.kubeedge.io", "-o", "name"]).await?;
            Ok((!served.is_empty()).then_some(()))
        })
        .await?;
        self.join().await?;
        self.start_edgecore()?;
        self.until("the node is Ready", LONG, async |testbed| testbed.ready().await).await?;
        Ok(())
    }

    fn write_cloudcore_config(&self) -> Result<()> {
        let ports = &self.ports;
        let more: String = self.advertised.iter().map(|address| format!(", {address}")).collect();
        let config = format!(
            "apiVersion: cloudcore.config.kubeedge.io/v1alpha1\nkind: CloudCore\n\
             commonConfig: {{monitorServer: {{bindAddress: '127.0.0.1:{}'}}}}\n\
             modules:\n  cloudHub:\n    advertiseAddress: [127.0.0.1, {}{more}]\n    {}\
             quic: {{address: 127.0.0.1, port: {}}}\n    websocket: {{enable: true, address: 127.0.0.1, port: {}}}\n    https: {{address: 127.0.0.1, port: {}}}\n  \
             router: {{enable: true, port: 0, peers: {{port: 0}}, allowedTargets: [127.0.0.0/8]}}\n",
            ports.monitor, self.addresses.1, self.hub_settings, ports.link, ports.websocket, ports.enrolment,
        );
        std::fs::write(self.folder.join("cloudcore.yaml"), config).context("write cloudcore.yaml")
    }

    /// CloudCore's certificate names this address, too, from its next start on.
    pub(crate) fn advertise(&mut self, address: &str) -> Result<()> {
        self.advertised.push(address.to_owned());
        self.write_cloudcore_config()
    }

    /// Where machines become nodes, on loopback.
    pub(crate) fn enrolment_port(&self) -> u16 {
        self.ports.enrolment
    }

    async fn join(&mut self) -> Result<()> {
        let kubeconfig = self.kubectl.kubeconfig.display().to_string();
        // The cloud makes its keys right after its API is up.
        let (token, _) = self
            .until("keadm gettoken", LONG, async |testbed| {
                let words = ["gettoken", "--kube-config", &kubeconfig, "--edgenode-name", NODE];
                said(tokio::process::Command::new(testbed.binaries.join("keadm")).args(words), "")
                    .await
                    .map(Some)
            })
            .await?;
        let (inner, outer) = &self.addresses;
        let mut settings = self.host.edgecore_settings(&self.folder);
        settings.extend([
            format!("modules.edged.bootIDFile={}", self.host.boot_id_file().display()),
            format!("modules.edged.nodeIP={inner}"),
            // The relay is the only thing of the cloud that the node's network reaches.
            format!("modules.edgeHub.websocket.enable={}", self.transports == Transports::QuicAndWebSocket),
            format!("modules.edgeHub.websocket.server={outer}:{}", self.tcp.port),
            format!("modules.edgeHub.quic.server={outer}:{}", self.relay.port),
            format!("modules.eventBus.mqttServerInternal={inner}:{MQTT}"),
            format!("modules.edgeStream.socket={}", self.node_socket().display()),
            format!("modules.edgeStream.tokenFile={}", self.folder.join("kubelet.token").display()),
        ]);
        let mut command = tokio::process::Command::new(self.binaries.join("keadm"));
        command.arg("join").arg(format!("--cloudcore-ipport=127.0.0.1:{}", self.ports.link));
        command.arg(format!("--token={}", token.trim())).arg(format!("--edgenode-name={NODE}"));
        command.arg("--certport").arg(self.ports.enrolment.to_string());
        command.arg("--config").arg(self.edgecore_config());
        for setting in &settings {
            command.arg("--set").arg(setting);
        }
        said(&mut command, "").await.map(drop)
    }

    fn edgecore_config(&self) -> PathBuf {
        self.folder.join("edgecore.yaml")
    }

    /// The stage's folder, which has the node's, too.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The programs under test.
    pub(crate) fn binaries(&self) -> &Path {
        &self.binaries
    }

    /// Where agents on the node ask it.
    pub(crate) fn node_socket(&self) -> PathBuf {
        self.folder.join("kubelet.sock")
    }

    /// Where device plugins listen.
    pub(crate) fn device_plugins(&self) -> PathBuf {
        self.folder.join("device-plugins")
    }

    /// Where MQTT clients find the node's broker.
    pub(crate) fn broker(&self) -> (String, u16) {
        (self.addresses.0.clone(), MQTT)
    }

    pub(crate) fn start_edgecore(&mut self) -> Result<()> {
        let program = self.binaries.join("edgecore").display().to_string();
        let mut command = self.host.command(&program);
        command.arg("--config").arg(self.edgecore_config());
        self.edgecore = Some(Daemon::start("edgecore", &self.folder, &mut command)?);
        Ok(())
    }

    pub(crate) fn start_cloudcore(&mut self) -> Result<()> {
        let mut command = Command::new(self.binaries.join("cloudcore"));
        command.arg("--config").arg(self.folder.join("cloudcore.yaml"));
        command.arg("--standalone").arg("--standalone-dir").arg(self.folder.join("cloud"));
        command.arg("--standalone-listen").arg(format!("127.0.0.1:{}", self.ports.api));
        command.env("RUST_LOG", format!("info,{}=debug", uploads::TARGET));
        self.cloudcore = Some(Daemon::start("cloudcore", &self.folder, &mut command)?);
        Ok(())
    }

    /// `kill -9`.
    pub(crate) fn kill_edgecore(&mut self) {
        self.edgecore = None;
    }

    /// `kill -9`.
    pub(crate) fn kill_cloudcore(&mut self) {
        self.cloudcore = None;
    }

    /// Fails when a daemon that should run has ended by itself.
    pub(crate) fn check(&mut self) -> Result<()> {
        for part in [&mut self.cloudcore, &mut self.edgecore].into_iter().flatten() {
            part.check()?;
        }
        Ok(())
    }

    /// Whether kubectl shows the node Ready.
    pub(crate) async fn ready(&self) -> Result<Option<()>> {
        let line = self.kubectl.run(&["get", "node", NODE, "--no-headers"]).await?;
        Ok(line.split_whitespace().any(|word| word == "Ready").then_some(()))
    }

    /// Looks until `holds` answers, and says how long it took. Errors of a look are told only if it never holds.
    pub(crate) async fn until<T>(
        &mut self,
        what: &str,
        limit: Duration,
        mut holds: impl AsyncFnMut(&Testbed) -> Result<Option<T>>,
    ) -> Result<(T, Duration)> {
        let (begun, limit) = (Instant::now(), limit.max(self.patience));
        let mut last = None;
        while begun.elapsed() < limit {
            self.check()?;
            match tokio::time::timeout(limit, holds(self)).await {
                Ok(Ok(Some(found))) => return Ok((found, begun.elapsed())),
                Ok(Ok(None)) | Err(_) => {}
                Ok(Err(error)) => last = Some(error),
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        let why = last.map(|error| format!(" (last: {error:#})")).unwrap_or_default();
        bail!("not seen within {} s: {what}{why}", limit.as_secs())
    }

    /// Waits until the node is linked and holds all that it should, at least so many objects. Answers when that was.
    pub(crate) async fn until_held(&mut self, at_least: usize) -> Result<Instant> {
        let begun = Instant::now();
        while begun.elapsed() < LONG {
            self.check()?;
            let metrics = Metrics::read(self.monitor()).await?;
            let of = |name: &str| metrics.of(name, NODE);
            let is = |name: &str, value: f64| of(name) == Some(value);
            #[allow(clippy::cast_precision_loss)] // a few thousand
            let has_all = of("kubehive_node_objects_desired") >= Some(at_least as f64);
            if has_all
                && is("kubehive_node_objects_waiting", 0.0)
                && is("kubehive_node_linked", 1.0)
                && is("kubehive_node_in_sync", 1.0)
            {
                return Ok(Instant::now());
            }
            tokio::time::sleep(METRICS_EVERY).await;
        }
        bail!("not seen within {} s: the node holds all {at_least} objects", LONG.as_secs())
    }

    /// `edgecore`'s resident memory, in MB of 1,000,000 bytes.
    pub(crate) fn resident(&self) -> Result<f64> {
        let edgecore = self.edgecore.as_ref().context("edgecore does not run")?;
        Ok(process::resident(edgecore.id())? / 1e6)
    }

    /// Seconds of a core that `edgecore` has used.
    pub(crate) fn spent(&self) -> Result<f64> {
        process::spent(self.edgecore.as_ref().context("edgecore does not run")?.id())
    }

    /// How many addresses the network plugin holds for pods.
    pub(crate) fn reserved_addresses(&self) -> Result<usize> {
        let folder = self.host.dir().join("ipam/kubehive-test");
        let prefix = self.host.pod_prefix();
        let files = std::fs::read_dir(&folder).with_context(|| format!("read {}", folder.display()))?;
        Ok(files.flatten().filter(|file| file.file_name().to_string_lossy().starts_with(&prefix)).count())
    }

    /// Where CloudCore's monitor listens.
    pub(crate) fn monitor(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.ports.monitor).into()
    }

    pub(crate) fn cloudcore_log(&self) -> PathBuf {
        self.folder.join("cloudcore.log")
    }

    fn edgecore_log(&self) -> PathBuf {
        self.folder.join("edgecore.log")
    }

    /// What the two daemons say from now on: the cloud's and the node's.
    pub(crate) fn words(&self) -> Result<(Log, Log)> {
        Ok((Log::from_now(self.cloudcore_log())?, Log::from_now(self.edgecore_log())?))
    }

    /// What carries the link by EdgeCore's last word about it.
    pub(crate) fn carrier(&self) -> Result<Option<String>> {
        let lines = Log::whole(self.edgecore_log()).lines()?;
        let last = lines.iter().rfind(|line| {
            [crate::log::NODE_LINKED, crate::log::NODE_UNLINKED].iter().any(|word| line.contains(word))
        });
        let carrier = last.and_then(|line| line.split_once("carrier=")).map(|(_, rest)| rest);
        Ok(carrier
            .map(|rest| rest.split_whitespace().next().unwrap_or_default().trim_matches('"').to_owned()))
    }

    /// The logs, and how many lines of each are told.
    fn logs(&self) -> [(&'static str, PathBuf, usize); 3] {
        [
            ("cloudcore", self.cloudcore_log(), 25),
            ("edgecore", self.edgecore_log(), 25),
            ("containerd", self.host.dir().join("containerd.log"), 5),
        ]
    }

    /// The ends of the logs.
    pub fn log_tails(&self) -> String {
        let ends = self
            .logs()
            .map(|(name, path, lines)| format!("--- the end of {name}'s log\n{}", last(&path, lines)));
        ends.join("\n")
    }

    /// Copies the logs into `folder`.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn keep_logs(&self, folder: &Path) -> Result<()> {
        std::fs::create_dir_all(folder).with_context(|| format!("make folder {}", folder.display()))?;
        for (name, path, _) in self.logs() {
            std::fs::copy(&path, folder.join(format!("{name}.log")))
                .with_context(|| format!("keep {name}'s log"))?;
        }
        Ok(())
    }
}

/// The last lines of a log but those about single uploads.
fn last(path: &Path, count: usize) -> String {
    let lines = Log::whole(path.to_owned()).lines().unwrap_or_default();
    let lines: Vec<&str> =
        lines.iter().map(String::as_str).filter(|line| !line.contains(uploads::TARGET)).collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}
