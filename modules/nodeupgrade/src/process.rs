//! A process: what it was started with, how it goes on as another one, and how it ends. Which one is edgecore, `store_lock` says.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use beehive::Clock;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::inherited::{limits_in, umask_in};
use crate::journal::{self, Launch, Log};

/// 5 ms between two looks at whether a process has ended: somebody else may start another one in its place.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// 64 KiB of what the kernel says of a process in lines.
const PROC_MAX: u64 = 64 << 10;
/// 6 MiB of a command line or an environment: the kernel starts no program with more (three quarters of `_STK_LIM`).
const WORDS_MAX: u64 = 6 << 20;
/// Words of systemd to a process of its own, which mean nothing to one that is started by somebody else.
const OF_SYSTEMD: [&str; 7] = [
    "NOTIFY_SOCKET",
    "JOURNAL_STREAM",
    "INVOCATION_ID",
    "LISTEN_FDS",
    "LISTEN_PID",
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
];

/// A process, which is no other one that has its number later.
#[derive(Debug)]
pub(crate) struct Process {
    pid: u32,
    /// When it began, in ticks since the machine did.
    began: u64,
    handle: OwnedFd,
}

impl Process {
    /// The process that has this number now.
    pub(crate) fn of(pid: u32) -> Option<Process> {
        let number = i32::try_from(pid).ok().and_then(Pid::from_raw)?;
        let handle = pidfd_open(number, PidfdFlags::empty()).ok()?;
        let (_, began) = stat(pid)?;
        Some(Process { pid, began, handle })
    }

    /// Whether it runs still. One that has ended and that nobody has asked about yet does not.
    pub(crate) fn runs(&self) -> bool {
        stat(self.pid).is_some_and(|(state, began)| began == self.began && !matches!(state, 'Z' | 'X'))
    }

    /// Whether it is the same as another one.
    pub(crate) fn is(&self, other: &Process) -> bool {
        (self.pid, self.began) == (other.pid, other.began)
    }

    /// Its program.
    pub(crate) fn program(&self) -> Result<PathBuf> {
        let link = fs::read_link(format!("/proc/{}/exe", self.pid))
            .with_context(|| format!("cannot see the program of process {}", self.pid))?;
        // The kernel's word for a file whose name was given to another.
        let name = link.to_string_lossy().into_owned();
        Ok(name.strip_suffix(" (deleted)").map_or(link, PathBuf::from))
    }

    /// Whether it runs the file that has this name now.
    pub(crate) fn is_of(&self, program: &Path) -> bool {
        let (Ok(own), Ok(file)) = (fs::metadata(format!("/proc/{}/exe", self.pid)), fs::metadata(program))
        else {
            return false;
        };
        (own.dev(), own.ino()) == (file.dev(), file.ino())
    }

    /// What it was started with.
    pub(crate) fn launch(&self) -> Result<Launch> {
        let list = |what: &str| -> Result<Vec<String>> {
            let at = || format!("cannot see the {what} of process {}", self.pid);
            let bytes = read_at_most(&format!("/proc/{}/{what}", self.pid), WORDS_MAX).with_context(at)?;
            let bytes = bytes.strip_suffix(b"\0").unwrap_or(&bytes);
            let parts = bytes.split(|byte| *byte == 0).filter(|_| !bytes.is_empty());
            parts.map(|part| Ok(String::from_utf8(part.to_vec())?)).collect()
        };
        let arguments = list("cmdline").context("its arguments")?;
        let environment: BTreeMap<String, String> = list("environ")
            .context("its environment")?
            .into_iter()
            .filter_map(|pair| pair.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned())))
            .filter(|(name, _)| !OF_SYSTEMD.contains(&name.as_str()))
            .collect();
        let arguments: Vec<String> = arguments.into_iter().skip(1).collect();
        let folder = self.folder(&arguments)?;
        let log = self.log();
        let text = |what: &str| {
            let bytes = read_proc(&format!("/proc/{}/{what}", self.pid)).unwrap_or_default();
            String::from_utf8_lossy(&bytes).into_owned()
        };
        let inherited =
            journal::Inherited { umask: umask_in(&text("status")), limits: limits_in(&text("limits")) };
        Ok(Launch::Process { arguments, environment, folder, log, inherited })
    }

    /// The file that its standard error goes to: by its name, and as which file that is found again.
    fn log(&self) -> Option<Log> {
        let link = format!("/proc/{}/fd/2", self.pid);
        let path = fs::read_link(&link).ok()?;
        let found = fs::metadata(&link).ok().filter(fs::Metadata::is_file)?;
        Some(Log { path, device: found.dev(), number: found.ino() })
    }

    /// Its working folder. One that is gone is nobody's any more: the root is, as of a daemon, if no argument counts from there.
    fn folder(&self, arguments: &[String]) -> Result<PathBuf> {
        let folder = fs::read_link(format!("/proc/{}/cwd", self.pid)).unwrap_or_else(|_| PathBuf::from("/"));
        if folder.is_dir() {
            return Ok(folder);
        }
        let values = arguments.iter().zip(arguments.iter().skip(1)).filter(|(flag, _)| *flag == "--config");
        let joined = arguments.iter().filter_map(|word| word.strip_prefix("--config="));
        let mut configs = values.map(|(_, value)| value.as_str()).chain(joined);
        if let Some(relative) = configs.find(|path| !path.starts_with('/')) {
            bail!(
                "edgecore was started in {}, which is gone, and its --config {} counts from there: restart it with a whole path",
                folder.display(),
                relative.escape_debug()
            );
        }
        Ok(PathBuf::from("/"))
    }

    /// The unit of systemd that its control group is named after.
    pub(crate) fn unit(&self) -> Option<String> {
        let text = read_proc(&format!("/proc/{}/cgroup", self.pid)).ok()?;
        unit_in(&String::from_utf8_lossy(&text))
    }

    /// Its number.
    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// Ends it: in order within `within`, and else at once.
    ///
    /// # Errors
    /// When it goes on all the same.
    pub(crate) async fn end(&self, within: Duration, clock: &dyn Clock) -> Result<()> {
        for (signal, within) in [(Signal::TERM, within), (Signal::KILL, Duration::from_secs(10))] {
            if !self.runs() {
                return Ok(());
            }
            // It may end meanwhile.
            let _ = pidfd_send_signal(&self.handle, signal);
            let until = clock.now() + within;
            while self.runs() && clock.now() < until {
                clock.sleep(LOOK_EVERY).await;
            }
        }
        if self.runs() {
            bail!("edgecore (process {}) does not end, not even by SIGKILL: it waits for a disk", self.pid);
        }
        Ok(())
    }
}

