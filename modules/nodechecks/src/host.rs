//! The machine as it is looked at: files of the kernel's and of its administrator's, bounded, below one root.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::StatVfsMountFlags;

use crate::words::short;

/// 1 MiB of a file is read: `/proc/net/tcp` of a machine with 6,000 sockets.
const FILE_MAX: u64 = 1 << 20;
/// 32,768 processes are looked at, which is how many Linux has by default.
const PROCESSES_MAX: usize = 32_768;
/// 65,536 open files of one process: as many as a unit of edgecore's may have.
const DESCRIPTORS_MAX: usize = 65_536;
/// 1,024 names of a folder.
const NAMES_MAX: usize = 1024;

/// A machine. A test has one of its own, which is a folder.
#[derive(Debug, Clone)]
pub struct Host {
    root: PathBuf,
}

/// A process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Its number.
    pub pid: u32,
    /// Its program's name, as the kernel has it: 15 letters.
    pub name: String,
}

/// The file system below a folder.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Disk {
    /// Which one: the number of its device.
    pub device: u64,
    /// How large it is, in bytes.
    pub size: u64,
    /// What is left for whom is not root, in bytes: a kubelet counts that.
    pub available: u64,
    /// None where the file system does not count them.
    pub inodes: u64,
    /// How many of them are left.
    pub inodes_free: u64,
    /// It takes no writes.
    pub read_only: bool,
}

impl Host {
    /// This machine.
    pub fn here() -> Host {
        Host { root: PathBuf::from("/") }
    }

    /// One whose files lie in a folder.
    pub fn in_folder(root: &Path) -> Host {
        Host { root: root.to_owned() }
    }

