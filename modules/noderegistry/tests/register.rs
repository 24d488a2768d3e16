//! The register in the stand-alone API, with every call counted.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use beehive::Env;
use contract::NodeName;
use crd::{EdgeNode, JoinToken};
use futures::StreamExt;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Api;
use kube::api::{ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kubewatch::Interruptions;
use noderegistry::{
    AdmissionError, Certificate, EnrolmentError, EnrolmentRequest, Entry, NewToken, Refusal, Registry,
    RegistryEvent, RegistryStatus, Removal, Revoked, TokenClaims,
};
use serde_json::json;

const NOW: u64 = 1_800_000_000;
const LONG: Duration = Duration::from_secs(20);

struct Fixture {
    env: Env,
    client: kube::Client,
    registry: Registry,
    calls: Arc<AtomicUsize>,
    _api: cloud_apiserver::Running,
    _folder: tempfile::TempDir,
}

impl Fixture {
    async fn new() -> Fixture {
        let (env, folder) = (Env::real(), tempfile::tempdir().unwrap());
        let settings = cloud_apiserver::Settings {
            listen: ([127, 0, 0, 1], 0).into(),
            data_dir: folder.path().join("api"),
            ..cloud_apiserver::Settings::default()
        };
        let api = cloud_apiserver::start(settings, env.clone()).await.unwrap();
        let client = api.client();
        let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
        for definition in crd::manifests() {
            definitions.create(&PostParams::default(), &definition).await.unwrap();
        }
        let served: Api<EdgeNode> = Api::all(client.clone());
        let waiting = async {
            while served.list(&ListParams::default()).await.is_err() {
                env.sleep(Duration::from_millis(20)).await;
            }
        };
        env.timeout(LONG, waiting).await.expect("the definitions are served");
        let calls = Arc::new(AtomicUsize::new(0));
        let (counted, inner) = (Arc::clone(&calls), client.clone());
        let service = tower::service_fn(move |request| {
            counted.fetch_add(1, Ordering::Relaxed);
            let inner = inner.clone();
            async move { inner.send(request).await }
        });
        let registry = Registry::new(kube::Client::new(service, "default"));
        Fixture { env, client, registry, calls, _api: api, _folder: folder }
    }

    async fn token(&self, id: &str, node: Option<&str>, uses: u32) -> TokenClaims {
        let bound = node.map(name);
        let token = NewToken { id: id.to_owned(), expires_unix: NOW + 1000, node: bound, uses };
        self.registry.add_token(&token, NOW).await.unwrap();
        TokenClaims { id: id.to_owned(), node: node.map(str::to_owned) }
    }

    async fn join(&self, claims: &TokenClaims, node: &str, serial: &str) -> Result<(), EnrolmentError> {
        let order = EnrolmentRequest {
            claims: claims.clone(),
            token: self.registry.token(&claims.id).await.unwrap(),
            node: name(node),
            certificate: Certificate { serial: serial.to_owned(), not_after_unix: NOW + 10_000 },
            now_unix: NOW,
        };
        self.registry.enrol(&order).await
    }

    fn nodes(&self) -> Api<Node> {
        Api::all(self.client.clone())
    }

    async fn make_node(&self, name: &str, annotations: serde_json::Value) -> Node {
        let node = json!({"metadata": {"name": name, "annotations": annotations}});
        self.nodes().create(&PostParams::default(), &serde_json::from_value(node).unwrap()).await.unwrap()
    }

    /// Any object by kubectl; `namespace` is empty for those that have none.
    fn objects<K: kube::Resource<DynamicType = ()>>(&self, namespace: &str) -> Api<DynamicObject> {
        let kind = ApiResource::erase::<K>(&());
        if namespace.is_empty() {
            return Api::all_with(self.client.clone(), &kind);
        }
        Api::namespaced_with(self.client.clone(), namespace, &kind)
    }

    async fn make<K: kube::Resource<DynamicType = ()>>(&self, namespace: &str, object: serde_json::Value) {
        let object: DynamicObject = serde_json::from_value(object).unwrap();
        self.objects::<K>(namespace).create(&PostParams::default(), &object).await.unwrap();
    }

    async fn hold<K: kube::Resource<DynamicType = ()>>(&self, name: &str, held: bool) {
        let finalizers = if held { json!(["example.com/hold"]) } else { json!([]) };
        let patch = json!({ "metadata": { "finalizers": finalizers } });
        let objects = self.objects::<K>("");
        objects.patch(name, &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
    }

    /// From now on the definition lets everything pass, as one of before its bounds did.
    async fn loosen(&self, definition: &str) {
        let definitions: Api<CustomResourceDefinition> = Api::all(self.client.clone());
        let mut found = definitions.get(definition).await.unwrap();
        let all =
            json!({ "openAPIV3Schema": { "type": "object", "x-kubernetes-preserve-unknown-fields": true } });
        found.spec.versions[0].schema = Some(serde_json::from_value(all).unwrap());
        definitions.replace(definition, &PostParams::default(), &found).await.unwrap();
    }

    async fn used(&self, claims: &TokenClaims) -> u32 {
        self.registry.token(&claims.id).await.unwrap().unwrap().spec.used.unwrap()
    }
}

fn name(text: &str) -> NodeName {
    NodeName::parse(text).unwrap()
}

fn refused(outcome: Result<(), EnrolmentError>) -> Refusal {
    match outcome {
        Err(EnrolmentError::Refused(refusal)) => refusal,
        other => panic!("{other:?}"),
    }
}

fn not_admitted<T: std::fmt::Debug>(outcome: Result<T, AdmissionError>) -> Refusal {
    match outcome {
        Err(AdmissionError::Refused(refusal)) => refusal,
        other => panic!("{other:?}"),
    }
}

#[actix_rt::test]
async fn a_node_is_admitted_for_the_node_that_was_made_for_it_and_for_no_other() {
    let fixture = Fixture::new().await;
    let (registry, edge) = (&fixture.registry, name("edge-1"));
    let open = fixture.token("open", None, 5).await;
    fixture.join(&open, "edge-1", "aa").await.unwrap();
    assert_eq!(registry.admit(&edge, "aa", None).await.unwrap().node_uid, None);
    let made = fixture.make_node("edge-1", json!({noderegistry::ENROLMENT_ANNOTATION: "aa"})).await;
    let uid = made.metadata.uid.clone().unwrap();
    assert_eq!(registry.node_made(&edge, "aa", &made.metadata).await.unwrap(), uid);
    let entry = Entry::of(&registry.edge_node(&edge).await.unwrap().unwrap());
    assert_eq!(entry.node_uid.as_ref(), Some(&uid));
    let calls = fixture.calls.load(Ordering::Relaxed);
    assert_eq!(registry.admit(&edge, "aa", Some(&made.metadata)).await.unwrap().node_uid, Some(uid));
    assert_eq!(fixture.calls.load(Ordering::Relaxed) - calls, 1, "a hello costs one read");
    // Deleted: it does not come back by itself, nor when somebody makes one of the same name.
    fixture.nodes().delete("edge-1", &DeleteParams::default()).await.unwrap();
    assert_eq!(not_admitted(registry.admit(&edge, "aa", None).await), Refusal::Deleted(edge.clone()));
    let other = fixture.make_node("edge-1", json!({noderegistry::ENROLMENT_ANNOTATION: "aa"})).await;
    let foreign = registry.admit(&edge, "aa", Some(&other.metadata)).await;
    assert_eq!(not_admitted(foreign), Refusal::Foreign(edge.clone()));
    // An administrator adopts it, by uid.
    let uid = other.metadata.uid.clone().unwrap();
    let adoption = json!({"metadata": {"annotations": {noderegistry::ADOPTED_ANNOTATION: uid}}});
    let patch = Patch::Merge(&adoption);
    let adopted = fixture.nodes().patch("edge-1", &PatchParams::default(), &patch).await.unwrap();
    let admitted = registry.admit(&edge, "aa", Some(&adopted.metadata)).await.unwrap();
    assert_eq!(admitted.node_uid, Some(uid));
    let entered = registry.edge_node(&edge).await.unwrap().unwrap();
    assert_eq!(entered.spec.owner, Some(crd::NodeOwner::Adopted));
    // It goes again, and may come back when the register forgets which it was.
    fixture.nodes().delete("edge-1", &DeleteParams::default()).await.unwrap();
    assert!(registry.allow_back(&edge).await.unwrap());
    assert_eq!(registry.admit(&edge, "aa", None).await.unwrap().node_uid, None);
    // That the name had a Node is not forgotten with the uid: an open token is not enough, a bound one is.
    registry.release(&edge, "aa").await.unwrap();
    assert_eq!(refused(fixture.join(&open, "edge-1", "bb").await), Refusal::NeedsBoundToken(edge.clone()));
    let bound = fixture.token("bound", Some("edge-1"), 1).await;
    fixture.join(&bound, "edge-1", "bb").await.unwrap();
    assert!(!registry.release(&edge, "bb").await.unwrap());
    assert_eq!(refused(fixture.join(&open, "edge-1", "cc").await), Refusal::NeedsBoundToken(edge.clone()));
    assert_eq!(registry.free(&edge).await.unwrap(), Removal::Gone);
    fixture.join(&open, "edge-1", "cc").await.unwrap();
}

#[actix_rt::test]
async fn a_name_that_was_revoked_stays_barred_until_it_is_freed() {
    let fixture = Fixture::new().await;
    let (registry, edge) = (&fixture.registry, name("edge-1"));
    let open = fixture.token("open", None, 50).await;
    fixture.join(&open, "edge-1", "aa").await.unwrap();
    assert_eq!(registry.revoke(&edge).await.unwrap(), Revoked::Node);
    assert_eq!(not_admitted(registry.admit(&edge, "aa", None).await), Refusal::Barred(edge.clone()));
    let bound = fixture.token("bound", Some("edge-1"), 1).await;
    for claims in [&open, &bound] {
        assert_eq!(refused(fixture.join(claims, "edge-1", "bb").await), Refusal::Barred(edge.clone()));
    }
    assert_eq!(fixture.used(&bound).await, 0, "a refusal costs no use");
    assert!(registry.release(&edge, "aa").await.unwrap(), "it is barred");
    assert_eq!(refused(fixture.join(&bound, "edge-1", "bb").await), Refusal::Barred(edge.clone()));
    assert_eq!(registry.free(&edge).await.unwrap(), Removal::Gone);
    assert_eq!(registry.free(&edge).await.unwrap(), Removal::NotThere);
    assert_eq!(not_admitted(registry.admit(&edge, "aa", None).await), Refusal::NotRegistered(edge.clone()));
    fixture.join(&bound, "edge-1", "bb").await.unwrap();
    assert_eq!(refused(fixture.join(&bound, "edge-1", "cc").await), Refusal::TokenSpent(1));
    // By kubectl alone.
    let edge_nodes: Api<EdgeNode> = Api::all(fixture.client.clone());
    let label = json!({"metadata": {"labels": {crd::REVOKED_LABEL: "Yes"}}});
    edge_nodes.patch("edge-1", &PatchParams::default(), &Patch::Merge(&label)).await.unwrap();
    assert_eq!(not_admitted(registry.admit(&edge, "bb", None).await), Refusal::Barred(edge));
    // A name that nobody has.
    assert_eq!(registry.revoke(&name("edge-9")).await.unwrap(), Revoked::Nobody);
    assert_eq!(refused(fixture.join(&open, "edge-9", "dd").await), Refusal::Barred(name("edge-9")));
}

#[actix_rt::test]
async fn of_many_that_join_at_once_as_many_get_in_as_the_token_allows() {
    let fixture = Fixture::new().await;
    let few = fixture.token("few", None, 5).await;
    let joins = (0..12).map(|number| {
        let (fixture, few) = (&fixture, &few);
        async move { fixture.join(few, &format!("edge-{number}"), &format!("{number:02x}")).await }
    });
    let outcomes = futures::future::join_all(joins).await;
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 5, "{outcomes:?}");
    for outcome in outcomes.into_iter().filter(Result::is_err) {
        assert_eq!(refused(outcome), Refusal::TokenSpent(5));
    }
    assert_eq!(fixture.used(&few).await, 5);
    // Many with one name: one gets it, and each has spent one use at the most. Two registries, as two CloudCores have.
    let many = fixture.token("many", None, 50).await;
    let elsewhere = Registry::new(fixture.client.clone());
    let joins = (0..8).map(|number| {
        let (registry, many) = (if number % 2 == 0 { &fixture.registry } else { &elsewhere }, many.clone());
        async move {
            let certificate = Certificate { serial: format!("f{number}"), not_after_unix: NOW + 10_000 };
            let order = EnrolmentRequest {
                claims: many,
                token: None,
                node: name("same"),
                certificate,
                now_unix: NOW,
            };
            registry.enrol(&order).await
        }
    });
    let outcomes = futures::future::join_all(joins).await;
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1, "{outcomes:?}");
    let used = fixture.used(&many).await;
    assert!((1..=8).contains(&used), "{used}");
}

