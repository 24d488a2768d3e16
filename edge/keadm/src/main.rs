//! `keadm`: KubeEdge's verbs for a node's life in the cluster.

use std::io::{BufRead as _, IsTerminal as _, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, bail};
use beehive::Env;
use clap::{Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use contract::NodeName;
use keadm::{CloudPorts, ConfigLocation, HubProtocol, Join};
use noderegistry::TOKEN_USES;

#[derive(Parser)]
#[command(
    name = "keadm",
    version = buildinfo::TEXT,
    about = "Installs CloudCore, joins edge nodes to a cluster, and undoes both"
)]
struct Cli {
    #[command(subcommand)]
    verb: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Installs CloudCore into the cluster
    ///
    /// The Helm chart of this release, without Helm: first it looks whether the cluster is fit for it, then it writes the objects in order,
    /// and waits until CloudCore's pods are ready. `helm upgrade --install` may take over what it installed.
    Init(Box<keadm::Init>),
    /// Prints what `init` would install, as YAML
    Manifest(Box<keadm::Manifest>),
    /// Shows the images of this release, and the values of the chart
    #[command(subcommand)]
    Config(keadm::ImagesCommand),
    /// Prints a token that new nodes can join with for 24 hours, or for --ttl
    ///
    /// Good for new names, and as often as --uses says. A name that has or had a Node in the cluster, or that a Lease or a pod
    /// there names, needs a token of its own: --edgenode-name. `keadm token list` shows the tokens, `keadm token revoke` withdraws one.
    /// A machine that was a node before needs `keadm reset` before it joins.
    Gettoken {
        #[command(flatten)]
        cluster: ClusterArgs,
        /// The namespace of CloudCore; where this project's is in the cluster if left out
        #[arg(short = 'n', long, value_parser = keadm::namespace)]
        namespace: Option<String>,
        /// Bind the token to this name and to one use
        #[arg(short = 'i', long)]
        edgenode_name: Option<String>,
        /// How many nodes may join with it
        #[arg(long, default_value_t = TOKEN_USES, value_parser = clap::value_parser!(u32).range(1..=100_000), conflicts_with = "edgenode_name")]
        uses: u32,
        /// How long it is good, as 90m or 72h: from 1m to 8760h. As long as CloudCore takes one if left out, which is twice
        /// modules.cloudHub.tokenRefreshDuration, 24 hours by default
        #[arg(long, value_parser = keadm::ttl)]
        ttl: Option<Duration>,
    },
    /// Lists tokens and withdraws them
    #[command(subcommand)]
    Token(TokenCommand),
    /// Lets an edge node have the cluster's Node of its name: one of KubeEdge, one made by hand, or one that was deleted
    ///
    /// Annotates the Node with its own uid and labels it as an edge node. Without a Node, CloudCore makes a new one.
    Adopt {
        #[command(flatten)]
        of: NodeArgs,
        /// Take it back: the Node stays, and is none of this CloudCore's any more. For one that goes back to KubeEdge
        #[arg(long)]
        undo: bool,
    },
    /// Evicts a node: its links end within seconds and its name is barred until `keadm free`
    ///
    /// The same as `kubectl label edgenode NODE kubehive.io/revoked=true`. Its Node and pods stay in the cluster until
    /// `kubectl delete node NODE`. A name that no edge node has is refused, as it is mistyped most often.
    Revoke {
        #[command(flatten)]
        of: NodeArgs,
        /// Bar the name although no edge node has it: nobody joins under it until `keadm free`
        #[arg(long)]
        unused: bool,
    },
    /// Frees a name that was revoked, or whose machine is lost: a new machine may join under it
    ///
    /// The same as `kubectl delete edgenode NODE`.
    Free(NodeArgs),
    /// Makes this machine a node of the cluster
    Join {
        /// CloudCore, host:port; the port is WebSocket's (10000, or the NodePort 30000), unless --hub-protocol says otherwise
        #[arg(short = 'e', long)]
        cloudcore_ipport: String,
        /// Whose port stands in --cloudcore-ipport. The link uses both in any case: QUIC, and WebSocket where UDP is blocked
        #[arg(long, value_enum, default_value_t)]
        hub_protocol: HubProtocol,
        /// CloudCore's port for QUIC (UDP); the one above WebSocket's if left out, as 10001 is above 10000
        #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
        quicport: Option<u16>,
        /// CloudCore's port for WebSocket (TCP) with --hub-protocol=quic; the one below QUIC's if left out
        #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
        websocketport: Option<u16>,
        /// A token of `keadm gettoken`; every user of this machine sees it while keadm runs: --token-file hides it
        #[arg(short = 't', long, conflicts_with = "token_file")]
        token: Option<String>,
        /// A file that holds the token, or a pipe, which has a minute to bring it; - for standard input
        #[arg(long)]
        token_file: Option<PathBuf>,
        /// The node's name; the host's if left out
        #[arg(short = 'i', long)]
        edgenode_name: Option<String>,
        /// Take the node over from KubeEdge's edgecore on this machine: its settings, its database and its running containers
        ///
        /// KubeEdge's edgecore is stopped, what its database holds is copied into a store of this release, and this edgecore starts in its
        /// place and takes up the containers as they are. Nothing of KubeEdge's is written; `keadm reset --to-kubeedge` goes back. The
        /// node's Node is to be adopted before (`keadm adopt NODE`). FILE: KubeEdge's edgecore.yaml, if it lies elsewhere.
        #[arg(long, value_name = "FILE", num_args = 0..=1, require_equals = true, default_missing_value = config::edge::KUBEEDGE_PATH)]
        from_kubeedge: Option<PathBuf>,
        /// CloudCore's port for certificates (10002, or the NodePort 30002)
        #[arg(short = 's', long, default_value_t = 10002)]
        certport: u16,
        /// Where edgecore.yaml is written. KubeEdge's place, /etc/kubeedge/config/edgecore.yaml, means this one and a link there
        #[arg(long, default_value = config::edge::DEFAULT_PATH)]
        config: PathBuf,
        /// A value of edgecore.yaml: a.b.c=value, lists as JSON. So that pods find the cluster's services by name (`kubectl -n
        /// kube-system get service kube-dns`): 'modules.edged.tailoredKubeletConfig.clusterDNS=["10.96.0.10"]'
        #[arg(long)]
        set: Vec<String>,
        /// Make the node's key in a PKCS#11 token or a TPM, and leave it there: pkcs11:token=LABEL?module-path=FILE.so&pin-source=file:FILE (RFC 7512)
        ///
        /// The machine needs OpenSC's pkcs11-tool (apt-get install opensc), and the PIN in a file that root alone reads.
        #[arg(long, value_name = "URI")]
        key_uri: Option<String>,
        #[command(flatten)]
        of_kubeedge: keadm::NoKubeEdgeFlags<keadm::OfJoin>,
    },
    /// Undoes what `join` or `init` did
    ///
    /// `keadm reset`, or `keadm reset edge`, on the machine of a node; `keadm reset cloud` for a cluster.
    #[command(args_conflicts_with_subcommands = true)]
    Reset {
        #[command(subcommand)]
        side: Option<ResetCommand>,
        #[command(flatten)]
        edge: ResetEdge,
    },
    /// Exchanges edgecore for a new one, and puts the old one back if that is not healthy in time
    Upgrade(keadm::Upgrade),
    /// Writes values into edgecore.yaml and restarts edgecore, and puts the file of before back if the node is not healthy in time
    ConfigUpdate(keadm::ConfigUpdate),
    /// Puts edgecore and its settings of a backup back
    #[command(subcommand)]
    Rollback(keadm::RollbackCommand),
    /// Copies edgecore, its settings and its store
    #[command(subcommand)]
    Backup(keadm::BackupCommand),
    /// Looks into the node's store
    #[command(subcommand)]
    Store(keadm::StoreCommand),
    /// Shows whether a node holds what it should, or what this node holds
    Sync(keadm::Sync),
    /// Looks for faults on this node: checks, why it or a pod does not run, what its store holds, and an archive for who helps
    #[command(subcommand)]
    Debug(keadm::DebugCommand),
    /// What is done on this node, with or without the cloud
    #[command(subcommand)]
    Ctl(keadm::CtlCommand),
    /// Runs keadm on many machines by ssh: join, reset, upgrade, config-update
    Batch(keadm::BatchCommand),
    /// Prints the version
    Version {
        /// How: as a document, or short
        #[arg(short = 'o', long, value_enum)]
        output: Option<keadm::VersionFormat>,
    },
    /// A verb of KubeEdge's keadm, or none.
    #[command(external_subcommand)]
    Other(Vec<String>),
}

