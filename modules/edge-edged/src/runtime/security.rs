//! Security contexts: the pod's and the container's, merged, in the words of the runtime.

use cri::proc_mount::{MASKED, READ_ONLY};
use cri::v1::security_profile::ProfileType;
use cri::v1::{
    Capability, Image, Int64Value, LinuxContainerSecurityContext, LinuxSandboxSecurityContext, NamespaceMode,
    NamespaceOption, SeLinuxOption, SecurityProfile, SupplementalGroupsPolicy,
};
use k8s_openapi::api::core::v1::{Container, PodSpec, SELinuxOptions, SeccompProfile};
use std::path::Path;
use std::sync::OnceLock;

use crate::error::StepError;
use crate::pod::parsed_pod::ParsedPod;
use crate::runtime::app_armor::{self, AppArmor};

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
        // Which users those are is worked out beside this.
        userns_options: None,
    }
}

/// The extra groups of every process of the pod, in the kubelet's order.
fn groups(spec: &PodSpec) -> Vec<i64> {
    let Some(own) = &spec.security_context else { return Vec::new() };
    own.fs_group.into_iter().chain(own.supplemental_groups.iter().flatten().copied()).collect()
}

/// Whether the groups that the image gives its user count beside those.
fn groups_policy(spec: &PodSpec) -> SupplementalGroupsPolicy {
    let own = spec.security_context.as_ref().and_then(|own| own.supplemental_groups_policy.as_deref());
    match own {
        Some("Strict") => SupplementalGroupsPolicy::Strict,
        Some(_) | None => SupplementalGroupsPolicy::Merge,
    }
}

/// A label that the runtime takes where the host has SELinux, and ignores elsewhere.
fn selinux(options: Option<&SELinuxOptions>) -> Option<SeLinuxOption> {
    let text = |part: &Option<String>| part.clone().unwrap_or_default();
    options.map(|own| SeLinuxOption {
        user: text(&own.user),
        role: text(&own.role),
        r#type: text(&own.type_),
        level: text(&own.level),
    })
}

/// The sandbox's own process needs nothing: its seccomp profile is always the runtime's, as with the kubelet.
pub(crate) fn of_sandbox(spec: &PodSpec) -> LinuxSandboxSecurityContext {
    let own = spec.security_context.as_ref();
    let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let contexts = containers.map(|container| &container.security_context);
    // A runtime lets no container be privileged in a sandbox that has none; and `kubectl debug --profile=sysadmin` adds one later, for which
    // the runtime looks at the configuration that comes with the container.
    let debugging = spec.ephemeral_containers.iter().flatten().map(|own| &own.security_context);
    let any_privileged =
        contexts.chain(debugging).flatten().any(|context| context.privileged.unwrap_or(false));
    LinuxSandboxSecurityContext {
        namespace_options: Some(namespaces(spec)),
        selinux_options: selinux(own.and_then(|own| own.se_linux_options.as_ref())),
        // A group without a user is refused by the runtime; the sandbox's own process needs neither.
        run_as_user: value(own.and_then(|own| own.run_as_user)),
        run_as_group: value(own.and_then(|own| own.run_as_user.and(own.run_as_group))),
        supplemental_groups: groups(spec),
        supplemental_groups_policy: groups_policy(spec).into(),
        privileged: any_privileged,
        readonly_rootfs: false,
        seccomp: Some(plain_profile(ProfileType::RuntimeDefault)),
    }
}

fn plain_profile(kind: ProfileType) -> SecurityProfile {
    SecurityProfile { profile_type: kind.into(), localhost_ref: String::new() }
}