#[actix_rt::test]
async fn the_watch_tells_each_change_and_goes_on_after_a_break() {
    let fixture = Fixture::new().await;
    let open = fixture.token("open", None, 50).await;
    fixture.join(&open, "edge-0", "00").await.unwrap();
    let event: Rc<RefCell<Vec<RegistryEvent>>> = Rc::default();
    let (kept, registry, env) = (Rc::clone(&event), fixture.registry.clone(), fixture.env.clone());
    actix_rt::spawn(async move { registry.watch(&env, |event| kept.borrow_mut().push(event)).await });
    let until = async |what: &RegistryEvent| {
        let waiting = async {
            while !event.borrow().contains(what) {
                fixture.env.sleep(Duration::from_millis(10)).await;
            }
        };
        assert!(fixture.env.timeout(LONG, waiting).await.is_some(), "{what:?} in {:?}", event.borrow());
    };
    let is = |node: &str, living: Option<&str>, is_barred: bool| {
        RegistryEvent::Apply(
            name(node),
            RegistryStatus {
                living: living.map(str::to_owned),
                next: Vec::new(),
                is_barred,
                is_ending: false,
            },
        )
    };
    until(&RegistryEvent::InitDone).await;
    assert_eq!(
        *event.borrow(),
        [RegistryEvent::Init, is("edge-0", Some("00"), false), RegistryEvent::InitDone]
    );
    fixture.join(&open, "edge-1", "01").await.unwrap();
    until(&is("edge-1", Some("01"), false)).await;
    // Longer than one request of the watch lives.
    fixture.env.sleep(Duration::from_secs(11)).await;
    fixture.registry.revoke(&name("edge-1")).await.unwrap();
    until(&is("edge-1", Some("01"), true)).await;
    fixture.registry.release(&name("edge-0"), "00").await.unwrap();
    until(&is("edge-0", None, false)).await;
    fixture.registry.free(&name("edge-1")).await.unwrap();
    until(&RegistryEvent::Delete(name("edge-1"))).await;
    assert_eq!(
        event.borrow().iter().filter(|event| **event == RegistryEvent::Init).count(),
        1,
        "no new list"
    );
}