#[derive(Subcommand)]
enum ResetCommand {
    /// Gives the node's name back and removes what join wrote and edgecore kept
    Edge(ResetEdge),
    /// Removes CloudCore from the cluster, with its namespace and its CA
    Cloud(keadm::Teardown),
}

/// Gives the node's name back and removes what join wrote and edgecore kept.
///
/// Stop edgecore first. Removed are edgecore.yaml and the link to it at KubeEdge's place, the node's key, its certificate and
/// that of the CA, the store (database.dataSource) with its log, lock and key, and its backups. What stays: containers that run and their
/// images, the folders of pods and their logs, and stores that were found broken (FILE.broken-N). Its certificate is worth nothing then,
/// and its session ends. As with KubeEdge its Node object stays in the cluster: an administrator deletes it (`kubectl delete node NODE`),
/// or the machine joins again with a token that is bound to its name.
#[derive(Args)]
struct ResetEdge {
    /// The edgecore.yaml that join wrote
    #[arg(long, default_value = config::edge::DEFAULT_PATH)]
    config: PathBuf,
    /// Remove the files even if the cloud cannot be told, and the name stays taken there. A name that is another machine's, as after a
    /// disk was copied, is given back neither with this nor without
    #[arg(long)]
    force: bool,
    /// Stop edgecore and start KubeEdge's again, from which the node came (`keadm join --from-kubeedge`); containers run on
    #[arg(long)]
    to_kubeedge: bool,
    #[command(flatten)]
    of_kubeedge: keadm::NoKubeEdgeFlags<keadm::OfReset>,
}

