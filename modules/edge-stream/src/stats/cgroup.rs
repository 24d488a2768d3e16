//! What the kernel counts of one cgroup, versions 1 and 2. Nobody but root writes there, and nobody can put a link. Blocks.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

/// 64 KiB of a file of the kernel's.
const FILE_MAX: u64 = 64 << 10;
/// What version 1 says where there is no limit.
const UNLIMITED: u64 = 1 << 62;

/// The pressure of one resource: microseconds in which some, and all, waited.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Pressure {
    pub(crate) some: u64,
    pub(crate) full: u64,
}

/// Reads and writes of one block device.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct BlockDevice {
    pub(crate) major: u32,
    pub(crate) minor: u32,
    pub(crate) read_bytes: u64,
    pub(crate) written_bytes: u64,
    pub(crate) reads: u64,
    pub(crate) writes: u64,
}

/// One cgroup. What the kernel does not count is `None`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Cgroup {
    /// Nanoseconds.
    pub(crate) cpu: Option<u64>,
    pub(crate) cpu_user: Option<u64>,
    pub(crate) cpu_system: Option<u64>,
    pub(crate) periods: Option<u64>,
    pub(crate) throttled_periods: Option<u64>,
    pub(crate) throttled: Option<u64>,
    pub(crate) shares: Option<u64>,
    /// Microseconds.
    pub(crate) quota: Option<u64>,
    pub(crate) period: Option<u64>,
    /// Bytes from here on.
    pub(crate) memory: Option<u64>,
    pub(crate) memory_max: Option<u64>,
    pub(crate) memory_limit: Option<u64>,
    pub(crate) swap_limit: Option<u64>,
    pub(crate) memory_reservation: Option<u64>,
    pub(crate) kernel_memory: Option<u64>,
    pub(crate) rss: Option<u64>,
    pub(crate) cache: Option<u64>,
    pub(crate) mapped: Option<u64>,
    pub(crate) swap: Option<u64>,
    pub(crate) active_file: Option<u64>,
    pub(crate) inactive_file: Option<u64>,
    /// Counts from here on.
    pub(crate) failures: Option<u64>,
    pub(crate) page_faults: Option<u64>,
    pub(crate) major_page_faults: Option<u64>,
    pub(crate) oom_kills: Option<u64>,
    pub(crate) threads: Option<u64>,
    pub(crate) threads_max: Option<u64>,
    pub(crate) block_devices: Vec<BlockDevice>,
    pub(crate) cpu_pressure: Option<Pressure>,
    pub(crate) memory_pressure: Option<Pressure>,
    pub(crate) io_pressure: Option<Pressure>,
}

impl Cgroup {
    /// Bytes that could not be taken back without paging: usage without what of files was not used lately.
    pub(crate) fn working_set(&self) -> Option<u64> {
        self.memory.map(|usage| usage.saturating_sub(self.inactive_file.unwrap_or(0)))
    }
}

/// The tree of cgroups.
#[derive(Debug, Clone)]
pub(crate) struct Tree {
    root: PathBuf,
    is_v2: bool,
}

impl Tree {
    pub(crate) fn at(root: &Path) -> Tree {
        Tree { root: root.to_owned(), is_v2: root.join("cgroup.controllers").exists() }
    }

    fn folder(&self, controller: &str, path: &str) -> PathBuf {
        let path = path.trim_start_matches('/');
        if self.is_v2 { self.root.join(path) } else { self.root.join(controller).join(path) }
    }

    pub(crate) fn has(&self, path: &str) -> bool {
        self.folder("memory", path).is_dir()
    }

    /// A process in the cgroup.
    pub(crate) fn process(&self, path: &str) -> Option<u32> {
        text(&self.folder("memory", path).join("cgroup.procs"))?.lines().next()?.parse().ok()
    }

    /// The processes in the cgroup itself.
    pub(crate) fn processes(&self, path: &str) -> Vec<u32> {
        let text = text(&self.folder("memory", path).join("cgroup.procs")).unwrap_or_default();
        text.lines().filter_map(|line| line.parse().ok()).collect()
    }

