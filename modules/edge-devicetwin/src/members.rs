//! The devices of the node, in memory: what the store holds of them, which of it was committed when, and how often it is
//! reported.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use beehive::Moment;
use contract::ids::DeviceName;
use edge_store::Write;

use crate::calls::Calls;
use crate::catalog::Catalog;
use crate::plan;
use crate::plan::TwinChange;
use crate::refused_message::RefusedMessage;
use crate::store;
use crate::twin::{State, Twin};

/// 60 s: a value that does not change is committed and reported again after this, so that its time stays true.
const REFRESH: Duration = Duration::from_secs(60);

/// 500 ms between two reports on the same twin, or on the same state, in the long run: what `kubectl` shows of a device that says
/// something all the time is younger than a second. What changes faster reaches the cloud with its newest value.
const REPORT_EVERY: Duration = Duration::from_millis(500);
/// A value that stays as it is is published again when this many fourths of its cycle have passed: a mapper that reports once in a
/// cycle is heard each time, however its clock ticks.
const FOURTHS_OF_A_CYCLE: u32 = 3;
/// 100 ms between looks at the reports that wait: so much later than they might they go.
pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(100);
/// 4 reports on the same at once.
const REPORTS_AT_ONCE: u32 = 4;

/// How often something was reported (GCRA).
#[derive(Debug, Clone, Copy, Default)]
struct ReportRate {
    /// When the reports until now would all have been in time.
    paid: Option<Moment>,
}

impl ReportRate {
    fn is_due(self, now: Moment) -> bool {
        self.paid.is_none_or(|paid| paid.since(now) <= REPORT_EVERY * (REPORTS_AT_ONCE - 1))
    }

    fn count(&mut self, now: Moment) {
        self.paid = Some(self.paid.map_or(now, |paid| paid.max(now)) + REPORT_EVERY);
    }
}

/// Who says the state of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StateSpeaker {
    Mapper,
    MqttClient,
}

/// A device of the node.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) state: State,
    state_saved: Option<Moment>,
    state_report_rate: ReportRate,
    pub(crate) twins: BTreeMap<String, Twin>,
    /// When each twin was committed in this life of the actor.
    saved: BTreeMap<String, Moment>,
    report_rates: BTreeMap<String, ReportRate>,
    /// When this life of the actor first knew it.
    pub(crate) known: Moment,
    /// When each property was last heard of.
    heard: BTreeMap<String, Moment>,
    /// When the state was last said.
    pub(crate) state_heard: Option<Moment>,
    /// Who said it then.
    pub(crate) state_said_by: Option<StateSpeaker>,
    /// Since when its protocol has no mapper, or another one than the one that spoke for it.
    pub(crate) unserved: Option<Moment>,
    /// When the cloud was last told what is wrong.
    pub(crate) conditions_told: Option<Moment>,
    /// The calls of its methods.
    pub(crate) calls: Calls,
    /// There is news of them that is not in the store, or not in the outbox.
    pub(crate) calls_untold: bool,
    /// When the cloud was last told of them.
    pub(crate) calls_told: Option<Moment>,
    /// The last message about it that was not taken, and of which no property shows that.
    pub(crate) refused_message: Option<RefusedMessage>,
    /// When each property was last published as one that stays as it is, or has changed.
    published: BTreeMap<String, Moment>,
}

impl Member {
    /// A device with its rows.
    pub(crate) fn new(state: State, twins: BTreeMap<String, Twin>, now: Moment) -> Self {
        let state_report_rate = ReportRate::default();
        Member {
            state,
            state_saved: None,
            state_report_rate,
            twins,
            saved: BTreeMap::new(),
            report_rates: BTreeMap::new(),
            known: now,
            heard: BTreeMap::new(),
            state_heard: None,
            state_said_by: None,
            unserved: None,
            conditions_told: None,
            calls: Calls::default(),
            calls_untold: false,
            calls_told: None,
            refused_message: None,
            published: BTreeMap::new(),
        }
    }

    /// Whether its state was said over MQTT: in this life of the actor, or before by nobody's mapper.
    pub(crate) fn has_state_over_mqtt(&self) -> bool {
        let was_said = !self.state.state.eq_ignore_ascii_case("unknown") || self.state.last_online.is_some();
        match self.state_said_by {
            Some(by) => by == StateSpeaker::MqttClient,
            None => self.state.mapper.is_none() && was_said,
        }
    }

    /// When a property was last heard of, or this began to listen.
    pub(crate) fn heard(&self, property: &str) -> Moment {
        self.heard.get(property).copied().unwrap_or(self.known)
    }

