//! The state of one property: when it is read and written, and what of it edgecore has. Pure: the time comes in.

use std::time::{Duration, SystemTime};

use beehive::Moment;

use crate::plan::{Desired, DesiredValue, PropertyPlan};
use crate::twin::TwinValue;

/// The state of one property.
#[derive(Debug)]
pub(crate) struct PropertyState {
    /// None: it is not read.
    next_read: Option<Moment>,
    value: Option<(String, SystemTime)>,
    observed: String,
    write: Write,
    /// What was last reported: value, observed desired value, and when.
    reported: Option<(String, String, Moment)>,
    /// What edgecore did not take, and until when it is not asked again.
    deferred: Option<(String, String, Moment)>,
    /// The last thing that went wrong, so that it is logged once.
    fault: Option<String>,
}

#[derive(Debug, Clone, PartialEq)]
enum Write {
    /// Nothing is desired, or the device has it.
    Done,
    /// The device is to get this, not before that time.
    Due(DesiredValue, Moment),
}

impl PropertyState {
    pub(crate) fn new<V>(plan: &PropertyPlan<V>, now: Moment) -> Self {
        let mut property = PropertyState {
            next_read: None,
            value: None,
            observed: String::new(),
            write: Write::Done,
            reported: None,
            deferred: None,
            fault: None,
        };
        property.follow_plan(plan, now);
        property
    }

    /// The plan changed, but not where the property is.
    pub(crate) fn follow_plan<V>(&mut self, plan: &PropertyPlan<V>, now: Moment) {
        self.next_read = plan.collect.map(|_| now);
        self.write = match &plan.desired {
            Desired::Value(desired) if desired.text != self.observed => Write::Due(desired.clone(), now),
            Desired::Value(_) | Desired::Invalid => Write::Done,
            Desired::Unset => {
                self.observed.clear();
                Write::Done
            }
        };
        if plan.collect.is_none() {
            self.value = None;
        }
    }

    /// A new connection: the device may have been switched off and have forgotten what it was given.
    pub(crate) fn reconnected<V>(&mut self, plan: &PropertyPlan<V>, now: Moment) {
        self.next_read = plan.collect.map(|_| now);
        if let Desired::Value(desired) = &plan.desired {
            self.write = Write::Due(desired.clone(), now);
        }
    }

    /// What to write now.
    pub(crate) fn to_write(&self, now: Moment) -> Option<&DesiredValue> {
        match &self.write {
            Write::Due(desired, at) if *at <= now => Some(desired),
            Write::Due(..) | Write::Done => None,
        }
    }

    /// The device has the desired value. It is read again at once, if it is read.
    pub(crate) fn was_written(&mut self, now: Moment) {
        if let Write::Due(desired, _) = std::mem::replace(&mut self.write, Write::Done) {
            self.observed = desired.text;
        }
        self.next_read = self.next_read.map(|next| next.min(now));
    }

    /// The device did not take it.
    pub(crate) fn was_not_written(&mut self, until: Moment) {
        if let Write::Due(_, at) = &mut self.write {
            *at = until;
        }
    }

    pub(crate) fn to_read(&self, now: Moment) -> bool {
        self.next_read.is_some_and(|next| next <= now)
    }

    /// It was read, or the try failed. A cycle that was missed is not made up for.
    pub(crate) fn was_collected(&mut self, cycle: Duration, now: Moment) {
        if let Some(next) = &mut self.next_read {
            *next = if *next + cycle > now { *next + cycle } else { now + cycle };
        }
    }

    pub(crate) fn read(&mut self, value: String, at: SystemTime) {
        self.value = Some((value, at));
    }

    /// What is to be reported now.
    pub(crate) fn to_report(&self, report_cycle: Option<Duration>, now: Moment) -> Option<TwinValue> {
        let (value, read_at) = self.value.as_ref()?;
        let twin = TwinValue { value: value.clone(), observed: self.observed.clone(), read_at: *read_at };
        let deferred = self.deferred.as_ref().filter(|(value, observed, until)| {
            *value == twin.value && *observed == twin.observed && now < *until
        });
        if deferred.is_some() {
            return None;
        }
        match &self.reported {
            None => Some(twin),
            Some((value, observed, _)) if *value != twin.value || *observed != twin.observed => Some(twin),
            Some((_, _, at)) => {
                report_cycle.is_some_and(|report_cycle| *at + report_cycle <= now).then_some(twin)
            }
        }
    }

    pub(crate) fn reported(&mut self, twin: TwinValue, now: Moment) {
        self.reported = Some((twin.value, twin.observed, now));
        self.deferred = None;
    }

    /// edgecore did not take it; it is reported again then, or when it has changed.
    pub(crate) fn was_deferred(&mut self, twin: TwinValue, until: Moment) {
        self.deferred = Some((twin.value, twin.observed, until));
    }

    /// edgecore may have forgotten what was reported.
    pub(crate) fn forget_reported(&mut self) {
        self.reported = None;
        self.deferred = None;
    }

    /// The twin, reported or not.
    pub(crate) fn twin(&self) -> Option<TwinValue> {
        let (value, read_at) = self.value.clone()?;
        Some(TwinValue { value, observed: self.observed.clone(), read_at })
    }

    /// When the device is to be read or written.
    pub(crate) fn due(&self) -> Option<Moment> {
        let write = match &self.write {
            Write::Due(_, at) => Some(*at),
            Write::Done => None,
        };
        [write, self.next_read].into_iter().flatten().min()
    }

