//! When a probe is made, and what a run of equal outcomes makes of it. Pure: what is known of the container, the outcomes,
//! and the time (kubelet's `prober/worker.go`).

use std::time::Duration;

use beehive::Moment;
use k8s_openapi::api::core::v1::Probe;

/// What a probe is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum ProbeKind {
    Startup,
    Readiness,
    Liveness,
}

impl ProbeKind {
    pub(crate) const ALL: [ProbeKind; 3] = [ProbeKind::Startup, ProbeKind::Readiness, ProbeKind::Liveness];

    /// As events name it.
    pub(crate) fn word(self) -> &'static str {
        match self {
            ProbeKind::Startup => "Startup",
            ProbeKind::Readiness => "Readiness",
            ProbeKind::Liveness => "Liveness",
        }
    }
}

/// What a probe says of its container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Success,
    Failure,
}

/// A probe's numbers, with Kubernetes' defaults.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Timing {
    pub(crate) initial_delay: Duration,
    pub(crate) period: Duration,
    pub(crate) timeout: Duration,
    pub(crate) success: u32,
    pub(crate) failure: u32,
}

impl Timing {
    pub(crate) fn of(probe: &Probe) -> Timing {
        // What is not there, or less than the API allows, is the default.
        let number = |given: Option<i32>, default: u32| {
            given.and_then(|given| u32::try_from(given).ok()).filter(|given| *given > 0).unwrap_or(default)
        };
        let seconds = |given, default| Duration::from_secs(u64::from(number(given, default)));
        Timing {
            initial_delay: seconds(probe.initial_delay_seconds, 0),
            period: seconds(probe.period_seconds, 10),
            timeout: seconds(probe.timeout_seconds, 1),
            success: number(probe.success_threshold, 1),
            failure: number(probe.failure_threshold, 3),
        }
    }
}

/// What a probe goes by: its container as it is now.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Target {
    /// In the runtime; empty: there is none.
    pub(crate) id: String,
    /// When it was first seen running; `None`: it does not run.
    pub(crate) since: Option<Moment>,
    /// It ran before this worker, and what was reported of it then holds.
    pub(crate) known_before: bool,
    pub(crate) started: bool,
    pub(crate) ready: bool,
    /// The pod ends.
    pub(crate) ending: bool,
    /// The pod's address.
    pub(crate) ip: String,
}

/// What to do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    Probe,
    /// Nothing before this time.
    Until(Moment),
    /// Nothing before the container changes.
    Wait,
}

/// The state of one probe.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ProbePlan {
    kind: ProbeKind,
    timing: Timing,
    /// The container of which all this is.
    id: String,
    /// When the next tick is. Ticks are a period apart from the first on, whenever the container starts, as a kubelet's
    /// are: pods are written for that.
    tick: Moment,
    /// Whether the last question was answered by a probe or a time.
    is_active: bool,
    last: Option<Verdict>,
    run: u32,
    /// The outcome is final until another container takes this one's place.
    on_hold: bool,
    /// A random part of a period, which is waited for first where many probes begin at once.
    spread: Duration,
}

impl ProbePlan {
    /// A probe whose first tick is now.
    pub(crate) fn new(kind: ProbeKind, timing: Timing, spread: Duration, now: Moment) -> ProbePlan {
        let id = String::new();
        let (last, run) = (None, 0);
        ProbePlan { kind, timing, id, tick: now, is_active: false, last, run, on_hold: false, spread }
    }

    /// What to do at `now`.
    pub(crate) fn next(&mut self, target: &Target, now: Moment) -> Step {
        if target.id != self.id {
            self.id.clone_from(&target.id);
            (self.last, self.run, self.on_hold, self.is_active) = (None, 0, false, false);
            if target.known_before {
                // All containers of a node are found at once when EdgeCore has been restarted.
                self.tick = now + self.spread;
            }
        }
        let Some(since) = target.since.filter(|_| self.is_wanted(target)) else {
            self.is_active = false;
            return Step::Wait;
        };
        let became_active = !std::mem::replace(&mut self.is_active, true);
        if became_active && self.kind == ProbeKind::Readiness && !target.ready && !target.known_before {
            // Out of turn: a container is ready right after it has started, not a period later.
            self.tick = now;
        }
        if self.tick <= now {
            let missed = div(now.since(self.tick), self.timing.period);
            // A tick that came during a probe is made up for, those of a pause are not.
            let skipped = if became_active && now != self.tick { missed + 1 } else { missed };
            self.tick = self.tick + self.timing.period * skipped;
        }
        let delayed = since + self.timing.initial_delay;
        if self.tick < delayed {
            let ticks = div(
                delayed.since(self.tick) + self.timing.period - Duration::from_nanos(1),
                self.timing.period,
            );
            self.tick = self.tick + self.timing.period * ticks;
        }
        if self.tick > now {
            return Step::Until(self.tick);
        }
        self.tick = self.tick + self.timing.period;
        Step::Probe
    }

    fn is_wanted(&self, target: &Target) -> bool {
        !self.on_hold
            && match self.kind {
                ProbeKind::Startup => !target.started && !target.ending,
                ProbeKind::Liveness => target.started && !target.ending,
                ProbeKind::Readiness => target.started,
            }
    }

    /// Takes the outcome of a probe of a container in. `Some`: what the probe says of the container from now on.
    pub(crate) fn probed(&mut self, id: &str, outcome: Verdict) -> Option<Verdict> {
        if id != self.id {
            return None;
        }
        self.run = if self.last == Some(outcome) { self.run.saturating_add(1) } else { 1 };
        self.last = Some(outcome);
        let threshold = match outcome {
            Verdict::Success => self.timing.success,
            Verdict::Failure => self.timing.failure,
        };
        if self.run < threshold {
            return None;
        }
        self.on_hold = match self.kind {
            ProbeKind::Startup => true,
            ProbeKind::Liveness => outcome == Verdict::Failure,
            ProbeKind::Readiness => false,
        };
        Some(outcome)
    }
}

fn div(span: Duration, period: Duration) -> u32 {
    u32::try_from(span.as_nanos() / period.as_nanos().max(1)).unwrap_or(u32::MAX)
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
