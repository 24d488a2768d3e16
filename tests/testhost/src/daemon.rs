//! A process of a test with its log, ended by its id.

use std::fs::File;
use std::net::{TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// 15 s: what a process is given to end by itself.
const END_WITHIN: Duration = Duration::from_secs(15);
/// 20 ms between looks whether it has.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Well below 32768, where Linux begins with the ports of outgoing connections, and above what services use.
const FIRST_PORT: u32 = 20_000;
/// How many there are from there on.
const PORTS: u32 = 12_000;
/// Lines of the log that an error shows.
const LINES: usize = 15;

/// A process whose words go to a log. Dropping it kills it.
pub struct Daemon {
    name: &'static str,
    child: Child,
    log: PathBuf,
}

impl Daemon {
    /// Starts `command`; what it says is added to `NAME.log` in `folder`, without colours.
    ///
    /// # Errors
    /// When the log cannot be opened or the program cannot be started.
    pub fn start(name: &'static str, folder: &Path, command: &mut Command) -> Result<Daemon> {
        let log = folder.join(format!("{name}.log"));
        let file = File::options().create(true).append(true).open(&log).context("open a log")?;
        let errors = file.try_clone().context("open a log")?;
        let child = command
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .stdout(file)
            .stderr(errors)
            .spawn()
            .with_context(|| format!("start {name}"))?;
        Ok(Daemon { name, child, log })
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Fails when it has ended by itself.
    ///
    /// # Errors
    /// With its status and the end of its log.
    pub fn check(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("{} ended by itself with {status}:\n{}", self.name, self.tail()),
        }
    }

    /// The end of its log.
    pub fn tail(&self) -> String {
        tail(&self.log, LINES)
    }

    /// Ends it: politely, and after 15 s by force. Blocks.
    pub fn end(&mut self) {
        let polite = Command::new("kill").arg(self.id().to_string()).stderr(Stdio::null()).status();
        let begun = Instant::now();
        while polite.is_ok() && begun.elapsed() < END_WITHIN && matches!(self.child.try_wait(), Ok(None)) {
            std::thread::sleep(LOOK_EVERY);
        }
        self.kill();
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        // One that has ended and was waited for is no longer there.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The last lines of a file; empty when it cannot be read.
pub fn tail(path: &Path, count: usize) -> String {
    let text = std::fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text).into_owned();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

/// Ports that were free a moment ago, TCP and UDP, on every address; no two of them the same. They lie below those that
/// Linux gives to outgoing connections, so that no other test takes one before the daemon does.
///
/// # Errors
/// When there are none.
pub fn free_ports<const N: usize>() -> Result<[u16; N]> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    // Two runs at the same time begin in different places.
    let begin = std::process::id().wrapping_mul(97);
    let mut ports = [0; N];
    for port in &mut ports {
        *port = (0..PORTS)
            .map(|_| begin.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % PORTS + FIRST_PORT)
            .filter_map(|port| u16::try_from(port).ok())
            .find(|port| TcpListener::bind(("::", *port)).is_ok() && UdpSocket::bind(("::", *port)).is_ok())
            .context("find a free port")?;
    }
    Ok(ports)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_daemon_that_ends_by_itself_is_told_with_its_last_words() {
        let folder = std::env::temp_dir().join(format!("kh-daemon-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let mut lives = Daemon::start("lives", &folder, Command::new("sleep").arg("1000")).unwrap();
        lives.check().unwrap();
        lives.end();
        assert!(lives.check().is_err());
        let mut ends = Daemon::start("ends", &folder, Command::new("ls").arg("/no/such/place")).unwrap();
        ends.child.wait().unwrap();
        let told = ends.check().unwrap_err().to_string();
        assert!(told.contains("ends ended by itself") && told.contains("/no/such/place"), "{told}");
        std::fs::remove_dir_all(folder).unwrap();
    }
}
