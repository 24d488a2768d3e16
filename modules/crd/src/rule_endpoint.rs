//! RuleEndpoint: what kind of an end a Rule has (KubeEdge).

use std::collections::BTreeMap;

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// An end of Rules of its namespace.
#[derive(CustomResource, Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "rules.kubeedge.io",
    version = "v1",
    kind = "RuleEndpoint",
    plural = "ruleendpoints",
    singular = "ruleendpoint",
    shortname = "re",
    namespaced,
    derive = "Default",
    derive = "PartialEq",
    doc = "What kind of an end Rules have.",
    printcolumn(name = "Type", type_ = "string", json_path = ".spec.ruleEndpointType"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct RuleEndpointSpec {
    /// Which kind.
    pub rule_endpoint_type: RuleEndpointType,
    /// servicebus: `service_port`, the port on the node's loopback.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub properties: BTreeMap<String, String>,
}

/// Which kind of an end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RuleEndpointType {
    /// HTTP in the cloud.
    #[default]
    Rest,
    /// A node's MQTT broker.
    EventBus,
    /// HTTP on a node.
    ServiceBus,
}

impl RuleEndpointType {
    /// The word in the object.
    pub fn as_str(self) -> &'static str {
        match self {
            RuleEndpointType::Rest => "rest",
            RuleEndpointType::EventBus => "eventbus",
            RuleEndpointType::ServiceBus => "servicebus",
        }
    }
}
