//! What somebody can do who has taken a node and its certificate: a hostile edge on the raw link tries everything. It reaches
//! its own pods, its own devices and its own Node, and nothing else.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use beehive::Address;
use beehive::link::{Link, LinkError, Refused};
use beehive::testing::Probe;
use contract::devicecontroller::DeviceUp;
use contract::edgecontroller::EdgeUp;
use contract::metamanager::MetaDown;
use contract::{Report, TokenGrant, TokenQuery, TwinValue, UpReport};
use futures::future::join_all;
use harness::{Cluster, LONG, enter, run};
use kube::api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams};
use serde_json::{Value, json};

const MINE: &str = "edge-1";
const THEIRS: &str = "edge-2";
const CONTROL: &str = "control-plane-1";
const SERIAL: &str = "0a";
const DEVICES: &str = "devices.kubeedge.io/v1beta1";

/// A hostile edge, and what came down to it.
struct HostileEdge {
    link: Link,
    edge: Address<EdgeUp>,
    device: Address<DeviceUp>,
    _heard: Probe<MetaDown>,
}

impl HostileEdge {
    async fn open(cluster: &Cluster, node: &str, serial: &str) -> Result<HostileEdge, LinkError> {
        let (heard, told) = Probe::new(cluster.env(), 256);
        let link = cluster.dial_as(node, serial, told).await?;
        Ok(HostileEdge { edge: link.remote(), device: link.remote(), link, _heard: heard })
    }

    /// The rows that are confirmed, in order.
    async fn say(&self, reports: Vec<UpReport>) -> Vec<i64> {
        let reports = numbered(reports);
        let said = |reply| EdgeUp::Reports { reports: reports.into(), reply };
        let mut rows = self.edge.ask(LONG, said).await.unwrap();
        rows.sort_unstable();
        rows
    }

    async fn say_of_devices(&self, reports: Vec<UpReport>) -> Vec<i64> {
        let reports = numbered(reports);
        let said = |reply| DeviceUp::Reports { reports: reports.into(), reply };
        let mut rows = self.device.ask(LONG, said).await.unwrap();
        rows.sort_unstable();
        rows
    }

    async fn token(&self, query: TokenQuery) -> Result<TokenGrant, String> {
        let asked = |reply| EdgeUp::Token { query: query.into(), reply };
        self.edge.ask(LONG, asked).await.unwrap()
    }
}

/// Rows grow over the whole test, as an outbox's do.
fn numbered(reports: Vec<UpReport>) -> Vec<Report> {
    use std::sync::atomic::{AtomicI64, Ordering};
    static ROW: AtomicI64 = AtomicI64::new(1);
    let row = || ROW.fetch_add(1, Ordering::Relaxed);
    reports.into_iter().map(|report| Report { row: row(), repeat: false, report: report.into() }).collect()
}

fn node_report(labels: Value) -> UpReport {
    let status = json!({
        "addresses": [{ "type": "InternalIP", "address": "192.0.2.66" }],
        "conditions": [
            { "type": "Ready", "status": "True", "reason": "EdgedReady", "message": "m",
              "lastHeartbeatTime": "2026-01-01T00:00:00Z", "lastTransitionTime": "2026-01-01T00:00:00Z" },
            { "type": "kubehive.io/Synced", "status": "True", "reason": "InSync", "message": "forged" },
        ],
        "volumesAttached": [{ "name": "v", "devicePath": "/dev/sda" }],
    });
    let node = json!({
        "metadata": {
            "name": CONTROL, "labels": labels,
            "annotations": { "kubehive.io/adopted": "any", "a": "b" },
            "ownerReferences": [{ "apiVersion": "v1", "kind": "Node", "name": CONTROL, "uid": "u" }],
        },
        "spec": { "podCIDR": "10.0.0.0/8", "providerID": "x", "taints": [{ "key": "mine", "effect": "NoSchedule" }] },
        "status": status,
    });
    UpReport::Node { node_json: node.to_string() }
}

