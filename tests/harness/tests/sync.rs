//! What it costs to bring a node up to date: over the whole cluster, and over a long way of datagrams that are counted.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
// The figures are what these tests are for.
#![allow(clippy::print_stdout)]

use std::cell::Cell;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use beehive::link::quic::{Credentials, QuicAcceptor};
use beehive::link::quic_dialer::QuicDialer;
use beehive::link::{Acceptor, Dialer, Hello, IncomingLink, Link, PeerName, Routes};
use beehive::testing::Probe;
use beehive::{Address, Capacity, Env, Flow, Hive, Policy};
use bytes::Bytes;
use cloud_hub::SecretStore;
use cloud_synccontroller::{Addresses, SyncController};
use contract::metamanager::{MetaDown, MetaMsg};
use contract::synccontroller::{Source, SyncMsg};
use contract::{NodeName, Object, ObjectKey, content_hash};
use edge_metamanager::MetaManager;
use edge_store::{Options, Store};
use futures::StreamExt;
use harness::{Cluster, LONG, LinkTransport, MemoryApi, Node, run};
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use tokio::net::UdpSocket;

const OBJECTS: usize = 1000;
/// Beside them: the Node, the Service `kubernetes`, the pod, what its init container needs, and `kube-root-ca.crt` for its token's volume.
const HELD: usize = OBJECTS + 5;
/// The bar: a reconnect with a thousand held objects and three changed ones, handshake included.
const RECONNECT_BYTES: u64 = 20_000;

// Over the whole cluster.

async fn config_map(cluster: &Cluster, n: usize, text: &str) {
    let metadata = json!({"name": format!("map-{n:04}"), "namespace": "default"});
    cluster.apply("v1", "ConfigMap", json!({"metadata": metadata, "data": {format!("key-{n}"): text}})).await;
}

async fn change(cluster: &Cluster, n: usize, text: &str) {
    let maps = cluster.objects("v1", "ConfigMap", Some("default"));
    let patch = json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {format!("key-{n}"): text}});
    maps.patch(&format!("map-{n:04}"), &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
}

async fn snapshot(cluster: &Cluster, actor: &str) -> Value {
    let report = cluster.state().await;
    report.actors.into_iter().find(|a| a.name == actor).map(|a| a.snapshot).unwrap_or_default()
}

async fn sync_of(cluster: &Cluster, node: &Node) -> Value {
    snapshot(cluster, "cloud-synccontroller").await[node.name()].clone()
}

async fn until_in_sync(cluster: &Cluster, node: &Node) {
    cluster
        .until_async("the node is in sync", async || {
            let view = sync_of(cluster, node).await;
            view["in_sync"] == true && view["desired"] == HELD
        })
        .await;
}

async fn condition(cluster: &Cluster, node: &Node) -> Value {
    let nodes = cluster.objects("v1", "Node", None);
    let found = nodes.get(node.name()).await.unwrap();
    let conditions = found.data["status"]["conditions"].as_array().cloned().unwrap_or_default();
    conditions.into_iter().find(|c| c["type"] == "kubehive.io/Synced").unwrap_or_default()
}

