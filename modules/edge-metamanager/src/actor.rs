//! MetaManager's actor.

mod delivery;

use std::time::Duration;

use beehive::defect::{self, Defect};
use beehive::trace::{self, Span, Traces};
use beehive::{Actor, Address, AskError, Context, Fault, Moment, Reply};
use contract::devicetwin::TwinMsg;
use contract::downlink::{Inventory, MetaDown, NotApplied};
use contract::edgecontroller::EdgeUp;
use contract::edged::EdgedMsg;
use contract::edgehub::EdgeHubMsg;
use contract::edgetaskmanager::EdgeTaskMsg;
use contract::eventbus::EventBusMsg;
use contract::metamanager::{MetaMsg, NoToken};
use contract::report::OutboxQueue;
use contract::rule_call::{RuleAnswer, RuleCall};
use contract::servicebus::ServiceBusMsg;
use contract::uplink::RouterUp;
use contract::{
    Change, ChangedObjects, ObjectKey, ObjectVersion, TokenGrant, TokenQuery, capability, traced,
};
use edge_store::Store;

use crate::events::{CHANGES_APPLIED, Event};
use crate::inventory::BatchSequencer;
use crate::plan::{self, QUEUES};
use crate::rule_topics::RuleTopics;
use crate::store::{MetaStore, write_of};

use self::delivery::{CloudAddresses, QueueDelivery};

/// 15 s: a pod that starts waits for its token.
const TOKEN_DEADLINE: Duration = Duration::from_secs(15);
/// 50 s for a rule's target to answer a call: the router gives up before.
const RULE_CALL_DEADLINE: Duration = Duration::from_secs(50);
/// 5 s: what a full mailbox did not take is told again, and rows whose nudge was lost leave, at the latest after this.
const TICK: Duration = Duration::from_secs(5);
/// 15 s: Edged speaks every 6.5.
const EDGED_ALIVE_FOR: Duration = Duration::from_secs(15);

/// Stands between the node's store and the cloud.
pub struct MetaManager {
    store: Store,
    edged: Address<EdgedMsg>,
    twin: Address<TwinMsg>,
    hub: Address<EdgeHubMsg>,
    cloud: Option<CloudAddresses>,
    queues: [QueueDelivery; QUEUES],
    /// Which topics of rules wait for their targets.
    rule_topics: RuleTopics,
    /// The two that act by rules, if they are there.
    bus: Option<Address<EventBusMsg>>,
    service_bus: Option<Address<ServiceBusMsg>>,
    /// Who does the node's parts of jobs, if it is there.
    tasks: Option<Address<EdgeTaskMsg>>,
    batches: BatchSequencer,
    /// What the others have not been told yet. After a restart nobody knows what it was.
    untold: [(LocalModule, ChangedObjects); LocalModule::ALL.len()],
    /// The hub knows that a link has to be handed over.
    hub_knows: bool,
    applied: u64,
    confirmed: u64,
    /// When Edged last said that it makes progress.
    edged_alive: Option<Moment>,
}

/// Who is told what changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LocalModule {
    Edged,
    DeviceTwin,
    EventBus,
    ServiceBus,
    TaskManager,
}

impl LocalModule {
    const ALL: [LocalModule; 5] = [
        LocalModule::Edged,
        LocalModule::DeviceTwin,
        LocalModule::EventBus,
        LocalModule::ServiceBus,
        LocalModule::TaskManager,
    ];
}

impl MetaManager {
    /// A MetaManager over `store` with its neighbours on the node.
    pub fn new(
        store: Store,
        edged: Address<EdgedMsg>,
        twin: Address<TwinMsg>,
        hub: Address<EdgeHubMsg>,
    ) -> Self {
        MetaManager {
            store,
            edged,
            twin,
            hub,
            cloud: None,
            queues: [i64::MAX; QUEUES].map(QueueDelivery::after),
            rule_topics: RuleTopics::default(),
            bus: None,
            service_bus: None,
            tasks: None,
            batches: BatchSequencer::default(),
            untold: LocalModule::ALL.map(|who| (who, ChangedObjects::Any)),
            hub_knows: false,
            applied: 0,
            confirmed: 0,
            edged_alive: None,
        }
    }

