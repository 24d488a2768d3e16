//! `keadm ctl logs`: what a container has said, as the node's kubelet API reads it from the runtime's files.

use std::io::Write as _;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use jiff::Timestamp;
use serde_json::Value;

use super::pod_list::{container, list, pod, text};
use crate::node_socket::{self, OfNode};

/// What a kubelet says in place of a log, before the container's id.
const REFUSAL: &[u8] = b"unable to retrieve container logs for ";
/// 512 bytes: that, and an id.
const REFUSAL_MAX: usize = 512;

/// Whose log, and what of it.
#[derive(Args)]
pub struct Logs {
    /// The pod
    pod: String,
    /// The container, as with -c
    #[arg(value_name = "CONTAINER", conflicts_with = "container")]
    other: Option<String>,
    /// The container; kubectl's default one if left out
    #[arg(short = 'c', long)]
    container: Option<String>,
    /// The pod's namespace
    #[arg(short = 'n', long, default_value = "default")]
    namespace: String,
    /// Go on with what it says from now on
    #[arg(short = 'f', long)]
    follow: bool,
    /// Of the run before the last start
    #[arg(short = 'p', long)]
    previous: bool,
    /// Each line with its time
    #[arg(long)]
    timestamps: bool,
    /// The last so many lines; -1 for all
    #[arg(long, default_value_t = -1, allow_negative_numbers = true)]
    tail: i64,
    /// What is no older than 5s, 2m or 3h
    #[arg(long, value_parser = since)]
    since: Option<Duration>,
    /// The same in seconds
    #[arg(long, visible_alias = "since-second", conflicts_with = "since", value_parser = clap::value_parser!(u32).range(1..))]
    since_seconds: Option<u32>,
    /// What is no older than this time, RFC 3339
    #[arg(long, conflicts_with_all = ["since", "since_seconds"])]
    since_time: Option<Timestamp>,
    /// So many bytes at the most
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    limit_bytes: Option<u64>,
    #[command(flatten)]
    node: OfNode,
}

