//! The pods' cgroups. With the cgroupfs driver: made with the pod's limits before the sandbox, removed after it. With systemd the slices are
//! systemd's to make and to remove ([`slices`](super::slices)), and what it knows nothing of is written once they are there. Blocks.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use config::edge::CgroupDriver;
use k8s_openapi::api::core::v1::PodSpec;

use crate::pod::id::PodId;
use crate::pod::parsed_pod::{ParsedPod, all_of};
use crate::runtime::demand;
use crate::runtime::huge_pages;
use crate::runtime::qos;
use crate::runtime::resources::{self, PERIOD_US, Qos, amounts};
use crate::runtime::sandbox::cgroup_parts;

/// The controllers of version 1 in which a pod has a folder.
const CONTROLLERS: [&str; 3] = ["cpu", "memory", "hugetlb"];

/// What a pod as a whole may use of CPUs and memory; `None`: no bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bounds {
    /// Its weight beside others: `cpu.shares`, 2 to 262,144.
    pub(crate) shares: i64,
    /// Microseconds of CPUs in a period of 100 ms.
    pub(crate) quota: Option<i64>,
    /// Bytes.
    pub(crate) memory: Option<i64>,
}

impl Bounds {
    /// The least in which both have room.
    pub(crate) fn covering(self, other: Bounds) -> Bounds {
        let wider = |one: Option<i64>, other: Option<i64>| Some(one?.max(other?));
        Bounds {
            shares: self.shares.max(other.shares),
            quota: wider(self.quota, other.quota),
            memory: wider(self.memory, other.memory),
        }
    }
}

/// What a pod's cgroup is made with.
#[derive(Debug, PartialEq, Eq)]
struct Limits {
    bounds: Bounds,
    /// Bytes of huge pages, by the kernel's name of their size.
    huge_pages: Vec<(String, i64)>,
}

/// With the huge pages that its containers ask for.
fn limits(spec: &PodSpec, huge_page_sizes: &[u64]) -> Limits {
    let requests = demand::of_pod(spec);
    let huge_page = |size: &u64| {
        let amount = requests.get(&huge_pages::resource(*size)).copied().unwrap_or(0);
        (huge_pages::kernel_name(*size), amount)
    };
    Limits { bounds: bounds(spec), huge_pages: huge_page_sizes.iter().map(huge_page).collect() }
}

/// The kubelet's `ResourceConfigForPod`. One container without a limit leaves the pod without one, unless it has one of its own.
pub(crate) fn bounds(spec: &PodSpec) -> Bounds {
    let all: Vec<_> = all_of(spec).map(|container| amounts(container.resources.as_ref())).collect();
    let (requests, limits) = (demand::of_pod(spec), demand::limits_of_pod(spec));
    let amount = |of: &demand::Amounts, name: &str| of.get(name).copied().unwrap_or(0);
    let class = qos::class_of(spec);
    let shares = match class {
        Qos::BestEffort => resources::shares(0),
        Qos::Burstable | Qos::Guaranteed => resources::shares(amount(&requests, "cpu")),
    };
    let whole = demand::limits_of_whole(spec);
    // A bound of the pod as a whole is one, whatever its containers say.
    let is_bound = |name: &str, of_containers: bool| {
        class == Qos::Guaranteed || of_containers || amount(&whole, name) > 0
    };
    let bounds_cpu = is_bound("cpu", all.iter().all(|own| own.cpu_limit > 0));
    let bounds_memory = is_bound("memory", all.iter().all(|own| own.memory_limit > 0));
    Bounds {
        shares,
        quota: bounds_cpu.then(|| resources::quota(amount(&limits, "cpu"))),
        memory: bounds_memory.then(|| amount(&limits, "memory")),
    }
}

/// How much of the CPUs the pod as a whole may use, if there is a bound. Thousandths of one.
pub(crate) fn cpu_limit(spec: &PodSpec) -> Option<i64> {
    bounds(spec).quota.and_then(|_| demand::limits_of_pod(spec).get("cpu").copied())
}

