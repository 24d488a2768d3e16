//! What is kept from pods on this machine, held against what it has. A kubelet whose reservations come to more does not start
//! (`validateNodeAllocatable`): here the file is refused, so that settings of a job are not taken, or are taken back.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use crate::edge::Edged;
use crate::error::{Defect, kubelet_key as key};

/// 256 KiB of a file of the kernel's.
const FILE_MAX: u64 = 256 << 10;

/// What the machine has; `None`: it does not say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Capacity {
    /// In thousandths.
    pub(crate) cpu_milli: Option<u64>,
    /// In bytes.
    pub(crate) memory: Option<u64>,
    /// Of the disk of `rootDirectory`, in bytes.
    pub(crate) ephemeral_storage: Option<u64>,
}

impl Capacity {
    /// What this machine has. Blocks for a moment.
    pub(crate) fn of_machine(root: &Path) -> Capacity {
        // The folder is made by the first start.
        let disk = root.ancestors().find_map(|folder| rustix::fs::statvfs(folder).ok());
        Capacity {
            cpu_milli: cpus(&text("/proc/stat")).map(|cpus| cpus.saturating_mul(1000)),
            memory: memory(&text("/proc/meminfo")),
            ephemeral_storage: disk.map(|disk| disk.f_blocks.saturating_mul(disk.f_frsize)),
        }
    }
}

fn text(path: &str) -> String {
    let mut bytes = Vec::new();
    if let Ok(file) = File::open(path) {
        drop(file.take(FILE_MAX).read_to_end(&mut bytes));
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn cpus(stat: &str) -> Option<u64> {
    let is_cpu = |line: &&str| {
        line.strip_prefix("cpu").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    };
    u64::try_from(stat.lines().filter(is_cpu).count()).ok().filter(|cpus| *cpus > 0)
}

fn memory(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// What is reserved of more than there is.
pub(crate) fn defects(edged: &Edged, capacity: Capacity) -> Vec<Defect> {
    beyond(edged, capacity, 1, |there| format!("this machine has {there} in all"))
}

/// What is reserved of more than a half of that: what a job may.
pub(crate) fn beyond_half(edged: &Edged, capacity: Capacity) -> Vec<Defect> {
    beyond(edged, capacity, 2, |there| {
        format!(
            "a job may keep a half of this machine from them, {there}; `keadm config-update` on the node does more"
        )
    })
}

/// What is reserved of more than one of `parts` parts.
fn beyond(edged: &Edged, capacity: Capacity, parts: u64, told: impl Fn(String) -> String) -> Vec<Defect> {
    let kubelet = &edged.tailored_kubelet_config;
    let hard = &kubelet.eviction_hard;
    let (memory, disk) =
        (capacity.memory.unwrap_or(u64::MAX), capacity.ephemeral_storage.unwrap_or(u64::MAX));
    let kept = [
        ("cpu", "", capacity.cpu_milli, kubelet.reserved_milli_cpu(), 0),
        (
            "memory",
            "memory.available",
            capacity.memory,
            kubelet.reserved_bytes("memory"),
            hard.memory_available.of(memory),
        ),
        (
            "ephemeral-storage",
            "nodefs.available",
            capacity.ephemeral_storage,
            kubelet.reserved_bytes("ephemeral-storage"),
            hard.nodefs_available.of(disk),
        ),
    ];
    let mut defects = Vec::new();
    for (resource, signal, there, reserved, free) in kept {
        let Some(there) = there.map(|there| there / parts) else { continue };
        let wanted = reserved.saturating_add(free);
        if wanted <= there {
            continue;
        }
        let at = |name: &str| key(&format!("{name}.{resource}"));
        let at = if resource == "cpu" && !kubelet.reserved_system_cpus.is_empty() {
            key("reservedSystemCPUs")
        } else if kubelet.kube_reserved.contains_key(resource) {
            at("kubeReserved")
        } else if kubelet.system_reserved.contains_key(resource) {
            at("systemReserved")
        } else {
            key(&format!("evictionHard.{signal}"))
        };
        let unit = if resource == "cpu" { "m" } else { " bytes" };
        let eviction = if signal.is_empty() { String::new() } else { format!(" and evictionHard.{signal}") };
        defects.push(Defect::new(
            &at,
            format!(
                "is too much: kubeReserved, systemReserved{eviction} keep {wanted}{unit} of {resource} from pods, and {}",
                told(format!("{there}{unit}"))
            ),
        ));
    }
    defects
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Threshold;

    const MACHINE: Capacity =
        Capacity { cpu_milli: Some(2000), memory: Some(4 << 30), ephemeral_storage: Some(20 << 30) };

    fn keys(change: impl Fn(&mut crate::edge::TailoredKubeletConfig)) -> Vec<String> {
        let mut edged = Edged::default();
        change(&mut edged.tailored_kubelet_config);
        defects(&edged, MACHINE).into_iter().map(|defect| defect.key.replace(&key(""), "")).collect()
    }

    #[test]
    fn no_more_is_reserved_than_there_is() {
        let amounts = |resource: &str, amount: &str| [(resource.to_owned(), amount.to_owned())].into();
        assert_eq!(keys(|_| {}), [""; 0]);
        assert_eq!(
            keys(|kubelet| kubelet.kube_reserved = amounts("cpu", "2")),
            [""; 0],
            "a kubelet starts so"
        );
        assert_eq!(keys(|kubelet| kubelet.kube_reserved = amounts("cpu", "2001m")), ["kubeReserved.cpu"]);
        assert_eq!(
            keys(|kubelet| {
                kubelet.system_reserved = amounts("memory", "4Gi");
                kubelet.kube_reserved = amounts("cpu", "1");
            }),
            ["systemReserved.memory"],
            "with what eviction keeps free it is too much"
        );
        assert_eq!(
            keys(|kubelet| {
                kubelet.kube_reserved = amounts("ephemeral-storage", "19Gi");
                kubelet.eviction_hard.memory_available = Threshold::Amount(5 << 30);
            }),
            ["evictionHard.memory.available", "kubeReserved.ephemeral-storage"]
        );
        let mut edged = Edged::default();
        edged.tailored_kubelet_config.kube_reserved = amounts("memory", "1000Ti");
        assert_eq!(defects(&edged, Capacity::default()), [], "a machine that does not say is not asked");
        let said = &defects(&edged, MACHINE)[0].what;
        assert!(said.contains("this machine has 4294967296 bytes in all"), "{said}");
    }

    #[test]
    fn a_job_reserves_no_more_than_a_half() {
        let mut edged = Edged::default();
        edged.tailored_kubelet_config.eviction_hard.memory_available = Threshold::Part(4900);
        assert_eq!(beyond_half(&edged, MACHINE), []);
        edged.tailored_kubelet_config.eviction_hard.memory_available = Threshold::Part(5100);
        assert_eq!(defects(&edged, MACHINE), []);
        let said = &beyond_half(&edged, MACHINE)[0].what;
        assert!(said.contains("a half of this machine from them, 2147483648 bytes"), "{said}");
    }

    #[test]
    fn this_machine_says_what_it_has() {
        let found = Capacity::of_machine(Path::new("/nowhere/at/all"));
        assert!(found.cpu_milli.is_some_and(|milli| milli >= 1000), "{found:?}");
        assert!(found.memory.is_some() && found.ephemeral_storage.is_some(), "{found:?}");
        assert_eq!((cpus("cpu  1\ncpu0 1\ncpu1 1\nintr 3\n"), cpus("")), (Some(2), None));
        assert_eq!((memory("MemTotal:  2 kB\n"), memory("x")), (Some(2048), None));
    }
}
