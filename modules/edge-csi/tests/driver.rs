//! EdgeCsi against a driver that takes nothing but what CSI allows. As root: the driver mounts.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use beehive::testing::Probe;
use beehive::{Address, Capacity, Ended, Env, Flow, Hive, Policy};
use contract::csi::{AccessMode, CsiFault, CsiMounted, CsiMsg, CsiVolume};
use contract::csi_node::CsiNodeDriver;
use contract::edged::EdgedMsg;
use edge_csi::{EdgeCsi, Settings};
use strictdriver::{Behaviour, Options, StrictDriver};

const SOON: Duration = Duration::from_secs(20);
/// What a call of a driver may take.
const CALL: Duration = Duration::from_secs(10);
const DRIVER: &str = "strict.example.com";

/// A node without pods: EdgeCsi, and what it tells Edged.
struct Node {
    hive: Hive,
    csi: Address<CsiMsg>,
    edged: Probe<EdgedMsg>,
    root: PathBuf,
}

fn run<F: Future>(test: F) -> F::Output {
    actix_rt::System::new().block_on(test)
}

/// Folders with mounts in them go when these are undone.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Folder {
        Folder(tempfile::tempdir().unwrap())
    }

    fn root(&self) -> &Path {
        self.0.path()
    }

    fn mounts(&self) -> Vec<String> {
        let points = mountinfo::here().unwrap().into_iter().map(|mount| mount.point);
        points
            .filter(|point| point.starts_with(self.root()))
            .map(|point| point.display().to_string())
            .collect()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        for point in self.mounts().iter().rev() {
            drop(std::process::Command::new("umount").args(["-l", point]).status());
        }
    }
}

fn start(root: &Path) -> Node {
    start_with(root, CALL)
}

fn start_with(root: &Path, call_deadline: Duration) -> Node {
    let env = Env::real();
    let (edged, to_edged) = Probe::new(&env, 64);
    let mut hive = Hive::new("test", env);
    let mailbox = hive.mailbox::<CsiMsg>("edge-csi", Capacity::new(64, "a test's choice"));
    let csi = hive.grant("test", &mailbox, Flow::Ask);
    let settings = Settings::new(root, "edge-1").times(call_deadline, Duration::from_millis(100));
    hive.supervise(mailbox, Policy::default(), move || EdgeCsi::new(settings.clone(), to_edged.clone()));
    hive.open().unwrap();
    Node { hive, csi, edged, root: root.to_owned() }
}

fn volume(pod: &str, handle: &str) -> CsiVolume {
    CsiVolume {
        pod_uid: pod.to_owned(),
        name: format!("pv-{handle}"),
        driver: DRIVER.to_owned(),
        handle: handle.to_owned(),
        ..CsiVolume::default()
    }
}

impl Node {
    async fn mount(&self, volume: &CsiVolume) -> Result<CsiMounted, CsiFault> {
        let ask = |reply| CsiMsg::Mount { volume: Box::new(volume.clone()), reply };
        self.csi.ask(SOON, ask).await.unwrap()
    }

    async fn unmount(&self, pod: &str) -> Result<(), CsiFault> {
        self.csi.ask(SOON, |reply| CsiMsg::Unmount { pod_uid: pod.to_owned(), reply }).await.unwrap()
    }

    /// Waits until Edged was told something that holds.
    async fn until(&mut self, what: &str, holds: impl Fn(&[CsiNodeDriver], &BTreeSet<String>) -> bool) {
        loop {
            match self.edged.next(SOON).await {
                Some(EdgedMsg::CsiDrivers { drivers, in_use }) if holds(&drivers, &in_use) => return,
                Some(_) => {}
                None => panic!("waited in vain for {what}"),
            }
        }
    }

    async fn until_registered(&mut self) {
        self.until("the driver", |drivers, _| drivers.iter().any(|driver| driver.name == DRIVER)).await;
    }

    async fn stop(self) {
        assert_eq!(self.hive.shutdown(SOON).await, Ended::InOrder);
    }

    fn shown(&self, pod: &str, handle: &str) -> PathBuf {
        self.root.join(format!("pods/{pod}/volumes/kubernetes.io~csi/pv-{handle}/mount"))
    }
}

