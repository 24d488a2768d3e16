//! The door: HTTP clients call `/<node>/<namespace>/<path>`, and the rule of that path leads them to the node (KubeEdge).

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use beehive::{Clock, Env};
use contract::rule_stream::{BODY_MAX, Header, PUBLISH_MAX, RuleStreamRequest, passes};
use contract::{NodeName, rule_stream};
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use https::body::BodyError;
use https::{Answer, ClientCertificates, Handler, Http, Limits, Peer, Port, Server, Tls, body};
use hyper::body::{Body as _, Incoming};
use nodecalls::{CallError, NodeCalls};
use pki::{Authority, SubjectAltNames};

use crate::error::DoorError;
use crate::events;
use crate::forwarding::{CurrentRules, SharedStatus};
use crate::rest_path::{CalledPath, join};
use crate::rule::RuleAction;
use crate::rule_table::KnownRule;
use crate::tokens::{Callers, Tokens};

/// 365 days of the own CA's certificate; it is made at each start.
const LIFE: Duration = Duration::from_secs(365 * 86_400);
/// 30 s for the body of what is to be published.
const BODY_WITHIN: Duration = Duration::from_secs(30);
/// 4 MiB and 2 s of what a refused caller still sends.
const DISCARDED: usize = 4 << 20;
const DISCARD_WITHIN: Duration = Duration::from_secs(2);
/// 512 connections of callers.
const CALLERS: usize = 512;
/// 5 s until a connection has shown a token.
const TOKEN_WITHIN: Duration = Duration::from_secs(5);
/// 5 s beyond a node's time for the answer to be on its way.
const BEYOND: Duration = Duration::from_secs(5);

/// How the door is made.
#[derive(Clone)]
pub struct DoorSettings {
    /// The port, bound once: it outlives servers that are started anew.
    pub port: Arc<Port>,
    /// How long a call waits for a node.
    pub within: Duration,
    /// TLS; `None`: HTTP without.
    pub tls: Option<Tls>,
    /// Who may call.
    pub(crate) callers: Callers,
}

impl DoorSettings {
    /// By the settings, which have a door. `authority` is the own CA, `alt_names` how this CloudCore is reached. Reads files: before the
    /// hive runs.
    ///
    /// # Errors
    /// See [`DoorError`].
    pub fn open(
        settings: &config::router::Router,
        authority: &Authority,
        alt_names: &SubjectAltNames,
        env: &Env,
    ) -> Result<Self, DoorError> {
        let tls = if settings.plain_http {
            tracing::warn!("modules.router.plainHTTP: tokens and bodies at the door can be read on the way");
            None
        } else {
            Some(certificate(settings, authority, alt_names, env)?)
        };
        let callers = if settings.allow_anonymous {
            tracing::warn!(
                "modules.router.allowAnonymous: whoever reaches the port may call what rules lead to nodes"
            );
            Callers::Anyone
        } else {
            Callers::Holders(Tokens::read(&settings.token_file)?)
        };
        let address =
            (settings.address.parse().unwrap_or(std::net::IpAddr::from([127, 0, 0, 1])), settings.port)
                .into();
        let port = Port::bind(address).map_err(|source| DoorError::Listen { address, source })?;
        tracing::info!(address = %port.address(), "HTTP clients may call what rules lead to nodes");
        let within = Duration::from_secs(settings.rest_timeout.into());
        Ok(DoorSettings { port: Arc::new(port), within, tls, callers })
    }

    /// Where it is.
    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// Reads the tokens again, if they have changed: on a thread that may wait.
    ///
    /// # Errors
    /// [`DoorError::Tokens`].
    pub(crate) fn read_again(&self) -> Result<bool, DoorError> {
        match &self.callers {
            Callers::Anyone => Ok(false),
            Callers::Holders(tokens) => tokens.read_again(),
        }
    }

    /// Serves there.
    pub(crate) fn serve(&self, door: Door, env: &Env) -> std::io::Result<Server> {
        let limits = Limits {
            users: CALLERS,
            connections_per_user: CALLERS,
            credential_within: Some(TOKEN_WITHIN),
            answer_within: Some(self.within + BODY_WITHIN + BEYOND),
            ..Limits::default()
        };
        Server::start(
            "rules",
            &self.port,
            self.tls.clone(),
            limits,
            env.clock(),
            |_| {},
            move || Http::new(door),
        )
    }
}

fn certificate(
    settings: &config::router::Router,
    authority: &Authority,
    alt_names: &SubjectAltNames,
    env: &Env,
) -> Result<Tls, DoorError> {
    let read = |path: &PathBuf| {
        let shown = path.display().to_string();
        std::fs::read_to_string(path).map_err(|source| DoorError::Certificate { path: shown, source })
    };
    let (chain, key) = if settings.tls_cert_file.as_os_str().is_empty() {
        let made = authority.server(alt_names, env.wall(), LIFE, env.random_id());
        let (issued, key) = made.map_err(DoorError::Authority)?;
        (format!("{}{}", issued.pem, authority.cert_pem()), key)
    } else {
        (read(&settings.tls_cert_file)?, read(&settings.tls_private_key_file)?)
    };
    Ok(Tls::also_tls12(&chain, &key, &ClientCertificates::NotAsked)?)
}

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
        if !self.callers.may(request.headers()) {
            events::unauthorized(&self.metrics);
            let words = "show a bearer token of modules.router.tokenFile: Authorization: Bearer TOKEN\n";
            let mut answer = closing(body::sentence(StatusCode::UNAUTHORIZED, words));
            answer.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            return answer;
        }
        if peer.identify("caller", false).is_err() {
            let words = "there are as many callers as are taken: call again later\n";
            return closing(body::sentence(StatusCode::SERVICE_UNAVAILABLE, words));
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
