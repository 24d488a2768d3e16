//! The container runtime: whether it answers, has CRI, has a network and makes cgroups as edgecore expects. The verdicts are pure.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use beehive::Env;
use config::edge::EdgeCore;
use cri::v1::{CgroupDriver, RuntimeStatus, VersionResponse};
use cri::{Error, Grpc, Runtime};

use crate::cgroup_driver;
use crate::cni::{self, Network};
use crate::finding::{Finding, Grade};
use crate::host::Host;
use crate::words::short;

const ENDPOINT: &str = "RuntimeEndpoint";
const PLUGIN: &str = "CriPlugin";
const NETWORK: &str = "CniConfiguration";
const DRIVER: &str = "CgroupDriver";
/// 4 s for an answer: a runtime that works gives it at once.
const ANSWERS_WITHIN: Duration = Duration::from_secs(4);
/// Of what containerd hears nothing: it watches one folder for writes.
const UNSEEN: &str = "containerd 1.6 only after `systemctl restart containerd`, which ends no container, where the file was moved there or the folder \
                      itself is new";
/// Where runtimes listen: which of them is there is said with a wrong endpoint.
const SOCKETS: [&str; 4] = [
    "/run/containerd/containerd.sock",
    "/run/crio/crio.sock",
    "/run/cri-dockerd.sock",
    "/run/k3s/containerd/containerd.sock",
];

/// What a runtime said, or why it said nothing.
pub struct RuntimeSeen {
    /// Which it is.
    pub version: Result<VersionResponse, Error>,
    /// How it is.
    pub status: Result<RuntimeStatus, Error>,
    /// Its own configuration, by name: nothing of it is promised.
    pub info: HashMap<String, String>,
    /// Who makes its cgroups; `None`: it does not say.
    pub cgroup_driver: Option<CgroupDriver>,
}

/// A client of the runtime that the settings name.
///
/// # Errors
/// When they name none that can be dialled.
pub fn client(settings: &EdgeCore) -> Result<Grpc, Error> {
    let endpoint = &settings.modules.edged.tailored_kubelet_config.container_runtime_endpoint;
    Grpc::new(endpoint, endpoint, ANSWERS_WITHIN)
}

/// Asks the one that the settings name. Takes 4 s at the most, and a little.
pub async fn ask(settings: &EdgeCore, env: &Env) -> RuntimeSeen {
    match client(settings) {
        Ok(runtime) => ask_one(&runtime, env).await,
        Err(error) => {
            let (version, status) = (Err(error.clone()), Err(error));
            RuntimeSeen { version, status, info: HashMap::new(), cgroup_driver: None }
        }
    }
}

/// Asks this one, as long.
pub async fn ask_one(runtime: &dyn Runtime, env: &Env) -> RuntimeSeen {
    let late = |call| Error::Deadline { call };
    let (version, status, info, driver) = tokio::join!(
        env.timeout(ANSWERS_WITHIN, runtime.version()),
        env.timeout(ANSWERS_WITHIN, runtime.status()),
        env.timeout(ANSWERS_WITHIN, runtime.status_info()),
        env.timeout(ANSWERS_WITHIN, runtime.cgroup_driver()),
    );
    RuntimeSeen {
        version: version.unwrap_or(Err(late("Version"))),
        status: status.unwrap_or(Err(late("Status"))),
        info: info.and_then(Result::ok).unwrap_or_default(),
        cgroup_driver: driver.and_then(Result::ok).flatten(),
    }
}

/// All that is found of it.
pub fn verdicts(seen: &RuntimeSeen, settings: &EdgeCore, host: &Host) -> Vec<Finding> {
    let endpoint = &settings.modules.edged.tailored_kubelet_config.container_runtime_endpoint;
    let of_network = Network::of(&seen.info);
    let files = cni::files(host, &of_network.folder);
    let plugins = cni::plugins(host, &of_network, &files);
    let mut findings = vec![answers(&seen.version, endpoint, host)];
    findings.extend(plugin(&seen.version, &seen.status));
    // Where a plugin is missing that is the fault, and said once.
    let misses = plugins.as_ref().is_some_and(|found| found.grade == Grade::Failed);
    findings.push(network(seen.status.as_ref().ok().filter(|_| !misses), &of_network.folder, &files));
    findings.extend(plugins);
    findings.extend(driver(settings, seen));
    findings
}