/// The last unit in the lines of a process's control groups.
fn unit_in(text: &str) -> Option<String> {
    let unit = |line: &str| {
        let path = line.splitn(3, ':').nth(2)?;
        let mut parts = path.split('/').rev();
        parts.find(|part| part.ends_with(".service")).map(str::to_owned)
    };
    text.lines().find_map(unit)
}

/// The unit of systemd that this process is of.
pub(crate) fn own_unit() -> Option<String> {
    unit_in(&String::from_utf8_lossy(&read_proc("/proc/self/cgroup").ok()?))
}

/// Which start of the machine this is.
pub(crate) fn boot_id() -> String {
    let bytes = read_proc("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    String::from_utf8_lossy(&bytes).trim().to_owned()
}

/// The first 64 KiB of what the kernel says there.
pub(crate) fn read_proc(path: &str) -> Result<Vec<u8>> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(PROC_MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// All of it, where a part means something else than the whole.
fn read_at_most(path: &str, most: u64) -> Result<Vec<u8>> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(most.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        bail!("it has more than {most} bytes");
    }
    Ok(bytes)
}

/// The state of a process, and when it began.
fn stat(pid: u32) -> Option<(char, u64)> {
    let text = read_proc(&format!("/proc/{pid}/stat")).ok()?;
    let text = String::from_utf8_lossy(&text).into_owned();
    // The name is in parentheses and may hold anything; the state follows the last one.
    let mut fields = text.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?.chars().next()?;
    // Field 22, of which the state is field 3.
    let began = fields.nth(18)?.parse().ok()?;
    Some((state, began))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unit_of_a_process_is_the_last_one_of_its_groups() {
        for (text, unit) in [
            ("0::/system.slice/edgecore.service\n", Some("edgecore.service")),
            (
                "12:cpu:/kubepods\n1:name=systemd:/system.slice/edgecore.service/inner\n",
                Some("edgecore.service"),
            ),
            ("0::/user.slice/user-0.slice/session-1.scope\n", None),
            ("1:name=systemd:/\n", None),
            ("", None),
        ] {
            assert_eq!(unit_in(text).as_deref(), unit, "{text}");
        }
    }

    #[actix_rt::test]
    async fn a_process_is_known_by_what_it_was_started_with_and_ends() {
        let folder = tempfile::tempdir().unwrap();
        let gone = folder.path().canonicalize().unwrap().join("gone");
        fs::create_dir(&gone).unwrap();
        let large = "x".repeat(100 << 10);
        let null = std::process::Stdio::null;
        let mut child = std::process::Command::new("sleep")
            .arg("1000")
            .env_clear()
            .env("LARGE", &large)
            .env("WORD", "a")
            .env("NOTIFY_SOCKET", "/run/x")
            .current_dir(&gone)
            .stdin(null())
            .stdout(null())
            .stderr(null())
            .spawn()
            .unwrap();
        fs::remove_dir(&gone).unwrap();
        let found = Process::of(child.id()).expect("the child");
        assert_eq!(found.pid(), child.id());
        let program = found.program().unwrap();
        assert!(found.is_of(&program) && !found.is_of(Path::new("/proc/self/exe")));
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
        let limit = rustix::process::Rlimit { current: Some(777), maximum: Some(7777) };
        rustix::process::prlimit(pid, rustix::process::Resource::Nofile, limit).unwrap();
        let Launch::Process { arguments, environment, folder, inherited, .. } = found.launch().unwrap()
        else {
            panic!()
        };
        assert_eq!((arguments, folder), (vec!["1000".to_owned()], PathBuf::from("/")));
        assert_eq!(environment.get("WORD").map(String::as_str), Some("a"));
        assert_eq!(environment.get("LARGE"), Some(&large));
        assert!(!environment.contains_key("NOTIFY_SOCKET"));
        assert!(inherited.umask.is_some());
        let files = inherited.limits.iter().find(|limit| limit.resource == "Max open files").unwrap();
        assert_eq!((files.soft, files.hard), (Some(777), Some(7777)));
        let error = found.folder(&["--config".to_owned(), "edgecore.yaml".to_owned()]).unwrap_err();
        assert!(error.to_string().contains("which is gone"), "{error}");
        let clock = beehive::Env::real().clock();
        found.end(Duration::from_secs(10), clock.as_ref()).await.unwrap();
        assert!(!found.runs(), "before anybody has asked how it ended");
        child.wait().unwrap();
    }
}
