use contract::devicerules::{Presence, PropertyFact};

use super::*;

const RULES: &str = "[{name: cool, when: {property: heat, above: 80, clear: 75}, then: [{set: {device: fan, property: run, value: 1}}]}, {name: lost, when: {offline: true}, then: [{publish: {topic: alarm}}]}]";

fn at(seconds: u64) -> Moment {
    Moment(Duration::from_secs(seconds))
}

fn id() -> DeviceName {
    DeviceName::parse("d", "gantry").unwrap()
}

fn key(rule: &str) -> RuleKey {
    (id(), rule.to_owned())
}

fn facts(version: u64, rules: Option<&str>, heat: &str) -> DeviceFacts {
    let fact = PropertyFact { value: Some(heat.into()), is_stale: false };
    DeviceFacts {
        device: id(),
        uid: "u".into(),
        rules: rules.map(Arc::from),
        presence: Presence::Online,
        properties: [("heat".to_owned(), fact)].into(),
        version,
    }
}

fn kinds(happenings: &[RuleHappening]) -> Vec<(&str, HappeningKind)> {
    happenings.iter().map(|one| (one.rule.as_str(), one.kind)).collect()
}

/// The rows as a restart would find them.
fn rows(set: &mut RuleSet) -> BTreeMap<RuleKey, KeptRule> {
    let folder = tempfile::tempdir().unwrap();
    let store =
        edge_store::Store::open(folder.path().join("e.db"), edge_store::Options::new([1; 16])).unwrap();
    store.commit_blocking(set.writes()).unwrap();
    set.was_kept();
    store::load(&store).unwrap()
}

#[test]
fn a_rule_triggers_acts_says_so_and_ends() {
    let mut set = RuleSet::default();
    set.take(facts(1, Some(RULES), "81"));
    let happenings = set.judge(at(1));
    assert_eq!(kinds(&happenings), [("cool", HappeningKind::Triggered)]);
    assert_eq!(happenings[0].message, "rule `cool`: `heat` is above 80, it is `81`");
    let attempts = set.attempts(at(1));
    assert_eq!((attempts.len(), attempts[0].actions.len(), set.attempts(at(1)).len()), (1, 1, 0));
    let document = r#"{"condition":"`heat` is above 80","device":"d/gantry","property":"heat","rule":"cool","state":"triggered","value":"81"}"#;
    assert_eq!(
        serde_json::from_str::<serde_json::Value>(&attempts[0].document).unwrap(),
        serde_json::from_str::<serde_json::Value>(document).unwrap()
    );
    let failed = ActionsOutcome { done: vec![], failed: vec![(0, "no such device".into())] };
    assert_eq!(set.acted(key("cool"), attempts[0].number, failed, at(1)), None, "it is tried again");
    let said = set.unsaid();
    let words: Vec<(&str, &str)> = said[0].1.iter().map(|one| (one.kind, one.reason)).collect();
    assert_eq!(words, [(RULES_APPLIED, ACTION_FAILED), (RULES_QUIET, TRIGGERED)]);
    assert_eq!(said[0].1[0].message, "rule `cool`: set `run` of `fan`: no such device");
    set.was_said(&id(), said[0].1.clone());
    assert!(set.unsaid().is_empty());
    set.take(facts(2, Some(RULES), "75"));
    assert_eq!(kinds(&set.judge(at(3))), [("cool", HappeningKind::Cleared)]);
    assert_eq!(set.unsaid()[0].1, [], "both are mended");
    assert!(set.attempts(at(3)).is_empty(), "it has no `otherwise`");
}

#[test]
fn an_older_word_counts_no_more_and_a_life_of_the_twins_begins_anew() {
    let mut set = RuleSet::default();
    set.take(facts(7, Some(RULES), "20"));
    set.judge(at(1));
    set.take(facts(6, Some(RULES), "99"));
    assert!(set.judge(at(1)).is_empty());
    set.take_all(vec![facts(1, Some(RULES), "99")]);
    assert_eq!(kinds(&set.judge(at(2))), [("cool", HappeningKind::Triggered)]);
    set.take_all(vec![facts(1, Some(RULES), "99")]);
    assert!(set.judge(at(3)).is_empty(), "the rules went on");
    assert_eq!(set.unsaid().len(), 1, "and say again what they are");
    set.take_all(Vec::new());
    assert_eq!((set.counts(), rows(&mut set).len()), ((0, 0), 0));
}

