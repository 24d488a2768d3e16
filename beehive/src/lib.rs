//! The runtime: actors, mailboxes, supervision, links.
//!
//! Every module of a daemon registers in the daemon's [`Hive`] as an actor and owns one message enum. Whoever may
//! talk to it holds an [`Address`] of that enum: there is no send by name and no global.
//!
//! An actor of the hive is one actix actor, a cell: it owns the mailbox and the factory, and has one incarnation of the
//! module's [`Actor`] in it at a time. actix' context polls the mailbox and the handler, carries the orders to look and
//! to stop, and ends with the cell. The queue and the restart are ours, because actix' own mailbox is not bounded for
//! cloned handles and its supervisor does not survive a panic. A message makes no second hop, arms no timer and
//! allocates nothing beyond itself.
//!
//! * [`Address::tell`] waits for room, [`Address::try_tell`] answers at once, [`Address::ask`] waits for a reply until a
//!   deadline. A full queue is an answer, never a hidden wait. Who waits for whom is declared when an address is granted
//!   ([`Flow`]) and goes in no circle; an address refuses what it was not granted for.
//! * A mailbox survives a restart; the message that was being handled when the actor died is lost (its asker hears
//!   [`AskError::Crashed`]), because a poisonous message must not kill it twice. A fault is an error of a handler, a panic
//!   in it or in a task that it has spawned, a message in hand for too long, or a child past its restart budget.
//! * Control messages ([`Lane::Control`]) overtake work.
//! * An actor may have children ([`Context::child`]): they are actors of the hive, in its report, its topology and its
//!   shutdown. They end with their parent's incarnation.
//! * A watchdog on a thread of its own finds an actor that is stuck, which is replaced, and a hive whose thread is blocked,
//!   which is named ([`Liveness`], [`Inspector::when_blocked`]).
//! * A thread beside the hive's ([`Thread`]) ends unheard by nobody: its owner fails with it, or the daemon ends
//!   ([`Hive::depend_on`]).
//! * In a shutdown each actor has its share of the deadline; what is queued is handled, children stop before parents.
//! * What belongs to one thing that is followed is told by its [`trace`], which messages carry with them.
//! * Spawning, clock and randomness are in [`Env`], an argument; so are counters of named events and gauges. How often something
//!   may happen is a [`Bucket`].
//! * A remote mailbox ([`link`]) has the same face: remote adds only "the link is down" to the answers.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod actor;
mod address;
mod blocking;
mod bucket;
mod cell;
mod cell_core;
mod children;
mod command;
pub mod defect;
mod env;
mod error;
mod health;
mod hive;
mod in_handler;
pub mod link;
mod lookup;
mod mailbox;
mod message_loop;
mod metrics;
mod name;
mod policy;
mod registry;
mod reply;
pub mod testing;
mod thread;
mod topology;
pub mod trace;
mod watch;
mod watchdog;

pub use actor::{Actor, Context};
pub use address::{Address, RemoteMailbox};
pub use blocking::BlockingWork;
pub use bucket::Bucket;
pub use children::ChildStop;
pub use env::{Clock, Env, Moment, TokioClock, on_a_thread};
pub use error::{AskError, Fault, Refusal, WiringError};
pub use health::{ActorReport, ActorState, HiveReport};
pub use hive::{Ended, Hive, Inspector};
pub use lookup::Lookups;
pub use mailbox::{Capacity, Lane, Mailbox, Message};
pub use metrics::{Count, Counter, Metrics, Sample};
pub use name::Name;
pub use policy::Policy;
pub use reply::Reply;
pub use thread::Thread;
pub use topology::{Flow, Topology};
pub use watch::Blocked;
pub use watchdog::Liveness;
