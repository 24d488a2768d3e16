//! From nodes to the targets of rules: what was published, in order and until the target has it; what was called, once.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use beehive::{Context, Env, Reply};
use bytes::Bytes;
use contract::router::RouterMsg;
use contract::rule_call::{PAYLOAD_MAX, RuleAnswer, RuleCall};
use contract::rule_source::NodeSource;
use contract::{NodeName, Upload};
use futures::FutureExt as _;
use futures::future::join_all;
use http::{HeaderMap, HeaderName, HeaderValue, Uri, header};
use tokio::sync::Semaphore;

use crate::delivery_plan::{DeliveredMessages, Outcome, by_topic, idempotency_key, outcome};
use crate::events;
use crate::rule::{RuleAction, does_nothing};
use crate::rule_table::{KnownRule, RuleTable};
use crate::status::StatusBook;
use crate::target_client::TargetClient;

/// 10 s for a target to take one message.
const POST_WITHIN: Duration = Duration::from_secs(10);
/// 15 s: then no further message of a topic is begun in one delivery, of which the node waits 30 s.
const BEGUN_WITHIN: Duration = Duration::from_secs(15);
/// 2 s: what the targets of other topics have taken by then is confirmed, and does not wait for one that hangs.
const STRAGGLERS: Duration = Duration::from_secs(2);
/// 45 s for a target to answer a call; its node waits for 50.
const CALL_WITHIN: Duration = Duration::from_secs(45);
/// 64 KiB of an answer to a message are read; what stands there counts for nothing.
const ANSWER_READ: usize = 64 << 10;
/// 256 messages on their way to targets at once.
const POSTS: usize = 256;

/// The rules as they are now, for every thread that asks.
#[derive(Clone, Default)]
pub(crate) struct CurrentRules(Arc<RwLock<Arc<RuleTable>>>);

impl CurrentRules {
    /// As they are now.
    pub(crate) fn get(&self) -> Arc<RuleTable> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// These from now on.
    pub(crate) fn set(&self, table: RuleTable) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(table);
    }
}

/// What is counted, for every thread that counts.
#[derive(Clone, Default)]
pub(crate) struct SharedStatus(Arc<Mutex<StatusBook>>);

impl SharedStatus {
    /// Does something with it.
    pub(crate) fn with<T>(&self, act: impl FnOnce(&mut StatusBook) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Brings what nodes send to targets. Its clones are one.
#[derive(Clone)]
pub(crate) struct Forwarding(Rc<Inside>);

struct Inside {
    client: TargetClient,
    rules: CurrentRules,
    status: SharedStatus,
    env: Env,
    /// Topics of nodes of which a message is on its way.
    busy: RefCell<BTreeSet<(NodeName, String)>>,
    delivered: RefCell<DeliveredMessages>,
    posts: Semaphore,
}

impl Forwarding {
    pub(crate) fn new(client: TargetClient, rules: CurrentRules, status: SharedStatus, env: Env) -> Self {
        Forwarding(Rc::new(Inside {
            client,
            rules,
            status,
            env,
            busy: RefCell::default(),
            delivered: RefCell::default(),
            posts: Semaphore::new(POSTS),
        }))
    }

    /// Delivers what was published for rules, each topic for itself, and answers with the rows that need not come again. A target that
    /// takes its time goes on with its message after the answer: the node sends that again, and by then it is known what became of it.
    pub(crate) fn deliver(
        &self,
        node: NodeName,
        uploads: Vec<Upload>,
        settled: Vec<i64>,
        reply: Reply<Vec<i64>>,
        cx: &Context<RouterMsg>,
    ) {
        let rows = Rc::new(RefCell::new(settled));
        let topics = by_topic(uploads).into_iter().map(|(topic, uploads)| {
            let (inside, node, rows) = (Rc::clone(&self.0), node.clone(), Rc::clone(&rows));
            async move { inside.topic(node, topic, uploads, &rows).await }
        });
        let mut all = join_all(topics.collect::<Vec<_>>()).boxed_local();
        let env = self.0.env.clone();
        cx.spawn(async move {
            let in_time = env.timeout(STRAGGLERS, &mut all).await;
            reply.send(rows.borrow().clone());
            if in_time.is_none() {
                all.await;
            }
        });
    }

    /// Calls the target of a rule for an application.
    pub(crate) fn call(
        &self,
        node: NodeName,
        call: RuleCall,
        reply: Reply<RuleAnswer>,
        cx: &Context<RouterMsg>,
    ) {
        let inside = Rc::clone(&self.0);
        cx.spawn(async move { reply.send(inside.call(&node, call).await) });
    }

    /// How many topics have a message on its way.
    pub(crate) fn busy(&self) -> usize {
        self.0.busy.borrow().len()
    }
}

/// A topic of which messages are on their way, until it is dropped.
struct BusyTopic<'a> {
    inside: &'a Inside,
    key: (NodeName, String),
}

impl Drop for BusyTopic<'_> {
    fn drop(&mut self) {
        self.inside.busy.borrow_mut().remove(&self.key);
    }
}

impl Inside {
    /// One topic, in order, up to the first message that has to wait.
    async fn topic(&self, node: NodeName, topic: String, uploads: Vec<Upload>, rows: &RefCell<Vec<i64>>) {
        let key = (node.clone(), topic.clone());
        // The same messages are on their way already, from before the link was cut: they are waited for.
        if !self.busy.borrow_mut().insert(key.clone()) {
            return;
        }
        let _busy = BusyTopic { inside: self, key };
        let begun = self.env.now();
        for upload in uploads {
            if self.delivered.borrow().has(&node, &upload) {
                rows.borrow_mut().push(upload.row);
                continue;
            }
            if self.env.now().since(begun) >= BEGUN_WITHIN {
                return;
            }
            // Looked up each time: a rule may be mended, or removed, meanwhile.
            let table = self.rules.get();
            let Some(rule) = table.of_source(&node, NodeSource::Topic(topic.clone())) else {
                if !table.is_listed {
                    return;
                }
                events::without_rule(&self.env, &node, &topic);
                rows.borrow_mut().push(upload.row);
                continue;
            };
            if !self.is_settled(&node, rule, &upload).await {
                return;
            }
            self.delivered.borrow_mut().add(&node, &upload);
            rows.borrow_mut().push(upload.row);
        }
    }

