use super::*;
use crate::runs::plan::tests::{after, uids};

fn at(seconds: u64) -> Moment {
    Moment(Duration::from_secs(seconds))
}

/// Pods that wait, all of those that there are.
fn pods(wait: &[String]) -> Pods {
    Pods { wait: wait.to_vec(), there: wait.iter().cloned().collect(), run: BTreeSet::new(), are_all: true }
}

const FAULTY: [(&str, u64); 4] = [("a", 10), ("a", 20), ("a", 30), ("a", 40)];

#[test]
fn the_cloud_speaks_first_and_those_who_are_suspected_begin_by_themselves() {
    let mut record = after(&FAULTY);
    (record.suspects, record.watch) = (uids(&["b", "c"]), 20);
    let wait = uids(&["a", "b", "c", "d", "e"]);
    let mut start = CarefulStart::of(&record, at(100));
    let held = start.release(&mut record, &pods(&wait), at(100));
    assert_eq!((held.held.len(), held.begun.len(), held.again), (5, 0, Some(at(220))));
    assert!(start.link_is_up(at(130)) && !start.link_is_up(at(131)));
    assert_eq!(start.release(&mut record, &pods(&wait), at(139)).again, Some(at(140)));
    let all = pods(&wait);
    let (mut rest, mut groups, mut now) = (wait, Vec::new(), at(140));
    loop {
        let Release { held, begun, again } =
            start.release(&mut record, &Pods { wait: rest.clone(), ..all.clone() }, now);
        rest.retain(|uid| held.contains(uid));
        if !begun.is_empty() {
            groups.push((now.0.as_secs(), begun));
        }
        if rest.is_empty() {
            assert_eq!(again, Some(at(700)), "it is looked at when it is over");
            break;
        }
        now = again.unwrap();
    }
    let wanted = [(140, uids(&["b"])), (160, uids(&["c"])), (180, uids(&["a"])), (185, uids(&["d", "e"]))];
    assert_eq!(groups, wanted);
    assert!(record.suspects.is_empty());
    assert_eq!(record.begun, uids(&["b", "c", "a", "d", "e"]));
    assert_eq!(
        start.release(&mut record, &pods(&uids(&["a"])), now).held.len(),
        0,
        "whatever else it waits for"
    );
    // Who comes later is one more group; and after ten minutes there is no care any more.
    let late = uids(&["f", "g", "h", "i", "j"]);
    assert_eq!(start.release(&mut record, &pods(&late), at(190)).held.len(), 1);
    assert!(start.needs_care());
    assert_eq!(start.release(&mut record, &pods(&late), at(700)), Release::default());
    assert!(!start.needs_care());
}

#[test]
fn without_a_cloud_the_pods_begin_after_two_minutes_and_without_faults_at_once() {
    let mut record = after(&FAULTY);
    let mut start = CarefulStart::of(&record, at(0));
    assert!(start.release(&mut record, &pods(&uids(&["a"])), at(119)).begun.is_empty());
    assert_eq!(start.release(&mut record, &pods(&uids(&["a"])), at(120)).begun, ["a"]);
    let mut usual = after(&FAULTY[..3]);
    let mut start = CarefulStart::of(&usual, at(0));
    assert_eq!(start.release(&mut usual, &pods(&uids(&["a"])), at(0)), Release::default());
}

/// What comes of a node with these pods, some of which end EdgeCore so many seconds after they are begun: whom it holds at the end of
/// each run of its life, and when those began.
struct Life<'a> {
    pods: Vec<String>,
    culprits: &'a [(&'a str, u64)],
    record: RunRecord,
    clock: u64,
    /// Somebody else ends each run after so many seconds.
    killed_after: Option<u64>,
    /// Pods that are still to come, one so many seconds after the begin of each run.
    come: (usize, u64),
    /// Those of which something runs: what was begun outlives the run.
    run: Option<BTreeSet<String>>,
}

