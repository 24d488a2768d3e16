//! Where byte streams go that the cloud opens on the link.

use std::sync::atomic::{AtomicBool, Ordering};

use beehive::link::{ByteStream, ByteStreamHandler, ByteStreamRefusal, PeerName};
use beehive::{Address, Refusal};
use contract::edgestream::EdgeStreamMsg;
use contract::stream::MOVING;

/// 503: what HTTP calls a service that has no room, or is not there.
const UNAVAILABLE: u16 = 503;

/// Hands each stream of one link to EdgeStream. The link is to CloudCore alone, whose certificate was verified when it was dialled.
pub(crate) struct StreamHandler {
    to: Address<EdgeStreamMsg>,
    moves: AtomicBool,
}

impl StreamHandler {
    pub(crate) fn new(to: Address<EdgeStreamMsg>) -> Self {
        StreamHandler { to, moves: AtomicBool::new(false) }
    }

    /// Whether the node is about to go over to another link: this one takes no new streams then.
    pub(crate) fn moves(&self, moves: bool) {
        self.moves.store(moves, Ordering::Relaxed);
    }
}

impl ByteStreamHandler for StreamHandler {
    fn accept(&self, _: &PeerName, header: Vec<u8>, stream: ByteStream) -> Result<(), ByteStreamRefusal> {
        if self.moves.load(Ordering::Relaxed) {
            let reason = "the node is going over to another link; try again".to_owned();
            return Err(ByteStreamRefusal { code: MOVING, reason });
        }
        let refused = |refusal: Refusal| {
            let reason = match refusal {
                Refusal::Full => "the node has more new calls than it takes at once; try again",
                _ => "the node does not take calls now; try again",
            };
            ByteStreamRefusal { code: UNAVAILABLE, reason: reason.to_owned() }
        };
        self.to.try_tell(EdgeStreamMsg::Opened { header, stream }).map_err(refused)
    }
}
