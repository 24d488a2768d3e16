//! What is done on one node: a folder of its own, keadm and files into it, keadm runs there, and the folder goes.

use std::io::Read as _;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use beehive::Env;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Command;

use super::file::{BatchNode, Packages};
use super::news::Steps;
use super::package;
use super::ssh::{Programs, failure};
use super::words::quoted;
use crate::node_socket::for_terminal;

/// 64 KiB of what a program says are kept: the last.
const SAID_MAX: usize = 64 << 10;
/// 2 min for everything but keadm itself and what is copied.
const STEP_WITHIN: Duration = Duration::from_secs(120);
/// The exit code with which ssh itself fails.
const OF_SSH: i32 = 255;
/// Where a node gets its folder.
pub(crate) const FOLDER: &str = "/tmp/keadm-batch.";

/// What every node needs.
#[derive(Clone)]
pub(crate) struct Tools {
    pub(crate) programs: Programs,
    pub(crate) packages: Option<Packages>,
    /// Where packages are unpacked.
    pub(crate) folder: PathBuf,
    /// How long one node may take.
    pub(crate) within: Duration,
    pub(crate) env: Env,
}

/// What a program has said, the last of it, and how it ended.
struct Ended {
    status: ExitStatus,
    out: Vec<u8>,
    err: Vec<u8>,
}

/// What came of a line that ssh brought to a node.
struct OverSsh {
    ended: Ended,
    /// Why ssh itself could not bring it or has lost the way. A node that ends with ssh's exit code, and with whatever words, is none.
    failed: Option<String>,
}

/// Has a shell of the node read a line, and hands it another.
async fn over_ssh(node: &BatchNode, tools: &Tools, line: &str, handed: Option<&str>) -> Result<OverSsh> {
    let own_words = tempfile::NamedTempFile::new_in(&tools.folder).context("no file for ssh's own words")?;
    let ended = spoken(tools.programs.ssh(&node.ssh, line, own_words.path()), handed).await?;
    let mut words = Vec::new();
    std::fs::File::open(own_words.path())?.take(SAID_MAX as u64).read_to_end(&mut words)?;
    let words = for_terminal(&String::from_utf8_lossy(&words));
    let is_its_own = ended.status.code() == Some(OF_SSH) && !words.trim().is_empty();
    Ok(OverSsh { failed: is_its_own.then(|| failure(&node.ssh, &words)), ended })
}

/// Does all of a node. Answers what became of it, and what keadm has said there.
pub(crate) async fn run(node: &BatchNode, tools: &Tools, steps: &Steps) -> (Result<()>, String) {
    let mut said = String::new();
    let outcome = tools.env.timeout(tools.within, all(node, tools, steps, &mut said)).await;
    let outcome = outcome.unwrap_or_else(|| {
        let seconds = tools.within.as_secs();
        Err(anyhow!("it takes longer than {seconds} s (--node-timeout), and is given up: what keadm does there may go on"))
    });
    (outcome, said)
}

async fn all(node: &BatchNode, tools: &Tools, steps: &Steps, said: &mut String) -> Result<()> {
    steps.say("connects".to_owned()).await;
    let (folder, architecture) = made_folder(node, tools).await?;
    let outcome = bring_and_run(node, tools, (&folder, architecture), steps, said).await;
    // keadm's line removes it, unless it has not come so far.
    if outcome.is_err() {
        let line = format!("rm -rf -- {folder}");
        let _ = within(tools, over_ssh(node, tools, &line, None)).await;
    }
    outcome
}

/// Makes a folder that only this user of the node can look into, and looks what machine it is. Answers both.
async fn made_folder(node: &BatchNode, tools: &Tools) -> Result<(String, &'static str)> {
    let line = format!("umask 077 && uname -m && mktemp -d {FOLDER}XXXXXXXXXX");
    let OverSsh { ended, failed } = within(tools, over_ssh(node, tools, &line, None)).await?;
    if let Some(why) = failed {
        bail!("{why}");
    }
    succeeded(&ended, "it makes no folder for keadm")?;
    let out = String::from_utf8_lossy(&ended.out);
    let lines: Vec<&str> = out.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    // A greeting of the user's shell may stand before.
    let [.., machine, folder] = lines.as_slice() else { bail!("it does not say what machine it is") };
    let shown = |text: &str| text.chars().take(64).collect::<String>().escape_debug().to_string();
    let rest = folder.strip_prefix(FOLDER).unwrap_or_default();
    if rest.is_empty() || rest.len() > 32 || !rest.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        bail!("it says `{}` in place of a folder", shown(folder));
    }
    Ok((
        (*folder).to_owned(),
        package::architecture(machine)
            .with_context(|| format!("it is a `{}`, for which there is no keadm", shown(machine)))?,
    ))
}

