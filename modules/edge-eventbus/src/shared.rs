//! What all connections of one incarnation share.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use beehive::{Address, Env};
use contract::devicetwin::TwinMsg;
use tokio::sync::{Mutex, Semaphore, watch};

use crate::access::Access;
use crate::broker::Broker;
use crate::connection_limits::ConnectionLimits;
use crate::rule_topics::RuleTopics;
use crate::tls::Tls;
use crate::uploads::Uploads;

/// What all connections share.
pub(crate) struct Shared {
    pub(crate) broker: RefCell<Broker>,
    /// Up to which change the store has the retained messages.
    pub(crate) stored: watch::Sender<u64>,
    /// Usage while the store takes some.
    pub(crate) storing: Mutex<()>,
    /// What is on its way into the outbox.
    pub(crate) uploads: Rc<Uploads>,
    /// What of it is for rules.
    pub(crate) rule_topics: RuleTopics,
    pub(crate) access: Access,
    pub(crate) tls: Tls,
    pub(crate) limits: ConnectionLimits,
    /// Bytes of the largest packet of a client.
    pub(crate) packet_bytes: usize,
    /// Room for large packets, see `incoming.rs`.
    pub(crate) large: Arc<Semaphore>,
    pub(crate) twin: Address<TwinMsg>,
    pub(crate) env: Env,
}
