//! What a module implements, and what it is given.

use std::cell::RefCell;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::task::Poll;
use std::time::{Duration, SystemTime};

use futures::future::{AbortHandle, Abortable, FutureExt, LocalBoxFuture};
use slab::Slab;

use crate::cell::Cell;
use crate::children::Children;
use crate::command::Signals;
use crate::defect::{self, Defect};
use crate::trace;
use crate::watch::{Id, PollGuard};
use crate::{Address, ChildStop, Env, Fault, Message, Moment, Name, Policy, Sample};

/// A module's state and what it does with its messages, one at a time and in order.
///
/// A handler that waits holds up its own mailbox and nobody else's. What may wait long is spawned with
/// [`Context::spawn`] and tells the result back to [`Context::myself`].
pub trait Actor: Sized + 'static {
    /// The one enum this actor accepts.
    type Message: Message;

    /// Called once per incarnation before the first message.
    fn started(&mut self, cx: &mut Context<Self::Message>) -> impl Future<Output = Result<(), Fault>> {
        let _ = cx;
        async { Ok(()) }
    }

    /// Handles one message. An error ends this incarnation; the supervisor decides about the next.
    fn handle(
        &mut self,
        message: Self::Message,
        cx: &mut Context<Self::Message>,
    ) -> impl Future<Output = Result<(), Fault>>;

    /// Called once when the daemon shuts down, after the queue has been emptied.
    fn stopping(&mut self, cx: &mut Context<Self::Message>) -> impl Future<Output = ()> {
        let _ = cx;
        async {}
    }

    /// A small view of the state for the admin endpoint, the metrics and the tests.
    fn snapshot(&self) -> serde_json::Value {
        serde_json::Value::Null
    }

    /// Gauges that are read from the state when a report is made: for values with labels, and for those that change
    /// with time. The other gauges are set with [`Env::measure`].
    fn samples(&self) -> Vec<Sample> {
        Vec::new()
    }
}

/// The tasks of one incarnation.
type Tasks = Rc<RefCell<Slab<AbortHandle>>>;

/// What an actor may use of its surroundings. Tasks that it spawned end with its incarnation.
pub struct Context<M: Message> {
    env: Env,
    myself: Address<M>,
    tasks: Tasks,
    id: Id,
    children: Children,
    signals: Rc<Signals>,
}

impl<M: Message> Context<M> {
    pub(crate) fn new(
        env: Env,
        myself: Address<M>,
        id: Id,
        children: Children,
        signals: Rc<Signals>,
    ) -> Self {
        Context { env, myself, tasks: Rc::default(), id, children, signals }
    }

    /// The hive's environment.
    pub fn env(&self) -> &Env {
        &self.env
    }

    /// Monotonic now.
    pub fn now(&self) -> Moment {
        self.env.now()
    }

    /// Wall time; never decide a conflict by it.
    pub fn wall(&self) -> SystemTime {
        self.env.wall()
    }

    /// The actor's own address, for the tasks that it spawns; the actor itself would wait for itself, and only tries
    /// ([`crate::Flow::Spawned`]).
    pub fn myself(&self) -> Address<M> {
        self.myself.clone()
    }

    /// Starts an actor as a child of this incarnation and gives its address, for telling and asking.
    ///
    /// Its full name is `parent/kind:instance`, the bound of its mailbox is [`Policy::capacity`]. It is restarted by
    /// its own budget; past it, it is a fault of its parent. It ends with its parent's incarnation, its queue included;
    /// in a shutdown it is stopped before its parent is. `factory` may hold addresses that were granted to the parent;
    /// of the parent itself give it [`Context::for_children`].
    ///
    /// When a child of that name is ending, the new one takes messages at once and starts when the other has ended.
    /// When one of that name runs, this incarnation is faulty: the new address is closed and the parent restarts.
    pub fn child<A: Actor>(
        &self,
        name: impl Into<Name>,
        policy: Policy,
        factory: impl FnMut() -> A + 'static,
    ) -> Address<A::Message> {
        self.children.start(name.into(), policy.capacity, |hive, parent, mailbox, on_end| {
            Cell::create(hive, parent, mailbox, policy, factory, on_end)
        })
    }