async fn bring_and_run(
    node: &BatchNode,
    tools: &Tools,
    (folder, architecture): (&str, &'static str),
    steps: &Steps,
    said: &mut String,
) -> Result<()> {
    if let Some(wanted) =
        node.architecture.as_deref().filter(|wanted| package::architecture(wanted) != Some(architecture))
    {
        bail!("it is of {architecture}, and the file says {}", wanted.escape_debug());
    }
    let mut files = Vec::new();
    if let Some(from) = &node.copy_from {
        for entry in std::fs::read_dir(from).with_context(|| format!("cannot read {}", from.display()))? {
            files.push(entry?.path());
        }
        files.sort();
    }
    let program = match (&node.keadm_folder, &tools.packages) {
        (Some(own), _) => format!("{}/keadm", own.trim_end_matches('/')),
        (None, Some(packages)) => {
            files.retain(|path| path.file_name().is_none_or(|name| name != "keadm"));
            // A package is unpacked once, by who comes first: nobody else runs meanwhile.
            files.push(package::keadm(packages, architecture, &tools.folder)?);
            "./keadm".to_owned()
        }
        (None, None) => bail!("there is no keadm for it"),
    };
    if !files.is_empty() {
        steps.say(format!("copies {} files", files.len())).await;
        let ended = spoken(tools.programs.scp(&node.ssh, &files, folder), None).await?;
        succeeded(&ended, "the files are not copied")?;
    }
    steps.say(format!("runs keadm {}", node.words.first().map_or("", String::as_str))).await;
    let words = quoted(&[std::slice::from_ref(&program), &node.words].concat())?;
    let line = format!("cd {folder} && {words}; code=$?; cd / && rm -rf -- {folder}; exit $code");
    let OverSsh { ended, failed } = over_ssh(node, tools, &line, node.token.as_deref()).await?;
    let all = [ended.out.as_slice(), ended.err.as_slice()].concat();
    *said = for_terminal(&String::from_utf8_lossy(&all));
    if let Some(why) = failed {
        bail!("{why}");
    }
    match ended.status.code() {
        Some(0) => Ok(()),
        Some(code) => bail!("keadm ends with {code}: {}", why(said)),
        None => bail!("ssh was ended by a signal"),
    }
}

/// What a step that is not keadm itself came to.
fn succeeded(ended: &Ended, what: &str) -> Result<()> {
    if ended.status.success() {
        return Ok(());
    }
    bail!("{what}: {}", last_line(&for_terminal(&String::from_utf8_lossy(&ended.err))))
}

/// Why keadm has ended: its last line, or where that is about how it is called, what was wrong with that.
fn why(said: &str) -> String {
    let last = last_line(said);
    if last.starts_with("keadm: ") {
        return last.to_owned();
    }
    let lines: Vec<&str> = said.lines().map(str::trim).collect();
    let Some(at) = lines.iter().rposition(|line| line.starts_with("error: ")) else { return last.to_owned() };
    let mut why = lines.get(at).copied().unwrap_or_default().to_owned();
    // What is missing stands below, a line each.
    if why.ends_with(':') {
        let below = lines.iter().skip(at + 1).take_while(|line| !line.is_empty());
        why.extend(below.map(|line| format!(" {line}")));
    }
    why
}

fn last_line(said: &str) -> &str {
    said.lines().rev().map(str::trim).find(|line| !line.is_empty()).unwrap_or("it says nothing")
}

async fn within<T>(tools: &Tools, work: impl Future<Output = Result<T>>) -> Result<T> {
    let done = tools.env.timeout(STEP_WITHIN, work).await;
    done.unwrap_or_else(|| bail!("nothing comes of it within {} s", STEP_WITHIN.as_secs()))
}

/// Runs a program to its end, hands it a line, and keeps the last of what it says.
async fn spoken(mut command: Command, line: Option<&str>) -> Result<Ended> {
    if line.is_some() {
        command.stdin(Stdio::piped());
    }
    let name = command.as_std().get_program().to_string_lossy().into_owned();
    let mut child =
        command.spawn().with_context(|| format!("cannot run `{name}` (Debian: openssh-client)"))?;
    let (out, err, input) = (child.stdout.take(), child.stderr.take(), child.stdin.take());
    let hand = async {
        if let (Some(mut input), Some(line)) = (input, line) {
            // Whoever does not read it has ended, and says why.
            let _ = input.write_all(format!("{line}\n").as_bytes()).await;
        }
    };
    let (out, err, ()) = tokio::join!(tail(out), tail(err), hand);
    let status = child.wait().await.with_context(|| format!("`{name}` is lost"))?;
    Ok(Ended { status, out: out?, err: err? })
}

/// The last of what comes.
async fn tail(from: Option<impl AsyncRead + Unpin>) -> Result<Vec<u8>> {
    let (mut kept, mut piece) = (Vec::new(), vec![0; 16 << 10]);
    let Some(mut from) = from else { return Ok(kept) };
    loop {
        let read = from.read(&mut piece).await?;
        if read == 0 {
            return Ok(kept);
        }
        kept.extend_from_slice(piece.get(..read).unwrap_or_default());
        if kept.len() > SAID_MAX {
            kept.drain(..kept.len() - SAID_MAX);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_line_that_keadm_does_not_take_it_is_said_what_is_wrong_with_it() {
        for (said, wanted) in [
            (
                "error: unexpected argument '--tokn' found\n\n  tip: a similar argument exists: '--token'\n\nUsage: keadm join\n\nFor more information, try '--help'.\n",
                "error: unexpected argument '--tokn' found",
            ),
            (
                "error: the following required arguments were not provided:\n  --cloudcore-ipport <X>\n\nUsage: keadm join\n",
                "error: the following required arguments were not provided: --cloudcore-ipport <X>",
            ),
            ("error: a hook's word\nkeadm: no answer from c:10002\n", "keadm: no answer from c:10002"),
            ("it cannot be undone\n\n", "it cannot be undone"),
            ("", "it says nothing"),
        ] {
            assert_eq!(why(said), wanted);
        }
    }

    #[tokio::test]
    async fn of_a_program_that_says_too_much_the_last_is_kept() {
        let mut much = Command::new("seq");
        much.arg("20000").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let ended = spoken(much, None).await.unwrap();
        assert_eq!((ended.status.code(), ended.out.len()), (Some(0), SAID_MAX));
        assert_eq!(last_line(&String::from_utf8(ended.out).unwrap()), "20000");
    }
}
