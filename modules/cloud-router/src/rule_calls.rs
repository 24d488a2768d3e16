//! Calls of rules from `rest`: `/<node>/<namespace>/<path>`, and the rule of that path leads them to the node (KubeEdge), or to the
//! CloudCore that has it.

use std::sync::Arc;
use std::time::Duration;

use beehive::Clock;
use contract::rule_stream::{BODY_MAX, Header, PUBLISH_MAX, RuleStreamRequest, passes};
use contract::{NodeName, rule_stream};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header, request};
use http_body_util::{Either, Full};
use https::body::BodyError;
use https::{Answer, body};
use hyper::body::{Body as _, Incoming};
use nodecalls::{CallError, NodeCalls};

use crate::capped_body::CappedBody;
use crate::forwarding::{CurrentRules, SharedStatus};
use crate::peer_client::{PassedBody, PassedCall};
use crate::peer_plan::{self, PassError, Place};
use crate::peers::{Passed, Peers};
use crate::rest_path::{CalledPath, join};
use crate::rule::RuleAction;
use crate::rule_table::KnownRule;

/// 30 s for the body of what is to be published.
pub(crate) const BODY_WITHIN: Duration = Duration::from_secs(30);
/// 1 s after which a call is worth to be tried again that was not made.
const AGAIN_AFTER: &str = "1";
/// 4 MiB and 2 s of what a refused caller still sends.
const DISCARDED: usize = 4 << 20;
const DISCARD_WITHIN: Duration = Duration::from_secs(2);

/// Makes calls. Its clones are one.
#[derive(Clone)]
pub(crate) struct RuleCalls {
    pub(crate) rules: CurrentRules,
    pub(crate) status: SharedStatus,
    pub(crate) calls: NodeCalls,
    pub(crate) clock: Arc<dyn Clock>,
}

/// Whose call it is.
pub(crate) struct Caller<'a> {
    /// Whether `Authorization` is a credential of the door's, and not the service's.
    pub(crate) shows_token: bool,
    /// How long the node has.
    pub(crate) within: Duration,
    /// To whom it is passed on if the node is not linked here; `None`: to nobody, as what was passed on already.
    pub(crate) peers: Option<&'a Peers>,
    /// Whether another CloudCore has passed it on.
    pub(crate) is_passed_on: bool,
}

/// A call that was not led to a node, and what its caller hears.
pub(crate) struct Refusal {
    pub(crate) answer: Answer,
    /// Whether the node is not linked here: it may be elsewhere.
    pub(crate) is_moved: bool,
    /// Whether something of the call may not have been read: nothing else comes on its connection.
    pub(crate) ends_connection: bool,
}

/// Why a call is not led on, and what of the rule that says.
enum Refused {
    /// Nothing: there is no rule, or the call is none.
    Call(StatusCode, String),
    /// The rule has failed.
    Rule(StatusCode, String),
    /// The rule has failed here and now, and nothing was done: it may be tried again.
    Now(String),
    /// The node has no link here.
    Elsewhere(String),
    /// Another CloudCore has refused it, and has counted that.
    There(Answer),
    /// The same, and it has not: the node has gone on.
    Moved(Answer),
}

/// How a call was answered.
enum Answered {
    /// From here: it is counted.
    Here(Answer),
    /// By another CloudCore, which has counted it.
    There(Answer),
}

/// A call to a rule that takes it.
struct Taken<'a> {
    node: &'a NodeName,
    /// As the nodes' logs name it.
    rule: String,
    caller: &'a Caller<'a>,
}

impl RuleCalls {
    /// Answers a call of whoever may make it.
    pub(crate) async fn answer(
        &self,
        request: Request<Incoming>,
        caller: &Caller<'_>,
    ) -> Result<Answer, Refusal> {
        let path = request.uri().path().to_owned();
        let unread = |status, words: &str| Refusal { ends_connection: false, ..refusal(status, words) };
        let not_found = |words: &str| unread(StatusCode::NOT_FOUND, words);
        let Some(called) = CalledPath::parse(&path) else {
            return Err(not_found("Request error: call /NODE/NAMESPACE/PATH"));
        };
        let Ok(node) = NodeName::parse(called.node) else {
            return Err(not_found("Request error: the first part of the path is no name of a node"));
        };
        let table = self.rules.get();
        let Some((rule, rest)) = table.of_call(called) else {
            return Err(match table.is_listed {
                true => not_found("No rule match"),
                false => unread(StatusCode::SERVICE_UNAVAILABLE, "the rules have not been read yet"),
            });
        };
        let taken =
            Taken { node: &node, rule: format!("rule {}/{}", rule.key.namespace, rule.key.name), caller };
        let failed = |words: &str| self.status.with(|book| book.failed(&rule.key, &rule.uid, words));
        match self.lead_on(&taken, rule, rest, request).await {
            Ok(Answered::Here(answer)) => {
                self.status.with(|status| status.succeeded(&rule.key, &rule.uid));
                Ok(answer)
            }
            Ok(Answered::There(answer)) => Ok(answer),
            Err(Refused::Call(status, words)) => Err(refusal(status, &words)),
            Err(Refused::Rule(status, words)) => {
                failed(&words);
                Err(refusal(status, &words))
            }
            Err(Refused::Now(words)) => {
                failed(&words);
                Err(again(refusal(StatusCode::SERVICE_UNAVAILABLE, &words)))
            }
            Err(Refused::Elsewhere(words)) => {
                // Of what was passed on the one that did so counts it.
                if !caller.is_passed_on {
                    failed(&words);
                }
                let refused = refusal(StatusCode::SERVICE_UNAVAILABLE, &words);
                Err(Refusal { is_moved: true, ..if caller.is_passed_on { again(refused) } else { refused } })
            }
            Err(Refused::There(answer)) => Err(of_answer(answer)),
            Err(Refused::Moved(answer)) => {
                failed(&format!("node `{node}` has gone on to another CloudCore with the call on its way"));
                Err(of_answer(answer))
            }
        }
    }

