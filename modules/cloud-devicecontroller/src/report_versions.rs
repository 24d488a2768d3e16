//! Which reports a DeviceStatus holds. Pure.
//!
//! Each property of a device is reported by itself, and so is its state: of each the newest counts. So the version of a
//! DeviceStatus names, for one session of one node, the newest row of each. A later session begins with none: it says
//! what is newest in its own rows, and whatever an earlier one still has to say is older. A property that was deleted
//! keeps its row until then, so that an older report does not bring it back.

use std::collections::BTreeMap;

use contract::NodeName;
use contract::parsed::DeviceReport;
use serde::{Deserialize, Serialize};

/// What a DeviceStatus holds, as its annotation says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportVersions {
    /// The node that said it. A device may move.
    pub node: String,
    /// The session.
    pub session: u64,
    /// The newest row of each property, by `twin/NAME`, and of the device's `state`, `conditions` and `calls`.
    pub rows: BTreeMap<String, i64>,
}

/// How a session stands to what a DeviceStatus holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionOrder {
    /// It is the one that is held, or a later one.
    Write,
    /// A later session of the same node has spoken, or the Lease that counted it is no more: the Lease of now decides.
    Later,
}

/// What a report is about within its device.
fn part_of(report: &DeviceReport) -> String {
    match report {
        DeviceReport::Twin { property, .. } => format!("twin/{property}"),
        DeviceReport::Conditions { .. } => "conditions".to_owned(),
        DeviceReport::Calls { .. } => "calls".to_owned(),
        DeviceReport::State { .. } => "state".to_owned(),
    }
}

/// ReportVersions from an annotation. What somebody else has written there counts as none.
pub fn parse(text: &str) -> Option<ReportVersions> {
    serde_json::from_str(text).ok()
}

/// How `session` of `node` stands to what is held.
pub fn compare(held: Option<&ReportVersions>, node: &NodeName, session: u64) -> SessionOrder {
    match held {
        Some(held) if held.node == node.as_str() && held.session > session => SessionOrder::Later,
        Some(_) | None => SessionOrder::Write,
    }
}

/// A report of a device and its row in the node's outbox.
pub type Row = (i64, DeviceReport);

/// 2048 properties are told apart in one session. Beyond that a property that is new is not taken.
pub const PROPERTIES_MAX: usize = 2048;

/// Takes the reports of one device in the order of their rows. Answers the versions after them, and those that are newer
/// than what is held.
pub fn take<'a>(
    held: Option<ReportVersions>,
    node: &NodeName,
    session: u64,
    reports: &'a [Row],
) -> (ReportVersions, Vec<&'a DeviceReport>) {
    let held = held.filter(|held| held.node == node.as_str() && held.session == session);
    let mut versions = held.unwrap_or_else(|| ReportVersions {
        node: node.as_str().to_owned(),
        session,
        rows: BTreeMap::new(),
    });
    let mut in_order: Vec<&Row> = reports.iter().collect();
    in_order.sort_by_key(|(row, _)| *row);
    let mut news = Vec::new();
    for (row, report) in in_order {
        if versions.rows.len() >= PROPERTIES_MAX && !versions.rows.contains_key(&part_of(report)) {
            continue;
        }
        let held = versions.rows.entry(part_of(report)).or_insert(i64::MIN);
        if row > held {
            *held = *row;
            news.push(report);
        }
    }
    (versions, news)
}

#[cfg(test)]
mod tests {
    use super::*;
    use contract::ids::PropertyName;

    fn node(name: &str) -> NodeName {
        NodeName::parse(name).unwrap()
    }

    fn twin(row: i64, property: &str) -> Row {
        let property = PropertyName::parse(property).unwrap();
        (row, DeviceReport::Twin { property, reported: None, observed_desired: None })
    }

    fn news(held: Option<ReportVersions>, session: u64, reports: &[Row]) -> (ReportVersions, usize) {
        let (versions, news) = take(held, &node("a"), session, reports);
        (versions, news.len())
    }

    #[test]
    fn the_rows_of_one_property_say_nothing_of_another() {
        let (held, all) = news(None, 4, &[twin(9, "speed")]);
        assert_eq!(all, 1);
        let (held, some) = news(Some(held), 4, &[twin(8, "speed"), twin(7, "heat"), twin(9, "speed")]);
        assert_eq!(some, 1, "heat is news, the others are held");
        assert_eq!(held.rows, BTreeMap::from([("twin/speed".into(), 9), ("twin/heat".into(), 7)]));
        assert_eq!(parse(&serde_json::to_string(&held).unwrap()), Some(held));
    }

    #[test]
    fn a_later_session_begins_anew_and_an_earlier_one_is_over() {
        let (held, _) = news(None, 4, &[twin(9, "speed")]);
        assert_eq!(compare(Some(&held), &node("a"), 3), SessionOrder::Later);
        assert_eq!(compare(Some(&held), &node("a"), 4), SessionOrder::Write);
        assert_eq!(compare(Some(&held), &node("b"), 1), SessionOrder::Write, "the device has moved");
        let (held, some) = news(Some(held), 5, &[twin(2, "heat")]);
        assert_eq!((some, held.session, held.rows.len()), (1, 5, 1), "a new store counts from one");
        let (held, one) = news(Some(held), 5, &[twin(3, "speed")]);
        assert_eq!((one, held.rows.len()), (1, 2));
    }

    #[test]
    fn a_deleted_property_is_not_brought_back() {
        let (held, _) = news(None, 4, &[twin(9, "speed")]);
        assert_eq!(news(Some(held), 4, &[twin(8, "speed")]).1, 0);
        assert_eq!(parse("4.9"), None);
    }
}
