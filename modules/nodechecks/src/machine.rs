//! What the machine has: processor, memory, cgroups, disks, processes, the kernel's parts, names of programs. The verdicts are pure.

use std::path::{Path, PathBuf};

use config::edge::EdgeCore;

use crate::cni;
use crate::finding::Finding;
use crate::host::{Disk, Host, bytes};

/// 1, as KubeEdge's `keadm debug check` has it.
const CORES_MIN: usize = 1;
/// 256 MiB of memory in all, and 128 MiB that are left: KubeEdge's.
const MEMORY_MIN: u64 = 256 << 20;
const MEMORY_LEFT_MIN: u64 = 128 << 20;
/// 1 GiB of a disk in all, and 512 MiB that are left: KubeEdge's.
const DISK_MIN: u64 = 1 << 30;
const DISK_LEFT_MIN: u64 = 512 << 20;
/// Above 90 percent of memory, of a disk or of the processors it is said. KubeEdge's.
const USED_PERCENT_MAX: u64 = 90;
/// 5 percent of the processes and of the inodes that a kubelet wants left.
const LEFT_PERCENT_MIN: u64 = 5;
/// What releases are built for.
const ARCHITECTURES: [&str; 2] = ["x86_64", "aarch64"];
/// Where the kernel's cgroups are mounted.
const CGROUPS: &str = "/sys/fs/cgroup";
/// Where containerd has its images.
const IMAGES: &str = "/var/lib/containerd";
/// Where programs are looked for: a network plugin is started with no other path.
const PROGRAMS: [&str; 6] = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// So many files of the network's configuration are read.
const CNI_FILES_MAX: usize = 16;
/// What stands in one whose plugins start iptables.
const START_IPTABLES: [&str; 3] = ["\"ipMasq\"", "\"portmap\"", "\"firewall\""];

/// Of 100.
fn percent(part: u64, of: u64) -> u64 {
    u64::try_from(u128::from(part) * 100 / u128::from(of.max(1))).unwrap_or(100)
}

/// Whether a release is made for it.
pub fn architecture(name: &str) -> Finding {
    const CHECK: &str = "Architecture";
    if ARCHITECTURES.contains(&name) {
        return Finding::passed(CHECK, name);
    }
    Finding::warned(
        CHECK,
        format!(
            "releases are made for x86_64 and aarch64, and this is {name}: images for another one do not run here"
        ),
    )
}

/// Whether all can be looked at.
pub fn privileges(is_root: bool) -> Finding {
    const CHECK: &str = "Privileges";
    if is_root {
        return Finding::passed(CHECK, "root");
    }
    Finding::warned(
        CHECK,
        "this is not root: the runtime's socket, the node's key, its store and who has a port are for root alone; run it as root (sudo)",
    )
}

/// How busy the processors were between two readings of `/proc/stat`, in percent; `None`: they do not say.
fn busy(before: &str, after: &str) -> Option<u64> {
    let times = |stat: &str| -> Option<(u64, u64)> {
        let line = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
        let all: Vec<u64> = line.split_whitespace().take(8).filter_map(|word| word.parse().ok()).collect();
        // Idle, and waiting for a disk.
        Some((all.iter().sum(), all.get(3)?.saturating_add(*all.get(4)?)))
    };
    let ((all_before, idle_before), (all, idle)) = (times(before)?, times(after)?);
    let all = all.checked_sub(all_before).filter(|all| *all > 0)?;
    Some(100_u64.saturating_sub(percent(idle.saturating_sub(idle_before).min(all), all)))
}

/// Processors, and how busy they are.
pub fn cpu(before: &str, after: &str) -> Finding {
    const CHECK: &str = "Cpu";
    let is_core = |line: &&str| {
        line.strip_prefix("cpu").is_some_and(|rest| rest.starts_with(|first: char| first.is_ascii_digit()))
    };
    let cores = after.lines().filter(is_core).count();
    if cores < CORES_MIN {
        return Finding::failed(CHECK, "/proc/stat names no processor: is /proc mounted?");
    }
    match busy(before, after) {
        Some(busy) if busy > USED_PERCENT_MAX => Finding::warned(
            CHECK,
            format!(
                "{cores} cores, {busy} % busy: `top` shows what with; a node that has no time is slow to report"
            ),
        ),
        Some(busy) => Finding::passed(CHECK, format!("{cores} cores, {busy} % busy")),
        None => Finding::passed(CHECK, format!("{cores} cores")),
    }
}

