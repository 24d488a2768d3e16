//! What /proc says of the machine and of a network namespace. Blocks.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::path::Path;
use std::time::Duration;

use mountinfo::Mount;

/// 256 KiB of a file of the kernel's.
const FILE_MAX: u64 = 256 << 10;
/// 10 ms: a tick of /proc/stat (USER_HZ is 100 on every architecture that we build for).
const TICK_NANOS: u64 = 10_000_000;
/// 64 file systems are told of.
const DISKS_MAX: usize = 64;
/// Interfaces that are not the machine's own.
const NOT_THE_MACHINES: [&str; 4] = ["lo", "veth", "docker", "nerdctl"];

/// A file system, or a part of one.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Disk {
    pub(crate) capacity: Option<u64>,
    pub(crate) available: Option<u64>,
    pub(crate) used: Option<u64>,
    pub(crate) inodes: Option<u64>,
    pub(crate) inodes_free: Option<u64>,
    pub(crate) inodes_used: Option<u64>,
}

impl Disk {
    /// A part of the file system `whole`.
    pub(crate) fn part_of(whole: Disk, used: Option<u64>, inodes_used: Option<u64>) -> Disk {
        Disk { used, inodes_used, ..whole }
    }
}

/// One network interface.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Interface {
    pub(crate) name: String,
    pub(crate) rx_bytes: u64,
    pub(crate) rx_packets: u64,
    pub(crate) rx_errors: u64,
    pub(crate) rx_dropped: u64,
    pub(crate) tx_bytes: u64,
    pub(crate) tx_packets: u64,
    pub(crate) tx_errors: u64,
    pub(crate) tx_dropped: u64,
}

/// The machine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Machine {
    pub(crate) cores: u64,
    pub(crate) physical_cores: u64,
    pub(crate) sockets: u64,
    pub(crate) memory: u64,
    pub(crate) memory_available: u64,
    pub(crate) swap: u64,
    pub(crate) swap_free: u64,
    /// Nanoseconds of one core that were worked.
    pub(crate) cpu: u64,
    /// Seconds since 1970 when it was started.
    pub(crate) booted: u64,
    pub(crate) threads: u64,
    pub(crate) threads_max: u64,
    pub(crate) machine_id: String,
    pub(crate) system_uuid: String,
    pub(crate) boot_id: String,
    pub(crate) kernel: String,
    pub(crate) os: String,
}

fn text(path: &str) -> String {
    let mut bytes = Vec::new();
    let Ok(file) = fs::File::open(path) else { return String::new() };
    drop(file.take(FILE_MAX).read_to_end(&mut bytes));
    String::from_utf8_lossy(&bytes).trim().to_owned()
}

/// Looks at the machine.
pub(crate) fn machine() -> Machine {
    let (stat, meminfo, cpuinfo) = (text("/proc/stat"), text("/proc/meminfo"), text("/proc/cpuinfo"));
    let (memory, release) = (|key: &str| kilobytes(&meminfo, key), text("/etc/os-release"));
    let (physical_cores, sockets) = topology(&cpuinfo);
    let os = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    let most = |path: &str| text(path).parse().unwrap_or(u64::MAX);
    Machine {
        cores: cores(&stat),
        physical_cores,
        sockets,
        memory: memory("MemTotal:"),
        memory_available: memory("MemAvailable:"),
        swap: memory("SwapTotal:"),
        swap_free: memory("SwapFree:"),
        cpu: worked(&stat),
        booted: stat.lines().find_map(|line| line.strip_prefix("btime ")?.parse().ok()).unwrap_or(0),
        threads: threads(&text("/proc/loadavg")),
        threads_max: most("/proc/sys/kernel/pid_max").min(most("/proc/sys/kernel/threads-max")),
        machine_id: text("/etc/machine-id"),
        system_uuid: text("/sys/class/dmi/id/product_uuid").to_lowercase(),
        boot_id: text("/proc/sys/kernel/random/boot_id"),
        kernel: text("/proc/sys/kernel/osrelease"),
        os: os.unwrap_or("Linux").trim_matches('"').to_owned(),
    }
}

fn kilobytes(meminfo: &str, key: &str) -> u64 {
    let line = meminfo.lines().find_map(|line| line.strip_prefix(key));
    let number = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    number.unwrap_or(0).saturating_mul(1024)
}