    async fn lead_on(
        &self,
        taken: &Taken<'_>,
        rule: &KnownRule,
        rest: &str,
        request: Request<Incoming>,
    ) -> Result<Answered, Refused> {
        match &rule.action {
            Ok(RuleAction::Publish { topic, .. }) => {
                if request.method() != Method::POST {
                    let words = "this rule publishes what is posted: use POST".to_owned();
                    return Err(Refused::Call(StatusCode::METHOD_NOT_ALLOWED, words));
                }
                let topic = join(topic, rest.trim_end_matches('/'));
                self.publish(taken, topic, request).await
            }
            Ok(RuleAction::Call { port, target, .. }) => {
                let path = match request.uri().query() {
                    Some(query) => format!("{}?{query}", join(target, rest)),
                    None => join(target, rest),
                };
                self.call(taken, (*port, path), request).await
            }
            Ok(_) | Err(_) => Err(Refused::Call(StatusCode::NOT_FOUND, "No rule match".to_owned())),
        }
    }

    async fn publish(
        &self,
        taken: &Taken<'_>,
        topic: String,
        request: Request<Incoming>,
    ) -> Result<Answered, Refused> {
        if !rule_stream::may_publish(&topic) {
            return Err(Refused::Call(
                StatusCode::BAD_REQUEST,
                rule_stream::RuleStreamError::Topic.to_string(),
            ));
        }
        let (head, mut sent) = request.into_parts();
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
        let Taken { node, rule, caller } = taken;
        if !self.calls.is_linked(node) {
            let body = (Either::Left(Full::new(payload)), PUBLISH_MAX as u64);
            return pass_on(taken, &head, body, &*self.clock).await;
        }
        let published = self.calls.publish(node, rule, (topic, payload), caller.within).await;
        published.map_err(|error| refused(&error))?;
        Ok(Answered::Here(body::sentence(StatusCode::OK, "message delivered")))
    }

    async fn call(
        &self,
        taken: &Taken<'_>,
        (port, path): (u16, String),
        request: Request<Incoming>,
    ) -> Result<Answered, Refused> {
        if request.body().size_hint().lower() > BODY_MAX {
            return Err(too_long(BODY_MAX));
        }
        let Taken { node, rule, caller } = taken;
        let (head, sent) = request.into_parts();
        let method = head.method.as_str().to_owned();
        let headers = passed_headers(&head.headers, caller)
            .map(|(name, value)| -> Header { (name.as_str().to_owned(), value.as_bytes().to_vec()) });
        let asked = RuleStreamRequest::Call { port, method, path, headers: headers.collect() };
        asked.check().map_err(|error| Refused::Call(StatusCode::BAD_REQUEST, error.to_string()))?;
        if !self.calls.is_linked(node) {
            let body = (Either::Right(CappedBody::new(sent, BODY_MAX)), BODY_MAX);
            return pass_on(taken, &head, body, &*self.clock).await;
        }
        let answered = self.calls.call_service(node, rule, (asked, sent), caller.within).await;
        let answered = answered.map_err(|error| refused(&error))?;
        let mut answer = Response::new(answered.body);
        *answer.status_mut() = StatusCode::from_u16(answered.head.status).unwrap_or(StatusCode::BAD_GATEWAY);
        for (name, value) in answered.head.headers {
            if let (Ok(name), Ok(value)) =
                (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_bytes(&value))
                && !peer_plan::is_own(&name)
            {
                answer.headers_mut().append(name, value);
            }
        }
        Ok(Answered::Here(answer))
    }
}

