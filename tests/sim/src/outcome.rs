//! What one run came to.

use std::collections::{BTreeMap, BTreeSet};

use crate::actors::ActorMessage;
use crate::fault::Fault;
use crate::trace::Fingerprint;

/// See the module.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// What was wrong; empty when nothing was.
    pub violations: Vec<String>,
    /// How often each fault struck.
    pub faults: BTreeMap<Fault, usize>,
    /// How often each actor has panicked at each of its messages, at `started`, or in a task.
    pub panics: BTreeMap<ActorMessage, usize>,
    /// What the actors were handed, apart from children.
    pub handed: BTreeSet<ActorMessage>,
    /// The most events and telemetry that an outbox held at once.
    pub fullest: u64,
    /// Publishes of QoS 1 that were accepted.
    pub accepted: usize,
    /// Publishes that an outbox at its bound has refused.
    pub refused: usize,
    /// What was told, in order.
    pub tale: Vec<String>,
    /// Everything that happened, as one number.
    pub fingerprint: Fingerprint,
    /// Everything that happened, if it was asked for.
    pub trace: Vec<String>,
}
