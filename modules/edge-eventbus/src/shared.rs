//! What all connections of one incarnation share.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use beehive::Env;
use tokio::sync::{Mutex, Semaphore, watch};

use crate::access::Access;
use crate::broker::Broker;
use crate::connection_limits::ConnectionLimits;
use crate::intake::Intake;
use crate::kept_time::KeptTime;
use crate::tls::Tls;
use crate::web_socket;

/// What all connections share.
pub(crate) struct Shared {
    pub(crate) broker: RefCell<Broker>,
    /// Up to which change the store has the retained messages.
    pub(crate) stored: watch::Sender<u64>,
    /// Usage while the store takes some.
    pub(crate) storing: Mutex<()>,
    /// Where what clients publish for the node goes.
    pub(crate) intake: Rc<Intake>,
    pub(crate) access: Access,
    pub(crate) tls: Tls,
    pub(crate) web_socket: web_socket::Rules,
    pub(crate) limits: ConnectionLimits,
    /// Bytes of the largest packet of a client.
    pub(crate) packet_bytes: usize,
    /// The longest keep-alive, in seconds; 0: no bound.
    pub(crate) max_keep_alive: u16,
    /// Room for large packets, see `incoming.rs`.
    pub(crate) large: Arc<Semaphore>,
    /// By which messages in the store expire.
    pub(crate) time: KeptTime,
    pub(crate) env: Env,
}