fn pod_status([namespace, name, uid]: [&str; 3]) -> UpReport {
    let status_json = json!({ "phase": "Failed", "message": "of the attacker" }).to_string();
    UpReport::PodStatus { namespace: namespace.into(), name: name.into(), uid: uid.into(), status_json }
}

fn pod_gone([namespace, name, uid]: [&str; 3]) -> UpReport {
    UpReport::PodGone { namespace: namespace.into(), name: name.into(), uid: uid.into() }
}

/// An event of that name about any object.
fn event(name: &str, involved: Value) -> UpReport {
    let event_json = json!({
        "involvedObject": involved, "type": "Warning", "reason": "Attack", "message": "of the attacker",
    })
    .to_string();
    UpReport::Event { namespace: "default".into(), name: name.into(), event_json }
}

fn about([namespace, name, uid]: [&str; 3]) -> Value {
    json!({ "kind": "Pod", "namespace": namespace, "name": name, "uid": uid })
}

fn twin(namespace: &str, name: &str, property: &str) -> UpReport {
    UpReport::Twin {
        namespace: namespace.into(),
        name: name.into(),
        property: property.into(),
        reported: Some(TwinValue { value: "of the attacker".into(), metadata: BTreeMap::new() }),
        observed_desired: None,
    }
}

fn query([namespace, name, uid]: [&str; 3], account: &str, audiences: &[&str]) -> TokenQuery {
    TokenQuery {
        namespace: namespace.into(),
        service_account: account.into(),
        audiences: audiences.iter().map(|audience| (*audience).to_owned()).collect(),
        expiration_seconds: 86_400,
        pod_name: name.into(),
        pod_uid: uid.into(),
    }
}

/// Pods, devices and accounts of all nodes.
struct Fixture {
    cluster: Cluster,
    /// Uids of pods by name.
    uids: BTreeMap<&'static str, String>,
}

impl Fixture {
    async fn set() -> Fixture {
        let cluster = Cluster::spawn().await;
        for node in [MINE, THEIRS] {
            enter(cluster.client(), node, SERIAL, cluster.env().wall()).await;
        }
        let control = json!({
            "metadata": { "name": CONTROL, "labels": {
                "node-role.kubernetes.io/control-plane": "", "node-role.kubernetes.io/edge": "" } },
        });
        cluster.apply("v1", "Node", control).await;
        for account in ["default", "admin"] {
            let account = json!({ "metadata": { "name": account, "namespace": "default" } });
            let accounts = cluster.objects("v1", "ServiceAccount", Some("default"));
            let name = account["metadata"]["name"].as_str().unwrap().to_owned();
            if accounts.get_opt(&name).await.unwrap().is_none() {
                cluster.apply("v1", "ServiceAccount", account).await;
            }
        }
        let secret =
            json!({ "metadata": { "name": "vault", "namespace": "default" }, "stringData": { "k": "v" } });
        cluster.apply("v1", "Secret", secret).await;
        let mut fixture = Fixture { cluster, uids: BTreeMap::new() };
        fixture.pod("mine", MINE, "default").await;
        fixture.pod("theirs", THEIRS, "admin").await;
        fixture.pod("vault", CONTROL, "admin").await;
        for (device, node) in [("pump", MINE), ("valve", THEIRS), ("valvex", THEIRS)] {
            let device = json!({
                "metadata": { "name": device, "namespace": "default" },
                "spec": { "nodeName": node, "deviceModelRef": { "name": "m" }, "protocol": { "protocolName": "p" } },
            });
            fixture.cluster.apply(DEVICES, "Device", device).await;
        }
        let statuses = fixture.cluster.objects(DEVICES, "DeviceStatus", Some("default"));
        // The controllers make an account in each namespace.
        let accounts = fixture.cluster.objects("v1", "ServiceAccount", None);
        let namespaces = fixture.cluster.objects("v1", "Namespace", None);
        let settled = async || {
            let [spaces, accounts] =
                [&namespaces, &accounts].map(async |api| api.list(&ListParams::default()).await);
            let (spaces, accounts) = (spaces.await.unwrap().items, accounts.await.unwrap().items);
            let has = |space: &DynamicObject| {
                let of = |account: &&DynamicObject| account.metadata.namespace == space.metadata.name;
                accounts.iter().filter(of).any(|account| name_of(account) == "default")
            };
            spaces.iter().all(has)
        };
        fixture.cluster.until_async("every namespace has its account", settled).await;
        let all_there =
            async || statuses.list(&ListParams::default()).await.is_ok_and(|list| list.items.len() == 3);
        fixture.cluster.until_async("every device has its status", all_there).await;
        fixture
    }

