//! Where byte streams go that the cloud opens on the link.

use beehive::link::{ByteStream, ByteStreamHandler, ByteStreamRefusal, PeerName};
use beehive::{Address, Refusal};
use contract::edgestream::EdgeStreamMsg;

/// 503: what HTTP calls a service that has no room, or is not there.
const UNAVAILABLE: u16 = 503;

/// Hands each stream to EdgeStream. The link is to CloudCore alone, whose certificate was verified when it was dialled.
pub(crate) struct StreamHandler(pub(crate) Address<EdgeStreamMsg>);

impl ByteStreamHandler for StreamHandler {
    fn accept(&self, _: &PeerName, header: Vec<u8>, stream: ByteStream) -> Result<(), ByteStreamRefusal> {
        let refused = |refusal: Refusal| {
            let reason = match refusal {
                Refusal::Full => "the node has more new calls than it takes at once; try again",
                _ => "the node does not take calls now; try again",
            };
            ByteStreamRefusal { code: UNAVAILABLE, reason: reason.to_owned() }
        };
        self.0.try_tell(EdgeStreamMsg::Opened { header, stream }).map_err(refused)
    }
}
