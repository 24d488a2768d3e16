//! DeviceModel: what all devices of one make have.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::device::first_of_each;
use crate::{AnyMap, VisitorConfig, any_map_schema};

/// What the user says about a model of devices.
#[derive(CustomResource, Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "devices.kubeedge.io",
    version = "v1beta1",
    kind = "DeviceModel",
    plural = "devicemodels",
    singular = "devicemodel",
    namespaced,
    derive = "Default",
    derive = "PartialEq",
    doc = "What all devices of one make have.",
    printcolumn(name = "Protocol", type_ = "string", json_path = ".spec.protocol"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct DeviceModelSpec {
    /// The properties. Names are unique.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub properties: Vec<ModelProperty>,
    /// The protocol of the devices.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
    /// Settings of the protocol's own: the base of every device's.
    #[serde(default, skip_serializing_if = "AnyMap::is_empty")]
    #[schemars(schema_with = "any_map_schema")]
    pub protocol_config_data: AnyMap,
}

/// One property of a model.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ModelProperty {
    /// Its name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// What it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The type of its values.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub value_type: Option<PropertyType>,
    /// Whether it can be written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access_mode: Option<AccessMode>,
    /// The least value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub minimum: Option<String>,
    /// The greatest value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub maximum: Option<String>,
    /// The unit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// Where the protocol finds the property: the base of every device's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub visitors: Option<VisitorConfig>,
}

/// The type of a property's values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
#[schemars(inline)]
pub enum PropertyType {
    /// Whole numbers.
    Int,
    /// Numbers, 32 bits.
    Float,
    /// Numbers, 64 bits.
    Double,
    /// Text.
    String,
    /// true or false.
    Boolean,
    /// Bytes.
    Bytes,
    /// A stream, such as a video.
    Stream,
}

impl DeviceModel {
    /// The model without the properties whose name another one has before them: the first one of a name counts.
    #[must_use]
    pub fn without_repeats(mut self) -> Self {
        first_of_each(&mut self.spec.properties, |property| &property.name);
        self
    }
}

impl PropertyType {
    /// The word in the manifest.
    pub fn as_str(self) -> &'static str {
        match self {
            PropertyType::Int => "INT",
            PropertyType::Float => "FLOAT",
            PropertyType::Double => "DOUBLE",
            PropertyType::String => "STRING",
            PropertyType::Boolean => "BOOLEAN",
            PropertyType::Bytes => "BYTES",
            PropertyType::Stream => "STREAM",
        }
    }
}

/// Whether a property can be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum AccessMode {
    /// It can.
    ReadWrite,
    /// It can only be read.
    ReadOnly,
}

impl AccessMode {
    /// The word in the manifest.
    pub fn as_str(self) -> &'static str {
        match self {
            AccessMode::ReadWrite => "ReadWrite",
            AccessMode::ReadOnly => "ReadOnly",
        }
    }
}
