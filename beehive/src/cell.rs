//! One supervised actor: an actix actor that owns the mailbox and the factory and has one incarnation of ours in it at
//! a time. Its context polls the mailbox's lanes and the handler ([`crate::intake`]).

use std::cell::Cell as Flag;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::task::{Context as Task, Poll, ready};
use std::time::Duration;

use actix::AsyncContext as _;
use futures::future::BoxFuture;
use tokio::sync::oneshot;

use crate::children::Children;
use crate::health::{ActorState, Mark, View};
use crate::intake::{Intake, Job, work};
use crate::policy::{RestartBudget, Verdict};
use crate::registry::{Id, Registry};
use crate::testing::PanicAt;
use crate::{Actor, Address, Context, Env, Fault, Flow, Mailbox, Policy};

/// 10 s: what an actor that ends itself gives its children.
const STOP_WITHIN: Duration = Duration::from_secs(10);

/// 16: one that asks for the state asks for it once in a while.
const INSPECTIONS: usize = 16;

/// What the hive and the watchdog want of a cell.
pub(crate) enum Order {
    /// The actor's view, when it has no message in hand.
    Inspect(oneshot::Sender<View>),
    /// Stop the children, empty the queue, stop, and say so; all within the time.
    Stop(oneshot::Sender<()>, Duration),
    /// The job with that mark is in hand for too long.
    Replace(Mark, Duration),
    /// Something has changed that the cell looks at itself: see [`Signals`].
    Look,
}

impl actix::Message for Order {
    type Result = ();
}

/// What the parts of an incarnation tell their cell, on the hive's thread.
pub(crate) struct Signals {
    has_failed: Flag<bool>,
    fault: Flag<Option<Fault>>,
    /// Set when the actor has said that it ends, or was told to.
    pub(crate) ending: Rc<Flag<bool>>,
    wake: actix::Recipient<Order>,
}

impl Signals {
    /// Ends the incarnation; the first fault counts.
    pub(crate) fn fail(&self, fault: Fault) {
        if !self.has_failed.replace(true) {
            self.fault.set(Some(fault));
            self.look();
        }
    }

    /// A cell whose own queue is full is about to look anyway.
    pub(crate) fn look(&self) {
        drop(self.wake.try_send(Order::Look));
    }

    fn take(&self) -> Option<Fault> {
        if self.has_failed.get() { self.fault.take() } else { None }
    }
}

/// One life of an actor.
pub(crate) struct Incarnation<A: Actor> {
    pub(crate) actor: A,
    pub(crate) cx: Context<A::Message>,
}

enum Phase {
    /// An incarnation is to be made.
    Making,
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
    Pausing(BoxFuture<'static, ()>),
    Ended,
}

/// What the cell does next.
pub(crate) enum Next<M> {
    Job(Job<M>),
    /// The phase has changed.
    Again,
    End,
}

/// Called once, when the cell has ended: with a reason when its budget is spent.
pub(crate) type OnEnd = Box<dyn FnOnce(Option<String>)>;

pub(crate) struct Cell<A: Actor> {
    pub(crate) id: Id,
    pub(crate) env: Env,
    pub(crate) registry: Registry,
    pub(crate) mailbox: Mailbox<A::Message>,
    /// Away while a job is in hand.
    pub(crate) inside: Option<Box<Incarnation<A>>>,
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
    myself: Option<actix::Recipient<Order>>,
    replaced: Option<Fault>,
    stop_within: Option<Duration>,
    stopped: Vec<oneshot::Sender<()>>,
    inspections: Vec<oneshot::Sender<View>>,
    on_end: Option<OnEnd>,
}

impl<A: Actor> actix::Actor for Cell<A> {
    type Context = actix::Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.myself = Some(ctx.address().recipient());
        ctx.spawn(Intake::new(work::<A>));
    }
}

impl<A: Actor> actix::Handler<Order> for Cell<A> {
    type Result = ();

    fn handle(&mut self, order: Order, _: &mut Self::Context) {
        match order {
            Order::Inspect(answer) => {
                if self.inside.is_some() || !self.is_at_work() {
                    drop(answer.send(self.view()));
                } else if self.inspections.len() < INSPECTIONS {
                    self.inspections.push(answer);
                }
            }
            Order::Stop(done, within) => {
                self.ending.set(true);
                self.stop_within = Some(within);
                self.stopped.push(done);
            }
            Order::Replace(mark, held) => {
                if let Some(what) = self.mailbox.meters.name_of(mark) {
                    self.replaced = Some(Fault::new(format!("stuck in `{what}` for {} s", held.as_secs())));
                }
            }
            Order::Look => {}
        }
    }
}

impl<A: Actor> Cell<A> {
    #[allow(clippy::too_many_arguments)]
    pub(crate) fn new(
        id: Id,
        env: Env,
        registry: Registry,
        mailbox: Mailbox<A::Message>,
        policy: Policy,
        factory: impl FnMut() -> A + 'static,
        ending: Rc<Flag<bool>>,
        on_end: OnEnd,
    ) -> Self {
        Cell {
            id,
            env,
            registry,
            mailbox,
            inside: None,
            panic_at: None,
            jobs: Vec::new(),
            policy,
            factory: Box::new(factory),
            budget: RestartBudget::default(),
            phase: Phase::Making,
            ending,
            signals: None,
            children: None,
            myself: None,
            replaced: None,
            stop_within: None,
            stopped: Vec::new(),
            inspections: Vec::new(),
            on_end: Some(on_end),
        }
    }

