//! `keadm ctl`: KubeEdge's verbs for what is done on a node, the verb first and then what it is done to.

use clap::Subcommand;

use crate::device_method::Callable;
use crate::node_page::PageArgs;
use crate::release::{Confirm, Unhold};

/// What is done on this node.
#[derive(Subcommand)]
pub enum CtlCommand {
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
