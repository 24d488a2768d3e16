//! Serving a listener: its connections, and how many of them.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use beehive::Clock;
use futures::StreamExt as _;
use futures::future::{Either, pending, select};
use futures::stream::FuturesUnordered;
use tokio::net::UnixListener;

use crate::{Bounds, Calls, serve_connection};

/// 32 connections at a time: a node has a few plugins and agents, and a sidecar has one. The next one waits.
const CONNECTIONS_MAX: usize = 32;
/// 100 ms after the system refused a connection: there are no files left, and there will be.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves the connections of a listener, each within [`Bounds::DEFAULT`], and for `lifetime` at most if one is given: a client of gRPC
/// comes again by itself. Does not end.
pub async fn serve_listener(
    listener: UnixListener,
    clock: Arc<dyn Clock>,
    lifetime: Option<Duration>,
    calls: Calls,
) {
    let mut connections = FuturesUnordered::new();
    loop {
        let accepted = if connections.len() >= CONNECTIONS_MAX {
            connections.next().await;
            continue;
        } else if connections.is_empty() {
            listener.accept().await
        } else {
            match select(std::pin::pin!(listener.accept()), connections.next()).await {
                Either::Left((accepted, _)) => accepted,
                Either::Right(_) => continue,
            }
        };
        match accepted {
            Ok((stream, _)) => {
                let (calls, clock) = (Rc::clone(&calls), Arc::clone(&clock));
                connections.push(async move {
                    let served = serve_connection(stream, Bounds::DEFAULT, calls);
                    let ends = async {
                        match lifetime {
                            Some(lifetime) => clock.sleep(lifetime).await,
                            None => pending().await,
                        }
                    };
                    drop(select(served, std::pin::pin!(ends)).await);
                });
            }
            Err(_) => clock.sleep(ACCEPT_PAUSE).await,
        }
    }
}
