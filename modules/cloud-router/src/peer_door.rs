//! The door for other CloudCores: what they pass on is judged here as at the other door, and goes to a node that is linked here or nowhere.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use beehive::Env;
use contract::rule_stream::{HEADER_BYTES_MAX, HEADERS_MAX, PATH_MAX};
use http::{HeaderValue, Request, StatusCode};
use https::{Answer, Handler, Http, Limits, Peer, Server, body};
use hyper::body::Incoming;
use pki::cloudcore_of_certificate;

use crate::events;
use crate::peer_plan::{MOVED, OUTCOME, REFUSED, within_of};
use crate::peer_settings::PeerSettings;
use crate::rule_calls::{BODY_WITHIN, Caller, RuleCalls};

/// 2048 calls that other CloudCores have passed on.
const CALLS: usize = 2048;
/// 512 of them of one: as many as its own door takes callers.
const CALLS_PER_PEER: usize = 512;
/// 8 KiB of a head beside the path and the headers' names and values: HTTP/2 counts 32 bytes more for each header.
const HEAD_REST: usize = 8 << 10;
/// 5 s until a connection has made its call.
const CALL_WITHIN: Duration = Duration::from_secs(5);
/// 5 s beyond a node's time for the answer to be on its way.
const BEYOND: Duration = Duration::from_secs(5);

/// Answers other CloudCores.
pub(crate) struct PeerDoor {
    pub(crate) calls: RuleCalls,
    /// How long a node has at the most, whatever the other one says.
    pub(crate) within: Duration,
    pub(crate) metrics: beehive::Metrics,
    /// How many others have come.
    pub(crate) refused: AtomicU64,
}

impl PeerDoor {
    /// Serves where `settings` say.
    pub(crate) fn serve(self, settings: &PeerSettings, env: &Env) -> std::io::Result<Server> {
        let limits = Limits {
            users: CALLS,
            connections_per_user: CALLS_PER_PEER,
            credential_within: Some(CALL_WITHIN),
            answer_within: Some(self.within + BODY_WITHIN + BEYOND),
            head_bytes: PATH_MAX + HEADER_BYTES_MAX + HEAD_REST,
            header_fields: HEADERS_MAX,
            // A call comes on a connection of its own.
            streams_per_connection: 1,
            ..Limits::default()
        };
        let tls = Some(settings.tls.clone());
        Server::start(
            "rules of peers",
            &settings.port,
            tls,
            limits,
            env.clock(),
            |_| {},
            move || Http::new(self),
        )
    }
}

/// Which CloudCore it is.
fn cloudcore(peer: &Peer) -> Option<String> {
    peer.certificate().and_then(|shown| cloudcore_of_certificate(shown).ok())
}

impl Handler for PeerDoor {
    /// The handshake has found that our CA signed it: so it did for every node, too. Whoever is no CloudCore is not even heard: frames
    /// of HTTP/2 that ask for nothing cost work, too.
    fn admits(&self, peer: &Peer) -> bool {
        let is_cloudcore = cloudcore(peer).is_some();
        if !is_cloudcore {
            let times = self.refused.fetch_add(1, Ordering::Relaxed) + 1;
            events::peer_refused(&self.metrics, peer.address(), times);
        }
        is_cloudcore
    }

    async fn handle(&self, request: Request<Incoming>, peer: &Peer) -> Answer {
        let Some(cloudcore) = cloudcore(peer) else {
            return body::sentence(
                StatusCode::FORBIDDEN,
                "only CloudCores pass calls on to each other here\n",
            );
        };
        if peer.identify(&cloudcore, false).is_err() {
            let words = "there are as many calls of other CloudCores as are taken: call again later\n";
            return outcome(body::sentence(StatusCode::SERVICE_UNAVAILABLE, words), REFUSED);
        }
        let Some(within) = within_of(request.headers(), self.within) else {
            let words =
                "the call does not say once how long it may take: both CloudCores are to be of one release\n";
            return outcome(body::sentence(StatusCode::BAD_REQUEST, words), REFUSED);
        };
        events::call_of_peer(&self.metrics);
        // The other one has taken its own token away, and what is left is for the service.
        let caller = Caller { shows_token: false, within, peers: None, is_passed_on: true };
        match self.calls.answer(request, &caller).await {
            Ok(answer) => answer,
            Err(refusal) => outcome(refusal.answer, if refusal.is_moved { MOVED } else { REFUSED }),
        }
    }
}

/// The answer is no service's.
fn outcome(mut answer: Answer, what: &'static str) -> Answer {
    answer.headers_mut().insert(&OUTCOME, HeaderValue::from_static(what));
    answer
}
