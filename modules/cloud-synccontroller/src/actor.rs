//! SyncController's actor: hands messages to the plan and performs its effects.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use beehive::defect::{self, Defect};
use beehive::trace::{self, Span, TraceContext};
use beehive::{Actor, Address, AskError, Context, Env, Fault, Refusal, Sample};
use contract::NodeName;
use contract::cloudhub::{CloudHubMsg, SessionReader};
use contract::cloudtaskmanager::CloudTaskMsg;
use contract::devicecontroller::DeviceControllerMsg;
use contract::edgecontroller::EdgeControllerMsg;
use contract::metamanager::{MetaDown, NotApplied};
use contract::nodelease::NodeLeaseMsg;
use contract::router::RouterMsg;
use contract::synccontroller::{BatchFailure, RetryOf, Source, SyncMsg, SyncStatus};
use contract::{Change, traced};

use crate::events;
use crate::plan::{Current, Effect, Plan};
use crate::status::Timestamp;

/// 60 s: a batch over a slow link with a full disk queue in front of it. The link's own pings notice a dead link earlier.
const ANSWER_DEADLINE: Duration = Duration::from_secs(60);
/// 30 s: the API server has a moment.
const WRITE_DEADLINE: Duration = Duration::from_secs(30);
/// 1 s between looks whose status has changed.
const TICK: Duration = Duration::from_secs(1);

/// Whom SyncController speaks to beside the nodes.
#[derive(Clone)]
pub struct Addresses {
    /// NodeLease, which writes whether a node is in sync.
    pub lease: Address<NodeLeaseMsg>,
    /// CloudHub, which is asked who is linked.
    pub hub: Address<CloudHubMsg>,
    /// EdgeController, which is asked for what nodes should hold.
    pub edge: Address<EdgeControllerMsg>,
    /// DeviceController, which is asked for the same.
    pub device: Address<DeviceControllerMsg>,
    /// CloudRouter, which is asked for the same.
    pub router: Address<RouterMsg>,
    /// The task manager.
    pub tasks: Address<CloudTaskMsg>,
}

/// Feeds every node the difference between what it holds and what it should.
pub struct SyncController {
    plan: Plan,
    mailboxes: BTreeMap<NodeName, (u64, Address<MetaDown>)>,
    addresses: Addresses,
    env: Option<Env>,
}

impl SyncController {
    /// A controller that knows of nothing yet.
    pub fn new(addresses: Addresses) -> Self {
        SyncController { plan: Plan::new(Source::ALL), mailboxes: BTreeMap::new(), addresses, env: None }
    }
}

impl Actor for SyncController {
    type Message = SyncMsg;

    async fn started(&mut self, cx: &mut Context<SyncMsg>) -> Result<(), Fault> {
        self.env = Some(cx.env().clone());
        cx.every(TICK, || SyncMsg::Tick);
        // What an earlier incarnation knew is gone: the sources say it again, and the hub who is linked.
        let Addresses { hub, edge, device, router, tasks, .. } = &self.addresses;
        if !defect::is_planted(Defect::NotListedAgain) {
            cx.spawn_tell(edge, EdgeControllerMsg::ListAgain);
            cx.spawn_tell(device, DeviceControllerMsg::ListAgain);
            cx.spawn_tell(router, RouterMsg::ListAgain);
            cx.spawn_tell(tasks, CloudTaskMsg::ListAgain);
        }
        cx.spawn_tell(hub, CloudHubMsg::TellSessions { to: SessionReader::SyncController });
        Ok(())
    }