fn driver(folder: &Folder) -> StrictDriver {
    StrictDriver::start(folder.root(), &Options::new(DRIVER), None).unwrap()
}

/// Nothing that is looked for comes by itself a second time, so it is looked again and again.
async fn eventually(what: &str, holds: impl Fn() -> bool) {
    let looks = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    assert!(tokio::time::timeout(SOON, looks).await.is_ok(), "waited in vain: {what}");
}

fn times(calls: &[String], call: &str) -> usize {
    calls.iter().filter(|own| *own == call).count()
}

#[test]
fn a_driver_registers_with_what_it_says_and_goes_with_its_socket() {
    run(async {
        let folder = Folder::new();
        let mut node = start(folder.root());
        node.until("a first word", |drivers, in_use| drivers.is_empty() && in_use.is_empty()).await;
        // It comes after edgecore, as a pod does.
        let driver = driver(&folder);
        node.until("the driver", |drivers, _| {
            drivers.iter().any(|one| {
                one.name == DRIVER
                    && one.node_id == "strict.example.com-edge-1"
                    && one.max_volumes == 7
                    && one
                        .topology
                        .get("topology.strict.example.com/node")
                        .is_some_and(|node| node == "edge-1")
            })
        })
        .await;
        eventually("the registrar hears of it", || driver.told() == [Ok(())]).await;
        driver.remove_sockets();
        node.until("its end", |drivers, _| drivers.is_empty()).await;
        // Another one in the same place is registered anew.
        let again = StrictDriver::start(folder.root(), &Options::new(DRIVER), Some(&driver)).unwrap();
        node.until_registered().await;
        eventually("the registrar hears of it", || again.told().len() == 2).await;
    });
}

#[test]
fn a_plugin_that_is_no_csi_driver_hears_so() {
    run(async {
        let folder = Folder::new();
        let _node = start(folder.root());
        let mut options = Options::new("dra.example.com");
        options.kind = "DRAPlugin".to_owned();
        let plugin = StrictDriver::start(folder.root(), &options, None).unwrap();
        eventually("it hears", || !plugin.told().is_empty()).await;
        let told = plugin.told().remove(0).unwrap_err();
        assert!(
            told.starts_with(
                "RegisterPlugin error -- no handler registered for plugin type: DRAPlugin at socket /"
            ),
            "{told}"
        );
    });
}

#[test]
fn two_pods_share_a_volume_and_the_last_to_go_unstages_it() {
    run(async {
        let folder = Folder::new();
        let driver = driver(&folder);
        let mut node = start(folder.root());
        node.until_registered().await;
        std::fs::write(driver.volume("h").unwrap().join("there"), "x").unwrap();
        let first = CsiVolume {
            attributes: [("share".to_owned(), "a".to_owned())].into(),
            publish_attributes: [("csi.storage.k8s.io/pod.name".to_owned(), "web".to_owned())].into(),
            publish_secrets: [("password".to_owned(), "hush".to_owned())].into(),
            publish_context: [("device".to_owned(), "/dev/x".to_owned())].into(),
            mount_options: vec!["noatime".to_owned()],
            ..volume("u1", "h")
        };
        assert!(node.mount(&first).await.unwrap().is_new);
        let told = driver.published_with();
        for (key, value) in [
            ("share", "a"),
            ("csi.storage.k8s.io/pod.name", "web"),
            ("secret:password", "hush"),
            ("attached:device", "/dev/x"),
            ("options", "noatime"),
            ("readonly", "false"),
        ] {
            assert_eq!(told.get(key).map(String::as_str), Some(value), "{key}");
        }
        // Once more is no call.
        assert!(!node.mount(&first).await.unwrap().is_new);
        node.mount(&CsiVolume { read_only: true, ..volume("u2", "h") }).await.unwrap();
        assert_eq!(std::fs::read_to_string(node.shown("u1", "h").join("there")).unwrap(), "x");
        assert!(std::fs::write(node.shown("u2", "h").join("more"), "x").is_err(), "it is read-only");
        assert_eq!(driver.calls(), ["stage h", "publish h", "publish h"]);
        node.until("the volume in use", |_, in_use| {
            in_use.contains("kubernetes.io/csi/strict.example.com^h")
        })
        .await;
        node.unmount("u1").await.unwrap();
        assert!(!node.root.join("pods/u1/volumes/kubernetes.io~csi/pv-h").exists());
        assert_eq!(times(&driver.calls(), "unstage h"), 0);
        node.unmount("u2").await.unwrap();
        eventually("it is unstaged", || driver.is_idle()).await;
        node.until("nothing in use", |_, in_use| in_use.is_empty()).await;
        assert_eq!(driver.faults(), [] as [String; 0]);
        assert_eq!(folder.mounts(), [] as [String; 0]);
        let left = node.root.join("plugins/kubernetes.io/csi").join(DRIVER);
        assert_eq!(std::fs::read_dir(left).unwrap().count(), 0);
    });
}

