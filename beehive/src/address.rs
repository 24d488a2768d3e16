//! Typed addresses: the only handle anyone gets.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::sync::mpsc;

use crate::env::Clock;
use crate::health::Meters;
use crate::in_handler::is_in_handler;
use crate::trace::Letter;
use crate::{AskError, Flow, Lane, Message, Refusal, Reply};

/// 20 ms, half of it at the least, before a mailbox that was full is tried again.
const RETRY_PAUSE: Duration = Duration::from_millis(20);

pub(crate) type Tap<M> = Box<dyn Fn(&M) + Send + Sync>;

pub(crate) struct LocalMailbox<M> {
    pub(crate) control: mpsc::Sender<Letter<M>>,
    pub(crate) work: mpsc::Sender<Letter<M>>,
    pub(crate) meters: Arc<Meters>,
    /// Who looks on, if anybody: see [`crate::Hive::tap`].
    pub(crate) tap: OnceLock<Tap<M>>,
}

impl<M: Message> LocalMailbox<M> {
    fn lane(&self, message: &M) -> &mpsc::Sender<Letter<M>> {
        match message.lane() {
            Lane::Control => &self.control,
            Lane::Work => &self.work,
        }
    }
}

/// The far end of a remote mailbox, as the link offers it.
pub trait RemoteMailbox<M>: Send + Sync {
    /// Hands the message to the link, waiting for credit.
    fn tell(&self, message: M) -> BoxFuture<'_, Result<(), Refusal>>;
    /// Hands the message to the link if there is credit now.
    fn try_tell(&self, message: M) -> Result<(), Refusal>;
    /// Whether the link is up.
    fn is_up(&self) -> bool;
}

enum Target<M: Message> {
    Local(Arc<LocalMailbox<M>>),
    Remote(Arc<dyn RemoteMailbox<M>>),
}

impl<M: Message> Clone for Target<M> {
    fn clone(&self) -> Self {
        match self {
            Target::Local(local) => Target::Local(Arc::clone(local)),
            Target::Remote(remote) => Target::Remote(Arc::clone(remote)),
        }
    }
}

/// The way to one actor, here or on another host. Cloning gains no room in the mailbox.
pub struct Address<M: Message> {
    target: Target<M>,
    flow: Flow,
    clock: Arc<dyn Clock>,
}

impl<M: Message> Clone for Address<M> {
    fn clone(&self) -> Self {
        Address { target: self.target.clone(), flow: self.flow, clock: Arc::clone(&self.clock) }
    }
}

impl<M: Message> std::fmt::Debug for Address<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.target {
            Target::Local(local) => write!(f, "Address({})", local.meters.name()),
            Target::Remote(_) => f.write_str("Address(remote)"),
        }
    }
}

impl<M: Message> Address<M> {
    pub(crate) fn local(local: Arc<LocalMailbox<M>>, flow: Flow, clock: Arc<dyn Clock>) -> Self {
        Address { target: Target::Local(local), flow, clock }
    }

    /// An address whose mailbox is at the other end of a link. Asking is allowed: a remote ask has a deadline and
    /// its answer never waits for the asker's own mailbox.
    pub fn remote(remote: Arc<dyn RemoteMailbox<M>>, clock: Arc<dyn Clock>) -> Self {
        Address { target: Target::Remote(remote), flow: Flow::Remote, clock }
    }

    /// Delivers, waiting for room: back-pressure.
    ///
    /// # Errors
    /// [`Refusal::Closed`] when the actor has stopped for good, [`Refusal::Undeclared`] when the address was not
    /// granted for waiting here; from a remote mailbox also the link's refusals.
    pub async fn tell(&self, message: M) -> Result<(), Refusal> {
        if !self.may_wait() {
            return Err(Refusal::Undeclared);
        }
        match &self.target {
            Target::Local(local) => {
                let lane = local.lane(&message);
                lane.send(Letter::new(message)).await.map_err(|_| Refusal::Closed)
            }
            Target::Remote(remote) => remote.tell(message).await,
        }
    }

    /// Delivers if there is room now.
    ///
    /// # Errors
    /// [`Refusal::Full`] when the lane is at its bound (counted), [`Refusal::Closed`] when the actor has stopped.
    pub fn try_tell(&self, message: M) -> Result<(), Refusal> {
        match &self.target {
            Target::Local(local) => {
                let sent = local.lane(&message).try_send(Letter::new(message));
                sent.map_err(|error| match error {
                    mpsc::error::TrySendError::Full(_) => {
                        local.meters.refused();
                        Refusal::Full
                    }
                    mpsc::error::TrySendError::Closed(_) => Refusal::Closed,
                })
            }
            Target::Remote(remote) => remote.try_tell(message),
        }
    }

    /// Tries to deliver what `make` builds until there is room: what a child tells its parent, for whom it may not wait. Ends
    /// also when the actor has stopped for good.
    pub async fn tell_with_retry(&self, env: &crate::Env, make: impl Fn() -> M) {
        while self.try_tell(make()) == Err(Refusal::Full) {
            env.sleep(env.jitter(RETRY_PAUSE)).await;
        }
    }

    /// Sends what `make` builds around a [`Reply`] and waits for the answer, both within `deadline`.
    ///
    /// # Errors
    /// See [`AskError`]. After [`AskError::Deadline`], [`AskError::Crashed`] and [`AskError::LinkDown`] the message may
    /// have been handled.
    pub async fn ask<T: Send + 'static>(
        &self,
        deadline: Duration,
        make: impl FnOnce(Reply<T>) -> M,
    ) -> Result<T, AskError> {
        if matches!(self.flow, Flow::Tell | Flow::TryTell) || !self.may_wait() {
            return Err(AskError::Undeclared);
        }
        let (reply, answer) = Reply::channel();
        let message = make(reply);
        let exchange = async {
            self.tell(message).await?;
            answer.await.unwrap_or(Err(AskError::Crashed))
        };
        let exchange = std::pin::pin!(exchange);
        match futures::future::select(exchange, self.clock.sleep(deadline)).await {
            futures::future::Either::Left((result, _)) => result,
            futures::future::Either::Right(((), _)) => Err(AskError::Deadline),
        }
    }

    /// Whether who asks now may wait for room.
    fn may_wait(&self) -> bool {
        match self.flow {
            Flow::TryTell => false,
            Flow::Spawned => !is_in_handler(),
            Flow::Tell | Flow::Ask | Flow::Remote | Flow::Child => true,
        }
    }

    /// The same address for those who must not wait: see [`Flow::TryTell`].
    pub(crate) fn try_only(&self) -> Self {
        Address { flow: Flow::TryTell, ..self.clone() }
    }

    /// Whether the mailbox can be reached: a local one until it is closed, a remote one while its link is up.
    pub fn is_up(&self) -> bool {
        match &self.target {
            Target::Local(local) => !local.work.is_closed(),
            Target::Remote(remote) => remote.is_up(),
        }
    }
}