#[actix_rt::test]
async fn a_watch_that_broke_off_is_known_until_it_is_whole() {
    let fixture = Fixture::new().await;
    let interruptions = Interruptions::default();
    let registry = fixture.registry.clone().with_interruptions(interruptions.clone());
    let (env, is_listed) = (fixture.env.clone(), Rc::new(RefCell::new(0)));
    let seen = Rc::clone(&is_listed);
    let on_event = move |event| *seen.borrow_mut() += usize::from(event == RegistryEvent::InitDone);
    actix_rt::spawn(async move { registry.watch(&env, on_event).await });
    let until = async |what: &str, holds: &dyn Fn() -> bool| {
        let waiting = async {
            while !holds() {
                fixture.env.sleep(Duration::from_millis(10)).await;
            }
        };
        assert!(fixture.env.timeout(LONG, waiting).await.is_some(), "{what}");
    };
    until("a list", &|| *is_listed.borrow() == 1).await;
    assert!(interruptions.list().is_empty());
    let definitions: Api<CustomResourceDefinition> = Api::all(fixture.client.clone());
    let register = crd::manifests().into_iter().find(|own| own.spec.names.plural == "edgenodes").unwrap();
    let of_register = register.metadata.name.clone().unwrap();
    definitions.delete(&of_register, &DeleteParams::default()).await.unwrap();
    until("the break", &|| interruptions.list().contains_key("edgenodes.kubehive.io")).await;
    definitions.create(&PostParams::default(), &register).await.unwrap();
    until("the end of the break", &|| interruptions.list().is_empty()).await;
}