#[test]
fn an_edgecore_that_starts_anew_knows_all_from_the_disk() {
    run(async {
        let folder = Folder::new();
        let driver = driver(&folder);
        let mut node = start(folder.root());
        node.until_registered().await;
        node.mount(&volume("u1", "h")).await.unwrap();
        node.mount(&volume("u2", "g")).await.unwrap();
        node.stop().await;
        let mut node = start(folder.root());
        // The first word that has both may be the only one.
        node.until("what was mounted before, and the driver", |drivers, in_use| {
            in_use.len() == 2 && drivers.len() == 1
        })
        .await;
        // A pod that goes on: every call is repeated, and the driver takes it.
        node.mount(&volume("u1", "h")).await.unwrap();
        assert_eq!(times(&driver.calls(), "publish h"), 2);
        // A pod that is gone meanwhile: what the disk says is enough.
        node.unmount("u2").await.unwrap();
        eventually("it is unstaged", || times(&driver.calls(), "unstage g") == 1).await;
        node.unmount("u1").await.unwrap();
        eventually("all is undone", || driver.is_idle()).await;
        assert_eq!(driver.faults(), [] as [String; 0]);
        assert_eq!(folder.mounts(), [] as [String; 0]);
    });
}

#[test]
fn without_its_driver_a_volume_waits_and_is_not_forgotten() {
    run(async {
        let folder = Folder::new();
        let mut node = start(folder.root());
        let absent = node.mount(&volume("u1", "h")).await.unwrap_err();
        assert_eq!(absent.step, "MountVolume.MountDevice");
        assert_eq!(
            absent.reason,
            "kubernetes.io/csi: attacher.MountDevice failed to create newCsiDriverClient: driver name strict.example.com not found in the list of registered CSI drivers"
        );
        let inline = CsiVolume { is_inline: true, ..volume("u1", "h") };
        assert_eq!(node.mount(&inline).await.unwrap_err().step, "MountVolume.SetUp");
        let driver = driver(&folder);
        node.until_registered().await;
        node.mount(&volume("u1", "h")).await.unwrap();
        driver.remove_sockets();
        node.until("its end", |drivers, _| drivers.is_empty()).await;
        let kept = node.unmount("u1").await.unwrap_err();
        assert!(kept.reason.contains("not found in the list of registered CSI drivers"), "{kept}");
        assert!(node.shown("u1", "h").exists() && !folder.mounts().is_empty(), "nothing was torn down");
        let again = StrictDriver::start(folder.root(), &Options::new(DRIVER), Some(&driver)).unwrap();
        node.until_registered().await;
        node.unmount("u1").await.unwrap();
        eventually("all is undone", || again.is_idle()).await;
        assert_eq!(again.faults(), [] as [String; 0]);
    });
}

#[test]
fn a_driver_that_hangs_holds_up_its_own_volumes_alone() {
    run(async {
        let folder = Folder::new();
        let hanging = StrictDriver::start(folder.root(), &Options::new("hangs.example.com"), None).unwrap();
        let driver = driver(&folder);
        // It is given up soon.
        let mut node = start_with(folder.root(), Duration::from_millis(1500));
        node.until("both drivers", |drivers, _| drivers.len() == 2).await;
        hanging.behave(Behaviour::Hangs);
        let stuck = CsiVolume { driver: "hangs.example.com".to_owned(), ..volume("u1", "s") };
        let fine = volume("u1", "h");
        let both = async { tokio::join!(node.mount(&stuck), node.mount(&fine)) };
        let (stuck_result, fine_result) = both.await;
        fine_result.unwrap();
        let late = stuck_result.unwrap_err();
        assert_eq!(late.step, "MountVolume.MountDevice");
        assert!(late.reason.contains("DeadlineExceeded"), "{late}");
        assert_eq!(driver.faults(), [] as [String; 0]);
    });
}