fn seccomp(
    profile: Option<&SeccompProfile>,
    root: &Path,
    default: ProfileType,
) -> Result<SecurityProfile, StepError> {
    let plain = plain_profile;
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
    parsed: &ParsedPod,
    container: &Container,
    image: &Image,
    root: &Path,
    features: cri::Features,
) -> Result<LinuxContainerSecurityContext, StepError> {
    let spec = parsed.spec();
    let pod = spec.security_context.as_ref();
    let policy = groups_policy(spec);
    // A runtime that does not know the policy ignores it without a word.
    if policy == SupplementalGroupsPolicy::Strict && !features.supplemental_groups_policy {
        return Err(StepError::Config(
            "SupplementalGroupsPolicy=Strict is not supported in this node".to_owned(),
        ));
    }
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
        check_not_root(user, image_user, &image.username)
            .map_err(|reason| StepError::Config(format!("{reason} ({})", named(parsed, container))))?;
    }
    let privileged = own.and_then(|own| own.privileged).unwrap_or(false);
    let unmasked = own.and_then(|own| own.proc_mount.as_deref()) == Some("Unmasked");
    // The API server's rule, which a file of the node has not passed: all of `/proc` is shown to the pod's own root alone.
    if unmasked && spec.host_users != Some(false) {
        return Err(StepError::Config("`hostUsers` must be false to use `Unmasked`".to_owned()));
    }
    let profile =
        own.and_then(|own| own.seccomp_profile.as_ref()).or(pod.and_then(|pod| pod.seccomp_profile.as_ref()));
    let label = own
        .and_then(|own| own.se_linux_options.as_ref())
        .or(pod.and_then(|pod| pod.se_linux_options.as_ref()));
    let profile_of_app_armor = app_armor::of_container(parsed, container);
    let effective_user = user.or(image_user);
    let capabilities = own.and_then(|own| own.capabilities.as_ref()).map(|wanted| Capability {
        add_capabilities: wanted.add.clone().unwrap_or_default(),
        drop_capabilities: wanted.drop.clone().unwrap_or_default(),
    });
    let list = |paths: &[&str]| -> Vec<String> {
        if privileged || unmasked { Vec::new() } else { paths.iter().map(|p| (*p).to_owned()).collect() }
    };
    let mut masked = list(&MASKED);
    if !privileged && !unmasked {
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
        supplemental_groups_policy: policy.into(),
        selinux_options: selinux(label),
        apparmor_profile: profile_of_app_armor.as_ref().map(AppArmor::old_text).unwrap_or_default(),
        apparmor: profile_of_app_armor.map(AppArmor::into_profile),
        no_new_privs: own.and_then(|own| own.allow_privilege_escalation) == Some(false),
        masked_paths: masked,
        readonly_paths: list(&READ_ONLY),
        seccomp: Some(seccomp(profile, root, ProfileType::Unconfined)?),
    })
}

/// Which container, as the kubelet writes it.
fn named(pod: &ParsedPod, container: &Container) -> String {
    let id = &pod.id;
    format!("pod: \"{}_{}({})\", container: {}", id.name, id.namespace, id.uid, container.name)
}

