//! `keadm ctl unhold-upgrade`: releases pods that wait on this node (`edge.kubeedge.io/hold-upgrade`), with or without the cloud.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::{Args, Subcommand};
use config::edge::{DEFAULT_PATH, EdgeCore};
use http::{Method, Request, header};
use http_body_util::{BodyExt as _, Limited};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;

/// 30 s for edgecore's answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// 64 KiB of an answer are read.
const ANSWER_MAX: usize = 64 << 10;

/// What is done on this node.
#[derive(Subcommand)]
pub enum CtlCommand {
    /// Releases pods that are held by the annotation edge.kubeedge.io/hold-upgrade
    #[command(subcommand)]
    UnholdUpgrade(Unhold),
    /// Another verb of KubeEdge's.
    #[command(external_subcommand)]
    Other(Vec<String>),
}

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

/// Where this node's edgecore is asked.
#[derive(Args)]
pub struct OfNode {
    /// The edgecore.yaml of the node
    #[arg(long, default_value = DEFAULT_PATH)]
    config: PathBuf,
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
    let settings = EdgeCore::load(&node.config)?;
    let Some(socket) = settings.modules.edge_stream.socket() else {
        bail!(
            "edgecore serves no socket: set modules.edgeStream.enable and modules.edgeStream.socket in {}",
            node.config.display()
        );
    };
    let answer = tokio::time::timeout(ANSWER_WITHIN, ask(Path::new(socket), path, body));
    let (status, text) = answer.await.context("edgecore does not answer")??;
    if status != 200 {
        bail!("edgecore says {status}: {text}");
    }
    say(text);
    Ok(())
}

async fn ask(socket: &Path, path: &str, body: String) -> Result<(u16, String)> {
    let stream = UnixStream::connect(socket).await.with_context(|| {
        format!(
            "edgecore cannot be reached at {}: it has to run, and this has to be its user",
            socket.display()
        )
    })?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let request =
        Request::builder().method(Method::POST).uri(path).header(header::HOST, "node").body(body)?;
    let exchange = async {
        let answer = sender.send_request(request).await?;
        let status = answer.status().as_u16();
        let text = Limited::new(answer.into_body(), ANSWER_MAX).collect().await;
        let text = text.map_err(|error| anyhow::anyhow!("{error}"))?.to_bytes();
        Ok::<_, anyhow::Error>((status, String::from_utf8_lossy(&text).trim().to_owned()))
    };
    tokio::pin!(exchange);
    tokio::select! {
        answered = &mut exchange => answered,
        // It ends with the answer at the latest.
        _ = connection => exchange.await,
    }
}
