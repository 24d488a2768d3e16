//! The chart's values reach every setting of CloudCore, and say the same as its defaults where they say anything.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;

use serde_json::{Value, json};

fn chart_file(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../cloud/deploy/chart").join(name);
    std::fs::read_to_string(path).unwrap()
}

/// The keys of a tree of settings, with the kind of each.
fn leaves(of: &Value, path: &str, found: &mut Vec<(String, &'static str)>) {
    match of {
        Value::Object(fields) => {
            fields.iter().for_each(|(name, of)| leaves(of, &format!("{path}/{name}"), found))
        }
        Value::Bool(_) => found.push((path.to_owned(), "boolean")),
        Value::Number(_) => found.push((path.to_owned(), "integer")),
        Value::Array(_) => found.push((path.to_owned(), "array")),
        _ => found.push((path.to_owned(), "string")),
    }
}

#[test]
fn every_setting_of_cloudcore_is_a_value_and_no_other_is() {
    let settings = serde_json::to_value(config::cloud::CloudCore::default()).unwrap();
    let schema: Value = serde_json::from_str(&chart_file("values.schema.json")).unwrap();
    let of_cloudcore = &schema["properties"]["cloudCore"]["properties"];
    for section in ["commonConfig", "kubeAPIConfig", "modules"] {
        let (mut wanted, mut there) = (Vec::new(), Vec::new());
        leaves(&settings[section], "", &mut wanted);
        // Which that is says whoever installs, by `--namespace`.
        wanted.retain(|(path, _)| (section, path.as_str()) != ("commonConfig", "/namespace"));
        in_schema(&of_cloudcore[section], "", &mut there);
        wanted.sort();
        there.sort();
        let plain = |(path, kind): &(String, &'static str)| (path.clone(), *kind);
        let enums: Vec<&String> =
            there.iter().filter(|(_, kind)| *kind == "enum").map(|(path, _)| path).collect();
        let wanted: Vec<(String, &str)> = wanted
            .iter()
            .map(|(path, kind)| (path.clone(), if enums.contains(&path) { "enum" } else { *kind }))
            .collect();
        assert_eq!(there.iter().map(plain).collect::<Vec<_>>(), wanted, "{section}");
    }
}

fn in_schema(schema: &Value, path: &str, found: &mut Vec<(String, &'static str)>) {
    if let Some(properties) = schema["properties"].as_object() {
        assert_eq!(schema["additionalProperties"], false, "{path} takes any key");
        return properties.iter().for_each(|(name, of)| in_schema(of, &format!("{path}/{name}"), found));
    }
    let kind = match schema["type"].as_str() {
        Some("boolean") => "boolean",
        Some("integer") => "integer",
        Some("array") => "array",
        Some("string") => "string",
        None if schema["enum"].is_array() => "enum",
        // A number of days, or a time as `720h`.
        None if schema["type"] == json!(["integer", "string"]) => "integer",
        other => panic!("{path} is of no kind: {other:?}"),
    };
    found.push((path.to_owned(), kind));
}

/// What the chart says otherwise, with the reason.
const OTHERWISE: [(&str, &str); 2] = [
    ("/commonConfig/monitorServer/healthzBindAddress", "the kubelet asks from outside the pod"),
    ("/modules/cloudHub/advertiseAddress", "nobody reaches 127.0.0.1 of a pod"),
];

#[test]
fn the_values_say_what_cloudcores_defaults_say() {
    let settings = serde_json::to_value(config::cloud::CloudCore::default()).unwrap();
    let values = helmchart::defaults().unwrap();
    let mut said = Vec::new();
    for section in ["commonConfig", "kubeAPIConfig", "modules"] {
        leaves(&values["cloudCore"][section], &format!("/{section}"), &mut said);
    }
    assert!(said.len() > 10, "{said:?}");
    for (path, _) in said {
        let is_otherwise = OTHERWISE.iter().any(|(other, _)| *other == path);
        let differs = values["cloudCore"].pointer(&path) != settings.pointer(&path);
        assert_eq!(differs, is_otherwise, "{path}");
    }
}

#[test]
fn every_enum_of_the_schema_is_one_of_cloudcores() {
    let schema: Value = serde_json::from_str(&chart_file("values.schema.json")).unwrap();
    let modules = &schema["properties"]["cloudCore"]["properties"]["modules"]["properties"];
    let address = &modules["cloudStream"]["properties"]["kubeletEndpoint"]["properties"]["address"]["enum"];
    for choice in address.as_array().unwrap() {
        let given = if choice == "given" { "192.0.2.1" } else { "" };
        let endpoint = json!({"address": choice, "givenAddress": given});
        let text = json!({"modules": {"cloudStream": {"kubeletEndpoint": endpoint}}}).to_string();
        config::cloud::CloudCore::parse(&text).unwrap();
    }
    for choice in modules["edgeController"]["properties"]["podAddresses"]["enum"].as_array().unwrap() {
        let text = json!({"modules": {"edgeController": {"podAddresses": choice}}}).to_string();
        config::cloud::CloudCore::parse(&text).unwrap();
    }
}
