//! Each actor of the stand-alone API panics once, in the middle of what it does: what was begun ends as without it, and nothing is done
//! twice.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use beehive::testing::{PanicPoint, plan_panic};
use beehive::{Address, Env, Flow, Hive, Inspector};
use cloud_apiserver::{ApiServerMsg, Settings, StandAlone, actors, controllers, mailboxes};
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{ConfigMap, Endpoints, Event, Node, Pod, Service};
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::{WatchStreamExt, watcher};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use serde_json::{Value, json};
use tokio_rustls::TlsConnector;

const LONG: Duration = Duration::from_secs(60);
const REPLICAS: usize = 3;

struct TestApi {
    api: StandAlone,
    hive: Hive,
    api_server: Address<ApiServerMsg>,
    temp: tempfile::TempDir,
}

impl TestApi {
    async fn start() -> TestApi {
        let (temp, env) = (tempfile::tempdir().unwrap(), Env::real());
        let settings = Settings {
            listen: ([127, 0, 0, 1], 0).into(),
            data_dir: temp.path().join("data"),
            // The node has no kubelet that renews its Lease.
            controllers: controllers::ControllerSettings {
                node_grace: 100 * LONG,
                ..controllers::ControllerSettings::default()
            },
            ..Settings::default()
        };
        let api = StandAlone::open(settings, &env).await.unwrap();
        let mut hive = Hive::new("restart", env);
        let mailboxes = mailboxes(&mut hive);
        let api_server = hive.grant("a test", &mailboxes.api_server, Flow::Tell);
        actors(&mut hive, mailboxes, &api);
        hive.open().unwrap();
        TestApi { api, hive, api_server, temp }
    }

    fn inspector(&self) -> Inspector {
        self.hive.inspector()
    }

    async fn restarts(&self, actor: &str) -> u64 {
        let report = self.inspector().report(LONG).await;
        report.actor(actor).unwrap_or_else(|| panic!("no {actor}")).restarts
    }

    async fn stop(self) {
        let ended = self.hive.shutdown(LONG).await;
        assert_eq!(ended, beehive::Ended::InOrder);
    }
}

fn of<T: serde::de::DeserializeOwned>(object: Value) -> T {
    serde_json::from_value(object).unwrap()
}

