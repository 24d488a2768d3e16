//! How much of the node its calls may have at once.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};

use crate::error::Refusal;

/// 64 KiB at a time, while there are such chunks.
const CHUNK: usize = 64 << 10;
/// 64 of them: 4 MiB.
const CHUNKS: usize = 64;
/// 4 KiB: what any call may hold beside, so that none waits for another one whose reader sleeps.
const SMALL_CHUNK: usize = 4 << 10;
/// 256 exec, attach and port-forward at once: each holds two buffers of 16 KiB.
const UPGRADED: usize = 256;
/// 2 at once: the runtime hands a command's output over whole, up to 16 MiB.
const RUNS: usize = 2;

/// What all calls share.
pub(crate) struct Budget {
    chunks: Semaphore,
    upgraded: Arc<Semaphore>,
    runs: Arc<Semaphore>,
}

impl Default for Budget {
    fn default() -> Self {
        Budget {
            chunks: Semaphore::new(CHUNKS),
            upgraded: Arc::new(Semaphore::new(UPGRADED)),
            runs: Arc::new(Semaphore::new(RUNS)),
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

    /// A place for a command whose output is held whole.
    pub(crate) fn run(&self) -> Result<OwnedSemaphorePermit, Refusal> {
        Arc::clone(&self.runs).try_acquire_owned().map_err(|_| Refusal::too_many("commands by `run`"))
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
}
