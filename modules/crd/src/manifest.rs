//! From types to definitions.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, CustomResourceDefinitionVersion,
};
use kube::CustomResourceExt;
use serde_json::{Value, json};

use crate::foreign::PART_OF;
use crate::validation::with_validations;
use crate::{
    ConfigUpdateJob, Device, DeviceModel, DeviceStatus, EdgeNode, GROUP, HIVE_GROUP, ImagePrePullJob,
    JoinToken, NodeUpgradeJob, OPERATIONS_GROUP, Rule, RuleEndpoint,
};

/// All definitions, ready to be applied.
pub fn manifests() -> Vec<CustomResourceDefinition> {
    let definitions = [
        Device::crd(),
        DeviceModel::crd(),
        DeviceStatus::crd(),
        EdgeNode::crd(),
        JoinToken::crd(),
        Rule::crd(),
        RuleEndpoint::crd(),
        ImagePrePullJob::crd(),
        NodeUpgradeJob::crd(),
        ConfigUpdateJob::crd(),
    ];
    definitions.into_iter().map(finish).map(with_validations).map(with_older).collect()
}

/// What whoever writes a Device of v1alpha2 is answered.
const DEVICE_V1ALPHA2: &str = "devices.kubeedge.io/v1alpha2 is not served any more, write v1beta1: spec.nodeName instead of nodeSelector; \
    spec.protocol {protocolName: modbus, configData: {slaveID: 1, ...}} instead of protocol.modbus and protocol.common; \
    spec.properties[] {name, desired, collectCycle and reportCycle in milliseconds, visitors {protocolName, configData: {register, offset, ...}}} \
    instead of propertyVisitors[] and status.twins[].desired";
/// And of a DeviceModel.
const MODEL_V1ALPHA2: &str = "devices.kubeedge.io/v1alpha2 is not served any more, write v1beta1: spec.properties[] {name, type: INT, \
    accessMode: ReadWrite, minimum: \"0\", maximum: \"100\", unit} instead of type {int: {accessMode, ...}}";

/// And of a NodeUpgradeJob.
const UPGRADE_V1ALPHA1: &str = "operations.kubeedge.io/v1alpha1 is not served any more, write v1alpha2: the same spec, but for \
    imageDigestGatter: {amd64: \"sha256:...\", arm64: \"sha256:...\"} instead of imageDigestGatter.value";
/// And of an ImagePrePullJob.
const PREPULL_V1ALPHA1: &str =
    "operations.kubeedge.io/v1alpha1 is not served any more, write v1alpha2: the same spec";

/// KubeEdge's definitions still serve an older version, and nothing there reads it. Here whoever writes it is told what to write instead:
/// the version is known, and takes no object.
fn with_older(mut crd: CustomResourceDefinition) -> CustomResourceDefinition {
    let (older, current, message) = match (crd.spec.group.as_str(), crd.spec.names.kind.as_str()) {
        (GROUP, "Device") => ("v1alpha2", "v1beta1", DEVICE_V1ALPHA2),
        (GROUP, "DeviceModel") => ("v1alpha2", "v1beta1", MODEL_V1ALPHA2),
        (OPERATIONS_GROUP, "NodeUpgradeJob") => ("v1alpha1", "v1alpha2", UPGRADE_V1ALPHA1),
        (OPERATIONS_GROUP, "ImagePrePullJob") => ("v1alpha1", "v1alpha2", PREPULL_V1ALPHA1),
        _ => return crd,
    };
    let version = json!({
        "name": older,
        "served": true,
        "storage": false,
        "deprecated": true,
        "deprecationWarning": format!("{}/{older} takes no object: write {current}", crd.spec.group),
        "schema": { "openAPIV3Schema": {
            "type": "object",
            "x-kubernetes-preserve-unknown-fields": true,
            "x-kubernetes-validations": [{ "rule": "false", "message": message }],
        } },
    });
    crd.spec.versions.extend(serde_json::from_value::<CustomResourceDefinitionVersion>(version));
    crd
}

/// The name of the file that holds a definition: `<plural>.yaml`.
pub fn file_name(crd: &CustomResourceDefinition) -> String {
    format!("{}.yaml", crd.spec.names.plural)
}

/// A definition as YAML.
///
/// # Errors
/// When the definition cannot be written as YAML, which a test rules out for ours.
pub fn to_yaml(crd: &CustomResourceDefinition) -> Result<String, serde_saphyr::ser::Error> {
    serde_saphyr::to_string(crd)
}

/// Brings a derived definition to the contract: status is written by a plain patch of the object, so there is no
/// status subresource but of jobs; nothing is nullable, nothing has a default, and of a device not even the spec is required.
fn finish(mut crd: CustomResourceDefinition) -> CustomResourceDefinition {
    crd.metadata.labels = Some([(PART_OF.0.to_owned(), PART_OF.1.to_owned())].into());
    for version in &mut crd.spec.versions {
        if crd.spec.group != OPERATIONS_GROUP {
            version.subresources = None;
        }
        let Some(validation) = &mut version.schema else { continue };
        let plain = validation.open_api_v3_schema.take().and_then(|schema| {
            let mut schema = serde_json::to_value(schema).ok()?;
            strip(&mut schema);
            if let Value::Object(root) = &mut schema {
                // KubeEdge takes a device without one; the register does not.
                if crd.spec.group != HIVE_GROUP {
                    root.remove("required");
                }
                root.remove("title");
            }
            serde_json::from_value(schema).ok()
        });
        validation.open_api_v3_schema = plain;
    }
    crd
}

/// Removes `nullable` and `default` of a schema, leaving properties of these names alone, and formats that the API server does not
/// know: the bounds say more.
fn strip(schema: &mut Value) {
    let Value::Object(fields) = schema else { return };
    fields.remove("nullable");
    fields.remove("default");
    if fields.get("format").and_then(Value::as_str).is_some_and(|format| format.starts_with("uint")) {
        fields.remove("format");
    }
    if let Some(Value::Object(properties)) = fields.get_mut("properties") {
        properties.values_mut().for_each(strip);
    }
    for inner in ["items", "additionalProperties"] {
        if let Some(schema) = fields.get_mut(inner) {
            strip(schema);
        }
    }
}
