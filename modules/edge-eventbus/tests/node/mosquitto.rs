//! A mosquitto of a test's own, and its tools: a broker that we did not write.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use super::{SOON, child};

/// Debian has it where only root looks.
const PROGRAM: &str = "/usr/sbin/mosquitto";

/// See the module. It keeps sessions in its folder, also while it is stopped.
pub(crate) struct Mosquitto {
    folder: TempDir,
    pub(crate) port: u16,
    child: Option<Child>,
}

impl Mosquitto {
    /// One that lets everybody in, not started yet.
    pub(crate) fn new() -> Self {
        Mosquitto::with("allow_anonymous true\n")
    }

    /// One with lines of configuration of its own, behind those of its listener; not started yet.
    pub(crate) fn with(lines: &str) -> Self {
        let [port] = testhost::free_ports().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path().display();
        // It gives up being root and then writes there.
        let text = format!(
            "listener {port} 127.0.0.1\nuser root\npersistence true\npersistence_location {at}/\n{lines}"
        );
        std::fs::write(folder.path().join("mosquitto.conf"), text).unwrap();
        Mosquitto { folder, port, child: None }
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Starts it, and waits until it listens.
    pub(crate) async fn start(&mut self) {
        let child = Command::new(PROGRAM)
            .arg("-c")
            .arg(self.folder.path().join("mosquitto.conf"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("mosquitto is needed (Debian: mosquitto)");
        self.child = Some(child);
        let address = SocketAddr::from(([127, 0, 0, 1], self.port));
        let listens = async {
            while TcpStream::connect(address).await.is_err() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(SOON, listens).await.expect("mosquitto does not listen");
    }

    /// Ends it in order, so that it keeps its sessions.
    pub(crate) async fn stop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        let pid = child.id().unwrap().to_string();
        Command::new("kill").args(["-TERM", &pid]).status().await.unwrap();
        tokio::time::timeout(SOON, child.wait()).await.expect("mosquitto does not end").unwrap();
    }

    pub(crate) fn url(&self) -> String {
        format!("tcp://127.0.0.1:{}", self.port)
    }

    /// `mosquitto_pub` or `mosquitto_sub` at it.
    pub(crate) fn tool(&self, tool: &str, arguments: &[&str]) -> Child {
        child::mosquitto_at(self.port, tool, arguments)
    }
}
