//! DeviceStatus: what a device is, as its node reports it. One for each Device, of the same name.

use std::collections::BTreeMap;

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{AnyMap, any_map_schema};

/// Empty: all of a DeviceStatus is status.
#[derive(CustomResource, Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "devices.kubeedge.io",
    version = "v1beta1",
    kind = "DeviceStatus",
    plural = "devicestatuses",
    singular = "devicestatus",
    namespaced,
    status = "DeviceStatusStatus",
    derive = "Default",
    derive = "PartialEq",
    doc = "What a device is, as its node reports it.",
    printcolumn(name = "Properties", type_ = "string", json_path = ".status.extensions.summary.properties"),
    printcolumn(name = "Reported", type_ = "string", json_path = ".status.extensions.summary.reported"),
    printcolumn(name = "State", type_ = "string", json_path = ".status.extensions.summary.state"),
    printcolumn(name = "LastOnline", type_ = "string", json_path = ".status.lastOnlineTime"),
    printcolumn(name = "Twins", type_ = "string", json_path = ".status.twins", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Rules", type_ = "string", json_path = ".status.extensions.summary.rules"),
    printcolumn(name = "Problem", type_ = "string", json_path = ".status.extensions.summary.problem")
)]
pub struct DeviceStatusSpec {}

/// KubeEdge's states, as it compares them.
const STATE_PATTERN: &str = "^(?i)(online|offline|ok|unhealthy|unknown)$";

/// What was reported.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeviceStatusStatus {
    /// The properties.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub twins: Vec<Twin>,
    /// online, offline, ok, unhealthy or unknown, in letters of any size.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = STATE_PATTERN))]
    pub state: Option<String>,
    /// When the device was last online, as RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time"))]
    pub last_online_time: Option<String>,
    /// Anything else. `conditions` is what is wrong with the device: `Valid` and `Reachable` by CloudCore, the others by its node.
    /// `summary` is what `kubectl get` shows of all that, in a line; its state is unknown while nothing is heard of the node.
    #[serde(default, skip_serializing_if = "AnyMap::is_empty")]
    #[schemars(schema_with = "any_map_schema")]
    pub extensions: AnyMap,
}

/// One property: what it is, and what the node knows that it should be.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Twin {
    /// The property's name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub property_name: String,
    /// What the device says that it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reported: Option<TwinProperty>,
    /// What the node knows that it should be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_desired: Option<TwinProperty>,
}

/// A value.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TwinProperty {
    /// The value as text.
    pub value: String,
    /// Notes on it: `timestamp` (milliseconds) and `type`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
}
