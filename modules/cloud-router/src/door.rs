//! The door: HTTP clients call `/<node>/<namespace>/<path>`, and the rule of that path leads them to the node (KubeEdge).

use std::sync::Arc;
use std::time::Duration;

use beehive::Clock;
use contract::rule_stream::{BODY_MAX, Header, PUBLISH_MAX, RuleStreamRequest, passes};
use contract::{NodeName, rule_stream};
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use https::body::BodyError;
use https::{Answer, Handler, Peer, TooMany, body};
use hyper::body::{Body as _, Incoming};
use nodecalls::{CallError, NodeCalls};

use crate::events;
use crate::forwarding::{CurrentRules, SharedStatus};
use crate::rest_path::{CalledPath, join};
use crate::rule::RuleAction;
use crate::rule_table::KnownRule;
use crate::tokens::Callers;

/// 30 s for the body of what is to be published.
pub(crate) const BODY_WITHIN: Duration = Duration::from_secs(30);
/// 4 MiB and 2 s of what a refused caller still sends.
const DISCARDED: usize = 4 << 20;
const DISCARD_WITHIN: Duration = Duration::from_secs(2);

/// Answers calls.
pub(crate) struct Door {
    pub(crate) callers: Callers,
    pub(crate) rules: CurrentRules,
    pub(crate) status: SharedStatus,
    pub(crate) calls: NodeCalls,
    pub(crate) within: Duration,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) metrics: beehive::Metrics,
}

/// Why a call is not led on, and what of the rule that says.
enum Refused {
    /// Nothing: there is no rule, or the call is none.
    Call(StatusCode, String),
    /// The rule has failed.
    Rule(StatusCode, String),
}

impl Handler for Door {
    async fn handle(&self, request: Request<Incoming>, peer: &Peer) -> Answer {
        let Some(caller) = self.callers.caller(request.headers(), peer.address().ip()) else {
            events::unauthorized(&self.metrics);
            let words = "show a bearer token of modules.router.tokenFile: Authorization: Bearer TOKEN\n";
            let mut answer = closing(body::sentence(StatusCode::UNAUTHORIZED, words));
            answer.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            return answer;
        };
        if let Err(too_many) = peer.identify(&caller, false) {
            let (status, words) = match (too_many, &self.callers) {
                (TooMany::OfOne, Callers::Holders(_)) => (
                    StatusCode::TOO_MANY_REQUESTS,
                    "this token has as many connections as are its share: call on those\n",
                ),
                (TooMany::OfOne, Callers::Anyone) => (
                    StatusCode::TOO_MANY_REQUESTS,
                    "this address has as many connections as are its share: call on those\n",
                ),
                (TooMany::InAll, _) => (
                    StatusCode::SERVICE_UNAVAILABLE,
                    "there are as many callers as are taken: call again later\n",
                ),
            };
            return closing(body::sentence(status, words));
        }
        self.answer(request).await
    }
}

/// The connection ends with this answer: what else was sent on it is not read.
fn closing(mut answer: Answer) -> Answer {
    answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    answer
}

impl Door {
    async fn answer(&self, request: Request<Incoming>) -> Answer {
        let path = request.uri().path().to_owned();
        let not_found = |words: &str| body::sentence(StatusCode::NOT_FOUND, format!("{words}\n"));
        let Some(called) = CalledPath::parse(&path) else {
            return not_found("Request error: call /NODE/NAMESPACE/PATH");
        };
        let Ok(node) = NodeName::parse(called.node) else {
            return not_found("Request error: the first part of the path is no name of a node");
        };
        let table = self.rules.get();
        let Some((rule, rest)) = table.of_call(called) else {
            return match table.is_listed {
                true => not_found("No rule match"),
                false => {
                    body::sentence(StatusCode::SERVICE_UNAVAILABLE, "the rules have not been read yet\n")
                }
            };
        };
        let query = request.uri().query().map(str::to_owned);
        match self.lead_on(&node, rule, (rest, query.as_deref()), request).await {
            Ok(answer) => {
                self.status.with(|status| status.succeeded(&rule.key, &rule.uid));
                answer
            }
            Err(Refused::Call(status, words)) => closing(body::sentence(status, format!("{words}\n"))),
            Err(Refused::Rule(status, words)) => {
                self.status.with(|book| book.failed(&rule.key, &rule.uid, &words));
                closing(body::sentence(status, format!("{words}\n")))
            }
        }
    }

