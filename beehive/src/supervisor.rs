//! Keeps one actor alive: owns its mailbox and its factory, restarts it after a fault, gives up by the policy.

use std::cell::Cell as Flag;
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::time::Duration;

use actix::prelude::{
    ActorFutureExt, Addr, Handler, MailboxError, MessageResult, ResponseActFuture, WrapFuture,
};
use tokio::sync::{mpsc, oneshot};

use crate::children::Children;
use crate::health::ActorState;
use crate::registry::{Id, Registry};
use crate::{Actor, Address, Capacity, Context, Env, Fault, Flow, Lane, Mailbox, Message, Moment, Sample};

/// How often an actor may fail, and how long a message may take.
#[derive(Debug, Clone, Copy)]
pub struct Policy {
    /// Pause before the first restart; doubles up to `backoff_max`, with jitter.
    pub backoff_min: Duration,
    /// The longest pause between restarts.
    pub backoff_max: Duration,
    /// Restarts within `window` before the daemon ends.
    pub budget: usize,
    /// The window of the budget. A quiet window also resets the back-off.
    pub window: Duration,
    /// The bound of a child's mailbox. An actor that the wiring registers brings its mailbox, and this says nothing.
    pub capacity: Capacity,
    /// A message in hand for longer than this counts as stuck, and the actor is restarted.
    pub stuck_after: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        Policy {
            backoff_min: Duration::from_millis(100),
            backoff_max: Duration::from_secs(30),
            budget: 10,
            window: Duration::from_secs(300),
            capacity: Capacity::new(
                64,
                "a burst of what one child is told; more means that it does not keep up",
            ),
            stuck_after: Duration::from_secs(60),
        }
    }
}

/// 4: inspectors of one actor at a time; a stop needs one place.
pub(crate) const ORDER_CAPACITY: usize = 4;
/// 10 s: what an actor that ends itself gives its children.
const STOP_WITHIN: Duration = Duration::from_secs(10);

/// What follows a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// A new incarnation after this pause (before jitter).
    RestartAfter(Duration),
    /// The budget is spent.
    GiveUp,
}

/// Counts faults against a [`Policy`]. Pure.
#[derive(Debug, Default)]
pub struct RestartBudget {
    faults: Vec<Moment>,
}

impl RestartBudget {
    /// Notes a fault at `now` and decides.
    pub fn fault(&mut self, policy: &Policy, now: Moment) -> Verdict {
        self.faults.retain(|at| now.since(*at) < policy.window);
        let earlier = self.faults.len();
        self.faults.push(now);
        if earlier >= policy.budget {
            return Verdict::GiveUp;
        }
        let doublings = u32::try_from(earlier).unwrap_or(u32::MAX).min(16);
        Verdict::RestartAfter((policy.backoff_min * 2_u32.pow(doublings)).min(policy.backoff_max))
    }
}

/// Orders to a supervisor.
pub(crate) enum Order {
    /// The actor's view, when it has no message in hand.
    Inspect(oneshot::Sender<View>),
    /// Stop the children, empty the queue, stop, and say so; all within the time.
    Stop(oneshot::Sender<()>, Duration),
}

/// What an actor shows of itself.
#[derive(Debug, Default)]
pub(crate) struct View {
    pub(crate) snapshot: serde_json::Value,
    pub(crate) samples: Vec<Sample>,
}

/// How a supervisor ended.
pub(crate) enum End {
    Stopped,
    GaveUp(String),
}

// === The actix side: one cell holds one incarnation ===

struct Cell<A: Actor> {
    /// Away while a message is in hand. Boxed, because actix wants its actors to be movable.
    inside: Option<Box<(A, Context<A::Message>)>>,
}

impl<A: Actor> actix::Actor for Cell<A> {
    type Context = actix::Context<Self>;
}

enum Job<M> {
    Start,
    Handle(M),
    Stop,
}

impl<M: Send + 'static> actix::Message for Job<M> {
    type Result = Result<(), Fault>;
}

impl<A: Actor> Handler<Job<A::Message>> for Cell<A> {
    type Result = ResponseActFuture<Self, Result<(), Fault>>;

