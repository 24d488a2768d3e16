//! TCP through the relay. Closed, it is a port at which nobody listens; open, it passes bytes on as the fault lets them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use super::{Direction, LinkFault, Relay};

/// 16 KiB at a time.
const CHUNK: usize = 16 << 10;

struct Shared {
    cloud: SocketAddr,
    fault: watch::Receiver<LinkFault>,
    open: watch::Receiver<bool>,
    passed: AtomicU64,
}

/// The running relay.
pub(crate) struct TcpRelay {
    pub(crate) port: u16,
    open: watch::Sender<bool>,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

impl Drop for TcpRelay {
    fn drop(&mut self) {
        // The connections go with it: they belong to this task.
        self.task.abort();
    }
}

impl TcpRelay {
    /// Closed at first. It has the faults of `udp`.
    pub(crate) async fn start(cloud: SocketAddr, udp: &Relay) -> Result<TcpRelay> {
        let listener = TcpListener::bind("0.0.0.0:0").await.context("open the relay's TCP port")?;
        let port = listener.local_addr()?.port();
        let (open, is_open) = watch::channel(false);
        let shared =
            Arc::new(Shared { cloud, fault: udp.faults(), open: is_open, passed: AtomicU64::new(0) });
        let task = tokio::spawn(accept(listener, Arc::clone(&shared)));
        Ok(TcpRelay { port, open, shared, task })
    }

    /// Whether connections are taken. Those that are there end when it closes.
    pub(crate) fn serve(&self, open: bool) {
        self.open.send_replace(open);
    }

    /// Bytes that crossed, both ways.
    pub(crate) fn passed(&self) -> u64 {
        self.shared.passed.load(Ordering::Relaxed)
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok((inside, _)) = listener.accept().await else {
            tokio::task::yield_now().await;
            continue;
        };
        // Dropped when it is closed: the client sees an end at once, as at a port where nobody listens.
        if *shared.open.borrow() {
            let shared = Arc::clone(&shared);
            connections.spawn(async move { connection(inside, &shared).await });
        }
    }
}

async fn connection(inside: TcpStream, shared: &Shared) {
    // A SYN gets lost like anything else.
    passes(shared, Direction::Up).await;
    let Ok(outside) = TcpStream::connect(shared.cloud).await else { return };
    let _ = (inside.set_nodelay(true), outside.set_nodelay(true));
    let ((from_node, to_node), (from_cloud, to_cloud)) = (inside.into_split(), outside.into_split());
    let mut open = shared.open.clone();
    tokio::select! {
        _ = async { tokio::join!(
            pass(from_node, to_cloud, Direction::Up, shared),
            pass(from_cloud, to_node, Direction::Down, shared),
        ) } => {}
        _ = open.wait_for(|open| !open) => {}
    }
}

async fn passes(shared: &Shared, direction: Direction) {
    // Without its sender the relay is gone, and this with it.
    let _ = shared.fault.clone().wait_for(|fault| fault.lets_tcp(direction)).await;
}

async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, direction: Direction, shared: &Shared) {
    let mut chunk = vec![0; CHUNK];
    loop {
        let read = from.read(&mut chunk).await;
        passes(shared, direction).await;
        match read {
            Ok(length) if length > 0 => {
                shared.passed.fetch_add(length as u64, Ordering::Relaxed);
                if to.write_all(&chunk[..length]).await.is_err() {
                    return;
                }
            }
            // An end is passed on, too.
            Ok(_) | Err(_) => {
                let _ = to.shutdown().await;
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const SOON: Duration = Duration::from_secs(5);

    async fn in_time<T>(what: impl Future<Output = T>) -> T {
        tokio::time::timeout(SOON, what).await.expect("in time")
    }

    #[tokio::test]
    async fn bytes_wait_while_they_are_stalled_and_a_closed_port_takes_nobody() {
        let cloud = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let udp = Relay::start("127.0.0.1:9".parse().unwrap(), 1).await.unwrap();
        let relay = TcpRelay::start(cloud.local_addr().unwrap(), &udp).await.unwrap();
        let dial = async || TcpStream::connect(("127.0.0.1", relay.port)).await.unwrap();
        let mut byte = [0];
        // An end or a reset, by when it was written to.
        assert!(!matches!(in_time(dial().await.read(&mut byte)).await, Ok(1..)));

        relay.serve(true);
        udp.inject(LinkFault::NoUdp);
        let mut node = dial().await;
        let (mut end, _) = in_time(cloud.accept()).await.unwrap();
        node.write_all(b"a").await.unwrap();
        assert_eq!(in_time(end.read_u8()).await.unwrap(), b'a');
        udp.inject(LinkFault::NothingUp);
        node.write_all(b"b").await.unwrap();
        end.write_all(b"c").await.unwrap();
        assert_eq!(in_time(node.read_u8()).await.unwrap(), b'c');
        // Up and down are passed on by one task: what came down shows that nothing went up before.
        assert_eq!(relay.passed(), 2);
        udp.inject(LinkFault::None);
        assert_eq!(in_time(end.read_u8()).await.unwrap(), b'b');
        relay.serve(false);
        assert!(!matches!(in_time(end.read(&mut byte)).await, Ok(1..)));
    }
}