async fn until<F: Future<Output = bool>>(what: &str, mut is: impl FnMut() -> F) {
    let wait = async {
        while !is().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    assert!(tokio::time::timeout(LONG, wait).await.is_ok(), "{what}: not within {LONG:?}");
}

/// What a kubelet does: bound pods run and are ready, deleted ones go.
async fn kubelet(client: kube::Client) {
    let pods: Api<Pod> = Api::default_namespaced(client);
    loop {
        for pod in pods.list(&ListParams::default()).await.unwrap() {
            let name = pod.name_any();
            if pod.metadata.deletion_timestamp.is_some() {
                let _ = pods.delete(&name, &DeleteParams::default().grace_period(0)).await;
            } else if pod.spec.unwrap().node_name.is_some() && pod.status.unwrap().pod_ip.is_none() {
                let status = json!({"status": {"phase": "Running", "podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}],
                    "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}});
                let _ = pods.patch_status(&name, &PatchParams::default(), &Patch::Merge(status)).await;
            }
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Everything that ever was, by watches from the beginning: the images of pods by uid, and the uids of replica sets.
#[derive(Default)]
struct Seen {
    pods: BTreeMap<String, String>,
    replica_sets: BTreeSet<String>,
}

type Shared = std::rc::Rc<std::cell::RefCell<Seen>>;

async fn see(client: kube::Client, seen: Shared) {
    let pods = watcher(Api::<Pod>::default_namespaced(client.clone()), watcher::Config::default())
        .applied_objects()
        .try_for_each(|pod| {
            let image = pod.spec.as_ref().unwrap().containers[0].image.clone().unwrap();
            seen.borrow_mut().pods.insert(pod.uid().unwrap(), image);
            async { Ok(()) }
        });
    let sets = watcher(Api::<ReplicaSet>::default_namespaced(client), watcher::Config::default())
        .applied_objects()
        .try_for_each(|set| {
            seen.borrow_mut().replica_sets.insert(set.uid().unwrap());
            async { Ok(()) }
        });
    let ended = tokio::join!(pods, sets);
    panic!("the watches ended: {ended:?}");
}

struct Rollout {
    client: kube::Client,
    deployments: Api<Deployment>,
    seen: Shared,
    revision: usize,
}

impl Rollout {
    async fn start(client: kube::Client) -> Rollout {
        let nodes: Api<Node> = Api::all(client.clone());
        let capacity = json!({"cpu": "8", "memory": "8Gi", "pods": "110"});
        let node = json!({"metadata": {"name": "n"}, "status": {"capacity": capacity, "allocatable": capacity,
            "conditions": [{"type": "Ready", "status": "True", "lastHeartbeatTime": "2026-01-01T00:00:00Z",
                "lastTransitionTime": "2026-01-01T00:00:00Z"}]}});
        nodes.create(&PostParams::default(), &of(node.clone())).await.unwrap();
        nodes
            .patch_status("n", &PatchParams::default(), &Patch::Merge(json!({"status": node["status"]})))
            .await
            .unwrap();
        // What is made with a node that nobody has looked at yet is tainted until somebody has.
        nodes
            .patch("n", &PatchParams::default(), &Patch::Merge(json!({"spec": {"taints": null}})))
            .await
            .unwrap();
        let service =
            json!({"metadata": {"name": "web"}, "spec": {"selector": {"app": "w"}, "ports": [{"port": 80}]}});
        let services: Api<Service> = Api::default_namespaced(client.clone());
        services.create(&PostParams::default(), &of(service)).await.unwrap();
        let seen = Shared::default();
        actix_rt::spawn(kubelet(client.clone()));
        actix_rt::spawn(see(client.clone(), seen.clone()));
        let deployments: Api<Deployment> = Api::default_namespaced(client.clone());
        let deployment = json!({"metadata": {"name": "web"}, "spec": {"replicas": REPLICAS,
            "selector": {"matchLabels": {"app": "w"}},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 2, "maxUnavailable": 0}},
            "template": {"metadata": {"labels": {"app": "w"}},
                "spec": {"terminationGracePeriodSeconds": 0, "containers": [{"name": "c", "image": "web:1"}]}}}});
        deployments.create(&PostParams::default(), &of(deployment)).await.unwrap();
        let rollout = Rollout { client, deployments, seen, revision: 1 };
        rollout.until_done().await;
        rollout
    }

    async fn change(&mut self) {
        self.revision += 1;
        let image = format!("web:{}", self.revision);
        let patch = json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": image}]}}}});
        self.deployments.patch("web", &PatchParams::default(), &Patch::Strategic(patch)).await.unwrap();
    }

    /// The deployment says that it is done, and so do its endpoints and its replica sets.
    async fn is_done(&self) -> bool {
        let deployment = self.deployments.get("web").await.unwrap();
        let image = format!("web:{}", self.revision);
        let status = deployment.status.unwrap_or_default();
        let all = Some(REPLICAS as i32);
        let told = status.observed_generation == deployment.metadata.generation
            && (status.replicas, status.updated_replicas, status.available_replicas) == (all, all, all);
        let pods: Api<Pod> = Api::default_namespaced(self.client.clone());
        let pods = pods.list(&ListParams::default()).await.unwrap().items;
        let endpoints: Api<Endpoints> = Api::default_namespaced(self.client.clone());
        let targets: Option<BTreeSet<String>> = endpoints.get_opt("web").await.unwrap().map(|endpoints| {
            let addresses =
                endpoints.subsets.into_iter().flatten().filter_map(|subset| subset.addresses).flatten();
            addresses.filter_map(|address| address.target_ref?.name).collect()
        });
        let names: BTreeSet<String> = pods.iter().map(ResourceExt::name_any).collect();
        told && pods.len() == REPLICAS
            && pods.iter().all(|pod| pod.spec.as_ref().unwrap().containers[0].image == Some(image.clone()))
            && targets == Some(names)
    }

    async fn until_done(&self) {
        until(&format!("rollout {}", self.revision), || self.is_done()).await;
    }

    /// Each template has had as many pods as it needed and one replica set, each pod one binding.
    async fn assert_nothing_twice(&self, what: &str) {
        let (pods, sets) = {
            let seen = self.seen.borrow();
            let mut pods = BTreeMap::<String, usize>::new();
            seen.pods.values().for_each(|image| *pods.entry(image.clone()).or_default() += 1);
            (pods, seen.replica_sets.len())
        };
        let expected = (1..=self.revision).map(|revision| (format!("web:{revision}"), REPLICAS)).collect();
        assert_eq!((pods, sets), (expected, self.revision), "{what}");
        let events: Api<Event> = Api::default_namespaced(self.client.clone());
        let events = events.list(&ListParams::default()).await.unwrap().items;
        let mut bound = BTreeMap::<String, i32>::new();
        for event in events.iter().filter(|event| event.reason.as_deref() == Some("Scheduled")) {
            *bound.entry(event.involved_object.uid.clone().unwrap()).or_default() += event.count.unwrap();
        }
        assert!(bound.values().all(|times| *times == 1), "{what}: {bound:?}");
    }
}

/// In the middle of a rollout for each of `rollouts` the actor panics at the nth `message`, after so many awaits. Answers at which
/// points it did: a handler that ends before its point does not.
async fn panics(
    rollout: &mut Rollout,
    test: &TestApi,
    actor: &str,
    message: &'static str,
    rollouts: &[&[(u64, u32)]],
) -> Vec<(u64, u32)> {
    let mut happened = Vec::new();
    for points in rollouts {
        let before = test.restarts(actor).await;
        let planned = points.iter().map(|(nth, awaits)| {
            let point = PanicPoint { message: Some(message), nth: *nth, awaits: *awaits };
            ((*nth, *awaits), plan_panic(&test.inspector(), actor, point))
        });
        let planned: Vec<_> = planned.collect();
        rollout.change().await;
        rollout.until_done().await;
        rollout.assert_nothing_twice(&format!("{actor} at {message} {points:?}")).await;
        let now = planned.iter().filter(|(_, planned)| planned.has_happened()).map(|(point, _)| *point);
        let now: Vec<_> = now.collect();
        until("the restarts", async || test.restarts(actor).await >= before + now.len() as u64).await;
        happened.extend(now);
    }
    println!("{actor} panicked at {happened:?} of {rollouts:?}");
    happened
}

fn with_rollout(work: impl AsyncFnOnce(&mut Rollout, &TestApi)) {
    actix_rt::System::new().block_on(async {
        let test = TestApi::start().await;
        let mut rollout = Rollout::start(test.api.client()).await;
        work(&mut rollout, &test).await;
        test.stop().await;
    });
}

/// 10 rollouts more, until a controller was caught with a request on its way.
const MORE_ROLLOUTS: usize = 10;

/// Before its first line, and while requests of its are on their way.
fn controller(name: &str) {
    with_rollout(async |rollout, test| {
        let name = format!("controller-manager/controller:{name}");
        let points: [&[_]; 3] = [&[(1, 0)], &[(2, 1), (3, 1), (4, 1), (5, 1)], &[(1, 3), (3, 2)]];
        let mut happened = panics(rollout, test, &name, "Reconcile", &points).await;
        assert!(happened.contains(&(1, 0)), "{happened:?}");
        // Which of its messages finds something to write is a matter of what came together.
        for _ in 0..MORE_ROLLOUTS {
            if happened.iter().any(|(_, awaits)| *awaits > 0) {
                break;
            }
            happened.extend(panics(rollout, test, &name, "Reconcile", &[&[(1, 1), (2, 1), (3, 1)]]).await);
        }
        assert!(happened.iter().any(|(_, awaits)| *awaits > 0), "{happened:?}");
    });
}

#[test]
fn a_scheduler_that_panics_in_a_rollout_binds_each_pod_once() {
    controller("scheduler");
}

#[test]
fn a_deployment_controller_that_panics_in_a_rollout_makes_each_replica_set_once() {
    controller("deployment");
}

#[test]
fn a_replica_set_controller_that_panics_in_a_rollout_makes_each_pod_once() {
    controller("replicaset");
}

#[test]
fn a_replica_set_controller_that_panics_while_its_informer_is_away_makes_no_pod_twice() {
    with_rollout(async |rollout, test| {
        let (informer, controller) =
            ("controller-manager/informer:pods", "controller-manager/controller:replicaset");
        // So many faults that the next restart of the informer takes much longer than that of the controller.
        for _ in 0..2 {
            panics(rollout, test, informer, "Event", &[&[(1, 0), (2, 0), (3, 0)]]).await;
        }
        let point = |message, awaits| PanicPoint { message: Some(message), nth: 1, awaits };
        let mut were_caught = false;
        // Which of its messages finds something to write is a matter of what came together.
        for _ in 0..MORE_ROLLOUTS {
            // The first pod of the rollout is written, and neither the controller hears of it nor its informer.
            let away = plan_panic(&test.inspector(), informer, point("Event", 0));
            let controllers: Vec<_> = (1..=3)
                .map(|nth| {
                    let point = PanicPoint { nth, ..point("Reconcile", 1) };
                    plan_panic(&test.inspector(), controller, point)
                })
                .collect();
            rollout.change().await;
            rollout.until_done().await;
            rollout.assert_nothing_twice("the replica set's pods").await;
            were_caught = away.has_happened() && controllers.iter().any(|planned| planned.has_happened());
            if were_caught {
                break;
            }
        }
        assert!(were_caught, "they were not away at once");
    });
}

#[test]
fn an_endpoints_controller_that_panics_in_a_rollout_ends_with_its_pods() {
    controller("endpoints");
}

#[test]
fn an_informer_that_panics_lists_again() {
    with_rollout(async |rollout, test| {
        for resource in ["pods", "replicasets", "deployments"] {
            let name = format!("controller-manager/informer:{resource}");
            let happened = panics(rollout, test, &name, "Event", &[&[(1, 0)], &[(3, 0)]]).await;
            assert_eq!(happened, [(1, 0), (3, 0)]);
        }
        // The graph's, and with the graph all of them: what has no owner is removed all the same.
        for actor in
            ["controller-manager/owner-graph/metadata-informer:v1/pods", "controller-manager/owner-graph"]
        {
            let message = if actor.ends_with("pods") { "Event" } else { "Discover" };
            let point = PanicPoint { message: Some(message), nth: 1, awaits: 0 };
            let before = test.restarts(actor).await;
            let planned = plan_panic(&test.inspector(), actor, point);
            // A definition makes the graph discover, a pod is an event.
            let maps: Api<ConfigMap> = Api::default_namespaced(rollout.client.clone());
            let definition = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
                "metadata": {"name": "things.x.io"}, "spec": {"group": "x.io", "scope": "Namespaced",
                    "names": {"plural": "things", "singular": "thing", "kind": "Thing", "listKind": "ThingList"},
                    "versions": [{"name": "v1", "served": true, "storage": true,
                        "schema": {"openAPIV3Schema": {"type": "object"}}}]}});
            let definitions: Api<
                k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
            > = Api::all(rollout.client.clone());
            if message == "Discover" {
                definitions.create(&PostParams::default(), &of(definition)).await.unwrap();
            } else {
                rollout.change().await;
                rollout.until_done().await;
            }
            until("the panic", async || planned.has_happened()).await;
            until("the restart", async || test.restarts(actor).await > before).await;
            let owner = maps
                .create(&PostParams::default(), &of(json!({"metadata": {"name": "owner"}})))
                .await
                .unwrap();
            let dependent = json!({"metadata": {"name": "dependent", "ownerReferences": [
                {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner.uid().unwrap()}]}});
            maps.create(&PostParams::default(), &of(dependent)).await.unwrap();
            maps.delete("owner", &DeleteParams::background()).await.unwrap();
            until("the dependent goes", async || maps.get_opt("dependent").await.unwrap().is_none()).await;
        }
    });
}

async fn over_https(api: &StandAlone) -> kube::Client {
    api.write_kubeconfig().unwrap();
    let kubeconfig = Kubeconfig::read_from(api.kubeconfig_path()).unwrap();
    let config =
        kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
    kube::Client::try_from(config).unwrap()
}

#[test]
fn a_server_that_panics_is_served_again_at_its_port_and_watches_resume() {
    actix_rt::System::new().block_on(async {
        let test = TestApi::start().await;
        let remote: Api<ConfigMap> = Api::default_namespaced(over_https(&test.api).await);
        let local: Api<ConfigMap> = Api::default_namespaced(test.api.client());
        let create = async |name: &str| {
            local.create(&PostParams::default(), &of(json!({"metadata": {"name": name}}))).await.unwrap();
        };
        create("before").await;
        let mut raw = remote.watch(&WatchParams::default(), "0").await.unwrap().boxed();
        let mut resumed = watcher(remote.clone(), watcher::Config::default()).default_backoff().boxed();
        // `Ok(true)`: a list began.
        let mut next_of = async |name: &str| {
            let mut lists = 0;
            loop {
                match tokio::time::timeout(LONG, resumed.next()).await.expect("the watch hangs").unwrap() {
                    Ok(watcher::Event::InitApply(map) | watcher::Event::Apply(map))
                        if map.name_any() == name =>
                    {
                        return lists;
                    }
                    Ok(watcher::Event::Init) => lists += 1,
                    Ok(_) | Err(_) => {}
                }
            }
        };
        assert_eq!(next_of("before").await, 1);
        create("second").await;
        assert_eq!(next_of("second").await, 0);

        let planned =
            plan_panic(&test.inspector(), "cloud-apiserver", PanicPoint { message: None, nth: 1, awaits: 0 });
        test.api_server.tell(ApiServerMsg::ServerEnded).await.unwrap();
        until("the panic", async || planned.has_happened()).await;
        create("meanwhile").await;
        let end = async {
            while let Some(event) = raw.next().await {
                if let Ok(WatchEvent::Error(_)) | Err(_) = event {
                    return;
                }
            }
        };
        tokio::time::timeout(LONG, end).await.expect("the connection outlives its server");
        assert_eq!(next_of("meanwhile").await, 0, "it goes on where it was");
        // And by the other way of ending.
        test.api_server.tell(ApiServerMsg::ServerEnded).await.unwrap();
        until("two restarts", async || test.restarts("cloud-apiserver").await == 2).await;
        until("it is served", async || remote.get("meanwhile").await.is_ok()).await;
        create("last").await;
        assert_eq!(next_of("last").await, 0);
        test.stop().await;
    });
}

/// The certificate that it shows, as somebody sees it who trusts its CA.
async fn shown(test: &TestApi) -> Vec<u8> {
    let mut roots = rustls::RootCertStore::empty();
    let ca = test.temp.path().join("data/ca.crt");
    roots.add(CertificateDer::from_pem_file(ca).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let socket = tokio::net::TcpStream::connect(test.api.address()).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let stream = TlsConnector::from(Arc::new(config)).connect(name, socket).await.unwrap();
    stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
}

#[test]
fn its_certificate_is_made_anew_while_it_is_served_and_watches_go_on() {
    actix_rt::System::new().block_on(async {
        let test = TestApi::start().await;
        let remote: Api<ConfigMap> = Api::default_namespaced(over_https(&test.api).await);
        let mut watch = remote.watch(&WatchParams::default(), "0").await.unwrap().boxed();
        let before = shown(&test).await;
        assert_eq!(shown(&test).await, before);
        test.api_server.tell(ApiServerMsg::RenewCertificate).await.unwrap();
        until("another is shown", async || shown(&test).await != before).await;
        let map = of(json!({"metadata": {"name": "map"}}));
        remote.create(&PostParams::default(), &map).await.unwrap();
        let told = async {
            while let Some(event) = watch.next().await {
                if matches!(&event, Ok(WatchEvent::Added(found)) if found.name_any() == "map") {
                    return;
                }
                assert!(event.is_ok(), "{event:?}");
            }
            panic!("the watch has ended");
        };
        tokio::time::timeout(LONG, told).await.unwrap();
        assert_eq!(test.restarts("cloud-apiserver").await, 0);
        test.stop().await;
    });
}
