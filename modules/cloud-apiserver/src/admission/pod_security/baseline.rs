//! The checks of `baseline`: known ways from a pod to its node.

use std::collections::BTreeSet;

use kubeapi::unstructured::{list, number, text};
use serde_json::{Value, json};

use super::{Subject, Violation, containers, plural, quoted, setters};

type Check = fn(Subject<'_>, u32) -> Option<Violation>;

/// In the order of their ids, which is that of their words in a refusal.
const CHECKS: &[(&str, Check)] = &[
    ("appArmorProfile", app_armor),
    ("capabilities_baseline", capabilities),
    ("hostNamespaces", host_namespaces),
    ("hostPathVolumes", host_paths),
    ("hostPorts", host_ports),
    ("hostProbesAndHostLifecycle", probe_hosts),
    ("privileged", privileged),
    ("procMount", proc_mount_unless_own_users),
    ("seLinuxOptions", selinux),
    ("seccompProfile_baseline", seccomp),
    ("sysctls", sysctls),
    ("windowsHostProcess", windows_host_process),
];

/// What the checks have against a pod, but for those that a stricter one stands for.
pub(super) fn violations(pod: Subject<'_>, minor: u32, overridden: &[&str]) -> Vec<Violation> {
    let checks = CHECKS.iter().filter(|(id, _)| !overridden.contains(id));
    checks.filter_map(|(_, check)| check(pod, minor)).collect()
}

fn app_armor(pod: Subject<'_>, _: u32) -> Option<Violation> {
    let mut values = BTreeSet::new();
    let mut is_bad = |owner: &Value| {
        let Some(profile) = owner.pointer("/securityContext/appArmorProfile") else { return false };
        let kind = text(profile, "/type");
        let bad = !matches!(kind, "RuntimeDefault" | "Localhost");
        if bad {
            values.insert(kind.to_owned());
        }
        bad
    };
    let whole = is_bad(pod.spec);
    let names = pod.bad(is_bad);
    let annotations: BTreeSet<String> = pod
        .annotations()
        .filter(|(key, _)| key.starts_with("container.apparmor.security.beta.kubernetes.io/"))
        .filter(|(_, value)| !matches!(*value, "" | "runtime/default") && !value.starts_with("localhost/"))
        .map(|(key, value)| format!("{key}={value:?}"))
        .collect();
    let mut who: Vec<String> = setters(whole, &names).into_iter().collect();
    if !annotations.is_empty() {
        who.push(plural("annotation", "annotations", annotations.len()).to_owned());
    }
    if who.is_empty() {
        return None;
    }
    let all: Vec<String> = values.into_iter().chain(annotations).collect();
    Violation::new(
        plural("forbidden AppArmor profile", "forbidden AppArmor profiles", all.len()),
        format!("{} must not set AppArmor profile type to {}", who.join(" and "), quoted(all)),
    )
}

const DEFAULT_CAPABILITIES: &[&str] = &[
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

fn capabilities(pod: Subject<'_>, _: u32) -> Option<Violation> {
    let mut found = BTreeSet::new();
    let names = pod.bad(|container| {
        let added = list(container, "/securityContext/capabilities/add").iter().filter_map(Value::as_str);
        let foreign: Vec<&str> = added.filter(|name| !DEFAULT_CAPABILITIES.contains(name)).collect();
        found.extend(foreign.iter().copied());
        !foreign.is_empty()
    });
    if names.is_empty() {
        return None;
    }
    let what = "must not include";
    let detail =
        format!("{} {what} {} in securityContext.capabilities.add", containers(&names), quoted(found));
    Violation::new("non-default capabilities", detail)
}

fn host_namespaces(pod: Subject<'_>, _: u32) -> Option<Violation> {
    let shared = ["hostNetwork", "hostPID", "hostIPC"].into_iter();
    let shared: Vec<String> =
        shared.filter(|field| pod.spec[*field] == json!(true)).map(|field| format!("{field}=true")).collect();
    if shared.is_empty() { None } else { Violation::new("host namespaces", shared.join(", ")) }
}

fn host_paths(pod: Subject<'_>, _: u32) -> Option<Violation> {
    let volumes = list(pod.spec, "/volumes").iter().filter(|volume| volume["hostPath"].is_object());
    let names: Vec<&str> = volumes.map(|volume| text(volume, "/name")).collect();
    if names.is_empty() {
        return None;
    }
    let detail = format!("{} {}", plural("volume", "volumes", names.len()), quoted(&names));
    Violation::new("hostPath volumes", detail)
}

fn host_ports(pod: Subject<'_>, _: u32) -> Option<Violation> {
    let mut found = BTreeSet::new();
    let names = pod.bad(|container| {
        let ports = list(container, "/ports").iter().filter_map(|port| number(port, "/hostPort"));
        let taken: Vec<i64> = ports.filter(|port| *port != 0).collect();
        found.extend(taken.iter().map(i64::to_string));
        !taken.is_empty()
    });
    if names.is_empty() {
        return None;
    }
    let detail = format!(
        "{} {} {} {}",
        containers(&names),
        plural("uses", "use", names.len()),
        plural("hostPort", "hostPorts", found.len()),
        Vec::from_iter(found).join(", ")
    );
    Violation::new("hostPort", detail)
}

/// The node itself asks a probe's host: another one than the pod's could be anything that the node reaches.
fn probe_hosts(pod: Subject<'_>, minor: u32) -> Option<Violation> {
    if minor < 34 {
        return None;
    }
    let handlers =
        ["/livenessProbe", "/readinessProbe", "/startupProbe", "/lifecycle/postStart", "/lifecycle/preStop"];
    let mut hosts = BTreeSet::new();
    let names = pod.bad(|container| {
        let of = |handler: &&str| {
            ["httpGet", "tcpSocket"].map(|action| text(container, &format!("{handler}/{action}/host")))
        };
        let named: Vec<&str> = handlers.iter().flat_map(of).filter(|host| !host.is_empty()).collect();
        hosts.extend(named.iter().copied());
        !named.is_empty()
    });
    if names.is_empty() {
        return None;
    }
    let names = Vec::from_iter(names.into_iter().collect::<BTreeSet<_>>());
    let detail = format!(
        "{} {} {} {}",
        containers(&names),
        plural("uses", "use", names.len()),
        plural("probe or lifecycle host", "probe or lifecycle hosts", hosts.len()),
        quoted(hosts)
    );
    Violation::new("probe or lifecycle host", detail)
}

fn privileged(pod: Subject<'_>, _: u32) -> Option<Violation> {
    let names = pod.bad(|container| container.pointer("/securityContext/privileged") == Some(&json!(true)));
    if names.is_empty() {
        return None;
    }
    let detail = format!("{} must not set securityContext.privileged=true", containers(&names));
    Violation::new("privileged", detail)
}

fn proc_mount_unless_own_users(pod: Subject<'_>, minor: u32) -> Option<Violation> {
    if minor >= 35 && pod.has_own_users() { None } else { proc_mount(pod, minor) }
}

pub(super) fn proc_mount(pod: Subject<'_>, _: u32) -> Option<Violation> {
    let mut kinds = BTreeSet::new();
    let names = pod.bad(|container| {
        let kind = container.pointer("/securityContext/procMount").and_then(Value::as_str);
        let bad = kind.filter(|kind| *kind != "Default");
        kinds.extend(bad);
        bad.is_some()
    });
    if names.is_empty() {
        return None;
    }
    let detail =
        format!("{} must not set securityContext.procMount to {}", containers(&names), quoted(kinds));
    Violation::new("procMount", detail)
}

fn selinux(pod: Subject<'_>, minor: u32) -> Option<Violation> {
    let mut kinds = BTreeSet::new();
    let (mut user, mut role) = (false, false);
    let mut is_bad = |owner: &Value| {
        let Some(options) = owner.pointer("/securityContext/seLinuxOptions") else { return false };
        let kind = text(options, "/type");
        let known = matches!(kind, "" | "container_t" | "container_init_t" | "container_kvm_t")
            || minor >= 31 && kind == "container_engine_t";
        if !known {
            kinds.insert(kind.to_owned());
        }
        let (has_user, has_role) = (!text(options, "/user").is_empty(), !text(options, "/role").is_empty());
        user |= has_user;
        role |= has_role;
        !known || has_user || has_role
    };
    let whole = is_bad(pod.spec);
    let names = pod.bad(is_bad);
    let who = setters(whole, &names)?;
    let mut told = Vec::new();
    if !kinds.is_empty() {
        told.push(format!("{} {}", plural("type", "types", kinds.len()), quoted(&kinds)));
    }
    if user {
        told.push("user may not be set".to_owned());
    }
    if role {
        told.push("role may not be set".to_owned());
    }
    let detail = format!("{who} set forbidden securityContext.seLinuxOptions: {}", told.join("; "));
    Violation::new("seLinuxOptions", detail)
}

pub(super) fn is_known_seccomp(kind: &str) -> bool {
    matches!(kind, "RuntimeDefault" | "Localhost")
}

fn seccomp(pod: Subject<'_>, minor: u32) -> Option<Violation> {
    if minor < 19 {
        return seccomp_annotations(pod);
    }
    let mut kinds = BTreeSet::new();
    let mut is_bad = |owner: &Value| {
        let Some(profile) = owner.pointer("/securityContext/seccompProfile") else { return false };
        let kind = text(profile, "/type");
        let bad = !is_known_seccomp(kind);
        if bad {
            kinds.insert(kind.to_owned());
        }
        bad
    };
    let whole = is_bad(pod.spec);
    let names = pod.bad(is_bad);
    let who = setters(whole, &names)?;
    Violation::new(
        "seccompProfile",
        format!("{who} must not set securityContext.seccompProfile.type to {}", quoted(kinds)),
    )
}

/// Before the field there were annotations.
fn seccomp_annotations(pod: Subject<'_>) -> Option<Violation> {
    const ALPHA: &str = "seccomp.security.alpha.kubernetes.io/";
    let own: BTreeSet<String> =
        pod.containers().map(|container| format!("container.{ALPHA}{}", text(container, "/name"))).collect();
    let forbidden: BTreeSet<String> = pod
        .annotations()
        .filter(|(key, _)| **key == format!("{ALPHA}pod") || own.contains(*key))
        .filter(|(_, value)| {
            !matches!(*value, "runtime/default" | "docker/default") && !value.starts_with("localhost/")
        })
        .map(|(key, value)| format!("{key}={value:?}"))
        .collect();
    if forbidden.is_empty() {
        return None;
    }
    let detail = format!(
        "forbidden {} {}",
        plural("annotation", "annotations", forbidden.len()),
        Vec::from_iter(forbidden).join(", ")
    );
    Violation::new("seccompProfile", detail)
}

/// Sysctls that are a pod's own and harm nobody else, with the minor release that took them in.
const SAFE_SYSCTLS: &[(&str, u32)] = &[
    ("kernel.shm_rmid_forced", 0),
    ("net.ipv4.ip_local_port_range", 0),
    ("net.ipv4.tcp_syncookies", 0),
    ("net.ipv4.ping_group_range", 0),
    ("net.ipv4.ip_unprivileged_port_start", 0),
    ("net.ipv4.ip_local_reserved_ports", 27),
    ("net.ipv4.tcp_keepalive_time", 29),
    ("net.ipv4.tcp_fin_timeout", 29),
    ("net.ipv4.tcp_keepalive_intvl", 29),
    ("net.ipv4.tcp_keepalive_probes", 29),
    ("net.ipv4.tcp_rmem", 32),
    ("net.ipv4.tcp_wmem", 32),
];

fn sysctls(pod: Subject<'_>, minor: u32) -> Option<Violation> {
    let is_safe = |name: &str| SAFE_SYSCTLS.iter().any(|(safe, since)| *safe == name && minor >= *since);
    let names = list(pod.spec, "/securityContext/sysctls").iter().map(|sysctl| text(sysctl, "/name"));
    let forbidden: Vec<&str> = names.filter(|name| !is_safe(name)).collect();
    if forbidden.is_empty() { None } else { Violation::new("forbidden sysctls", forbidden.join(", ")) }
}

fn windows_host_process(pod: Subject<'_>, _: u32) -> Option<Violation> {
    let is_bad =
        |owner: &Value| owner.pointer("/securityContext/windowsOptions/hostProcess") == Some(&json!(true));
    let who = setters(is_bad(pod.spec), &pod.bad(is_bad))?;
    let detail = format!("{who} must not set securityContext.windowsOptions.hostProcess=true");
    Violation::new("hostProcess", detail)
}
