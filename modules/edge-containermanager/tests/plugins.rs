//! ContainerManager with real sockets and strict plugins, and a probe in Edged's place.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod plugin;

use std::collections::BTreeMap;
use std::future::Future;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use beehive::testing::Probe;
use beehive::{Address, Capacity, Env, Flow, Hive, Policy};
use contract::containermanager::{
    ActivePod, ContainerDemand, ContainerGrant, ContainerKind, ContainerManagerMsg, DeviceCount,
    GrantRefusal, PodDemand, Rejection,
};
use contract::edged::EdgedMsg;
use edge_containermanager::{ContainerManager, Settings};
use edge_store::{Options, Store};
use kubeletapi::podresources::pod_resources_lister_client::PodResourcesListerClient;
use kubeletapi::podresources::{
    AllocatableResourcesRequest, GetPodResourcesRequest, ListPodResourcesRequest,
};
use kubeletapi::podresources_v1alpha1 as old;
use plugin::Plugin;
use tokio::net::UnixStream;

const SOON: Duration = Duration::from_secs(30);
const X: &str = "example.com/x";

struct Node {
    folder: PathBuf,
    hive: Hive,
    manager: Address<ContainerManagerMsg>,
    edged: Probe<EdgedMsg>,
}

fn run<F: Future>(test: F) -> F::Output {
    actix_rt::System::new().block_on(test)
}

async fn eventually<T>(mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let looks = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(SOON, looks).await.expect("it comes soon")
}

impl Node {
    async fn start(folder: &Path) -> Node {
        let edged_settings = config::edge::Edged {
            device_plugin_path: folder.join("plugins"),
            pod_resources_path: folder.join("pod-resources"),
            ..Default::default()
        };
        let settings = Settings::new(&edged_settings);
        let path = folder.join("edge.db");
        let store = eventually(async || Store::open(&path, Options::new([1; 16])).ok()).await;
        let env = Env::real();
        let (edged, to_edged) = Probe::new(&env, 256);
        let mut hive = Hive::new("edgecore", env);
        let mailbox = hive.mailbox("containers", Capacity::new(64, "a test's choice"));
        let manager = hive.grant("test", &mailbox, Flow::Ask);
        hive.supervise(mailbox, Policy::default(), move || {
            ContainerManager::new(settings.clone(), store.clone(), to_edged.clone())
        });
        hive.open().unwrap();
        let socket = folder.join("plugins/kubelet.sock");
        eventually(async || UnixStream::connect(&socket).await.ok()).await;
        Node { folder: folder.to_owned(), hive, manager, edged }
    }

    fn plugins(&self) -> PathBuf {
        self.folder.join("plugins")
    }

    async fn stop(self) {
        self.hive.shutdown(Duration::from_secs(5)).await;
    }

    /// Waits until Edged has been told this of a resource.
    async fn until(&mut self, resource: &str, wanted: (u64, u64)) {
        let told = |message| match message {
            EdgedMsg::Devices(report) => {
                let DeviceCount { capacity, allocatable, .. } = report.resources.get(resource)?;
                ((*capacity, *allocatable) == wanted).then_some(())
            }
            _ => None,
        };
        self.edged.find(SOON, told).await.unwrap_or_else(|| panic!("{resource} is never {wanted:?}"));
    }

    async fn admit(&self, pod: PodDemand) -> Result<(), Rejection> {
        self.manager.ask(SOON, |reply| ContainerManagerMsg::Admit { pod, reply }).await.unwrap()
    }

    async fn grant(&self, pod: PodDemand) -> Result<ContainerGrant, GrantRefusal> {
        let container = pod.containers.last().unwrap().name.clone();
        let ask = |reply| ContainerManagerMsg::Grant { pod, container, reply };
        self.manager.ask(SOON, ask).await.unwrap()
    }

    async fn active(&self, uids: &[&str]) {
        let pod = |uid: &str| ActivePod {
            namespace: "default".into(),
            name: uid.into(),
            containers: vec!["c".into(), "plain".into()],
        };
        let pods = uids.iter().map(|uid| ((*uid).to_owned(), pod(uid))).collect();
        self.manager.tell(ContainerManagerMsg::ActivePods(pods)).await.unwrap();
    }
}

