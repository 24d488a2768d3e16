//! What EdgeStream accepts.

use beehive::Message;
use beehive::link::ByteStream;

/// Messages to EdgeStream.
pub enum EdgeStreamMsg {
    /// CloudCore opened a byte stream for a call of the kubelet's API.
    Opened {
        /// The stream's header, not parsed yet: see [`crate::stream::StreamRequest`].
        header: Vec<u8>,
        /// The stream.
        stream: ByteStream,
    },
    /// The server for agents on the node has ended, or could not begin: try again.
    Serve,
    /// The server with this number has ended by itself.
    ServerEnded {
        /// Which server.
        server: u64,
    },
    /// The thread of the calls has ended by itself.
    CallsEnded {
        /// How it ended.
        reason: String,
    },
}

impl std::fmt::Debug for EdgeStreamMsg {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl Message for EdgeStreamMsg {
    fn name(&self) -> &'static str {
        match self {
            EdgeStreamMsg::Opened { .. } => "Opened",
            EdgeStreamMsg::Serve => "Serve",
            EdgeStreamMsg::ServerEnded { .. } => "ServerEnded",
            EdgeStreamMsg::CallsEnded { .. } => "CallsEnded",
        }
    }
}
