//! Which devices have rules, what these have to know, and what they said. Pure: the rules themselves are another actor's.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use contract::DeviceCondition;
use contract::devicerules::{
    DeviceFacts, Presence, PropertyFact, RULE_REASONS, RULES_APPLIED, RULES_QUIET, RuleCondition,
};
use contract::ids::DeviceName;
use crd::{Device, DeviceModel};

use crate::health::Wrong;
use crate::members::Member;
use crate::plan;
use crate::twin::{State, Twin};

/// The rules of a device of which nothing is wrong.
#[derive(Debug)]
struct Watched {
    text: Arc<str>,
    properties: BTreeSet<String>,
}

/// What DeviceTwin knows of rules.
#[derive(Debug, Default)]
pub(crate) struct RuleTable {
    watched: BTreeMap<DeviceName, Watched>,
    /// Of these the rules have not heard what is new.
    due: BTreeSet<DeviceName>,
    said: BTreeMap<DeviceName, Vec<RuleCondition>>,
    version: u64,
}

impl RuleTable {
    /// A device, or its model, is now like that; `None`: it is gone.
    pub(crate) fn put(&mut self, id: &DeviceName, device: Option<&Device>, model: Option<&DeviceModel>) {
        let before = self.watched.remove(id);
        let text = device.and_then(crd::edge_rules_text);
        let rules = device.and_then(|device| crd::edge_rules(device, model).ok()).unwrap_or_default();
        let (had, has) = (before.is_some(), !rules.is_empty());
        if let Some(text) = text.filter(|_| has) {
            // The same text stays the same one, so that nobody reads it again.
            let text =
                before.map(|before| before.text).filter(|old| **old == *text).unwrap_or_else(|| text.into());
            let properties = rules.iter().filter_map(|rule| rule.condition.property().map(str::to_owned));
            self.watched.insert(id.clone(), Watched { text, properties: properties.collect() });
        }
        if device.is_none() {
            self.said.remove(id);
        }
        if had || has {
            self.due.insert(id.clone());
        }
    }

    /// Something of a device has changed.
    pub(crate) fn changed(&mut self, id: &DeviceName) {
        if self.watched.contains_key(id) {
            self.due.insert(id.clone());
        }
    }

    /// The devices that have rules.
    pub(crate) fn all(&self) -> Vec<DeviceName> {
        self.watched.keys().cloned().collect()
    }

    /// The next device of which something is to be told.
    pub(crate) fn next_due(&self) -> Option<DeviceName> {
        self.due.first().cloned()
    }

    /// It was told.
    pub(crate) fn told(&mut self, id: &DeviceName) {
        self.due.remove(id);
    }

    /// Nothing is to be told: all of it is asked for.
    pub(crate) fn all_told(&mut self) {
        self.due.clear();
    }

    /// What the rules of a device have to know.
    pub(crate) fn facts(&mut self, id: &DeviceName, member: Option<&Member>) -> DeviceFacts {
        self.version += 1;
        let watched = self.watched.get(id).zip(member);
        let properties = watched.into_iter().flat_map(|(watched, member)| {
            watched.properties.iter().map(|name| (name.clone(), fact(member.twins.get(name))))
        });
        DeviceFacts {
            device: id.clone(),
            uid: member.map(|member| member.state.uid.clone()).unwrap_or_default(),
            rules: watched.map(|(watched, _)| Arc::clone(&watched.text)),
            presence: member.map(|member| presence(&member.state)).unwrap_or_default(),
            properties: properties.collect(),
            version: self.version,
        }
    }

    /// What the rules of a device say.
    pub(crate) fn say(&mut self, id: DeviceName, conditions: Vec<RuleCondition>) {
        if self.watched.contains_key(&id) {
            self.said.insert(id, conditions);
        }
    }

    /// What is wrong by the word of the rules. Until they have said something what was `told` to the cloud stays.
    pub(crate) fn wrong(&self, id: &DeviceName, told: &[DeviceCondition]) -> Vec<Wrong> {
        if !self.watched.contains_key(id) {
            return Vec::new();
        }
        match self.said.get(id) {
            Some(said) => said.iter().map(|one| (one.kind, one.reason, one.message.clone())).collect(),
            None => told.iter().filter_map(as_told).collect(),
        }
    }
}

/// A condition of the rules that stands in the store.
fn as_told(condition: &DeviceCondition) -> Option<Wrong> {
    let kind = [RULES_APPLIED, RULES_QUIET].into_iter().find(|kind| *kind == condition.kind)?;
    let reason = RULE_REASONS.into_iter().find(|reason| *reason == condition.reason)?;
    Some((kind, reason, condition.message.clone()))
}