    async fn pod(&mut self, name: &'static str, node: &str, account: &str) {
        let token = |audience: Option<&str>, seconds: i64| json!({ "serviceAccountToken": { "path": "t", "audience": audience, "expirationSeconds": seconds } });
        let volumes = json!([
            { "name": "api", "projected": { "sources": [token(None, 3607)] } },
            { "name": "vault", "projected": { "sources": [token(Some("vault"), 900)] } },
        ]);
        let pod = json!({
            "metadata": { "name": name, "namespace": "default" },
            "spec": {
                "nodeName": node, "serviceAccountName": account, "volumes": volumes,
                "containers": [{ "name": "c", "image": "i" }],
            },
        });
        let made = self.cluster.apply("v1", "Pod", pod).await;
        self.uids.insert(name, made.metadata.uid.unwrap());
    }

    fn id<'a>(&'a self, name: &'a str) -> [&'a str; 3] {
        ["default", name, &self.uids[name]]
    }

    /// Everything that is not the captured node's, by kind and name, as it is now; except what CloudCore itself counts.
    async fn others(&self) -> BTreeMap<String, Value> {
        let mut all = BTreeMap::new();
        let kinds = [
            ("v1", "Node"),
            ("v1", "Pod"),
            ("v1", "Secret"),
            ("v1", "ServiceAccount"),
            ("v1", "Event"),
            ("coordination.k8s.io/v1", "Lease"),
            (DEVICES, "Device"),
            (DEVICES, "DeviceStatus"),
            ("kubehive.io/v1alpha1", "EdgeNode"),
        ];
        for (version, kind) in kinds {
            let list = self.cluster.objects(version, kind, None).list(&ListParams::default()).await.unwrap();
            let of_others = |object: &DynamicObject| !["edge-1", "mine", "pump"].contains(&name_of(object));
            for object in list.items.into_iter().filter(of_others) {
                let space = object.metadata.namespace.as_deref().unwrap_or_default();
                let key = format!("{kind} {space}/{}", name_of(&object));
                let mut value = serde_json::to_value(&object).unwrap();
                if kind == "Event" && value["involvedObject"]["name"] != "mine" {
                    value = json!({ "message": value["message"], "about": value["involvedObject"] });
                } else if kind == "Event" {
                    continue;
                }
                all.insert(key, value);
            }
        }
        all
    }

    async fn node(&self, name: &str) -> Option<DynamicObject> {
        self.cluster.objects("v1", "Node", None).get_opt(name).await.unwrap()
    }
}

fn name_of(object: &DynamicObject) -> &str {
    object.metadata.name.as_deref().unwrap_or_default()
}

fn refused(outcome: Result<HostileEdge, LinkError>) -> Refused {
    match outcome {
        Err(LinkError::Refused(refused)) => refused,
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("it was let in"),
    }
}

