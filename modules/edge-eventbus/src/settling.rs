//! What is waited for before a publish is acknowledged.

use bytes::Bytes;
use contract::devicetwin::TwinMsg;
use futures::future::LocalBoxFuture;
use futures::stream::FuturesOrdered;
use tokio::sync::oneshot;

use crate::error::ConnectionError;
use crate::plan;
use crate::shared::Shared;
use crate::uploads::UploadResult;

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

/// Waits until the outbox has a message.
pub(crate) async fn kept(
    shared: &Shared,
    upload: oneshot::Receiver<UploadResult>,
) -> Result<(), ConnectionError> {
    match upload.await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(why)) => {
            shared.env.sleep(plan::REFUSAL_PAUSE).await;
            Err(ConnectionError::NotKept(why))
        }
        Err(_) => Err(ConnectionError::Ending),
    }
}

/// What DeviceTwin refuses: "implementation specific error", as its own document says more.
const REFUSED_BY_TWIN: u8 = 0x83;

/// The reason code of DeviceTwin's answer.
pub(crate) async fn ask_twin(
    shared: &Shared,
    client: &str,
    topic: String,
    payload: Bytes,
) -> Result<u8, ConnectionError> {
    let asked = topic.clone();
    let ask = shared.twin.ask(plan::TWIN_DEADLINE, |reply| TwinMsg::Mqtt { topic, payload, reply });
    match ask.await {
        Ok(Ok(())) => Ok(0),
        Ok(Err(why)) => {
            shared.broker.borrow().counts.twin_refused(client, &asked, &why.to_string());
            Ok(REFUSED_BY_TWIN)
        }
        Err(error) => {
            shared.broker.borrow().counts.twin_unanswered(client, &asked, &error);
            Err(ConnectionError::Unanswered(error))
        }
    }
}
