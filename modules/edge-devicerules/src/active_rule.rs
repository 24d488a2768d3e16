//! A rule of a device that is there: how it stands, and what of it is still to be done. Pure.

use std::time::Duration;

use beehive::Moment;
use contract::devicerules::{ActionsOutcome, DeviceFacts};
use crd::{EdgeAction, EdgeRule};

use crate::plan::{self, RuleState, Step};
use crate::store::{self, KeptRule};
use crate::turns::Reach;

/// 1, 5 and 30 s before actions that were not done are tried again; then they are given up.
const TRY_AGAIN: [Duration; 3] = [Duration::from_secs(1), Duration::from_secs(5), Duration::from_secs(30)];

/// A rule.
#[derive(Debug)]
pub(crate) struct ActiveRule {
    pub(crate) rule: EdgeRule,
    digest: String,
    pub(crate) state: RuleState,
    /// The actions of the last change that are not known to be done, by their place.
    due: Vec<usize>,
    tries: usize,
    try_at: Option<Moment>,
    /// The attempt that is under way.
    attempt: Option<u64>,
    /// The rule has changed since that one began.
    is_superseded: bool,
    /// What was not done at the last attempt.
    pub(crate) failures: Vec<String>,
    /// When its time has come though nothing changes.
    wake_at: Option<Moment>,
    /// What of it is to be kept has changed.
    pub(crate) is_unkept: bool,
}

/// What came of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AfterAttempt {
    /// It was about a change of before, or all is done, or what is left is tried again.
    GoesOn,
    /// What is left was tried often enough.
    GivenUp,
}

impl ActiveRule {
    /// A rule that begins, or goes on as it was kept if that was the same rule of the same device.
    pub(crate) fn new(rule: EdgeRule, uid: &str, kept: Option<&KeptRule>) -> Self {
        let digest = store::digest(&rule);
        let kept = kept.filter(|kept| kept.digest == digest && kept.uid == uid);
        let is_triggered = kept.is_some_and(|kept| kept.is_triggered);
        let actions = if is_triggered { rule.then.len() } else { rule.otherwise.len() };
        let due = kept.map(|kept| kept.due.clone()).unwrap_or_default();
        ActiveRule {
            state: RuleState::restored(is_triggered),
            due: due.into_iter().filter(|at| *at < actions).collect(),
            rule,
            digest,
            tries: 0,
            try_at: None,
            attempt: None,
            is_superseded: false,
            failures: Vec::new(),
            wake_at: None,
            is_unkept: false,
        }
    }

    /// Whether it is that rule.
    pub(crate) fn is(&self, rule: &EdgeRule) -> bool {
        self.rule.written == rule.written
    }

    /// What of it outlives a restart.
    pub(crate) fn kept(&self, uid: &str) -> KeptRule {
        KeptRule {
            uid: uid.to_owned(),
            digest: self.digest.clone(),
            is_triggered: self.state.is_triggered,
            due: self.due.clone(),
        }
    }

    /// The actions of the side that counts.
    fn actions(&self) -> &[EdgeAction] {
        if self.state.is_triggered { &self.rule.then } else { &self.rule.otherwise }
    }

    /// Judges what is known of the device. A change takes the place of what was to be done before.
    pub(crate) fn judge(&mut self, facts: &DeviceFacts, now: Moment) -> Step {
        let verdict = plan::judge(&self.rule.condition, facts);
        let (step, wake_at) = self.state.step(&self.rule, verdict, now);
        self.wake_at = wake_at;
        if matches!(step, Step::Trigger | Step::Clear) {
            self.due = (0..self.actions().len()).collect();
            (self.tries, self.try_at, self.is_unkept) = (0, None, true);
            self.is_superseded = self.attempt.is_some();
            self.failures.clear();
        }
        step
    }

    /// Whether actions are to be tried now, and how far they reach.
    pub(crate) fn wants(&self, now: Moment) -> Option<Reach> {
        let is_time = self.try_at.is_none_or(|at| at <= now);
        if self.due.is_empty() || self.attempt.is_some() || !is_time {
            return None;
        }
        let is_call = |at: &usize| matches!(self.actions().get(*at), Some(EdgeAction::Call { .. }));
        Some(if self.due.iter().any(is_call) { Reach::Services } else { Reach::Node })
    }

    /// The actions that are to be tried now, as attempt `number`.
    pub(crate) fn begin(&mut self, number: u64, now: Moment) -> Option<Vec<(usize, EdgeAction)>> {
        self.wants(now)?;
        self.attempt = Some(number);
        let actions = self.actions();
        Some(self.due.iter().filter_map(|at| Some((*at, actions.get(*at)?.clone()))).collect())
    }

    /// Takes what came of an attempt.
    pub(crate) fn acted(&mut self, number: u64, outcome: ActionsOutcome, now: Moment) -> AfterAttempt {
        if self.attempt != Some(number) {
            return AfterAttempt::GoesOn;
        }
        self.attempt = None;
        if std::mem::take(&mut self.is_superseded) {
            return AfterAttempt::GoesOn;
        }
        let ActionsOutcome { done, failed } = outcome;
        self.due.retain(|at| !done.contains(at));
        let words = |(at, reason): &(usize, String)| Some(format!("{}: {reason}", self.actions().get(*at)?));
        self.failures = failed.iter().filter_map(words).collect();
        self.is_unkept = true;
        if self.due.is_empty() {
            return AfterAttempt::GoesOn;
        }
        match TRY_AGAIN.get(self.tries) {
            Some(pause) => {
                self.tries += 1;
                self.try_at = Some(now + *pause);
                AfterAttempt::GoesOn
            }
            None => {
                self.due.clear();
                AfterAttempt::GivenUp
            }
        }
    }

