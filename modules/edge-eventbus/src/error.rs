//! What can go wrong between a client and the broker.

use std::rc::Rc;

use thiserror::Error;

/// Why bytes are no packet of MQTT 3.1.1.
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
    /// A length of more than four bytes.
    #[error("remaining length takes more than four bytes")]
    Length,
    /// A packet whose fields do not fit into it, or do not fill it.
    #[error("{0} is cut short or has bytes left over")]
    Fields(&'static str),
    /// A field with a value that the specification forbids.
    #[error("{0}")]
    Forbidden(&'static str),
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
    #[error("not MQTT 3.1.1")]
    MalformedPacket(#[from] MalformedPacket),
    /// It broke the protocol.
    #[error("{0}")]
    Protocol(&'static str),
    /// It was silent for one and a half times its keep-alive.
    #[error("silent for longer than its keep-alive allows")]
    Silent,
    /// It does not read.
    #[error("does not read what it is sent")]
    Stuck,
    /// Another connection has the same client id.
    #[error("another connection came with its client id")]
    TakenOver,
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
