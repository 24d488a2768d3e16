use super::*;
use crate::value::Value;

const CYCLE: Duration = Duration::from_secs(1);
const EPOCH: SystemTime = SystemTime::UNIX_EPOCH;

fn plan(desired: &str) -> PropertyPlan<()> {
    let desired = match (desired, Value::parse(Kind::Int, desired)) {
        ("", _) => Desired::Unset,
        (_, Err(error)) => Desired::Invalid(error.to_string()),
        (text, Ok(value)) => Desired::Value(DesiredValue {
            text: text.to_owned(),
            version: text.to_owned(),
            value: Some(value),
        }),
    };
    PropertyPlan {
        name: "p".to_owned(),
        kind: Kind::Int,
        visitor: (),
        push: crate::push::PushPlan::default(),
        watch: None,
        stream: None,
        is_told: true,
        collect: Some(CYCLE),
        report_cycle: None,
        is_writable: true,
        limits: Ok(crate::value::Limits::default()),
        is_command: false,
        desired,
    }
}

fn repeated(desired: &str) -> PropertyPlan<()> {
    PropertyPlan { report_cycle: Some(CYCLE), ..plan(desired) }
}

fn command(desired: &str) -> PropertyPlan<()> {
    PropertyPlan { is_command: true, collect: None, ..plan(desired) }
}

fn read(property: &mut PropertyState, value: &str, now: Moment) {
    property.read(value.to_owned(), now, EPOCH + now.0);
    property.was_collected(CYCLE, now);
}

#[test]
fn only_what_changed_is_reported() {
    let now = Moment::default();
    let mut property = PropertyState::new(&plan(""), now);
    assert_eq!(property.to_report(now), None, "nothing has been read yet");
    read(&mut property, "1", now);
    let twin = property.to_report(now).unwrap();
    assert_eq!((twin.value.as_str(), twin.observed.as_str()), ("1", ""));
    property.reported(twin, now);
    read(&mut property, "1", now);
    assert_eq!(property.to_report(now), None);
    read(&mut property, "2", now);
    assert!(property.to_report(now).is_some());
}

#[test]
fn a_value_that_the_device_doubts_is_told_with_the_reason() {
    let now = Moment::default();
    let mut property = PropertyState::new(&plan(""), now);
    let doubt = |property: &mut PropertyState, why: &str| {
        property.read_in_doubt("1".to_owned(), why.to_owned(), now, EPOCH)
    };
    assert!(doubt(&mut property, "last usable value"));
    assert!(!doubt(&mut property, "last usable value"), "the same is no news");
    let twin = property.to_report(now).unwrap();
    assert_eq!((twin.value.as_str(), twin.fault.as_deref()), ("1", Some("last usable value")));
    property.reported(twin, now);
    assert_eq!(property.to_report(now), None);
    assert!(doubt(&mut property, "simulated"));
    read(&mut property, "1", now);
    assert_eq!(property.to_report(now).unwrap().fault, None, "and no more, once it is good");
}

#[test]
fn of_a_value_that_edgecore_refuses_the_reason_is_told_and_the_value_not_again() {
    let now = Moment::default();
    let mut property = PropertyState::new(&repeated(""), now);
    read(&mut property, "long", now);
    let twin = property.to_report(now).unwrap();
    property.was_rejected(twin, "more than 4096 bytes", now);
    let said = property.to_report(now).unwrap();
    let why = "edgecore does not take the value: more than 4096 bytes";
    assert_eq!((said.value.as_str(), said.fault.as_deref()), ("", Some(why)));
    property.reported(said, now);
    assert_eq!(property.to_report(now), None);
    // Read again, and the same: that it is still so is told in its cycle, as of any other value.
    read(&mut property, "long", now + CYCLE);
    assert_eq!(property.to_report(now + CYCLE).unwrap().value, "");
    read(&mut property, "1", now + CYCLE);
    let twin = property.to_report(now + CYCLE).unwrap();
    assert_eq!((twin.value.as_str(), twin.fault.as_deref()), ("1", None));
    property.reported(twin, now + CYCLE);
    // An edgecore that refuses the reason as well is not asked without end.
    read(&mut property, "longer", now + CYCLE);
    property.was_rejected(property.to_report(now + CYCLE).unwrap(), "no", now + CYCLE);
    property.was_rejected(property.to_report(now + CYCLE).unwrap(), "no", now + CYCLE);
    assert_eq!(property.to_report(now + CYCLE), None);
    // Another edgecore may take it.
    property.forget_reported();
    assert_eq!(property.to_report(now + CYCLE).unwrap().value, "longer");
}