#[test]
fn a_captured_node_reaches_its_own_pods_devices_and_node_and_nothing_else() {
    run(async || {
        let fixture = Fixture::set().await;
        let hostile = HostileEdge::open(&fixture.cluster, MINE, SERIAL).await.unwrap();
        // Before its Node is there, nothing else that it says counts.
        assert!(hostile.say(vec![pod_status(fixture.id("mine"))]).await.is_empty());
        assert!(hostile.token(query(fixture.id("mine"), "default", &[])).await.is_err());
        let before = fixture.others().await;

        its_node(&fixture, &hostile).await;
        let tried = others_pods(&fixture, &hostile).await;
        others_devices(&hostile).await;
        tokens(&fixture, &hostile).await;
        println!("{tried} reports about others, every one confirmed and none written");

        let after = fixture.others().await;
        for (key, value) in &before {
            assert_eq!(Some(value), after.get(key), "{key}");
        }
        let more: Vec<&String> = after.keys().filter(|key| !before.contains_key(*key)).collect();
        assert!(more.is_empty(), "{more:?}");

        // What is its own it still may say.
        assert_eq!(hostile.say(vec![pod_status(fixture.id("mine"))]).await.len(), 1);
        let pods = fixture.cluster.objects("v1", "Pod", Some("default"));
        assert_eq!(pods.get("mine").await.unwrap().data["status"]["message"], "of the attacker");
        assert_eq!(hostile.say_of_devices(vec![twin("default", "pump", "speed")]).await.len(), 1);
        let statuses = fixture.cluster.objects(DEVICES, "DeviceStatus", Some("default"));
        let twins = statuses.get("pump").await.unwrap().data["status"]["twins"].clone();
        assert_eq!(twins[0]["reported"]["value"], "of the attacker");
    });
}

/// Its Node is made with nothing on it that a kubelet may not set.
async fn its_node(fixture: &Fixture, hostile: &HostileEdge) {
    let labels = json!({
        "node-role.kubernetes.io/control-plane": "", "node-restriction.kubernetes.io/vault": "yes",
        "kubehive.io/anything": "1", "kubernetes.io/hostname": CONTROL, "site": "quay-7",
    });
    assert_eq!(hostile.say(vec![node_report(labels)]).await.len(), 1);
    let node = fixture.node(MINE).await.unwrap();
    let labels = node.metadata.labels.clone().unwrap();
    let keys: Vec<&str> = labels.keys().map(String::as_str).collect();
    let expected =
        ["kubernetes.io/hostname", "node-role.kubernetes.io/agent", "node-role.kubernetes.io/edge", "site"];
    assert_eq!((keys.as_slice(), labels["kubernetes.io/hostname"].as_str()), (expected.as_slice(), MINE));
    let annotations = node.metadata.annotations.unwrap();
    assert_eq!(annotations["kubehive.io/enrolment"], SERIAL);
    assert!(!annotations.contains_key("kubehive.io/adopted") && !annotations.contains_key("a"));
    assert_eq!(node.metadata.owner_references.unwrap_or_default(), []);
    assert_eq!(
        (&node.data["spec"]["podCIDR"], &node.data["spec"]["providerID"]),
        (&Value::Null, &Value::Null)
    );
    assert_eq!(node.data["status"]["volumesAttached"], Value::Null);
    let conditions = node.data["status"]["conditions"].as_array().unwrap();
    assert!(conditions.iter().all(|condition| condition["message"] != "forged"), "{conditions:?}");
}

