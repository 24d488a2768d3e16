//! What goes to a client, and who waits for that.

use std::rc::Rc;
use std::time::Duration;

use beehive::{Env, Moment};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::Notify;

use crate::broker::Broker;
use crate::error::ConnectionError;
use crate::outbox::{Outbox, PacketSink as _};
use crate::plan;
use crate::session::ConnectionHandle;
use crate::shared::Shared;

/// 1 s: a publish waits no longer for room in slow queues. Meanwhile its client's acknowledgements are heard (`held_back.rs`).
const ROOM_WAIT: Duration = Duration::from_secs(1);

/// A publisher waits for a subscriber, and that is counted for both.
struct Wait<'a> {
    env: &'a Env,
    subscriber: &'a ConnectionHandle,
    publisher: &'a ConnectionHandle,
    most: Duration,
}

impl<'a> Wait<'a> {
    fn begin(env: &'a Env, [subscriber, publisher]: &'a [Rc<ConnectionHandle>; 2], most: Duration) -> Self {
        let now = env.now();
        let most = most.min(subscriber.others_patience.left(now)).min(publisher.patience.left(now));
        subscriber.others_patience.begin(now, most);
        publisher.patience.begin(now, most);
        Wait { env, subscriber, publisher, most }
    }
}

/// Also one that is given up half-way.
impl Drop for Wait<'_> {
    fn drop(&mut self) {
        let now = self.env.now();
        self.subscriber.others_patience.end(now);
        self.publisher.patience.end(now);
    }
}

/// What a publish waits for.
enum Obstacle {
    /// The router is behind; it says so when it has moved.
    Router(Rc<Notify>),
    /// A subscriber is, and the publisher is the other one.
    Subscriber([Rc<ConnectionHandle>; 2]),
}

/// Back-pressure: waits while the router or, from QoS 1 on, a subscriber is behind, and there is patience for that. A message that
/// finds no room then is lost for that subscriber, and counted.
pub(crate) async fn wait_for_room(shared: &Shared, publisher: &Rc<str>, router_form: &str, qos: u8) {
    wait(&shared.env, |now| obstacle(&shared.broker.borrow(), publisher, router_form, qos, now)).await;
}

fn obstacle(
    broker: &Broker,
    publisher: &Rc<str>,
    router_form: &str,
    qos: u8,
    now: Moment,
) -> Option<Obstacle> {
    if broker.backlog_is_long() {
        return Some(Obstacle::Router(Rc::clone(&broker.moved)));
    }
    let both = if qos > 0 { broker.slow_subscriber(publisher, router_form, now) } else { None };
    both.map(Obstacle::Subscriber)
}

async fn wait(env: &Env, mut obstacle: impl FnMut(Moment) -> Option<Obstacle>) {
    let began = env.now();
    loop {
        let now = env.now();
        let left = ROOM_WAIT.saturating_sub(now.since(began));
        if left.is_zero() {
            return;
        }
        match obstacle(now) {
            Some(Obstacle::Router(moved)) => {
                env.timeout(left, moved.notified()).await;
            }
            Some(Obstacle::Subscriber(both)) => {
                let wait = Wait::begin(env, &both, left);
                env.timeout(wait.most, wait.subscriber.room.notified()).await;
            }
            None => return,
        }
    }
}

/// Writes what `fill` has for the other end, until the socket fails. `fill` says whether there may be more even if that is nothing.
///
/// Who takes a large message slowly gets it all the same: the deadline is one of a piece, and not of the whole.
pub(crate) async fn write_all<W: AsyncWrite + Unpin>(
    env: &Env,
    handle: &ConnectionHandle,
    socket: &mut W,
    mut fill: impl FnMut(&mut Outbox, Moment) -> bool,
) -> ConnectionError {
    let mut out = Outbox::default();
    loop {
        let more = fill(&mut out, env.now());
        if out.size() == 0 {
            if more {
                // There are more retained messages to look at; the others' turn comes first.
                tokio::task::yield_now().await;
            } else {
                handle.out.notified().await;
            }
            continue;
        }
        handle.writing.set(true);
        handle.unwritten.set(out.size());
        while let Some(part) = out.take_part() {
            for piece in part.chunks(plan::WRITE_PIECE) {
                // Each layer hands on what it has before it is handed more, so that what was written has gone.
                let write = async {
                    socket.write_all(piece).await?;
                    socket.flush().await
                };
                match env.timeout(plan::WRITE_DEADLINE, write).await {
                    Some(Ok(())) => handle.unwritten.set(handle.unwritten.get().saturating_sub(piece.len())),
                    Some(Err(error)) => return ConnectionError::Socket(error),
                    None => return ConnectionError::Stuck,
                }
            }
        }
        handle.writing.set(false);
        // There is room for what answers the client, whatever of its queue has gone.
        handle.moved();
    }
}

#[cfg(test)]
mod tests;