    /// The same, which tells the EventBus about rules.
    #[must_use]
    pub fn telling_bus(self, bus: Address<EventBusMsg>) -> Self {
        MetaManager { bus: Some(bus), ..self }
    }

    /// The same, which tells the ServiceBus about rules.
    #[must_use]
    pub fn telling_service_bus(self, service_bus: Option<Address<ServiceBusMsg>>) -> Self {
        MetaManager { service_bus, ..self }
    }

    /// The same, which tells TaskManager about jobs.
    #[must_use]
    pub fn telling_tasks(self, tasks: Address<EdgeTaskMsg>) -> Self {
        MetaManager { tasks: Some(tasks), ..self }
    }

    fn store(&self, cx: &Context<MetaMsg>) -> MetaStore {
        MetaStore::new(self.store.clone(), cx.env().clone())
    }
}

impl Actor for MetaManager {
    type Message = MetaMsg;

    async fn started(&mut self, cx: &mut Context<MetaMsg>) -> Result<(), Fault> {
        self.queues = self.store(cx).newest(OutboxQueue::ALL).await?.map(QueueDelivery::after);
        cx.every(TICK, || MetaMsg::OutboxGrew);
        self.tell_neighbours();
        Ok(())
    }

    async fn handle(&mut self, message: MetaMsg, cx: &mut Context<MetaMsg>) -> Result<(), Fault> {
        match message {
            MetaMsg::LinkUp { edge, device, router, tasks, peer } => {
                self.link_up(CloudAddresses { edge, device, router, tasks, peer }, cx).await
            }
            MetaMsg::LinkDown => {
                self.link_down();
                Ok(())
            }
            MetaMsg::Down(MetaDown::Inventory { reply }) => self.inventory(reply, cx).await,
            MetaMsg::Down(MetaDown::ObjectVersions { inventory, buckets, reply }) => {
                self.object_versions(inventory, buckets, reply, cx).await
            }
            MetaMsg::Down(MetaDown::Apply { inventory, sequence, changes, reply }) => {
                self.apply((inventory, sequence), changes, reply, cx).await;
                Ok(())
            }
            MetaMsg::OutboxGrew => {
                self.tell_neighbours();
                self.deliver(cx).await
            }
            MetaMsg::EdgedAlive => {
                self.edged_alive = Some(cx.now());
                self.pass_on_alive();
                Ok(())
            }
            MetaMsg::Delivered { queue, delivery, confirmed } => {
                self.delivered(queue, delivery, confirmed, cx).await
            }
            MetaMsg::Token { query, reply } => {
                self.token(query, reply, cx);
                Ok(())
            }
            MetaMsg::RuleCall { call, reply } => {
                self.rule_call(call, reply, cx);
                Ok(())
            }
            MetaMsg::RulesDue => {
                self.look_again_at_rules(cx);
                self.deliver_from(OutboxQueue::Rules, cx).await
            }
        }
    }

    fn snapshot(&self) -> serde_json::Value {
        serde_json::json!({
            "linked": self.cloud.is_some(),
            "appliedChanges": self.applied,
            "confirmedReports": self.confirmed,
            "waitingRuleTopics": self.rule_topics.len(),
        })
    }
}

/// The link, and the way down.
impl MetaManager {
    async fn link_up(&mut self, cloud: CloudAddresses, cx: &Context<MetaMsg>) -> Result<(), Fault> {
        self.cloud = Some(cloud);
        self.queues.iter_mut().for_each(|queue| queue.sender.link_up());
        self.rule_topics.link_up();
        // A full mailbox: Edged reports by itself within five minutes.
        let _ = self.edged.try_tell(EdgedMsg::ReportNode);
        // A node that comes back is Ready at once, not at Edged's next word.
        if self.edged_alive.is_some_and(|at| cx.now().since(at) <= EDGED_ALIVE_FOR) {
            self.pass_on_alive();
        }
        self.deliver(cx).await
    }

