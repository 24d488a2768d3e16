//! Waits until CloudCore's pods are ready, and says what they wait for.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use beehive::Env;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::Client;
use kube::api::{Api, ListParams};

/// 1 s between two looks.
const PAUSE: Duration = Duration::from_secs(1);
/// The pods of the Deployment.
const SELECTOR: &str = "k8s-app=kubeedge,kubeedge=cloudcore";

/// How far it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Progress {
    /// Every pod is ready, and of this release.
    Ready,
    /// Not yet, and why not.
    Waiting(String),
}

/// Waits until the Deployment is ready, and says each new reason why it is not.
///
/// # Errors
/// When it is not ready in time: the last reason, and where to look.
pub(crate) async fn wait(
    client: &Client,
    namespace: &str,
    within: Duration,
    env: &Env,
    say: &mut dyn FnMut(String),
) -> Result<()> {
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), namespace);
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let mut last = String::new();
    let waited = env.timeout(within, async {
        loop {
            let deployment =
                deployments.get(helmchart::RELEASE).await.context("cannot read the Deployment cloudcore")?;
            let list = pods
                .list(&ListParams::default().labels(SELECTOR))
                .await
                .context("cannot list CloudCore's pods")?;
            match progress(&deployment, &list.items, namespace) {
                Progress::Ready => return Ok::<(), anyhow::Error>(()),
                Progress::Waiting(why) if why != last => {
                    say(format!("waiting: {why}"));
                    last = why;
                }
                Progress::Waiting(_) => {}
            }
            env.sleep(PAUSE).await;
        }
    });
    let waited = waited.await;
    match waited {
        Some(done) => done,
        None => bail!(
            "CloudCore is installed, and not ready after {} s: {last}. Look with `kubectl -n {namespace} describe pod -l kubeedge=cloudcore` and `kubectl -n {namespace} logs -l kubeedge=cloudcore`",
            within.as_secs()
        ),
    }
}

/// How far the Deployment is, and which of the pods' reasons comes first.
pub(crate) fn progress(deployment: &Deployment, pods: &[Pod], namespace: &str) -> Progress {
    let wanted = deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    let status = deployment.status.clone().unwrap_or_default();
    let is_seen = status.observed_generation >= deployment.metadata.generation;
    let count = |number: Option<i32>| number.unwrap_or(0);
    let (updated, ready) = (count(status.updated_replicas), count(status.ready_replicas));
    if is_seen && updated == wanted && ready >= wanted && count(status.replicas) == wanted {
        return Progress::Ready;
    }
    let failure =
        status.conditions.iter().flatten().find(|one| one.type_ == "ReplicaFailure" && one.status == "True");
    if let Some(message) = failure.and_then(|failure| failure.message.as_deref()) {
        return Progress::Waiting(format!("no pod can be made: {}", brief(message)));
    }
    let reason = pods.iter().find_map(|pod| reason(pod, namespace));
    let so_far = format!("{ready} of {wanted} pods are ready");
    Progress::Waiting(match reason {
        Some(reason) => format!("{so_far}; {reason}"),
        None if !is_seen || (pods.is_empty() && wanted > 0) => {
            format!("{so_far}; the cluster has not made them yet (kube-controller-manager does)")
        }
        None => so_far,
    })
}

/// What a pod waits for.
fn reason(pod: &Pod, namespace: &str) -> Option<String> {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let status = pod.status.as_ref()?;
    let conditions = status.conditions.as_deref().unwrap_or_default();
    if let Some(unplaced) = conditions.iter().find(|one| one.type_ == "PodScheduled" && one.status == "False")
    {
        return Some(format!(
            "{name} has no machine: {}",
            brief(unplaced.message.as_deref().unwrap_or_default())
        ));
    }
    let is_placed = pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some());
    let containers = status.container_statuses.as_deref().unwrap_or_default();
    if let Some(why) = containers.iter().find_map(|container| of_container(container, namespace)) {
        return Some(format!("{name}: {why}"));
    }
    if conditions.iter().any(|one| one.type_ == "Ready" && one.status == "True") {
        return None;
    }
    Some(match is_placed {
        false => format!("{name} is not placed yet (kube-scheduler does)"),
        true if containers.is_empty() => format!("{name}: its machine has not begun it"),
        true => {
            format!(
                "{name} runs and is not ready: it waits for the API server, or for what its log says \
                 (`kubectl -n {namespace} logs {name}`)"
            )
        }
    })
}

