//! Peers that we did not write: scripts over packages from PyPI, driven line by line.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// A Python that has these packages, each as `NAME==VERSION`, so that a new release changes nothing here: the machine's own, or one
/// in a virtual environment made for these tests.
pub(crate) fn python(packages: &[&str]) -> PathBuf {
    let has = |python: &Path| {
        let list = format!("{packages:?}");
        let check = format!(
            "import sys\nfrom importlib.metadata import version\n\
             sys.exit(any(version(of.split('==')[0]) != of.split('==')[1] for of in {list}))"
        );
        let status = Command::new(python).args(["-c", &check]).stderr(Stdio::null()).status();
        status.is_ok_and(|status| status.success())
    };
    let own = PathBuf::from("python3");
    if has(&own) {
        return own;
    }
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(packages[0]);
    let made = folder.join("bin/python3");
    // Tests run side by side: one makes it, and the others wait.
    let lock = File::create(folder.with_extension("lock")).unwrap();
    lock.lock().unwrap();
    if has(&made) {
        return made;
    }
    run(
        Command::new("python3").args(["-m", "venv", "--clear"]).arg(&folder),
        "python3 with its venv module is needed (Debian: python3-venv)",
    );
    run(
        Command::new(&made).args(["-m", "pip", "install", "--quiet", "--no-deps"]).args(packages),
        "these packages have to be installed, or PyPI within reach",
    );
    made
}

fn run(command: &mut Command, need: &str) {
    match command.output() {
        Ok(output) if output.status.success() => {}
        Ok(output) => panic!("{need}: {command:?}: {}", String::from_utf8_lossy(&output.stderr)),
        Err(error) => panic!("{need}: {command:?}: {error}"),
    }
}

/// A script that says a line when it is up, and answers each line with one.
pub(crate) struct Script {
    /// What it said first.
    pub(crate) first: String,
    child: Child,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Script {
    pub(crate) fn start(packages: &[&str], script: &Path, arguments: &[&str]) -> Self {
        let mut child = Command::new(python(packages))
            .arg(script)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (commands, answers) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let mut script = Script { first: String::new(), child, commands, answers: BufReader::new(answers) };
        script.first = script.line();
        script
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        let count = self.answers.read_line(&mut line).unwrap();
        assert!(count > 0, "the script has ended");
        line.trim_end_matches('\n').to_owned()
    }

    /// What it answers.
    pub(crate) fn ask(&mut self, command: &str) -> String {
        writeln!(self.commands, "{command}").unwrap();
        self.line()
    }

    /// It does as it is told.
    #[track_caller]
    pub(crate) fn tell(&mut self, command: &str) {
        let answer = self.ask(command);
        assert_eq!(answer, "ok", "{command}");
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
