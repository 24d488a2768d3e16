//! How long the texts of a pod's status are. Pure.
//!
//! What containers left behind as their termination messages has one bound for the whole pod (kubelet's `normalizeStatus`); what
//! else is said of it is ours, and short.

use contract::pod_status::termination_message_max;
use k8s_openapi::api::core::v1::{ContainerStatus, PodStatus};

/// 4 KiB of a message that is not a container's own: errors of the runtime and of drivers are in it.
const MESSAGE_MAX: usize = 4 << 10;

/// Cuts the texts of a pod that has so many containers.
pub(crate) fn cut(status: &mut PodStatus, containers: usize) {
    cut_text(&mut status.message, MESSAGE_MAX);
    let lists = [
        &mut status.init_container_statuses,
        &mut status.container_statuses,
        &mut status.ephemeral_container_statuses,
    ];
    for container in lists.into_iter().flatten().flatten() {
        cut_container(container, termination_message_max(containers));
    }
}

fn cut_container(container: &mut ContainerStatus, most: usize) {
    for state in [&mut container.state, &mut container.last_state].into_iter().flatten() {
        if let Some(ended) = &mut state.terminated {
            cut_text(&mut ended.message, most);
        }
        if let Some(waiting) = &mut state.waiting {
            cut_text(&mut waiting.message, MESSAGE_MAX);
        }
    }
}

fn cut_text(text: &mut Option<String>, most: usize) {
    if let Some(text) = text {
        text.truncate(text.floor_char_boundary(most));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_messages_of_a_pods_containers_share_twelve_kib() {
        for (containers, each) in [(1, 4096), (3, 4096), (4, 3072), (24, 512)] {
            let state = |kind: &str| json!({kind: {"exitCode": 1, "message": "x".repeat(5000)}});
            let one = json!({"name": "c", "image": "i", "imageID": "", "ready": false, "restartCount": 0,
                "state": state("waiting"), "lastState": state("terminated")});
            let mut status: PodStatus = serde_json::from_value(json!({
                "message": "é".repeat(5000), "containerStatuses": vec![one; containers]}))
            .unwrap();
            cut(&mut status, containers);
            assert_eq!(status.message.map(|text| text.len()), Some(MESSAGE_MAX));
            for one in status.container_statuses.unwrap() {
                let length = |text: Option<String>| text.map(|text| text.len());
                assert_eq!(length(one.last_state.unwrap().terminated.unwrap().message), Some(each));
                assert_eq!(length(one.state.unwrap().waiting.unwrap().message), Some(MESSAGE_MAX));
            }
        }
    }
}
