//! What a module implements, and what it is given.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use futures::future::{AbortHandle, Abortable, FutureExt, LocalBoxFuture};

use crate::children::Children;
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

/// What an actor may use of its surroundings. Tasks that it spawned end with its incarnation.
pub struct Context<M: Message> {
    env: Env,
    myself: Address<M>,
    tasks: Rc<RefCell<Vec<AbortHandle>>>,
    kind: &'static str,
    children: Children,
    ending: Rc<Cell<bool>>,
}

impl<M: Message> Context<M> {
    pub(crate) fn new(
        env: Env,
        myself: Address<M>,
        kind: &'static str,
        children: Children,
        ending: Rc<Cell<bool>>,
    ) -> Self {
        Context { env, myself, tasks: Rc::default(), kind, children, ending }
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

    /// The actor's own address, for telling only.
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
        self.children.start(self.kind, name.into(), policy, factory)
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
        self.ending.set(true);
    }

    /// The actor's own address for its children: they may try to tell, and never wait, because their parent may be
    /// waiting for them.
    pub fn for_children(&self) -> Address<M> {
        self.myself.trying_only()
    }

    /// Runs `task` beside the actor until it ends or the incarnation does.
    pub fn spawn(&self, task: impl Future<Output = ()> + 'static) -> AbortHandle {
        let (handle, registration) = AbortHandle::new_pair();
        {
            let mut tasks = self.tasks.borrow_mut();
            tasks.retain(|task| !task.is_aborted());
            tasks.push(handle.clone());
        }
        let done = handle.clone();
        let task = Abortable::new(task, registration);
        self.env.spawn(async move {
            let _ = task.await;
            // Marks the handle, so that the list above does not grow.
            done.abort();
        });
        handle
    }

    /// Tells the actor `message` after `pause`.
    pub fn after(&self, pause: Duration, message: M) -> AbortHandle {
        let (env, myself) = (self.env.clone(), self.myself.clone());
        self.spawn(async move {
            env.sleep(pause).await;
            let _ = myself.tell(message).await;
        })
    }

    /// Tells the actor what `make` builds, every `period`. A tick that finds the mailbox full is dropped.
    pub fn every(&self, period: Duration, make: impl Fn() -> M + 'static) -> AbortHandle {
        let (env, myself) = (self.env.clone(), self.myself.clone());
        self.spawn(async move {
            loop {
                env.sleep(period).await;
                let _ = myself.try_tell(make());
            }
        })
    }
}

impl<M: Message> Drop for Context<M> {
    fn drop(&mut self) {
        self.children.end();
        for task in self.tasks.borrow().iter() {
            task.abort();
        }
    }
}
