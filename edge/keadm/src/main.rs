//! `keadm`: KubeEdge's verbs for a node's life in the cluster.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use beehive::Env;
use clap::{Parser, Subcommand};
use contract::NodeName;
use keadm::Join;
use kube::config::{KubeConfigOptions, Kubeconfig};

#[derive(Parser)]
#[command(name = "keadm", version, about = "Joins edge nodes to a cluster, and undoes it")]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Prints a token that a node can join with for 24 hours
    Gettoken {
        /// Path of the cluster's kubeconfig
        #[arg(long, default_value = "/root/.kube/config")]
        kube_config: PathBuf,
        /// Bind the token to this name and to one use
        #[arg(short = 'i', long)]
        edgenode_name: Option<String>,
    },
    /// Makes this machine a node of the cluster
    Join {
        /// CloudCore, host:port
        #[arg(short = 'e', long)]
        cloudcore_ipport: String,
        /// A token of `keadm gettoken`
        #[arg(short = 't', long)]
        token: String,
        /// The node's name; the host's if left out
        #[arg(short = 'i', long)]
        edgenode_name: Option<String>,
        /// CloudCore's port for certificates
        #[arg(short = 's', long, default_value_t = 10002)]
        certport: u16,
        /// Where edgecore.yaml is written
        #[arg(long, default_value = config::edge::DEFAULT_PATH)]
        config: PathBuf,
        /// A value of edgecore.yaml: a.b.c=value
        #[arg(long)]
        set: Vec<String>,
    },
    /// Gives the node's name back and removes what join wrote
    Reset {
        /// The edgecore.yaml that join wrote
        #[arg(long, default_value = config::edge::DEFAULT_PATH)]
        config: PathBuf,
        /// Remove the files even if the cloud cannot be told
        #[arg(long)]
        force: bool,
    },
    /// Looks into the node's store
    #[command(subcommand)]
    Store(keadm::StoreVerb),
    /// Shows whether a node holds what it should, or what this node holds
    Sync(keadm::Sync),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match actix_rt::System::new().block_on(run(cli)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody is left to tell when standard error is closed.
            let _ = writeln!(std::io::stderr(), "keadm: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn say(line: String) {
    // A closed standard output does not stop the work.
    let _ = writeln!(std::io::stdout(), "{line}");
}

async fn run(cli: Cli) -> Result<()> {
    match cli.verb {
        Verb::Gettoken { kube_config, edgenode_name } => {
            let node = edgenode_name.map(|name| NodeName::parse(&name)).transpose()?;
            let file = Kubeconfig::read_from(&kube_config)
                .with_context(|| format!("cannot use kubeconfig {}", kube_config.display()))?;
            let client = kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?;
            let client = kube::Client::try_from(client)?;
            say(keadm::get_token(client, node.as_ref(), &Env::real()).await?);
            Ok(())
        }
        Verb::Join { cloudcore_ipport, token, edgenode_name, certport, config, set } => {
            let node = match edgenode_name {
                Some(name) => name,
                None => host_name()?,
            };
            let order = Join { cloudcore: cloudcore_ipport, cert_port: certport, token, node, config, set };
            keadm::join(&order, &mut say).await
        }
        Verb::Reset { config, force } => keadm::reset(&config, force, &mut say).await,
        Verb::Sync(order) => keadm::show_sync(&order, Env::real().wall(), &mut say).await,
        Verb::Store(verb) => keadm::show_store(&verb, Env::real().wall(), &mut say),
    }
}

fn host_name() -> Result<String> {
    let name =
        std::fs::read_to_string("/proc/sys/kernel/hostname").context("cannot read this host's name")?;
    Ok(name.trim().to_lowercase())
}