/// How much memory the pod as a whole may use, if there is a bound. Bytes.
pub(crate) fn memory_limit(spec: &PodSpec) -> Option<i64> {
    bounds(spec).memory
}

/// The slice of these parts, as systemd names it.
pub(crate) fn slice(parts: &[String]) -> String {
    let parts: Vec<String> = parts.iter().map(|part| part.replace('-', "_")).collect();
    format!("{}.slice", parts.join("-"))
}

/// Where a cgroup lies in its hierarchy. A slice lies in those that its name begins with.
pub(super) fn folder(parts: &[String], driver: CgroupDriver) -> PathBuf {
    match driver {
        CgroupDriver::Cgroupfs => parts.iter().collect(),
        CgroupDriver::Systemd => (1..=parts.len()).map(|count| slice(&parts[..count])).collect(),
    }
}

/// Makes the pod's cgroup below `sys` (`/sys/fs/cgroup`), and gives it its limits; a slice that is not there yet is left alone.
/// `huge_page_sizes`: those of the machine, in bytes.
pub(crate) fn make(
    sys: &Path,
    pod: &ParsedPod,
    (driver, root): (CgroupDriver, &str),
    huge_page_sizes: &[u64],
) -> io::Result<()> {
    let parts = cgroup_parts(&pod.id, pod.qos, root);
    let limits = limits(pod.spec(), huge_page_sizes);
    let (own, makes) = (folder(&parts, driver), driver == CgroupDriver::Cgroupfs);
    match (is_v2(sys), makes) {
        (true, true) => make_v2(sys, &parts, &limits),
        (true, false) => bound_v2(&sys.join(own), &limits),
        (false, makes) => make_v1(sys, &own, makes, &limits),
    }
}

/// The parts of the cgroup of all pods together.
pub(crate) fn root_parts(root: &str) -> Vec<String> {
    root.split('/').filter(|part| !part.is_empty()).map(str::to_owned).collect()
}

/// The parts of a class' cgroup.
pub(crate) fn class_parts(class: &str, root: &str) -> Vec<String> {
    let mut parts = root_parts(root);
    parts.push(class.to_owned());
    parts
}

/// The kernel's documented mapping of 2..262144 shares to a weight of 1..10000.
pub(crate) fn weight(shares: i64) -> i64 {
    1 + ((shares - 2) * 9999) / 262_142
}

pub(crate) fn is_v2(sys: &Path) -> bool {
    sys.join("cgroup.controllers").exists()
}

fn make_v1(sys: &Path, own: &Path, makes: bool, limits: &Limits) -> io::Result<()> {
    for controller in CONTROLLERS {
        let top = sys.join(controller);
        let path = top.join(own);
        if makes && top.exists() {
            fs::create_dir_all(&path)?;
        }
        if !path.exists() {
            continue;
        }
        match controller {
            "cpu" => {
                fs::write(path.join("cpu.shares"), limits.bounds.shares.to_string())?;
                if let Some(quota) = limits.bounds.quota {
                    fs::write(path.join("cpu.cfs_period_us"), PERIOD_US.to_string())?;
                    fs::write(path.join("cpu.cfs_quota_us"), quota.to_string())?;
                }
            }
            "hugetlb" => {
                for (size, limit) in &limits.huge_pages {
                    write_if_there(&path.join(format!("hugetlb.{size}.limit_in_bytes")), &limit.to_string())?;
                }
            }
            _ => {
                if let Some(memory) = limits.bounds.memory {
                    fs::write(path.join("memory.limit_in_bytes"), memory.to_string())?;
                }
            }
        }
    }
    Ok(())
}

fn make_v2(sys: &Path, parts: &[String], limits: &Limits) -> io::Result<()> {
    let mut path = sys.to_owned();
    for part in parts {
        // A controller that the kernel does not have is no reason to fail; the runtime asks for what it needs.
        for controller in ["+cpu", "+memory", "+pids", "+hugetlb"] {
            drop(fs::write(path.join("cgroup.subtree_control"), controller));
        }
        path.push(part);
        if !path.exists() {
            fs::create_dir(&path)?;
        }
    }
    bound_v2(&path, limits)
}