fn cores(stat: &str) -> u64 {
    let of_core = |line: &&str| {
        line.strip_prefix("cpu").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    };
    stat.lines().filter(of_core).count() as u64
}

/// Cores and sockets as the kernel numbers them; where it does not, one socket and every core.
fn topology(cpuinfo: &str) -> (u64, u64) {
    let mut cores = std::collections::BTreeSet::new();
    let mut sockets = std::collections::BTreeSet::new();
    let mut socket = "";
    for (key, value) in cpuinfo.lines().filter_map(|line| line.split_once(':')) {
        match key.trim() {
            "physical id" => {
                socket = value.trim();
                sockets.insert(socket);
            }
            "core id" => {
                cores.insert((socket, value.trim()));
            }
            _ => {}
        }
    }
    let processors = cpuinfo.lines().filter(|line| line.starts_with("processor")).count();
    let cores = if cores.is_empty() { processors } else { cores.len() };
    (cores as u64, sockets.len().max(1) as u64)
}

/// How long a process has worked, by its `/proc/PID/stat`: the 14th and 15th words, of which the name in brackets may hold anything.
pub(crate) fn worked_by(stat: &str) -> Duration {
    let words = stat.rsplit_once(')').map_or("", |(_, words)| words);
    let ticks = words.split_whitespace().skip(11).take(2).filter_map(|word| word.parse::<u64>().ok());
    Duration::from_nanos(ticks.fold(0, u64::saturating_add).saturating_mul(TICK_NANOS))
}

/// user, nice, system, irq, softirq and steal of the first line; neither idle nor waiting, and guests are in user.
fn worked(stat: &str) -> u64 {
    let line = stat.lines().next().unwrap_or_default();
    let ticks: Vec<u64> = line.split_whitespace().skip(1).map(|word| word.parse().unwrap_or(0)).collect();
    let worked: u64 = [0, 1, 2, 5, 6, 7].iter().filter_map(|at| ticks.get(*at)).sum();
    worked.saturating_mul(TICK_NANOS)
}

/// `/proc/loadavg`'s fourth word is running/all threads.
fn threads(loadavg: &str) -> u64 {
    let word = loadavg.split_whitespace().nth(3).and_then(|word| word.split_once('/'));
    word.and_then(|(_, all)| all.parse().ok()).unwrap_or(0)
}

/// The interfaces in the network namespace of a process.
pub(crate) fn network_of(pid: u32) -> Vec<Interface> {
    interfaces(&text(&format!("/proc/{pid}/net/dev"))).into_iter().filter(|own| own.name != "lo").collect()
}

/// The machine's own interfaces.
pub(crate) fn network_of_machine() -> Vec<Interface> {
    let of_machine = |own: &Interface| !NOT_THE_MACHINES.iter().any(|other| own.name.starts_with(other));
    interfaces(&text("/proc/1/net/dev")).into_iter().filter(of_machine).collect()
}

fn interfaces(dev: &str) -> Vec<Interface> {
    let of_line = |line: &str| {
        let (name, numbers) = line.split_once(':')?;
        let numbers: Vec<u64> = numbers.split_whitespace().map(|word| word.parse().unwrap_or(0)).collect();
        let at = |index: usize| numbers.get(index).copied();
        Some(Interface {
            name: name.trim().to_owned(),
            rx_bytes: at(0)?,
            rx_packets: at(1)?,
            rx_errors: at(2)?,
            rx_dropped: at(3)?,
            tx_bytes: at(8)?,
            tx_packets: at(9)?,
            tx_errors: at(10)?,
            tx_dropped: at(11)?,
        })
    };
    dev.lines().filter_map(of_line).collect()
}

/// When this process began, since 1970; nothing where the kernel does not say.
pub(crate) fn process_started() -> Duration {
    let booted = text("/proc/stat").lines().find_map(|line| line.strip_prefix("btime ")?.parse().ok());
    started(booted.unwrap_or(0), &text("/proc/self/stat"))
}

/// `booted`: seconds since 1970. The name in `/proc/PID/stat` may hold anything, so the words are counted behind it; the 22nd of all
/// are the ticks from boot to the begin.
fn started(booted: u64, stat: &str) -> Duration {
    let words = stat.rsplit_once(')').map_or("", |(_, words)| words);
    let ticks: u64 = words.split_whitespace().nth(19).and_then(|word| word.parse().ok()).unwrap_or(0);
    Duration::from_secs(booted) + Duration::from_nanos(ticks.saturating_mul(TICK_NANOS))
}