#[test]
fn a_value_that_is_too_long_for_edgecore_is_no_report_and_the_reason_is_news_once() {
    let now = Moment::default();
    let mut property = PropertyState::new(&plan(""), now);
    property.is_out_of_reach("Connection refused", EPOCH);
    property.reported(property.to_report(now).unwrap(), now);
    let long = "x".repeat(dmi::VALUE_MAX + 1);
    let reason = "a value of `p` has more than 4096 bytes";
    read(&mut property, &long, now);
    assert_eq!(property.untaken_news().as_deref(), Some(reason));
    let said = property.to_report(now).unwrap();
    assert_eq!((said.value.as_str(), said.fault), ("", Some(dmi::untaken(reason))), "and no older fault");
    property.reported(property.to_report(now).unwrap(), now);
    read(&mut property, &long, now + CYCLE);
    assert_eq!((property.untaken_news(), property.to_report(now + CYCLE)), (None, None));
    property.is_out_of_reach("no route", EPOCH);
    assert_eq!(property.to_report(now + CYCLE), None, "it keeps what it had, as of any value");
    let doubt = |property: &mut PropertyState, value: &str| {
        property.read_in_doubt(value.to_owned(), "simulated".to_owned(), now, EPOCH)
    };
    assert!(doubt(&mut property, &long));
    assert!(!doubt(&mut property, &long) && !doubt(&mut property, "1"), "the same doubt is no news");
    assert_eq!(property.untaken_news(), None);
    assert_eq!(property.to_report(now).unwrap().value, "1");
    // What goes to targets alone is no matter of edgecore's.
    let mut pushed = PropertyState::new(&PropertyPlan { is_told: false, ..plan("") }, now);
    read(&mut pushed, &long, now);
    assert_eq!((pushed.untaken_news(), pushed.to_report(now)), (None, None));
    // What was desired goes the same way.
    let twin = TwinValue { observed: long, ..said_nothing() }.takable("p");
    assert_eq!((twin.observed.as_str(), twin.refusal), ("", Some(dmi::untaken(reason))));
}

fn said_nothing() -> TwinValue {
    let (value, observed) = (String::new(), String::new());
    TwinValue { value, fault: None, observed, refusal: None, read_at: EPOCH }
}

#[test]
fn a_device_that_is_not_reached_says_why_with_what_has_no_value() {
    let now = Moment::default();
    let mut property = PropertyState::new(&plan(""), now);
    for reason in ["no route", "not trusted"] {
        property.is_out_of_reach(reason, EPOCH);
        let twin = property.to_report(now).unwrap();
        assert_eq!((twin.value.as_str(), twin.fault.as_deref()), ("", Some(reason)));
        property.reported(twin, now);
    }
    read(&mut property, "1", now);
    property.is_out_of_reach("no route", EPOCH);
    let twin = property.to_report(now).unwrap();
    assert_eq!((twin.value.as_str(), twin.fault), ("1", None), "it keeps what it had");
    // What nobody reads has nothing to tell.
    let mut property = PropertyState::new(&command(""), now);
    property.is_out_of_reach("no route", EPOCH);
    assert_eq!(property.to_report(now), None);
}

#[test]
fn with_a_report_cycle_an_unchanged_value_is_reported_again() {
    let now = Moment::default();
    let mut property = PropertyState::new(&repeated(""), now);
    read(&mut property, "1", now);
    let twin = property.to_report(now).unwrap();
    property.reported(twin, now);
    assert_eq!(property.to_report(now), None);
    assert_eq!(property.to_report(now + CYCLE), None, "what is old must not look new");
    assert_eq!(property.report_due(now + CYCLE), None);
    read(&mut property, "1", now + CYCLE / 2);
    assert_eq!(property.report_due(now), Some(now + CYCLE));
    assert!(property.to_report(now + CYCLE).is_some());
    property.forget_reported();
    assert!(property.to_report(now).is_some(), "and after edgecore was away");
}

#[test]
fn why_there_is_no_value_is_told_again_in_its_cycle_while_the_device_is_there_however_seldom_it_is_asked() {
    let now = Moment::default();
    let mut property = PropertyState::new(&repeated(""), now);
    let tells = |property: &mut PropertyState, at: Moment| {
        let twin = property.to_report(at)?;
        property.reported(twin.clone(), at);
        twin.fault
    };
    assert!(property.could_not_be_read("exception 2".to_owned(), CYCLE, now, EPOCH));
    for n in 0..3 {
        let at = now + CYCLE * n;
        assert_eq!(tells(&mut property, at).as_deref(), Some("exception 2"));
        assert_eq!((tells(&mut property, at), property.report_due(at)), (None, Some(at + CYCLE)));
    }
    // One that is out of reach says why once, however often it is tried.
    for _ in 0..2 {
        property.is_out_of_reach("no route", EPOCH + CYCLE);
    }
    let later = now + CYCLE * 9;
    assert_eq!(tells(&mut property, later).as_deref(), Some("no route"));
    property.is_out_of_reach("no route", EPOCH + CYCLE * 2);
    assert_eq!(tells(&mut property, later + CYCLE * 9), None, "it has fallen silent");
    // What cannot be served is no matter of the device.
    let refused =
        RefusedProperty { name: "p".to_owned(), reason: "no offset".to_owned(), report_cycle: Some(CYCLE) };
    let mut property = PropertyState::refused(refused, EPOCH);
    assert_eq!(tells(&mut property, now).as_deref(), Some("no offset"));
    property.is_out_of_reach("no route", EPOCH);
    assert_eq!(tells(&mut property, now + CYCLE).as_deref(), Some("no offset"));
}