fn container(name: &str, kind: ContainerKind, resource: &str, count: u64) -> ContainerDemand {
    ContainerDemand {
        name: name.into(),
        kind,
        devices: BTreeMap::from([(resource.to_owned(), count)]),
        cpus: 0,
        memory: BTreeMap::new(),
    }
}

fn pod_of(uid: &str, resource: &str, count: u64) -> PodDemand {
    pod_with(uid, vec![container("c", ContainerKind::Main, resource, count)])
}

fn pod_with(uid: &str, containers: Vec<ContainerDemand>) -> PodDemand {
    PodDemand { uid: uid.into(), namespace: "default".into(), name: uid.into(), containers }
}

fn devices_of(grant: &ContainerGrant) -> String {
    grant.envs.iter().find(|(name, _)| name == "DEVICES").map(|(_, value)| value.clone()).unwrap_or_default()
}

fn unexpected(error: &str) -> Rejection {
    Rejection {
        reason: "UnexpectedAdmissionError".into(),
        message: format!("Allocate failed due to {error}, which is unexpected"),
    }
}

#[test]
fn pods_get_devices_once_each_and_give_them_back() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let mut node = Node::start(folder.path()).await;
        let mut plugin = Plugin::new(&node.plugins(), "x", X, "a b c!");
        plugin.begin().await;
        node.until(X, (3, 2)).await;
        node.admit(pod_of("p", X, 1)).await.unwrap();
        node.admit(pod_of("q", X, 1)).await.unwrap();
        assert_eq!(plugin.allocated(), [["a"], ["b"]]);
        assert_eq!(devices_of(&node.grant(pod_of("p", X, 1)).await.unwrap()), "a");
        assert_eq!(devices_of(&node.grant(pod_of("q", X, 1)).await.unwrap()), "b");
        let none = "requested number of devices unavailable for example.com/x. Requested: 1, Available: 0";
        assert_eq!(node.admit(pod_of("r", X, 1)).await, Err(unexpected(none)));
        // A container that is made again has the same, and the plugin is not asked.
        assert_eq!(devices_of(&node.grant(pod_of("p", X, 1)).await.unwrap()), "a");
        let changed = "pod \"p\" container \"c\" changed request for resource \"example.com/x\" from 1 to 2";
        assert_eq!(node.admit(pod_of("p", X, 2)).await, Err(unexpected(changed)));
        assert_eq!(plugin.allocated().len(), 2);
        node.active(&["q"]).await;
        node.admit(pod_of("r", X, 1)).await.unwrap();
        assert_eq!(plugin.allocated()[2], ["a"]);
        // One that falls ill is told of, and stays its pod's.
        plugin.set_devices("a! b c");
        let ill = |message| match message {
            EdgedMsg::Devices(report) => {
                report.health.get("r")?.iter().any(|device| !device.is_healthy).then_some(())
            }
            _ => None,
        };
        node.edged.find(SOON, ill).await.expect("the pod's device is unhealthy");
        // Of what no plugin has ever had, nobody asks here.
        node.admit(pod_of("other", "example.com/unknown", 1)).await.unwrap();
    });
}

#[test]
fn a_pod_keeps_its_devices_over_a_restart_of_either_side() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let mut node = Node::start(folder.path()).await;
        let mut plugin = Plugin::new(&node.plugins(), "x", X, "a b");
        plugin.begin().await;
        node.until(X, (2, 2)).await;
        node.admit(pod_of("p", X, 1)).await.unwrap();
        // The plugin goes: nothing is given, and what was given stays.
        plugin.kill();
        node.until(X, (2, 0)).await;
        assert_eq!(devices_of(&node.grant(pod_of("p", X, 1)).await.unwrap()), "a");
        plugin.begin().await;
        node.until(X, (2, 2)).await;
        node.admit(pod_of("q", X, 1)).await.unwrap();
        assert_eq!(plugin.allocated(), [["a"], ["b"]]);
        // The daemon goes, and the plugin with it, as when the machine has no cloud and the plugin's pod starts later.
        let socket = node.plugins().join("kubelet.sock");
        let made_at = |found: std::fs::Metadata| (found.ino(), found.ctime(), found.ctime_nsec());
        let before = made_at(std::fs::metadata(&socket).unwrap());
        node.stop().await;
        plugin.kill();
        let mut node = Node::start(folder.path()).await;
        assert_ne!(
            made_at(std::fs::metadata(&socket).unwrap()),
            before,
            "plugins see that the socket is another"
        );
        node.until(X, (0, 0)).await;
        assert_eq!(devices_of(&node.grant(pod_of("p", X, 1)).await.unwrap()), "a");
        // A new pod waits for the plugin, which was here before.
        let waiting = {
            let manager = node.manager.clone();
            let pod = pod_of("new", X, 1);
            tokio::task::spawn_local(async move {
                manager.ask(SOON, |reply| ContainerManagerMsg::Admit { pod, reply }).await.unwrap()
            })
        };
        node.active(&["p", "new"]).await;
        plugin.begin().await;
        node.until(X, (2, 2)).await;
        waiting.await.unwrap().unwrap();
        assert_eq!(
            plugin.allocated(),
            [["a"], ["b"], ["b"]],
            "what q had, which is gone, and not what p has"
        );
    });
}