/// Everything that can be said of others' pods, under their names and uids, and under names that would be paths.
async fn others_pods(fixture: &Fixture, hostile: &HostileEdge) -> usize {
    let mut reports = Vec::new();
    for name in ["theirs", "vault"] {
        let id = fixture.id(name);
        // Its own uid under another's name, and the other way about.
        let mixed = [["default", name, &*fixture.uids["mine"]], ["default", "mine", id[2]]];
        reports.extend([pod_status(id), pod_gone(id), event("e1", about(id))]);
        reports.extend(mixed.into_iter().flat_map(|id| [pod_gone(id), event("e2", about(id))]));
        reports.push(pod_status(mixed[0]));
    }
    reports.extend([
        event("e3", json!({ "kind": "Node", "name": CONTROL, "uid": "u" })),
        event("e4", json!({ "kind": "Node", "name": THEIRS })),
        event("e5", json!({ "kind": "Secret", "namespace": "default", "name": "vault" })),
        event("e6", json!({})),
    ]);
    let theirs = fixture.uids["theirs"].as_str();
    for odd in ["theirs/status?x=", "../default/pods/theirs", "theirs%2fstatus", "theirs#", "", "Theirs"] {
        reports.extend([pod_status(["default", odd, theirs]), pod_gone(["default", odd, theirs])]);
        reports.extend([pod_status([odd, "theirs", theirs]), event(odd, about(fixture.id("mine")))]);
        reports.push(event("e7", about(["default", odd, theirs])));
    }
    // Where devices belong.
    reports.push(twin("default", "valve", "speed"));
    let count = reports.len();
    assert_eq!(hostile.say(reports).await.len(), count, "what can never be is forgotten by the node");
    // A pod of its own stays until somebody asked for it to go.
    assert_eq!(hostile.say(vec![pod_gone(fixture.id("mine"))]).await.len(), 1);
    let pods = fixture.cluster.objects("v1", "Pod", Some("default"));
    assert!(pods.get("mine").await.unwrap().metadata.deletion_timestamp.is_none());
    count
}

async fn others_devices(hostile: &HostileEdge) {
    let state = |namespace: &str, name: &str| UpReport::DeviceState {
        namespace: namespace.into(),
        name: name.into(),
        state: "offline".into(),
        last_online_time: None,
    };
    let mut reports = vec![twin("default", "valve", "speed"), state("default", "valve")];
    for odd in ["valve?x=", "valve/status", "../devicestatuses/valve", "default/valve", "valv%65", ""] {
        reports.extend([twin("default", odd, "speed"), twin(odd, "valve", "speed"), state("default", odd)]);
    }
    reports.extend([twin("default", "pump", "a b"), twin("default", "pump", ""), node_report(json!({}))]);
    let count = reports.len();
    assert_eq!(hostile.say_of_devices(reports).await.len(), count);
}

async fn tokens(fixture: &Fixture, hostile: &HostileEdge) {
    let mine = fixture.id("mine");
    let granted = hostile.token(query(mine, "default", &[])).await.unwrap();
    assert!(granted.lifetime_seconds <= 3700, "as the volume says: {}", granted.lifetime_seconds);
    assert!(hostile.token(query(mine, "default", &["vault"])).await.is_ok());
    let theirs_by_mine = ["default", "theirs", mine[2]];
    let tried = [
        query(fixture.id("theirs"), "admin", &[]),
        query(fixture.id("vault"), "admin", &[]),
        query(theirs_by_mine, "admin", &[]),
        query(["default", "mine", fixture.id("theirs")[2]], "default", &[]),
        query(["kube-system", "mine", mine[2]], "default", &[]),
        query(mine, "admin", &[]),
        query(mine, "default", &["https://kubernetes.default.svc"]),
        query(mine, "default", &["vault", "sts"]),
        query(mine, "admin/token?x=", &[]),
        query(["default/serviceaccounts/admin/token?x=", "mine", mine[2]], "default", &[]),
        query(["default", "mine?x=", mine[2]], "default", &[]),
    ];
    for query in tried {
        let shown = format!("{query:?}");
        let reason = hostile.token(query).await.expect_err(&shown);
        assert!(!reason.contains("Status") && !reason.contains("Api(") && !reason.contains('{'), "{reason}");
    }
}

