//! A hostile edge on the raw link, and what there is in its cluster.

use std::collections::BTreeMap;

use beehive::Address;
use beehive::link::{Link, LinkError, Refused};
use beehive::testing::Probe;
use contract::devicecontroller::DeviceUp;
use contract::edgecontroller::EdgeUp;
use contract::metamanager::MetaDown;
use contract::{Report, TokenGrant, TokenQuery, TwinValue, UpReport};
use harness::{Cluster, LONG, enter};
use kube::api::{DynamicObject, ListParams};
use serde_json::{Value, json};

pub(crate) const MINE: &str = "edge-1";
pub(crate) const THEIRS: &str = "edge-2";
pub(crate) const CONTROL: &str = "control-plane-1";
pub(crate) const SERIAL: &str = "0a";
pub(crate) const DEVICES: &str = "devices.kubeedge.io/v1beta1";

/// A hostile edge, and what came down to it.
pub(crate) struct HostileEdge {
    pub(crate) link: Link,
    edge: Address<EdgeUp>,
    device: Address<DeviceUp>,
    _heard: Probe<MetaDown>,
}

impl HostileEdge {
    pub(crate) async fn open(cluster: &Cluster, node: &str, serial: &str) -> Result<HostileEdge, LinkError> {
        let (heard, told) = Probe::new(cluster.env(), 256);
        let link = cluster.dial_as(node, serial, told).await?;
        Ok(HostileEdge { edge: link.remote(), device: link.remote(), link, _heard: heard })
    }

    /// The rows that are confirmed, in order.
    pub(crate) async fn say(&self, reports: Vec<UpReport>) -> Vec<i64> {
        let reports = numbered(reports);
        let said = |reply| EdgeUp::Reports { reports: reports.into(), reply };
        let mut rows = self.edge.ask(LONG, said).await.unwrap();
        rows.sort_unstable();
        rows
    }

    pub(crate) async fn say_of_devices(&self, reports: Vec<UpReport>) -> Vec<i64> {
        let reports = numbered(reports);
        let said = |reply| DeviceUp::Reports { reports: reports.into(), reply };
        let mut rows = self.device.ask(LONG, said).await.unwrap();
        rows.sort_unstable();
        rows
    }

    pub(crate) async fn token(&self, query: TokenQuery) -> Result<TokenGrant, String> {
        let asked = |reply| EdgeUp::Token { query: query.into(), reply };
        self.edge.ask(LONG, asked).await.unwrap()
    }
}

/// Rows grow over the whole test, as an outbox's do.
pub(crate) fn numbered(reports: Vec<UpReport>) -> Vec<Report> {
    use std::sync::atomic::{AtomicI64, Ordering};
    static ROW: AtomicI64 = AtomicI64::new(1);
    let row = || ROW.fetch_add(1, Ordering::Relaxed);
    reports.into_iter().map(|report| Report { row: row(), repeat: false, report: report.into() }).collect()
}

pub(crate) fn node_report(labels: Value) -> UpReport {
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

pub(crate) fn pod_status([namespace, name, uid]: [&str; 3]) -> UpReport {
    let status_json = json!({ "phase": "Failed", "message": "of the attacker" }).to_string();
    UpReport::PodStatus { namespace: namespace.into(), name: name.into(), uid: uid.into(), status_json }
}

pub(crate) fn pod_gone([namespace, name, uid]: [&str; 3]) -> UpReport {
    UpReport::PodGone { namespace: namespace.into(), name: name.into(), uid: uid.into() }
}

/// An event of that name about any object.
pub(crate) fn event(name: &str, involved: Value) -> UpReport {
    let event_json = json!({
        "involvedObject": involved, "type": "Warning", "reason": "Attack", "message": "of the attacker",
    })
    .to_string();
    UpReport::Event { namespace: "default".into(), name: name.into(), event_json }
}

pub(crate) fn about([namespace, name, uid]: [&str; 3]) -> Value {
    json!({ "kind": "Pod", "namespace": namespace, "name": name, "uid": uid })
}

pub(crate) fn twin(namespace: &str, name: &str, property: &str) -> UpReport {
    UpReport::Twin {
        namespace: namespace.into(),
        name: name.into(),
        property: property.into(),
        reported: Some(TwinValue { value: "of the attacker".into(), metadata: BTreeMap::new() }),
        observed_desired: None,
    }
}

pub(crate) fn query([namespace, name, uid]: [&str; 3], account: &str, audiences: &[&str]) -> TokenQuery {
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
pub(crate) struct Fixture {
    pub(crate) cluster: Cluster,
    /// Uids of pods by name.
    pub(crate) uids: BTreeMap<&'static str, String>,
}

impl Fixture {
    pub(crate) async fn set() -> Fixture {
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

    pub(crate) async fn pod(&mut self, name: &'static str, node: &str, account: &str) {
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

    pub(crate) fn id<'a>(&'a self, name: &'a str) -> [&'a str; 3] {
        ["default", name, &self.uids[name]]
    }

    /// Everything that is not the captured node's, by kind and name, as it is now; except what CloudCore itself counts.
    pub(crate) async fn others(&self) -> BTreeMap<String, Value> {
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

    pub(crate) async fn node(&self, name: &str) -> Option<DynamicObject> {
        self.cluster.objects("v1", "Node", None).get_opt(name).await.unwrap()
    }
}

pub(crate) fn name_of(object: &DynamicObject) -> &str {
    object.metadata.name.as_deref().unwrap_or_default()
}

pub(crate) fn refused(outcome: Result<HostileEdge, LinkError>) -> Refused {
    match outcome {
        Err(LinkError::Refused(refused)) => refused,
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("it was let in"),
    }
}
