//! The loop of a cell, as the future that its actix context polls: takes a message, polls its handler, takes the next.
//!
//! A message makes no second hop: the context's own poll takes it from a lane and polls the handler. It arms no timer
//! and allocates nothing: the handler's future lies in one place that is kept.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as Task, Poll};

use actix::fut::ActorFuture;
use actix::{ActorContext as _, AsyncContext as _};

use crate::cell::{Callback, Cell, Incarnation, Next};
use crate::in_handler::InHandler;
use crate::trace::{self, Carried};
use crate::{Actor, Fault, Message as _};

impl<A: Actor> actix::Actor for Cell<A> {
    type Context = actix::Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.core.myself = Some(ctx.address().recipient());
        ctx.spawn(MessageLoop::new(run_callback::<A>));
    }
}

type Done<A> = (Box<Incarnation<A>>, Result<(), Fault>);

/// Does one callback, and gives the incarnation back.
async fn run_callback<A: Actor>(
    mut incarnation: Box<Incarnation<A>>,
    callback: Callback<A::Message>,
) -> Done<A> {
    let Incarnation { actor, cx } = &mut *incarnation;
    let result = match callback {
        Callback::Start => actor.started(cx).await,
        Callback::Handle(letter) => actor.handle(letter.message, cx).await,
        Callback::Stop => {
            actor.stopping(cx).await;
            Ok(())
        }
    };
    (incarnation, result)
}

/// Polls the lanes and the handler of a cell, one message at a time.
struct MessageLoop<W, F> {
    run: W,
    /// The callback in hand.
    in_hand: Pin<Box<Option<F>>>,
    /// What its message carries.
    carried: Option<Arc<Carried>>,
}

impl<W, F> MessageLoop<W, F> {
    fn new(run: W) -> Self {
        MessageLoop { run, in_hand: Box::pin(None), carried: None }
    }
}

impl<A, W, F> ActorFuture<Cell<A>> for MessageLoop<W, F>
where
    A: Actor,
    W: Fn(Box<Incarnation<A>>, Callback<A::Message>) -> F + Unpin,
    F: Future<Output = Done<A>>,
{
    type Output = ();

    fn poll(
        self: Pin<&mut Self>,
        cell: &mut Cell<A>,
        ctx: &mut actix::Context<Cell<A>>,
        task: &mut Task<'_>,
    ) -> Poll<()> {
        let before = cell.core.registry.watch.enter(cell.core.id);
        let in_handler = InHandler::enter();
        let polled = self.get_mut().steps(cell, task);
        drop(in_handler);
        cell.core.registry.watch.leave(before);
        if polled.is_ready() {
            ctx.stop();
        }
        polled
    }
}

impl<W, F> MessageLoop<W, F> {
    fn steps<A>(&mut self, cell: &mut Cell<A>, task: &mut Task<'_>) -> Poll<()>
    where
        A: Actor,
        W: Fn(Box<Incarnation<A>>, Callback<A::Message>) -> F,
        F: Future<Output = Done<A>>,
    {
        for _ in 0..cell.core.env.messages_per_poll() {
            if !std::task::ready!(self.step(cell, task)) {
                return Poll::Ready(());
            }
        }
        // What is left must not wait for another message.
        task.waker().wake_by_ref();
        Poll::Pending
    }

    /// One step; `false` when the cell has ended.
    fn step<A>(&mut self, cell: &mut Cell<A>, task: &mut Task<'_>) -> Poll<bool>
    where
        A: Actor,
        W: Fn(Box<Incarnation<A>>, Callback<A::Message>) -> F,
        F: Future<Output = Done<A>>,
    {
        if let Some(fault) = cell.core.pending_fault() {
            self.drop_job(cell);
            cell.fail(&fault);
        }
        if self.in_hand.is_none() {
            match std::task::ready!(cell.next(task)) {
                Next::Callback(callback) => self.begin(cell, callback),
                Next::Again => return Poll::Ready(true),
                Next::End => return Poll::Ready(false),
            }
        }
        match self.poll_job(cell, task) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok((incarnation, Ok(())))) => {
                self.drop_job(cell);
                cell.done(incarnation);
                Poll::Ready(true)
            }
            Poll::Ready(Ok((incarnation, Err(fault)))) => {
                cell.incarnation = Some(incarnation);
                self.drop_job(cell);
                cell.fail(&fault);
                Poll::Ready(true)
            }
            Poll::Ready(Err(fault)) => {
                self.drop_job(cell);
                cell.fail(&fault);
                Poll::Ready(true)
            }
        }
    }

    fn begin<A>(&mut self, cell: &mut Cell<A>, mut callback: Callback<A::Message>)
    where
        A: Actor,
        W: Fn(Box<Incarnation<A>>, Callback<A::Message>) -> F,
    {
        let (panics, meters) = (&cell.core.registry.panics, &cell.core.meters);
        let (what, panic_at) = match &mut callback {
            Callback::Start => ("started", panics.due_in_phase(meters, "started")),
            Callback::Stop => ("stopping", panics.due_in_phase(meters, "stopping")),
            Callback::Handle(letter) => {
                self.carried = letter.carried.take();
                // A tap sees what is current for the handler.
                let _entered = trace::enter(self.carried.as_ref());
                let message = &letter.message;
                cell.mailbox.tap(message);
                (message.name(), panics.due(meters, message.name()))
            }
        };
        // There is one whenever there is a callback.
        if let Some(incarnation) = cell.incarnation.take() {
            cell.core.begin(what, panic_at);
            self.in_hand.set(Some((self.run)(incarnation, callback)));
        }
    }

    fn poll_job<A>(&mut self, cell: &mut Cell<A>, task: &mut Task<'_>) -> Poll<Result<Done<A>, Fault>>
    where
        A: Actor,
        F: Future<Output = Done<A>>,
    {
        let Some(callback) = self.in_hand.as_mut().as_pin_mut() else { return Poll::Pending };
        let _entered = trace::enter(self.carried.as_ref());
        let panic_at = &mut cell.core.panic_at;
        let poll = AssertUnwindSafe(|| {
            if let Some(at) = panic_at {
                at.poll();
            }
            callback.poll(task)
        });
        match catch_unwind(poll) {
            Ok(polled) => polled.map(Ok),
            Err(panic) => Poll::Ready(Err(Fault::of_panic("", &*panic))),
        }
    }

    /// Drops the callback in hand, whether it has ended or not.
    fn drop_job<A: Actor>(&mut self, cell: &mut Cell<A>) {
        cell.core.panic_at = None;
        cell.core.meters.end();
        if self.in_hand.is_some() && catch_unwind(AssertUnwindSafe(|| self.in_hand.set(None))).is_err() {
            cell.core.panicked_while_dropped("its message");
        }
        self.carried = None;
    }
}