    async fn handle(&mut self, message: SyncMsg, cx: &mut Context<SyncMsg>) -> Result<(), Fault> {
        let now = timestamp(cx.env());
        let effects = match message {
            SyncMsg::ListBegins(source) => {
                self.plan.list_begins(source);
                Vec::new()
            }
            SyncMsg::Upsert { node, object } => {
                // It goes out with others, in a batch of its node.
                cx.env().traces().follow(|| traced::on_the_way(&node, &object.key), trace::context());
                self.plan.upsert(&node, object, now)
            }
            SyncMsg::Delete { node, key } => self.plan.delete(&node, &key, now),
            SyncMsg::Flush => self.plan.flush(),
            SyncMsg::ListComplete(source) => self.plan.list_complete(source, now),
            SyncMsg::Current { source, node, session, unknown } => {
                self.plan.current(source, &node, Current { session, unknown }, now)
            }
            SyncMsg::AllNodesDown => {
                self.plan.all_nodes_down();
                self.mailboxes.clear();
                Vec::new()
            }
            SyncMsg::NodeUp { node, session, meta } => self.node_up(node, session, meta),
            SyncMsg::NodeDown { node, session } => self.node_down(&node, session),
            SyncMsg::Inventory { node, session, inventory } => {
                self.plan.inventory_answered(&node, session, inventory, now)
            }
            SyncMsg::ObjectVersions { node, session, inventory, buckets, versions } => {
                self.plan.object_versions(&node, session, (inventory, &buckets), versions, now)
            }
            SyncMsg::Applied { node, session, batch, result } => {
                if let Err(loss) = &result {
                    events::batch_not_applied(cx.env(), &node, batch, loss);
                }
                self.plan.applied(&node, session, batch, result, now)
            }
            SyncMsg::Retry { node, session, again } => self.plan.retry(&node, session, again),
            SyncMsg::Tick => self.plan.tick(now),
            SyncMsg::StatusWritten { node, status, written } => {
                if !written {
                    events::status_not_written(cx.env(), &node);
                }
                self.plan.status_written(&node, status, written);
                Vec::new()
            }
        };
        for effect in effects {
            self.perform(effect, cx);
        }
        Ok(())
    }

    fn snapshot(&self) -> serde_json::Value {
        let view = self.env.as_ref().map(|env| self.plan.view(timestamp(env)));
        serde_json::to_value(view).unwrap_or_default()
    }

    fn samples(&self) -> Vec<Sample> {
        let view = self.env.as_ref().map(|env| self.plan.view(timestamp(env)));
        view.into_iter().flatten().flat_map(|(node, view)| view.samples(&node)).collect()
    }
}

