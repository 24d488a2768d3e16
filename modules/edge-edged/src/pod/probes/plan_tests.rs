use super::*;
use serde_json::json;

fn at(millis: u64) -> Moment {
    Moment(Duration::from_millis(millis))
}

fn timing(probe: serde_json::Value) -> Timing {
    Timing::of(&serde_json::from_value(probe).unwrap())
}

fn new(kind: ProbeKind, probe: serde_json::Value) -> ProbePlan {
    ProbePlan::new(kind, timing(probe), Duration::ZERO, at(0))
}

fn running(since: u64) -> Target {
    Target { id: "c-0".into(), since: Some(at(since)), started: true, ..Target::default() }
}

/// When the probes of the next `seconds` are made, each of which takes no time.
fn probes(plan: &mut ProbePlan, target: &Target, from: u64, seconds: u64) -> Vec<u64> {
    let (mut now, mut made) = (at(from), Vec::new());
    let end = at(from + seconds * 1000);
    while now < end {
        match plan.next(target, now) {
            Step::Probe => made.push(u64::try_from(now.0.as_millis()).unwrap()),
            Step::Until(next) => now = next,
            Step::Wait => break,
        }
    }
    made
}

#[test]
fn the_defaults_are_those_of_kubernetes() {
    let seconds = Duration::from_secs;
    let usual = Timing {
        initial_delay: seconds(0),
        period: seconds(10),
        timeout: seconds(1),
        success: 1,
        failure: 3,
    };
    assert_eq!(timing(json!({})), usual);
    assert_eq!(timing(json!({"periodSeconds": 0, "failureThreshold": -1, "timeoutSeconds": 0})), usual);
}

#[test]
fn ticks_are_a_period_apart_from_before_the_container_starts() {
    let mut plan = new(ProbeKind::Liveness, json!({"periodSeconds": 10}));
    assert_eq!(plan.next(&Target::default(), at(0)), Step::Wait);
    assert_eq!(probes(&mut plan, &running(3200), 3200, 30), [10_000, 20_000, 30_000]);
    // Another container, the same ticks.
    let next = Target { id: "c-1".into(), ..running(34_000) };
    assert_eq!(probes(&mut plan, &next, 34_000, 20), [40_000, 50_000]);
}

#[test]
fn readiness_is_asked_as_soon_as_the_container_has_started() {
    let mut plan = new(ProbeKind::Readiness, json!({"periodSeconds": 10}));
    assert_eq!(plan.next(&Target::default(), at(0)), Step::Wait);
    let starting = Target { started: false, ..running(3200) };
    assert_eq!(plan.next(&starting, at(3200)), Step::Wait, "a startup probe is before it");
    assert_eq!(probes(&mut plan, &running(3200), 7300, 25), [7300, 17_300, 27_300]);
}

#[test]
fn the_initial_delay_is_waited_for_to_the_next_tick() {
    let probe = json!({"periodSeconds": 10, "initialDelaySeconds": 5});
    let mut plan = new(ProbeKind::Readiness, probe.clone());
    assert_eq!(probes(&mut plan, &running(3200), 3200, 25), [13_200, 23_200]);
    let mut plan = new(ProbeKind::Liveness, probe);
    plan.next(&Target::default(), at(0));
    assert_eq!(probes(&mut plan, &running(4000), 4000, 20), [10_000, 20_000]);
    let mut plan = new(ProbeKind::Liveness, json!({"periodSeconds": 10, "initialDelaySeconds": 7}));
    plan.next(&Target::default(), at(0));
    assert_eq!(probes(&mut plan, &running(4000), 4000, 20), [20_000]);
}

#[test]
fn a_probe_that_takes_long_is_followed_by_one_at_once_and_not_by_all_it_missed() {
    let mut plan = new(ProbeKind::Liveness, json!({"periodSeconds": 1}));
    assert_eq!(plan.next(&running(0), at(0)), Step::Probe);
    assert_eq!(plan.next(&running(0), at(3500)), Step::Probe);
    assert_eq!(plan.next(&running(0), at(3500)), Step::Until(at(4000)));
}

