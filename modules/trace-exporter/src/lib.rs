//! Brings the spans of a daemon to a collector, by OTLP over HTTP (protobuf): the same for `cloudcore` and `edgecore`. There is none
//! unless a collector is named (`commonConfig.tracing`, `modules.edged.tailoredKubeletConfig.tracing`); the `README.md` of this folder
//! says what is traced.
//!
//! Whoever does a step of something that is followed makes a span of it (`beehive::trace`). Its context goes with messages, over the link
//! in the frame's extension, and where actors look at their state instead it waits under a name: of an object in the cloud
//! `NODE RESOURCE/NAMESPACE/NAME`, on a node `RESOURCE/NAMESPACE/NAME`; of a report its key in the outbox. So one trace leads from the
//! change that the API server tells to the node, and with what the node reports of it back to the status.
//!
//! The crates of OpenTelemetry (`opentelemetry`, `-sdk`, `-otlp`, `tracing-opentelemetry`) would do it with a second HTTP client, threads or
//! tasks that no hive sees, a queue per process, and a layer below every log line; `edgecore` has bars for its size and for what it holds.
//! What is needed of them is a message of ten fields and a post.
//!
//! # Owns
//! When the spans that wait are posted, and what becomes of them. They themselves are the environment's (`beehive::Env::traces`).
//! # Accepts
//! [`contract::traceexporter::TraceExporterMsg`].
//! # Tells
//! Nobody but the collector: 512 spans in a post, a post at a time, every 5 s, and at once where more wait.
//! # Keeps across a restart
//! The spans, which its death does not touch; those that were being posted come back and may be posted twice.
//! # Never
//! Makes anybody wait for a collector, holds more than 2,048 spans and 1 MiB (then the oldest go, counted in `trace_spans_dropped`),
//! reads more than 64 KiB of an answer, follows a redirect, or leaves a collector alone for longer than five minutes because it says so.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod actor;
mod collector_client;
mod events;
mod plan;

use std::rc::Rc;

pub use actor::TraceExporter;
use beehive::trace::TraceSettings;
use beehive::{Capacity, Env, Hive, Policy};
use config::{Collector, Tracing};
use contract::traceexporter::TraceExporterMsg;

/// Its name in a hive.
pub const TRACE_EXPORTER: &str = "trace-exporter";

/// Whose spans they are: keys of OpenTelemetry's semantic conventions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// `service.name`.
    pub name: &'static str,
    /// `k8s.node.name`, of a node's daemon.
    pub node: Option<String>,
}

/// The environment of a daemon that traces as its settings say; the same one where they name no collector. `send` and `receive` are
/// what its spans of the link are called.
pub fn traced(env: Env, settings: &Tracing, (send, receive): (&'static str, &'static str)) -> Env {
    match settings.collector() {
        Some(_) => {
            let rate_per_million = settings.sampling_rate_per_million;
            env.tracing(TraceSettings { rate_per_million, send, receive })
        }
        None => env,
    }
}

/// Gives a hive its exporter, if a collector is named.
pub fn supervise(hive: &mut Hive, settings: &Tracing, service: Service) {
    let Some(collector) = settings.collector() else { return };
    let dependencies = Rc::new(Dependencies { collector, service });
    let mailbox =
        hive.mailbox::<TraceExporterMsg>(TRACE_EXPORTER, Capacity::new(4, "a tick, and the end of a post"));
    hive.supervise(mailbox, Policy::default(), move || TraceExporter::new(Rc::clone(&dependencies)));
}

/// What an exporter is made of.
#[derive(Debug)]
pub(crate) struct Dependencies {
    pub(crate) collector: Collector,
    pub(crate) service: Service,
}