#[test]
fn a_plugin_that_hangs_or_refuses_holds_up_only_its_own() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let mut node = Node::start(folder.path()).await;
        let mut bad = Plugin::new(&node.plugins(), "bad", "bad.example/x", "1 2");
        let mut good = Plugin::new(&node.plugins(), "good", X, "a b");
        bad.begin().await;
        good.begin().await;
        node.until("bad.example/x", (2, 2)).await;
        bad.book.lock().unwrap().hangs = true;
        let hanging = {
            let (manager, pod) = (node.manager.clone(), pod_of("hangs", "bad.example/x", 1));
            tokio::task::spawn_local(async move {
                manager.ask(SOON, |reply| ContainerManagerMsg::Admit { pod, reply }).await
            })
        };
        node.active(&["hangs", "p"]).await;
        eventually(async || (!bad.allocated().is_empty()).then_some(())).await;
        eventually(async || node.admit(pod_of("p", X, 1)).await.ok()).await;
        // Whoever waits can give up: its device is free again.
        node.active(&["p"]).await;
        assert!(hanging.await.unwrap().is_err());
        {
            let mut book = bad.book.lock().unwrap();
            book.hangs = false;
            book.refuses = Some("the device is on fire".to_owned());
        }
        let refused = unexpected("rpc error: code = Unknown desc = the device is on fire");
        assert_eq!(node.admit(pod_of("refused", "bad.example/x", 2)).await, Err(refused));
        bad.book.lock().unwrap().refuses = None;
        node.admit(pod_of("again", "bad.example/x", 2)).await.unwrap();
        assert_eq!(bad.allocated(), [vec!["1"], vec!["1", "2"], vec!["1", "2"]]);
    });
}

#[test]
fn what_is_no_plugin_may_not_register() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let node = Node::start(folder.path()).await;
        let mut plugin = Plugin::new(&node.plugins(), "x", X, "a");
        plugin.start();
        for (version, endpoint, resource, reason) in [
            ("v1alpha1", "x.sock", X, "requested API version \"v1alpha1\" is not supported by kubelet"),
            ("v1beta1", "x.sock", "cpu", "the ResourceName \"cpu\" is invalid"),
            ("v1beta1", "../x.sock", X, "is not the name of a socket"),
            ("v1beta1", "nobody.sock", X, "rpc error"),
        ] {
            let error = plugin.register_as(version, endpoint, resource).await.unwrap_err();
            assert!(error.message().contains(reason), "{error}");
        }
        plugin.register().await;
    });
}

#[test]
fn init_containers_hand_on_their_devices_and_plugins_are_asked_what_they_want_to_be() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let mut node = Node::start(folder.path()).await;
        let mut plugin = Plugin::new(&node.plugins(), "x", X, "a b c d").with_options(true, true);
        plugin.begin().await;
        node.until(X, (4, 4)).await;
        plugin.book.lock().unwrap().prefers = vec!["c".into(), "d".into()];
        let pod = pod_with(
            "p",
            vec![
                container("i", ContainerKind::Init, X, 2),
                container("s", ContainerKind::Sidecar, X, 1),
                container("c", ContainerKind::Main, X, 2),
            ],
        );
        node.admit(pod.clone()).await.unwrap();
        // The init container's c and d: one stays with the sidecar, the other and one more are the main one's.
        assert_eq!(plugin.allocated(), [vec!["c", "d"], vec!["c"], vec!["a", "d"]]);
        assert!(plugin.book.lock().unwrap().prepared.is_empty());
        assert_eq!(devices_of(&node.grant(pod).await.unwrap()), "a,d");
        assert_eq!(plugin.book.lock().unwrap().prepared, [["a", "d"]]);
    });
}

