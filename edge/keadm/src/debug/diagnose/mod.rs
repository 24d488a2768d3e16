//! `keadm debug diagnose`: why a node is not Ready, or a pod does not run, from what the node itself knows: its store, which is read also
//! while edgecore is down, and edgecore's socket, which answers also while the cloud is away.

mod node;
mod pod;

use std::path::PathBuf;

use anyhow::Result;
use beehive::Env;
use clap::{Args, Subcommand};
use config::edge::EdgeCore;
use edge_store::StoreInspector;
use nodechecks::{Finding, Grade, Host};
use serde_json::Value;

use super::check::{self, CheckArgs, CheckWith, Topic};
use crate::config_location;
use crate::node_socket::{self, OfNode};

/// 8 MiB of `/metrics`, and of the page: a node with many pods.
const ANSWER_MAX: usize = 8 << 20;

/// What is looked into.
#[derive(Debug, Clone, Subcommand)]
pub enum DiagnoseCommand {
    /// Why this node is not Ready, or not linked
    Node(DiagnoseNode),
    /// Why a pod does not run
    Pod(DiagnosePod),
    /// What stops this machine from being a node: the same as `keadm debug check`
    #[command(alias = "installation")]
    Install(CheckWith),
}

/// Whose node.
#[derive(Debug, Clone, Args)]
pub struct DiagnoseNode {
    /// The node's edgecore.yaml
    #[arg(short = 'c', long, default_value = config::edge::DEFAULT_PATH, value_parser = config_location::parser())]
    pub config: PathBuf,
}

/// Which pod.
#[derive(Debug, Clone, Args)]
pub struct DiagnosePod {
    /// Its name
    pub name: String,
    /// Its namespace
    #[arg(short = 'n', long, default_value = "default")]
    pub namespace: String,
    /// Of which node.
    #[command(flatten)]
    pub node: DiagnoseNode,
}

/// What an edgecore says at its socket, as far as it says it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Live {
    /// `/healthz`, or why there is no answer.
    pub(crate) health: Option<Result<(u16, String), String>>,
    /// `/metrics`.
    pub(crate) metrics: Option<String>,
    /// The node's page as JSON, where there is one.
    pub(crate) page: Option<Value>,
    /// The last events of the node and its pods.
    pub(crate) events: Option<Value>,
}

impl Live {
    /// Asks.
    pub(crate) async fn ask(settings: &EdgeCore, config: &std::path::Path) -> Live {
        if settings.modules.edge_stream.socket().is_none() {
            return Live::default();
        }
        let node = OfNode::of(config);
        let health =
            node_socket::get(&node, "/healthz", ANSWER_MAX).await.map_err(|error| format!("{error:#}"));
        if health.is_err() {
            return Live { health: Some(health), ..Live::default() };
        }
        let text = async |path: &str| match node_socket::get(&node, path, ANSWER_MAX).await {
            Ok((200, text)) => Some(text),
            Ok(_) | Err(_) => None,
        };
        let (metrics, page, events) = tokio::join!(text("/metrics"), text("/page.json"), text("/events"));
        let json = |text: Option<String>| serde_json::from_str(&text?).ok();
        Live { health: Some(health), metrics, page: json(page), events: json(events) }
    }
}

/// Looks, and says what is found, a line each.
///
/// # Errors
/// When something is wrong, with the names of what.
pub(super) async fn diagnose(order: &DiagnoseCommand, env: &Env, say: &mut dyn FnMut(String)) -> Result<()> {
    let findings = match order {
        DiagnoseCommand::Install(with) => {
            let order = CheckArgs { topic: Topic::All, with: with.clone() };
            return check::check(&order, env, say).await;
        }
        DiagnoseCommand::Node(of) => of_node(of, env).await,
        DiagnoseCommand::Pod(of) => of_pod(of, env).await,
    };
    check::judge(&findings, say)
}

