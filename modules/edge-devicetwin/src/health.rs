//! What is wrong with a device. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use contract::DeviceCondition;
use dmi::notes::ELLIPSIS;

use crate::plan;
use crate::twin::{State, Twin};

/// 10 s for a mapper to register after its device came, or after edgecore began.
const MAPPER_WITHIN: Duration = Duration::from_secs(10);
/// 3 pushes that did not reach a mapper.
const FAILURES_TOLD: u32 = 3;
/// 8 properties are named in a sentence.
const NAMED_MAX: usize = 8;
/// 2000 bytes of a sentence: what the cloud takes is 2 KiB.
const MESSAGE_MAX: usize = 2000;

/// 64 characters of a value in a sentence.
const VALUE_SHOWN: usize = 64;
/// Of a desired value that its mapper is not sent.
const BEYOND_SIGNED: &str = "its mapper reads whole numbers up to 2^63-1";

/// How a device's mapper is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum MapperHealth {
    /// None has registered for its protocol.
    None {
        /// For how long the device has been known.
        waited: Duration,
        /// Whether its state was said over MQTT.
        is_state_over_mqtt: bool,
    },
    /// One that has ended.
    Gone {
        /// Its name.
        mapper: String,
    },
    /// It refuses the device.
    Refuses {
        /// Its name.
        mapper: String,
        /// Its words.
        reason: String,
    },
    /// What it should have of the device does not reach it.
    NotReached {
        /// Its name.
        mapper: String,
        /// How often that was tried.
        failures: u32,
        /// Why.
        reason: String,
    },
    /// Nothing is known against it.
    Fine,
}

/// Something that is wrong: its kind, a word and a sentence.
pub(crate) type Wrong = (&'static str, &'static str, String);

/// What is wrong with a device. `reads_unsigned`: its mapper takes whole numbers from 2^63 on, or there is none.
pub(crate) fn wrong(
    protocol: &str,
    mapper: &MapperHealth,
    state: &State,
    twins: &BTreeMap<String, Twin>,
    reads_unsigned: bool,
) -> Vec<Wrong> {
    let served =
        of_mapper(protocol, mapper, state, twins).map(|(reason, message)| ("Served", reason, message));
    let mut refused = Sentences::default();
    for (name, twin) in twins.iter().filter(|(_, twin)| !twin.deleted) {
        let value = twin.told_desired().map(|side| side.value.as_str()).unwrap_or_default();
        match &twin.observed_error {
            Some(error) => refused.add_value(name, value, error),
            None if !reads_unsigned && twin.value_type == "int" && plan::is_unsigned(value) => {
                refused.add_value(name, value, BEYOND_SIGNED);
            }
            None => {}
        }
    }
    let reporting = of_values(state, twins).map(|(reason, message)| ("Reporting", reason, message));
    let applied = (!refused.is_empty())
        .then(|| ("DesiredApplied", "Refused", format!("not taken: {}", refused.told())));
    let all = served.into_iter().chain(reporting).chain(applied);
    all.map(|(kind, reason, message)| (kind, reason, cut(message))).collect()
}