fn bound_v2(path: &Path, limits: &Limits) -> io::Result<()> {
    write_if_there(&path.join("cpu.weight"), &weight(limits.bounds.shares).to_string())?;
    if let Some(quota) = limits.bounds.quota {
        write_if_there(&path.join("cpu.max"), &format!("{quota} {PERIOD_US}"))?;
    }
    if let Some(memory) = limits.bounds.memory {
        write_if_there(&path.join("memory.max"), &memory.to_string())?;
    }
    for (size, limit) in &limits.huge_pages {
        write_if_there(&path.join(format!("hugetlb.{size}.max")), &limit.to_string())?;
    }
    Ok(())
}

fn write_if_there(path: &Path, text: &str) -> io::Result<()> {
    if path.exists() { fs::write(path, text) } else { Ok(()) }
}

/// Leaves a file alone that says the same, or is not there. Answers whether it has written.
pub(super) fn write_if_other(path: &Path, text: &str) -> io::Result<bool> {
    match fs::read_to_string(path) {
        Ok(old) if old.trim() == text => Ok(false),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Ok(_) | Err(_) => fs::write(path, text).map(|()| true),
    }
}

/// Gives a pod's cgroup below `sys` other bounds, as far as the kernel has others, memory first; each is tried also where another was
/// refused. What is to have no bound is left as it is, as by a kubelet, and so is a cgroup that is not there.
///
/// # Errors
/// What could not be set and why; in the kubelet's words where the pod uses more memory than it is to have.
pub(crate) fn set(
    sys: &Path,
    (pod, class): (&PodId, Qos),
    (driver, root): (CgroupDriver, &str),
    bounds: Bounds,
) -> Result<(), String> {
    let own = folder(&cgroup_parts(pod, class, root), driver);
    let is_v2 = is_v2(sys);
    let at = |controller: &str| if is_v2 { sys.join(&own) } else { sys.join(controller).join(&own) };
    let memory =
        bounds.memory.map_or(Ok(()), |limit| set_memory(&at("memory"), is_v2, limit, "pod").map(drop));
    let cpu = at("cpu");
    let put = |file: &str, text: String| {
        let path = cpu.join(file);
        write_if_other(&path, &text).map(drop).map_err(|error| refused(&path, &text, &error))
    };
    let quota = match bounds.quota {
        None => Ok(()),
        Some(quota) if is_v2 => put("cpu.max", format!("{quota} {PERIOD_US}")),
        Some(quota) => put("cpu.cfs_period_us", PERIOD_US.to_string())
            .and_then(|()| put("cpu.cfs_quota_us", quota.to_string())),
    };
    let shares = if is_v2 {
        put("cpu.weight", weight(bounds.shares).to_string())
    } else {
        put("cpu.shares", bounds.shares.to_string())
    };
    let errors: Vec<String> = [memory, quota, shares].into_iter().filter_map(Result::err).collect();
    if errors.is_empty() { Ok(()) } else { Err(errors.join("; ")) }
}

pub(super) fn refused(path: &Path, text: &str, error: &io::Error) -> String {
    format!("the cgroup: {text} could not be written to {}: {error}", path.display())
}

/// Bounds the memory of what lies in a cgroup, a `whole`. The kernel would end processes of one that uses more, with version 2 at least. Pages of
/// files don't count: it takes those back. Answers whether it had another bound.
pub(super) fn set_memory(at: &Path, is_v2: bool, limit: i64, whole: &str) -> Result<bool, String> {
    let (file, usage, prefix) = if is_v2 {
        ("memory.max", "memory.current", "")
    } else {
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_")
    };
    let (path, number) = (at.join(file), |text: &str| text.trim().parse::<i64>().ok());
    let read = |file: &str| fs::read_to_string(at.join(file)).unwrap_or_default();
    // `max` is none.
    let before = number(&read(file)).unwrap_or(i64::MAX);
    if limit < before
        && let Some(used) = number(&read(usage))
    {
        let stat = read("memory.stat");
        let of_files = |kind: &str| {
            let name = format!("{prefix}{kind}_file ");
            stat.lines().find_map(|line| number(line.strip_prefix(&name)?)).unwrap_or(0)
        };
        let used = used.saturating_sub(of_files("inactive")).saturating_sub(of_files("active"));
        if used >= limit {
            return Err(format!(
                "cannot decrease memory limits: attempting to set {whole} memory limit ({limit}) below current usage ({used})"
            ));
        }
    }
    let text = limit.to_string();
    write_if_other(&path, &text).map_err(|error| refused(&path, &text, &error))
}

