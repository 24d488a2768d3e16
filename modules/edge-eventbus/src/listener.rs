//! Accepts clients.

use std::io;
use std::rc::Rc;
use std::time::Duration;

use futures::stream::{FuturesUnordered, StreamExt};
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream, UnixListener};

use crate::peer::{ListenerKind, Peer};
use crate::pending_connects::{PendingConnects, enter};
use crate::plan;
use crate::shared::Shared;
use crate::stream::Stream;
use crate::{connection, events};

/// 1 s: a system without file descriptors gets some back.
const PAUSE: Duration = Duration::from_secs(1);
/// A peer that is gone without a word is found within a minute, whatever its keep-alive says.
const PROBE_AFTER: Duration = Duration::from_secs(30);
const PROBE_EVERY: Duration = Duration::from_secs(10);
const PROBES: u32 = 3;

/// A place where clients connect.
pub(crate) enum Listener {
    Tcp(TcpListener, ListenerKind),
    Unix(UnixListener),
}

impl Listener {
    async fn accept(&self) -> io::Result<(Stream, Peer)> {
        match self {
            Listener::Tcp(listener, kind) => {
                let (socket, address) = listener.accept().await?;
                Ok((tcp(socket), Peer::tcp(*kind, address)))
            }
            Listener::Unix(listener) => {
                let (socket, _) = listener.accept().await?;
                let who = socket.peer_cred()?;
                Ok((Stream::Unix(socket), Peer::unix(who.uid(), who.pid())))
            }
        }
    }
}

fn tcp(socket: TcpStream) -> Stream {
    prepare(&socket);
    Stream::Tcp(socket)
}

/// Sets what every connection needs; a refusal only costs time.
pub(crate) fn prepare(socket: &TcpStream) {
    // Small packets that are waited for.
    let _ = socket.set_nodelay(true);
    let probe = TcpKeepalive::new().with_time(PROBE_AFTER).with_interval(PROBE_EVERY).with_retries(PROBES);
    let _ = SockRef::from(socket).set_tcp_keepalive(&probe);
}

/// Accepts and serves until it is dropped, all connections with it.
pub(crate) async fn listen(shared: Rc<Shared>, listener: Listener) {
    let pending_connects = Rc::<PendingConnects>::default();
    let mut connections = FuturesUnordered::new();
    // As many again as may be there at once: whose connection has ended may still wait for a commit.
    let most = 2 * shared.limits.all + plan::PENDING_CONNECTS;
    loop {
        tokio::select! {
            Some(()) = connections.next(), if !connections.is_empty() => {}
            accepted = listener.accept(), if connections.len() < most => match accepted {
                Ok((stream, peer)) => {
                    let pending_connect = enter(&pending_connects, peer.source);
                    connections.push(connection::serve(Rc::clone(&shared), stream, peer, pending_connect));
                }
                Err(error) => {
                    events::accept_failed(&shared.env, &error);
                    shared.env.sleep(PAUSE).await;
                }
            },
        }
    }
}