/// Why values are missing, or are of before. One that never was cannot have grown old: of it the last word is said, and that nothing
/// came since.
fn of_values(state: &State, twins: &BTreeMap<String, Twin>) -> Option<(&'static str, String)> {
    let of_device = state.reason.as_deref().unwrap_or_default();
    let mut stale = Vec::new();
    let (mut unread, mut silent, mut beside) =
        (Sentences::default(), Sentences::default(), Sentences::default());
    for (name, twin) in twins.iter().filter(|(_, twin)| !twin.deleted) {
        match (twin.stale.is_some(), &twin.actual_error) {
            (true, None) if twin.actual.as_ref().is_some_and(|side| side.value.is_empty()) => {
                silent.add(name, "an empty value was reported");
            }
            // The device's own fault is said once, whatever the number of its properties.
            (_, Some(error)) if twin.has_only_an_error() && is_same(error, of_device) => {}
            (true, Some(error)) if twin.has_only_an_error() => silent.add(name, error),
            // What was wrong beside it is as old as the value.
            (true, _) => stale.push(format!("`{name}`")),
            (false, Some(error)) if twin.has_only_an_error() => unread.add(name, error),
            (false, Some(error)) => beside.add(name, error),
            (false, None) => {}
        }
    }
    let offline = state.reason.as_ref().map(|reason| format!("the device is {}: {reason}", state.state));
    let parts = [
        offline.clone(),
        (!stale.is_empty()).then(|| {
            format!("nothing has been heard for two cycles of {}, whose last values stay", list(&stale))
        }),
        (!silent.is_empty()).then(|| {
            format!(
                "there was no value, and nothing has been heard for two cycles since, of {}",
                silent.told()
            )
        }),
        (!unread.is_empty()).then(|| format!("there is no value of {}", unread.told())),
        (!beside.is_empty()).then(|| format!("something is wrong beside the value of {}", beside.told())),
    ];
    let has_values = silent.is_empty() && unread.is_empty();
    let reason = match (&offline, stale.is_empty()) {
        (Some(_), _) => "Offline",
        (None, false) => "Stale",
        (None, true) if has_values => "FaultBesideValue",
        (None, true) => "NoValue",
    };
    let said: Vec<String> = parts.into_iter().flatten().collect();
    (!said.is_empty()).then(|| (reason, said.join("; ")))
}

fn of_mapper(
    protocol: &str,
    mapper: &MapperHealth,
    state: &State,
    twins: &BTreeMap<String, Twin>,
) -> Option<(&'static str, String)> {
    match mapper {
        MapperHealth::Fine => None,
        MapperHealth::None { waited, is_state_over_mqtt } => {
            // What a mapper has said that is none of this protocol is stale, and nothing that came over MQTT.
            let is_over_mqtt = |twin: &Twin| state.mapper.is_none() || twin.stale.is_none();
            let is_heard =
                *is_state_over_mqtt || twins.values().any(|twin| twin.actual.is_some() && is_over_mqtt(twin));
            let is_told = *waited >= MAPPER_WITHIN && !is_heard && !protocol.is_empty();
            let message = || {
                format!(
                    "no mapper has registered for protocol `{protocol}` on this node, and nothing has been reported over MQTT"
                )
            };
            is_told.then(|| ("NoMapper", message()))
        }
        MapperHealth::Gone { mapper } => {
            Some(("MapperGone", format!("mapper `{mapper}` of protocol `{protocol}` has ended")))
        }
        MapperHealth::Refuses { mapper, reason } => {
            Some(("MapperRefused", format!("mapper `{mapper}` does not take the device: {reason}")))
        }
        MapperHealth::NotReached { mapper, failures, reason } => (*failures >= FAILURES_TOLD)
            .then(|| ("MapperNotReached", format!("mapper `{mapper}` is not reached: {reason}"))),
    }
}

/// Whether what is said of a property is why its device is in its state, be either cut.
fn is_same(error: &str, of_device: &str) -> bool {
    match (error.strip_suffix(ELLIPSIS), of_device.strip_suffix(ELLIPSIS)) {
        (None, None) => error == of_device,
        (Some(begin), None) => !begin.is_empty() && of_device.starts_with(begin),
        (None, Some(begin)) => !begin.is_empty() && error.starts_with(begin),
        (Some(one), Some(other)) => {
            !one.is_empty() && !other.is_empty() && (one.starts_with(other) || other.starts_with(one))
        }
    }
}

/// What is wrong with properties: each sentence once, with the names of those that it is about.
#[derive(Default)]
struct Sentences(Vec<(String, Vec<String>)>);

impl Sentences {
    fn add(&mut self, property: &str, sentence: &str) {
        self.add_named(format!("`{property}`"), sentence);
    }

    /// About a value of the property.
    fn add_value(&mut self, property: &str, value: &str, sentence: &str) {
        let mut shown: String = value.chars().take(VALUE_SHOWN).collect();
        if shown.len() < value.len() {
            shown.push(ELLIPSIS);
        }
        let of = if shown.is_empty() { String::new() } else { format!(" = `{shown}`") };
        self.add_named(format!("`{property}`{of}"), sentence);
    }

