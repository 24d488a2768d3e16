//! Who has fallen silent. Pure.
//!
//! A value is stale when nothing was heard of it for two of its cycles. Its cycle is `reportCycle`, of a property that a mapper
//! serves 10 s without one, and never shorter than `collectCycle`. A property that nobody promised a cycle of is not judged.
//!
//! A register that a device refuses is asked less and less often, and has no value that could grow old: why there is none holds as long
//! as anything is heard of the device.

use std::collections::BTreeMap;
use std::time::Duration;

use beehive::Moment;
use crd::{Device, DeviceProperty};
pub(crate) use dmi::REPEAT_CYCLE;

use crate::twin::Twin;

/// A longer cycle counts as this one.
const CYCLE_MAX: Duration = Duration::from_secs(365 * 24 * 3600);
/// How late a look may be: so much earlier than after two cycles silence is noticed.
pub(crate) const PROBE_EVERY: Duration = Duration::from_millis(500);
/// 1.5 s: a shorter silence is a machine under load.
const SILENCE_MIN: Duration = Duration::from_millis(1500);
/// 60 s: a property that nobody has, and with which something is wrong, is forgotten when nothing is heard of it for so long, or for two
/// of its device's longest cycles.
const STRANGERS_MIN: Duration = Duration::from_secs(60);

/// How long nothing may be heard of a property that nobody has. `cycles`: of those that the device has.
pub(crate) fn of_strangers(cycles: impl Iterator<Item = Duration>) -> Duration {
    cycles.max().unwrap_or_default().saturating_mul(2).max(STRANGERS_MIN)
}

fn millis(given: Option<i64>) -> Option<Duration> {
    let given = u64::try_from(given?).ok().filter(|given| *given > 0)?;
    Some(Duration::from_millis(given).min(CYCLE_MAX))
}

/// How often something has to be heard of a property.
pub(crate) fn cycle(property: &DeviceProperty, has_mapper: bool) -> Option<Duration> {
    let told = millis(property.report_cycle);
    // A mapper does not read what is not reported.
    let cycle = match has_mapper {
        true if property.report_to_cloud == Some(true) => Some(told.unwrap_or(REPEAT_CYCLE)),
        true => None,
        false => told,
    };
    Some(cycle?.max(millis(property.collect_cycle).unwrap_or_default()))
}

/// How often the state of a device has to be said. `is_of_mapper`: whether it was a mapper that said it last: one that is not asked for it,
/// or no longer, says nothing, and its last word does not hold for ever. An MQTT client says what it likes, and promised nothing.
pub(crate) fn state_cycle(device: &Device, is_of_mapper: bool) -> Option<Duration> {
    let report = device.state_report();
    let told = millis(report.report_cycle);
    match report.report_to_cloud == Some(true) {
        true => told,
        false if is_of_mapper => Some(told.unwrap_or(REPEAT_CYCLE)),
        false => None,
    }
}

/// Whether a silence is longer than it may be.
pub(crate) fn is_silent(silence: Duration, cycle: Duration) -> bool {
    silence >= (cycle * 2).saturating_sub(PROBE_EVERY).max(SILENCE_MIN)
}

/// When a device and its properties were heard of.
pub(crate) struct Heard<'a> {
    /// When each property was last heard of.
    pub(crate) of: &'a dyn Fn(&str) -> Moment,
    /// When its mapper's process was found to have ended, if it has: what was heard before is stale, whatever the cycles.
    pub(crate) ended: Option<Moment>,
    /// Whether the device or its model names a property: of what nobody names nothing is awaited.
    pub(crate) is_named: &'a dyn Fn(&str) -> bool,
}

