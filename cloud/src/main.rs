//! `cloudcore`: the cloud's daemon.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use beehive::{Ended, Env, Hive, Inspector};
use clap::{Parser, Subcommand};
use cloud::{ApiServer, CloudCore, Transport, api_client};
use cloud_apiserver::StandAlone;
use config::cloud::{CloudCore as Settings, DEFAULT_FILE, DEFAULT_PATH};

#[derive(Parser)]
#[command(name = "cloudcore", version = buildinfo::TEXT, about = "The cloud's side of KubeHive")]
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
    /// Where --standalone listens; any other address than a loopback one (127.0.0.1, ::1) opens its API to the network
    #[arg(long, default_value = "127.0.0.1:6443")]
    standalone_listen: SocketAddr,
    /// Print the annotated default config and end
    #[arg(long)]
    defaultconfig: bool,
    /// KubeEdge's
    #[arg(long, hide = true)]
    minconfig: bool,
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
    // Whatever kube says as it goes wrong is an error that its caller says, too, in our words.
    daemon::main("info,kube_client=off,kube_runtime=off", async move || run(cli).await)
}

async fn run(cli: Cli) -> Result<()> {
    let env = Env::real();
    if cli.defaultconfig {
        return daemon::print(DEFAULT_FILE);
    }
    if cli.minconfig {
        bail!(
            "there is no --minconfig here: each setting may be left out, and --defaultconfig prints all of them"
        );
    }
    if let Some(Verb::Topology { dot }) = cli.verb {
        let mut hive = Hive::new("cloudcore", env);
        let _api = cli.standalone.then(|| cloud_apiserver::mailboxes(&mut hive));
        let _mailboxes =
            (cloud::topology::mailboxes(&mut hive), cloud::listeners::mailboxes(&mut hive, true, true));
        return daemon::print_topology("cloudcore", &hive.topology(), dot);
    }
    let settings = settings(cli.config.as_deref())?;
    let (client, api) = if cli.standalone {
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
        let api = StandAlone::open(server, &env).await.context("the stand-alone API")?;
        tracing::info!(
            address = %api.address(),
            kubeconfig = %api.kubeconfig_path().display(),
            "stand-alone API listens"
        );
        let client = api.client();
        (client, ApiServer { standalone: Some(api), ..ApiServer::default() })
    } else {
        api_client(&settings, cli.kubeconfig.as_deref()).await?
    };
    let start = CloudCore::start_with(&settings, client, Transport::Quic, env, api);
    match daemon::unless_stopped(start).await? {
        Some(core) => daemon::serve(Daemon(core?)).await,
        None => Ok(()),
    }
}

struct Daemon(CloudCore);

impl daemon::Running for Daemon {
    async fn gave_up(&mut self) -> String {
        self.0.gave_up().await
    }

    fn inspector(&self) -> Inspector {
        self.0.inspector()
    }

    async fn stop(self, deadline: Duration) -> Ended {
        self.0.stop(deadline).await
    }
}

/// Of the file that was named; or of the one at its place, if there is one.
fn settings(path: Option<&Path>) -> Result<Settings> {
    let path = match path {
        Some(path) => path,
        None if Path::new(DEFAULT_PATH).exists() => Path::new(DEFAULT_PATH),
        None => return Ok(Settings::default()),
    };
    let (settings, warnings) = Settings::load_with_warnings(path)?;
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    Ok(settings)
}
