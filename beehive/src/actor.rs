//! What a module implements, and what it is given.

use std::cell::RefCell;
use std::future::Future;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use futures::future::{AbortHandle, Abortable};

use crate::{Address, Env, Fault, Message, Moment};

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
}

/// What an actor may use of its surroundings. Tasks that it spawned end with its incarnation.
pub struct Context<M: Message> {
    env: Env,
    myself: Address<M>,
    tasks: Rc<RefCell<Vec<AbortHandle>>>,
}

impl<M: Message> Context<M> {
    pub(crate) fn new(env: Env, myself: Address<M>) -> Self {
        Context { env, myself, tasks: Rc::default() }
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
        for task in self.tasks.borrow().iter() {
            task.abort();
        }
    }
}