#[test]
fn a_reconnect_costs_by_the_difference_and_the_cluster_shows_that_it_is_done() {
    run(async || {
        let mut cluster = Cluster::over(LinkTransport::Quic).await;
        let mut node = cluster.node("edge-1").await;
        cluster.until_ready(&node).await;
        node.runtime().add_image("web:1");
        // A CloudCore that comes back lists everything before it tells anything.
        cluster.stop_cloud().await;
        let maps = futures::stream::iter(0..OBJECTS);
        maps.for_each_concurrent(16, |n| config_map(&cluster, n, "one")).await;
        let sources: Vec<Value> =
            (0..OBJECTS).map(|n| json!({"configMap": {"name": format!("map-{n:04}")}})).collect();
        let spec = json!({
            "nodeName": node.name(),
            "terminationGracePeriodSeconds": 1,
            "volumes": [{"name": "maps", "projected": {"sources": sources}}],
            "initContainers": [{
                "name": "first", "image": "web:1",
                "envFrom": [{"configMapRef": {"name": "of-the-init-container"}}],
            }],
            "containers": [{"name": "web", "image": "web:1",
                "volumeMounts": [{"name": "maps", "mountPath": "/maps"}]}],
        });
        let metadata = json!({"name": "of-the-init-container", "namespace": "default"});
        cluster.apply("v1", "ConfigMap", json!({"metadata": metadata, "data": {"A": "b"}})).await;
        // Whatever a pod needs has been committed when it comes.
        let applied = node.probe("edge-metamanager", |message: &MetaMsg| match message {
            MetaMsg::Down(MetaDown::Apply { changes, .. }) => {
                Some(changes.iter().map(|change| change.key().clone()).collect::<Vec<ObjectKey>>())
            }
            _ => None,
        });
        cluster
            .apply("v1", "Pod", json!({"metadata": {"name": "web", "namespace": "default"}, "spec": spec}))
            .await;
        cluster.start_cloud().await;
        until_in_sync(&cluster, &node).await;
        let order: Vec<ObjectKey> = applied.take().concat();
        let pod = order.iter().position(|key| key.resource == "pods").unwrap();
        let needs = order[..pod].iter().filter(|key| key.resource == "configmaps").count();
        assert_eq!(needs, HELD - 3, "the init container's is among them");

        cluster
            .until_async("the condition says so", async || {
                let condition = condition(&cluster, &node).await;
                condition["status"] == "True" && condition["reason"] == "InSync"
            })
            .await;
        let view = sync_of(&cluster, &node).await;
        assert_eq!((&view["waiting"], &view["refused"]), (&json!(0), &json!(0)));
        assert!(view["last_confirmed"].is_i64() && view["oldest"].is_null(), "{view}");

        let before = snapshot(&cluster, "cloud-hub").await["nodes"]["edge-1"]["session"].clone();
        node.stop().await;
        for n in [7, 500, 999] {
            change(&cluster, n, "two").await;
        }
        node.start().await;
        cluster
            .until_async("the node holds the three", async || {
                node.snapshot("edge-metamanager").await["appliedChanges"].as_u64() >= Some(3)
            })
            .await;
        until_in_sync(&cluster, &node).await;
        assert_eq!(node.snapshot("edge-metamanager").await["appliedChanges"], 3);
        let session = snapshot(&cluster, "cloud-hub").await["nodes"]["edge-1"].clone();
        assert_ne!(session["session"], before);
        let (down, up) = (session["bytesOut"].as_u64().unwrap(), session["bytesIn"].as_u64().unwrap());
        println!("reconnect of a whole node, {OBJECTS} held, 3 changed: {down} B down, {up} B up in frames");
        assert!(down + up <= RECONNECT_BYTES, "{} B", down + up);
    });
}

// Over datagrams that are counted, headers of IP and UDP included.

/// 20 bytes of IP and 8 of UDP.
const HEADERS: u64 = 28;

/// Passes datagrams on, each so much later.
struct Relay {
    port: u16,
    bytes: Rc<Cell<u64>>,
    datagrams: Rc<Cell<u64>>,
}

type DelayedPacket = (tokio::time::Instant, Vec<u8>, SocketAddr);

impl Relay {
    async fn to(server: SocketAddr, delay: Duration) -> Relay {
        let outside = Rc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
        let inside = Rc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
        let relay = Relay {
            port: outside.local_addr().unwrap().port(),
            bytes: Rc::default(),
            datagrams: Rc::default(),
        };
        let client: Rc<Cell<Option<SocketAddr>>> = Rc::default();
        let known = Rc::clone(&client);
        relay.carry(&outside, &inside, delay, move |from| {
            known.set(Some(from));
            Some(server)
        });
        relay.carry(&inside, &outside, delay, move |_| client.get());
        relay
    }

    fn carry(
        &self,
        from: &Rc<UdpSocket>,
        to: &Rc<UdpSocket>,
        delay: Duration,
        target: impl Fn(SocketAddr) -> Option<SocketAddr> + 'static,
    ) {
        let (from, to) = (Rc::clone(from), Rc::clone(to));
        let (bytes, datagrams) = (Rc::clone(&self.bytes), Rc::clone(&self.datagrams));
        let (late, mut due) = tokio::sync::mpsc::channel::<DelayedPacket>(100_000);
        tokio::task::spawn_local(async move {
            let mut buffer = vec![0; 65_536];
            while let Ok((length, source)) = from.recv_from(&mut buffer).await {
                let Some(target) = target(source) else { continue };
                bytes.set(bytes.get() + length as u64 + HEADERS);
                datagrams.set(datagrams.get() + 1);
                let when = tokio::time::Instant::now() + delay;
                late.send((when, buffer[..length].to_vec(), target)).await.unwrap();
            }
        });
        tokio::task::spawn_local(async move {
            while let Some((when, datagram, target)) = due.recv().await {
                tokio::time::sleep_until(when).await;
                let _ = to.send_to(&datagram, target).await;
            }
        });
    }
}