/// The file systems of the machine that lie on devices: the device, and what is on it.
pub(crate) fn disks(mounts: &[Mount]) -> Vec<(String, Disk)> {
    let mut found: BTreeMap<&str, &Path> = BTreeMap::new();
    for mount in mounts {
        let Some(device) = mount.source.to_str().filter(|source| source.starts_with("/dev/")) else {
            continue;
        };
        // The first one is the oldest: another shows a part of the same.
        if found.len() < DISKS_MAX {
            found.entry(device).or_insert(mount.point.as_path());
        }
    }
    found.into_iter().map(|(device, mount)| (device.to_owned(), disk_of(mount))).collect()
}

/// The file systems of this process.
pub(crate) fn disks_here() -> Vec<(String, Disk)> {
    disks(&mountinfo::here().unwrap_or_default())
}

/// The file system that a path is on.
pub(crate) fn disk_of(path: &Path) -> Disk {
    let Ok(disk) = rustix::fs::statvfs(path) else { return Disk::default() };
    let bytes = |blocks: u64| Some(blocks.saturating_mul(disk.f_frsize));
    Disk {
        capacity: bytes(disk.f_blocks),
        available: bytes(disk.f_bavail),
        used: bytes(disk.f_blocks.saturating_sub(disk.f_bfree)),
        inodes: Some(disk.f_files),
        inodes_free: Some(disk.f_ffree),
        inodes_used: Some(disk.f_files.saturating_sub(disk.f_ffree)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_is_read() {
        let machine = machine();
        assert!(machine.cores > 0 && machine.cpu > 0 && machine.memory > machine.memory_available);
        assert!(machine.booted > 0 && machine.threads > 0 && machine.threads_max > 0);
        assert!(disk_of(Path::new("/")).capacity > Some(0));
        assert!(network_of(std::process::id()).iter().all(|own| own.name != "lo"));
    }

    #[test]
    fn lines_of_the_kernel_are_understood() {
        let stat = "cpu  1 2 4 1000 1000 8 16 32 64 0\ncpu0 1 2\ncpu1 1 2\nbtime 7\n";
        assert_eq!((worked(stat), cores(stat)), (63 * TICK_NANOS, 2));
        let dev =
            "Inter-|   Receive\n face |bytes packets\n  eth0: 1 2 3 4 0 0 0 0 5 6 7 8 0 0 0 0\n lo: 1\n";
        let expected = Interface {
            name: "eth0".into(),
            rx_bytes: 1,
            rx_packets: 2,
            rx_errors: 3,
            rx_dropped: 4,
            tx_bytes: 5,
            tx_packets: 6,
            tx_errors: 7,
            tx_dropped: 8,
        };
        assert_eq!(interfaces(dev), [expected]);
        let info =
            "processor: 0\nphysical id\t: 0\ncore id\t: 0\nprocessor: 1\nphysical id\t: 0\ncore id\t: 0\n";
        assert_eq!(topology(info), (1, 1));
        assert_eq!(topology("processor: 0\nprocessor: 1\n"), (2, 1));
        assert_eq!(threads("0.1 0.2 0.3 2/345 99"), 345);
    }

    #[test]
    fn a_process_began_so_many_ticks_after_boot() {
        let stat = "7 (a ) b) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 250 20 21";
        assert_eq!(started(100, stat), Duration::from_millis(102_500));
        assert_eq!(started(100, "odd"), Duration::from_secs(100));
        assert_eq!(worked_by(stat), Duration::from_millis(230));
        let own = process_started();
        assert!(own > Duration::from_secs(1_000_000_000), "{own:?}");
    }

    #[test]
    fn each_device_is_told_once() {
        let table = b"27 0 254:0 / / rw,relatime - ext4 /dev/vda rw\n\
                         22 27 0:21 / /proc rw - proc proc rw\n\
                         40 27 254:0 /var /mnt rw master:1 - ext4 /dev/vda rw\n\
                         41 27 8:1 / /\xff\xfe rw - ext4 /dev/sda1 rw\n";
        let found = disks(&mountinfo::parse(table));
        let names: Vec<&str> = found.iter().map(|(device, _)| device.as_str()).collect();
        assert_eq!(names, ["/dev/sda1", "/dev/vda"], "whatever the name of a mount point is");
        assert_eq!(found[1].1.capacity, disk_of(Path::new("/")).capacity);
    }
}
