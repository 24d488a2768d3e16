//! The rules of all devices of the node. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use beehive::{Bucket, Moment};
use contract::devicerules::{
    ACTION_FAILED, ActionsOutcome, DeviceFacts, HELD_BACK, RULES_APPLIED, RULES_QUIET, RuleCondition,
    TRIGGERED,
};
use contract::ids::DeviceName;
use crd::EdgeAction;
use edge_store::Write;

use crate::active_rule::{ActiveRule, AfterAttempt};
use crate::plan::Step;
use crate::store::{self, KeptRule};

/// 25 Events about a device at once, and one more in 300 s: so many an API server takes (the kubelet's spam filter), and what is more
/// would fill the outbox of a node that is cut off.
const EVENTS: (u32, Duration) = (25, Duration::from_secs(300));
/// 2000 bytes of a sentence: what the cloud takes is 2 KiB.
const MESSAGE_MAX: usize = 2000;

/// A rule by its device and its name.
pub(crate) type RuleKey = (DeviceName, String);

/// The rules of a device.
#[derive(Debug)]
struct RulesOfDevice {
    facts: DeviceFacts,
    rules: Vec<ActiveRule>,
    events: Bucket,
    /// Something has changed since they were last judged.
    is_changed: bool,
    /// What they said of themselves last.
    said: Option<Vec<RuleCondition>>,
}

/// Something that is worth an Event.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct RuleHappening {
    pub(crate) device: DeviceName,
    pub(crate) uid: String,
    pub(crate) rule: String,
    pub(crate) kind: HappeningKind,
    /// A sentence for people.
    pub(crate) message: String,
    /// There is room for an Event about the device.
    pub(crate) is_told: bool,
}

/// What has happened to a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HappeningKind {
    Triggered,
    Cleared,
    HeldBack,
    ActionFailed,
}

/// Actions that are to be tried.
#[derive(Debug)]
pub(crate) struct Attempt {
    pub(crate) key: RuleKey,
    pub(crate) number: u64,
    pub(crate) actions: Vec<(usize, EdgeAction)>,
    /// What a publication or a call without words of its own says.
    pub(crate) document: String,
}

/// All rules.
#[derive(Debug, Default)]
pub(crate) struct RuleSet {
    devices: BTreeMap<DeviceName, RulesOfDevice>,
    /// Rows of the life before of which the devices have not been told yet.
    kept: BTreeMap<RuleKey, KeptRule>,
    /// What is to be written into the store.
    unkept: BTreeMap<RuleKey, Write>,
    attempts: u64,
}

impl RuleSet {
    /// Takes the rows of the life before.
    pub(crate) fn restored(kept: BTreeMap<RuleKey, KeptRule>) -> Self {
        RuleSet { kept, ..RuleSet::default() }
    }

    /// How many devices have rules, and how many rules there are.
    pub(crate) fn counts(&self) -> (usize, usize) {
        (self.devices.len(), self.devices.values().map(|device| device.rules.len()).sum())
    }

    /// How many of them have triggered.
    pub(crate) fn triggered(&self) -> usize {
        let all = self.devices.values().flat_map(|device| &device.rules);
        all.filter(|active| active.state.is_triggered).count()
    }

    /// Takes all that is known: devices that are not named have no rules any more. Versions begin anew, and what was said is forgotten.
    pub(crate) fn take_all(&mut self, all: Vec<DeviceFacts>) {
        let named: BTreeSet<DeviceName> = all.iter().map(|facts| facts.device.clone()).collect();
        let known = self.devices.keys().chain(self.kept.keys().map(|(device, _)| device));
        let gone: BTreeSet<DeviceName> = known.filter(|id| !named.contains(*id)).cloned().collect();
        gone.iter().for_each(|id| self.remove(id));
        for device in self.devices.values_mut() {
            (device.facts.version, device.said) = (0, None);
        }
        all.into_iter().for_each(|facts| self.take(facts));
    }

    /// Takes what is known of a device. What is older than what is known already is passed over.
    pub(crate) fn take(&mut self, facts: DeviceFacts) {
        let id = facts.device.clone();
        let before = self.devices.get(&id);
        if before.is_some_and(|before| before.facts.version >= facts.version) {
            return;
        }
        let Some(text) = facts.rules.clone() else { return self.remove(&id) };
        let is_same = before.is_some_and(|before| {
            before.facts.uid == facts.uid
                && before.facts.rules.as_ref().is_some_and(|old| Arc::ptr_eq(old, &text) || *old == text)
        });
        if !is_same {
            self.take_rules(&id, &facts.uid, &text);
        }
        if let Some(device) = self.devices.get_mut(&id) {
            (device.facts, device.is_changed) = (facts, true);
        }
    }