    /// Where a path of the machine's is.
    pub fn at(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = path.as_ref();
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// What a file says, at most [`FILE_MAX`] of it; empty when it cannot be read.
    pub fn text(&self, path: impl AsRef<Path>) -> String {
        self.read(path).unwrap_or_default()
    }

    /// The same; `None` when it cannot be read, or is no file: a pipe would wait for its writer.
    pub fn read(&self, path: impl AsRef<Path>) -> Option<String> {
        let path = self.at(path);
        if !fs::metadata(&path).ok()?.is_file() {
            return None;
        }
        let mut bytes = Vec::new();
        File::open(path).ok()?.take(FILE_MAX).read_to_end(&mut bytes).ok()?;
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Whether something has that name.
    pub fn has(&self, path: impl AsRef<Path>) -> bool {
        self.at(path).exists()
    }

    /// Whether it is a file that somebody may start.
    pub fn has_program(&self, path: impl AsRef<Path>) -> bool {
        let there = fs::metadata(self.at(path));
        there.is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
    }

    /// The names in a folder, sorted; `None` when there is none.
    pub fn names(&self, folder: impl AsRef<Path>) -> Option<Vec<String>> {
        let entries = fs::read_dir(self.at(folder)).ok()?.filter_map(Result::ok).take(NAMES_MAX);
        let mut names: Vec<String> =
            entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort_unstable();
        Some(names)
    }

    /// The processes.
    pub fn processes(&self) -> Vec<Process> {
        let Ok(entries) = fs::read_dir(self.at("/proc")) else { return Vec::new() };
        let pids =
            entries.filter_map(Result::ok).filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        pids.take(PROCESSES_MAX)
            .filter_map(|pid: u32| {
                let name = self.read(format!("/proc/{pid}/comm"))?;
                Some(Process { pid, name: short(name.trim()) })
            })
            .collect()
    }

    /// Whether a process is of the machine itself: one of a container has processes of its own (another PID namespace). Where the kernel does not say
    /// it is.
    pub fn is_of_the_machine(&self, pid: u32) -> bool {
        let space = |pid: &str| fs::read_link(self.at(format!("/proc/{pid}/ns/pid"))).ok();
        match (space("self"), space(&pid.to_string())) {
            (Some(own), Some(other)) => own == other,
            _ => true,
        }
    }

    /// Which process has which socket, by the socket's inode. Those of other users are seen by root alone.
    pub fn socket_owners(&self, inodes: &[u64]) -> BTreeMap<u64, Process> {
        let mut owners = BTreeMap::new();
        if inodes.is_empty() {
            return owners;
        }
        // Who asks most often asks for its own: the others need not be looked at then.
        let mut processes = self.processes();
        processes.sort_by_key(|process| process.pid != std::process::id());
        for process in processes {
            if owners.len() == inodes.len() {
                break;
            }
            let Ok(entries) = fs::read_dir(self.at(format!("/proc/{}/fd", process.pid))) else { continue };
            for entry in entries.filter_map(Result::ok).take(DESCRIPTORS_MAX) {
                let Ok(target) = fs::read_link(entry.path()) else { continue };
                let inode = inode_of(target.as_os_str().as_bytes()).filter(|inode| inodes.contains(inode));
                if let Some(inode) = inode {
                    owners.entry(inode).or_insert_with(|| process.clone());
                }
            }
        }
        owners
    }

    /// The file system on which a path is, or will be; `None` when it does not say.
    pub fn disk(&self, path: &Path) -> Option<Disk> {
        let path = self.at(path);
        let there = path.ancestors().find(|path| path.exists())?;
        let disk = rustix::fs::statvfs(there).ok()?;
        Some(Disk {
            device: rustix::fs::stat(there).ok()?.st_dev,
            size: disk.f_blocks.saturating_mul(disk.f_frsize),
            available: disk.f_bavail.saturating_mul(disk.f_frsize),
            inodes: disk.f_files,
            inodes_free: disk.f_favail,
            read_only: disk.f_flag.contains(StatVfsMountFlags::RDONLY),
        })
    }
}

/// Of `socket:[4711]`.
fn inode_of(target: &[u8]) -> Option<u64> {
    let inode = target.strip_prefix(b"socket:[")?.strip_suffix(b"]")?;
    std::str::from_utf8(inode).ok()?.parse().ok()
}

/// Bytes for people: `1.5 GiB`.
pub fn bytes(number: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if number < 1024 {
        return format!("{number} B");
    }
    let mut tenths = u128::from(number) * 10 / 1024;
    let mut unit = UNITS[0];
    for larger in &UNITS[1..] {
        if tenths < 10_240 {
            break;
        }
        tenths /= 1024;
        unit = larger;
    }
    format!("{}.{} {unit}", tenths / 10, tenths % 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_is_read_below_its_root_and_nothing_waits_for_a_pipe() {
        let folder = tempfile::tempdir().unwrap();
        let host = Host::in_folder(folder.path());
        fs::create_dir_all(folder.path().join("proc/7/fd")).unwrap();
        fs::write(folder.path().join("proc/7/comm"), "mosqui\u{1b}tto\n").unwrap();
        std::os::unix::fs::symlink("socket:[4711]", folder.path().join("proc/7/fd/3")).unwrap();
        let found = Process { pid: 7, name: "mosquitto".to_owned() };
        assert_eq!(host.processes(), std::slice::from_ref(&found));
        assert_eq!(host.socket_owners(&[4711]), BTreeMap::from([(4711, found)]));
        assert!(host.socket_owners(&[4712]).is_empty());
        assert!(host.is_of_the_machine(7), "the kernel does not say");
        let space = |pid: &str, number: u32| {
            let ns = folder.path().join(format!("proc/{pid}/ns"));
            fs::create_dir_all(&ns).unwrap();
            std::os::unix::fs::symlink(format!("pid:[{number}]"), ns.join("pid")).unwrap();
        };
        space("self", 1);
        space("7", 2);
        assert!(!host.is_of_the_machine(7), "it is a container's");
        space("8", 1);
        assert!(host.is_of_the_machine(8));
        let pipe = folder.path().join("pipe");
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, 0o600.into()).unwrap();
        assert_eq!(host.read("/pipe"), None);
        assert_eq!(host.names("/proc").unwrap(), ["7", "8", "self"]);
        assert!(host.names("/nowhere").is_none());
        assert!(host.disk(Path::new("/not/yet/there")).unwrap().size > 0);
    }

    #[test]
    fn bytes_are_short() {
        assert_eq!(
            [0, 1023, 1024, 1536, 1 << 20, 3 << 29, u64::MAX].map(bytes),
            ["0 B", "1023 B", "1.0 KiB", "1.5 KiB", "1.0 MiB", "1.5 GiB", "16383.9 PiB"]
        );
    }
}
