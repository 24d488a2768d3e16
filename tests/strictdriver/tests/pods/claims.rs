//! Persistent volumes: what a pod with a claim waits for, what it has, and what is left of it.

use serde_json::{Value, json};
use strictdriver::{Behaviour, Options, StrictDriver};
use testhost::TestHost;

use crate::node::{Node, WAITS, container, deleted, eventually, first, pod, run};

const DRIVER: &str = "strict.example.com";

fn claim(phase: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "metadata": {"name": "data", "namespace": "default", "uid": "c1", "resourceVersion": phase},
        "spec": {"volumeName": if phase == "Bound" { "pv" } else { "" }}, "status": {"phase": phase}})
}

fn volume(backing: Value) -> Value {
    let mut spec = json!({"accessModes": ["ReadWriteOnce"],
        "claimRef": {"namespace": "default", "name": "data", "uid": "c1"}});
    for (key, value) in backing.as_object().unwrap() {
        spec[key] = value.clone();
    }
    json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "pv", "uid": "v1"}, "spec": spec})
}

fn csi_volume() -> Value {
    volume(json!({"csi": {"driver": DRIVER, "volumeHandle": "h", "fsType": "ext4"}}))
}

fn csi_driver() -> Value {
    json!({"apiVersion": "storage.k8s.io/v1", "kind": "CSIDriver", "metadata": {"name": DRIVER, "uid": "d1"},
        "spec": {"attachRequired": false, "podInfoOnMount": true, "volumeLifecycleModes": ["Persistent", "Ephemeral"]}})
}

/// A pod that counts its starts in its volume.
fn counting(source: Value) -> Value {
    let mut main = container("c", &format!("echo up >> /data/starts; {WAITS}"));
    main["volumeMounts"] = json!([{"name": "v", "mountPath": "/data"}]);
    let mut volume = json!({"name": "v"});
    for (key, value) in source.as_object().unwrap() {
        volume[key] = value.clone();
    }
    pod("db", "", json!({"containers": [main], "volumes": [volume], "securityContext": {"fsGroup": 4242}}))
}

fn claimed() -> Value {
    counting(json!({"persistentVolumeClaim": {"claimName": "data"}}))
}

fn driver(host: &TestHost) -> StrictDriver {
    StrictDriver::start(&host.dir().join("kubelet"), &Options::new(DRIVER), None).unwrap()
}

/// The names of the volumes that the node says to have in use.
fn in_use(node: &Node) -> Vec<String> {
    let node = node.node().unwrap_or_default();
    let list = node["status"]["volumesInUse"].as_array().cloned().unwrap_or_default();
    list.iter().filter_map(|name| name.as_str().map(str::to_owned)).collect()
}

