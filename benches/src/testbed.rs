//! A cluster of one box: the stand-alone API with CloudCore, and a node that joined it, as the processes that ship.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::Node;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use testhost::{Daemon, TestHost, free_ports};

use crate::program::said;

/// The node's name.
const NODE: &str = "edge-1";
/// For a cold, shared machine.
const LONG: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Builds the daemons as they are shipped, and says where they are.
pub(crate) fn build() -> Result<PathBuf> {
    let rustc = said(Command::new("rustc").args(["--print", "host-tuple"]))?;
    let metadata = said(Command::new("cargo").args(["metadata", "--format-version", "1", "--no-deps"]))?;
    let metadata: serde_json::Value = serde_json::from_str(&metadata).context("cargo metadata")?;
    let target = metadata["target_directory"].as_str().context("cargo metadata names no target folder")?;
    let built = Command::new("cargo").arg("dist").status().context("start cargo")?;
    if !built.success() {
        bail!("the daemons do not build");
    }
    Ok(Path::new(target).join(rustc.trim()).join("release"))
}

/// The cluster. Dropping it ends all of it: the node first, then the cloud, then the host with its containers.
pub(crate) struct Testbed {
    pub(crate) edgecore: Daemon,
    pub(crate) cloudcore: Daemon,
    pub(crate) client: Client,
    pub(crate) host: TestHost,
}

struct Ports {
    api: u16,
    link: u16,
    enrolment: u16,
    monitor: u16,
    mqtt: u16,
}

impl Testbed {
    /// Brings it up and waits until the node is Ready.
    pub(crate) async fn new(binaries: &Path) -> Result<Testbed> {
        for binary in ["cloudcore", "edgecore", "keadm"] {
            if !binaries.join(binary).exists() {
                bail!("no {binary} in {}", binaries.display());
            }
        }
        let host = TestHost::new("bench")?;
        let folder = host.dir().join("bench");
        std::fs::create_dir_all(&folder).context("make the bench's folder")?;
        let [api, link, enrolment, monitor, mqtt] = free_ports()?;
        let ports = Ports { api, link, enrolment, monitor, mqtt };
        let mut cloudcore = start_cloudcore(binaries, &folder, &ports)?;
        let kubeconfig = folder.join("cloud/admin.kubeconfig");
        let token = until("keadm gettoken works", &mut [&mut cloudcore], async || {
            let mut command = Command::new(binaries.join("keadm"));
            command.arg("gettoken").arg("--kube-config").arg(&kubeconfig).args(["--edgenode-name", NODE]);
            said(&mut command).map(Some)
        })
        .await?;
        join(binaries, &folder, &ports, &host, token.trim())?;
        let mut command = Command::new(binaries.join("edgecore"));
        command.arg("--config").arg(folder.join("edgecore.yaml"));
        let mut edgecore = Daemon::start("edgecore", &folder, &mut command)?;
        let file = Kubeconfig::read_from(&kubeconfig).context("read the admin kubeconfig")?;
        let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?;
        let client = Client::try_from(config)?;
        let nodes: Api<Node> = Api::all(client.clone());
        until("the node is Ready", &mut [&mut cloudcore, &mut edgecore], async || {
            let conditions = nodes.get(NODE).await?.status.and_then(|status| status.conditions);
            let ready = |condition: &k8s_openapi::api::core::v1::NodeCondition| {
                condition.type_ == "Ready" && condition.status == "True"
            };
            Ok(conditions.unwrap_or_default().iter().any(ready).then_some(()))
        })
        .await?;
        Ok(Testbed { edgecore, cloudcore, client, host })
    }
}

fn start_cloudcore(binaries: &Path, folder: &Path, ports: &Ports) -> Result<Daemon> {
    let config = format!(
        "apiVersion: cloudcore.config.kubeedge.io/v1alpha1\nkind: CloudCore\n\
         commonConfig: {{monitorServer: {{bindAddress: '127.0.0.1:{}'}}}}\n\
         modules:\n  cloudHub:\n    advertiseAddress: [127.0.0.1]\n    \
         quic: {{address: 127.0.0.1, port: {}}}\n    websocket: {{enable: false}}\n    https: {{address: 127.0.0.1, port: {}}}\n",
        ports.monitor, ports.link, ports.enrolment,
    );
    let path = folder.join("cloudcore.yaml");
    std::fs::write(&path, config).context("write cloudcore.yaml")?;
    let mut command = Command::new(binaries.join("cloudcore"));
    command.arg("--config").arg(&path).arg("--standalone");
    command.arg("--standalone-dir").arg(folder.join("cloud"));
    command.arg("--standalone-listen").arg(format!("127.0.0.1:{}", ports.api));
    Daemon::start("cloudcore", folder, &mut command)
}

fn join(binaries: &Path, folder: &Path, ports: &Ports, host: &TestHost, token: &str) -> Result<()> {
    let mut settings = host.edgecore_settings(folder);
    settings.extend([
        "modules.edged.nodeIP=127.0.0.1".to_owned(),
        format!("modules.edgeHub.quic.server=127.0.0.1:{}", ports.link),
        "modules.edgeHub.websocket.enable=false".to_owned(),
        format!("modules.eventBus.mqttServerInternal=127.0.0.1:{}", ports.mqtt),
    ]);
    let mut command = Command::new(binaries.join("keadm"));
    command.arg("join").arg(format!("--cloudcore-ipport=127.0.0.1:{}", ports.link));
    command.arg(format!("--token={token}")).arg(format!("--edgenode-name={NODE}"));
    command.arg("--certport").arg(ports.enrolment.to_string());
    command.arg("--config").arg(folder.join("edgecore.yaml"));
    for setting in &settings {
        command.arg("--set").arg(setting);
    }
    said(&mut command).map(drop)
}

/// Looks until `holds` answers. Errors of a look are told only if it never holds.
async fn until<T>(
    what: &str,
    parts: &mut [&mut Daemon],
    mut holds: impl AsyncFnMut() -> Result<Option<T>>,
) -> Result<T> {
    let begun = Instant::now();
    let mut last = None;
    while begun.elapsed() < LONG {
        for part in parts.iter_mut() {
            part.check()?;
        }
        match holds().await {
            Ok(Some(found)) => return Ok(found),
            Ok(None) => {}
            Err(error) => last = Some(error),
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    let why = last.map(|error| format!(" (last: {error:#})")).unwrap_or_default();
    let logs: Vec<String> = parts.iter().map(|part| part.tail()).collect();
    bail!("not seen within {} s: {what}{why}\n{}", LONG.as_secs(), logs.join("\n---\n"))
}
