//! The reports of nodes, in a queue for each node: how a controller takes them, whatever they are about.
//!
//! A node that waits for its answers has one delivery here. One that does not wait finds its queue full: its message is
//! answered at once with nothing, and forgotten.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use beehive::trace::{self, Span, TraceContext};
use beehive::{Address, AskError, Bucket, Context, Env, Message, Reply};
use contract::nodelease::{NodeLeaseMsg, SessionState};
use contract::parsed::ParsedReport;
use contract::wire::BODY_MAX;
use contract::{Batch, DecodedBatch, NodeName, Report, SkippedRow};
use futures::StreamExt;

use crate::{NodeQueue, NodeQueues, SkippedEvents, is_logged, rows_skipped};

/// 8 writes of one node's reports at once: reports of different objects do not wait for each other.
const WRITES_AT_ONCE: usize = 8;
/// 20 s for one delivery; the node sends again what was not confirmed.
const WRITE_DEADLINE: Duration = Duration::from_secs(20);
/// 2 deliveries of a node wait behind the one in work: as they came, which is at the most 1 MiB each.
const DELIVERIES_WAIT: usize = 2;
/// 1024 reports of a message are taken; a node sends less.
const REPORTS_MAX: usize = 1024;
/// 2,000 writes at once for one node, and then 200 a second: what is beyond waits.
const WRITES: (u32, Duration) = (2000, Duration::from_millis(5));
/// The unit of [`ReportWriter::KIB`], in bytes.
const KIB: usize = 1 << 10;
/// 5 s for NodeLease to say what a session is worth, which it does from memory.
const SESSION_DEADLINE: Duration = Duration::from_secs(5);

/// What a node sent in one message.
#[derive(Debug)]
pub struct Delivery {
    /// The session in which it was sent.
    pub session: u64,
    /// The reports.
    pub reports: Batch<Report>,
    /// The rows that are confirmed.
    pub reply: Reply<Vec<i64>>,
}

/// Who sent a report.
#[derive(Debug, Clone)]
pub struct ReportSender {
    /// The node.
    pub node: NodeName,
    /// The session in which it did.
    pub session: u64,
}

/// Why the node should not have said something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedReport {
    /// Which object it is about, for people; of a report that cannot be read its kind.
    pub about: String,
    /// Why it is not taken.
    pub why: &'static str,
    /// What the API server, or whoever read it, says of it; empty: nothing more.
    pub reason: String,
}

impl RefusedReport {
    /// Of which nobody says more.
    pub fn new(about: impl Into<String>, why: &'static str) -> Self {
        RefusedReport { about: about.into(), why, reason: String::new() }
    }

    /// The same, with what was said of it.
    #[must_use]
    pub fn because(self, reason: impl Into<String>) -> Self {
        RefusedReport { reason: reason.into(), ..self }
    }
}

/// A message's reports, taken apart.
#[derive(Debug)]
pub struct SortedReports<W> {
    /// What is written, one step after the other; within one side by side.
    pub steps: Vec<Vec<W>>,
    /// The rows of what can never be written, and why not: they are confirmed, so that the node forgets them.
    pub refused: Vec<(i64, RefusedReport)>,
}

/// Takes the reports of one message apart. `take` keeps those that are for this controller, and gives back the others. Answers what is
/// refused, and why: others' reports, and what cannot be read.
pub fn sort_reports(
    from: &ReportSender,
    reports: Vec<Report>,
    mut take: impl FnMut(i64, ParsedReport) -> Option<ParsedReport>,
) -> Vec<(i64, RefusedReport)> {
    let mut refused = Vec::new();
    for Report { row, report, .. } in reports {
        let kind = report.kind();
        let why = match report.parse() {
            Ok(report) => match take(row, report) {
                None => continue,
                Some(anothers) => RefusedReport::new(anothers.about(), whose(&anothers)),
            },
            Err(unfit) => RefusedReport::new(kind, "its name or size is odd").because(unfit.to_string()),
        };
        tracing::debug!(node = %from.node, row, ?why, "report refused");
        refused.push((row, why));
    }
    refused
}