#[test]
fn a_pod_waits_for_its_claim_its_volume_and_its_driver_and_then_has_its_data() {
    run(async {
        let host = TestHost::new("claim").unwrap();
        let node = Node::start(&host);
        node.apply(&[claimed()]).await;
        let words = "error processing PVC default/data: failed to fetch PVC from API server: persistentvolumeclaims \"data\" not found";
        node.until_event("db", "FailedMount", words).await;
        node.apply(&[claim("Pending")]).await;
        node.until_event("db", "FailedMount", "error processing PVC default/data: PVC is not bound").await;
        node.apply(&[csi_driver(), csi_volume(), claim("Bound")]).await;
        let words = "MountVolume.MountDevice failed for volume \"pv\" : kubernetes.io/csi: attacher.MountDevice failed to create newCsiDriverClient: driver name strict.example.com not found in the list of registered CSI drivers";
        node.until_event("db", "FailedMount", words).await;
        let driver = driver(&host);
        let status = node.until_ready("db").await;
        let content = driver.volume("h").unwrap();
        // A container is ready before its first line is written.
        let once = async || (std::fs::read_to_string(content.join("starts")).ok()? == "up\n").then_some(());
        eventually(once).await.expect("the container writes into the volume");
        let shown = node.shell(&status, "stat -c '%a %g' /data").await;
        assert_eq!(shown, "2775 4242", "it is the pod's group's");
        assert_eq!(driver.published_with()["csi.storage.k8s.io/pod.name"], "db");
        let told =
            eventually(async || (in_use(&node) == ["kubernetes.io/csi/strict.example.com^h"]).then_some(()))
                .await;
        assert!(told.is_some(), "{:?}", in_use(&node));
        let said = node.node().unwrap();
        let drivers: Value = serde_json::from_str(
            said["metadata"]["annotations"]["kubehive.io/csi-drivers"].as_str().unwrap(),
        )
        .unwrap();
        assert_eq!(drivers[0]["nodeID"], "strict.example.com-edge-1");

        // edgecore starts anew in the middle: the container goes on, and the driver is asked again for what it did.
        node.stop(&host).await;
        let node = Node::start(&host);
        let again =
            async || (driver.calls().iter().filter(|call| *call == "publish h").count() == 2).then_some(());
        eventually(again).await.expect("the driver is asked again");
        let status = node.until_ready("db").await;
        assert_eq!(first(&status)["restartCount"], 0);
        assert_eq!(std::fs::read_to_string(content.join("starts")).unwrap(), "up\n");

        // The pod goes, and everything of its volume but the data.
        node.apply(&[deleted(&claimed(), 1)]).await;
        node.until_gone("db").await;
        eventually(async || driver.is_idle().then_some(())).await.expect("all is undone");
        eventually(async || in_use(&node).is_empty().then_some(())).await.expect("nothing is in use");
        assert!(content.join("starts").exists());
        assert_eq!(driver.faults(), [] as [String; 0]);
        assert!(!node.pod_folder("db").exists());
    });
}

#[test]
fn a_node_that_is_cut_off_boots_and_mounts_again_what_it_had() {
    run(async {
        let mut host = TestHost::new("cutoff").unwrap();
        let node = Node::start(&host);
        let driver = driver(&host);
        node.apply(&[csi_driver(), csi_volume(), claim("Bound"), claimed()]).await;
        node.until_ready("db").await;
        // The machine loses its power: nothing runs, nothing is mounted, and only the store and the folders are left.
        node.stop(&host).await;
        host.cut_power().unwrap();
        driver.lost_mounts();
        let root = host.dir().join("kubelet");
        let driver = StrictDriver::start(&root, &Options::new(DRIVER), Some(&driver)).unwrap();
        host.restore_power().unwrap();
        host.restart_runtime().unwrap();
        let node = Node::start(&host);
        let content = driver.volume("h").unwrap();
        let twice =
            async || (std::fs::read_to_string(content.join("starts")).ok()? == "up\nup\n").then_some(());
        eventually(twice).await.expect("the pod starts again with its data");
        assert_eq!(driver.faults(), [] as [String; 0]);
        drop(node);
    });
}

#[test]
fn a_driver_that_hangs_holds_up_its_own_pod_alone() {
    run(async {
        let host = TestHost::new("hung").unwrap();
        let node = Node::start(&host);
        let driver = driver(&host);
        driver.behave(Behaviour::Hangs);
        node.apply(&[csi_driver(), csi_volume(), claim("Bound"), claimed(), pod("other", WAITS, json!({}))])
            .await;
        node.until_ready("other").await;
        node.until_event("db", "FailedMount", "DeadlineExceeded").await;
        node.apply(&[deleted(&pod("other", WAITS, json!({})), 1)]).await;
        node.until_gone("other").await;
    });
}

