//! The bounds of containers and sandboxes in the words of the runtime.

use cri::v1::LinuxContainerResources;
use k8s_openapi::api::core::v1::{Container, PodSpec, ResourceRequirements};

use crate::pod::parsed_pod::ParsedPod;
use crate::runtime::demand;
use crate::runtime::huge_pages;
use crate::runtime::resources::{Amounts, PERIOD_US, amounts, quota, shares};
use crate::runtime::swap::{self, Swap};

/// What of the node the bounds of a container depend on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct NodeLimits {
    /// All memory of the machine, in bytes.
    pub(crate) memory: u64,
    /// The sizes of its huge pages, in bytes.
    pub(crate) huge_page_sizes: Vec<u64>,
    pub(crate) swap: Swap,
    /// The kernel has version 2 of cgroups, which can end a container as a whole.
    pub(crate) has_cgroups_v2: bool,
}

/// All processes of a container end when one of them is ended for its memory, as a kubelet has it with version 2 (`singleProcessOOMKill` is
/// false by default there): what lost a part of itself is seldom well.
const OOM_GROUP: &str = "memory.oom.group";

/// What the runtime is told for one container, but for its score.
pub(crate) fn of_container(
    pod: &ParsedPod,
    container: &Container,
    node: &NodeLimits,
) -> LinuxContainerResources {
    let (whole, own) = (pod.spec().resources.as_ref(), container.resources.as_ref());
    let mut told = LinuxContainerResources {
        hugepage_limits: huge_pages::limits(whole, own, &node.huge_page_sizes),
        ..bounded(within(whole, own))
    };
    swap::bound(&mut told, pod, container, (node.swap, node.memory));
    if node.has_cgroups_v2 {
        told.unified.insert(OOM_GROUP.to_owned(), "1".to_owned());
    }
    told
}

/// The amounts of a container: what has no limit there has that of the pod as a whole (the kubelet's `getCPULimit`,
/// `getMemoryLimit`), so that what reads its own limit, as managed languages do, knows how much there is.
fn within(whole: Option<&ResourceRequirements>, own: Option<&ResourceRequirements>) -> Amounts {
    let (whole, own) = (amounts(whole), amounts(own));
    let or = |own: i64, other: i64| if own == 0 { other } else { own };
    let (cpu_limit, memory_limit) =
        (or(own.cpu_limit, whole.cpu_limit), or(own.memory_limit, whole.memory_limit));
    Amounts {
        cpu_request: or(own.cpu_request, cpu_limit),
        cpu_limit,
        memory_request: or(own.memory_request, memory_limit),
        memory_limit,
    }
}

fn bounded(own: Amounts) -> LinuxContainerResources {
    let quota = quota(own.cpu_limit);
    LinuxContainerResources {
        cpu_period: if quota > 0 { PERIOD_US } else { 0 },
        cpu_quota: quota,
        cpu_shares: shares(own.cpu_request),
        memory_limit_in_bytes: own.memory_limit,
        ..LinuxContainerResources::default()
    }
}

/// What the runtime is told of a whole pod, for handlers that make a machine for it: what its containers have, and what the
/// handler itself takes.
pub(crate) fn of_sandbox(spec: &PodSpec) -> (LinuxContainerResources, Option<LinuxContainerResources>) {
    let of = |requests: &demand::Amounts, limits: &demand::Amounts| {
        let amount = |of: &demand::Amounts, name: &str| of.get(name).copied().unwrap_or(0);
        bounded(Amounts {
            cpu_request: amount(requests, "cpu"),
            cpu_limit: amount(limits, "cpu"),
            memory_request: amount(requests, "memory"),
            memory_limit: amount(limits, "memory"),
        })
    };
    let containers = of(&demand::without_overhead(spec), &demand::limits_without_overhead(spec));
    let overhead = demand::overhead(spec);
    (containers, spec.overhead.is_some().then(|| of(&overhead, &overhead)))
}

