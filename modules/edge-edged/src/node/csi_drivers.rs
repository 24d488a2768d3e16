//! Which CSI drivers the node reports after a start. Pure.
//!
//! A driver registers some seconds after edgecore, or after its own pod runs again. Were it reported as gone for that time, the
//! cluster would neither attach its volumes nor place pods by them, for nothing: a kubelet leaves its CSINode alone, too.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use beehive::Moment;
use contract::csi_node::{CSI_DRIVERS_ANNOTATION, CsiNodeDriver};
use serde_json::Value;

/// 10 min from EdgeCsi's first word: so long a driver's pod may take to run again after the machine was started.
const KEPT: Duration = Duration::from_secs(600);

/// The drivers that have been registered since the start.
#[derive(Debug, Default)]
pub(crate) struct DriversSeen {
    since: Option<Moment>,
    names: BTreeSet<String>,
}

impl DriversSeen {
    /// Notes what EdgeCsi says. A driver that was here is known to be gone when it says so no more.
    pub(crate) fn told(&mut self, drivers: &[CsiNodeDriver], now: Moment) {
        self.since.get_or_insert(now);
        self.names.extend(drivers.iter().map(|driver| driver.name.clone()));
    }

    /// The drivers to report: those that are registered, and for a while those that were reported in `before` and have not been
    /// here since.
    pub(crate) fn to_report(
        &self,
        registered: Vec<CsiNodeDriver>,
        before: Option<&Value>,
        now: Moment,
    ) -> Vec<CsiNodeDriver> {
        let is_early = self.since.is_none_or(|since| now.since(since) < KEPT);
        let awaited = before.filter(|_| is_early).map(reported).unwrap_or_default().into_iter();
        let awaited = awaited.filter(|driver| !self.names.contains(&driver.name));
        let all = registered.into_iter().chain(awaited).map(|driver| (driver.name.clone(), driver));
        all.collect::<BTreeMap<String, CsiNodeDriver>>().into_values().collect()
    }
}

fn reported(node: &Value) -> Vec<CsiNodeDriver> {
    let annotation = node.pointer("/metadata/annotations").and_then(|all| all.get(CSI_DRIVERS_ANNOTATION));
    annotation.and_then(|text| serde_json::from_str(text.as_str()?).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn drivers(names: &[&str]) -> Vec<CsiNodeDriver> {
        let driver = |name: &&str| CsiNodeDriver {
            name: (*name).to_owned(),
            node_id: "n".to_owned(),
            topology: BTreeMap::new(),
            max_volumes: 0,
        };
        names.iter().map(driver).collect()
    }

    #[test]
    fn a_start_takes_no_driver_from_the_cluster_until_it_is_known_to_be_gone() {
        let before = json!({"metadata": {"annotations": {CSI_DRIVERS_ANNOTATION: json!(drivers(&["a", "b"])).to_string()}}});
        let start = Moment(Duration::from_secs(100));
        let mut seen = DriversSeen::default();
        let now = |seen: &DriversSeen, registered: &[&str], at: Moment| -> Vec<String> {
            let all = seen.to_report(drivers(registered), Some(&before), at).into_iter();
            all.map(|driver| driver.name).collect()
        };
        seen.told(&[], start);
        assert_eq!(now(&seen, &[], start), ["a", "b"]);
        seen.told(&drivers(&["a", "c"]), start);
        assert_eq!(now(&seen, &["a", "c"], start), ["a", "b", "c"]);
        // Its registrar has gone: that is no start.
        seen.told(&drivers(&["c"]), start);
        assert_eq!(now(&seen, &["c"], start), ["b", "c"]);
        // One that does not come back is not waited for for ever.
        assert_eq!(now(&seen, &["c"], start + KEPT), ["c"]);
        assert_eq!(seen.to_report(drivers(&["c"]), None, start), drivers(&["c"]));
        assert_eq!(seen.to_report(Vec::new(), Some(&json!({})), start), []);
    }
}
