//! A line in which packets wait, and leave in the order in which they came.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

/// 16 384 packets may wait in a line: 400 ms of 500 Mbit/s. What comes beyond that is lost, as on any line.
const PACKETS: usize = 16_384;

/// The line's beginning. It ends when all of these are gone.
#[derive(Clone)]
pub(super) struct DelayQueue(mpsc::Sender<(Instant, Vec<u8>)>);

impl DelayQueue {
    /// `leave` is given each packet when its time has come.
    pub(super) fn start<F>(leave: impl Fn(Vec<u8>) -> F + Send + 'static) -> DelayQueue
    where
        F: Future<Output = ()> + Send,
    {
        let (put, mut waiting) = mpsc::channel::<(Instant, Vec<u8>)>(PACKETS);
        tokio::spawn(async move {
            while let Some((due, packet)) = waiting.recv().await {
                tokio::time::sleep_until(due).await;
                leave(packet).await;
            }
        });
        DelayQueue(put)
    }

    /// The packet leaves `after` this.
    pub(super) fn put(&self, after: Duration, packet: &[u8]) {
        let _ = self.0.try_send((Instant::now() + after, packet.to_vec()));
    }
}
