//! mount(8), for file systems that have a helper of their own. No shell sees any of it. Blocks.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::error::StepError;

/// 2 KiB of what a program says.
const OUTPUT_MAX: u64 = 2 << 10;
/// Where the helpers of mount(8) lie.
const HELPERS: [&str; 4] = ["/sbin", "/usr/sbin", "/usr/local/sbin", "/bin"];
/// 2 min: a server that does not answer holds a thread no longer; the volume is tried again.
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

/// `None`: it did not end in time, and was ended.
fn wait(child: &mut Child, within: Duration) -> std::io::Result<Option<std::process::ExitStatus>> {
    let looks = within.as_millis() / LOOK_EVERY.as_millis();
    for _ in 0..looks {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        std::thread::sleep(LOOK_EVERY);
    }
    child.kill()?;
    child.wait()?;
    Ok(None)
}

/// What it said; nothing of what somebody else says who has its pipes still.
fn said(child: &mut Child) -> String {
    let mut text = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        // What cannot be read was not said.
        let _ = stdout.take(OUTPUT_MAX).read_to_end(&mut text);
    }
    if let Some(stderr) = child.stderr.take() {
        let _ = stderr.take(OUTPUT_MAX).read_to_end(&mut text);
    }
    String::from_utf8_lossy(&text).trim().to_owned()
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

    #[test]
    fn one_that_never_ends_is_ended() {
        let dir = tempfile::tempdir().unwrap();
        let program = stand_in(dir.path(), "exec sleep 1000");
        let program = MountProgram { within: Duration::from_millis(300), ..program };
        let error = program.run("nfs", "nas:/x", Path::new("/at"), &[]).unwrap_err().to_string();
        assert!(error.starts_with("mount failed: no end within 0 s"), "{error}");
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
