//! The hive: every actor of a daemon, who may talk to whom, and how it all ends.

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use crate::address::LocalMailbox;
use crate::cell::Cell;
use crate::command::Command;
use crate::health::HiveReport;
use crate::registry::{Registry, stop};
use crate::testing::Panics;
use crate::watch::Blocked;
use crate::watchdog::{Liveness, Watchdog};
use crate::{
    Actor, Address, BlockingWork, Capacity, Env, Fault, Flow, Mailbox, Message, Name, Policy, Topology,
    WiringError,
};

/// Why a hive ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// Everything stopped in order.
    InOrder,
    /// The deadline of the shutdown passed; these actors had not stopped.
    Late(Vec<String>),
    /// An actor spent its restart budget.
    GaveUp(String),
}

/// The supervised router of a daemon. Mailboxes first, sinks before sources; then actors; then [`Hive::open`].
pub struct Hive {
    daemon: &'static str,
    env: Env,
    unsupervised: BTreeSet<String>,
    /// The mailboxes by name, each an `Arc<LocalMailbox<M>>` of its own `M`.
    mailboxes: BTreeMap<String, Box<dyn Any>>,
    registry: Registry,
    to_start: Vec<Box<dyn FnOnce()>>,
    ends_tx: mpsc::Sender<String>,
    ends: mpsc::Receiver<String>,
    wiring: Result<(), WiringError>,
    watchdog: Option<Watchdog>,
}

impl Hive {
    /// An empty hive of `daemon`.
    pub fn new(daemon: &'static str, env: Env) -> Self {
        let (ends_tx, ends) = mpsc::channel(1);
        Hive {
            daemon,
            env,
            unsupervised: BTreeSet::new(),
            mailboxes: BTreeMap::new(),
            registry: Registry::default(),
            to_start: Vec::new(),
            ends_tx,
            ends,
            wiring: Ok(()),
            watchdog: None,
        }
    }

    /// The environment that the actors share.
    pub fn env(&self) -> &Env {
        &self.env
    }

    /// Registers an actor by name and makes its mailbox.
    pub fn mailbox<M: Message>(&mut self, name: impl Into<Name>, capacity: Capacity) -> Mailbox<M> {
        let mailbox = Mailbox::new(name, capacity);
        let name = mailbox.meters.name().to_owned();
        if self.mailboxes.contains_key(&name) {
            self.wiring = Err(WiringError::Duplicate(name.clone()));
        }
        self.registry.topology.borrow_mut().add(mailbox.name.kind());
        self.unsupervised.insert(name.clone());
        self.mailboxes.insert(name, Box::new(Arc::clone(&mailbox.local)));
        mailbox
    }

    /// Lets `see` look at every message that the actor named `mailbox` is handed from now on, right before it is:
    /// how a probe sits at a mailbox of a running daemon. `see` runs on the hive's thread and must not wait.
    ///
    /// # Errors
    /// [`WiringError::NoMailbox`] when no mailbox of `M` has that name, [`WiringError::Tapped`] when somebody looks on
    /// already.
    pub fn tap<M: Message>(
        &self,
        mailbox: &str,
        see: impl Fn(&M) + Send + Sync + 'static,
    ) -> Result<(), WiringError> {
        let found = self.mailboxes.get(mailbox).and_then(|any| any.downcast_ref::<Arc<LocalMailbox<M>>>());
        let local = found.ok_or_else(|| WiringError::NoMailbox(mailbox.to_owned()))?;
        local.tap.set(Box::new(see)).map_err(|_| WiringError::Tapped(mailbox.to_owned()))
    }

    /// The address of `to` for the actor named `from`, and an arrow in the topology. What it may be used for is `flow`'s
    /// to say, and the address refuses the rest.
    pub fn grant<M: Message>(&mut self, from: &'static str, to: &Mailbox<M>, flow: Flow) -> Address<M> {
        self.registry.topology.borrow_mut().connect(from, to.name.kind(), flow);
        Address::local(Arc::clone(&to.local), flow, self.env.clock())
    }

    /// Declares a flow over a link, for the drawing.
    pub fn declare_remote(&mut self, from: &'static str, to: &'static str) {
        self.registry.topology.borrow_mut().connect(from, to, Flow::Remote);
    }

    /// Declares that actors of the kind `parent` have children of the kind `child`, for the drawing. A running hive
    /// adds what it sees.
    pub fn declare_child(&mut self, parent: &'static str, child: &'static str) {
        self.registry.topology.borrow_mut().add_child(parent, child);
    }

    /// Hands the mailbox to a supervisor, which makes actors with `factory`. Nothing runs before [`Hive::open`].
    pub fn supervise<A: Actor>(
        &mut self,
        mailbox: Mailbox<A::Message>,
        policy: Policy,
        factory: impl FnMut() -> A + 'static,
    ) {
        self.unsupervised.remove(mailbox.meters.name());
        let ends = self.ends_tx.clone();
        // One reason is enough; the channel holds no second one.
        let on_end = move |gave_up: Option<String>| drop(gave_up.map(|reason| ends.try_send(reason)));
        let (_, cell) =
            Cell::create((&self.env, &self.registry), None, mailbox, policy, factory, Box::new(on_end));
        let env = self.env.clone();
        self.to_start.push(Box::new(move || env.spawn(cell)));
    }

