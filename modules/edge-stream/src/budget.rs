//! How much of the node its calls may have at once.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use beehive::Clock;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, SemaphorePermit};

use crate::error::Refusal;

/// 64 KiB at a time, while there are such chunks.
const CHUNK: usize = 64 << 10;
/// 64 of them: 4 MiB.
const CHUNKS: usize = 64;
/// 4 KiB: what any call may hold beside, so that none waits for another one whose reader sleeps.
pub(crate) const SMALL_CHUNK: usize = 4 << 10;
/// 256 exec, attach and port-forward at once: each holds two buffers of 16 KiB.
const UPGRADED: usize = 256;
/// 2 at once: the runtime hands a command's output over whole, up to 16 MiB.
const RUNS: usize = 2;
/// 16 MiB of answers that are made whole, from before they are made until they are taken.
const ANSWERS: usize = 16 << 20;
/// 4 MiB of them are for agents on the node: whoever calls over the link does not take those.
const FOR_LOCAL: usize = 4 << 20;
/// 1 MiB: what an answer counts as while nobody knows how long it will be.
const IN_THE_MAKING: usize = 1 << 20;
/// 60 s for a reader to take 16 KiB of an answer that is held for it.
pub(crate) const TAKEN_WITHIN: Duration = Duration::from_secs(60);

/// Where a call comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The link, or rather who called CloudCore.
    Link,
    /// The node itself.
    Local,
}

/// What is left for answers that are made whole.
struct Answers {
    left: Mutex<usize>,
    freed: Notify,
}

impl Answers {
    fn left(&self) -> MutexGuard<'_, usize> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An answer counts as so many bytes as long as this is.
pub(crate) struct BudgetPermit {
    answers: Arc<Answers>,
    origin: Origin,
    bytes: usize,
    /// Instead of them: the place of a command.
    place: Option<OwnedSemaphorePermit>,
}

impl BudgetPermit {
    /// From now on it counts as so many.
    ///
    /// # Errors
    /// There is not so much left. It counts as before then.
    pub(crate) fn fit(&mut self, bytes: usize) -> Result<(), Refusal> {
        let mut left = self.answers.left();
        let for_others = if self.origin == Origin::Link { FOR_LOCAL } else { 0 };
        let more = bytes.saturating_sub(self.bytes);
        if more > left.saturating_sub(for_others) {
            return Err(Refusal::busy());
        }
        *left = *left + self.bytes - bytes;
        self.bytes = bytes;
        drop(left);
        if more == 0 {
            self.answers.freed.notify_waiters();
        }
        Ok(())
    }
}

impl Drop for BudgetPermit {
    fn drop(&mut self) {
        // Who found no room drops what counts as nothing, and is not to be woken by itself.
        if self.bytes > 0 {
            *self.answers.left() += self.bytes;
            self.answers.freed.notify_waiters();
        }
    }
}

impl std::fmt::Debug for BudgetPermit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes", self.bytes)
    }
}

/// What all calls share.
pub(crate) struct Budget {
    chunks: Semaphore,
    upgraded: Arc<Semaphore>,
    runs: Arc<Semaphore>,
    answers: Arc<Answers>,
}

impl Default for Budget {
    fn default() -> Self {
        Budget {
            chunks: Semaphore::new(CHUNKS),
            upgraded: Arc::new(Semaphore::new(UPGRADED)),
            runs: Arc::new(Semaphore::new(RUNS)),
            answers: Arc::new(Answers { left: Mutex::new(ANSWERS), freed: Notify::new() }),
        }
    }
}

/// So many bytes may be held as long as this is.
pub(crate) struct Chunk<'a> {
    pub(crate) length: usize,
    _permit: Option<SemaphorePermit<'a>>,
}

