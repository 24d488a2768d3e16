//! Processes of the story, ended by their ids.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

/// 15 s: what a process is given to end by itself.
const END_WITHIN: Duration = Duration::from_secs(15);

/// A process with its log. Dropping it ends the process.
pub(crate) struct Part {
    name: &'static str,
    child: Child,
    pub(crate) log: PathBuf,
}

impl Part {
    /// Starts `command`; what it says goes to a log in `folder`.
    pub(crate) fn start(name: &'static str, folder: &Path, command: &mut Command) -> Result<Part> {
        let log = folder.join(format!("{name}.log"));
        let file = File::options().create(true).append(true).open(&log).context("open a log")?;
        let errors = file.try_clone().context("open a log")?;
        let child = command
            .stdin(Stdio::null())
            .stdout(file)
            .stderr(errors)
            .spawn()
            .with_context(|| format!("start {name}"))?;
        Ok(Part { name, child, log })
    }

    /// Fails when the process has ended.
    pub(crate) fn check(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("{} ended with {status}:\n{}", self.name, tail(&self.log, 15)),
        }
    }

    /// Ends it: politely, then by force.
    pub(crate) async fn end(&mut self) {
        let id = self.child.id().to_string();
        let _ = Command::new("kill").arg(&id).stderr(Stdio::null()).status();
        let wait = async {
            while matches!(self.child.try_wait(), Ok(None)) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        if tokio::time::timeout(END_WITHIN, wait).await.is_err() {
            self.kill();
        }
    }

    /// Ends it by force.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The last lines of a file.
pub(crate) fn tail(path: &Path, count: usize) -> String {
    let text = std::fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text).into_owned();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}
