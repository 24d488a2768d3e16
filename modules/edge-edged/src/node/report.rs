//! What is reported about the node, and when.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use beehive::Moment;
use contract::UpReport;
use serde_json::Value;

use crate::node::machine::Machine;
use crate::node::status::{self, Findings};
use crate::tools::Tools;

/// 5 min: a node whose report has not changed is reported again after this, as by kubelet (nodeStatusReportFrequency).
const REPORT_UNCHANGED_AFTER: Duration = Duration::from_secs(300);
/// How long the runtime may take to say how it fares.
const RUNTIME_ANSWERS_WITHIN: Duration = Duration::from_secs(8);

/// What was last reported about the node.
#[derive(Default)]
pub(crate) struct NodeReports {
    /// Since when a report is being made.
    pub(crate) since: Cell<Option<Moment>>,
    last: RefCell<Option<(Value, Moment)>>,
    /// The next report is made although nothing has changed.
    pub(crate) anew: Cell<bool>,
}

impl NodeReports {
    /// The status of the node's condition Ready, as it was reported last.
    pub(crate) fn ready(&self) -> Option<Value> {
        let last = self.last.borrow();
        let conditions = last.as_ref()?.0.pointer("/status/conditions")?.as_array()?;
        conditions.iter().find(|condition| condition["type"] == "Ready").map(|ready| ready["status"].clone())
    }
}

/// Asks the runtime how it fares, and reports the node when something has changed.
pub(crate) async fn report_node(tools: &Tools, reported: &NodeReports, machine: Machine) {
    let asked = async {
        let both = futures::future::try_join(tools.runtime.version(), tools.runtime.status());
        let (version, status) = both.await.map_err(|error| error.to_string())?;
        Ok((version, status))
    };
    let runtime = match tools.env.timeout(RUNTIME_ANSWERS_WITHIN, asked).await {
        Some(answer) => answer,
        None => Err(format!("no answer within {} s", RUNTIME_ANSWERS_WITHIN.as_secs())),
    };
    if let Ok((version, _)) = &runtime {
        tools.node.borrow_mut().runtime.clone_from(&version.runtime_name);
    }
    let images = match runtime {
        Ok(_) => tools.env.timeout(RUNTIME_ANSWERS_WITHIN, tools.runtime.list_images()).await,
        Err(_) => None,
    };
    let images = images.and_then(Result::ok).unwrap_or_default();
    let wall = tools.wall().to_string();
    let before = reported.last.borrow().clone();
    let findings = Findings { machine, runtime, images };
    let node = status::report(&tools.settings, &findings, before.as_ref().map(|(node, _)| node), &wall);
    let now = tools.now();
    let fresh =
        before.is_some_and(|(old, at)| status::same(&old, &node) && now.since(at) < REPORT_UNCHANGED_AFTER);
    if fresh && !reported.anew.get() {
        return;
    }
    match tools.report(&UpReport::Node { node_json: node.to_string() }).await {
        Ok(()) => {
            reported.anew.set(false);
            *reported.last.borrow_mut() = Some((node, now));
        }
        Err(error) => tracing::error!(%error, "report of the node could not be kept"),
    }
}