    /// Takes other rules of a device: those that are the same go on.
    fn take_rules(&mut self, id: &DeviceName, uid: &str, text: &str) {
        // What is wrong with them was found before they came here.
        let rules = crd::parse_edge_rules(text).unwrap_or_default();
        let mut before = self.devices.remove(id);
        let mut old: Vec<ActiveRule> = match &mut before {
            Some(before) if before.facts.uid == uid => std::mem::take(&mut before.rules),
            Some(_) | None => Vec::new(),
        };
        let names: BTreeSet<String> = rules.iter().map(|rule| rule.name.clone()).collect();
        let known =
            before.iter().flat_map(|before| &before.rules).chain(&old).map(|active| active.rule.name.clone());
        let rows = self.kept.keys().filter(|(device, _)| device == id).map(|(_, rule)| rule.clone());
        let gone: Vec<String> = known.chain(rows).filter(|name| !names.contains(name)).collect();
        for name in gone {
            self.forget(id, &name);
        }
        let mut active = Vec::with_capacity(rules.len());
        for rule in rules {
            let key = (id.clone(), rule.name.clone());
            let row = self.kept.remove(&key);
            match old.iter().position(|old| old.is(&rule)) {
                Some(at) => active.push(old.swap_remove(at)),
                None => {
                    let mut begun = ActiveRule::new(rule, uid, row.as_ref());
                    begun.is_unkept = row.as_ref() != Some(&begun.kept(uid));
                    active.push(begun);
                }
            }
        }
        let facts = DeviceFacts { device: id.clone(), uid: uid.to_owned(), ..empty_facts(id) };
        let events = before.map_or_else(|| Bucket::new(EVENTS.0, EVENTS.1), |before| before.events);
        self.devices
            .insert(id.clone(), RulesOfDevice { facts, rules: active, events, is_changed: true, said: None });
    }

    fn forget(&mut self, id: &DeviceName, rule: &str) {
        let key = (id.clone(), rule.to_owned());
        self.kept.remove(&key);
        self.unkept.insert(key, store::delete(id, rule));
    }

    fn remove(&mut self, id: &DeviceName) {
        let of_device = self.devices.remove(id).into_iter().flat_map(|device| device.rules);
        let rows = self.kept.keys().filter(|(device, _)| device == id).map(|(_, rule)| rule.clone());
        let names: Vec<String> = of_device.map(|active| active.rule.name).chain(rows).collect();
        names.iter().for_each(|name| self.forget(id, name));
    }

    /// Judges the devices of which something has changed, and those whose time has come.
    pub(crate) fn judge(&mut self, now: Moment) -> Vec<RuleHappening> {
        let mut happenings = Vec::new();
        for (id, device) in &mut self.devices {
            let is_time = device.rules.iter().filter_map(ActiveRule::next).any(|at| at <= now);
            if !std::mem::take(&mut device.is_changed) && !is_time {
                continue;
            }
            for active in &mut device.rules {
                let step = active.judge(&device.facts, now);
                let Some((kind, message)) = words(step, active, &device.facts) else { continue };
                let is_told = device.events.take(now);
                happenings.push(RuleHappening {
                    device: id.clone(),
                    uid: device.facts.uid.clone(),
                    rule: active.rule.name.clone(),
                    kind,
                    message,
                    is_told,
                });
            }
        }
        happenings
    }

    /// The actions that are to be tried now.
    pub(crate) fn attempts(&mut self, now: Moment) -> Vec<Attempt> {
        let mut attempts = Vec::new();
        for (id, device) in &mut self.devices {
            for active in &mut device.rules {
                let number = self.attempts + 1;
                let Some(actions) = active.begin(number, now) else { continue };
                self.attempts = number;
                let document = document(active, &device.facts);
                attempts.push(Attempt {
                    key: (id.clone(), active.rule.name.clone()),
                    number,
                    actions,
                    document,
                });
            }
        }
        attempts
    }

    /// Takes what came of an attempt.
    pub(crate) fn acted(
        &mut self,
        (id, rule): RuleKey,
        number: u64,
        outcome: ActionsOutcome,
        now: Moment,
    ) -> Option<RuleHappening> {
        let device = self.devices.get_mut(&id)?;
        let active = device.rules.iter_mut().find(|active| active.rule.name == rule)?;
        if active.acted(number, outcome, now) == AfterAttempt::GoesOn {
            return None;
        }
        let message = format!("rule `{rule}` gives up: {}", active.failures.join("; "));
        let is_told = device.events.take(now);
        let (uid, kind) = (device.facts.uid.clone(), HappeningKind::ActionFailed);
        Some(RuleHappening { device: id, uid, rule, kind, message: cut(message), is_told })
    }

