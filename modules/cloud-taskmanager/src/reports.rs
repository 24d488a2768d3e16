//! The reports of nodes: looked at by fairshare's rules, and handed to the actor, which writes all that is said of one job together.

use std::time::Duration;

use beehive::{Address, Env, Reply};
use contract::cloudtaskmanager::CloudTaskMsg;
use contract::nodelease::SessionState;
use contract::parsed::{ParsedReport, TaskReport};
use contract::{NodeName, Report};
use fairshare::{
    RefusedReport, ReportSender, ReportWriter, SortedReports, Traffic, json_bytes, sort_reports,
};
use serde_json::json;

/// 15 s for a write: less than a delivery has.
const WRITE_WITHIN: Duration = Duration::from_secs(15);

/// Hands reports to the actor.
pub(crate) struct TaskReports {
    pub(crate) myself: Address<CloudTaskMsg>,
    pub(crate) env: Env,
    pub(crate) traffic: Traffic,
}

impl ReportWriter for TaskReports {
    type Write = (i64, Box<TaskReport>);

    /// 1 MiB at once, and 20 KiB in each second: a node says a few hundred bytes for each action.
    const KIB: (u32, Duration) = (1 << 10, Duration::from_millis(50));
    const REFUSED: &'static str = "taskmanager_report_refused";
    const UNKNOWN: &'static str = "taskmanager_report_unknown";
    const MALFORMED: &'static str = "taskmanager_report_malformed";
    const TURNED_AWAY: &'static str = "taskmanager_message_turned_away";
    const SPAN: &'static str = "TaskManager write status";

    fn describe((row, report): &Self::Write) -> (Vec<i64>, String) {
        (vec![*row], format!("{} {}", report.kind.word(), report.job))
    }

    fn sort(&self, from: &ReportSender, reports: Vec<Report>) -> SortedReports<Self::Write> {
        let mut steps = Vec::new();
        let refused = sort_reports(from, reports, |row, report| match report {
            // One after the other: the newest of a job is the last.
            ParsedReport::OfTask(report) => {
                steps.push(vec![(row, report)]);
                None
            }
            anothers => Some(anothers),
        });
        SortedReports { steps, refused }
    }

    async fn write(
        &self,
        from: &ReportSender,
        state: SessionState,
        (row, report): Self::Write,
    ) -> (Vec<i64>, Option<RefusedReport>) {
        // A node that has no Node yet has no part in a job either.
        if !matches!(state, SessionState::Open { .. }) {
            return (Vec::new(), None);
        }
        self.traffic.add_bytes(&from.node, json_bytes(&json!(report.reason)));
        let (reply, answer) = Reply::channel();
        let reported = CloudTaskMsg::Reported { node: from.node.clone(), report, reply };
        if self.myself.tell(reported).await.is_err() {
            return (Vec::new(), None);
        }
        match self.env.timeout(WRITE_WITHIN, answer).await {
            Some(Ok(Ok(true))) => (vec![row], None),
            Some(_) | None => (Vec::new(), None),
        }
    }

    fn take_traffic(&self, node: &NodeName) -> usize {
        self.traffic.take(node)
    }
}
