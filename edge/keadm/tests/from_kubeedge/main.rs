//! A node moves over from KubeEdge and back, against the real enrolment server and a stand-in of systemd.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod containers;
mod machine;

use std::fs;
use std::path::Path;

use beehive::Env;
use config::edge::EdgeCore;
use contract::rows::{ADOPTED_PODS_FACT, IMPORTED_STORE_FACT, KNOWN_MAPPERS_FACT};
use edge_store::{ObjectKey, Options, Store, Table};
use harness::{EnrolmentCloud, StandAlone};
use keadm::{ConfigLocation, Join, back_to_kubeedge, join, join_from_kubeedge};
use machine::{Edge, KUBEEDGES_UNIT};
use serde_json::{Value, json};

fn pod(name: &str, uid: &str) -> Value {
    json!({ "apiVersion": "v1", "kind": "Pod",
        "metadata": { "namespace": "shop", "name": name, "uid": uid, "resourceVersion": "77" },
        "spec": { "nodeName": "edge-1", "containers": [{ "name": "c", "image": "web:1" }] } })
}

/// What a node has that does something.
fn fill(edge: &Edge) {
    edge.meta("shop/pod/till", "pod", &pod("till", "u-till"));
    edge.meta(
        "shop/configmap/prices",
        "configmap",
        &json!({ "metadata": { "namespace": "shop", "name": "prices", "uid": "u-c" } }),
    );
    edge.meta("shop/secret/key", "secret", &json!({ "metadata": { "namespace": "shop", "name": "key", "uid": "u-s" }, "data": { "k": "c2VjcmV0" } }));
    edge.meta("shop/podstatus/till", "podstatus", &json!({}));
    let device = json!({ "metadata": { "namespace": "shop", "name": "scale", "uid": "u-d" },
        "spec": { "nodeName": "edge-1", "protocol": { "protocolName": "modbus" }, "properties": [{ "name": "weight", "desired": { "value": "7" } }] } });
    edge.meta("shop/device/scale", "device", &device);
    let mapper = json!({ "name": "m", "version": "1", "protocol": "modbus", "address": "L2V0Yy9rdWJlZWRnZS9tLnNvY2s=" });
    edge.meta("node/nodeID/namespace/devicemapper/m", "devicemapper", &mapper);
    edge.sql(
        "INSERT INTO device VALUES ('shop/scale', 'scale', '', 'online', '');
         INSERT INTO device_twin (deviceid, name, expected, actual, expected_meta, actual_meta, expected_version, actual_version, optional, attr_type)
         VALUES ('shop/scale', 'weight', '7', '6', '{\"timestamp\":1}', '{\"timestamp\":2}', '{\"cloud\":3,\"edge\":0}', '{\"cloud\":0,\"edge\":9}', 1, 'int');
         INSERT INTO meta VALUES ('shop/pod/torn', 'pod', CAST(x'7bff' AS TEXT));",
    );
}

fn open(edge: &Edge) -> Store {
    let options = Options { node: Some("edge-1".to_owned()), ..Options::new([1; 16]) };
    Store::open(edge.store(), options).unwrap()
}

async fn cloud() -> (StandAlone, EnrolmentCloud, Env) {
    let env = Env::real();
    let api = StandAlone::start(&env).await;
    let cloud = EnrolmentCloud::start(api.client(), &env).await;
    (api, cloud, env)
}

async fn moved(edge: &Edge, cloud: &EnrolmentCloud, env: &Env) -> (anyhow::Result<()>, Vec<String>) {
    let order = edge.order(cloud, cloud.token(3600, None).await);
    let mut said = Vec::new();
    let moved =
        join_from_kubeedge(&order, &edge.settings(), &edge.machine(), env, &mut |line| said.push(line)).await;
    (moved, said)
}

