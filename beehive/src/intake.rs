//! How a cell takes a message: the future that its actix context polls.
//!
//! A message makes no second hop: the context's own poll takes it from a lane and polls the handler. It arms no timer
//! and allocates nothing: the handler's future lies in one place that is kept.

use std::cell::Cell as Flag;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context as Task, Poll};

use actix::ActorContext as _;
use actix::fut::ActorFuture;

use crate::cell::{Cell, Incarnation, Next};
use crate::watchdog::panic_text;
use crate::{Actor, Fault, Message as _};

thread_local! {
    static IN_HANDLER: Flag<bool> = const { Flag::new(false) };
}

/// Whether the thread is in the poll of a handler, rather than in that of a spawned task.
pub(crate) fn is_in_handler() -> bool {
    IN_HANDLER.get()
}

/// What an incarnation is asked to do.
pub(crate) enum Job<M> {
    Start,
    Handle(M),
    Stop,
}

type Done<A> = (Box<Incarnation<A>>, Result<(), Fault>);

/// Does one job, and gives the incarnation back.
pub(crate) async fn work<A: Actor>(mut inside: Box<Incarnation<A>>, job: Job<A::Message>) -> Done<A> {
    let Incarnation { actor, cx } = &mut *inside;
    let result = match job {
        Job::Start => actor.started(cx).await,
        Job::Handle(message) => actor.handle(message, cx).await,
        Job::Stop => {
            actor.stopping(cx).await;
            Ok(())
        }
    };
    (inside, result)
}

/// Polls the lanes and the handler of a cell, one message at a time.
pub(crate) struct Intake<W, F> {
    work: W,
    /// The job in hand.
    in_hand: Pin<Box<Option<F>>>,
}

impl<W, F> Intake<W, F> {
    pub(crate) fn new(work: W) -> Self {
        Intake { work, in_hand: Box::pin(None) }
    }
}

impl<A, W, F> ActorFuture<Cell<A>> for Intake<W, F>
where
    A: Actor,
    W: Fn(Box<Incarnation<A>>, Job<A::Message>) -> F + Unpin,
    F: Future<Output = Done<A>>,
{
    type Output = ();

    fn poll(
        self: Pin<&mut Self>,
        cell: &mut Cell<A>,
        ctx: &mut actix::Context<Cell<A>>,
        task: &mut Task<'_>,
    ) -> Poll<()> {
        let before = cell.registry.board.enter(cell.id);
        let outer = IN_HANDLER.replace(true);
        let polled = self.get_mut().turns(cell, task);
        IN_HANDLER.set(outer);
        cell.registry.board.leave(before);
        if polled.is_ready() {
            ctx.stop();
        }
        polled
    }
}

impl<W, F> Intake<W, F> {
    fn turns<A>(&mut self, cell: &mut Cell<A>, task: &mut Task<'_>) -> Poll<()>
    where
        A: Actor,
        W: Fn(Box<Incarnation<A>>, Job<A::Message>) -> F,
        F: Future<Output = Done<A>>,
    {
        for _ in 0..cell.env.turns() {
            if !std::task::ready!(self.turn(cell, task)) {
                return Poll::Ready(());
            }
        }
        // What is left must not wait for another message.
        task.waker().wake_by_ref();
        Poll::Pending
    }

    /// One step; `false` when the cell has ended.
    fn turn<A>(&mut self, cell: &mut Cell<A>, task: &mut Task<'_>) -> Poll<bool>
    where
        A: Actor,
        W: Fn(Box<Incarnation<A>>, Job<A::Message>) -> F,
        F: Future<Output = Done<A>>,
    {
        if let Some(fault) = cell.fault_from_beside() {
            self.let_go(cell);
            cell.fail(&fault);
        }
        if self.in_hand.is_none() {
            match std::task::ready!(cell.next(task)) {
                Next::Job(job) => self.take(cell, job),
                Next::Again => return Poll::Ready(true),
                Next::End => return Poll::Ready(false),
            }
        }
        match self.poll_job(cell, task) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok((inside, Ok(())))) => {
                self.let_go(cell);
                cell.done(inside);
                Poll::Ready(true)
            }
            Poll::Ready(Ok((inside, Err(fault)))) => {
                cell.inside = Some(inside);
                self.let_go(cell);
                cell.fail(&fault);
                Poll::Ready(true)
            }
            Poll::Ready(Err(fault)) => {
                self.let_go(cell);
                cell.fail(&fault);
                Poll::Ready(true)
            }
        }
    }

    fn take<A>(&mut self, cell: &mut Cell<A>, job: Job<A::Message>)
    where
        A: Actor,
        W: Fn(Box<Incarnation<A>>, Job<A::Message>) -> F,
    {
        let what = match &job {
            Job::Start => "started",
            Job::Stop => "stopping",
            Job::Handle(message) => {
                cell.mailbox.show(message);
                cell.panic_at = cell.registry.panics.due(&cell.mailbox.meters, message.name());
                message.name()
            }
        };
        // There is one whenever there is a job.
        if let Some(inside) = cell.inside.take() {
            cell.mailbox.meters.begin(what, &mut cell.jobs);
            self.in_hand.set(Some((self.work)(inside, job)));
        }
    }

    fn poll_job<A>(&mut self, cell: &mut Cell<A>, task: &mut Task<'_>) -> Poll<Result<Done<A>, Fault>>
    where
        A: Actor,
        F: Future<Output = Done<A>>,
    {
        let Some(job) = self.in_hand.as_mut().as_pin_mut() else { return Poll::Pending };
        let panic_at = &mut cell.panic_at;
        let poll = AssertUnwindSafe(|| {
            if let Some(at) = panic_at {
                at.poll();
            }
            job.poll(task)
        });
        match catch_unwind(poll) {
            Ok(polled) => polled.map(Ok),
            Err(panic) => Poll::Ready(Err(Fault::new(panic_text(&*panic)))),
        }
    }

    /// Drops the job in hand, whether it has ended or not.
    fn let_go<A: Actor>(&mut self, cell: &mut Cell<A>) {
        cell.panic_at = None;
        cell.mailbox.meters.end();
        if self.in_hand.is_some() && catch_unwind(AssertUnwindSafe(|| self.in_hand.set(None))).is_err() {
            tracing::warn!(actor = cell.mailbox.meters.name(), "panicked while its message was dropped");
        }
    }
}
