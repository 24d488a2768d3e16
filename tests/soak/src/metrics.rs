//! CloudCore's `/metrics`, read as Prometheus reads them.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// 5 s for an answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// All of them.
pub(crate) struct Metrics(String);

impl Metrics {
    /// Asks the monitor.
    pub(crate) async fn read(monitor: SocketAddr) -> Result<Metrics> {
        let ask = async {
            let mut stream = TcpStream::connect(monitor).await?;
            stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").await?;
            let mut text = String::new();
            stream.read_to_string(&mut text).await?;
            anyhow::Ok(Metrics(text))
        };
        tokio::time::timeout(ANSWER_WITHIN, ask)
            .await
            .context("/metrics: no answer in time")?
            .context("/metrics")
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