fn check_not_root(user: Option<i64>, image_user: Option<i64>, image_name: &str) -> Result<(), String> {
    match (user, image_user) {
        (Some(0), _) => Err("container's runAsUser breaks non-root policy".to_owned()),
        (None, Some(0)) => Err("container has runAsNonRoot and image will run as root".to_owned()),
        (Some(_), _) | (None, Some(_)) => Ok(()),
        (None, None) => Err(format!(
            "container has runAsNonRoot and image has non-numeric user ({image_name}), cannot verify user is non-root"
        )),
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
        let try_with = |image: &Image| of_container(&pod, container, image, root, cri::Features::default());
        for (image, words) in [
            (image(None, ""), "container has runAsNonRoot and image will run as root"),
            (image(Some(0), ""), "container has runAsNonRoot and image will run as root"),
            (
                image(None, "nobody"),
                "container has runAsNonRoot and image has non-numeric user (nobody), cannot verify user is non-root",
            ),
        ] {
            let words = format!("{words} (pod: \"p_default(u-1)\", container: c)");
            assert_eq!(try_with(&image), Err(StepError::Config(words)));
        }
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
        let told = of_container(
            &pod,
            &pod.spec().containers[0],
            &image(None, ""),
            Path::new("/r"),
            cri::Features::default(),
        )
        .unwrap();
        assert_eq!((told.run_as_user, told.run_as_group), (value(Some(6)), value(Some(6))));
        assert!(told.readonly_rootfs && told.no_new_privs && !told.privileged);
        assert_eq!(told.supplemental_groups, [7, 9, 7]);
        assert_eq!(told.seccomp.unwrap().profile_type, i32::from(ProfileType::RuntimeDefault));
        assert_eq!(told.capabilities.unwrap().drop_capabilities, ["ALL"]);
        assert_eq!(told.masked_paths.len(), MASKED.len());
    }

    #[test]
    fn only_a_runtime_that_knows_the_policy_gets_it() {
        let pod = pod(json!({"securityContext": {"supplementalGroupsPolicy": "Strict"}}));
        let of = |features| {
            of_container(&pod, &pod.spec().containers[0], &image(None, ""), Path::new("/r"), features)
        };
        let able = cri::Features { supplemental_groups_policy: true, ..cri::Features::default() };
        let policy = i32::from(SupplementalGroupsPolicy::Strict);
        assert_eq!(of(able).unwrap().supplemental_groups_policy, policy);
        assert_eq!(of_sandbox(pod.spec()).supplemental_groups_policy, policy);
        let error = of(cri::Features::default()).unwrap_err().to_string();
        assert_eq!(error, "SupplementalGroupsPolicy=Strict is not supported in this node");
    }

    #[test]
    fn all_of_proc_is_shown_to_the_users_of_a_namespace_alone() {
        let container = json!([{"name": "c", "image": "x", "securityContext": {"procMount": "Unmasked"}}]);
        let of = |host_users: serde_json::Value| {
            let pod = pod(json!({"hostUsers": host_users, "containers": container}));
            let own = &pod.spec().containers[0];
            of_container(&pod, own, &image(None, ""), Path::new("/r"), cri::Features::default())
        };
        let shown = of(json!(false)).unwrap();
        assert!(shown.masked_paths.is_empty() && shown.readonly_paths.is_empty());
        for host_users in [json!(true), json!(null)] {
            let words = "`hostUsers` must be false to use `Unmasked`".to_owned();
            assert_eq!(of(host_users), Err(StepError::Config(words)));
        }
    }

    #[test]
    fn labels_reach_the_runtime_and_the_sandbox_has_its_own_profile() {
        let label = json!({"level": "s0:c1,c2", "type": "spc_t"});
        let pod = pod(
            json!({"securityContext": {"seLinuxOptions": {"user": "u"}, "seccompProfile": {"type": "Unconfined"}},
            "containers": [{"name": "c", "image": "x", "securityContext": {"seLinuxOptions": label}}]}),
        );
        let own = &pod.spec().containers[0];
        let told = of_container(&pod, own, &image(None, ""), Path::new("/r"), cri::Features::default());
        let label = told.unwrap().selinux_options.unwrap();
        assert_eq!(
            (label.level.as_str(), label.r#type.as_str(), label.user.as_str()),
            ("s0:c1,c2", "spc_t", "")
        );
        let sandbox = of_sandbox(pod.spec());
        assert_eq!(sandbox.selinux_options.unwrap().user, "u");
        assert_eq!(sandbox.seccomp.unwrap().profile_type, i32::from(ProfileType::RuntimeDefault));
    }

    /// As `kubectl debug --profile=sysadmin` adds it to a pod whose sandbox was made without.
    #[test]
    fn a_privileged_container_of_any_kind_makes_the_sandbox_so() {
        let own = |privileged: bool| json!([{"name": "d", "image": "x", "securityContext": {"privileged": privileged}}]);
        for list in ["containers", "initContainers", "ephemeralContainers"] {
            for privileged in [true, false] {
                let mut spec = json!({});
                spec[list] = own(privileged);
                assert_eq!(of_sandbox(pod(spec).spec()).privileged, privileged, "{list}");
            }
        }
    }

    #[test]
    fn a_profile_outside_the_folder_is_refused() {
        let profile = SeccompProfile { type_: "Localhost".into(), localhost_profile: Some("../x".into()) };
        assert!(seccomp(Some(&profile), Path::new("/r"), ProfileType::Unconfined).is_err());
    }
}
