//! The way up: the head of each queue of the outbox goes to the controllers that take it, one delivery at a time, and leaves
//! when they have confirmed it.

use std::time::Duration;

use beehive::defect::{self, Defect};
use beehive::link::Capabilities;
use beehive::{Address, Context, Fault};
use contract::devicecontroller::DeviceUp;
use contract::edgecontroller::EdgeUp;
use contract::metamanager::MetaMsg;
use contract::report::OutboxQueue;
use contract::router::RouterUp;
use edge_store::{OutboxRow, Write};

use super::MetaManager;
use crate::events::{Event, REPORTS_CONFIRMED};
use crate::plan::{self, Delivery, DeliverySchedule, SentRows};

/// 30 s: a delivery waits for the cloud's own writes.
const DELIVERY_DEADLINE: Duration = Duration::from_secs(30);

/// The cloud's mailboxes while the link is up.
#[derive(Clone)]
pub(super) struct CloudAddresses {
    pub(super) edge: Address<EdgeUp>,
    pub(super) device: Address<DeviceUp>,
    pub(super) router: Address<RouterUp>,
    /// What the cloud understands.
    pub(super) peer: Capabilities,
}

/// One queue of the outbox on its way.
#[derive(Debug, Default)]
pub(super) struct QueueDelivery {
    pub(super) sender: DeliverySchedule,
    pub(super) sent_rows: SentRows,
    /// All rows up to this seq are of kinds that this release does not know: they stay and are not read again.
    pub(super) passed: i64,
}

impl QueueDelivery {
    /// A queue whose newest row is `newest` when MetaManager begins.
    pub(super) fn after(newest: i64) -> Self {
        QueueDelivery { sent_rows: SentRows::after(newest), passed: i64::MIN, ..QueueDelivery::default() }
    }
}

impl MetaManager {
    pub(super) async fn deliver(&mut self, cx: &Context<MetaMsg>) -> Result<(), Fault> {
        for queue in OutboxQueue::ALL {
            self.deliver_from(queue, cx).await?;
        }
        Ok(())
    }

    fn queue(&mut self, queue: OutboxQueue) -> &mut QueueDelivery {
        let [node, devices, telemetry] = &mut self.queues;
        match queue {
            OutboxQueue::Node => node,
            OutboxQueue::Devices => devices,
            OutboxQueue::Telemetry => telemetry,
        }
    }

    /// Sends the head of a queue, unless a delivery of it is under way.
    async fn deliver_from(&mut self, queue: OutboxQueue, cx: &Context<MetaMsg>) -> Result<(), Fault> {
        let Some(cloud) = self.cloud.clone() else { return Ok(()) };
        let Some(number) = self.queue(queue).sender.begin() else { return Ok(()) };
        let Some(delivery) = self.next_delivery(queue, &cloud.peer, cx).await? else {
            self.queue(queue).sender.nothing_to_send();
            return Ok(());
        };
        if defect::is_planted(Defect::ForgottenReport) {
            let _ = self.store(cx).commit(vec![Write::Confirm { seqs: delivery.seqs() }]).await;
        }
        let (myself, env) = (cx.myself(), cx.env().clone());
        if !delivery.unreadable.is_empty() {
            Event::ReportsBroken { rows: delivery.unreadable.len() }.happened(&env);
        }
        for (_, capability) in &delivery.unsupported {
            Event::ReportUnsupported { capability }.happened(&env);
        }
        cx.spawn(async move {
            let confirmed = send(delivery, &cloud).await;
            let _ = myself.tell(MetaMsg::Delivered { queue, delivery: number, confirmed }).await;
        });
        Ok(())
    }

    /// What is to be sent next of a queue. Rows of kinds that this release does not know are passed over, so that they hold
    /// up nothing.
    async fn next_delivery(
        &mut self,
        queue: OutboxQueue,
        peer: &Capabilities,
        cx: &Context<MetaMsg>,
    ) -> Result<Option<Delivery>, Fault> {
        loop {
            let rows = match self.store(cx).head(queue, self.queue(queue).passed).await? {
                Ok(rows) => rows,
                Err(reason) => {
                    Event::OutboxUnread { reason: &reason }.happened(cx.env());
                    return Ok(None);
                }
            };
            if rows.is_empty() {
                return Ok(None);
            }
            let seqs: Vec<i64> = rows.iter().map(|row: &OutboxRow| row.seq).collect();
            let state = self.queue(queue);
            let delivery = plan::sort(rows, &mut state.sent_rows, peer);
            for (seq, kind) in delivery.passed_over(&seqs) {
                state.passed = seq;
                Event::ReportKept { kind }.happened(cx.env());
            }
            if !delivery.unknown.is_empty() && defect::is_planted(Defect::UnknownHoldsQueue) {
                return Ok(None);
            }
            if !delivery.is_empty() {
                return Ok(Some(delivery));
            }
        }
    }

    pub(super) async fn delivered(
        &mut self,
        queue: OutboxQueue,
        number: u64,
        confirmed: Option<Vec<i64>>,
        cx: &Context<MetaMsg>,
    ) -> Result<(), Fault> {
        let seqs = confirmed.unwrap_or_default();
        let mut any = !seqs.is_empty();
        if any {
            let count = seqs.len() as u64;
            match self.store(cx).commit(vec![Write::Confirm { seqs }]).await {
                Ok(()) => {
                    self.confirmed += count;
                    cx.env().metrics().add(REPORTS_CONFIRMED, count);
                }
                Err(reason) => {
                    Event::ConfirmationRefused { reason: &reason }.happened(cx.env());
                    any = false;
                }
            }
        }
        match self.queue(queue).sender.ended(number, any) {
            None => {}
            Some(Duration::ZERO) => self.deliver_from(queue, cx).await?,
            Some(pause) => {
                cx.after(cx.env().jitter(pause), MetaMsg::OutboxGrew);
            }
        }
        Ok(())
    }
}

/// The rows that need not be sent any more; `None` when there is none.
async fn send(delivery: Delivery, cloud: &CloudAddresses) -> Option<Vec<i64>> {
    let Delivery { edge: to_edge, device: to_device, router: to_router, unreadable, unsupported, .. } =
        delivery;
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
    let settled = unreadable.into_iter().chain(unsupported.into_iter().map(|(seq, _)| seq));
    let confirmed: Vec<i64> = settled.chain(by_edge).chain(by_device).chain(by_router).collect();
    (!confirmed.is_empty()).then_some(confirmed)
}
