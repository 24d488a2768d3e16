//! Security contexts: the pod's and the container's, merged, in the words of the runtime.

use cri::v1::security_profile::ProfileType;
use cri::v1::{
    Capability, Image, Int64Value, LinuxContainerSecurityContext, LinuxSandboxSecurityContext, NamespaceMode,
    NamespaceOption, SecurityProfile,
};
use k8s_openapi::api::core::v1::{Container, PodSpec, SeccompProfile};
use std::path::Path;
use std::sync::OnceLock;

use crate::error::StepError;

/// What a container must not see of `/proc` and `/sys` (procMount Default).
const MASKED: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];
/// What a container must not change.
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Counters from which a container could learn what else runs here, as the kubelet masks them since 1.34: those of the
/// processors that the machine has. A runtime refuses to mask what is not there.
fn throttling() -> &'static [String] {
    static FOUND: OnceLock<Vec<String>> = OnceLock::new();
    FOUND.get_or_init(|| throttling_below(Path::new("/sys/devices/system/cpu")))
}

fn throttling_below(cpus: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(cpus).into_iter().flatten().flatten();
    let of_a_cpu = entries.filter(|entry| {
        let name = entry.file_name().to_string_lossy().into_owned();
        name.strip_prefix("cpu")
            .is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_digit()))
    });
    let mut found: Vec<String> = of_a_cpu
        .map(|entry| entry.path().join("thermal_throttle"))
        .filter(|path| path.is_dir())
        .map(|path| path.display().to_string())
        .collect();
    found.sort();
    found
}

fn value(number: Option<i64>) -> Option<Int64Value> {
    number.map(|value| Int64Value { value })
}

/// Which namespaces the pod shares with the node and among its containers.
pub(crate) fn namespaces(spec: &PodSpec) -> NamespaceOption {
    let node_or = |on_node: Option<bool>, other: NamespaceMode| {
        if on_node.unwrap_or(false) { NamespaceMode::Node } else { other }
    };
    let shared = spec.share_process_namespace.unwrap_or(false);
    let pid = if shared { NamespaceMode::Pod } else { NamespaceMode::Container };
    NamespaceOption {
        network: node_or(spec.host_network, NamespaceMode::Pod).into(),
        pid: node_or(spec.host_pid, pid).into(),
        ipc: node_or(spec.host_ipc, NamespaceMode::Pod).into(),
        target_id: String::new(),
    }
}

/// The extra groups of every process of the pod.
fn groups(spec: &PodSpec) -> Vec<i64> {
    let Some(own) = &spec.security_context else { return Vec::new() };
    let mut groups: Vec<i64> = own.supplemental_groups.iter().flatten().copied().collect();
    groups.extend(own.fs_group);
    groups.sort_unstable();
    groups.dedup();
    groups
}

pub(crate) fn of_sandbox(spec: &PodSpec, root: &Path) -> Result<LinuxSandboxSecurityContext, StepError> {
    let own = spec.security_context.as_ref();
    let privileged = |container: &Container| {
        container.security_context.as_ref().and_then(|own| own.privileged).unwrap_or(false)
    };
    let any_privileged = spec.containers.iter().chain(spec.init_containers.iter().flatten()).any(privileged);
    Ok(LinuxSandboxSecurityContext {
        namespace_options: Some(namespaces(spec)),
        // A group without a user is refused by the runtime; the sandbox's own process needs neither.
        run_as_user: value(own.and_then(|own| own.run_as_user)),
        run_as_group: value(own.and_then(|own| own.run_as_user.and(own.run_as_group))),
        supplemental_groups: groups(spec),
        privileged: any_privileged,
        readonly_rootfs: false,
        seccomp: Some(seccomp(
            own.and_then(|own| own.seccomp_profile.as_ref()),
            root,
            ProfileType::RuntimeDefault,
        )?),
    })
}

fn seccomp(
    profile: Option<&SeccompProfile>,
    root: &Path,
    default: ProfileType,
) -> Result<SecurityProfile, StepError> {
    let plain =
        |kind: ProfileType| SecurityProfile { profile_type: kind.into(), localhost_ref: String::new() };
    let Some(profile) = profile else { return Ok(plain(default)) };
    match profile.type_.as_str() {
        "RuntimeDefault" => Ok(plain(ProfileType::RuntimeDefault)),
        "Unconfined" => Ok(plain(ProfileType::Unconfined)),
        "Localhost" => {
            let file = profile.localhost_profile.as_deref().unwrap_or_default();
            let path = Path::new(file);
            let inside = path.components().all(|part| matches!(part, std::path::Component::Normal(_)));
            if file.is_empty() || !inside {
                return Err(StepError::Config(format!(
                    "seccompProfile.localhostProfile `{file}` is no path below the node's seccomp folder"
                )));
            }
            let path = root.join("seccomp").join(path);
            if !path.is_file() {
                return Err(StepError::Missing(format!(
                    "seccomp profile {} is not on this node",
                    path.display()
                )));
            }
            let localhost_ref = path.display().to_string();
            Ok(SecurityProfile { profile_type: ProfileType::Localhost.into(), localhost_ref })
        }
        other => Err(StepError::Config(format!("seccompProfile.type `{other}` is not supported"))),
    }
}

/// The same, with the processes of another container in sight: that of an ephemeral container's target.
pub(crate) fn beside(spec: &PodSpec, target: String) -> NamespaceOption {
    NamespaceOption { pid: NamespaceMode::Target.into(), target_id: target, ..namespaces(spec) }
}

