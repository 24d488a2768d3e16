//! Who called, out of what the kernel writes below `/proc`. Pure.
//!
//! A pod is known by its cgroup, whose path begins with `/kubepods` (cgroupfs) or `/kubepods.slice` (systemd), in each
//! hierarchy of version 1 and in the one of version 2. Only that place counts: whoever may make cgroups of his own below
//! another one (a user's session, a container) may call those as he likes.

/// 64 KiB: a few lines are all that is ever read of a file of `/proc`.
pub(crate) const PROC_MAX: u64 = 64 << 10;
/// 128 characters of a pod's uid: an API server gives 36.
const UID_MAX: usize = 128;
/// The root of all pods' cgroups, which KubeEdge and the kubelet have, too.
const ROOT: &str = "kubepods";

/// Where a process is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum CgroupOwner {
    /// In a pod with this uid.
    Pod(String),
    /// In no pod.
    Host,
}

/// Reads `/proc/PID/cgroup`.
///
/// # Errors
/// A sentence, when it names no one place: nothing that is known of the process may then be believed.
pub(crate) fn cgroup_owner(cgroups: &str) -> Result<CgroupOwner, &'static str> {
    let mut found: Option<String> = None;
    let mut lines = 0;
    for line in cgroups.lines() {
        // hierarchy-ID:controllers:path; the path may hold colons, too.
        let path = line.splitn(3, ':').nth(2).ok_or("its cgroups are not understood")?;
        lines += 1;
        let Some(uid) = pod_of(path)? else { continue };
        match &found {
            Some(before) if *before != uid => return Err("its cgroups are of two pods"),
            Some(_) => {}
            None => found = Some(uid),
        }
    }
    if lines == 0 {
        return Err("it has no cgroup");
    }
    // Hierarchies that the runtime does not use have the process at their top.
    Ok(found.map_or(CgroupOwner::Host, CgroupOwner::Pod))
}

/// The uid of the pod that a cgroup belongs to; `None`: it belongs to none.
fn pod_of(path: &str) -> Result<Option<String>, &'static str> {
    let Some(path) = path.strip_prefix('/') else { return Err("its cgroups are not understood") };
    let mut parts = path.split('/');
    match parts.next() {
        // Seen from another cgroup namespace, where paths say nothing.
        Some("..") => Err("its cgroups lie outside of what edgecore sees"),
        Some(ROOT) => cgroupfs(parts).map(Some),
        Some("kubepods.slice") => systemd(parts).map(Some),
        Some(_) | None => Ok(None),
    }
}

const NO_POD: &str = "it is among the pods' cgroups, and in none of theirs";

/// `[burstable|besteffort/]pod<uid>[/container…]`
fn cgroupfs<'a>(mut parts: impl Iterator<Item = &'a str>) -> Result<String, &'static str> {
    let first = parts.next().ok_or(NO_POD)?;
    let pod = if matches!(first, "burstable" | "besteffort") { parts.next() } else { Some(first) };
    uid(pod.and_then(|pod| pod.strip_prefix("pod")))
}

/// `[kubepods-<class>.slice/]kubepods[-<class>]-pod<uid>.slice[/cri-containerd-….scope]`, where `-` in a uid is `_`.
fn systemd<'a>(mut parts: impl Iterator<Item = &'a str>) -> Result<String, &'static str> {
    let first = parts.next().ok_or(NO_POD)?;
    let (slice, before) = match first {
        "kubepods-burstable.slice" => (parts.next(), "kubepods-burstable-pod"),
        "kubepods-besteffort.slice" => (parts.next(), "kubepods-besteffort-pod"),
        other => (Some(other), "kubepods-pod"),
    };
    let named = slice.and_then(|slice| slice.strip_prefix(before)?.strip_suffix(".slice"));
    uid(named.map(|uid| uid.replace('_', "-")).as_deref())
}

fn uid(text: Option<&str>) -> Result<String, &'static str> {
    let is_uid = |uid: &&str| {
        !uid.is_empty() && uid.len() <= UID_MAX && uid.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    text.filter(is_uid).map(str::to_owned).ok_or(NO_POD)
}

