//! MetaManager's actor.

use std::time::Duration;

use beehive::defect::{self, Defect};
use beehive::{Actor, Address, Context, Fault, Moment, Reply};
use contract::devicecontroller::DeviceUp;
use contract::devicetwin::TwinMsg;
use contract::edgecontroller::EdgeUp;
use contract::edged::EdgedMsg;
use contract::edgehub::EdgeHubMsg;
use contract::ids::{DEVICE_MODELS, DEVICES};
use contract::metamanager::{MetaDown, MetaMsg, NoToken, NotApplied, Offer, OutboxQueue};
use contract::router::RouterUp;
use contract::{Change, Held, ObjectKey, TokenGrant, TokenQuery};
use edge_store::{Queue, Store, StoreError, Write};

use crate::offer::{Gate, Heads};
use crate::plan::{self, Delivery, Repeats, Sender};

/// 30 s: a delivery waits for the cloud's own writes.
const DELIVERY_DEADLINE: Duration = Duration::from_secs(30);
/// 15 s: a pod that starts waits for its token.
const TOKEN_DEADLINE: Duration = Duration::from_secs(15);
/// 5 s: rows whose nudge was lost to a full mailbox leave at the latest after this.
const LOOK_PERIOD: Duration = Duration::from_secs(5);
/// 30 s: after 40 without a word the node controller calls a node unknown (node-monitor-grace-period), which only the node's
/// own report undoes.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(30);
/// 15 s: Edged speaks every 6.5.
const EDGED_ALIVE_FOR: Duration = Duration::from_secs(15);

#[derive(Clone)]
struct Cloud {
    edge: Address<EdgeUp>,
    device: Address<DeviceUp>,
    router: Address<RouterUp>,
}

/// In the order of the roads.
const QUEUES: [OutboxQueue; 3] = [OutboxQueue::Node, OutboxQueue::Devices, OutboxQueue::Telemetry];

/// What leaves the outbox in one order, one delivery at a time.
struct Road {
    queue: OutboxQueue,
    sender: Sender,
    repeats: Repeats,
}

impl Road {
    fn new(queue: OutboxQueue) -> Self {
        Road { queue, sender: Sender::default(), repeats: Repeats::default() }
    }

    fn rows(&self) -> Queue {
        match self.queue {
            OutboxQueue::Node => Queue::Node,
            OutboxQueue::Devices => Queue::Devices,
            OutboxQueue::Telemetry => Queue::Telemetry,
        }
    }
}

/// Stands between the node's store and the cloud.
pub struct MetaManager {
    store: Store,
    edged: Address<EdgedMsg>,
    twin: Address<TwinMsg>,
    hub: Address<EdgeHubMsg>,
    cloud: Option<Cloud>,
    roads: [Road; 3],
    gate: Gate,
    applied: u64,
    confirmed: u64,
    /// When the link went down, while it is.
    down_since: Option<Moment>,
    /// When Edged last said that it makes progress.
    edged_alive: Option<Moment>,
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
            roads: QUEUES.map(Road::new),
            gate: Gate::default(),
            applied: 0,
            confirmed: 0,
            down_since: None,
            edged_alive: None,
        }
    }
}

impl Actor for MetaManager {
    type Message = MetaMsg;

    async fn started(&mut self, cx: &mut Context<MetaMsg>) -> Result<(), Fault> {
        for road in &mut self.roads {
            // What cannot be known is taken for sent.
            road.repeats = Repeats::after(self.store.newest_seq(road.rows()).unwrap_or(i64::MAX));
        }
        cx.every(LOOK_PERIOD, || MetaMsg::OutboxGrew);
        // A link that is up was handed to an earlier incarnation and would stay unused.
        let _ = self.hub.try_tell(EdgeHubMsg::MetaBegan);
        Ok(())
    }

    async fn handle(&mut self, message: MetaMsg, cx: &mut Context<MetaMsg>) -> Result<(), Fault> {
        match message {
            MetaMsg::LinkUp { edge, device, router } => {
                self.link_up(Cloud { edge, device, router }, cx).await;
            }
            MetaMsg::LinkDown => self.link_down(cx.now()),
            MetaMsg::Down(MetaDown::Offer { reply }) => self.offer(reply, cx),
            MetaMsg::Down(MetaDown::Holdings { offer, buckets, reply }) => {
                self.holdings(offer, &buckets, reply);
            }
            MetaMsg::Down(MetaDown::Apply { offer, place, changes, reply }) => {
                self.apply((offer, place), changes, reply).await;
            }
            MetaMsg::OutboxGrew => self.deliver(cx).await,
            MetaMsg::EdgedAlive => {
                self.edged_alive = Some(cx.now());
                self.pass_on_alive();
            }
            MetaMsg::Delivered { queue, delivery, confirmed } => {
                self.delivered(queue, delivery, confirmed, cx).await;
            }
            MetaMsg::Token { query, reply } => self.token(query, reply, cx),
        }
        Ok(())
    }