fn fact(twin: Option<&Twin>) -> PropertyFact {
    let Some(twin) = twin.filter(|twin| !twin.deleted) else { return PropertyFact::default() };
    let value = twin.actual.as_ref().map(|side| side.value.clone());
    PropertyFact {
        value: value.filter(|value| !value.is_empty() && twin.actual_error.is_none()),
        is_stale: twin.stale.is_some(),
    }
}

/// A device of which nothing was ever heard is not offline, for nobody knows whether it will say anything.
fn presence(state: &State) -> Presence {
    match plan::is_online(&state.state) {
        Some(true) => Presence::Online,
        _ if state.state.eq_ignore_ascii_case("unknown") && state.last_online.is_none() => Presence::Unsaid,
        _ => Presence::Offline,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::twin::Side;
    use beehive::Moment;
    use serde_json::json;

    const RULES: &str = "[{name: hot, when: {property: heat, above: 80}, then: [{publish: {topic: t}}]}]";

    fn id() -> DeviceName {
        DeviceName::parse("d", "gantry").unwrap()
    }

    fn device(rules: Option<&str>) -> Device {
        let annotations = rules.map(|rules| json!({ "kubehive.io/rules": rules }));
        serde_json::from_value(json!({ "metadata": { "name": "gantry", "annotations": annotations },
            "spec": { "properties": [{ "name": "heat" }, { "name": "level" }] } }))
        .unwrap()
    }

    fn twin(value: &str, stale: Option<i64>, error: Option<&str>) -> Twin {
        let actual = Some(Side { value: value.into(), timestamp: 1 });
        Twin { actual, stale, actual_error: error.map(str::to_owned), ..Twin::new("int") }
    }

    #[test]
    fn rules_hear_of_what_they_watch_and_of_their_end() {
        let mut table = RuleTable::default();
        table.put(&id(), Some(&device(None)), None);
        table.changed(&id());
        assert_eq!(table.next_due(), None, "nobody cares");
        table.put(&id(), Some(&device(Some(RULES))), None);
        let twins =
            [("heat".to_owned(), twin("81", None, None)), ("level".to_owned(), twin("3", None, None))];
        let state = State { state: "online".into(), ..State::unknown("u") };
        let member = Member::new(state, twins.into(), Moment::default());
        assert_eq!(table.next_due(), Some(id()));
        let first = table.facts(&id(), Some(&member));
        assert_eq!(
            (first.rules.as_deref(), first.presence, &*first.uid),
            (Some(RULES), Presence::Online, "u")
        );
        assert_eq!(first.properties.keys().collect::<Vec<_>>(), ["heat"]);
        table.told(&id());
        table.changed(&id());
        let next = table.facts(&id(), Some(&member));
        assert!(next.version > first.version && table.next_due().is_some());
        table.told(&id());
        table.put(&id(), Some(&device(Some("[{name: hot}]"))), None);
        assert_eq!(
            (table.next_due(), table.facts(&id(), Some(&member)).rules),
            (Some(id()), None),
            "refused"
        );
        table.told(&id());
        table.put(&id(), Some(&device(Some(RULES))), None);
        table.put(&id(), None, None);
        assert_eq!((table.next_due(), table.facts(&id(), None).rules), (Some(id()), None), "gone");
    }

    #[test]
    fn a_value_that_is_none_is_none_and_a_device_that_never_spoke_is_not_offline() {
        assert_eq!(fact(Some(&twin("81", None, Some("exception 2")))).value, None);
        assert_eq!(fact(Some(&twin("", None, None))).value, None);
        assert!(fact(Some(&twin("81", Some(5), None))).is_stale);
        assert_eq!(fact(Some(&Twin { deleted: true, ..twin("81", Some(5), None) })), PropertyFact::default());
        let of = |state: &str, last_online: Option<&str>| {
            let last_online = last_online.map(str::to_owned);
            presence(&State { state: state.into(), last_online, ..State::unknown("u") })
        };
        assert_eq!((of("ok", None), of("offline", None)), (Presence::Online, Presence::Offline));
        assert_eq!((of("unknown", None), of("unknown", Some("t"))), (Presence::Unsaid, Presence::Offline));
        assert_eq!(of("unhealthy", None), Presence::Offline);
    }

    #[test]
    fn what_was_told_of_rules_stays_until_they_have_said_something() {
        let told = DeviceCondition {
            kind: RULES_QUIET.into(),
            reason: "Triggered".into(),
            message: "m".into(),
            since: "t".into(),
        };
        let other = DeviceCondition { kind: "Reporting".into(), ..told.clone() };
        let told = [told, other];
        let mut table = RuleTable::default();
        assert_eq!(table.wrong(&id(), &told), [], "it has no rules any more");
        table.put(&id(), Some(&device(Some(RULES))), None);
        assert_eq!(table.wrong(&id(), &told), [(RULES_QUIET, "Triggered", "m".to_owned())]);
        table.say(id(), Vec::new());
        assert_eq!(table.wrong(&id(), &told), []);
    }
}