    fn handle(&mut self, job: Job<A::Message>, _: &mut Self::Context) -> Self::Result {
        let Some(mut inside) = self.inside.take() else {
            // One job at a time is the supervisor's promise.
            return Box::pin(async { Err(Fault::new("two messages in hand at once")) }.into_actor(self));
        };
        let work = async move {
            let (actor, cx) = &mut *inside;
            let result = match job {
                Job::Start => actor.started(cx).await,
                Job::Handle(message) => actor.handle(message, cx).await,
                Job::Stop => {
                    actor.stopping(cx).await;
                    Ok(())
                }
            };
            (inside, result)
        };
        Box::pin(work.into_actor(self).map(|(inside, result), cell: &mut Self, _| {
            cell.inside = Some(inside);
            result
        }))
    }
}

struct Look;

impl actix::Message for Look {
    type Result = View;
}

impl<A: Actor> Handler<Look> for Cell<A> {
    type Result = MessageResult<Look>;

    fn handle(&mut self, _: Look, _: &mut Self::Context) -> Self::Result {
        MessageResult(match self.inside.as_deref() {
            Some((actor, _)) => View { snapshot: actor.snapshot(), samples: actor.samples() },
            None => View::default(),
        })
    }
}

struct Dismiss;

impl actix::Message for Dismiss {
    type Result = ();
}

impl<A: Actor> Handler<Dismiss> for Cell<A> {
    type Result = ();

    fn handle(&mut self, _: Dismiss, cx: &mut Self::Context) {
        use actix::ActorContext;
        cx.terminate();
    }
}

// === The supervisor ===

pub(crate) struct Supervisor<A: Actor, F> {
    pub(crate) env: Env,
    pub(crate) policy: Policy,
    pub(crate) mailbox: Mailbox<A::Message>,
    pub(crate) factory: F,
    pub(crate) orders: mpsc::Receiver<Order>,
    pub(crate) registry: Registry,
    pub(crate) id: Id,
    /// Set when the actor has said that it ends, or was told to.
    pub(crate) ending: Rc<Flag<bool>>,
}

enum Next<M> {
    Message(M),
    Fault(Fault),
    Order(Order),
}

