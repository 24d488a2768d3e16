//! One supervised actor: an actix actor that owns the mailbox and the factory and has one incarnation of ours in it at
//! a time. What it does next is decided here; `message_loop` polls it.

use std::cell::Cell as Flag;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::task::{Context as Task, Poll, ready};
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt as _};
use tokio::sync::oneshot;

use crate::children::Children;
use crate::command::{Command, Signals};
use crate::defect::{self, Defect};
use crate::health::{ActorState, View};
use crate::policy::{RestartBudget, RestartDecision};
use crate::registry::{Entry, Id, OnEnd, Registry};
use crate::testing::PanicAt;
use crate::{Actor, Address, Context, Env, Fault, Flow, Mailbox, Policy};

/// 10 s: what an actor that ends itself gives its children.
const STOP_WITHIN: Duration = Duration::from_secs(10);

/// 16: one that asks for the state asks for it once in a while.
const INSPECTIONS: usize = 16;

/// One actor between two restarts, with what it is given.
pub(crate) struct Incarnation<A: Actor> {
    pub(crate) actor: A,
    pub(crate) cx: Context<A::Message>,
}

/// What an incarnation is asked to do.
pub(crate) enum Callback<M> {
    Start,
    Handle(M),
    Stop,
}

enum Phase {
    /// An incarnation is to be made.
    Creating,
    /// [`Actor::started`] is in hand.
    Starting,
    Running,
    /// The children stop, and the actor still takes what they tell it.
    StoppingChildren,
    /// The lanes are closed, and what was queued is handled.
    Draining,
    /// [`Actor::stopping`] is in hand.
    Stopping,
    /// Between a fault and the next incarnation.
    BackingOff(BoxFuture<'static, ()>),
    Ended,
}

/// What the cell does next.
pub(crate) enum Next<M> {
    Callback(Callback<M>),
    /// The phase has changed.
    Again,
    End,
}

/// A cell that has not started: what actix runs.
pub(crate) type CellFuture<A> = actix::dev::ContextFut<Cell<A>, actix::Context<Cell<A>>>;

pub(crate) struct Cell<A: Actor> {
    pub(crate) id: Id,
    pub(crate) env: Env,
    pub(crate) registry: Registry,
    pub(crate) mailbox: Mailbox<A::Message>,
    /// `None` while a callback has it, and between two of them.
    pub(crate) incarnation: Option<Box<Incarnation<A>>>,
    pub(crate) panic_at: Option<PanicAt>,
    /// The names of the jobs so far, as the meters know them.
    pub(crate) jobs: Vec<&'static str>,
    policy: Policy,
    factory: Box<dyn FnMut() -> A>,
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

impl<A: Actor> actix::Handler<Command> for Cell<A> {
    type Result = ();

    fn handle(&mut self, command: Command, _: &mut Self::Context) {
        match command {
            Command::Inspect(answer) => {
                if self.incarnation.is_some() || !self.is_at_work() {
                    drop(answer.send(self.view()));
                } else if self.inspections.len() < INSPECTIONS {
                    self.inspections.push(answer);
                }
            }
            Command::Stop(done, within) => {
                self.ending.set(true);
                self.stop_within = Some(within);
                self.stopped.push(done);
            }
            Command::Replace(callback, held) => {
                if let Some(what) = self.mailbox.meters.name_of(callback) {
                    self.stuck = Some(Fault::new(format!("stuck in `{what}` for {} s", held.as_secs())));
                }
            }
            Command::Wake => {}
        }
    }
}

impl<A: Actor> Cell<A> {
    /// Makes a cell and enters it into the registry; it runs when its future is polled.
    pub(crate) fn create(
        (env, registry): (&Env, &Registry),
        parent: Option<Id>,
        mailbox: Mailbox<A::Message>,
        policy: Policy,
        factory: impl FnMut() -> A + 'static,
        on_end: OnEnd,
    ) -> (Entry, CellFuture<A>) {
        let ctx = actix::Context::<Cell<A>>::new();
        let commands = actix::AsyncContext::address(&ctx).recipient();
        let entry = registry.enter(parent, &mailbox, policy.stuck_after, commands);
        let ending = Rc::clone(&entry.ending);
        let cell = Cell {
            id: entry.id,
            env: env.clone(),
            registry: registry.clone(),
            mailbox,
            incarnation: None,
            panic_at: None,
            jobs: Vec::new(),
            policy,
            factory: Box::new(factory),
            budget: RestartBudget::default(),
            phase: Phase::Creating,
            ending,
            signals: None,
            children: None,
            myself: None,
            stuck: None,
            stop_within: None,
            stopped: Vec::new(),
            inspections: Vec::new(),
            on_end: Some(on_end),
        };
        (entry, ctx.into_future(cell))
    }

    fn is_at_work(&self) -> bool {
        !matches!(self.phase, Phase::Creating | Phase::BackingOff(_) | Phase::Ended)
    }

    fn view(&self) -> View {
        self.incarnation.as_deref().map(|incarnation| View::of(&incarnation.actor)).unwrap_or_default()
    }

    /// A fault that the watchdog, a spawned task or a child has caused.
    pub(crate) fn pending_fault(&mut self) -> Option<Fault> {
        self.stuck.take().or_else(|| self.signals.as_ref().and_then(|signals| signals.take_fault()))
    }