#[test]
fn a_pod_that_ends_while_its_volume_waits_has_nothing_mounted_behind_it() {
    run(async {
        let folder = Folder::new();
        let driver = driver(&folder);
        let mut node = start(folder.root());
        node.until_registered().await;
        driver.behave(Behaviour::Hangs);
        let (first, second, third) = (volume("u1", "h"), volume("u2", "h"), volume("u3", "h"));
        let all = async {
            tokio::join!(node.mount(&first), node.mount(&second), node.mount(&third), async {
                eventually("the driver is asked", || !driver.calls().is_empty()).await;
                // It hangs for the first of them; the others wait behind it.
                node.unmount("u2").await.unwrap();
                driver.behave(Behaviour::Right);
            })
        };
        let (first, second, third, ()) = all.await;
        assert!(first.unwrap_err().reason.contains("DeadlineExceeded"));
        assert_eq!(second.unwrap_err().reason, "nobody waits for the volume any more");
        third.unwrap();
        assert_eq!(driver.calls(), ["stage h", "stage h", "publish h"]);
        assert!(!node.shown("u2", "h").parent().unwrap().exists());
        // Nor is there anything behind one who has given up.
        driver.behave(Behaviour::Hangs);
        let (given_up, stuck) = (volume("u5", "h"), volume("u4", "h"));
        let ask = |reply| CsiMsg::Mount { volume: Box::new(given_up.clone()), reply };
        let soon = Duration::from_millis(200);
        let both = async { tokio::join!(node.mount(&stuck), node.csi.ask(soon, ask)) };
        let (stuck, given_up) = both.await;
        assert!(stuck.is_err() && given_up.is_err());
        driver.behave(Behaviour::Right);
        node.mount(&volume("u6", "h")).await.unwrap();
        assert!(!node.shown("u5", "h").parent().unwrap().exists());
        for pod in ["u1", "u3", "u4", "u6"] {
            node.unmount(pod).await.unwrap();
        }
        eventually("all is undone", || driver.is_idle()).await;
        assert_eq!(driver.faults(), [] as [String; 0]);
    });
}

#[test]
fn what_one_pod_alone_may_use_is_used_by_one() {
    run(async {
        let folder = Folder::new();
        let driver = driver(&folder);
        let mut node = start(folder.root());
        node.until_registered().await;
        let alone = |pod: &str| CsiVolume { access_mode: AccessMode::ReadWriteOncePod, ..volume(pod, "h") };
        node.mount(&alone("u1")).await.unwrap();
        node.mount(&alone("u1")).await.unwrap();
        let refused = node.mount(&alone("u2")).await.unwrap_err();
        assert_eq!(refused.step, "MountVolume.SetUp");
        let words = "volume uses the ReadWriteOncePod access mode and is already in use by another pod";
        assert_eq!(refused.reason, words);
        node.unmount("u1").await.unwrap();
        node.mount(&alone("u2")).await.unwrap();
        node.unmount("u2").await.unwrap();
        eventually("all is undone", || driver.is_idle()).await;
        assert_eq!(driver.faults(), [] as [String; 0]);
    });
}