impl<'a> Life<'a> {
    fn of(pods: usize, culprits: &'a [(&'a str, u64)]) -> Life<'a> {
        let pods = (0..pods).map(|pod| format!("p{pod:02}")).collect();
        Life {
            pods,
            culprits,
            record: after(&FAULTY),
            clock: 40,
            killed_after: None,
            come: (0, 0),
            run: None,
        }
    }

    /// One run: how many seconds it lasts, unless it is well for two hours, and whom it holds at its end.
    fn run(&mut self) -> (Option<u64>, BTreeSet<String>) {
        let mut start = CarefulStart::of(&self.record, at(self.clock));
        start.link_is_up(at(self.clock));
        let (mut wait, mut now) = (self.pods.clone(), self.clock);
        let mut ends = self.killed_after.map(|after| now + after);
        let two_hours = self.clock + 7200;
        let mut comes = (self.come.0 > 0).then(|| now + self.come.1);
        loop {
            if comes.is_some_and(|at| at <= now) {
                comes = None;
                self.come.0 -= 1;
                let pod = format!("n{}", self.come.0);
                self.pods.push(pod.clone());
                wait.push(pod);
            }
            let there = Pods { run: self.run.clone().unwrap_or_default(), ..pods(&wait) };
            let Release { held, again, .. } = start.release(&mut self.record, &there, at(now));
            for uid in wait.iter().filter(|uid| !held.contains(*uid)) {
                let end = self.culprits.iter().find(|(own, _)| own == uid).map(|(_, after)| now + after);
                ends = ends.into_iter().chain(end).min();
            }
            if let Some(run) = &mut self.run {
                run.extend(wait.iter().filter(|uid| !held.contains(*uid)).cloned());
            }
            wait.retain(|uid| held.contains(uid));
            let again = again.map(|again| again.0.as_secs());
            let next = again.into_iter().chain(comes).min().unwrap_or(two_hours);
            let over = ends.filter(|end| *end <= next.min(two_hours));
            if let Some(end) = over {
                let lasted = end - self.clock;
                // systemd begins it anew after two seconds.
                self.clock = end + 2;
                self.record = RunRecord::begin(Some(self.record.clone()), "a", self.clock);
                return (Some(lasted), held);
            }
            if next >= two_hours {
                return (None, held);
            }
            now = next;
        }
    }
}

#[test]
fn whoever_ends_edgecore_is_found_and_all_others_run() {
    let cases: [(usize, &[(&str, u64)]); 8] = [
        (3, &[("p00", 20)]),
        (3, &[("p00", 1)]),
        (3, &[("p01", 200)]),
        (1, &[("p00", 30)]),
        (110, &[("p57", 40)]),
        (110, &[("p109", 3)]),
        (20, &[("p03", 30), ("p11", 30)]),
        (20, &[("p03", 1), ("p11", 60)]),
    ];
    // Nobody new comes, or one in each of the first runs.
    let cases = cases
        .iter()
        .flat_map(|(pods, culprits)| [(0, 0), (4, 3), (4, 33), (4, 90)].map(|come| (*pods, *culprits, come)));
    // What was begun ends with EdgeCore, or goes on without it.
    for ((pods, culprits, come), goes_on) in cases.flat_map(|case| [(case, false), (case, true)]) {
        let run = goes_on.then(BTreeSet::new);
        let mut life = Life { come, run, ..Life::of(pods, culprits) };
        let named: BTreeSet<String> = culprits.iter().map(|(uid, _)| (*uid).to_owned()).collect();
        let mut runs = 1;
        while !life.record.culprits.keys().eq(named.iter()) {
            let innocent = life.record.culprits.keys().find(|uid| !named.contains(*uid));
            assert_eq!(innocent, None, "{pods} {culprits:?} after {runs} runs");
            assert!(life.run().0.is_some(), "{pods} {culprits:?}: it was well after {runs} runs");
            runs += 1;
            assert!(runs < 24, "{pods} {culprits:?}: {:?}", life.record);
        }
        // From now on it ends for none but those that are tried again.
        let (lasted, held) = life.run();
        assert!(lasted.is_some_and(|lasted| lasted >= SHORT), "{pods} {culprits:?}: {lasted:?}");
        assert!(held.is_subset(&named), "{pods} {culprits:?}: {held:?}");
    }
}

/// A run with care that has heard the cloud at second 0, and in which these wait at its begin.
fn heard(record: &mut RunRecord, wait: &[&str]) -> CarefulStart {
    let mut start = CarefulStart::of(record, at(0));
    start.link_is_up(at(0));
    let held = start.release(record, &pods(&uids(wait)), at(0));
    assert_eq!((held.begun.len(), held.again), (0, Some(at(10))));
    start
}

/// These wait, and those run.
fn beside(wait: &[&str], run: &[&str]) -> Pods {
    Pods { wait: uids(wait), ..pods(&uids(&[wait, run].concat())) }
}

#[test]
fn a_pod_that_no_run_has_begun_waits_for_no_half_and_is_in_question_with_the_one_beside_it() {
    let mut record = after(&FAULTY);
    (record.suspects, record.watch) = (uids(&["a", "b"]), 200);
    let mut start = heard(&mut record, &["a", "b", "o"]);
    assert_eq!(start.release(&mut record, &beside(&["a", "b", "o"], &[]), at(10)).begun, ["a"]);
    let begun = start.release(&mut record, &beside(&["b", "o", "n"], &["a"]), at(60));
    assert_eq!((begun.begun, begun.again), (uids(&["n"]), Some(at(210))));
    let seconds = Duration::from_secs;
    let (watch, within) = (seconds(200), seconds(350));
    assert_eq!(start.why(&record, "o", at(60)), Some(Why::Suspects { many: 2, watch, within }));
    assert_eq!(start.why(&record, "b", at(60)), Some(Why::Suspect { within: seconds(150) }));
    // The next one comes at once after it: a few at a time.
    let held = start.release(&mut record, &beside(&["b", "o", "m"], &["a", "n"]), at(61));
    assert_eq!((held.held.len(), held.again), (3, Some(at(65))));
    assert_eq!(start.why(&record, "m", at(61)), Some(Why::Turn { within: seconds(4) }));
    // If the run ended here, it could be by either; and the one that was not begun goes on waiting for nobody.
    let next = RunRecord::begin(Some(record.clone()), "a", 110);
    assert_eq!((next.suspects.clone(), next.newcomers.clone()), (uids(&["a", "n"]), uids(&["m"])));
    let mut record_of_next = next;
    let mut next = heard(&mut record_of_next, &["a", "b", "o", "n", "m"]);
    let begun = next.release(&mut record_of_next, &beside(&["a", "b", "o", "n", "m"], &[]), at(10)).begun;
    assert_eq!(begun, ["m", "a"]);
    // It goes on: the other half, and then whoever may have been begun before.
    let begun = start.release(&mut record, &beside(&["b", "o"], &["a", "n", "m"]), at(210)).begun;
    assert_eq!(begun, ["b"]);
    let begun = start.release(&mut record, &beside(&["o"], &["a", "b", "n", "m"]), at(410));
    assert_eq!((begun.begun, record.suspects.len(), begun.again), (uids(&["o"]), 0, Some(at(600))));
}

