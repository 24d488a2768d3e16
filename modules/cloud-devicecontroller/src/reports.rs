//! A node's reports by their device, each of which is one write, and what is answered of them.

use std::collections::BTreeMap;
use std::time::Duration;

use beehive::Fault;
use contract::nodelease::SessionState;
use contract::parsed::{DeviceName, ParsedReport};
use contract::{NodeName, Report};
use fairshare::{RefusedReport, ReportSender, ReportWriter, SortedReports, sort_reports};

use crate::error::DeviceReportError;
use crate::report_versions::Row;
use crate::status::DeviceStatusWriter;
use crate::{events, plan};

/// 64 KiB: what a report counts as that was not the node's to make.
const REFUSED: usize = 64 << 10;

impl ReportWriter for DeviceStatusWriter {
    type Write = (DeviceName, Vec<Row>);

    /// 32 MiB at once, and 1,000 KiB in each second: a node of a thousand devices that begins, and then some hundred devices that
    /// change in each second. A third of it is written, the rest is read for it.
    const KIB: (u32, Duration) = (32 << 10, Duration::from_millis(1));
    const REFUSED: &'static str = "devicecontroller_report_refused";
    const UNKNOWN: &'static str = "devicecontroller_report_unknown";
    const MALFORMED: &'static str = "devicecontroller_report_malformed";
    const TURNED_AWAY: &'static str = "devicecontroller_message_turned_away";
    const SPAN: &'static str = "DeviceController write status";

    fn describe((device, rows): &(DeviceName, Vec<Row>)) -> (Vec<i64>, String) {
        (rows.iter().map(|(row, _)| *row).collect(), format!("Device {device}"))
    }

    fn sort(&self, from: &ReportSender, reports: Vec<Report>) -> SortedReports<(DeviceName, Vec<Row>)> {
        let mut by_device = BTreeMap::<DeviceName, Vec<Row>>::new();
        let refused = sort_reports(from, reports, |row, report| match report {
            ParsedReport::OfDevice(device, mut said) => {
                if plan::without_odd_time(&mut said) {
                    events::time_left_out(&self.env, &from.node, &device);
                }
                by_device.entry(device).or_default().push((row, said));
                None
            }
            anothers => Some(anothers),
        });
        SortedReports { steps: vec![by_device.into_iter().collect()], refused }
    }

    async fn write(
        &self,
        from: &ReportSender,
        state: SessionState,
        (device, rows): (DeviceName, Vec<Row>),
    ) -> (Vec<i64>, Option<RefusedReport>) {
        // A node that has no Node yet has no devices either.
        if !matches!(state, SessionState::Open { .. }) {
            return (Vec::new(), None);
        }
        let numbers = || rows.iter().map(|(row, _)| *row).collect();
        match DeviceStatusWriter::write(self, from, &device, &rows).await {
            Ok(refused) => {
                self.traffic.add_bytes(&from.node, if refused.is_some() { REFUSED } else { 0 });
                (numbers(), refused)
            }
            Err(DeviceReportError::Superseded) => {
                tracing::debug!(node = %from.node, session = from.session, "twin of an ended session was not written");
                (Vec::new(), None)
            }
            Err(error) => {
                let reason = Fault::from_error(&error).reason;
                let times = self.unwritten.count(&from.node, &reason);
                events::report_not_written(&self.env, &from.node, &device, &reason, times);
                (Vec::new(), None)
            }
        }
    }

    fn take_traffic(&self, node: &NodeName) -> usize {
        self.traffic.take(node)
    }
}
