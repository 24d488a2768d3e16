//! `cloudcore`: the cloud's daemon.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use beehive::{Ended, Env, Hive};
use clap::{Parser, Subcommand};
use cloud::{CloudCore, Transport};
use config::cloud::{CloudCore as Settings, DEFAULT_FILE, DEFAULT_PATH};
use kube::config::{KubeConfigOptions, Kubeconfig};
use tokio::signal::unix::{SignalKind, signal};

/// 10 s: what a stop may take; Kubernetes kills after 30.
const STOP_WITHIN: Duration = Duration::from_secs(10);
/// 60 s with the hive's thread blocked: no burst of work takes so long.
const BLOCKED_FOR: Duration = Duration::from_secs(60);

#[derive(Parser)]
#[command(name = "cloudcore", version, about = "The cloud's side of KubeHive")]
struct Cli {
    /// Path of cloudcore.yaml; the defaults if the file is not there and the path was not given
    #[arg(long)]
    config: Option<PathBuf>,
    /// Path of a kubeconfig; wins over the config's
    #[arg(long)]
    kubeconfig: Option<PathBuf>,
    /// Serve a Kubernetes API of our own from SQLite: for trying out, for tests, for a single box without a cluster
    #[arg(long)]
    standalone: bool,
    /// Where --standalone keeps its database, keys and admin kubeconfig
    #[arg(long, default_value = "/var/lib/kubehive")]
    standalone_dir: PathBuf,
    /// Where --standalone listens; who gives another address than this host's own opens its API to the network
    #[arg(long, default_value = "127.0.0.1:6443")]
    standalone_listen: SocketAddr,
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
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = actix_rt::System::with_tokio_rt(|| {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(8)
            .build()
            .unwrap_or_else(|error| {
                tracing::error!(%error, "no runtime");
                std::process::abort()
            })
    });
    tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_default_env()
                .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info")),
        )
        .with_writer(std::io::stderr)
        .init();
    match runtime.block_on(run(cli)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(cli: Cli) -> Result<()> {
    let env = Env::real();
    if cli.defaultconfig {
        return say(DEFAULT_FILE);
    }
    if let Some(Verb::Topology { dot }) = cli.verb {
        let mut hive = Hive::new("cloudcore", env);
        let _seats = cloud::topology::seats(&mut hive);
        let map = hive.topology();
        return say(&if dot { map.dot("cloudcore") } else { map.text() });
    }
    let settings = settings(cli.config.as_deref())?;
    let mut standalone = None;
    let client = if cli.standalone {
        let server = cloud_apiserver::Settings {
            listen: cli.standalone_listen,
            data_dir: cli.standalone_dir.clone(),
            advertise: settings
                .modules
                .cloud_hub
                .advertise_address
                .iter()
                .chain(&settings.modules.cloud_hub.dns_names)
                .cloned()
                .collect(),
            ..cloud_apiserver::Settings::default()
        };
        let running = cloud_apiserver::start(server, env.clone()).await.context("the stand-alone API")?;
        tracing::info!(
            address = %running.address(),
            kubeconfig = %running.kubeconfig_path().display(),
            "stand-alone API listens"
        );
        let client = running.client();
        standalone = Some(running);
        client
    } else {
        client(&settings, cli.kubeconfig.as_deref()).await?
    };
    let mut core = CloudCore::start(&settings, client, Transport::Quic, env).await?;
    core.inspector().when_blocked(BLOCKED_FOR, |blocked| end(&blocked));
    let ended_by = tokio::select! {
        reason = core.gave_up() => Err(anyhow::anyhow!("an actor gave up: {reason}")),
        signal = stop_signal() => signal,
    };
    let ended = core.stop(STOP_WITHIN).await;
    if let Some(server) = standalone {
        server.stop(STOP_WITHIN).await;
    }
    tracing::info!(?ended, "stopped");
    match (ended_by?, ended) {
        (_, Ended::InOrder) => Ok(()),
        (_, Ended::Late(actors)) => bail!("these actors did not stop in time: {}", actors.join(", ")),
        (_, Ended::GaveUp(reason)) => bail!("an actor gave up: {reason}"),
    }
}

/// Nothing on the blocked thread can end the daemon in order; what starts it anew does better than waiting.
#[allow(clippy::exit)]
fn end(blocked: &beehive::Blocked) {
    tracing::error!("{blocked}; the daemon ends");
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

fn settings(path: Option<&std::path::Path>) -> Result<Settings> {
    match path {
        Some(path) => Ok(Settings::load(path)?),
        None => {
            let path = std::path::Path::new(DEFAULT_PATH);
            if path.exists() { Ok(Settings::load(path)?) } else { Ok(Settings::default()) }
        }
    }
}

async fn client(settings: &Settings, flag: Option<&std::path::Path>) -> Result<kube::Client> {
    let api = &settings.kube_api_config;
    let path = flag
        .map(PathBuf::from)
        .or_else(|| (!api.kube_config.is_empty()).then(|| api.kube_config.clone().into()));
    let mut config = match path {
        Some(path) => {
            let file = Kubeconfig::read_from(&path)
                .with_context(|| format!("cannot read kubeconfig `{}`", path.display()))?;
            kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
                .await
                .with_context(|| format!("kubeconfig `{}` is not usable", path.display()))?
        }
        None => kube::Config::incluster().context(
            "not in a cluster: give --kubeconfig PATH, or --standalone to serve an API of our own",
        )?,
    };
    if !api.master.is_empty() {
        config.cluster_url = api.master.parse().context("kubeAPIConfig.master is not a URL")?;
    }
    Ok(kube::Client::try_from(config)?)
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
