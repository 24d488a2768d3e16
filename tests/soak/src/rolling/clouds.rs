//! Three CloudCores beside one API server, as three machines have them: each has an address of its own, and all have the same ports.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use testhost::{Daemon, free_ports};
use tokio::task::block_in_place;

use crate::kubectl::said;
use crate::metrics;
use crate::process;

/// Their names, which those of their logs and settings begin with.
const NAMES: [&str; 3] = ["cloudcore-1", "cloudcore-2", "cloudcore-3"];
/// 400 nodes, and as many ports for what the API server asks them. They lie within those that CloudCore's policies know, and above
/// those of a CloudCore with its defaults on this machine.
pub(super) const NODES_MAX: usize = 400;
const FIRST_KUBELET_PORT: u16 = 12_500;
/// 15 s: longer than CloudCore takes to end by itself (10 s).
const END_WITHIN: Duration = Duration::from_secs(15);
/// 60 s: on a machine that has much else to do.
const READY_WITHIN: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(20);

#[derive(Clone, Copy)]
struct Ports {
    link: u16,
    websocket: u16,
    enrolment: u16,
    monitor: u16,
}

/// How long a CloudCore took to end, and its next one to be ready.
pub(super) struct Restarted {
    pub(super) ended: Duration,
    pub(super) ready: Duration,
}

/// All three. Dropping them ends them.
pub(super) struct Clouds {
    daemons: [Option<Daemon>; 3],
    /// The most memory that each had, in bytes.
    peaks: [f64; 3],
    /// Seconds of a core that those that have ended have used.
    spent: f64,
    ports: Ports,
    binaries: PathBuf,
    folder: PathBuf,
    kubeconfig: PathBuf,
}

impl Clouds {
    /// Starts them, and waits until all are ready. `kubeconfig` is CloudCore's account.
    pub(super) async fn start(binaries: &Path, folder: &Path, kubeconfig: &Path) -> Result<Clouds> {
        let [link, websocket, enrolment, monitor] = free_ports()?;
        let mut clouds = Clouds {
            daemons: [None, None, None],
            peaks: [0.0; 3],
            spent: 0.0,
            ports: Ports { link, websocket, enrolment, monitor },
            binaries: binaries.to_owned(),
            folder: folder.to_owned(),
            kubeconfig: kubeconfig.to_owned(),
        };
        for at in 0..NAMES.len() {
            std::fs::write(clouds.config(at), clouds.settings(at)).context("write cloudcore.yaml")?;
            clouds.launch(at)?;
            // The first one makes what they share.
            clouds.until_ready(at).await?;
        }
        Ok(clouds)
    }

    /// How many there are.
    pub(super) const COUNT: usize = NAMES.len();

    fn config(&self, at: usize) -> PathBuf {
        self.folder.join(format!("{}.yaml", NAMES[at]))
    }

    fn log(&self, at: usize) -> PathBuf {
        self.folder.join(format!("{}.log", NAMES[at]))
    }

    fn settings(&self, at: usize) -> String {
        let Ports { link, websocket, enrolment, monitor } = self.ports;
        let own = address(at);
        // Each names itself first.
        let all: Vec<String> =
            (0..NAMES.len()).map(|next| address((at + next) % NAMES.len()).to_string()).collect();
        format!(
            "apiVersion: cloudcore.config.kubeedge.io/v1alpha1\nkind: CloudCore\n\
             commonConfig: {{monitorServer: {{bindAddress: '{own}:{monitor}'}}}}\n\
             modules:\n  cloudHub:\n    nodeLimit: {NODES_MAX}\n    advertiseAddress: [{}]\n    \
             quic: {{address: {own}, port: {link}}}\n    \
             websocket: {{enable: true, address: {own}, port: {websocket}}}\n    \
             https: {{address: {own}, port: {enrolment}}}\n  \
             cloudStream: {{kubeletEndpoint: {{bindAddress: {own}, firstPort: {FIRST_KUBELET_PORT}}}}}\n",
            all.join(", ")
        )
    }

    fn launch(&mut self, at: usize) -> Result<()> {
        let mut command = Command::new(self.binaries.join("cloudcore"));
        command.arg("--config").arg(self.config(at)).arg("--kubeconfig").arg(&self.kubeconfig);
        self.daemons[at] = Some(Daemon::start(NAMES[at], &self.folder, &mut command)?);
        Ok(())
    }

