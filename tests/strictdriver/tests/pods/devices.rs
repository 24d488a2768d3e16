//! Volumes that pods have as block devices.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use testnode::{Machine, WAITS, container, deleted, eventually, first, pod, run};

use crate::claims::{DRIVER, claim, csi_driver, driver, start, volume};

/// A pod that has its claim as a device and writes a word to it.
fn writing() -> Value {
    let script = format!("printf word | dd of=/dev/disk conv=notrunc,fsync && touch /done; {WAITS}");
    let mut main = container("c", &script);
    main["volumeDevices"] = json!([{"name": "v", "devicePath": "/dev/disk"}]);
    let claimed = json!([{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}]);
    pod("db", "", json!({"containers": [main], "volumes": claimed}))
}

fn begins_with_word(file: &Path) -> bool {
    std::fs::read(file).is_ok_and(|bytes| bytes.starts_with(b"word"))
}

/// The names in a folder; none where it is not there.
fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

#[test]
fn a_drivers_volume_is_a_device_in_its_container_and_all_of_it_goes_with_the_pod() {
    run(async {
        let host = Machine::new("block");
        let node = start(&host);
        let driver = driver(&host);
        let source = json!({"volumeMode": "Block", "csi": {"driver": DRIVER, "volumeHandle": "h"}});
        let mut mounting = writing();
        mounting["metadata"] = json!({"name": "wrong", "namespace": "default", "uid": "uid-of-wrong"});
        mounting["spec"]["containers"][0]["volumeMounts"] = json!([{"name": "v", "mountPath": "/data"}]);
        mounting["spec"]["containers"][0].as_object_mut().unwrap().remove("volumeDevices");
        node.apply(&[csi_driver(), volume(source), claim("Bound"), mounting, writing()]).await;
        let words = "volume v has volumeMode Block, but is specified in volumeMounts";
        node.until_event("wrong", "FailedMount", words).await;
        let status = node.until_ready("db").await;
        let file = driver.device_file("h");
        eventually(async || begins_with_word(&file).then_some(())).await.expect("the word is on the device");
        assert!(node.shell(&status, "ls -l /dev/disk").await.starts_with('b'));
        let devices = host.dir().join("kubelet/plugins/kubernetes.io/csi/volumeDevices");
        assert!(devices.join("publish/pv/uid-of-db").exists() && devices.join("staging/pv").is_dir());
        let link = node.pod_folder("db").join("volumeDevices/kubernetes.io~csi/pv");
        assert_eq!(std::fs::read_link(link).unwrap(), devices.join("publish/pv/uid-of-db"));
        assert!(node.events("db").iter().any(|(reason, _)| reason == "SuccessfulMountVolume"));

        // edgecore starts anew in the middle: the container goes on with its device.
        node.stop(&host).await;
        let node = start(&host);
        let again =
            async || (driver.calls().iter().filter(|call| *call == "publish h").count() == 2).then_some(());
        eventually(again).await.expect("the driver is asked again");
        assert_eq!(first(&node.until_ready("db").await)["restartCount"], 0);

        node.apply(&[deleted(&writing(), 1)]).await;
        node.until_gone("db").await;
        eventually(async || driver.is_idle().then_some(())).await.expect("all is undone");
        let left = || ["staging", "publish"].map(|folder| names(&devices.join(folder)).len());
        eventually(async || (left() == [0, 0] && names(&devices).len() == 2).then_some(()))
            .await
            .unwrap_or_else(|| panic!("left: {:?}", names(&devices)));
        assert_eq!(driver.faults(), [] as [String; 0]);
        assert!(begins_with_word(&file), "the data is not the pod's");
    });
}

/// A file behind a device of the machine.
struct LoopDevice(PathBuf);

impl LoopDevice {
    fn of(file: &Path) -> LoopDevice {
        std::fs::File::create(file).unwrap().set_len(1 << 20).unwrap();
        let made = Command::new("losetup").args(["--find", "--show"]).arg(file).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        LoopDevice(PathBuf::from(String::from_utf8(made.stdout).unwrap().trim()))
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        drop(Command::new("losetup").arg("--detach").arg(&self.0).status());
    }
}

#[test]
fn a_local_disk_is_a_device_of_a_claim_too_and_for_reading_alone_where_the_claim_says_so() {
    run(async {
        let host = Machine::new("localblock");
        let node = start(&host);
        let file = host.dir().join("disk.img");
        let disk = LoopDevice::of(&file);
        let path = disk.0.display().to_string();
        node.apply(&[
            volume(json!({"volumeMode": "Block", "local": {"path": path}})),
            claim("Bound"),
            writing(),
        ])
        .await;
        node.until_ready("db").await;
        eventually(async || begins_with_word(&file).then_some(())).await.expect("the word is on the device");
        let mut reading = writing();
        reading["metadata"] = json!({"name": "reads", "namespace": "default", "uid": "uid-of-reads"});
        reading["spec"]["volumes"][0]["persistentVolumeClaim"]["readOnly"] = json!(true);
        reading["spec"]["containers"][0]["command"] = json!(["/bin/sh", "-c", WAITS]);
        node.apply(&[reading]).await;
        let status = node.until_ready("reads").await;
        assert_eq!(node.shell(&status, "head -c 4 /dev/disk").await, "word");
        let refused = node.shell(&status, "printf other > /dev/disk && echo written").await;
        assert!(refused.contains("not permitted"), "{refused}");
        node.apply(&[deleted(&writing(), 1)]).await;
        node.until_gone("db").await;
        assert!(begins_with_word(&file), "the data is not the pod's");
    });
}