    /// When it is to be looked at again though nothing changes. What [is to be tried now](ActiveRule::wants) waits for its turn, and for
    /// no time.
    pub(crate) fn next(&self, now: Moment) -> Option<Moment> {
        let is_to_come = |at: &Moment| *at > now && !self.due.is_empty() && self.attempt.is_none();
        let try_at = self.try_at.filter(is_to_come);
        self.wake_at.into_iter().chain(try_at).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use contract::devicerules::{Presence, PropertyFact};
    use contract::ids::DeviceName;

    const RULE: &str = "[{name: a, when: {property: heat, above: 80}, then: [{publish: {topic: t}}, {set: {device: fan, property: run, value: 1}}], otherwise: [{set: {device: fan, property: run, value: 0}}]}]";

    fn at(seconds: u64) -> Moment {
        Moment(Duration::from_secs(seconds))
    }

    fn rule() -> EdgeRule {
        crd::parse_edge_rules(RULE).unwrap().remove(0)
    }

    fn reading(value: &str) -> DeviceFacts {
        let fact = PropertyFact { value: Some(value.into()), is_stale: false };
        DeviceFacts {
            device: DeviceName::parse("d", "gantry").unwrap(),
            uid: "u".into(),
            rules: None,
            presence: Presence::Unsaid,
            properties: [("heat".to_owned(), fact)].into(),
            version: 1,
        }
    }

    fn places(begun: Option<Vec<(usize, EdgeAction)>>) -> Vec<usize> {
        begun.unwrap_or_default().into_iter().map(|(at, _)| at).collect()
    }

    fn outcome(done: &[usize], failed: &[usize]) -> ActionsOutcome {
        let failed = failed.iter().map(|at| (*at, "no".to_owned())).collect();
        ActionsOutcome { done: done.to_vec(), failed }
    }

    #[test]
    fn what_is_not_done_is_tried_again_a_few_times() {
        let mut active = ActiveRule::new(rule(), "u", None);
        assert_eq!(active.judge(&reading("81"), at(0)), Step::Trigger);
        assert_eq!(places(active.begin(1, at(0))), [0, 1]);
        assert_eq!(active.begin(2, at(0)), None, "one attempt at a time");
        assert_eq!(active.acted(1, outcome(&[0], &[1]), at(0)), AfterAttempt::GoesOn);
        assert_eq!(active.failures, ["set `run` of `fan`: no"]);
        assert_eq!((active.begin(2, at(0)), active.next(at(0))), (None, Some(at(1))));
        for (number, second) in [(2, 1), (3, 6)] {
            assert_eq!(places(active.begin(number, at(second))), [1]);
            assert_eq!(active.acted(number, outcome(&[], &[1]), at(second)), AfterAttempt::GoesOn);
        }
        assert_eq!(places(active.begin(4, at(36))), [1]);
        assert_eq!(active.acted(4, outcome(&[], &[1]), at(36)), AfterAttempt::GivenUp);
        assert_eq!(
            (active.begin(5, at(99)), active.failures.len(), active.kept("u").due.len()),
            (None, 1, 0)
        );
    }

    #[test]
    fn a_change_takes_the_place_of_what_was_to_be_done_and_waits_for_what_is_under_way() {
        let mut active = ActiveRule::new(rule(), "u", None);
        active.judge(&reading("81"), at(0));
        active.begin(1, at(0));
        assert_eq!(active.judge(&reading("70"), at(1)), Step::Clear);
        assert_eq!(active.begin(2, at(1)), None, "the fan would be told both at once");
        active.acted(1, outcome(&[0], &[1]), at(2));
        assert!(active.failures.is_empty(), "nobody cares any more");
        let begun = active.begin(2, at(2)).unwrap();
        let off = EdgeAction::Set { device: Some("fan".into()), property: "run".into(), value: "0".into() };
        assert_eq!(begun, [(0, off)]);
        assert_eq!(active.acted(1, outcome(&[0], &[]), at(2)), AfterAttempt::GoesOn, "a word of before");
        assert!(active.begin(3, at(2)).is_none());
        active.acted(2, outcome(&[0], &[]), at(3));
        assert!(active.kept("u").due.is_empty() && active.is_unkept);
    }

    #[test]
    fn a_rule_goes_on_as_it_was_kept_if_it_is_the_same() {
        let mut active = ActiveRule::new(rule(), "u", None);
        active.judge(&reading("81"), at(0));
        let kept = active.kept("u");
        let mut again = ActiveRule::new(rule(), "u", Some(&kept));
        assert_eq!(places(again.begin(1, at(0))), [0, 1], "nobody knows whether it was done");
        assert_eq!(again.judge(&reading("81"), at(0)), Step::Stay);
        for (uid, text) in [("v", RULE.to_owned()), ("u", RULE.replace("80", "79"))] {
            let other = crd::parse_edge_rules(&text).unwrap().remove(0);
            let mut anew = ActiveRule::new(other, uid, Some(&kept));
            assert_eq!((anew.begin(1, at(0)), anew.judge(&reading("81"), at(0))), (None, Step::Trigger));
        }
    }
}
