//! `edgecore`: the node's daemon.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod cli;

use std::io::{BufRead as _, Read as _, Write as _};
use std::path::Path;
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use beehive::{Env, Hive};
use config::edge::{DEFAULT_FILE, EdgeCore as Settings};
use edge::{Dependencies, EdgeCore, Identity};
use edge_edged::torn_networks::{self, Written};
use edge_edged::{CountedRuntime, MachineChecks};
use edge_hub::network::KernelRoutes;
use edge_hub::{Endpoints, NamedServers, NodeCertificates};
use edge_taskmanager::NodePrograms;

use crate::cli::Order;

/// 2 min: kubelet's runtimeRequestTimeout.
const RUNTIME_ANSWERS_WITHIN: Duration = Duration::from_secs(120);
/// 4 KiB: four times the longest password.
const PASSWORD_LINE_MAX: u64 = 4 << 10;

fn main() -> ExitCode {
    let order = match cli::parse(std::env::args_os().skip(1)) {
        Ok(order) => order,
        Err(error) => {
            let words = format!("error: {error}\n\nFor more information, try '--help'.\n");
            // Who closed the standard error does not want to know.
            let _ = std::io::stderr().write_all(words.as_bytes());
            return ExitCode::from(2);
        }
    };
    daemon::main("info,rumqttd=warn", async move || run(order).await)
}

async fn run(order: Order) -> Result<()> {
    let env = Env::real().with_clock(edge::KnownClock::real());
    let config = match order {
        Order::Run { config } => config,
        Order::DefaultConfig => return daemon::print(DEFAULT_FILE),
        Order::Help => return daemon::print(cli::HELP),
        Order::Version => return daemon::print(&format!("edgecore {}\n", buildinfo::TEXT)),
        Order::Topology { dot } => {
            let mut hive = Hive::new("edgecore", env);
            let _seats = edge::topology::mailboxes(&mut hive);
            return daemon::print_topology("edgecore", &hive.topology(), dot);
        }
        Order::MqttPassword { name } => return mqtt_password(&name, &env),
    };
    let (settings, warnings) = match Settings::load_with_warnings(&config) {
        Err(error) if !config.exists() => {
            let words =
                "this machine is no node yet, or was reset: run `keadm join`, or name the file with --config";
            return Err(anyhow::Error::new(error).context(words));
        }
        loaded => loaded?,
    };
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    edge_containermanager::fits(&settings.modules.edged)
        .map_err(anyhow::Error::msg)
        .context("modules.edged.tailoredKubeletConfig and this machine do not fit together")?;
    let (repaired, secured) = edge::secure_trusted_files(&settings, &config);
    for repaired in repaired {
        tracing::warn!("other users of this machine could reach the node's own files: {repaired}");
    }
    secured?;
    let identity = Identity::read(&settings)?;
    let hub = &settings.modules.edge_hub;
    let fallback = if hub.websocket.enable { hub.websocket.server.as_str() } else { "" };
    let endpoint = &settings.modules.edged.tailored_kubelet_config.container_runtime_endpoint;
    let runtime =
        cri::Grpc::new(endpoint, endpoint, RUNTIME_ANSWERS_WITHIN).context("the container runtime")?;
    let store = edge::open_store(&settings, &identity.node, &env)
        .context("the node's store (database.dataSource)")?;
    edge::recall_time(&store, env.clock().as_ref()).context("the last known time in the node's store")?;
    let servers = edge_hub::kept_servers(&store).context("where the cloud is, in the node's store")?;
    let common_name = identity.common_name();
    let Identity { node, files, stored } = identity;
    let (kept, rotates) = ((store.clone(), servers), hub.rotate_certificates);
    let certificates = NodeCertificates::new(node.clone(), (files, stored), kept, rotates)
        .context("the node's certificate (modules.edgeHub.tlsCertFile, tlsPrivateKeyFile and tlsCaFile)")?;
    let link = "the link to the cloud (modules.edgeHub.quic, modules.edgeHub.websocket)";
    let (quic, clock) = (hub.quic.server.as_str(), env.clock());
    let endpoints = Endpoints::of_lists(quic, fallback, certificates.live(), &clock).context(link)?;
    let named = NamedServers::by(quic, fallback, certificates.live(), &clock).context(link)?;
    let network = KernelRoutes::to(endpoints.hosts());
    // Whoever has begun a run of this boot has done this before.
    let is_first = edge::is_first_of_boot(&store, &settings.modules.edged.boot_id_file);
    clear_torn_networks(is_first, &env);
    // Without it a node does all but show the mounts of one pod to another.
    if let Err(error) = edge_csi::share(&settings.modules.edged.root_directory) {
        tracing::warn!(%error, "mountPropagation of pods has no effect, and CSI drivers in pods mount nothing");
    }
    // A store that takes no writes says so by itself, and runs what it holds.
    if let Err(error) = edge::begin_run(&store, &env, &settings.modules.edged.boot_id_file).await {
        tracing::warn!(reason = %error.reason, "it is not kept that this run has begun: the next one does not know how it ended");
    }
    let dependencies = Dependencies {
        node,
        common_name,
        endpoints,
        certificates: Some((Rc::new(certificates), named)),
        network: Some(Rc::new(network)),
        programs: programs(&settings, &config),
        checks: Some(MachineChecks::here(Arc::new(settings.clone()))),
        runtime: Arc::new(CountedRuntime::new(Arc::new(runtime), env.metrics(), env.clock())),
        store,
    };
    daemon::serve(EdgeCore::start(&settings, dependencies, env).await?).await
}

