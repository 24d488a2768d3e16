//! The edgecore that runs on a store: it is the process of ours that has the store's lock, whatever it is called and whoever started it.
//! Who only has the lock's file open is none; nor is another user's process, or a container's, whatever files it calls by that name.

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
use crate::journal::{Launch, Log};
use crate::{files, journal};

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
    fn of(pid: u32) -> Option<Process> {
        let number = i32::try_from(pid).ok().and_then(Pid::from_raw)?;
        let handle = pidfd_open(number, PidfdFlags::empty()).ok()?;
        let (_, began) = stat(pid)?;
        Some(Process { pid, began, handle })
    }

    /// The edgecore that has the store at `store`: of this very user, and in the namespaces in which this one is. Whoever else has the
    /// lock, a container that mounts it or another user, does not count: nothing of his is run, ended or started again.
    pub(crate) fn on_store(store: &Path) -> Option<Process> {
        let lock = StoreLock::of(store)?;
        let own = Whereabouts::of(std::process::id())?.of_this_user()?;
        let is_one =
            |pid: u32| Whereabouts::of(pid).is_some_and(|its| its == own).then(|| lock.taker(pid))?;
        let mut heir = None;
        for pid in others() {
            match is_one(pid) {
                Some(taker) if taker == pid => {
                    heir = Some(pid);
                    break;
                }
                // Whoever took the lock may have handed it on.
                Some(_) => heir = heir.or(Some(pid)),
                None => {}
            }
        }
        let found = Process::of(heir?)?;
        // Its number may have become another one's since.
        is_one(found.pid).filter(|_| found.runs())?;
        Some(found)
    }

    /// What is to be said of whoever has the store's lock and is no edgecore of this machine's.
    pub(crate) fn stranger_on_store(store: &Path) -> Option<String> {
        let lock = StoreLock::of(store)?;
        let own = Whereabouts::of(std::process::id())?;
        let mut with_lock = others().filter(|pid| lock.is_said_of(*pid));
        let (pid, why) = with_lock.find_map(|pid| Some((pid, Whereabouts::of(pid)?.differs_from(&own)?)))?;
        Some(format!(
            "process {pid} has {}, and is not taken for an edgecore, since it {why}: run keadm beside edgecore as its user, or end who is none",
            lock.path.display()
        ))
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

/// The numbers of all processes but this one.
fn others() -> impl Iterator<Item = u32> {
    let own = std::process::id();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(move |pid| *pid != own)
}

/// Whose a process is, and what it sees. A path that it has open means something else where its mounts are others.
#[derive(Debug, PartialEq, Eq)]
struct Whereabouts {
    /// Real, effective, saved, and that of the file system.
    users: Vec<u32>,
    /// By the numbers that the kernel gives its namespaces of users, processes and mounts; `None`: the kernel has no such ones, for anybody.
    namespaces: [Option<(u64, u64)>; 3],
}

impl Whereabouts {
    fn of(pid: u32) -> Option<Whereabouts> {
        let status = read_proc(&format!("/proc/{pid}/status")).ok()?;
        let users = users_in(&String::from_utf8_lossy(&status))?;
        let namespace = |kind: &str| {
            let found = fs::metadata(format!("/proc/{pid}/ns/{kind}")).ok()?;
            Some((found.dev(), found.ino()))
        };
        Some(Whereabouts { users, namespaces: ["user", "pid", "mnt"].map(namespace) })
    }

    /// The same, for whoever is one user alone.
    fn of_this_user(self) -> Option<Whereabouts> {
        let own = rustix::process::geteuid().as_raw();
        Some(Whereabouts { users: vec![own; self.users.len()], ..self })
    }

    fn differs_from(&self, own: &Whereabouts) -> Option<&'static str> {
        match (self.users == own.users, self.namespaces == own.namespaces) {
            (_, false) => Some("is in other namespaces than keadm, as a container is"),
            (false, true) => Some("is another user's"),
            (true, true) => None,
        }
    }
}

/// The users in the lines of `/proc/PID/status`.
fn users_in(text: &str) -> Option<Vec<u32>> {
    let line = text.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    let users: Option<Vec<u32>> = line.split_whitespace().map(|word| word.parse().ok()).collect();
    users.filter(|users| users.len() == 4)
}

/// The file whose lock an edgecore has: known by its number on its disk, and not by a name, which is another file's elsewhere.
struct StoreLock {
    path: PathBuf,
    #[expect(dead_code, reason = "while it is open, its number is no other file's")]
    file: OwnedFd,
    device: u64,
    number: u64,
}

impl StoreLock {
    /// `None`: there is none, or what has its name is no file of ours.
    fn of(store: &Path) -> Option<StoreLock> {
        let path = files::beside(store, ".lock");
        let (file, found) = files::look_at(&path).ok()?;
        let is_ours = found.uid() == rustix::process::geteuid().as_raw() || found.uid() == 0;
        (found.is_file() && is_ours).then(|| StoreLock {
            path,
            file,
            device: found.dev(),
            number: found.ino(),
        })
    }