    /// Whether the message needs not come again.
    async fn is_settled(&self, node: &NodeName, rule: &KnownRule, upload: &Upload) -> bool {
        let now = self.env.now();
        let url = match &rule.action {
            Ok(RuleAction::PostPublished { url, .. }) => url,
            Ok(_) => return false,
            Err(why) => {
                let why = does_nothing(why);
                self.status.with(|status| status.said(&rule.key, &rule.uid, &why, now));
                return false;
            }
        };
        match self.post(node, url, upload).await {
            Outcome::Delivered => {
                self.status.with(|status| status.succeeded(&rule.key, &rule.uid));
                events::delivered(&self.env);
                true
            }
            Outcome::Refused(why) => {
                let why = format!("a message was given up: {why}");
                self.status.with(|status| status.failed(&rule.key, &rule.uid, &why));
                events::refused(&self.env, &rule.key, &why);
                true
            }
            Outcome::Later(why) => {
                let why = format!("messages wait: {why}");
                self.status.with(|status| status.said(&rule.key, &rule.uid, &why, self.env.now()));
                events::waits(&self.env, &rule.key, &why);
                false
            }
        }
    }

    async fn post(&self, node: &NodeName, url: &Uri, upload: &Upload) -> Outcome {
        let Ok(_permit) = self.posts.acquire().await else {
            return Outcome::Later("CloudCore ends".to_owned());
        };
        let telemetry = &upload.telemetry;
        let mut headers = message_headers(node, &telemetry.payload);
        let key = idempotency_key(node, upload);
        for (name, value) in [("kubehive-topic", telemetry.topic.as_str()), ("idempotency-key", key.as_str())]
        {
            if let Ok(value) = HeaderValue::from_str(value) {
                headers.insert(HeaderName::from_static(name), value);
            }
        }
        let payload = telemetry.payload.clone();
        match self.client.post(url, headers, payload, (ANSWER_READ, POST_WITHIN), &self.env).await {
            Ok(answer) => outcome(answer.status),
            Err(why) => Outcome::Later(format!("{} was not reached: {why}", shown(url))),
        }
    }

    async fn call(&self, node: &NodeName, call: RuleCall) -> RuleAnswer {
        if let Err(error) = call.check() {
            return RuleAnswer::failed(400, error.to_string());
        }
        let table = self.rules.get();
        let Some(rule) = table.of_source(node, NodeSource::TargetUrl(call.target_url.clone())) else {
            return match table.is_listed {
                true => RuleAnswer::failed(404, "no rule of this node has that targetURL as its target_url"),
                false => RuleAnswer::failed(503, "this CloudCore has not read the rules yet: call again"),
            };
        };
        let answered = self.target_answers(node, rule, call.payload).await;
        match &answered {
            Ok(_) => self.status.with(|status| status.succeeded(&rule.key, &rule.uid)),
            Err((_, why)) => self.status.with(|status| status.failed(&rule.key, &rule.uid, why)),
        }
        match answered {
            Ok(body) => RuleAnswer { code: 200, message: String::new(), body },
            Err((code, why)) => {
                events::call_failed(&self.env, &rule.key, &why);
                RuleAnswer::failed(code, why)
            }
        }
    }

    /// What the target has answered, whatever its status: as with KubeEdge the caller gets the body alone.
    async fn target_answers(
        &self,
        node: &NodeName,
        rule: &KnownRule,
        payload: Bytes,
    ) -> Result<Bytes, (u16, String)> {
        let url = match &rule.action {
            Ok(RuleAction::PostCalled { url, .. }) => url,
            Ok(_) => return Err((404, "the rule is of another kind".to_owned())),
            Err(why) => return Err((503, does_nothing(why))),
        };
        let permit = self.posts.try_acquire();
        let _permit = permit.map_err(|_| (429, "too many calls are under way: call again".to_owned()))?;
        let headers = message_headers(node, &payload);
        match self.client.post(url, headers, payload, (PAYLOAD_MAX, CALL_WITHIN), &self.env).await {
            Ok(answer) => {
                answer.body.ok_or_else(|| (502, format!("the target answered more than {PAYLOAD_MAX} bytes")))
            }
            Err(why) => Err((502, format!("{} was not reached: {why}", shown(url)))),
        }
    }
}

/// What stands above every message: whose it is, and JSON where it is JSON.
fn message_headers(node: &NodeName, payload: &[u8]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let is_json = serde_json::from_slice::<serde::de::IgnoredAny>(payload).is_ok();
    let kind = if is_json { "application/json" } else { "application/octet-stream" };
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(
        header::USER_AGENT,
        HeaderValue::from_static(concat!("kubehive/", env!("CARGO_PKG_VERSION"))),
    );
    if let Ok(name) = HeaderValue::from_str(node.as_str()) {
        headers.insert(HeaderName::from_static("kubehive-node"), name);
    }
    headers
}

/// A URL for people, without what may be a secret in its query.
fn shown(url: &Uri) -> String {
    format!(
        "{}://{}{}",
        url.scheme_str().unwrap_or_default(),
        url.authority().map_or("", |a| a.as_str()),
        url.path()
    )
}
