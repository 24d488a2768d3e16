//! The custom resources as Rust types, and the YAML made from them.
//!
//! Group, names and fields of the devices are KubeEdge's (`devices.kubeedge.io/v1beta1`), and so are those of rules
//! (`rules.kubeedge.io/v1`) and of jobs on nodes
//! (`operations.kubeedge.io/v1alpha2`), so that its users' manifests apply unchanged; the register of nodes is ours (`kubehive.io/v1alpha1`). The types here are the only source: [`manifests`] makes the definitions, and a test keeps the files in
//! `cloud/deploy/chart/crds` equal to them.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]
// kube's derive takes one `printcolumn(…)` per column: the lint sees their `type_` as repeated.
#![allow(clippy::duplicated_attributes)]

mod config_update_job;
mod desired;
mod device;
mod device_model;
mod device_status;
mod edge_node;
mod edge_rule;
mod foreign;
mod image_pre_pull_job;
mod join_token;
mod manifest;
mod node_job;
mod node_upgrade_job;
mod rule;
mod rule_endpoint;
mod validation;

pub use config_update_job::{ConfigUpdateJob, ConfigUpdateJobSpec, ConfigUpdateJobStatus};
pub use desired::is_whole_number;
pub use device::{
    CYCLE_MAX, DbMethod, DesiredValue, Device, DeviceMethod, DeviceProperty, DeviceSpec, Influxdb2,
    Influxdb2Client, Influxdb2Data, LegacyStatus, ModelReference, Mysql, MysqlClient, ProtocolConfig,
    PushHttp, PushMethod, PushMqtt, PushOtel, Redis, RedisClient, StateReport, TdEngine, TdEngineClient,
    VisitorConfig, cycle,
};
pub use device_model::{AccessMode, DeviceModel, DeviceModelSpec, ModelProperty, PropertyType};
pub use device_status::{DeviceStatus, DeviceStatusSpec, DeviceStatusStatus, Twin, TwinProperty};
pub use edge_node::{
    CERTIFICATE_ANNOTATION, EdgeNode, EdgeNodeSpec, NEXT_CERTIFICATE_ANNOTATION, NOT_REVOKED, NodeOwner,
    REVOKED, REVOKED_LABEL,
};
pub use edge_rule::{
    EDGE_ACTIONS_MAX, EDGE_RULES_ANNOTATION, EDGE_RULES_BYTES, EDGE_RULES_MAX, EdgeAction, EdgeCondition,
    EdgeRule, LocalUrl, edge_rules, edge_rules_text, parse_edge_rules,
};
pub use foreign::{is_kubeedges, stands_in};
pub use image_pre_pull_job::{
    ImagePrePullJob, ImagePrePullJobSpec, ImagePrePullJobStatus, ImagePrePullNodeStatus,
    ImagePrePullTemplate, ImageStatus,
};
pub use join_token::{JoinToken, JoinTokenSpec};
pub use manifest::{file_name, manifests, to_yaml};
pub use node_job::{
    ActionStatus, NodeJobSpec, NodeJobStatus, NodePartStatus, NodeSelector, NodeSelectorRequirement,
};
pub use node_upgrade_job::{
    ImageDigestGatter, NodeUpgradeJob, NodeUpgradeJobSpec, NodeUpgradeJobStatus, NodeUpgradeStatus,
    RegistryApi,
};
pub use rule::{Rule, RuleSpec, RuleStatus};
pub use rule_endpoint::{RuleEndpoint, RuleEndpointSpec, RuleEndpointType};

/// The API group of all device resources.
pub const GROUP: &str = "devices.kubeedge.io";
/// The version of the API of the devices that is served and stored.
pub const VERSION: &str = "v1beta1";
/// The API group of rules.
pub const RULES_GROUP: &str = "rules.kubeedge.io";
/// The API group of jobs on nodes.
pub const OPERATIONS_GROUP: &str = "operations.kubeedge.io";
/// The version of the API of jobs on nodes that is served and stored.
pub const OPERATIONS_VERSION: &str = "v1alpha2";
/// The API group of the register of nodes.
pub const HIVE_GROUP: &str = "kubehive.io";

/// Free-form settings: any JSON under any key.
pub type AnyMap = std::collections::BTreeMap<String, serde_json::Value>;

/// The schema of an [`AnyMap`]: without the extension the API server would prune every key.
fn any_map_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true })
}

/// Takes every field that is null out of a manifest, as an API server does with those that are not nullable: a field that is null
/// is a field that is not there.
pub fn without_nulls(value: &mut serde_json::Value) {
    match value {
        serde_json::Value::Object(fields) => {
            fields.retain(|_, field| !field.is_null());
            fields.values_mut().for_each(without_nulls);
        }
        serde_json::Value::Array(items) => items.iter_mut().for_each(without_nulls),
        _ => {}
    }
}
