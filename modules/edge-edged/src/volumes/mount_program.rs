//! mount(8), for file systems that have a helper of their own. No shell sees any of it. Blocks.

use std::io::Read as _;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};

use crate::error::StepError;

/// 2 KiB of what a program says.
const OUTPUT_MAX: u64 = 2 << 10;
/// Where the helpers of mount(8) lie.
const HELPERS: [&str; 4] = ["/sbin", "/usr/sbin", "/usr/local/sbin", "/bin"];
/// 2 min: a server that does not answer holds a thread no longer; the volume is tried again. Shorter than the wait
/// for a pod's volumes (`pod/external_volumes`).
const WITHIN: Duration = Duration::from_secs(120);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Where the programs are, and how long they may take.
#[derive(Debug, Clone)]
pub(super) struct MountProgram {
    program: PathBuf,
    helpers: Vec<PathBuf>,
    within: Duration,
}

impl MountProgram {
    /// The machine's own.
    pub(super) fn of_machine() -> MountProgram {
        let helpers = HELPERS.iter().map(PathBuf::from).collect();
        MountProgram { program: PathBuf::from("mount"), helpers, within: WITHIN }
    }

    /// Mounts; said by name where there is no helper of that kind.
    pub(super) fn run(
        &self,
        kind: &str,
        source: &str,
        at: &Path,
        options: &[String],
    ) -> Result<(), StepError> {
        let helper = format!("mount.{kind}");
        if !self.helpers.iter().any(|folder| folder.join(&helper).exists()) {
            return Err(StepError::Missing(format!(
                "mount failed: you might need a /sbin/{helper} helper program, which this node does not have (package nfs-common or nfs-utils)"
            )));
        }
        let mut arguments = vec!["-t".to_owned(), kind.to_owned()];
        if !options.is_empty() {
            arguments.extend(["-o".to_owned(), options.join(",")]);
        }
        arguments.extend([source.to_owned(), at.display().to_string()]);
        let fault = |error: &dyn std::fmt::Display| StepError::file("run", &self.program, error);
        let child = Command::new(&self.program)
            .args(&arguments)
            // Its helpers are in it, too: they end with it.
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let mut child = child.map_err(|error| fault(&error))?;
        let status = match wait(&mut child, self.within).map_err(|error| fault(&error))? {
            Some(status) if status.success() => return Ok(()),
            Some(status) => {
                status.code().map_or_else(|| "signal".to_owned(), |code| format!("exit status {code}"))
            }
            None => format!("no end within {} s", self.within.as_secs()),
        };
        Err(StepError::Missing(format!(
            "mount failed: {status}\nMounting command: mount\nMounting arguments: {}\nOutput: {}",
            arguments.join(" "),
            said(&mut child)
        )))
    }
}

/// `None`: it did not end in time, and was ended with all that it began.
fn wait(child: &mut Child, within: Duration) -> std::io::Result<Option<std::process::ExitStatus>> {
    let looks = within.as_millis() / LOOK_EVERY.as_millis();
    for _ in 0..looks {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        std::thread::sleep(LOOK_EVERY);
    }
    // It was not waited for yet, so the number is still its group's.
    kill_process_group(Pid::from_child(child), Signal::KILL)?;
    child.wait()?;
    Ok(None)
}

/// What it has said until now; nobody is waited for who has its pipes still.
fn said(child: &mut Child) -> String {
    let mut text = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        read_what_is_there(stdout, &mut text);
    }
    if let Some(stderr) = child.stderr.take() {
        read_what_is_there(stderr, &mut text);
    }
    String::from_utf8_lossy(&text).trim().to_owned()
}

