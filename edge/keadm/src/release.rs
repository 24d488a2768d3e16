//! `keadm ctl unhold-upgrade`: releases pods that wait on this node (`edge.kubeedge.io/hold-upgrade`), with or without the cloud.

use anyhow::{Result, bail};
use clap::Subcommand;

use crate::node_socket::{self, OfNode};

/// Which pods are released.
#[derive(Subcommand)]
pub enum Unhold {
    /// One pod
    Pod {
        /// Its name
        name: String,
        /// Its namespace
        #[arg(short = 'n', long, default_value = "default")]
        namespace: String,
        /// Where edgecore is asked.
        #[command(flatten)]
        node: OfNode,
    },
    /// All that wait on this node
    Node {
        /// Where edgecore is asked.
        #[command(flatten)]
        node: OfNode,
    },
}

/// Confirms the upgrade that waits on this node.
///
/// # Errors
/// When edgecore does not answer at its socket, or no upgrade waits.
pub async fn confirm(node: &OfNode, say: &mut dyn FnMut(String)) -> Result<()> {
    post(node, "/api/v1/taskupgrade/confirm-upgrade", String::new(), say).await
}

/// Asks edgecore, and says what it answers.
///
/// # Errors
/// When edgecore does not answer at its socket, or refuses.
pub async fn unhold(order: &Unhold, say: &mut dyn FnMut(String)) -> Result<()> {
    let (path, body, node) = match order {
        Unhold::Pod { name, namespace, node } => {
            ("/api/v1/pods/unhold-upgrade", format!("{namespace}/{name}"), node)
        }
        Unhold::Node { node } => ("/api/v1/nodes/unhold-upgrade", String::new(), node),
    };
    post(node, path, body, say).await
}

async fn post(node: &OfNode, path: &str, body: String, say: &mut dyn FnMut(String)) -> Result<()> {
    let (status, text) = node_socket::post(node, path, body).await?;
    if status != 200 {
        bail!("edgecore says {status}: {text}");
    }
    say(text);
    Ok(())
}
