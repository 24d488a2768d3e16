//! Whether the API server reaches the kubelet endpoints: check `KubeletEndpointReachable`.
//!
//! A call of an API server that comes in is the proof, and costs nothing. Where none comes, CloudCore has one made: it asks the API
//! server for `/healthz` of one of its nodes, as anybody would. That needs the right `get` of `nodes/proxy`, which
//! the chart's `rbac-endpoint-check.yaml` bounds to this one path by an admission policy. Without the right nothing is asked.
//!
//! One API server of several is asked, whichever the client's connection leads to.

mod plan;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use beehive::Env;
use contract::NodeName;
use http::Request;
use http_body_util::{BodyExt as _, Limited};

use crate::checks::{Check, Checks};
use crate::events;
use plan::Verdict;

/// 20 s, half of it at the least, before the first question, and between two until one has succeeded.
pub(crate) const ASK_AFTER: Duration = Duration::from_secs(20);
/// 10 min, half of it at the least, after a success: one request in that time is what all this costs.
const ASK_EVERY: Duration = Duration::from_secs(600);
/// 40 s for an answer: an API server dials for 30 s at the most (rest.DefaultTransport).
const ANSWER_WITHIN: Duration = Duration::from_secs(40);
/// 2: failures in a row that are said. One may be of a Node that says its endpoint of before.
const SAID_AFTER: u32 = 2;
/// 100 nodes are asked for in one go, for one that CloudCore may ask for: its right names some.
const ASKED_MAX: usize = 100;
/// 64 KiB of an answer are read.
const BODY_MAX: usize = 64 << 10;

/// How many calls of API servers have come in.
pub(crate) type Arrived = Arc<AtomicU64>;

/// What is known so far. Clones go on from where they were made: there is one question at a time.
#[derive(Debug, Clone, Default)]
pub(crate) struct Reach {
    pub(crate) arrived: Arrived,
    seen: u64,
    failures: u32,
    /// It was said that CloudCore may not ask.
    is_forbidden: bool,
}

impl Reach {
    /// Looks whether an API server has called; if none has, asks it for the first of `nodes` that CloudCore may ask for, and of which
    /// something can be said. Answers how long to wait before the next time.
    pub(crate) async fn check(
        &mut self,
        client: &kube::Client,
        nodes: &[NodeName],
        checks: &Checks,
        env: &Env,
    ) -> Duration {
        let arrived = self.arrived.load(Ordering::SeqCst);
        let is_news = arrived != std::mem::replace(&mut self.seen, arrived);
        let mut verdict = if is_news { Verdict::Reached } else { Verdict::NotAllowed };
        let mut asked = nodes.first();
        for node in nodes.iter().take(ASKED_MAX) {
            if verdict != Verdict::NotAllowed {
                break;
            }
            asked = Some(node);
            verdict = self.ask(client, node, env).await;
        }
        match verdict {
            Verdict::Reached => {
                (self.failures, self.is_forbidden) = (0, false);
                self.seen = self.arrived.load(Ordering::SeqCst);
                if checks.passed(Check::KubeletEndpointReachable) {
                    events::endpoint_reached(env);
                }
                ASK_EVERY
            }
            Verdict::NotAllowed => {
                if !std::mem::replace(&mut self.is_forbidden, true) {
                    events::endpoint_not_checked(env);
                }
                ASK_EVERY
            }
            Verdict::Unknown => ASK_AFTER,
            Verdict::Failed(why, cure) => {
                self.failures += 1;
                let words =
                    format!("the API server does not get through to a kubelet endpoint here ({why}): {cure}");
                let is_news =
                    self.failures >= SAID_AFTER && checks.failed(Check::KubeletEndpointReachable, &words);
                if let Some(node) = asked.filter(|_| is_news) {
                    events::endpoint_unreached(env, node, &words);
                }
                ASK_AFTER
            }
        }
    }

    async fn ask(&self, client: &kube::Client, node: &NodeName, env: &Env) -> Verdict {
        let path = format!("/api/v1/nodes/{node}/proxy/healthz");
        let Ok(request) = Request::get(path).body(kube::client::Body::empty()) else {
            return Verdict::Unknown;
        };
        let answered = async {
            let answer = client.send(request).await.ok()?;
            let status = answer.status().as_u16();
            let body = Limited::new(answer.into_body(), BODY_MAX).collect().await.ok()?.to_bytes();
            Some((status, String::from_utf8_lossy(&body).into_owned()))
        };
        match env.timeout(ANSWER_WITHIN, answered).await {
            Some(Some((status, body))) => {
                let arrived = self.arrived.load(Ordering::SeqCst) != self.seen;
                plan::judge(status, &body, arrived)
            }
            // The API server itself is not there, or very late.
            Some(None) | None => Verdict::Unknown,
        }
    }
}