    /// What the kernel says of each descriptor of a process whose file has this one's name somewhere.
    fn said_of(&self, pid: u32) -> impl Iterator<Item = (PathBuf, Taken)> {
        let open = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        open.filter_map(move |entry| {
            // Cheaper than the rest, and said without asking the file's disk, which may be somebody's program.
            fs::read_link(entry.path()).ok().filter(|target| target.file_name() == self.path.file_name())?;
            let number = entry.file_name();
            let info = read_proc(&format!("/proc/{pid}/fdinfo/{}", number.to_str()?)).ok()?;
            let taken =
                taken_in(&String::from_utf8_lossy(&info)).filter(|taken| taken.number == self.number)?;
            Some((entry.path(), taken))
        })
    }

    /// If the process, which is ours, has the lock by a descriptor of its own: which process took it.
    fn taker(&self, pid: u32) -> Option<u32> {
        let is_this = |path: &Path| {
            fs::metadata(path).is_ok_and(|found| (found.dev(), found.ino()) == (self.device, self.number))
        };
        self.said_of(pid).find(|(path, _)| is_this(path)).map(|(_, taken)| taken.by)
    }

    /// The same of anybody, by the kernel's word for the disk: good enough to say who it is.
    fn is_said_of(&self, pid: u32) -> bool {
        let device = (rustix::fs::major(self.device), rustix::fs::minor(self.device));
        self.said_of(pid).any(|(_, taken)| taken.device == device)
    }
}

/// A lock of a whole file, for one alone.
#[derive(Debug, PartialEq, Eq)]
struct Taken {
    /// Which process took it.
    by: u32,
    /// Major and minor number of the disk.
    device: (u32, u32),
    /// The file's number there.
    number: u64,
}

/// Who took the lock of a whole file, for himself alone, that a descriptor has, by the kernel's words of the descriptor.
fn taken_in(info: &str) -> Option<Taken> {
    let locks = info.lines().filter_map(|line| line.strip_prefix("lock:"));
    locks.map(|lock| lock.split_whitespace().collect::<Vec<_>>()).find_map(|words| match words[..] {
        [_, "FLOCK", _, "WRITE", taker, file, ..] => {
            let mut parts = file.split(':');
            let mut part = || parts.next();
            let device = (u32::from_str_radix(part()?, 16).ok()?, u32::from_str_radix(part()?, 16).ok()?);
            Some(Taken { by: taker.parse().ok()?, device, number: part()?.parse().ok()? })
        }
        _ => None,
    })
}