/// Which cluster.
#[derive(Args)]
struct ClusterArgs {
    /// Path of the cluster's kubeconfig; else those of $KUBECONFIG, else /root/.kube/config
    #[arg(long)]
    kube_config: Option<PathBuf>,
}

#[derive(Args)]
struct NodeArgs {
    /// The node's name
    node: String,
    #[command(flatten)]
    cluster: ClusterArgs,
}

impl NodeArgs {
    async fn open(&self) -> Result<(kube::Client, NodeName)> {
        let node = NodeName::parse(&self.node)?;
        Ok((keadm::client(self.cluster.kube_config.as_deref()).await?, node))
    }
}

#[derive(Subcommand)]
enum TokenCommand {
    /// Lists the tokens that are good or were until a while ago
    List {
        #[command(flatten)]
        cluster: ClusterArgs,
    },
    /// Withdraws a token; nodes that joined with it stay
    Revoke {
        /// Its id, from `keadm token list`
        id: String,
        #[command(flatten)]
        cluster: ClusterArgs,
    },
}

fn main() -> ExitCode {
    // ssh asks for a password: see `keadm batch`.
    if let Some(code) = keadm::answer_ssh() {
        return code;
    }
    daemon::names::from_files_and_dns();
    // Not `Cli::parse`, which has the usage of `keadm` behind what is said of a flag of KubeEdge's.
    let cli = Cli::from_arg_matches(&Cli::command().get_matches()).unwrap_or_else(|error| error.exit());
    match actix_rt::System::new().block_on(run(cli)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // A command in a container ends keadm as it has ended.
            if let Some(ended) = error.downcast_ref::<keadm::CommandEnded>() {
                let _ = writeln!(std::io::stderr(), "{ended}");
                return ExitCode::from(ended.0);
            }
            // Nobody is left to tell when standard error is closed.
            let _ = writeln!(std::io::stderr(), "keadm: {}", daemon::sentence(&error));
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
        Command::Gettoken { cluster, namespace, edgenode_name, uses, ttl } => {
            let node = edgenode_name.map(|name| NodeName::parse(&name)).transpose()?;
            let client = keadm::client(cluster.kube_config.as_deref()).await?;
            let namespace = keadm::namespace_of(&client, namespace.as_deref()).await?;
            let (life, warning) = keadm::token_life(&client, &namespace, ttl).await?;
            // Not on the standard output, which is the token.
            if let Some(warning) = warning {
                let _ = writeln!(std::io::stderr(), "keadm: {warning}");
            }
            let node = node.as_ref();
            say(keadm::get_token_in(client, &namespace, node, uses, life, &Env::real()).await?);
            Ok(())
        }
        Command::Token(TokenCommand::List { cluster }) => {
            keadm::list_tokens(keadm::client(cluster.kube_config.as_deref()).await?, &mut say).await
        }
        Command::Token(TokenCommand::Revoke { id, cluster }) => {
            keadm::withdraw_token(keadm::client(cluster.kube_config.as_deref()).await?, &id, &mut say).await
        }
        Command::Ctl(keadm::CtlCommand::Get(what)) => keadm::get(&what, &Env::real(), &mut say).await,
        Command::Ctl(keadm::CtlCommand::Describe(what)) => {
            keadm::describe(&what, &Env::real(), &mut say).await
        }
        Command::Ctl(keadm::CtlCommand::Logs(order)) => keadm::logs(&order).await,
        Command::Ctl(keadm::CtlCommand::Exec(order)) => keadm::exec(&order).await,
        Command::Ctl(keadm::CtlCommand::Restart(what)) => keadm::restart(&what, &mut say).await,
        Command::Ctl(keadm::CtlCommand::Edit(what)) => keadm::edit(&what, &mut say).await,
        Command::Ctl(keadm::CtlCommand::Page(order)) => keadm::page(&order, &mut say).await,
        Command::Ctl(keadm::CtlCommand::Confirm(order)) => {
            // KubeEdge's scripts ask nobody.
            let mut is_meant = |question: &str| !std::io::stdin().is_terminal() || is_meant(question);
            keadm::confirm(&order, &mut is_meant, &mut say).await
        }
        Command::Ctl(keadm::CtlCommand::UnholdUpgrade(order)) => keadm::unhold(&order, &mut say).await,
        Command::Ctl(keadm::CtlCommand::Call(keadm::Callable::Device(order))) => {
            keadm::call_method(&order, &Env::real(), &mut say).await
        }
        Command::Ctl(keadm::CtlCommand::Other(words)) => {
            bail!("{}", keadm::absent_of_ctl(words.first().map_or("", String::as_str)))
        }
        Command::Adopt { of, undo } => {
            let (client, node) = of.open().await?;
            if undo {
                keadm::undo_adoption(client, &node, &mut say).await
            } else {
                keadm::adopt(client, &node, &mut say).await
            }
        }
        Command::Revoke { of, unused } => {
            let (client, node) = of.open().await?;
            if unused {
                keadm::bar(client, &node, Env::real().wall(), &mut say).await
            } else {
                keadm::revoke(client, &node, Env::real().wall(), &mut say).await
            }
        }
        Command::Free(of) => {
            let (client, node) = of.open().await?;
            keadm::free(client, &node, &mut say).await
        }
        Command::Join {
            cloudcore_ipport,
            hub_protocol,
            quicport,
            websocketport,
            token,
            token_file,
            edgenode_name,
            from_kubeedge,
            certport,
            config,
            set,
            key_uri,
            of_kubeedge: _,
        } => {
            let cloud = CloudPorts {
                cloudcore: cloudcore_ipport,
                protocol: hub_protocol,
                quic: of_the_other(HubProtocol::Websocket, hub_protocol, quicport, "--quicport")?,
                websocket: of_the_other(HubProtocol::Quic, hub_protocol, websocketport, "--websocketport")?,
                cert: certport,
            };
            let token = token_of(token, token_file.as_deref())?;
            let known = from_kubeedge.as_deref().map(keadm::kubeedge_node).transpose()?.flatten();
            let node = match edgenode_name.or(known) {
                Some(name) => name,
                None => keadm::host_name()?,
            };
            let config = ConfigLocation::of(&config);
            let order = Join { cloud, token, node, config, set, key_uri };
            match from_kubeedge {
                Some(from) => {
                    let env = Env::real();
                    keadm::join_from_kubeedge(&order, &from, &keadm::Machine::here(&env)?, &env, &mut say)
                        .await
                }
                None => keadm::join(&order, &mut say).await,
            }
        }
        Command::Init(order) => keadm::init(&order, &Env::real(), &mut say).await,
        Command::Manifest(order) => keadm::manifest(&order, &mut say).await,
        Command::Config(command) => keadm::show_images(&command, &mut say),
        Command::Reset { side: Some(ResetCommand::Cloud(order)), .. } => {
            keadm::teardown(&order, &Env::real(), &mut is_meant, &mut say).await
        }
        Command::Reset { side: Some(ResetCommand::Edge(of)), .. }
        | Command::Reset { side: None, edge: of } => reset_edge(&of).await,
        Command::Debug(order) => keadm::debug(&order, &Env::real(), &mut say).await,
        Command::Sync(order) => keadm::show_sync(&order, Env::real().wall(), &mut say).await,
        Command::Upgrade(command) => keadm::upgrade(&command, &Env::real(), &mut say).await,
        Command::ConfigUpdate(order) => keadm::config_update(&order, &Env::real(), &mut say).await,
        Command::Rollback(command) => keadm::rollback(&command, &Env::real(), &mut say).await,
        Command::Backup(command) => keadm::backup(&command, &Env::real(), &mut say).await,
        Command::Batch(order) => keadm::batch(&order, &Env::real(), &mut say).await,
        Command::Version { output } => {
            say(keadm::version(output)?);
            Ok(())
        }
        Command::Other(words) => bail!("{}", keadm::absent(words.first().map_or("", String::as_str))),
        Command::Store(verb) => keadm::show_store(&verb, Env::real().wall(), &mut say),
    }
}