/// SyncController and MetaManager, QUIC between them, and nothing else.
struct Fixture {
    env: Env,
    cloud: Hive,
    sync: Address<SyncMsg>,
    _edge: Hive,
    meta: Address<MetaMsg>,
    acceptor: QuicAcceptor,
    node: Credentials,
    store: Store,
    session: u64,
    links: Vec<Link>,
    _probes: Vec<Box<dyn std::any::Any>>,
    _folder: tempfile::TempDir,
}

fn name() -> NodeName {
    NodeName::parse("edge-1").unwrap()
}

impl Fixture {
    async fn new() -> Fixture {
        let env = Env::real();
        let folder = tempfile::tempdir().unwrap();
        let secrets = SecretStore::new(MemoryApi::start().await.client());
        let authority = secrets.authority(&env).await.unwrap();
        let (chain, key) =
            SecretStore::server_certificate(&authority, vec!["127.0.0.1".parse().unwrap()], vec![], &env)
                .unwrap();
        let ca = || authority.cert_pem().to_owned();
        let server = Credentials { certificate: chain, key: key.into(), authority: ca() };
        let acceptor = QuicAcceptor::bind("127.0.0.1:0".parse().unwrap(), &server).unwrap();
        let request = pki::NodeRequest::new("edge-1").unwrap();
        let day = Duration::from_secs(86_400);
        let issued =
            authority.sign_node(&request.csr_der, "edge-1", env.wall(), day, env.random_id()).unwrap();
        let node =
            Credentials { certificate: issued.pem, key: request.key_pem.clone().into(), authority: ca() };
        let mut probes: Vec<Box<dyn std::any::Any>> = Vec::new();

        let mut cloud = Hive::new("cloud", env.clone());
        let mailbox = cloud.mailbox("cloud-synccontroller", Capacity::new(4096, "as in CloudCore"));
        let sync = cloud.grant("tester", &mailbox, Flow::Tell);
        let ((lease, to_lease), (hub, to_hub)) = (Probe::new(&env, 64), Probe::new(&env, 64));
        let ((edge, to_edge), (device, to_device)) = (Probe::new(&env, 64), Probe::new(&env, 64));
        probes.extend([
            Box::new(lease) as Box<dyn std::any::Any>,
            Box::new(hub),
            Box::new(edge),
            Box::new(device),
        ]);
        let (router, to_router) = Probe::new(&env, 64);
        let (tasks, to_tasks) = Probe::new(&env, 64);
        probes.extend([Box::new(router) as Box<dyn std::any::Any>, Box::new(tasks)]);
        let addresses = Addresses {
            lease: to_lease,
            hub: to_hub,
            edge: to_edge,
            device: to_device,
            router: to_router,
            tasks: to_tasks,
        };
        cloud.supervise(mailbox, Policy::default(), move || SyncController::new(addresses.clone()));
        cloud.open().unwrap();
        for source in Source::ALL {
            sync.tell(SyncMsg::ListBegins(source)).await.unwrap();
            sync.tell(SyncMsg::ListComplete(source)).await.unwrap();
        }

        let store = Store::open(folder.path().join("edgecore.db"), Options::new([1; 16])).unwrap();
        let mut edge = Hive::new("edge", env.clone());
        let mailbox = edge.mailbox("edge-metamanager", Capacity::new(256, "as in EdgeCore"));
        let meta = edge.grant("tester", &mailbox, Flow::Ask);
        let (edged, to_edged) = Probe::new(&env, 64);
        let (twin, to_twin) = Probe::new(&env, 64);
        let (hub, to_hub) = Probe::new(&env, 64);
        probes.extend([Box::new(edged) as Box<dyn std::any::Any>, Box::new(twin), Box::new(hub)]);
        let kept = store.clone();
        edge.supervise(mailbox, Policy::default(), move || {
            MetaManager::new(kept.clone(), to_edged.clone(), to_twin.clone(), to_hub.clone())
        });
        edge.open().unwrap();
        Fixture {
            env,
            cloud,
            sync,
            _edge: edge,
            meta,
            acceptor,
            node,
            store,
            session: 0,
            links: Vec::new(),
            _probes: probes,
            _folder: folder,
        }
    }

    /// An object that is 1 kB when it is compressed.
    async fn put(&self, n: usize, version: &str) {
        const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let letter = |_| char::from(LETTERS[usize::try_from(self.env.random_below(64)).unwrap()]);
        let text: String = (0..1300).map(letter).collect();
        let object = Object {
            key: ObjectKey::new(["configmaps", "secrets"][n % 2], "default", format!("object-number-{n}")),
            uid: format!("{n:08}-3333-4444-8555-666677778888"),
            content_hash: content_hash(&json!([n, version])),
            resource_version: version.to_owned(),
            json: Bytes::from(json!({"data": {"key": text}}).to_string()),
        };
        self.sync.tell(SyncMsg::Upsert { node: name(), object: Arc::new(object) }).await.unwrap();
    }

