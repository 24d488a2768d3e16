//! The way up: the head of each queue of the outbox goes to the controllers that take it, one delivery at a time, and leaves
//! when they have confirmed it. Devices take turns.

use std::time::Duration;

use beehive::defect::{self, Defect};
use beehive::link::Capabilities;
use beehive::trace::{self, Span, Traces};
use beehive::{Address, AskError, Context, Fault};
use contract::devicecontroller::DeviceUp;
use contract::edgecontroller::EdgeUp;
use contract::metamanager::MetaMsg;
use contract::report::OutboxQueue;
use contract::router::RouterUp;
use contract::uplink::TaskUp;
use contract::{Report, Upload, capability, traced};
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
    pub(super) tasks: Address<TaskUp>,
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
    /// The key that was read last, of a queue whose rows take turns; empty: it begins with the first.
    turn: String,
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
        let [node, devices, telemetry, rules, tasks] = &mut self.queues;
        match queue {
            OutboxQueue::Node => node,
            OutboxQueue::Devices => devices,
            OutboxQueue::Telemetry => telemetry,
            OutboxQueue::Rules => rules,
            OutboxQueue::Tasks => tasks,
        }
    }

    /// Sends the head of a queue, unless a delivery of it is under way.
    pub(super) async fn deliver_from(
        &mut self,
        queue: OutboxQueue,
        cx: &Context<MetaMsg>,
    ) -> Result<(), Fault> {
        let Some(cloud) = self.cloud.clone() else { return Ok(()) };
        // Nothing of rules is lost because a CloudCore does not know them: another one will.
        if queue == OutboxQueue::Rules && !cloud.peer.has(capability::RULE_UPLOADS) {
            return Ok(());
        }
        let Some(number) = self.queue(queue).sender.begin() else { return Ok(()) };
        let next = match queue {
            // The newest of each key counts alone in both.
            OutboxQueue::Devices | OutboxQueue::Tasks => self.next_turn(queue, &cloud.peer, cx).await?,
            OutboxQueue::Node | OutboxQueue::Telemetry | OutboxQueue::Rules => {
                self.next_delivery(queue, &cloud.peer, cx).await?
            }
        };
        let Some(delivery) = next else {
            self.queue(queue).sender.nothing_to_send();
            return Ok(());
        };
        if queue == OutboxQueue::Rules {
            let row = |upload: &Upload| (upload.row, upload.telemetry.topic.clone());
            self.rule_topics.sent(delivery.router.iter().map(row).collect());
        }
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
            let confirmed = match queue {
                OutboxQueue::Rules => send_to_rules(delivery, &cloud).await,
                OutboxQueue::Node | OutboxQueue::Devices | OutboxQueue::Telemetry | OutboxQueue::Tasks => {
                    send(delivery, &cloud, env.traces()).await
                }
            };
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
        let held = match queue {
            OutboxQueue::Rules => self.rule_topics.held(cx.now()),
            OutboxQueue::Node | OutboxQueue::Devices | OutboxQueue::Telemetry | OutboxQueue::Tasks => {
                Vec::new()
            }
        };
        loop {
            let after = self.queue(queue).passed;
            let rows = match self.store(cx).head_without((queue, after), held.clone()).await? {
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
            // What is held for a while stands among them: it must not be passed for good.
            if held.is_empty() {
                for (seq, kind) in delivery.passed_over(&seqs) {
                    state.passed = seq;
                    Event::ReportKept { kind }.happened(cx.env());
                }
            }
            if !delivery.unknown.is_empty() && defect::is_planted(Defect::UnknownHoldsQueue) {
                return Ok(None);
            }
            if !delivery.is_empty() {
                return Ok(Some(delivery));
            }
            if !held.is_empty() {
                return Ok(None);
            }
        }
    }

    /// The same of a queue in which the newest of each key counts alone, and keys say nothing of each other: each has its turn. A
    /// thousand devices that report every second are never at the head of their queue for longer than that.
    async fn next_turn(
        &mut self,
        queue: OutboxQueue,
        peer: &Capabilities,
        cx: &Context<MetaMsg>,
    ) -> Result<Option<Delivery>, Fault> {
        let mut has_begun_anew = false;
        loop {
            let after = self.queue(queue).turn.clone();
            let from_the_first = after.is_empty();
            let rows = match self.store(cx).turn(queue, after).await? {
                Ok(rows) => rows,
                Err(reason) => {
                    Event::OutboxUnread { reason: &reason }.happened(cx.env());
                    return Ok(None);
                }
            };
            let state = self.queue(queue);
            let Some(last) = rows.last() else {
                if from_the_first || has_begun_anew {
                    return Ok(None);
                }
                has_begun_anew = true;
                state.turn.clear();
                continue;
            };
            state.turn.clone_from(&last.key);
            let delivery = plan::sort(rows, &mut state.sent_rows, peer);
            // Each is told once, as they are read again with every turn.
            let passed = state.passed;
            for (seq, kind) in delivery.unknown.iter().filter(|(seq, _)| *seq > passed) {
                state.passed = state.passed.max(*seq);
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

    /// The topics that wait are looked at when the first of them may be tried.
    pub(super) fn look_again_at_rules(&mut self, cx: &Context<MetaMsg>) {
        if let Some(pause) = self.rule_topics.arm(cx.now()) {
            cx.after(pause, MetaMsg::RulesDue);
        }
    }

    pub(super) async fn delivered(
        &mut self,
        queue: OutboxQueue,
        number: u64,
        confirmed: Option<Vec<i64>>,
        cx: &Context<MetaMsg>,
    ) -> Result<(), Fault> {
        if queue == OutboxQueue::Rules && self.queue(queue).sender.is_latest(number) {
            match &confirmed {
                Some(rows) => self.rule_topics.answered(rows, cx.now()),
                None => self.rule_topics.unanswered(),
            }
        }
        let is_answered = confirmed.is_some();
        let seqs = confirmed.unwrap_or_default();
        let (mut any, mut is_kept) = (!seqs.is_empty(), true);
        if any {
            let count = seqs.len() as u64;
            match self.store(cx).commit(vec![Write::Confirm { seqs }]).await {
                Ok(()) => {
                    self.confirmed += count;
                    cx.env().metrics().add(REPORTS_CONFIRMED, count);
                }
                Err(reason) => {
                    Event::ConfirmationRefused { reason: &reason }.happened(cx.env());
                    (any, is_kept) = (false, false);
                }
            }
        }
        // An answer that takes nothing makes its topics wait, and no other.
        if queue == OutboxQueue::Rules {
            any |= is_answered && is_kept && self.rule_topics.len() > 0;
            self.look_again_at_rules(cx);
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

/// The rows of rules that need not be sent any more; `None` where the cloud has not answered.
async fn send_to_rules(delivery: Delivery, cloud: &CloudAddresses) -> Option<Vec<i64>> {
    let Delivery { router: uploads, unreadable, .. } = delivery;
    let answered = if uploads.is_empty() {
        Some(Vec::new())
    } else {
        let asked = cloud
            .router
            .ask(DELIVERY_DEADLINE, |reply| RouterUp::RuleUploads { uploads: uploads.into(), reply });
        asked.await.ok()
    };
    match answered {
        Some(rows) => Some(unreadable.into_iter().chain(rows).collect()),
        None => (!unreadable.is_empty()).then_some(unreadable),
    }
}

/// The reports of a message that somebody follows, by their places in it.
struct Followed(Vec<(usize, Span)>);

impl Followed {
    fn of(reports: &[Report], traces: &Traces) -> Followed {
        if !traces.is_on() {
            return Followed(Vec::new());
        }
        let spans = reports.iter().enumerate().filter_map(|(place, Report { report, .. })| {
            let key = report.newest_key()?;
            let span = traces.child("MetaManager deliver", traces.of(|| traced::reported(&key)));
            span.is_followed().then(|| (place, span.with("kubehive.report", || key)))
        });
        Followed(spans.collect())
    }

    /// Waits for the answer, or says that there was none.
    async fn until<T>(mut self, ask: impl Future<Output = Result<T, AskError>>) -> Result<T, AskError> {
        let parts = self.0.iter().filter_map(|(place, span)| Some((*place, span.context()?)));
        let answered = trace::with_parts(parts, ask).await;
        if let Err(error) = &answered {
            self.0.iter_mut().for_each(|(_, span)| span.fail(|| error.to_string()));
        }
        answered
    }
}

/// The rows that need not be sent any more; `None` when there is none.
async fn send(delivery: Delivery, cloud: &CloudAddresses, traces: &Traces) -> Option<Vec<i64>> {
    let Delivery {
        edge: to_edge,
        device: to_device,
        tasks: of_tasks,
        router: to_router,
        unreadable,
        unsupported,
        ..
    } = delivery;
    let for_edge = async {
        if to_edge.is_empty() {
            return Vec::new();
        }
        let followed = Followed::of(&to_edge, traces);
        let ask =
            cloud.edge.ask(DELIVERY_DEADLINE, |reply| EdgeUp::Reports { reports: to_edge.into(), reply });
        followed.until(ask).await.unwrap_or_default()
    };
    let for_device = async {
        if to_device.is_empty() {
            return Vec::new();
        }
        let followed = Followed::of(&to_device, traces);
        let ask = cloud
            .device
            .ask(DELIVERY_DEADLINE, |reply| DeviceUp::Reports { reports: to_device.into(), reply });
        followed.until(ask).await.unwrap_or_default()
    };
    let for_tasks = async {
        if of_tasks.is_empty() {
            return Vec::new();
        }
        let ask =
            cloud.tasks.ask(DELIVERY_DEADLINE, |reply| TaskUp::Reports { reports: of_tasks.into(), reply });
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
    let all = futures::future::join4(for_edge, for_device, for_tasks, for_router);
    let (by_edge, by_device, by_tasks, by_router) = all.await;
    let settled = unreadable.into_iter().chain(unsupported.into_iter().map(|(seq, _)| seq));
    let confirmed: Vec<i64> =
        settled.chain(by_edge).chain(by_device).chain(by_tasks).chain(by_router).collect();
    (!confirmed.is_empty()).then_some(confirmed)
}
