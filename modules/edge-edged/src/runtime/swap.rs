//! How much a container may have of the machine's swap: the kubelet's `memorySwap` (pkg/kubelet/kuberuntime,
//! `configureContainerSwapResources`).

use std::path::Path;

use config::edge::SwapBehavior;
use cri::v1::LinuxContainerResources;
use k8s_openapi::api::core::v1::Container;

use crate::pod::parsed_pod::ParsedPod;
use crate::runtime::resources::{Qos, amounts};

/// The file of version 2 that bounds it.
const SWAP_MAX: &str = "memory.swap.max";

/// How the kernel lets swap be bounded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum SwapControl {
    /// Not at all.
    #[default]
    None,
    /// With cgroups of version 1: memory and swap together.
    Together,
    /// With version 2: by itself.
    Alone,
}

/// Asks the kernel. Blocks. `sys`: `/sys/fs/cgroup`; `own`: what `/proc/self/cgroup` says.
pub(crate) fn control(sys: &Path, own: &str) -> SwapControl {
    if !sys.join("cgroup.controllers").exists() {
        let there = sys.join("memory/memory.memsw.limit_in_bytes").exists();
        return if there { SwapControl::Together } else { SwapControl::None };
    }
    // The root has no such file.
    let own = own.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or("/");
    let there = sys.join(own.trim_start_matches('/')).join(SWAP_MAX).exists();
    if there { SwapControl::Alone } else { SwapControl::None }
}

/// What of the node decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Swap {
    pub(crate) control: SwapControl,
    pub(crate) behavior: SwapBehavior,
    /// Bytes of swap that the machine has.
    pub(crate) capacity: u64,
}

impl Default for Swap {
    fn default() -> Self {
        Swap { control: SwapControl::None, behavior: SwapBehavior::NoSwap, capacity: 0 }
    }
}

/// Whether a container may have some: only with cgroups of version 2, in a burstable pod that is not critical, and with a request
/// for memory below its limit.
pub(crate) fn is_allowed(pod: &ParsedPod, container: &Container, swap: Swap) -> bool {
    let own = amounts(container.resources.as_ref());
    swap.behavior == SwapBehavior::LimitedSwap
        && swap.control == SwapControl::Alone
        && !pod.is_critical()
        && pod.qos == Qos::Burstable
        && own.memory_request > 0
        && own.memory_request != own.memory_limit
}

/// Bounds it. `node_memory`: all memory of the machine, in bytes.
pub(crate) fn bound(
    told: &mut LinuxContainerResources,
    pod: &ParsedPod,
    container: &Container,
    (swap, node_memory): (Swap, u64),
) {
    match swap.control {
        SwapControl::None => {}
        // As much as memory alone: no swap beyond that. Without a limit of memory there is none of this.
        SwapControl::Together => told.memory_swap_limit_in_bytes = told.memory_limit_in_bytes,
        SwapControl::Alone => {
            let share = if is_allowed(pod, container, swap) {
                share(amounts(container.resources.as_ref()).memory_request, node_memory, swap.capacity)
            } else {
                0
            };
            told.unified.insert(SWAP_MAX.to_owned(), share.to_string());
        }
    }
}

/// As much of the swap as the container asks for of the memory.
fn share(request: i64, node_memory: u64, capacity: u64) -> u64 {
    let (request, node) = (u128::try_from(request).unwrap_or(0), u128::from(node_memory));
    // A request that the node does not have gets none, as with the kubelet.
    if node == 0 || request > node {
        return 0;
    }
    u64::try_from(request * u128::from(capacity) / node).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::parsed_pod::tests::pod;
    use serde_json::{Value, json};

    fn bounded(resources: Value, spec: Value, control: SwapControl, behavior: SwapBehavior) -> (i64, String) {
        let mut spec = spec;
        spec["containers"] = json!([{"name": "c", "image": "x", "resources": resources}]);
        let pod = pod(spec);
        let container = &pod.spec().containers[0];
        let limit = amounts(container.resources.as_ref()).memory_limit;
        let mut told =
            LinuxContainerResources { memory_limit_in_bytes: limit, ..LinuxContainerResources::default() };
        let swap = Swap { control, behavior, capacity: 1 << 30 };
        bound(&mut told, &pod, container, (swap, 4 << 30));
        (told.memory_swap_limit_in_bytes, told.unified.remove(SWAP_MAX).unwrap_or_default())
    }

    #[test]
    fn version_one_has_no_swap_whatever_is_configured() {
        let limits = json!({"limits": {"memory": "64Mi"}});
        for behavior in [SwapBehavior::NoSwap, SwapBehavior::LimitedSwap] {
            let told = bounded(limits.clone(), json!({}), SwapControl::Together, behavior);
            assert_eq!(told, (64 << 20, String::new()));
            let told = bounded(json!({}), json!({}), SwapControl::Together, behavior);
            assert_eq!(told, (0, String::new()), "without a limit of memory there is none of both");
            assert_eq!(bounded(limits.clone(), json!({}), SwapControl::None, behavior).0, 0);
        }
    }

    #[test]
    fn version_two_gives_burstable_pods_their_share() {
        let limited = |resources: Value, spec: Value| {
            bounded(resources, spec, SwapControl::Alone, SwapBehavior::LimitedSwap).1
        };
        let burstable = json!({"requests": {"memory": "1Gi"}, "limits": {"memory": "2Gi"}});
        assert_eq!(limited(burstable.clone(), json!({})), (256 << 20).to_string());
        assert_eq!(limited(burstable.clone(), json!({"priority": 2_000_000_000})), "0", "a critical pod");
        assert_eq!(limited(json!({"requests": {"cpu": "1"}}), json!({})), "0", "asks for no memory");
        assert_eq!(limited(json!({"requests": {"memory": "8Gi"}}), json!({})), "0", "more than there is");
        assert_eq!(limited(json!({"limits": {"memory": "1Gi", "cpu": "1"}}), json!({})), "0", "guaranteed");
        let told = bounded(burstable, json!({}), SwapControl::Alone, SwapBehavior::NoSwap);
        assert_eq!(told, (0, "0".to_owned()));
    }

    #[test]
    fn the_kernel_says_how_swap_is_bounded() {
        let sys = tempfile::tempdir().unwrap();
        assert_eq!(control(sys.path(), ""), SwapControl::None);
        std::fs::create_dir(sys.path().join("memory")).unwrap();
        std::fs::write(sys.path().join("memory/memory.memsw.limit_in_bytes"), "").unwrap();
        assert_eq!(control(sys.path(), ""), SwapControl::Together);
        std::fs::write(sys.path().join("cgroup.controllers"), "memory").unwrap();
        assert_eq!(control(sys.path(), "0::/own/part\n"), SwapControl::None);
        std::fs::create_dir_all(sys.path().join("own/part")).unwrap();
        std::fs::write(sys.path().join("own/part").join(SWAP_MAX), "max").unwrap();
        assert_eq!(control(sys.path(), "0::/own/part\n"), SwapControl::Alone);
    }
}
