//! The only file of this crate that names rumqttd.
//!
//! Only its router is used, over one link that subscribes to every filter. The router carries topic and number of a
//! message and says which filters take it; the messages themselves never enter its logs. That makes its weak sides
//! harmless: a log that overflows drops its oldest entries in silence, so no more is handed in than a log surely holds
//! ([`WINDOW_BYTES`]); sessions, retained messages and acknowledgements of its own are not used; and whatever it fails to
//! give back is known by number, so a dead router loses nothing. Nor can it forget a topic or a filter, or be told to
//! stop: see [`RouterCaps`] and [`FinalPayload`].

use std::thread::{self, ThreadId};

use bytes::Bytes;
use rumqttd::local::{LinkBuilder, LinkRx, LinkTx};
use rumqttd::protocol::{self, Packet, QoS, RetainForwardRule, SubscribeProperties};
use rumqttd::{Notification, Router, RouterConfig};

use crate::error::RouterError;

/// 4 KiB: one segment of a filter's log. Two are kept, so the newest 4 KiB are always there.
pub(crate) const WINDOW_BYTES: usize = 4 << 10;
/// What one router is taught before it is replaced by an empty one, which is the only way to make rumqttd forget.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RouterCaps {
    /// Filters, living and left: the log of one is never given back, and weighs up to 40 KiB when it is full.
    pub(crate) filters: usize,
    /// Topics: what it has found out about one is never given back either.
    pub(crate) topics: usize,
    /// Bytes in the names of these topics.
    pub(crate) topic_bytes: usize,
}

/// 128 filters, 4096 topics, 256 KiB of names: more than the devices of a node have, and about 1 MiB in a router.
pub(crate) const CAPS: RouterCaps = RouterCaps { filters: 128, topics: 4096, topic_bytes: 256 << 10 };

/// What an entry weighs in a log.
pub(crate) fn weight(topic: &str) -> usize {
    4 + topic.len() + size_of::<u64>()
}

/// The way into a router. The router ends when it is dropped.
pub(crate) struct RouterTx(LinkTx);

/// The way out of it.
pub(crate) struct RouterRx(LinkRx);

/// A filter took a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Match {
    pub(crate) filter: usize,
    pub(crate) message: u64,
}

/// The payload of a router's last message: the thread that lets go of it unwinds, which frees all that the router has.
///
/// rumqttd has no other way to end its thread. Unwinding by `resume_unwind` is no panic: nothing is printed and no hook
/// is called.
struct FinalPayload {
    sender: ThreadId,
}

impl AsRef<[u8]> for FinalPayload {
    fn as_ref(&self) -> &[u8] {
        b"last"
    }
}

impl Drop for FinalPayload {
    fn drop(&mut self) {
        // A router that was dead before never takes it, and then it is dropped by who sent it.
        if thread::current().id() != self.sender && !thread::panicking() {
            std::panic::resume_unwind(Box::new(()));
        }
    }
}

/// Starts a router on a thread of its own.
pub(crate) fn start() -> Result<(RouterTx, RouterRx), RouterError> {
    let config = RouterConfig {
        max_connections: 1,
        max_outgoing_packet_count: 100,
        max_segment_size: WINDOW_BYTES,
        max_segment_count: 2,
        ..RouterConfig::default()
    };
    let router = Router::new(0, config).spawn();
    // Waits for the router's first answer, which takes as long as the thread takes to start.
    let (tx, rx, _) = LinkBuilder::new("eventbus", router).build()?;
    Ok((RouterTx(tx), RouterRx(rx)))
}

impl RouterTx {
    /// From now on [`RouterRx`] names `number` for every message that `filter` takes.
    pub(crate) fn add(&mut self, filter: &str, number: usize) -> Result<(), RouterError> {
        let filter = protocol::Filter {
            path: filter.to_owned(),
            qos: QoS::AtMostOnce,
            nolocal: false,
            preserve_retain: false,
            retain_forward_rule: RetainForwardRule::Never,
        };
        let properties = SubscribeProperties { id: Some(number), user_properties: Vec::new() };
        self.push(Packet::Subscribe(protocol::Subscribe { pkid: 1, filters: vec![filter] }, Some(properties)))
    }

    /// Takes a filter back.
    pub(crate) fn remove(&mut self, filter: &str) -> Result<(), RouterError> {
        self.0.try_unsubscribe(filter)?;
        Ok(())
    }

    /// Asks who takes `message`.
    pub(crate) fn route(&mut self, topic: &str, message: u64) -> Result<(), RouterError> {
        let number = Bytes::copy_from_slice(&message.to_be_bytes());
        self.0.try_publish(Bytes::copy_from_slice(topic.as_bytes()), number)?;
        Ok(())
    }

    fn push(&mut self, packet: Packet) -> Result<(), RouterError> {
        // Sending is asynchronous in name only: it is done when it is first polled.
        match futures::FutureExt::now_or_never(self.0.send(packet)) {
            Some(sent) => sent.map(drop).map_err(RouterError::from),
            None => Err(RouterError::Stalled),
        }
    }

    /// Ends the router's thread the way that a client could if its topics went in as they came.
    #[cfg(test)]
    pub(crate) fn kill(&mut self) {
        let _ = self.0.publish("é", "x");
    }
}

impl Drop for RouterTx {
    fn drop(&mut self) {
        let last = Bytes::from_owner(FinalPayload { sender: thread::current().id() });
        // No filter of ours takes this topic. A router that takes nothing more is dead, or stuck beyond help.
        let _ = self.0.try_publish(Bytes::from_static(b"last"), last);
    }
}

impl RouterRx {
    /// The next match.
    pub(crate) async fn next(&mut self) -> Result<Match, RouterError> {
        loop {
            match self.0.next().await? {
                Some(Notification::Forward(forward)) => {
                    let filter = forward.properties.and_then(|p| p.subscription_identifiers.first().copied());
                    let message =
                        <[u8; 8]>::try_from(forward.publish.payload.as_ref()).map(u64::from_be_bytes);
                    if let (Some(filter), Ok(message)) = (filter, message) {
                        return Ok(Match { filter, message });
                    }
                }
                // Without this the link stays unscheduled for ever.
                Some(Notification::Unschedule) => self.0.wake().await?,
                Some(_) | None => {}
            }
        }
    }
}
