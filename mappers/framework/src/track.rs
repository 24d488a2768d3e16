//! What is known of one property, and what is due about it. Pure: the time comes in.

use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use crate::plan::{Desired, Planned, Wish};

/// What edgecore shall know of a property.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Known {
    /// The value that the device has.
    pub(crate) value: String,
    /// The desired value that the device was given; empty when there is none.
    pub(crate) observed: String,
    /// When the value was read.
    pub(crate) read_at: SystemTime,
}

/// What is known of one property.
#[derive(Debug)]
pub(crate) struct Track {
    /// None: it is not read.
    next_read: Option<Instant>,
    value: Option<(String, SystemTime)>,
    observed: String,
    write: Write,
    /// What edgecore was last told, and when.
    told: Option<(String, String, Instant)>,
    /// What edgecore did not take, and until when it is not asked again.
    held: Option<(String, String, Instant)>,
    /// The last thing that went wrong, so that it is logged once.
    fault: Option<String>,
}

#[derive(Debug, Clone, PartialEq)]
enum Write {
    /// Nothing is desired, or the device has it.
    Done,
    /// The device is to get this, not before that time.
    Due(Desired, Instant),
}

impl Track {
    pub(crate) fn new<V>(planned: &Planned<V>, now: Instant) -> Self {
        let mut track = Track {
            next_read: None,
            value: None,
            observed: String::new(),
            write: Write::Done,
            told: None,
            held: None,
            fault: None,
        };
        track.follow(planned, now);
        track
    }

    /// The plan changed, but not where the property is.
    pub(crate) fn follow<V>(&mut self, planned: &Planned<V>, now: Instant) {
        self.next_read = planned.collect.map(|_| now);
        self.write = match &planned.wish {
            Wish::Value(desired) if desired.text != self.observed => Write::Due(desired.clone(), now),
            Wish::Value(_) | Wish::Unfit => Write::Done,
            Wish::Nothing => {
                self.observed.clear();
                Write::Done
            }
        };
        if planned.collect.is_none() {
            self.value = None;
        }
    }

    /// A new connection: the device may have been switched off and have forgotten what it was given.
    pub(crate) fn reconnected<V>(&mut self, planned: &Planned<V>, now: Instant) {
        self.next_read = planned.collect.map(|_| now);
        if let Wish::Value(desired) = &planned.wish {
            self.write = Write::Due(desired.clone(), now);
        }
    }

    /// What to write now.
    pub(crate) fn to_write(&self, now: Instant) -> Option<&Desired> {
        match &self.write {
            Write::Due(desired, at) if *at <= now => Some(desired),
            Write::Due(..) | Write::Done => None,
        }
    }

    /// The device has the desired value. It is read again at once, if it is read.
    pub(crate) fn written(&mut self, now: Instant) {
        if let Write::Due(desired, _) = std::mem::replace(&mut self.write, Write::Done) {
            self.observed = desired.text;
        }
        self.next_read = self.next_read.map(|next| next.min(now));
    }

    /// The device did not take it.
    pub(crate) fn not_written(&mut self, again: Instant) {
        if let Write::Due(_, at) = &mut self.write {
            *at = again;
        }
    }

    pub(crate) fn to_read(&self, now: Instant) -> bool {
        self.next_read.is_some_and(|next| next <= now)
    }

    /// It was read, or the try failed. A cycle that was missed is not made up for.
    pub(crate) fn tried(&mut self, cycle: Duration, now: Instant) {
        if let Some(next) = &mut self.next_read {
            *next = if *next + cycle > now { *next + cycle } else { now + cycle };
        }
    }

    pub(crate) fn read(&mut self, value: String, at: SystemTime) {
        self.value = Some((value, at));
    }

    /// What edgecore is to be told now.
    pub(crate) fn to_tell(&self, again: Option<Duration>, now: Instant) -> Option<Known> {
        let (value, read_at) = self.value.as_ref()?;
        let known = Known { value: value.clone(), observed: self.observed.clone(), read_at: *read_at };
        let held = self.held.as_ref().filter(|(value, observed, until)| {
            *value == known.value && *observed == known.observed && now < *until
        });
        if held.is_some() {
            return None;
        }
        match &self.told {
            None => Some(known),
            Some((value, observed, _)) if *value != known.value || *observed != known.observed => Some(known),
            Some((_, _, at)) => again.is_some_and(|again| *at + again <= now).then_some(known),
        }
    }

    pub(crate) fn told(&mut self, known: Known, now: Instant) {
        self.told = Some((known.value, known.observed, now));
        self.held = None;
    }

    /// edgecore did not take it; it is asked again then, or when there is something else to say.
    pub(crate) fn not_told(&mut self, known: Known, until: Instant) {
        self.held = Some((known.value, known.observed, until));
    }

    /// edgecore may have forgotten what it was told.
    pub(crate) fn forget_told(&mut self) {
        self.told = None;
        self.held = None;
    }

    /// What is known, told or not.
    pub(crate) fn known(&self) -> Option<Known> {
        let (value, read_at) = self.value.clone()?;
        Some(Known { value, observed: self.observed.clone(), read_at })
    }

    /// When the device is to be asked or told something.
    pub(crate) fn due(&self) -> Option<Instant> {
        let write = match &self.write {
            Write::Due(_, at) => Some(*at),
            Write::Done => None,
        };
        [write, self.next_read].into_iter().flatten().min()
    }