#[test]
fn pods_of_which_something_runs_are_taken_up_at_once_until_that_may_be_what_ends_it() {
    let mut record = after(&FAULTY);
    record.suspects = uids(&["b"]);
    let mut start = CarefulStart::of(&record, at(0));
    let there = Pods { run: ["a".to_owned()].into(), ..pods(&uids(&["a", "b"])) };
    assert_eq!(start.release(&mut record, &there, at(0)).held, ["b".to_owned()].into());
    assert_eq!((&record.begun, &record.suspects), (&uids(&["a"]), &uids(&["b", "a"])));
    let mut late = after(&[("a", 10), ("a", 20), ("a", 30), ("a", 40), ("a", 50), ("a", 60), ("a", 70)]);
    assert_eq!(late.needs_care(), Some(6));
    let mut start = CarefulStart::of(&late, at(0));
    assert_eq!(start.release(&mut late, &there, at(0)).held.len(), 2);
}

#[test]
fn one_that_was_to_be_tried_alone_is_not_named_when_a_new_pod_was_begun_beside_it() {
    let mut record = after(&FAULTY);
    (record.suspects, record.watch) = (uids(&["a"]), 300);
    let mut start = heard(&mut record, &["a"]);
    start.release(&mut record, &beside(&["a"], &[]), at(10));
    start.release(&mut record, &beside(&["n"], &["a"]), at(20));
    let next = RunRecord::begin(Some(record), "a", 99);
    assert_eq!((next.suspects, next.culprits.len()), (uids(&["a", "n"]), 0));
}

#[test]
fn suspects_that_have_ended_or_were_deleted_hold_nobody() {
    let mut record = after(&FAULTY);
    (record.suspects, record.watch) = (uids(&["job", "gone", "a"]), 600);
    let mut start = heard(&mut record, &["a", "o"]);
    assert_eq!(start.release(&mut record, &beside(&["a", "o"], &[]), at(10)).begun, ["a"]);
    assert_eq!(record.suspects, ["a"]);
    // Whom it is watched for is deleted.
    assert_eq!(start.release(&mut record, &beside(&["o"], &["a"]), at(20)).again, Some(at(610)));
    let begun = start.release(&mut record, &beside(&["o"], &[]), at(30));
    assert_eq!((begun.begun, begun.again, record.suspects.len()), (uids(&["o"]), Some(at(600)), 0));
}

#[test]
fn whoever_was_begun_first_when_edgecore_was_killed_from_outside_is_not_held_for_it() {
    let mut life = Life::of(5, &[]);
    // A fourth time by hand, soon after the first pod was begun; and then not any more.
    life.killed_after = Some(15);
    assert_eq!(life.run().0, Some(15));
    assert_eq!(life.record.suspects, ["p00"]);
    life.killed_after = None;
    assert_eq!(life.run(), (None, BTreeSet::new()));
    assert_eq!((life.record.culprits.len(), life.record.suspects.len()), (0, 0));
}

#[test]
fn one_that_was_held_for_anothers_doing_is_let_go_when_it_is_tried_again() {
    let mut record = after(&FAULTY);
    record.culprits.insert("a".to_owned(), 1);
    let mut start = CarefulStart::of(&record, at(0));
    start.link_is_up(at(0));
    let wait = uids(&["a"]);
    let first = start.release(&mut record, &pods(&wait), at(0));
    assert_eq!((first.held.len(), first.again), (1, Some(at(600))));
    let tried = start.release(&mut record, &pods(&wait), at(600));
    assert_eq!((tried.begun, tried.again, record.trial.as_deref()), (wait, Some(at(1200)), Some("a")));
    assert_eq!(start.release(&mut record, &pods(&[]), at(1199)).again, Some(at(1200)));
    assert_eq!(start.release(&mut record, &pods(&[]), at(1200)), Release::default());
    assert_eq!((record.trial, record.culprits.len()), (None, 0));
}