    /// Reads what is counted of a cgroup; `None`: there is none.
    pub(crate) fn read(&self, path: &str) -> Option<Cgroup> {
        self.has(path).then(|| if self.is_v2 { self.v2(path) } else { self.v1(path) })
    }

    fn v2(&self, path: &str) -> Cgroup {
        let file = |name: &str| text(&self.folder("", path).join(name));
        let (cpu, memory) = (Keyed::of(file("cpu.stat")), Keyed::of(file("memory.stat")));
        let events = Keyed::of(file("memory.events"));
        let micros = |key: &str| cpu.get(key).map(|micros| micros.saturating_mul(1000));
        let cpu_max = file("cpu.max").unwrap_or_default();
        let mut cpu_max = cpu_max.split_whitespace();
        let (quota, period) = (cpu_max.next(), cpu_max.next());
        let both = memory.get("anon").zip(memory.get("file")).map(|(anon, file)| anon.saturating_add(file));
        Cgroup {
            cpu: micros("usage_usec"),
            cpu_user: micros("user_usec"),
            cpu_system: micros("system_usec"),
            periods: cpu.get("nr_periods"),
            throttled_periods: cpu.get("nr_throttled"),
            throttled: micros("throttled_usec"),
            // The kernel's documented mapping of a weight of 1..10000 to 2..262144 shares.
            shares: number(file("cpu.weight")).map(|weight| 2 + weight.saturating_sub(1) * 262_142 / 9999),
            quota: quota.and_then(|quota| quota.parse().ok()),
            period: period.and_then(|period| period.parse().ok()),
            // The root has no memory.current.
            memory: number(file("memory.current")).or(both),
            memory_max: number(file("memory.peak")),
            memory_limit: number(file("memory.max")),
            swap_limit: number(file("memory.swap.max")),
            memory_reservation: number(file("memory.low")),
            kernel_memory: memory.get("kernel"),
            rss: memory.get("anon"),
            cache: memory.get("file"),
            mapped: memory.get("file_mapped"),
            swap: number(file("memory.swap.current")),
            active_file: memory.get("active_file"),
            inactive_file: memory.get("inactive_file"),
            failures: events.get("max"),
            page_faults: memory.get("pgfault"),
            major_page_faults: memory.get("pgmajfault"),
            oom_kills: events.get("oom_kill"),
            threads: number(file("pids.current")),
            threads_max: number(file("pids.max")),
            block_devices: block_devices_v2(&file("io.stat").unwrap_or_default()),
            cpu_pressure: file("cpu.pressure").map(|text| pressure(&text)),
            memory_pressure: file("memory.pressure").map(|text| pressure(&text)),
            io_pressure: file("io.pressure").map(|text| pressure(&text)),
        }
    }

