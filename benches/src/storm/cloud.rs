//! CloudCore with its own API, as the process that ships, and what it says of itself.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use tempfile::TempDir;
use testhost::{Daemon, free_ports};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::proc;

const UP_WITHIN: Duration = Duration::from_secs(120);
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// A look at a busy CloudCore.
const ANSWER_WITHIN: Duration = Duration::from_secs(20);
/// 64 MiB: what two thousand nodes say is less.
const ANSWER_MAX: u64 = 64 << 20;
/// It rests when it uses less than this part of a core.
const RESTS_BELOW: f64 = 0.25;
const RESTS_WITHIN: Duration = Duration::from_secs(180);

struct Ports {
    api: u16,
    link: u16,
    enrolment: u16,
    monitor: u16,
}

/// The running CloudCore.
pub(super) struct Cloud {
    daemon: Daemon,
    pub(super) client: Client,
    binary: PathBuf,
    ports: Ports,
    folder: TempDir,
    /// Lines of its log that an earlier process wrote.
    log_begins: usize,
}

/// How many nodes stand how.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct FleetStatus {
    pub(super) linked: usize,
    pub(super) in_sync: usize,
}

/// What CloudCore has used.
pub(super) struct Usage {
    /// Seconds of user and of system time, by the names of threads.
    pub(super) threads: BTreeMap<String, (f64, f64)>,
    pub(super) resident: u64,
    pub(super) peak: u64,
    /// How often nodes were sent away, and why.
    pub(super) refused: BTreeMap<String, u64>,
}

impl Usage {
    /// What was used since `before`.
    pub(super) fn since(mut self, before: &Usage) -> Usage {
        for (thread, (user, system)) in &mut self.threads {
            if let Some(before) = before.threads.get(thread) {
                *user -= before.0;
                *system -= before.1;
            }
        }
        for (reason, count) in &mut self.refused {
            *count -= before.refused.get(reason).copied().unwrap_or(0);
        }
        self
    }
}

