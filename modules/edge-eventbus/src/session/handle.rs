//! What a connection and its session share.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

use beehive::Moment;
use bytes::Bytes;
use tokio::sync::Notify;

use super::patience::Patience;
use crate::access::AuthMethod;
use crate::error::ConnectionError;
use crate::packet::{OutgoingAliases, Version, Will};
use crate::peer::Peer;

/// How a connection came.
#[derive(Debug, Clone)]
pub(crate) struct ConnectInfo {
    pub(crate) peer: Peer,
    pub(crate) auth_method: AuthMethod,
    /// In seconds.
    pub(crate) keep_alive: u16,
    pub(crate) at: Moment,
    pub(crate) version: Version,
    /// A bridge of mosquitto.
    pub(crate) is_bridge: bool,
    /// In seconds, of MQTT 5; before, a session that is not clean has no end.
    pub(crate) session_expiry: Option<u32>,
    /// Messages of QoS 1 and 2 that may be on their way to it.
    pub(crate) receive_maximum: u16,
    /// The largest packet that it takes.
    pub(crate) packet_maximum: usize,
    /// How many numbers for topics it takes.
    pub(crate) alias_maximum: u16,
    /// Whether it wants to read reasons.
    pub(crate) wants_reasons: bool,
}

impl Default for ConnectInfo {
    fn default() -> Self {
        ConnectInfo {
            peer: Peer::default(),
            auth_method: AuthMethod::None,
            keep_alive: 0,
            at: Moment::default(),
            version: Version::default(),
            is_bridge: false,
            session_expiry: None,
            receive_maximum: u16::MAX,
            packet_maximum: usize::MAX,
            alias_maximum: 0,
            wants_reasons: true,
        }
    }
}

/// What a connection and the rest of the broker share.
#[derive(Default)]
pub(crate) struct ConnectionHandle {
    pub(crate) connect_info: ConnectInfo,
    /// When the client last said something after its CONNECT.
    heard: Cell<Option<Moment>>,
    /// Packets that are no publishes; they go out first.
    control: RefCell<VecDeque<Bytes>>,
    /// Numbers that stand for topics towards it.
    pub(crate) aliases: RefCell<OutgoingAliases>,
    /// There is something to write.
    pub(crate) out: Notify,
    /// Something was taken from its queue or its control packets, or it is over.
    pub(crate) room: Notify,
    /// The connection has to end.
    pub(crate) ended: Notify,
    end: Cell<Option<CloseReason>>,
    /// Of the publishers that wait for it.
    pub(crate) others_patience: Patience,
    /// Of its own as a publisher.
    pub(crate) patience: Patience,
    /// Nothing is read from it, be it an acknowledgement, as others have no room for what it publishes.
    held_up: Cell<bool>,
    /// What is to be published when it has ended.
    pub(crate) will: RefCell<Option<Rc<Will>>>,
    /// Its writer is half-way through a packet: nothing else may be written.
    pub(crate) writing: Cell<bool>,
    /// Bytes that its writer has taken and the socket has not.
    pub(crate) unwritten: Cell<usize>,
}

/// Why the broker ends a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CloseReason {
    TakenOver {
        /// The new connection goes on with the session.
        resumed: bool,
    },
    MadeRoom,
    Revoked,
    Stuck,
    Ending,
}

impl ConnectionHandle {
    pub(crate) fn of(connect_info: ConnectInfo) -> Rc<Self> {
        let aliases = RefCell::new(OutgoingAliases::new(connect_info.alias_maximum));
        Rc::new(ConnectionHandle { connect_info, aliases, ..ConnectionHandle::default() })
    }

    pub(crate) fn heard(&self, now: Moment) {
        self.heard.set(Some(now));
    }

    pub(crate) fn last_heard(&self) -> Option<Moment> {
        self.heard.get()
    }

    pub(crate) fn send(&self, packet: Bytes) {
        self.control.borrow_mut().push_back(packet);
        self.out.notify_one();
    }

    /// Takes what was sent.
    pub(crate) fn control(&self) -> VecDeque<Bytes> {
        self.control.take()
    }

    pub(crate) fn waiting(&self) -> usize {
        self.control.borrow().len()
    }

    pub(crate) fn close(&self, why: CloseReason) {
        if self.end.get().is_none() {
            self.end.set(Some(why));
        }
        self.ended.notify_one();
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.end.get().is_some()
    }

    pub(crate) fn reason(&self) -> ConnectionError {
        match self.end.get() {
            Some(CloseReason::TakenOver { resumed }) => ConnectionError::TakenOver { resumed },
            Some(CloseReason::Ending) => ConnectionError::Ending,
            Some(CloseReason::MadeRoom) => ConnectionError::MadeRoom,
            Some(CloseReason::Revoked) => ConnectionError::Revoked,
            Some(CloseReason::Stuck) | None => ConnectionError::Stuck,
        }
    }

    /// Whoever waits for it looks again.
    pub(crate) fn moved(&self) {
        self.room.notify_waiters();
    }

    pub(crate) fn is_held_up(&self) -> bool {
        self.held_up.get()
    }

    pub(crate) fn set_held_up(&self, held_up: bool) {
        if self.held_up.replace(held_up) != held_up && held_up {
            self.moved();
        }
    }
}