#[actix_rt::test]
async fn a_node_moves_over_with_all_that_it_holds_and_back_as_it_was() {
    let (_api, cloud, env) = cloud().await;
    let edge = Edge::new();
    fill(&edge);
    let before = edge.of_kubeedge();
    let (result, said) = moved(&edge, &cloud, &env).await;
    result.unwrap();
    let all = said.join("\n");
    for words in [
        "modules.dbTest.enable",
        "modules.edged.nodeLabels",
        "modules.edged.tailoredKubeletConfig.cgroupDriver",
        "1 configmap, 1 device, 1 devicemapper, 1 pod, 1 secret, 1 twin",
        "left out: meta `shop/pod/torn`",
        "not needed: 1 podstatus",
        "stopped edgecore.service of KubeEdge",
        "keadm reset --to-kubeedge",
    ] {
        assert!(all.contains(words), "{words}: {all}");
    }
    // The machine was looked at before anything was stopped: no runtime is there, which is said, and the node moves all the same.
    let at = |words: &str| {
        said.iter().position(|line| line.contains(words)).unwrap_or_else(|| panic!("{words}: {all}"))
    };
    assert!(
        at("FAIL    RuntimeEndpoint: nobody answers at unix:///nowhere/containerd.sock")
            < at("stopped edgecore")
    );
    assert!(at("while KubeEdge's edgecore runs: Leftovers") < at("stopped edgecore"));
    assert!(!all.contains("FAIL    Leftovers") && !all.contains("WARNING Leftovers"), "{all}");
    // KubeEdge's files are as they were, its unit has made room, and nothing in the open is left.
    assert_eq!(edge.of_kubeedge(), before);
    assert_eq!(fs::read_to_string(edge.at("units/edgecore.service.kubeedge")).unwrap(), KUBEEDGES_UNIT);
    let unit = fs::read_to_string(edge.unit()).unwrap();
    let started = format!(
        "ExecStart={} --config {}\n",
        edge.at("programs/edgecore").display(),
        edge.at("own/edgecore.yaml").display()
    );
    assert!(unit.contains(&started) && unit.contains("RuntimeDirectory="), "{unit}");
    assert!(edge.systemd.borrow().active && edge.systemd.borrow().enabled);
    let left =
        fs::read_dir(edge.at("lib")).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert!(left.into_iter().all(|name| !name.contains("import")));

    let settings = EdgeCore::load(&edge.at("own/edgecore.yaml")).unwrap();
    assert_eq!(settings.modules.edged.hostname_override, "edge-1");
    assert_eq!(settings.modules.edged.node_labels.get("hall").map(String::as_str), Some("3"));
    assert_eq!(settings.modules.edge_hub.websocket.server, "127.0.0.1:10000");
    assert_eq!(settings.database.data_source, edge.store());

    let store = open(&edge);
    for (resource, name) in [
        ("pods", "till"),
        ("configmaps", "prices"),
        ("secrets", "key"),
        ("devices.devices.kubeedge.io", "scale"),
    ] {
        assert!(store.get_object(&ObjectKey::new(resource, "shop", name)).unwrap().is_some(), "{resource}");
    }
    let rows = |fact: &str| {
        store.list_rows(Table::Facts, Some(fact)).unwrap().into_iter().map(|row| row.key2).collect::<Vec<_>>()
    };
    assert_eq!(
        (rows(ADOPTED_PODS_FACT), rows(IMPORTED_STORE_FACT), rows(KNOWN_MAPPERS_FACT)),
        (vec!["u-till".to_owned()], vec![String::new()], vec!["modbus".to_owned()])
    );
    let twin: Value =
        serde_json::from_slice(&store.get_row(Table::Twins, "shop/scale", "weight").unwrap().unwrap())
            .unwrap();
    assert_eq!(twin["expected"], json!({ "value": "7", "timestamp": 1 }));
    assert_eq!(
        (&twin["actual"]["value"], &twin["actual_version"]),
        (&json!("6"), &json!({ "cloud": 0, "edge": 9 }))
    );
    drop(store);
    // A Secret is sealed, and stands nowhere in the open.
    let bytes = fs::read(edge.store()).unwrap();
    assert!(!bytes.windows(8).any(|window| window == b"c2VjcmV0"));

    let (again, _) = moved(&edge, &cloud, &env).await;
    assert!(format!("{:#}", again.unwrap_err()).contains("moved over already"));

    let config = ConfigLocation::from(edge.at("own/edgecore.yaml"));
    let mut told = Vec::new();
    back_to_kubeedge(&config, false, &edge.machine(), &mut |line| told.push(line)).await.unwrap();
    assert_eq!(fs::read_to_string(edge.unit()).unwrap(), KUBEEDGES_UNIT);
    assert!(!edge.at("units/edgecore.service.kubeedge").exists());
    assert_eq!(edge.of_kubeedge(), before);
    assert!(edge.systemd.borrow().active && edge.systemd.borrow().enabled);
    assert!(!edge.store().exists() && !edge.at("own/edgecore.yaml").exists());
    assert!(told.iter().any(|line| line.contains("keadm adopt edge-1 --undo")), "{told:?}");
    let twice = back_to_kubeedge(&config, false, &edge.machine(), &mut |_| {}).await.unwrap_err();
    assert!(format!("{twice:#}").contains("did not come from KubeEdge"), "{twice:#}");
    // And over once more.
    moved(&edge, &cloud, &env).await.0.unwrap();
    cloud.server.stop().await;
}

