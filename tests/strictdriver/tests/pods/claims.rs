//! Persistent volumes: what a pod with a claim waits for, what it has, and what is left of it.

use std::time::Duration;

use contract::volume_stats::VolumeStats;
use csi::v1::node_service_capability::rpc::Type as Capability;
use serde_json::{Value, json};
use strictdriver::{Behaviour, Options, SIZE, StrictDriver};
use testnode::{Machine, Node, Plan, WAITS, container, deleted, eventually, first, pod, run};

pub(crate) const DRIVER: &str = "strict.example.com";

pub(crate) fn claim(phase: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "metadata": {"name": "data", "namespace": "default", "uid": "c1", "resourceVersion": phase},
        "spec": {"volumeName": if phase == "Bound" { "pv" } else { "" }}, "status": {"phase": phase}})
}

pub(crate) fn volume(backing: Value) -> Value {
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

pub(crate) fn csi_driver() -> Value {
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

pub(crate) fn driver(host: &Machine) -> StrictDriver {
    StrictDriver::start(&host.dir().join("kubelet"), &Options::new(DRIVER), None).unwrap()
}

/// A node that mounts.
pub(crate) fn start(host: &Machine) -> Node {
    Plan::of(host).mounting().start(host)
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
        let host = Machine::new("claim");
        let node = start(&host);
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
        let node = start(&host);
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
        let mut host = Machine::new("cutoff");
        let node = start(&host);
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
        let node = start(&host);
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
        let host = Machine::new("hung");
        let node = start(&host);
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
        let host = Machine::new("ended");
        let node = start(&host);
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
        let host = Machine::new("shared");
        let root = host.dir().join("kubelet");
        edge_csi::share(&root).unwrap();
        let node = start(&host);
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
        let host = Machine::new("inline");
        let node = start(&host);
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
        let host = Machine::new("localdisk");
        let node = start(&host);
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
        let node = start(&host);
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

/// A volume of a pod, as the node knows it.
async fn stats(node: &Node, pod: &str, volume: &str) -> Option<VolumeStats> {
    let mut all = node.volumes().await;
    let own = all.remove(&testnode::uid(pod))?;
    own.into_iter().find(|stats| stats.name == volume)
}

#[test]
fn what_volumes_hold_is_known_and_a_driver_that_hangs_holds_up_no_answer() {
    run(async {
        let host = Machine::new("stats");
        // So that each question is a new look.
        let often = Duration::from_millis(1);
        let node =
            Plan::of(&host).mounting().set(|settings| settings.volume_stats_every = often).start(&host);
        let mut options = Options::new(DRIVER);
        options.capabilities.push(Capability::GetVolumeStats);
        let driver = StrictDriver::start(&host.dir().join("kubelet"), &options, None).unwrap();
        let mut wanted = claimed();
        let script = format!("head -c 65536 /dev/zero > /scratch/f; echo up >> /data/starts; {WAITS}");
        wanted["spec"]["containers"][0]["command"] = json!(["/bin/sh", "-c", script]);
        wanted["spec"]["containers"][0]["volumeMounts"] =
            json!([{"name": "v", "mountPath": "/data"}, {"name": "e", "mountPath": "/scratch"}]);
        wanted["spec"]["volumes"].as_array_mut().unwrap().push(json!({"name": "e", "emptyDir": {}}));
        node.apply(&[csi_driver(), csi_volume(), claim("Bound"), wanted.clone()]).await;
        node.until_ready("db").await;
        let written = eventually(async || stats(&node, "db", "v").await.filter(|own| own.usage.used == 3));
        let claimed = written.await.expect("the driver says it");
        assert_eq!(claimed.claim.as_deref(), Some("data"));
        assert_eq!((claimed.usage.capacity, claimed.usage.inodes_used), (SIZE.unsigned_abs(), 1));
        let holds = async || stats(&node, "db", "e").await.filter(|own| own.usage.used >= 65536);
        let scratch = eventually(holds).await.expect("its files are counted");
        assert!(scratch.is_ephemeral && scratch.usage.capacity > scratch.usage.used, "{scratch:?}");

        driver.behave(Behaviour::HangsAtStats);
        let before = driver.calls().len();
        let asked = async || {
            node.volumes().await;
            (driver.calls().len() > before).then_some(())
        };
        eventually(asked).await.expect("it is asked");
        let status = node.until_ready("db").await;
        node.shell(&status, "head -c 131072 /dev/zero > /scratch/g").await;
        let grown = async || stats(&node, "db", "e").await.filter(|own| own.usage.used >= 65536 + 131_072);
        eventually(grown).await.expect("the others go on");
        // Nor does it hold up the end.
        driver.behave(Behaviour::Right);
        node.apply(&[deleted(&wanted, 1)]).await;
        node.until_gone("db").await;
        eventually(async || driver.is_idle().then_some(())).await.expect("all is undone");
        assert_eq!(driver.faults(), [] as [String; 0]);
    });
}

/// A claim that is to become larger, as its controller leaves it to the node.
fn growing(state: &str) -> Value {
    let mut claim = claim("Bound");
    claim["metadata"]["resourceVersion"] = json!(state);
    claim["status"]["capacity"] = json!({"storage": "1Gi"});
    claim["status"]["allocatedResources"] = json!({"storage": "2Gi"});
    claim["status"]["allocatedResourceStatuses"] = json!({"storage": state});
    claim
}

fn grown_volume() -> Value {
    let source = json!({"driver": DRIVER, "volumeHandle": "h", "fsType": "ext4"});
    volume(json!({"capacity": {"storage": "2Gi"}, "csi": source}))
}

/// What was reported last of a claim's size.
fn expansion(node: &Node) -> Option<(String, String, String)> {
    node.reports().into_iter().rev().find_map(|report| match report {
        contract::UpReport::ClaimExpansion { size, state, message, .. } => Some((size, state, message)),
        _ => None,
    })
}

#[test]
fn a_volume_becomes_larger_while_its_pod_runs_and_it_is_told_when_there_is_a_cloud() {
    run(async {
        let host = Machine::new("expand");
        let node = start(&host);
        let mut options = Options::new(DRIVER);
        options.capabilities.push(Capability::ExpandVolume);
        let root = host.dir().join("kubelet");
        let driver = StrictDriver::start(&root, &options, None).unwrap();
        node.apply(&[csi_driver(), csi_volume(), claim("Bound"), claimed()]).await;
        let status = node.until_ready("db").await;
        assert_eq!(driver.expanded_to("h"), None);
        node.apply(&[grown_volume(), growing("NodeResizePending")]).await;
        let words = "MountVolume.NodeExpandVolume succeeded for volume \"pv\" edge-1";
        node.until_event("db", "FileSystemResizeSuccessful", words).await;
        let (size, at, staged) = driver.expanded_to("h").unwrap();
        assert_eq!((size, staged.ends_with("/globalmount")), (2 << 30, true));
        assert!(at.ends_with("uid-of-db/volumes/kubernetes.io~csi/pv/mount"), "{at}");
        let done = Some(("2Gi".to_owned(), "Finished".to_owned(), String::new()));
        eventually(async || (expansion(&node) == done).then_some(())).await.expect("it is told");
        assert_eq!(first(&node.until_ready("db").await)["containerID"], first(&status)["containerID"]);
        assert_eq!(driver.faults(), [] as [String; 0]);
    });
}

#[test]
fn a_volume_that_cannot_become_larger_holds_up_no_pod_and_is_told_with_the_drivers_words() {
    run(async {
        let host = Machine::new("toosmall");
        let node = start(&host);
        let mut options = Options::new(DRIVER);
        options.capabilities.push(Capability::ExpandVolume);
        let driver = StrictDriver::start(&host.dir().join("kubelet"), &options, None).unwrap();
        driver.behave(Behaviour::TooSmall);
        node.apply(&[csi_driver(), grown_volume(), growing("NodeResizeInProgress"), claimed()]).await;
        node.until_ready("db").await;
        let words = "NodeExpandVolume.NodeExpandVolume failed for volume \"pv\" : Expander.NodeExpand failed to expand the volume rpc error: code = OutOfRange desc = the disk has no more";
        node.until_event("db", "VolumeResizeFailed", words).await;
        let told = async || expansion(&node).filter(|(_, state, _)| state == "Infeasible");
        let (_, _, message) = eventually(told).await.expect("it is told");
        assert!(message.contains("the disk has no more"), "{message}");
        assert_eq!(driver.faults(), [] as [String; 0]);
    });
}