/// What is found of the node.
pub(crate) async fn of_node(of: &DiagnoseNode, env: &Env) -> Vec<Finding> {
    let (settings, has_joined, of_file) = check::configuration(&of.config);
    let host = Host::here();
    let with = CheckWith::of(&of.config);
    // The runtime itself is newer than what edgecore last reported of it, which a kubelet does after half a minute, too.
    let (live, runtime) = tokio::join!(Live::ask(&settings, &of.config), async {
        match has_joined {
            // Of the heap: all that a check may wait for is in it.
            true => Box::pin(check::findings(Topic::Runtime, &with, &host, env)).await.unwrap_or_default(),
            false => Vec::new(),
        }
    });
    let (of_store, inspector) =
        check::store(&settings.database.data_source, &settings.modules.edged.hostname_override);
    let mut findings = vec![of_file];
    let mut is_of_now = false;
    if has_joined {
        let runs = runs(&settings, &host);
        is_of_now = match &live.health {
            Some(health) => health.is_ok(),
            None => runs,
        };
        findings.push(node::edgecore(runs, live.health.as_ref(), settings.modules.edge_stream.socket()));
    }
    findings.push(of_store);
    if has_joined {
        findings.push(node::link(
            matches!(live.health, Some(Ok(_))),
            live.metrics.as_deref(),
            live.page.as_ref(),
        ));
        let node = inspector.as_ref().and_then(|inspector| node_of(inspector, &settings));
        findings.extend(node::registered(node.as_ref(), &settings.modules.edged.hostname_override));
        let complaints: Vec<Finding> =
            runtime.into_iter().filter(|finding| finding.grade != Grade::Passed).collect();
        let conditions = node::conditions(node.as_ref(), live.page.as_ref(), is_of_now, &complaints);
        findings.extend(complaints);
        findings.extend(conditions);
        findings.extend(node::outbox(inspector.as_ref(), env.wall()));
    }
    findings
}

/// Whether an edgecore runs here: the one that has this store, since another one of that name may be KubeEdge's, or have ended with nobody to
/// notice. Whoever is not root may not see who has it, and goes by the name.
fn runs(settings: &EdgeCore, host: &Host) -> bool {
    if rustix::process::geteuid().is_root() {
        return nodeupgrade::edgecore_runs_on(&settings.database.data_source);
    }
    let has_ended = |pid: u32| node::is_zombie(&host.text(format!("/proc/{pid}/stat")));
    host.processes().iter().any(|process| process.name == "edgecore" && !has_ended(process.pid))
}

/// The Node, as the store has it.
fn node_of(inspector: &StoreInspector, settings: &EdgeCore) -> Option<Value> {
    let rows = inspector.entries(Some("nodes"), None, true).ok()?;
    let named = &settings.modules.edged.hostname_override;
    let row = rows.into_iter().find(|row| named.is_empty() || row.key.1 == *named)?;
    let mut node = serde_json::from_slice(&row.value?).ok()?;
    super::get::own_conditions(inspector, &mut node);
    Some(node)
}

async fn of_pod(of: &DiagnosePod, env: &Env) -> Vec<Finding> {
    let (settings, _, of_file) = check::configuration(&of.node.config);
    let (of_store, inspector) =
        check::store(&settings.database.data_source, &settings.modules.edged.hostname_override);
    let Some(inspector) = inspector else { return vec![of_file, of_store] };
    let live = Live::ask(&settings, &of.node.config).await;
    let pods = check::pods(&inspector);
    let is_it =
        |pod: &&Value| pod["metadata"]["name"] == *of.name && pod["metadata"]["namespace"] == *of.namespace;
    let Some(mut pod) = pods.iter().find(is_it).cloned() else {
        return vec![pod::not_held(&pods, &of.namespace, &of.name)];
    };
    super::get::own_status(&inspector, &mut pod);
    let is_held = |key: &apimachinery::ObjectKey| {
        let rows = inspector.entries(Some(&key.resource), Some(&key.name), false).unwrap_or_default();
        rows.iter().any(|row| row.key == (key.namespace.clone(), key.name.clone()) && row.damage.is_none())
    };
    let mut findings = pod::state(&pod, env.wall());
    findings.extend(pod::references(&pod, &is_held));
    if live.health.as_ref().is_none_or(Result::is_err) {
        findings.push(Finding::failed(
            "EdgeCore",
            "edgecore does not answer, so that nobody sees to this pod, and what stands here is of before: `keadm debug diagnose node` says more",
        ));
    }
    findings.extend(pod::events(live.events.as_ref(), &of.namespace, &of.name, env.wall()));
    findings
}
