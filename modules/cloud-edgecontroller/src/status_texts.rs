//! How long the texts of a pod's status are, and of which containers it speaks. Pure.
//!
//! A pod's status stays in the API server and in the memory of everybody who watches pods for as long as the pod is there, and a
//! node writes one for each of its pods. An honest node has cut the termination messages as a kubelet does; a captured one has not.

use std::collections::BTreeSet;

use contract::pod_status::termination_message_max;
use fairshare::json_bytes;
use k8s_openapi::api::core::v1::{ContainerState, ContainerStatus, Pod, PodStatus};
use serde_json::Value;

/// 4 KiB of a message that is not a container's own.
const MESSAGE_MAX: usize = 4 << 10;
/// 1 KiB of a reason (Kubernetes' bound for those of conditions).
const REASON_MAX: usize = 1 << 10;
/// 1 KiB of an image's name or id.
const IMAGE_MAX: usize = 1 << 10;
/// 256 bytes of any other name: a container's id has some 80.
const NAME_MAX: usize = 256;
/// 16 addresses.
const ADDRESSES_MAX: usize = 16;
/// 16 KiB of one container: its two messages have at most 8 of them, and the rest is some 2.
const CONTAINER_MAX: usize = 16 << 10;

/// At most so much of a text, and no part of a character.
pub(crate) fn cut_to(mut text: String, most: usize) -> String {
    text.truncate(text.floor_char_boundary(most));
    text
}

/// Cuts what is longer than an honest node writes it.
pub(crate) fn cut(status: &mut PodStatus) {
    cut_text(&mut status.message, MESSAGE_MAX);
    cut_text(&mut status.reason, REASON_MAX);
    for text in [&mut status.phase, &mut status.qos_class, &mut status.host_ip, &mut status.pod_ip] {
        cut_text(text, NAME_MAX);
    }
    for addresses in status.pod_ips.iter_mut() {
        addresses.truncate(ADDRESSES_MAX);
        addresses.retain(|address| address.ip.len() <= NAME_MAX);
    }
    for addresses in status.host_ips.iter_mut() {
        addresses.truncate(ADDRESSES_MAX);
        addresses.retain(|address| address.ip.len() <= NAME_MAX);
    }
    for condition in status.conditions.iter_mut().flatten() {
        cut_text(&mut condition.message, MESSAGE_MAX);
        cut_text(&mut condition.reason, REASON_MAX);
        cut_string(&mut condition.status, NAME_MAX);
    }
    let lists = [
        &mut status.init_container_statuses,
        &mut status.container_statuses,
        &mut status.ephemeral_container_statuses,
    ];
    let count = lists.iter().flat_map(|list| list.iter()).map(Vec::len).sum();
    for container in lists.into_iter().flatten().flatten() {
        cut_container(container, termination_message_max(count));
    }
}

fn cut_container(container: &mut ContainerStatus, most: usize) {
    for text in [&mut container.image, &mut container.image_id] {
        cut_string(text, IMAGE_MAX);
    }
    cut_text(&mut container.container_id, NAME_MAX);
    for state in [&mut container.state, &mut container.last_state].into_iter().flatten() {
        cut_state(state, most);
    }
    if json_bytes(container) > CONTAINER_MAX {
        // What is left of it is what others decide by.
        *container = ContainerStatus {
            name: std::mem::take(&mut container.name),
            image: std::mem::take(&mut container.image),
            image_id: std::mem::take(&mut container.image_id),
            container_id: container.container_id.take(),
            ready: container.ready,
            restart_count: container.restart_count,
            started: container.started,
            state: container.state.take(),
            last_state: container.last_state.take(),
            ..ContainerStatus::default()
        };
    }
}

fn cut_state(state: &mut ContainerState, most: usize) {
    if let Some(waiting) = &mut state.waiting {
        cut_text(&mut waiting.message, MESSAGE_MAX);
        cut_text(&mut waiting.reason, REASON_MAX);
    }
    if let Some(ended) = &mut state.terminated {
        cut_text(&mut ended.message, most);
        cut_text(&mut ended.reason, REASON_MAX);
        cut_text(&mut ended.container_id, NAME_MAX);
    }
}

fn cut_text(text: &mut Option<String>, most: usize) {
    if let Some(text) = text {
        cut_string(text, most);
    }
}

fn cut_string(text: &mut String, most: usize) {
    if text.len() > most {
        *text = cut_to(std::mem::take(text), most);
    }
}

