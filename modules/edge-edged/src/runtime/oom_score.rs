//! Which containers the kernel ends first when memory runs out: those that use much beyond what they asked for. The kubelet's rule
//! (`pkg/kubelet/qos/policy.go`). Pure.

use cri::v1::ContainerConfig;
use k8s_openapi::api::core::v1::{Container, PodSpec};

use crate::pod::parsed_pod::{ParsedPod, all_of, is_sidecar};
use crate::runtime::demand;
use crate::runtime::resources::{Qos, amounts};

/// Of what must go last.
const LAST: i64 = -997;
/// Of what asked for nothing.
const FIRST: i64 = 1000;
/// The priority class of what the node itself needs.
const NODE_CRITICAL: &str = "system-node-critical";

/// The score of a container. `node_memory` in bytes.
pub(crate) fn of(pod: &ParsedPod, container: &Container, node_memory: u64) -> i64 {
    let class = pod.spec().priority_class_name.as_deref();
    if pod.is_critical() && class == Some(NODE_CRITICAL) {
        return LAST;
    }
    match pod.qos {
        Qos::Guaranteed => LAST,
        Qos::BestEffort => FIRST,
        Qos::Burstable => {
            let rest = rest_per_container(pod.spec());
            let mut counts = requested(container).saturating_add(rest);
            if is_sidecar(container) && pod.init_containers().any(|init| init.name == container.name) {
                // What helps the others doesn't go before any of them.
                let least = pod.spec().containers.iter().map(requested).min().unwrap_or(0);
                counts = counts.max(least.saturating_add(rest));
            }
            let score = i128::from(FIRST) - i128::from(counts) * 1000 / i128::from(node_memory.max(1));
            // Above the guaranteed ones and below those who asked for nothing.
            i64::try_from(score.clamp(3, 999)).unwrap_or(999)
        }
    }
}

/// Puts it into what the runtime is told.
pub(crate) fn put(config: &mut ContainerConfig, pod: &ParsedPod, container: &Container, node_memory: u64) {
    if let Some(resources) = config.linux.as_mut().and_then(|linux| linux.resources.as_mut()) {
        resources.oom_score_adj = of(pod, container, node_memory);
    }
}

/// What of the memory that is asked for the pod as a whole no container asks for, an equal share for each.
fn rest_per_container(spec: &PodSpec) -> i64 {
    let whole = demand::requests_of_whole(spec).get("memory").copied().unwrap_or(0);
    if whole == 0 {
        return 0;
    }
    let of_containers = demand::of_containers(spec).get("memory").copied().unwrap_or(0);
    let number = i64::try_from(all_of(spec).count().max(1)).unwrap_or(i64::MAX);
    whole.saturating_sub(of_containers) / number
}

fn requested(container: &Container) -> i64 {
    amounts(container.resources.as_ref()).memory_request
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::pod::parsed_pod::tests::pod;

    const NODE: u64 = 1000 << 20;

    fn scores(spec: Value) -> Vec<i64> {
        let pod = pod(spec);
        let all = pod.init_containers().chain(&pod.spec().containers);
        all.map(|container| of(&pod, container, NODE)).collect()
    }

    fn asks(name: &str, memory: &str) -> Value {
        json!({"name": name, "image": "x", "resources": {"requests": {"memory": memory}}})
    }

    #[test]
    fn the_more_was_asked_for_the_later_it_goes() {
        assert_eq!(scores(json!({})), [1000]);
        assert_eq!(scores(json!({"containers": [asks("a", "100Mi"), asks("b", "1Ki")]})), [900, 999]);
        assert_eq!(scores(json!({"containers": [asks("a", "2000Mi")]})), [3]);
        let full = json!({"limits": {"cpu": "1", "memory": "64Mi"}});
        assert_eq!(scores(json!({"containers": [{"name": "a", "image": "x", "resources": full}]})), [-997]);
    }

    #[test]
    fn what_the_pod_as_a_whole_asks_for_is_shared() {
        let with = |memory: &str, inits: Value| {
            scores(json!({"resources": {"requests": {"memory": memory}}, "initContainers": inits,
                "containers": [asks("a", "100Mi"), {"name": "b", "image": "x"}]}))
        };
        assert_eq!(with("300Mi", json!([])), [800, 900]);
        let mut side = asks("side", "50Mi");
        side["restartPolicy"] = json!("Always");
        assert_eq!(with("300Mi", json!([side])), [900, 850, 950]);
    }

    #[test]
    fn what_the_node_needs_goes_last() {
        let with =
            |class: &str, priority: i32| scores(json!({"priorityClassName": class, "priority": priority}));
        assert_eq!(with("system-node-critical", 2_000_001_000), [-997]);
        assert_eq!(with("system-cluster-critical", 2_000_000_000), [1000]);
        assert_eq!(with("system-node-critical", 5), [1000], "a name alone is a word");
    }

    #[test]
    fn a_sidecar_goes_no_sooner_than_the_container_that_asked_for_least() {
        let with = |memory: &str| {
            let mut side = asks("side", memory);
            side["restartPolicy"] = json!("Always");
            scores(json!({"initContainers": [side, asks("init", "1Mi")],
                "containers": [asks("a", "300Mi"), asks("b", "200Mi")]}))
        };
        assert_eq!(with("10Mi"), [800, 999, 700, 800]);
        assert_eq!(with("400Mi"), [600, 999, 700, 800]);
    }
}