/// A span as Go writes it, of whole seconds: `1h30m`, `45s`.
fn since(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{}` is no span like 5s, 2m or 1h30m", text.escape_debug());
    let (mut rest, mut seconds) = (text, 0_u64);
    while !rest.is_empty() {
        let at = rest.find(|letter: char| !letter.is_ascii_digit()).ok_or_else(wrong)?;
        let (number, more) = rest.split_at(at);
        let unit = match more.chars().next() {
            Some('h') => 3600,
            Some('m') => 60,
            Some('s') => 1,
            _ => return Err(wrong()),
        };
        let number: u64 = number.parse().map_err(|_| wrong())?;
        seconds = number.checked_mul(unit).and_then(|more| seconds.checked_add(more)).ok_or_else(wrong)?;
        rest = more.get(1..).unwrap_or_default();
    }
    if seconds == 0 || seconds > u64::from(u32::MAX) {
        Err(wrong())
    } else {
        Ok(Duration::from_secs(seconds))
    }
}

impl Logs {
    /// The path at which the node's kubelet API has it.
    fn path(&self, container: &str) -> Result<String> {
        for part in [&self.namespace, &self.pod, container] {
            // Names of objects have nothing that a path has to be kept from.
            if part.is_empty()
                || !part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-.".contains(&byte))
            {
                bail!("`{}` is no name of a pod, a namespace or a container", part.escape_debug());
            }
        }
        let mut query = Vec::new();
        let flags = [("follow", self.follow), ("previous", self.previous), ("timestamps", self.timestamps)];
        query.extend(flags.into_iter().filter(|(_, is_set)| *is_set).map(|(name, _)| format!("{name}=true")));
        if self.tail >= 0 {
            query.push(format!("tailLines={}", self.tail));
        }
        let seconds = self.since.map(|since| since.as_secs()).or(self.since_seconds.map(u64::from));
        query.extend(seconds.map(|seconds| format!("sinceSeconds={seconds}")));
        // An RFC 3339 time in UTC has no character that a query has a meaning for.
        query.extend(self.since_time.map(|time| format!("sinceTime={time}")));
        query.extend(self.limit_bytes.map(|bytes| format!("limitBytes={bytes}")));
        let Logs { namespace, pod, .. } = self;
        Ok(format!("/containerLogs/{namespace}/{pod}/{container}?{}", query.join("&")))
    }
}

pub(crate) async fn logs(order: &Logs) -> Result<()> {
    let pod = pod(&order.node, &order.namespace, &order.pod).await?;
    let named = order.container.as_deref().or(order.other.as_deref());
    let (container, word) = container(&pod, named)?;
    if let Some(word) = word {
        let _ = writeln!(std::io::stderr(), "{word}");
    }
    let mut out = std::io::stdout().lock();
    let mut last = LastLine::default();
    let mut print = |piece: &[u8]| {
        last.take(piece);
        out.write_all(piece).and_then(|()| out.flush())
    };
    let copied = node_socket::copy(&order.node, &order.path(&container)?, &mut print).await;
    let (status, said) = copied.context("the log breaks off")?;
    if status != 200 {
        return Err(node_socket::refusal(status, &said));
    }
    if last.is_refusal(&pod) {
        let _ = writeln!(out);
        bail!("the runtime does not say where the log is: `keadm debug check runtime` looks at it");
    }
    Ok(())
}

/// The begin of what stands behind the last line break.
#[derive(Default)]
struct LastLine(Vec<u8>);

impl LastLine {
    fn take(&mut self, piece: &[u8]) {
        let rest = match piece.iter().rposition(|letter| *letter == b'\n') {
            Some(at) => {
                self.0.clear();
                piece.get(at + 1..).unwrap_or_default()
            }
            None => piece,
        };
        let room = REFUSAL_MAX.saturating_sub(self.0.len());
        self.0.extend(rest.iter().take(room));
    }

    /// Whether a kubelet's words stand in place of the log, as where the runtime is down: with the container's own id, which a
    /// program has no reason to say in such a sentence.
    fn is_refusal(&self, pod: &Value) -> bool {
        const LISTS: [&str; 3] = [
            "/status/containerStatuses",
            "/status/initContainerStatuses",
            "/status/ephemeralContainerStatuses",
        ];
        let Some(id) = self.0.strip_prefix(REFUSAL) else { return false };
        let mut statuses = LISTS.iter().flat_map(|of| list(pod, of));
        statuses.any(|status| {
            let ids = ["/containerID", "/lastState/terminated/containerID", "/state/terminated/containerID"];
            ids.iter().any(|pointer| text(status, pointer).as_bytes() == id)
        })
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        logs: Logs,
    }

    fn path(arguments: &[&str]) -> Result<String, String> {
        let cli = Cli::try_parse_from([&["x"], arguments].concat()).map_err(|error| error.to_string())?;
        cli.logs.path("c").map_err(|error| error.to_string())
    }

    #[test]
    fn a_kubelets_words_in_place_of_a_log_are_told_from_a_programs() {
        let pod = serde_json::json!({"status": {"containerStatuses": [{"containerID": "containerd://abc"}]}});
        let of = |pieces: &[&str]| {
            let mut last = LastLine::default();
            pieces.iter().for_each(|piece| last.take(piece.as_bytes()));
            last.is_refusal(&pod)
        };
        assert!(of(&["unable to retrieve container logs for containerd://abc"]));
        assert!(of(&["line 1\nunable to retrieve cont", "ainer logs for containerd://abc"]));
        assert!(!of(&["unable to retrieve container logs for containerd://abc\n"]), "a line of its own");
        assert!(!of(&["unable to retrieve container logs for containerd://other"]));
        assert!(!of(&["line 1"]) && !of(&[]));
    }

    #[test]
    fn flags_are_a_kubelets_parameters() {
        assert_eq!(path(&["till"]).unwrap(), "/containerLogs/default/till/c?");
        let all = [
            "till",
            "-n",
            "shop",
            "-f",
            "-p",
            "--timestamps",
            "--tail",
            "3",
            "--since=1h5s",
            "--limit-bytes=9",
        ];
        assert_eq!(
            path(&all).unwrap(),
            "/containerLogs/shop/till/c?follow=true&previous=true&timestamps=true&tailLines=3&sinceSeconds=3605&limitBytes=9"
        );
        let time = path(&["till", "--since-time=2026-11-28T11:00:00+01:00", "--tail=-1"]).unwrap();
        assert!(time.ends_with("?sinceTime=2026-11-28T10:00:00Z"), "{time}");
        for wrong in [
            &["till", "--since=5"][..],
            &["till", "--since=0s"],
            &["till", "--since=s"],
            &["a/b"],
            &["a?x"],
            &[""],
        ] {
            assert!(path(wrong).is_err(), "{wrong:?}");
        }
    }
}
