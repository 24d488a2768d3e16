//! AppArmor profiles: which one a container asks for, and whether the host has any.

use std::path::Path;

use cri::v1::SecurityProfile;
use cri::v1::security_profile::ProfileType;
use k8s_openapi::api::core::v1::{AppArmorProfile, Container};

use crate::pod::parsed_pod::{ParsedPod, all_of};

/// Where the kernel says whether AppArmor is on.
const ENABLED: &str = "/sys/module/apparmor/parameters/enabled";
/// Older than the field: an API server since 1.30 turns it into that.
const ANNOTATION: &str = "container.apparmor.security.beta.kubernetes.io/";

/// A profile that is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum AppArmor {
    RuntimeDefault,
    Unconfined,
    /// One that the host has loaded, by its name.
    Localhost(String),
}

impl AppArmor {
    fn of_field(field: &AppArmorProfile) -> Option<AppArmor> {
        match field.type_.as_str() {
            "RuntimeDefault" => Some(AppArmor::RuntimeDefault),
            "Unconfined" => Some(AppArmor::Unconfined),
            "Localhost" => Some(AppArmor::Localhost(field.localhost_profile.clone().unwrap_or_default())),
            _ => None,
        }
    }

    fn of_annotation(text: &str) -> Option<AppArmor> {
        match text {
            "runtime/default" => Some(AppArmor::RuntimeDefault),
            "unconfined" => Some(AppArmor::Unconfined),
            other => other.strip_prefix("localhost/").map(|name| AppArmor::Localhost(name.to_owned())),
        }
    }

    /// As runtimes know it that do not have the field.
    pub(crate) fn old_text(&self) -> String {
        match self {
            AppArmor::RuntimeDefault => "runtime/default".to_owned(),
            AppArmor::Unconfined => "unconfined".to_owned(),
            AppArmor::Localhost(name) => format!("localhost/{name}"),
        }
    }

    pub(crate) fn into_profile(self) -> SecurityProfile {
        let (kind, localhost_ref) = match self {
            AppArmor::RuntimeDefault => (ProfileType::RuntimeDefault, String::new()),
            AppArmor::Unconfined => (ProfileType::Unconfined, String::new()),
            AppArmor::Localhost(name) => (ProfileType::Localhost, name),
        };
        SecurityProfile { profile_type: kind.into(), localhost_ref }
    }
}

/// The profile of a container: its own, the annotation's, the pod's.
pub(crate) fn of_container(pod: &ParsedPod, container: &Container) -> Option<AppArmor> {
    let own = container.security_context.as_ref().and_then(|own| own.app_armor_profile.as_ref());
    let annotations = pod.pod.metadata.annotations.as_ref();
    let annotated = || annotations?.get(&format!("{ANNOTATION}{}", container.name));
    let of_pod = || pod.spec().security_context.as_ref()?.app_armor_profile.as_ref();
    own.and_then(AppArmor::of_field)
        .or_else(|| annotated().and_then(|text| AppArmor::of_annotation(text)))
        .or_else(|| of_pod().and_then(AppArmor::of_field))
}

/// Whether a pod asks to be confined.
pub(crate) fn is_wanted(pod: &ParsedPod) -> bool {
    let asked = all_of(pod.spec()).filter_map(|container| of_container(pod, container));
    asked.into_iter().any(|profile| profile != AppArmor::Unconfined)
}

/// Whether the host can confine anybody. Blocks for a moment.
pub(crate) fn is_enabled() -> bool {
    is_enabled_by(Path::new(ENABLED))
}

fn is_enabled_by(file: &Path) -> bool {
    std::fs::read(file).is_ok_and(|said| said.first() == Some(&b'Y'))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::pod::parsed_pod::tests::pod;

    #[test]
    fn the_container_wins_over_the_annotation_and_that_over_the_pod() {
        let field = |kind: &str| json!({"appArmorProfile": {"type": kind, "localhostProfile": "mine"}});
        let mut parsed = pod(json!({"securityContext": field("Localhost"), "containers": [
            {"name": "a", "image": "x", "securityContext": field("Unconfined")}, {"name": "b", "image": "x"},
            {"name": "c", "image": "x"}]}));
        let annotations =
            ["a", "b"].map(|name| (format!("{ANNOTATION}{name}"), "runtime/default".to_owned()));
        parsed.pod.metadata.annotations = Some(annotations.into());
        let found = |at: usize| of_container(&parsed, &parsed.spec().containers[at]).unwrap();
        assert_eq!(found(0), AppArmor::Unconfined);
        assert_eq!(found(1), AppArmor::RuntimeDefault);
        assert_eq!(found(2), AppArmor::Localhost("mine".to_owned()));
        assert_eq!(
            (found(2).old_text().as_str(), found(2).into_profile().localhost_ref.as_str()),
            ("localhost/mine", "mine")
        );
        assert!(is_wanted(&parsed));
        assert!(!is_wanted(&pod(json!({"securityContext": field("Unconfined")}))));
        assert!(!is_wanted(&pod(json!({}))));
    }

    #[test]
    fn the_kernel_says_whether_it_is_on() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("enabled");
        assert!(!is_enabled_by(&file));
        for (said, on) in [("Y\n", true), ("N\n", false), ("", false)] {
            std::fs::write(&file, said).unwrap();
            assert_eq!(is_enabled_by(&file), on, "{said:?}");
        }
    }
}