    async fn lead_on(
        &self,
        node: &NodeName,
        rule: &KnownRule,
        (rest, query): (&str, Option<&str>),
        request: Request<Incoming>,
    ) -> Result<Answer, Refused> {
        let name = format!("rule {}/{}", rule.key.namespace, rule.key.name);
        match &rule.action {
            Ok(RuleAction::Publish { topic, .. }) => {
                if request.method() != Method::POST {
                    let words = "this rule publishes what is posted: use POST".to_owned();
                    return Err(Refused::Call(StatusCode::METHOD_NOT_ALLOWED, words));
                }
                let topic = join(topic, rest.trim_end_matches('/'));
                self.publish(node, &name, topic, request.into_body()).await
            }
            Ok(RuleAction::Call { port, target, .. }) => {
                let path = match query {
                    Some(query) => format!("{}?{query}", join(target, rest)),
                    None => join(target, rest),
                };
                self.call(node, &name, (*port, path), request).await
            }
            Ok(_) | Err(_) => Err(Refused::Call(StatusCode::NOT_FOUND, "No rule match".to_owned())),
        }
    }

    async fn publish(
        &self,
        node: &NodeName,
        name: &str,
        topic: String,
        mut sent: Incoming,
    ) -> Result<Answer, Refused> {
        if !rule_stream::may_publish(&topic) {
            return Err(Refused::Call(
                StatusCode::BAD_REQUEST,
                rule_stream::RuleStreamError::Topic.to_string(),
            ));
        }
        let payload = match body::read(&mut sent, PUBLISH_MAX, BODY_WITHIN, &*self.clock).await {
            Ok(payload) => payload,
            Err(error) => {
                let status = match error {
                    BodyError::TooLong => StatusCode::PAYLOAD_TOO_LARGE,
                    BodyError::TooSlow => StatusCode::REQUEST_TIMEOUT,
                    BodyError::BrokenOff => StatusCode::BAD_REQUEST,
                };
                body::discard(sent, DISCARDED, DISCARD_WITHIN, &*self.clock).await;
                let words = format!("{error}: what is published has at most {PUBLISH_MAX} bytes");
                return Err(Refused::Call(status, words));
            }
        };
        let published = self.calls.publish(node, name, (topic, payload), self.within).await;
        published.map_err(|error| refused(&error))?;
        Ok(body::sentence(StatusCode::OK, "message delivered"))
    }

    /// What goes on to the service: neither what is of this connection, nor the caller's token for this door.
    fn passed_headers(&self, request: &Request<Incoming>) -> Vec<Header> {
        let (named, is_token) = (of_connection(request), matches!(self.callers, Callers::Holders(_)));
        let headers = request.headers().iter().filter(|(name, _)| {
            let is_own = is_token && **name == header::AUTHORIZATION;
            passes(name.as_str()) && !is_own && !named.iter().any(|of| of == name.as_str())
        });
        headers.map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_vec())).collect()
    }

    async fn call(
        &self,
        node: &NodeName,
        name: &str,
        (port, path): (u16, String),
        request: Request<Incoming>,
    ) -> Result<Answer, Refused> {
        if request.body().size_hint().lower() > BODY_MAX {
            let words = format!("the body has more than {BODY_MAX} bytes");
            return Err(Refused::Call(StatusCode::PAYLOAD_TOO_LARGE, words));
        }
        let method = request.method().as_str().to_owned();
        let asked = RuleStreamRequest::Call { port, method, path, headers: self.passed_headers(&request) };
        asked.check().map_err(|error| Refused::Call(StatusCode::BAD_REQUEST, error.to_string()))?;
        let answered = self.calls.call_service(node, name, (asked, request.into_body()), self.within).await;
        let answered = answered.map_err(|error| refused(&error))?;
        let mut answer = Response::new(answered.body);
        *answer.status_mut() = StatusCode::from_u16(answered.head.status).unwrap_or(StatusCode::BAD_GATEWAY);
        for (name, value) in answered.head.headers {
            if let (Ok(name), Ok(value)) =
                (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_bytes(&value))
            {
                answer.headers_mut().append(name, value);
            }
        }
        Ok(answer)
    }
}

/// The names in `Connection`: headers of this connection alone.
fn of_connection(request: &Request<Incoming>) -> Vec<String> {
    let named = request
        .headers()
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|name| name.trim().to_ascii_lowercase());
    named.collect()
}

/// In KubeEdge's words where it has some.
fn refused(error: &CallError) -> Refused {
    match error {
        CallError::Late { .. } => {
            Refused::Rule(StatusCode::REQUEST_TIMEOUT, format!("wait to get response time out: {error}"))
        }
        CallError::NotLinked(node) => {
            let words = format!(
                "node `{node}` has no link to this CloudCore: it is offline, or another CloudCore has it, to which this one does not lead on"
            );
            Refused::Rule(StatusCode::SERVICE_UNAVAILABLE, words)
        }
        error => Refused::Rule(error.status(), error.to_string()),
    }
}
