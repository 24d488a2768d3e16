//! Who is edgecore: the process of ours that has the store's lock, whatever it is called and whoever started it. Who only has the lock's
//! file open is none; nor is another user's process, or a container's, whatever files it calls by that name.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::files;
use crate::process::{Process, read_proc};

/// The edgecore that has the store at `store`: of this very user, and in the namespaces in which this one is. Whoever else has the
/// lock, a container that mounts it or another user, does not count: nothing of his is run, ended or started again.
pub(crate) fn edgecore_on(store: &Path) -> Option<Process> {
    let lock = StoreLock::of(store)?;
    let own = Whereabouts::of(std::process::id())?.of_this_user()?;
    let is_one = |pid: u32| Whereabouts::of(pid).is_some_and(|its| its == own).then(|| lock.taker(pid))?;
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
    is_one(found.pid()).filter(|_| found.runs())?;
    Some(found)
}

/// Whether an edgecore of this machine's has the store at `store`. Only its own user, and root, sees that.
pub fn runs_on(store: &Path) -> bool {
    edgecore_on(store).is_some()
}

/// What is to be said of whoever has the store's lock and is no edgecore of this machine's.
pub(crate) fn stranger_on(store: &Path) -> Option<String> {
    let lock = StoreLock::of(store)?;
    let own = Whereabouts::of(std::process::id())?;
    let mut with_lock = others().filter(|pid| lock.is_said_of(*pid));
    let (pid, why) = with_lock.find_map(|pid| Some((pid, Whereabouts::of(pid)?.differs_from(&own)?)))?;
    Some(format!(
        "process {pid} has {}, and is not taken for an edgecore, since it {why}: run keadm beside edgecore as its user, or end who is none",
        lock.path.display()
    ))
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::CommandExt as _;

    /// 5 ms between two looks.
    const LOOK_EVERY: std::time::Duration = std::time::Duration::from_millis(5);

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

    #[test]
    fn who_has_the_stores_lock_is_edgecore_and_who_has_only_its_file_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let store = folder.path().canonicalize().unwrap().join("edgecore.db");
        let lock = fs::File::create(files::beside(&store, ".lock")).unwrap();
        // A copy program, an editor: it has the file, and not the lock.
        let reader = Ends(spawn(&fs::File::open(files::beside(&store, ".lock")).unwrap(), |_| {}));
        assert!(edgecore_on(&store).is_none());
        lock.lock().unwrap();
        assert!(edgecore_on(&store).is_none(), "this process is none, and the other has no lock");
        let child = Ends(spawn(&lock, |_| {}));
        assert_eq!(edgecore_on(&store).unwrap().pid(), child.0.id());
        drop(child);
        assert!(edgecore_on(&store).is_none());
        drop(reader);
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
        assert!(edgecore_on(&store).is_none());
        let said = stranger_on(&store).unwrap();
        assert!(
            said.contains(&format!("process {} ", child.0.id())) && said.contains("another user's"),
            "{said}"
        );
        drop(child);
        // Ours beside it is one.
        let child = Ends(spawn(&lock, |_| {}));
        assert_eq!(edgecore_on(&store).unwrap().pid(), child.0.id());
        assert_eq!(stranger_on(&store), None);
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
            let found = edgecore_on(&store).map(|found| found.pid());
            // Who has opened another namespace for his children is not within it himself.
            assert_eq!(found, (namespace == "--pid").then_some(child.0.id()), "{namespace}");
            assert!(stranger_on(&store).is_some_and(|said| said.contains("other namespaces")));
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
        assert!(edgecore_on(&store).is_some());
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
        let found = edgecore_on(&store).is_some();
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
