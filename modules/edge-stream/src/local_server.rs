//! The servers for agents on the node itself: HTTP on loopback, with a token, and at a Unix socket that only the node's user opens.

use std::io;
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::time::Duration;

use beehive::Env;
use contract::device_call;
use contract::stream::{REQUEST_HEADERS, StreamRequest, passes};
use http::{HeaderValue, Method, Request, StatusCode, header};
use https::{Answer, Handler, Http1, Limits, Peer, Port, Server, body};
use hyper::body::Incoming;

use crate::budget::Origin;
use crate::error::SOON_SECONDS;
use crate::events;
use crate::handler::Kubelet;
use crate::http_reply::http_answer;
use crate::method_calls;
use crate::node_calls;
use crate::page_calls;
use crate::release::{self, Release};
use crate::token::Token;

/// 60 s for an answer to an agent: a runtime that is busy takes its time with statistics.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);
/// 10 s for the few bytes of a body.
const BODY_WITHIN: Duration = Duration::from_secs(10);
/// 64 connections of agents.
const AGENTS: usize = 64;
/// 256 connections beside that have not shown the token: as many may come while an agent is about to show it.
const STRANGERS: usize = 256;
/// 2 s until a connection has shown it. The way is none.
const TOKEN_WITHIN: Duration = Duration::from_secs(2);

/// Answers what may be asked there; everything else is not found.
pub(crate) struct LocalServer {
    pub(crate) kubelet: Arc<Kubelet>,
    /// `None`: whoever has come so far may ask.
    pub(crate) token: Option<Token>,
}

impl LocalServer {
    /// Serves at the port.
    pub(crate) fn at_port(self, port: &Port, env: &Env) -> io::Result<Server> {
        let handler = move || Http1::new(self);
        Server::start("kubelet", port, None, limits(), env.clock(), |_| {}, handler)
    }

    /// Serves at a socket.
    pub(crate) fn at_socket(self, socket: UnixListener, env: &Env) -> io::Result<Server> {
        let handler = move || Http1::new(self);
        Server::start_at_socket("kubelet", socket, limits(), env.clock(), |_| {}, handler)
    }
}

fn limits() -> Limits {
    Limits {
        strangers: STRANGERS,
        // All of them come from loopback.
        strangers_per_address: STRANGERS,
        users: AGENTS,
        connections_per_user: AGENTS,
        credential_within: Some(TOKEN_WITHIN),
        answer_within: Some(ANSWER_WITHIN),
        ..Limits::default()
    }
}

impl Handler for LocalServer {
    async fn handle(&self, request: Request<Incoming>, peer: &Peer) -> Answer {
        let shown = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let shown = shown.and_then(|value| value.strip_prefix("Bearer "));
        if self.token.as_ref().is_some_and(|token| !shown.is_some_and(|shown| token.is(shown))) {
            events::denied(self.kubelet.metrics());
            return closing(body::sentence(StatusCode::UNAUTHORIZED, "Unauthorized"));
        }
        if peer.identify("local", false).is_err() {
            // It had to make way for a newer one, or other agents have all places: no fault of this one's.
            let text = "the node has as many connections of agents as it takes; try again later";
            let mut answer = body::sentence(StatusCode::SERVICE_UNAVAILABLE, text);
            answer.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static(SOON_SECONDS));
            return closing(answer);
        }
        if let Some(release) = release::of_request(request.method().as_str(), request.uri().path()) {
            return self.release(release, request.into_body()).await;
        }
        let page = page_calls::of_request(request.method().as_str(), request.uri().path());
        // Who reads figures at the port is not therefore who may see the page.
        if let (Some(call), None) = (page, &self.token) {
            return page_calls::answer(self.kubelet.page.as_ref(), call).await;
        }
        let target = request.uri().path_and_query().map_or("/", |target| target.as_str());
        // Nor reads what containers say, or has pods begin again.
        if let (Some(call), None) = (node_calls::of_request(request.method().as_str(), target), &self.token) {
            return node_calls::answer(&self.kubelet, call, request).await;
        }
        let device =
            device_call::device_of(request.uri().path()).filter(|_| request.method() == Method::POST);
        // Who reads figures at the port with the token does not move devices by it.
        if let (Some(device), None) = (device, &self.token) {
            let (twin, clock) = (self.kubelet.twin.as_ref(), self.kubelet.clock());
            let (status, said) = method_calls::answer(twin, device, request.into_body(), clock).await;
            return body::answer(status, "application/json", said.to_string());
        }
        let headers = request.headers().iter().filter_map(|(name, value)| {
            let (name, value) = (name.as_str().to_owned(), value.to_str().ok()?.to_owned());
            passes(REQUEST_HEADERS, &name, &value).then_some((name, value))
        });
        let call = StreamRequest {
            method: request.method().as_str().to_owned(),
            target: request.uri().path_and_query().map_or("/", |target| target.as_str()).to_owned(),
            headers: headers.collect(),
            user: "local".to_owned(),
        };
        let (_, reply) = self.kubelet.answer(&call, Origin::Local).await;
        http_answer(reply)
    }
}

impl LocalServer {
    async fn release(&self, release: Release, mut text: Incoming) -> Answer {
        let clock = self.kubelet.clock();
        let read = body::read(&mut text, release::BODY_MAX, BODY_WITHIN, &**clock).await;
        let Ok(bytes) = read else {
            return closing(body::sentence(
                StatusCode::BAD_REQUEST,
                "the body is no NAMESPACE/NAME of a pod",
            ));
        };
        let (status, said) =
            self.kubelet.release(release, String::from_utf8_lossy(&bytes).into_owned()).await;
        body::sentence(status, said)
    }
}

/// The connection ends with the answer: its place is for others.
fn closing(mut answer: Answer) -> Answer {
    answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    answer
}