fn timestamp(env: &Env) -> Timestamp {
    let since = env.wall().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp { moment: env.now(), unix: i64::try_from(since.as_secs()).unwrap_or(i64::MAX) }
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
            Effect::AskInventory { node, session } => self.ask_inventory(node, session, cx),
            Effect::AskObjectVersions { node, session, inventory, buckets } => {
                self.ask_object_versions(node, session, inventory, buckets, cx);
            }
            Effect::Send { node, session, batch, inventory, sequence, changes } => {
                let Some(meta) = self.mailbox(&node, session) else { return };
                let followed = followed(&node, &changes, cx.env());
                let apply = move |reply| MetaDown::Apply { inventory, sequence, changes, reply };
                self.send((node, session, batch), followed, meta, apply, cx);
            }
            Effect::Flush => {
                let myself = cx.myself();
                cx.spawn(async move {
                    let _ = myself.tell(SyncMsg::Flush).await;
                });
            }
            Effect::RetryAfter { node, session, pause, again } => {
                if again == RetryOf::Quarantined {
                    events::quarantined(cx.env(), &node, pause);
                }
                cx.after(cx.env().jitter(pause), SyncMsg::Retry { node, session, again });
            }
            Effect::WriteStatus { node, status } => self.write_status(node, status, cx),
        }
    }

    fn mailbox(&self, node: &NodeName, session: u64) -> Option<Address<MetaDown>> {
        self.mailboxes.get(node).filter(|(open, _)| *open == session).map(|(_, meta)| meta.clone())
    }

    fn ask_inventory(&self, node: NodeName, session: u64, cx: &Context<SyncMsg>) {
        let Some(meta) = self.mailbox(&node, session) else { return };
        events::compare_begun(cx.env(), &node, session);
        let (myself, env) = (cx.myself(), cx.env().clone());
        cx.spawn(async move {
            let inventory = meta.ask(ANSWER_DEADLINE, |reply| MetaDown::Inventory { reply }).await;
            if let Err(error) = &inventory {
                events::inventory_unanswered(&env, &node, error);
            }
            let _ = myself.tell(SyncMsg::Inventory { node, session, inventory: inventory.ok() }).await;
        });
    }

    fn ask_object_versions(
        &self,
        node: NodeName,
        session: u64,
        inventory: u64,
        buckets: Vec<u16>,
        cx: &Context<SyncMsg>,
    ) {
        let Some(meta) = self.mailbox(&node, session) else { return };
        let (myself, env) = (cx.myself(), cx.env().clone());
        cx.spawn(async move {
            let asked = buckets.clone();
            let ask = |reply| MetaDown::ObjectVersions { inventory, buckets: asked, reply };
            let versions = meta.ask(ANSWER_DEADLINE, ask).await;
            if let Err(error) = &versions {
                events::inventory_unanswered(&env, &node, error);
            }
            let versions = versions.ok();
            let _ =
                myself.tell(SyncMsg::ObjectVersions { node, session, inventory, buckets, versions }).await;
        });
    }

    fn send(
        &self,
        (node, session, batch): (NodeName, u64, u64),
        mut followed: Vec<FollowedChange>,
        meta: Address<MetaDown>,
        apply: impl FnOnce(beehive::Reply<Result<(), NotApplied>>) -> MetaDown + 'static,
        cx: &Context<SyncMsg>,
    ) {
        let (myself, env) = (cx.myself(), cx.env().clone());
        cx.spawn(async move {
            let parts = followed.iter().filter_map(|change| Some((change.place, change.span.context()?)));
            let asked = trace::with_parts(parts, meta.ask(ANSWER_DEADLINE, apply)).await;
            let result = match asked {
                Ok(answer) => answer.map_err(not_applied),
                Err(error) => Err(loss_of(error)),
            };
            if let Err(loss) = &result {
                for FollowedChange { span, subject, parent, .. } in &mut followed {
                    span.fail(|| format!("{loss:?}"));
                    // It is sent again.
                    env.traces().follow(|| subject.clone(), Some(*parent));
                }
            }
            drop(followed);
            let _ = myself.tell(SyncMsg::Applied { node, session, batch, result }).await;
        });
    }

    fn write_status(&self, node: NodeName, status: SyncStatus, cx: &Context<SyncMsg>) {
        let (lease, myself) = (self.addresses.lease.clone(), cx.myself());
        cx.spawn(async move {
            let show = |reply| NodeLeaseMsg::ShowSynced { node: node.clone(), status: status.clone(), reply };
            let written = lease.ask(WRITE_DEADLINE, show).await.unwrap_or(false);
            let _ = myself.tell(SyncMsg::StatusWritten { node, status, written }).await;
        });
    }
}

/// A change in a batch that somebody follows.
struct FollowedChange {
    place: usize,
    /// It ends when the node has answered.
    span: Span,
    subject: String,
    parent: TraceContext,
}

fn followed(node: &NodeName, changes: &[Change], env: &Env) -> Vec<FollowedChange> {
    if !env.traces().is_on() {
        return Vec::new();
    }
    let changes = changes.iter().enumerate().filter_map(|(place, change)| {
        let subject = traced::on_the_way(node, change.key());
        let parent = env.traces().take_of(|| subject.clone())?;
        let span = env.traces().child("SyncController send", Some(parent));
        let span = traced::named(span, change.key()).with("k8s.node.name", || node.to_string());
        Some(FollowedChange { place, span, subject, parent })
    });
    changes.collect()
}

fn not_applied(answer: NotApplied) -> BatchFailure {
    match answer {
        NotApplied::Refused(why) => BatchFailure::Refused(why),
        NotApplied::Stale => BatchFailure::Stale,
    }
}

fn loss_of(error: AskError) -> BatchFailure {
    match error {
        AskError::Refused(Refusal::TooLarge) => BatchFailure::TooLarge,
        // The node is there, and does not understand what it was sent.
        AskError::Rejected(why) => BatchFailure::Refused(why),
        other @ (AskError::Refused(_)
        | AskError::Deadline
        | AskError::Crashed
        | AskError::LinkDown
        | AskError::Undeclared) => BatchFailure::Unanswered(other.to_string()),
    }
}