/// Takes the bound of its CPUs off a pod: nothing holds back a container that has its own (the kubelet's
/// `DisableCPUQuotaWithExclusiveCPUs`).
pub(crate) fn lift_quota(
    sys: &Path,
    pod: &PodId,
    class: Qos,
    driver: CgroupDriver,
    root: &str,
) -> io::Result<()> {
    let own = folder(&cgroup_parts(pod, class, root), driver);
    if is_v2(sys) {
        write_if_there(&sys.join(own).join("cpu.max"), &format!("max {PERIOD_US}"))
    } else {
        write_if_there(&sys.join("cpu").join(own).join("cpu.cfs_quota_us"), "-1")
    }
}

/// The slices of a pod that are there, whichever class it had.
pub(crate) fn slices_of(sys: &Path, uid: &str, root: &str) -> Vec<String> {
    let tops = hierarchies(sys);
    let all = [None, Some("burstable"), Some("besteffort")].map(|class| {
        let mut parts = class.map_or_else(|| class_parts("", root), |class| class_parts(class, root));
        parts.retain(|part| !part.is_empty());
        parts.push(format!("pod{uid}"));
        parts
    });
    let is_there = |parts: &Vec<String>| {
        let own = folder(parts, CgroupDriver::Systemd);
        tops.iter().any(|top| top.join(&own).is_dir())
    };
    all.iter().filter(|parts| is_there(parts)).map(|parts| slice(parts)).collect()
}

/// Removes the cgroups of a pod in every hierarchy, whichever class it had.
pub(crate) fn remove(sys: &Path, uid: &str, root: &str) {
    let pod = format!("pod{uid}");
    let root = root.trim_matches('/');
    for top in hierarchies(sys) {
        for class in ["", "burstable", "besteffort"] {
            let path = top.join(root).join(class).join(&pod);
            if path.is_dir() {
                remove_tree(&path);
            }
        }
    }
}

fn hierarchies(sys: &Path) -> Vec<PathBuf> {
    if is_v2(sys) {
        return vec![sys.to_owned()];
    }
    let entries = fs::read_dir(sys).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
}

