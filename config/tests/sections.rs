//! Over every section of every file: what is left out keeps its default. And KubeEdge's own files.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fmt::Debug;
use std::path::Path;

use config::ConfigError;
use config::cloud::CloudCore;
use config::edge::EdgeCore;
use serde::Serialize;
use serde_json::{Map, Value};

type Loaded<T> = Result<(T, Vec<String>), ConfigError>;

/// The path of every key, sections included.
fn keys(at: &[String], tree: &Value, found: &mut Vec<Vec<String>>) {
    for (key, value) in tree.as_object().into_iter().flatten() {
        let at: Vec<String> = at.iter().cloned().chain([key.clone()]).collect();
        keys(&at, value, found);
        found.push(at);
    }
}

fn only(path: &[String], value: Value) -> Value {
    path.iter().rev().fold(value, |below, key| Value::Object(Map::from_iter([(key.clone(), below)])))
}

fn at<'a>(path: &[String], tree: &'a Value) -> &'a Value {
    path.iter().fold(tree, |tree, key| &tree[key])
}

/// A file with one key, once with its default value and once with none.
fn hold<T: Default + PartialEq + Debug + Serialize>(load: impl Fn(&Path) -> Loaded<T>) -> usize {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("settings.yaml");
    let defaults = serde_json::to_value(T::default()).unwrap();
    let mut all = Vec::new();
    keys(&[], &defaults, &mut all);
    for path in &all {
        for value in [at(path, &defaults).clone(), Value::Null] {
            std::fs::write(&file, serde_json::to_string(&only(path, value)).unwrap()).unwrap();
            let (loaded, warnings) = load(&file).unwrap_or_else(|error| panic!("{path:?}: {error}"));
            assert_eq!((loaded, warnings), (T::default(), Vec::new()), "{path:?}");
        }
        // And one that is misspelt, in every section.
        if at(path, &defaults).as_object().is_some_and(|section| !section.is_empty()) {
            let odd = only(path, serde_json::json!({ "misspelt": 1 }));
            std::fs::write(&file, serde_json::to_string(&odd).unwrap()).unwrap();
            let error = load(&file).unwrap_err().to_string();
            assert!(error.contains(&format!("`{}.misspelt`", path.join("."))), "{error}");
        }
    }
    std::fs::write(&file, "").unwrap();
    let (loaded, warnings) = load(&file).unwrap();
    assert_eq!(loaded, T::default());
    assert!(
        warnings.len() == 1 && warnings[0].ends_with("says nothing: every setting has its default"),
        "{warnings:?}"
    );
    all.len()
}

#[test]
fn a_section_that_is_given_in_part_keeps_the_defaults_of_the_rest() {
    assert!(hold(CloudCore::load_with_warnings) > 20);
    assert!(hold(EdgeCore::load_with_warnings) > 40);
}

#[test]
fn one_key_changes_and_nothing_beside_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("cloudcore.yaml");
    std::fs::write(&file, "modules: {cloudHub: {quic: {port: 1}, https: {port: 2}, websocket: {port: 3}}}")
        .unwrap();
    let mut expected = CloudCore::default();
    let hub = &mut expected.modules.cloud_hub;
    (hub.quic.port, hub.https.port, hub.websocket.port) = (1, 2, 3);
    assert_eq!(CloudCore::load(&file).unwrap(), expected);
}

/// A kubelet's other bounds would go, unless it is told to merge.
#[test]
fn one_bound_of_eviction_keeps_the_others_and_a_file_that_wants_them_gone_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("edgecore.yaml");
    let load = |more: &str| {
        let kubelet = format!("{{evictionHard: {{memory.available: 200Mi}}, {more}}}");
        std::fs::write(&file, format!("modules: {{edged: {{tailoredKubeletConfig: {kubelet}}}}}")).unwrap();
        EdgeCore::load_with_warnings(&file).unwrap()
    };
    let mut expected = EdgeCore::default();
    let hard = &mut expected.modules.edged.tailored_kubelet_config.eviction_hard;
    hard.memory_available = config::Threshold::Amount(200 << 20);
    assert_eq!(load(""), (expected.clone(), Vec::new()));
    let key = "`modules.edged.tailoredKubeletConfig.mergeDefaultEvictionSettings`";
    let (settings, warnings) = load("mergeDefaultEvictionSettings: false");
    let words = format!("{key} is false, and has no effect in KubeHive");
    assert!(settings == expected && warnings.contains(&words), "{warnings:?}");
    let (_, warnings) = load("mergeDefaultEvictionSettings: true");
    assert!(!warnings.iter().any(|line| line.starts_with(key)), "{warnings:?}");
}

#[test]
fn kubeedges_own_edgecore_yaml_is_taken_and_what_has_no_effect_is_named() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kubeedge-edgecore.yaml");
    let (settings, said) = EdgeCore::load_with_warnings(&file).unwrap();
    let hub = &settings.modules.edge_hub;
    assert_eq!((hub.http_server.as_str(), hub.heartbeat), ("https://192.0.2.1:10002", 15));
    assert_eq!(hub.websocket.server, "192.0.2.1:10000");
    let bus = &settings.modules.event_bus;
    assert_eq!((bus.mqtt_mode, bus.mqtt_qos, bus.mqtt_server_internal.as_str()), (2, 0, "127.0.0.1:1884"));
    assert_eq!(bus.mqtt_session_queue_size, 100);
    assert_eq!(bus.external_server().map(|server| server.to_string()), Ok("tcp://127.0.0.1:1883".to_owned()));
    assert_eq!(settings.modules.edged.hostname_override, "edge-1");
    let all = said.join("\n");
    for key in [
        "edgecoreVersion",
        "database.driverName",
        "modules.edged.enable",
        "modules.edged.tailoredKubeletConfig.staticPodPath",
        "modules.edgeHub.quic.enable",
        "modules.metaManager",
        "modules.edgeStream.server",
        "modules.dbTest",
    ] {
        assert!(all.contains(&format!("`{key}`")), "{key}: {all}");
    }
    assert!(settings.modules.edge_stream.enable);
    // Of all that, one asks for something: metaServer is on.
    let demands: Vec<&String> = said.iter().filter(|line| line.contains(", and has no effect")).collect();
    assert_eq!(demands.len(), 1, "{demands:?}");
    assert!(demands[0].contains("`modules.metaManager.metaServer.enable` is true"), "{demands:?}");
}

#[test]
fn kubeedges_own_cloudcore_yaml_is_taken_and_what_has_no_effect_is_named() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kubeedge-cloudcore.yaml");
    let (settings, said) = CloudCore::load_with_warnings(&file).unwrap();
    assert_eq!(settings.modules.cloud_hub.node_limit, 500);
    assert_eq!(settings.modules.cloud_hub.dns_names, [] as [String; 0]);
    let all = said.join("\n");
    for key in ["modules.cloudHub.authorization", "kubeAPIConfig.qps", "modules.edgeController.load"] {
        assert!(all.contains(&format!("`{key}`")), "{key}: {all}");
    }
}
