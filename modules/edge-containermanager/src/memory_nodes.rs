//! How much memory each NUMA node has, and what of it pods can have. Blocks.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::plan::memory::{MEMORY, MemoryNodes};
use crate::settings::MemorySettings;

/// What is to be given by the policy of the configuration: nothing with the policy None.
///
/// # Errors
/// When the machine and what is reserved don't fit together, in the kubelet's words.
pub(crate) fn managed(system: &Path, settings: &MemorySettings) -> Result<MemoryNodes, String> {
    if !settings.is_static {
        return Ok(MemoryNodes::default());
    }
    let nodes = of_machine(system);
    if nodes.is_empty() {
        return Err(
            "memoryManagerPolicy Static: the kernel does not show how much memory its NUMA nodes have"
                .to_owned(),
        );
    }
    if let Some(missing) = settings.reserved.keys().find(|node| !nodes.contains_key(node)) {
        return Err(format!(
            "the reserved memory configuration references a NUMA node {missing} that does not exist on this machine"
        ));
    }
    for (node, kinds) in &settings.reserved {
        for (kind, wanted) in kinds {
            let there = nodes.get(node).and_then(|kinds| kinds.get(kind)).copied().unwrap_or(0);
            if *wanted > there {
                return Err(format!(
                    "reservedMemory: NUMA node {node} has {there} bytes of {kind}, of which {wanted} cannot be reserved"
                ));
            }
        }
    }
    let all: u64 = nodes.values().filter_map(|kinds| kinds.get(MEMORY)).sum();
    let reserved: u64 = settings.reserved.values().filter_map(|kinds| kinds.get(MEMORY)).sum();
    let allocatable =
        settings.reserved_bytes.saturating_add(settings.kept_free.map_or(0, |kept| kept.of(all)));
    if reserved == 0 {
        return Err("[memorymanager] you should specify the system reserved memory".to_owned());
    }
    if reserved != allocatable {
        return Err(format!(
            "the total amount \"{reserved}\" of type \"memory\" is not equal to the value \"{allocatable}\" determined by \
             Node Allocatable feature: reservedMemory has to name as much as systemReserved, kubeReserved and \
             evictionHard.memory.available together"
        ));
    }
    let own = nodes.into_iter().map(|(node, kinds)| (node, left(&kinds, settings.reserved.get(&node))));
    Ok(MemoryNodes(own.collect()))
}

/// What pods can have: huge pages are no plain memory any more.
fn left(kinds: &BTreeMap<String, u64>, reserved: Option<&BTreeMap<String, u64>>) -> BTreeMap<String, u64> {
    let huge: u64 = kinds.iter().filter(|(kind, _)| *kind != MEMORY).map(|(_, bytes)| bytes).sum();
    let of = |(kind, bytes): (&String, &u64)| {
        let kept = reserved.and_then(|reserved| reserved.get(kind)).copied().unwrap_or(0);
        let taken = if kind == MEMORY { huge } else { 0 };
        (kind.clone(), bytes.saturating_sub(kept).saturating_sub(taken))
    };
    kinds.iter().map(of).collect()
}

/// Bytes of memory and of each size of huge pages, by NUMA node.
fn of_machine(system: &Path) -> BTreeMap<u32, BTreeMap<String, u64>> {
    let entries = fs::read_dir(system.join("node")).into_iter().flatten().flatten();
    let node = |entry: fs::DirEntry| {
        let number: u32 = entry.file_name().to_str()?.strip_prefix("node")?.parse().ok()?;
        let text = fs::read_to_string(entry.path().join("meminfo")).ok()?;
        let mut kinds = huge_pages(&entry.path().join("hugepages"));
        kinds.insert(MEMORY.to_owned(), total(&text)?);
        Some((number, kinds))
    };
    entries.filter_map(node).collect()
}

/// `Node 0 MemTotal:       24576000 kB`
fn total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.split_once("MemTotal:"))?.1;
    line.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
}

/// By the resources of their sizes.
fn huge_pages(folder: &Path) -> BTreeMap<String, u64> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let of_size = |entry: fs::DirEntry| {
        let name = entry.file_name().to_string_lossy().into_owned();
        let kilobytes: u64 = name.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok()?;
        let size = kilobytes.checked_mul(1024)?;
        let pages = fs::read_to_string(entry.path().join("nr_hugepages")).ok()?;
        let pages: u64 = pages.trim().parse().ok()?;
        let name = format!("hugepages-{}", apimachinery::Quantity::binary_text(size));
        Some((name, pages.saturating_mul(size)))
    };
    entries.filter_map(of_size).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use config::Threshold;

    fn put(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    #[test]
    fn what_is_reserved_has_to_fit_to_the_machine_and_to_the_rest() {
        let root = tempfile::tempdir().unwrap();
        for (node, pages) in [(0, "2"), (1, "0")] {
            put(
                root.path(),
                &format!("node/node{node}/meminfo"),
                &format!("Node {node} MemFree: 1 kB\nNode {node} MemTotal:   1048576 kB\n"),
            );
            put(root.path(), &format!("node/node{node}/hugepages/hugepages-2048kB/nr_hugepages"), pages);
        }
        let of = |node: u32, bytes: u64| {
            let reserved = [(node, [(MEMORY.to_owned(), bytes)].into())].into();
            let kept_free = Some(Threshold::Amount(100 << 20));
            managed(
                root.path(),
                &MemorySettings { is_static: true, reserved, reserved_bytes: 156 << 20, kept_free },
            )
        };
        let machine = of(0, 256 << 20).unwrap().0;
        assert_eq!(
            machine[&0],
            BTreeMap::from([
                (MEMORY.to_owned(), (1024 - 256 - 4) << 20),
                ("hugepages-2Mi".to_owned(), 4 << 20)
            ])
        );
        assert_eq!(machine[&1][MEMORY], 1 << 30);
        assert!(of(7, 256 << 20).unwrap_err().contains("NUMA node 7 that does not exist"));
        assert!(of(0, 255 << 20).unwrap_err().contains("is not equal to the value \"268435456\""));
        assert!(of(0, 0).unwrap_err().contains("you should specify the system reserved memory"));
        assert_eq!(managed(Path::new("/nowhere"), &MemorySettings::default()), Ok(MemoryNodes::default()));
        // Huge pages that the machine has, more of them, and of a size of which it has none.
        let huge = |kind: &str, bytes: u64| {
            let kinds = [(MEMORY.to_owned(), 256 << 20), (kind.to_owned(), bytes)];
            let settings = MemorySettings {
                is_static: true,
                reserved: [(0, kinds.into())].into(),
                reserved_bytes: 256 << 20,
                kept_free: None,
            };
            managed(root.path(), &settings)
        };
        assert_eq!(huge("hugepages-2Mi", 4 << 20).unwrap().0[&0]["hugepages-2Mi"], 0);
        assert!(huge("hugepages-2Mi", 6 << 20).unwrap_err().contains("has 4194304 bytes of hugepages-2Mi"));
        assert!(huge("hugepages-1Gi", 100 << 30).unwrap_err().contains("has 0 bytes of hugepages-1Gi"));
        assert!(of(0, 2 << 30).unwrap_err().contains("NUMA node 0 has 1073741824 bytes of memory"));
        let alone = MemorySettings { is_static: true, ..MemorySettings::default() };
        assert!(managed(Path::new("/nowhere"), &alone).is_err());
    }
}
