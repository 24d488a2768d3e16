//! What applications on the node call: `POST` of `{"method","targetURL","payload"}`, answered with `{"code","msg","body"}` (KubeEdge).

use std::io;
use std::sync::Arc;
use std::time::Duration;

use beehive::{Address, Clock, Env, Metrics};
use contract::metamanager::MetaMsg;
use contract::rule_call::{PAYLOAD_MAX, RuleAnswer};
use http::{HeaderValue, Request, StatusCode, header};
use https::body::BodyError;
use https::{Answer, Handler, Http1, Limits, Peer, Port, Server, Tls, body};
use hyper::body::Incoming;

use crate::target_urls::TargetUrls;
use crate::{events, plan};

/// 64 connections of applications.
const APPLICATIONS: usize = 64;
/// 10 s for a body.
const BODY_WITHIN: Duration = Duration::from_secs(10);
/// 4 MiB and 2 s of what a refused application still sends.
const DISCARDED: usize = 4 << 20;
const DISCARD_WITHIN: Duration = Duration::from_secs(2);
/// 5 s beyond the time of a call, for its answer.
const BEYOND: Duration = Duration::from_secs(5);

/// Answers applications.
pub(crate) struct Applications {
    pub(crate) urls: TargetUrls,
    pub(crate) meta: Address<MetaMsg>,
    pub(crate) within: Duration,
    pub(crate) metrics: Metrics,
    pub(crate) clock: Arc<dyn Clock>,
}

impl Applications {
    /// Serves at the port.
    pub(crate) fn at_port(self, port: &Port, tls: Option<Tls>, env: &Env) -> io::Result<Server> {
        let limits = Limits {
            strangers: APPLICATIONS,
            // Nobody shows a credential, and most come from loopback.
            strangers_per_address: APPLICATIONS,
            credential_within: None,
            answer_within: Some(BODY_WITHIN + self.within + BEYOND),
            ..Limits::default()
        };
        Server::start("servicebus", port, tls, limits, env.clock(), |_| {}, move || Http1::new(self))
    }

    async fn call(&self, mut sent: Incoming) -> RuleAnswer {
        let read = body::read(&mut sent, PAYLOAD_MAX, BODY_WITHIN, &*self.clock).await;
        let body = match read {
            Ok(body) => body,
            Err(error) => {
                body::discard(sent, DISCARDED, DISCARD_WITHIN, &*self.clock).await;
                return plan::unread(error == BodyError::TooLong);
            }
        };
        let call = match plan::call(body, |url| self.urls.has(url)) {
            Ok(call) => call,
            Err(refused) => return refused,
        };
        let asked = self.meta.ask(self.within, |reply| MetaMsg::RuleCall { call, reply }).await;
        asked.unwrap_or_else(|error| {
            RuleAnswer::failed(504, format!("nobody knows whether the rule's target was called: {error}"))
        })
    }
}

impl Handler for Applications {
    async fn handle(&self, request: Request<Incoming>, _: &Peer) -> Answer {
        // A browser says whose page sends, and any page may send here.
        if request.headers().contains_key(header::ORIGIN) {
            events::page_refused(&self.metrics);
            let mut refused =
                body::sentence(StatusCode::FORBIDDEN, "pages of browsers call no rules' targets\n");
            refused.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            return refused;
        }
        let answer = self.call(request.into_body()).await;
        events::answered(&self.metrics, answer.code);
        body::answer(StatusCode::OK, "application/json", plan::answer(&answer))
    }
}
