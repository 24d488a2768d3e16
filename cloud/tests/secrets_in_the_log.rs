//! What the log of CloudCore never holds.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::convert::Infallible;
use std::io::Write;
use std::sync::{Arc, Mutex};

use beehive::Env;
use bytes::Bytes;
use cloud_hub::SecretStore;
use http::{Request, Response};
use http_body_util::Full;
use kube::Client;

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// An API server that answers everything with this.
fn server(answer: &'static str) -> Client {
    let service = tower::service_fn(move |_: Request<kube::client::Body>| async move {
        Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(answer.as_bytes()))))
    });
    Client::new(service, "default")
}

#[tokio::test]
async fn a_secret_that_cannot_be_decoded_leaves_no_byte_of_its_data_in_the_log() {
    let answers = [
        r#"{"kind":"Secret","apiVersion":"v1","metadata":{"name":"casecret"},"data":"hunter2-the-key"}"#,
        r#"{"kind":"Secret","apiVersion":"v1","metadata":{"name":"casecret"},"data":{"cakey":{"hunter2-the-key":1}}}"#,
        r#"{"kind":"Secret","apiVersion":"v1","metadata":{"name":"casecret"},"data":{"cakey":"hunter2-the-key!"}}"#,
        r#"{"kind":"Secret","metadata":{"labels":"hunter2-the-key"}}"#,
        r#""hunter2-the-key"#,
    ];
    for answer in answers {
        for filter in ["info", "trace", "info,kube_client::client=trace"] {
            let lines = Lines::default();
            let written = lines.clone();
            let guard =
                tracing::subscriber::set_default(daemon::log::to(filter, move || Box::new(written.clone())));
            let store = SecretStore::new(server(answer));
            let error = store.authority(&Env::real()).await.err().expect("it cannot be decoded");
            tracing::error!("{}", daemon::sentence(&anyhow::Error::new(error)));
            drop(guard);
            let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
            assert!(text.contains("cannot be decoded"), "{answer}: {text}");
            assert!(!text.contains("hunter2"), "{filter}: {text}");
        }
    }
}
