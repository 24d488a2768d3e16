//! What of a cell is the same for every actor, so that it is compiled once: its phase, its budget of restarts, its children, and
//! who waits for its end.

use std::cell::Cell as Flag;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context as Task, Poll, ready};
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt as _};
use tokio::sync::oneshot;

use crate::children::Children;
use crate::command::{Command, Signals};
use crate::defect::{self, Defect};
use crate::health::{ActorState, Meters, View};
use crate::policy::{RestartBudget, RestartDecision};
use crate::registry::{Entry, Id, OnEnd, Registry};
use crate::testing::PanicAt;
use crate::{Env, Fault, Policy};

/// 10 s: what an actor that ends itself gives its children.
const STOP_WITHIN: Duration = Duration::from_secs(10);

/// 16: one that asks for the state asks for it once in a while.
const INSPECTIONS: usize = 16;

enum Phase {
    /// An incarnation is to be made.
    Creating,
    /// [`crate::Actor::started`] is in hand.
    Starting,
    Running,
    /// The children stop, and the actor still takes what they tell it.
    StoppingChildren,
    /// The lanes are closed, and what was queued is handled.
    Draining,
    /// [`crate::Actor::stopping`] is in hand.
    Stopping,
    /// Between a fault and the next incarnation.
    BackingOff(BoxFuture<'static, ()>),
    Ended,
}

/// What there is to do when nothing is in hand.
pub(crate) enum Step {
    /// Take the next message.
    Message,
    /// Make an incarnation.
    Create,
    /// Close the lanes.
    Close,
    /// The phase has changed.
    Again,
    End,
}

/// How a cell ends: in which state, and why it gave up.
pub(crate) type End = (ActorState, Option<String>);

pub(crate) struct Core {
    pub(crate) id: Id,
    pub(crate) env: Env,
    pub(crate) registry: Registry,
    pub(crate) meters: Arc<Meters>,
    pub(crate) panic_at: Option<PanicAt>,
    /// The names of the jobs so far, as the meters know them.
    jobs: Vec<&'static str>,
    policy: Policy,
    budget: RestartBudget,
    phase: Phase,
    ending: Rc<Flag<bool>>,
    /// Of the incarnation that lives.
    signals: Option<Rc<Signals>>,
    children: Option<Children>,
    pub(crate) myself: Option<actix::Recipient<Command>>,
    /// What the watchdog found.
    stuck: Option<Fault>,
    stop_within: Option<Duration>,
    stopped: Vec<oneshot::Sender<()>>,
    inspections: Vec<oneshot::Sender<View>>,
    on_end: Option<OnEnd>,
}

impl Core {
    pub(crate) fn new(
        entry: &Entry,
        (env, registry): (&Env, &Registry),
        meters: &Arc<Meters>,
        policy: Policy,
        on_end: OnEnd,
    ) -> Core {
        Core {
            id: entry.id,
            env: env.clone(),
            registry: registry.clone(),
            meters: Arc::clone(meters),
            panic_at: None,
            jobs: Vec::new(),
            policy,
            budget: RestartBudget::default(),
            phase: Phase::Creating,
            ending: Rc::clone(&entry.ending),
            signals: None,
            children: None,
            myself: None,
            stuck: None,
            stop_within: None,
            stopped: Vec::new(),
            inspections: Vec::new(),
            on_end: Some(on_end),
        }
    }

    /// Takes a command. Answers who is to be shown the actor's state now.
    pub(crate) fn take(&mut self, command: Command, has_incarnation: bool) -> Option<oneshot::Sender<View>> {
        match command {
            Command::Inspect(answer) => {
                if has_incarnation || !self.is_at_work() {
                    return Some(answer);
                }
                if self.inspections.len() < INSPECTIONS {
                    self.inspections.push(answer);
                }
            }
            Command::Stop(done, within) => {
                self.ending.set(true);
                self.stop_within = Some(within);
                self.stopped.push(done);
            }
            Command::Replace(callback, held) => {
                if let Some(what) = self.meters.name_of(callback) {
                    self.stuck = Some(Fault::new(format!("stuck in `{what}` for {} s", held.as_secs())));
                }
            }
            Command::Wake => {}
        }
        None
    }

    fn is_at_work(&self) -> bool {
        !matches!(self.phase, Phase::Creating | Phase::BackingOff(_) | Phase::Ended)
    }

    /// A fault that the watchdog, a spawned task or a child has caused.
    pub(crate) fn pending_fault(&mut self) -> Option<Fault> {
        self.stuck.take().or_else(|| self.signals.as_ref().and_then(|signals| signals.take_fault()))
    }

