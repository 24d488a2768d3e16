//! A container's `restartPolicyRules`.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

/// One of a container's `restartPolicyRules`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RestartRule {
    action: String,
    exit_codes: Option<ExitCodes>,
}

/// What a rule does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RuleAction {
    /// The container starts again.
    Restart,
    /// All containers of the pod do, from the first init container on.
    RestartAll,
}

/// The action of a rule that restarts all.
const ALL: &str = "RestartAllContainers";

#[derive(Debug, Clone, PartialEq, Deserialize)]
struct ExitCodes {
    operator: String,
    #[serde(default)]
    values: Vec<i32>,
}

impl RestartRule {
    /// What is to be done for a container that has ended with this code; `None`: the rule is not about that.
    pub(crate) fn action(&self, code: i32) -> Option<RuleAction> {
        let matches = self.exit_codes.as_ref().is_some_and(|codes| match codes.operator.as_str() {
            "In" => codes.values.contains(&code),
            "NotIn" => !codes.values.contains(&code),
            _ => false,
        });
        match self.action.as_str() {
            "Restart" if matches => Some(RuleAction::Restart),
            ALL if matches => Some(RuleAction::RestartAll),
            _ => None,
        }
    }

    /// Whether it can restart all containers of the pod.
    pub(crate) fn is_for_all(&self) -> bool {
        self.action == ALL
    }
}

/// The rules of a pod's containers, by their names. The types of the API that are built here are older than they.
pub(crate) fn rules_of(spec: &Value) -> BTreeMap<String, Vec<RestartRule>> {
    let lists = ["initContainers", "containers"].into_iter().filter_map(|list| spec.get(list)?.as_array());
    let rules = lists.flatten().filter_map(|container| {
        let rules = serde_json::from_value(container.get("restartPolicyRules")?.clone()).ok()?;
        Some((container.get("name")?.as_str()?.to_owned(), rules))
    });
    rules.collect()
}