fn of_container(container: &ContainerStatus, namespace: &str) -> Option<String> {
    let state = container.state.as_ref()?;
    let waiting = state.waiting.as_ref();
    let reason = waiting.and_then(|waiting| waiting.reason.as_deref()).unwrap_or_default();
    let message = brief(waiting.and_then(|waiting| waiting.message.as_deref()).unwrap_or_default());
    match reason {
        "" | "ContainerCreating" | "PodInitializing" => None,
        "ImagePullBackOff" | "ErrImagePull" | "InvalidImageName" | "ErrImageNeverPull" => Some(format!(
            "the image {} cannot be had ({reason}): {message}; name a registry of yours with --image-repository",
            container.image
        )),
        "CrashLoopBackOff" => {
            let ended = container.last_state.as_ref().and_then(|last| last.terminated.as_ref());
            let code = ended.map_or_else(|| "?".to_owned(), |ended| ended.exit_code.to_string());
            let words = brief(ended.and_then(|ended| ended.message.as_deref()).unwrap_or_default());
            Some(format!(
                "{} ends by itself, with {code} {words}: `kubectl -n {namespace} logs -l kubeedge=cloudcore --previous`",
                container.name
            ))
        }
        other => Some(format!("{}: {} {message}", container.name, brief(other))),
    }
}

/// A message of a cluster's, made harmless for a terminal.
fn brief(message: &str) -> String {
    let one_line: String =
        message.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect();
    one_line.trim().chars().take(500).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn deployment(status: Value) -> Deployment {
        let spec = json!({ "replicas": 2, "selector": {}, "template": {} });
        serde_json::from_value(json!({ "metadata": { "generation": 3 }, "spec": spec, "status": status }))
            .unwrap()
    }

    fn pod(status: Value) -> Pod {
        let spec = json!({ "containers": [], "nodeName": "n" });
        serde_json::from_value(
            json!({ "metadata": { "name": "cloudcore-a" }, "spec": spec, "status": status }),
        )
        .unwrap()
    }

    fn waiting(reason: &str, message: &str) -> Value {
        let last = json!({ "terminated": { "exitCode": 1, "message": "cannot\u{1b}[31m start" } });
        let state = json!({ "waiting": { "reason": reason, "message": message } });
        let one = json!({
            "name": "cloudcore", "image": "kubeedge/cloudcore:v1", "imageID": "", "ready": false, "restartCount": 0,
            "state": state, "lastState": last,
        });
        json!({ "containerStatuses": [one] })
    }

    #[test]
    fn a_rollout_is_done_when_every_pod_is_ready_and_of_this_release() {
        let of = |observed: i64, replicas: i32, updated: i32, ready: i32| {
            let status = json!({
                "observedGeneration": observed, "replicas": replicas, "updatedReplicas": updated, "readyReplicas": ready,
            });
            progress(&deployment(status), &[], "hive") == Progress::Ready
        };
        assert!(of(3, 2, 2, 2));
        for (why, ready) in [
            ("the old status", of(2, 2, 2, 2)),
            ("an old pod is left", of(3, 3, 2, 3)),
            ("one is old", of(3, 2, 1, 2)),
            ("one is not ready", of(3, 2, 2, 1)),
        ] {
            assert!(!ready, "{why}");
        }
    }

    #[test]
    fn the_reason_of_a_pod_that_is_not_ready_is_named() {
        let status = json!({ "observedGeneration": 3, "replicas": 2 });
        let why = |pods: &[Pod]| match progress(&deployment(status.clone()), pods, "hive") {
            Progress::Waiting(why) => why,
            Progress::Ready => String::new(),
        };
        assert!(why(&[]).contains("kube-controller-manager"));
        let unplaced =
            json!([{ "type": "PodScheduled", "status": "False", "message": "0/3 nodes are available" }]);
        for (pod, word) in [
            (pod(json!({ "conditions": unplaced })), "has no machine: 0/3 nodes"),
            (pod(waiting("ImagePullBackOff", "not found")), "--image-repository"),
            (pod(waiting("CrashLoopBackOff", "back-off")), "with 1 cannot [31m start"),
            (
                pod(waiting("CreateContainerConfigError", "no such key")),
                "CreateContainerConfigError no such key",
            ),
            (pod(waiting("ContainerCreating", "")), "(`kubectl -n hive logs cloudcore-a`)"),
            (pod(json!({})), "has not begun it"),
        ] {
            let said = why(&[pod]);
            assert!(said.contains(word) && !said.contains('\u{1b}'), "{said}");
        }
        let failure =
            json!([{ "type": "ReplicaFailure", "status": "True", "message": "violates PodSecurity" }]);
        let refused = deployment(json!({ "observedGeneration": 3, "conditions": failure }));
        assert_eq!(
            progress(&refused, &[], "hive"),
            Progress::Waiting("no pod can be made: violates PodSecurity".to_owned())
        );
    }
}