#[actix_rt::test]
async fn tokens_are_listed_withdrawn_one_by_one_and_forgotten_when_they_have_ended() {
    let fixture = Fixture::new().await;
    let (registry, old) = (&fixture.registry, fixture.token("old", None, 5).await);
    fixture.token("bound", Some("edge-1"), 50).await;
    let listed: Vec<_> = registry.tokens().await.unwrap();
    assert_eq!(listed.len(), 2);
    assert_eq!(
        listed.iter().map(|listed| listed.token.as_ref().unwrap().spec.uses.unwrap()).sum::<u32>(),
        6,
        "a bound one is good once"
    );
    assert_eq!(registry.withdraw("bound").await.unwrap(), Removal::Gone);
    assert_eq!(registry.withdraw("bound").await.unwrap(), Removal::NotThere);
    let later = NewToken { id: "later".into(), expires_unix: NOW + 9000, node: None, uses: 1 };
    registry.add_token(&later, NOW + 1000).await.unwrap();
    assert!(registry.token(&old.id).await.unwrap().is_none(), "it has ended");
    assert!(registry.token("later").await.unwrap().is_some());
}

/// What is left of a Node when it goes: its Lease and the pods that were bound to it, with their Secrets.
#[actix_rt::test]
async fn an_open_token_gets_no_name_that_a_lease_or_a_pod_points_to() {
    let fixture = Fixture::new().await;
    let open = fixture.token("open", None, 50).await;
    fixture.make_node("cp-9", json!({})).await;
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": "vault", "namespace": "default" },
        "spec": { "nodeName": "cp-9", "containers": [{ "name": "vault", "image": "vault:1" }] },
    });
    fixture.make::<Pod>("default", pod).await;
    fixture.nodes().delete("cp-9", &DeleteParams::default()).await.unwrap();
    let needs = Refusal::NeedsBoundToken(name("cp-9"));
    assert_eq!(refused(fixture.join(&open, "cp-9", "aa").await), needs, "the pod is there");
    let lease = |node: &str| {
        let metadata = json!({ "name": node, "namespace": "kube-node-lease" });
        json!({ "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": {} })
    };
    fixture.make::<Lease>("kube-node-lease", lease("cp-8")).await;
    assert_eq!(
        refused(fixture.join(&open, "cp-8", "aa").await),
        Refusal::NeedsBoundToken(name("cp-8")),
        "a kubelet's Lease is there"
    );
    assert_eq!(fixture.used(&open).await, 0, "a refusal costs no use");
    fixture.join(&open, "cp-7", "aa").await.unwrap();
    // An administrator's word for the name; or nothing is left of it.
    let bound = fixture.token("bound", Some("cp-9"), 1).await;
    fixture.join(&bound, "cp-9", "bb").await.unwrap();
    fixture.objects::<Lease>("kube-node-lease").delete("cp-8", &DeleteParams::default()).await.unwrap();
    fixture.join(&open, "cp-8", "cc").await.unwrap();
}