/// The living twins that have fallen silent by `now`, and were not known to be. `cycles`: of the properties that are judged.
pub(crate) fn fallen_silent<'a>(
    twins: &'a BTreeMap<String, Twin>,
    cycles: &BTreeMap<&str, Duration>,
    heard: &Heard<'_>,
    now: Moment,
) -> Vec<(&'a String, &'a Twin)> {
    let living = || twins.iter().filter(|(_, twin)| !twin.deleted);
    let of_device = living().map(|(property, _)| (heard.of)(property)).max().unwrap_or_default();
    let has_fallen = |(property, twin): &(&String, &Twin)| {
        let own = (heard.of)(property);
        let last = if twin.has_only_an_error() { own.max(of_device) } else { own };
        let is_late = |cycle: &Duration| is_silent(now.since(last), *cycle);
        cycles.get(property.as_str()).is_some_and(is_late)
            || (heard.is_named)(property) && heard.ended.is_some_and(|ended| own < ended)
    };
    living().filter(|(_, twin)| twin.stale.is_none() && twin.actual.is_some()).filter(has_fallen).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::twin::Side;
    use serde_json::json;

    fn property(json: serde_json::Value) -> DeviceProperty {
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn a_cycle_is_what_was_promised() {
        let secs = |secs| Some(Duration::from_secs(secs));
        let mapped = |given| cycle(&property(given), true);
        assert_eq!(mapped(json!({ "reportToCloud": true })), secs(10));
        assert_eq!(mapped(json!({ "reportToCloud": true, "collectCycle": 60_000 })), secs(60));
        assert_eq!(
            mapped(json!({ "reportToCloud": true, "reportCycle": 2000, "collectCycle": 1000 })),
            secs(2)
        );
        assert_eq!(mapped(json!({ "reportCycle": 2000 })), None, "a mapper does not read it");
        assert_eq!(cycle(&property(json!({ "reportCycle": 2000 })), false), secs(2));
        assert_eq!(
            cycle(&property(json!({ "reportToCloud": true })), false),
            None,
            "an MQTT client promised nothing"
        );
        assert_eq!(cycle(&property(json!({ "reportCycle": i64::MAX })), false), Some(CYCLE_MAX));
        assert_eq!(cycle(&property(json!({ "reportCycle": -1 })), false), None);
        assert!(is_silent(CYCLE_MAX * 2, CYCLE_MAX));
    }

    #[test]
    fn a_state_that_no_mapper_is_asked_for_any_more_does_not_hold_for_ever() {
        let secs = |secs| Some(Duration::from_secs(secs));
        let of = |report: serde_json::Value| -> Device {
            serde_json::from_value(json!({ "metadata": { "name": "d" }, "spec": { "stateReport": report } }))
                .unwrap()
        };
        for (report, of_mapper, of_client) in [
            (json!({ "reportToCloud": true, "reportCycle": 5000 }), secs(5), secs(5)),
            (json!({ "reportToCloud": true }), None, None),
            (json!({ "reportToCloud": false, "reportCycle": 5000 }), secs(5), None),
            (json!({ "reportToCloud": false }), secs(10), None),
            (json!({}), secs(10), None),
        ] {
            let device = of(report);
            assert_eq!((state_cycle(&device, true), state_cycle(&device, false)), (of_mapper, of_client));
        }
    }

    #[test]
    fn a_stranger_may_be_silent_for_a_minute_or_as_long_as_the_others() {
        let secs = Duration::from_secs;
        for (cycles, allowed) in [(vec![], 60), (vec![1, 10], 60), (vec![1, 3600], 7200)] {
            assert_eq!(of_strangers(cycles.into_iter().map(secs)), secs(allowed));
        }
        assert_eq!(of_strangers([CYCLE_MAX].into_iter()), CYCLE_MAX * 2);
    }

    #[test]
    fn silence_is_noticed_within_two_cycles_however_late_the_look_is() {
        for seconds in [1, 2, 10, 60] {
            let cycle = Duration::from_secs(seconds);
            let noticed = (0..).map(|n| PROBE_EVERY * n).find(|silence| is_silent(*silence, cycle)).unwrap();
            assert!(noticed <= cycle * 2 && noticed > cycle, "{cycle:?}: {noticed:?}");
        }
        assert!(!is_silent(Duration::from_millis(600), Duration::from_millis(100)));
    }

    #[test]
    fn why_there_is_no_value_holds_until_the_device_or_its_mapper_falls_silent() {
        let at = |seconds| Moment(Duration::from_secs(seconds));
        let twin = |value: &str, error: Option<&str>| Twin {
            actual: Some(Side { value: value.into(), timestamp: 1 }),
            actual_error: error.map(str::to_owned),
            ..Twin::new("int")
        };
        let twins: BTreeMap<String, Twin> = [
            ("good", twin("5", None)),
            ("refused", twin("", Some("exception 2"))),
            ("doubted", twin("7", Some("last usable value"))),
            ("clients", twin("7", None)),
        ]
        .map(|(name, twin)| (name.to_owned(), twin))
        .into();
        let cycles =
            BTreeMap::from(["good", "refused", "doubted"].map(|name| (name, Duration::from_secs(10))));
        // The device is heard until 100, and what it refuses once, at 10.
        let of = |property: &str| if property == "good" { at(100) } else { at(10) };
        let silent = |now: u64, ended: Option<u64>| -> Vec<&str> {
            let is_named = |property: &str| property != "clients";
            let heard = Heard { of: &of, ended: ended.map(at), is_named: &is_named };
            fallen_silent(&twins, &cycles, &heard, at(now))
                .into_iter()
                .map(|(name, _)| name.as_str())
                .collect()
        };
        assert_eq!(silent(29, None), [""; 0]);
        assert_eq!(silent(110, None), ["doubted"], "a value grows old, one that is doubted, too");
        assert_eq!(silent(120, None), ["doubted", "good", "refused"], "within two periods of the device");
        assert_eq!(silent(101, Some(100)), ["doubted", "refused"], "its mapper has ended");
    }
}
