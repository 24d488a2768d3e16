//! SyncController's actor: hands messages to the plan and performs its effects.

use std::collections::BTreeMap;
use std::time::Duration;

use beehive::{Actor, Address, Context, Fault};
use contract::NodeName;
use contract::metamanager::MetaDown;
use contract::synccontroller::{Source, SyncMsg};

use crate::plan::{Effect, Plan};

/// 60 s: a batch over a slow link with a full disk queue in front of it. The link's own pings notice a dead link earlier.
const ANSWER_DEADLINE: Duration = Duration::from_secs(60);

/// Feeds every node the difference between what it holds and what it should.
pub struct SyncController {
    plan: Plan,
    mailboxes: BTreeMap<NodeName, (u64, Address<MetaDown>)>,
}

impl Default for SyncController {
    fn default() -> Self {
        SyncController { plan: Plan::new([Source::Edge, Source::Device]), mailboxes: BTreeMap::new() }
    }
}

impl Actor for SyncController {
    type Message = SyncMsg;

    async fn handle(&mut self, message: SyncMsg, cx: &mut Context<SyncMsg>) -> Result<(), Fault> {
        let effects = match message {
            SyncMsg::Upsert { node, object } => self.plan.upsert(&node, object),
            SyncMsg::Delete { node, key } => self.plan.delete(&node, key),
            SyncMsg::SourceReady(source) => self.plan.source_ready(source),
            SyncMsg::NodeUp { node, session, meta } => self.node_up(node, session, meta),
            SyncMsg::NodeDown { node, session } => self.node_down(&node, session),
            SyncMsg::Holdings { node, session, held } => self.plan.holdings(&node, session, held),
            SyncMsg::Applied { node, session, batch, result } => {
                if let Err(why) = &result {
                    tracing::warn!(%node, batch, %why, "batch not applied");
                }
                self.plan.applied(&node, session, batch, result)
            }
            SyncMsg::Retry { node, session } => self.plan.retry(&node, session),
        };
        for effect in effects {
            self.perform(effect, cx);
        }
        Ok(())
    }

    fn snapshot(&self) -> serde_json::Value {
        serde_json::to_value(self.plan.view()).unwrap_or_default()
    }
}

impl SyncController {
    fn node_up(&mut self, node: NodeName, session: u64, meta: Address<MetaDown>) -> Vec<Effect> {
        let effects = self.plan.node_up(node.clone(), session);
        if !effects.is_empty() {
            self.mailboxes.insert(node, (session, meta));
        }
        effects
    }

    fn node_down(&mut self, node: &NodeName, session: u64) -> Vec<Effect> {
        self.plan.node_down(node, session);
        if self.mailboxes.get(node).is_some_and(|(open, _)| *open == session) {
            self.mailboxes.remove(node);
        }
        Vec::new()
    }

    fn perform(&self, effect: Effect, cx: &Context<SyncMsg>) {
        match effect {
            Effect::AskHoldings { node, session } => self.ask_holdings(node, session, cx),
            Effect::Send { node, session, batch, changes } => self.send(node, session, batch, changes, cx),
            Effect::RetryAfter { node, session, pause } => {
                cx.after(cx.env().jitter(pause), SyncMsg::Retry { node, session });
            }
        }
    }

    fn mailbox(&self, node: &NodeName, session: u64) -> Option<Address<MetaDown>> {
        self.mailboxes.get(node).filter(|(open, _)| *open == session).map(|(_, meta)| meta.clone())
    }

    fn ask_holdings(&self, node: NodeName, session: u64, cx: &Context<SyncMsg>) {
        let Some(meta) = self.mailbox(&node, session) else { return };
        let myself = cx.myself();
        cx.spawn(async move {
            let held = meta.ask(ANSWER_DEADLINE, |reply| MetaDown::Holdings { reply }).await;
            if let Err(error) = &held {
                tracing::warn!(%node, %error, "node did not say what it holds");
            }
            let _ = myself.tell(SyncMsg::Holdings { node, session, held: held.ok() }).await;
        });
    }

    fn send(
        &self,
        node: NodeName,
        session: u64,
        batch: u64,
        changes: Vec<contract::Change>,
        cx: &Context<SyncMsg>,
    ) {
        let Some(meta) = self.mailbox(&node, session) else { return };
        let myself = cx.myself();
        cx.spawn(async move {
            let answer = meta.ask(ANSWER_DEADLINE, |reply| MetaDown::Apply { changes, reply }).await;
            let result = answer.unwrap_or_else(|error| Err(error.to_string()));
            let _ = myself.tell(SyncMsg::Applied { node, session, batch, result }).await;
        });
    }
}
