//! The exporter's actor.

use std::rc::Rc;
use std::time::Duration;

use beehive::trace::{CONTEXTS_REFUSED, FinishedSpan, SPANS_DROPPED, Traces};
use beehive::{Actor, Context, Env, Fault, Moment};
use contract::traceexporter::{ExportOutcome, TraceExporterMsg};

use crate::collector_client::CollectorClient;
use crate::plan::{self, BATCH};
use crate::{Dependencies, events};

/// 5 s between looks: OpenTelemetry's own (`OTEL_BSP_SCHEDULE_DELAY`).
const TICK: Duration = Duration::from_secs(5);
/// 500 ms for a last post when the daemon ends: containers and nodes do not wait for a collector.
const LAST_WITHIN: Duration = Duration::from_millis(500);
/// 60 s between lines about what was dropped.
const SAID_EVERY: Duration = Duration::from_secs(60);

/// Posts spans to a collector.
pub struct TraceExporter {
    dependencies: Rc<Dependencies>,
    client: Option<Rc<CollectorClient>>,
    is_posting: bool,
    /// So many times in a row nothing was taken.
    failures: u32,
    /// Not before this.
    again_at: Moment,
    /// The collector takes what it is sent, as far as is known.
    is_taking: bool,
    exported: u64,
    last_trouble: String,
    dropped: Said,
    refused: Said,
}

/// A counter of which the log is told now and then.
#[derive(Default)]
struct Said {
    count: u64,
    at: Option<Moment>,
}

impl Said {
    /// How much more there is to say now.
    fn news(&mut self, count: u64, now: Moment) -> Option<u64> {
        let more = count.saturating_sub(self.count);
        let is_due = self.at.is_none_or(|at| now.since(at) >= SAID_EVERY);
        (more > 0 && is_due).then(|| {
            *self = Said { count, at: Some(now) };
            more
        })
    }
}

/// Spans that are being posted. Dropped without a word they wait again.
struct Posting {
    traces: Traces,
    spans: Vec<FinishedSpan>,
}

impl Posting {
    fn take(env: &Env) -> Option<Posting> {
        let traces = env.traces().clone();
        let spans = traces.take(BATCH);
        (!spans.is_empty()).then_some(Posting { traces, spans })
    }

    /// Posts them, and does with them what became of it.
    async fn post(mut self, client: &CollectorClient, dependencies: &Dependencies) -> (usize, ExportOutcome) {
        let body = plan::request(&dependencies.service, &self.spans);
        let outcome = client.post(body).await;
        let count = self.spans.len();
        match &outcome {
            ExportOutcome::Taken { rejected } => {
                self.spans.clear();
                let rejected = rejected.as_ref().map_or(0, |(spans, _)| *spans);
                self.traces.give_up(usize::try_from(rejected).unwrap_or(count).min(count));
            }
            ExportOutcome::Refused(_) => {
                self.spans.clear();
                self.traces.give_up(count);
            }
            ExportOutcome::Later { .. } => {}
        }
        (count, outcome)
    }
}

impl Drop for Posting {
    fn drop(&mut self) {
        let spans = std::mem::take(&mut self.spans);
        if !spans.is_empty() {
            self.traces.put_back(spans);
        }
    }
}

impl TraceExporter {
    pub(crate) fn new(dependencies: Rc<Dependencies>) -> Self {
        TraceExporter {
            dependencies,
            client: None,
            is_posting: false,
            failures: 0,
            again_at: Moment::default(),
            is_taking: false,
            exported: 0,
            last_trouble: String::new(),
            dropped: Said::default(),
            refused: Said::default(),
        }
    }

    /// Posts what waits, if it may.
    fn export(&mut self, cx: &Context<TraceExporterMsg>) {
        let Some(client) = self.client.clone() else { return };
        if self.is_posting || cx.now() < self.again_at {
            return;
        }
        let Some(posting) = Posting::take(cx.env()) else { return };
        self.is_posting = true;
        let (dependencies, myself) = (Rc::clone(&self.dependencies), cx.myself());
        cx.spawn(async move {
            let (spans, outcome) = posting.post(&client, &dependencies).await;
            let _ = myself.tell(TraceExporterMsg::Exported { spans, outcome }).await;
        });
    }

    fn exported(&mut self, spans: usize, outcome: ExportOutcome, cx: &Context<TraceExporterMsg>) {
        let (env, collector) = (cx.env(), self.dependencies.collector.authority());
        self.is_posting = false;
        match outcome {
            ExportOutcome::Taken { rejected } => {
                if !std::mem::replace(&mut self.is_taking, true) {
                    events::taken(env, &collector);
                }
                self.failures = 0;
                self.exported += spans as u64;
                if let Some((count, why)) = rejected {
                    events::rejected(env, &collector, &why, count);
                    self.last_trouble = why;
                }
            }
            ExportOutcome::Later { why, retry_after } => {
                self.is_taking = false;
                self.failures = self.failures.saturating_add(1);
                let pause = plan::pause(self.failures, retry_after);
                self.again_at = cx.now() + env.jitter(pause).max(retry_after.unwrap_or_default().min(pause));
                events::not_taken(env, &collector, &why, self.failures);
                self.last_trouble = why;
                return;
            }
            ExportOutcome::Refused(why) => {
                self.failures = self.failures.saturating_add(1);
                // It may refuse all: not one after the other at once.
                self.again_at = cx.now() + env.jitter(plan::pause(self.failures, None));
                events::refused(env, &collector, &why, spans);
                self.last_trouble = why;
                return;
            }
        }
        if env.traces().waiting() >= BATCH {
            self.export(cx);
        }
    }

    /// Tells the log of what was dropped.
    fn tell(&mut self, env: &Env) {
        let (metrics, now) = (env.metrics(), env.now());
        if let Some(spans) = self.dropped.news(metrics.count_of(SPANS_DROPPED), now) {
            events::dropped(env, spans);
        }
        if let Some(contexts) = self.refused.news(metrics.count_of(CONTEXTS_REFUSED), now) {
            events::contexts_refused(env, contexts);
        }
    }
}

impl Actor for TraceExporter {
    type Message = TraceExporterMsg;

    async fn started(&mut self, cx: &mut Context<TraceExporterMsg>) -> Result<(), Fault> {
        let client = CollectorClient::new(self.dependencies.collector.clone(), cx.env().clone());
        self.client = Some(Rc::new(client));
        cx.every(TICK, || TraceExporterMsg::Tick);
        Ok(())
    }

    async fn handle(
        &mut self,
        message: TraceExporterMsg,
        cx: &mut Context<TraceExporterMsg>,
    ) -> Result<(), Fault> {
        match message {
            TraceExporterMsg::Tick => {
                self.export(cx);
                self.tell(cx.env());
            }
            TraceExporterMsg::Exported { spans, outcome } => self.exported(spans, outcome, cx),
        }
        Ok(())
    }

    /// The spans of the end, if the collector takes them at once.
    async fn stopping(&mut self, cx: &mut Context<TraceExporterMsg>) {
        let Some(client) = self.client.clone().filter(|_| self.failures == 0 && !self.is_posting) else {
            return;
        };
        if let Some(posting) = Posting::take(cx.env()) {
            let _ = cx.env().timeout(LAST_WITHIN, posting.post(&client, &self.dependencies)).await;
        }
    }

    fn snapshot(&self) -> serde_json::Value {
        serde_json::json!({
            "collector": self.dependencies.collector.authority(),
            "exportedSpans": self.exported,
            "failures": self.failures,
            "lastTrouble": self.last_trouble,
        })
    }
}
