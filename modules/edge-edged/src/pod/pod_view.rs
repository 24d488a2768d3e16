//! A pod in a line, as the node's page shows it. Pure.

use contract::edgepage::PodView;
use k8s_openapi::api::core::v1::{ContainerStatus, PodStatus};

use crate::pod::parsed_pod::ParsedPod;

/// Whether a pod is as it should be.
pub(crate) fn is_well(pod: &PodView) -> bool {
    match pod.phase.as_str() {
        "Running" => pod.ready == pod.containers && pod.reason.is_none(),
        phase => phase == "Succeeded",
    }
}

/// A pod by its spec and what was reported of it last.
pub(crate) fn pod_view(pod: &ParsedPod, phase: &str, status: Option<&PodStatus>) -> PodView {
    let spec = pod.spec();
    let nothing = PodStatus::default();
    let status = status.unwrap_or(&nothing);
    let containers = || status.container_statuses.iter().flatten();
    let inits = || status.init_container_statuses.iter().flatten();
    let of_pod = status.reason.clone().map(|reason| (reason, status.message.clone()));
    let (reason, message) = of_pod.or_else(|| inits().chain(containers()).find_map(what_is_wrong)).unzip();
    PodView {
        namespace: pod.id.namespace.clone(),
        name: pod.id.name.clone(),
        phase: status.phase.clone().unwrap_or_else(|| phase.to_owned()),
        reason,
        message: message.flatten(),
        ready: containers().filter(|own| own.ready).count(),
        containers: spec.containers.len(),
        restarts: inits().chain(containers()).map(|own| u64::try_from(own.restart_count).unwrap_or(0)).sum(),
        started: status.start_time.as_ref().map(|time| time.0.to_string()),
    }
}

/// Why a container does not run that should: a word and a sentence.
fn what_is_wrong(own: &ContainerStatus) -> Option<(String, Option<String>)> {
    let state = own.state.as_ref()?;
    if let Some(waiting) = &state.waiting {
        let reason = waiting.reason.clone().unwrap_or_default();
        // These pass by themselves.
        let begins = ["ContainerCreating", "PodInitializing", ""].contains(&reason.as_str());
        return (!begins).then(|| (reason, waiting.message.clone()));
    }
    let ended = state.terminated.as_ref().filter(|ended| ended.exit_code != 0)?;
    let word = ended.reason.clone().unwrap_or_else(|| "Error".to_owned());
    let sentence = ended.message.clone();
    let sentence =
        sentence.unwrap_or_else(|| format!("container {} ended with {}", own.name, ended.exit_code));
    Some((word, Some(sentence)))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::pod::parsed_pod::tests::pod;

    fn view(status: Value) -> PodView {
        let pod = pod(json!({"containers": [{"name": "a", "image": "x"}, {"name": "b", "image": "x"}]}));
        pod_view(&pod, "Pending", Some(&serde_json::from_value(status).unwrap()))
    }

    #[test]
    fn a_pod_says_what_is_wrong_with_it() {
        let well = view(
            json!({"phase": "Running", "startTime": "2026-11-30T10:00:00Z", "containerStatuses": [
            {"name": "a", "ready": true, "restartCount": 2, "image": "", "imageID": "", "state": {"running": {}}},
            {"name": "b", "ready": true, "restartCount": 1, "image": "", "imageID": "", "state": {"running": {}}}]}),
        );
        assert_eq!((well.ready, well.containers, well.restarts, &well.reason), (2, 2, 3, &None));
        assert_eq!(well.started.as_deref(), Some("2026-11-30T10:00:00Z"));
        assert!(is_well(&well));
        let waits = |reason: &str| {
            view(
                json!({"phase": "Pending", "containerStatuses": [{"name": "a", "ready": false, "restartCount": 0,
                "image": "", "imageID": "", "state": {"waiting": {"reason": reason, "message": "m"}}}]}),
            )
        };
        let pulls = waits("ImagePullBackOff");
        assert_eq!(
            (pulls.reason.as_deref(), pulls.message.as_deref()),
            (Some("ImagePullBackOff"), Some("m"))
        );
        assert_eq!(waits("ContainerCreating").reason, None);
        let ended = view(json!({"phase": "Failed", "containerStatuses": [{"name": "a", "ready": false,
            "restartCount": 0, "image": "", "imageID": "", "state": {"terminated": {"exitCode": 3}}}]}));
        assert_eq!(ended.message.as_deref(), Some("container a ended with 3"));
        let evicted = view(json!({"phase": "Failed", "reason": "Evicted", "message": "low on memory"}));
        assert_eq!(
            (evicted.reason.as_deref(), evicted.message.as_deref()),
            (Some("Evicted"), Some("low on memory"))
        );
        assert!(!is_well(&pulls) && !is_well(&evicted));
        let unknown = pod_view(&pod(json!({})), "", None);
        assert_eq!((unknown.phase.as_str(), unknown.containers), ("", 1));
    }
}
