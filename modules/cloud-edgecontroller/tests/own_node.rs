//! What is written into a Node that an administrator made, when its node reports: its machine's labels, and what operators gave it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use beehive::testing::Probe;
use beehive::{Address, Capacity, Env, Flow, Hive, Policy};
use bytes::Bytes;
use cloud_edgecontroller::{Dependencies, EdgeController};
use contract::cloudhub::CloudHubMsg;
use contract::cloudstream::CloudStreamMsg;
use contract::edgecontroller::{EdgeControllerMsg, EdgeUp};
use contract::nodelease::{NodeLeaseMsg, SessionState};
use contract::synccontroller::SyncMsg;
use contract::{NodeName, Report, UpReport};
use futures::stream;
use http::{Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use kubewatch::{Interruptions, ReadAs};
use serde_json::{Value, json};

const LONG: Duration = Duration::from_secs(3600);

type Body = UnsyncBoxBody<Bytes, Infallible>;
type Patches = Arc<Mutex<Vec<Value>>>;

fn whole(value: &Value) -> Response<Body> {
    Response::new(UnsyncBoxBody::new(Full::new(Bytes::from(value.to_string()))))
}

/// The Node as its administrator and an operator made it.
fn node() -> Value {
    json!({"apiVersion": "v1", "kind": "Node",
        "metadata": {"name": "edge-1", "uid": "n", "resourceVersion": "7",
            "labels": {"node-role.kubernetes.io/edge": "", "kubehive.io/own": "", "site": "pier-1"}},
        "status": {"capacity": {"cpu": "2", "example.com/foo": "3"}, "allocatable": {"cpu": "2"}}})
}

/// An API server that has the one Node, never changes it, and notes how it is written. Its policy takes no labels.
async fn answer(patches: Patches, request: Request<kube::client::Body>) -> Response<Body> {
    let path = request.uri().path().to_owned();
    if request.uri().query().is_some_and(|query| query.contains("watch=true")) {
        let nothing = stream::pending::<Result<http_body::Frame<Bytes>, Infallible>>();
        return Response::new(UnsyncBoxBody::new(StreamBody::new(nothing)));
    }
    if request.method() == Method::PATCH && path == "/api/v1/nodes/edge-1/status" {
        let body = request.into_body().collect().await.unwrap().to_bytes();
        let patch: Value = serde_json::from_slice(&body).unwrap();
        patches.lock().unwrap().push(patch.clone());
        if patch["metadata"]["labels"].is_object() {
            let refused = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 422,
                "reason": "Invalid", "message": "ValidatingAdmissionPolicy"});
            let mut answer = whole(&refused);
            *answer.status_mut() = StatusCode::UNPROCESSABLE_ENTITY;
            return answer;
        }
        return whole(&node());
    }
    if path == "/api/v1/nodes/edge-1" {
        return whole(&node());
    }
    whole(&json!({"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": "1"}, "items": []}))
}

async fn report(controller: &Address<EdgeControllerMsg>, row: i64) {
    let said = json!({"metadata": {"labels": {"kubernetes.io/arch": "arm64", "kubernetes.io/os": "linux", "site": "quay-7"}},
        "status": {"capacity": {"cpu": "2"}, "allocatable": {"cpu": "1900m"}}});
    let report = UpReport::Node { node_json: said.to_string() };
    let reports = vec![Report { row, repeat: false, report: report.into() }];
    let written = controller.ask(LONG, |reply| EdgeControllerMsg::Up {
        node: NodeName::parse("edge-1").unwrap(),
        session: 4,
        message: EdgeUp::Reports { reports: reports.into(), reply },
    });
    assert_eq!(written.await.unwrap(), [row]);
}

#[test]
fn a_node_that_others_made_has_its_machines_labels_and_operators_resources_and_a_refusal_holds_up_nothing() {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let (env, patches) = (Env::seeded(7), Patches::default());
        let noted = Arc::clone(&patches);
        let service = tower::service_fn(move |request: Request<kube::client::Body>| {
            let patches = Arc::clone(&noted);
            async move { Ok::<_, Infallible>(answer(patches, request).await) }
        });
        let (_sync, to_sync) = Probe::<SyncMsg>::new(&env, 64);
        let (_hub, to_hub) = Probe::<CloudHubMsg>::new(&env, 1);
        let (_stream, to_stream) = Probe::<CloudStreamMsg>::new(&env, 16);
        let (mut lease, to_lease) = Probe::new(&env, 64);
        tokio::task::spawn_local(async move {
            while let Some(message) = lease.next(Duration::MAX).await {
                if let NodeLeaseMsg::Session { reply, .. } = message {
                    reply.send(SessionState::Open { node_uid: "n".to_owned() });
                }
            }
        });
        let mut hive = Hive::new("test", env.clone());
        let mailbox = hive.mailbox("cloud-edgecontroller", Capacity::new(64, "a test's choice"));
        let controller = hive.grant("tester", &mailbox, Flow::Ask);
        let dependencies = Dependencies {
            client: kube::Client::new(service, "default"),
            sync: to_sync,
            lease: to_lease,
            hub: to_hub,
            stream: to_stream,
            interruptions: Interruptions::default(),
            read_as: ReadAs::CloudCore,
            is_kubelet_endpoint: true,
            pod_addresses: cloud_edgecontroller::PodAddresses::Any,
        };
        hive.supervise(mailbox, Policy::default(), move || EdgeController::new(dependencies.clone()));
        hive.open().unwrap();

        report(&controller, 1).await;
        let written = std::mem::take(&mut *patches.lock().unwrap());
        let [status, labels] = &written[..] else { panic!("{written:?}") };
        assert_eq!(status["status"]["allocatable"], json!({"cpu": "1900m", "example.com/foo": "3"}));
        assert_eq!(status["status"]["capacity"], json!({"cpu": "2"}));
        let machine = json!({"kubernetes.io/hostname": "edge-1", "kubernetes.io/arch": "arm64", "kubernetes.io/os": "linux"});
        assert_eq!(labels, &json!({"metadata": {"uid": "n", "labels": machine}}));

        report(&controller, 2).await;
        let written = patches.lock().unwrap().clone();
        assert_eq!(written.len(), 1, "labels that were refused are not tried again in this session: {written:?}");
    });
}
