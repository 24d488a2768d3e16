//! Clients inside this process: their requests go to the rules without a socket.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Limited};
use kubeapi::{Api, BODY_MAX, User};

use crate::answer::reply;
use crate::store::SqliteStore;

/// A client that is `user`.
pub(crate) fn client_of(api: &Api<SqliteStore>, user: User) -> kube::Client {
    let (api, user) = (api.clone(), Arc::new(user));
    let service = tower::service_fn(move |request: Request<kube::client::Body>| {
        let (api, user) = (api.clone(), Arc::clone(&user));
        async move {
            let (parts, body) = request.into_parts();
            let body = Limited::new(body, BODY_MAX + 1).collect().await;
            let body = body.map_or_else(|_| Bytes::from(vec![0; BODY_MAX + 1]), |body| body.to_bytes());
            let response = api.handle(Request::from_parts(parts, body), &user).await;
            Ok::<_, Infallible>(reply(response))
        }
    });
    kube::Client::new(service, "default")
}