/// Whether somebody answers there.
fn answers(version: &Result<VersionResponse, Error>, endpoint: &str, host: &Host) -> Finding {
    let install = "start it (`systemctl enable --now containerd`), or install one (Debian: `apt-get install containerd runc containernetworking-plugins`)";
    match version {
        Ok(version) => Finding::passed(
            ENDPOINT,
            short(&format!("{} {} at {endpoint}", version.runtime_name, version.runtime_version)),
        ),
        Err(Error::Unsupported { .. }) => {
            Finding::passed(ENDPOINT, format!("somebody answers at {endpoint}"))
        }
        Err(Error::BadEndpoint(_)) => Finding::failed(
            ENDPOINT,
            format!(
                "`{endpoint}` is no endpoint: set modules.edged.tailoredKubeletConfig.containerRuntimeEndpoint to unix:///PATH"
            ),
        ),
        Err(error @ Error::Unreachable { message, .. }) if message.contains("permission denied") => {
            Finding::failed(ENDPOINT, short(&format!("{}: run this as root", error.grpc_message())))
        }
        Err(error @ Error::Unreachable { .. }) => {
            let others: Vec<&str> =
                SOCKETS.into_iter().filter(|path| !endpoint.ends_with(path) && host.has(path)).collect();
            let others = match others[..] {
                [] => String::new(),
                _ => format!(
                    "; there is {}: modules.edged.tailoredKubeletConfig.containerRuntimeEndpoint names which one is used",
                    others.join(" and ")
                ),
            };
            Finding::failed(
                ENDPOINT,
                format!("nobody answers at {endpoint} ({}): {install}{others}", short(&error.grpc_message())),
            )
        }
        Err(error) => Finding::failed(
            ENDPOINT,
            format!(
                "the runtime at {endpoint} does not say its version ({}): look at its log (`journalctl -u containerd`), and restart it \
                 (`systemctl restart containerd`), which ends no container",
                short(&error.grpc_message())
            ),
        ),
    }
}

