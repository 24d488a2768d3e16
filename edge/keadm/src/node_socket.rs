//! edgecore's own socket on this node, where `keadm ctl` asks.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use config::edge::{DEFAULT_PATH, EdgeCore};
use http::{Method, Request, header};
use http_body_util::{BodyExt as _, Limited};
use tokio::net::UnixStream;

use crate::config_location;

/// 30 s for edgecore's answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// 64 KiB of an answer are read.
const ANSWER_MAX: usize = 64 << 10;

/// Where this node's edgecore is asked.
#[derive(Args)]
pub struct OfNode {
    /// The edgecore.yaml of the node
    #[arg(long, default_value = DEFAULT_PATH, value_parser = config_location::parser())]
    config: PathBuf,
}

impl OfNode {
    /// The node of that file.
    pub(crate) fn of(config: &Path) -> OfNode {
        OfNode { config: config.to_owned() }
    }

    /// The node's settings.
    ///
    /// # Errors
    /// When they cannot be read, or are wrong.
    pub(crate) fn settings(&self) -> Result<EdgeCore> {
        Ok(EdgeCore::load(&self.config)?)
    }

    /// Where they stand, for people.
    pub(crate) fn file(&self) -> std::path::Display<'_> {
        self.config.display()
    }
}

/// Posts a body to edgecore. Answers the status and the text.
///
/// # Errors
/// When edgecore serves no socket, or does not answer at it.
pub(crate) async fn post(node: &OfNode, path: &str, body: String) -> Result<(u16, String)> {
    ask_node(node, Method::POST, path, body, ANSWER_MAX).await
}

/// Gets a text of at most `most` bytes from edgecore. Answers the status and the text.
///
/// # Errors
/// When edgecore serves no socket, or does not answer at it.
pub(crate) async fn get(node: &OfNode, path: &str, most: usize) -> Result<(u16, String)> {
    ask_node(node, Method::GET, path, String::new(), most).await
}

async fn ask_node(
    node: &OfNode,
    method: Method,
    path: &str,
    body: String,
    most: usize,
) -> Result<(u16, String)> {
    let settings = node.settings()?;
    let Some(socket) = settings.modules.edge_stream.socket() else {
        bail!(
            "edgecore serves no socket, at which it is asked here: set modules.edgeStream.enable: true and modules.edgeStream.socket in {}, and \
             restart edgecore (`systemctl restart edgecore`)",
            node.file()
        );
    };
    let request = Request::builder().method(method).uri(path).header(header::HOST, "node").body(body)?;
    let answer = tokio::time::timeout(ANSWER_WITHIN, ask(Path::new(socket), request, most));
    let within = || {
        format!(
            "edgecore says nothing at {} within {} s: look at its log (`journalctl -u edgecore`), or restart it (`systemctl restart edgecore`)",
            socket.display(),
            ANSWER_WITHIN.as_secs()
        )
    };
    answer.await.with_context(within)?
}

async fn ask(socket: &Path, request: Request<String>, most: usize) -> Result<(u16, String)> {
    let stream = UnixStream::connect(socket).await.with_context(|| {
        format!(
            "edgecore cannot be reached at {}: start it (`systemctl start edgecore`) if it does not run, and run this as its user (root)",
            socket.display()
        )
    })?;
    let (mut sender, connection) = httpclient::handshake(stream).await?;
    let exchange = async {
        let answer = sender.send_request(request).await?;
        let status = answer.status().as_u16();
        let text = Limited::new(answer.into_body(), most).collect().await;
        let text = text.map_err(|error| anyhow::anyhow!("{error}"))?.to_bytes();
        Ok::<_, anyhow::Error>((status, for_terminal(&String::from_utf8_lossy(&text))))
    };
    tokio::pin!(exchange);
    tokio::select! {
        answered = &mut exchange => answered,
        // It ends with the answer at the latest.
        _ = connection => exchange.await,
    }
}

/// What was answered, without the characters that a terminal takes for commands: it may say again what somebody else had named.
fn for_terminal(text: &str) -> String {
    text.trim().chars().filter(|letter| matches!(letter, '\n' | '\t') || !letter.is_control()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_gives_a_terminal_no_commands() {
        assert_eq!(
            for_terminal(" pod \u{1b}[2Ja/\u{9b}31mb\u{7}\n\tis not here\n"),
            "pod [2Ja/31mb\n\tis not here"
        );
    }
}
