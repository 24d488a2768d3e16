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

/// A publish whose handling has ended.
pub(crate) struct Settled {
    pub(crate) qos: u8,
    pub(crate) pkid: u16,
    pub(crate) result: Result<(), ConnectionError>,
}

/// Publishes that are not acknowledged yet, in their order.
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

pub(crate) async fn ask_twin(
    shared: &Shared,
    client: &str,
    topic: String,
    payload: Bytes,
) -> Result<(), ConnectionError> {
    let asked = topic.clone();
    let ask = shared.twin.ask(plan::TWIN_DEADLINE, |reply| TwinMsg::Mqtt { topic, payload, reply });
    match ask.await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(why)) => {
            shared.broker.borrow().counts.twin_refused(client, &asked, &why.to_string());
            Ok(())
        }
        Err(error) => {
            shared.broker.borrow().counts.twin_unanswered(client, &asked, &error);
            Err(ConnectionError::Unanswered(error))
        }
    }
}
