//! What of a node's reports is written when: the order of one message's reports, and what is answered of each.

use std::time::Duration;

use beehive::Fault;
use beehive::defect::{self, Defect};
use contract::nodelease::SessionState;
use contract::parsed::{NodeReport, ParsedReport};
use contract::{NodeName, Report};
use fairshare::{RefusedReport, ReportSender, ReportWriter, SortedReports, sort_reports};

use crate::events;
use crate::status::{NodeReportWriter, Outcome};

/// 64 KiB: what a report counts as that was not the node's to make.
const REFUSED: usize = 64 << 10;
/// How many steps there are.
const STEPS: usize = 4;

/// In which step of its message a report is written: the Node before what is bound to it, a mirror before what is said of it, and
/// what is said of a pod before it is gone.
fn step_of(said: &NodeReport) -> usize {
    match said {
        NodeReport::Node { .. } => 0,
        NodeReport::MirrorPod { .. } => 1,
        NodeReport::PodStatus { .. } | NodeReport::Event { .. } | NodeReport::ClaimExpansion { .. } => 2,
        NodeReport::PodGone { .. } => 3,
    }
}

impl ReportWriter for NodeReportWriter {
    type Write = (i64, NodeReport);

    /// 32 MiB at once, and 250 KiB in each second. A node that starts with 250 pods reports each some four times, and each time a pod
    /// of some KiB is read and written.
    const KIB: (u32, Duration) = (32 << 10, Duration::from_millis(4));
    const REFUSED: &'static str = "edgecontroller_report_refused";
    const UNKNOWN: &'static str = "edgecontroller_report_unknown";
    const MALFORMED: &'static str = "edgecontroller_report_malformed";
    const TURNED_AWAY: &'static str = "edgecontroller_message_turned_away";
    const SPAN: &'static str = "EdgeController write status";

    fn describe((row, said): &(i64, NodeReport)) -> (Vec<i64>, String) {
        (vec![*row], said.about())
    }

    fn sort(&self, from: &ReportSender, reports: Vec<Report>) -> SortedReports<(i64, NodeReport)> {
        let mut steps = vec![Vec::new(); STEPS];
        let refused = sort_reports(from, reports, |row, report| match report {
            ParsedReport::OfNode(said) => {
                if let Some(step) = steps.get_mut(step_of(&said)) {
                    step.push((row, said));
                }
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
        (row, said): (i64, NodeReport),
    ) -> (Vec<i64>, Option<RefusedReport>) {
        let about = said.about();
        match NodeReportWriter::write(self, from, state, row, said).await {
            Ok(Outcome::Done) => (vec![row], None),
            Ok(Outcome::Refused(why)) => {
                // An object of somebody else's may have been read to find that out.
                self.traffic.add_bytes(&from.node, REFUSED);
                (vec![row], Some(RefusedReport::new(about, why)))
            }
            Ok(Outcome::NeverTaken(reason)) => {
                self.traffic.add_bytes(&from.node, REFUSED);
                let why = RefusedReport::new(about, "the API server can never take it");
                (vec![row], Some(why.because(reason)))
            }
            Ok(Outcome::TooMany) => {
                let dropped = self.rates.borrow_mut().entry(from.node.clone()).or_default().drop_one();
                events::events_dropped(&self.env, &from.node, dropped);
                (vec![row], None)
            }
            Ok(Outcome::Superseded) => {
                tracing::debug!(node = %from.node, session = from.session, "report of an ended session was not written");
                (Vec::new(), None)
            }
            Err(error) => {
                let reason = Fault::from_error(&error).reason;
                let times = self.unwritten.count(&from.node, &reason);
                events::report_not_written(&self.env, &from.node, &about, &reason, times);
                let is_confirmed = defect::is_planted(Defect::ConfirmBeforeWrite);
                (is_confirmed.then_some(row).into_iter().collect(), None)
            }
        }
    }

    fn take_traffic(&self, node: &NodeName) -> usize {
        self.traffic.take(node)
    }
}
