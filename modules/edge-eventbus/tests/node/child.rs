//! Programs of others that a test starts: mosquitto's tools, Python.

use std::ffi::OsStr;
use std::process::{Output, Stdio};

use tokio::process::{Child, Command};

use super::SOON;

/// Starts a program. It ends with the test, and what it says can be had by [`lines`] or [`fails`].
pub(crate) fn spawn<S: AsRef<OsStr>>(
    program: impl AsRef<OsStr>,
    arguments: impl IntoIterator<Item = S>,
) -> Child {
    Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap()
}

/// `mosquitto_pub` or `mosquitto_sub`.
pub(crate) fn mosquitto(tool: &str, arguments: &[&str]) -> Child {
    spawn(format!("/usr/bin/mosquitto_{tool}"), arguments)
}

/// The same, at a port of this machine.
pub(crate) fn mosquitto_at(port: u16, tool: &str, arguments: &[&str]) -> Child {
    let port = port.to_string();
    mosquitto(tool, &[&["-h", "127.0.0.1", "-p", &port], arguments].concat())
}

async fn ended(child: Child) -> Output {
    tokio::time::timeout(SOON, child.wait_with_output()).await.unwrap().unwrap()
}

/// Lines of a child's output when it has ended well.
pub(crate) async fn lines(child: Child) -> Vec<String> {
    let output = ended(child).await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

/// What a child says when it fails.
pub(crate) async fn fails(child: Child) -> String {
    let output = ended(child).await;
    assert!(!output.status.success());
    String::from_utf8_lossy(&output.stderr).into_owned()
}