    fn is_at_work(&self) -> bool {
        !matches!(self.phase, Phase::Making | Phase::Pausing(_) | Phase::Ended)
    }

    fn view(&self) -> View {
        self.inside.as_deref().map(|inside| View::of(&inside.actor)).unwrap_or_default()
    }

    /// A fault that came from beside the message in hand.
    pub(crate) fn fault_from_beside(&mut self) -> Option<Fault> {
        self.replaced.take().or_else(|| self.signals.as_ref().and_then(|signals| signals.take()))
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
            Phase::Making => Poll::Ready(self.make()),
            Phase::Pausing(pause) => {
                // What is queued when the stop comes is handled all the same.
                if !self.ending.get() {
                    ready!(pause.as_mut().poll(task));
                }
                self.phase = Phase::Making;
                Poll::Ready(Next::Again)
            }
            // A job is in hand in the first two.
            Phase::Starting | Phase::Stopping | Phase::Ended => Poll::Ready(Next::End),
        }
    }

    /// Control first, then work. Both lanes wake the cell before it waits.
    fn message(&mut self, task: &mut Task<'_>) -> Poll<Next<A::Message>> {
        if !self.mailbox.control.is_empty()
            && let Poll::Ready(Some(message)) = self.mailbox.control.poll_recv(task)
        {
            return Poll::Ready(Next::Job(Job::Handle(message)));
        }
        let work = self.mailbox.work.poll_recv(task);
        if let Poll::Ready(Some(message)) = work {
            return Poll::Ready(Next::Job(Job::Handle(message)));
        }
        match (self.mailbox.control.poll_recv(task), work) {
            (Poll::Ready(Some(message)), _) => Poll::Ready(Next::Job(Job::Handle(message))),
            // The cell holds senders of both: this is the end of a queue that was closed.
            (Poll::Ready(None), Poll::Ready(None)) => {
                if let Some(children) = &self.children {
                    children.end();
                }
                self.phase = Phase::Stopping;
                Poll::Ready(Next::Job(Job::Stop))
            }
            _ => Poll::Pending,
        }
    }

    fn make(&mut self) -> Next<A::Message> {
        let Ok(actor) = catch_unwind(AssertUnwindSafe(&mut self.factory)) else {
            self.fail(&Fault::new("panicked while it was made"));
            return Next::Again;
        };
        let Some(wake) = self.myself.clone() else { return Next::End };
        let signals = Rc::new(Signals {
            has_failed: Flag::new(false),
            fault: Flag::new(None),
            ending: Rc::clone(&self.ending),
            wake,
        });
        let meters = &self.mailbox.meters;
        let (env, registry) = (self.env.clone(), self.registry.clone());
        let children = Children::new(env.clone(), registry, self.id, meters.full_name(), Rc::clone(&signals));
        let myself = Address::local(self.mailbox.local.clone(), Flow::Spawned, env.clock());
        let board = self.registry.board.clone();
        let cx =
            Context::new(env, myself, meters.kind(), self.id, children.clone(), Rc::clone(&signals), board);
        self.signals = Some(signals);
        self.children = Some(children);
        self.inside = Some(Box::new(Incarnation { actor, cx }));
        self.phase = Phase::Starting;
        Next::Job(Job::Start)
    }

    /// A job has ended well.
    pub(crate) fn done(&mut self, inside: Box<Incarnation<A>>) {
        self.inside = Some(inside);
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
        self.replaced = None;
        self.inspections.clear();
        self.bury();
        let meters = &self.mailbox.meters;
        meters.fault(&fault.reason);
        if self.ending.get() {
            tracing::warn!(actor = meters.name(), reason = %fault.reason, "actor failed while it stopped");
            let _ = self.end(ActorState::Stopped, None);
            return;
        }
        match self.budget.fault(&self.policy, self.env.now()) {
            Verdict::GiveUp => {
                let reason = format!(
                    "`{}` failed {} times within {} s, last: {}",
                    meters.name(),
                    self.policy.budget + 1,
                    self.policy.window.as_secs(),
                    fault.reason
                );
                let _ = self.end(ActorState::Failed, Some(reason));
            }
            Verdict::RestartAfter(pause) => {
                meters.enter(ActorState::Restarting);
                let pause = self.env.jitter(pause);
                tracing::warn!(actor = meters.name(), reason = %fault.reason, pause_ms = pause.as_millis(), "actor restarts");
                self.phase = Phase::Pausing(self.env.sleep(pause));
            }
        }
    }

    /// Drops the incarnation; its destructor may panic, too.
    fn bury(&mut self) {
        let inside = self.inside.take();
        if catch_unwind(AssertUnwindSafe(|| drop(inside))).is_err() {
            tracing::warn!(actor = self.mailbox.meters.name(), "panicked while it was dropped");
        }
    }

    fn end(&mut self, state: ActorState, gave_up: Option<String>) -> Next<A::Message> {
        self.bury();
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