#[actix_rt::test]
async fn what_was_deleted_is_gone_though_a_finalizer_holds_it() {
    let fixture = Fixture::new().await;
    let (registry, edge, hold) = (&fixture.registry, name("edge-1"), vec!["example.com/hold".to_owned()]);
    let open = fixture.token("open", None, 50).await;
    fixture.join(&open, "edge-1", "aa").await.unwrap();
    // The Node.
    let made = fixture.make_node("edge-1", json!({noderegistry::ENROLMENT_ANNOTATION: "aa"})).await;
    registry.node_made(&edge, "aa", &made.metadata).await.unwrap();
    fixture.hold::<Node>("edge-1", true).await;
    fixture.nodes().delete("edge-1", &DeleteParams::default()).await.unwrap();
    let ending = registry.node_metadata(&edge).await.unwrap();
    assert!(ending.is_some(), "it is held");
    let admitted = registry.admit(&edge, "aa", ending.as_ref()).await;
    assert_eq!(not_admitted(admitted), Refusal::NodeEnding(edge.clone()));
    fixture.hold::<Node>("edge-1", false).await;
    // The token.
    fixture.hold::<JoinToken>("open", true).await;
    assert_eq!(registry.withdraw("open").await.unwrap(), Removal::Held(hold.clone()));
    assert_eq!(refused(fixture.join(&open, "edge-2", "bb").await), Refusal::TokenWithdrawn);
    assert!(registry.tokens().await.unwrap().iter().all(|listed| listed.is_ending));
    // The name.
    let bound = fixture.token("bound", Some("edge-1"), 1).await;
    fixture.hold::<EdgeNode>("edge-1", true).await;
    assert_eq!(registry.free(&edge).await.unwrap(), Removal::Held(hold.clone()));
    let admitted = registry.admit(&edge, "aa", None).await;
    assert_eq!(not_admitted(admitted), Refusal::NameEnding(edge.clone()));
    assert_eq!(refused(fixture.join(&bound, "edge-1", "bb").await), Refusal::NameEnding(edge.clone()));
    assert_eq!(registry.revoke(&edge).await.unwrap(), Revoked::Ending(hold));
    let event: Rc<RefCell<Vec<RegistryEvent>>> = Rc::default();
    let kept = Rc::clone(&event);
    let listing = async {
        while !event.borrow().contains(&RegistryEvent::InitDone) {
            fixture.env.sleep(Duration::from_millis(10)).await;
        }
    };
    let watching = registry.watch(&fixture.env, |event| kept.borrow_mut().push(event));
    futures::future::select(std::pin::pin!(watching), std::pin::pin!(listing)).await;
    let sights = event.take();
    let [RegistryEvent::Init, RegistryEvent::Apply(of, status), RegistryEvent::InitDone] = sights.as_slice()
    else {
        panic!("{sights:?}")
    };
    assert!(*of == edge && status.is_ending && status.reason_against("aa").is_some(), "{status:?}");
    fixture.hold::<EdgeNode>("edge-1", false).await;
    assert_eq!(registry.free(&edge).await.unwrap(), Removal::NotThere);
    fixture.join(&bound, "edge-1", "bb").await.unwrap();
}