    /// Stops a child in order: it handles what is queued, calls [`Actor::stopping`] and is gone. When `within` has
    /// passed it is ended where it stands. The stop begins at once and goes on when the future is dropped; do not
    /// await it in a handler whose child may be waiting for this actor, but spawn it.
    pub fn stop_child(&self, name: impl Into<Name>, within: Duration) -> LocalBoxFuture<'static, ChildStop> {
        self.children.stop(&name.into(), within).boxed_local()
    }

    /// Whether a child of that name runs and has not been told to stop.
    pub fn has_child(&self, name: impl Into<Name>) -> bool {
        self.children.has(&name.into())
    }

    /// Ends this actor in order after the message in hand: what is queued is still handled, [`Actor::stopping`] is
    /// called, and it is not started again.
    pub fn stop(&self) {
        self.signals.ending.set(true);
    }

    /// The actor's own address for its children: they may try to tell, and never wait, because their parent may be
    /// waiting for them.
    pub fn for_children(&self) -> Address<M> {
        self.myself.try_only()
    }

    /// Runs `task` beside the actor until it ends or the incarnation does. When it panics, that is a fault of this
    /// incarnation. What is followed now ([`trace`]) is followed in it.
    pub fn spawn(&self, task: impl Future<Output = ()> + 'static) -> AbortHandle {
        match trace::current() {
            Some(carried) => self.spawn_unfollowed(trace::within(Some(carried), task)),
            None => self.spawn_unfollowed(task),
        }
    }

    /// What goes on by itself belongs to nothing that is followed.
    fn spawn_unfollowed(&self, task: impl Future<Output = ()> + 'static) -> AbortHandle {
        let surroundings = (&self.children, &self.signals, self.id);
        spawn_boxed(&self.env, &self.tasks, surroundings, task.boxed_local())
    }

    /// Tells `to` `message` as soon as it has room, by a task of this incarnation: for what goes against the order in which
    /// actors wait for each other ([`crate::Flow::Spawned`]), and must not be lost. An actor that has stopped for good gets
    /// nothing.
    pub fn spawn_tell<N: Message>(&self, to: &Address<N>, message: N) -> AbortHandle {
        let to = to.clone();
        self.spawn(async move {
            let _ = to.tell(message).await;
        })
    }

    /// Tells the actor `message` after `pause`.
    pub fn after(&self, pause: Duration, message: M) -> AbortHandle {
        let (env, myself) = (self.env.clone(), self.myself.clone());
        self.spawn_unfollowed(async move {
            env.sleep(pause).await;
            let _ = myself.tell(message).await;
        })
    }

    /// Tells the actor what `make` builds, every `period`. A tick that finds the mailbox full is dropped.
    pub fn every(&self, period: Duration, make: impl Fn() -> M + 'static) -> AbortHandle {
        let (env, myself) = (self.env.clone(), self.myself.clone());
        self.spawn_unfollowed(async move {
            loop {
                env.sleep(period).await;
                let _ = myself.try_tell(make());
            }
        })
    }
}

/// [`Context::spawn`], compiled once for all actors and tasks.
fn spawn_boxed(
    env: &Env,
    tasks: &Tasks,
    (children, signals, id): (&Children, &Rc<Signals>, Id),
    task: LocalBoxFuture<'static, ()>,
) -> AbortHandle {
    let (handle, registration) = AbortHandle::new_pair();
    let key = tasks.borrow_mut().insert(handle.clone());
    let guard = TaskGuard { tasks: Rc::clone(tasks), key };
    let (signals, watch) = (Rc::clone(signals), children.watch());
    let mut panic_at = children.panic_in_task();
    env.spawn(async move {
        let _guard = guard;
        let mut task = Abortable::new(task, registration);
        let polled = std::future::poll_fn(|cx| {
            let _polled = PollGuard::new(&watch, id);
            let poll = AssertUnwindSafe(|| {
                if let Some(at) = &mut panic_at {
                    at.poll();
                }
                task.poll_unpin(cx)
            });
            match catch_unwind(poll) {
                Ok(polled) => polled.map(|_| None),
                Err(panic) => Poll::Ready(Some(Fault::of_panic("a task of the actor ", &*panic))),
            }
        });
        if let Some(fault) = polled.await
            && !defect::is_planted(Defect::LostTaskPanic)
        {
            signals.fail(fault);
        }
    });
    handle
}

/// Takes a task off the list when it has ended, in whichever way.
struct TaskGuard {
    tasks: Tasks,
    key: usize,
}

impl Drop for TaskGuard {
    fn drop(&mut self) {
        self.tasks.borrow_mut().try_remove(self.key);
    }
}

impl<M: Message> Drop for Context<M> {
    fn drop(&mut self) {
        self.children.end();
        for (_, task) in self.tasks.borrow().iter() {
            task.abort();
        }
    }
}
