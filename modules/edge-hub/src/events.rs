//! EdgeHub's named events: each is one line of the log and one counter.

use beehive::Env;
use beehive::link::Link;

/// The node is linked to the cloud.
pub const LINKED: &str = "edgehub_linked";
/// The link had to be made over WebSocket, although the server is reached over QUIC, too.
pub const FELL_BACK: &str = "edgehub_fell_back_to_websocket";
/// A dial came to nothing, and there is no link.
pub const DIAL_FAILED: &str = "edgehub_dial_failed";
/// A link that was in use is so no more, whatever ended it: so many fewer than [`LINKED`] as there are links in use.
pub const LINK_ENDED: &str = "edgehub_link_ended";
/// The cloud leaves pings unanswered, and another link is tried beside the one that is silent.
pub const LINK_SILENT: &str = "edgehub_link_silent";
/// The link over WebSocket has given way to one over QUIC.
pub const MOVED: &str = "edgehub_moved_to_quic";
/// QUIC passes again, and calls are open over the link: it stays until they have ended.
pub const MOVE_WAITS: &str = "edgehub_move_waits_for_calls";
/// The node's route to the cloud is another one.
pub const NETWORK_CHANGED: &str = "edgehub_network_changed";

/// The node has a new certificate.
pub const CERTIFICATE_RENEWED: &str = "edgehub_certificate_renewed";
/// It has none, and asks again.
pub const CERTIFICATE_NOT_RENEWED: &str = "edgehub_certificate_not_renewed";
/// What the cloud says of whom to trust was not taken.
pub const TRUST_REFUSED: &str = "edgehub_trust_refused";

pub(crate) fn certificate_renewed(env: &Env) {
    env.count(CERTIFICATE_RENEWED);
    tracing::info!(event = CERTIFICATE_RENEWED, "the node has a new certificate, and the next dial shows it");
}

pub(crate) fn certificate_not_renewed(env: &Env, reason: &str) {
    env.count(CERTIFICATE_NOT_RENEWED);
    tracing::warn!(
        event = CERTIFICATE_NOT_RENEWED,
        reason,
        "the node's certificate is not renewed; it is tried again"
    );
}

pub(crate) fn trust_refused(env: &Env, reason: &str) {
    env.count(TRUST_REFUSED);
    tracing::error!(event = TRUST_REFUSED, reason, "what the cloud says of whom to trust is not taken");
}

/// A link that is in use is counted as one that ended when this goes, with the actor's state, too: by the two counts it is seen from
/// outside whether there is one.
pub(crate) struct InUse(Env);

impl InUse {
    fn begins(env: &Env) -> InUse {
        env.count(LINKED);
        InUse(env.clone())
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        self.0.count(LINK_ENDED);
    }
}

pub(crate) fn linked(env: &Env, attempt: u64, server: &str, link: &Link) -> InUse {
    tracing::info!(
        event = LINKED,
        attempt,
        server,
        transport = %link.transport(),
        wire_version = link.version().number(),
        peer_capabilities = %link.capabilities(),
        "linked to the cloud"
    );
    InUse::begins(env)
}

pub(crate) fn fell_back(env: &Env, server: &str) {
    env.count(FELL_BACK);
    tracing::warn!(
        event = FELL_BACK,
        server,
        "the link is over WebSocket: QUIC did not answer. Look whether a firewall drops UDP between this node and the \
         server's QUIC port; the node goes back to QUIC by itself"
    );
}

pub(crate) fn moved(env: &Env, attempt: u64, server: &str) {
    env.count(MOVED);
    tracing::info!(event = MOVED, attempt, server, "moved to QUIC");
}

pub(crate) fn move_waits(env: &Env, attempt: u64, calls: usize) {
    env.count(MOVE_WAITS);
    tracing::info!(
        event = MOVE_WAITS,
        attempt,
        calls,
        "QUIC passes again; the link stays over WebSocket until the calls over it have ended (kubectl exec, logs -f and the like), a day at the \
         longest"
    );
}

pub(crate) fn link_ended(attempt: u64, reason: &str) {
    tracing::warn!(event = LINK_ENDED, attempt, reason, "link to the cloud ended");
}

pub(crate) fn link_silent(env: &Env, attempt: u64, server: &str) {
    env.count(LINK_SILENT);
    tracing::info!(
        event = LINK_SILENT,
        attempt,
        server,
        "the cloud does not answer; this server is tried beside the link"
    );
}

/// The cloud has ended it, as it does when it has the next one: nothing is wrong.
pub(crate) fn link_gives_way(attempt: u64, reason: &str) {
    tracing::info!(
        event = LINK_ENDED,
        attempt,
        reason,
        "link to the cloud has ended while another is made in its place"
    );
}

pub(crate) fn link_replaced(attempt: u64) {
    tracing::info!(event = LINK_ENDED, attempt, "link to the cloud is replaced by a new one");
}

/// `to_say` is how many dials have failed since there was a link, if a line is due.
pub(crate) fn dial_failed(env: &Env, attempt: u64, reason: &str, to_say: Option<u64>) {
    env.count(DIAL_FAILED);
    if let Some(failed) = to_say {
        tracing::warn!(event = DIAL_FAILED, attempt, failed, reason, "no link to the cloud");
    }
}

pub(crate) fn network_changed(env: &Env) {
    env.count(NETWORK_CHANGED);
    tracing::info!(event = NETWORK_CHANGED, "the node's route to the cloud has changed");
}
