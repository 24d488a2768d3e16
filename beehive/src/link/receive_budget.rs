//! The receive budget: how much one link may make this end hold.
//!
//! A lane has credits, in messages and in bytes; both ends know what it begins with. What all lanes
//! of a link hold together is bounded as well: a message that finds no room is left on its stream until there is some, where
//! the transport's own window stops the sender. Each lane has a little room of its own, so that small messages pass however
//! much the other lanes hold.
//!
//! What is left on streams counts against the window of their connection (4 MiB with QUIC). An honest end has two lanes per
//! mailbox and few mailboxes: with six lanes at 1 MiB each, of which this end holds three, the window never closes before
//! the link's own stream.

use std::pin::pin;
use std::sync::Arc;

use futures::future::{Either, select};
use thiserror::Error;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::frame::BODY_MAX;
use super::ordered_watch::OrderedWatch;

/// 16: messages that a lane's sender may have on the way before the first is given back.
pub(super) const LANE_MESSAGES: usize = 16;
/// 1 MiB, the largest body: as much as QUIC lets one stream have on its way, so that this costs no throughput.
pub(super) const LANE_BYTES: usize = BODY_MAX;
/// 64: streams that the other end may have open at once; two per mailbox are used.
pub(super) const STREAMS_MAX: usize = 64;
/// 4096: asks of one lane that may wait for their answers, at either end.
pub(super) const ASKS_MAX: usize = 4096;
/// 16 KiB that belong to one lane alone.
const LANE_OWN: usize = 16 << 10;
/// 4 MiB: what all lanes of one link hold together.
pub(super) const LINK_BYTES: usize = 4 << 20;
/// What the lanes share beside what is their own.
const SHARED: usize = LINK_BYTES - STREAMS_MAX * LANE_OWN;
/// 1 MiB of answers that the other end has not read: no further question is taken then.
const ANSWER_BYTES: usize = 1 << 20;

/// How a sender broke flow control (QUIC: FLOW_CONTROL_ERROR).
#[derive(Debug, Error, PartialEq, Eq)]
pub(super) enum FlowControlError {
    #[error("more than {LANE_MESSAGES} messages without a credit for them; the stream is ended")]
    Messages,
    #[error("message of {size} bytes, and credits for {left} are left; the stream is ended")]
    Bytes { size: usize, left: usize },
}

/// The budget of one link.
#[derive(Clone)]
pub(super) struct LinkBudget {
    shared: Arc<Semaphore>,
    answers: Arc<OrderedWatch<usize>>,
}

impl LinkBudget {
    pub(super) fn new() -> Self {
        LinkBudget { shared: Arc::new(Semaphore::new(SHARED)), answers: Arc::default() }
    }

    pub(super) fn lane(&self) -> LaneBudget {
        LaneBudget {
            messages: Arc::new(Semaphore::new(LANE_MESSAGES)),
            bytes: Arc::new(Semaphore::new(LANE_BYTES)),
            own: Arc::new(Semaphore::new(LANE_OWN)),
            link: self.clone(),
        }
    }
}

/// The budget of one lane.
pub(super) struct LaneBudget {
    messages: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
    own: Arc<Semaphore>,
    link: LinkBudget,
}

/// What one message takes. Dropped, it is free again.
pub(super) struct Reserved {
    size: usize,
    _message: OwnedSemaphorePermit,
    _credit: OwnedSemaphorePermit,
    _room: Option<OwnedSemaphorePermit>,
}

impl Reserved {
    /// The bytes that are given back to the sender with the message.
    pub(super) fn size(&self) -> u32 {
        permits(self.size)
    }
}

fn permits(size: usize) -> u32 {
    u32::try_from(size).unwrap_or(u32::MAX)
}

impl LaneBudget {
    /// Room for a message of so many bytes, of which none has been read. Waits while the link holds too much.
    pub(super) async fn take(&self, size: usize) -> Result<Reserved, FlowControlError> {
        let message =
            Arc::clone(&self.messages).try_acquire_owned().map_err(|_| FlowControlError::Messages)?;
        let left = self.bytes.available_permits();
        let credit = Arc::clone(&self.bytes).try_acquire_many_owned(permits(size));
        let credit = credit.map_err(|_| FlowControlError::Bytes { size, left })?;
        Ok(Reserved { size, _message: message, _credit: credit, _room: self.room(size).await })
    }

