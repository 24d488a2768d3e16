use contract::devicerules::{Presence, PropertyFact};

use super::*;
use crate::turns::AT_ONCE_OF_NAMESPACE;

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
    let (_, said) = set.unsaid().unwrap();
    let words: Vec<(&str, &str)> = said.iter().map(|one| (one.kind, one.reason)).collect();
    assert_eq!(words, [(RULES_APPLIED, ACTION_FAILED), (RULES_QUIET, TRIGGERED)]);
    assert_eq!(said[0].message, "rule `cool`: set `run` of `fan`: no such device");
    set.was_said(&id(), said);
    assert_eq!(set.unsaid(), None);
    set.take(facts(2, Some(RULES), "75"));
    assert_eq!(kinds(&set.judge(at(3))), [("cool", HappeningKind::Cleared)]);
    assert_eq!(set.unsaid().unwrap().1, [], "both are mended");
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
    assert!(set.unsaid().is_some(), "and say again what they are");
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
    assert_eq!((set.counts().0, rows(&mut set).len(), set.unsaid()), (0, 0, None));
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
    let (_, said) = set.unsaid().unwrap();
    assert!(said.iter().any(|one| one.reason == HELD_BACK && one.message.contains("undo each other")));
}

#[test]
fn what_gives_up_says_so() {
    let mut set = RuleSet::default();
    set.take(facts(1, Some(RULES), "81"));
    set.judge(at(0));
    let mut gave_up = None;
    for second in 0..100 {
        set.judge(at(second));
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

/// Facts of a device of a namespace, with 16 rules that do `action` above 80.
fn busy(namespace: &str, device: usize, version: u64, action: &str, heat: &str) -> DeviceFacts {
    let rule = |n| format!("{{name: r{n}, when: {{property: heat, above: 80}}, then: [{action}]}}");
    let rules = format!("[{}]", (0..16).map(rule).collect::<Vec<_>>().join(", "));
    let device = DeviceName::parse(namespace, &format!("gantry-{device}")).unwrap();
    DeviceFacts { device, ..facts(version, Some(&rules), heat) }
}

/// One look, as the actor has it; who is tried now.
fn look(set: &mut RuleSet, now: Moment) -> Vec<(RuleKey, u64)> {
    set.judge(now);
    set.writes();
    set.was_kept();
    let tried = set.attempts(now).into_iter().map(|attempt| (attempt.key, attempt.number)).collect();
    while let Some((device, said)) = set.unsaid() {
        set.was_said(&device, said);
    }
    set.next();
    tried
}

#[test]
fn a_device_that_changes_all_the_time_costs_the_others_nothing() {
    let mut set = RuleSet::default();
    let publish = "{publish: {topic: t}}";
    set.take_all((0..312).map(|device| busy("d", device, 1, publish, "20")).collect());
    look(&mut set, at(0));
    assert_eq!(set.counts(), (312, 4992));
    let before = set.looked_at();
    for version in 2..1002 {
        let heat = if version % 2 == 0 { "81" } else { "20" };
        set.take(busy("d", 7, version, publish, heat));
        for (key, number) in look(&mut set, at(version)) {
            set.acted(key, number, ActionsOutcome { done: vec![0], failed: vec![] }, at(version));
        }
    }
    let looks = set.looked_at() - before;
    // One when it is judged, one for each rule that acted, and what follows of them: none of the 311 others.
    assert!(looks < 1000 * 20, "{looks} looks for 1000 updates of one device");
    let quiet = set.looked_at();
    (0..1000).for_each(|second| assert!(look(&mut set, at(2000 + second)).len() <= 16));
    assert!(set.looked_at() - quiet < 100, "nothing changes, and nobody is looked at");
}

#[test]
fn rules_of_a_namespace_that_get_no_answer_hold_up_nobody_else() {
    let mut set = RuleSet::default();
    let call = "{call: {url: 'http://10.255.255.1/'}}";
    let publish = "{publish: {topic: t}}";
    set.take_all((0..300).map(|device| busy("loud", device, 1, call, "81")).collect());
    let mut tried = look(&mut set, at(0));
    assert_eq!(tried.len(), AT_ONCE_OF_NAMESPACE, "none of them comes back");
    assert_eq!(set.load(), (4800 - AT_ONCE_OF_NAMESPACE, AT_ONCE_OF_NAMESPACE));
    assert_eq!(set.next(), None, "who waits for a turn waits for no time");
    // Another namespace's call, and what of the same one calls nothing.
    set.take(busy("quiet", 0, 1, call, "81"));
    set.take(busy("loud", 300, 1, publish, "81"));
    let others = look(&mut set, at(1));
    let of = |namespace: &str, reach_of: &str| {
        let of = |(device, _): &RuleKey| device.namespace == namespace && device.name == reach_of;
        others.iter().filter(|(key, _)| of(key)).count()
    };
    assert_eq!((of("quiet", "gantry-0"), of("loud", "gantry-300")), (8, 8));
    // What waits is neither lost nor tried twice, and is in the store as not done.
    let mut seen = BTreeSet::new();
    tried.extend(others);
    let mut second = 1;
    while !tried.is_empty() {
        second += 1;
        for (key, number) in std::mem::take(&mut tried) {
            let done = ActionsOutcome { done: vec![0], failed: vec![] };
            set.acted(key.clone(), number, done, at(second));
            assert!(seen.insert(key), "tried twice");
        }
        tried = look(&mut set, at(second));
    }
    assert_eq!((seen.len(), set.load()), (302 * 16, (0, 0)));
}

#[test]
fn what_waits_for_its_turn_outlives_a_restart_and_goes_with_its_device() {
    let mut set = RuleSet::default();
    let call = "{call: {url: 'http://10.255.255.1/'}}";
    set.take_all(vec![busy("loud", 0, 1, call, "81")]);
    set.judge(at(0));
    let kept = rows(&mut set);
    assert!(kept.len() == 16 && kept.values().all(|row| row.due == [0]));
    assert_eq!(set.attempts(at(0)).len(), 8);
    let mut again = RuleSet::restored(kept);
    again.take_all(vec![busy("loud", 0, 1, call, "81")]);
    let tried = look(&mut again, at(0));
    assert_eq!((tried.len(), again.load()), (8, (8, 8)), "nobody knows whether it was done");
    again.take_all(Vec::new());
    assert_eq!(again.load(), (0, 8), "what is under way keeps its turns until it is over");
    for (key, number) in tried {
        again.acted(key, number, ActionsOutcome::default(), at(1));
    }
    assert_eq!(again.load(), (0, 0));
}