impl Cloud {
    pub(super) async fn start(binaries: &Path, edges: usize) -> Result<Cloud> {
        let binary = binaries.join("cloudcore");
        if !binary.exists() {
            bail!("no cloudcore in {}", binaries.display());
        }
        let folder = tempfile::Builder::new().prefix("kh-storm-").tempdir().context("make a folder")?;
        let [api, link, enrolment, monitor] = free_ports()?;
        let ports = Ports { api, link, enrolment, monitor };
        std::fs::write(folder.path().join("cloudcore.yaml"), config(&ports, edges))
            .context("write cloudcore.yaml")?;
        let mut daemon = launch(&binary, folder.path(), &ports)?;
        let kubeconfig = folder.path().join("cloud/admin.kubeconfig");
        let begun = Instant::now();
        while !kubeconfig.exists() {
            daemon.check()?;
            if begun.elapsed() > UP_WITHIN {
                bail!("no admin kubeconfig:\n{}", daemon.tail());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        let client = client(&kubeconfig).await?;
        let mut cloud = Cloud { daemon, client, binary, ports, folder, log_begins: 0 };
        cloud.until_up().await?;
        Ok(cloud)
    }

    pub(super) fn port(&self) -> u16 {
        self.ports.link
    }

    pub(super) fn kubeconfig(&self) -> PathBuf {
        self.folder.path().join("cloud/admin.kubeconfig")
    }

    /// `kill -9`.
    pub(super) fn kill(&mut self) {
        self.daemon.kill();
    }

    /// Starts it where it was killed, and waits until its API and its hub are there.
    pub(super) async fn again(&mut self) -> Result<()> {
        let log = std::fs::read(self.folder.path().join("cloudcore.log")).unwrap_or_default();
        self.log_begins = log.split(|byte| *byte == b'\n').count() - 1;
        self.daemon = launch(&self.binary, self.folder.path(), &self.ports)?;
        self.until_up().await
    }

    async fn until_up(&mut self) -> Result<()> {
        let begun = Instant::now();
        let spaces: Api<k8s_openapi::api::core::v1::Namespace> = Api::all(self.client.clone());
        loop {
            self.daemon.check()?;
            let ready = tokio::time::timeout(ANSWER_WITHIN, spaces.get_opt("default")).await;
            if matches!(ready, Ok(Ok(Some(_)))) && self.fleet_status().await.is_ok() {
                return Ok(());
            }
            if begun.elapsed() > UP_WITHIN {
                bail!("CloudCore is not up:\n{}", self.daemon.tail());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// What it has used since it began.
    pub(super) fn usage(&self) -> Result<Usage> {
        let pid = self.daemon.id();
        let memory = proc::memory(pid)?;
        let refused = self.refused();
        Ok(Usage { threads: proc::threads(pid)?, resident: memory.resident, peak: proc::peak(pid)?, refused })
    }

    /// Waits until it has next to nothing to do.
    pub(super) async fn rest(&mut self) -> Result<Usage> {
        let begun = Instant::now();
        let spent = |usage: &Usage| usage.threads.values().map(|(user, system)| user + system).sum::<f64>();
        let mut before = spent(&self.usage()?);
        loop {
            tokio::time::sleep(Duration::from_secs(5)).await;
            self.daemon.check()?;
            let usage = self.usage()?;
            let now = spent(&usage);
            if (now - before) / 5.0 < RESTS_BELOW || begun.elapsed() > RESTS_WITHIN {
                return Ok(usage);
            }
            before = now;
        }
    }

    /// Counted in its log: each one that was sent away since it began has a line.
    fn refused(&self) -> BTreeMap<String, u64> {
        let log = std::fs::read(self.folder.path().join("cloudcore.log")).unwrap_or_default();
        let text = String::from_utf8_lossy(&log);
        let mut counts = BTreeMap::new();
        for line in text.lines().skip(self.log_begins).filter(|line| line.contains("node refused")) {
            let (_, reason) = line.split_once("reason=").unwrap_or(("", line));
            *counts.entry(reason.to_owned()).or_default() += 1;
        }
        counts
    }

    /// Fails when it has ended.
    pub(super) fn check(&mut self) -> Result<()> {
        self.daemon.check()
    }

    /// How the nodes stand.
    pub(super) async fn fleet_status(&self) -> Result<FleetStatus> {
        fleet_status(self.ports.monitor).await
    }

    /// Its last words.
    pub(super) fn tail(&self) -> String {
        self.daemon.tail()
    }
}

/// A client with an administrator's rights.
pub(super) async fn client(kubeconfig: &Path) -> Result<Client> {
    let file = Kubeconfig::read_from(kubeconfig).context("read the admin kubeconfig")?;
    let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?;
    Ok(Client::try_from(config)?)
}

fn config(ports: &Ports, edges: usize) -> String {
    format!(
        "apiVersion: cloudcore.config.kubeedge.io/v1alpha1\nkind: CloudCore\n\
         commonConfig: {{monitorServer: {{bindAddress: '127.0.0.1:{}'}}}}\n\
         modules:\n  cloudHub:\n    nodeLimit: {}\n    advertiseAddress: [127.0.0.1]\n    \
         quic: {{address: 127.0.0.1, port: {}}}\n    websocket: {{enable: false}}\n    https: {{address: 127.0.0.1, port: {}}}\n",
        ports.monitor,
        edges + 100,
        ports.link,
        ports.enrolment,
    )
}

fn launch(binary: &Path, folder: &Path, ports: &Ports) -> Result<Daemon> {
    let mut command = Command::new(binary);
    command.arg("--config").arg(folder.join("cloudcore.yaml")).arg("--standalone");
    command.arg("--standalone-dir").arg(folder.join("cloud"));
    command.arg("--standalone-listen").arg(format!("127.0.0.1:{}", ports.api));
    Daemon::start("cloudcore", folder, &mut command)
}

/// What the admin endpoint says of all nodes.
async fn fleet_status(monitor: u16) -> Result<FleetStatus> {
    let text = tokio::time::timeout(ANSWER_WITHIN, get(monitor)).await.context("no answer in time")??;
    let count = |name: &str| {
        let prefix = format!("{name}{{");
        text.lines().filter(|line| line.starts_with(&prefix) && line.ends_with(" 1")).count()
    };
    Ok(FleetStatus { linked: count("kubehive_node_linked"), in_sync: count("kubehive_node_in_sync") })
}

async fn get(monitor: u16) -> Result<String> {
    let mut socket = TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], monitor))).await?;
    socket.write_all(b"GET /metrics HTTP/1.0\r\nHost: localhost\r\n\r\n").await?;
    let mut answer = Vec::new();
    socket.take(ANSWER_MAX).read_to_end(&mut answer).await?;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    anyhow::ensure!(answer.contains(" 200 OK"), "the admin endpoint does not answer");
    Ok(answer)
}
