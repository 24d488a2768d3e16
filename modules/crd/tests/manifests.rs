//! The definitions are KubeEdge's contract, and the files in `cloud/deploy/chart/crds` are made from them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::PathBuf;

use serde_json::{Value, json};

fn schema(plural: &str) -> Value {
    let crd = crd::manifests().into_iter().find(|crd| crd.spec.names.plural == plural).unwrap();
    serde_json::to_value(crd).unwrap()["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone()
}

fn at<'a>(schema: &'a Value, path: &str) -> &'a Value {
    let mut here = schema;
    for step in path.split('.') {
        here = if step == "[]" { &here["items"] } else { &here["properties"][step] };
        assert!(!here.is_null(), "{path} stops at {step}");
    }
    here
}

/// Set `WRITE_CRDS=1` to write the files anew.
#[test]
fn the_files_are_current() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../cloud/deploy/chart/crds");
    let write = std::env::var_os("WRITE_CRDS").is_some();
    let mut expected = Vec::new();
    for crd in crd::manifests() {
        let (name, yaml) = (crd::file_name(&crd), crd::to_yaml(&crd).unwrap());
        let path = folder.join(&name);
        if write {
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(&path, &yaml).unwrap();
        }
        let found = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(found == yaml, "{} is not current: run WRITE_CRDS=1 cargo test -p crd", path.display());
        let back: k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition =
            serde_saphyr::from_str(&found).unwrap();
        assert_eq!(back, crd, "{name} reads back as something else");
        expected.push(name);
    }
    let mut found: Vec<String> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    found.sort();
    expected.sort();
    assert_eq!(found, expected);
}

#[test]
fn names_scope_and_subresources_are_the_contract() {
    let seen: Vec<Value> = crd::manifests()
        .iter()
        .map(|crd| {
            let spec = serde_json::to_value(&crd.spec).unwrap();
            let version = &spec["versions"][0];
            json!([
                crd.metadata.name,
                spec["group"],
                spec["scope"],
                spec["names"]["kind"],
                spec["names"]["singular"],
                spec["names"]["shortNames"],
                version["name"],
                version["served"],
                version["storage"],
                version["subresources"]
            ])
        })
        .collect();
    let row = |name: &str, group: &str, kind: &str, short: Value| {
        let (scope, version, subresources) = match group {
            "devices.kubeedge.io" => ("Namespaced", "v1beta1", Value::Null),
            "rules.kubeedge.io" => ("Namespaced", "v1", Value::Null),
            "operations.kubeedge.io" => ("Cluster", "v1alpha2", json!({"status": {}})),
            _ => ("Cluster", "v1alpha1", Value::Null),
        };
        json!([
            format!("{name}.{group}"),
            group,
            scope,
            kind,
            kind.to_ascii_lowercase(),
            short,
            version,
            true,
            true,
            subresources
        ])
    };
    assert_eq!(
        seen,
        [
            row("devices", "devices.kubeedge.io", "Device", Value::Null),
            row("devicemodels", "devices.kubeedge.io", "DeviceModel", Value::Null),
            row("devicestatuses", "devices.kubeedge.io", "DeviceStatus", Value::Null),
            row("edgenodes", "kubehive.io", "EdgeNode", json!(["en"])),
            row("jointokens", "kubehive.io", "JoinToken", Value::Null),
            row("rules", "rules.kubeedge.io", "Rule", Value::Null),
            row("ruleendpoints", "rules.kubeedge.io", "RuleEndpoint", json!(["re"])),
            row("imageprepulljobs", "operations.kubeedge.io", "ImagePrePullJob", Value::Null),
            row("nodeupgradejobs", "operations.kubeedge.io", "NodeUpgradeJob", Value::Null),
            row("configupdatejobs", "operations.kubeedge.io", "ConfigUpdateJob", Value::Null),
        ]
    );
}

