//! The checks of `restricted`: what hardening asks of a pod, over `baseline`.

use std::collections::BTreeSet;

use kubeapi::unstructured::{list, number, text};
use serde_json::{Value, json};

use super::baseline::{is_known_seccomp, proc_mount};
use super::{Subject, Violation, containers, plural, quoted, setters};

type Check = fn(Subject<'_>, u32) -> Option<Violation>;

/// The first minor release of each check, in the order of their ids.
const CHECKS: &[(u32, Check)] = &[
    (8, escalation),
    (22, capabilities),
    (35, proc_mount),
    (0, volumes),
    (0, non_root),
    (23, user),
    (19, seccomp),
];

pub(super) fn violations(pod: Subject<'_>, minor: u32) -> Vec<Violation> {
    let checks = CHECKS.iter().filter(|(since, _)| minor >= *since);
    checks.filter_map(|(_, check)| check(pod, minor)).collect()
}

/// The checks of `baseline` that stricter ones stand for.
pub(super) fn overrides(minor: u32) -> Vec<&'static str> {
    let mut ids = vec!["hostPathVolumes"];
    for (since, id) in [(19, "seccompProfile_baseline"), (22, "capabilities_baseline"), (35, "procMount")] {
        if minor >= since {
            ids.push(id);
        }
    }
    ids
}

/// Windows knows none of it, and says so in its name.
fn spared(pod: Subject<'_>, minor: u32) -> bool {
    minor >= 25 && pod.is_windows()
}

fn escalation(pod: Subject<'_>, minor: u32) -> Option<Violation> {
    if spared(pod, minor) {
        return None;
    }
    let names = pod.bad(|container| {
        container.pointer("/securityContext/allowPrivilegeEscalation") != Some(&json!(false))
    });
    if names.is_empty() {
        return None;
    }
    let detail = format!("{} must set securityContext.allowPrivilegeEscalation=false", containers(&names));
    Violation::new("allowPrivilegeEscalation != false", detail)
}

fn capabilities(pod: Subject<'_>, minor: u32) -> Option<Violation> {
    if spared(pod, minor) {
        return None;
    }
    let keeping = pod.bad(|container| {
        !list(container, "/securityContext/capabilities/drop").iter().any(|dropped| dropped == "ALL")
    });
    let mut found = BTreeSet::new();
    let adding = pod.bad(|container| {
        let added = list(container, "/securityContext/capabilities/add").iter().filter_map(Value::as_str);
        let foreign: Vec<&str> = added.filter(|name| *name != "NET_BIND_SERVICE").collect();
        found.extend(foreign.iter().copied());
        !foreign.is_empty()
    });
    let mut told = Vec::new();
    if !keeping.is_empty() {
        let who = containers(&keeping);
        told.push(format!("{who} must set securityContext.capabilities.drop=[\"ALL\"]"));
    }
    if !adding.is_empty() {
        let who = containers(&adding);
        let what = quoted(found);
        told.push(format!("{who} must not include {what} in securityContext.capabilities.add"));
    }
    if told.is_empty() { None } else { Violation::new("unrestricted capabilities", told.join("; ")) }
}

const ALLOWED_VOLUMES: &[&str] = &[
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "image",
    "persistentVolumeClaim",
    "projected",
    "secret",
];

fn volumes(pod: Subject<'_>, _: u32) -> Option<Violation> {
    let (mut names, mut kinds) = (Vec::new(), BTreeSet::new());
    for volume in list(pod.spec, "/volumes") {
        let sources = volume.as_object().into_iter().flatten();
        let mut sources = sources.filter(|(_, source)| source.is_object()).map(|(kind, _)| kind.as_str());
        let mut kind = "unknown";
        if sources.any(|source| {
            kind = source;
            ALLOWED_VOLUMES.contains(&source)
        }) {
            continue;
        }
        names.push(text(volume, "/name"));
        kinds.insert(kind);
    }
    if names.is_empty() {
        return None;
    }
    let detail = format!(
        "{} {} {} {} {}",
        plural("volume", "volumes", names.len()),
        quoted(&names),
        plural("uses", "use", names.len()),
        plural("restricted volume type", "restricted volume types", kinds.len()),
        quoted(kinds)
    );
    Violation::new("restricted volume types", detail)
}

fn non_root(pod: Subject<'_>, minor: u32) -> Option<Violation> {
    if minor >= 35 && pod.has_own_users() {
        return None;
    }
    let said = |owner: &Value| owner.pointer("/securityContext/runAsNonRoot").and_then(Value::as_bool);
    let whole = said(pod.spec);
    let rooted = pod.bad(|container| said(container) == Some(false));
    if let Some(who) = setters(whole == Some(false), &rooted) {
        let detail = format!("{who} must not set securityContext.runAsNonRoot=false");
        return Violation::new("runAsNonRoot != true", detail);
    }
    let silent = pod.bad(|container| said(container).is_none() && whole != Some(true));
    if silent.is_empty() {
        return None;
    }
    let detail = format!("pod or {} must set securityContext.runAsNonRoot=true", containers(&silent));
    Violation::new("runAsNonRoot != true", detail)
}

fn user(pod: Subject<'_>, minor: u32) -> Option<Violation> {
    if minor >= 35 && pod.has_own_users() {
        return None;
    }
    let is_root = |owner: &Value| number(owner, "/securityContext/runAsUser") == Some(0);
    let who = setters(is_root(pod.spec), &pod.bad(is_root))?;
    Violation::new("runAsUser=0", format!("{who} must not set runAsUser=0"))
}

fn seccomp(pod: Subject<'_>, minor: u32) -> Option<Violation> {
    if spared(pod, minor) {
        return None;
    }
    let said = |owner: &Value| {
        owner.pointer("/securityContext/seccompProfile").map(|profile| text(profile, "/type").to_owned())
    };
    let mut kinds = BTreeSet::new();
    let mut is_bad = |owner: &Value| {
        let bad = said(owner).filter(|kind| !is_known_seccomp(kind));
        let is_bad = bad.is_some();
        kinds.extend(bad);
        is_bad
    };
    let whole = is_bad(pod.spec);
    let names = pod.bad(is_bad);
    if let Some(who) = setters(whole, &names) {
        let detail = format!("{who} must not set securityContext.seccompProfile.type to {}", quoted(kinds));
        return Violation::new("seccompProfile", detail);
    }
    let covered = said(pod.spec).is_some();
    let silent = pod.bad(|container| said(container).is_none() && !covered);
    if silent.is_empty() {
        return None;
    }
    let detail = format!(
        "pod or {} must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\"",
        containers(&silent)
    );
    Violation::new("seccompProfile", detail)
}
