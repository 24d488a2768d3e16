//! What is waited for before a publish is acknowledged.

use futures::future::LocalBoxFuture;
use futures::stream::FuturesOrdered;

use crate::error::ConnectionError;
use crate::shared::Shared;

/// What a client is answered when that has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// To a publish of QoS 0.
    None,
    PubAck(u16),
    PubRec(u16),
    PubRel(u16),
    PubComp(u16),
}

impl Answer {
    /// To a publish.
    pub(crate) fn to(qos: u8, pkid: u16) -> Self {
        match qos {
            0 => Answer::None,
            1 => Answer::PubAck(pkid),
            _ => Answer::PubRec(pkid),
        }
    }
}

/// A packet whose handling has ended.
pub(crate) struct Settled {
    pub(crate) answer: Answer,
    /// The reason code of MQTT 5, or why the connection has to end.
    pub(crate) result: Result<u8, ConnectionError>,
}

/// Waits until the store has what it had to take.
pub(crate) async fn stored(shared: &Shared, change: Option<u64>) {
    if let Some(change) = change {
        // The sender lives as long as this.
        let _ = shared.stored.subscribe().wait_for(|stored| *stored >= change).await;
    }
}

/// Packets that are not answered yet, in their order.
pub(crate) type Settling = FuturesOrdered<LocalBoxFuture<'static, Settled>>;
