//! An API server that knows a few users, and what it was asked.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use beehive::Env;
use bytes::Bytes;
use futures::StreamExt;
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use serde_json::{Value, json};

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// See the module.
#[derive(Clone)]
pub(crate) struct Api(Arc<Inside>);

struct Inside {
    /// The CA of the API server's clients.
    clients: pki::Authority,
    tokens_asked: Mutex<Vec<String>>,
    /// `USER VERB SUBRESOURCE@NODE`.
    rights_asked: Mutex<Vec<String>>,
    /// The same: what is granted.
    grants: Mutex<Vec<String>>,
}

impl Api {
    pub(crate) fn new(env: &Env) -> Self {
        let clients = pki::Authority::create(env.wall(), env.random_id()).unwrap();
        Api(Arc::new(Inside {
            clients,
            tokens_asked: Mutex::default(),
            rights_asked: Mutex::default(),
            grants: Mutex::default(),
        }))
    }

    pub(crate) fn grant(&self, right: &str) {
        self.0.grants.lock().unwrap().push(right.to_owned());
    }

    pub(crate) fn clients(&self) -> &pki::Authority {
        &self.0.clients
    }

    pub(crate) fn tokens_asked(&self) -> Vec<String> {
        self.0.tokens_asked.lock().unwrap().clone()
    }

    pub(crate) fn rights_asked(&self) -> Vec<String> {
        self.0.rights_asked.lock().unwrap().clone()
    }

    pub(crate) fn client(&self) -> kube::Client {
        let api = self.clone();
        let service = tower::service_fn(move |request: Request<kube::client::Body>| {
            let api = api.clone();
            async move {
                let (head, body) = request.into_parts();
                let body = body.collect().await.unwrap().to_bytes();
                Ok::<_, Infallible>(api.answer(&head, &serde_json::from_slice(&body).unwrap_or_default()))
            }
        });
        kube::Client::new(service, "default")
    }

    fn answer(&self, head: &http::request::Parts, body: &Value) -> Response<Body> {
        let watches = head.uri.query().is_some_and(|query| query.contains("watch=true"));
        match head.uri.path() {
            "/apis/authentication.k8s.io/v1/tokenreviews" => self.token_review(body),
            "/apis/authorization.k8s.io/v1/subjectaccessreviews" => self.access_review(body),
            "/api/v1/namespaces/kube-system/configmaps" if watches => {
                Response::new(UnsyncBoxBody::new(StreamBody::new(futures::stream::pending().boxed())))
            }
            "/api/v1/namespaces/kube-system/configmaps" => {
                let name = "extension-apiserver-authentication";
                let data = json!({ "client-ca-file": self.0.clients.cert_pem() });
                let item = json!({ "metadata": { "name": name, "resourceVersion": "1" }, "data": data });
                whole(
                    200,
                    &json!({ "apiVersion": "v1", "kind": "ConfigMapList",
                    "metadata": { "resourceVersion": "1" }, "items": [item] }),
                )
            }
            other => panic!("asked for {other}"),
        }
    }

    /// The token `NAME-token` is NAME's.
    fn token_review(&self, body: &Value) -> Response<Body> {
        let token = body["spec"]["token"].as_str().unwrap();
        self.0.tokens_asked.lock().unwrap().push(token.to_owned());
        let mut answer = body.clone();
        answer["status"] = match token.strip_suffix("-token") {
            Some(name) => {
                json!({ "authenticated": true, "user": { "username": name, "groups": ["people"] } })
            }
            None => json!({ "authenticated": false }),
        };
        whole(201, &answer)
    }

    fn access_review(&self, body: &Value) -> Response<Body> {
        let (spec, of) = (&body["spec"], &body["spec"]["resourceAttributes"]);
        assert_eq!((&of["resource"], &of["version"]), (&json!("nodes"), &json!("v1")));
        assert!(spec["groups"].as_array().unwrap().contains(&json!("system:authenticated")));
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let user = text(&spec["user"]);
        let right =
            format!("{user} {} {}@{}", text(&of["verb"]), text(&of["subresource"]), text(&of["name"]));
        self.0.rights_asked.lock().unwrap().push(right.clone());
        if user == "undecided" {
            let status = json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 403,
                "reason": "Forbidden", "message": "no" });
            return whole(403, &status);
        }
        let mut answer = body.clone();
        answer["status"] = json!({ "allowed": self.0.grants.lock().unwrap().contains(&right) });
        whole(201, &answer)
    }
}

fn whole(code: u16, body: &Value) -> Response<Body> {
    let body = UnsyncBoxBody::new(Full::new(Bytes::from(body.to_string())));
    Response::builder().status(code).body(body).unwrap()
}
