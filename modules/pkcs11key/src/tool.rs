//! `pkcs11-tool`, begun for one piece of work and ended when that takes too long.

use std::io::{self, Read as _, Write as _};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use trustedfiles::{TrustCheck, TrustedEntry, WRITE};

use crate::error::TokenError;
use crate::pin;
use crate::uri::TokenUri;
use crate::words::PROGRAM;

/// 4 s for a signature: a TPM takes a tenth of that, and the other end of a handshake waits no longer than 10 s.
pub const SIGNED_WITHIN: Duration = Duration::from_secs(4);
/// 60 s to make a key: slow cards take half of that.
pub(crate) const MADE_WITHIN: Duration = Duration::from_secs(60);
/// By what the program finds the PIN: its arguments are everybody's to read.
const PIN: &str = "KUBEHIVE_TOKEN_PIN";
/// 32 KiB of what it answers: less than what a pipe holds, so that it never waits for us.
const ANSWER_MAX: u64 = 32 << 10;
/// 300 characters of what it complains of.
const SAID_MAX: usize = 300;
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// Something for the program to do.
#[derive(Debug)]
pub(crate) struct Work<'a> {
    /// What the token could not do, if it fails.
    pub(crate) doing: &'static str,
    /// What is said to it beside which token it is.
    pub(crate) arguments: &'a [&'a str],
    /// What it reads.
    pub(crate) input: &'a [u8],
    pub(crate) within: Duration,
}

/// Does it, and answers what the program wrote.
pub(crate) fn run(token: &TokenUri, work: &Work<'_>) -> Result<Vec<u8>, TokenError> {
    check(Path::new(PROGRAM), &token.module)?;
    let (module, shown) = (token.module.to_string_lossy(), pin::of(token)?);
    let mut command = Command::new(PROGRAM);
    command
        .args(["--module", &module, "--token-label", &token.token, "--login", "--pin", &format!("env:{PIN}")])
        .args(work.arguments)
        .env(PIN, &shown)
        // What it says is read.
        .env("LC_ALL", "C");
    match done(token, work, command) {
        Err(TokenError::Refused { said, .. }) if said.contains("CKR_PIN_INCORRECT") => {
            pin::refused(token, &shown);
            Err(TokenError::RefusedPin { token: token.token.clone(), path: token.pin.clone() })
        }
        done => done,
    }
}

fn done(token: &TokenUri, work: &Work<'_>, mut command: Command) -> Result<Vec<u8>, TokenError> {
    let fault = |error: &dyn std::fmt::Display| TokenError::Program { reason: error.to_string() };
    // Its module may begin others, which end with it.
    command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| fault(&error))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A pipe holds it; who has ended without reading says why.
        let _ = stdin.write_all(work.input);
    }
    let ended = wait(&mut child, work.within).map_err(|error| fault(&error))?;
    let (token, module, doing) = (token.token.clone(), token.module.clone(), work.doing);
    let Some(status) = ended else {
        return Err(TokenError::Slow { token, module, doing, seconds: work.within.as_secs() });
    };
    if status.success() {
        return Ok(child.stdout.take().map(what_is_there).unwrap_or_default());
    }
    let said = child.stderr.take().map(what_is_there).unwrap_or_default();
    Err(TokenError::Refused { token, module, doing, said: in_one_line(&said, status) })
}

