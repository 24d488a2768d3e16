//! Tokens for the service accounts of pods that are bound to the node that asks.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use beehive::{Address, Env, Fault, Reply};
use contract::nodelease::{NodeLeaseMsg, SessionState};
use contract::parsed::ParsedTokenQuery;
use contract::{NodeName, TokenGrant, TokenQuery, Unparsed};
use fairshare::{NodeQueue, NodeQueues};
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Pod, PodSpec, ServiceAccount};
use kube::api::{Api, PostParams};
use kubewatch::status_code;
use serde_json::json;

use crate::error::NodeReportError;
use crate::status::{PodBinding, binding_of};
use crate::token_rates::TokenRates;
use crate::volume_caches::{DriverToken, VolumeCaches};

/// 10 min: the shortest token (Kubernetes).
const SECONDS_MIN: i64 = 600;
/// The longest token that is asked for: a day. The API server may grant less.
const SECONDS_MAX: i64 = 86_400;
/// What a volume means that says nothing (Kubernetes).
const SECONDS_DEFAULT: i64 = 3600;

/// How long a token for these audiences lives, if a volume of the pod names it (NodeRestriction's rule): as long as a volume
/// says, and of several the one that was asked for, or the shortest. The asker's own idea of time counts for nothing.
///
/// `drivers`: the tokens that the CSI drivers of the pod's volumes want.
pub(crate) fn lifetime(
    spec: &PodSpec,
    drivers: &[DriverToken],
    audiences: &[String],
    asked_seconds: i64,
) -> Option<i64> {
    let audience = match audiences {
        [] => "",
        [one] => one,
        _ => return None,
    };
    let volumes = spec.volumes.iter().flatten().filter_map(|volume| volume.projected.as_ref());
    let sources = volumes.flat_map(|projected| projected.sources.iter().flatten());
    let tokens = sources.filter_map(|source| source.service_account_token.as_ref());
    let projected =
        tokens.map(|token| (token.audience.as_deref().unwrap_or_default(), token.expiration_seconds));
    let of_drivers = drivers.iter().map(|token| (token.audience.as_str(), token.expiration_seconds));
    let named = projected.chain(of_drivers).filter(|(named, _)| *named == audience);
    let seconds =
        named.map(|(_, seconds)| seconds.unwrap_or(SECONDS_DEFAULT).clamp(SECONDS_MIN, SECONDS_MAX));
    let seconds: Vec<i64> = seconds.collect();
    if seconds.contains(&asked_seconds) { Some(asked_seconds) } else { seconds.into_iter().min() }
}

/// 8 tokens of one node are asked for at once: its pods start that many at a time, and each question is two round trips.
const GRANTS_AT_ONCE: usize = 8;
/// 1,024 requests of a node wait behind those in work: all that it may ask for at once. Each has some KiB at the most, because it
/// was parsed before it waits.
const REQUESTS_WAIT: usize = 1024;
/// 5 s for NodeLease to say what a session is worth.
const SESSION_DEADLINE: Duration = Duration::from_secs(5);

/// A node asks for a token.
pub(crate) struct QueuedTokenRequest {
    session: u64,
    asked: ParsedTokenQuery,
    reply: Reply<Result<TokenGrant, String>>,
}

impl QueuedTokenRequest {
    /// What a node asks for, parsed. `None`: it makes no sense, and the node was told so.
    pub(crate) fn parse(
        env: &Env,
        node: &NodeName,
        session: u64,
        query: Unparsed<TokenQuery>,
        reply: Reply<Result<TokenGrant, String>>,
    ) -> Option<Self> {
        match query.parse() {
            Ok(asked) => Some(QueuedTokenRequest { session, asked, reply }),
            Err(unfit) => {
                crate::events::token_request_refused(env, node, &unfit.to_string());
                reply.send(Err(unfit.to_string()));
                None
            }
        }
    }

    /// There is no room for it.
    pub(crate) fn turn_away(self) {
        self.reply.send(Err("too many tokens are asked for at once: ask again".to_owned()));
    }
}

/// The requests of nodes, in a queue for each.
pub(crate) type TokenQueues = NodeQueues<QueuedTokenRequest>;

pub(crate) fn queues() -> TokenQueues {
    NodeQueues::new(REQUESTS_WAIT)
}

/// What answering takes.
pub(crate) struct TokenGranter {
    pub(crate) client: kube::Client,
    pub(crate) lease: Address<NodeLeaseMsg>,
    pub(crate) env: Env,
    pub(crate) volumes: Rc<VolumeCaches>,
    /// Shared by all nodes and all sessions.
    pub(crate) rates: Rc<RefCell<TokenRates>>,
}

