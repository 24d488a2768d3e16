//! Which events are one series, which are too similar to be told one by one, and which are too many: client-go's correlator
//! (`tools/record/events_cache.go`), whose figures a kubelet has. Pure.
//!
//! A series is named by when it began, as client-go names events, so that events of one second stand in their order where they are
//! sorted by their names. No two have the same name.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use beehive::{Bucket, Moment};

use crate::pod::parsed_pod::fnv1a;

/// So many series are remembered, and as many groups of similar events and objects (`maxLruCacheEntries`).
const REMEMBERED: usize = 4096;
/// From so many events on that differ in their words alone, within [`SIMILAR_IN`], they are told as one series.
const SIMILAR: usize = 10;
const SIMILAR_IN: Duration = Duration::from_secs(600);
/// Of one object and type so many events at once, and one more in each of these spans; others are dropped: what a probe prints
/// may differ each second (`EventSourceObjectSpamFilter`).
const BURST: u32 = 25;
const ONE_MORE_IN: Duration = Duration::from_secs(300);
/// How the words of a group begin.
const COMBINED: &str = "(combined from similar events): ";

/// How grave an event is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EventType {
    Normal,
    Warning,
}

/// What an event is about and says.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Said<'a> {
    /// The object's uid, or another word for it alone.
    pub(crate) uid: &'a str,
    /// Which part of the object; empty: the whole.
    pub(crate) field_path: &'a str,
    pub(crate) kind: EventType,
    pub(crate) reason: &'a str,
    pub(crate) message: &'a str,
}

/// An event as it is to be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Told {
    /// When it began, in nanoseconds since 1970 and a little later where another series began at that moment.
    pub(crate) series: i64,
    pub(crate) message: String,
    /// How often it was said, since EdgeCore started.
    pub(crate) count: u32,
    /// When it was said first, since then.
    pub(crate) first: jiff::Timestamp,
}

#[derive(Debug)]
struct Group {
    last: Moment,
    /// Of the messages, as many as make a group.
    messages: BTreeSet<u64>,
}

#[derive(Debug)]
struct Series {
    last: Moment,
    count: u32,
    first: jiff::Timestamp,
    name: i64,
}

/// What was said so far.
#[derive(Debug, Default)]
pub(crate) struct EventSeries {
    groups: BTreeMap<u64, Group>,
    series: BTreeMap<u64, Series>,
    /// How many more are told, by object and type.
    rooms: BTreeMap<u64, Bucket>,
    /// The last name that was given.
    named: i64,
}

impl EventSeries {
    /// Takes in that something happened. `None`: it is one too many.
    pub(crate) fn take(&mut self, said: &Said<'_>, now: Moment, wall: jiff::Timestamp) -> Option<Told> {
        let Said { uid, field_path, kind, reason, message } = *said;
        let similar = fnv1a(format!("{uid}\n{kind:?}\n{reason}").as_bytes());
        let is_combined = self.is_combined(similar, message, now);
        let (series, message) = if is_combined {
            (
                fnv1a(format!("{uid}\n{kind:?}\n{reason}\n{COMBINED}").as_bytes()),
                format!("{COMBINED}{message}"),
            )
        } else {
            let own = format!("{uid}\n{field_path}\n{kind:?}\n{reason}\n{message}");
            (fnv1a(own.as_bytes()), message.to_owned())
        };
        forget(&mut self.series, |series| series.last);
        let own = self.series.entry(series).or_insert_with(|| {
            let nanos = i64::try_from(wall.as_nanosecond()).unwrap_or(i64::MAX);
            // A clock that is set back gives no name twice.
            self.named = nanos.max(self.named.saturating_add(1));
            Series { last: now, count: 0, first: wall, name: self.named }
        });
        own.last = now;
        own.count = own.count.saturating_add(1);
        let (count, first, series) = (own.count, own.first, own.name);
        self.has_room(uid, kind, now).then_some(Told { series, message, count, first })
    }

    fn is_combined(&mut self, similar: u64, message: &str, now: Moment) -> bool {
        forget(&mut self.groups, |group| group.last);
        let group = self.groups.entry(similar).or_insert(Group { last: now, messages: BTreeSet::new() });
        if now.since(group.last) > SIMILAR_IN {
            group.messages.clear();
        }
        group.last = now;
        group.messages.insert(fnv1a(message.as_bytes()));
        if group.messages.len() < SIMILAR {
            return false;
        }
        // It stays a group for as long as such events come, and takes no more room.
        group.messages.pop_first();
        true
    }