/// Memory, by `/proc/meminfo`.
pub fn memory(meminfo: &str) -> Finding {
    const CHECK: &str = "Memory";
    let of = |key: &str| {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(key));
        let number = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        number.unwrap_or(0).saturating_mul(1024)
    };
    let (all, left) = (of("MemTotal:"), of("MemAvailable:"));
    let says = format!("{} of {} are left", bytes(left), bytes(all));
    if all < MEMORY_MIN {
        let least = bytes(MEMORY_MIN);
        return Finding::failed(CHECK, format!("{says}: a node needs {least} in all"));
    }
    if left < MEMORY_LEFT_MIN {
        let least = bytes(MEMORY_LEFT_MIN);
        return Finding::failed(
            CHECK,
            format!("{says}, less than {least}: end what is not needed (`top -o %MEM`)"),
        );
    }
    if percent(all - left.min(all), all) > USED_PERCENT_MAX {
        return Finding::warned(
            CHECK,
            format!("{says}: pods are evicted when there is no more (MemoryPressure)"),
        );
    }
    Finding::passed(CHECK, says)
}

/// What is known of the kernel's cgroups.
#[derive(Debug, Clone, Default)]
pub struct Cgroups {
    /// `cgroup.controllers` of version 2.
    unified: Option<String>,
    /// `/proc/cgroups`, which names those of version 1, and of the mounted ones the names.
    version1: String,
    mounted: Vec<String>,
}

impl Cgroups {
    /// Those of a machine.
    pub fn of(host: &Host) -> Cgroups {
        Cgroups {
            unified: host.read(format!("{CGROUPS}/cgroup.controllers")),
            version1: host.text("/proc/cgroups"),
            mounted: host.names(CGROUPS).unwrap_or_default(),
        }
    }

    fn has(&self, controller: &str) -> bool {
        if let Some(unified) = &self.unified {
            return unified.split_whitespace().any(|name| name == controller);
        }
        let enabled = self.version1.lines().any(|line| {
            let mut words = line.split_whitespace();
            words.next() == Some(controller) && words.nth(2) == Some("1")
        });
        // `cpu` and `cpuacct` are mounted together where they are, with links of either name.
        enabled && self.mounted.iter().any(|name| name.split(',').any(|part| part == controller))
    }
}

/// Whether containers can be bounded. Boards as the Raspberry Pi start with the memory controller off.
pub fn memory_cgroup(cgroups: &Cgroups) -> Finding {
    const CHECK: &str = "MemoryCgroup";
    let version = if cgroups.unified.is_some() { 2 } else { 1 };
    if cgroups.unified.is_none() && !["memory", "cpu", "pids"].iter().any(|name| cgroups.has(name)) {
        return Finding::failed(
            CHECK,
            format!(
                "no cgroups are mounted at {CGROUPS}: systemd mounts them at boot; without it `mount -t cgroup2 none {CGROUPS}`"
            ),
        );
    }
    if !cgroups.has("memory") {
        return Finding::failed(
            CHECK,
            format!(
                "the kernel's memory controller is off (cgroups of version {version}), so that no pod with a memory limit starts: add \
                 `cgroup_enable=memory cgroup_memory=1` to the kernel's command line (Raspberry Pi: /boot/firmware/cmdline.txt, on the one line \
                 there; GRUB: GRUB_CMDLINE_LINUX and `update-grub`), and reboot"
            ),
        );
    }
    let missing: Vec<&str> = ["cpu", "pids"].into_iter().filter(|name| !cgroups.has(name)).collect();
    if !missing.is_empty() {
        return Finding::warned(
            CHECK,
            format!(
                "memory is there, and the controllers {} are not (cgroups of version {version}): limits of them have no effect; they are \
                 options of the kernel",
                missing.join(" and ")
            ),
        );
    }
    Finding::passed(CHECK, format!("cgroups of version {version} with memory, cpu and pids"))
}

/// The folders of a node that fill, each once.
pub fn folders(settings: &EdgeCore) -> Vec<PathBuf> {
    let edged = &settings.modules.edged;
    let store = settings.database.data_source.parent().unwrap_or(Path::new("/")).to_owned();
    let mut folders = vec![
        store,
        edged.root_directory.clone(),
        edged.tailored_kubelet_config.pod_logs_dir.clone(),
        PathBuf::from(IMAGES),
    ];
    folders.dedup();
    folders
}

