//! What can go wrong between a client and the broker.

use std::rc::Rc;

use thiserror::Error;

/// Why bytes are no packet of MQTT.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum MalformedPacket {
    /// A packet larger than any that is taken.
    #[error("packet of {size} bytes is larger than {limit}")]
    TooLarge {
        /// What it says.
        size: usize,
        /// What is taken.
        limit: usize,
    },
    /// A length of more than four bytes, or one that could be shorter.
    #[error("length takes more bytes than it may")]
    Length,
    /// A packet whose fields do not fit into it, or do not fill it.
    #[error("{0} is cut short or has bytes left over")]
    Fields(&'static str),
    /// A field with a value that the specification forbids.
    #[error("{0}")]
    Forbidden(&'static str),
    /// What can be read, and must not be said.
    #[error("{0}")]
    Protocol(&'static str),
}

impl MalformedPacket {
    /// What a client of MQTT 5 is told.
    pub(crate) fn code(&self) -> u8 {
        match self {
            MalformedPacket::TooLarge { .. } => 0x95,
            MalformedPacket::Length | MalformedPacket::Fields(_) | MalformedPacket::Forbidden(_) => 0x81,
            MalformedPacket::Protocol(_) => 0x82,
        }
    }
}

/// Why a connection ended other than by a DISCONNECT.
#[derive(Debug, Error)]
pub(crate) enum ConnectionError {
    /// The socket failed.
    #[error("socket failed")]
    Socket(#[from] std::io::Error),
    /// The client closed it.
    #[error("closed by the client without a DISCONNECT")]
    Closed,
    /// What it sent is no MQTT.
    #[error("{0}")]
    MalformedPacket(#[from] MalformedPacket),
    /// It broke the protocol.
    #[error("{0}")]
    Protocol(&'static str),
    /// It did what MQTT 5 has a code of its own for.
    #[error("{1}")]
    Coded(u8, &'static str),
    /// A large packet of it came too slowly.
    #[error("large packet comes too slowly")]
    Slow,
    /// It was silent for one and a half times its keep-alive.
    #[error("silent for longer than its keep-alive allows")]
    Silent,
    /// It does not read.
    #[error("does not read what it is sent")]
    Stuck,
    /// Another connection has the same client id.
    #[error("another connection came with its client id")]
    TakenOver {
        /// Whether that one goes on with its session.
        resumed: bool,
    },
    /// It had not said who it is when another connection came and there was no room.
    #[error("made room for another connection before its CONNECT")]
    Displaced,
    /// It was silent and had promised no sign of life, or was anonymous, when another client came and there was no room.
    #[error("made room for another client")]
    MadeRoom,
    /// Its user is gone, has another password, or its certificate has to be shown again.
    #[error("its user is gone or has to log in again")]
    Revoked,
    /// The listener with TLS has no certificate.
    #[error("TLS listener has no certificate yet (modules.eventBus.tls)")]
    NoCertificate,
    /// The handshake failed.
    #[error("TLS handshake failed")]
    Handshake(#[source] std::io::Error),
    /// It asked for no WebSocket, or for one that it may not have.
    #[error("WebSocket not opened: {0}")]
    Upgrade(#[source] Box<tokio_tungstenite::tungstenite::Error>),
    /// Its certificate does not say who it is.
    #[error("{0}")]
    Unnamed(&'static str),
    /// The broker ends.
    #[error("broker ends")]
    Ending,
    /// The store did not take it, so nothing can be acknowledged.
    #[error("not acknowledged because the node does not keep it for the cloud: {0}")]
    NotKept(Rc<str>),
    /// DeviceTwin did not answer, so nothing can be acknowledged.
    #[error("not acknowledged because DeviceTwin did not answer: {0}")]
    Unanswered(beehive::AskError),
}

impl ConnectionError {
    /// What a client of MQTT 5 is told with its DISCONNECT; `None` where nobody is there to hear it.
    pub(crate) fn code(&self) -> Option<u8> {
        Some(match self {
            ConnectionError::MalformedPacket(error) => error.code(),
            ConnectionError::Protocol(_) => 0x82,
            ConnectionError::Coded(code, _) => *code,
            ConnectionError::Silent => 0x8d,
            ConnectionError::TakenOver { .. } => 0x8e,
            ConnectionError::MadeRoom => 0x89,
            ConnectionError::Revoked => 0x98,
            ConnectionError::Ending => 0x8b,
            ConnectionError::NotKept(_) | ConnectionError::Slow | ConnectionError::Stuck => 0x97,
            ConnectionError::Unanswered(_) => 0x83,
            ConnectionError::Socket(_)
            | ConnectionError::Closed
            | ConnectionError::Displaced
            | ConnectionError::NoCertificate
            | ConnectionError::Handshake(_)
            | ConnectionError::Upgrade(_)
            | ConnectionError::Unnamed(_) => return None,
        })
    }
}

/// Why the router cannot be used.
#[derive(Debug, Error)]
pub(crate) enum RouterError {
    /// Its thread has ended.
    #[error("router's thread has ended")]
    Link(#[source] Box<rumqttd::local::LinkError>),
    /// It was handed a message and did not give it back.
    #[error("router does not give back what it was handed")]
    Stalled,
}

impl From<rumqttd::local::LinkError> for RouterError {
    fn from(error: rumqttd::local::LinkError) -> Self {
        RouterError::Link(Box::new(error))
    }
}