    fn snapshot(&self) -> serde_json::Value {
        serde_json::json!({
            "linked": self.cloud.is_some(),
            "appliedChanges": self.applied,
            "confirmedReports": self.confirmed,
        })
    }
}

impl MetaManager {
    async fn link_up(&mut self, cloud: Cloud, cx: &Context<MetaMsg>) {
        self.cloud = Some(cloud);
        self.roads.iter_mut().for_each(|road| road.sender.link_up());
        if self.down_since.take().is_some_and(|since| cx.now().since(since) >= FORGOTTEN_AFTER) {
            // A full mailbox: Edged reports by itself within five minutes.
            let _ = self.edged.try_tell(EdgedMsg::ReportAnew);
        }
        // A node that comes back is Ready at once, not at Edged's next word.
        if self.edged_alive.is_some_and(|at| cx.now().since(at) <= EDGED_ALIVE_FOR) {
            self.pass_on_alive();
        }
        self.deliver(cx).await;
    }

    fn link_down(&mut self, now: Moment) {
        self.down_since.get_or_insert(now);
        self.cloud = None;
        self.roads.iter_mut().for_each(|road| road.sender.link_down());
    }

    /// What the node holds in short. Batches that were sent before are of an older offer, and do not count any more.
    fn offer(&mut self, reply: Reply<Offer>, cx: &Context<MetaMsg>) {
        let heads = match self.store.object_versions() {
            Ok(heads) => Heads::of(heads),
            Err(error) => {
                self.gate.close();
                return unread(&error, reply);
            }
        };
        let (number, digest) = (number_of(cx.env().random_id()), heads.digest());
        self.gate.open(number, digest.buckets.len());
        reply.send(Offer { number, digest });
    }

    fn holdings(&self, offer: u64, buckets: &[u16], reply: Reply<Vec<Held>>) {
        let Some(of) = self.gate.buckets_of(offer) else {
            return reply.fail(beehive::AskError::Rejected("the offer has ended".to_owned()));
        };
        match self.store.object_versions() {
            Ok(heads) => reply.send(Heads::of(heads).in_buckets(buckets, of)),
            Err(error) => unread(&error, reply),
        }
    }

    /// One batch is one commit; the answer goes out after it.
    async fn apply(
        &mut self,
        (offer, place): (u64, u64),
        changes: Vec<Change>,
        reply: Reply<Result<(), NotApplied>>,
    ) {
        if !self.gate.passes(offer, place) {
            return reply.send(Err(NotApplied::Stale));
        }
        let devices = changes.iter().any(|c| matches!(c.key().resource.as_str(), DEVICES | DEVICE_MODELS));
        let others = changes.iter().any(|c| !matches!(c.key().resource.as_str(), DEVICES | DEVICE_MODELS));
        let count = changes.len() as u64;
        let writes = changes.into_iter().map(write_of).collect();
        match self.store.commit(writes).await {
            Ok(_) => {
                self.applied += count;
                reply.send(Ok(()));
                // A full mailbox already holds a nudge to look.
                if others {
                    let _ = self.edged.try_tell(EdgedMsg::Look);
                }
                if devices {
                    let _ = self.twin.try_tell(TwinMsg::Look);
                }
            }
            Err(_) if defect::is_planted(Defect::AckBeforeCommit) => reply.send(Ok(())),
            Err(error) => {
                self.gate.close();
                let reason = Fault::from_error(&error).reason;
                tracing::error!(%reason, "batch not committed");
                reply.send(Err(NotApplied::Refused(reason)));
            }
        }
    }

    fn pass_on_alive(&self) {
        if let Some(cloud) = &self.cloud {
            let _ = cloud.edge.try_tell(EdgeUp::Alive);
        }
    }

    async fn deliver(&mut self, cx: &Context<MetaMsg>) {
        for queue in QUEUES {
            self.deliver_from(queue, cx).await;
        }
    }

    fn road(&mut self, queue: OutboxQueue) -> &mut Road {
        let [node, devices, telemetry] = &mut self.roads;
        match queue {
            OutboxQueue::Node => node,
            OutboxQueue::Devices => devices,
            OutboxQueue::Telemetry => telemetry,
        }
    }