/// The same for a container that runs: what has no limit is told so, where none would leave it as it is.
pub(crate) fn of_update(
    pod: &ParsedPod,
    container: &Container,
    node: &NodeLimits,
) -> LinuxContainerResources {
    let mut told = of_container(pod, container, node);
    if told.cpu_quota == 0 {
        (told.cpu_period, told.cpu_quota) = (PERIOD_US, -1);
    }
    // Neither can change.
    told.hugepage_limits.clear();
    told.unified.clear();
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_ends_as_a_whole_where_the_kernel_can() {
        let pod = crate::pod::parsed_pod::tests::pod(
            serde_json::json!({"containers": [{"name": "a", "image": "x"}]}),
        );
        let told = |has_cgroups_v2| {
            let node = NodeLimits { has_cgroups_v2, ..NodeLimits::default() };
            let own = &pod.spec().containers[0];
            (
                of_container(&pod, own, &node).unified.get(OOM_GROUP).cloned(),
                of_update(&pod, own, &node).unified,
            )
        };
        assert_eq!(told(true).0.as_deref(), Some("1"));
        assert!(told(true).1.is_empty() && told(false).0.is_none());
    }
    use crate::pod::parsed_pod::tests::pod;
    use crate::runtime::swap::SwapControl;

    fn of_json(json: serde_json::Value) -> PodSpec {
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn limits_become_quotas() {
        let pod = pod(serde_json::json!({"containers": [{"name": "a", "image": "x", "resources": {
            "limits": {"cpu": "500m", "memory": "64Mi", "hugepages-2Mi": "4Mi"}, "requests": {"cpu": "250m"}}}]}));
        let node = NodeLimits {
            memory: 1 << 30,
            huge_page_sizes: vec![2 << 20],
            swap: Swap { control: SwapControl::Together, ..Swap::default() },
            has_cgroups_v2: false,
        };
        let told = of_container(&pod, &pod.spec().containers[0], &node);
        assert_eq!((told.cpu_shares, told.cpu_quota, told.cpu_period), (256, 50_000, 100_000));
        assert_eq!((told.memory_limit_in_bytes, told.memory_swap_limit_in_bytes), (64 << 20, 64 << 20));
        assert_eq!(
            (told.hugepage_limits[0].page_size.as_str(), told.hugepage_limits[0].limit),
            ("2MB", 4 << 20)
        );
        let update = of_update(&pod, &pod.spec().containers[0], &node);
        assert!(update.hugepage_limits.is_empty() && update.memory_swap_limit_in_bytes == 64 << 20);
        assert_eq!(shares(0), 2);
        assert_eq!(quota(1), 1000);
    }

    #[test]
    fn a_container_without_a_limit_has_that_of_its_pod() {
        let pod = pod(
            serde_json::json!({"resources": {"limits": {"cpu": "2", "memory": "64Mi"}}, "containers": [
            {"name": "a", "image": "x"},
            {"name": "b", "image": "x", "resources": {"requests": {"cpu": "250m"}, "limits": {"memory": "32Mi"}}}]}),
        );
        let of = |at: usize| {
            let told = of_container(&pod, &pod.spec().containers[at], &NodeLimits::default());
            (told.cpu_shares, told.cpu_quota, told.memory_limit_in_bytes)
        };
        assert_eq!(of(0), (2048, 200_000, 64 << 20));
        assert_eq!(of(1), (256, 200_000, 32 << 20));
    }

    #[test]
    fn a_handler_is_told_what_the_containers_have_and_what_is_its_own() {
        let limited = serde_json::json!([{"name": "a", "image": "x", "resources": {"limits": {"cpu": "1", "memory": "64Mi"}}}]);
        let spec = of_json(
            serde_json::json!({"containers": limited, "overhead": {"cpu": "250m", "memory": "120Mi"}}),
        );
        let (containers, overhead) = of_sandbox(&spec);
        assert_eq!((containers.cpu_quota, containers.memory_limit_in_bytes), (100_000, 64 << 20));
        let overhead = overhead.unwrap();
        assert_eq!((overhead.cpu_shares, overhead.memory_limit_in_bytes), (256, 120 << 20));
        assert_eq!(of_sandbox(&PodSpec::default()).1, None);
    }
}