/// `None`: it did not end in time, and was ended with all that it began.
fn wait(child: &mut Child, within: Duration) -> io::Result<Option<ExitStatus>> {
    for _ in 0..within.as_millis() / LOOK_EVERY.as_millis() {
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

/// What a program has written until now; nobody is waited for who has its pipes still.
fn what_is_there(pipe: impl io::Read + AsFd) -> Vec<u8> {
    let mut bytes = Vec::new();
    if rustix::io::ioctl_fionbio(&pipe, true).is_ok() {
        // What was read before it would have to wait stays in `bytes`.
        let _ = pipe.take(ANSWER_MAX).read_to_end(&mut bytes);
    }
    bytes
}

/// What it complains of, for a log: printable, in a line, and without "Aborting.".
fn in_one_line(said: &[u8], status: ExitStatus) -> String {
    let said = String::from_utf8_lossy(said);
    let lines = said.lines().map(str::trim).filter(|line| !line.is_empty() && *line != "Aborting.");
    let line = lines.map(|line| line.strip_prefix("error: ").unwrap_or(line)).collect::<Vec<_>>().join("; ");
    let line: String = line.chars().filter(|char| !char.is_control()).take(SAID_MAX).collect();
    if line.is_empty() { status.to_string() } else { line }
}

/// Root runs both, so nobody else may have written them.
fn check(program: &Path, module: &Path) -> Result<(), TokenError> {
    if !program.exists() {
        return Err(TokenError::NoProgram);
    }
    let mut check = TrustCheck::refusing();
    for (key, path) in [("the program that speaks to PKCS#11 tokens", program), ("module-path", module)] {
        let (path, closed) = (path.to_owned(), WRITE);
        check.path(&TrustedEntry { key, path, closed, may_be_link: true })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::time::Instant;

    use super::*;

    fn token(folder: &Path) -> TokenUri {
        TokenUri { token: "edge".to_owned(), module: folder.join("m.so"), pin: folder.join("pin") }
    }

    fn work(within: Duration) -> Work<'static> {
        Work { doing: "sign", arguments: &[], input: b"what is signed", within }
    }

    #[test]
    fn a_device_that_does_not_answer_is_given_up_with_all_that_it_began() {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new("/bin/sleep");
        command.arg("1000");
        let begun = Instant::now();
        let error = done(&token(folder.path()), &work(Duration::from_millis(1000)), command).unwrap_err();
        assert!(matches!(error, TokenError::Slow { seconds: 1, .. }), "{error}");
        assert!(begun.elapsed() < Duration::from_secs(20));
    }

    #[test]
    fn what_it_says_is_a_line_and_nothing_of_it_reaches_a_terminal() {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new("/bin/ls");
        let named = folder.path().join("\u{1b}[2J\nCKR_PIN_LOCKED");
        command.arg(named).env("LC_ALL", "C").env("QUOTING_STYLE", "literal");
        let error = done(&token(folder.path()), &work(SIGNED_WITHIN), command).unwrap_err().to_string();
        assert!(error.contains("could not sign") && error.contains("security officer"), "{error}");
        assert!(!error.contains(char::is_control), "{error}");
        let silent = done(&token(folder.path()), &work(SIGNED_WITHIN), Command::new("/bin/false"));
        assert!(silent.unwrap_err().to_string().contains("exit status: 1"));
    }

    #[test]
    fn what_it_writes_and_reads_is_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let answered = done(&token(folder.path()), &work(SIGNED_WITHIN), Command::new("/bin/cat"));
        assert_eq!(answered.unwrap(), b"what is signed");
        let mut endless = Command::new("/bin/cat");
        endless.arg("/dev/zero");
        let error = done(&token(folder.path()), &work(Duration::from_millis(1000)), endless).unwrap_err();
        assert!(matches!(error, TokenError::Slow { .. }), "{error}");
    }

    #[test]
    fn a_module_that_others_can_exchange_is_not_loaded() {
        let folder = tempfile::tempdir().unwrap();
        let module = folder.path().join("m.so");
        std::fs::write(&module, "").unwrap();
        std::fs::set_permissions(&module, std::fs::Permissions::from_mode(0o666)).unwrap();
        let error = check(Path::new("/bin/cat"), &module).unwrap_err().to_string();
        assert!(error.contains("module-path") && error.contains("chmod"), "{error}");
        let none = check(&folder.path().join("none"), &module).unwrap_err().to_string();
        assert!(none.contains("apt-get install opensc"), "{none}");
    }
}
