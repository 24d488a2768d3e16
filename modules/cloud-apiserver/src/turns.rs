//! Turns at the thread beside the API's own: what is large to read, to check or to write is done there, so that it keeps nobody
//! waiting who wants little. Each user has one turn at a time, and users take theirs one after another, however many requests one of
//! them has made.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Who is next.
pub(crate) struct Turns {
    /// Whoever has his user's place waits here, and so there is one of each user.
    thread: Arc<Semaphore>,
    users: Mutex<BTreeMap<String, Arc<Semaphore>>>,
}

/// The thread is its holder's until it is dropped.
pub(crate) struct Turn {
    _own: OwnedSemaphorePermit,
    _thread: OwnedSemaphorePermit,
}

impl Turns {
    /// One turn at a time.
    pub(crate) fn new() -> Self {
        Turns { thread: Arc::new(Semaphore::new(1)), users: Mutex::default() }
    }

    /// Waits for the turn of `user`; `None` never comes, as nobody closes what is waited for.
    pub(crate) async fn next(&self, user: &str) -> Option<Turn> {
        let own = {
            let mut users = self.users.lock().unwrap_or_else(PoisonError::into_inner);
            // Whoever has a turn or waits has a copy.
            users.retain(|_, own| Arc::strong_count(own) > 1);
            Arc::clone(users.entry(user.to_owned()).or_insert_with(|| Arc::new(Semaphore::new(1))))
        };
        let own = own.acquire_owned().await.ok()?;
        let thread = Arc::clone(&self.thread).acquire_owned().await.ok()?;
        Some(Turn { _own: own, _thread: thread })
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn whoever_has_asked_for_many_turns_gets_one_and_then_the_next_user() {
        let turns = Turns::new();
        let first = turns.next("a").await.unwrap();
        let mut more: Vec<_> = (0..8).map(|_| Box::pin(turns.next("a"))).collect();
        for waiting in &mut more {
            assert!(waiting.now_or_never().is_none());
        }
        let mut other = Box::pin(turns.next("b"));
        assert!((&mut other).now_or_never().is_none(), "one at a time");
        drop(first);
        // His next request asked for the thread after the other user's: it had to wait for its own user's place first.
        assert!((&mut more[0]).now_or_never().is_none());
        let second = (&mut other).now_or_never().flatten().unwrap();
        drop(second);
        assert!((&mut more[0]).now_or_never().flatten().is_some());
        drop(more);
        drop(other);
        drop(turns.next("c").await);
        assert_eq!(turns.users.lock().unwrap().len(), 1);
    }
}