/// When a process began, in ticks since the boot: field 22 of `/proc/PID/stat`. `None`: not understood, or the process
/// has ended and only waits for its parent.
pub(crate) fn began(stat: &str) -> Option<u64> {
    // The name of the program stands in brackets and may hold anything, brackets included.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X" | "x") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

/// The process of a pidfd, from its `/proc/self/fdinfo/FD`; `None`: it has ended.
pub(crate) fn of_pidfd(info: &str) -> Option<i32> {
    let line = info.lines().find_map(|line| line.strip_prefix("Pid:"))?;
    line.trim().parse().ok().filter(|pid| *pid > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const UID: &str = "0b5f63a1-9c0e-4d5b-9d3a-6f3f1f0c9a11";

    fn pod(path: &str) -> Result<CgroupOwner, &'static str> {
        cgroup_owner(&format!("0::{path}\n"))
    }

    #[test]
    fn both_drivers_and_both_versions_name_the_pod() {
        let spelt = UID.replace('-', "_");
        for path in [
            format!("/kubepods/pod{UID}/5ab"),
            format!("/kubepods/burstable/pod{UID}/5ab"),
            format!("/kubepods/besteffort/pod{UID}"),
            format!("/kubepods.slice/kubepods-pod{spelt}.slice/cri-containerd-5ab.scope"),
            format!(
                "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{spelt}.slice/crio-5ab.scope"
            ),
            format!("/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{spelt}.slice"),
            format!("/kubepods/pod{UID}/5ab/kubepods/podother/x"),
        ] {
            assert_eq!(pod(&path), Ok(CgroupOwner::Pod(UID.to_owned())), "{path}");
        }
        let old = format!(
            "3:cpu,cpuacct:/kubepods/pod{UID}/5\n2:memory:/kubepods/pod{UID}/5\n1:name=systemd:/\n0::/\n"
        );
        assert_eq!(cgroup_owner(&old), Ok(CgroupOwner::Pod(UID.to_owned())));
    }

    #[test]
    fn whoever_names_a_cgroup_himself_is_in_no_pod() {
        for path in [
            "/",
            "/system.slice/edgecore.service",
            "/user.slice/user-1000.slice/user@1000.service/kubepods/podvictim/c",
            "/user.slice/user-1000.slice/user@1000.service/kubepods.slice/kubepods-podvictim.slice",
            "/kubepods-podvictim.slice",
            "/docker/5ab/kubepods/podvictim",
            "/kubepodsx/podvictim",
        ] {
            assert_eq!(pod(path), Ok(CgroupOwner::Host), "{path}");
        }
    }

    #[test]
    fn what_is_not_understood_is_nobody() {
        let long = format!("/kubepods/pod{}", "a".repeat(129));
        for path in [
            "/kubepods",
            "/kubepods/burstable",
            "/kubepods/pod",
            "/kubepods/pod/x",
            "/kubepods/x/podvictim",
            "/kubepods/podvic..tim",
            "/kubepods/pod../x",
            "/kubepods/podü",
            &long,
            "/kubepods.slice/kubepods-burstable-podvictim.slice",
            "/kubepods.slice/kubepods-burstable.slice/kubepods-podvictim.slice",
            "/kubepods.slice/kubepods-podvictim.scope",
            "/../kubepods/podvictim",
            "kubepods/podvictim",
            "",
        ] {
            assert!(pod(path).is_err(), "{path}");
        }
        assert!(cgroup_owner("").is_err());
        assert!(cgroup_owner("0\n").is_err());
        assert!(cgroup_owner("2:cpu:/kubepods/poda/c\n1:memory:/kubepods/podb/c\n").is_err(), "two pods");
        assert_eq!(cgroup_owner("1:name=a:b:/x\n0::/a\n").ok(), None, "a path begins at the top");
    }

    #[test]
    fn damage_makes_no_pod_of_another_name() {
        let spelt = UID.replace('-', "_");
        let whole = [
            format!("0::/kubepods/burstable/pod{UID}/5ab\n"),
            format!(
                "0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{spelt}.slice/c.scope\n"
            ),
            format!("3:cpu:/kubepods/pod{UID}/5\n1:name=systemd:/\n0::/\n"),
        ];
        for text in &whole {
            for at in 0..=text.len() {
                let (before, after) = text.split_at(at);
                for piece in
                    ["", "/", "..", "\n", ":", "\0", "pod", "_", "-", ".slice", "\u{202e}", "\u{fffd}"]
                {
                    for damaged in [format!("{before}{piece}"), format!("{before}{piece}{after}")] {
                        if let Ok(CgroupOwner::Pod(uid)) = cgroup_owner(&damaged) {
                            let plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
                            assert!(
                                !uid.is_empty() && uid.len() <= UID_MAX && uid.chars().all(plain),
                                "{damaged:?}"
                            );
                        }
                        let _ = (began(&damaged), of_pidfd(&damaged));
                    }
                }
            }
        }
    }

    #[test]
    fn a_process_is_told_by_its_start_whatever_its_name() {
        let fields = "S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4711 20 21";
        for name in ["(x)", "(a b)", "(a) Z 9 9 (b)", "())"] {
            assert_eq!(began(&format!("42 {name} {fields}")), Some(4711), "{name}");
        }
        assert_eq!(began(&format!("42 (x) Z{}", &fields[1..])), None);
        for bad in
            ["", "42", "42 (x)", "42 (x) S 1 2", "42 (x) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 x"]
        {
            assert_eq!(began(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_pidfd_says_whose_it_is() {
        assert_eq!(of_pidfd("pos:\t0\nflags:\t02\nPid:\t42\nNSpid:\t42\n"), Some(42));
        for ended in ["Pid:\t-1\n", "Pid:\t0\n", "Pid:\tx\n", "pos:\t0\n", ""] {
            assert_eq!(of_pidfd(ended), None, "{ended}");
        }
    }
}
