//! CloudCore as the process that ships, with its own API, and certificates that it has signed.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use beehive::link::tls::Credentials;
use testhost::{Daemon, free_ports};

use super::raw_link::Identity;
use crate::kubectl::said;
use crate::process;

/// Two addresses of one machine: from the one comes whoever is honest, from the other whoever is not.
pub(crate) const HONEST: &str = "127.0.0.1";
pub(crate) const HOSTILE: &str = "::1";
const UP_WITHIN: Duration = Duration::from_secs(120);
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// The CloudCore that is attacked. Dropping it ends it and removes its files.
pub(crate) struct AttackedCloud {
    daemon: Daemon,
    binaries: PathBuf,
    folder: PathBuf,
    quic: u16,
    websocket: u16,
    enrolment: u16,
}

impl AttackedCloud {
    pub(crate) async fn start(name: &str, binaries: &Path) -> Result<AttackedCloud> {
        let folder = std::env::temp_dir().join(format!("kh-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).context("make a folder")?;
        let [api, quic, websocket, enrolment, monitor] = free_ports()?;
        let config = format!(
            "apiVersion: cloudcore.config.kubeedge.io/v1alpha1\nkind: CloudCore\n\
             commonConfig: {{monitorServer: {{bindAddress: '127.0.0.1:{monitor}'}}}}\n\
             modules:\n  cloudHub:\n    advertiseAddress: [127.0.0.1, '::1']\n    \
             quic: {{address: '::', port: {quic}}}\n    \
             websocket: {{enable: true, address: '::', port: {websocket}}}\n    \
             https: {{address: 127.0.0.1, port: {enrolment}}}\n",
        );
        std::fs::write(folder.join("cloudcore.yaml"), config).context("write cloudcore.yaml")?;
        let mut command = Command::new(binaries.join("cloudcore"));
        command.arg("--config").arg(folder.join("cloudcore.yaml")).arg("--standalone");
        command.arg("--standalone-dir").arg(folder.join("cloud"));
        command.arg("--standalone-listen").arg(format!("127.0.0.1:{api}"));
        let daemon = Daemon::start("cloudcore", &folder, &mut command)?;
        Ok(AttackedCloud { daemon, binaries: binaries.to_owned(), folder, quic, websocket, enrolment })
    }

    /// A node that has joined as every node does.
    pub(crate) async fn join(&mut self, node: &str) -> Result<Identity> {
        let begun = Instant::now();
        loop {
            match self.try_join(node).await {
                Ok(identity) => return Ok(identity),
                // It makes its API and its keys first.
                Err(_) if begun.elapsed() < UP_WITHIN => tokio::time::sleep(LOOK_EVERY).await,
                Err(error) => bail!("`{node}` cannot join: {error:#}\n{}", self.tail()),
            }
            self.check()?;
        }
    }

    async fn try_join(&self, node: &str) -> Result<Identity> {
        let kubeconfig = self.folder.join("cloud/admin.kubeconfig").display().to_string();
        let keadm = || tokio::process::Command::new(self.binaries.join("keadm"));
        let words = ["gettoken", "--kube-config", &kubeconfig, "--edgenode-name", node];
        let token = said(keadm().args(words), "").await?;
        let file = |what: &str| self.folder.join(format!("{node}{what}"));
        let mut join = keadm();
        join.arg("join").arg(format!("--cloudcore-ipport=127.0.0.1:{}", self.quic));
        join.arg(format!("--token={}", token.trim())).arg(format!("--edgenode-name={node}"));
        join.arg("--certport").arg(self.enrolment.to_string()).arg("--config").arg(file(".yaml"));
        let files = [("tlsCaFile", "-ca.crt"), ("tlsCertFile", ".crt"), ("tlsPrivateKeyFile", ".key")];
        for (key, name) in files {
            join.arg("--set").arg(format!("modules.edgeHub.{key}={}", file(name).display()));
        }
        join.arg("--set").arg(format!("database.dataSource={}", file(".db").display()));
        said(&mut join, "").await?;
        let read = |what: &str| std::fs::read_to_string(file(what)).with_context(|| format!("read {what}"));
        let credentials = Credentials {
            certificate: read(".crt")?,
            key: read(".key")?.into(),
            authority: read("-ca.crt")?,
        };
        let (quic, websocket) = (self.quic, self.websocket);
        Ok(Identity { node: node.to_owned(), credentials, host: HONEST, quic, websocket })
    }

    /// Resident memory in MiB.
    pub(crate) fn resident(&self) -> Result<f64> {
        Ok(process::resident(self.daemon.id())? / f64::from(1 << 20))
    }

    /// Seconds of a core that it has used.
    pub(crate) fn spent(&self) -> Result<f64> {
        process::spent(self.daemon.id())
    }

    pub(crate) fn check(&mut self) -> Result<()> {
        self.daemon.check()
    }

    /// What it said when a part of it panicked, if one did.
    pub(crate) fn panicked(&self) -> Option<String> {
        let log = std::fs::read(self.folder.join("cloudcore.log")).unwrap_or_default();
        let text = String::from_utf8_lossy(&log).into_owned();
        let lines: Vec<&str> =
            text.lines().skip_while(|line| !line.contains("panicked at")).take(4).collect();
        (!lines.is_empty()).then(|| lines.join(" | "))
    }

    pub(crate) fn tail(&self) -> String {
        self.daemon.tail()
    }
}

impl Drop for AttackedCloud {
    fn drop(&mut self) {
        self.daemon.kill();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
