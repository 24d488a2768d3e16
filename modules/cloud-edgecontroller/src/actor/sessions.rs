//! What the hub and the nodes say to EdgeController, each in its session.

use std::time::Duration;

use beehive::{Context, Fault, Moment, Reply};
use contract::NodeName;
use contract::edgecontroller::{ClaimRefused, EdgeControllerMsg};
use contract::synccontroller::SyncTruth;

use super::EdgeController;
use crate::deliveries::{Counter, Delivery, Question};
use crate::residents::Word;
use crate::synced::{self, Shown};

/// 5 s for taking a node, as long as the hub waits.
const CLAIM_DEADLINE: Duration = Duration::from_secs(5);
/// 2 s: what a node is asked to wait that could not be taken now.
const CLAIM_WAIT: Duration = Duration::from_secs(2);

impl EdgeController {
    /// Admits the node and takes it. Beside the actor, as whatever asks the API server.
    pub(super) fn claim(
        &self,
        node: NodeName,
        certificate: String,
        reply: Reply<Result<u64, ClaimRefused>>,
        cx: &Context<EdgeControllerMsg>,
    ) {
        // Whoever asked may have been sent away meanwhile: its node has another link by now.
        if reply.is_abandoned() {
            return;
        }
        let not_now = |reason: String| ClaimRefused { reason, wait: Some(CLAIM_WAIT) };
        if let Some(reason) = self.is_behind(&node) {
            return reply.send(Err(not_now(reason)));
        }
        let (tenures, residents, env) = (self.tenures.clone(), self.residents.clone(), cx.env().clone());
        cx.spawn(async move {
            let taken = async {
                // Nothing is written about a node that is not ours, its Lease included.
                let uid = residents.admit(&node, &certificate).await?;
                let epoch = tenures.claim(&node).await.map_err(|error| {
                    tracing::error!(%node, reason = %Fault::from_error(&error), "node not taken");
                    not_now("the node's Lease cannot be written now".to_owned())
                })?;
                residents.begin(&node, epoch, &certificate, uid);
                Ok(epoch)
            };
            let taken = env.timeout(CLAIM_DEADLINE, taken).await;
            reply.send(
                taken.unwrap_or_else(|| Err(not_now("the API server did not answer in time".to_owned()))),
            );
        });
    }

    pub(super) fn holds(
        &self,
        node: NodeName,
        epoch: u64,
        reply: Reply<Result<bool, String>>,
        cx: &Context<EdgeControllerMsg>,
    ) {
        let tenures = self.tenures.clone();
        cx.spawn(async move {
            let held = tenures.holds(&node, epoch).await;
            reply.send(held.map_err(|error| Fault::from_error(&error).reason));
        });
    }

    /// Whether the node's word counts in that session. Where it is in doubt, it is looked into.
    pub(super) fn counts(&self, node: &NodeName, epoch: u64, cx: &Context<EdgeControllerMsg>) -> bool {
        let word = self.residents.word(node, epoch);
        if word == Word::Doubtful {
            self.look_into(vec![node.clone()], cx);
        }
        word == Word::Counts
    }

    /// Finds out about nodes whose Node went or was replaced, as it seems.
    pub(super) fn look_into(&self, nodes: Vec<NodeName>, cx: &Context<EdgeControllerMsg>) {
        for node in nodes {
            if self.residents.is_in_doubt(&node) {
                let residents = self.residents.clone();
                cx.spawn(async move { residents.look_into(&node).await });
            }
        }
    }

    /// The end of an older session may be told after a newer one has begun.
    pub(super) fn node_down(&mut self, node: &NodeName, epoch: u64, cx: &Context<EdgeControllerMsg>) {
        if self.up.get(node).is_some_and(|(of, _)| *of == epoch) {
            self.up.remove(node);
            if self.withheld.remove(node) {
                self.index.touch(node);
                self.look_soon(cx);
            }
        }
        if self.renewed.get(node).is_some_and(|(of, _)| *of == epoch) {
            self.renewed.remove(node);
        }
    }

    /// Writes the reports beside the actor, so that a slow API server holds up one node's delivery and nothing else.
    pub(super) fn reports(&self, node: &NodeName, delivery: Delivery, cx: &Context<EdgeControllerMsg>) {
        match self.deliveries.put(node, delivery) {
            Ok(None) => {}
            Ok(Some(line)) => {
                cx.spawn(self.counter().deliver(node.clone(), line, cx.env().clone()));
            }
            Err(Delivery { reply, .. }) => {
                self.accounts.of(node).borrow_mut().turn_away(node);
                reply.send(Vec::new());
            }
        }
    }

    pub(super) fn token(&self, node: &NodeName, question: Question, cx: &Context<EdgeControllerMsg>) {
        match self.questions.put(node, question) {
            Ok(None) => {}
            Ok(Some(line)) => {
                cx.spawn(self.counter().answer(node.clone(), line));
            }
            Err(Question { reply, .. }) => {
                self.accounts.of(node).borrow_mut().turn_away(node);
                reply.send(Err("too many tokens are asked for at once: ask again".to_owned()));
            }
        }
    }

    fn counter(&self) -> Counter {
        Counter {
            client: self.client.clone(),
            tenures: self.tenures.clone(),
            residents: self.residents.clone(),
            accounts: self.accounts.clone(),
            pods: self.watches.as_ref().map(|watches| watches.pods.clone()),
        }
    }

    pub(super) fn alive(&mut self, node: NodeName, epoch: u64, cx: &Context<EdgeControllerMsg>) {
        if !self.counts(&node, epoch, cx) {
            return;
        }
        let now = cx.now();
        let recently = |(of, at): &(u64, Moment)| *of == epoch && now.since(*at) < self.lease_period / 2;
        if self.renewed.get(&node).is_some_and(recently) {
            return;
        }
        self.renewed.insert(node.clone(), (epoch, now));
        let tenures = self.tenures.clone();
        let wall = jiff::Timestamp::try_from(cx.wall()).unwrap_or_default();
        cx.spawn(async move {
            if let Err(error) = tenures.renew(&node, epoch, wall).await {
                tracing::warn!(%node, reason = %Fault::from_error(&error), "lease not renewed");
            }
        });
    }

    pub(super) fn synced(
        &self,
        node: NodeName,
        truth: SyncTruth,
        reply: Reply<bool>,
        cx: &Context<EdgeControllerMsg>,
    ) {
        let (client, tenures, residents) =
            (self.client.clone(), self.tenures.clone(), self.residents.clone());
        let now = jiff::Timestamp::try_from(cx.wall()).unwrap_or_default();
        let bytes = self.up.get(&node).map(|(_, traffic)| (traffic.received(), traffic.sent()));
        cx.spawn(async move {
            let shown = Shown { truth, bytes, now };
            reply.send(synced::show(&client, (&tenures, &residents), &node, &shown).await);
        });
    }
}