impl<A: Actor, F: FnMut() -> A + 'static> Supervisor<A, F> {
    /// Runs until told to stop or until the budget is spent.
    pub(crate) async fn run(mut self) -> End {
        let mut budget = RestartBudget::default();
        loop {
            let fault = match self.incarnation().await {
                Ok(()) => {
                    self.mailbox.meters.enter(ActorState::Stopped);
                    return End::Stopped;
                }
                Err(fault) => fault,
            };
            self.mailbox.meters.fault(&fault.reason);
            let verdict = budget.fault(&self.policy, self.env.now());
            match verdict {
                Verdict::GiveUp => {
                    self.mailbox.meters.enter(ActorState::Failed);
                    let name = self.mailbox.meters.name().to_owned();
                    return End::GaveUp(format!(
                        "`{name}` failed {} times within {} s, last: {}",
                        self.policy.budget + 1,
                        self.policy.window.as_secs(),
                        fault.reason
                    ));
                }
                Verdict::RestartAfter(pause) => {
                    self.mailbox.meters.enter(ActorState::Restarting);
                    let pause = self.env.jitter(pause);
                    tracing::warn!(actor = self.mailbox.meters.name(), reason = %fault.reason, pause_ms = pause.as_millis(), "actor restarts");
                    self.env.sleep(pause).await;
                }
            }
        }
    }

    /// One life of the actor. `Ok` means: stopped in order.
    async fn incarnation(&mut self) -> Result<(), Fault> {
        let myself = Address::local(self.mailbox.local.clone(), Flow::Tell, self.env.clock());
        let (faults_tx, mut faults) = mpsc::channel(1);
        let name = self.mailbox.meters.name().into();
        let children = Children::new(self.env.clone(), self.registry.clone(), self.id, name, faults_tx);
        let kind = self.mailbox.meters.kind();
        let cx = Context::new(self.env.clone(), myself, kind, children.clone(), Rc::clone(&self.ending));
        let actor = std::panic::catch_unwind(AssertUnwindSafe(&mut self.factory))
            .map_err(|_| Fault::new("panicked while it was made"))?;
        let cell = actix::Actor::start(Cell { inside: Some(Box::new((actor, cx))) });
        let result = self.serve(&cell, &children, &mut faults).await;
        children.end();
        // A stuck incarnation is dropped with its tasks; a dead one is closed already.
        if cell.connected() {
            let _ = cell.send(Dismiss).await;
        }
        result
    }

    async fn serve(
        &mut self,
        cell: &Addr<Cell<A>>,
        children: &Children,
        faults: &mut mpsc::Receiver<Fault>,
    ) -> Result<(), Fault> {
        self.job(cell, "started", Job::Start).await?;
        self.mailbox.meters.enter(ActorState::Running);
        loop {
            if self.ending.get() {
                return self.finish(cell, children, STOP_WITHIN).await;
            }
            match self.next(faults).await {
                Next::Fault(fault) => return Err(fault),
                Next::Message(message) => self.hand(cell, message).await?,
                Next::Order(Order::Inspect(answer)) => {
                    let view = cell.send(Look).await.map_err(died)?;
                    let _ = answer.send(view);
                }
                Next::Order(Order::Stop(done, within)) => {
                    self.finish(cell, children, within).await?;
                    let _ = done.send(());
                    return Ok(());
                }
            }
        }
    }

    /// Orders first, then control, then work.
    async fn next(&mut self, faults: &mut mpsc::Receiver<Fault>) -> Next<A::Message> {
        // The supervisor holds senders of both lanes, so neither can end.
        tokio::select! {
            biased;
            Some(fault) = faults.recv() => Next::Fault(fault),
            Some(order) = self.orders.recv() => Next::Order(order),
            Some(message) = self.mailbox.control.recv() => Next::Message(message),
            Some(message) = self.mailbox.work.recv() => Next::Message(message),
        }
    }

    /// The children first; then what is queued; then the actor itself.
    async fn finish(
        &mut self,
        cell: &Addr<Cell<A>>,
        children: &Children,
        within: Duration,
    ) -> Result<(), Fault> {
        self.ending.set(true);
        children.stop_all(within / 2).await;
        self.drain(cell).await?;
        self.job(cell, "stopping", Job::Stop).await
    }

    /// What is queued when the stop comes is still handled; what comes later is refused.
    async fn drain(&mut self, cell: &Addr<Cell<A>>) -> Result<(), Fault> {
        self.mailbox.close();
        while let Some(message) = self.mailbox.control.recv().await {
            self.hand(cell, message).await?;
        }
        while let Some(message) = self.mailbox.work.recv().await {
            self.hand(cell, message).await?;
        }
        Ok(())
    }

    async fn hand(&self, cell: &Addr<Cell<A>>, message: A::Message) -> Result<(), Fault> {
        self.mailbox.show(&message);
        self.job(cell, message.name(), Job::Handle(message)).await?;
        self.mailbox.meters.handled();
        Ok(())
    }

    async fn job(&self, cell: &Addr<Cell<A>>, what: &'static str, job: Job<A::Message>) -> Result<(), Fault> {
        self.mailbox.meters.begin(what, self.env.now());
        let result = self.env.timeout(self.policy.stuck_after, cell.send(job)).await;
        match result {
            None => Err(Fault::new(format!("stuck in `{what}` for {} s", self.policy.stuck_after.as_secs()))),
            Some(Err(error)) => Err(died(error)),
            Some(Ok(Err(fault))) => Err(fault),
            Some(Ok(Ok(()))) => {
                self.mailbox.meters.end();
                Ok(())
            }
        }
    }
}

fn died(_: MailboxError) -> Fault {
    Fault::new("panicked while it handled a message")
}

impl<M: Message> Mailbox<M> {
    /// Whether `message` would overtake work.
    pub fn overtakes(message: &M) -> bool {
        message.lane() == Lane::Control
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn back_off_doubles_and_the_budget_ends_it() {
        let policy = Policy { budget: 3, ..Policy::default() };
        let mut budget = RestartBudget::default();
        let at = |s| Moment(Duration::from_secs(s));
        assert_eq!(budget.fault(&policy, at(0)), Verdict::RestartAfter(Duration::from_millis(100)));
        assert_eq!(budget.fault(&policy, at(1)), Verdict::RestartAfter(Duration::from_millis(200)));
        assert_eq!(budget.fault(&policy, at(2)), Verdict::RestartAfter(Duration::from_millis(400)));
        assert_eq!(budget.fault(&policy, at(3)), Verdict::GiveUp);
    }

    #[test]
    fn a_quiet_window_forgives() {
        let policy = Policy { budget: 1, ..Policy::default() };
        let mut budget = RestartBudget::default();
        assert_eq!(
            budget.fault(&policy, Moment::default()),
            Verdict::RestartAfter(Duration::from_millis(100))
        );
        let later = Moment(policy.window);
        assert_eq!(budget.fault(&policy, later), Verdict::RestartAfter(Duration::from_millis(100)));
    }
}
