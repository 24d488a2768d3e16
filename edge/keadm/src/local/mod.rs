//! `keadm ctl get|describe|logs|exec|restart|edit`: pods and devices of this node, with or without the cloud.
//!
//! KubeEdge's ask its MetaServer. These ask edgecore at its own socket, which root alone opens, for what the node has; `exec` goes to the
//! container runtime by the pod's uid. Nothing here changes an object of the cluster.

mod describe_pod;
mod devices;
mod edit_device;
mod exec;
mod get_pod;
mod logs;
mod pod_list;
mod pod_words;
mod restart;
mod shape;

use anyhow::Result;
use beehive::Env;
use clap::Subcommand;

pub(crate) use describe_pod::whole_or_cut;
pub use devices::{DescribeDevices, GetDevices};
pub use edit_device::EditDevice;
pub use exec::{CommandEnded, Exec};
pub use get_pod::{DescribePods, GetPods};
pub use logs::Logs;
pub use restart::RestartPods;

/// What is shown.
#[derive(Subcommand)]
pub enum GetCommand {
    /// Pods of this node
    #[command(visible_aliases = ["pods", "po"])]
    Pod(GetPods),
    /// Devices of this node
    #[command(visible_aliases = ["devices"])]
    Device(GetDevices),
}

/// What is described.
#[derive(Subcommand)]
pub enum DescribeCommand {
    /// Pods of this node
    #[command(visible_aliases = ["pods", "po"])]
    Pod(DescribePods),
    /// Devices of this node: their properties with what is desired, what was reported, when, and what is wrong
    #[command(visible_aliases = ["devices"])]
    Device(DescribeDevices),
}

/// What is edited.
#[derive(Subcommand)]
pub enum EditCommand {
    /// What the properties of a device should be
    #[command(visible_aliases = ["devices"])]
    Device(EditDevice),
}

/// What begins again.
#[derive(Subcommand)]
pub enum RestartCommand {
    /// Pods of this node
    #[command(visible_aliases = ["pods", "po"])]
    Pod(RestartPods),
}

/// Shows pods or devices.
///
/// # Errors
/// When edgecore does not answer at its socket, or has none of that name.
pub async fn get(what: &GetCommand, env: &Env, say: &mut dyn FnMut(String)) -> Result<()> {
    match what {
        GetCommand::Pod(order) => get_pod::get(order, env.wall(), say).await,
        GetCommand::Device(order) => devices::get(order, env.wall(), say).await,
    }
}

/// Describes pods or devices.
///
/// # Errors
/// When edgecore does not answer at its socket, or has none of that name.
pub async fn describe(what: &DescribeCommand, env: &Env, say: &mut dyn FnMut(String)) -> Result<()> {
    match what {
        DescribeCommand::Pod(order) => get_pod::describe(order, env.wall(), say).await,
        DescribeCommand::Device(order) => devices::describe(order, env.wall(), say).await,
    }
}

/// Sets what properties of a device should be.
///
/// # Errors
/// When edgecore does not answer at its socket, there is no such device, the editor fails, or DeviceTwin refuses a value.
pub async fn edit(what: &EditCommand, say: &mut dyn FnMut(String)) -> Result<()> {
    let EditCommand::Device(order) = what;
    edit_device::edit(order, say).await
}

/// Has pods begin again.
///
/// # Errors
/// When edgecore does not answer at its socket, or one of them cannot.
pub async fn restart(what: &RestartCommand, say: &mut dyn FnMut(String)) -> Result<()> {
    let RestartCommand::Pod(order) = what;
    restart::restart(order, say).await
}

/// Prints what a container has said.
///
/// # Errors
/// When edgecore does not answer at its socket, or has no such log.
pub async fn logs(order: &Logs) -> Result<()> {
    logs::logs(order).await
}

/// Runs a command in a container, and prints what it says.
///
/// # Errors
/// [`CommandEnded`] when it ends with another code than 0; else when there is no such container, or the runtime cannot run it.
pub async fn exec(order: &Exec) -> Result<()> {
    exec::exec(order).await
}
