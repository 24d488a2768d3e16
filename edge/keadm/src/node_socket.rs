//! edgecore's own socket on this node, where `keadm ctl` asks.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use config::edge::{DEFAULT_PATH, EdgeCore};
use http::{Method, Request, header};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
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
        let found = self.config.symlink_metadata();
        if found.is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound) {
            bail!(
                "{} is not there: this machine has not joined (`keadm join`), or the file lies elsewhere (--config)",
                self.config.display()
            );
        }
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

/// Gets a body from edgecore that may go on for as long as it likes, and hands it on as it comes if the status is 200. Answers the status,
/// and what is said with another one.
///
/// # Errors
/// When edgecore serves no socket, does not begin to answer at it, or breaks off; and when nobody takes what is handed on.
pub(crate) async fn copy(
    node: &OfNode,
    path: &str,
    print: &mut dyn FnMut(&[u8]) -> std::io::Result<()>,
) -> Result<(u16, String)> {
    let (mut sender, connection) = connect(node).await?;
    let request = request(Method::GET, path, String::new())?;
    let exchange = async {
        let answer = within(node, async { Ok(sender.send_request(request).await?) }).await?;
        let status = answer.status().as_u16();
        let mut body = answer.into_body();
        if status != 200 {
            return Ok((status, text_of(body, ANSWER_MAX).await?));
        }
        while let Some(frame) = body.frame().await {
            if let Ok(piece) = frame?.into_data() {
                print(&piece)?;
            }
        }
        Ok((status, String::new()))
    };
    beside(exchange, connection).await
}

/// What is told of an answer that is none.
pub(crate) fn refusal(status: u16, said: &str) -> anyhow::Error {
    match said {
        "404 page not found" => anyhow::anyhow!(
            "the edgecore that runs does not know this verb yet: it is older than this keadm (`systemctl restart edgecore`, if it was exchanged)"
        ),
        said => anyhow::anyhow!("edgecore says {status}: {said}"),
    }
}

async fn ask_node(
    node: &OfNode,
    method: Method,
    path: &str,
    body: String,
    most: usize,
) -> Result<(u16, String)> {
    let request = request(method, path, body)?;
    let answer = async {
        let (mut sender, connection) = connect(node).await?;
        let exchange = async {
            let answer = sender.send_request(request).await?;
            let status = answer.status().as_u16();
            Ok((status, text_of(answer.into_body(), most).await?))
        };
        beside(exchange, connection).await
    };
    within(node, answer).await
}

fn request(method: Method, path: &str, body: String) -> Result<Request<String>> {
    Ok(Request::builder().method(method).uri(path).header(header::HOST, "node").body(body)?)
}

/// The node's socket, as its settings say.
fn socket(node: &OfNode) -> Result<PathBuf> {
    let settings = node.settings()?;
    let Some(socket) = settings.modules.edge_stream.socket() else {
        bail!(
            "edgecore serves no socket, at which it is asked here: set modules.edgeStream.enable: true and modules.edgeStream.socket in {}, and \
             restart edgecore (`systemctl restart edgecore`)",
            node.file()
        );
    };
    Ok(socket.to_owned())
}

async fn within<T>(node: &OfNode, answer: impl Future<Output = Result<T>>) -> Result<T> {
    let socket = socket(node)?;
    let within = || {
        format!(
            "edgecore says nothing at {} within {} s: look at its log (`journalctl -u edgecore`), or restart it (`systemctl restart edgecore`)",
            socket.display(),
            ANSWER_WITHIN.as_secs()
        )
    };
    tokio::time::timeout(ANSWER_WITHIN, answer).await.with_context(within)?
}

async fn connect(node: &OfNode) -> Result<(httpclient::SendRequest<String>, impl Future + use<>)> {
    let socket = socket(node)?;
    let stream = UnixStream::connect(&socket).await.with_context(|| {
        format!(
            "edgecore cannot be reached at {}: start it (`systemctl start edgecore`) if it does not run, and run this as its user (root)",
            socket.display()
        )
    })?;
    Ok(httpclient::handshake(stream).await?)
}

/// An exchange, and beside it the connection that carries it: it ends with the answer at the latest.
async fn beside<T>(exchange: impl Future<Output = Result<T>>, connection: impl Future) -> Result<T> {
    tokio::pin!(exchange);
    tokio::select! {
        answered = &mut exchange => answered,
        _ = connection => exchange.await,
    }
}

async fn text_of(body: Incoming, most: usize) -> Result<String> {
    let text = Limited::new(body, most).collect().await;
    let text = text.map_err(|error| anyhow::anyhow!("{error}"))?.to_bytes();
    Ok(for_terminal(&String::from_utf8_lossy(&text)))
}

/// What was answered, without the characters that a terminal takes for commands: it may say again what somebody else had named.
pub(crate) fn for_terminal(text: &str) -> String {
    text.trim().chars().filter(|letter| matches!(letter, '\n' | '\t') || is_shown(*letter)).collect()
}

/// Whether a terminal shows it, where it stands: a control character is a command, and those of direction and format show the rest as something
/// else than it is, or are not seen at all.
pub(crate) fn is_shown(letter: char) -> bool {
    !letter.is_control()
        && !matches!(letter,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_that_has_not_joined_is_told_so() {
        let told = OfNode::of(Path::new("/nowhere/edgecore.yaml")).settings().unwrap_err().to_string();
        assert!(told.contains("has not joined (`keadm join`)"), "{told}");
    }

    #[test]
    fn an_answer_gives_a_terminal_no_commands() {
        assert_eq!(
            for_terminal(" pod \u{1b}[2Ja/\u{9b}31mb\u{7}\n\tis not here\n"),
            "pod [2Ja/31mb\n\tis not here"
        );
        // Nor tells it in which direction to write, or hides anything.
        assert_eq!(for_terminal("a\u{202e}b\u{2066}c\u{200b}d\u{2028}e\u{feff}f\u{e0041}g"), "abcdefg");
        assert_eq!(for_terminal("Löß 机 → …"), "Löß 机 → …");
    }
}
