//! Whether a container that has ended starts again: its rules, its own policy, then the pod's. Pure.

use beehive::defect::{self, Defect};
use k8s_openapi::api::core::v1::Container;

use crate::pod::parsed_pod::{ParsedPod, RestartPolicy, is_sidecar};
use crate::pod::restart_rule::RuleAction;
use crate::runtime::kubelet_hash;
use crate::runtime::pods::{MadeOf, RuntimeContainer, RuntimeState};

/// What the runtime says of a container that was ended for want of memory.
const OUT_OF_MEMORY: &str = "OOMKilled";

/// Whether an instance came to a bad end.
pub(crate) fn has_failed(instance: &RuntimeContainer) -> bool {
    instance.exit_code != 0 || instance.state == RuntimeState::Unknown || instance.reason == OUT_OF_MEMORY
}

/// Whether an instance is of another definition than the pod's.
pub(crate) fn changed(pod: &ParsedPod, instance: Option<&RuntimeContainer>) -> bool {
    let differs = |instance: &RuntimeContainer| {
        let is_first = instance.attempt == 0 && defect::is_planted(Defect::NeedlessRestart);
        let own = pod.hash(&instance.name);
        let changed = |made_of: MadeOf| match made_of {
            MadeOf::Own(hash) => hash != own,
            MadeOf::Kubelet(hash) => {
                hash != own && pod.container(&instance.name).map(kubelet_hash::of) != Some(hash)
            }
        };
        is_first || instance.hash.is_some_and(changed)
    };
    instance.is_some_and(differs)
}

/// Whether a container that has ended starts again, sooner or later.
pub(crate) fn restarts(pod: &ParsedPod, container: &Container, instance: &RuntimeContainer) -> bool {
    if pod.ephemeral(&container.name).is_some() {
        return false;
    }
    if is_sidecar(container) || changed(pod, Some(instance)) {
        return true;
    }
    let is_init = pod.init_containers().any(|init| init.name == container.name);
    let failed = if is_init {
        has_failed(instance)
    } else {
        instance.exit_code != 0 || instance.state == RuntimeState::Unknown
    };
    if rule_of(pod, container, instance).is_some() {
        return !is_init || failed;
    }
    match policy_of(pod, container) {
        RestartPolicy::Always => failed || !is_init,
        RestartPolicy::OnFailure => failed,
        RestartPolicy::Never => false,
    }
}

/// What the first of a container's rules that is about its end does.
fn rule_of(pod: &ParsedPod, container: &Container, instance: &RuntimeContainer) -> Option<RuleAction> {
    if instance.state == RuntimeState::Unknown || container.restart_policy.is_none() {
        return None;
    }
    let mut rules = pod.restart_rules.get(&container.name).into_iter().flatten();
    rules.find_map(|rule| rule.action(instance.exit_code))
}

/// Whether a container that has ended has all containers of its pod start again.
pub(crate) fn restarts_all(pod: &ParsedPod, instance: &RuntimeContainer) -> bool {
    let container = pod.container(&instance.name).filter(|_| instance.state == RuntimeState::Exited);
    container.is_some_and(|own| rule_of(pod, own, instance) == Some(RuleAction::RestartAll))
}

/// Whether a container that is killed for a probe is meant to start again: nobody knows yet with which code it ends.
pub(crate) fn restarts_after_kill(pod: &ParsedPod, container: &Container) -> bool {
    policy_of(pod, container) != RestartPolicy::Never
}

/// Whether a container that has ended begins again whatever it ended with.
pub(crate) fn begins_always(pod: &ParsedPod, container: &Container) -> bool {
    policy_of(pod, container) == RestartPolicy::Always
}

fn policy_of(pod: &ParsedPod, container: &Container) -> RestartPolicy {
    match container.restart_policy.as_deref() {
        Some("Always") => RestartPolicy::Always,
        Some("OnFailure") => RestartPolicy::OnFailure,
        Some("Never") => RestartPolicy::Never,
        Some(_) | None => pod.restart_policy(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::parsed_pod::tests::pod;
    use crate::pod::plan::tests::instance;
    use serde_json::{Value, json};

    fn again(spec: Value, code: i32) -> bool {
        let pod = pod(spec);
        let container = &pod.spec().containers[0];
        let mut ended = instance(&pod, &container.name, "s", 0, RuntimeState::Exited);
        ended.exit_code = code;
        restarts(&pod, container, &ended)
    }

    #[test]
    fn a_container_of_a_kubelet_is_what_its_pod_says_until_its_image_is_another() {
        let made = pod(json!({"containers": [{"name": "c", "image": "foo/image:v1"}]}));
        let mut running = instance(&made, "c", "s", 0, RuntimeState::Running);
        let kubelets = kubelet_hash::of(&made.spec().containers[0]);
        running.hash = Some(MadeOf::Kubelet(kubelets));
        assert!(!changed(&made, Some(&running)));
        let other = pod(json!({"containers": [{"name": "c", "image": "foo/image:v2"}]}));
        assert!(changed(&other, Some(&running)));
        // Of the first Edged, which wrote its own hash in the kubelet's place.
        running.hash = Some(MadeOf::Kubelet(made.hash("c")));
        assert!(!changed(&made, Some(&running)) && changed(&other, Some(&running)));
        running.hash = Some(MadeOf::Own(kubelets));
        assert!(changed(&made, Some(&running)), "its own hash is no kubelet's");
        running.hash = None;
        assert!(!changed(&other, Some(&running)), "nothing is known of it");
    }

    #[test]
    fn a_containers_own_policy_comes_before_the_pods() {
        for (own, of_pod, code, want) in [
            (Some("Never"), "Always", 1, false),
            (Some("Always"), "Never", 0, true),
            (Some("OnFailure"), "Never", 1, true),
            (Some("OnFailure"), "Always", 0, false),
            (None, "OnFailure", 1, true),
            (None, "Never", 1, false),
        ] {
            let spec = json!({"restartPolicy": of_pod,
                "containers": [{"name": "c", "image": "x", "restartPolicy": own}]});
            assert_eq!(again(spec, code), want, "{own:?} in {of_pod} with {code}");
        }
    }

    #[test]
    fn the_first_rule_that_matches_comes_before_both() {
        let spec = |rules: Value, own: Value| {
            json!({"restartPolicy": "Never", "containers": [
                {"name": "c", "image": "x", "restartPolicy": own, "restartPolicyRules": rules}]})
        };
        let rule = |operator: &str| json!([{"action": "Restart", "exitCodes": {"operator": operator, "values": [42, 43]}}]);
        assert!(again(spec(rule("In"), json!("Never")), 42));
        assert!(!again(spec(rule("In"), json!("Never")), 1));
        assert!(again(spec(rule("NotIn"), json!("Never")), 1));
        assert!(!again(spec(rule("NotIn"), json!("Never")), 43));
        assert!(again(spec(rule("NotIn"), json!("Always")), 43), "its own policy is asked then");
        assert!(!again(spec(rule("In"), json!(null)), 42), "rules need a policy of the container's");
    }

    #[test]
    fn an_init_container_that_ran_out_of_memory_has_failed_whatever_its_code() {
        let pod = pod(json!({"initContainers": [{"name": "i", "image": "x"}]}));
        let mut ended = instance(&pod, "i", "s", 0, RuntimeState::Exited);
        let init = pod.init_containers().next().unwrap();
        assert!(!restarts(&pod, init, &ended));
        ended.reason = OUT_OF_MEMORY.to_owned();
        assert!(restarts(&pod, init, &ended));
    }
}