#[actix_rt::test]
async fn an_odd_object_stops_nothing_but_itself() {
    let fixture = Fixture::new().await;
    let (registry, odd_name) = (&fixture.registry, name("odd"));
    let open = fixture.token("open", None, 50).await;
    let of = |kind: &str, spec: serde_json::Value| json!({ "apiVersion": "kubehive.io/v1alpha1", "kind": kind, "metadata": { "name": "odd" }, "spec": spec });
    let token =
        of("JoinToken", json!({ "expires": "2100-01-01T00:00:00Z", "uses": 50, "used": 5_000_000_000_u64 }));
    let object: DynamicObject = serde_json::from_value(token.clone()).unwrap();
    // The definitions that ship do not let it in.
    let refused_by_the_server =
        fixture.objects::<JoinToken>("").create(&PostParams::default(), &object).await;
    assert!(refused_by_the_server.is_err(), "{refused_by_the_server:?}");
    for definition in ["jointokens.kubehive.io", "edgenodes.kubehive.io"] {
        fixture.loosen(definition).await;
    }
    let planted = async {
        while fixture.objects::<JoinToken>("").create(&PostParams::default(), &object).await.is_err() {
            fixture.env.sleep(Duration::from_millis(20)).await;
        }
    };
    fixture.env.timeout(LONG, planted).await.expect("the loose definition is in force");
    fixture.make::<EdgeNode>("", of("EdgeNode", json!({ "owner": 7 }))).await;
    // Tokens are listed, added and withdrawn.
    let bound = fixture.token("bound", Some("odd"), 1).await;
    let mut listed: Vec<(String, bool)> =
        registry.tokens().await.unwrap().iter().map(|one| (one.id.clone(), one.token.is_ok())).collect();
    listed.sort();
    assert_eq!(listed, [("bound".to_owned(), true), ("odd".to_owned(), false), ("open".to_owned(), true)]);
    let order = EnrolmentRequest {
        claims: TokenClaims { id: "odd".into(), node: None },
        token: None,
        node: name("edge-1"),
        certificate: Certificate { serial: "aa".into(), not_after_unix: NOW + 10 },
        now_unix: NOW,
    };
    assert_eq!(refused(registry.enrol(&order).await), Refusal::OddToken);
    assert_eq!(registry.withdraw("odd").await.unwrap(), Removal::Gone);
    // The name is nobody's, and others are what they were.
    fixture.join(&open, "edge-1", "aa").await.unwrap();
    assert_eq!(not_admitted(registry.admit(&odd_name, "aa", None).await), Refusal::OddName(odd_name.clone()));
    assert_eq!(refused(fixture.join(&bound, "odd", "bb").await), Refusal::OddName(odd_name.clone()));
    assert_eq!(registry.revoke(&odd_name).await.unwrap(), Revoked::Node);
    assert_eq!(registry.free(&odd_name).await.unwrap(), Removal::Gone);
    fixture.join(&bound, "odd", "bb").await.unwrap();
}

