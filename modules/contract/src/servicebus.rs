//! What the ServiceBus accepts.

use beehive::Message;
use beehive::link::ByteStream;

use crate::ChangedObjects;
use crate::rule_stream::Header;

/// A call of a service on the node's loopback, which a rule brings. What is sent follows on the stream, and there the answer
/// goes.
pub struct ServiceCall {
    /// The service's port, not 0.
    pub port: u16,
    /// The method.
    pub method: String,
    /// Path and query, from the first `/`.
    pub path: String,
    /// Headers that are passed on.
    pub headers: Vec<Header>,
    /// For the node's log: by whose word.
    pub user: String,
    /// The stream, behind the head of the request.
    pub stream: ByteStream,
}

/// Messages to the ServiceBus.
pub enum ServiceBusMsg {
    /// Call a service.
    Call(Box<ServiceCall>),
    /// Rules in the store may have changed.
    ObjectsChanged(ChangedObjects),
    /// The server for applications on the node has ended, or could not begin: try again.
    Serve,
}

impl std::fmt::Debug for ServiceBusMsg {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl Message for ServiceBusMsg {
    fn name(&self) -> &'static str {
        match self {
            ServiceBusMsg::Call(_) => "Call",
            ServiceBusMsg::ObjectsChanged(_) => "ObjectsChanged",
            ServiceBusMsg::Serve => "Serve",
        }
    }
}
