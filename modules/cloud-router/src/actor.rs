//! CloudRouter's actor.

use beehive::{Actor, AskError, Context, Env, Fault, Sample};
use contract::router::{RouterMsg, RouterUp};
use contract::{DecodedBatch, NodeName, SkippedRow, Upload};

use crate::events;
use crate::plan::{SequenceCheck, TelemetryTracker};

/// The target of the lines that [`CloudRouter`] says of each upload, at level `debug`. With
/// `RUST_LOG=info,cloud_router::upload=debug` they tell what became of one message, across restarts of CloudCore, too:
/// the tracker counts and keeps no message.
pub const UPLOAD_LOG: &str = "cloud_router::upload";
/// 64 bytes of a payload are told: enough to know it again.
const TOLD_BYTES: usize = 64;

/// Takes telemetry, and says what came.
#[derive(Debug, Default)]
pub struct CloudRouter {
    tracker: TelemetryTracker,
}

impl Actor for CloudRouter {
    type Message = RouterMsg;

    async fn handle(&mut self, message: RouterMsg, cx: &mut Context<RouterMsg>) -> Result<(), Fault> {
        match message {
            RouterMsg::Up { node, message: RouterUp::Telemetry { uploads, reply } } => match uploads.open() {
                Ok(DecodedBatch { items, skipped, .. }) => {
                    self.skip(&node, &skipped, cx.env());
                    let skipped = skipped.iter().map(|skipped| skipped.row);
                    reply.send(self.telemetry(&node, &items, cx.env()).into_iter().chain(skipped).collect());
                }
                Err(error) => reply.fail(AskError::Rejected(error.to_string())),
            },
        }
        Ok(())
    }

    fn snapshot(&self) -> serde_json::Value {
        self.tracker.view()
    }

    fn samples(&self) -> Vec<Sample> {
        self.tracker.samples()
    }
}

impl CloudRouter {
    /// Counts uploads that this release does not understand. Their rows are confirmed, so that the node goes on.
    fn skip(&mut self, node: &NodeName, skipped: &[SkippedRow], env: &Env) {
        if !skipped.is_empty() {
            let times = self.tracker.skip(node, skipped.len());
            fairshare::rows_skipped(env, node, skipped, times, events::SKIPPED);
        }
    }

    /// Enters telemetry. Answers with its rows, whatever became of it.
    fn telemetry(&mut self, node: &NodeName, uploads: &[Upload], env: &Env) -> Vec<i64> {
        for upload in uploads {
            tell(node, upload);
            let Upload { row, telemetry, .. } = upload;
            match self.tracker.take(node, upload) {
                SequenceCheck::Next | SequenceCheck::Duplicate => {}
                SequenceCheck::Gap { missing } => {
                    events::telemetry_missing(env, node, telemetry, missing);
                }
                // Its node would send it for ever.
                SequenceCheck::Refused { why, times } => {
                    events::telemetry_refused(env, node, *row, why, times)
                }
            }
        }
        uploads.iter().map(|upload| upload.row).collect()
    }
}

/// Before the row is confirmed, so that no message that its node has forgotten is missing in the log. Whatever the client
/// chose is escaped: it cannot write a line of its own.
fn tell(node: &NodeName, upload: &Upload) {
    let Upload { repeat, telemetry, .. } = upload;
    let payload = &telemetry.payload;
    tracing::debug!(
        target: UPLOAD_LOG,
        %node,
        client = ?telemetry.client,
        topic = ?telemetry.topic,
        boot = %hex::encode(telemetry.boot),
        sequence = telemetry.sequence,
        repeat,
        dup = telemetry.dup,
        bytes = payload.len(),
        payload = %format_args!("\"{}\"", payload.get(..TOLD_BYTES).unwrap_or(payload).escape_ascii()),
        "upload arrived"
    );
}
