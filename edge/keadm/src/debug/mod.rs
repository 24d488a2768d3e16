//! `keadm debug`: KubeEdge's verbs for a node that is not as it should be, with or without edgecore, with or without the cloud.
//!
//! What is found is decided by pure functions from what was read (`check`, `diagnose`). What is looked at of a machine alone is in `nodechecks`, since a
//! running edgecore looks at it as well.

pub(crate) mod check;
mod collect;
mod diagnose;
mod get;
#[cfg(test)]
pub(crate) mod testing;

use anyhow::Result;
use beehive::Env;
use clap::Subcommand;

pub use check::{CheckArgs, CheckWith, Topic};
pub use collect::CollectArgs;
pub use diagnose::{DiagnoseCommand, DiagnoseNode, DiagnosePod};
pub use get::{GetArgs, GetFormat, Kind};

/// What is looked at on this node.
#[derive(Debug, Clone, Subcommand)]
pub enum DebugCommand {
    /// Looks for what stops this machine from being a node: each check has a name, and a cure where it fails
    ///
    /// Done within 10 s, before and after `join`, without edgecore and without the cloud. Ends with 1 if a check fails; a WARNING is no
    /// failure. Run it as root.
    Check(CheckArgs),
    /// Says why this node is not Ready, or a pod does not run, from what the node itself knows
    #[command(subcommand)]
    Diagnose(DiagnoseCommand),
    /// Packs what somebody else needs to find a fault into one file: settings, checks, logs, no keys and no Secrets
    Collect(CollectArgs),
    /// Lists what the node's store holds, as kubectl would, also while the cloud is away; of Secrets no values
    Get(GetArgs),
}

/// Does it, and says what comes of it, a line each.
///
/// # Errors
/// When a check failed, something is not well, nothing of that name is here, or the archive cannot be written.
pub async fn debug(order: &DebugCommand, env: &Env, say: &mut dyn FnMut(String)) -> Result<()> {
    // Each waits for much at once, and the place of the largest would be on the stack of all.
    match order {
        DebugCommand::Check(order) => Box::pin(check::check(order, env, say)).await,
        DebugCommand::Diagnose(order) => Box::pin(diagnose::diagnose(order, env, say)).await,
        DebugCommand::Collect(order) => Box::pin(collect::collect(order, env, say)).await,
        DebugCommand::Get(order) => get::get(order, env.wall(), say),
    }
}