    async fn view(&self) -> Value {
        self.cloud.inspector().report(LONG).await.actors[0].snapshot["edge-1"].clone()
    }

    /// The link ends.
    async fn cut(&mut self) {
        let ended = self.links[1].ended();
        self.links[0].close();
        assert!(self.env.timeout(LONG, ended).await.is_some());
        self.links.clear();
        self.sync.tell(SyncMsg::NodeDown { node: name(), session: self.session }).await.unwrap();
    }

    /// Links through a relay, and waits until the node is in sync. Answers how long that took from the first packet.
    async fn reconnect(&mut self, relay: &Relay) -> Duration {
        let began = self.env.now();
        let dialer = QuicDialer::new("127.0.0.1", relay.port, &self.node).unwrap();
        let (greeting, meta) = (Hello::of("system:node:edge-1"), self.meta.clone());
        let routes = Routes::new().accept(meta, |message: MetaDown, _: &PeerName| MetaMsg::Down(message));
        let env = self.env.clone();
        let edge = async {
            let connection = dialer.dial().await.unwrap();
            Link::connect(&env, connection, &greeting, routes).await.unwrap()
        };
        let acceptor = &mut self.acceptor;
        let cloud = async {
            let connection = acceptor.accept().await.unwrap();
            IncomingLink::read_hello(&env, connection).await.unwrap().admit(Routes::new()).await.unwrap()
        };
        let (edge, cloud) = tokio::join!(edge, cloud);
        self.session += 1;
        let (session, meta) = (self.session, cloud.remote());
        self.sync.tell(SyncMsg::NodeUp { node: name(), session, meta }).await.unwrap();
        for source in Source::ALL {
            self.sync
                .tell(SyncMsg::Current { source, node: name(), session, unknown: BTreeSet::new() })
                .await
                .unwrap();
        }
        self.links = vec![edge, cloud];
        let in_sync = async {
            while self.view().await["in_sync"] != true {
                self.env.sleep(Duration::from_millis(2)).await;
            }
        };
        assert!(self.env.timeout(LONG, in_sync).await.is_some(), "{}", self.view().await);
        self.env.now().since(began)
    }

    /// What has passed on the link in both directions, without what a datagram that came late was sent again for.
    fn bytes_in_frames(&self) -> u64 {
        let traffic = self.links[1].traffic();
        traffic.sent() + traffic.received()
    }
}

#[test]
fn a_thousand_objects_over_a_long_way_and_then_three() {
    run(async || {
        let mut fixture = Fixture::new().await;
        for n in 0..OBJECTS {
            fixture.put(n, "1").await;
        }
        let server = fixture.acceptor.address();
        let relay = Relay::to(server, Duration::from_millis(100)).await;
        let took = fixture.reconnect(&relay).await;
        assert_eq!(fixture.store.object_versions().unwrap().len(), OBJECTS);
        println!(
            "{OBJECTS} objects of 1 kB over 200 ms: {} ms, {} B in {} datagrams, headers included",
            took.as_millis(),
            relay.bytes.get(),
            relay.datagrams.get()
        );
        fixture.cut().await;
        for n in [7, 500, 999] {
            fixture.put(n, "2").await;
        }
        let waits = async {
            while fixture.view().await["waiting"] != 3 {
                fixture.env.sleep(Duration::from_millis(2)).await;
            }
        };
        assert!(fixture.env.timeout(LONG, waits).await.is_some(), "{}", fixture.view().await);
        let relay = Relay::to(server, Duration::from_millis(100)).await;
        let took = fixture.reconnect(&relay).await;
        println!(
            "reconnect, {OBJECTS} held, 3 changed: {} ms, {} B in {} datagrams, headers and handshake included",
            took.as_millis(),
            relay.bytes.get(),
            relay.datagrams.get()
        );
        let in_frames = fixture.bytes_in_frames();
        println!("of it in frames: {in_frames} B");
        assert!(in_frames <= RECONNECT_BYTES, "{in_frames} B");

        // Nothing changed: nothing but the digest travels.
        fixture.cut().await;
        let relay = Relay::to(server, Duration::from_millis(100)).await;
        fixture.reconnect(&relay).await;
        println!(
            "reconnect, nothing changed: {} B in {} datagrams",
            relay.bytes.get(),
            relay.datagrams.get()
        );
        let in_frames = fixture.bytes_in_frames();
        assert!(in_frames <= RECONNECT_BYTES, "{in_frames} B");
    });
}