/// A Job's pod stays when it has ended, and another node may wait for its volume.
#[test]
fn a_pod_that_has_ended_gives_its_volume_back() {
    run(async {
        let host = TestHost::new("ended").unwrap();
        let node = Node::start(&host);
        let driver = driver(&host);
        let mut job = claimed();
        job["spec"]["restartPolicy"] = json!("Never");
        job["spec"]["containers"][0]["command"] =
            json!(["/bin/sh", "-c", "echo done > /data/result && echo part > /part/result"]);
        // A sub-path holds the volume's file system by a mount of its own.
        let part = json!({"name": "v", "mountPath": "/part", "subPath": "part"});
        job["spec"]["containers"][0]["volumeMounts"].as_array_mut().unwrap().push(part);
        node.apply(&[csi_driver(), csi_volume(), claim("Bound"), job]).await;
        node.until_phase("db", "Succeeded").await;
        eventually(async || driver.is_idle().then_some(())).await.expect("all is undone");
        assert_eq!(std::fs::read_to_string(driver.volume("h").unwrap().join("result")).unwrap(), "done\n");
        assert_eq!(driver.faults(), [] as [String; 0]);
        assert!(node.pod_folder("db").exists(), "its logs are still asked for");
    });
}

/// What drivers in pods live by: their mounts below `rootDirectory` show on the node and in other containers.
#[test]
fn a_mount_of_one_pod_shows_on_the_node_and_in_another() {
    run(async {
        let host = TestHost::new("shared").unwrap();
        let root = host.dir().join("kubelet");
        edge_csi::share(&root).unwrap();
        let node = Node::start(&host);
        let plugin = json!([{"name": "plugin",
            "hostPath": {"path": root.join("plugins/own").display().to_string(), "type": "DirectoryOrCreate"}}]);
        let with = |name: &str, script: &str, propagation: &str| {
            let mut main = container("c", script);
            main["securityContext"] = json!({"privileged": true});
            main["volumeMounts"] =
                json!([{"name": "plugin", "mountPath": "/plugin", "mountPropagation": propagation}]);
            pod(name, "", json!({"containers": [main], "volumes": plugin}))
        };
        let other = with("other", WAITS, "HostToContainer");
        node.apply(&[other]).await;
        let other = node.until_ready("other").await;
        let script =
            format!("mkdir -p /plugin/m && mount -t tmpfs own /plugin/m && echo up > /plugin/m/f; {WAITS}");
        node.apply(&[with("mounts", &script, "Bidirectional")]).await;
        node.until_ready("mounts").await;
        let shown = root.join("plugins/own/m/f");
        let shows = async || std::fs::read_to_string(&shown).is_ok_and(|text| text == "up\n").then_some(());
        eventually(shows).await.expect("the node sees the mount");
        assert_eq!(
            node.shell(&other, "cat /plugin/m/f").await,
            "up",
            "and so does a container that was there before"
        );
    });
}

#[test]
fn an_inline_volume_is_the_pods_own_and_goes_with_it() {
    run(async {
        let host = TestHost::new("inline").unwrap();
        let node = Node::start(&host);
        let driver = driver(&host);
        let inline = counting(json!({"csi": {"driver": DRIVER, "volumeAttributes": {"size": "1Gi"}}}));
        node.apply(&[csi_driver(), inline.clone()]).await;
        node.until_ready("db").await;
        assert_eq!(driver.published_with()["csi.storage.k8s.io/ephemeral"], "true");
        node.apply(&[deleted(&inline, 1)]).await;
        node.until_gone("db").await;
        assert!(driver.is_idle());
        assert_eq!(driver.faults(), [] as [String; 0]);
    });
}

#[test]
fn a_local_disk_is_a_volume_of_a_claim_too() {
    run(async {
        let host = TestHost::new("localdisk").unwrap();
        let node = Node::start(&host);
        let disk = host.dir().join("disk");
        std::fs::create_dir(&disk).unwrap();
        node.apply(&[
            volume(json!({"local": {"path": disk.display().to_string()}})),
            claim("Bound"),
            claimed(),
        ])
        .await;
        let status = node.until_ready("db").await;
        assert_eq!(node.shell(&status, "stat -c '%g' /data").await, "4242");
        node.stop(&host).await;
        let node = Node::start(&host);
        node.until_ready("db").await;
        node.apply(&[deleted(&claimed(), 1)]).await;
        node.until_gone("db").await;
        assert_eq!(
            std::fs::read_to_string(disk.join("starts")).unwrap(),
            "up\n",
            "the data is not the pod's"
        );
    });
}
