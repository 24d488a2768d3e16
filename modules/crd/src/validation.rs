//! What an API server looks at by rules in CEL, instead of KubeEdge's admission webhook. What only two objects together say - whether
//! the endpoints of a Rule are there, and of which kinds - CloudCore says in the Rule's status.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde_json::{Value, json};

use crate::{GROUP, OPERATIONS_GROUP, RULES_GROUP};

/// 8 keys of a resource: KubeEdge knows two.
const KEYS_MAX: u32 = 8;
/// 2048 characters of a value, as a URL has.
const VALUE_MAX: u32 = 2048;
/// 253 characters: the name of a RuleEndpoint.
const NAME_MAX: u32 = 253;

/// What whoever changes a job is answered.
const JOB_STAYS: &str =
    "a job stays as it was made, since nodes may be at it: delete it, and make another one";

/// 4096 properties of a device and of a model, and methods of a device: four times what a node takes, so that what KubeEdge's users have
/// goes on. What a definition cannot bound, the settings of a protocol, CloudCore does.
const PROPERTIES_MAX: u32 = 4096;
/// 10,000 nodes that a job names: ten times what CloudCore takes, which says so in the job.
const NODES_MAX: u32 = 10_000;
/// 1024 values of a job.
const FIELDS_MAX: u32 = 1024;

/// Adds to the definitions of rules what is looked at by CEL, and the bounds without which no API server would take that; to that of devices
/// by what a property is told from others; to those of jobs that they stay as they were made; and to lists that anybody may fill how long they may be.
pub(crate) fn with_validations(mut crd: CustomResourceDefinition) -> CustomResourceDefinition {
    let of_spec: fn(&mut Value) = match (crd.spec.group.as_str(), crd.spec.names.kind.as_str()) {
        (OPERATIONS_GROUP, _) => job,
        (RULES_GROUP, "Rule") => rule,
        (RULES_GROUP, _) => endpoint,
        (GROUP, "Device") => device,
        (GROUP, "DeviceModel") => model,
        _ => return crd,
    };
    for version in &mut crd.spec.versions {
        let Some(validation) = &mut version.schema else { continue };
        let checked = validation.open_api_v3_schema.take().and_then(|schema| {
            let mut schema = serde_json::to_value(schema).ok()?;
            // As KubeEdge's: what has no spec has nothing to be looked at.
            of_spec(&mut schema["properties"]["spec"]);
            if crd.spec.group == OPERATIONS_GROUP {
                // Whoever took the spec away and wrote another one would never have changed it.
                schema["x-kubernetes-validations"] =
                    json!([{ "rule": "has(self.spec) == has(oldSelf.spec)", "message": JOB_STAYS }]);
            }
            serde_json::from_value(schema).ok()
        });
        validation.open_api_v3_schema = checked;
    }
    crd
}

fn bound_map(schema: &mut Value) {
    schema["maxProperties"] = json!(KEYS_MAX);
    schema["additionalProperties"]["maxLength"] = json!(VALUE_MAX);
}

fn rule(spec: &mut Value) {
    for name in ["source", "target"] {
        let schema = &mut spec["properties"][name];
        (schema["minLength"], schema["maxLength"]) = (json!(1), json!(NAME_MAX));
    }
    for name in ["sourceResource", "targetResource"] {
        bound_map(&mut spec["properties"][name]);
    }
    spec["x-kubernetes-validations"] = json!([
        {
            "rule": "'path' in self.sourceResource || ('node_name' in self.sourceResource && \
                ('topic' in self.sourceResource || 'target_url' in self.sourceResource))",
            "message": "sourceResource has `path` (rest), `topic` and `node_name` (eventbus), or `target_url` and `node_name` (servicebus)",
        },
        {
            "rule": "'path' in self.sourceResource ? ('topic' in self.targetResource || 'path' in self.targetResource) : \
                'resource' in self.targetResource",
            "message": "from rest a rule leads to eventbus (targetResource has `topic`) or servicebus (`path`), from those to rest (`resource`)",
        },
        {
            "rule": "!('resource' in self.targetResource) || self.targetResource['resource'].matches('^https?://[^/@?#]+([/?].*)?$')",
            "message": "targetResource.resource is a URL of http or https, without user, password and fragment",
        },
        {
            "rule": "!('topic' in self.sourceResource) || \
                (self.sourceResource['topic'] != '' && !self.sourceResource['topic'].matches('[+#]'))",
            "message": "sourceResource.topic is one topic, without `+` and `#`",
        },
        {
            "rule": "!('topic' in self.targetResource) || (self.targetResource['topic'] != '' && \
                !self.targetResource['topic'].matches('[+#]|^[$]|^SYS/'))",
            "message": "targetResource.topic is one topic, without `+` and `#`, and begins neither with `$` nor with `SYS/`, where edgecore alone publishes",
        },
    ]);
}

/// A property of a device is itself by its name: whoever wants a value (`desired`) and whoever keeps the rest in a repository apply one Device
/// side by side. KubeEdge's definition has an atomic list, where each of them would take the whole of it from the other. That refuses two of
/// one name, as KubeEdge's webhook does, and one without a name, which nothing reads. What is stored with either stays as long as the list
/// itself is not changed (seen with Kubernetes 1.36). Methods and the lists of models have one writer: theirs are as KubeEdge's.
fn device(spec: &mut Value) {
    let properties = &mut spec["properties"]["properties"];
    (properties["x-kubernetes-list-type"], properties["x-kubernetes-list-map-keys"]) =
        (json!("map"), json!(["name"]));
    properties["items"]["required"] = json!(["name"]);
    for list in ["properties", "methods"] {
        spec["properties"][list]["maxItems"] = json!(PROPERTIES_MAX);
    }
}

fn model(spec: &mut Value) {
    spec["properties"]["properties"]["maxItems"] = json!(PROPERTIES_MAX);
}

/// What a node has looked at, and what somebody there has confirmed, is what is done. (KubeEdge's webhook refuses changes of NodeUpgradeJobs; its
/// programs write the status and finalizers alone.) What only some kinds have is bounded where it is.
fn job(spec: &mut Value) {
    spec["x-kubernetes-validations"] = json!([{ "rule": "self == oldSelf", "message": JOB_STAYS }]);
    bound_names(spec);
    if let Some(template) = spec["properties"].get_mut("imagePrePullTemplate") {
        bound_names(template);
    }
    if let Some(fields) = spec["properties"].get_mut("updateFields") {
        fields["maxProperties"] = json!(FIELDS_MAX);
    }
}

fn bound_names(of: &mut Value) {
    if let Some(names) = of["properties"].get_mut("nodeNames") {
        names["maxItems"] = json!(NODES_MAX);
        names["items"]["maxLength"] = json!(NAME_MAX);
    }
}

fn endpoint(spec: &mut Value) {
    bound_map(&mut spec["properties"]["properties"]);
    spec["x-kubernetes-validations"] = json!([{
        "rule": "self.ruleEndpointType != 'servicebus' || (has(self.properties) && 'service_port' in self.properties && \
            self.properties['service_port'].matches('^[1-9][0-9]{0,4}$') && int(self.properties['service_port']) <= 65535)",
        "message": "properties.service_port of a servicebus endpoint is a port, \"1\" to \"65535\"",
    }]);
}
