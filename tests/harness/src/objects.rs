//! An API server of a few lines: creates, reads and replaces objects.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};

/// Names are unique, and a stale resource version is a conflict, as with a real server.
#[derive(Clone, Default)]
pub struct Objects(Arc<Mutex<Held>>);

#[derive(Default)]
struct Held {
    objects: BTreeMap<String, Value>,
    version: u64,
    creates: usize,
}

impl Objects {
    /// How many creates succeeded.
    pub fn creates(&self) -> usize {
        self.0.lock().unwrap().creates
    }

    /// A client of it.
    pub fn client(&self) -> kube::Client {
        let held = Arc::clone(&self.0);
        let service = tower::service_fn(move |request: Request<kube::client::Body>| {
            let held = Arc::clone(&held);
            async move {
                let (head, body) = request.into_parts();
                let body = body.collect().await.unwrap().to_bytes();
                // Others get a turn between a read and a write.
                tokio::task::yield_now().await;
                let (status, value) = held.lock().unwrap().answer(&head.method, head.uri.path(), &body);
                let body = Full::new(Bytes::from(value.to_string()));
                Ok::<_, Infallible>(Response::builder().status(status).body(body).unwrap())
            }
        });
        kube::Client::new(service, "default")
    }
}

impl Held {
    fn answer(&mut self, method: &Method, path: &str, body: &[u8]) -> (StatusCode, Value) {
        let mut object: Value = serde_json::from_slice(body).unwrap_or_default();
        let key = match *method {
            Method::POST => format!("{path}/{}", object["metadata"]["name"].as_str().unwrap()),
            _ => path.to_owned(),
        };
        match (method, self.objects.get(&key)) {
            (&Method::GET, Some(found)) => (StatusCode::OK, found.clone()),
            (&Method::GET | &Method::PUT, None) => refusal(404, "NotFound"),
            (&Method::POST, Some(_)) => refusal(409, "AlreadyExists"),
            (&Method::PUT, Some(found))
                if found["metadata"]["resourceVersion"] != object["metadata"]["resourceVersion"] =>
            {
                refusal(409, "Conflict")
            }
            (&Method::POST | &Method::PUT, _) => {
                self.version += 1;
                self.creates += usize::from(method == Method::POST);
                object["metadata"]["resourceVersion"] = json!(self.version.to_string());
                self.objects.insert(key, object.clone());
                (StatusCode::OK, object)
            }
            other => panic!("this stand-in does not know {other:?}"),
        }
    }
}

fn refusal(code: u16, reason: &str) -> (StatusCode, Value) {
    let status = json!({ "kind": "Status", "status": "Failure", "code": code, "message": "refused", "reason": reason });
    (StatusCode::from_u16(code).unwrap(), status)
}
