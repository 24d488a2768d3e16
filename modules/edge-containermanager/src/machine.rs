//! What the machine is made of.

use std::fs;
use std::path::Path;

use crate::memory_nodes;
use crate::plan::cpus::{self, Cpu, CpuSet, CpuTopology};
use crate::plan::memory::MemoryNodes;
use crate::plan::placement::CpuPolicy;
use crate::settings::{CpuSettings, MemorySettings, Settings};

/// Where the kernel shows the machine.
const SYSTEM: &str = "/sys/devices/system";
/// A number that is new with each boot.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// The machine, and what the CPU manager makes of it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Machine {
    pub(crate) boot: String,
    pub(crate) cpus: CpuTopology,
    pub(crate) cpu_policy: CpuPolicy,
    pub(crate) memory: MemoryNodes,
}

impl Machine {
    /// Looks at the machine. Blocks.
    ///
    /// # Errors
    /// When it doesn't fit to the settings, in the kubelet's words.
    pub(crate) fn read(settings: &CpuSettings, memory: &MemorySettings) -> Result<Machine, String> {
        let boot = text(Path::new(BOOT_ID)).ok_or_else(|| format!("{BOOT_ID} cannot be read"))?;
        let cpus = topology(Path::new(SYSTEM));
        let cpu_policy = policy(settings, &cpus)?;
        let memory = memory_nodes::managed(Path::new(SYSTEM), memory)?;
        Ok(Machine { boot, cpus, cpu_policy, memory })
    }
}

/// Whether this machine can do what is set of CPUs and memory. Blocks.
///
/// # Errors
/// Why a kubelet with these settings would not start here, in its words.
pub fn fits(edged: &config::edge::Edged) -> Result<(), String> {
    let settings = Settings::new(edged);
    Machine::read(&settings.cpus, &settings.memory).map(drop)
}

/// What the CPU manager does on this machine.
fn policy(settings: &CpuSettings, machine: &CpuTopology) -> Result<CpuPolicy, String> {
    // With any policy, as by a kubelet: what is reserved is no pod's, and CPUs that are not there would be taken from those that are.
    let missing: CpuSet = settings.reserved.difference(&machine.all()).copied().collect();
    if !missing.is_empty() && !machine.0.is_empty() {
        return Err(format!(
            "reservedSystemCPUs: the machine has no CPU {} that is on",
            cpus::list(&missing)
        ));
    }
    if !settings.is_static {
        return Ok(CpuPolicy::None);
    }
    if machine.0.is_empty() {
        return Err("cpuManagerPolicy static: the kernel does not show which CPUs there are".to_owned());
    }
    let reserved = if settings.reserved.is_empty() {
        // Parts of a CPU count as a whole one.
        let count = usize::try_from(settings.reserved_milli.div_ceil(1000)).unwrap_or(usize::MAX);
        machine
            .take(&machine.all(), count, false)
            .map_err(|error| format!("[cpumanager] unable to reserve: {error}"))?
    } else {
        settings.reserved.clone()
    };
    if reserved.is_empty() {
        return Err(
            "[cpumanager] the static policy requires systemreserved.cpu + kubereserved.cpu to be greater \
                    than zero"
                .to_owned(),
        );
    }
    Ok(CpuPolicy::Static { options: settings.options, reserved })
}

/// The CPUs that are on. What the kernel doesn't say is taken for one core, one socket, one node.
fn topology(system: &Path) -> CpuTopology {
    let list = |path: &Path| text(path).and_then(|text| cpus::parse_list(&text));
    let online = list(&system.join("cpu/online")).unwrap_or_default();
    let nodes = list(&system.join("node/online")).unwrap_or_default();
    let nodes: Vec<(u32, CpuSet)> = nodes
        .into_iter()
        .map(|node| (node, list(&system.join(format!("node/node{node}/cpulist"))).unwrap_or_default()))
        .collect();
    let cpu = |number: u32| {
        let folder = system.join(format!("cpu/cpu{number}"));
        let lowest = |name: &str| list(&folder.join(name)).and_then(|siblings| siblings.first().copied());
        let socket = text(&folder.join("topology/physical_package_id")).and_then(|text| text.parse().ok());
        let node = nodes.iter().find(|(_, cpus)| cpus.contains(&number)).map(|(node, _)| *node);
        Cpu {
            core: lowest("topology/thread_siblings_list").unwrap_or(number),
            socket: socket.unwrap_or(0),
            node: node.unwrap_or(0),
            cache: lowest("cache/index3/shared_cpu_list").unwrap_or(0),
        }
    };
    CpuTopology(online.into_iter().map(|number| (number, cpu(number))).collect())
}

fn text(path: &Path) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, format!("{text}\n")).unwrap();
    }

    #[test]
    fn the_kernel_says_what_there_is() {
        let root = tempfile::tempdir().unwrap();
        put(root.path(), "cpu/online", "0-3");
        put(root.path(), "node/online", "0-1");
        put(root.path(), "node/node0/cpulist", "0,2");
        put(root.path(), "node/node1/cpulist", "1,3");
        for number in 0..4 {
            let own = number % 2;
            put(root.path(), &format!("cpu/cpu{number}/topology/physical_package_id"), &own.to_string());
            put(
                root.path(),
                &format!("cpu/cpu{number}/topology/thread_siblings_list"),
                &format!("{own},{}", own + 2),
            );
            put(root.path(), &format!("cpu/cpu{number}/cache/index3/shared_cpu_list"), "0-3");
        }
        let machine = topology(root.path());
        assert_eq!(machine.0[&3], Cpu { core: 1, socket: 1, node: 1, cache: 0 });
        assert_eq!(machine.per_core(), 2);
        // A kernel that says less.
        let plain = tempfile::tempdir().unwrap();
        put(plain.path(), "cpu/online", "0-1");
        assert_eq!(topology(plain.path()).0[&1], Cpu { core: 1, socket: 0, node: 0, cache: 0 });
        assert!(topology(Path::new("/nowhere")).0.is_empty());
    }

    #[test]
    fn the_static_policy_wants_something_reserved() {
        let machine = crate::plan::cpus::tests::machine(1, 1, 2, 2);
        let settings = |milli, list: &str| CpuSettings {
            is_static: true,
            reserved: cpus::parse_list(list).unwrap(),
            reserved_milli: milli,
            ..CpuSettings::default()
        };
        let reserved = |settings: &CpuSettings| match policy(settings, &machine) {
            Ok(CpuPolicy::Static { reserved, .. }) => cpus::list(&reserved),
            Ok(CpuPolicy::None) => panic!(),
            Err(error) => error,
        };
        assert_eq!(reserved(&settings(100, "")), "0");
        assert_eq!(reserved(&settings(1001, "")), "0,2");
        assert_eq!(reserved(&settings(100, "3")), "3");
        assert!(reserved(&settings(0, "")).contains("to be greater than zero"));
        assert!(reserved(&settings(0, "7")).contains("no CPU 7"));
        assert!(reserved(&settings(9000, "")).contains("not enough cpus"));
        assert_eq!(policy(&CpuSettings::default(), &machine), Ok(CpuPolicy::None));
        // Without the policy CPUs are reserved, too.
        let without = |list: &str| policy(&CpuSettings { is_static: false, ..settings(0, list) }, &machine);
        assert_eq!(without("3"), Ok(CpuPolicy::None));
        assert!(without("3,7").unwrap_err().contains("no CPU 7"));
    }
}
