use std::collections::BTreeMap;

use contract::devicerules::PropertyFact;
use contract::ids::DeviceName;

use super::*;

fn at(seconds: u64) -> Moment {
    Moment(Duration::from_secs(seconds))
}

fn facts(value: Option<&str>, is_stale: bool, presence: Presence) -> DeviceFacts {
    let fact = PropertyFact { value: value.map(str::to_owned), is_stale };
    DeviceFacts {
        device: DeviceName::parse("d", "gantry").unwrap(),
        uid: "u".into(),
        rules: None,
        presence,
        properties: BTreeMap::from([("heat".to_owned(), fact)]),
        version: 1,
    }
}

fn reading(value: &str) -> DeviceFacts {
    facts(Some(value), false, Presence::Unsaid)
}

fn rule(when: &str) -> EdgeRule {
    let text = format!("[{{name: a, when: {{{when}}}, then: [{{publish: {{topic: t}}}}]}}]");
    crd::parse_edge_rules(&text).unwrap().remove(0)
}

/// Feeds readings, each with its second, and answers what became of the rule.
fn run(rule: &EdgeRule, state: &mut RuleState, readings: &[(u64, DeviceFacts)]) -> Vec<(u64, Step)> {
    let steps = readings
        .iter()
        .map(|(second, facts)| (*second, state.step(rule, judge(&rule.condition, facts), at(*second)).0));
    steps.filter(|(_, step)| *step != Step::Stay).collect()
}

#[test]
fn between_its_limits_a_rule_stays_as_it_is() {
    let hot = rule("property: heat, above: 80, clear: 75");
    let readings: Vec<_> = [(1, "80"), (2, "80.5"), (3, "76"), (4, "81"), (5, "75"), (6, "80"), (7, "81")]
        .map(|(second, value)| (second, reading(value)))
        .into();
    let steps = run(&hot, &mut RuleState::default(), &readings);
    assert_eq!(steps, [(2, Step::Trigger), (5, Step::Clear), (7, Step::Trigger)]);
    let cold = rule("property: heat, below: 5, clear: 8");
    let readings: Vec<_> =
        [(1, "5"), (2, "4"), (3, "7"), (4, "8")].map(|(second, value)| (second, reading(value))).into();
    assert_eq!(run(&cold, &mut RuleState::default(), &readings), [(2, Step::Trigger), (4, Step::Clear)]);
    let off = rule("property: heat, equals: off");
    let readings: Vec<_> =
        [(1, "on"), (2, "off"), (3, "on")].map(|(second, value)| (second, reading(value))).into();
    assert_eq!(run(&off, &mut RuleState::default(), &readings), [(2, Step::Trigger), (3, Step::Clear)]);
}

#[test]
fn a_condition_holds_for_its_time_without_a_break() {
    let hot = rule("property: heat, above: 80, clear: 75, for: 10s");
    let mut state = RuleState::default();
    let holds = |state: &mut RuleState, second| state.step(&hot, Verdict::Holds, at(second));
    assert_eq!(holds(&mut state, 0), (Step::Stay, Some(at(10))), "it says when it is to be asked again");
    assert_eq!(holds(&mut state, 9).0, Step::Stay);
    assert_eq!(state.step(&hot, Verdict::Open, at(9)), (Step::Stay, None), "between the limits is a break");
    assert_eq!(holds(&mut state, 10), (Step::Stay, Some(at(20))));
    assert_eq!(holds(&mut state, 20).0, Step::Trigger);
    assert_eq!(holds(&mut state, 40), (Step::Stay, None), "once");
}

#[test]
fn what_is_not_known_ends_nothing_and_begins_nothing() {
    let hot = rule("property: heat, above: 80, clear: 75, for: 2s");
    let unknown = [
        facts(None, false, Presence::Offline),
        facts(Some("99"), true, Presence::Online),
        reading("no reading"),
        reading("inf"),
        DeviceFacts { properties: BTreeMap::new(), ..reading("99") },
    ];
    for facts in unknown {
        assert_eq!(judge(&hot.condition, &facts), Verdict::Open, "{facts:?}");
        let mut triggered = RuleState::restored(true);
        assert_eq!(triggered.step(&hot, judge(&hot.condition, &facts), at(9)).0, Step::Stay);
    }
    let mut state = RuleState::default();
    let readings = [
        (0, reading("81")),
        (1, facts(Some("81"), true, Presence::Online)),
        (2, reading("81")),
        (4, reading("81")),
    ];
    assert_eq!(run(&hot, &mut state, &readings), [(4, Step::Trigger)], "a stale value is a break");
}

#[test]
fn stale_and_offline_trigger_and_end() {
    let stale = rule("property: heat, stale: true");
    let readings = [
        (0, facts(None, false, Presence::Unsaid)),
        (1, reading("1")),
        (2, facts(Some("1"), true, Presence::Unsaid)),
        (3, facts(None, false, Presence::Unsaid)),
        (4, reading("1")),
    ];
    assert_eq!(run(&stale, &mut RuleState::default(), &readings), [(2, Step::Trigger), (4, Step::Clear)]);
    let offline = rule("offline: true, for: 30s");
    let mut state = RuleState::default();
    let of = |presence| facts(None, false, presence);
    let readings = [
        (0, of(Presence::Unsaid)),
        (50, of(Presence::Unsaid)),
        (51, of(Presence::Offline)),
        (60, of(Presence::Online)),
        (61, of(Presence::Offline)),
        (90, of(Presence::Offline)),
        (91, of(Presence::Offline)),
        (92, of(Presence::Unsaid)),
        (93, of(Presence::Online)),
    ];
    assert_eq!(run(&offline, &mut state, &readings), [(91, Step::Trigger), (93, Step::Clear)]);
}

#[test]
fn after_a_restart_a_rule_that_has_triggered_does_not_trigger_again_and_still_ends() {
    let hot = rule("property: heat, above: 80, clear: 75");
    let mut state = RuleState::restored(true);
    let readings = [(0, facts(None, false, Presence::Unsaid)), (1, reading("85")), (2, reading("74"))];
    assert_eq!(run(&hot, &mut state, &readings), [(2, Step::Clear)]);
}

#[test]
fn a_circle_goes_round_at_a_bounded_rate_and_ends_with_what_is_true() {
    // `then` ends by way of other devices what the rule watches, `otherwise` begins it again, and all of them follow at once.
    let circle = rule("property: heat, equals: on");
    let (mut state, mut value, mut changes, mut held_back) = (RuleState::default(), "on", 0, 0);
    for millis in 0..100_000 {
        let now = Moment(Duration::from_millis(millis));
        match state.step(&circle, judge(&circle.condition, &reading(value)), now).0 {
            Step::Trigger => (value, changes) = ("off", changes + 1),
            Step::Clear => (value, changes) = ("on", changes + 1),
            Step::HeldBack => held_back += 1,
            Step::Stay | Step::Freed => {}
        }
    }
    assert_eq!((changes, held_back), (6 + 9, 1), "six at once, one in 10 s, and told once");
    // Somebody ends the circle: what is true is taken over, and in a while the rule is free.
    let (mut now, mut steps) = (at(100), Vec::new());
    loop {
        let (step, again) = state.step(&circle, Verdict::Over, now);
        steps.extend((step != Step::Stay).then_some(step));
        match again {
            Some(again) => now = again,
            None => break,
        }
    }
    assert_eq!((steps, now), (vec![Step::Clear, Step::Freed], at(160)));
    assert!(!state.is_triggered && !state.is_held_back);
}
