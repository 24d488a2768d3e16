//! What goes to a client, and who waits for that.

use std::rc::Rc;
use std::time::Duration;

use beehive::{Env, Moment};
use bytes::BytesMut;
use tokio::io::{AsyncWrite, AsyncWriteExt};

use crate::error::ConnectionError;
use crate::plan;
use crate::session::{CloseReason, ConnectionHandle};
use crate::shared::Shared;

/// 1 s: a publish waits no longer for room in slow queues. Meanwhile its client's acknowledgements are heard (`held_back.rs`).
const ROOM_WAIT: Duration = Duration::from_secs(1);

/// Back-pressure: waits while the router or, from QoS 1 on, a subscriber is behind.
pub(crate) async fn wait_for_room(shared: &Shared, publisher: &Rc<str>, router_form: &str, qos: u8) {
    let env = &shared.env;
    let began = env.now();
    loop {
        let now = env.now();
        let left = ROOM_WAIT.saturating_sub(now.since(began));
        if left.is_zero() {
            return;
        }
        let (router, subscriber) = {
            let broker = shared.broker.borrow();
            let subscriber = if qos > 0 { broker.slow_subscriber(publisher, router_form) } else { None };
            (broker.backlog_is_long().then(|| Rc::clone(&broker.moved)), subscriber)
        };
        if let Some(moved) = router {
            env.timeout(left, moved.notified()).await;
        } else if let Some(handle) = subscriber {
            if now.since(handle.slow_since(now)) >= plan::SUBSCRIBER_PATIENCE {
                shared.broker.borrow().counts.client_cut_off(&handle.connect_info.peer.label);
                handle.close(CloseReason::Stuck);
            } else {
                env.timeout(left, handle.room.notified()).await;
            }
        } else {
            return;
        }
    }
}

/// Writes what `fill` has for the other end, until the socket fails. `fill` says whether there may be more even if that is nothing.
pub(crate) async fn write_all<W: AsyncWrite + Unpin>(
    env: &Env,
    handle: &ConnectionHandle,
    socket: &mut W,
    mut fill: impl FnMut(&mut BytesMut, Moment) -> bool,
) -> ConnectionError {
    let mut out = BytesMut::new();
    loop {
        let more = fill(&mut out, env.now());
        if out.is_empty() {
            if more {
                // There are more retained messages to look at; the others' turn comes first.
                tokio::task::yield_now().await;
            } else {
                handle.out.notified().await;
            }
            continue;
        }
        handle.writing.set(true);
        let write = async {
            socket.write_all(&out).await?;
            socket.flush().await
        };
        let written = env.timeout(plan::WRITE_DEADLINE, write).await;
        match written {
            Some(Ok(())) => handle.writing.set(false),
            Some(Err(error)) => return ConnectionError::Socket(error),
            None => return ConnectionError::Stuck,
        }
        // A large message is not held on to for the next small one.
        out = if out.capacity() > 2 * plan::WRITE_BYTES { BytesMut::new() } else { out };
        out.clear();
        handle.moved();
    }
}