#[test]
fn agents_see_who_has_what() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let mut node = Node::start(folder.path()).await;
        let mut plugin = Plugin::new(&node.plugins(), "x", X, "a b! c");
        plugin.begin().await;
        node.until(X, (3, 2)).await;
        node.admit(pod_of("p", X, 1)).await.unwrap();
        node.active(&["p", "other"]).await;
        let socket = folder.path().join("pod-resources/kubelet.sock");
        let listens = async {
            while UnixStream::connect(&socket).await.is_err() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(SOON, listens).await.expect("agents are served");
        let path = socket.clone();
        let channel = unixgrpc::channel_by(move || UnixStream::connect(path.clone()));
        let mut agent = PodResourcesListerClient::new(channel.clone());
        let all = agent.list(ListPodResourcesRequest {}).await.unwrap().into_inner().pod_resources;
        let names: Vec<_> = all.iter().map(|pod| pod.name.as_str()).collect();
        assert_eq!(names, ["other", "p"]);
        let devices = &all[1].containers[0].devices[0];
        assert_eq!((devices.resource_name.as_str(), &devices.device_ids[..]), (X, &["a".to_owned()][..]));
        assert!(all[1].containers[1].devices.is_empty() && all[0].containers[0].devices.is_empty());
        let get =
            |name: &str| GetPodResourcesRequest { pod_name: name.into(), pod_namespace: "default".into() };
        let found = agent.get(get("p")).await.unwrap().into_inner().pod_resources.unwrap();
        assert_eq!(found, all[1]);
        let missing = agent.get(get("nobody")).await.unwrap_err();
        assert_eq!(missing.message(), "pod nobody in namespace default not found");
        let all = agent.get_allocatable_resources(AllocatableResourcesRequest {}).await.unwrap().into_inner();
        assert_eq!(all.devices[0].device_ids, ["a", "c"]);
        let mut older = old::pod_resources_lister_client::PodResourcesListerClient::new(channel);
        let all = older.list(old::ListPodResourcesRequest {}).await.unwrap().into_inner().pod_resources;
        assert_eq!(all[1].containers[0].devices[0].device_ids, ["a"]);
        let at_once = (0..40).map(|_| {
            let mut agent = agent.clone();
            async move { agent.list(ListPodResourcesRequest {}).await.err() }
        });
        let refused: Vec<_> = futures::future::join_all(at_once).await.into_iter().flatten().collect();
        assert!(!refused.is_empty(), "there is a bound");
        assert!(refused.iter().all(|error| error.message() == "rejected by rate limit"), "{refused:?}");
    });
}

/// Names a device plugin that somebody else wrote: it is run with the plugins' folder and the path of `kubelet.sock`, and has
/// the resource `example.com/go` with two devices.
const FOREIGN: &str = "KUBEHIVE_TEST_DEVICE_PLUGIN";

struct Foreign(std::process::Child);

impl Drop for Foreign {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

// Whoever reads the test's output is told that nothing was looked at.
#[allow(clippy::print_stdout)]
#[test]
fn a_plugin_that_somebody_else_wrote_is_served() {
    let Some(program) = std::env::var_os(FOREIGN) else {
        return println!("skipped: {FOREIGN} names no device plugin");
    };
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let mut node = Node::start(folder.path()).await;
        let socket = node.plugins().join("kubelet.sock");
        let begin = || {
            Foreign(
                std::process::Command::new(&program)
                    .arg(socket.parent().unwrap())
                    .arg(&socket)
                    .spawn()
                    .unwrap(),
            )
        };
        let first = begin();
        node.until("example.com/go", (2, 2)).await;
        node.admit(pod_of("p", "example.com/go", 1)).await.unwrap();
        let grant = node.grant(pod_of("p", "example.com/go", 1)).await.unwrap();
        assert!(!grant.envs.is_empty(), "{grant:?}");
        drop(first);
        node.until("example.com/go", (2, 0)).await;
        let _second = begin();
        node.until("example.com/go", (2, 2)).await;
        node.admit(pod_of("q", "example.com/go", 1)).await.unwrap();
        assert_eq!(node.grant(pod_of("p", "example.com/go", 1)).await.unwrap(), grant);
    });
}