#[test]
fn nobody_speaks_for_a_node_that_is_not_his_even_with_a_certificate_of_its_name() {
    run(async || {
        let fixture = Fixture::set().await;
        let cluster = &fixture.cluster;
        let unknown = refused(HostileEdge::open(cluster, CONTROL, SERIAL).await);
        assert!(unknown.reason.contains("register"), "{}", unknown.reason);
        assert_eq!(unknown.wait, Some(Duration::from_secs(60)));
        // As if the enrolment had been talked into it.
        let entry = json!({
            "metadata": { "name": CONTROL, "annotations": { "kubehive.io/certificate": SERIAL } },
            "spec": { "serial": SERIAL },
        });
        cluster.apply("kubehive.io/v1alpha1", "EdgeNode", entry).await;
        let before = fixture.others().await;
        let foreign = refused(HostileEdge::open(cluster, CONTROL, SERIAL).await);
        assert!(foreign.reason.contains("was not made by this edge node"), "{}", foreign.reason);
        assert_eq!(fixture.others().await, before, "not even a Lease");
        // Nor with an older certificate of its own name.
        let old = refused(HostileEdge::open(cluster, MINE, "09").await);
        assert!(old.reason.contains("given back or replaced"), "{}", old.reason);
        // Until an administrator says so, of this very Node.
        let uid = fixture.node(CONTROL).await.unwrap().metadata.uid.unwrap();
        let word = json!({ "metadata": { "annotations": { "kubehive.io/adopted": uid } } });
        let nodes = cluster.objects("v1", "Node", None);
        nodes.patch(CONTROL, &PatchParams::default(), &Patch::Merge(word)).await.unwrap();
        assert!(HostileEdge::open(cluster, CONTROL, SERIAL).await.is_ok());
    });
}

#[test]
fn a_node_that_was_deleted_or_replaced_is_gone_and_does_not_come_back_by_itself() {
    run(async || {
        let fixture = Fixture::set().await;
        let cluster = &fixture.cluster;
        let nodes = cluster.objects("v1", "Node", None);
        let hostile = HostileEdge::open(cluster, MINE, SERIAL).await.unwrap();
        assert_eq!(hostile.say(vec![node_report(json!({}))]).await.len(), 1);
        let made = fixture.node(MINE).await.unwrap();
        let ended = hostile.link.ended();
        nodes.delete(MINE, &DeleteParams::default()).await.unwrap();
        let began = Instant::now();
        cluster.env().timeout(LONG, ended).await.expect("the link is ended");
        println!("the link of a deleted Node ended after {} ms", began.elapsed().as_millis());
        let reason = refused(HostileEdge::open(cluster, MINE, SERIAL).await).reason;
        assert!(reason.contains("was deleted from the cluster"), "{reason}");
        assert!(fixture.node(MINE).await.is_none());

        // Another Node in its place, with all that stood on the first one, is another Node.
        let annotations = made.metadata.annotations.clone();
        let copied = json!({ "metadata": {
            "name": MINE, "labels": made.metadata.labels.clone(), "annotations": annotations } });
        let copied = cluster.apply("v1", "Node", copied).await;
        let reason = refused(HostileEdge::open(cluster, MINE, SERIAL).await).reason;
        assert!(reason.contains("was not made by this edge node"), "{reason}");
        let found = fixture.node(MINE).await.unwrap();
        // The cluster's own controllers write to a new Node, too.
        assert_eq!(found.metadata.annotations, copied.metadata.annotations, "nothing was written to it");
        assert!(!found.data["status"].to_string().contains("192.0.2.66"), "{}", found.data["status"]);
    });
}

