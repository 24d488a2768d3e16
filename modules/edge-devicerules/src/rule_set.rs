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
use crate::line::Line;
use crate::plan::{CHANGES, RuleKey, Step};
use crate::store::{self, KeptRule};
use crate::turns::{Reach, Turns};

/// 25 Events about a device at once, and one more in 300 s: so many an API server takes (the kubelet's spam filter), and what is more
/// would fill the outbox of a node that is cut off.
const EVENTS: (u32, Duration) = (25, Duration::from_secs(300));
/// 2000 bytes of a sentence: what the cloud takes is 2 KiB.
const MESSAGE_MAX: usize = 2000;

/// The rules of a device.
#[derive(Debug)]
struct RulesOfDevice {
    facts: DeviceFacts,
    rules: Vec<ActiveRule>,
    events: Bucket,
    /// When their time comes though nothing changes, as it stands among the [times](RuleSet::times).
    next: Option<Moment>,
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

/// All rules. Whatever is done costs by the devices of which something has changed or whose time has come: one that changes all the time
/// costs the others nothing.
#[derive(Debug, Default)]
pub(crate) struct RuleSet {
    devices: BTreeMap<DeviceName, RulesOfDevice>,
    /// Devices of which something has changed since they were last judged.
    changed: BTreeSet<DeviceName>,
    /// When the time of which device comes.
    times: BTreeSet<(Moment, DeviceName)>,
    /// Devices that may have something else to say of their rules than they said.
    unsaid: Line<DeviceName>,
    /// Rules whose actions are to be tried.
    turns: Turns,
    /// Whose actions are being tried, by the attempt.
    under_way: BTreeMap<u64, (RuleKey, Reach)>,
    /// Rows of the life before of which the devices have not been told yet.
    kept: BTreeMap<RuleKey, KeptRule>,
    /// What is to be written into the store.
    unkept: BTreeMap<RuleKey, Write>,
    attempts: u64,
    /// How often a device was looked at.
    looked_at: u64,
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

    /// How many rules wait until their actions are tried, and of how many they are being tried.
    pub(crate) fn load(&self) -> (usize, usize) {
        (self.turns.waiting(), self.under_way.len())
    }

    /// How often a device was looked at in this life.
    pub(crate) fn looked_at(&self) -> u64 {
        self.looked_at
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
            device.facts = facts;
            self.changed.insert(id);
        }
    }

    /// Takes other rules of a device: those that are the same go on.
    fn take_rules(&mut self, id: &DeviceName, uid: &str, text: &str) {
        // What is wrong with them was found before they came here.
        let rules = crd::parse_edge_rules(text).unwrap_or_default();
        let mut before = self.take_out(id);
        let mut old: Vec<ActiveRule> = match &mut before {
            Some(before) if before.facts.uid == uid => std::mem::take(&mut before.rules),
            Some(_) | None => Vec::new(),
        };
        let names: BTreeSet<String> = rules.iter().map(|rule| rule.name.clone()).collect();
        let known =
            before.iter().flat_map(|before| &before.rules).chain(&old).map(|active| active.rule.name.clone());
        let gone: Vec<String> = known.chain(self.rows_of(id)).filter(|name| !names.contains(name)).collect();
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
            .insert(id.clone(), RulesOfDevice { facts, rules: active, events, next: None, said: None });
    }

    /// Takes a device out of all that is by its time. Its rules keep their turns.
    fn take_out(&mut self, id: &DeviceName) -> Option<RulesOfDevice> {
        let device = self.devices.remove(id)?;
        if let Some(at) = device.next {
            self.times.remove(&(at, id.clone()));
        }
        Some(device)
    }

    /// The rules of a device of which there are rows of the life before.
    fn rows_of(&self, id: &DeviceName) -> Vec<String> {
        let from = self.kept.range((id.clone(), String::new())..);
        from.take_while(|((device, _), _)| device == id).map(|((_, rule), _)| rule.clone()).collect()
    }

    fn forget(&mut self, id: &DeviceName, rule: &str) {
        let key = (id.clone(), rule.to_owned());
        self.kept.remove(&key);
        self.turns.leave(&key);
        self.unkept.insert(key, store::delete(id, rule));
    }

    fn remove(&mut self, id: &DeviceName) {
        self.changed.remove(id);
        self.unsaid.leave(id);
        let of_device = self.take_out(id).into_iter().flat_map(|device| device.rules);
        let names: Vec<String> = of_device.map(|active| active.rule.name).chain(self.rows_of(id)).collect();
        names.iter().for_each(|name| self.forget(id, name));
    }