#[test]
fn what_a_driver_did_not_do_for_sure_is_undone_and_what_it_surely_did_not_is_not_left() {
    run(async {
        let folder = Folder::new();
        let driver = driver(&folder);
        let mut node = start(folder.root());
        node.until_registered().await;
        driver.behave(Behaviour::FailsFinally);
        let failed = node.mount(&volume("u1", "h")).await.unwrap_err();
        assert_eq!(
            (failed.step, failed.reason.as_str()),
            ("MountVolume.SetUp", "rpc error: code = Internal desc = the disk is gone")
        );
        assert!(!node.root.join("pods/u1/volumes/kubernetes.io~csi/pv-h").exists(), "nothing is owed");
        driver.behave(Behaviour::FailsUncertainly);
        let unsure = node.mount(&volume("u1", "h")).await.unwrap_err();
        assert!(unsure.reason.contains("Unavailable"), "{unsure}");
        assert!(node.shown("u1", "h").exists(), "it may be mounted: it is owed");
        driver.behave(Behaviour::Floods);
        let flooded = node.mount(&volume("u1", "h")).await.unwrap_err();
        assert!(flooded.reason.len() < 8 << 10, "{} bytes", flooded.reason.len());
        driver.behave(Behaviour::Lies);
        let lied = node.mount(&volume("u2", "other")).await.unwrap_err();
        assert!(lied.reason.contains("made no folder"), "{lied}");
        driver.behave(Behaviour::Right);
        for pod in ["u1", "u2"] {
            node.unmount(pod).await.unwrap();
        }
        eventually("all is undone", || driver.is_idle()).await;
        assert_eq!(driver.faults(), [] as [String; 0]);
        assert_eq!(folder.mounts(), [] as [String; 0]);
    });
}

/// What is no answer of the driver's says nothing of what it has done.
#[test]
fn an_answer_that_cannot_be_taken_leaves_it_open_what_was_done() {
    run(async {
        let folder = Folder::new();
        let can = csi::v1::node_service_capability::rpc::Type::StageUnstageVolume;
        // Some 9 MiB of them.
        let options = Options { capabilities: vec![can; 1_500_000], ..Options::new(DRIVER) };
        let _long = StrictDriver::start(folder.root(), &options, None).unwrap();
        let socket = folder.root().join("plugins").join(DRIVER).join("csi.sock");
        let long = csi::Driver::at(&socket, SOON).capabilities().await.unwrap_err();
        assert!(long.is_uncertain(), "{long}");
        let socket = folder.root().join("ends.sock");
        let listener = tokio::net::UnixListener::bind(&socket).unwrap();
        let ends = async {
            let (stream, _) = listener.accept().await.unwrap();
            stream.readable().await.unwrap();
        };
        let driver = csi::Driver::at(&socket, SOON);
        let (cut, ()) = tokio::join!(driver.capabilities(), ends);
        let cut = cut.unwrap_err();
        assert!(cut.is_uncertain(), "{cut}");
    });
}

#[test]
fn a_driver_that_wants_to_be_asked_again_is_and_its_refusal_takes_nothing_away() {
    run(async {
        let folder = Folder::new();
        let driver = driver(&folder);
        let mut node = start(folder.root());
        node.until_registered().await;
        let wanted = CsiVolume {
            is_inline: true,
            republish: true,
            publish_attributes: [("csi.storage.k8s.io/ephemeral".to_owned(), "true".to_owned())].into(),
            ..volume("u1", "h")
        };
        node.mount(&wanted).await.unwrap();
        assert!(!node.mount(&wanted).await.unwrap().is_new);
        driver.behave(Behaviour::FailsFinally);
        node.mount(&wanted).await.unwrap_err();
        driver.behave(Behaviour::Right);
        assert_eq!(folder.mounts().len(), 1, "the container goes on with what it has");
        assert_eq!(driver.calls(), ["publish h", "publish h", "publish h"], "an inline volume is not staged");
        node.unmount("u1").await.unwrap();
        eventually("all is undone", || driver.is_idle()).await;
        assert_eq!(driver.faults(), [] as [String; 0]);
    });
}

#[test]
fn names_that_are_no_folders_lead_nowhere() {
    run(async {
        let folder = Folder::new();
        let node = start(folder.root());
        for odd in [
            CsiVolume { name: "../../../etc".to_owned(), ..volume("u1", "h") },
            CsiVolume { pod_uid: "..".to_owned(), ..volume("u1", "h") },
            CsiVolume { driver: "../x".to_owned(), ..volume("u1", "h") },
            CsiVolume { handle: String::new(), ..volume("u1", "h") },
        ] {
            assert!(node.mount(&odd).await.unwrap_err().reason.contains("not fit for paths"), "{odd:?}");
        }
        assert!(node.unmount("../u1").await.is_err());
    });
}
