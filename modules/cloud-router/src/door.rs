//! The door: HTTP clients call what rules lead to nodes, whichever CloudCore has them.

use std::time::Duration;

use http::{HeaderValue, Request, StatusCode, header};
use https::{Answer, Handler, Peer, TooMany, body};
use hyper::body::Incoming;

use crate::events;
use crate::peers::Peers;
use crate::rule_calls::{Caller, RuleCalls};
use crate::tokens::Callers;

/// Answers callers.
pub(crate) struct Door {
    pub(crate) callers: Callers,
    pub(crate) calls: RuleCalls,
    pub(crate) within: Duration,
    /// `None`: nothing is passed on to other CloudCores.
    pub(crate) peers: Option<Peers>,
    pub(crate) metrics: beehive::Metrics,
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
        let caller = Caller {
            shows_token: matches!(self.callers, Callers::Holders(_)),
            within: self.within,
            peers: self.peers.as_ref(),
            is_passed_on: false,
        };
        match self.calls.answer(request, &caller).await {
            Ok(answer) => answer,
            Err(refusal) if refusal.ends_connection => closing(refusal.answer),
            Err(refusal) => refusal.answer,
        }
    }
}

/// The connection ends with this answer: what else was sent on it is not read.
fn closing(mut answer: Answer) -> Answer {
    answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    answer
}