    /// Takes one of the events that an object may have of a type.
    fn has_room(&mut self, uid: &str, kind: EventType, now: Moment) -> bool {
        if self.rooms.len() >= REMEMBERED {
            self.rooms.retain(|_, room| !room.is_full(now));
        }
        let key = fnv1a(format!("{uid}\n{kind:?}").as_bytes());
        self.rooms.entry(key).or_insert_with(|| Bucket::new(BURST, ONE_MORE_IN)).take(now)
    }
}

/// Forgets the older half of what is remembered once that is too much.
fn forget<T>(all: &mut BTreeMap<u64, T>, last: impl Fn(&T) -> Moment) {
    if all.len() < REMEMBERED {
        return;
    }
    let mut times: Vec<Moment> = all.values().map(&last).collect();
    times.sort_unstable();
    let middle = times.get(times.len() / 2).copied();
    all.retain(|_, one| Some(last(one)) > middle);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn say(series: &mut EventSeries, uid: &str, message: &str, second: u64) -> Option<Told> {
        say_as(series, (uid, "", EventType::Warning), message, second)
    }

    fn say_as(
        series: &mut EventSeries,
        (uid, field_path, kind): (&str, &str, EventType),
        message: &str,
        second: u64,
    ) -> Option<Told> {
        let said = Said { uid, field_path, kind, reason: "Unhealthy", message };
        let wall = jiff::Timestamp::from_second(i64::try_from(second).unwrap()).unwrap();
        series.take(&said, Moment(Duration::from_secs(second)), wall)
    }

    #[test]
    fn the_same_words_about_the_same_part_are_one_series() {
        let mut series = EventSeries::default();
        let first = say(&mut series, "u", "one", 5).unwrap();
        let again = say(&mut series, "u", "one", 9).unwrap();
        assert_eq!((first.count, again.count, again.series, again.first), (1, 2, first.series, first.first));
        let part = say_as(&mut series, ("u", "spec.containers{c}", EventType::Warning), "one", 9).unwrap();
        let other = say(&mut series, "v", "one", 9).unwrap();
        assert!(part.series != first.series && other.series != first.series && part.count == 1);
    }

    #[test]
    fn names_are_in_the_order_of_what_was_said_also_within_a_moment_and_when_the_clock_is_set_back() {
        let mut series = EventSeries::default();
        let names: Vec<i64> = [(5, "d"), (5, "c"), (5, "b"), (2, "a"), (7, "e")]
            .map(|(second, message)| say(&mut series, "u", message, second).unwrap().series)
            .into();
        assert!(names.is_sorted_by(|one, next| one < next), "{names:?}");
        assert_eq!((names[0], names[4]), (5_000_000_000, 7_000_000_000));
    }

    #[test]
    fn from_the_tenth_on_similar_events_are_combined_until_they_stop() {
        let mut series = EventSeries::default();
        let told: Vec<Told> = (0..12).map(|n| say(&mut series, "u", &format!("m{n}"), n).unwrap()).collect();
        assert!(told[..9].iter().all(|told| told.count == 1 && !told.message.starts_with(COMBINED)));
        assert_eq!((told[9].message.as_str(), told[9].count), ("(combined from similar events): m9", 1));
        assert_eq!((told[11].message.as_str(), told[11].count), ("(combined from similar events): m11", 3));
        assert_eq!(told[11].series, told[9].series);
        let later = say(&mut series, "u", "m99", 11 + 601).unwrap();
        assert_eq!(later.message, "m99");
    }

    #[test]
    fn an_object_that_says_something_else_each_second_is_heard_seldom() {
        let mut series = EventSeries::default();
        let heard = (0..3000).filter(|second| say(&mut series, "u", &second.to_string(), *second).is_some());
        assert_eq!(heard.count(), 25 + 9, "a burst, and one more in each five minutes");
        let normal = ("u", "", EventType::Normal);
        assert!(
            say_as(&mut series, normal, "x", 3000).is_some() && say(&mut series, "v", "x", 3000).is_some()
        );
        // What is not told is counted.
        let told: Vec<Told> = (3001..3600).filter_map(|second| say(&mut series, "u", "x", second)).collect();
        assert!(told.len() <= 2 && told.iter().all(|told| told.count > 2990), "{told:?}");
    }

    #[test]
    fn what_is_remembered_has_a_bound() {
        let mut series = EventSeries::default();
        for n in 0..10_000 {
            say(&mut series, &format!("u{n}"), "x", n);
        }
        assert!(series.series.len() <= REMEMBERED && series.groups.len() <= REMEMBERED);
        assert!(series.rooms.len() <= REMEMBERED);
        assert_eq!(say(&mut series, "u9999", "x", 10_000).unwrap().count, 2, "the newest are known");
    }
}