    /// When edgecore is to be told what it knows already, or what it did not take.
    pub(crate) fn again_due(&self, again: Option<Duration>) -> Option<Instant> {
        match &self.held {
            Some((_, _, until)) => Some(*until),
            None => self.told.as_ref().and_then(|(_, _, at)| again.map(|again| *at + again)),
        }
    }

    /// Whether a fault is another one than before.
    pub(crate) fn faulty(&mut self, fault: &str) -> bool {
        let new = self.fault.as_deref() != Some(fault);
        if new {
            self.fault = Some(fault.to_owned());
        }
        new
    }

    /// Whether it is well again.
    pub(crate) fn well(&mut self) -> bool {
        self.fault.take().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::{Kind, Value};

    const CYCLE: Duration = Duration::from_secs(1);

    fn planned(desired: &str) -> Planned<()> {
        let wish = match (desired, Value::parse(Kind::Int, desired)) {
            ("", _) => Wish::Nothing,
            (_, Err(_)) => Wish::Unfit,
            (text, Ok(value)) => Wish::Value(Desired { text: text.to_owned(), value }),
        };
        Planned {
            name: "p".to_owned(),
            kind: Kind::Int,
            visitor: (),
            collect: Some(CYCLE),
            again: None,
            wish,
        }
    }

    fn read(track: &mut Track, value: &str, now: Instant) {
        track.read(value.to_owned(), SystemTime::UNIX_EPOCH);
        track.tried(CYCLE, now);
    }

    #[test]
    fn only_what_changed_is_told() {
        let now = Instant::now();
        let mut track = Track::new(&planned(""), now);
        assert_eq!(track.to_tell(None, now), None, "nothing is known yet");
        read(&mut track, "1", now);
        let known = track.to_tell(None, now).unwrap();
        assert_eq!((known.value.as_str(), known.observed.as_str()), ("1", ""));
        track.told(known, now);
        read(&mut track, "1", now);
        assert_eq!(track.to_tell(None, now), None);
        read(&mut track, "2", now);
        assert!(track.to_tell(None, now).is_some());
    }

    #[test]
    fn with_a_report_cycle_it_is_told_again() {
        let now = Instant::now();
        let mut track = Track::new(&planned(""), now);
        read(&mut track, "1", now);
        let known = track.to_tell(Some(CYCLE), now).unwrap();
        track.told(known, now);
        assert_eq!(track.to_tell(Some(CYCLE), now), None);
        assert!(track.to_tell(Some(CYCLE), now + CYCLE).is_some());
        track.forget_told();
        assert!(track.to_tell(None, now).is_some(), "and after edgecore was away");
    }

    #[test]
    fn what_was_not_taken_waits_and_what_is_new_does_not() {
        let now = Instant::now();
        let mut track = Track::new(&planned(""), now);
        read(&mut track, "1", now);
        let known = track.to_tell(None, now).unwrap();
        track.not_told(known, now + CYCLE);
        assert_eq!(track.to_tell(None, now), None);
        assert_eq!(track.again_due(None), Some(now + CYCLE));
        assert!(track.to_tell(None, now + CYCLE).is_some());
        read(&mut track, "2", now);
        let known = track.to_tell(None, now).unwrap();
        track.told(known, now);
        assert_eq!(track.again_due(None), None);
    }

    #[test]
    fn a_desired_value_is_observed_once_it_is_written() {
        let now = Instant::now();
        let mut track = Track::new(&planned("5"), now);
        assert_eq!(track.to_write(now).unwrap().text, "5");
        track.not_written(now + CYCLE);
        assert_eq!(track.to_write(now), None);
        assert!(track.to_write(now + CYCLE).is_some());
        read(&mut track, "1", now);
        assert_eq!(track.known().unwrap().observed, "");
        track.written(now);
        assert!(track.to_read(now), "what was written is read back at once");
        assert_eq!(track.known().unwrap().observed, "5");
        assert_eq!(track.to_write(now + CYCLE), None);
    }

    #[test]
    fn a_new_desired_value_replaces_the_old_and_an_equal_one_is_not_written_twice() {
        let now = Instant::now();
        let mut track = Track::new(&planned("5"), now);
        track.written(now);
        track.follow(&planned("5"), now);
        assert_eq!(track.to_write(now), None);
        read(&mut track, "5", now);
        track.follow(&planned("six"), now);
        assert_eq!(
            (track.to_write(now), track.known().unwrap().observed.as_str()),
            (None, "5"),
            "it keeps what it has"
        );
        track.follow(&planned("6"), now);
        assert_eq!(track.to_write(now).unwrap().text, "6");
        track.follow(&planned(""), now);
        assert_eq!(track.to_write(now), None);
        track.reconnected(&planned("5"), now);
        assert_eq!(track.to_write(now).unwrap().text, "5", "a device that was away may have forgotten");
    }

    #[test]
    fn missed_cycles_are_not_made_up_for() {
        let now = Instant::now();
        let mut track = Track::new(&planned(""), now);
        track.tried(CYCLE, now);
        assert_eq!(track.due(), Some(now + CYCLE));
        track.tried(CYCLE, now + CYCLE * 5);
        assert_eq!(track.due(), Some(now + CYCLE * 6));
    }

    #[test]
    fn a_fault_is_new_once() {
        let mut track = Track::new(&planned(""), Instant::now());
        assert!(track.faulty("a") && !track.faulty("a") && track.faulty("b"));
        assert!(track.well() && !track.well());
    }
}