    fn add_named(&mut self, name: String, sentence: &str) {
        match self.0.iter_mut().find(|(said, _)| said == sentence) {
            Some((_, names)) => names.push(name),
            None => self.0.push((sentence.to_owned(), vec![name])),
        }
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn told(&self) -> String {
        let all: Vec<String> =
            self.0.iter().map(|(sentence, names)| format!("{}: {sentence}", list(names))).collect();
        list(&all)
    }
}

fn list(items: &[String]) -> String {
    let shown = items.get(..NAMED_MAX.min(items.len())).unwrap_or_default().join(", ");
    match items.len().saturating_sub(NAMED_MAX) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

fn cut(mut message: String) -> String {
    if message.len() > MESSAGE_MAX {
        message.truncate(message.floor_char_boundary(MESSAGE_MAX - ELLIPSIS.len_utf8()));
        message.push(ELLIPSIS);
    }
    message
}

/// What the cloud is to be told in place of what it was told; `None`: nothing new. What is wrong for the same reason keeps its time.
pub(crate) fn changed(
    told: &[DeviceCondition],
    wrong: Vec<Wrong>,
    now: &str,
) -> Option<Vec<DeviceCondition>> {
    let same = told.len() == wrong.len()
        && told.iter().zip(&wrong).all(|(told, (kind, reason, message))| {
            told.kind == *kind && told.reason == *reason && told.message == *message
        });
    if same {
        return None;
    }
    let condition = |(kind, reason, message): Wrong| {
        let before = told.iter().find(|told| told.kind == kind && told.reason == reason);
        let since = before.map_or(now, |told| told.since.as_str()).to_owned();
        DeviceCondition { kind: kind.to_owned(), reason: reason.to_owned(), message, since }
    };
    Some(wrong.into_iter().map(condition).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fine() -> State {
        State::unknown("u")
    }

    fn wrong(
        protocol: &str,
        mapper: &MapperHealth,
        state: &State,
        twins: &BTreeMap<String, Twin>,
    ) -> Vec<Wrong> {
        super::wrong(protocol, mapper, state, twins, true)
    }

    #[test]
    fn a_desired_value_that_is_not_taken_is_named() {
        let side = |value: &str| Some(crate::twin::Side { value: value.to_owned(), timestamp: 1 });
        let refused = Twin {
            expected: side("44"),
            observed: side("42"),
            observed_error: Some("the device refused: exception 3".to_owned()),
            ..Twin::new("int")
        };
        let long = Twin { expected: side(&"x".repeat(65)), ..refused.clone() };
        let counter = Twin { expected: side("9223372036854775808"), ..Twin::new("int") };
        let twins = BTreeMap::from([
            ("b".to_owned(), refused),
            ("c".to_owned(), long),
            ("d".to_owned(), counter.clone()),
            ("e".to_owned(), Twin { value_type: "string".to_owned(), ..counter }),
        ]);
        let said = |reads_unsigned: bool| {
            super::wrong("modbus", &MapperHealth::Fine, &fine(), &twins, reads_unsigned).remove(0).2
        };
        let cut = format!("{}{ELLIPSIS}", "x".repeat(64));
        let words = format!("not taken: `b` = `44`, `c` = `{cut}`: the device refused: exception 3");
        assert_eq!(said(true), words);
        assert_eq!(said(false), format!("{words}, `d` = `9223372036854775808`: {BEYOND_SIGNED}"));
    }

    #[test]
    fn what_never_had_a_value_did_not_grow_old_and_an_offline_device_says_why() {
        let twin = |stale: Option<i64>, error: Option<&str>| Twin {
            stale,
            actual_error: error.map(str::to_owned),
            ..Twin::new("int")
        };
        let never = BTreeMap::from([("a".to_owned(), twin(Some(1), Some("exception 2")))]);
        let found = wrong("modbus", &MapperHealth::Fine, &fine(), &never);
        let words =
            "there was no value, and nothing has been heard for two cycles since, of `a`: exception 2";
        assert_eq!(found, [("Reporting", "NoValue", words.to_owned())]);
        let offline =
            State { state: "offline".to_owned(), reason: Some("connection refused".to_owned()), ..fine() };
        let old = BTreeMap::from([("a".to_owned(), twin(Some(1), None))]);
        let found = wrong("modbus", &MapperHealth::Fine, &offline, &old);
        let words = "the device is offline: connection refused; nothing has been heard for two cycles of `a`, whose last values stay";
        assert_eq!(found, [("Reporting", "Offline", words.to_owned())]);
        let found = wrong("modbus", &MapperHealth::Fine, &offline, &BTreeMap::new());
        assert_eq!(found[0].2, "the device is offline: connection refused");
    }

    #[test]
    fn a_sentence_is_said_once_however_many_properties_it_is_about() {
        let twin = |stale: Option<i64>, error: &str| Twin {
            stale,
            actual_error: Some(error.to_owned()),
            ..Twin::new("int")
        };
        let many = |error: &str| -> BTreeMap<String, Twin> {
            (0..30).map(|n| (format!("p{n:02}"), twin((n < 15).then_some(1), error))).collect()
        };
        let away =
            |reason: &str| State { state: "offline".to_owned(), reason: Some(reason.to_owned()), ..fine() };
        let said = |state: &State, twins: &BTreeMap<String, Twin>| {
            wrong("modbus", &MapperHealth::Fine, state, twins)[0].2.clone()
        };
        let mut twins = many("connection refused");
        assert_eq!(said(&away("connection refused"), &twins), "the device is offline: connection refused");
        let cut = format!("connection{ELLIPSIS}");
        assert_eq!(said(&away(&cut), &twins), format!("the device is offline: {cut}"));
        assert_eq!(
            said(&away("connection refused"), &many(&cut)),
            "the device is offline: connection refused"
        );
        assert!(is_same(&cut, &format!("connec{ELLIPSIS}")) && !is_same(&cut, ""));
        twins.insert("odd".to_owned(), twin(None, "exception 2"));
        assert_eq!(
            said(&away("connection refused"), &twins),
            "the device is offline: connection refused; there is no value of `odd`: exception 2"
        );
        // A Device that has its state not reported says it by its properties alone.
        let named =
            |range: std::ops::Range<u32>| range.map(|n| format!("`p{n:02}`")).collect::<Vec<_>>().join(", ");
        assert_eq!(
            said(&fine(), &many("connection refused")),
            format!(
                "there was no value, and nothing has been heard for two cycles since, of {} and 7 more: connection refused; \
                 there is no value of {} and 7 more: connection refused",
                named(0..8),
                named(15..23)
            )
        );
    }

    #[test]
    fn a_value_that_is_there_is_not_called_missing() {
        let actual = |value: &str| Some(crate::twin::Side { value: value.to_owned(), timestamp: 1 });
        let twin = |value: &str, stale: Option<i64>| Twin {
            actual: actual(value),
            actual_error: Some("http://h: away".to_owned()),
            stale,
            ..Twin::new("int")
        };
        let said = |twin: Twin| {
            let found =
                wrong("modbus", &MapperHealth::Fine, &fine(), &BTreeMap::from([("a".to_owned(), twin)]));
            (found[0].1, found[0].2.clone())
        };
        for (twin, reason, words) in [
            (
                twin("22", None),
                "FaultBesideValue",
                "something is wrong beside the value of `a`: http://h: away",
            ),
            (twin("", None), "NoValue", "there is no value of `a`: http://h: away"),
            (
                twin("22", Some(1)),
                "Stale",
                "nothing has been heard for two cycles of `a`, whose last values stay",
            ),
            (
                twin("", Some(1)),
                "NoValue",
                "there was no value, and nothing has been heard for two cycles since, of `a`: http://h: away",
            ),
        ] {
            assert_eq!(said(twin), (reason, words.to_owned()));
        }
    }

    #[test]
    fn what_is_wrong_is_said_with_its_reason_and_heals() {
        let twin = |stale: Option<i64>, actual_error: Option<&str>, observed_error: Option<&str>| Twin {
            stale,
            actual_error: actual_error.map(str::to_owned),
            observed_error: observed_error.map(str::to_owned),
            ..Twin::new("int")
        };
        let named = |name: &str, twin: Twin| (name.to_owned(), twin);
        let twins = BTreeMap::from([
            named("a", twin(Some(1), None, None)),
            named("b", twin(None, Some("exception 2"), None)),
            named("c", twin(None, None, Some("500 is above the maximum"))),
            named("d", Twin { deleted: true, ..twin(Some(1), Some("x"), Some("y")) }),
        ]);
        let refuses = MapperHealth::Refuses { mapper: "m".into(), reason: "no such ip".into() };
        let found = wrong("modbus", &refuses, &fine(), &twins);
        let words: Vec<(&str, &str)> = found.iter().map(|(kind, reason, _)| (*kind, *reason)).collect();
        assert_eq!(
            words,
            [("Served", "MapperRefused"), ("Reporting", "Stale"), ("DesiredApplied", "Refused")]
        );
        assert!(
            found[1].2.contains("`a`, whose last values stay; there is no value of `b`: exception 2"),
            "{found:?}"
        );
        assert!(!found.iter().any(|(_, _, message)| message.contains("`d`")));
        let told = changed(&[], found.clone(), "1").unwrap();
        assert_eq!(changed(&told, found, "2"), None);
        let fewer = wrong("modbus", &MapperHealth::Fine, &fine(), &twins);
        let told = changed(&told, fewer, "2").unwrap();
        assert_eq!((told.len(), told[0].since.as_str()), (2, "1"));
        assert_eq!(changed(&told, Vec::new(), "3"), Some(Vec::new()));
        assert_eq!(changed(&[], Vec::new(), "3"), None);
    }

    #[test]
    fn a_device_that_speaks_over_mqtt_needs_no_mapper() {
        let none = |waited, is_state_over_mqtt| MapperHealth::None { waited, is_state_over_mqtt };
        let waited = none(MAPPER_WITHIN, false);
        let silent = BTreeMap::from([("a".to_owned(), Twin::new("int"))]);
        assert_eq!(wrong("modbus", &waited, &fine(), &silent)[0].1, "NoMapper");
        assert_eq!(wrong("", &waited, &fine(), &silent), []);
        assert_eq!(wrong("modbus", &none(Duration::ZERO, false), &fine(), &silent), []);
        assert_eq!(
            wrong("modbus", &none(MAPPER_WITHIN, true), &fine(), &silent),
            [],
            "its state is a word, too"
        );
        let actual = Some(crate::twin::Side { value: "1".into(), timestamp: 1 });
        let heard = BTreeMap::from([("a".to_owned(), Twin { actual, ..Twin::new("int") })]);
        assert_eq!(wrong("modbus", &waited, &fine(), &heard), []);
        let left = State { mapper: Some("opcua".into()), ..fine() };
        let stale = BTreeMap::from([("a".to_owned(), Twin { stale: Some(1), ..heard["a"].clone() })]);
        let found = wrong("modbus", &waited, &left, &stale);
        let words: Vec<&str> = found.iter().map(|(_, reason, _)| *reason).collect();
        assert_eq!(words, ["NoMapper", "Stale"], "the word of a mapper of before does not count");
        assert_eq!(wrong("modbus", &waited, &fine(), &stale)[0].1, "Stale", "an MQTT client that is silent");
        let long = "é".repeat(500);
        let many = (0..20).map(|n| {
            (format!("p{n:02}"), Twin { actual_error: Some(format!("{long}{n}")), ..Twin::new("int") })
        });
        let found = wrong("modbus", &MapperHealth::Fine, &fine(), &many.collect());
        assert!(found[0].2.len() <= MESSAGE_MAX && found[0].2.ends_with(ELLIPSIS), "{}", found[0].2);
    }
}
