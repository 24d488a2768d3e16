//! The edgecore that runs on a store: it is the one that has the store's lock open, whatever it is called and whoever started it.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use beehive::Clock;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::files;
use crate::journal::Launch;

/// 5 ms between two looks at whether a process has ended: somebody else may start another one in its place.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// 64 KiB of a command line or an environment.
const PROC_MAX: u64 = 64 << 10;
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
    fn of(pid: u32) -> Option<Process> {
        let number = i32::try_from(pid).ok().and_then(Pid::from_raw)?;
        let handle = pidfd_open(number, PidfdFlags::empty()).ok()?;
        let (_, began) = stat(pid)?;
        Some(Process { pid, began, handle })
    }

    /// The edgecore that has the store at `store`.
    pub(crate) fn on_store(store: &Path) -> Option<Process> {
        let lock = fs::canonicalize(files::beside(store, ".lock")).ok()?;
        let own = std::process::id();
        let pids = fs::read_dir("/proc").ok()?.flatten();
        let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        pids.filter(|pid| *pid != own).find(|pid| has_open(*pid, &lock)).and_then(Process::of)
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
        use std::os::unix::fs::MetadataExt as _;
        let (Ok(own), Ok(file)) = (fs::metadata(format!("/proc/{}/exe", self.pid)), fs::metadata(program))
        else {
            return false;
        };
        (own.dev(), own.ino()) == (file.dev(), file.ino())
    }

    /// What it was started with.
    pub(crate) fn launch(&self) -> Result<Launch> {
        let list = |what: &str| -> Result<Vec<String>> {
            let bytes = read_proc(&format!("/proc/{}/{what}", self.pid))
                .with_context(|| format!("cannot see the {what} of process {}", self.pid))?;
            let Some(bytes) = bytes.strip_suffix(b"\0") else { return Ok(Vec::new()) };
            bytes.split(|byte| *byte == 0).map(|part| Ok(String::from_utf8(part.to_vec())?)).collect()
        };
        let arguments = list("cmdline").context("its arguments are no text")?;
        let environment: BTreeMap<String, String> = list("environ")
            .context("its environment is no text")?
            .into_iter()
            .filter_map(|pair| pair.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned())))
            .filter(|(name, _)| !OF_SYSTEMD.contains(&name.as_str()))
            .collect();
        let folder = fs::read_link(format!("/proc/{}/cwd", self.pid)).unwrap_or_else(|_| PathBuf::from("/"));
        let log = fs::read_link(format!("/proc/{}/fd/2", self.pid)).ok();
        let log = log.filter(|path| fs::metadata(path).is_ok_and(|found| found.is_file()));
        Ok(Launch::Process { arguments: arguments.into_iter().skip(1).collect(), environment, folder, log })
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

fn has_open(pid: u32, file: &Path) -> bool {
    let Ok(open) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    open.flatten().any(|entry| fs::read_link(entry.path()).is_ok_and(|target| target == file))
}

fn read_proc(path: &str) -> Result<Vec<u8>> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(PROC_MAX).read_to_end(&mut bytes)?;
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
    async fn who_has_the_store_is_found_and_ended() {
        let folder = tempfile::tempdir().unwrap();
        let store = folder.path().join("edgecore.db");
        let lock = fs::File::create(files::beside(&store, ".lock")).unwrap();
        assert!(Process::on_store(&store).is_none(), "this process is none");
        let mut child = std::process::Command::new("sleep")
            .arg("1000")
            .env("WORD", "a")
            .env("NOTIFY_SOCKET", "/run/x")
            .stdin(lock.try_clone().unwrap())
            .spawn()
            .unwrap();
        let found = Process::on_store(&store).expect("the child");
        assert_eq!(found.pid(), child.id());
        let program = found.program().unwrap();
        assert!(found.is_of(&program) && !found.is_of(Path::new("/proc/self/exe")));
        let Launch::Process { arguments, environment, .. } = found.launch().unwrap() else { panic!() };
        assert_eq!(arguments, ["1000"]);
        assert_eq!(environment.get("WORD").map(String::as_str), Some("a"));
        assert!(!environment.contains_key("NOTIFY_SOCKET"));
        let clock = beehive::Env::real().clock();
        found.end(Duration::from_secs(10), clock.as_ref()).await.unwrap();
        assert!(!found.runs(), "before anybody has asked how it ended");
        child.wait().unwrap();
        assert!(Process::on_store(&store).is_none());
    }
}