fn read_proc(path: &str) -> Result<Vec<u8>> {
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
    use std::os::unix::process::CommandExt as _;

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

    #[test]
    fn the_lock_of_a_whole_file_for_one_alone_is_one_and_no_other_is() {
        let lock = |kind: &str, mode: &str| {
            format!("pos:\t0\nflags:\t02\nlock:\t1: {kind}  ADVISORY  {mode} 359 00:13:11691 0 EOF\n")
        };
        let taken = Taken { by: 359, device: (0, 0x13), number: 11691 };
        assert_eq!(taken_in(&lock("FLOCK", "WRITE")), Some(taken));
        for text in [&lock("FLOCK", "READ"), &lock("POSIX", "WRITE"), "pos:\t0\n", "lock:\t1: FLOCK\n", ""] {
            assert_eq!(taken_in(text), None, "{text}");
        }
    }

    fn spawn(lock: &fs::File, change: impl FnOnce(&mut std::process::Command)) -> std::process::Child {
        let mut command = std::process::Command::new("sleep");
        command.arg("1000").env_clear().stdin(lock.try_clone().unwrap());
        command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
        change(&mut command);
        command.spawn().unwrap()
    }

    #[actix_rt::test]
    async fn who_has_the_stores_lock_is_found_and_ended_and_who_has_only_its_file_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().canonicalize().unwrap();
        let store = folder.join("edgecore.db");
        let lock = fs::File::create(files::beside(&store, ".lock")).unwrap();
        // A copy program, an editor: it has the file, and not the lock.
        let mut reader = spawn(&fs::File::open(files::beside(&store, ".lock")).unwrap(), |_| {});
        assert!(Process::on_store(&store).is_none());
        lock.lock().unwrap();
        assert!(Process::on_store(&store).is_none(), "this process is none, and the other has no lock");
        let large = "x".repeat(100 << 10);
        let gone = folder.join("gone");
        fs::create_dir(&gone).unwrap();
        let mut child = spawn(&lock, |command| {
            command.env("LARGE", &large).env("WORD", "a").env("NOTIFY_SOCKET", "/run/x").current_dir(&gone);
        });
        fs::remove_dir(&gone).unwrap();
        let found = Process::on_store(&store).expect("the child");
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
        assert!(Process::on_store(&store).is_none());
        reader.kill().unwrap();
        reader.wait().unwrap();
    }

    /// A lock that is taken, and its store, in a folder of their own.
    fn locked() -> (tempfile::TempDir, PathBuf, fs::File) {
        let folder = tempfile::tempdir().unwrap();
        let store = folder.path().canonicalize().unwrap().join("edgecore.db");
        let lock = fs::File::create(files::beside(&store, ".lock")).unwrap();
        lock.lock().unwrap();
        (folder, store, lock)
    }

    /// Ends with the test.
    struct Ends(std::process::Child);

    impl Drop for Ends {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    #[test]
    fn another_users_process_with_the_lock_is_no_edgecore_and_is_named() {
        if !rustix::process::geteuid().is_root() {
            // Only root can be another user.
            return;
        }
        let (_folder, store, lock) = locked();
        let child = Ends(spawn(&lock, |command| {
            command.uid(65534);
        }));
        assert!(Process::on_store(&store).is_none());
        let said = Process::stranger_on_store(&store).unwrap();
        assert!(
            said.contains(&format!("process {} ", child.0.id())) && said.contains("another user's"),
            "{said}"
        );
        drop(child);
        // Ours beside it is one.
        let child = Ends(spawn(&lock, |_| {}));
        assert_eq!(Process::on_store(&store).unwrap().pid(), child.0.id());
        assert_eq!(Process::stranger_on_store(&store), None);
        drop(child);
    }

    /// A pod that mounts the node's folder waits for the lock, and has it as soon as edgecore is stopped.
    #[test]
    fn whoever_has_the_lock_in_namespaces_of_his_own_is_no_edgecore() {
        let (_folder, store, lock) = locked();
        for namespace in ["--mount", "--pid"] {
            let mut command = std::process::Command::new("unshare");
            command
                .args([namespace, "--fork", "--kill-child", "sleep", "1000"])
                .stdin(lock.try_clone().unwrap());
            command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
            let child = Ends(command.spawn().unwrap());
            // `unshare` itself is in the namespace of mounts, and of processes only its child.
            let inner = loop {
                let children = format!("/proc/{0}/task/{0}/children", child.0.id());
                let pid = fs::read_to_string(children).unwrap().trim().parse::<u32>();
                if let Ok(pid) = pid
                    && fs::read_to_string(format!("/proc/{pid}/comm")).unwrap() == "sleep\n"
                {
                    break pid;
                }
                std::thread::sleep(LOOK_EVERY);
            };
            let found = Process::on_store(&store).map(|found| found.pid());
            // Who has opened another namespace for his children is not within it himself.
            assert_eq!(found, (namespace == "--pid").then_some(child.0.id()), "{namespace}");
            assert!(Process::stranger_on_store(&store).is_some_and(|said| said.contains("other namespaces")));
            assert_ne!(found, Some(inner));
            drop(child);
        }
    }

    /// In a container, or in namespaces that anybody may make, any file has that name.
    #[test]
    fn a_lock_of_another_file_of_that_name_is_none() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let (folder, store, lock) = locked();
        let child = Ends(spawn(&lock, |_| {}));
        let open = format!("/proc/{}/fd/0", child.0.id());
        assert!(Process::on_store(&store).is_some());
        let mount = |program: &str, words: &[&str]| {
            assert!(
                std::process::Command::new(program)
                    .args(words)
                    .arg(folder.path())
                    .status()
                    .unwrap()
                    .success()
            );
        };
        mount("mount", &["-t", "tmpfs", "tmpfs"]);
        fs::write(files::beside(&store, ".lock"), "").unwrap();
        assert_eq!(fs::read_link(open).unwrap(), files::beside(&store, ".lock"), "it has the name still");
        let found = Process::on_store(&store).is_some();
        mount("umount", &["-l"]);
        drop(child);
        assert!(!found);
    }

    #[test]
    fn a_program_that_others_could_exchange_is_neither_run_nor_copied() {
        use std::os::unix::fs::PermissionsExt as _;
        let (folder, store, lock) = locked();
        let bin = folder.path().canonicalize().unwrap().join("bin");
        fs::create_dir(&bin).unwrap();
        let program = bin.join("edgecore");
        fs::copy("/bin/sleep", &program).unwrap();
        let mut command = std::process::Command::new(&program);
        command.arg("1000").stdin(lock.try_clone().unwrap());
        let child = Ends(
            command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn().unwrap(),
        );
        let set =
            |path: &Path, mode: u32| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        set(&bin, 0o755);
        assert_eq!(crate::checks::running(&store).unwrap().1, program);
        for (path, open) in [(&bin, 0o777), (&program, 0o757)] {
            set(path, open);
            let error = format!("{:#}", crate::checks::running(&store).unwrap_err());
            assert!(
                error.contains("chmod it to 0755") && error.contains(&path.display().to_string()),
                "{error}"
            );
            set(path, 0o755);
        }
        drop(child);
    }
}