/// The disks of these folders, each with the first folder that is on it.
pub fn disks(host: &Host, folders: &[PathBuf]) -> Vec<(PathBuf, Disk)> {
    let mut disks: Vec<(PathBuf, Disk)> = Vec::new();
    for folder in folders {
        let Some(disk) = host.disk(folder) else { continue };
        if !disks.iter().any(|(_, known)| known.device == disk.device) {
            disks.push((folder.clone(), disk));
        }
    }
    disks
}

/// The worst of what is found of several things; all of it is said.
fn worst(findings: Vec<Finding>, check: &'static str) -> Finding {
    let says = |findings: &[Finding]| {
        findings.iter().map(|finding| finding.says.as_str()).collect::<Vec<_>>().join("; ")
    };
    use crate::finding::Grade::{Failed, Passed, Warned};
    for grade in [Failed, Warned] {
        let such: Vec<Finding> = findings.iter().filter(|one| one.grade == grade).cloned().collect();
        if !such.is_empty() {
            return Finding { check, grade, says: says(&such) };
        }
    }
    Finding { check, grade: Passed, says: says(&findings) }
}

/// Below how much of a disk pods are evicted: `evictionHard` of the folder of pods, and of the one of images where that is on it.
pub fn evicts_below(host: &Host, settings: &EdgeCore) -> impl Fn(&Disk) -> u64 + use<> {
    let hard = settings.modules.edged.tailored_kubelet_config.eviction_hard.clone();
    let images = host.disk(Path::new(IMAGES)).map(|disk| disk.device);
    move |disk| {
        let of_images =
            images.filter(|device| *device == disk.device).map(|_| hard.imagefs_available.of(disk.size));
        hard.nodefs_available.of(disk.size).max(of_images.unwrap_or(0))
    }
}

/// Room on them.
pub fn disk(disks: &[(PathBuf, Disk)], evicts_below: &dyn Fn(&Disk) -> u64) -> Finding {
    const CHECK: &str = "Disk";
    if disks.is_empty() {
        return Finding::warned(CHECK, "no file system says how much room it has");
    }
    let findings = disks.iter().map(|(folder, disk)| {
        let folder = folder.display();
        let says = format!("{folder}: {} of {} are left", bytes(disk.available), bytes(disk.size));
        let full = "remove what is not needed (`du -xhd2 /var | sort -h`; images: `crictl rmi --prune`)";
        if disk.read_only {
            Finding::failed(
                CHECK,
                format!("{folder} is on a file system that takes no writes: look at the kernel's log (`dmesg`), then `mount -o remount,rw` it"),
            )
        } else if disk.size < DISK_MIN {
            Finding::failed(CHECK, format!("{says}: a node needs {} in all", bytes(DISK_MIN)))
        } else if disk.available < DISK_LEFT_MIN {
            Finding::failed(CHECK, format!("{says}, less than {}: {full}", bytes(DISK_LEFT_MIN)))
        } else if disk.available < evicts_below(disk) {
            let below = bytes(evicts_below(disk));
            Finding::warned(CHECK, format!("{says}: below {below} pods are evicted (DiskPressure, evictionHard); {full}"))
        } else if percent(disk.size - disk.available.min(disk.size), disk.size) > USED_PERCENT_MAX {
            Finding::warned(CHECK, format!("{says}: {full}"))
        } else {
            Finding::passed(CHECK, says)
        }
    });
    worst(findings.collect(), CHECK)
}

/// Room for names of files.
pub fn inodes(disks: &[(PathBuf, Disk)]) -> Finding {
    const CHECK: &str = "Inodes";
    let findings = disks.iter().map(|(folder, disk)| {
        let folder = folder.display();
        let says = format!("{folder}: {} of {} are left", disk.inodes_free, disk.inodes);
        match percent(disk.inodes_free, disk.inodes) {
            _ if disk.inodes == 0 => Finding::passed(CHECK, format!("{folder}: without a bound")),
            0 => Finding::failed(CHECK, format!("{says}: no file can be made; `du --inodes -xd2 /var | sort -n` shows where they are")),
            left if left < LEFT_PERCENT_MIN => Finding::warned(
                CHECK,
                format!("{says}: pods are evicted (DiskPressure); `du --inodes -xd2 /var | sort -n` shows where they are"),
            ),
            _ => Finding::passed(CHECK, says),
        }
    });
    worst(findings.collect(), CHECK)
}