    fn v1(&self, path: &str) -> Cgroup {
        let file = |controller: &str, name: &str| text(&self.folder(controller, path).join(name));
        let (cpu, memory) = (Keyed::of(file("cpu", "cpu.stat")), Keyed::of(file("memory", "memory.stat")));
        let total = |key: &str| memory.get(&format!("total_{key}")).or_else(|| memory.get(key));
        let limit = |name: &str| number(file("memory", name)).filter(|limit| *limit < UNLIMITED);
        let quota = file("cpu", "cpu.cfs_quota_us").and_then(|text| text.trim().parse::<i64>().ok());
        let usage = number(file("memory", "memory.usage_in_bytes"));
        let with_swap = number(file("memory", "memory.memsw.usage_in_bytes"));
        let ticks = Keyed::of(file("cpuacct", "cpuacct.stat"));
        let nanos = |key: &str| ticks.get(key).map(|ticks| ticks.saturating_mul(10_000_000));
        Cgroup {
            cpu: number(file("cpuacct", "cpuacct.usage")),
            cpu_user: number(file("cpuacct", "cpuacct.usage_user")).or_else(|| nanos("user")),
            cpu_system: number(file("cpuacct", "cpuacct.usage_sys")).or_else(|| nanos("system")),
            periods: cpu.get("nr_periods"),
            throttled_periods: cpu.get("nr_throttled"),
            throttled: cpu.get("throttled_time"),
            shares: number(file("cpu", "cpu.shares")),
            quota: quota.and_then(|quota| u64::try_from(quota).ok()),
            period: number(file("cpu", "cpu.cfs_period_us")),
            memory: usage,
            memory_max: number(file("memory", "memory.max_usage_in_bytes")),
            memory_limit: limit("memory.limit_in_bytes"),
            swap_limit: limit("memory.memsw.limit_in_bytes"),
            memory_reservation: limit("memory.soft_limit_in_bytes"),
            kernel_memory: number(file("memory", "memory.kmem.usage_in_bytes")),
            rss: total("rss"),
            cache: total("cache"),
            mapped: total("mapped_file"),
            swap: total("swap").or_else(|| with_swap.zip(usage).map(|(both, own)| both.saturating_sub(own))),
            active_file: total("active_file"),
            inactive_file: total("inactive_file"),
            failures: number(file("memory", "memory.failcnt")),
            page_faults: total("pgfault"),
            major_page_faults: total("pgmajfault"),
            oom_kills: Keyed::of(file("memory", "memory.oom_control")).get("oom_kill"),
            threads: number(file("pids", "pids.current")),
            threads_max: number(file("pids", "pids.max")),
            block_devices: block_devices_v1(
                &file("blkio", "blkio.throttle.io_service_bytes").unwrap_or_default(),
                &file("blkio", "blkio.throttle.io_serviced").unwrap_or_default(),
            ),
            ..Cgroup::default()
        }
    }
}

/// Lines of `key number`.
struct Keyed(String);

impl Keyed {
    fn of(text: Option<String>) -> Keyed {
        Keyed(text.unwrap_or_default())
    }

    fn get(&self, key: &str) -> Option<u64> {
        let mut lines = self.0.lines();
        lines.find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
    }
}

fn text(path: &Path) -> Option<String> {
    let mut bytes = Vec::new();
    fs::File::open(path).ok()?.take(FILE_MAX).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// A file with one number; `max` is none.
fn number(text: Option<String>) -> Option<u64> {
    text?.trim().parse().ok()
}

fn pressure(text: &str) -> Pressure {
    let total = |kind: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(kind))?;
        line.split_whitespace().find_map(|word| word.strip_prefix("total=")?.parse().ok())
    };
    Pressure { some: total("some ").unwrap_or(0), full: total("full ").unwrap_or(0) }
}

fn device(name: &str) -> Option<BlockDevice> {
    let (major, minor) = name.split_once(':')?;
    Some(BlockDevice { major: major.parse().ok()?, minor: minor.parse().ok()?, ..BlockDevice::default() })
}

fn block_devices_v2(text: &str) -> Vec<BlockDevice> {
    let of_line = |line: &str| {
        let mut words = line.split_whitespace();
        let mut found = device(words.next()?)?;
        for (key, value) in words.filter_map(|word| word.split_once('=')) {
            let value = value.parse().unwrap_or(0);
            match key {
                "rbytes" => found.read_bytes = value,
                "wbytes" => found.written_bytes = value,
                "rios" => found.reads = value,
                "wios" => found.writes = value,
                _ => {}
            }
        }
        Some(found)
    };
    text.lines().filter_map(of_line).collect()
}

