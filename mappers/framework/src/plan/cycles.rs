//! How often a property is read and told, and a state: milliseconds, as users mean them.

use std::time::Duration;

pub(super) use dmi::REPEAT_CYCLE;
use dmi::v1beta1::{Device, DeviceProperty};

use crate::anomaly::is_watched;
use crate::push::is_pushed;

/// What a cycle is when it is 0 or absent, as in KubeEdge's framework.
pub(super) const DEFAULT_CYCLE: Duration = Duration::from_secs(1);
/// Nothing is read more often; what asks for it is read this often.
pub(super) const SHORTEST_CYCLE: Duration = Duration::from_millis(10);
/// A cycle beyond a day is most likely written in nanoseconds, as old samples have it.
const SUSPICIOUS_CYCLE: Duration = Duration::from_secs(24 * 3600);
/// What a clock can add without running over.
pub(super) const LONGEST_CYCLE: Duration = Duration::from_secs(365 * 24 * 3600);

/// How the state is reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StateReport {
    pub(crate) report_cycle: Option<Duration>,
}

/// How often a property is read, told and pushed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Cycles {
    /// None: nobody asked for its value.
    pub(super) collect: Option<Duration>,
    /// How often it is told if it did not change. None: it is not told.
    pub(super) report: Option<Duration>,
    /// How often it is pushed, which is `reportCycle`. None: as often as it is read.
    pub(super) push: Option<Duration>,
}

/// How often a property is read, told and pushed: what is only pushed, looked at or saved is read for that.
pub(super) fn cycles(property: &DeviceProperty, is_saved: bool, warnings: &mut Vec<String>) -> Cycles {
    if !property.report_to_cloud && !is_pushed(property) && !is_watched(property) && !is_saved {
        return Cycles::default();
    }
    let name = &property.name;
    let collect = cycle(property.collect_cycle, &format!("property `{name}`: collectCycle"), warnings);
    let collect = collect.unwrap_or(DEFAULT_CYCLE);
    let report_cycle = cycle(property.report_cycle, &format!("property `{name}`: reportCycle"), warnings);
    // Nothing is reported more often than it is read.
    let report = property.report_to_cloud.then(|| report_cycle.unwrap_or(REPEAT_CYCLE).max(collect));
    let push = report_cycle.filter(|cycle| *cycle > collect);
    Cycles { collect: Some(collect), report, push }
}

/// How often is told of a property that it cannot be served. None: nobody asked for it.
pub(super) fn refusal_cycle(property: &DeviceProperty) -> Option<Duration> {
    cycles(property, false, &mut Vec::new()).report
}

/// How the state is told; None: nobody asked for it.
pub(super) fn state_report(device: &Device, warnings: &mut Vec<String>) -> Option<StateReport> {
    let status = device.status.as_ref().filter(|status| status.report_to_cloud)?;
    let report_cycle = cycle(status.report_cycle, "stateReport.reportCycle", warnings);
    Some(StateReport { report_cycle: Some(report_cycle.unwrap_or(REPEAT_CYCLE)) })
}

/// A cycle in milliseconds; None when it is 0 or absent.
pub(super) fn cycle(given: i64, what: &str, warnings: &mut Vec<String>) -> Option<Duration> {
    let millis = match u64::try_from(given) {
        Ok(0) => return None,
        Ok(millis) => millis,
        Err(_) => {
            warnings.push(format!("{what} is {given}; a cycle is a positive number of milliseconds"));
            return None;
        }
    };
    let wanted = Duration::from_millis(millis);
    if wanted < SHORTEST_CYCLE {
        warnings.push(format!("{what} is {given} ms; the shortest is {} ms", SHORTEST_CYCLE.as_millis()));
    }
    if wanted > SUSPICIOUS_CYCLE {
        let (days, nanoseconds) = (wanted.as_secs() / 86_400, Duration::from_nanos(millis));
        // Old samples of KubeEdge count in nanoseconds, and whole seconds of them.
        if millis % 1_000_000 == 0 && nanoseconds >= SHORTEST_CYCLE {
            warnings.push(format!(
                "{what} is {given} ms, which is {days} days; the unit is milliseconds, and this is taken as \
                 nanoseconds, which makes {} ms",
                nanoseconds.as_millis()
            ));
            return Some(nanoseconds.min(SUSPICIOUS_CYCLE));
        }
        warnings.push(format!("{what} is {given} ms, which is {days} days; the unit is milliseconds"));
    }
    Some(wanted.clamp(SHORTEST_CYCLE, LONGEST_CYCLE))
}