/// Whether it has CRI, and is ready by its own word.
fn plugin(
    version: &Result<VersionResponse, Error>,
    status: &Result<RuntimeStatus, Error>,
) -> Option<Finding> {
    if matches!(version, Err(Error::Unsupported { .. })) {
        return Some(Finding::failed(
            PLUGIN,
            "the runtime has no CRI v1: take `cri` out of disabled_plugins in /etc/containerd/config.toml (Docker's package of containerd has it there), \
             and `systemctl restart containerd`; containerd is to be 1.6 or later",
        ));
    }
    version.as_ref().ok()?;
    let ready = match status {
        Ok(status) => status.conditions.iter().find(|condition| condition.r#type == "RuntimeReady"),
        Err(error) => {
            return Some(Finding::failed(
                PLUGIN,
                format!(
                    "the runtime does not say how it is ({}): look at its log (`journalctl -u containerd`)",
                    short(&error.grpc_message())
                ),
            ));
        }
    };
    Some(match ready {
        Some(condition) if !condition.status => Finding::failed(
            PLUGIN,
            format!(
                "the runtime is not ready ({}: {}): look at its log (`journalctl -u containerd`)",
                short(&condition.reason),
                short(&condition.message)
            ),
        ),
        Some(_) | None => Finding::passed(PLUGIN, "CRI v1, and ready"),
    })
}

/// Whether pods have a network. What the runtime says counts; without it the files.
fn network(status: Option<&RuntimeStatus>, folder: &Path, files: &[String]) -> Finding {
    let shown = folder.display();
    let write = format!(
        "write one, as {shown}/10-bridge.conflist with the plugins bridge and portmap (Debian: `apt-get install containernetworking-plugins`; the \
         README of those plugins has an example); the runtime takes it up by itself, but {UNSEEN}"
    );
    let condition = status
        .and_then(|status| status.conditions.iter().find(|condition| condition.r#type == "NetworkReady"));
    match (condition, files.first()) {
        (Some(condition), Some(file)) if !condition.status => Finding::failed(
            NETWORK,
            format!(
                "the runtime cannot use {shown}/{} ({}): is it JSON with a cniVersion? The runtime takes it up by itself, but {UNSEEN}",
                short(file),
                short(&condition.message)
            ),
        ),
        (_, Some(file)) => {
            let word = if condition.is_some() { "" } else { "; whether the runtime can use it is not known" };
            Finding::passed(NETWORK, format!("{shown}/{}{word}", short(file)))
        }
        (Some(condition), None) if condition.status => {
            Finding::passed(NETWORK, "the runtime says that the network is ready")
        }
        // In the same words, whether the runtime says so or nothing: it is the same fault.
        (_, None) => Finding::failed(
            NETWORK,
            format!("there is no CNI configuration in {shown}, so that no pod gets an address: {write}"),
        ),
    }
}

/// Whether both make cgroups in the same way. Edged says the same in the node's condition Ready.
fn driver(settings: &EdgeCore, seen: &RuntimeSeen) -> Option<Finding> {
    seen.version.as_ref().ok()?;
    let own = settings.modules.edged.tailored_kubelet_config.cgroup_driver;
    let name = match own {
        config::edge::CgroupDriver::Cgroupfs => "cgroupfs",
        config::edge::CgroupDriver::Systemd => "systemd",
    };
    Some(match cgroup_driver::mismatch(own, seen.cgroup_driver) {
        Some(what) => Finding::failed(DRIVER, what),
        None if seen.cgroup_driver.is_none() => {
            Finding::passed(DRIVER, format!("{name} by edgecore.yaml; the runtime does not say which it has"))
        }
        None => Finding::passed(DRIVER, format!("{name}, as the runtime")),
    })
}

#[cfg(test)]
mod tests {
    use cri::v1::RuntimeCondition;

    use super::*;
    use crate::finding::Grade::{Failed, Passed};
    use crate::finding::tests::grade;

    fn seen(network: (bool, &str)) -> RuntimeSeen {
        let condition = |kind: &str, (status, message): (bool, &str)| RuntimeCondition {
            r#type: kind.to_owned(),
            status,
            reason: String::new(),
            message: message.to_owned(),
        };
        let version = VersionResponse {
            runtime_name: "containerd".into(),
            runtime_version: "1.6".into(),
            ..VersionResponse::default()
        };
        let conditions = vec![condition("RuntimeReady", (true, "")), condition("NetworkReady", network)];
        let status = RuntimeStatus { conditions };
        RuntimeSeen { version: Ok(version), status: Ok(status), info: HashMap::new(), cgroup_driver: None }
    }

    fn found(seen: &RuntimeSeen, host: &Host) -> Vec<Finding> {
        verdicts(seen, &EdgeCore::default(), host)
    }

    fn of<'a>(findings: &'a [Finding], check: &str) -> &'a Finding {
        findings.iter().find(|finding| finding.check == check).unwrap()
    }

    #[test]
    fn a_runtime_without_cri_is_told_from_one_that_is_not_there() {
        let folder = tempfile::tempdir().unwrap();
        let host = Host::in_folder(folder.path());
        let failed = |error: Error| {
            let seen = RuntimeSeen {
                version: Err(error.clone()),
                status: Err(error),
                info: HashMap::new(),
                cgroup_driver: None,
            };
            found(&seen, &host)
        };
        let without = failed(Error::Unsupported { call: "Version" });
        grade(of(&without, ENDPOINT), Passed, "somebody answers");
        grade(of(&without, PLUGIN), Failed, "disabled_plugins");
        std::fs::create_dir_all(folder.path().join("run/crio")).unwrap();
        std::fs::write(folder.path().join("run/crio/crio.sock"), "").unwrap();
        let away = |message: &str| {
            failed(Error::Unreachable { endpoint: "unix:///x".into(), message: message.into() })
        };
        let nobody = away("connect: no such file or directory");
        grade(of(&nobody, ENDPOINT), Failed, "there is /run/crio/crio.sock: ");
        assert!(!nobody.iter().any(|finding| finding.check == PLUGIN || finding.check == DRIVER));
        grade(of(&away("connect: permission denied"), ENDPOINT), Failed, "as root");
        grade(of(&failed(Error::Deadline { call: "Version" }), ENDPOINT), Failed, "journalctl -u containerd");
    }

    #[test]
    fn a_network_that_is_not_there_says_whether_it_is_the_file_or_the_plugin() {
        let folder = tempfile::tempdir().unwrap();
        let host = Host::in_folder(folder.path());
        let not_ready = seen((false, "cni plugin not initialized"));
        let none = found(&not_ready, &host);
        grade(of(&none, NETWORK), Failed, "no CNI configuration in /etc/cni/net.d");
        // A runtime that is restarted for it is no other fault.
        let silent = RuntimeSeen { status: Err(Error::Deadline { call: "Status" }), ..seen((false, "")) };
        assert_eq!(of(&found(&silent, &host), NETWORK), of(&none, NETWORK));
        let here = folder.path().join("etc/cni/net.d");
        std::fs::create_dir_all(&here).unwrap();
        std::fs::write(here.join(".10-x.conflist.swp"), "").unwrap();
        grade(of(&found(&not_ready, &host), NETWORK), Failed, "no CNI configuration");
        std::fs::write(here.join("10-x.conflist"), "").unwrap();
        let torn = found(&not_ready, &host);
        grade(of(&torn, NETWORK), Failed, "10-x.conflist (cni plugin not initialized)");
        grade(of(&torn, NETWORK), Failed, "only after `systemctl restart containerd`");
        assert!(!torn.iter().any(|finding| finding.check == cni::PLUGIN), "what cannot be read names none");
        // It names a plugin that is not there: that is the one fault.
        let names = r#"{"plugins": [{"type": "bridge"}]}"#;
        std::fs::write(here.join("10-x.conflist"), names).unwrap();
        for seen in [&not_ready, &seen((true, ""))] {
            let missing = found(seen, &host);
            let failed: Vec<&str> = missing
                .iter()
                .filter(|finding| finding.grade == Failed)
                .map(|finding| finding.check)
                .collect();
            assert_eq!(failed, [cni::PLUGIN]);
            grade(of(&missing, cni::PLUGIN), Failed, "bridge is not in /opt/cni/bin or /usr/lib/cni");
        }
        std::fs::create_dir_all(folder.path().join("usr/lib/cni")).unwrap();
        let program = folder.path().join("usr/lib/cni/bridge");
        std::fs::write(&program, "").unwrap();
        std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        grade(of(&found(&seen((true, "")), &host), NETWORK), Passed, "10-x.conflist");
        let elsewhere =
            HashMap::from([("config".to_owned(), r#"{"cni":{"confDir":"/elsewhere"}}"#.to_owned())]);
        let not_ready = RuntimeSeen { info: elsewhere, ..not_ready };
        grade(of(&found(&not_ready, &host), NETWORK), Failed, "no CNI configuration in /elsewhere");
    }

    #[test]
    fn a_driver_of_the_other_kind_is_said_in_edgeds_words() {
        let host = Host::here();
        let with = |driver| RuntimeSeen { cgroup_driver: driver, ..seen((true, "")) };
        grade(
            of(&found(&with(Some(CgroupDriver::Systemd)), &host), DRIVER),
            Failed,
            "cgroupDriver to systemd",
        );
        grade(of(&found(&with(Some(CgroupDriver::Cgroupfs)), &host), DRIVER), Passed, "as the runtime");
        grade(of(&found(&with(None), &host), DRIVER), Passed, "does not say");
    }
}