/// KubeEdge's older versions are known, so that whoever writes it reads what to write, and nothing else.
#[test]
fn what_is_written_for_an_older_version_is_refused_with_what_to_write() {
    let of_kubeedge = [crd::GROUP, crd::OPERATIONS_GROUP];
    for crd in crd::manifests().iter().filter(|crd| of_kubeedge.contains(&crd.spec.group.as_str())) {
        let is_job = crd.spec.group == crd::OPERATIONS_GROUP;
        let (name, current) =
            if is_job { ("v1alpha1", "write v1alpha2: ") } else { ("v1alpha2", "write v1beta1: ") };
        let older = crd.spec.versions.iter().find(|version| version.name == name);
        if matches!(crd.spec.names.kind.as_str(), "DeviceStatus" | "ConfigUpdateJob") {
            assert!(older.is_none());
            continue;
        }
        let older = serde_json::to_value(older.unwrap()).unwrap();
        let rules = &older["schema"]["openAPIV3Schema"]["x-kubernetes-validations"];
        let message = rules[0]["message"].as_str().unwrap();
        assert!(message.contains(current) && !message.contains('\n'), "{message}");
        assert_eq!(
            (&rules[0]["rule"], &older["storage"], &older["served"]),
            (&json!("false"), &json!(false), &json!(true))
        );
        // kube-apiserver takes at most 256 characters of a warning, and 2048 of a rule's message.
        let warning = older["deprecationWarning"].as_str().unwrap();
        assert!(warning.len() <= 256 && message.len() <= 2048, "{} {}", warning.len(), message.len());
    }
}

/// Nodes act upon what they have looked at. A rule on the spec alone would let go of one that is taken away and written anew.
#[test]
fn a_job_stays_as_it_was_made() {
    for plural in ["imageprepulljobs", "nodeupgradejobs", "configupdatejobs"] {
        let schema = schema(plural);
        let rules = |schema: &Value| schema["x-kubernetes-validations"][0].clone();
        let (of_job, of_spec) = (rules(&schema), rules(at(&schema, "spec")));
        assert_eq!(of_job["rule"], "has(self.spec) == has(oldSelf.spec)", "{plural}");
        assert_eq!(of_spec["rule"], "self == oldSelf", "{plural}");
        for message in [&of_job["message"], &of_spec["message"]] {
            assert!(message.as_str().unwrap().contains("make another one"), "{message}");
        }
    }
}

/// A server shows the first result of a path with `[*]`, and no other.
#[test]
fn kubectl_get_shows_what_was_reported() {
    let crd = crd::manifests().into_iter().find(|crd| crd.spec.names.plural == "devicestatuses").unwrap();
    let columns = crd.spec.versions[0].additional_printer_columns.clone().unwrap();
    let shown: Vec<(&str, &str, i32)> =
        columns.iter().map(|c| (c.name.as_str(), c.json_path.as_str(), c.priority.unwrap_or(0))).collect();
    assert!(shown.contains(&("Properties", ".status.extensions.summary.properties", 0)), "{shown:?}");
    assert!(shown.contains(&("State", ".status.extensions.summary.state", 0)), "{shown:?}");
    assert!(shown.contains(&("Reported", ".status.extensions.summary.reported", 0)), "{shown:?}");
    assert!(shown.contains(&("Rules", ".status.extensions.summary.rules", 0)), "{shown:?}");
    for crd in crd::manifests() {
        for column in crd.spec.versions.iter().flat_map(|v| v.additional_printer_columns.iter().flatten()) {
            assert!(!column.json_path.contains('*'), "{}: {}", crd.spec.names.plural, column.json_path);
        }
    }
    assert!(shown.contains(&("Twins", ".status.twins", 1)), "{shown:?}");
}

