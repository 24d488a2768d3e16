//! Probes for tests: a mailbox whose messages the test reads itself.

use std::time::Duration;

use crate::{Address, Capacity, Env, Flow, Mailbox, Message};

/// An address and everything that is told to it.
pub struct Probe<M: Message> {
    mailbox: Mailbox<M>,
    env: Env,
}

impl<M: Message> Probe<M> {
    /// A probe that holds up to `capacity` messages, and its address (asking allowed).
    pub fn new(env: &Env, capacity: usize) -> (Probe<M>, Address<M>) {
        let mailbox = Mailbox::new("probe", Capacity::new(capacity, "a test's choice"));
        let address = Address::local(mailbox.local.clone(), Flow::Ask, env.clock());
        (Probe { mailbox, env: env.clone() }, address)
    }

    /// The next message, control first, or `None` when `limit` passes.
    pub async fn next(&mut self, limit: Duration) -> Option<M> {
        let env = self.env.clone();
        env.timeout(limit, async {
            tokio::select! {
                biased;
                Some(message) = self.mailbox.control.recv() => message,
                Some(message) = self.mailbox.work.recv() => message,
            }
        })
        .await
    }

    /// The next message that `wanted` maps to something, dropping the others, or `None` when `limit` passes.
    pub async fn find<T>(&mut self, limit: Duration, mut wanted: impl FnMut(M) -> Option<T>) -> Option<T> {
        let until = self.env.now() + limit;
        loop {
            let message = self.next(until.since(self.env.now())).await?;
            if let Some(found) = wanted(message) {
                return Some(found);
            }
        }
    }
}
