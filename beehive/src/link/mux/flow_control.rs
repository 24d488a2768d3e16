//! What one stream holds, and how much more it may be sent. Pure.

use std::task::Waker;

use bytes::BytesMut;

use crate::link::backlog::Backlog;
use crate::link::transport::Urgency;

/// 32 KiB: what may be sent on a stream that has only begun, before this end has read it. As much as a connection begins
/// with on its way.
pub(super) const OWN: u32 = 32 << 10;
/// 4 KiB: the same for bulk bytes. They have windows of their own above this one, and a thousand streams of them cost
/// little.
pub(super) const OWN_BULK: u32 = 4 << 10;
/// 256 KiB: the same for a stream on which more comes, as long as the connection has room for it.
pub(super) const WIDE: u32 = 256 << 10;
/// 64 KiB: what a writer may leave here before it waits.
pub(super) const OUT_MAX: usize = 64 << 10;

/// One stream, both directions.
pub(super) struct Stream {
    pub(super) urgency: Urgency,
    pub(super) out: SendHalf,
    pub(super) into: ReceiveHalf,
}

/// What goes out on a stream.
#[derive(Default)]
pub(super) struct SendHalf {
    /// Whether the other end knows of the stream.
    pub(super) announced: bool,
    pub(super) waiting: BytesMut,
    /// Bytes that the other end still takes.
    pub(super) allowed: u64,
    /// The writer has written everything, or is gone.
    pub(super) complete: bool,
    pub(super) ended: bool,
    /// The other end reads no more.
    pub(super) unwanted: bool,
    pub(super) waker: Option<Waker>,
}

/// What comes in on a stream.
#[derive(Default)]
pub(super) struct ReceiveHalf {
    pub(super) waiting: Backlog,
    /// Bytes that the other end may still send.
    pub(super) granted: u32,
    /// Bytes that were read, and are not yet granted again.
    pub(super) read: u32,
    /// What is granted, waits or was read, together.
    width: u32,
    /// What of that is its own, whatever other streams hold.
    own: u32,
    /// Whether that may grow. What is vital is little.
    grows: bool,
    pub(super) complete: bool,
    /// The reader is gone: what still comes is dropped.
    pub(super) unread: bool,
    pub(super) stop_sent: bool,
    pub(super) waker: Option<Waker>,
}

impl Stream {
    pub(super) fn new(urgency: Urgency, announced: bool) -> Self {
        let own = if urgency == Urgency::Bulk { OWN_BULK } else { OWN };
        Stream {
            urgency,
            out: SendHalf { announced, allowed: u64::from(own), ..SendHalf::default() },
            into: ReceiveHalf {
                granted: own,
                width: own,
                own,
                grows: urgency != Urgency::Link,
                ..ReceiveHalf::default()
            },
        }
    }

    pub(super) fn is_over(&self) -> bool {
        self.out.ended && self.into.complete && (self.into.unread || self.into.waiting.is_empty())
    }

    pub(super) fn has_something(&self) -> bool {
        let out = &self.out;
        !out.ended && (!out.announced || (!out.waiting.is_empty() && out.allowed > 0) || self.may_end())
    }

    pub(super) fn may_end(&self) -> bool {
        self.out.complete && self.out.waiting.is_empty() && !self.out.ended
    }

    pub(super) fn wake(&mut self) {
        for waker in [self.out.waker.take(), self.into.waker.take()].into_iter().flatten() {
            waker.wake();
        }
    }
}

impl ReceiveHalf {
    /// What it has of the room that the connection's streams share.
    pub(super) fn of_shared(&self) -> u32 {
        self.width - self.own
    }

    /// What it takes of the shared room to become wide, if it should.
    fn widens(&self, shared: u32) -> Option<u32> {
        let used = self.width - self.granted;
        let wants = self.grows && self.width == self.own && used >= self.own / 2;
        (wants && shared >= WIDE - self.own).then_some(WIDE - self.own)
    }

    /// Whether the other end is to be told that it may send more.
    pub(super) fn is_due(&self, shared: u32) -> bool {
        let may_send_more = self.read >= self.width / 2 || self.widens(shared).is_some();
        !self.complete && if self.unread { !self.stop_sent } else { may_send_more }
    }

    /// How much more the other end may send, and what that takes of the shared room; 0 when there is nothing to tell.
    pub(super) fn grant(&mut self, shared: &mut u32) -> u32 {
        let mut more = 0;
        if let Some(wider) = self.widens(*shared) {
            *shared -= wider;
            self.width += wider;
            more = wider;
        }
        if more > 0 || self.read >= self.width / 2 {
            more += std::mem::take(&mut self.read);
        }
        self.granted += more;
        more
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_becomes_wide_as_it_is_used_and_while_there_is_room() {
        let mut into = Stream::new(Urgency::Work, true).into;
        let mut shared = WIDE - OWN;
        assert_eq!(into.grant(&mut shared), 0);
        into.granted -= OWN / 2;
        assert!(into.is_due(shared) && !into.is_due(shared - 1));
        assert_eq!((into.grant(&mut shared), shared), (WIDE - OWN, 0));
        assert_eq!(into.of_shared(), WIDE - OWN);
        // What is read is granted again, half a window at a time.
        into.read = WIDE / 2 - 1;
        assert_eq!(into.grant(&mut shared), 0);
        into.read = WIDE / 2;
        assert_eq!(into.grant(&mut shared), WIDE / 2);
    }

    #[test]
    fn without_room_a_stream_goes_on_with_its_own() {
        let mut into = Stream::new(Urgency::Work, true).into;
        into.granted = 0;
        into.read = OWN;
        assert_eq!(into.grant(&mut 0), OWN);
        assert_eq!(into.of_shared(), 0);
    }
}
