//! From WebSocket back to QUIC: looking whether it passes, and going over to it when no call runs over the link that is up.
//!
//! What runs over the old link would end with it, and a link over WebSocket is good enough. So the way over QUIC is tried first (the handshake,
//! without a hello, which changes nothing at the cloud). Then it is looked whether byte streams are open over the link, and from
//! that moment on new ones are refused there ([`contract::stream::MOVING`]): the cloud opens them over the next link.

use std::time::Duration;

use beehive::Context;
use beehive::link::Link;
use contract::edgehub::EdgeHubMsg;

use super::{ActiveLink, EdgeHub};
use crate::attempt::AttemptFailure;
use crate::events;

/// 5 s for this actor's own answer, which waits for nobody.
const OWN_ANSWER: Duration = Duration::from_secs(5);

/// Whether an attempt may go on to say hello.
pub(super) async fn may_go_on(
    attempt: u64,
    myself: beehive::Address<EdgeHubMsg>,
) -> Result<(), AttemptFailure> {
    let may = myself.ask(OWN_ANSWER, |reply| EdgeHubMsg::QuicPasses { attempt, reply }).await;
    if may == Ok(true) {
        return Ok(());
    }
    let reason = "QUIC passes, and calls are open over the link".to_owned();
    Err(AttemptFailure::answered(reason, None))
}

impl EdgeHub {
    /// When it is looked again whether QUIC passes: one such time is set.
    pub(super) fn probe_later(&mut self, cx: &Context<EdgeHubMsg>) {
        let Some(up) = &self.up else { return };
        if self.endpoints.0.get(up.server).is_none_or(|server| server.quic.is_none()) {
            return;
        }
        let Some(pause) = self.plan.next_probe(up.carrier) else { return };
        let next = cx.after(cx.env().jitter(pause), EdgeHubMsg::Probe { attempt: up.attempt });
        if let Some(before) = self.next_probe.replace(next) {
            before.abort();
        }
    }

    /// Looks whether QUIC passes again, beside the link.
    pub(super) fn probe(&mut self, attempt: u64, cx: &Context<EdgeHubMsg>) {
        let Some(up) = self.up.as_ref().filter(|up| up.attempt == attempt) else { return };
        if self.trying.is_some() {
            return;
        }
        let (server, calls) = (up.server, self.calls_over(up));
        if self.plan.is_held_by(calls, cx.env().now()) {
            return self.probe_later(cx);
        }
        self.probes += 1;
        self.attempt(server, None, cx);
    }

    fn calls_over(&self, up: &ActiveLink) -> usize {
        let links = self.links.borrow();
        links.get(&up.attempt).map_or(0, |(link, _): &(Link, _)| link.traffic().byte_streams())
    }

    /// The way over QUIC is there that this attempt has tried. Whether to go over to it now.
    pub(super) fn quic_passes(&mut self, attempt: u64, cx: &Context<EdgeHubMsg>) -> bool {
        if self.trying.as_ref().is_none_or(|trying| trying.attempt != attempt) {
            return false;
        }
        let calls = self.up.as_ref().map_or(0, |up| self.calls_over(up));
        let was_held = self.plan.is_held();
        let moves = self.plan.may_move(calls, cx.env().now());
        if let Some(trying) = &mut self.trying {
            trying.is_held = !moves;
        }
        if let Some(streams) = self.up.as_ref().and_then(|up| up.streams.as_ref()) {
            // Streams arrive on this thread: none falls between the count and this.
            streams.moves(moves);
        }
        if !moves && !was_held {
            events::move_waits(cx.env(), attempt, calls);
        }
        moves
    }

    /// An attempt beside the link came to nothing: the link stays in use.
    pub(super) fn stays(&self) {
        if let Some(streams) = self.up.as_ref().and_then(|up| up.streams.as_ref()) {
            streams.moves(false);
        }
    }
}