#[test]
fn a_restart_does_not_trigger_again_and_does_what_was_not_done() {
    let mut set = RuleSet::default();
    set.take(facts(1, Some(RULES), "81"));
    set.judge(at(1));
    let kept = rows(&mut set);
    assert!(
        kept[&key("cool")].is_triggered && kept[&key("cool")].due == [0] && !kept[&key("lost")].is_triggered
    );
    let mut again = RuleSet::restored(kept.clone());
    again.take_all(vec![facts(1, Some(RULES), "81")]);
    assert!(again.judge(at(0)).is_empty(), "it has triggered");
    assert_eq!(again.attempts(at(0)).len(), 1, "nobody knows whether the fan was told");
    assert!(again.writes().is_empty(), "nothing is new");
    // Away with the annotation, while edgecore was away.
    let mut without = RuleSet::restored(kept.clone());
    without.take_all(Vec::new());
    assert_eq!(without.writes().len(), 2, "its rows go");
    // Another device of that name.
    let mut other = RuleSet::restored(kept);
    other.take_all(vec![DeviceFacts { uid: "v".into(), ..facts(1, Some(RULES), "81") }]);
    assert_eq!(kinds(&other.judge(at(0))), [("cool", HappeningKind::Triggered)]);
}

#[test]
fn rules_that_are_edited_begin_anew_and_the_others_go_on() {
    let mut set = RuleSet::default();
    set.take(facts(1, Some(RULES), "81"));
    set.judge(at(1));
    let edited = RULES.replace("topic: alarm", "topic: alert");
    set.take(facts(2, Some(&edited), "81"));
    assert!(set.judge(at(2)).is_empty(), "cool is as it was");
    let edited = edited.replace("above: 80", "above: 79").replace("name: lost", "name: gone");
    set.take(facts(3, Some(&edited), "81"));
    assert_eq!(kinds(&set.judge(at(3))), [("cool", HappeningKind::Triggered)]);
    let kept = rows(&mut set);
    assert_eq!(kept.keys().map(|(_, rule)| rule.as_str()).collect::<Vec<_>>(), ["cool", "gone"]);
    set.take(facts(4, None, "81"));
    assert_eq!((set.counts().0, rows(&mut set).len(), set.unsaid().len()), (0, 0, 0));
}

#[test]
fn a_rule_that_goes_round_is_held_back_and_its_device_has_a_bounded_number_of_events() {
    let mut set = RuleSet::default();
    let mut told = 0;
    for millis in 0..3_600_000_u64 / 100 {
        let now = Moment(Duration::from_millis(millis * 100));
        let heat = if millis % 2 == 0 { "81" } else { "70" };
        set.take(facts(millis + 1, Some(RULES), heat));
        told += set.judge(now).iter().filter(|happening| happening.is_told).count();
    }
    assert_eq!(told, 25 + 11, "in an hour");
    let said = set.unsaid();
    assert!(said[0].1.iter().any(|one| one.reason == HELD_BACK && one.message.contains("undo each other")));
}

#[test]
fn what_gives_up_says_so() {
    let mut set = RuleSet::default();
    set.take(facts(1, Some(RULES), "81"));
    set.judge(at(0));
    let mut gave_up = None;
    for second in 0..100 {
        for attempt in set.attempts(at(second)) {
            let failed = ActionsOutcome { done: vec![], failed: vec![(0, "refused".into())] };
            gave_up = gave_up.or(set.acted(attempt.key, attempt.number, failed, at(second)));
        }
    }
    let gave_up = gave_up.unwrap();
    assert_eq!(gave_up.kind, HappeningKind::ActionFailed);
    assert_eq!(gave_up.message, "rule `cool` gives up: set `run` of `fan`: refused");
    assert_eq!(set.next(), None);
}