    /// When to report what did not change, or what edgecore did not take.
    pub(crate) fn report_due(&self, report_cycle: Option<Duration>) -> Option<Moment> {
        match &self.deferred {
            Some((_, _, until)) => Some(*until),
            None => self
                .reported
                .as_ref()
                .and_then(|(_, _, at)| report_cycle.map(|report_cycle| *at + report_cycle)),
        }
    }

    /// Whether the fault is another one than before.
    pub(crate) fn failed_with(&mut self, fault: &str) -> bool {
        let new = self.fault.as_deref() != Some(fault);
        if new {
            self.fault = Some(fault.to_owned());
        }
        new
    }

    /// Whether there was a fault, which is over.
    pub(crate) fn recovered(&mut self) -> bool {
        self.fault.take().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::{Kind, Value};

    const CYCLE: Duration = Duration::from_secs(1);

    fn plan(desired: &str) -> PropertyPlan<()> {
        let desired = match (desired, Value::parse(Kind::Int, desired)) {
            ("", _) => Desired::Unset,
            (_, Err(_)) => Desired::Invalid,
            (text, Ok(value)) => Desired::Value(DesiredValue { text: text.to_owned(), value }),
        };
        PropertyPlan {
            name: "p".to_owned(),
            kind: Kind::Int,
            visitor: (),
            collect: Some(CYCLE),
            report_cycle: None,
            desired,
        }
    }

    fn read(property: &mut PropertyState, value: &str, now: Moment) {
        property.read(value.to_owned(), SystemTime::UNIX_EPOCH);
        property.was_collected(CYCLE, now);
    }

    #[test]
    fn only_what_changed_is_reported() {
        let now = Moment::default();
        let mut property = PropertyState::new(&plan(""), now);
        assert_eq!(property.to_report(None, now), None, "nothing has been read yet");
        read(&mut property, "1", now);
        let twin = property.to_report(None, now).unwrap();
        assert_eq!((twin.value.as_str(), twin.observed.as_str()), ("1", ""));
        property.reported(twin, now);
        read(&mut property, "1", now);
        assert_eq!(property.to_report(None, now), None);
        read(&mut property, "2", now);
        assert!(property.to_report(None, now).is_some());
    }

    #[test]
    fn with_a_report_cycle_an_unchanged_value_is_reported_again() {
        let now = Moment::default();
        let mut property = PropertyState::new(&plan(""), now);
        read(&mut property, "1", now);
        let twin = property.to_report(Some(CYCLE), now).unwrap();
        property.reported(twin, now);
        assert_eq!(property.to_report(Some(CYCLE), now), None);
        assert!(property.to_report(Some(CYCLE), now + CYCLE).is_some());
        property.forget_reported();
        assert!(property.to_report(None, now).is_some(), "and after edgecore was away");
    }

    #[test]
    fn a_deferred_report_waits_and_a_new_value_does_not() {
        let now = Moment::default();
        let mut property = PropertyState::new(&plan(""), now);
        read(&mut property, "1", now);
        let twin = property.to_report(None, now).unwrap();
        property.was_deferred(twin, now + CYCLE);
        assert_eq!(property.to_report(None, now), None);
        assert_eq!(property.report_due(None), Some(now + CYCLE));
        assert!(property.to_report(None, now + CYCLE).is_some());
        read(&mut property, "2", now);
        let twin = property.to_report(None, now).unwrap();
        property.reported(twin, now);
        assert_eq!(property.report_due(None), None);
    }

    #[test]
    fn a_desired_value_is_observed_once_it_is_written() {
        let now = Moment::default();
        let mut property = PropertyState::new(&plan("5"), now);
        assert_eq!(property.to_write(now).unwrap().text, "5");
        property.was_not_written(now + CYCLE);
        assert_eq!(property.to_write(now), None);
        assert!(property.to_write(now + CYCLE).is_some());
        read(&mut property, "1", now);
        assert_eq!(property.twin().unwrap().observed, "");
        property.was_written(now);
        assert!(property.to_read(now), "what was written is read back at once");
        assert_eq!(property.twin().unwrap().observed, "5");
        assert_eq!(property.to_write(now + CYCLE), None);
    }

    #[test]
    fn a_new_desired_value_replaces_the_old_and_an_equal_one_is_not_written_twice() {
        let now = Moment::default();
        let mut property = PropertyState::new(&plan("5"), now);
        property.was_written(now);
        property.follow_plan(&plan("5"), now);
        assert_eq!(property.to_write(now), None);
        read(&mut property, "5", now);
        property.follow_plan(&plan("six"), now);
        assert_eq!(
            (property.to_write(now), property.twin().unwrap().observed.as_str()),
            (None, "5"),
            "it keeps what it has"
        );
        property.follow_plan(&plan("6"), now);
        assert_eq!(property.to_write(now).unwrap().text, "6");
        property.follow_plan(&plan(""), now);
        assert_eq!(property.to_write(now), None);
        property.reconnected(&plan("5"), now);
        assert_eq!(property.to_write(now).unwrap().text, "5", "a device that was away may have forgotten");
    }

    #[test]
    fn missed_cycles_are_not_made_up_for() {
        let now = Moment::default();
        let mut property = PropertyState::new(&plan(""), now);
        property.was_collected(CYCLE, now);
        assert_eq!(property.due(), Some(now + CYCLE));
        property.was_collected(CYCLE, now + CYCLE * 5);
        assert_eq!(property.due(), Some(now + CYCLE * 6));
    }

    #[test]
    fn a_fault_is_new_once() {
        let mut property = PropertyState::new(&plan(""), Moment::default());
        assert!(property.failed_with("a") && !property.failed_with("a") && property.failed_with("b"));
        assert!(property.recovered() && !property.recovered());
    }
}
