//! CloudCore's `/metrics`, read as Prometheus reads them, and what else its monitor answers.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// 5 s for an answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// What the monitor answers at `path`, with its head.
pub(crate) async fn page(monitor: SocketAddr, path: &str) -> Result<String> {
    let ask = async {
        let mut stream = TcpStream::connect(monitor).await?;
        stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).await?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await?;
        anyhow::Ok(text)
    };
    tokio::time::timeout(ANSWER_WITHIN, ask)
        .await
        .with_context(|| format!("{path}: no answer in time"))?
        .with_context(|| path.to_owned())
}

/// All of them.
pub(crate) struct Metrics(String);

impl Metrics {
    /// Asks the monitor.
    pub(crate) async fn read(monitor: SocketAddr) -> Result<Metrics> {
        page(monitor, "/metrics").await.map(Metrics)
    }

    /// The value of `name` for `node`; none when it has no line.
    pub(crate) fn of(&self, name: &str, node: &str) -> Option<f64> {
        let begin = format!("{name}{{node=\"{node}\"");
        let line = self.0.lines().find(|line| line.starts_with(&begin))?;
        line.rsplit_once(' ')?.1.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_found_by_name_and_node() {
        let metrics = Metrics(
            "# HELP a b\na{node=\"edge-10\"} 1\na{node=\"edge-1\",object=\"x y\"} 2.5\nab{node=\"edge-1\"} 3"
                .to_owned(),
        );
        assert_eq!(metrics.of("a", "edge-1"), Some(2.5));
        assert_eq!(metrics.of("a", "edge-2"), None);
    }
}