impl TokenGranter {
    /// Answers what stands in the node's queue, a few at a time, and not faster than the node may ask.
    pub(crate) async fn answer(self, mut queue: NodeQueue<QueuedTokenRequest>) {
        let node = queue.node().clone();
        let mut in_work = FuturesUnordered::new();
        loop {
            while in_work.len() < GRANTS_AT_ONCE
                && let Some(request) = queue.take()
            {
                if !request.reply.is_abandoned() {
                    let pause = self.rates.borrow_mut().take(&node, self.env.now());
                    in_work.push(self.answer_one(&node, request, pause));
                }
            }
            // The queue is given back when nothing is in work: whoever works on it next has no more than so many at once either.
            if in_work.next().await.is_none() {
                return;
            }
        }
    }

    async fn answer_one(&self, node: &NodeName, request: QueuedTokenRequest, pause: Duration) {
        let QueuedTokenRequest { session, asked, reply } = request;
        if !pause.is_zero() {
            crate::events::token_delayed(&self.env, node);
            self.env.sleep(pause).await;
        }
        let ask = |reply| NodeLeaseMsg::Session { node: node.clone(), session, reply };
        let state = self.lease.ask(SESSION_DEADLINE, ask).await.unwrap_or(SessionState::InDoubt);
        reply.send(match state {
            SessionState::Open { .. } => grant(&self.client, node, asked, &self.volumes).await,
            SessionState::WithoutNode { .. } | SessionState::InDoubt | SessionState::Ended => {
                Err("the node's Node is not there, or not its own any more".to_owned())
            }
        });
    }
}

/// Gets a token.
///
/// # Errors
/// Why there is none, in a sentence for the node, which tells nothing of the cloud's inside.
pub(crate) async fn grant(
    client: &kube::Client,
    node: &NodeName,
    asked: ParsedTokenQuery,
    volumes: &VolumeCaches,
) -> Result<TokenGrant, String> {
    let ParsedTokenQuery { pod: id, service_account, audiences, expiration_seconds } = asked;
    let pods: Api<Pod> = Api::namespaced(client.clone(), id.namespace.as_str());
    let found = binding_of(&pods, node, &id).await.map_err(|error| sentence_of(node, &error.into()))?;
    let (spec, drivers) = match found {
        PodBinding::Here(pod) => {
            let drivers = volumes.tokens_of(&json!(pod));
            (pod.spec, drivers)
        }
        // A static pod has no account.
        PodBinding::Mirror | PodBinding::Gone | PodBinding::Elsewhere => (None, Vec::new()),
    };
    let spec = spec.ok_or_else(|| format!("pod `{id}` is not bound to this node"))?;
    let account = spec.service_account_name.as_deref().unwrap_or("default");
    if account != service_account.as_str() {
        return Err(format!("pod `{id}` does not run as service account `{service_account}`"));
    }
    let seconds = lifetime(&spec, &drivers, &audiences, expiration_seconds)
        .ok_or_else(|| format!("no volume of pod `{id}` names a token for these audiences"))?;
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), id.namespace.as_str());
    let request = TokenRequest {
        spec: TokenRequestSpec {
            audiences,
            expiration_seconds: Some(seconds),
            bound_object_ref: Some(BoundObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some("Pod".to_owned()),
                name: Some(id.name.to_string()),
                uid: Some(id.uid.to_string()),
            }),
        },
        ..TokenRequest::default()
    };
    let granted =
        accounts.create_token_request(service_account.as_str(), &PostParams::default(), &request).await;
    let granted = granted.map_err(|error| sentence_of(node, &error.into()))?;
    let status = granted.status.ok_or("the API server granted no token")?;
    let expires_unix = status.expiration_timestamp.0.as_second();
    // The server says what it granted; this machine's clock could only make it wrong.
    let lifetime_seconds = granted.spec.expiration_seconds.unwrap_or(seconds).max(0);
    Ok(TokenGrant { token: status.token, expires_unix, lifetime_seconds })
}

/// What the node is told of an error; the error itself goes to the log.
fn sentence_of(node: &NodeName, error: &NodeReportError) -> String {
    tracing::warn!(%node, reason = %Fault::from_error(error), "no token granted");
    let code = match error {
        NodeReportError::Api(error) => status_code(error),
        NodeReportError::Contended | NodeReportError::Lease(_) => None,
    };
    match code {
        Some(403) => "the API server does not let CloudCore ask for this token",
        Some(404) => "there is no such service account or pod any more",
        Some(409) => "the pod is another one by now",
        Some(400..=499) => "the API server refuses this token",
        Some(_) | None => "the API server cannot be asked for a token now",
    }
    .to_owned()
}

#[cfg(test)]
mod tests;