/// The container's context. `image` says who the image wants to be.
pub(crate) fn of_container(
    spec: &PodSpec,
    container: &Container,
    image: &Image,
    root: &Path,
) -> Result<LinuxContainerSecurityContext, StepError> {
    let pod = spec.security_context.as_ref();
    let own = container.security_context.as_ref();
    let user = own.and_then(|own| own.run_as_user).or(pod.and_then(|pod| pod.run_as_user));
    let group = own.and_then(|own| own.run_as_group).or(pod.and_then(|pod| pod.run_as_group));
    let not_root = own.and_then(|own| own.run_as_non_root).or(pod.and_then(|pod| pod.run_as_non_root));
    // An image that names nobody runs as root.
    let image_user = match (&image.uid, image.username.as_str()) {
        (Some(uid), _) => Some(uid.value),
        (None, "") => Some(0),
        (None, _) => None,
    };
    if not_root == Some(true) {
        check_not_root(user, image_user, &image.username)?;
    }
    let privileged = own.and_then(|own| own.privileged).unwrap_or(false);
    let profile =
        own.and_then(|own| own.seccomp_profile.as_ref()).or(pod.and_then(|pod| pod.seccomp_profile.as_ref()));
    let effective_user = user.or(image_user);
    let capabilities = own.and_then(|own| own.capabilities.as_ref()).map(|wanted| Capability {
        add_capabilities: wanted.add.clone().unwrap_or_default(),
        drop_capabilities: wanted.drop.clone().unwrap_or_default(),
    });
    let list = |paths: &[&str]| -> Vec<String> {
        if privileged { Vec::new() } else { paths.iter().map(|p| (*p).to_owned()).collect() }
    };
    let mut masked = list(&MASKED);
    if !privileged {
        masked.extend_from_slice(throttling());
    }
    Ok(LinuxContainerSecurityContext {
        capabilities,
        privileged,
        namespace_options: Some(namespaces(spec)),
        run_as_user: value(effective_user),
        run_as_group: value(group),
        run_as_username: if effective_user.is_none() { image.username.clone() } else { String::new() },
        readonly_rootfs: own.and_then(|own| own.read_only_root_filesystem).unwrap_or(false),
        supplemental_groups: groups(spec),
        no_new_privs: own.and_then(|own| own.allow_privilege_escalation) == Some(false),
        masked_paths: masked,
        readonly_paths: list(&READ_ONLY),
        seccomp: Some(seccomp(profile, root, ProfileType::Unconfined)?),
    })
}

fn check_not_root(user: Option<i64>, image_user: Option<i64>, image_name: &str) -> Result<(), StepError> {
    match (user, image_user) {
        (Some(0), _) => Err(StepError::Config(
            "container's runAsUser breaks non-root policy: runAsNonRoot is set and runAsUser is 0".to_owned(),
        )),
        (Some(_), _) => Ok(()),
        (None, Some(0)) => {
            Err(StepError::Config("container has runAsNonRoot and image will run as root".to_owned()))
        }
        (None, Some(_)) => Ok(()),
        (None, None) => Err(StepError::Config(format!(
            "container has runAsNonRoot and image has non-numeric user ({image_name}), cannot verify user is non-root"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::parsed_pod::tests::pod;

    #[test]
    fn the_throttling_of_each_processor_is_masked() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["cpu0/thermal_throttle", "cpu12/thermal_throttle", "cpu3", "cpufreq/thermal_throttle"] {
            std::fs::create_dir_all(dir.path().join(name)).unwrap();
        }
        let found = throttling_below(dir.path());
        let wanted = ["cpu0", "cpu12"].map(|cpu| format!("{}/{cpu}/thermal_throttle", dir.path().display()));
        assert_eq!(found, wanted);
        assert!(MASKED.contains(&"/proc/interrupts"));
    }
    use serde_json::json;

    fn image(uid: Option<i64>, name: &str) -> Image {
        Image { uid: value(uid), username: name.into(), ..Image::default() }
    }

    #[test]
    fn a_container_that_must_not_be_root_is_checked_against_its_image() {
        let root = Path::new("/r");
        let pod = pod(json!({"securityContext": {"runAsNonRoot": true}}));
        let container = &pod.spec().containers[0];
        let try_with = |image: &Image| of_container(pod.spec(), container, image, root);
        assert!(try_with(&image(None, "")).is_err());
        assert!(try_with(&image(Some(0), "")).is_err());
        assert!(try_with(&image(None, "nobody")).is_err());
        let fine = try_with(&image(Some(1000), "")).unwrap();
        assert_eq!(fine.run_as_user, value(Some(1000)));
    }

    #[test]
    fn the_container_wins_over_the_pod() {
        let pod = pod(json!({
            "securityContext": {"runAsUser": 5, "fsGroup": 7, "supplementalGroups": [9, 7],
                "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{"name": "c", "image": "x", "securityContext": {"runAsUser": 6, "runAsGroup": 6,
                "readOnlyRootFilesystem": true, "allowPrivilegeEscalation": false,
                "capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]}}}]}));
        let told =
            of_container(pod.spec(), &pod.spec().containers[0], &image(None, ""), Path::new("/r")).unwrap();
        assert_eq!((told.run_as_user, told.run_as_group), (value(Some(6)), value(Some(6))));
        assert!(told.readonly_rootfs && told.no_new_privs && !told.privileged);
        assert_eq!(told.supplemental_groups, [7, 9]);
        assert_eq!(told.seccomp.unwrap().profile_type, i32::from(ProfileType::RuntimeDefault));
        assert_eq!(told.capabilities.unwrap().drop_capabilities, ["ALL"]);
        assert_eq!(told.masked_paths.len(), MASKED.len());
    }

    #[test]
    fn a_profile_outside_the_folder_is_refused() {
        let profile = SeccompProfile { type_: "Localhost".into(), localhost_profile: Some("../x".into()) };
        assert!(seccomp(Some(&profile), Path::new("/r"), ProfileType::Unconfined).is_err());
    }
}