fn whose(report: &ParsedReport) -> &'static str {
    match report {
        ParsedReport::OfNode(_) => "it is for the edge controller",
        ParsedReport::OfDevice(..) => "it is for the device controller",
        ParsedReport::OfTask(_) => "it is for the task manager",
    }
}

/// What a controller makes of reports.
pub trait ReportWriter: 'static {
    /// One write to the API server.
    type Write;

    /// How much a node's reports may be: KiB at once, and how long until one more. Counted are the messages, as they are when they
    /// are opened, and the objects that are read and written for them: the API server keeps a whole object for each write, however
    /// little of it has changed.
    const KIB: (u32, Duration);
    /// The event that counts refused reports.
    const REFUSED: &'static str;
    /// The event that counts reports of a kind that this release does not know.
    const UNKNOWN: &'static str;
    /// The event that counts reports that are not what their kind is.
    const MALFORMED: &'static str;
    /// The event that counts messages that found their node's queue full.
    const TURNED_AWAY: &'static str;
    /// What the span of a write is called.
    const SPAN: &'static str;

    /// Takes the reports of one message apart, by [`sort_reports`].
    fn sort(&self, from: &ReportSender, reports: Vec<Report>) -> SortedReports<Self::Write>;

    /// Makes one write. `state` is what the session is worth right before it. Answers the rows that are confirmed, and why
    /// the node should not have said so, if it should not.
    fn write(
        &self,
        from: &ReportSender,
        state: SessionState,
        write: Self::Write,
    ) -> impl Future<Output = (Vec<i64>, Option<RefusedReport>)>;

    /// The rows that a write is of, and for people what it is about. Asked only where somebody follows one of the reports.
    fn describe(write: &Self::Write) -> (Vec<i64>, String);

    /// The bytes of objects that were read and written for the node since this was asked last.
    fn take_traffic(&self, node: &NodeName) -> usize;
}

/// What is counted of each node, and what it may still do: over all its sessions, so that a new one is no fresh start.
struct Quota {
    writes: Bucket,
    kib: Bucket,
    /// Messages with rows that were skipped.
    skipped: u64,
    refused: u64,
    turned_away: u64,
}

impl Quota {
    fn new((burst, every): (u32, Duration)) -> Self {
        let (writes, kib) = (Bucket::new(WRITES.0, WRITES.1), Bucket::new(burst, every));
        Quota { writes, kib, skipped: 0, refused: 0, turned_away: 0 }
    }
}

struct Shared<W> {
    writer: W,
    /// Says what a session is worth.
    lease: Address<NodeLeaseMsg>,
    /// Only nodes that were admitted come here: there are no more than are in the register.
    quotas: RefCell<BTreeMap<NodeName, Quota>>,
}

/// A delivery, and which of its reports are followed, by their places in it.
struct Queued {
    delivery: Delivery,
    followed: Vec<(usize, TraceContext)>,
}

/// The contexts of the reports that are followed, by their rows.
type FollowedRows = BTreeMap<i64, TraceContext>;

/// The reports of all nodes to one controller.
pub struct ReportQueues<W: ReportWriter> {
    queues: NodeQueues<Queued>,
    shared: Rc<Shared<W>>,
}

impl<W: ReportWriter> ReportQueues<W> {
    /// Empty queues, whose reports `writer` writes; `lease` says what sessions are worth.
    pub fn new(writer: W, lease: Address<NodeLeaseMsg>) -> Self {
        let shared = Shared { writer, lease, quotas: RefCell::default() };
        ReportQueues { queues: NodeQueues::new(DELIVERIES_WAIT), shared: Rc::new(shared) }
    }