/// What cannot be read was not said.
fn read_what_is_there(pipe: impl std::io::Read + AsFd, into: &mut Vec<u8>) {
    if rustix::io::ioctl_fionbio(&pipe, true).is_ok() {
        // What was read before it would have to wait stays in `into`.
        let _ = pipe.take(OUTPUT_MAX).read_to_end(into);
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    /// A program in mount(8)'s place that writes down what it is given, and does `then`.
    fn stand_in(dir: &Path, then: &str) -> MountProgram {
        let program = dir.join("mount");
        let script =
            format!("#!/bin/sh\nfor a in \"$@\"; do echo \"$a\" >> {}/said; done\n{then}\n", dir.display());
        fs::write(&program, script).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(dir.join("mount.nfs"), "").unwrap();
        MountProgram { program, helpers: vec![dir.to_owned()], within: Duration::from_secs(30) }
    }

    #[test]
    fn a_program_is_given_each_argument_as_it_is_and_nothing_is_one_more() {
        let dir = tempfile::tempdir().unwrap();
        let options = ["ro".to_owned(), "vers=4.1; reboot".to_owned()];
        let at = Path::new("/pods/u/volumes/kubernetes.io~nfs/v w");
        stand_in(dir.path(), "exit 0").run("nfs", "nas:/a b$(id)", at, &options).unwrap();
        let said = fs::read_to_string(dir.path().join("said")).unwrap();
        let all: Vec<&str> = said.lines().collect();
        assert_eq!(
            all,
            [
                "-t",
                "nfs",
                "-o",
                "ro,vers=4.1; reboot",
                "nas:/a b$(id)",
                "/pods/u/volumes/kubernetes.io~nfs/v w"
            ]
        );
    }

    #[test]
    fn what_a_program_says_is_told_as_a_kubelet_tells_it() {
        let dir = tempfile::tempdir().unwrap();
        let program = stand_in(dir.path(), "echo mount.nfs: Connection refused >&2; exit 32");
        let error = program.run("nfs", "nas:/x", Path::new("/at"), &[]).unwrap_err().to_string();
        assert_eq!(
            error,
            "mount failed: exit status 32\nMounting command: mount\nMounting arguments: -t nfs nas:/x /at\nOutput: mount.nfs: Connection refused"
        );
    }

    /// Runs it as a test that ends although it would not. What the grandchild holds open ends with it.
    fn run_within_a_minute(program: MountProgram) -> String {
        let (told, is_told) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let error = program.run("nfs", "nas:/x", Path::new("/at"), &[]).unwrap_err().to_string();
            let _ = told.send(error);
        });
        is_told.recv_timeout(Duration::from_secs(60)).expect("the thread does not come back")
    }

    #[test]
    fn one_that_never_ends_is_ended_with_its_helpers() {
        let dir = tempfile::tempdir().unwrap();
        let helper = dir.path().join("helper");
        let then = format!("echo slow >&2; sleep 900 & echo $! > {}; wait", helper.display());
        let program = stand_in(dir.path(), &then);
        let error = run_within_a_minute(MountProgram { within: Duration::from_secs(2), ..program });
        assert!(error.starts_with("mount failed: no end within 2 s"), "{error}");
        assert!(error.ends_with("Output: slow"), "{error}");
        let helper: u32 = fs::read_to_string(helper).unwrap().trim().parse().unwrap();
        // Gone, or dead and not yet waited for by whoever waits for orphans here.
        let has_ended = || {
            let status = fs::read_to_string(format!("/proc/{helper}/stat"));
            status.map_or(true, |status| status.contains(") Z "))
        };
        let until = std::time::Instant::now() + Duration::from_secs(30);
        while !has_ended() {
            assert!(std::time::Instant::now() < until, "the helper lives on");
            std::thread::sleep(LOOK_EVERY);
        }
    }

    #[test]
    fn one_that_leaves_its_pipes_to_another_is_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let helper = dir.path().join("helper");
        let then = format!("sleep 900 & echo $! > {}; echo refused >&2; exit 32", helper.display());
        let error = run_within_a_minute(stand_in(dir.path(), &then));
        let helper = fs::read_to_string(helper).unwrap().trim().parse().ok().and_then(Pid::from_raw).unwrap();
        rustix::process::kill_process(helper, Signal::KILL).unwrap();
        assert!(error.ends_with("Output: refused"), "{error}");
    }

    #[test]
    fn nfs_without_its_helper_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let program = stand_in(dir.path(), "exit 0");
        fs::remove_file(dir.path().join("mount.nfs")).unwrap();
        let error = program.run("nfs", "nas:/x", Path::new("/at"), &[]).unwrap_err().to_string();
        assert!(error.contains("/sbin/mount.nfs helper program"), "{error}");
        assert!(!dir.path().join("said").exists(), "nobody was asked");
    }
}
