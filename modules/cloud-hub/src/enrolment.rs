//! Enrolment: KubeEdge's paths, capped bodies, sentences for people. Who asks shows a credential before his body is read.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use beehive::{Clock, Fault};
use contract::NodeName;
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Body, Bytes, Incoming};
use noderegistry::{Certificate, NotEnrolled, Refusal, Registry, RegistryError, Ticket, plan};
use pki::{Authority, CSR_MAX, TokenKey};

use crate::https::Visit;

/// 1 s for what a refused client still sends: without it the answer could be lost on the way.
const DRAIN: Duration = Duration::from_secs(1);

/// What enrolment decides with.
pub struct Enrolment {
    /// The CA.
    pub authority: Authority,
    /// The key of the join tokens.
    pub token_key: TokenKey,
    /// Who is a node of ours.
    pub registry: Registry,
    /// How long a node's certificate lives.
    pub certificate_life: Duration,
    /// How old a token may become, whatever end stands in it.
    pub token_life: Duration,
}

/// The same, with what the server's thread needs of the environment.
pub(crate) struct Desk {
    pub(crate) enrolment: Enrolment,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) serials: Box<dyn Fn() -> [u8; 16] + Send + Sync>,
}

type Answer = Response<Full<Bytes>>;

/// A refusal: what is answered instead.
struct Sentence(StatusCode, String);

impl Sentence {
    fn answer(self) -> Answer {
        answer(self.0, "text/plain; charset=utf-8", Bytes::from(self.1))
    }

    fn of(refusal: &Refusal) -> Self {
        let status = match refusal {
            Refusal::NameTaken(_) => StatusCode::CONFLICT,
            Refusal::TokenWithdrawn
            | Refusal::OddToken
            | Refusal::TokenExpired
            | Refusal::TokenSpent(_)
            | Refusal::TokenOfAnotherName(_) => StatusCode::UNAUTHORIZED,
            Refusal::NothingToGiveBack(_) => StatusCode::NOT_FOUND,
            Refusal::Barred(_)
            | Refusal::NeedsBoundToken(_)
            | Refusal::Foreign(_)
            | Refusal::Deleted(_)
            | Refusal::NodeEnding(_)
            | Refusal::NameEnding(_)
            | Refusal::OddName(_)
            | Refusal::NotRegistered(_)
            | Refusal::NotLiving(_) => StatusCode::FORBIDDEN,
        };
        Sentence(status, refusal.to_string())
    }

    fn too_often(what: &str, wait: Duration) -> Self {
        let seconds = wait.as_secs().saturating_add(1);
        let words = format!("too many requests with this {what}: wait {seconds} s, then try again");
        Sentence(StatusCode::TOO_MANY_REQUESTS, words)
    }

    fn unavailable(error: &RegistryError) -> Self {
        let reason = Fault::from_error(error).reason;
        tracing::error!(%reason, "enrolment failed");
        let words = "the cloud cannot look into its register now: try again, or see CloudCore's log";
        Sentence(StatusCode::SERVICE_UNAVAILABLE, words.to_owned())
    }

    fn not_enrolled(error: &NotEnrolled) -> Self {
        match error {
            NotEnrolled::Refused(refusal) => Sentence::of(refusal),
            NotEnrolled::Unavailable(error) => Sentence::unavailable(error),
        }
    }
}

fn answer(status: StatusCode, kind: &'static str, body: Bytes) -> Answer {
    let mut answer = Response::new(Full::new(body));
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    answer
}

impl Visit {
    /// Answers the one request of a connection on which this certificate was shown.
    pub(crate) async fn answer(&self, request: Request<Incoming>, shown: Option<&[u8]>) -> Answer {
        let (head, mut body) = request.into_parts();
        let outcome = match (head.uri.path(), &head.method) {
            ("/ca.crt", &Method::GET) => Ok(self.desk().enrolment.authority.cert_der().to_vec()),
            ("/edge.crt", &Method::GET) => self.enrol(&head.headers, &mut body).await,
            ("/edge.crt", &Method::DELETE) => match self.release(shown).await {
                Ok(words) => return Sentence(StatusCode::OK, words).answer(),
                Err(refused) => Err(refused),
            },
            ("/ca.crt" | "/edge.crt", _) => {
                let words = "enrolment knows GET /ca.crt, GET /edge.crt and DELETE /edge.crt";
                Err(Sentence(StatusCode::METHOD_NOT_ALLOWED, words.to_owned()))
            }
            _ => {
                let words = "nothing is here: enrolment has /ca.crt and /edge.crt";
                Err(Sentence(StatusCode::NOT_FOUND, words.to_owned()))
            }
        };
        match outcome {
            Ok(der) => answer(StatusCode::OK, "application/octet-stream", der.into()),
            Err(refused) => {
                self.drain(body).await;
                refused.answer()
            }
        }
    }