/// A cgroup's files go with it; only folders are removed, the deepest first. One that is still in use stays.
fn remove_tree(path: &Path) {
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_tree(&entry.path());
        }
    }
    drop(fs::remove_dir(path));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::parsed_pod::tests::pod;
    use serde_json::json;

    fn limited() -> ParsedPod {
        pod(json!({"containers": [{"name": "c", "image": "x",
            "resources": {"limits": {"cpu": "500m", "memory": "64Mi"}, "requests": {"cpu": "100m"}}}]}))
    }

    #[test]
    fn version_one_gets_a_folder_per_controller() {
        let sys = tempfile::tempdir().unwrap();
        for controller in CONTROLLERS {
            fs::create_dir(sys.path().join(controller)).unwrap();
        }
        make(sys.path(), &limited(), (CgroupDriver::Cgroupfs, "/kubepods"), &[2 << 20]).unwrap();
        let at = |file: &str| fs::read_to_string(sys.path().join(file)).unwrap();
        assert_eq!(at("cpu/kubepods/burstable/podu-1/cpu.cfs_quota_us"), "50000");
        assert_eq!(at("cpu/kubepods/burstable/podu-1/cpu.shares"), "102");
        assert_eq!(at("memory/kubepods/burstable/podu-1/memory.limit_in_bytes"), (64 << 20).to_string());
        let pod = limited();
        lift_quota(sys.path(), &pod.id, pod.qos, CgroupDriver::Cgroupfs, "/kubepods").unwrap();
        assert_eq!(at("cpu/kubepods/burstable/podu-1/cpu.cfs_quota_us"), "-1");
    }

    /// What is written in which order shows in what is left where the kernel refuses a part.
    #[test]
    fn other_bounds_are_set_in_both_versions_and_memory_that_is_in_use_is_not_taken() {
        let pod = limited();
        let place = (CgroupDriver::Cgroupfs, "/kubepods");
        let wanted = Bounds { shares: 204, quota: Some(20_000), memory: Some(96 << 20) };
        for (cpu, memory, files) in [
            (
                "cpu/",
                "memory/",
                ["memory.limit_in_bytes", "memory.usage_in_bytes", "cpu.cfs_quota_us", "cpu.shares"],
            ),
            ("", "", ["memory.max", "memory.current", "cpu.max", "cpu.weight"]),
        ] {
            let is_v2 = cpu.is_empty();
            let sys = tempfile::tempdir().unwrap();
            if is_v2 {
                fs::write(sys.path().join("cgroup.controllers"), "cpu memory").unwrap();
            }
            let path =
                |top: &str, file: &str| sys.path().join(format!("{top}kubepods/burstable/podu-1/{file}"));
            let set = |bounds| set(sys.path(), (&pod.id, pod.qos), place, bounds);
            set(wanted).unwrap();
            assert!(!path(cpu, "").exists(), "one that is not there is not made");
            for top in [cpu, memory] {
                fs::create_dir_all(path(top, "")).unwrap();
            }
            let [limit, usage, quota, shares] = files;
            let all = [path(memory, limit), path(cpu, quota), path(cpu, shares)];
            let read = || all.clone().map(|path| fs::read_to_string(path).unwrap().trim().to_owned());
            let before = if is_v2 { ["max", "max 100000", "100"] } else { ["67108864", "10000", "102"] };
            for (path, text) in all.iter().zip(before) {
                fs::write(path, format!("{text}\n")).unwrap();
            }
            let big = (96 << 20).to_string();
            fs::write(path(memory, usage), "60000000\n").unwrap();
            set(wanted).unwrap();
            let cpus = if is_v2 { ["20000 100000", "8"] } else { ["20000", "204"] };
            assert_eq!(read(), [big.as_str(), cpus[0], cpus[1]]);
            // The pages of files are taken back; the rest would be too much.
            let stat = "inactive_file 1000000\nactive_file 1000000\ntotal_inactive_file 1000000\ntotal_active_file 1000000\n";
            fs::write(path(memory, "memory.stat"), stat).unwrap();
            let smaller = |memory| Bounds { shares: 2, quota: None, memory: Some(memory) };
            let words = "cannot decrease memory limits: attempting to set pod memory limit (58000000) below current usage (58000000)";
            assert_eq!(set(smaller(58_000_000)).unwrap_err(), words);
            assert_eq!(read(), [big.as_str(), cpus[0], if is_v2 { "1" } else { "2" }]);
            set(smaller(58_000_001)).unwrap();
            assert_eq!(read()[0], "58000001");
            // What can't be written is named, and the rest is set all the same.
            fs::remove_file(&all[1]).unwrap();
            fs::create_dir(&all[1]).unwrap();
            let error = set(Bounds { memory: Some(80 << 20), ..wanted }).unwrap_err();
            assert!(error.contains(&all[1].display().to_string()) && error.contains("20000"), "{error}");
            assert_eq!(fs::read_to_string(&all[0]).unwrap(), (80 << 20).to_string());
        }
    }

    #[test]
    fn version_two_has_one_tree() {
        let sys = tempfile::tempdir().unwrap();
        fs::write(sys.path().join("cgroup.controllers"), "cpu memory").unwrap();
        make(sys.path(), &limited(), (CgroupDriver::Cgroupfs, "/kubepods"), &[2 << 20]).unwrap();
        let path = sys.path().join("kubepods/burstable/podu-1");
        assert!(path.is_dir());
        // A real one loses its files with it.
        remove(sys.path(), "u-1", "/kubepods");
        assert!(!path.exists());
    }

    #[test]
    fn a_slice_that_systemd_has_made_is_given_the_pods_bounds() {
        let sys = tempfile::tempdir().unwrap();
        let own = "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podu_1.slice";
        fs::write(sys.path().join("cgroup.controllers"), "cpu memory").unwrap();
        let (pod, driver) = (limited(), (CgroupDriver::Systemd, "/kubepods"));
        make(sys.path(), &pod, driver, &[]).unwrap();
        assert!(!sys.path().join("kubepods.slice").exists(), "it is systemd's to make");
        fs::create_dir_all(sys.path().join(own)).unwrap();
        let at = |file: &str| sys.path().join(own).join(file);
        for file in ["cpu.weight", "cpu.max", "memory.max"] {
            fs::write(at(file), "").unwrap();
        }
        make(sys.path(), &pod, driver, &[]).unwrap();
        let read = |file: &str| fs::read_to_string(at(file)).unwrap();
        assert_eq!([read("cpu.weight"), read("cpu.max")], ["4", "50000 100000"]);
        assert_eq!(read("memory.max"), (64 << 20).to_string());
        lift_quota(sys.path(), &pod.id, pod.qos, driver.0, driver.1).unwrap();
        assert_eq!(read("cpu.max"), "max 100000");
    }

    #[test]
    fn what_a_runtime_class_takes_is_the_pods_and_huge_pages_are_bounded_by_what_is_asked_for() {
        let resources = json!({"limits": {"cpu": "1", "memory": "64Mi", "hugepages-2Mi": "4Mi"}});
        let containers = json!([{"name": "c", "image": "x", "resources": resources}]);
        let whole = pod(json!({"containers": containers, "overhead": {"cpu": "250m", "memory": "120Mi"}}));
        let found = limits(whole.spec(), &[2 << 20, 1 << 30]);
        assert_eq!(
            (found.bounds.shares, found.bounds.quota, found.bounds.memory),
            (1280, Some(125_000), Some(184 << 20))
        );
        assert_eq!(found.huge_pages, [("2MB".to_owned(), 4 << 20), ("1GB".to_owned(), 0)]);
        let of_whole = |own: serde_json::Value| limits(pod(json!({"resources": own})).spec(), &[2 << 20]);
        let found =
            of_whole(json!({"limits": {"cpu": "2", "hugepages-2Mi": "4Mi"}, "requests": {"cpu": "1"}}));
        assert_eq!(
            (found.bounds.shares, found.bounds.quota, found.bounds.memory),
            (1024, Some(200_000), None)
        );
        assert_eq!(found.huge_pages, [("2MB".to_owned(), 4 << 20)]);
        let found = of_whole(json!({"limits": {"cpu": "2", "memory": "64Mi"}}));
        assert_eq!(
            (found.bounds.shares, found.bounds.quota, found.bounds.memory),
            (2048, Some(200_000), Some(64 << 20))
        );
        let best_effort = pod(json!({"overhead": {"cpu": "250m"}}));
        let found = limits(best_effort.spec(), &[]);
        assert_eq!((found.bounds.shares, found.bounds.quota, found.bounds.memory), (2, None, None));
        // Files of the kernel are there when the folder is.
        let sys = tempfile::tempdir().unwrap();
        let at = sys.path().join("kubepods/podu-1");
        fs::create_dir_all(&at).unwrap();
        fs::write(sys.path().join("cgroup.controllers"), "cpu memory hugetlb").unwrap();
        fs::write(at.join("hugetlb.2MB.max"), "max").unwrap();
        make(sys.path(), &whole, (CgroupDriver::Cgroupfs, "/kubepods"), &[2 << 20]).unwrap();
        assert_eq!(fs::read_to_string(at.join("hugetlb.2MB.max")).unwrap(), (4 << 20).to_string());
    }
}
