//! HTTPS in front of the rules: TLS, credentials, permissions, bodies.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use http::{HeaderValue, Request, Response};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited, StreamBody};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use kubeapi::{Api, BODY_MAX, Body, Failure, Hooks, User};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;

use crate::authority::Gate;
use crate::impersonate::{self, Refused};
use crate::rbac;
use crate::store::SqliteStore;

/// 1,024 connections: a kubectl holds one or two, a node none.
const CONNECTIONS_MAX: usize = 1024;
/// 10 s for a TLS handshake and for the head of a request.
const HEAD_WITHIN: Duration = Duration::from_secs(10);
/// 60 s for the body of a request.
const BODY_WITHIN: Duration = Duration::from_secs(60);
/// 64 KiB: the longest head of a request.
const HEAD_MAX: usize = 64 << 10;

/// What each connection needs.
#[derive(Clone)]
pub(crate) struct Desk {
    pub(crate) api: Api<SqliteStore>,
    pub(crate) gate: Arc<Gate>,
}

/// Accepts until `stop` says so.
pub(crate) async fn serve(
    listener: TcpListener,
    tls: TlsAcceptor,
    desk: Desk,
    mut stop: watch::Receiver<bool>,
) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.wait_for(|stop| *stop) => return,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of descriptors, most often: others have to end first.
                tracing::warn!(%error, "connection not accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let (tls, desk, mut stop) = (tls.clone(), desk.clone(), stop.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = connection(stream, tls, desk) => {}
                _ = stop.wait_for(|stop| *stop) => {}
            }
            drop(place);
        });
    }
}

async fn connection(stream: TcpStream, tls: TlsAcceptor, desk: Desk) {
    // Watches send small lines that should not wait for each other.
    let _ = stream.set_nodelay(true);
    let stream = match tokio::time::timeout(HEAD_WITHIN, tls.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::debug!(%error, "TLS handshake failed"),
        Err(_) => return tracing::debug!("TLS handshake took too long"),
    };
    let service = service_fn(move |request| {
        let desk = desk.clone();
        async move { Ok::<_, Infallible>(desk.answer(request).await) }
    });
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_WITHIN)
        .max_buf_size(HEAD_MAX)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "connection ended");
    }
}

pub(crate) type Reply = Response<UnsyncBoxBody<Bytes, Infallible>>;

impl Desk {
    async fn answer(&self, request: Request<Incoming>) -> Reply {
        let (parts, body) = request.into_parts();
        let open = matches!(parts.uri.path(), "/healthz" | "/livez" | "/readyz" | "/version");
        let header = parts.headers.get(AUTHORIZATION);
        let user = match header.and_then(|value| value.to_str().ok()).and_then(|value| value.split_once(' '))
        {
            Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => {
                self.gate.authenticate(token.trim()).await
            }
            _ if header.is_none() && open => {
                let groups = vec!["system:unauthenticated".to_owned()];
                Some(User { name: "system:anonymous".to_owned(), groups, uid: String::new() })
            }
            _ => None,
        };
        let Some(user) = user else {
            let mut reply = reply(Failure::unauthorized().to_response());
            reply.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            return reply;
        };
        let user = match impersonate::acting(&self.gate, &parts.headers, &user).await {
            Ok(other) => other.unwrap_or(user),
            Err(Refused::Missing(right)) => {
                return reply(Failure::forbidden(rbac::refusal(&user, &right)).to_response());
            }
            Err(Refused::Headers(what)) => {
                return reply(Failure::bad_request(format!("impersonation: {what}")).to_response());
            }
        };
        let wanted = self.api.attributes(&parts);
        if !open && !self.gate.authorize(&user, &wanted).await {
            return reply(Failure::forbidden(rbac::refusal(&user, &wanted)).to_response());
        }
        // One byte more than is taken, so that the rules refuse it in their own words.
        let body = tokio::time::timeout(BODY_WITHIN, Limited::new(body, BODY_MAX).collect()).await;
        let body = match body {
            Ok(Ok(body)) => body.to_bytes(),
            Ok(Err(error)) if error.is::<LengthLimitError>() => Bytes::from(vec![0; BODY_MAX + 1]),
            // Half a body must not be taken for a whole one: a delete without its preconditions, say.
            Ok(Err(_)) | Err(_) => {
                return reply(Failure::bad_request("the request's body did not arrive").to_response());
            }
        };
        reply(self.api.handle(Request::from_parts(parts, body), &user).await)
    }
}

pub(crate) fn reply(response: Response<Body>) -> Reply {
    response.map(|body| match body {
        Body::Whole(bytes) => UnsyncBoxBody::new(Full::new(bytes)),
        Body::Stream(lines) => UnsyncBoxBody::new(StreamBody::new(lines.map(|line| Ok(Frame::data(line))))),
    })
}