    async fn enrol(&self, headers: &HeaderMap, body: &mut Incoming) -> Result<Vec<u8>, Sentence> {
        let Desk { enrolment, clock, serials } = self.desk();
        let now = clock.wall();
        let now_unix = unix(now);
        let (node, ticket, token) = self.credential(headers, now_unix).await?;
        self.trust();
        let csr = csr(body).await?;
        let life = enrolment.certificate_life;
        let issued = enrolment.authority.sign_node(&csr, node.as_str(), now, life, serials());
        let issued =
            issued.map_err(|error| Sentence(StatusCode::BAD_REQUEST, Fault::from_error(&error).reason))?;
        self.begin_work();
        // The certificate leaves only after its name is in the register.
        let certificate =
            Certificate { serial: issued.serial.clone(), not_after_unix: unix(issued.not_after) };
        let order = noderegistry::Enrolment { ticket, token: Some(token), node, certificate, now_unix };
        enrolment.registry.enrol(&order).await.map_err(|error| Sentence::not_enrolled(&error))?;
        let (node, token) = (&order.node, &order.ticket.id);
        tracing::info!(%node, serial = issued.serial, token, "node enrolled");
        Ok(issued.der)
    }

    /// Who asks, by his token: its signature, its end, and that its object is there and has a use left.
    async fn credential(
        &self,
        headers: &HeaderMap,
        now_unix: u64,
    ) -> Result<(NodeName, Ticket, crd::JoinToken), Sentence> {
        let enrolment = &self.desk().enrolment;
        let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let refused = |words: String| Sentence(StatusCode::UNAUTHORIZED, words);
        let jwt = header("authorization")
            .strip_prefix("Bearer ")
            .ok_or_else(|| refused("show a join token: print one with `keadm gettoken`".to_owned()))?;
        let node = NodeName::parse(header("nodename"))
            .map_err(|error| Sentence(StatusCode::BAD_REQUEST, error.to_string()))?;
        let claims = enrolment.token_key.verify(jwt, now_unix, node.as_str());
        let claims = claims.map_err(|error| refused(error.to_string()))?;
        let ticket = Ticket { id: claims.jti, node: claims.node };
        self.knock(|knocks, now| knocks.join(&ticket.id, node.as_str(), now))
            .map_err(|wait| Sentence::too_often("token", wait))?;
        let token = enrolment.registry.token(&ticket.id).await;
        let token = token.map_err(|error| Sentence::not_enrolled(&error.into()))?;
        plan::may_use(&ticket, token.as_ref(), &node, now_unix).map_err(|refusal| Sentence::of(&refusal))?;
        let token = token.ok_or_else(|| Sentence::of(&Refusal::TokenWithdrawn))?;
        let made = token.metadata.creation_timestamp.as_ref().map(|made| made.0.as_second());
        let old = made
            .and_then(|made| u64::try_from(made).ok())
            .is_some_and(|made| made.saturating_add(enrolment.token_life.as_secs()) <= now_unix);
        if old { Err(Sentence::of(&Refusal::TokenExpired)) } else { Ok((node, ticket, token)) }
    }

    async fn release(&self, shown: Option<&[u8]>) -> Result<String, Sentence> {
        let der = shown.ok_or_else(|| {
            let words = "show the node's certificate to give its name back";
            Sentence(StatusCode::UNAUTHORIZED, words.to_owned())
        })?;
        let identity = pki::node_of_certificate(der).ok().and_then(|name| NodeName::parse(&name).ok());
        let (Some(node), Ok(serial)) = (identity, pki::serial_of(der)) else {
            return Err(Sentence(StatusCode::FORBIDDEN, "this certificate is not a node's".to_owned()));
        };
        self.knock(|knocks, now| knocks.give_back(&serial, now))
            .map_err(|wait| Sentence::too_often("certificate", wait))?;
        self.trust();
        self.begin_work();
        let released = self.desk().enrolment.registry.release(&node, &serial).await;
        released.map_err(|error| Sentence::not_enrolled(&error))?;
        tracing::info!(%node, serial, "node gave its name back");
        Ok(format!(
            "the name `{node}` is given back; its Node stays until `kubectl delete node {node}`, and a token that is bound to it (`keadm gettoken --edgenode-name={node}`) joins under it again"
        ))
    }

    async fn drain(&self, body: Incoming) {
        let rest = std::pin::pin!(Limited::new(body, CSR_MAX).collect());
        let _ = futures::future::select(rest, self.desk().clock.sleep(DRAIN)).await;
    }
}

async fn csr(body: &mut Incoming) -> Result<Bytes, Sentence> {
    let too_long = || {
        let words = "the certificate signing request is longer than 16 KiB: make it anew with `keadm join`";
        Sentence(StatusCode::PAYLOAD_TOO_LARGE, words.to_owned())
    };
    if body.size_hint().lower() > CSR_MAX as u64 {
        return Err(too_long());
    }
    match Limited::new(body, CSR_MAX).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(too_long()),
        Err(_) => {
            let words = "the request broke off".to_owned();
            Err(Sentence(StatusCode::BAD_REQUEST, words))
        }
    }
}

fn unix(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}