#[actix_rt::test]
async fn whatever_fails_kubeedges_edgecore_runs_again_and_nothing_is_left() {
    let (_api, cloud, env) = cloud().await;
    type Fault = (&'static str, fn(&Edge), &'static str);
    let faults: [Fault; 5] = [
        (
            "the database is none",
            |edge| fs::write(edge.database(), "x".repeat(8192)).unwrap(),
            "no database of KubeEdge's",
        ),
        ("the token is none", |_| {}, "paste it whole"),
        (
            "somebody has the database open",
            |edge| {
                let fd = edge.at("proc/4711/fd");
                fs::create_dir_all(&fd).unwrap();
                std::os::unix::fs::symlink(edge.database(), fd.join("7")).unwrap();
            },
            "open in process 4711",
        ),
        (
            "the unit cannot be exchanged",
            |edge| edge.systemd.borrow_mut().fails = Some("disable"),
            "systemctl disable",
        ),
        (
            "it does not start",
            |edge| edge.systemd.borrow_mut().fails = Some("enable --now"),
            "does not start",
        ),
    ];
    for (what, fault, words) in faults {
        let edge = Edge::new();
        fill(&edge);
        fault(&edge);
        let before = edge.of_kubeedge();
        let mut order = edge.order(&cloud, cloud.token(3600, None).await);
        if what.starts_with("the token") {
            order.token = "pasted.half".to_owned();
        }
        let result = join_from_kubeedge(&order, &edge.settings(), &edge.machine(), &env, &mut |_| {}).await;
        let error = format!("{:#}", result.unwrap_err());
        assert!(error.contains(words), "{what}: {error}");
        assert!(edge.systemd.borrow().active, "{what}: {error} {:?}", edge.systemd.borrow().calls);
        assert_eq!(fs::read_to_string(edge.unit()).unwrap(), KUBEEDGES_UNIT, "{what}");
        assert_eq!(edge.of_kubeedge(), before, "{what}");
        let left = |folder: &str| {
            let names = fs::read_dir(edge.at(folder))
                .unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap());
            names.collect::<Vec<_>>()
        };
        assert_eq!(left("own"), [] as [String; 0], "{what}: {error}");
        assert_eq!(left("lib"), ["edgecore.db"], "{what}: {error}");
    }
    cloud.server.stop().await;
}

#[actix_rt::test]
async fn without_the_flag_kubeedges_database_is_no_place_for_a_store() {
    let (_api, cloud, _env) = cloud().await;
    let edge = Edge::new();
    let mut order = edge.order(&cloud, cloud.token(3600, None).await);
    order.set.pop();
    order.set.push(format!("database.dataSource={}", edge.database().display()));
    let refused = format!("{:#}", join(&order, &mut |_| {}).await.unwrap_err());
    assert!(refused.contains("keadm join --from-kubeedge"), "{refused}");
    let env = Env::real();
    let refused = join_from_kubeedge(&order, &edge.settings(), &edge.machine(), &env, &mut |_| {}).await;
    assert!(format!("{:#}", refused.unwrap_err()).contains("another file in database.dataSource"));
    // A name that is not KubeEdge's, and no settings of KubeEdge's.
    let order = Join { node: "edge-2".to_owned(), ..edge.order(&cloud, cloud.token(3600, None).await) };
    let refused = join_from_kubeedge(&order, &edge.settings(), &edge.machine(), &env, &mut |_| {}).await;
    assert!(format!("{:#}", refused.unwrap_err()).contains("the node is `edge-1` to KubeEdge"));
    let none = join_from_kubeedge(&order, Path::new("/nowhere"), &edge.machine(), &env, &mut |_| {}).await;
    assert!(format!("{:#}", none.unwrap_err()).contains("join without --from-kubeedge"));
    // The unit starts this very program: KubeEdge's is gone.
    let own = edge.at("programs/edgecore");
    fs::write(edge.unit(), KUBEEDGES_UNIT.replace("/usr/local/bin/edgecore", own.to_str().unwrap())).unwrap();
    let order = edge.order(&cloud, cloud.token(3600, None).await);
    let refused = join_from_kubeedge(&order, &edge.settings(), &edge.machine(), &env, &mut |_| {}).await;
    assert!(format!("{:#}", refused.unwrap_err()).contains("put KubeEdge's edgecore back there"));
    assert!(edge.systemd.borrow().active && edge.systemd.borrow().calls.is_empty());
    cloud.server.stop().await;
}