#[test]
fn a_deferred_report_waits_and_a_new_value_does_not() {
    let now = Moment::default();
    let mut property = PropertyState::new(&plan(""), now);
    read(&mut property, "1", now);
    let twin = property.to_report(now).unwrap();
    property.was_deferred(twin, now + CYCLE);
    assert_eq!(property.to_report(now), None);
    assert_eq!(property.report_due(now), Some(now + CYCLE));
    assert!(property.to_report(now + CYCLE).is_some());
    read(&mut property, "2", now);
    let twin = property.to_report(now).unwrap();
    property.reported(twin, now);
    assert_eq!(property.report_due(now), None);
}

#[test]
fn a_desired_value_is_observed_once_it_is_written() {
    let now = Moment::default();
    let mut property = PropertyState::new(&plan("5"), now);
    assert_eq!(property.to_write(now).unwrap().text, "5");
    assert!(property.was_not_written(Some("busy".to_owned()), now + CYCLE), "that is news");
    assert!(!property.was_not_written(Some("still busy".to_owned()), now + CYCLE), "and that is none");
    assert_eq!(property.to_write(now), None);
    assert!(property.to_write(now + CYCLE).is_some());
    read(&mut property, "1", now);
    let twin = property.twin().unwrap().twin;
    assert_eq!((twin.observed.as_str(), twin.refusal.as_deref()), ("", Some("still busy")));
    assert!(property.was_written(now), "it could not be written before");
    assert!(property.to_read(now), "what was written is read back at once");
    let twin = property.twin().unwrap().twin;
    assert_eq!((twin.observed.as_str(), twin.refusal), ("5", None));
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
    let twin = property.twin().unwrap().twin;
    assert_eq!((property.to_write(now), twin.observed.as_str()), (None, "5"), "it keeps what it has");
    assert!(twin.refusal.unwrap().contains("`six`"), "and the cloud is told why");
    property.follow_plan(&plan("6"), now);
    assert_eq!(property.to_write(now).unwrap().text, "6");
    property.follow_plan(&plan(""), now);
    assert_eq!(property.to_write(now), None);
    property.reconnected(&plan("5"), true, now);
    assert_eq!(property.to_write(now).unwrap().text, "5", "a device that was away may have forgotten");
}

#[test]
fn what_is_given_up_is_so_at_once_and_after_each_new_connection() {
    let now = Moment::default();
    let released = || {
        let nothing = DesiredValue { text: String::new(), version: String::new(), value: None };
        PropertyPlan { desired: Desired::Value(nothing), ..plan("") }
    };
    let is_due = |property: &PropertyState| property.to_write(now).map(|desired| desired.value.is_none());
    // A mapper before this one may have left something there.
    let mut property = PropertyState::new(&released(), now);
    assert_eq!(is_due(&property), Some(true));
    property.was_written(now);
    assert_eq!(is_due(&property), None);
    property.reconnected(&released(), true, now);
    assert_eq!(is_due(&property), Some(true));
    property.follow_plan(&plan("5"), now);
    property.was_written(now);
    property.follow_plan(&released(), now);
    assert_eq!(is_due(&property), Some(true));
    read(&mut property, "1", now);
    assert_eq!(property.twin().unwrap().twin.observed, "5", "until the device has confirmed it");
    property.was_written(now);
    assert_eq!(property.twin().unwrap().twin.observed, "");
}

#[test]
fn a_set_point_that_can_never_be_written_is_tried_again_by_a_new_connection_alone() {
    let now = Moment::default();
    let mut property = PropertyState::new(&plan("5"), now);
    assert!(property.to_write(now).is_some());
    assert!(property.is_given_up("it does not fit".to_owned()), "that is news");
    let later = now + REREAD_MAX * 100;
    assert_eq!(property.to_write(later), None);
    property.reconnected(&plan("5"), false, later);
    assert!(property.to_write(later).is_some(), "the device may be another one");
    assert!(!property.is_given_up("it does not fit".to_owned()), "and that is none");
    assert_eq!(property.twin().unwrap().twin.refusal.as_deref(), Some("it does not fit"));
}

