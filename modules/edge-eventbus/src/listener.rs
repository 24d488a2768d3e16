//! Accepts clients.

use std::rc::Rc;
use std::time::Duration;

use futures::stream::{FuturesUnordered, StreamExt};
use tokio::net::TcpListener;

use crate::connection::{self, Shared};
use crate::plan;

/// 1 s: a system without file descriptors gets some back.
const PAUSE: Duration = Duration::from_secs(1);

/// Accepts and serves until it is dropped, all connections with it.
pub(crate) async fn listen(shared: Rc<Shared>, listener: TcpListener) {
    let mut connections = FuturesUnordered::new();
    loop {
        tokio::select! {
            Some(()) = connections.next(), if !connections.is_empty() => {}
            accepted = listener.accept() => match accepted {
                // Who says nothing shall not keep out who does.
                Ok((socket, _)) if connections.len() < plan::CONNECTIONS || shared.displace() => {
                    connections.push(connection::serve(Rc::clone(&shared), socket));
                }
                Ok((_, peer)) => {
                    let mut broker = shared.broker.borrow_mut();
                    broker.counts.refused_connections += 1;
                    let refused = broker.counts.refused_connections;
                    if refused.is_power_of_two() {
                        let limit = plan::CONNECTIONS;
                        tracing::warn!(%peer, limit, refused, "too many clients, connection refused");
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "connection not accepted");
                    shared.env.sleep(PAUSE).await;
                }
            },
        }
    }
}
