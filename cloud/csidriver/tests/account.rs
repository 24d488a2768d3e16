//! As whom `csidriver` calls the API server.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::cell::RefCell;
use std::convert::Infallible;
use std::path::Path;
use std::rc::Rc;

use csidriver::api_client;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use prost::bytes::Bytes;
use tokio::net::TcpListener;

/// An account whose token is in this file.
fn account(token_file: &Path) -> kube::Config {
    let mut account = kube::Config::new("http://127.0.0.1:1".parse().unwrap());
    account.auth_info.token_file = Some(token_file.display().to_string());
    account
}

#[actix_rt::test]
async fn a_token_file_that_ends_with_its_line_is_shown_as_the_token() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    // As editors and `kubectl create token > FILE` write it.
    std::fs::write(&file, "abc.def\n").unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let shown = Rc::new(RefCell::new(Vec::new()));
    let seen = Rc::clone(&shown);
    actix_rt::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let seen = Rc::clone(&seen);
            let service = service_fn(move |request: hyper::Request<Incoming>| {
                let header = request.headers().get("authorization").cloned();
                seen.borrow_mut().push(header.map(|header| header.to_str().unwrap().to_owned()));
                async { Ok::<_, Infallible>(hyper::Response::new(Full::new(Bytes::from("{}")))) }
            });
            actix_rt::spawn(async move {
                // How it ends is its client's business.
                let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    let client = api_client(account(&file), &url).unwrap();
    let request = http::Request::post("/api/v1/nodes/edge-1/proxy/x").body(Vec::<u8>::new().into()).unwrap();
    assert_eq!(client.send(request).await.unwrap().status(), 200);
    assert_eq!(*shown.borrow(), [Some("Bearer abc.def".to_owned())]);
}

#[actix_rt::test]
async fn a_token_file_that_holds_none_is_named_before_anybody_is_asked() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    for text in ["", "two\nlines\n"] {
        std::fs::write(&file, text).unwrap();
        let error = api_client(account(&file), "http://127.0.0.1:1").map(drop).unwrap_err();
        let error = format!("{error:#}");
        assert!(
            error.contains(&file.display().to_string()) && error.contains("kubectl create token"),
            "{error}"
        );
    }
}
