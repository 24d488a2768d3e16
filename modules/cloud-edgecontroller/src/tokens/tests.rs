use std::cell::Cell;
use std::convert::Infallible;

use beehive::testing::Probe;
use http::{Request, Response};
use kube::client::Body;
use serde_json::Value;

use super::*;

#[test]
fn a_token_is_for_what_a_volume_names() {
    let source = |audience: Option<&str>, seconds: Option<i64>| json!({ "serviceAccountToken": { "path": "t", "audience": audience, "expirationSeconds": seconds } });
    let spec: PodSpec = serde_json::from_value(json!({
        "containers": [],
        "volumes": [
            { "name": "api", "projected": { "sources": [source(None, Some(3607)), { "configMap": { "name": "ca" } }] } },
            { "name": "vault", "projected": { "sources": [
                source(Some("vault"), Some(7200)), source(Some("vault"), Some(900)), source(Some("sts"), None),
                source(Some("old"), Some(5)), source(Some("long"), Some(1_000_000)) ] } },
            { "name": "plain", "emptyDir": {} },
        ],
    }))
    .unwrap();
    let drivers = [DriverToken { audience: "disk".to_owned(), expiration_seconds: Some(1200) }];
    let life = |audiences: &[&str], asked| {
        let audiences: Vec<String> = audiences.iter().map(|audience| (*audience).to_owned()).collect();
        lifetime(&spec, &drivers, &audiences, asked)
    };
    assert_eq!(life(&[], 3607), Some(3607));
    assert_eq!(life(&[], 86_400), Some(3607), "as the volume says");
    assert_eq!(
        (life(&["vault"], 7200), life(&["vault"], 900), life(&["vault"], 1)),
        (Some(7200), Some(900), Some(900))
    );
    assert_eq!(
        (life(&["sts"], 0), life(&["old"], 5), life(&["long"], 1)),
        (Some(3600), Some(600), Some(86_400))
    );
    assert_eq!(life(&["https://kubernetes.default.svc"], 3600), None, "of any audience that no volume names");
    assert_eq!(life(&["vault", "sts"], 900), None);
    assert_eq!(life(&["disk"], 3600), Some(1200), "as a driver of its volumes wants it");
    assert_eq!(lifetime(&PodSpec::default(), &[], &[], 3600), None);
}

/// A pod that names a token of its account.
fn pod() -> Value {
    let source = json!({"serviceAccountToken": {"path": "t", "expirationSeconds": 3607}});
    json!({
        "metadata": {"namespace": "default", "name": "web", "uid": "p"},
        "spec": {
            "nodeName": "edge-1", "containers": [],
            "volumes": [{"name": "api", "projected": {"sources": [source]}}],
        },
    })
}

/// How many questions for a token the API server has in work, and the gate behind which it answers them.
struct Api {
    in_work: Cell<usize>,
    answered: Cell<usize>,
    gate: tokio::sync::Semaphore,
}

async fn answer(api: Rc<Api>, method: http::Method) -> Response<Body> {
    if method == http::Method::GET {
        return Response::new(Body::from(pod().to_string().into_bytes()));
    }
    api.in_work.set(api.in_work.get() + 1);
    api.gate.acquire().await.unwrap().forget();
    api.in_work.set(api.in_work.get() - 1);
    let granted = json!({
        "spec": {"audiences": [], "expirationSeconds": 3607},
        "status": {"token": "t", "expirationTimestamp": "2030-01-01T00:00:00Z"},
    });
    Response::new(Body::from(granted.to_string().into_bytes()))
}

fn request(api: &Rc<Api>) -> QueuedTokenRequest {
    let query = TokenQuery {
        namespace: "default".to_owned(),
        service_account: "default".to_owned(),
        audiences: Vec::new(),
        expiration_seconds: 3607,
        pod_name: "web".to_owned(),
        pod_uid: "p".to_owned(),
    };
    let (reply, mut answer) = Reply::channel();
    let api = Rc::clone(api);
    tokio::task::spawn_local(async move {
        if let Ok(Ok(Ok(_))) = (&mut answer).await {
            api.answered.set(api.answered.get() + 1);
        }
    });
    let asked = Unparsed::from(query).parse().unwrap();
    QueuedTokenRequest { session: 1, asked, reply }
}

/// Everybody does what can be done without anybody else.
async fn settled() {
    for _ in 0..1000 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn the_tokens_of_one_node_are_granted_beside_each_other_and_a_bounded_number_at_a_time() {
    let env = Env::seeded(1);
    let node = NodeName::parse("edge-1").unwrap();
    let api = Rc::new(Api {
        in_work: Cell::default(),
        answered: Cell::default(),
        gate: tokio::sync::Semaphore::new(0),
    });
    let local = tokio::task::LocalSet::new();
    local
        .run_until(async {
            let (asks, mut asked) =
                tokio::sync::mpsc::channel::<(http::Method, tokio::sync::oneshot::Sender<_>)>(64);
            let served = Rc::clone(&api);
            tokio::task::spawn_local(async move {
                while let Some((method, reply)) = asked.recv().await {
                    let api = Rc::clone(&served);
                    tokio::task::spawn_local(async move { reply.send(answer(api, method).await) });
                }
            });
            let service = tower::service_fn(move |request: Request<Body>| {
                let (asks, (reply, answer)) = (asks.clone(), tokio::sync::oneshot::channel());
                async move {
                    asks.send((request.method().clone(), reply)).await.unwrap();
                    Ok::<_, Infallible>(answer.await.unwrap())
                }
            });
            let (mut lease, to_lease) = Probe::new(&env, 64);
            tokio::task::spawn_local(async move {
                while let Some(message) = lease.next(Duration::MAX).await {
                    if let NodeLeaseMsg::Session { reply, .. } = message {
                        reply.send(SessionState::Open { node_uid: "n".to_owned() });
                    }
                }
            });
            let granter = TokenGranter {
                client: kube::Client::new(service, "default"),
                lease: to_lease,
                env: env.clone(),
                volumes: Rc::new(VolumeCaches::none()),
                rates: Rc::default(),
            };
            let queues = queues();
            let queue = queues.put(&node, request(&api)).ok().unwrap().unwrap();
            for _ in 1..20 {
                assert!(queues.put(&node, request(&api)).ok().unwrap().is_none());
            }
            tokio::task::spawn_local(granter.answer(queue));
            settled().await;
            assert_eq!((api.in_work.get(), api.answered.get()), (GRANTS_AT_ONCE, 0));
            // One that is answered makes room for the next.
            api.gate.add_permits(1);
            settled().await;
            assert_eq!((api.in_work.get(), api.answered.get()), (GRANTS_AT_ONCE, 1));
            api.gate.add_permits(19);
            settled().await;
            assert_eq!((api.in_work.get(), api.answered.get()), (0, 20));
            assert_eq!(queues.load(), (0, 0));
        })
        .await;
}
