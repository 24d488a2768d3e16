//! A child of EdgeController that asks the API server, again and again, whether it takes the taints off edge Nodes that would drive their
//! pods away. It is a fact that is asked for, not whether a policy is there: the server would make a Node, and says which. A policy that
//! is applied or removed while CloudCore runs is found within [`AGAIN_AFTER`].

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use beehive::{Actor, Address, Capacity, Context, Fault, Message, Policy};
use contract::edgecontroller::EdgeControllerMsg;
use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, PostParams};
use kubewatch::status_code;

use super::rule::{self, EvictionRule};
use crate::events;

/// 60 s between two questions: pods tolerate a taint for 300 s by default.
const AGAIN_AFTER: Duration = Duration::from_secs(60);
/// 5 s when the server did not answer.
const SOON: Duration = Duration::from_secs(5);
/// 10 s for an answer.
const DEADLINE: Duration = Duration::from_secs(10);

/// The probe tells itself.
#[derive(Debug)]
pub(crate) enum EvictionProbeMsg {
    /// It is time to ask.
    Ask,
}

impl Message for EvictionProbeMsg {
    fn name(&self) -> &'static str {
        match self {
            EvictionProbeMsg::Ask => "Ask",
        }
    }
}

/// See the module.
pub(crate) struct EvictionProbe {
    client: kube::Client,
    found: Rc<Cell<EvictionRule>>,
    parent: Address<EdgeControllerMsg>,
    /// Questions that were refused, one after the other.
    refusals: u32,
}

/// Why there is no [`EvictionRule`] from a question.
enum NoRule {
    /// The server would not make the Node.
    Refused(String),
    /// It did not say.
    Unanswered(String),
}

impl EvictionProbe {
    pub(crate) fn new(
        client: kube::Client,
        found: Rc<Cell<EvictionRule>>,
        parent: Address<EdgeControllerMsg>,
    ) -> Self {
        EvictionProbe { client, found, parent, refusals: 0 }
    }

    pub(crate) fn policy() -> Policy {
        Policy { capacity: Capacity::new(1, "it asks one question at a time"), ..Policy::default() }
    }

    async fn ask(&self) -> Result<EvictionRule, NoRule> {
        let Some(node) = rule::probe_node() else { return Ok(EvictionRule::Tolerations) };
        let nodes: Api<Node> = Api::all(self.client.clone());
        match nodes.create(&PostParams { dry_run: true, ..PostParams::default() }, &node).await {
            Ok(made) => Ok(rule::rule_of(&made)),
            Err(error) => match status_code(&error) {
                Some(429) | Some(500..) | None => Err(NoRule::Unanswered(error.to_string())),
                Some(_) => Err(NoRule::Refused(error.to_string())),
            },
        }
    }

    async fn probe(&mut self, cx: &Context<EvictionProbeMsg>) -> Duration {
        let answer = tokio::select! {
            answer = self.ask() => answer,
            () = cx.env().sleep(DEADLINE) => {
                Err(NoRule::Unanswered(format!("no answer within {} s", DEADLINE.as_secs())))
            }
        };
        let is_refused = matches!(answer, Err(NoRule::Refused(_)));
        self.refusals = if is_refused { self.refusals.saturating_add(1) } else { 0 };
        let (rule, why) = match answer {
            Ok(rule) => (rule, "the policy is not there".to_owned()),
            Err(NoRule::Refused(reason)) if rule::follows_from_refusals(self.found.get(), self.refusals) => {
                (EvictionRule::Tolerations, reason)
            }
            // What was found before holds.
            Err(NoRule::Refused(reason) | NoRule::Unanswered(reason)) => {
                events::eviction_rule_not_found(cx.env(), &reason);
                return SOON;
            }
        };
        if self.found.replace(rule) != rule {
            match rule {
                EvictionRule::Admission => events::pods_stay_by_admission(cx.env()),
                EvictionRule::Tolerations | EvictionRule::Unknown => {
                    events::pods_stay_by_tolerations(cx.env(), &why);
                }
            }
            self.parent.tell_with_retry(cx.env(), || EdgeControllerMsg::Reconcile).await;
        }
        AGAIN_AFTER
    }
}

impl Actor for EvictionProbe {
    type Message = EvictionProbeMsg;

    async fn started(&mut self, cx: &mut Context<EvictionProbeMsg>) -> Result<(), Fault> {
        cx.after(Duration::ZERO, EvictionProbeMsg::Ask);
        Ok(())
    }

    async fn handle(
        &mut self,
        message: EvictionProbeMsg,
        cx: &mut Context<EvictionProbeMsg>,
    ) -> Result<(), Fault> {
        match message {
            EvictionProbeMsg::Ask => {
                let pause = self.probe(cx).await;
                cx.after(pause, EvictionProbeMsg::Ask);
            }
        }
        Ok(())
    }

    fn snapshot(&self) -> serde_json::Value {
        serde_json::json!({ "podsStayBy": self.found.get().name() })
    }
}