#[test]
fn every_field_of_the_contract_is_there() {
    let device = schema("devices");
    for (path, kind) in [
        ("spec.deviceModelRef.name", "string"),
        ("spec.nodeName", "string"),
        ("spec.properties.[].name", "string"),
        ("spec.properties.[].desired.value", "string"),
        ("spec.properties.[].desired.metadata", "object"),
        ("spec.properties.[].visitors.protocolName", "string"),
        ("spec.properties.[].visitors.configData", "object"),
        ("spec.properties.[].reportCycle", "integer"),
        ("spec.properties.[].collectCycle", "integer"),
        ("spec.properties.[].reportToCloud", "boolean"),
        ("spec.properties.[].pushMethod.http.hostName", "string"),
        ("spec.properties.[].pushMethod.http.port", "integer"),
        ("spec.properties.[].pushMethod.http.requestPath", "string"),
        ("spec.properties.[].pushMethod.http.timeout", "integer"),
        ("spec.properties.[].pushMethod.mqtt.address", "string"),
        ("spec.properties.[].pushMethod.mqtt.topic", "string"),
        ("spec.properties.[].pushMethod.mqtt.qos", "integer"),
        ("spec.properties.[].pushMethod.mqtt.retained", "boolean"),
        ("spec.properties.[].pushMethod.otel.endpointURL", "string"),
        ("spec.properties.[].pushMethod.dbMethod.influxdb2.influxdb2ClientConfig.url", "string"),
        ("spec.properties.[].pushMethod.dbMethod.influxdb2.influxdb2ClientConfig.org", "string"),
        ("spec.properties.[].pushMethod.dbMethod.influxdb2.influxdb2ClientConfig.bucket", "string"),
        ("spec.properties.[].pushMethod.dbMethod.influxdb2.influxdb2DataConfig.measurement", "string"),
        ("spec.properties.[].pushMethod.dbMethod.influxdb2.influxdb2DataConfig.tag", "object"),
        ("spec.properties.[].pushMethod.dbMethod.influxdb2.influxdb2DataConfig.fieldKey", "string"),
        ("spec.properties.[].pushMethod.dbMethod.redis.redisClientConfig.addr", "string"),
        ("spec.properties.[].pushMethod.dbMethod.redis.redisClientConfig.db", "integer"),
        ("spec.properties.[].pushMethod.dbMethod.redis.redisClientConfig.poolsize", "integer"),
        ("spec.properties.[].pushMethod.dbMethod.redis.redisClientConfig.minIdleConns", "integer"),
        ("spec.properties.[].pushMethod.dbMethod.TDEngine.TDEngineClientConfig.addr", "string"),
        ("spec.properties.[].pushMethod.dbMethod.TDEngine.TDEngineClientConfig.dbName", "string"),
        ("spec.properties.[].pushMethod.dbMethod.mysql.mysqlClientConfig.addr", "string"),
        ("spec.properties.[].pushMethod.dbMethod.mysql.mysqlClientConfig.database", "string"),
        ("spec.properties.[].pushMethod.dbMethod.mysql.mysqlClientConfig.userName", "string"),
        ("spec.properties.[].pushMethod.anomalyDetection", "object"),
        ("spec.methods.[].name", "string"),
        ("spec.methods.[].description", "string"),
        ("spec.methods.[].propertyNames.[]", "string"),
        ("spec.protocol.protocolName", "string"),
        ("spec.protocol.configData", "object"),
        ("spec.stateReport.reportCycle", "integer"),
        ("spec.stateReport.reportToCloud", "boolean"),
        ("status", "object"),
    ] {
        assert_eq!(at(&device, path)["type"], kind, "{path}");
    }
    for path in [
        "spec.protocol.configData",
        "spec.properties.[].visitors.configData",
        "spec.properties.[].pushMethod.anomalyDetection",
        "status",
    ] {
        assert_eq!(at(&device, path)["x-kubernetes-preserve-unknown-fields"], true, "{path}");
    }
    let model = schema("devicemodels");
    for name in ["name", "description", "minimum", "maximum", "unit"] {
        assert_eq!(at(&model, &format!("spec.properties.[].{name}"))["type"], "string", "{name}");
    }
    let types = json!(["INT", "FLOAT", "DOUBLE", "STRING", "BOOLEAN", "BYTES", "STREAM"]);
    assert_eq!(at(&model, "spec.properties.[].type")["enum"], types);
    assert_eq!(at(&model, "spec.properties.[].accessMode")["enum"], json!(["ReadWrite", "ReadOnly"]));
    assert_eq!(at(&model, "spec.protocolConfigData")["x-kubernetes-preserve-unknown-fields"], true);
    let rule = schema("rules");
    for (path, kind) in [
        ("spec.source", "string"),
        ("spec.sourceResource", "object"),
        ("spec.target", "string"),
        ("spec.targetResource", "object"),
        ("status.successMessages", "integer"),
        ("status.failMessages", "integer"),
        ("status.errors.[]", "string"),
    ] {
        assert_eq!(at(&rule, path)["type"], kind, "{path}");
    }
    let endpoint = schema("ruleendpoints");
    assert_eq!(at(&endpoint, "spec.ruleEndpointType")["enum"], json!(["rest", "eventbus", "servicebus"]));
    assert_eq!(at(&endpoint, "spec.properties")["additionalProperties"]["type"], "string");
    let upgrade = schema("nodeupgradejobs");
    for (path, kind) in [
        ("spec.version", "string"),
        ("spec.image", "string"),
        ("spec.nodeNames.[]", "string"),
        ("spec.labelSelector.matchLabels", "object"),
        ("spec.labelSelector.matchExpressions.[].operator", "string"),
        ("spec.timeoutSeconds", "integer"),
        ("spec.concurrency", "integer"),
        ("spec.checkItems.[]", "string"),
        ("spec.failureTolerate", "string"),
        ("spec.requireConfirmation", "boolean"),
        ("spec.imageDigestGatter.amd64", "string"),
        ("spec.imageDigestGatter.arm64", "string"),
        ("spec.imageDigestGatter.registryAPI.host", "string"),
        ("spec.imageDigestGatter.registryAPI.token", "string"),
        ("status.phase", "string"),
        ("status.reason", "string"),
        ("status.nodeStatus.[].nodeName", "string"),
        ("status.nodeStatus.[].phase", "string"),
        ("status.nodeStatus.[].currentVersion", "string"),
        ("status.nodeStatus.[].historicVersion", "string"),
        ("status.nodeStatus.[].actionFlow.[].action", "string"),
        ("status.nodeStatus.[].actionFlow.[].status", "string"),
        ("status.nodeStatus.[].actionFlow.[].reason", "string"),
        ("status.nodeStatus.[].actionFlow.[].time", "string"),
    ] {
        assert_eq!(at(&upgrade, path)["type"], kind, "{path}");
    }
    let prepull = schema("imageprepulljobs");
    for (path, kind) in [
        ("spec.imagePrePullTemplate.images.[]", "string"),
        ("spec.imagePrePullTemplate.nodeNames.[]", "string"),
        ("spec.imagePrePullTemplate.labelSelector", "object"),
        ("spec.imagePrePullTemplate.checkItems.[]", "string"),
        ("spec.imagePrePullTemplate.concurrency", "integer"),
        ("spec.imagePrePullTemplate.failureTolerate", "string"),
        ("spec.imagePrePullTemplate.timeoutSeconds", "integer"),
        ("spec.imagePrePullTemplate.imageSecrets", "string"),
        ("spec.imagePrePullTemplate.retryTimes", "integer"),
        ("status.nodeStatus.[].imageStatus.[].image", "string"),
        ("status.nodeStatus.[].imageStatus.[].status", "string"),
        ("status.nodeStatus.[].imageStatus.[].reason", "string"),
    ] {
        assert_eq!(at(&prepull, path)["type"], kind, "{path}");
    }
    let update = schema("configupdatejobs");
    for (path, kind) in [
        ("spec.nodeNames.[]", "string"),
        ("spec.labelSelector", "object"),
        ("spec.timeoutSeconds", "integer"),
        ("spec.concurrency", "integer"),
        ("spec.failureTolerate", "string"),
        ("status.reason", "string"),
        ("status.nodeStatus.[].nodeName", "string"),
        ("status.nodeStatus.[].phase", "string"),
        ("status.nodeStatus.[].reason", "string"),
        ("status.nodeStatus.[].actionFlow.[].action", "string"),
    ] {
        assert_eq!(at(&update, path)["type"], kind, "{path}");
    }
    assert_eq!(at(&update, "spec.updateFields")["additionalProperties"]["type"], "string");
    let status = schema("devicestatuses");
    for path in ["status.twins.[].propertyName", "status.state", "status.lastOnlineTime"] {
        assert_eq!(at(&status, path)["type"], "string", "{path}");
    }
    assert_eq!(at(&status, "status.extensions")["x-kubernetes-preserve-unknown-fields"], true);
    for side in ["reported", "observedDesired"] {
        assert_eq!(at(&status, &format!("status.twins.[].{side}"))["required"], json!(["value"]));
    }
}

