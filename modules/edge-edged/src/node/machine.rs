//! What the machine says about itself. Blocks for a moment.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::net::UdpSocket;
use std::path::Path;

use crate::runtime::huge_pages;
use crate::runtime::swap::{self, SwapControl};
use crate::settings::CGROUPS;

/// More of a file of the kernel's is not read.
const FILE_MAX: u64 = 256 << 10;

/// The machine's unchanging facts and how it fares.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Machine {
    pub(crate) cpus: u64,
    pub(crate) memory: u64,
    pub(crate) memory_available: u64,
    pub(crate) disk: u64,
    pub(crate) disk_available: u64,
    pub(crate) inodes: u64,
    pub(crate) inodes_free: u64,
    pub(crate) pids_max: u64,
    pub(crate) pids: u64,
    pub(crate) kernel: String,
    pub(crate) os_image: String,
    pub(crate) machine_id: String,
    pub(crate) boot_id: String,
    pub(crate) system_uuid: String,
    pub(crate) ips: Vec<String>,
    /// Bytes of huge pages by the size of one, in bytes.
    pub(crate) huge_pages: BTreeMap<u64, u64>,
    /// Bytes of swap.
    pub(crate) swap: u64,
    /// How that can be bounded.
    pub(crate) swap_control: SwapControl,
    /// Whether the kernel's cgroups are mounted here.
    pub(crate) has_cgroups: bool,
}

/// Where a machine's own number is, in the order in which a kubelet looks (cadvisor's `GetSystemUUID`): small boards have no DMI.
const SYSTEM_UUIDS: [&str; 4] = [
    "/sys/class/dmi/id/product_uuid",
    "/proc/device-tree/system-id",
    "/proc/device-tree/vm,uuid",
    "/etc/machine-id",
];

/// The first of these files that says something.
fn first_of(paths: &[&str]) -> String {
    paths.iter().map(|path| text(path)).find(|text| !text.is_empty()).unwrap_or_default()
}

fn text(path: &str) -> String {
    let mut bytes = Vec::new();
    let Ok(file) = fs::File::open(path) else { return String::new() };
    drop(file.take(FILE_MAX).read_to_end(&mut bytes));
    String::from_utf8_lossy(&bytes).trim().to_owned()
}

/// Looks at the machine. `root` is the folder whose disk counts; `ips` the configured addresses.
pub(crate) fn look(root: &Path, ips: &[String]) -> Machine {
    let load = load();
    let stat = text("/proc/stat");
    let cpus = stat.lines().filter(|line| {
        line.strip_prefix("cpu").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    });
    let release = text("/etc/os-release");
    let pretty = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    let mut machine = Machine {
        cpus: u64::try_from(cpus.count()).unwrap_or(1).max(1),
        memory: load.memory,
        memory_available: load.memory_available,
        pids_max: load.pids_max,
        pids: load.pids,
        kernel: text("/proc/sys/kernel/osrelease"),
        os_image: pretty.unwrap_or("Linux").trim_matches('"').to_owned(),
        machine_id: first_of(&["/etc/machine-id", "/var/lib/dbus/machine-id"]),
        boot_id: text("/proc/sys/kernel/random/boot_id"),
        system_uuid: first_of(&SYSTEM_UUIDS).trim_end_matches('\0').to_lowercase(),
        ips: if ips.is_empty() { route_address().into_iter().collect() } else { ips.to_vec() },
        huge_pages: huge_pages::of_machine(Path::new("/sys/kernel/mm/hugepages")),
        swap: kilobytes(&text("/proc/meminfo"), "SwapTotal:"),
        swap_control: swap::control(Path::new(CGROUPS), &text("/proc/self/cgroup")),
        has_cgroups: has_cgroups(Path::new(CGROUPS)),
        ..Machine::default()
    };
    let disk = disk_of(root);
    machine.disk = disk.size;
    machine.disk_available = disk.available;
    machine.inodes = disk.inodes;
    machine.inodes_free = disk.inodes_free;
    machine
}

/// Whether there is a hierarchy below `root`, of either version.
fn has_cgroups(root: &Path) -> bool {
    ["cgroup.controllers", "memory", "cpu"].iter().any(|name| root.join(name).exists())
}

/// Memory and processes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Load {
    pub(crate) memory: u64,
    /// All but the working set, as the kubelet counts it.
    pub(crate) memory_available: u64,
    pub(crate) pids_max: u64,
    pub(crate) pids: u64,
}

