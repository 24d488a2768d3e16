//! `keadm ctl`: KubeEdge's verbs for what is done on a node, the verb first and then what it is done to.

use clap::Subcommand;

use crate::device_method::Callable;
use crate::local::{DescribeCommand, EditCommand, Exec, GetCommand, Logs, RestartCommand};
use crate::node_page::PageArgs;
use crate::release::{Confirm, Unhold};

/// What is done on this node.
#[derive(Subcommand)]
pub enum CtlCommand {
    /// Shows pods or devices of this node, with or without the cloud
    #[command(subcommand)]
    Get(GetCommand),
    /// Describes pods or devices of this node: all that it knows of them
    #[command(subcommand)]
    Describe(DescribeCommand),
    /// Prints what a container of a pod of this node has said
    Logs(Logs),
    /// Runs a command in a container of a pod of this node, prints what it says, and ends with its exit code
    Exec(Exec),
    /// Has pods of this node begin again: their containers end in order, with their hooks and their grace
    #[command(subcommand)]
    Restart(RestartCommand),
    /// Sets what a device of this node should be like, as an application on the node does
    #[command(subcommand)]
    Edit(EditCommand),
    /// Calls a method of a device (spec.methods): the mapper writes the properties that the method names
    #[command(subcommand)]
    Call(Callable),
    /// Releases pods that are held by the annotation edge.kubeedge.io/hold-upgrade
    #[command(subcommand)]
    UnholdUpgrade(Unhold),
    /// Shows the upgrades that NodeUpgradeJobs with requireConfirmation wait with on this node, and confirms one
    Confirm(Confirm),
    /// Prints a URL that opens this node's page in a browser, once, within 2 minutes: link, outbox, pods, devices and last events, also
    /// while the node is cut off (modules.edgePage)
    Page(PageArgs),
    /// Another verb of KubeEdge's.
    #[command(external_subcommand)]
    Other(Vec<String>),
}
