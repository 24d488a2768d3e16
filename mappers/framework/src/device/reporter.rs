//! What edgecore is told of a device: its state and its twins.

use std::time::{Duration, UNIX_EPOCH};

use apimachinery::NamespacedName;
use beehive::{Env, Moment};

use crate::device::property::PropertyState;
use crate::edgecore::{self, EdgeCore, ReportOutcome};
use crate::events;
use crate::plan::StateReport;
use crate::twin::PropertyTwin;

/// 1 s between two tries to report what edgecore did not take.
const REPORT_RETRY: Duration = Duration::from_secs(1);
/// 256 properties in one report, of which edgecore takes four times as many.
const REPORT_MAX: usize = 256;
/// 5 s: reports that take longer go on in the next turn, between which the device is read and written.
const TURN: Duration = Duration::from_secs(5);

/// Whether a device answers, in KubeEdge's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DeviceState {
    Online,
    Offline,
    /// It cannot be served as it is described, or its protocol fails again and again.
    Unhealthy,
}

impl DeviceState {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            DeviceState::Online => "online",
            DeviceState::Offline => "offline",
            DeviceState::Unhealthy => "unhealthy",
        }
    }
}

/// Whether to go on with the reports of this turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum NextReport {
    GoOn,
    /// The rest has its turn later.
    Later,
    /// edgecore takes nothing now.
    Away,
}

pub(super) struct Reporter {
    edgecore: EdgeCore,
    state: Option<DeviceState>,
    /// Why it is in its state, if that is no good one.
    reason: Option<String>,
    reported_state: Option<(DeviceState, Option<String>, Moment)>,
    /// edgecore did not take the state: not before then.
    state_not_before: Moment,
    /// edgecore was away: nothing before then.
    not_before: Moment,
    /// Why the last report was not taken, so that each reason is logged once.
    fault: Option<String>,
}

impl Reporter {
    pub(super) fn new(edgecore: EdgeCore) -> Self {
        Reporter {
            edgecore,
            state: None,
            reason: None,
            reported_state: None,
            state_not_before: Moment::default(),
            not_before: Moment::default(),
            fault: None,
        }
    }

    /// The device is in this state from now on, for this reason if it is no good one.
    pub(super) fn is(&mut self, state: DeviceState, reason: Option<String>) {
        (self.state, self.reason) = (Some(state), reason);
    }

    /// Its state, once it is known.
    pub(super) fn state(&self) -> Option<DeviceState> {
        self.state
    }

    /// The mapper has registered, because edgecore may have been away: everything is reported again.
    pub(super) fn forget_reported(&mut self) {
        self.reported_state = None;
        self.fault = None;
        self.not_before = Moment::default();
        self.state_not_before = Moment::default();
    }

    /// Reports what is due.
    pub(super) async fn report(
        &mut self,
        device: &NamespacedName,
        state_report: Option<StateReport>,
        properties: &mut [PropertyState],
        env: &Env,
    ) {
        if env.now() < self.not_before {
            return;
        }
        let mut next = self.report_state(device, state_report, env).await;
        if next == NextReport::GoOn {
            next = self.report_twins(device, properties, env).await;
        }
        if next == NextReport::Away {
            self.not_before = env.now() + REPORT_RETRY;
        }
    }

    /// When something is to be reported.
    pub(super) fn due(
        &self,
        state_report: Option<StateReport>,
        properties: &[PropertyState],
        now: Moment,
    ) -> Option<Moment> {
        let twins = properties.iter().filter_map(|property| property.report_due(now)).min();
        let due = [self.state_due(state_report), twins].into_iter().flatten().min()?;
        Some(due.max(self.not_before))
    }

    fn state_due(&self, state_report: Option<StateReport>) -> Option<Moment> {
        let report_cycle = state_report?.report_cycle;
        let state = self.state?;
        match &self.reported_state {
            Some((reported, reason, at)) if *reported == state && *reason == self.reason => {
                Some((*at + report_cycle?).max(self.state_not_before))
            }
            Some(_) | None => Some(self.state_not_before),
        }
    }