#[test]
fn one_nodes_flood_of_events_is_cut_off_and_delays_nobody() {
    const EVENTS: usize = 10_000;
    const AT_ONCE: usize = 100;
    run(async || {
        let fixture = Fixture::set().await;
        let cluster = &fixture.cluster;
        let hostile = HostileEdge::open(cluster, MINE, SERIAL).await.unwrap();
        let other = HostileEdge::open(cluster, THEIRS, SERIAL).await.unwrap();
        for (edge, pod) in [(&hostile, "mine"), (&other, "theirs")] {
            assert_eq!(edge.say(vec![node_report(json!({}))]).await.len(), 1);
            assert_eq!(edge.say(vec![pod_status(fixture.id(pod))]).await.len(), 1);
        }
        let others_say = async |times: usize| {
            let mut took = Vec::new();
            for _ in 0..times {
                let began = Instant::now();
                assert_eq!(other.say(vec![pod_status(fixture.id("theirs"))]).await.len(), 1);
                took.push(began.elapsed());
            }
            took.sort_unstable();
            took
        };
        let alone = others_say(20).await;
        // It does not wait for answers, as a node of ours does, and says half of it about others.
        let flood = async {
            let message = |n: usize| {
                let id = fixture.id(if n.is_multiple_of(2) { "mine" } else { "vault" });
                let events = (0..EVENTS / AT_ONCE).map(|m| event(&format!("flood-{n}-{m}"), about(id)));
                hostile.say(events.collect())
            };
            let confirmed = join_all((0..AT_ONCE).map(message)).await;
            confirmed.iter().map(Vec::len).sum::<usize>()
        };
        let during = async { cluster.env().timeout(LONG, others_say(20)).await };
        let (confirmed, during) = futures::join!(flood, during);
        let during = during.expect("another node is served beside the flood");
        let events = cluster.objects("v1", "Event", None).list(&ListParams::default()).await.unwrap();
        let written = events.items.iter().filter(|event| name_of(event).starts_with("flood-")).count();
        println!(
            "{EVENTS} events of one node: {confirmed} confirmed, {written} written; another node's report took {} ms alone, {} ms meanwhile (medians)",
            alone[10].as_millis(),
            during[10].as_millis()
        );
        assert!((1..=25).contains(&written), "{written}");
        assert!(confirmed < EVENTS, "what it does not wait for is not kept");
    });
}

/// Resident memory of this process in MiB.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() >> 10
}

/// Messages that inflate to a thousand times their size, on as many lanes as a link may have and never waiting for an answer.
#[test]
fn what_inflates_is_not_kept() {
    const LANES: usize = 40;
    const OF_EACH: usize = 25;
    /// A quarter of what is sent: 1 MiB of reports each, and what a test and its allocator hold of them.
    const MOST_MIB: u64 = 256;
    run(async || {
        let fixture = Fixture::set().await;
        let cluster = &fixture.cluster;
        let hostile = HostileEdge::open(cluster, MINE, SERIAL).await.unwrap();
        assert_eq!(hostile.say(vec![node_report(json!({}))]).await.len(), 1);
        let bomb = || {
            let event_json = "x".repeat(1_000_000);
            let bomb = UpReport::Event { namespace: "default".into(), name: "bomb".into(), event_json };
            numbered(vec![bomb])
        };
        // As much as the test itself needs of memory is there before it begins.
        let warm: Vec<_> = (0..4).map(|_| bomb()).collect();
        drop(warm);
        let before = resident();
        let lanes: Vec<Address<EdgeUp>> = (0..LANES).map(|_| hostile.link.remote()).collect();
        let sent = join_all(lanes.iter().map(|lane| async move {
            for _ in 0..OF_EACH {
                let (reply, _) = beehive::Reply::channel();
                let _ = lane.tell(EdgeUp::Reports { reports: bomb().into(), reply }).await;
            }
        }));
        let mut most = before;
        let watched = async {
            let mut sent = std::pin::pin!(sent);
            loop {
                match futures::future::select(
                    sent.as_mut(),
                    Box::pin(cluster.env().sleep(Duration::from_millis(2))),
                )
                .await
                {
                    futures::future::Either::Left(_) => return,
                    futures::future::Either::Right(_) => most = most.max(resident()),
                }
            }
        };
        cluster.env().timeout(LONG, watched).await.expect("all is taken or refused");
        most = most.max(resident());
        println!("{} messages of 1 MB each: {} MiB more than {before} MiB", LANES * OF_EACH, most - before);
        assert!(most - before <= MOST_MIB, "{} MiB more", most - before);
        // And it is still served, once the line of its messages is not full any more: what was not confirmed is sent again.
        let served = async || hostile.say(vec![pod_status(fixture.id("mine"))]).await.len() == 1;
        cluster.until_async("the node is served", served).await;
    });
}