    /// Writes the reports beside the actor, so that a slow API server holds up one node's delivery and nothing else.
    pub fn put<M: Message>(&self, node: &NodeName, delivery: Delivery, cx: &Context<M>) {
        match self.queues.put(node, Queued { delivery, followed: trace::parts() }) {
            Ok(None) => {}
            Ok(Some(queue)) => {
                let (shared, env) = (Rc::clone(&self.shared), cx.env().clone());
                cx.spawn(async move { shared.work(queue, env).await });
            }
            Err(Queued { delivery: Delivery { reply, .. }, .. }) => {
                self.shared.turned_away(cx.env(), node);
                reply.send(Vec::new());
            }
        }
    }

    /// A message of the node found no room elsewhere in the controller.
    pub fn turned_away(&self, env: &Env, node: &NodeName) {
        self.shared.turned_away(env, node);
    }

    /// How many nodes' deliveries are in work.
    pub fn in_work(&self) -> usize {
        self.queues.load().0
    }
}

impl<W: ReportWriter> Shared<W> {
    fn with<T>(&self, node: &NodeName, what: impl FnOnce(&mut Quota) -> T) -> T {
        what(self.quotas.borrow_mut().entry(node.clone()).or_insert_with(|| Quota::new(W::KIB)))
    }

    fn refused(&self, env: &Env, node: &NodeName, RefusedReport { about, why, reason }: &RefusedReport) {
        env.count(W::REFUSED);
        let times = self.with(node, |quota| {
            quota.refused += 1;
            quota.refused
        });
        if is_logged(times) {
            tracing::warn!(%node, times, about, why, reason, "a report of the node was refused");
        }
    }

    fn turned_away(&self, env: &Env, node: &NodeName) {
        env.count(W::TURNED_AWAY);
        let times = self.with(node, |quota| {
            quota.turned_away += 1;
            quota.turned_away
        });
        if is_logged(times) {
            tracing::warn!(%node, times, "the node sends more than it waits for");
        }
    }

    /// The rows that this release does not understand. They are confirmed, or the node would send them for ever; and they cost
    /// the node what a write would.
    async fn skip(&self, env: &Env, node: &NodeName, skipped: &[SkippedRow]) -> Vec<i64> {
        if skipped.is_empty() {
            return Vec::new();
        }
        let times = self.with(node, |quota| {
            quota.skipped += 1;
            quota.skipped
        });
        let events = SkippedEvents { unknown: W::UNKNOWN, malformed: W::MALFORMED };
        rows_skipped(env, node, skipped, times, events);
        self.pay(env, node, skipped.len()).await;
        skipped.iter().map(|skipped| skipped.row).collect()
    }

    /// Waits until the node may have so many writes more.
    async fn pay(&self, env: &Env, node: &NodeName, writes: usize) {
        let count = u32::try_from(writes).unwrap_or(u32::MAX);
        let pause = self.with(node, |quota| quota.writes.take_on_credit(count, env.now()));
        if !pause.is_zero() {
            env.sleep(pause).await;
        }
    }

    /// Waits until the node may have so many bytes more.
    async fn pay_bytes(&self, env: &Env, node: &NodeName, bytes: usize) {
        let count = u32::try_from(bytes.div_ceil(KIB)).unwrap_or(u32::MAX);
        let pause = self.with(node, |quota| quota.kib.take_on_credit(count, env.now()));
        if !pause.is_zero() {
            env.sleep(pause).await;
        }
    }

    /// Writes what stands in the node's queue, one delivery after the other.
    async fn work(&self, mut queue: NodeQueue<Queued>, env: Env) {
        let node = queue.node().clone();
        while let Some(Queued { delivery, followed }) = queue.take() {
            let Delivery { session, reports, reply } = delivery;
            // Whoever asked has gone, and says it again.
            if reply.is_abandoned() {
                continue;
            }
            match reports.open() {
                Ok(DecodedBatch { items, skipped, bytes }) => {
                    self.pay_bytes(&env, &node, bytes).await;
                    let from = ReportSender { node: node.clone(), session };
                    let followed = followed_rows(&followed, &items, &skipped);
                    let mut confirmed = self.skip(&env, &node, &skipped).await;
                    confirmed.extend(self.deliver(&from, items, &followed, &env).await);
                    reply.send(confirmed);
                }
                Err(error) => {
                    self.refused(&env, &node, &RefusedReport::new("a message", "it is none"));
                    // It may have been as large as any before that was known.
                    self.pay_bytes(&env, &node, usize::try_from(BODY_MAX).unwrap_or(usize::MAX)).await;
                    reply.fail(AskError::Rejected(error.to_string()));
                }
            }
        }
    }