    fn link_down(&mut self) {
        self.cloud = None;
        self.queues.iter_mut().for_each(|queue| queue.sender.link_down());
    }

    /// What the node holds in short. Batches that were sent before are of an older inventory, and do not count any more.
    async fn inventory(&mut self, reply: Reply<Inventory>, cx: &Context<MetaMsg>) -> Result<(), Fault> {
        self.batches.close();
        let digest = match self.store(cx).holdings(|holdings| holdings.digest()).await? {
            Ok(digest) => digest,
            Err(reason) => {
                unread(reason, reply, cx);
                return Ok(());
            }
        };
        let number = number_of(cx.env().random_id());
        self.batches.open(number, digest.buckets.len());
        reply.send(Inventory { number, digest });
        Ok(())
    }

    async fn object_versions(
        &self,
        inventory: u64,
        buckets: Vec<u16>,
        reply: Reply<Vec<ObjectVersion>>,
        cx: &Context<MetaMsg>,
    ) -> Result<(), Fault> {
        let Some(of) = self.batches.buckets_of(inventory) else {
            reply.fail(AskError::Rejected("the inventory has ended".to_owned()));
            return Ok(());
        };
        match self.store(cx).holdings(move |holdings| holdings.in_buckets(&buckets, of)).await? {
            Ok(versions) => reply.send(versions),
            Err(reason) => unread(reason, reply, cx),
        }
        Ok(())
    }

    /// One batch is one commit; the answer goes out after it.
    async fn apply(
        &mut self,
        (inventory, sequence): (u64, u64),
        changes: Vec<Change>,
        reply: Reply<Result<(), NotApplied>>,
        cx: &Context<MetaMsg>,
    ) {
        if !self.batches.takes(inventory, sequence) {
            return reply.send(Err(NotApplied::Stale));
        }
        let keys: Vec<ObjectKey> = changes.iter().map(|change| change.key().clone()).collect();
        let mut followed = followed(&keys, cx.env().traces());
        let count = changes.len() as u64;
        let writes = changes.into_iter().map(write_of).collect();
        match self.store(cx).commit(writes).await {
            Ok(()) => {
                self.applied += count;
                cx.env().metrics().add(CHANGES_APPLIED, count);
                reply.send(Ok(()));
                // Whoever is told looks at the store, where what has changed may be more than one batch.
                for (key, span) in followed {
                    cx.env().traces().follow(|| traced::held(&key), span.context());
                }
                for key in keys {
                    self.changed(key);
                }
                self.tell_neighbours();
            }
            Err(_) if defect::is_planted(Defect::AckBeforeCommit) => reply.send(Ok(())),
            Err(reason) => {
                self.batches.close();
                followed.iter_mut().for_each(|(_, span)| span.fail(|| reason.as_str()));
                Event::BatchRefused { reason: &reason }.happened(cx.env());
                reply.send(Err(NotApplied::Refused(reason)));
            }
        }
    }

    fn changed(&mut self, key: ObjectKey) {
        let recipients = plan::recipients(&key.resource);
        for (who, untold) in &mut self.untold {
            let is_concerned = match who {
                LocalModule::Edged => recipients.edged,
                LocalModule::DeviceTwin => recipients.device_twin,
                LocalModule::EventBus | LocalModule::ServiceBus => recipients.buses,
                LocalModule::TaskManager => recipients.tasks,
            };
            if is_concerned {
                untold.add(key.clone());
            }
        }
    }