impl Budget {
    /// Room for bytes on their way from a file to a client. Never waits.
    pub(crate) fn chunk(&self) -> Chunk<'_> {
        match self.chunks.try_acquire() {
            Ok(permit) => Chunk { length: CHUNK, _permit: Some(permit) },
            Err(_) => Chunk { length: SMALL_CHUNK, _permit: None },
        }
    }

    /// A place for an upgraded connection.
    pub(crate) fn upgraded(&self) -> Result<OwnedSemaphorePermit, Refusal> {
        let permit = Arc::clone(&self.upgraded).try_acquire_owned();
        permit.map_err(|_| Refusal::too_many("upgraded connections"))
    }

    /// A place for a command whose output is held whole, until it is taken.
    pub(crate) fn run(&self) -> Result<BudgetPermit, Refusal> {
        let place = Arc::clone(&self.runs).try_acquire_owned();
        let place = place.map_err(|_| Refusal::too_many("commands by `run`"))?;
        let mut held = self.nothing(Origin::Link);
        held.place = Some(place);
        Ok(held)
    }

    /// What counts as nothing yet.
    pub(crate) fn nothing(&self, origin: Origin) -> BudgetPermit {
        BudgetPermit { answers: Arc::clone(&self.answers), origin, bytes: 0, place: None }
    }

    /// Room for an answer that is made whole. Never waits.
    pub(crate) fn answer(&self, origin: Origin) -> Result<BudgetPermit, Refusal> {
        let mut held = self.nothing(origin);
        held.fit(IN_THE_MAKING)?;
        Ok(held)
    }

    /// The same for the next part of an answer that has begun: waits for room as long as others may hold it.
    pub(crate) async fn next_part(&self, origin: Origin, clock: &dyn Clock) -> io::Result<BudgetPermit> {
        let room = async {
            loop {
                let freed = self.answers.freed.notified();
                match self.answer(origin) {
                    Ok(held) => return held,
                    Err(_) => freed.await,
                }
            }
        };
        tokio::select! {
            held = room => Ok(held),
            () = clock.sleep(TAKEN_WITHIN) => Err(io::Error::new(io::ErrorKind::TimedOut, "no room for the rest of an answer")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_finds_no_large_chunk_gets_a_small_one() {
        let budget = Budget::default();
        let held: Vec<Chunk<'_>> = (0..CHUNKS).map(|_| budget.chunk()).collect();
        assert!(held.iter().all(|chunk| chunk.length == CHUNK));
        assert_eq!(budget.chunk().length, SMALL_CHUNK);
        drop(held);
        assert_eq!(budget.chunk().length, CHUNK);
    }

    #[test]
    fn one_upgraded_connection_too_many_is_refused() {
        let budget = Budget::default();
        let held: Vec<_> = (0..UPGRADED).map(|_| budget.upgraded().unwrap()).collect();
        let refusal = budget.upgraded().unwrap_err();
        assert_eq!((refusal.status, refusal.headers.len()), (429, 1));
        drop(held);
        assert!(budget.upgraded().is_ok());
    }

    #[tokio::test]
    async fn answers_have_one_bound_agents_on_the_node_have_a_part_of_it_and_who_has_begun_waits() {
        let budget = Budget::default();
        let mut held: Vec<BudgetPermit> = std::iter::from_fn(|| budget.answer(Origin::Link).ok()).collect();
        assert_eq!(held.len(), (ANSWERS - FOR_LOCAL) / IN_THE_MAKING);
        let refusal = budget.answer(Origin::Link).unwrap_err();
        assert_eq!((refusal.status, refusal.headers.len()), (503, 1));
        let local: Vec<BudgetPermit> = std::iter::from_fn(|| budget.answer(Origin::Local).ok()).collect();
        assert_eq!(local.len(), FOR_LOCAL / IN_THE_MAKING);
        assert!(held[0].fit(IN_THE_MAKING + 1).is_err(), "it does not become longer, either");
        let clock = beehive::TokioClock::real();
        let part = budget.next_part(Origin::Local, &clock);
        let free = async {
            tokio::task::yield_now().await;
            // What is made counts as what it is.
            held[0].fit(0).unwrap();
        };
        assert!(tokio::join!(part, free).0.is_ok());
        drop((held, local));
        assert_eq!(*budget.answers.left(), ANSWERS);
    }
}