/// What is required, nullable or defaulted decides which manifests are refused.
#[test]
fn only_values_are_required() {
    fn walk(schema: &Value, path: &str, required: &mut Vec<String>) {
        assert!(schema.get("nullable").is_none() && schema.get("default").is_none(), "{path}");
        assert!(schema.get("anyOf").is_none() && schema.get("oneOf").is_none(), "{path}");
        assert!(schema.get("type").is_some(), "{path} has no type");
        for name in schema["required"].as_array().into_iter().flatten() {
            required.push(format!("{path}.{}", name.as_str().unwrap()));
        }
        for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
            walk(inner, &format!("{path}.{name}"), required);
        }
        for inner in ["items", "additionalProperties"] {
            if schema[inner].is_object() {
                walk(&schema[inner], &format!("{path}.[]"), required);
            }
        }
    }
    let mut required = Vec::new();
    for plural in [
        "devices",
        "devicemodels",
        "devicestatuses",
        "rules",
        "ruleendpoints",
        "imageprepulljobs",
        "nodeupgradejobs",
        "configupdatejobs",
    ] {
        walk(&schema(plural), plural, &mut required);
    }
    assert_eq!(
        required,
        [
            "devices.spec.properties.[].name",
            "devices.spec.properties.[].desired.value",
            "devicestatuses.status.twins.[].observedDesired.value",
            "devicestatuses.status.twins.[].reported.value",
            "rules.spec.source",
            "rules.spec.sourceResource",
            "rules.spec.target",
            "rules.spec.targetResource",
            "ruleendpoints.spec.ruleEndpointType",
            "imageprepulljobs.spec.imagePrePullTemplate",
            "imageprepulljobs.spec.imagePrePullTemplate.labelSelector.matchExpressions.[].key",
            "imageprepulljobs.spec.imagePrePullTemplate.labelSelector.matchExpressions.[].operator",
            "imageprepulljobs.status.phase",
            "nodeupgradejobs.spec.imageDigestGatter.registryAPI.host",
            "nodeupgradejobs.spec.imageDigestGatter.registryAPI.token",
            "nodeupgradejobs.spec.labelSelector.matchExpressions.[].key",
            "nodeupgradejobs.spec.labelSelector.matchExpressions.[].operator",
            "nodeupgradejobs.status.phase",
            "configupdatejobs.spec.updateFields",
            "configupdatejobs.spec.labelSelector.matchExpressions.[].key",
            "configupdatejobs.spec.labelSelector.matchExpressions.[].operator",
            "configupdatejobs.status.phase",
        ]
    );
}

