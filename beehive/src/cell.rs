//! One supervised actor: an actix actor that owns the mailbox and the factory and has one incarnation of ours in it at
//! a time. What it does next is decided by its [`Core`]; `message_loop` polls it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::{Context as Task, Poll, ready};

use crate::cell_core::{Core, End, Step};
use crate::command::Command;
use crate::health::View;
use crate::registry::{Entry, Id, OnEnd, Registry};
use crate::trace::Letter;
use crate::{Actor, Address, Context, Env, Fault, Flow, Mailbox, Policy};

/// One actor between two restarts, with what it is given.
pub(crate) struct Incarnation<A: Actor> {
    pub(crate) actor: A,
    pub(crate) cx: Context<A::Message>,
}

/// What an incarnation is asked to do.
pub(crate) enum Callback<M> {
    Start,
    Handle(Letter<M>),
    Stop,
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
    pub(crate) core: Core,
    pub(crate) mailbox: Mailbox<A::Message>,
    /// `None` while a callback has it, and between two of them.
    pub(crate) incarnation: Option<Box<Incarnation<A>>>,
    factory: Box<dyn FnMut() -> A>,
}

impl<A: Actor> actix::Handler<Command> for Cell<A> {
    type Result = ();

    fn handle(&mut self, command: Command, _: &mut Self::Context) {
        if let Some(answer) = self.core.take(command, self.incarnation.is_some()) {
            drop(answer.send(self.view()));
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
        let core = Core::new(&entry, (env, registry), &mailbox.meters, policy, on_end);
        let cell = Cell { core, mailbox, incarnation: None, factory: Box::new(factory) };
        (entry, ctx.into_future(cell))
    }

    fn view(&self) -> View {
        self.incarnation.as_deref().map(|incarnation| View::of(&incarnation.actor)).unwrap_or_default()
    }

    /// What there is to do when nothing is in hand.
    pub(crate) fn next(&mut self, task: &mut Task<'_>) -> Poll<Next<A::Message>> {
        match ready!(self.core.next(task)) {
            Step::Message => self.message(task),
            Step::Create => Poll::Ready(self.create_incarnation()),
            Step::Close => {
                self.mailbox.close();
                Poll::Ready(Next::Again)
            }
            Step::Again => Poll::Ready(Next::Again),
            Step::End => Poll::Ready(Next::End),
        }
    }

    /// Control first, then work. Both lanes wake the cell before it waits.
    fn message(&mut self, task: &mut Task<'_>) -> Poll<Next<A::Message>> {
        if !self.mailbox.control.is_empty()
            && let Poll::Ready(Some(letter)) = self.mailbox.control.poll_recv(task)
        {
            return Poll::Ready(Next::Callback(Callback::Handle(letter)));
        }
        let work = self.mailbox.work.poll_recv(task);
        if let Poll::Ready(Some(letter)) = work {
            return Poll::Ready(Next::Callback(Callback::Handle(letter)));
        }
        match (self.mailbox.control.poll_recv(task), work) {
            (Poll::Ready(Some(letter)), _) => Poll::Ready(Next::Callback(Callback::Handle(letter))),
            // The cell holds senders of both: this is the end of a queue that was closed.
            (Poll::Ready(None), Poll::Ready(None)) => {
                self.core.is_drained();
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
        let Some((signals, children)) = self.core.begin_incarnation() else { return Next::End };
        let env = self.core.env.clone();
        let myself = Address::local(self.mailbox.local.clone(), Flow::Spawned, env.clock());
        let cx = Context::new(env, myself, self.core.id, children, signals);
        self.incarnation = Some(Box::new(Incarnation { actor, cx }));
        Next::Callback(Callback::Start)
    }

    /// A callback has ended well.
    pub(crate) fn done(&mut self, incarnation: Box<Incarnation<A>>) {
        self.incarnation = Some(incarnation);
        if let Some(end) = self.core.done() {
            self.end(end);
        }
        for answer in self.core.inspections() {
            drop(answer.send(self.view()));
        }
    }

    /// Ends the incarnation, its children and its tasks; the message in hand is lost.
    pub(crate) fn fail(&mut self, fault: &Fault) {
        self.core.give_up();
        self.drop_incarnation();
        if let Some(end) = self.core.after(fault) {
            self.end(end);
        }
    }

    /// Drops the incarnation; its destructor may panic, too.
    fn drop_incarnation(&mut self) {
        let incarnation = self.incarnation.take();
        if catch_unwind(AssertUnwindSafe(|| drop(incarnation))).is_err() {
            self.core.panicked_while_dropped("it");
        }
    }

    fn end(&mut self, end: End) {
        self.drop_incarnation();
        self.mailbox.close();
        self.core.ended(end);
    }
}