    async fn room(&self, size: usize) -> Option<OwnedSemaphorePermit> {
        let size_permits = permits(size);
        let shared = Arc::clone(&self.link.shared).acquire_many_owned(size_permits);
        if size > LANE_OWN {
            return shared.await.ok();
        }
        let own = Arc::clone(&self.own).acquire_many_owned(size_permits);
        match select(pin!(own), pin!(shared)).await {
            Either::Left((room, _)) | Either::Right((room, _)) => room.ok(),
        }
    }

    /// Waits until the other end has read its answers but for a few.
    pub(super) async fn answers_are_read(&self) {
        self.link.answers.until(|waiting| (*waiting < ANSWER_BYTES).then_some(())).await;
    }

    /// Counts answers of this link that wait to be read.
    pub(super) fn answers(&self) -> UnreadAnswers {
        UnreadAnswers(Arc::clone(&self.link.answers))
    }
}

/// The count of answers that wait to be read.
#[derive(Clone)]
pub(super) struct UnreadAnswers(Arc<OrderedWatch<usize>>);

impl UnreadAnswers {
    /// So many bytes wait until this is dropped.
    pub(super) fn wait(&self, bytes: usize) -> UnreadAnswer {
        self.0.change(|waiting| *waiting += bytes);
        UnreadAnswer { count: Arc::clone(&self.0), bytes }
    }
}

/// An answer that waits to be read.
pub(super) struct UnreadAnswer {
    count: Arc<OrderedWatch<usize>>,
    bytes: usize,
}

impl Drop for UnreadAnswer {
    fn drop(&mut self) {
        self.count.change(|waiting| *waiting = waiting.saturating_sub(self.bytes));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    fn now(lane: &LaneBudget, size: usize) -> Option<Result<Reserved, FlowControlError>> {
        lane.take(size).now_or_never()
    }

    #[test]
    fn a_lane_has_its_credits_and_not_one_more() {
        let lane = LinkBudget::new().lane();
        let mut held: Vec<Reserved> = (0..16).map(|_| now(&lane, 10).unwrap().unwrap()).collect();
        assert_eq!(now(&lane, 0).unwrap().err(), Some(FlowControlError::Messages));
        held.pop();
        let left = LANE_BYTES - 150;
        assert_eq!(
            now(&lane, left + 1).unwrap().err(),
            Some(FlowControlError::Bytes { size: left + 1, left })
        );
        held.push(now(&lane, left).unwrap().unwrap());
        assert_eq!(held.pop().unwrap().size() as usize, left);
    }

    #[test]
    fn lanes_together_hold_no_more_than_the_link_may_and_small_messages_pass() {
        let link = LinkBudget::new();
        let lanes: Vec<LaneBudget> = (0..STREAMS_MAX).map(|_| link.lane()).collect();
        let mut held: Vec<Reserved> = Vec::new();
        for lane in &lanes {
            held.extend(now(lane, 1000).unwrap().ok());
            while let Some(Ok(more)) = now(lane, 60_000) {
                held.push(more);
            }
            while let Some(Ok(more)) = now(lane, 1000) {
                held.push(more);
            }
        }
        let total: usize = held.iter().map(|held| held.size).sum();
        assert!(total <= LINK_BYTES, "{total}");
        // Every lane has had its turn, the last one, too.
        assert!(held.len() > STREAMS_MAX * 10, "{}", held.len());
        drop(held);
        assert_eq!(link.shared.available_permits(), SHARED);
    }

    #[test]
    fn answers_that_nobody_reads_stop_further_questions() {
        let lane = LinkBudget::new().lane();
        let first = lane.answers().wait(ANSWER_BYTES);
        assert!(lane.answers_are_read().now_or_never().is_none());
        drop(first);
        assert!(lane.answers_are_read().now_or_never().is_some());
    }
}