    /// Sends the head of a queue, unless a delivery of it is under way.
    async fn deliver_from(&mut self, queue: OutboxQueue, cx: &Context<MetaMsg>) {
        let Some(cloud) = self.cloud.clone() else { return };
        let store = self.store.clone();
        let road = self.road(queue);
        let Some(number) = road.sender.begin() else { return };
        let rows = match store.queue_head(road.rows(), 0, plan::DELIVERY_ROWS, plan::DELIVERY_BYTES) {
            Ok(rows) => rows,
            Err(error) => {
                tracing::error!(reason = %Fault::from_error(&error), "outbox cannot be read");
                Vec::new()
            }
        };
        if rows.is_empty() {
            road.sender.nothing_to_send();
            return;
        }
        if defect::is_planted(Defect::ForgottenReport) {
            let seqs = rows.iter().map(|row| row.seq).collect();
            let _ = store.commit(vec![Write::Confirm { seqs }]).await;
        }
        let delivery = plan::sort(rows, &mut road.repeats);
        let myself = cx.myself();
        cx.spawn(async move {
            let confirmed = send(delivery, &cloud).await;
            let _ = myself.tell(MetaMsg::Delivered { queue, delivery: number, confirmed }).await;
        });
    }

    async fn delivered(
        &mut self,
        queue: OutboxQueue,
        number: u64,
        confirmed: Option<Vec<i64>>,
        cx: &Context<MetaMsg>,
    ) {
        let seqs = confirmed.unwrap_or_default();
        let mut any = !seqs.is_empty();
        if any {
            let count = seqs.len() as u64;
            match self.store.commit(vec![Write::Confirm { seqs }]).await {
                Ok(_) => self.confirmed += count,
                Err(error) => {
                    // The rows stay and are sent again; the cloud recognises repeats.
                    tracing::error!(reason = %Fault::from_error(&error), "confirmation not committed");
                    any = false;
                }
            }
        }
        match self.road(queue).sender.ended(number, any) {
            None => {}
            Some(Duration::ZERO) => self.deliver_from(queue, cx).await,
            Some(pause) => {
                cx.after(cx.env().jitter(pause), MetaMsg::OutboxGrew);
            }
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

/// Not answered: the cloud asks again. An empty answer would be a lie that costs a full refill.
fn unread<T>(error: &StoreError, reply: Reply<T>) {
    let reason = Fault::from_error(error).reason;
    tracing::error!(%reason, "store does not say what it holds");
    reply.fail(beehive::AskError::Rejected(reason));
}

/// A number that no earlier incarnation of the actor has used.
fn number_of(id: [u8; 16]) -> u64 {
    id.iter().take(8).fold(0, |number, byte| (number << 8) | u64::from(*byte))
}

fn write_of(change: Change) -> Write {
    match change {
        Change::Upsert(object) => Write::PutObject {
            key: store_key(object.key),
            uid: object.uid,
            resource_version: resource_version(&object.json),
            content_hash: object.version,
            json: object.json.to_vec(),
        },
        Change::Delete { key, uid } => Write::DeleteObject { key: store_key(key), uid },
    }
}

/// `metadata.resourceVersion`; empty where there is none.
fn resource_version(json: &[u8]) -> String {
    #[derive(Default, serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Metadata {
        #[serde(default)]
        resource_version: String,
    }
    #[derive(Default, serde::Deserialize)]
    struct Head {
        #[serde(default)]
        metadata: Metadata,
    }
    serde_json::from_slice::<Head>(json).unwrap_or_default().metadata.resource_version
}

fn store_key(key: ObjectKey) -> edge_store::ObjectKey {
    edge_store::ObjectKey { resource: key.resource, namespace: key.namespace, name: key.name }
}

/// `None` when nothing at all was confirmed.
async fn send(delivery: Delivery, cloud: &Cloud) -> Option<Vec<i64>> {
    let Delivery { edge: to_edge, device: to_device, router: to_router, unreadable } = delivery;
    if !unreadable.is_empty() {
        tracing::error!(rows = unreadable.len(), "rows of the outbox are no reports and are dropped");
    }
    let for_edge = async {
        if to_edge.is_empty() {
            return Vec::new();
        }
        let ask =
            cloud.edge.ask(DELIVERY_DEADLINE, |reply| EdgeUp::Reports { reports: to_edge.into(), reply });
        ask.await.unwrap_or_default()
    };
    let for_device = async {
        if to_device.is_empty() {
            return Vec::new();
        }
        let ask = cloud
            .device
            .ask(DELIVERY_DEADLINE, |reply| DeviceUp::Reports { reports: to_device.into(), reply });
        ask.await.unwrap_or_default()
    };
    let for_router = async {
        if to_router.is_empty() {
            return Vec::new();
        }
        let ask = cloud
            .router
            .ask(DELIVERY_DEADLINE, |reply| RouterUp::Telemetry { uploads: to_router.into(), reply });
        ask.await.unwrap_or_default()
    };
    let (by_edge, by_device, by_router) = futures::future::join3(for_edge, for_device, for_router).await;
    let confirmed = unreadable.into_iter().chain(by_edge).chain(by_device).chain(by_router);
    let confirmed: Vec<i64> = confirmed.collect();
    (!confirmed.is_empty()).then_some(confirmed)
}