#[test]
fn the_outcome_flips_when_a_run_of_equal_ones_is_long_enough() {
    use Verdict::{Failure, Success};
    let mut plan = new(ProbeKind::Readiness, json!({"successThreshold": 2, "failureThreshold": 3}));
    assert_eq!(plan.next(&running(0), at(0)), Step::Probe);
    let outcomes =
        [Success, Failure, Success, Success, Failure, Failure, Success, Failure, Failure, Failure, Success];
    let said: Vec<Option<Verdict>> =
        outcomes.into_iter().map(|outcome| plan.probed("c-0", outcome)).collect();
    let mut want = [None; 11];
    (want[3], want[9]) = (Some(Success), Some(Failure));
    assert_eq!(said, want);
    assert_eq!(plan.probed("another", Success), None);
    // Another container begins anew.
    let mut plan = new(ProbeKind::Liveness, json!({"failureThreshold": 2}));
    plan.next(&running(0), at(0));
    assert_eq!(plan.probed("c-0", Failure), None);
    plan.next(&Target { id: "c-1".into(), ..running(0) }, at(10_000));
    assert_eq!(plan.probed("c-1", Failure), None);
    assert_eq!(plan.probed("c-1", Failure), Some(Failure));
}

#[test]
fn a_final_outcome_holds_until_there_is_another_container() {
    let starting = Target { started: false, ..running(0) };
    let mut startup = new(ProbeKind::Startup, json!({"failureThreshold": 1}));
    assert_eq!(startup.next(&starting, at(0)), Step::Probe);
    assert_eq!(startup.probed("c-0", Verdict::Failure), Some(Verdict::Failure));
    assert_eq!(startup.next(&starting, at(10_000)), Step::Wait);
    let next = Target { id: "c-1".into(), since: Some(at(11_000)), ..starting };
    assert_eq!(startup.next(&next, at(11_000)), Step::Until(at(20_000)));

    let mut liveness = new(ProbeKind::Liveness, json!({"failureThreshold": 1}));
    assert_eq!(liveness.next(&running(0), at(0)), Step::Probe);
    assert_eq!(liveness.probed("c-0", Verdict::Success), Some(Verdict::Success));
    assert_eq!(liveness.next(&running(0), at(10_000)), Step::Probe);
    assert_eq!(liveness.probed("c-0", Verdict::Failure), Some(Verdict::Failure));
    assert_eq!(liveness.next(&running(0), at(20_000)), Step::Wait);
}

#[test]
fn startup_is_before_the_others_and_only_readiness_goes_on_in_a_pod_that_ends() {
    let starting = Target { started: false, ..running(0) };
    for (kind, at_start, later, ending) in [
        (ProbeKind::Startup, true, false, false),
        (ProbeKind::Liveness, false, true, false),
        (ProbeKind::Readiness, false, true, true),
    ] {
        let asks = |target: &Target| new(kind, json!({})).next(target, at(0)) == Step::Probe;
        assert_eq!(asks(&starting), at_start, "{kind:?}");
        assert_eq!(asks(&running(0)), later, "{kind:?}");
        assert_eq!(asks(&Target { ending: true, ..running(0) }), ending, "{kind:?}");
        assert!(!asks(&Target { ending: true, ..starting.clone() }), "{kind:?}");
        assert!(!asks(&Target { since: None, ..running(0) }), "{kind:?}: one that does not run");
    }
}

#[test]
fn those_of_a_node_that_has_just_been_started_are_spread_over_a_period() {
    let spread = Duration::from_millis(4321);
    let known = Target { known_before: true, ready: false, ..running(0) };
    for kind in [ProbeKind::Liveness, ProbeKind::Readiness] {
        let mut plan = ProbePlan::new(kind, timing(json!({})), spread, at(0));
        assert_eq!(probes(&mut plan, &known, 0, 20), [4321, 14_321]);
    }
}
