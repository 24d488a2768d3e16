//! KubeEdge's paths, capped bodies, sentences for people. Who asks shows a credential before his body is read.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use beehive::{Clock, Fault, Metrics};
use contract::NodeName;
use http::{HeaderMap, Method, Request, StatusCode};
use https::body::{self, BodyError};
use https::{Answer, Handler, Peer};
use hyper::body::Incoming;
use noderegistry::{Certificate, EnrolmentError, Refusal, RegistryError, TokenClaims, plan};
use pki::{CSR_MAX, TokenError};

use super::rate_limit::RequestRateLimiter;
use super::{EnrolmentSettings, release};

/// 10 s for the certificate signing request; keadm gives up after 9.
const BODY_WITHIN: Duration = Duration::from_secs(10);
/// 1 s for what a refused client still sends: without it the answer could be lost on the way.
const DRAIN: Duration = Duration::from_secs(1);

/// Answers enrolment's requests.
pub(super) struct EnrolmentHandler {
    settings: Arc<EnrolmentSettings>,
    clock: Arc<dyn Clock>,
    serials: Box<dyn Fn() -> [u8; 16] + Send + Sync>,
    limiter: Mutex<RequestRateLimiter>,
    metrics: Metrics,
}

/// What is answered to a request that is refused: a status, and a sentence with the cure.
struct ErrorAnswer(StatusCode, String);

impl ErrorAnswer {
    fn answer(self) -> Answer {
        body::sentence(self.0, self.1)
    }

    fn of(refusal: &Refusal) -> Self {
        let status = match refusal {
            Refusal::NameTaken(_) => StatusCode::CONFLICT,
            Refusal::TokenWithdrawn | Refusal::OddToken | Refusal::TokenSpent(_) | Refusal::Token(_) => {
                StatusCode::UNAUTHORIZED
            }
            Refusal::NothingToGiveBack(_) => StatusCode::NOT_FOUND,
            Refusal::Barred(_)
            | Refusal::NeedsBoundToken(_)
            | Refusal::Foreign(_)
            | Refusal::Deleted(_)
            | Refusal::NodeEnding(_)
            | Refusal::NameEnding(_)
            | Refusal::OddName(_)
            | Refusal::NotRegistered(_)
            | Refusal::NotLiving(_)
            | Refusal::Reserved(_) => StatusCode::FORBIDDEN,
        };
        ErrorAnswer(status, refusal.to_string())
    }

    fn too_often(what: &str, wait: Duration) -> Self {
        let seconds = wait.as_secs().saturating_add(1);
        let words = format!("too many requests with this {what}: wait {seconds} s, then try again");
        ErrorAnswer(StatusCode::TOO_MANY_REQUESTS, words)
    }

    fn too_many(what: &str) -> Self {
        let words = format!("too many connections with this {what} are open: try again");
        ErrorAnswer(StatusCode::TOO_MANY_REQUESTS, words)
    }

    fn of_body(error: BodyError) -> Self {
        match error {
            BodyError::TooLong => {
                let words =
                    "the certificate signing request is longer than 16 KiB: make it anew with `keadm join`";
                ErrorAnswer(StatusCode::PAYLOAD_TOO_LARGE, words.to_owned())
            }
            BodyError::TooSlow => {
                let words = "the certificate signing request did not arrive within 10 s: try again";
                ErrorAnswer(StatusCode::REQUEST_TIMEOUT, words.to_owned())
            }
            BodyError::BrokenOff => ErrorAnswer(StatusCode::BAD_REQUEST, "the request broke off".to_owned()),
        }
    }

    fn unavailable(error: &RegistryError) -> Self {
        let reason = Fault::from_error(error).reason;
        tracing::error!(%reason, "enrolment failed");
        let words = "the cloud cannot look into its register now: try again; CloudCore's log says why (`kubectl logs -l kubeedge=cloudcore`, in its namespace)";
        ErrorAnswer(StatusCode::SERVICE_UNAVAILABLE, words.to_owned())
    }

    fn clock_in_doubt() -> Self {
        let words = "CloudCore's clock and the API server's are more than an hour apart: an administrator sets them, then join again with the same token";
        ErrorAnswer(StatusCode::SERVICE_UNAVAILABLE, words.to_owned())
    }

    fn not_enrolled(error: &EnrolmentError) -> Self {
        match error {
            EnrolmentError::Refused(refusal) => ErrorAnswer::of(refusal),
            EnrolmentError::Unavailable(error) => ErrorAnswer::unavailable(error),
        }
    }
}

