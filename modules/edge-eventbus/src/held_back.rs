//! What a client has sent behind a publish that waits for room with its subscribers, in its order.
//!
//! Only what it says of its own messages overtakes: were that held back, too, its queue would not empty, and two clients that
//! publish to each other would wait for each other.

use std::collections::VecDeque;
use std::future::pending;

use futures::future::{FutureExt, LocalBoxFuture};

use crate::packet::{Packet, Publish};
use crate::plan;
use crate::uploads::MemoryPermit;

/// A publish that may go on as soon as there is room for it.
pub(crate) struct Waiting {
    pub(crate) publish: Publish,
    /// Subscribers have it already.
    pub(crate) is_handed_out: bool,
    pub(crate) room: LocalBoxFuture<'static, Option<MemoryPermit>>,
}

impl Waiting {
    /// What the wait has brought, if it is over.
    pub(crate) fn try_room(&mut self) -> Option<Option<MemoryPermit>> {
        (&mut self.room).now_or_never()
    }
}

/// Of one connection: bounded, see [`HeldBack::is_full`].
#[derive(Default)]
pub(crate) struct HeldBack {
    waiting: Option<Waiting>,
    behind: VecDeque<Packet>,
    /// Of all of them.
    bytes: usize,
}

impl HeldBack {
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_none() && self.behind.is_empty()
    }

    /// Whether nothing more is to be read from the client.
    pub(crate) fn is_full(&self) -> bool {
        self.behind.len() >= plan::HELD_BACK || self.bytes >= plan::HELD_BACK_BYTES
    }

    /// Whether a packet that comes now has to stay behind the others. One that ends the connection is handled when these are.
    pub(crate) fn holds(&self, packet: &Packet) -> bool {
        let is_in_order = matches!(
            packet,
            Packet::Publish(_)
                | Packet::Oversized { .. }
                | Packet::PubRel(_)
                | Packet::Subscribe { .. }
                | Packet::Unsubscribe { .. }
        );
        is_in_order && !self.is_empty()
    }

    pub(crate) fn wait(&mut self, waiting: Waiting) {
        self.bytes += size_of_publish(&waiting.publish);
        self.waiting = Some(waiting);
    }

    pub(crate) fn push(&mut self, packet: Packet) {
        self.bytes += size(&packet);
        self.behind.push_back(packet);
    }

    /// The next packet whose turn it is, unless the publish before it still waits.
    pub(crate) fn next(&mut self) -> Option<Packet> {
        let packet = if self.waiting.is_some() { None } else { self.behind.pop_front() }?;
        self.bytes -= size(&packet);
        Some(packet)
    }

    /// The publish that has waited, with what the wait has brought. Dropped half-way it has lost nothing.
    pub(crate) async fn freed(&mut self) -> (Waiting, Option<MemoryPermit>) {
        let permit = match &mut self.waiting {
            Some(waiting) => (&mut waiting.room).await,
            None => pending().await,
        };
        let Some(waiting) = self.waiting.take() else { return pending().await };
        self.bytes -= size_of_publish(&waiting.publish);
        (waiting, permit)
    }
}

fn size_of_publish(publish: &Publish) -> usize {
    size_of::<Packet>() + publish.topic.len() + publish.payload.len() + publish.properties.len()
}

fn size(packet: &Packet) -> usize {
    match packet {
        Packet::Publish(publish) | Packet::Oversized { publish, .. } => size_of_publish(publish),
        Packet::Subscribe { filters, .. } => {
            let own = filters.len() * size_of::<crate::packet::FilterRequest>();
            size_of::<Packet>() + own + filters.iter().map(|asked| asked.filter.len()).sum::<usize>()
        }
        Packet::Unsubscribe { filters, .. } => {
            let own = filters.len() * size_of::<String>();
            size_of::<Packet>() + own + filters.iter().map(String::len).sum::<usize>()
        }
        _ => size_of::<Packet>(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn publish(pkid: u16, size: usize) -> Publish {
        Publish {
            topic: "a".into(),
            payload: vec![0; size].into(),
            qos: 1,
            retain: false,
            dup: false,
            pkid,
            alias: None,
            expiry: None,
            properties: bytes::Bytes::new(),
        }
    }

    fn waiting(size: usize) -> HeldBack {
        let mut held = HeldBack::default();
        let room = Box::pin(std::future::ready(None));
        held.wait(Waiting { publish: publish(1, size), is_handed_out: false, room });
        held
    }

    #[test]
    fn acknowledgements_overtake_and_nothing_else_does() {
        let free = HeldBack::default();
        let unsubscribe = Packet::Unsubscribe { pkid: 1, filters: vec!["a".into()] };
        let in_order = [Packet::Publish(publish(2, 1)), Packet::PubRel(3), unsubscribe];
        assert!(!in_order.iter().any(|packet| free.holds(packet)));
        let mut held = waiting(1);
        assert!(in_order.iter().all(|packet| held.holds(packet)));
        let acks = [Packet::PubAck(1), Packet::PubRec(1, 0), Packet::PubComp(1), Packet::PingReq];
        assert!(!acks.iter().any(|packet| held.holds(packet)));
        for packet in in_order.clone() {
            held.push(packet);
        }
        assert_eq!(held.next(), None, "the first one waits");
        let (first, _) = held.freed().now_or_never().unwrap();
        assert_eq!(first.publish.pkid, 1);
        assert!(held.holds(&Packet::Publish(publish(4, 1))), "others are before it");
        assert_eq!(std::iter::from_fn(|| held.next()).collect::<Vec<_>>(), in_order);
        assert!(held.is_empty() && held.bytes == 0);
    }

    #[test]
    fn what_is_held_back_is_bounded_in_number_and_bytes() {
        let fits = |size: usize| {
            let (mut held, mut count) = (waiting(size), 0);
            while !held.is_full() {
                held.push(Packet::Publish(publish(1, size)));
                count += 1;
            }
            count
        };
        assert_eq!((fits(0), fits(plan::HELD_BACK_BYTES)), (plan::HELD_BACK, 0));
        assert!((28..32).contains(&fits(2 << 10)), "{}", fits(2 << 10));
    }
}