/// Two who apply one Device each have what they wrote, property by property. What KubeEdge has as one value stays one.
#[test]
fn a_property_is_itself_by_its_name_and_no_other_list_has_keys() {
    fn walk(schema: &Value, path: &str, keyed: &mut Vec<String>) {
        if schema["x-kubernetes-list-type"] == "map" {
            keyed.push(format!("{path} {}", schema["x-kubernetes-list-map-keys"]));
            assert_eq!(
                schema["items"]["required"], schema["x-kubernetes-list-map-keys"],
                "an API server asks for it"
            );
        }
        for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
            walk(inner, &format!("{path}.{name}"), keyed);
        }
        for inner in ["items", "additionalProperties"] {
            if schema[inner].is_object() {
                walk(&schema[inner], path, keyed);
            }
        }
    }
    let mut keyed = Vec::new();
    for crd in crd::manifests() {
        walk(&schema(&crd.spec.names.plural), &crd.spec.names.plural, &mut keyed);
    }
    assert_eq!(keyed, [r#"devices.spec.properties ["name"]"#]);
}

#[test]
fn objects_survive_a_round_trip() {
    let device = json!({
        "apiVersion": "devices.kubeedge.io/v1beta1", "kind": "Device",
        "metadata": { "name": "lamp", "namespace": "default" },
        "spec": {
            "deviceModelRef": { "name": "lamps" }, "nodeName": "edge-1",
            "properties": [{
                "name": "power", "desired": { "value": "on" }, "collectCycle": 500, "reportToCloud": true,
                "visitors": { "protocolName": "modbus", "configData": { "register": "CoilRegister", "offset": 3, "deep": { "a": [1] } } },
                "pushMethod": { "dbMethod": { "TDEngine": { "TDEngineClientConfig": { "dbName": "d" } } } }
            }],
            "protocol": { "protocolName": "modbus", "configData": { "ip": "127.0.0.1", "port": 502 } },
        },
        "status": { "reportToCloud": true, "reportCycle": 60, "twins": [] }
    });
    let parsed: crd::Device = serde_json::from_value(device.clone()).unwrap();
    assert_eq!(serde_json::to_value(&parsed).unwrap(), device);
    assert_eq!((parsed.protocol_name(), parsed.model_name()), ("modbus", "lamps"));
    assert_eq!(parsed.state_report().report_cycle, Some(60));
    let bare: crd::DeviceStatus =
        serde_json::from_value(json!({ "metadata": { "name": "lamp" }, "spec": {} })).unwrap();
    assert_eq!(bare.status, None);
}
