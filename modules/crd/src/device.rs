//! Device: one thing behind a node, what it should be, and how to reach it.

use std::collections::BTreeMap;

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{AnyMap, any_map_schema};

/// What the user says about a device.
#[derive(CustomResource, Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "devices.kubeedge.io",
    version = "v1beta1",
    kind = "Device",
    plural = "devices",
    singular = "device",
    namespaced,
    status = "LegacyStatus",
    derive = "Default",
    derive = "PartialEq",
    doc = "A device that is wired to an edge node.",
    printcolumn(name = "Node", type_ = "string", json_path = ".spec.nodeName"),
    printcolumn(name = "Model", type_ = "string", json_path = ".spec.deviceModelRef.name"),
    printcolumn(name = "Protocol", type_ = "string", json_path = ".spec.protocol.protocolName"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct DeviceSpec {
    /// The DeviceModel that the device is one of, in the same namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device_model_ref: Option<ModelReference>,
    /// The edge node that has the device. Another name moves the device there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_name: Option<String>,
    /// What can be read from and written to the device. Each has a name, and no two have the same.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub properties: Vec<DeviceProperty>,
    /// Methods that can be called through the mapper's REST API.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub methods: Vec<DeviceMethod>,
    /// How to reach the device. The name selects the mapper; keys here override the model's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<ProtocolConfig>,
    /// How the device's own state is reported.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state_report: Option<StateReport>,
}

/// A name of a DeviceModel.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ModelReference {
    /// The name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// One property of a device.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeviceProperty {
    /// Its name, which the model must have too.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// What the property should be, if it can be written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub desired: Option<DesiredValue>,
    /// Where the protocol finds the property. Keys here override the model's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub visitors: Option<VisitorConfig>,
    /// Milliseconds between two pushes; absent or 0 is the mapper's default of 1 s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub report_cycle: Option<i64>,
    /// Milliseconds between two readings; absent or 0 is 1 s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub collect_cycle: Option<i64>,
    /// Whether the value is reported to the cloud as a twin.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub report_to_cloud: Option<bool>,
    /// Where the mapper pushes the value besides.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub push_method: Option<PushMethod>,
}

/// A value that the user wants.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct DesiredValue {
    /// The value as text.
    pub value: String,
    /// Notes on the value, such as `timestamp` (milliseconds) and `type`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
}

/// The protocol's address of one property.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VisitorConfig {
    /// The protocol.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol_name: Option<String>,
    /// Settings of the protocol's own.
    #[serde(default, skip_serializing_if = "AnyMap::is_empty")]
    #[schemars(schema_with = "any_map_schema")]
    pub config_data: AnyMap,
}

/// The protocol and its address of the device.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProtocolConfig {
    /// The protocol; the mapper that speaks it gets the device.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol_name: Option<String>,
    /// Settings of the protocol's own.
    #[serde(default, skip_serializing_if = "AnyMap::is_empty")]
    #[schemars(schema_with = "any_map_schema")]
    pub config_data: AnyMap,
}

/// A method of a device.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeviceMethod {
    /// Its name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// What it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The properties that it writes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub property_names: Vec<String>,
}

/// The longest cycle, in milliseconds: mappers of KubeEdge count in nanoseconds of 64 bits.
pub const CYCLE_MAX: i64 = i64::MAX / 1_000_000;

/// A cycle in milliseconds as a mapper may hear of it: 0, its default, in place of what is none. KubeEdge's mappers end at one that is
/// not positive, or too long, with all their devices, and again whenever they start.
pub fn cycle(written: Option<i64>) -> i64 {
    written.filter(|millis| (0..=CYCLE_MAX).contains(millis)).unwrap_or_default()
}

/// How a device's state is reported.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StateReport {
    /// Milliseconds between two reports; absent or 0 is 1 s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub report_cycle: Option<i64>,
    /// Whether the state is reported to the cloud.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub report_to_cloud: Option<bool>,
}

/// Where a mapper pushes a property's values.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PushMethod {
    /// To an HTTP server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http: Option<PushHttp>,
    /// To an MQTT broker.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mqtt: Option<PushMqtt>,
    /// To an OpenTelemetry collector.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub otel: Option<PushOtel>,
    /// To a database.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub db_method: Option<DbMethod>,
    /// Settings of an anomaly detection in the mapper.
    #[serde(default, skip_serializing_if = "AnyMap::is_empty")]
    #[schemars(schema_with = "any_map_schema")]
    pub anomaly_detection: AnyMap,
}

/// An HTTP server.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PushHttp {
    /// Its host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host_name: Option<String>,
    /// Its port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<i64>,
    /// The path to post to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_path: Option<String>,
    /// The request's deadline.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<i64>,
}

/// A topic of an MQTT broker.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PushMqtt {
    /// The broker's address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// The topic.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub topic: Option<String>,
    /// The quality of service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub qos: Option<i32>,
    /// Whether the broker keeps the message.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retained: Option<bool>,
}

