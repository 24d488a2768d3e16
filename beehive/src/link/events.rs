//! Named events of links: each is one line of the log where it happens, and one counter of the hive's report.

use super::core::Core;
use super::wire::DecodeError;

/// A message of a kind that this end does not know came. Its sender was told, and the next message was read.
pub const MESSAGE_UNKNOWN: &str = "link_message_unknown";
/// A message that cannot be decoded came. Its sender was told, and the next message was read.
pub const MESSAGE_MALFORMED: &str = "link_message_malformed";
/// A message was not sent, because the other end did not name the capability that it needs.
pub const MESSAGE_UNSUPPORTED: &str = "link_message_unsupported";

/// A message that came is not understood.
pub(super) fn not_understood(core: &Core, error: &DecodeError) {
    let event = match error {
        DecodeError::UnknownKind { .. } => MESSAGE_UNKNOWN,
        DecodeError::Malformed(_) => MESSAGE_MALFORMED,
    };
    core.metrics.add(event, 1);
    tracing::warn!(event, peer = %core.peer, %error, "message was not understood");
}

/// A message is not sent.
pub(super) fn unsupported(core: &Core, mailbox: &'static str, capability: &'static str) {
    core.metrics.add(MESSAGE_UNSUPPORTED, 1);
    tracing::warn!(
        event = MESSAGE_UNSUPPORTED, peer = %core.peer, mailbox, capability,
        "message not sent: the peer does not understand it"
    );
}