    async fn until_ready(&mut self, at: usize) -> Result<Duration> {
        let begun = Instant::now();
        let monitor = SocketAddr::new(address(at), self.ports.monitor);
        loop {
            let answer = metrics::page(monitor, "/readyz").await;
            if answer.as_ref().is_ok_and(|answer| answer.split_whitespace().nth(1) == Some("200")) {
                return Ok(begun.elapsed());
            }
            if begun.elapsed() > READY_WITHIN {
                bail!("{} is not ready after {} s: {answer:?}", NAMES[at], READY_WITHIN.as_secs());
            }
            self.check()?;
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// SIGTERM, its end, `meanwhile`, and a new one until that is ready.
    pub(super) async fn restart(
        &mut self,
        at: usize,
        meanwhile: impl AsyncFnOnce() -> Result<()>,
    ) -> Result<Restarted> {
        self.look()?;
        let mut daemon = self.daemons[at].take().context("it does not run")?;
        self.spent += process::spent(daemon.id())?;
        let begun = Instant::now();
        block_in_place(|| daemon.end());
        let ended = begun.elapsed();
        if ended >= END_WITHIN {
            bail!("{} did not end within {} s of SIGTERM", NAMES[at], END_WITHIN.as_secs());
        }
        meanwhile().await?;
        self.launch(at)?;
        let ready = self.until_ready(at).await?;
        Ok(Restarted { ended, ready })
    }

    /// Looks at the memory of those that run.
    pub(super) fn look(&mut self) -> Result<()> {
        for (daemon, peak) in self.daemons.iter().zip(&mut self.peaks) {
            if let Some(daemon) = daemon {
                *peak = peak.max(process::peak(daemon.id())?);
            }
        }
        Ok(())
    }

    /// The most memory that each had, as of the last look, in MB.
    pub(super) fn peaks(&self) -> String {
        let shown: Vec<String> = self.peaks.iter().map(|peak| format!("{:.1}", peak / 1e6)).collect();
        format!("{} MB", shown.join(", "))
    }

    /// Seconds of a core that all have used.
    pub(super) fn spent(&self) -> Result<f64> {
        let running = self.daemons.iter().flatten().map(|daemon| process::spent(daemon.id()));
        Ok(self.spent + running.sum::<Result<f64>>()?)
    }

    /// Fails when one has ended by itself.
    pub(super) fn check(&mut self) -> Result<()> {
        self.daemons.iter_mut().flatten().try_for_each(Daemon::check)
    }

    /// What any of them said when a part of it panicked.
    pub(super) fn panicked(&self) -> Vec<String> {
        let of = |at: usize| {
            let log = std::fs::read(self.log(at)).unwrap_or_default();
            let text = String::from_utf8_lossy(&log).into_owned();
            let panicked: Vec<String> = text
                .lines()
                .filter(|line| line.contains("panicked"))
                .map(|line| format!("{}: {line}", NAMES[at]))
                .collect();
            panicked
        };
        (0..NAMES.len()).flat_map(of).collect()
    }

    /// The ends of their logs.
    pub(super) fn log_tails(&self) -> String {
        let end =
            |at: usize| format!("--- the end of {}'s log\n{}", NAMES[at], testhost::tail(&self.log(at), 15));
        (0..NAMES.len()).map(end).collect::<Vec<_>>().join("\n")
    }

    /// Copies the logs into `to`.
    pub(super) fn keep_logs(&self, to: &Path) -> Result<()> {
        std::fs::create_dir_all(to).with_context(|| format!("make folder {}", to.display()))?;
        for (at, name) in NAMES.into_iter().enumerate() {
            std::fs::copy(self.log(at), to.join(format!("{name}.log")))
                .with_context(|| format!("keep {name}'s log"))?;
        }
        Ok(())
    }

    /// Where a node dials: all three, each node beginning with another one.
    pub(super) fn servers(&self, node: usize) -> String {
        let server = |next| format!("{}:{}", address((node + next) % NAMES.len()), self.ports.link);
        (0..NAMES.len()).map(server).collect::<Vec<_>>().join(",")
    }

    /// A token that so many nodes may join with.
    pub(super) async fn token(&self, admin: &Path, nodes: usize) -> Result<String> {
        let mut keadm = tokio::process::Command::new(self.binaries.join("keadm"));
        keadm.arg("gettoken").arg("--kube-config").arg(admin).arg("--uses").arg(nodes.to_string());
        Ok(said(&mut keadm, "").await?.trim().to_owned())
    }

    /// Has a node join at one of them, as every node does; its key and its certificates lie in its folder then.
    pub(super) async fn join(&self, node: usize, name: &str, folder: &Path, token: &str) -> Result<()> {
        let Ports { websocket, link, enrolment, .. } = self.ports;
        let mut keadm = tokio::process::Command::new(self.binaries.join("keadm"));
        let door = address(node % NAMES.len());
        keadm.arg("join").arg(format!("--cloudcore-ipport={door}:{websocket}"));
        keadm.arg("--quicport").arg(link.to_string()).arg("--certport").arg(enrolment.to_string());
        keadm.arg(format!("--token={token}")).arg(format!("--edgenode-name={name}"));
        keadm.arg("--config").arg(folder.join("edgecore.yaml"));
        let settings = harness::Node::joined_settings(folder.to_owned(), name, self.servers(node));
        let hub = &settings.modules.edge_hub;
        let files = [
            ("modules.edgeHub.tlsCaFile", &hub.tls_ca_file),
            ("modules.edgeHub.tlsCertFile", &hub.tls_cert_file),
            ("modules.edgeHub.tlsPrivateKeyFile", &hub.tls_private_key_file),
            ("database.dataSource", &settings.database.data_source),
        ];
        for (key, path) in files {
            keadm.arg("--set").arg(format!("{key}={}", path.display()));
        }
        said(&mut keadm, "").await.map(drop).with_context(|| format!("{name} joins"))
    }
}

/// Each has an address of its own, of which Linux gives loopback sixteen million.
fn address(at: usize) -> IpAddr {
    let last = u8::try_from(at + 1).unwrap_or(u8::MAX);
    Ipv4Addr::new(127, 0, 0, last).into()
}
