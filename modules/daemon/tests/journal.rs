//! A daemon whose standard error is the journal's says there how grave each line is, and elsewhere not.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Command, ExitCode, Stdio};

#[test]
#[ignore = "the daemon of the other test, in a process of its own"]
fn daemon_that_warns_and_fails() -> ExitCode {
    daemon::main("info", async || {
        tracing::warn!("it may rain");
        anyhow::bail!("it rains")
    })
}

fn said(stderr: Stdio, stream: &str) -> std::process::Output {
    Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "--nocapture", "daemon_that_warns_and_fails"])
        .env("JOURNAL_STREAM", stream)
        .stdout(Stdio::null())
        .stderr(stderr)
        .spawn()
        .unwrap()
        .wait_with_output()
        .unwrap()
}

#[test]
fn journalctl_finds_warnings_and_errors_by_their_priority() {
    let (mut journal, theirs) = UnixStream::pair().unwrap();
    let found = rustix::fs::fstat(&theirs).unwrap();
    let stream = format!("{}:{}", found.st_dev, found.st_ino);
    assert!(!said(OwnedFd::from(theirs).into(), &stream).status.success());
    let mut text = String::new();
    journal.read_to_string(&mut text).unwrap();
    let line = |words: &str| text.lines().find(|line| line.contains(words)).unwrap().to_owned();
    assert!(line("it may rain").starts_with("<4>"), "{text}");
    assert!(line("it rains").starts_with("<3>"), "{text}");
    // Where it goes elsewhere the variable is there all the same.
    let text = String::from_utf8(said(Stdio::piped(), &stream).stderr).unwrap();
    assert!(text.contains("it may rain") && !text.contains("<4>") && !text.contains("<3>"), "{text}");
}
