//! The ssh and scp of this machine: how they are called, how they get a password, and what their words mean.
//!
//! A password reaches ssh by `SSH_ASKPASS`: ssh starts this keadm again, which says it. It stands in the environment of both, which root
//! and this user alone can read, and in no list of processes.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};

use anyhow::{Context as _, Result};
use tokio::process::Command;

use super::file::{HostKey, Login, Ssh};

/// In the environment of ssh: the password, for the keadm that ssh starts to be told it.
const PASSWORD: &str = "KEADM_BATCH_PASSWORD";
/// 10 s until a machine has answered.
const CONNECT_SECONDS: u32 = 10;

/// Says the password to ssh, if ssh has started this process for that.
pub fn answer_ssh() -> Option<ExitCode> {
    let password = std::env::var(PASSWORD).ok()?;
    // ssh asks for other things, too: whether an unknown host key is fine, or a passphrase. That is nobody's password.
    let prompt = std::env::args().nth(1).unwrap_or_default().to_lowercase();
    if !prompt.contains("password") || prompt.contains("passphrase") {
        return Some(ExitCode::FAILURE);
    }
    let said = writeln!(std::io::stdout(), "{password}");
    Some(if said.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The programs.
#[derive(Debug, Clone)]
pub(crate) struct Programs {
    /// This keadm, which says passwords.
    keadm: PathBuf,
}

impl Programs {
    pub(crate) fn here() -> Result<Programs> {
        Ok(Programs { keadm: std::env::current_exe().context("cannot find this program's own file")? })
    }

    /// ssh to a machine, where a shell reads `line`. What ssh itself has to say goes into the file `own_words`: what comes on its standard
    /// error is the machine's.
    pub(crate) fn ssh(&self, to: &Ssh, line: &str, own_words: &Path) -> Command {
        let mut ssh = self.program("ssh", to);
        ssh.arg("-E").arg(own_words);
        ssh.args(["-T", "-x", "-p", &to.port.to_string(), "-l", &to.user, "--", &to.host, line]);
        ssh
    }

    /// scp of files, by their absolute paths, into a folder of a machine.
    pub(crate) fn scp(&self, to: &Ssh, files: &[PathBuf], folder: &str) -> Command {
        let mut scp = self.program("scp", to);
        scp.args(["-q", "-r", "-P", &to.port.to_string(), "--"]).args(files);
        let host = if to.host.contains(':') { format!("[{}]", to.host) } else { to.host.clone() };
        scp.arg(format!("{}@{host}:{folder}/", to.user));
        scp
    }

    fn program(&self, name: &str, to: &Ssh) -> Command {
        let mut command = Command::new(name);
        command.args(options(to).iter().flat_map(|option| ["-o", option.as_str()]));
        if let Login::Key(path) = &to.login {
            command.arg("-i").arg(path);
        }
        command.env_remove(PASSWORD).env("LC_ALL", "C");
        if let Login::Password(password) = &to.login {
            command
                .env("SSH_ASKPASS", &self.keadm)
                .env("SSH_ASKPASS_REQUIRE", "force")
                .env(PASSWORD, password);
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        command
    }
}

/// ssh's options. What else this user's configuration says counts, as a jump host does.
fn options(to: &Ssh) -> Vec<String> {
    let mut options = vec![
        format!("ConnectTimeout={CONNECT_SECONDS}"),
        "ServerAliveInterval=15".to_owned(),
        "ServerAliveCountMax=4".to_owned(),
        "ForwardAgent=no".to_owned(),
        "ClearAllForwardings=yes".to_owned(),
        "PermitLocalCommand=no".to_owned(),
        "ControlMaster=no".to_owned(),
        "ControlPath=none".to_owned(),
    ];
    match &to.login {
        Login::Password(_) => options.extend([
            "BatchMode=no".to_owned(),
            "PreferredAuthentications=password,keyboard-interactive".to_owned(),
            "PubkeyAuthentication=no".to_owned(),
            "NumberOfPasswordPrompts=1".to_owned(),
        ]),
        Login::Key(_) => options.extend([
            "BatchMode=yes".to_owned(),
            "PreferredAuthentications=publickey".to_owned(),
            "IdentitiesOnly=yes".to_owned(),
        ]),
    }
    match &to.host_key {
        HostKey::Known => options.push("StrictHostKeyChecking=yes".to_owned()),
        HostKey::KnownIn(file) => options.extend([
            "StrictHostKeyChecking=yes".to_owned(),
            format!("UserKnownHostsFile=\"{}\"", in_quotes(file)),
            "GlobalKnownHostsFile=/dev/null".to_owned(),
        ]),
        HostKey::Unchecked => options.extend([
            "StrictHostKeyChecking=no".to_owned(),
            "UserKnownHostsFile=/dev/null".to_owned(),
            "GlobalKnownHostsFile=/dev/null".to_owned(),
            "LogLevel=ERROR".to_owned(),
        ]),
    }
    options
}

/// A path as ssh's configuration has it: `%` begins a token there.
fn in_quotes(path: &Path) -> String {
    path.to_string_lossy().replace('%', "%%").replace('\\', "\\\\").replace('"', "\\\"")
}

/// What ssh's own failure (its exit code 255) means, from its own words.
pub(crate) fn failure(to: &Ssh, said: &str) -> String {
    // A disconnect comes with words of the other side's.
    let own = said.split("Received disconnect").next().unwrap_or_default();
    let line = said.lines().rev().map(str::trim).find(|line| !line.is_empty()).unwrap_or("it says nothing");
    let has = |words: &[&str]| words.iter().any(|word| own.contains(word));
    let Ssh { host, port, user, .. } = to;
    if has(&["REMOTE HOST IDENTIFICATION HAS CHANGED"]) {
        let known = known(to);
        return format!(
            "{host} shows another host key than {known} has: somebody else answers there, or it was installed anew (then `ssh-keygen -R` the old \
             one and add the new one)"
        );
    }
    if has(&["Host key verification failed", "host key is known"]) {
        let known = known(to);
        return format!(
            "the host key of {host} is not in {known}: add it (`ssh-keyscan -p {port} {host}`, and compare it with the machine's)"
        );
    }
    if has(&["Permission denied", "Too many authentication failures"]) {
        let what = match &to.login {
            Login::Password(_) => "the password".to_owned(),
            Login::Key(path) => format!("the key {}", path.display()),
        };
        return format!("{host} refuses {what} of {user}: {line}");
    }
    if has(&[
        "timed out",
        "refused",
        "No route to host",
        "unreachable",
        "Could not resolve",
        "closed by remote host",
        "reset by peer",
    ]) {
        return format!("{host} port {port} is not reached: {line}");
    }
    format!("ssh: {line}")
}

fn known(to: &Ssh) -> String {
    match &to.host_key {
        HostKey::KnownIn(file) => file.display().to_string(),
        HostKey::Known | HostKey::Unchecked => "this user's known hosts".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn to(login: Login, host_key: HostKey) -> Ssh {
        Ssh { host: "2001:db8::1".to_owned(), user: "root".to_owned(), port: 2222, login, host_key }
    }

    fn words(command: &Command) -> Vec<String> {
        command.as_std().get_args().map(|word| word.to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn no_password_is_on_a_command_line_and_no_host_key_goes_unchecked_by_itself() {
        let programs = Programs { keadm: "/usr/local/bin/keadm".into() };
        let to = to(Login::Password("hunter2".to_owned()), HostKey::Known);
        let (ssh, scp) =
            (programs.ssh(&to, "uname -m", Path::new("/w")), programs.scp(&to, &["/a".into()], "/tmp/x"));
        for words in [words(&ssh), words(&scp)] {
            assert!(!words.join(" ").contains("hunter2"), "{words:?}");
            assert!(words.contains(&"StrictHostKeyChecking=yes".to_owned()));
        }
        assert!(words(&ssh).ends_with(&["--".to_owned(), "2001:db8::1".to_owned(), "uname -m".to_owned()]));
        assert!(words(&scp).ends_with(&[
            "--".to_owned(),
            "/a".to_owned(),
            "root@[2001:db8::1]:/tmp/x/".to_owned()
        ]));
        let askpass = ssh.as_std().get_envs().find(|(name, _)| *name == "SSH_ASKPASS_REQUIRE");
        assert_eq!(askpass.and_then(|(_, value)| value).unwrap(), "force");
    }

    #[test]
    fn sshs_words_are_told_as_what_they_mean() {
        let to = to(Login::Key("/k".into()), HostKey::KnownIn("/known".into()));
        for (said, meant) in [
            (
                "@@@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @@@\nHost key verification failed.\n",
                "shows another host key than /known has",
            ),
            ("No ED25519 host key is known for x\nHost key verification failed.", "is not in /known"),
            ("root@x: Permission denied (publickey).", "refuses the key /k of root"),
            ("ssh: connect to host x port 1: Connection refused", "port 2222 is not reached"),
            ("kex_exchange", "ssh: kex_exchange"),
            (
                "Received disconnect from x port 1:2: REMOTE HOST IDENTIFICATION HAS CHANGED",
                "ssh: Received disconnect",
            ),
            ("", "it says nothing"),
        ] {
            assert!(failure(&to, said).contains(meant), "{said}: {}", failure(&to, said));
        }
    }
}
