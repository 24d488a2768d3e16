//! `edgecore`: the node's daemon.

use std::io::{BufRead as _, Read as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use beehive::{Ended, Env, Hive};
use clap::{Parser, Subcommand};
use config::edge::{DEFAULT_FILE, DEFAULT_PATH, EdgeCore as Settings};
use edge::{EdgeCore, Identity, Parts};
use edge_hub::Endpoints;
use edge_hub::network::KernelRoutes;
use tokio::signal::unix::{SignalKind, signal};

/// 10 s: what a stop may take. Containers go on.
const STOP_WITHIN: Duration = Duration::from_secs(10);
/// 60 s with the hive's thread blocked: no burst of work takes so long.
const BLOCKED_FOR: Duration = Duration::from_secs(60);
/// 2 min: kubelet's runtimeRequestTimeout.
const RUNTIME_ANSWERS_WITHIN: Duration = Duration::from_secs(120);
/// 4 KiB: four times the longest password.
const PASSWORD_LINE_MAX: u64 = 4 << 10;

#[derive(Parser)]
#[command(name = "edgecore", version, about = "The node's side of KubeHive")]
struct Cli {
    /// Path of edgecore.yaml
    #[arg(long, default_value = DEFAULT_PATH)]
    config: PathBuf,
    /// Print the annotated default config and end
    #[arg(long)]
    defaultconfig: bool,
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Subcommand)]
enum Verb {
    /// Prints who talks to whom
    Topology {
        /// In the DOT language
        #[arg(long)]
        dot: bool,
    },
    /// Prints a line of the broker's password file (modules.eventBus.passwordFile); the password is the first line of the
    /// standard input
    MqttPassword {
        /// The user's name
        name: String,
    },
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_default_env()
                .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info,rumqttd=warn")),
        )
        .with_writer(std::io::stderr)
        .init();
    // One thread for the hive and the link; a few for files, which block.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(8).build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "no runtime");
            return ExitCode::FAILURE;
        }
    };
    match actix_rt::System::with_tokio_rt(|| runtime).block_on(run(cli)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(cli: Cli) -> Result<()> {
    let env = Env::real().with_clock(edge::KnownClock::real());
    if cli.defaultconfig {
        return say(DEFAULT_FILE);
    }
    match cli.verb {
        None => {}
        Some(Verb::Topology { dot }) => {
            let mut hive = Hive::new("edgecore", env);
            let _seats = edge::topology::seats(&mut hive);
            let map = hive.topology();
            return say(&if dot { map.dot("edgecore") } else { map.text() });
        }
        Some(Verb::MqttPassword { name }) => return mqtt_password(&name, &env),
    }
    let (settings, warnings) = Settings::load_with_warnings(&cli.config)?;
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    let (repaired, private) = edge::keep_private(&settings, &cli.config);
    for repaired in repaired {
        tracing::warn!("other users of this machine could reach the node's own files: {repaired}");
    }
    private?;
    let identity = Identity::read(&settings)?;
    let hub = &settings.modules.edge_hub;
    let fallback = if hub.websocket.enable { hub.websocket.server.as_str() } else { "" };
    let endpoints = Endpoints::from_lists(&hub.quic.server, fallback, &identity.credentials, &env.clock())
        .context("the link to the cloud (modules.edgeHub.quic, modules.edgeHub.websocket)")?;
    let network = KernelRoutes::to(endpoints.hosts());
    let endpoint = &settings.modules.edged.tailored_kubelet_config.container_runtime_endpoint;
    let runtime =
        cri::Grpc::new(endpoint, endpoint, RUNTIME_ANSWERS_WITHIN).context("the container runtime")?;
    let store = edge::open_store(&settings, &env).context("the node's store (database.dataSource)")?;
    edge::recall_time(&store, env.clock().as_ref()).context("the last known time in the node's store")?;
    let parts = Parts {
        node: identity.node.clone(),
        common_name: identity.common_name(),
        endpoints,
        network: Some(Rc::new(network)),
        runtime: Arc::new(runtime),
        store,
    };
    let mut core = EdgeCore::start(&settings, parts, env).await?;
    edge::notify::tell("READY=1");
    core.inspector().when_blocked(BLOCKED_FOR, |blocked| end(&blocked));
    let ended_by = tokio::select! {
        reason = core.gave_up() => Err(anyhow::anyhow!(reason)),
        signal = stop_signal() => signal,
    };
    edge::notify::tell("STOPPING=1");
    let ended = core.stop(STOP_WITHIN).await;
    tracing::info!(?ended, "stopped; containers go on");
    match (ended_by?, ended) {
        (_, Ended::InOrder) => Ok(()),
        (_, Ended::Late(actors)) => bail!("these actors did not stop in time: {}", actors.join(", ")),
        (_, Ended::GaveUp(reason)) => bail!("an actor gave up: {reason}"),
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
    say(&format!("{}\n", line.map_err(anyhow::Error::msg)?))
}

/// Nothing on the blocked thread can end the daemon in order; what starts it anew does better than waiting.
#[allow(clippy::exit)]
fn end(blocked: &beehive::Blocked) {
    tracing::error!("{blocked}; the daemon ends, containers go on");
    std::process::exit(1)
}

fn say(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    // A reader that closed the pipe has read what it wanted.
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

async fn stop_signal() -> Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}