    /// Those of the changes that have to be committed. Marks all of them, where the report has to wait for its turn.
    pub(crate) fn news(&self, changes: &mut [TwinChange], now: Moment) -> Vec<TwinChange> {
        let mut news = Vec::new();
        for change in changes {
            let stale = is_stale(self.saved.get(&change.property).copied(), now);
            if change.is_new() || stale {
                change.after.unreported = !self.is_due(&change.property, now);
                news.push(change.clone());
            } else {
                change.after.unreported = change.before.as_ref().is_some_and(|before| before.unreported);
            }
        }
        news
    }

    /// Whether a twin may be reported now.
    fn is_due(&self, property: &str, now: Moment) -> bool {
        self.report_rates.get(property).copied().unwrap_or_default().is_due(now)
    }

    /// Whether the state may be reported now.
    pub(crate) fn is_state_due(&self, now: Moment) -> bool {
        self.state_report_rate.is_due(now)
    }

    /// The twins and the state whose reports have waited and may go now, as they are to be kept, and whether others wait on.
    pub(crate) fn due(&self, now: Moment) -> (Vec<(String, Twin)>, Option<State>, bool) {
        let waiting = self.twins.iter().filter(|(_, twin)| twin.unreported);
        let (due, others): (Vec<_>, Vec<_>) = waiting.partition(|(property, _)| self.is_due(property, now));
        let reported = |twin: &Twin| Twin { unreported: false, ..twin.clone() };
        let twins = due.into_iter().map(|(property, twin)| (property.clone(), reported(twin))).collect();
        let is_due = self.state.unreported && self.is_state_due(now);
        let state = is_due.then(|| State { unreported: false, ..self.state.clone() });
        (twins, state, !others.is_empty() || (self.state.unreported && !is_due))
    }

    /// Whether anything waits to be reported.
    pub(crate) fn waits(&self) -> bool {
        self.state.unreported || self.twins.values().any(|twin| twin.unreported)
    }

    /// Those of the changes that MQTT clients hear of now: what is news, and what is none once in its cycle.
    pub(crate) fn take_due(
        &mut self,
        changes: &[TwinChange],
        news: &[TwinChange],
        cycle: impl Fn(&str) -> Duration,
        now: Moment,
    ) -> Vec<TwinChange> {
        let is_news = |property: &str| news.iter().any(|change| change.property == property);
        let is_due = |property: &str| {
            let before = self.published.get(property);
            let pause = || cycle(property) / 4 * FOURTHS_OF_A_CYCLE;
            before.is_none_or(|before| now.since(*before) >= pause())
        };
        let due = changes.iter().filter(|change| is_news(&change.property) || is_due(&change.property));
        let due: Vec<TwinChange> = due.cloned().collect();
        self.published.extend(due.iter().map(|change| (change.property.clone(), now)));
        due
    }

    /// Forgets a property.
    pub(crate) fn forget(&mut self, property: &str) {
        self.twins.remove(property);
        self.saved.remove(property);
        self.report_rates.remove(property);
        self.heard.remove(property);
        self.published.remove(property);
    }

    /// Takes over what was reported after it had waited.
    pub(crate) fn reported(&mut self, twins: Vec<(String, Twin)>, state: Option<State>, now: Moment) {
        for (property, twin) in twins {
            self.report_rates.entry(property.clone()).or_default().count(now);
            self.twins.insert(property, twin);
        }
        if let Some(state) = state {
            self.state_report_rate.count(now);
            self.state = state;
        }
    }

    /// Takes a state over, after its commit if it was `news`.
    pub(crate) fn take_state(&mut self, state: State, news: bool, now: Moment) {
        if news {
            self.state_saved = Some(now);
            if !state.unreported {
                self.state_report_rate.count(now);
            }
        }
        self.state = state;
    }

    /// Whether the state has to be committed.
    pub(crate) fn state_is_news(&self, state: &State, now: Moment) -> bool {
        self.state.state != state.state
            || self.state.reason != state.reason
            || is_stale(self.state_saved, now)
    }

    /// Takes over what was changes, after the commit of `saved`.
    pub(crate) fn take(&mut self, changes: &[TwinChange], saved: &[TwinChange], now: Moment) {
        for change in changes {
            let version = |twin: &Twin| twin.actual_version.edge;
            if change.before.as_ref().map(version).unwrap_or_default() < version(&change.after) {
                self.heard.insert(change.property.clone(), now);
            }
            self.twins.insert(change.property.clone(), change.after.clone());
        }
        for change in saved {
            self.saved.insert(change.property.clone(), now);
            if !change.after.unreported {
                self.report_rates.entry(change.property.clone()).or_default().count(now);
            }
        }
    }
}