/// Looks at them.
pub(crate) fn load() -> Load {
    let most = |path: &str| text(path).parse::<u64>().ok();
    let (pid_max, threads_max) = (most("/proc/sys/kernel/pid_max"), most("/proc/sys/kernel/threads-max"));
    let (memory, memory_available) = memory(&text("/proc/meminfo"));
    Load {
        memory,
        memory_available,
        pids_max: pid_max.into_iter().chain(threads_max).min().unwrap_or(0),
        pids: threads(&text("/proc/loadavg")),
    }
}

/// What `/proc/meminfo` says of a key, in bytes.
fn kilobytes(meminfo: &str, key: &str) -> u64 {
    let line = meminfo.lines().find_map(|line| line.strip_prefix(key));
    let number = line.and_then(|line| line.split_whitespace().next()).and_then(|n| n.parse::<u64>().ok());
    number.unwrap_or(0).saturating_mul(1024)
}

/// All memory, and what of it is not in the working set: that is the memory of processes and the pages of files, as the root's
/// cgroup counts them, without those that have not been used lately.
fn memory(meminfo: &str) -> (u64, u64) {
    let kilobytes = |key: &str| kilobytes(meminfo, key);
    let files = ["Cached:", "Buffers:", "SwapCached:"].iter().map(|key| kilobytes(key)).sum::<u64>();
    let used = kilobytes("AnonPages:").saturating_add(files).saturating_sub(kilobytes("Inactive(file):"));
    let all = kilobytes("MemTotal:");
    (all, all.saturating_sub(used))
}

/// A file system.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Disk {
    /// Which one: the number of its device.
    pub(crate) device: u64,
    pub(crate) size: u64,
    pub(crate) available: u64,
    pub(crate) inodes: u64,
    pub(crate) inodes_free: u64,
}

/// The file system on which a path is, or will be.
pub(crate) fn disk_of(path: &Path) -> Disk {
    let mut at = path;
    while !at.exists() {
        let Some(parent) = at.parent() else { break };
        at = parent;
    }
    let Ok(disk) = rustix::fs::statvfs(at) else { return Disk::default() };
    Disk {
        device: rustix::fs::stat(at).map(|stat| stat.st_dev).unwrap_or_default(),
        size: disk.f_blocks.saturating_mul(disk.f_frsize),
        available: disk.f_bavail.saturating_mul(disk.f_frsize),
        inodes: disk.f_files,
        inodes_free: disk.f_favail,
    }
}

/// `/proc/loadavg`'s fourth word is running/all threads.
fn threads(loadavg: &str) -> u64 {
    let word = loadavg.split_whitespace().nth(3).and_then(|word| word.split_once('/'));
    word.and_then(|(_, all)| all.parse().ok()).unwrap_or(0)
}

/// The address from which the outside would be reached. Nothing is sent.
fn route_address() -> Option<String> {
    // A documentation address: only the routing table is asked.
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    let ip = socket.local_addr().ok()?.ip();
    (!ip.is_unspecified()).then(|| ip.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_knows_itself() {
        let machine = look(Path::new("/nowhere/yet"), &["192.0.2.7".to_owned()]);
        assert!(machine.cpus > 0 && machine.memory > 0 && machine.disk > 0);
        assert!(!machine.kernel.is_empty() && !machine.boot_id.is_empty());
        assert_eq!(machine.ips, ["192.0.2.7"]);
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str| dir.path().join(name).to_string_lossy().into_owned();
        fs::write(file("empty"), "\n").unwrap();
        fs::write(file("id"), "0a1b\n").unwrap();
        assert_eq!(first_of(&[&file("none"), &file("empty"), &file("id")]), "0a1b");
        assert_eq!(threads("0.1 0.2 0.3 2/345 99"), 345);
        let meminfo = "MemTotal: 100 kB\nMemFree: 1 kB\nBuffers: 5 kB\nCached: 40 kB\nAnonPages: 30 kB\nInactive(file): 20 kB\n";
        assert_eq!(memory(meminfo), (100 << 10, 45 << 10));
        assert!(machine.memory_available > 0 && machine.memory_available < machine.memory);
    }

    #[test]
    fn cgroups_of_either_version_are_seen() {
        let dir = tempfile::tempdir().unwrap();
        assert!(!has_cgroups(dir.path()) && !has_cgroups(&dir.path().join("none")));
        for shown in ["cgroup.controllers", "memory"] {
            fs::write(dir.path().join(shown), "").unwrap();
            assert!(has_cgroups(dir.path()), "{shown}");
            fs::remove_file(dir.path().join(shown)).unwrap();
        }
    }
}