    /// What there is to do when nothing is in hand.
    pub(crate) fn next(&mut self, task: &mut Task<'_>) -> Poll<Next<A::Message>> {
        match &mut self.phase {
            Phase::Running if !self.ending.get() => self.message(task),
            Phase::Running => {
                let within = self.stop_within.take().unwrap_or(STOP_WITHIN);
                if let Some(children) = &self.children {
                    // The other half is for what is queued.
                    children.stop_all(within / 2);
                }
                self.phase = Phase::StoppingChildren;
                Poll::Ready(Next::Again)
            }
            Phase::StoppingChildren
                if self.children.as_ref().is_some_and(|children| !children.is_empty()) =>
            {
                self.message(task)
            }
            Phase::StoppingChildren => {
                self.mailbox.close();
                self.phase = Phase::Draining;
                Poll::Ready(Next::Again)
            }
            Phase::Draining => self.message(task),
            Phase::Creating => Poll::Ready(self.create_incarnation()),
            Phase::BackingOff(pause) => {
                // What is queued when the stop comes is handled all the same.
                if !self.ending.get() {
                    ready!(pause.as_mut().poll(task));
                }
                self.phase = Phase::Creating;
                Poll::Ready(Next::Again)
            }
            // A callback is in hand in the first two.
            Phase::Starting | Phase::Stopping | Phase::Ended => Poll::Ready(Next::End),
        }
    }

    /// Control first, then work. Both lanes wake the cell before it waits.
    fn message(&mut self, task: &mut Task<'_>) -> Poll<Next<A::Message>> {
        if !self.mailbox.control.is_empty()
            && let Poll::Ready(Some(message)) = self.mailbox.control.poll_recv(task)
        {
            return Poll::Ready(Next::Callback(Callback::Handle(message)));
        }
        let work = self.mailbox.work.poll_recv(task);
        if let Poll::Ready(Some(message)) = work {
            return Poll::Ready(Next::Callback(Callback::Handle(message)));
        }
        match (self.mailbox.control.poll_recv(task), work) {
            (Poll::Ready(Some(message)), _) => Poll::Ready(Next::Callback(Callback::Handle(message))),
            // The cell holds senders of both: this is the end of a queue that was closed.
            (Poll::Ready(None), Poll::Ready(None)) => {
                if let Some(children) = &self.children {
                    children.end();
                }
                self.phase = Phase::Stopping;
                Poll::Ready(Next::Callback(Callback::Stop))
            }
            _ => Poll::Pending,
        }
    }

    fn create_incarnation(&mut self) -> Next<A::Message> {
        let Ok(actor) = catch_unwind(AssertUnwindSafe(&mut self.factory)) else {
            self.fail(&Fault::new("panicked while it was made"));
            return Next::Again;
        };
        let Some(myself) = self.myself.clone() else { return Next::End };
        let signals = Rc::new(Signals::new(Rc::clone(&self.ending), myself));
        let meters = &self.mailbox.meters;
        let (env, registry) = (self.env.clone(), self.registry.clone());
        let children = Children::new(env.clone(), registry, self.id, meters, Rc::clone(&signals));
        let myself = Address::local(self.mailbox.local.clone(), Flow::Spawned, env.clock());
        let cx = Context::new(env, myself, self.id, children.clone(), Rc::clone(&signals));
        self.signals = Some(signals);
        self.children = Some(children);
        self.incarnation = Some(Box::new(Incarnation { actor, cx }));
        self.phase = Phase::Starting;
        Next::Callback(Callback::Start)
    }

    /// A callback has ended well.
    pub(crate) fn done(&mut self, incarnation: Box<Incarnation<A>>) {
        self.incarnation = Some(incarnation);
        match self.phase {
            Phase::Starting => {
                self.mailbox.meters.enter(ActorState::Running);
                self.phase = Phase::Running;
            }
            Phase::Stopping => {
                let _ = self.end(ActorState::Stopped, None);
            }
            _ => self.mailbox.meters.handled(),
        }
        if !self.inspections.is_empty() {
            for answer in std::mem::take(&mut self.inspections) {
                drop(answer.send(self.view()));
            }
        }
    }

    /// Ends the incarnation, its children and its tasks; the message in hand is lost.
    pub(crate) fn fail(&mut self, fault: &Fault) {
        if let Some(children) = self.children.take() {
            children.end();
        }
        self.signals = None;
        self.stuck = None;
        self.inspections.clear();
        self.drop_incarnation();
        let meters = &self.mailbox.meters;
        meters.fault(&fault.reason);
        if self.ending.get() {
            tracing::warn!(actor = meters.name(), reason = %fault.reason, "actor failed while it stopped");
            if defect::is_planted(Defect::SilentEnd) {
                self.phase = Phase::BackingOff(futures::future::pending().boxed());
                self.ending.set(false);
                return;
            }
            let _ = self.end(ActorState::Stopped, None);
            return;
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
                let _ = self.end(ActorState::Failed, Some(reason));
            }
            RestartDecision::RestartAfter(pause) => {
                meters.enter(ActorState::Restarting);
                let pause = self.env.jitter(pause);
                tracing::warn!(actor = meters.name(), reason = %fault.reason, pause_ms = pause.as_millis(), "actor restarts");
                self.phase = Phase::BackingOff(self.env.sleep(pause));
            }
        }
    }

    /// Drops the incarnation; its destructor may panic, too.
    fn drop_incarnation(&mut self) {
        let incarnation = self.incarnation.take();
        if catch_unwind(AssertUnwindSafe(|| drop(incarnation))).is_err() {
            tracing::warn!(actor = self.mailbox.meters.name(), "panicked while it was dropped");
        }
    }

    fn end(&mut self, state: ActorState, gave_up: Option<String>) -> Next<A::Message> {
        self.drop_incarnation();
        self.mailbox.close();
        self.mailbox.meters.enter(state);
        self.phase = Phase::Ended;
        for done in std::mem::take(&mut self.stopped) {
            let _ = done.send(());
        }
        if let Some(on_end) = self.on_end.take() {
            on_end(gave_up);
        }
        Next::End
    }
}