fn is_stale(saved: Option<Moment>, now: Moment) -> bool {
    saved.is_none_or(|saved| now.since(saved) >= REFRESH)
}

/// The rows of changes twins, and the reports on them that need not wait.
pub(crate) fn writes<'a>(id: &DeviceName, changes: impl IntoIterator<Item = &'a TwinChange>) -> Vec<Write> {
    let mut writes = Vec::new();
    for change in changes {
        writes.push(store::put_twin(id, &change.property, &change.after));
        if !change.after.unreported {
            writes.extend(store::enqueue(&change.after.report(id, &change.property)));
        }
    }
    writes
}

/// What the cloud's desired values make of the twins of these devices.
pub(crate) fn desire<'a>(
    members: &BTreeMap<DeviceName, Member>,
    catalog: &Catalog,
    ids: impl IntoIterator<Item = &'a DeviceName>,
    fresh: &BTreeSet<DeviceName>,
    now: i64,
) -> BTreeMap<DeviceName, Vec<TwinChange>> {
    let (none, nothing) = (BTreeMap::new(), BTreeSet::new());
    let mut all = BTreeMap::new();
    for id in ids {
        let Some(device) = catalog.device(id) else { continue };
        // A device that takes another's place begins without its twins.
        let (held, named) = match members.get(id).filter(|_| !fresh.contains(id)) {
            Some(member) => (&member.twins, &member.state.named),
            None => (&none, &nothing),
        };
        let (_, model) = catalog.model_of(id, device);
        let changes = plan::desire(held, device, model, named, now);
        if !changes.is_empty() {
            all.insert(id.clone(), changes);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_of_an_mqtt_client_where_no_mapper_has_said_it() {
        let member = |state: &str, mapper: Option<&str>, by: Option<StateSpeaker>| {
            let mapper = mapper.map(str::to_owned);
            let state = State { state: state.to_owned(), mapper, ..State::unknown("u") };
            let mut member = Member::new(state, BTreeMap::new(), Moment::default());
            member.state_said_by = by;
            member.has_state_over_mqtt()
        };
        assert!(!member("unknown", None, None), "nobody has said anything");
        assert!(member("online", None, Some(StateSpeaker::MqttClient)), "after a fresh join");
        assert!(member("unknown", Some("opcua"), Some(StateSpeaker::MqttClient)));
        assert!(member("offline", None, None), "by the store, after a restart");
        assert!(
            !member("online", Some("opcua"), None) && !member("online", None, Some(StateSpeaker::Mapper))
        );
    }

    #[test]
    fn what_stays_as_it_is_is_published_once_in_its_cycle() {
        let mut member = Member::new(State::unknown("u"), BTreeMap::new(), Moment::default());
        let change = |name: &str| TwinChange {
            property: name.to_owned(),
            before: Some(Twin::new("int")),
            after: Twin::new("int"),
        };
        let all = [change("slow"), change("fast")];
        let cycle = |name: &str| Duration::from_millis(if name == "slow" { 10_000 } else { 1000 });
        let mut heard = [0, 0];
        // Reported each 980 ms, for 98 s.
        for at in 0..100 {
            let news = if at == 0 { &all[..] } else { &[] };
            let now = Moment(Duration::from_millis(at * 980));
            for change in member.take_due(&all, news, cycle, now) {
                heard[usize::from(change.property == "fast")] += 1;
            }
        }
        assert_eq!(heard, [13, 100]);
        // What is news goes at once, whatever was before.
        let now = Moment(Duration::from_millis(99 * 980 + 1));
        assert_eq!(member.take_due(&all, &all[..1], cycle, now).len(), 1);
        member.forget("slow");
        assert_eq!(member.take_due(&all[..1], &[], cycle, now).len(), 1, "it begins anew");
    }

    #[test]
    fn what_changes_all_the_time_is_reported_twice_a_second() {
        let mut report_rate = ReportRate::default();
        let mut reported = 0;
        // A change each millisecond, for 10 s.
        for millis in 0..10_000 {
            let now = Moment(Duration::from_millis(millis));
            if report_rate.is_due(now) {
                report_rate.count(now);
                reported += 1;
            }
        }
        assert_eq!(reported, REPORTS_AT_ONCE + 19);
        // Who was silent does not save up more than the reports at once.
        let later = Moment(Duration::from_secs(1000));
        let at_once = (0..100).filter(|_| {
            let due = report_rate.is_due(later);
            if due {
                report_rate.count(later);
            }
            due
        });
        assert_eq!(at_once.count(), REPORTS_AT_ONCE as usize);
    }
}