/// Room for processes: the bound of process ids or of threads, and `/proc/loadavg`.
pub fn pids(pid_max: &str, threads_max: &str, loadavg: &str) -> Finding {
    const CHECK: &str = "Pids";
    let most = [pid_max, threads_max].iter().filter_map(|text| text.trim().parse::<u64>().ok()).min();
    let running =
        loadavg.split_whitespace().nth(3).and_then(|word| word.split_once('/')?.1.parse::<u64>().ok());
    let (Some(most), Some(running)) = (most, running) else {
        return Finding::warned(CHECK, "/proc does not say how many processes there may be: is it mounted?");
    };
    let says = format!("{running} of {most} processes and threads");
    if percent(most.saturating_sub(running), most) < LEFT_PERCENT_MIN {
        return Finding::failed(
            CHECK,
            format!(
                "{says}: end what makes so many (`ps -eo nlwp,comm --sort=-nlwp`), or raise kernel.pid_max (`sysctl`)"
            ),
        );
    }
    Finding::passed(CHECK, says)
}

/// What the kernel can do of what runtimes and network plugins need.
pub fn kernel_modules(host: &Host) -> Finding {
    const CHECK: &str = "KernelModules";
    let release = host.text("/proc/sys/kernel/osrelease").trim().to_owned();
    let (filesystems, folder) = (host.text("/proc/filesystems"), format!("/lib/modules/{release}"));
    let known = [host.text(format!("{folder}/modules.builtin")), host.text(format!("{folder}/modules.dep"))];
    let can_be_loaded = |module: &str| {
        let name = format!("/{module}.ko");
        known.iter().any(|text| {
            text.lines().any(|line| line.split(':').next().is_some_and(|path| path.contains(&name)))
        })
    };
    let overlay = filesystems.lines().any(|line| line.split_whitespace().last() == Some("overlay"));
    // A driver that is built in and has no settings shows nowhere where there is no list of them.
    let is_listed = known.iter().any(|text| !text.is_empty());
    let has = [
        ("overlay", overlay),
        ("bridge", !is_listed || host.has("/sys/module/bridge")),
        ("veth", !is_listed || host.has("/sys/module/veth")),
    ];
    let missing = has.into_iter().filter(|(module, is_there)| !is_there && !can_be_loaded(module));
    let missing: Vec<&str> = missing.map(|(name, _)| name).collect();
    match missing.first() {
        None if is_listed => Finding::passed(CHECK, "overlay, bridge and veth"),
        None => Finding::passed(
            CHECK,
            "overlay; bridge and veth are not looked for, as there is no /lib/modules of this kernel",
        ),
        Some(first) => Finding::warned(
            CHECK,
            format!(
                "the kernel has no {}: containerd unpacks images with overlay, and the usual CNI plugins need bridge and veth; `modprobe {first}` \
                 says more, and a kernel of the distribution has them (Debian: linux-image-amd64 or -arm64)",
                missing.join(", ")
            ),
        ),
    }
}

/// What the usual network plugins start. Where there is a configuration of the network that names none of them it is not needed.
pub fn iptables(host: &Host) -> Finding {
    const CHECK: &str = "Iptables";
    if let Some(path) = PROGRAMS.iter().map(|folder| format!("{folder}/iptables")).find(|path| host.has(path))
    {
        return Finding::passed(CHECK, path);
    }
    let files = cni::files(host, Path::new(cni::FOLDER));
    let texts: Vec<String> =
        files.iter().take(CNI_FILES_MAX).map(|file| host.text(format!("{}/{file}", cni::FOLDER))).collect();
    let is_needed = |text: &String| START_IPTABLES.iter().any(|word| text.contains(word));
    if !texts.is_empty() && !texts.iter().any(is_needed) {
        let folder = cni::FOLDER;
        return Finding::passed(CHECK, format!("is not there, and no plugin of {folder} starts it"));
    }
    Finding::warned(
        CHECK,
        "there is no program iptables: the CNI plugins `bridge` (ipMasq) and `portmap` (hostPort) start it, and pods do not start without; \
         `apt-get install iptables`",
    )
}

#[cfg(test)]
mod tests;
