//! The server for agents on the node itself: HTTP on loopback, with a token.

use std::sync::Arc;

use contract::stream::{REQUEST_HEADERS, StreamRequest, passes};
use http::{HeaderName, HeaderValue, Request, StatusCode, header};
use https::{Answer, Handler, Peer, body};
use hyper::body::Incoming;

use crate::answer::{Body, Reply};
use crate::events;
use crate::handler::Kubelet;
use crate::token::Token;

/// Answers what may be asked there; everything else is not found.
pub(crate) struct LocalServer {
    pub(crate) kubelet: Arc<Kubelet>,
    pub(crate) token: Token,
}

impl Handler for LocalServer {
    async fn handle(&self, request: Request<Incoming>, peer: &Peer) -> Answer {
        let shown = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let shown = shown.and_then(|value| value.strip_prefix("Bearer "));
        if !shown.is_some_and(|shown| self.token.is(shown)) {
            events::denied(self.kubelet.metrics());
            return body::sentence(StatusCode::UNAUTHORIZED, "Unauthorized");
        }
        if let Err(error) = peer.identify("local", false) {
            return body::sentence(StatusCode::TOO_MANY_REQUESTS, error.to_string());
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
        let (_, reply) = self.kubelet.answer(&call, true).await;
        http_answer(reply)
    }
}

fn http_answer(reply: Reply) -> Answer {
    // No other call is answered here.
    let Body::Whole(bytes) = reply.body else {
        return body::sentence(StatusCode::NOT_FOUND, "404 page not found\n");
    };
    let mut answer = Answer::new(body::whole(bytes));
    *answer.status_mut() = StatusCode::from_u16(reply.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    for (name, value) in reply.headers {
        if let (Ok(name), Ok(value)) =
            (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(&value))
        {
            answer.headers_mut().append(name, value);
        }
    }
    answer
}