    /// Tells what changed, and the hub that it may hand over its link: one that is up was handed to an earlier incarnation
    /// and would stay unused. What a full mailbox does not take is told at the next turn, with what has changed by then.
    fn tell_neighbours(&mut self) {
        for (who, untold) in &mut self.untold {
            if untold.is_empty() {
                continue;
            }
            let told = match who {
                LocalModule::Edged => self.edged.try_tell(EdgedMsg::ObjectsChanged(untold.clone())),
                LocalModule::DeviceTwin => self.twin.try_tell(TwinMsg::ObjectsChanged(untold.clone())),
                LocalModule::EventBus => match &self.bus {
                    Some(bus) => bus.try_tell(EventBusMsg::ObjectsChanged(untold.clone())),
                    None => Ok(()),
                },
                LocalModule::TaskManager => match &self.tasks {
                    Some(tasks) => tasks.try_tell(EdgeTaskMsg::ObjectsChanged(untold.clone())),
                    None => Ok(()),
                },
                LocalModule::ServiceBus => match &self.service_bus {
                    Some(bus) => bus.try_tell(ServiceBusMsg::ObjectsChanged(untold.clone())),
                    None => Ok(()),
                },
            };
            if told.is_ok() {
                *untold = ChangedObjects::default();
            }
        }
        if !self.hub_knows {
            self.hub_knows = self.hub.try_tell(EdgeHubMsg::MetaBegan).is_ok();
        }
    }

    fn pass_on_alive(&self) {
        if let Some(cloud) = &self.cloud {
            let _ = cloud.edge.try_tell(EdgeUp::Alive);
        }
    }

    fn token(&self, query: TokenQuery, reply: Reply<Result<TokenGrant, NoToken>>, cx: &Context<MetaMsg>) {
        let Some(cloud) = &self.cloud else {
            reply.send(Err(NoToken::OutOfReach));
            return;
        };
        let edge = cloud.edge.clone();
        cx.spawn(async move {
            let answer = edge.ask(TOKEN_DEADLINE, |reply| EdgeUp::Token { query: query.into(), reply }).await;
            // No answer is the link's fault, whatever it was.
            reply.send(answer.map_or(Err(NoToken::OutOfReach), |answer| answer.map_err(NoToken::Refused)));
        });
    }
}

/// Calls of rules.
impl MetaManager {
    /// Asked once: whoever calls hears what came of it, or that nobody knows.
    fn rule_call(&self, call: RuleCall, reply: Reply<RuleAnswer>, cx: &Context<MetaMsg>) {
        let Some(cloud) = &self.cloud else {
            reply.send(RuleAnswer::failed(
                503,
                "the cloud is out of reach, and the rule's target is there: call again later",
            ));
            return;
        };
        if !cloud.peer.has(capability::RULE_CALLS) {
            reply.send(RuleAnswer::failed(501, "this CloudCore is of a release that knows no rules"));
            return;
        }
        let router = cloud.router.clone();
        cx.spawn(async move {
            let answer = router.ask(RULE_CALL_DEADLINE, |reply| RouterUp::RuleCall { call, reply }).await;
            reply.send(answer.unwrap_or_else(|error| {
                let why = format!("nobody knows whether the rule's target was called: {error}");
                RuleAnswer::failed(504, why)
            }));
        });
    }
}

/// The objects of the batch in hand that are followed; each span ends when they are stored.
fn followed(keys: &[ObjectKey], traces: &Traces) -> Vec<(ObjectKey, Span)> {
    let parts = trace::parts().into_iter().filter_map(|(place, parent)| {
        let key = keys.get(place)?;
        Some((key.clone(), traced::named(traces.child("MetaManager store", Some(parent)), key)))
    });
    parts.collect()
}

/// Not answered: the cloud asks again. An empty answer would be a lie that costs a full refill.
fn unread<T>(reason: String, reply: Reply<T>, cx: &Context<MetaMsg>) {
    Event::InventoryUnread { reason: &reason }.happened(cx.env());
    reply.fail(AskError::Rejected(reason));
}

/// A number that no earlier incarnation of the actor has used.
fn number_of(id: [u8; 16]) -> u64 {
    id.iter().take(8).fold(0, |number, byte| (number << 8) | u64::from(*byte))
}