impl Handler for EnrolmentHandler {
    async fn handle(&self, request: Request<Incoming>, peer: &Peer) -> Answer {
        let (head, mut body) = request.into_parts();
        let outcome = match (head.uri.path(), &head.method) {
            ("/ca.crt", &Method::GET) => Ok(self.settings.authorities.get().signing().cert_der().to_vec()),
            ("/edge.crt", &Method::GET) => self.enrol(&head.headers, &mut body, peer).await,
            ("/edge.crt", &Method::DELETE) => match self.release(peer).await {
                Ok(words) => return ErrorAnswer(StatusCode::OK, words).answer(),
                Err(refused) => Err(refused),
            },
            ("/ca.crt" | "/edge.crt", _) => {
                let words = "enrolment knows GET /ca.crt, GET /edge.crt and DELETE /edge.crt";
                Err(ErrorAnswer(StatusCode::METHOD_NOT_ALLOWED, words.to_owned()))
            }
            _ => {
                let words = "nothing is here: enrolment has /ca.crt and /edge.crt";
                Err(ErrorAnswer(StatusCode::NOT_FOUND, words.to_owned()))
            }
        };
        match outcome {
            Ok(der) => body::answer(StatusCode::OK, "application/octet-stream", der),
            Err(refused) => {
                self.metrics.add("cloudhub_enrolment_requests_refused", 1);
                body::discard(body, CSR_MAX, DRAIN, &*self.clock).await;
                refused.answer()
            }
        }
    }
}

impl EnrolmentHandler {
    pub(super) fn new(
        settings: Arc<EnrolmentSettings>,
        clock: Arc<dyn Clock>,
        serials: Box<dyn Fn() -> [u8; 16] + Send + Sync>,
        metrics: Metrics,
    ) -> Self {
        EnrolmentHandler { settings, clock, serials, limiter: Mutex::default(), metrics }
    }

    fn limiter(&self) -> MutexGuard<'_, RequestRateLimiter> {
        self.limiter.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn enrol(
        &self,
        headers: &HeaderMap,
        body: &mut Incoming,
        peer: &Peer,
    ) -> Result<Vec<u8>, ErrorAnswer> {
        let settings = &self.settings;
        // Neither the end of a token nor that of a certificate is known by it; and the token stays unspent.
        if settings.doubt.is(&*self.clock) {
            return Err(ErrorAnswer::clock_in_doubt());
        }
        let now = self.clock.wall();
        let now_unix = unix(now);
        let (node, claims, token) = self.credential(headers, now_unix, peer.address().ip()).await?;
        peer.identify(&claims.id, false).map_err(|_| ErrorAnswer::too_many("token"))?;
        let csr = body::read(body, CSR_MAX, BODY_WITHIN, &*self.clock).await.map_err(ErrorAnswer::of_body)?;
        let life = settings.certificate_life;
        let authorities = settings.authorities.get();
        let issued = authorities.signing().sign_node(&csr, node.as_str(), now, life, (self.serials)());
        let issued =
            issued.map_err(|error| ErrorAnswer(StatusCode::BAD_REQUEST, Fault::from_error(&error).reason))?;
        // The certificate leaves only after its name is in the register.
        let certificate =
            Certificate { serial: issued.serial.clone(), not_after_unix: unix(issued.not_after) };
        let request =
            noderegistry::EnrolmentRequest { claims, token: Some(token), node, certificate, now_unix };
        settings.registry.enrol(&request).await.map_err(|error| ErrorAnswer::not_enrolled(&error))?;
        let (node, token) = (&request.node, &request.claims.id);
        self.metrics.add("cloudhub_enrolment_nodes_enrolled", 1);
        tracing::info!(%node, serial = issued.serial, token, "node enrolled");
        Ok(issued.der)
    }

