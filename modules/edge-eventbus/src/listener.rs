//! Accepts clients.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use futures::stream::{FuturesUnordered, StreamExt};
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::sync::Notify;

use crate::connection::{self, Shared};
use crate::peer::{Door, Peer, Source};
use crate::plan;
use crate::stream::Stream;

/// 1 s: a system without file descriptors gets some back.
const PAUSE: Duration = Duration::from_secs(1);
/// A peer that is gone without a word is found within a minute, whatever its keep-alive says.
const PROBE_AFTER: Duration = Duration::from_secs(30);
const PROBE_EVERY: Duration = Duration::from_secs(10);
const PROBES: u32 = 3;

/// A place where clients connect.
pub(crate) enum Listener {
    Plain(TcpListener),
    Tls(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    async fn accept(&self) -> io::Result<(Stream, Peer)> {
        match self {
            Listener::Plain(listener) => {
                let (socket, address) = listener.accept().await?;
                Ok((tcp(socket), Peer::tcp(Door::Plain, address)))
            }
            Listener::Tls(listener) => {
                let (socket, address) = listener.accept().await?;
                Ok((tcp(socket), Peer::tcp(Door::Tls, address)))
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
    // Small packets that are waited for; a refusal only costs time.
    let _ = socket.set_nodelay(true);
    let probe = TcpKeepalive::new().with_time(PROBE_AFTER).with_interval(PROBE_EVERY).with_retries(PROBES);
    let _ = SockRef::from(&socket).set_tcp_keepalive(&probe);
    Stream::Tcp(socket)
}

/// Connections of one listener that have not said who they are.
#[derive(Default)]
struct Strangers {
    /// The oldest first.
    waiting: RefCell<Vec<(Source, Rc<Notify>)>>,
}

/// One of them, until it is dropped.
pub(crate) struct Stranger {
    all: Rc<Strangers>,
    leave: Rc<Notify>,
}

impl Stranger {
    /// It has to make room.
    pub(crate) async fn displaced(&self) {
        self.leave.notified().await;
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        self.all.waiting.borrow_mut().retain(|(_, other)| !Rc::ptr_eq(other, &self.leave));
    }
}

/// Another one comes. Who says nothing shall not keep out who does: where there are too many, the oldest goes of the
/// source that has most.
fn enter(all: &Rc<Strangers>, source: Source) -> Stranger {
    let leave = Rc::<Notify>::default();
    let mut waiting = all.waiting.borrow_mut();
    waiting.push((source, Rc::clone(&leave)));
    if waiting.len() > plan::STRANGERS {
        let mut counts: BTreeMap<Source, usize> = BTreeMap::new();
        for (source, _) in waiting.iter() {
            *counts.entry(*source).or_default() += 1;
        }
        let most = counts.into_iter().max_by_key(|(_, count)| *count).map(|(source, _)| source);
        if let Some(place) = waiting.iter().position(|(source, _)| Some(*source) == most) {
            waiting.remove(place).1.notify_one();
        }
    }
    drop(waiting);
    Stranger { all: Rc::clone(all), leave }
}

/// Accepts and serves until it is dropped, all connections with it.
pub(crate) async fn listen(shared: Rc<Shared>, listener: Listener) {
    let strangers = Rc::<Strangers>::default();
    let mut connections = FuturesUnordered::new();
    // As many again as may be there at once: whose connection has ended may still wait for a commit.
    let most = 2 * shared.limits.all + plan::STRANGERS;
    loop {
        tokio::select! {
            Some(()) = connections.next(), if !connections.is_empty() => {}
            accepted = listener.accept(), if connections.len() < most => match accepted {
                Ok((stream, peer)) => {
                    let stranger = enter(&strangers, peer.source);
                    connections.push(connection::serve(Rc::clone(&shared), stream, peer, stranger));
                }
                Err(error) => {
                    tracing::warn!(%error, "connection not accepted");
                    shared.env.sleep(PAUSE).await;
                }
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt as _;

    #[test]
    fn the_oldest_of_the_source_that_has_most_makes_room() {
        let all = Rc::<Strangers>::default();
        let other = enter(&all, Source::Uid(2));
        let mut flood: Vec<Stranger> = (1..plan::STRANGERS).map(|_| enter(&all, Source::Uid(1))).collect();
        flood.push(enter(&all, Source::Uid(1)));
        assert!(other.displaced().now_or_never().is_none());
        assert!(
            flood[0].displaced().now_or_never().is_some() && flood[1].displaced().now_or_never().is_none()
        );
        assert_eq!(all.waiting.borrow().len(), plan::STRANGERS);
        drop((flood, other));
        assert!(all.waiting.borrow().is_empty());
    }
}
