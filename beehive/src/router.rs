//! The hive: every actor of a daemon, who may talk to whom, and how it all ends.

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use crate::address::LocalMailbox;
use crate::health::{HiveReport, Meters};
use crate::supervisor::{End, Order, Supervisor};
use crate::{Actor, Address, Capacity, Env, Flow, Mailbox, Message, Policy, Topology, WiringError};
use std::sync::Arc;

/// 4: inspectors of one actor at a time; a stop needs one place.
const ORDER_CAPACITY: usize = 4;

/// Why a hive ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// Everything stopped in order.
    InOrder,
    /// The deadline of the shutdown passed; these actors had not stopped.
    Late(Vec<&'static str>),
    /// An actor spent its restart budget.
    GaveUp(String),
}

struct Station {
    meters: Arc<Meters>,
    queued: Box<dyn Fn() -> usize>,
    orders: mpsc::Sender<Order>,
}

/// The supervised router of a daemon. Mailboxes first, sinks before sources; then actors; then [`Hive::open`].
pub struct Hive {
    daemon: &'static str,
    env: Env,
    topology: Topology,
    unmanned: BTreeSet<&'static str>,
    /// The mailboxes by name, each an `Arc<LocalMailbox<M>>` of its own `M`.
    mailboxes: BTreeMap<&'static str, Box<dyn Any>>,
    stations: Rc<std::cell::RefCell<Vec<Station>>>,
    ready: Vec<Box<dyn FnOnce()>>,
    ends_tx: mpsc::Sender<String>,
    ends: mpsc::Receiver<String>,
    wiring: Result<(), WiringError>,
}

impl Hive {
    /// An empty hive of `daemon`.
    pub fn new(daemon: &'static str, env: Env) -> Self {
        let (ends_tx, ends) = mpsc::channel(1);
        Hive {
            daemon,
            env,
            topology: Topology::default(),
            unmanned: BTreeSet::new(),
            mailboxes: BTreeMap::new(),
            stations: Rc::default(),
            ready: Vec::new(),
            ends_tx,
            ends,
            wiring: Ok(()),
        }
    }

    /// The environment that the actors share.
    pub fn env(&self) -> &Env {
        &self.env
    }

    /// Registers an actor by name and makes its mailbox.
    pub fn mailbox<M: Message>(&mut self, name: &'static str, capacity: Capacity) -> Mailbox<M> {
        if let Err(error) = self.topology.add(name) {
            self.wiring = Err(error);
        }
        self.unmanned.insert(name);
        let mailbox = Mailbox::new(name, capacity);
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

    /// The address of `to` for the actor named `from`, and an arrow in the topology.
    pub fn grant<M: Message>(&mut self, from: &'static str, to: &Mailbox<M>, flow: Flow) -> Address<M> {
        self.topology.connect(from, to.name, flow);
        Address::local(Arc::clone(&to.local), flow != Flow::Tell, self.env.clock())
    }

    /// Declares a flow over a link, for the drawing.
    pub fn declare_remote(&mut self, from: &'static str, to: &'static str) {
        self.topology.connect(from, to, Flow::Remote);
    }

    /// Hands the mailbox to a supervisor, which makes actors with `factory`. Nothing runs before [`Hive::open`].
    pub fn supervise<A: Actor>(
        &mut self,
        mailbox: Mailbox<A::Message>,
        policy: Policy,
        factory: impl FnMut() -> A + 'static,
    ) {
        self.unmanned.remove(mailbox.name);
        let (orders_tx, orders) = mpsc::channel(ORDER_CAPACITY);
        let lane = mailbox.local.work.clone();
        self.stations.borrow_mut().push(Station {
            meters: Arc::clone(&mailbox.meters),
            queued: Box::new(move || lane.max_capacity() - lane.capacity()),
            orders: orders_tx,
        });
        let supervisor = Supervisor { env: self.env.clone(), policy, mailbox, factory, orders };
        let (env, ends) = (self.env.clone(), self.ends_tx.clone());
        self.ready.push(Box::new(move || {
            env.spawn(async move {
                match supervisor.run().await {
                    End::Stopped => {}
                    // One reason is enough; a second one finds the place taken.
                    End::GaveUp(reason) => drop(ends.try_send(reason)),
                }
            });
        }));
    }

    /// The declared map.
    pub fn topology(&self) -> &Topology {
        &self.topology
    }

    /// Checks the wiring and starts every actor.
    ///
    /// # Errors
    /// See [`WiringError`].
    pub fn open(&mut self) -> Result<(), WiringError> {
        self.wiring.clone()?;
        self.topology.check()?;
        if let Some(name) = self.unmanned.first() {
            return Err(WiringError::NoActor((*name).to_owned()));
        }
        for start in self.ready.drain(..) {
            start();
        }
        Ok(())
    }

    /// Waits until an actor has spent its budget, and says why.
    pub async fn gave_up(&mut self) -> String {
        // The hive holds a sender, so this cannot end without a reason.
        self.ends.recv().await.unwrap_or_default()
    }

    /// A handle that reads every actor's state.
    pub fn inspector(&self) -> Inspector {
        Inspector { daemon: self.daemon, env: self.env.clone(), stations: Rc::clone(&self.stations) }
    }

    /// Stops every actor, the last registered first (mailboxes are made sinks first, so sources stop first and what
    /// they told is still handled), all within `deadline`.
    pub async fn shutdown(self, deadline: Duration) -> Ended {
        let until = self.env.now() + deadline;
        let mut late = Vec::new();
        let stations: Vec<_> =
            self.stations.borrow().iter().rev().map(|s| (s.meters.name(), s.orders.clone())).collect();
        for (name, orders) in stations {
            let (done_tx, done) = oneshot::channel();
            let stop = async {
                if orders.send(Order::Stop(done_tx)).await.is_ok() {
                    drop(done.await);
                }
            };
            if self.env.timeout(until.since(self.env.now()), stop).await.is_none() {
                late.push(name);
            }
        }
        if late.is_empty() { Ended::InOrder } else { Ended::Late(late) }
    }
}

/// Reads the state of a hive's actors.
#[derive(Clone)]
pub struct Inspector {
    daemon: &'static str,
    env: Env,
    stations: Rc<std::cell::RefCell<Vec<Station>>>,
}

impl Inspector {
    /// Every actor's report. An actor that is busy for longer than `patience` shows a null snapshot.
    pub async fn report(&self, patience: Duration) -> HiveReport {
        let seats: Vec<_> = self.stations.borrow().iter().map(|s| s.orders.clone()).collect();
        let views = futures::future::join_all(seats.into_iter().map(|orders| async move {
            let (answer, view) = oneshot::channel();
            let look = async {
                orders.send(Order::Inspect(answer)).await.ok()?;
                view.await.ok()
            };
            self.env.timeout(patience, look).await.flatten().unwrap_or_default()
        }))
        .await;
        let now = self.env.now();
        let actors = self
            .stations
            .borrow()
            .iter()
            .zip(views)
            .map(|(station, view)| station.meters.report(now, (station.queued)(), view))
            .collect();
        HiveReport { daemon: self.daemon, actors }
    }
}