    /// Who asks, by his token: its signature, its end, and that its object is there and has a use left.
    async fn credential(
        &self,
        headers: &HeaderMap,
        now_unix: u64,
        from: IpAddr,
    ) -> Result<(NodeName, TokenClaims, crd::JoinToken), ErrorAnswer> {
        let enrolment = &self.settings;
        let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let refused = |words: String| ErrorAnswer(StatusCode::UNAUTHORIZED, words);
        let jwt = header("authorization")
            .strip_prefix("Bearer ")
            .ok_or_else(|| refused("show a join token: print one with `keadm gettoken`".to_owned()))?;
        let node = NodeName::parse(header("nodename"))
            .map_err(|error| ErrorAnswer(StatusCode::BAD_REQUEST, error.to_string()))?;
        let looked_at = self.limiter().may_show(from, self.clock.now());
        looked_at.map_err(|wait| {
            self.metrics.add("cloudhub_enrolment_guesses_refused", 1);
            ErrorAnswer::too_often("address and tokens that are none", wait)
        })?;
        let claims = enrolment.token_key.verify(jwt, now_unix, node.as_str());
        let claims = claims.map_err(|error| {
            // One that was signed here is no guess, though it has ended or is another's.
            if matches!(error, TokenError::Foreign | TokenError::Malformed) {
                self.limiter().guessed(from, self.clock.now());
            }
            refused(error.to_string())
        })?;
        let claims = TokenClaims { id: claims.jti, node: claims.node };
        let taken = self.limiter().join(&claims.id, node.as_str(), self.clock.now());
        taken.map_err(|wait| ErrorAnswer::too_often("token", wait))?;
        let token = enrolment.registry.token(&claims.id).await;
        let token = token.map_err(|error| ErrorAnswer::not_enrolled(&error.into()))?;
        plan::may_use(&claims, token.as_ref(), &node, now_unix)
            .map_err(|refusal| ErrorAnswer::of(&refusal))?;
        let token = token.ok_or_else(|| ErrorAnswer::of(&Refusal::TokenWithdrawn))?;
        let made = token.metadata.creation_timestamp.as_ref().map(|made| made.0.as_second());
        let old = made
            .and_then(|made| u64::try_from(made).ok())
            .is_some_and(|made| made.saturating_add(enrolment.token_life.as_secs()) <= now_unix);
        if old {
            Err(ErrorAnswer::of(&Refusal::Token(TokenError::Expired)))
        } else {
            Ok((node, claims, token))
        }
    }

    async fn release(&self, peer: &Peer) -> Result<String, ErrorAnswer> {
        let der = peer.certificate().ok_or_else(|| {
            let words = "show the node's certificate to give its name back";
            ErrorAnswer(StatusCode::UNAUTHORIZED, words.to_owned())
        })?;
        let identity = pki::node_of_certificate(der).ok().and_then(|name| NodeName::parse(&name).ok());
        let (Some(node), Ok(serial)) = (identity, pki::serial_of(der)) else {
            return Err(ErrorAnswer(StatusCode::FORBIDDEN, "this certificate is not a node's".to_owned()));
        };
        let taken = self.limiter().give_back(&serial, self.clock.now());
        taken.map_err(|wait| ErrorAnswer::too_often("certificate", wait))?;
        peer.identify(&serial, false).map_err(|_| ErrorAnswer::too_many("certificate"))?;
        let settings = &self.settings;
        match release::is_alive(&node, &settings.linked, &settings.registry, &*self.clock).await {
            Ok(false) => {}
            Ok(true) => return Err(ErrorAnswer(StatusCode::CONFLICT, release::still_linked(&node))),
            Err(error) => return Err(ErrorAnswer::unavailable(&error)),
        }
        let released = settings.registry.release(&node, &serial).await;
        let is_barred = released.map_err(|error| ErrorAnswer::not_enrolled(&error))?;
        self.metrics.add("cloudhub_enrolment_names_given_back", 1);
        tracing::info!(%node, serial, "enrolment undone: the node released its name");
        let found = settings.registry.node_metadata(&node).await;
        Ok(given_back(&node, is_barred, found.ok().map(|found| found.is_some())))
    }
}

/// What a node is told that gave its name back. `has_node`: whether the cluster has a Node of it; `None`: nobody knows now.
fn given_back(node: &NodeName, is_barred: bool, has_node: Option<bool>) -> String {
    let again = if is_barred {
        format!("nobody joins under it before `keadm free {node}`, since it was revoked")
    } else {
        format!("a token that is bound to it (`keadm gettoken --edgenode-name={node}`) joins under it again")
    };
    match has_node {
        Some(true) => format!(
            "the name `{node}` is given back; its Node stays until `kubectl delete node {node}`, and {again}"
        ),
        Some(false) => format!("the name `{node}` is given back, of which the cluster has no Node; {again}"),
        None => format!(
            "the name `{node}` is given back; a Node of it, if there is one, stays until `kubectl delete node {node}`, and {again}"
        ),
    }
}

fn unix(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_gives_a_name_back_is_told_who_may_have_it() {
        let node = NodeName::parse("edge-1").unwrap();
        for has_node in [Some(true), Some(false), None] {
            let (free, barred) = (given_back(&node, false, has_node), given_back(&node, true, has_node));
            assert!(free.contains("--edgenode-name=edge-1") && !free.contains("keadm free"), "{free}");
            assert!(barred.contains("keadm free edge-1") && !barred.contains("token"), "{barred}");
        }
    }
}