/// An OpenTelemetry collector.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PushOtel {
    /// Its URL.
    #[serde(rename = "endpointURL", skip_serializing_if = "Option::is_none")]
    pub endpoint_url: Option<String>,
}

/// A database. Passwords and tokens are never here: a mapper takes them from its environment.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct DbMethod {
    /// InfluxDB 2.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub influxdb2: Option<Influxdb2>,
    /// Redis.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub redis: Option<Redis>,
    /// TDengine.
    #[serde(rename = "TDEngine", skip_serializing_if = "Option::is_none")]
    pub td_engine: Option<TdEngine>,
    /// MySQL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mysql: Option<Mysql>,
}

/// InfluxDB 2: where, and as what.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Influxdb2 {
    /// Where.
    #[serde(rename = "influxdb2ClientConfig", skip_serializing_if = "Option::is_none")]
    pub client: Option<Influxdb2Client>,
    /// As what.
    #[serde(rename = "influxdb2DataConfig", skip_serializing_if = "Option::is_none")]
    pub data: Option<Influxdb2Data>,
}

/// Where an InfluxDB 2 is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Influxdb2Client {
    /// Its URL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Its organisation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub org: Option<String>,
    /// Its bucket.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bucket: Option<String>,
}

/// How a value is named in InfluxDB 2.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Influxdb2Data {
    /// The measurement.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub measurement: Option<String>,
    /// Tags of every point.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tag: BTreeMap<String, String>,
    /// The field.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub field_key: Option<String>,
}

/// A Redis.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Redis {
    /// Where.
    #[serde(rename = "redisClientConfig", skip_serializing_if = "Option::is_none")]
    pub client: Option<RedisClient>,
}

/// Where a Redis is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RedisClient {
    /// Its address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub addr: Option<String>,
    /// Its database.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub db: Option<i32>,
    /// Connections at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub poolsize: Option<i32>,
    /// Connections at least.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_idle_conns: Option<i32>,
}

/// A TDengine.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TdEngine {
    /// Where.
    #[serde(rename = "TDEngineClientConfig", skip_serializing_if = "Option::is_none")]
    pub client: Option<TdEngineClient>,
}

/// Where a TDengine is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TdEngineClient {
    /// Its address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub addr: Option<String>,
    /// Its database.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub db_name: Option<String>,
}

/// A MySQL.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Mysql {
    /// Where.
    #[serde(rename = "mysqlClientConfig", skip_serializing_if = "Option::is_none")]
    pub client: Option<MysqlClient>,
}

/// Where a MySQL is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MysqlClient {
    /// Its address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub addr: Option<String>,
    /// Its database.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub database: Option<String>,
    /// The user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_name: Option<String>,
}

/// The status that a Device had before DeviceStatus came; kept as it is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct LegacyStatus {
    /// Everything in it.
    #[serde(flatten)]
    pub fields: AnyMap,
}

impl JsonSchema for LegacyStatus {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "LegacyStatus".into()
    }
    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        any_map_schema(generator)
    }
}

impl LegacyStatus {
    /// `reportCycle`, in milliseconds.
    pub fn report_cycle(&self) -> Option<i64> {
        self.fields.get("reportCycle")?.as_i64()
    }

    /// `reportToCloud`.
    pub fn report_to_cloud(&self) -> Option<bool> {
        self.fields.get("reportToCloud")?.as_bool()
    }
}

impl Device {
    /// The device without the properties and methods whose name another one has before them: the first one of a name counts.
    #[must_use]
    pub fn without_repeats(mut self) -> Self {
        first_of_each(&mut self.spec.properties, |property| &property.name);
        first_of_each(&mut self.spec.methods, |method| &method.name);
        self
    }

    /// How the state is reported: the spec's word, else the legacy status'.
    pub fn state_report(&self) -> StateReport {
        if let Some(report) = &self.spec.state_report {
            return report.clone();
        }
        let legacy = self.status.as_ref();
        StateReport {
            report_cycle: legacy.and_then(LegacyStatus::report_cycle),
            report_to_cloud: legacy.and_then(LegacyStatus::report_to_cloud),
        }
    }

    /// The protocol's name; empty when there is none.
    pub fn protocol_name(&self) -> &str {
        self.spec.protocol.as_ref().and_then(|protocol| protocol.protocol_name.as_deref()).unwrap_or_default()
    }

    /// The name of the model; empty when there is none.
    pub fn model_name(&self) -> &str {
        self.spec.device_model_ref.as_ref().and_then(|model| model.name.as_deref()).unwrap_or_default()
    }
}

/// Keeps the first of each name.
pub(crate) fn first_of_each<T>(items: &mut Vec<T>, name: impl Fn(&T) -> &String) {
    let mut seen = std::collections::BTreeSet::new();
    items.retain(|item| seen.insert(name(item).clone()));
}
