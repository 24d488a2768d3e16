//! The cgroup of all pods together, and those of their classes: what bounds them, what they have beside each other, and what they use. Blocks.

use std::fs;
use std::io;
use std::path::Path;

use config::edge::CgroupDriver;

use crate::runtime::cgroup::{
    class_parts, folder, is_v2, refused, root_parts, set_memory, weight, write_if_other,
};
use crate::runtime::resources;

/// What bounds all pods together, huge pages apart, which few machines count.
const CONTROLLERS: [&str; 3] = ["cpu", "memory", "pids"];

/// What all pods of the node together may have (a kubelet's `enforceNodeAllocatable: [pods]`): all that is not reserved. What eviction keeps free is
/// not taken off: a pod that comes near it is evicted, and not ended by the kernel.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct NodeBounds {
    /// Their weight beside what else runs: `cpu.shares`, 2 to 262,144.
    pub(crate) shares: i64,
    /// Bytes, in whole pages; `None`: how much there is is not known.
    pub(crate) memory: Option<i64>,
    /// Processes and threads; `None` as before.
    pub(crate) pids: Option<i64>,
    /// Bytes of huge pages, by the kernel's name of their size.
    pub(crate) huge_pages: Vec<(String, i64)>,
}

/// Bounds all pods together, as far as the kernel has other bounds; each is tried also where another was refused, and left out of what the kernel
/// does not count. A cgroup that is not there, as before the first pod, is not made. Answers whether it had others; `None`: there is none.
///
/// # Errors
/// What could not be set and why, as where more memory is in use: evictions bring that down.
pub(crate) fn bound(
    sys: &Path,
    (driver, root): (CgroupDriver, &str),
    bounds: &NodeBounds,
) -> Result<Option<bool>, String> {
    let (own, is_v2) = (folder(&root_parts(root), driver), is_v2(sys));
    let at = |controller: &str| if is_v2 { sys.join(&own) } else { sys.join(controller).join(&own) };
    // A runtime makes it in one hierarchy after the other: until it is in all that the machine has, some bounds would be forgotten.
    let mut hierarchies = CONTROLLERS.into_iter().filter(|controller| is_v2 || sys.join(controller).is_dir());
    let is_begun = CONTROLLERS.into_iter().any(|controller| at(controller).is_dir());
    if !is_begun || !hierarchies.all(|controller| at(controller).is_dir()) {
        return Ok(None);
    }
    let put = |controller: &str, file: &str, amount: i64| {
        let (path, text) = (at(controller).join(file), amount.to_string());
        write_if_other(&path, &text).map_err(|error| refused(&path, &text, &error))
    };
    let huge_pages = if is_v2 { "max" } else { "limit_in_bytes" };
    let shares = if is_v2 { ("cpu.weight", weight(bounds.shares)) } else { ("cpu.shares", bounds.shares) };
    let mut done = vec![put("cpu", shares.0, shares.1)];
    done.extend(bounds.memory.map(|limit| set_memory(&at("memory"), is_v2, limit, "pods'")));
    done.extend(bounds.pids.map(|pids| put("pids", "pids.max", pids)));
    for (size, bytes) in &bounds.huge_pages {
        done.push(put("hugetlb", &format!("hugetlb.{size}.{huge_pages}"), *bytes));
    }
    let errors: Vec<String> = done.iter().filter_map(|done| done.clone().err()).collect();
    if errors.is_empty() { Ok(Some(done.contains(&Ok(true)))) } else { Err(errors.join("; ")) }
}

/// Gives the classes their weights beside each other, where they are: BestEffort the least that there is, Burstable what its pods ask
/// for, in thousandths of a CPU (the kubelet's `setCPUCgroupConfig`). Without that the kernel's own weights would count, and
/// all pods without requests together might have more than one that asks for several CPUs. Answers whether one had another.
pub(crate) fn weigh_classes(
    sys: &Path,
    (driver, root): (CgroupDriver, &str),
    burstable_milli: i64,
) -> io::Result<bool> {
    let weigh = |class: &str, milli: i64| {
        let (own, shares) = (folder(&class_parts(class, root), driver), resources::shares(milli));
        if is_v2(sys) {
            write_if_other(&sys.join(own).join("cpu.weight"), &weight(shares).to_string())
        } else {
            write_if_other(&sys.join("cpu").join(own).join("cpu.shares"), &shares.to_string())
        }
    };
    let (best_effort, burstable) = (weigh("besteffort", 0), weigh("burstable", burstable_milli));
    Ok(best_effort? | burstable?)
}

