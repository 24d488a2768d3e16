//! `keadm ctl exec`: a command in a container, by the runtime itself (CRI's `ExecSync`), so that edgecore holds none of what it prints.

use std::io::Write as _;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use cri::Runtime;
use cri::pods::running_container;
use thiserror::Error;

use super::pod_list::{container, pod, text};
use crate::node_socket::OfNode;

/// 30 s for the runtime's answer to everything but the command itself.
const RUNTIME_WITHIN: Duration = Duration::from_secs(30);
/// 16 MiB of an output are answered, no more: what CRI has for a message.
const OUTPUT_MAX: usize = 16 << 20;

/// A command that ended with another code than 0, as kubectl says it: keadm ends with that code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("command terminated with exit code {0}")]
pub struct CommandEnded(pub u8);

/// In which container, and what.
#[derive(Args)]
pub struct Exec {
    /// The pod
    pod: String,
    /// The command, behind `--`
    #[arg(last = true, required = true)]
    command: Vec<String>,
    /// The container; kubectl's default one if left out
    #[arg(short = 'c', long)]
    container: Option<String>,
    /// The pod's namespace
    #[arg(short = 'n', long, default_value = "default")]
    namespace: String,
    /// Hand it what stands in standard input. Not done here
    #[arg(short = 'i', long)]
    stdin: bool,
    /// Give it a terminal. Not done here
    #[arg(short = 't', long)]
    tty: bool,
    /// It is ended after so many seconds; 0: never
    #[arg(long, default_value_t = 0)]
    timeout_seconds: u32,
    #[command(flatten)]
    node: OfNode,
}

pub(crate) async fn exec(order: &Exec) -> Result<()> {
    for (flag, is_set) in [("-i", order.stdin), ("-t", order.tty)] {
        if is_set {
            bail!(
                "{flag} is not there: the command is run by the runtime's ExecSync, which has neither an input nor a terminal. With the cloud \
                 `kubectl exec {flag}` does it; without, hand the command its input as arguments, or run `crictl exec {flag}` on the node"
            );
        }
    }
    let pod = pod(&order.node, &order.namespace, &order.pod).await?;
    let (container, word) = container(&pod, order.container.as_deref())?;
    if let Some(word) = word {
        let _ = writeln!(std::io::stderr(), "{word}");
    }
    let settings = order.node.settings()?;
    let endpoint = &settings.modules.edged.tailored_kubelet_config.container_runtime_endpoint;
    let runtime = cri::Grpc::new(endpoint, endpoint, RUNTIME_WITHIN).context("the container runtime")?;
    let asks = || format!("the container runtime at {endpoint}");
    let id =
        running_container(&runtime, &text(&pod, "/metadata/uid"), &container).await.with_context(asks)?;
    let id = id.with_context(|| {
        format!(
            "container {container:?} of pod {:?} does not run: `keadm ctl describe pod {0} -n {}` says why",
            order.pod, order.namespace
        )
    })?;
    let limit = Duration::from_secs(order.timeout_seconds.into());
    let ended = runtime.exec_sync_whole(&id, order.command.clone(), limit).await.with_context(asks)?;
    // Nobody is left to tell when they are closed.
    let _ = std::io::stdout().write_all(&ended.stdout);
    let _ = std::io::stderr().write_all(&ended.stderr);
    if ended.stdout.len().max(ended.stderr.len()) >= OUTPUT_MAX {
        let _ = writeln!(
            std::io::stderr(),
            "keadm: it has printed more than the 16 MiB that the runtime hands on"
        );
    }
    match ended.exit_code {
        0 => Ok(()),
        code => Err(CommandEnded(u8::try_from(code).unwrap_or(u8::MAX)).into()),
    }
}
