//! Who keeps pods on nodes that are cut off, and how that is found out. Pure.

use apimachinery::taint::{NO_EXECUTE, NOT_READY, UNREACHABLE, drives_away_when_cut_off};
use contract::NodeName;
use k8s_openapi::api::core::v1::Node;
use serde_json::json;

use crate::registration;

/// Who keeps pods on edge nodes that are cut off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum EvictionRule {
    /// The server has not said yet: nothing is done.
    #[default]
    Unknown,
    /// The API server: no taint drives them away.
    Admission,
    /// CloudCore: they tolerate the taints for ever.
    Tolerations,
}

impl EvictionRule {
    /// As `/state` shows it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            EvictionRule::Unknown => "unknown",
            EvictionRule::Admission => "admission",
            EvictionRule::Tolerations => "tolerations",
        }
    }
}

/// No Node has this name: it is created in a dry run alone.
const PROBE: &str = "kubehive-eviction-probe";

/// An edge Node that is cut off, as CloudCore may make one: whoever creates it is told whether its taints stay.
pub(crate) fn probe_node() -> Option<Node> {
    let taint = |key: &str| json!({ "key": key, "effect": NO_EXECUTE });
    let report = json!({ "spec": { "taints": [taint(NOT_READY), taint(UNREACHABLE)] } });
    Some(registration::registration(&NodeName::parse(PROBE).ok()?, "0", &report))
}

/// What follows from the Node that the server would have made of [`probe_node`].
pub(crate) fn rule_of(made: &Node) -> EvictionRule {
    let taints = made.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    let stays = taints.map(|taint| json!(taint)).any(|taint| drives_away_when_cut_off(&taint));
    if stays { EvictionRule::Tolerations } else { EvictionRule::Admission }
}

/// A minute of refusals, one in five seconds.
const REFUSALS_MAX: u32 = 12;

/// Whether a server that has refused to make the Node of [`probe_node`], `refusals` times one after the other, keeps no pods. One that
/// has just begun refuses what CloudCore's account may, until it has read its roles; and lifting what pods tolerate cannot be undone. So
/// it follows from many refusals of one that has never said what it does with the taints, and from none of one that has.
pub(crate) fn follows_from_refusals(found: EvictionRule, refusals: u32) -> bool {
    match found {
        EvictionRule::Unknown => refusals >= REFUSALS_MAX,
        EvictionRule::Admission => false,
        EvictionRule::Tolerations => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    #[test]
    fn a_refusal_is_no_proof_that_the_server_keeps_no_pods() {
        assert!(!follows_from_refusals(EvictionRule::Unknown, 1));
        assert!(follows_from_refusals(EvictionRule::Unknown, REFUSALS_MAX));
        assert!(!follows_from_refusals(EvictionRule::Admission, u32::MAX));
        assert!(follows_from_refusals(EvictionRule::Tolerations, 1), "it stays as it is");
    }

    #[test]
    fn the_server_keeps_pods_where_no_taint_of_the_probe_is_left() {
        let probe = probe_node().unwrap();
        assert_eq!(rule_of(&probe), EvictionRule::Tolerations, "as it was sent");
        let told = json!(probe);
        assert!(noderegistry::plan::is_edge(&told), "a policy takes it for an edge node: {told}");
        let with = |taints: Value| {
            let mut told = told.clone();
            told["spec"]["taints"] = taints;
            rule_of(&serde_json::from_value(told).unwrap())
        };
        let unreachable = |effect: &str| json!({ "key": UNREACHABLE, "effect": effect });
        assert_eq!(with(Value::Null), EvictionRule::Admission);
        assert_eq!(with(json!([unreachable("NoSchedule")])), EvictionRule::Admission);
        assert_eq!(
            with(json!([unreachable(NO_EXECUTE)])),
            EvictionRule::Tolerations,
            "half of it is nothing"
        );
    }
}
