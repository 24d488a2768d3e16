//! `keadm ctl unhold-upgrade`: releases pods that wait on this node (`edge.kubeedge.io/hold-upgrade`), with or without the cloud; `keadm ctl
//! confirm`: shows the upgrades that wait for somebody there, and confirms one.

use anyhow::{Context as _, Result, bail};
use clap::{Args, Subcommand};
use serde::Deserialize;

use crate::node_socket::{self, OfNode, for_terminal};

/// Where edgecore is asked which upgrades wait, and told which are confirmed.
const CONFIRM: &str = "/api/v1/taskupgrade/confirm-upgrade";
/// 1 MiB: a node has a few at a time.
const LIST_MAX: usize = 1 << 20;

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

/// Which upgrades are confirmed.
#[derive(Args)]
pub struct Confirm {
    /// The job's name; without one the upgrade that waits alone
    name: Option<String>,
    /// All that wait
    #[arg(long, conflicts_with = "name")]
    all: bool,
    /// Show what waits, and confirm nothing
    #[arg(long, conflicts_with_all = ["name", "all"])]
    list: bool,
    /// Where edgecore is asked.
    #[command(flatten)]
    node: OfNode,
}

/// An upgrade that waits, as edgecore tells it.
#[derive(Debug, Deserialize)]
struct Waiting {
    name: String,
    uid: String,
    /// What is done by it.
    shown: String,
}

/// Says which upgrades wait on this node, and confirms those that are meant. `is_meant`: whether whoever is at the terminal says yes to the one that
/// was not named.
///
/// # Errors
/// When edgecore does not answer at its socket, no upgrade waits, or it is not clear which one is meant.
pub async fn confirm(
    order: &Confirm,
    is_meant: &mut dyn FnMut(&str) -> bool,
    say: &mut dyn FnMut(String),
) -> Result<()> {
    let (status, text) = node_socket::get(&order.node, CONFIRM, LIST_MAX).await?;
    if status != 200 {
        bail!("edgecore says {status}: {text}");
    }
    let waiting: Vec<Waiting> =
        serde_json::from_str(&text).context("edgecore says what waits in words that are not understood")?;
    for one in &waiting {
        say(for_terminal(&one.shown));
    }
    if order.list {
        return Ok(());
    }
    let meant = meant(&waiting, order.name.as_deref(), order.all)?;
    // Whoever named it has meant it.
    if order.name.is_none() && !order.all && !is_meant("This upgrade is confirmed.") {
        bail!("nothing was confirmed");
    }
    // By their uids: what came since is none that was shown.
    post(&order.node, CONFIRM, meant.join("\n"), say).await
}

/// The uids of those that are meant.
fn meant<'a>(waiting: &'a [Waiting], name: Option<&str>, all: bool) -> Result<Vec<&'a str>> {
    match (name, waiting) {
        (Some(name), _) => {
            let found = waiting.iter().find(|one| one.name == name || one.uid == name);
            let found = found.with_context(|| format!("no upgrade by a job `{name}` waits on this node"))?;
            Ok(vec![&found.uid])
        }
        (None, [one]) => Ok(vec![&one.uid]),
        (None, _) if all => Ok(waiting.iter().map(|one| one.uid.as_str()).collect()),
        (None, _) => bail!(
            "{} upgrades wait, and nothing was confirmed: `keadm ctl confirm NAME` confirms one, `keadm ctl confirm --all` all",
            waiting.len()
        ),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_upgrades_are_confirmed_by_their_names_or_by_all() {
        let one =
            |name: &str| Waiting { name: name.to_owned(), uid: format!("uid-{name}"), shown: String::new() };
        let waiting = [one("a"), one("b")];
        assert_eq!(meant(&waiting[..1], None, false).unwrap(), ["uid-a"]);
        let why = meant(&waiting, None, false).unwrap_err().to_string();
        assert!(
            why.starts_with("2 upgrades wait, and nothing was confirmed: `keadm ctl confirm NAME`"),
            "{why}"
        );
        assert_eq!(meant(&waiting, Some("b"), false).unwrap(), ["uid-b"]);
        assert_eq!(meant(&waiting, None, true).unwrap(), ["uid-a", "uid-b"]);
        assert!(meant(&waiting, Some("c"), false).is_err());
    }
}