async fn reset_edge(of: &ResetEdge) -> Result<()> {
    let config = ConfigLocation::of(&of.config);
    if of.to_kubeedge {
        let machine = keadm::Machine::here(&Env::real())?;
        return keadm::back_to_kubeedge(&config, of.force, &machine, &mut say).await;
    }
    keadm::reset(&config, of.force, &mut say).await?;
    if keadm::came_from_kubeedge(&config) {
        say("the node came from KubeEdge, whose unit is kept: `keadm reset --to-kubeedge` puts it back"
            .to_owned());
    }
    Ok(())
}

/// Whether a person at the terminal says yes.
fn is_meant(question: &str) -> bool {
    let _ = write!(std::io::stderr(), "{question}\nGo on? [y/N] ");
    let mut answer = String::new();
    // 16 bytes are more than a yes.
    let read = std::io::stdin().lock().take(16).read_line(&mut answer);
    read.is_ok() && matches!(answer.trim(), "y" | "Y" | "yes")
}

/// A port beside the one in --cloudcore-ipport; the port that stands there is not told twice.
fn of_the_other(
    beside: HubProtocol,
    told: HubProtocol,
    port: Option<u16>,
    flag: &str,
) -> Result<Option<u16>> {
    match port {
        Some(_) if told != beside => bail!("{flag}: that port stands in --cloudcore-ipport already"),
        port => Ok(port),
    }
}

/// From the command line as KubeEdge has it, with a word about who sees it there; from a file or standard input without one.
fn token_of(shown: Option<String>, file: Option<&Path>) -> Result<String> {
    match (shown, file) {
        (Some(dash), None) if dash == "-" => keadm::read_token(Path::new("-")),
        (None, Some(path)) => keadm::read_token(path),
        (Some(token), None) => {
            let words = "keadm: the token stands in the command line, where other users of this machine see it: --token-file hides it";
            let _ = writeln!(std::io::stderr(), "{words}");
            Ok(token)
        }
        _ => bail!(
            "a token is missing: `keadm gettoken` prints one where the cluster's kubeconfig is; --token-file names a file with it, or - for standard \
             input (--token takes it on the command line, where other users of this machine see it)"
        ),
    }
}
