//! What the node is short of, and whom it turns away for that. Pure.

use super::shortage::Shortage;
use super::signal::Condition;
use crate::pod::parsed_pod::ParsedPod;
use crate::runtime::resources::Qos;

/// As in a pod's `status.reason`.
pub(crate) const EVICTED: &str = "Evicted";
const MEMORY_TAINT: &str = "node.kubernetes.io/memory-pressure";

/// The conditions of a node that is short of something.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Pressure {
    pub(crate) memory: bool,
    pub(crate) disk: bool,
    pub(crate) pid: bool,
}

impl Pressure {
    /// By what the node is short of.
    pub(crate) fn of(shortages: &[Shortage]) -> Pressure {
        let has = |condition: Condition| shortages.iter().any(|own| own.signal.condition() == condition);
        Pressure { memory: has(Condition::Memory), disk: has(Condition::Disk), pid: has(Condition::Pid) }
    }

    /// Why a new pod is not taken now, as its status says it beside [`EVICTED`].
    pub(crate) fn refusal(self, pod: &ParsedPod) -> Option<String> {
        let named = [(self.memory, "MemoryPressure"), (self.disk, "DiskPressure"), (self.pid, "PIDPressure")];
        let named: Vec<&str> = named.into_iter().filter(|(holds, _)| *holds).map(|(_, name)| name).collect();
        let only_memory = self.memory && named.len() == 1;
        if named.is_empty()
            || pod.is_critical()
            || only_memory && (pod.qos != Qos::BestEffort || tolerates_memory_pressure(pod))
        {
            return None;
        }
        Some(format!("Pod was rejected: The node had condition: [{}]. ", named.join(" ")))
    }
}

fn tolerates_memory_pressure(pod: &ParsedPod) -> bool {
    pod.spec().tolerations.iter().flatten().any(|toleration| {
        let text = |field: &Option<String>| field.clone().unwrap_or_default();
        let (key, effect) = (text(&toleration.key), text(&toleration.effect));
        let fits = match toleration.operator.as_deref() {
            Some("Exists") => key.is_empty() || key == MEMORY_TAINT,
            // The taint has no value.
            _ => key == MEMORY_TAINT && text(&toleration.value).is_empty(),
        };
        fits && (effect.is_empty() || effect == "NoSchedule")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::parsed_pod::CRITICAL;
    use crate::pod::parsed_pod::tests::pod;
    use serde_json::json;

    #[test]
    fn a_node_that_is_short_of_something_takes_the_systems_pods_alone() {
        let memory = Pressure { memory: true, ..Pressure::default() };
        let both = Pressure { disk: true, ..memory };
        let asks =
            json!({"containers": [{"name": "c", "image": "x", "resources": {"requests": {"cpu": "1"}}}]});
        let tolerates =
            json!({"tolerations": [{"key": MEMORY_TAINT, "operator": "Exists", "effect": "NoSchedule"}]});
        let all = json!({"tolerations": [{"operator": "Exists"}]});
        let other = json!({"tolerations": [{"key": "x", "operator": "Exists"}]});
        for (pod, by_memory, by_both) in [
            (pod(json!({})), true, true),
            (pod(asks), false, true),
            (pod(tolerates), false, true),
            (pod(all), false, true),
            (pod(other), true, true),
            (pod(json!({"priority": CRITICAL})), false, false),
        ] {
            assert_eq!(Pressure::default().refusal(&pod), None);
            assert_eq!(memory.refusal(&pod).is_some(), by_memory, "{:?}", pod.spec());
            assert_eq!(both.refusal(&pod).is_some(), by_both, "{:?}", pod.spec());
        }
        let message = both.refusal(&pod(json!({})));
        assert_eq!(
            message.as_deref(),
            Some("Pod was rejected: The node had condition: [MemoryPressure DiskPressure]. ")
        );
    }
}