    pub(crate) fn next(&mut self, task: &mut Task<'_>) -> Poll<Step> {
        Poll::Ready(match &mut self.phase {
            Phase::Running if !self.ending.get() => Step::Message,
            Phase::Running => {
                let within = self.stop_within.take().unwrap_or(STOP_WITHIN);
                if let Some(children) = &self.children {
                    // The other half is for what is queued.
                    children.stop_all(within / 2);
                }
                self.phase = Phase::StoppingChildren;
                Step::Again
            }
            Phase::StoppingChildren
                if self.children.as_ref().is_some_and(|children| !children.is_empty()) =>
            {
                Step::Message
            }
            Phase::StoppingChildren => {
                self.phase = Phase::Draining;
                Step::Close
            }
            Phase::Draining => Step::Message,
            Phase::Creating => Step::Create,
            Phase::BackingOff(pause) => {
                // What is queued when the stop comes is handled all the same.
                if !self.ending.get() {
                    ready!(pause.as_mut().poll(task));
                }
                self.phase = Phase::Creating;
                Step::Again
            }
            // A callback is in hand in the first two.
            Phase::Starting | Phase::Stopping | Phase::Ended => Step::End,
        })
    }

    /// The queue was closed, and all of it is handled.
    pub(crate) fn is_drained(&mut self) {
        if let Some(children) = &self.children {
            children.end();
        }
        self.phase = Phase::Stopping;
    }

    /// What a new incarnation is given.
    pub(crate) fn begin_incarnation(&mut self) -> Option<(Rc<Signals>, Children)> {
        let signals = Rc::new(Signals::new(Rc::clone(&self.ending), self.myself.clone()?));
        let (env, registry) = (self.env.clone(), self.registry.clone());
        let children = Children::new(env, registry, self.id, &self.meters, Rc::clone(&signals));
        self.signals = Some(Rc::clone(&signals));
        self.children = Some(children.clone());
        self.phase = Phase::Starting;
        Some((signals, children))
    }

    /// A callback begins.
    pub(crate) fn begin(&mut self, what: &'static str, panic_at: Option<PanicAt>) {
        self.panic_at = panic_at;
        self.meters.begin(what, &mut self.jobs);
    }

    /// A callback has ended well. Answers how the cell ends, if it was the last.
    pub(crate) fn done(&mut self) -> Option<End> {
        match self.phase {
            Phase::Starting => {
                self.meters.enter(ActorState::Running);
                self.phase = Phase::Running;
                None
            }
            Phase::Stopping => Some((ActorState::Stopped, None)),
            _ => {
                self.meters.handled();
                None
            }
        }
    }

    /// Who waits for the actor's state.
    pub(crate) fn inspections(&mut self) -> Vec<oneshot::Sender<View>> {
        std::mem::take(&mut self.inspections)
    }

    /// The incarnation is about to be dropped for a fault.
    pub(crate) fn give_up(&mut self) {
        if let Some(children) = self.children.take() {
            children.end();
        }
        self.signals = None;
        self.stuck = None;
        self.inspections.clear();
    }

    /// The incarnation was dropped for a fault. Answers how the cell ends, if it does.
    pub(crate) fn after(&mut self, fault: &Fault) -> Option<End> {
        let meters = &self.meters;
        meters.fault(&fault.reason);
        if self.ending.get() {
            tracing::warn!(actor = meters.name(), reason = %fault.reason, "actor failed while it stopped");
            if defect::is_planted(Defect::SilentEnd) {
                self.phase = Phase::BackingOff(futures::future::pending().boxed());
                self.ending.set(false);
                return None;
            }
            return Some((ActorState::Stopped, None));
        }
        match self.budget.fault(&self.policy, self.env.now()) {
            RestartDecision::GiveUp => {
                let reason = format!(
                    "`{}` failed {} times within {} s, last: {}",
                    meters.name(),
                    self.policy.budget + 1,
                    self.policy.window.as_secs(),
                    fault.reason
                );
                Some((ActorState::Failed, Some(reason)))
            }
            RestartDecision::RestartAfter(pause) => {
                meters.enter(ActorState::Restarting);
                let pause = self.env.jitter(pause);
                tracing::warn!(actor = meters.name(), reason = %fault.reason, pause_ms = pause.as_millis(), "actor restarts");
                self.phase = Phase::BackingOff(self.env.sleep(pause));
                None
            }
        }
    }

    /// A destructor has panicked, of `what`.
    pub(crate) fn panicked_while_dropped(&self, what: &'static str) {
        tracing::warn!(actor = self.meters.name(), "panicked while {what} was dropped");
    }

    /// The cell has ended.
    pub(crate) fn ended(&mut self, (state, gave_up): End) {
        self.meters.enter(state);
        self.phase = Phase::Ended;
        for done in std::mem::take(&mut self.stopped) {
            let _ = done.send(());
        }
        if let Some(on_end) = self.on_end.take() {
            on_end(gave_up);
        }
    }
}