fn block_devices_v1(bytes: &str, counts: &str) -> Vec<BlockDevice> {
    let mut found: Vec<BlockDevice> = Vec::new();
    for (text, is_bytes) in [(bytes, true), (counts, false)] {
        for line in text.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            let &[name, operation, value] = words.as_slice() else { continue };
            let (Some(named), Ok(value)) = (device(name), value.parse()) else { continue };
            let known = found.iter().position(|own| (own.major, own.minor) == (named.major, named.minor));
            let at = known.unwrap_or(found.len());
            if known.is_none() {
                found.push(named);
            }
            let Some(own) = found.get_mut(at) else { continue };
            match (operation, is_bytes) {
                ("Read", true) => own.read_bytes = value,
                ("Write", true) => own.written_bytes = value,
                ("Read", false) => own.reads = value,
                ("Write", false) => own.writes = value,
                _ => {}
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(root: &Path, files: &[(&str, &str)]) {
        for (name, text) in files {
            let path = root.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
    }

    #[test]
    fn version_two_is_read() {
        let dir = tempfile::tempdir().unwrap();
        put(
            dir.path(),
            &[
                ("cgroup.controllers", "cpu memory"),
                (
                    "kubepods/podx/cpu.stat",
                    "usage_usec 5\nuser_usec 3\nsystem_usec 2\nnr_periods 7\nthrottled_usec 9\n",
                ),
                ("kubepods/podx/cpu.max", "50000 100000\n"),
                ("kubepods/podx/cpu.weight", "1\n"),
                ("kubepods/podx/memory.current", "1000\n"),
                ("kubepods/podx/memory.max", "max\n"),
                (
                    "kubepods/podx/memory.stat",
                    "anon 100\nfile 800\nfile_mapped 8\ninactive_file 300\npgfault 4\n",
                ),
                ("kubepods/podx/io.stat", "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0\n"),
                (
                    "kubepods/podx/cpu.pressure",
                    "some avg10=0.00 avg60=0.00 avg300=0.00 total=11\nfull avg10=0 total=5\n",
                ),
                ("kubepods/podx/cgroup.procs", "42\n43\n"),
                ("memory.stat", "anon 10\nfile 20\n"),
            ],
        );
        let tree = Tree::at(dir.path());
        let pod = tree.read("/kubepods/podx").unwrap();
        assert_eq!((pod.cpu, pod.cpu_user, pod.throttled), (Some(5000), Some(3000), Some(9000)));
        assert_eq!((pod.quota, pod.period, pod.shares), (Some(50_000), Some(100_000), Some(2)));
        assert_eq!(
            (pod.memory, pod.working_set(), pod.rss, pod.memory_limit),
            (Some(1000), Some(700), Some(100), None)
        );
        let device = BlockDevice { major: 8, minor: 0, read_bytes: 1, written_bytes: 2, reads: 3, writes: 4 };
        assert_eq!(
            (pod.block_devices.as_slice(), pod.cpu_pressure),
            ([device].as_slice(), Some(Pressure { some: 11, full: 5 }))
        );
        assert_eq!(tree.process("kubepods/podx"), Some(42));
        assert_eq!(tree.read("/").unwrap().memory, Some(30), "the root has no memory.current");
        assert_eq!(tree.read("/kubepods/pody"), None);
    }

    #[test]
    fn version_one_is_read() {
        let dir = tempfile::tempdir().unwrap();
        put(
            dir.path(),
            &[
                ("cpuacct/kubepods/podx/cpuacct.usage", "77\n"),
                ("cpu/kubepods/podx/cpu.cfs_quota_us", "-1\n"),
                ("cpu/kubepods/podx/cpu.stat", "nr_periods 1\nnr_throttled 2\nthrottled_time 3\n"),
                ("memory/kubepods/podx/memory.usage_in_bytes", "900\n"),
                ("memory/kubepods/podx/memory.limit_in_bytes", "9223372036854771712\n"),
                ("memory/kubepods/podx/memory.stat", "rss 1\ntotal_rss 50\ntotal_inactive_file 400\n"),
                (
                    "blkio/kubepods/podx/blkio.throttle.io_service_bytes",
                    "8:0 Read 5\n8:0 Write 6\n8:0 Total 11\nTotal 11\n",
                ),
                ("blkio/kubepods/podx/blkio.throttle.io_serviced", "8:0 Read 1\n8:0 Write 2\n"),
            ],
        );
        let pod = Tree::at(dir.path()).read("/kubepods/podx").unwrap();
        assert_eq!((pod.cpu, pod.quota, pod.throttled), (Some(77), None, Some(3)));
        assert_eq!((pod.working_set(), pod.rss, pod.memory_limit), (Some(500), Some(50), None));
        let device = BlockDevice { major: 8, minor: 0, read_bytes: 5, written_bytes: 6, reads: 1, writes: 2 };
        assert_eq!(pod.block_devices, [device]);
    }
}