    /// The declared map.
    pub fn topology(&self) -> Topology {
        self.registry.topology.borrow().clone()
    }

    /// Checks the wiring and starts every actor.
    ///
    /// # Errors
    /// See [`WiringError`].
    pub fn open(&mut self) -> Result<(), WiringError> {
        self.wiring.clone()?;
        self.registry.topology.borrow().check()?;
        if let Some(name) = self.unsupervised.first() {
            return Err(WiringError::NoActor(name.clone()));
        }
        let watchdog = Watchdog::start(&self.env, &self.registry)
            .map_err(|error| WiringError::NoWatchdog(error.to_string()))?;
        if let Some(ended) = watchdog.ended() {
            self.depend_on(ended);
        }
        self.watchdog = Some(watchdog);
        for start in self.to_start.drain(..) {
            start();
        }
        Ok(())
    }

    /// Ends the daemon when `lost` completes, for that reason: what nobody in the hive can make anew is lost, most often a
    /// thread of its own ([`crate::Thread::ended`]). Whatever starts the daemon again makes it.
    pub fn depend_on(&self, lost: impl Future<Output = Fault> + 'static) {
        let ends = self.ends_tx.clone();
        self.env.spawn(async move {
            let Fault { reason } = lost.await;
            // One reason is enough; the channel holds no second one.
            drop(ends.try_send(reason));
        });
    }

    /// Waits until the hive cannot go on, and says why: an actor has spent its budget, or what [`Hive::depend_on`] names is
    /// lost.
    pub async fn gave_up(&mut self) -> String {
        // The hive holds a sender, so this cannot end without a reason.
        self.ends.recv().await.unwrap_or_default()
    }

    /// A handle that reads every actor's state.
    pub fn inspector(&self) -> Inspector {
        Inspector { daemon: self.daemon, env: self.env.clone(), registry: self.registry.clone() }
    }

    /// Stops every actor, the last registered first (mailboxes are made sinks first, so sources stop first and what
    /// they told is still handled), all within `deadline`: each gets an equal share of what is left, and one that has
    /// used it up is named and left where it stands.
    pub async fn shutdown(self, deadline: Duration) -> Ended {
        let until = self.env.now() + deadline;
        let mut late = Vec::new();
        let mut left = self.registry.children_of(None);
        while let Some(entry) = left.pop() {
            let rest = until.since(self.env.now());
            let share = rest / u32::try_from(left.len() + 1).unwrap_or(u32::MAX);
            if !stop(&self.env, &entry, share).await {
                late.push(entry.meters.name().to_owned());
            }
        }
        if late.is_empty() { Ended::InOrder } else { Ended::Late(late) }
    }
}

/// Reads the state of a hive's actors, and of the hive's thread.
#[derive(Clone)]
pub struct Inspector {
    daemon: &'static str,
    env: Env,
    registry: Registry,
}

impl Inspector {
    /// Every actor's report. An actor that is busy for longer than `patience` shows a null snapshot.
    pub async fn report(&self, patience: Duration) -> HiveReport {
        let entries = self.registry.all();
        let views = futures::future::join_all(entries.iter().map(|entry| async move {
            let (answer, view) = oneshot::channel();
            let look = async {
                entry.commands.send(Command::Inspect(answer)).await.ok()?;
                view.await.ok()
            };
            self.env.timeout(patience, look).await.flatten().unwrap_or_default()
        }))
        .await;
        let metrics = self.env.metrics();
        let mut gauges = metrics.gauges();
        let mut actors = Vec::with_capacity(entries.len());
        for (entry, view) in entries.iter().zip(views) {
            gauges.extend(view.samples);
            actors.push(entry.meters.report((entry.queued)(), view.snapshot));
        }
        HiveReport { daemon: self.daemon, actors, counters: metrics.counters(), gauges }
    }

    /// What blocks threads beside the hive's.
    pub fn blocking_work(&self) -> BlockingWork {
        self.env.blocking_work()
    }

    /// Says from any thread whether the hive's own thread runs.
    pub fn liveness(&self) -> Liveness {
        Liveness::of(&self.registry.watch)
    }

    /// Calls `end` once, on the watchdog's thread, when the hive's own thread has been blocked for `limit`: a daemon ends
    /// the process there, for nothing else can. Not on a virtual clock.
    pub fn when_blocked(&self, limit: Duration, end: impl FnOnce(Blocked) + Send + 'static) {
        self.registry.watch.when_blocked(limit, Box::new(end));
    }

    pub(crate) fn panics(&self) -> &Panics {
        &self.registry.panics
    }
}