/// `count` joins with keys that nobody has. Each costs as many calls as the first one. Answers what the first hundred and the
/// last hundred took, each as its median: what else runs here counts less.
async fn join_many(count: usize) -> (Duration, Duration) {
    let fixture = Fixture::new().await;
    let open = fixture.token("open", None, u32::try_from(count).unwrap()).await;
    let mut times = Vec::with_capacity(count);
    for number in 0..count {
        let before = fixture.calls.load(Ordering::Relaxed);
        let begun = Instant::now();
        fixture.join(&open, &format!("edge-{number:05}"), &format!("{number:08x}")).await.unwrap();
        times.push(begun.elapsed());
        assert_eq!(fixture.calls.load(Ordering::Relaxed) - before, 8, "calls of join {number}");
    }
    let median = |times: &mut [Duration]| {
        times.sort_unstable();
        times[times.len() / 2]
    };
    let (first, last) = (median(&mut times[..100]), median(&mut times[count - 100..]));
    println!("{count} joins; the median of the first hundred is {first:?}, of the last {last:?}");
    let edge_nodes: Api<EdgeNode> = Api::all(fixture.client.clone());
    let pages = futures::stream::unfold(Some(ListParams::default().limit(500)), |params| {
        let edge_nodes = edge_nodes.clone();
        async move {
            let params = params?;
            let page = edge_nodes.list_metadata(&params).await.unwrap();
            let next = page.metadata.continue_.filter(|next| !next.is_empty());
            Some((page.items.len(), next.map(|next| params.continue_token(&next))))
        }
    });
    assert_eq!(pages.fold(0, |sum, page| async move { sum + page }).await, count);
    (first, last)
}

#[actix_rt::test]
async fn a_thousand_nodes_join_at_the_same_cost_each() {
    join_many(1000).await;
}

/// Minutes: `cargo nextest run -p noderegistry --run-ignored only`.
#[actix_rt::test]
#[ignore = "takes minutes"]
async fn ten_thousand_nodes_join_at_the_same_cost_each() {
    let (first, last) = join_many(10_000).await;
    assert!(last < 2 * first, "the median of the first hundred is {first:?}, of the last {last:?}");
}

