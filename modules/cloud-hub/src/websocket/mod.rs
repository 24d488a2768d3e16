//! The link where UDP is blocked: WebSocket over TLS on 10000, for nodes with a certificate of ours and nobody else.
//!
//! An actor of its own holds the port; what arrives goes to the hub as any other connection does. This is the one place where
//! actix-web and actix-web-actors stand.

mod actor;
mod frames;
mod socket;
mod upgrade;

pub use actor::{WebSocketAcceptor, WebSocketListener, WebSocketMsg, queue};
pub use upgrade::{UpgradeError, Upgrader};
