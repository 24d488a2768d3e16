//! The DaemonSets of the mappers: their configs are taken, and they have what a mapper needs of its node.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;

use serde_json::Value;

fn documents(file: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(file).unwrap();
    text.split("\n---\n").map(|document| serde_saphyr::from_str(document).unwrap()).collect()
}

#[test]
fn each_mapper_has_a_daemonset_with_a_config_that_it_takes() {
    let mappers = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut found = Vec::new();
    for entry in std::fs::read_dir(mappers).unwrap() {
        let file = entry.unwrap().path().join("deploy/daemonset.yaml");
        if !file.exists() {
            continue;
        }
        let documents = documents(&file);
        let [namespace, map, set] = documents.as_slice() else {
            panic!("{}: three documents", file.display())
        };
        // Where what the pod has of its node is let in: the chart's own namespace enforces `restricted`.
        let name = &namespace["metadata"]["name"];
        assert_ne!(name, "kubeedge");
        assert_eq!(namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"], "privileged");
        assert_eq!((&map["metadata"]["namespace"], &set["metadata"]["namespace"]), (name, name));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.yaml");
        std::fs::write(&path, map["data"]["config.yaml"].as_str().unwrap()).unwrap();
        let config = framework::Config::read(&path, "").unwrap();
        assert_eq!(config.common.edgecore_sock, framework::DEFAULT_EDGECORE_SOCKET);
        let pod = &set["spec"]["template"]["spec"];
        assert_eq!(set["metadata"]["name"], map["metadata"]["name"]);
        assert_eq!(set["metadata"]["name"].as_str().unwrap(), config.common.name);
        assert_eq!(pod["volumes"][0]["configMap"]["name"], map["metadata"]["name"]);
        // What it logs in with where readings are pushed, from a Secret that need not be there.
        let secret = &pod["containers"][0]["envFrom"][0]["secretRef"];
        assert_eq!(secret["name"], format!("{}-push", config.common.name));
        assert_eq!(secret["optional"], true);
        // The sockets have the same path in the pod as on the node, and the commands that were sent lie beside the mapper's.
        let mount = &pod["containers"][0]["volumeMounts"][1];
        assert_eq!(
            (&mount["mountPath"], &pod["volumes"][1]["hostPath"]["path"]),
            (&Value::from("/etc/kubeedge"), &Value::from("/etc/kubeedge"))
        );
        assert!(config.grpc_server.socket_path.starts_with("/etc/kubeedge"));
        assert!(config.command_log().starts_with("/etc/kubeedge"));
        assert_ne!(mount["readOnly"], true);
        found.push(config.common.protocol);
    }
    found.sort();
    assert_eq!(found, ["bacnet", "can", "http", "modbus", "mqtt", "onvif", "opcua", "s7", "virtual"]);
}