#[test]
fn a_command_is_not_repeated_for_a_new_connection() {
    let now = Moment::default();
    let mut property = PropertyState::new(&command("5"), now);
    assert!(property.to_write(now).is_some());
    property.is_given_up("nobody answered".to_owned());
    property.reconnected(&command("5"), true, now);
    assert_eq!(property.to_write(now), None);
    let twin = property.to_report(now).unwrap();
    assert_eq!((twin.value.as_str(), twin.refusal.as_deref()), ("", Some("nobody answered")));
    property.reported(twin, now);
    property.follow_plan(&command("6"), now);
    property.was_written(now);
    let twin = property.to_report(now).unwrap();
    assert_eq!((twin.observed.as_str(), twin.refusal), ("6", None), "what was said is taken back");
}

#[test]
fn what_cannot_be_read_has_no_value_after_two_cycles_and_is_asked_less_and_less_often() {
    let now = Moment::default();
    let mut property = PropertyState::new(&plan(""), now);
    read(&mut property, "1", now);
    let fail = |property: &mut PropertyState, now| {
        property.could_not_be_read("no answer".to_owned(), CYCLE, now, EPOCH)
    };
    assert!(fail(&mut property, now + CYCLE), "that is news");
    assert_eq!(property.twin().unwrap().twin.value, "1", "one miss is none");
    assert_eq!(property.due(), Some(now + CYCLE * 2));
    assert!(!fail(&mut property, now + CYCLE * 2));
    let twin = property.twin().unwrap().twin;
    assert_eq!((twin.value.as_str(), twin.fault.as_deref()), ("", Some("no answer")));
    assert_eq!(property.due(), Some(now + CYCLE * 4), "doubled");
    for _ in 0..20 {
        fail(&mut property, now);
    }
    assert_eq!(property.due(), Some(now + REREAD_MAX));
    assert!(property.read("2".to_owned(), now, EPOCH), "it can be read again");
    assert_eq!(property.twin().unwrap().twin.fault, None);
}

#[test]
fn a_device_that_says_it_has_no_value_is_believed_at_once() {
    let now = Moment::default();
    let mut property = PropertyState::new(&plan(""), now);
    read(&mut property, "1", now);
    assert!(property.has_no_value("NaN".to_owned(), EPOCH));
    assert!(!property.has_no_value("NaN".to_owned(), EPOCH));
    let twin = property.to_report(now).unwrap();
    assert_eq!((twin.value.as_str(), twin.fault.as_deref()), ("", Some("NaN")));
}

#[test]
fn what_the_device_sends_by_itself_is_not_asked_for() {
    let now = Moment::default();
    let mut property = PropertyState::new(&plan(""), now);
    property.set_subscribed(true);
    assert_eq!((property.to_read(now), property.due(), property.is_polled()), (false, None, false));
    property.set_subscribed(false);
    assert!(property.to_read(now) && property.is_polled());
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
fn what_goes_wrong_with_a_push_is_told_beside_the_value_and_heals() {
    let now = Moment::default();
    let mut property = PropertyState::new(&plan(""), now);
    read(&mut property, "1", now);
    property.set_side_fault(Some("gone".to_owned()));
    let twin = property.to_report(now).unwrap();
    assert_eq!((twin.value.as_str(), twin.fault.as_deref()), ("1", Some("gone")));
    property.reported(twin, now);
    assert_eq!(property.to_report(now), None);
    property.has_no_value("no sensor".to_owned(), EPOCH);
    assert_eq!(property.to_report(now).unwrap().fault.as_deref(), Some("no sensor"), "which says more");
    read(&mut property, "1", now);
    property.set_side_fault(None);
    assert_eq!(property.to_report(now).unwrap().fault, None);
}

#[test]
fn of_what_is_only_pushed_no_value_is_told_and_what_is_wrong_is() {
    let now = Moment::default();
    let mut property = PropertyState::new(&PropertyPlan { is_told: false, ..plan("") }, now);
    read(&mut property, "1", now);
    assert_eq!((property.to_report(now), property.report_due(now)), (None, None));
    property.set_side_fault(Some("gone".to_owned()));
    let twin = property.to_report(now).unwrap();
    assert_eq!((twin.value.as_str(), twin.fault.as_deref()), ("", Some("gone")));
    property.reported(twin, now);
    read(&mut property, "2", now + CYCLE);
    assert_eq!((property.to_report(now + CYCLE), property.report_due(now + CYCLE)), (None, None));
    property.set_side_fault(None);
    assert_eq!(property.to_report(now + CYCLE).unwrap().fault, None);
    property.could_not_be_read("silent".to_owned(), CYCLE, now + CYCLE * 3, EPOCH);
    assert_eq!(property.to_report(now + CYCLE * 3).unwrap().fault.as_deref(), Some("silent"));
}