/// Leaves of each list the containers that the pod has, each once.
pub(crate) fn only_containers_of(status: &mut Value, pod: &Pod) {
    let Some(spec) = &pod.spec else { return };
    let ephemeral = spec.ephemeral_containers.iter().flatten().map(|one| one.name.as_str()).collect();
    let names = |list: &[k8s_openapi::api::core::v1::Container]| -> Vec<String> {
        list.iter().map(|one| one.name.clone()).collect()
    };
    let (inits, mains) =
        (names(spec.init_containers.as_deref().unwrap_or_default()), names(&spec.containers));
    let lists: [(&str, BTreeSet<&str>); 3] = [
        ("initContainerStatuses", inits.iter().map(String::as_str).collect()),
        ("containerStatuses", mains.iter().map(String::as_str).collect()),
        ("ephemeralContainerStatuses", ephemeral),
    ];
    for (list, mut known) in lists {
        let Some(statuses) = status.get_mut(list).and_then(Value::as_array_mut) else { continue };
        statuses.retain(|one| one["name"].as_str().is_some_and(|name| known.remove(name)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn status(containers: usize, text: usize) -> PodStatus {
        let text = "é".repeat(text / 2);
        let ended =
            json!({"terminated": {"exitCode": 1, "message": text, "reason": text, "containerID": text}});
        let one = |n: usize| {
            json!({"name": format!("c{n}"), "image": text, "imageID": text, "containerID": text, "ready": true,
                "restartCount": 3, "state": {"waiting": {"reason": text, "message": text}}, "lastState": ended,
                "volumeMounts": [{"name": text, "mountPath": text}]})
        };
        let all: Vec<Value> = (0..containers).map(one).collect();
        serde_json::from_value(json!({
            "phase": "Running", "message": text, "reason": text, "hostIP": text, "podIP": text,
            "podIPs": vec![json!({"ip": text}); 3], "hostIPs": vec![json!({"ip": "10.0.0.1"}); 99],
            "conditions": [{"type": "Ready", "status": "True", "message": text, "reason": text}],
            "containerStatuses": all,
        }))
        .unwrap()
    }

    #[test]
    fn what_a_captured_node_writes_is_as_long_as_what_a_kubelet_writes() {
        for (containers, most) in [(1, 4096), (3, 4096), (12, 1024)] {
            let mut cut_status = status(containers, 100_000);
            cut(&mut cut_status);
            let one = &cut_status.container_statuses.as_ref().unwrap()[0];
            let ended = one.last_state.as_ref().unwrap().terminated.as_ref().unwrap();
            assert_eq!(ended.message.as_ref().map(String::len), Some(most), "{containers} containers");
            assert_eq!((one.ready, one.restart_count, &one.volume_mounts), (true, 3, &None));
            assert!(
                json_bytes(&cut_status) < 12_000 + containers * CONTAINER_MAX,
                "{}",
                json_bytes(&cut_status)
            );
            assert_eq!(cut_status.host_ips.as_ref().map(Vec::len), Some(ADDRESSES_MAX));
            assert_eq!(cut_status.pod_ips.as_ref().map(Vec::len), Some(0));
        }
        // What is honest stays as it is.
        let (mut honest, before) = (status(2, 60), status(2, 60));
        honest.host_ips = None;
        let before = PodStatus { host_ips: None, ..before };
        cut(&mut honest);
        assert_eq!(honest, before);
    }

    #[test]
    fn a_status_speaks_of_the_containers_that_the_pod_has() {
        let pod: Pod = serde_json::from_value(json!({"spec": {
            "initContainers": [{"name": "i"}], "containers": [{"name": "a"}, {"name": "b"}],
            "ephemeralContainers": [{"name": "e"}]}}))
        .unwrap();
        let named =
            |names: &[&str]| -> Vec<Value> { names.iter().map(|name| json!({"name": name})).collect() };
        let mut status = json!({"containerStatuses": named(&["b", "x", "a", "b", "i"]),
            "initContainerStatuses": named(&["i", "i"]), "ephemeralContainerStatuses": named(&["e", "a"]), "phase": "Running"});
        only_containers_of(&mut status, &pod);
        assert_eq!(
            status,
            json!({"containerStatuses": named(&["b", "a"]), "initContainerStatuses": named(&["i"]),
                "ephemeralContainerStatuses": named(&["e"]), "phase": "Running"})
        );
    }
}
