//! Every check, one field at a time, as `k8s.io/pod-security-admission` documents it.

use serde_json::{Value, json};

use super::*;

fn reasons(level: Level, minor: u32, pod: &Value) -> Vec<String> {
    let standard = Standard { level, version: Version::Minor(minor) };
    let pod = Subject { metadata: &pod["metadata"], spec: &pod["spec"] };
    violations(standard, pod).into_iter().map(|violation| violation.reason).collect()
}

/// What `restricted` asks for, and nothing more.
fn good() -> Value {
    let own = json!({"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}});
    json!({"metadata": {"name": "p"}, "spec": {
        "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
        "initContainers": [{"name": "i", "image": "x", "securityContext": own}],
        "containers": [{"name": "c", "image": "x", "securityContext": own}]}})
}

fn with(pointer: &str, value: Value) -> Value {
    let mut pod = good();
    let mut here = &mut pod;
    for step in pointer.split('/') {
        here = match step.parse::<usize>() {
            Ok(at) => {
                if !here.is_array() {
                    *here = json!([]);
                }
                let Value::Array(items) = here else { unreachable!() };
                while items.len() <= at {
                    items.push(json!({"name": format!("v{}", items.len())}));
                }
                &mut items[at]
            }
            Err(_) => here.as_object_mut().unwrap().entry(step.replace('~', "/")).or_insert(json!({})),
        };
    }
    *here = value;
    pod
}

const OWN: &str = "spec/containers/0/securityContext";
const INIT: &str = "spec/initContainers/0/securityContext";
const WHOLE: &str = "spec/securityContext";

#[test]
fn a_pod_that_is_hardened_passes_everything() {
    for minor in 0..=40 {
        for level in [Level::Privileged, Level::Baseline, Level::Restricted] {
            assert_eq!(reasons(level, minor, &good()), [""; 0], "{level:?} v1.{minor}");
        }
    }
}

#[test]
fn baseline_forbids_each_way_to_the_node() {
    let profile = |kind: &str| json!({"type": kind});
    let table = [
        (format!("{OWN}/privileged"), json!(true), "privileged"),
        (format!("{INIT}/privileged"), json!(true), "privileged"),
        ("spec/hostNetwork".into(), json!(true), "host namespaces"),
        ("spec/hostPID".into(), json!(true), "host namespaces"),
        ("spec/hostIPC".into(), json!(true), "host namespaces"),
        ("spec/containers/0/ports".into(), json!([{"hostPort": 80}]), "hostPort"),
        ("spec/containers/0/livenessProbe/httpGet/host".into(), json!("10.0.0.1"), "probe or lifecycle host"),
        ("spec/containers/0/startupProbe/tcpSocket/host".into(), json!("x"), "probe or lifecycle host"),
        (
            "spec/initContainers/0/lifecycle/preStop/httpGet/host".into(),
            json!("x"),
            "probe or lifecycle host",
        ),
        (format!("{OWN}/procMount"), json!("Unmasked"), "procMount"),
        (format!("{OWN}/seLinuxOptions"), json!({"type": "spc_t"}), "seLinuxOptions"),
        (format!("{WHOLE}/seLinuxOptions"), json!({"user": "u"}), "seLinuxOptions"),
        (format!("{WHOLE}/seLinuxOptions"), json!({"role": "r"}), "seLinuxOptions"),
        (format!("{WHOLE}/seccompProfile"), profile("Unconfined"), "seccompProfile"),
        (format!("{OWN}/seccompProfile"), profile("Unconfined"), "seccompProfile"),
        (format!("{WHOLE}/appArmorProfile"), profile("Unconfined"), "forbidden AppArmor profile"),
        (format!("{OWN}/appArmorProfile"), profile("Unconfined"), "forbidden AppArmor profile"),
        (
            "metadata/annotations/container.apparmor.security.beta.kubernetes.io~c".into(),
            json!("unconfined"),
            "forbidden AppArmor profile",
        ),
        (format!("{WHOLE}/sysctls"), json!([{"name": "kernel.msgmax", "value": "1"}]), "forbidden sysctls"),
        (format!("{WHOLE}/windowsOptions/hostProcess"), json!(true), "hostProcess"),
        (format!("{OWN}/windowsOptions/hostProcess"), json!(true), "hostProcess"),
    ];
    for (pointer, value, reason) in table {
        let pod = with(&pointer, value);
        for level in [Level::Baseline, Level::Restricted] {
            assert_eq!(reasons(level, 36, &pod), [reason], "{level:?} {pointer}");
        }
        assert_eq!(reasons(Level::Privileged, 36, &pod), [""; 0]);
    }
    // Where a stricter check stands for it, its words are others.
    let added = with(&format!("{OWN}/capabilities/add"), json!(["NET_RAW"]));
    assert_eq!(reasons(Level::Baseline, 36, &added), ["non-default capabilities"]);
    assert_eq!(reasons(Level::Restricted, 36, &added), ["unrestricted capabilities"]);
    let path = with("spec/volumes/0/hostPath", json!({"path": "/"}));
    assert_eq!(reasons(Level::Baseline, 36, &path), ["hostPath volumes"]);
    assert_eq!(reasons(Level::Restricted, 36, &path), ["restricted volume types"]);
}

#[test]
fn restricted_asks_for_hardening() {
    let table = [
        (format!("{OWN}/allowPrivilegeEscalation"), json!(true), "allowPrivilegeEscalation != false"),
        (format!("{INIT}/allowPrivilegeEscalation"), Value::Null, "allowPrivilegeEscalation != false"),
        (format!("{OWN}/capabilities/drop"), json!(["NET_RAW"]), "unrestricted capabilities"),
        (format!("{OWN}/capabilities/add"), json!(["CHOWN"]), "unrestricted capabilities"),
        (format!("{WHOLE}/runAsNonRoot"), json!(false), "runAsNonRoot != true"),
        (format!("{WHOLE}/runAsNonRoot"), Value::Null, "runAsNonRoot != true"),
        (format!("{OWN}/runAsNonRoot"), json!(false), "runAsNonRoot != true"),
        (format!("{WHOLE}/runAsUser"), json!(0), "runAsUser=0"),
        (format!("{INIT}/runAsUser"), json!(0), "runAsUser=0"),
        ("spec/securityContext".into(), json!({"runAsNonRoot": true}), "seccompProfile"),
        ("spec/volumes/0/nfs".into(), json!({"server": "s", "path": "/"}), "restricted volume types"),
        ("spec/volumes/0/gitRepo".into(), json!({"repository": "r"}), "restricted volume types"),
    ];
    for (pointer, value, reason) in table {
        let pod = with(&pointer, value);
        assert_eq!(reasons(Level::Restricted, 36, &pod), [reason], "{pointer}");
        assert_eq!(reasons(Level::Baseline, 36, &pod), [""; 0], "{pointer}");
    }
    for (pointer, value) in [
        (format!("{OWN}/capabilities/add"), json!(["NET_BIND_SERVICE"])),
        (format!("{OWN}/runAsUser"), json!(1000)),
        ("spec/volumes/0/emptyDir".into(), json!({})),
        ("spec/volumes/0/projected".into(), json!({"sources": []})),
        ("spec/volumes/0/image".into(), json!({"reference": "x"})),
        (format!("{WHOLE}/sysctls"), json!([{"name": "net.ipv4.tcp_rmem", "value": "1"}])),
        (format!("{OWN}/seLinuxOptions"), json!({"type": "container_t", "level": "s0"})),
    ] {
        assert_eq!(reasons(Level::Restricted, 36, &with(&pointer, value)), [""; 0], "{pointer}");
    }
}

#[test]
fn a_version_is_of_its_time() {
    // (what, the last minor release that refuses it, the first that does not)
    let sysctl = |name: &str| with(&format!("{WHOLE}/sysctls"), json!([{"name": name, "value": "1"}]));
    for (name, since) in [
        ("net.ipv4.ip_local_reserved_ports", 27),
        ("net.ipv4.tcp_keepalive_time", 29),
        ("net.ipv4.tcp_wmem", 32),
    ] {
        assert_eq!(reasons(Level::Baseline, since - 1, &sysctl(name)), ["forbidden sysctls"]);
        assert_eq!(reasons(Level::Baseline, since, &sysctl(name)), [""; 0]);
    }
    // Of 1.37: `latest` is 1.36 here.
    assert_eq!(reasons(Level::Baseline, 99, &sysctl("net.ipv4.tcp_notsent_lowat")), ["forbidden sysctls"]);
    let engine = with(&format!("{WHOLE}/seLinuxOptions"), json!({"type": "container_engine_t"}));
    assert_eq!(reasons(Level::Baseline, 30, &engine), ["seLinuxOptions"]);
    assert_eq!(reasons(Level::Baseline, 31, &engine), [""; 0]);
    let host = with("spec/containers/0/livenessProbe/httpGet/host", json!("x"));
    assert_eq!(reasons(Level::Baseline, 33, &host), [""; 0]);
    let annotation =
        with("metadata/annotations/seccomp.security.alpha.kubernetes.io~pod", json!("unconfined"));
    assert_eq!(reasons(Level::Baseline, 18, &annotation), ["seccompProfile"]);
    assert_eq!(reasons(Level::Baseline, 19, &annotation), [""; 0]);
    let root = with(&format!("{OWN}/runAsUser"), json!(0));
    assert_eq!(reasons(Level::Restricted, 22, &root), [""; 0]);
    let mut windows = good();
    windows["spec"]["os"] = json!({"name": "windows"});
    for container in ["initContainers", "containers"] {
        windows["spec"][container][0]["securityContext"] = json!({});
    }
    windows["spec"]["securityContext"] = json!({"runAsNonRoot": true});
    assert_eq!(reasons(Level::Restricted, 25, &windows), [""; 0]);
    assert_eq!(reasons(Level::Restricted, 24, &windows).len(), 3);
}

#[test]
fn root_of_a_user_namespace_is_not_root_of_the_node() {
    let mut pod = with(&format!("{OWN}/runAsUser"), json!(0));
    pod["spec"]["securityContext"]["runAsNonRoot"] = json!(false);
    pod["spec"]["hostUsers"] = json!(false);
    assert_eq!(reasons(Level::Restricted, 34, &pod), ["runAsNonRoot != true", "runAsUser=0"]);
    assert_eq!(reasons(Level::Restricted, 35, &pod), [""; 0]);
    let mut unmasked = with(&format!("{OWN}/procMount"), json!("Unmasked"));
    unmasked["spec"]["hostUsers"] = json!(false);
    assert_eq!(reasons(Level::Baseline, 34, &unmasked), ["procMount"]);
    assert_eq!(reasons(Level::Baseline, 35, &unmasked), [""; 0]);
    assert_eq!(reasons(Level::Restricted, 35, &unmasked), ["procMount"]);
}

#[test]
fn the_words_are_those_of_an_api_server() {
    let pod = json!({"metadata": {}, "spec": {"containers": [{"name": "a"}, {"name": "b"}]}});
    let standard = Standard { level: Level::Restricted, version: Version::Latest };
    let found = violations(standard, Subject { metadata: &pod["metadata"], spec: &pod["spec"] });
    assert_eq!(
        detailed(&found),
        "allowPrivilegeEscalation != false (containers \"a\", \"b\" must set \
         securityContext.allowPrivilegeEscalation=false), unrestricted capabilities (containers \"a\", \"b\" must set \
         securityContext.capabilities.drop=[\"ALL\"]), runAsNonRoot != true (pod or containers \"a\", \"b\" must set \
         securityContext.runAsNonRoot=true), seccompProfile (pod or containers \"a\", \"b\" must set \
         securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\")"
    );
}

#[test]
fn labels_make_a_policy() {
    let of = |labels: Value| {
        let labels: serde_json::Map<String, Value> = labels
            .as_object()
            .unwrap()
            .iter()
            .map(|(name, value)| (format!("pod-security.kubernetes.io/{name}"), value.clone()))
            .collect();
        let (policy, wrong) = policy(&json!({"metadata": {"labels": labels}}));
        (policy.enforce.to_string(), policy.warn.to_string(), wrong.len())
    };
    let told = |enforce: &str, warn: &str, wrong: usize| (enforce.to_owned(), warn.to_owned(), wrong);
    assert_eq!(of(json!({})), told("privileged:latest", "privileged:latest", 0));
    assert_eq!(of(json!({"enforce": "baseline"})), told("baseline:latest", "baseline:latest", 0));
    assert_eq!(
        of(json!({"enforce": "baseline", "enforce-version": "v1.30"})),
        told("baseline:v1.30", "baseline:v1.30", 0)
    );
    assert_eq!(
        of(json!({"enforce": "baseline", "warn": "restricted", "warn-version": "v1.0"})),
        told("baseline:latest", "restricted:v1.0", 0)
    );
    // A mistake closes what is enforced.
    assert_eq!(of(json!({"enforce": "x", "warn": "y"})), told("restricted:latest", "privileged:latest", 2));
}