    async fn report_state(
        &mut self,
        device: &NamespacedName,
        state_report: Option<StateReport>,
        env: &Env,
    ) -> NextReport {
        let now = env.now();
        let (Some(state), Some(due)) = (self.state, self.state_due(state_report)) else {
            return NextReport::GoOn;
        };
        if due > now {
            return NextReport::GoOn;
        }
        let reason = self.reason.clone();
        match self.edgecore.report_state(device, state.as_str(), reason.as_deref()).await {
            ReportOutcome::Accepted => {}
            ReportOutcome::Rejected(reason) => events::report_rejected(env, device, "state", &reason),
            ReportOutcome::Deferred(reason) => {
                self.not_taken(device, &format!("state: {reason}"), env);
                self.state_not_before = now + REPORT_RETRY;
                return NextReport::GoOn;
            }
            ReportOutcome::Unavailable(reason) => {
                self.not_taken(device, &reason, env);
                return NextReport::Away;
            }
        }
        self.reported_state = Some((state, reason, now));
        NextReport::GoOn
    }

    async fn report_twins(
        &mut self,
        device: &NamespacedName,
        properties: &mut [PropertyState],
        env: &Env,
    ) -> NextReport {
        let now = env.now();
        let mut due = Vec::new();
        for (index, property) in properties.iter().enumerate() {
            if let Some(mut twin) = property.to_report(now) {
                // One that is not read, of which only what is desired is told.
                if twin.read_at == UNIX_EPOCH {
                    twin.read_at = env.wall();
                }
                due.push((index, property.named_twin(twin)));
            }
        }
        for part in edgecore::reports(&due, |(_, twin)| twin, REPORT_MAX) {
            let twins: Vec<PropertyTwin> = part.iter().map(|(_, twin)| twin.clone()).collect();
            match self.edgecore.report_twins(device, &twins).await {
                ReportOutcome::Accepted => {
                    for (index, twin) in part {
                        reported(properties, *index, twin, now);
                    }
                }
                ReportOutcome::Unavailable(reason) => {
                    self.not_taken(device, &reason, env);
                    return NextReport::Away;
                }
                // One bad value spoils a whole report: what is good goes alone.
                ReportOutcome::Rejected(_) | ReportOutcome::Deferred(_) => {
                    let next = self.report_one_by_one(device, part, properties, env).await;
                    if next != NextReport::GoOn {
                        return next;
                    }
                }
            }
            if env.now().since(now) > TURN {
                return NextReport::Later;
            }
        }
        NextReport::GoOn
    }

    async fn report_one_by_one(
        &mut self,
        device: &NamespacedName,
        twins: &[(usize, PropertyTwin)],
        properties: &mut [PropertyState],
        env: &Env,
    ) -> NextReport {
        let began = env.now();
        for (index, twin) in twins {
            let now = env.now();
            match self.edgecore.report_twins(device, std::slice::from_ref(twin)).await {
                ReportOutcome::Accepted => reported(properties, *index, twin, now),
                ReportOutcome::Rejected(reason) => {
                    events::report_rejected(env, device, &twin.property, &reason);
                    if let Some(property) = properties.get_mut(*index) {
                        property.was_rejected(twin.twin.clone(), &reason, now);
                    }
                }
                ReportOutcome::Deferred(reason) => {
                    self.not_taken(device, &format!("property `{}`: {reason}", twin.property), env);
                    if let Some(property) = properties.get_mut(*index) {
                        property.was_deferred(twin.twin.clone(), now + REPORT_RETRY);
                    }
                }
                ReportOutcome::Unavailable(reason) => {
                    self.not_taken(device, &reason, env);
                    return NextReport::Away;
                }
            }
            if env.now().since(began) > TURN {
                return NextReport::Later;
            }
        }
        NextReport::GoOn
    }

    fn not_taken(&mut self, device: &NamespacedName, reason: &str, env: &Env) {
        let is_new = self.fault.as_deref() != Some(reason);
        events::report_deferred(env, device, reason, is_new);
        if is_new {
            self.fault = Some(reason.to_owned());
        }
    }
}

fn reported(properties: &mut [PropertyState], index: usize, twin: &PropertyTwin, now: Moment) {
    if let Some(property) = properties.get_mut(index) {
        property.reported(twin.twin.clone(), now);
    }
}
