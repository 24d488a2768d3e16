//! What comes from nodes: telemetry, messages for rules, and calls of rules' targets.

use beehive::{AskError, Context, Env, Reply};
use contract::router::{RouterMsg, RouterUp};
use contract::rule_call::RuleAnswer;
use contract::{Batch, DecodedBatch, NodeName, SkippedRow, Upload};

use super::CloudRouter;
use crate::events;
use crate::plan::SequenceCheck;

/// The target of the lines that [`CloudRouter`] says of each upload, at level `debug`. With
/// `RUST_LOG=info,cloud_router::upload=debug` they tell what became of one message, across restarts of CloudCore, too:
/// the tracker counts and keeps no message.
pub const UPLOAD_LOG: &str = "cloud_router::upload";
/// 64 bytes of a payload are told: enough to know it again.
const TOLD_BYTES: usize = 64;

impl CloudRouter {
    pub(super) fn up(&mut self, node: NodeName, message: RouterUp, cx: &Context<RouterMsg>) {
        match message {
            RouterUp::Telemetry { uploads, reply } => {
                let Some((items, skipped, reply)) = self.open(&node, uploads, reply, cx.env()) else {
                    return;
                };
                reply.send(self.telemetry(&node, &items, cx.env()).into_iter().chain(skipped).collect());
            }
            RouterUp::RuleUploads { uploads, reply } => {
                // Without rules here the node keeps what it has for them: another CloudCore may have them.
                let Some(forwarding) = self.forwarding.clone() else {
                    return reply
                        .fail(AskError::Rejected("rules have no effect at this CloudCore".to_owned()));
                };
                let Some((items, skipped, reply)) = self.open(&node, uploads, reply, cx.env()) else {
                    return;
                };
                self.telemetry(&node, &items, cx.env());
                let (items, wrong): (Vec<Upload>, Vec<Upload>) =
                    items.into_iter().partition(|upload| upload.telemetry.sequence > 0);
                let settled = skipped.into_iter().chain(wrong.into_iter().map(|upload| upload.row)).collect();
                forwarding.deliver(node, items, settled, reply, cx);
            }
            RouterUp::RuleCall { call, reply } => match &self.forwarding {
                Some(forwarding) => forwarding.call(node, call, reply, cx),
                None => reply.send(RuleAnswer::failed(
                    501,
                    "rules have no effect at this CloudCore: modules.router.enable is false there",
                )),
            },
        }
    }

    /// The uploads of a message, and the rows of those that this release does not understand: they are confirmed, so that the node goes
    /// on.
    fn open<T: Send + 'static>(
        &mut self,
        node: &NodeName,
        uploads: Batch<Upload>,
        reply: Reply<T>,
        env: &Env,
    ) -> Option<(Vec<Upload>, Vec<i64>, Reply<T>)> {
        match uploads.open() {
            Ok(DecodedBatch { items, skipped, .. }) => {
                self.skip(node, &skipped, env);
                Some((items, skipped.iter().map(|skipped| skipped.row).collect(), reply))
            }
            Err(error) => {
                reply.fail(AskError::Rejected(error.to_string()));
                None
            }
        }
    }

    /// Counts uploads that this release does not understand.
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