    /// What is to be written into the store. It comes again until it [was](RuleSet::was_kept).
    pub(crate) fn writes(&mut self) -> Vec<Write> {
        for (id, device) in &mut self.devices {
            for active in device.rules.iter_mut() {
                if std::mem::take(&mut active.is_unkept) {
                    let name = &active.rule.name;
                    let row = store::put(id, name, &active.kept(&device.facts.uid));
                    self.unkept.insert((id.clone(), name.clone()), row);
                }
            }
        }
        self.unkept.values().cloned().collect()
    }

    /// All of that was written.
    pub(crate) fn was_kept(&mut self) {
        self.unkept.clear();
    }

    /// What rules have to say of themselves that they have not said.
    pub(crate) fn unsaid(&self) -> Vec<(DeviceName, Vec<RuleCondition>)> {
        let all = self.devices.iter().map(|(id, device)| (id, device, conditions(device)));
        let unsaid = all.filter(|(_, device, now)| device.said.as_ref() != Some(now));
        unsaid.map(|(id, _, conditions)| (id.clone(), conditions)).collect()
    }

    /// It was said.
    pub(crate) fn was_said(&mut self, id: &DeviceName, conditions: Vec<RuleCondition>) {
        if let Some(device) = self.devices.get_mut(id) {
            device.said = Some(conditions);
        }
    }

    /// When somebody is to look again though nothing changes.
    pub(crate) fn next(&self) -> Option<Moment> {
        self.devices.values().flat_map(|device| &device.rules).filter_map(ActiveRule::next).min()
    }
}

fn empty_facts(id: &DeviceName) -> DeviceFacts {
    DeviceFacts {
        device: id.clone(),
        uid: String::new(),
        rules: None,
        presence: contract::devicerules::Presence::default(),
        properties: BTreeMap::new(),
        version: 0,
    }
}

fn words(step: Step, active: &ActiveRule, facts: &DeviceFacts) -> Option<(HappeningKind, String)> {
    let (name, condition) = (&active.rule.name, &active.rule.condition);
    let value = condition.property().and_then(|property| facts.properties.get(property)?.value.clone());
    let value = value
        .map(|value| format!(", it is `{}`", value.chars().take(64).collect::<String>()))
        .unwrap_or_default();
    match step {
        Step::Stay | Step::Freed => None,
        Step::Trigger => Some((HappeningKind::Triggered, format!("rule `{name}`: {condition}{value}"))),
        Step::Clear => {
            Some((HappeningKind::Cleared, format!("rule `{name}` is over: {condition} no more{value}")))
        }
        Step::HeldBack => Some((HappeningKind::HeldBack, held_back(name))),
    }
}

fn held_back(name: &str) -> String {
    format!(
        "rule `{name}` changes more often than 6 times at once and once in 10 s, and waits: look for rules that undo each other"
    )
}

/// What does not hold of a device's rules.
fn conditions(device: &RulesOfDevice) -> Vec<RuleCondition> {
    let (mut wrong, mut reason, mut triggered) = (Vec::new(), ACTION_FAILED, Vec::new());
    for active in &device.rules {
        let name = &active.rule.name;
        if active.state.is_held_back {
            reason = HELD_BACK;
            wrong.push(held_back(name));
        }
        if !active.failures.is_empty() {
            wrong.push(format!("rule `{name}`: {}", active.failures.join("; ")));
        }
        if active.state.is_triggered {
            triggered.push(format!("rule `{name}`: {}", active.rule.condition));
        }
    }
    let of = |kind, reason, sentences: &[String]| {
        (!sentences.is_empty()).then(|| RuleCondition { kind, reason, message: cut(sentences.join("; ")) })
    };
    of(RULES_APPLIED, reason, &wrong).into_iter().chain(of(RULES_QUIET, TRIGGERED, &triggered)).collect()
}

fn document(active: &ActiveRule, facts: &DeviceFacts) -> String {
    let property = active.rule.condition.property();
    let value = property.and_then(|property| facts.properties.get(property)?.value.as_deref());
    let state = if active.state.is_triggered { "triggered" } else { "cleared" };
    let mut document = serde_json::json!({
        "device": facts.device.to_string(), "rule": active.rule.name, "state": state,
        "condition": active.rule.condition.to_string(),
    });
    if let Some(property) = property {
        document["property"] = property.into();
        document["value"] = value.into();
    }
    document.to_string()
}

fn cut(mut message: String) -> String {
    while message.len() > MESSAGE_MAX {
        message.pop();
    }
    message
}

#[cfg(test)]
mod tests;