/// How much memory all pods of the node together use, without the pages of files that have not been used lately (a kubelet's working
/// set). Bytes; `None`: there is no such cgroup, as before the first pod.
pub(crate) fn working_set_of_pods(sys: &Path, driver: CgroupDriver, root: &str) -> Option<u64> {
    let place = folder(&root_parts(root), driver);
    let (at, usage, idle) = if is_v2(sys) {
        (sys.join(place), "memory.current", "inactive_file ")
    } else {
        (sys.join("memory").join(place), "memory.usage_in_bytes", "total_inactive_file ")
    };
    let used: u64 = fs::read_to_string(at.join(usage)).ok()?.trim().parse().ok()?;
    let stat = fs::read_to_string(at.join("memory.stat")).ok()?;
    let idle = stat.lines().find_map(|line| line.strip_prefix(idle))?;
    Some(used.saturating_sub(idle.trim().parse().ok()?))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    /// What was not there and what the kernel refuses shows in what is left.
    #[test]
    fn all_pods_together_are_bounded_in_both_versions_and_with_both_drivers() {
        let bounds = NodeBounds {
            shares: 2048,
            memory: Some(64 << 20),
            pids: Some(30_000),
            huge_pages: vec![("2MB".to_owned(), 4 << 20)],
        };
        let v1 = [
            ("cpu", "cpu.shares", "2048"),
            ("memory", "memory.limit_in_bytes", "67108864"),
            ("pids", "pids.max", "30000"),
            ("hugetlb", "hugetlb.2MB.limit_in_bytes", "4194304"),
        ];
        let v2 = [
            ("", "cpu.weight", "79"),
            ("", "memory.max", "67108864"),
            ("", "pids.max", "30000"),
            ("", "hugetlb.2MB.max", "4194304"),
        ];
        for (driver, own) in [(CgroupDriver::Cgroupfs, "kubepods"), (CgroupDriver::Systemd, "kubepods.slice")]
        {
            for files in [v1, v2] {
                let sys = tempfile::tempdir().unwrap();
                let is_v2 = files == v2;
                if is_v2 {
                    fs::write(sys.path().join("cgroup.controllers"), "cpu memory pids hugetlb").unwrap();
                }
                let bound = |bounds: &NodeBounds| bound(sys.path(), (driver, "/kubepods"), bounds);
                assert_eq!(bound(&bounds), Ok(None), "before the first pod");
                let at = |top: &str, file: &str| sys.path().join(top).join(own).join(file);
                for (top, file, _) in files {
                    fs::create_dir_all(at(top, "")).unwrap();
                    fs::write(at(top, file), "max\n").unwrap();
                }
                assert_eq!(bound(&bounds), Ok(Some(true)));
                for (top, file, value) in files {
                    assert_eq!(fs::read_to_string(at(top, file)).unwrap(), value, "{file}");
                }
                assert_eq!(bound(&bounds), Ok(Some(false)), "as they are");
                // A node with less for its pods, who use more: they are evicted first.
                let (_, limit, _) = files[1];
                let used = if is_v2 { "memory.current" } else { "memory.usage_in_bytes" };
                fs::write(at(files[1].0, used), "50000000\n").unwrap();
                let less = NodeBounds { memory: Some(40 << 20), pids: Some(20_000), ..bounds.clone() };
                let words = "cannot decrease memory limits: attempting to set pods' memory limit (41943040) below current usage (50000000)";
                assert_eq!(bound(&less), Err(words.to_owned()));
                assert_eq!(fs::read_to_string(at(files[1].0, limit)).unwrap(), "67108864");
                assert_eq!(
                    fs::read_to_string(at(files[2].0, "pids.max")).unwrap(),
                    "20000",
                    "the rest is set"
                );
                fs::write(at(files[1].0, used), "30000000\n").unwrap();
                assert_eq!(bound(&less), Ok(Some(true)));
                // A controller that the kernel does not have.
                fs::remove_file(at(files[1].0, limit)).unwrap();
                fs::remove_file(at(files[3].0, files[3].1)).unwrap();
                assert_eq!(bound(&less), Ok(Some(false)));
                assert!(!at(files[1].0, limit).exists());
                if !is_v2 {
                    fs::remove_dir_all(at(files[2].0, "")).unwrap();
                    assert_eq!(bound(&less), Ok(None), "the runtime has not made it in all hierarchies");
                }
            }
        }
    }

    /// A Guaranteed pod of 100m must not have less than all pods without requests together.
    #[test]
    fn the_classes_have_the_weights_of_what_their_pods_ask_for() {
        for (driver, besteffort, burstable) in [
            (CgroupDriver::Cgroupfs, "kubepods/besteffort", "kubepods/burstable"),
            (
                CgroupDriver::Systemd,
                "kubepods.slice/kubepods-besteffort.slice",
                "kubepods.slice/kubepods-burstable.slice",
            ),
        ] {
            for (top, file, values) in [("", "cpu.weight", ["1", "79"]), ("cpu", "cpu.shares", ["2", "2048"])]
            {
                let sys = tempfile::tempdir().unwrap();
                if top.is_empty() {
                    fs::write(sys.path().join("cgroup.controllers"), "cpu").unwrap();
                }
                weigh_classes(sys.path(), (driver, "/kubepods"), 2000).unwrap();
                let at = |class: &str| sys.path().join(top).join(class).join(file);
                for class in [besteffort, burstable] {
                    fs::create_dir_all(at(class).parent().unwrap()).unwrap();
                    fs::write(at(class), "100\n").unwrap();
                }
                weigh_classes(sys.path(), (driver, "/kubepods"), 2000).unwrap();
                let read = |class: &str| fs::read_to_string(at(class)).unwrap();
                assert_eq!([read(besteffort), read(burstable)], values, "{driver:?} {file}");
            }
        }
    }

    #[test]
    fn what_all_pods_use_is_read_of_either_version() {
        let (old, new) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let write = |at: PathBuf, text: &str| {
            fs::create_dir_all(at.parent().unwrap()).unwrap();
            fs::write(at, text).unwrap();
        };
        let of = |sys: &Path, driver, root| working_set_of_pods(sys, driver, root);
        assert_eq!(of(old.path(), CgroupDriver::Cgroupfs, "/kubepods"), None);
        let at = old.path().join("memory/kubepods");
        write(at.join("memory.usage_in_bytes"), "1000\n");
        write(at.join("memory.stat"), "inactive_file 1\ntotal_inactive_file 300\n");
        assert_eq!(of(old.path(), CgroupDriver::Cgroupfs, "/kubepods"), Some(700));
        write(new.path().join("cgroup.controllers"), "memory");
        let at = new.path().join("edge.slice/edge-kubepods.slice");
        write(at.join("memory.current"), "500\n");
        write(at.join("memory.stat"), "anon 1\ninactive_file 600\n");
        assert_eq!(of(new.path(), CgroupDriver::Systemd, "/edge/kubepods"), Some(0));
    }
}
