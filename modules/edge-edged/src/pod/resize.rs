//! In-place resize of one pod: what its containers are given beside what they have. Pure.

use k8s_openapi::api::core::v1::{Container, PodStatus};

use crate::pod::actuated::is_due;
use crate::pod::parsed_pod::{ParsedPod, all_of};
use crate::pod::pod_cgroup;
use crate::pod::resize_policy::ContainerResources;
use crate::pod::restart_policy;
use crate::pod::sync_state::SyncState;
use crate::runtime::pods::{RuntimePod, RuntimeState};

/// What a pod's containers are given.
pub(crate) fn resources_of(pod: &ParsedPod) -> ContainerResources {
    let all = all_of(pod.spec());
    all.map(|container| (container.name.clone(), container.resources.clone().unwrap_or_default())).collect()
}

/// What was reported of the containers' resources: what they were given by then.
pub(crate) fn reported(status: &PodStatus) -> ContainerResources {
    let all = status.init_container_statuses.iter().chain(&status.container_statuses).flatten();
    all.filter_map(|own| Some((own.name.clone(), own.resources.clone()?))).collect()
}

/// Whether a resize is still under way: a container has other resources than it is given, or is to start again with them, or the pod's
/// cgroup does not follow yet.
pub(crate) fn is_under_way(pod: &ParsedPod, seen: &RuntimePod, state: &SyncState) -> bool {
    if state.is_resizing && !pod_cgroup::is_as_wanted(pod, seen, state) {
        return true;
    }
    all_of(pod.spec()).any(|container| match seen.newest(&container.name) {
        Some(instance) if instance.state == RuntimeState::Running => is_due(pod, container, instance, state),
        Some(instance) => state.is_resizing && restart_policy::restarts(pod, container, instance),
        None => false,
    })
}

/// What an event says of a resize: the containers' resources, and the generation of the spec that asks for them, in the order of the
/// kubelet's (`pkg/kubelet/events/resize.go`).
pub(crate) fn described(pod: &ParsedPod, error: Option<&str>) -> String {
    let list = |all: &mut dyn Iterator<Item = &Container>| {
        let one = |container: &Container| {
            let resources = container.resources.clone().unwrap_or_default();
            format!(r#"{{"name":{},"resources":{}}}"#, json_text(&container.name), json_text(&resources))
        };
        all.map(one).collect::<Vec<_>>().join(",")
    };
    let inits = list(&mut pod.init_containers());
    let inits = if inits.is_empty() { inits } else { format!(r#""initContainers":[{inits}],"#) };
    let mains = list(&mut pod.spec().containers.iter());
    let generation = pod.pod.metadata.generation.unwrap_or_default();
    let error = error.map(|error| format!(r#","error":{}"#, json_text(&error))).unwrap_or_default();
    format!(r#"{{{inits}"containers":[{mains}],"generation":{generation}{error}}}"#)
}

/// JSON in the order of the type's own fields.
fn json_text(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::pod::parsed_pod::tests::pod;
    use crate::pod::plan::tests::instance;

    fn limited(cpu: &str, memory: &str, policy: Value) -> ParsedPod {
        let limits = json!({"cpu": cpu, "memory": memory});
        pod(
            json!({"containers": [{"name": "c", "image": "x", "resizePolicy": policy, "resources": {"limits": limits}}]}),
        )
    }

    #[test]
    fn a_change_restarts_only_where_the_policy_of_that_resource_says_so() {
        let policy = json!([{"resourceName": "memory", "restartPolicy": "RestartContainer"},
            {"resourceName": "cpu", "restartPolicy": "NotRequired"}]);
        let before = limited("1", "64Mi", policy.clone());
        let hash = |cpu: &str, memory: &str| limited(cpu, memory, policy.clone()).hash("c");
        assert_eq!(before.hash("c"), hash("2", "64Mi"));
        assert_eq!(before.hash("c"), hash("1000m", "65536Ki"), "the same amounts");
        assert_ne!(before.hash("c"), hash("1", "65Mi"));
        assert_eq!(limited("1", "1Mi", json!(null)).hash("c"), limited("2", "2Mi", json!(null)).hash("c"));
        let given = resources_of(&before);
        let changed = limited("1", "128Mi", policy).with_resources(&given);
        assert_eq!((changed.hash("c"), resources_of(&changed)), (before.hash("c"), given));
    }

    #[test]
    fn an_event_describes_a_resize_in_the_kubelets_order() {
        let mut own = pod(json!({"containers": [
            {"name": "c", "image": "x", "resources": {"requests": {"cpu": "1"}, "limits": {"cpu": "2"}}},
            {"name": "d", "image": "x"}]}));
        own.pod.metadata.generation = Some(3);
        let containers = r#""containers":[{"name":"c","resources":{"limits":{"cpu":"2"},"requests":{"cpu":"1"}}},{"name":"d","resources":{}}]"#;
        assert_eq!(described(&own, None), format!(r#"{{{containers},"generation":3}}"#));
        let with_error = described(&own, Some("a \"b\""));
        assert_eq!(with_error, format!(r#"{{{containers},"generation":3,"error":"a \"b\""}}"#));
    }

    #[test]
    fn what_an_instance_has_is_known_after_a_restart_from_what_was_reported() {
        let (before, after) = (limited("1", "64Mi", json!(null)), limited("2", "64Mi", json!(null)));
        let running = instance(&before, "c", "s", 0, RuntimeState::Running);
        let container = &after.spec().containers[0];
        let due = |state: &SyncState| is_due(&after, container, &running, state);
        let mut state = SyncState::default();
        assert!(!due(&state), "of a new one nothing else is known");
        let reported = |id: &str, of: &ParsedPod| {
            let status = json!({"containerStatuses": [{"name": "c", "containerID": format!("containerd://{id}"),
                "image": "x", "imageID": "", "ready": true, "restartCount": 0, "resources": resources_of(of)["c"]}]});
            Some(std::sync::Arc::new(serde_json::from_value(status).unwrap()))
        };
        state.reported = reported(&running.id, &before);
        assert!(due(&state));
        state.reported = reported("another", &before);
        assert!(!due(&state));
        state.reported = reported(&running.id, &before);
        state.actuated.insert(running.id.clone(), resources_of(&after)["c"].clone());
        assert!(!due(&state), "it was set since");
    }
}
