//! The cloud as `kubectl` sees it.

use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context, Result, bail};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStdout, Command};

/// `kubectl` with one kubeconfig.
#[derive(Clone)]
pub(crate) struct Kubectl {
    pub(crate) kubeconfig: PathBuf,
    pub(crate) cache: PathBuf,
}

impl Kubectl {
    /// A call of it.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("kubectl");
        command.arg("--kubeconfig").arg(&self.kubeconfig).arg("--cache-dir").arg(&self.cache).args(args);
        command
    }

    /// What it prints.
    pub(crate) async fn run(&self, args: &[&str]) -> Result<String> {
        said(self.command(args).arg("--request-timeout=10s"), "").await
    }

    /// An object, or none.
    pub(crate) async fn get(&self, kind: &str, name: &str) -> Result<Option<Value>> {
        let text = self.run(&["get", kind, name, "--ignore-not-found", "-o", "json"]).await?;
        if text.trim().is_empty() {
            return Ok(None);
        }
        serde_json::from_str(&text).map(Some).context("kubectl printed no JSON")
    }

    /// Objects of a kind, with a selector or all (an empty one).
    pub(crate) async fn list(&self, kind: &str, selector: &str) -> Result<Vec<Value>> {
        let text = self.run(&["get", kind, "-l", selector, "-o", "json"]).await?;
        let list: Value = serde_json::from_str(&text).context("kubectl printed no JSON")?;
        Ok(list["items"].as_array().cloned().unwrap_or_default())
    }

    /// `kubectl apply` of some objects.
    pub(crate) async fn apply(&self, objects: &[Value]) -> Result<()> {
        let mut command = self.command(&["apply", "--request-timeout=10s", "-f", "-"]);
        said(&mut command, &list_of(objects)).await.map(drop)
    }

    /// `kubectl create` of some objects that are not there.
    pub(crate) async fn create(&self, objects: &[Value]) -> Result<()> {
        let mut command = self.command(&["create", "--request-timeout=10s", "-f", "-"]);
        said(&mut command, &list_of(objects)).await.map(drop)
    }

    /// A merge patch.
    pub(crate) async fn merge(&self, kind: &str, name: &str, patch: &Value) -> Result<()> {
        self.run(&["patch", kind, name, "--type=merge", "-p", &patch.to_string()]).await.map(drop)
    }

    /// A watch that prints a line an event, by this JSONPath.
    pub(crate) fn watch(&self, kind: &str, path: &str) -> Result<Watch> {
        let mut child = self
            .command(&["get", kind, "--watch", "-o", &format!("jsonpath={path}{{\"\\n\"}}")])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .context("start kubectl")?;
        let out = child.stdout.take().context("kubectl has no output")?;
        Ok(Watch { _child: child, lines: BufReader::new(out).lines() })
    }
}

/// Objects as one document: not every release of kubectl reads several in JSON.
fn list_of(objects: &[Value]) -> String {
    serde_json::json!({"apiVersion": "v1", "kind": "List", "items": objects}).to_string()
}

/// A running watch. Dropping it ends it.
pub(crate) struct Watch {
    _child: Child,
    lines: tokio::io::Lines<BufReader<ChildStdout>>,
}

impl Watch {
    /// The next event; none when the watch has ended.
    pub(crate) async fn next(&mut self) -> Option<String> {
        self.lines.next_line().await.ok().flatten()
    }
}

/// What a program prints; an error holds what it said.
pub(crate) async fn said(command: &mut Command, input: &str) -> Result<String> {
    let program = command.as_std().get_program().to_string_lossy().into_owned();
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("start {program}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that reads no input may have gone already.
        let _ = stdin.write_all(input.as_bytes()).await;
    }
    let output = child.wait_with_output().await.with_context(|| format!("wait for {program}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    bail!("{program}: {}", String::from_utf8_lossy(&output.stderr).trim())
}
