//! Whose turn it is: so many requests are answered at a time, some wait for a while, and whoever comes beyond them is told to come again.

use std::io::Write as _;
use std::time::Duration;

use beehive::Env;
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, SemaphorePermit};

/// 32 requests are answered at a time: a device has one exchange in hand, and 16 wait for it.
const TURNS_MAX: usize = 32;
/// 128 more wait for their turn.
const WAITING_MAX: usize = 128;
/// So many requests are in hand at once.
pub(super) const IN_HAND_MAX: usize = TURNS_MAX + WAITING_MAX;
/// 5 s until one that waits is told to come again: before its client gives up by itself.
const TURN_WITHIN: Duration = Duration::from_secs(5);

/// The turns of all requests.
pub(super) struct Turns {
    in_hand: Semaphore,
    turns: Semaphore,
}

impl Turns {
    pub(super) fn new() -> Self {
        Turns { in_hand: Semaphore::new(IN_HAND_MAX), turns: Semaphore::new(TURNS_MAX) }
    }

    /// A turn, until it is dropped. None: too many wait already, or it did not come.
    pub(super) async fn take(&self, env: &Env) -> Option<[SemaphorePermit<'_>; 2]> {
        let in_hand = self.in_hand.try_acquire().ok()?;
        let turn = env.timeout(TURN_WITHIN, self.turns.acquire()).await?.ok()?;
        Some([in_hand, turn])
    }
}

/// What somebody is told who has no turn.
pub(super) fn busy() -> String {
    format!(
        "too many ask at once: the mapper answers {TURNS_MAX} requests at a time, and {WAITING_MAX} wait for {} s; ask again",
        TURN_WITHIN.as_secs()
    )
}

/// Tells somebody to come again who has asked for nothing yet, as far as the socket takes it now.
pub(super) fn send_away(stream: TcpStream) {
    let said = busy() + "\n";
    let answer = format!(
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: {}\r\n\
         retry-after: 1\r\nconnection: close\r\n\r\n{said}",
        said.len()
    );
    if let Ok(mut stream) = stream.into_std()
        && let Err(error) = stream.write_all(answer.as_bytes())
    {
        tracing::debug!(%error, "somebody was not told to come again");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt as _;

    #[tokio::test]
    async fn so_many_have_a_turn_some_wait_and_the_others_are_sent_away() {
        let (turns, env) = (Turns::new(), Env::seeded(1));
        let mut having = Vec::new();
        for _ in 0..TURNS_MAX {
            having.push(turns.take(&env).now_or_never().unwrap().unwrap());
        }
        let mut waiting: Vec<_> = (0..WAITING_MAX).map(|_| Box::pin(turns.take(&env))).collect();
        assert!(waiting.iter_mut().all(|one| one.now_or_never().is_none()), "they wait");
        assert!(turns.take(&env).now_or_never().unwrap().is_none(), "one too many");
        drop(having.pop());
        let next = waiting[0].as_mut().now_or_never().unwrap();
        assert!(next.is_some(), "the first of them");
        drop(waiting.remove(0));
        assert!(turns.take(&env).now_or_never().is_none(), "there is room to wait");
        assert!(busy().contains("32") && busy().contains("128"), "{}", busy());
    }
}