/// Passes a call on whose node has no link here, once.
async fn pass_on(
    taken: &Taken<'_>,
    head: &request::Parts,
    (body, most): (PassedBody, u64),
    clock: &dyn Clock,
) -> Result<Answered, Refused> {
    let Taken { node, caller, .. } = taken;
    let began = clock.now();
    let Some(peers) = caller.peers else { return Err(elsewhere(node, caller)) };
    let peer = match peers.place(node).await {
        Ok(Place::Peer(peer)) => peer,
        Ok(Place::Nowhere) => {
            return Err(Refused::Elsewhere(format!(
                "node `{node}` has no link to this CloudCore, and no other one has it: it is offline, or there is none of that name"
            )));
        }
        Ok(Place::Closed { cloudcore }) => {
            return Err(Refused::Elsewhere(format!(
                "node `{node}` is with CloudCore `{cloudcore}`, which takes no calls from others: it is of an earlier release, or modules.router.enable, peers.port or peers.address is not set there"
            )));
        }
        Err(why) => {
            return Err(Refused::Now(format!(
                "node `{node}` has no link to this CloudCore, and which other one has it cannot be found out now ({why})"
            )));
        }
    };
    let mut headers = HeaderMap::new();
    for (name, value) in passed_headers(&head.headers, caller) {
        headers.append(name, value.clone());
    }
    let path = head.uri.path_and_query().map(ToString::to_string).unwrap_or_default();
    let call = PassedCall { method: head.method.clone(), path, headers, body, most };
    // What finding it out took is of the call's time.
    let left = peer_plan::left(caller.within, began, clock.now());
    let left = left.ok_or_else(|| of_pass(&PassError::Late { peer: peer.clone(), within: caller.within }))?;
    match peers.pass((*node, &peer), call, left).await {
        Ok(Passed::Answer(answer)) => Ok(Answered::There(without_own(answer))),
        Ok(Passed::Refused(answer)) => Err(Refused::There(without_own(answer))),
        Ok(Passed::Moved(answer)) => Err(Refused::Moved(without_own(answer))),
        Err(error) => Err(of_pass(&error)),
    }
}

/// Headers of a connection stay on it, and ours with whom they are for.
fn without_own(mut answer: Answer) -> Answer {
    let foreign: Vec<HeaderName> = answer
        .headers()
        .keys()
        .filter(|name| !passes(name.as_str()) || peer_plan::is_own(name))
        .cloned()
        .collect();
    for name in foreign {
        answer.headers_mut().remove(name);
    }
    answer
}

/// What goes on to the service: neither what is of this connection or of CloudCores among themselves, nor the caller's token for this
/// door.
fn passed_headers<'a>(
    headers: &'a HeaderMap,
    caller: &Caller<'_>,
) -> impl Iterator<Item = (&'a HeaderName, &'a HeaderValue)> {
    let (named, shows_token) = (of_connection(headers), caller.shows_token);
    headers.iter().filter(move |(name, _)| {
        let is_token = shows_token && **name == header::AUTHORIZATION;
        let is_named = named.iter().any(|of| of == name.as_str());
        passes(name.as_str()) && !is_token && !is_named && !peer_plan::is_own(name)
    })
}

/// The names in `Connection`: headers of this connection alone.
fn of_connection(headers: &HeaderMap) -> Vec<String> {
    let named = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|name| name.trim().to_ascii_lowercase());
    named.collect()
}

fn refusal(status: StatusCode, words: &str) -> Refusal {
    of_answer(body::sentence(status, format!("{words}\n")))
}

fn of_answer(answer: Answer) -> Refusal {
    Refusal { answer, is_moved: false, ends_connection: true }
}

/// Nothing was done, and it may be tried again.
fn again(mut refusal: Refusal) -> Refusal {
    refusal.answer.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static(AGAIN_AFTER));
    refusal
}

fn too_long(most: u64) -> Refused {
    Refused::Call(StatusCode::PAYLOAD_TOO_LARGE, format!("the body has more than {most} bytes"))
}

fn elsewhere(node: &NodeName, caller: &Caller<'_>) -> Refused {
    Refused::Elsewhere(if caller.is_passed_on {
        format!("node `{node}` is not linked to the CloudCore any more that its Lease named: try again")
    } else {
        format!(
            "node `{node}` has no link to this CloudCore: it is offline, or another CloudCore has it, to which this one passes nothing on (modules.router.peers.port is 0)"
        )
    })
}

fn of_pass(error: &PassError) -> Refused {
    let (status, words) = error.answer();
    match error {
        PassError::Unreached { .. } => Refused::Now(words),
        PassError::TooLong { .. } => Refused::Call(status, words),
        PassError::Lost { .. } | PassError::Late { .. } => Refused::Rule(status, words),
    }
}

/// In KubeEdge's words where it has some.
fn refused(error: &CallError) -> Refused {
    match error {
        CallError::Late { .. } => {
            Refused::Rule(StatusCode::REQUEST_TIMEOUT, format!("wait to get response time out: {error}"))
        }
        // It was linked a moment ago.
        CallError::NotLinked(node) => Refused::Elsewhere(format!(
            "node `{node}` has lost its link to this CloudCore: try again when the node is Ready"
        )),
        error => Refused::Rule(error.status(), error.to_string()),
    }
}
