//! CloudRouter's actor.

use beehive::{Actor, Context, Fault, Reply};
use contract::router::{RouterMsg, RouterUp};
use contract::{NodeName, Upload};

use crate::plan::{Ledger, Verdict};

/// Takes telemetry, and says what came.
#[derive(Debug, Default)]
pub struct CloudRouter {
    ledger: Ledger,
}

impl Actor for CloudRouter {
    type Message = RouterMsg;

    async fn handle(&mut self, message: RouterMsg, _: &mut Context<RouterMsg>) -> Result<(), Fault> {
        match message {
            RouterMsg::Up { node, message: RouterUp::Telemetry { uploads, reply } } => {
                self.telemetry(&node, &uploads, reply);
            }
        }
        Ok(())
    }

    fn snapshot(&self) -> serde_json::Value {
        self.ledger.view()
    }
}

impl CloudRouter {
    fn telemetry(&mut self, node: &NodeName, uploads: &[Upload], reply: Reply<Vec<i64>>) {
        for upload in uploads {
            let Upload { row, telemetry, .. } = upload;
            match self.ledger.take(node, upload) {
                Verdict::Next | Verdict::Again => {}
                Verdict::After { missing } => {
                    let (client, topic) = (&telemetry.client, &telemetry.topic);
                    tracing::debug!(%node, client, topic, missing, "messages of a source are missing");
                }
                Verdict::Refused(why) => {
                    // Its node would send it for ever.
                    tracing::warn!(%node, row, why, "telemetry refused");
                }
            }
        }
        reply.send(uploads.iter().map(|upload| upload.row).collect());
    }
}
