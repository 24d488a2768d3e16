//! A daemon that is told to stop while a disk doesn't answer.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::os::unix::net::UnixDatagram;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use beehive::{Ended, Env, Hive, Inspector};
use daemon::Running;

struct Daemon(Hive);

impl Running for Daemon {
    async fn gave_up(&mut self) -> String {
        self.0.gave_up().await
    }

    fn inspector(&self) -> Inspector {
        self.0.inspector()
    }

    async fn stop(self, deadline: Duration) -> Ended {
        self.0.shutdown(deadline).await
    }
}

/// Longer than any stop may take.
const UNANSWERED: Duration = Duration::from_secs(600);

#[test]
#[ignore = "the daemon of the other test, in a process of its own"]
fn daemon_whose_disk_does_not_answer() -> ExitCode {
    daemon::main("info", async || {
        let env = Env::real();
        let mut hive = Hive::new("test", env.clone());
        hive.open()?;
        // More than there are threads.
        for _ in 0..20 {
            let asking = env.clone();
            env.spawn(async move { drop(asking.blocking(|| std::thread::sleep(UNANSWERED)).await) });
        }
        tokio::task::yield_now().await;
        daemon::serve(Daemon(hive)).await
    })
}

#[test]
fn a_daemon_ends_in_order_though_all_its_threads_wait_for_a_disk_and_says_where() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let systemd = UnixDatagram::bind(&path).unwrap();
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "--nocapture", "daemon_whose_disk_does_not_answer"])
        .env("NOTIFY_SOCKET", &path)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut told = [0; 64];
    let length = systemd.recv(&mut told).unwrap();
    assert_eq!(&told[..length], b"READY=1");
    let began = Instant::now();
    assert!(Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap().success());
    let ended = child.wait_with_output().unwrap();
    let (took, log) = (began.elapsed(), String::from_utf8_lossy(&ended.stderr).into_owned());
    assert!(ended.status.success(), "{log}");
    assert!(took < Duration::from_secs(20), "as long as systemd waits: {took:?}");
    assert!(
        log.contains("left behind") && log.contains("tests/stop.rs:") && log.contains("(20 times)"),
        "{log}"
    );
    assert!(log.contains("ended=InOrder"), "{log}");
}
