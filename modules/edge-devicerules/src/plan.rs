//! When a rule triggers, and when that is over. Pure: (time, what is known, the rule's state) to what is to be done.
//!
//! Time is the monotonic clock of this life; what the machine's clock says decides nothing.

use std::time::Duration;

use beehive::{Bucket, Moment};
use contract::devicerules::{DeviceFacts, Presence};
use contract::ids::DeviceName;
use crd::{EdgeCondition, EdgeRule};

/// 6 changes of a rule at once, and one more in each 10 s: what goes around in a circle, over whatever devices, goes so fast and no
/// faster. 10 s is shorter than what people wait for a value to settle.
pub(crate) const CHANGES: (u32, Duration) = (6, Duration::from_secs(10));

/// A rule by its device and its name.
pub(crate) type RuleKey = (DeviceName, String);

/// Whether a condition holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It does.
    Holds,
    /// It does not, and what has triggered is over.
    Over,
    /// Neither: between the two limits, or nothing is known. What has triggered stays, and nothing triggers.
    Open,
}

/// How a rule's condition stands.
pub(crate) fn judge(condition: &EdgeCondition, facts: &DeviceFacts) -> Verdict {
    let fact = condition.property().and_then(|property| facts.properties.get(property));
    // A value that has grown old says nothing of now.
    let value = || fact.filter(|fact| !fact.is_stale).and_then(|fact| fact.value.as_deref());
    let number = || value()?.trim().parse::<f64>().ok().filter(|number| number.is_finite());
    let verdict = |holds: bool, is_over: bool| match (holds, is_over) {
        (true, _) => Verdict::Holds,
        (false, true) => Verdict::Over,
        (false, false) => Verdict::Open,
    };
    match condition {
        EdgeCondition::Above { limit, clear, .. } => {
            number().map_or(Verdict::Open, |number| verdict(number > *limit, number <= *clear))
        }
        EdgeCondition::Below { limit, clear, .. } => {
            number().map_or(Verdict::Open, |number| verdict(number < *limit, number >= *clear))
        }
        EdgeCondition::Equals { value: wanted, .. } => {
            value().map_or(Verdict::Open, |value| verdict(value == wanted, value != wanted))
        }
        EdgeCondition::Stale { .. } => match fact {
            Some(fact) if fact.is_stale => Verdict::Holds,
            Some(fact) if fact.value.is_some() => Verdict::Over,
            // Of what never had a value nothing can grow old.
            _ => Verdict::Open,
        },
        EdgeCondition::Offline => match facts.presence {
            Presence::Offline => Verdict::Holds,
            Presence::Online => Verdict::Over,
            Presence::Unsaid => Verdict::Open,
        },
    }
}

/// What a rule remembers between two looks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RuleState {
    /// It has triggered.
    pub(crate) is_triggered: bool,
    /// It changed so often that it had to wait, and has not been quiet for long enough since.
    pub(crate) is_held_back: bool,
    /// Since when the condition has held without a break.
    holds_since: Option<Moment>,
    changes: Bucket,
}

impl Default for RuleState {
    fn default() -> Self {
        let changes = Bucket::new(CHANGES.0, CHANGES.1);
        RuleState { is_triggered: false, is_held_back: false, holds_since: None, changes }
    }
}

/// What has become of a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Nothing.
    Stay,
    /// It triggers: `then` is due.
    Trigger,
    /// That is over: `otherwise` is due.
    Clear,
    /// It would change, and does so too often: from now on it waits.
    HeldBack,
    /// It has been quiet, and waits no more.
    Freed,
}

impl RuleState {
    /// After a restart.
    pub(crate) fn restored(is_triggered: bool) -> Self {
        RuleState { is_triggered, ..RuleState::default() }
    }

    /// Takes a verdict. Answers what has become of the rule, and when it is to be asked again though nothing changes.
    pub(crate) fn step(&mut self, rule: &EdgeRule, verdict: Verdict, now: Moment) -> (Step, Option<Moment>) {
        let is_due = match (self.is_triggered, verdict) {
            (false, Verdict::Holds) => {
                let at = *self.holds_since.get_or_insert(now) + rule.hold_for;
                if now < at {
                    return self.quiet(now, Some(at));
                }
                true
            }
            (is_triggered, verdict) => {
                self.holds_since = None;
                is_triggered && verdict == Verdict::Over
            }
        };
        if !is_due {
            return self.quiet(now, None);
        }
        if !self.changes.take(now) {
            let at = self.changes.free_at(now);
            let was_held_back = std::mem::replace(&mut self.is_held_back, true);
            return (if was_held_back { Step::Stay } else { Step::HeldBack }, Some(at));
        }
        self.is_triggered = !self.is_triggered;
        self.holds_since = None;
        (if self.is_triggered { Step::Trigger } else { Step::Clear }, self.free_at())
    }

    /// When it waits no more if it stays quiet.
    fn free_at(&self) -> Option<Moment> {
        self.is_held_back.then(|| self.changes.full_at())
    }

    fn quiet(&mut self, now: Moment, next: Option<Moment>) -> (Step, Option<Moment>) {
        let Some(free) = self.free_at() else { return (Step::Stay, next) };
        if now < free {
            return (Step::Stay, Some(next.map_or(free, |next| next.min(free))));
        }
        self.is_held_back = false;
        (Step::Freed, next)
    }
}

#[cfg(test)]
mod tests;
