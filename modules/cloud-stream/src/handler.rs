//! A call at a port: who, may he, and on to the node. In a kubelet's order, with its words.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use beehive::{Fault, Metrics};
use contract::NodeName;
use http::{HeaderMap, HeaderValue, Request, StatusCode, header};
use https::{Answer, Handler, Peer, body};
use hyper::body::Incoming;
use nodecalls::{Call, Needs, NodeCalls, Route, route, upgrade_refusal};

use crate::credentials::{self, User};
use crate::endpoint::OpenPorts;
use crate::error::ReviewError;
use crate::events;
use crate::plan;
use crate::reach::Arrived;
use crate::reviews::Reviews;

/// Which node each open port is of.
#[derive(Clone, Default)]
pub(crate) struct NodesByPort(Arc<RwLock<BTreeMap<u16, NodeName>>>);

impl OpenPorts for NodesByPort {
    fn opened(&self, port: u16, node: &NodeName) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(port, node.clone());
    }

    fn closed(&self, port: u16) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).remove(&port);
    }
}

impl NodesByPort {
    fn node(&self, port: u16) -> Option<NodeName> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(&port).cloned()
    }
}

/// Who asks, and how he has shown it.
struct Caller {
    user: User,
    by_certificate: bool,
}

/// Answers at all ports.
pub(crate) struct KubeletHandler {
    pub(crate) nodes: NodesByPort,
    pub(crate) reviews: Arc<Reviews>,
    pub(crate) calls: NodeCalls,
    pub(crate) metrics: Metrics,
    /// As whom API servers come.
    pub(crate) api_servers: Vec<String>,
    /// How many calls of API servers have come in.
    pub(crate) arrived: Arrived,
}

impl Handler for KubeletHandler {
    async fn handle(&self, request: Request<Incoming>, peer: &Peer) -> Answer {
        match self.decide(&request, peer).await {
            Ok((node, caller)) => {
                let target = request.uri().path_and_query().map(ToString::to_string).unwrap_or_default();
                let user = caller.user.name.as_str();
                let speaks_for_himself = !self.is_api_server(&caller);
                if !speaks_for_himself {
                    self.arrived.fetch_add(1, Ordering::SeqCst);
                }
                let call = Call { node: &node, target: &target, user, speaks_for_himself };
                self.calls.call(call, request, peer).await
            }
            Err(refusal) if nodecalls::is_upgrade(request.headers()) => upgrade_refusal(refusal).await,
            Err(refusal) => refusal,
        }
    }
}

impl KubeletHandler {
    /// The node that is to answer, and who asks; or the refusal.
    async fn decide(&self, request: &Request<Incoming>, peer: &Peer) -> Result<(NodeName, Caller), Answer> {
        let path = request.uri().path();
        let needs = match route::route(request.method(), path) {
            Route::Unknown => return Err(body::sentence(StatusCode::NOT_FOUND, "404 page not found\n")),
            Route::Moved(to) => return Err(moved(to)),
            Route::Node(needs) => needs,
        };
        let Some(node) = self.nodes.node(peer.port().port()) else {
            let words = "this port is no node's any more: its link has ended\n";
            return Err(closing(body::sentence(StatusCode::SERVICE_UNAVAILABLE, words)));
        };
        let Some(caller) = self.authenticate(request.headers(), peer, &node).await? else {
            events::unauthenticated(&self.metrics, &node, path);
            return Err(closing(body::sentence(StatusCode::UNAUTHORIZED, "Unauthorized")));
        };
        // Whoever may not stays a stranger, and goes: a place among the callers is for those who may something here.
        self.authorize(&caller.user, &node, &needs, path).await?;
        if peer.identify(&caller.user.name, self.is_api_server(&caller)).is_err() {
            let words =
                format!("user `{}` has too many connections: close one, then try again\n", caller.user.name);
            return Err(closing(body::sentence(StatusCode::TOO_MANY_REQUESTS, words)));
        }
        Ok((node, caller))
    }

    fn is_api_server(&self, caller: &Caller) -> bool {
        plan::is_api_server(&caller.user, caller.by_certificate, &self.api_servers)
    }

    /// By certificate, else by token, as a kubelet tries them.
    async fn authenticate(
        &self,
        headers: &HeaderMap,
        peer: &Peer,
        node: &NodeName,
    ) -> Result<Option<Caller>, Answer> {
        if let Some(user) = peer.certificate().and_then(|der| User::of_certificate(der)) {
            return Ok(Some(Caller { user, by_certificate: true }));
        }
        for token in credentials::tokens(headers) {
            match self.reviews.user_of(&token, peer.address().ip()).await {
                Ok(Some(user)) => return Ok(Some(Caller { user, by_certificate: false })),
                Ok(None) => {}
                Err(ReviewError::TooManyTokens(wait)) => {
                    events::too_many_tokens(&self.metrics, node);
                    return Err(closing(too_many_tokens(wait)));
                }
                Err(error) => events::review_failed(&self.metrics, node, &Fault::from_error(&error).reason),
            }
        }
        Ok(None)
    }

    async fn authorize(&self, user: &User, node: &NodeName, needs: &Needs, path: &str) -> Result<(), Answer> {
        match self.reviews.may(user, node, needs).await {
            Ok(true) => Ok(()),
            Ok(false) => {
                events::forbidden(&self.metrics, node, &user.name, path);
                Err(closing(body::sentence(StatusCode::FORBIDDEN, plan::forbidden(&user.name, needs))))
            }
            Err((subresource, error)) => {
                events::review_failed(&self.metrics, node, &Fault::from_error(&error).reason);
                let words = plan::not_authorized(&user.name, needs.verb, subresource);
                Err(body::sentence(StatusCode::INTERNAL_SERVER_ERROR, words))
            }
        }
    }
}

fn too_many_tokens(wait: Duration) -> Answer {
    let words = "too many tokens from your address are not known: wait, then try again with a good one\n";
    let mut answer = body::sentence(StatusCode::TOO_MANY_REQUESTS, words);
    answer.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(wait.as_secs() + 1));
    answer
}

fn moved(to: &'static str) -> Answer {
    let mut answer = body::sentence(StatusCode::MOVED_PERMANENTLY, "");
    answer.headers_mut().insert(header::LOCATION, HeaderValue::from_static(to));
    answer
}

/// The connection ends with this answer: what else was sent on it is not read.
fn closing(mut answer: Answer) -> Answer {
    answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    answer
}