    /// Judges the devices of which something has changed, and those whose time has come.
    pub(crate) fn judge(&mut self, now: Moment) -> Vec<RuleHappening> {
        let mut happenings = Vec::new();
        let mut due = std::mem::take(&mut self.changed);
        due.extend(self.times.iter().take_while(|(at, _)| *at <= now).map(|(_, id)| id.clone()));
        for id in due {
            let Some(device) = self.devices.get_mut(&id) else { continue };
            let mut has_news = device.said.is_none();
            for active in &mut device.rules {
                let step = active.judge(&device.facts, now);
                has_news |= step != Step::Stay;
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
            self.settle(&id, has_news, now);
        }
        happenings
    }

    /// Notes what follows from what a device's rules have become: what is to be written, whose actions wait for their turn, when their time
    /// comes and, if they `have_news`, that they are to be heard.
    fn settle(&mut self, id: &DeviceName, has_news: bool, now: Moment) {
        let Some(device) = self.devices.get_mut(id) else { return };
        self.looked_at += 1;
        for active in &mut device.rules {
            let is_unkept = std::mem::take(&mut active.is_unkept);
            let reach = active.wants(now);
            if !is_unkept && reach.is_none() {
                continue;
            }
            let key = (id.clone(), active.rule.name.clone());
            if let Some(reach) = reach {
                self.turns.join(reach, &key);
            }
            if is_unkept {
                let row = store::put(id, &active.rule.name, &active.kept(&device.facts.uid));
                self.unkept.insert(key, row);
            }
        }
        let next = device.rules.iter().filter_map(|active| active.next(now)).min();
        if device.next != next {
            if let Some(at) = device.next {
                self.times.remove(&(at, id.clone()));
            }
            self.times.extend(next.map(|at| (at, id.clone())));
            device.next = next;
        }
        if has_news {
            self.unsaid.join(id);
        }
    }

    /// The actions that are to be tried now and whose turn it is, of what was [judged](RuleSet::judge).
    pub(crate) fn attempts(&mut self, now: Moment) -> Vec<Attempt> {
        let mut attempts = Vec::new();
        for reach in [Reach::Node, Reach::Services] {
            while let Some(key) = self.turns.take(reach) {
                match self.begin(&key, reach, now) {
                    Some(attempt) => attempts.push(attempt),
                    // It has changed since it came to wait.
                    None => self.turns.is_over(reach, &key.0.namespace),
                }
            }
        }
        attempts
    }

    fn begin(&mut self, key: &RuleKey, reach: Reach, now: Moment) -> Option<Attempt> {
        let device = self.devices.get_mut(&key.0)?;
        let active = device.rules.iter_mut().find(|active| active.rule.name == key.1)?;
        // What reaches further by now waits elsewhere.
        if active.wants(now) != Some(reach) {
            return None;
        }
        let number = self.attempts + 1;
        let actions = active.begin(number, now)?;
        let document = document(active, &device.facts);
        self.attempts = number;
        self.under_way.insert(number, (key.clone(), reach));
        Some(Attempt { key: key.clone(), number, actions, document })
    }

    /// Takes what came of an attempt.
    pub(crate) fn acted(
        &mut self,
        key: RuleKey,
        number: u64,
        outcome: ActionsOutcome,
        now: Moment,
    ) -> Option<RuleHappening> {
        // Else it is of a life before, of which nobody has a turn.
        let (_, reach) = self.under_way.remove(&number).filter(|(whose, _)| *whose == key)?;
        self.turns.is_over(reach, &key.0.namespace);
        let (id, rule) = key;
        let device = self.devices.get_mut(&id)?;
        let active = device.rules.iter_mut().find(|active| active.rule.name == rule)?;
        let after = active.acted(number, outcome, now);
        self.settle(&id, true, now);
        if after == AfterAttempt::GoesOn {
            return None;
        }
        let device = self.devices.get_mut(&id)?;
        let active = device.rules.iter().find(|active| active.rule.name == rule)?;
        let message = format!("rule `{rule}` gives up: {}", active.failures.join("; "));
        let is_told = device.events.take(now);
        let (uid, kind) = (device.facts.uid.clone(), HappeningKind::ActionFailed);
        Some(RuleHappening { device: id, uid, rule, kind, message: cut(message), is_told })
    }

    /// What is to be written into the store. It comes again until it [was](RuleSet::was_kept).
    pub(crate) fn writes(&self) -> Vec<Write> {
        self.unkept.values().cloned().collect()
    }

    /// All of that was written.
    pub(crate) fn was_kept(&mut self) {
        self.unkept.clear();
    }

    /// What the rules of a device have to say of themselves that they have not said. It comes again until it [was](RuleSet::was_said).
    pub(crate) fn unsaid(&mut self) -> Option<(DeviceName, Vec<RuleCondition>)> {
        while let Some(id) = self.unsaid.first() {
            let now = self.devices.get(id).map(|device| (device, conditions(device)));
            self.looked_at += 1;
            match now {
                Some((device, now)) if device.said.as_ref() != Some(&now) => return Some((id.clone(), now)),
                Some(_) | None => self.unsaid.take(),
            };
        }
        None
    }

    /// It was said.
    pub(crate) fn was_said(&mut self, id: &DeviceName, conditions: Vec<RuleCondition>) {
        self.unsaid.leave(id);
        if let Some(device) = self.devices.get_mut(id) {
            device.said = Some(conditions);
        }
    }

    /// When somebody is to look again though nothing changes.
    pub(crate) fn next(&self) -> Option<Moment> {
        self.times.first().map(|(at, _)| *at)
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
    let (at_once, every) = (CHANGES.0, CHANGES.1.as_secs());
    format!(
        "rule `{name}` changes more often than {at_once} times at once and once in {every} s, and waits: look for rules that undo each other"
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