#[actix_rt::test]
async fn a_certificate_takes_the_place_of_its_own_names_living_one_and_of_no_barred_or_forgotten_one() {
    let fixture = Fixture::new().await;
    let open = fixture.token("open", None, 50).await;
    fixture.join(&open, "edge-0", "00").await.unwrap();
    fixture.join(&open, "edge-1", "01").await.unwrap();
    let next = |serial: &str| Certificate { serial: serial.to_owned(), not_after_unix: NOW + 20_000 };
    let (own, registry) = (name("edge-0"), &fixture.registry);
    let entry = async || Entry::of(&registry.edge_node(&own).await.unwrap().unwrap());
    let renew = async |node: &NodeName, shown: &str, serial: &str| {
        registry.renew(node, &[shown.to_owned()], &next(serial)).await
    };
    let refusal = |refused: Result<(), AdmissionError>| match refused {
        Err(AdmissionError::Refused(refusal)) => refusal,
        other => panic!("{other:?}"),
    };
    // Another name's serial, or one that nobody has.
    for shown in ["01", "ff", ""] {
        assert_eq!(refusal(renew(&own, shown, "0a").await), Refusal::NotLiving(own.clone()));
        assert_eq!(refusal(registry.judge(&own, shown).await), Refusal::NotLiving(own.clone()));
    }
    for serial in ["09", "0a", "0b", "0e"] {
        renew(&own, "00", serial).await.unwrap();
    }
    // Its word was lost: whichever of them is on its disk is good.
    for serial in ["00", "09", "0a", "0b", "0e"] {
        registry.judge(&own, serial).await.unwrap();
    }
    assert_eq!(entry().await.living.as_deref(), Some("00"), "to judge is no use");
    registry.certificate_kept(&own, "0a").await.unwrap();
    assert_eq!(refusal(registry.certificate_kept(&own, "09").await), Refusal::NotLiving(own.clone()));
    // A session with it says the same as the node's word.
    registry.admit(&own, "0b", None).await.unwrap();
    assert_eq!(entry().await.living.as_deref(), Some("0b"));
    registry.certificate_kept(&own, "0b").await.unwrap();
    assert_eq!(refusal(renew(&own, "00", "0c").await), Refusal::NotLiving(own.clone()));
    assert_eq!(refusal(registry.judge(&own, "00").await), Refusal::NotLiving(own.clone()));
    // What was signed later may be on the disk.
    registry.judge(&own, "0e").await.unwrap();
    // A link that was made with the elder one, over which the living one was given, may have another.
    let given = ["00".to_owned(), "0b".to_owned()];
    registry.renew(&own, &given, &next("0f")).await.unwrap();
    registry.judge(&own, "0f").await.unwrap();
    assert!(registry.admit(&own, "00", None).await.is_err());
    assert_eq!(entry().await.enrolment.as_deref(), Some("00"));

    renew(&own, "0b", "0c").await.unwrap();
    registry.revoke(&own).await.unwrap();
    assert_eq!(refusal(renew(&own, "0b", "0d").await), Refusal::Barred(own.clone()));
    assert_eq!(refusal(registry.certificate_kept(&own, "0c").await), Refusal::Barred(own.clone()));
    assert_eq!(refusal(registry.admit(&own, "0c", None).await.map(drop)), Refusal::Barred(own.clone()));
    registry.free(&own).await.unwrap();
    assert_eq!(refusal(renew(&own, "0c", "0d").await), Refusal::NotRegistered(own.clone()));
    assert_eq!(refusal(registry.certificate_kept(&own, "0c").await), Refusal::NotRegistered(own.clone()));
    // Who gives his certificate back gives all back.
    let other = name("edge-1");
    renew(&other, "01", "1a").await.unwrap();
    registry.release(&other, "01").await.unwrap();
    assert_eq!(refusal(registry.admit(&other, "1a", None).await.map(drop)), Refusal::NotLiving(other));
}
