//! Reading and writing the objects of a node: one transfer at a time, since a node serves one.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex as SyncMutex, PoisonError, Weak};
use std::time::Duration;

use framework::Fault;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout, timeout_at};

use crate::abort;
use crate::address::Interface;
use crate::bus::Bus;
use crate::frame::{CanId, Frame};
use crate::transfer::{Next, Payload, Transfer};

/// Where a client sends its requests, and where the answers come from, with the node's number added.
const REQUESTS: u32 = 0x600;
const ANSWERS: u32 = 0x580;
/// 30 s for one object, however many segments it has.
pub(crate) const TRANSFER_WITHIN: Duration = Duration::from_secs(30);

type Locks = BTreeMap<(Interface, u8), Weak<Mutex<()>>>;

/// Who is speaking with which node.
#[derive(Debug, Clone, Default)]
pub(crate) struct Nodes(Arc<SyncMutex<Locks>>);

impl Nodes {
    fn lock(&self, interface: &Interface, node: u8) -> Arc<Mutex<()>> {
        let mut locks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        locks.retain(|_, lock| lock.strong_count() > 0);
        let key = (interface.clone(), node);
        if let Some(lock) = locks.get(&key).and_then(Weak::upgrade) {
            return lock;
        }
        let lock = Arc::default();
        locks.insert(key, Arc::downgrade(&lock));
        lock
    }
}

/// A node and the bus that it is on.
#[derive(Debug)]
pub(crate) struct Node {
    bus: Bus,
    number: u8,
    answer: Duration,
    /// Two Devices may be one node.
    turn: Arc<Mutex<()>>,
}

impl Node {
    /// Opens the bus.
    ///
    /// # Errors
    /// A sentence that says what to do.
    pub(crate) async fn open(
        interface: &Interface,
        number: u8,
        answer: Duration,
        nodes: &Nodes,
    ) -> Result<Self, String> {
        let bus = Bus::open(interface, vec![CanId::standard(ANSWERS + u32::from(number))]).await?;
        Ok(Node { bus, number, answer, turn: nodes.lock(interface, number) })
    }

    /// What came of a transfer: the bytes, and whether the node has said how many there are.
    pub(crate) async fn done(&mut self, transfer: (Transfer, Payload)) -> Result<(Vec<u8>, bool), Fault> {
        let turn = Arc::clone(&self.turn);
        let Ok(_turn) = timeout(TRANSFER_WITHIN, turn.lock()).await else {
            return Err(Fault::NotSent(format!(
                "node {} is busy with another Device's transfer",
                self.number
            )));
        };
        // What is late, or another client's, is no answer to this.
        self.bus.discard().await.map_err(Fault::Link)?;
        let (mut transfer, first) = transfer;
        self.send(first).await.map_err(Fault::NotSent)?;
        let within = Instant::now() + TRANSFER_WITHIN;
        loop {
            let answer = match timeout_at(
                within.min(Instant::now() + self.answer),
                self.answer(&mut transfer),
            )
            .await
            {
                Ok(answer) => answer?,
                Err(_) => {
                    // The node waits for a next frame otherwise.
                    let late = transfer.late();
                    self.send(late).await.map_err(Fault::Link)?;
                    let (node, millis) = (self.number, self.answer.as_millis());
                    return Err(Fault::Link(format!("node {node} has not answered within {millis} ms")));
                }
            };
            match answer {
                Next::Send(payload) => self.send(payload).await.map_err(Fault::Link)?,
                Next::Done { bytes, has_length } => return Ok((bytes, has_length)),
                Next::Aborted(code) => return Err(Fault::Device(abort::words(code))),
                Next::GiveUp(payload, why) => {
                    self.send(payload).await.map_err(Fault::Link)?;
                    return Err(Fault::Device(why));
                }
                Next::Wait => {}
            }
        }
    }

    /// What follows from the next answer that belongs to the transfer.
    async fn answer(&mut self, transfer: &mut Transfer) -> Result<Next, Fault> {
        loop {
            let frame = self.bus.receive().await.map_err(Fault::Link)?;
            match transfer.answered(&frame.padded()) {
                Next::Wait => {}
                next => return Ok(next),
            }
        }
    }

    async fn send(&mut self, payload: Payload) -> Result<(), String> {
        let id = CanId::standard(REQUESTS + u32::from(self.number));
        self.bus.send(&Frame::full(id, payload)).await
    }
}