    /// Answers the rows that are confirmed; what was not written in time comes again.
    async fn deliver(
        &self,
        from: &ReportSender,
        mut reports: Vec<Report>,
        followed: &FollowedRows,
        env: &Env,
    ) -> Vec<i64> {
        reports.truncate(REPORTS_MAX);
        if matches!(self.state(from).await, SessionState::Ended | SessionState::InDoubt) {
            tracing::debug!(node = %from.node, session = from.session, "reports of an ended session were not written");
            return Vec::new();
        }
        let SortedReports { steps, refused } = self.writer.sort(from, reports);
        let count = steps.iter().map(Vec::len).sum::<usize>() + refused.len();
        self.pay(env, &from.node, count).await;
        let confirmed = RefCell::new(Vec::new());
        for (row, why) in refused {
            self.refused(env, &from.node, &why);
            confirmed.borrow_mut().push(row);
        }
        let writes = async {
            for step in steps {
                let writes = futures::stream::iter(step);
                writes
                    .for_each_concurrent(WRITES_AT_ONCE, |write| {
                        let spans = spans::<W>(from, &write, followed, env);
                        self.write(from, write, spans, &confirmed, env)
                    })
                    .await;
            }
        };
        let _ = env.timeout(WRITE_DEADLINE, writes).await;
        confirmed.into_inner()
    }

    async fn write(
        &self,
        from: &ReportSender,
        write: W::Write,
        mut spans: Vec<Span>,
        confirmed: &RefCell<Vec<i64>>,
        env: &Env,
    ) {
        let state = self.state(from).await;
        if matches!(state, SessionState::Ended | SessionState::InDoubt) {
            return;
        }
        let (rows, refused) = self.writer.write(from, state, write).await;
        if rows.is_empty() {
            spans.iter_mut().for_each(|span| span.fail(|| "not written: the node says it again"));
        }
        if let Some(why) = refused {
            spans.iter_mut().for_each(|span| span.fail(|| format!("{}: {}", why.why, why.reason)));
            self.refused(env, &from.node, &why);
        }
        drop(spans);
        confirmed.borrow_mut().extend(rows);
        // It is confirmed whatever it costs: said again it would cost more.
        self.pay_bytes(env, &from.node, self.writer.take_traffic(&from.node)).await;
    }

    /// Nothing counts while NodeLease does not answer.
    async fn state(&self, ReportSender { node, session }: &ReportSender) -> SessionState {
        let ask = |reply| NodeLeaseMsg::Session { node: node.clone(), session: *session, reply };
        self.lease.ask(SESSION_DEADLINE, ask).await.unwrap_or(SessionState::InDoubt)
    }
}

/// The places in a message are those of all its reports: where some were skipped nobody knows which is which.
fn followed_rows(
    followed: &[(usize, TraceContext)],
    items: &[Report],
    skipped: &[SkippedRow],
) -> FollowedRows {
    let followed = followed.iter().filter(|_| skipped.is_empty());
    followed.filter_map(|(place, context)| Some((items.get(*place)?.row, *context))).collect()
}

/// A span for each report of a write that somebody follows.
fn spans<W: ReportWriter>(
    from: &ReportSender,
    write: &W::Write,
    followed: &FollowedRows,
    env: &Env,
) -> Vec<Span> {
    if followed.is_empty() {
        return Vec::new();
    }
    let (rows, about) = W::describe(write);
    let contexts = rows.iter().filter_map(|row| followed.get(row));
    let spans = contexts.map(|context| {
        let span = env.traces().child(W::SPAN, Some(*context));
        span.with("k8s.node.name", || from.node.to_string()).with("kubehive.object", || about.as_str())
    });
    spans.collect()
}