/// The mirror of a static pod; `None`: there is to be none.
fn mirror(name: &str, hash: Option<&str>, change: impl Fn(&mut Value)) -> UpReport {
    let pod_json = hash.map(|hash| {
        let mut pod = json!({
            "metadata": { "labels": { "app": "own" }, "annotations": {
                "kubernetes.io/config.mirror": hash, "kubernetes.io/config.hash": hash } },
            "spec": { "nodeName": MINE, "containers": [{ "name": "c", "image": "i" }] },
        });
        change(&mut pod);
        pod.to_string()
    });
    UpReport::MirrorPod { namespace: "default".into(), name: name.into(), pod_json }
}

#[test]
fn a_node_has_mirrors_of_its_own_static_pods_and_of_nothing_else() {
    run(async || {
        let fixture = Fixture::set().await;
        let hostile = HostileEdge::open(&fixture.cluster, MINE, SERIAL).await.unwrap();
        its_node(&fixture, &hostile).await;
        let before = fixture.others().await;
        let tried = vec![
            mirror("theirs", None, |_| {}),
            mirror("vault", Some("0a"), |_| {}),
            mirror("mine", Some("0a"), |_| {}),
            mirror("x", Some("0a"), |pod| pod["spec"]["nodeName"] = json!(THEIRS)),
            mirror("x", Some("0a"), |pod| pod["spec"]["serviceAccountName"] = json!("admin")),
            mirror("x", Some("0a"), |pod| {
                pod["spec"]["volumes"] = json!([{ "name": "v", "secret": { "secretName": "vault" } }]);
            }),
            mirror("x", Some(""), |_| {}),
            mirror("../x", Some("0a"), |_| {}),
        ];
        let count = tried.len();
        assert_eq!(hostile.say(tried).await.len(), count, "every one is confirmed");
        assert_eq!(fixture.others().await, before, "and none is written");

        let pods = fixture.cluster.objects("v1", "Pod", Some("default"));
        let uid = async || pods.get_opt("own-edge-1").await.unwrap().and_then(|pod| pod.metadata.uid);
        assert_eq!(hostile.say(vec![mirror("own-edge-1", Some("0a"), |_| {})]).await.len(), 1);
        let made = pods.get("own-edge-1").await.unwrap();
        let owner = made.metadata.owner_references.clone().unwrap();
        let node = fixture.node(MINE).await.unwrap();
        assert_eq!((owner.len(), Some(&owner[0].uid)), (1, node.metadata.uid.as_ref()));
        assert_eq!(made.data["spec"].get("serviceAccountName"), None, "{:#}", made.data);
        let first = made.metadata.uid.clone();
        hostile.say(vec![mirror("own-edge-1", Some("0a"), |_| {})]).await;
        assert_eq!(uid().await, first, "it is there");
        // Its events name the static pod's own uid.
        let told = event("own.1", about(["default", "own-edge-1", "0a"]));
        hostile.say(vec![told]).await;
        let events = fixture.cluster.objects("v1", "Event", Some("default"));
        assert_eq!(events.get("own.1").await.unwrap().data["involvedObject"]["uid"], "0a");
        // Somebody deletes it, and another version comes.
        pods.delete("own-edge-1", &DeleteParams::default()).await.unwrap();
        hostile.say(vec![mirror("own-edge-1", Some("0a"), |_| {})]).await;
        let second = uid().await;
        assert!(second.is_some() && second != first);
        hostile.say(vec![mirror("own-edge-1", Some("0b"), |_| {})]).await;
        assert!(uid().await.is_some_and(|third| Some(third) != second));
        hostile.say(vec![mirror("own-edge-1", None, |_| {})]).await;
        assert_eq!(uid().await, None);
    });
}