/// What NodeUpgradeJobs and ConfigUpdateJobs exchange this program and its settings with: the keadm that lies beside it.
fn programs(settings: &Settings, config: &Path) -> Option<NodePrograms> {
    let own = std::env::current_exe().ok()?;
    Some(NodePrograms {
        keadm: own.parent()?.join("keadm"),
        config: std::path::absolute(config).ok()?,
        store: settings.database.data_source.clone(),
        runtime_endpoint: settings.modules.edged.tailored_kubelet_config.container_runtime_endpoint.clone(),
        settings: Arc::new(settings.clone()),
        fits: |settings| edge_containermanager::fits(&settings.modules.edged),
    })
}

/// Before the first sandbox is asked to stop.
fn clear_torn_networks(is_first_of_boot: bool, env: &Env) {
    let written = match is_first_of_boot {
        true => Ok(Written::AtAnyTime),
        false => torn_networks::machine_started().map(|started| Written::Before(started, env.wall())),
    };
    let cleared = written.and_then(|written| torn_networks::clear(Path::new(torn_networks::STATE), written));
    match cleared {
        Ok(torn) if torn.is_empty() => {}
        // In one line: a machine that ends while it recovers has two of each pod.
        Ok(torn) => {
            let files: Vec<_> = torn.iter().map(|path| path.display().to_string()).collect();
            tracing::warn!(
                removed = files.len(),
                files = files.join(" "),
                "what the machine's sudden end had torn of pods' networks is removed: pods could neither be ended nor begun with it"
            );
        }
        Err(error) => {
            tracing::warn!(%error, "whether pods' networks were torn by the machine's end is not known")
        }
    }
}

fn mqtt_password(name: &str, env: &Env) -> Result<()> {
    let mut password = Vec::new();
    let input = std::io::stdin().lock().take(PASSWORD_LINE_MAX);
    std::io::BufReader::new(input)
        .read_until(b'\n', &mut password)
        .context("the password on the standard input")?;
    let end = password.iter().rposition(|byte| !matches!(byte, b'\r' | b'\n')).map_or(0, |last| last + 1);
    password.truncate(end);
    let line = edge_eventbus::password_line(name, &password, env.random_id());
    daemon::print(&format!("{}\n", line.map_err(anyhow::Error::msg)?))
}
