//! A UDP relay between the node and the cloud, which can drop every packet.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use anyhow::{Context, Result};
use tokio::net::UdpSocket;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;

/// 64 KiB: the largest UDP packet.
const PACKET_MAX: usize = 64 << 10;

/// What went through, and what did not.
#[derive(Default)]
pub(crate) struct Counters {
    cut: AtomicBool,
    pub(crate) up: AtomicU64,
    pub(crate) down: AtomicU64,
    pub(crate) dropped: AtomicU64,
}

impl Counters {
    /// Payload bytes that crossed, both ways.
    pub(crate) fn crossed(&self) -> u64 {
        self.up.load(Ordering::Relaxed) + self.down.load(Ordering::Relaxed)
    }

    fn passes(&self, way: &AtomicU64, bytes: usize) -> bool {
        if self.cut.load(Ordering::Relaxed) {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return false;
        }
        way.fetch_add(bytes as u64, Ordering::Relaxed);
        true
    }
}

/// The running relay.
pub(crate) struct Relay {
    pub(crate) port: u16,
    pub(crate) counters: Arc<Counters>,
    task: JoinHandle<()>,
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Relay {
    /// Listens at `address` and passes on to `cloud`.
    pub(crate) async fn start(address: IpAddr, cloud: SocketAddr) -> Result<Relay> {
        let socket = Arc::new(UdpSocket::bind((address, 0)).await.context("open the relay's socket")?);
        let port = socket.local_addr()?.port();
        let counters = Arc::new(Counters::default());
        let task = tokio::spawn(pass(socket, cloud, Arc::clone(&counters)));
        Ok(Relay { port, counters, task })
    }

    /// From now on every packet is dropped, in both directions.
    pub(crate) fn cut(&self) {
        self.counters.cut.store(true, Ordering::Relaxed);
    }

    /// Packets pass again.
    pub(crate) fn mend(&self) {
        self.counters.cut.store(false, Ordering::Relaxed);
    }
}

/// One socket towards the cloud per client, as a NAT has.
async fn pass(socket: Arc<UdpSocket>, cloud: SocketAddr, counters: Arc<Counters>) {
    let clients: Mutex<HashMap<SocketAddr, Arc<UdpSocket>>> = Mutex::default();
    let mut packet = vec![0; PACKET_MAX];
    loop {
        let Ok((length, client)) = socket.recv_from(&mut packet).await else { continue };
        let mut clients = clients.lock().await;
        let outside = match clients.get(&client) {
            Some(outside) => Arc::clone(outside),
            None => {
                let Ok(outside) = UdpSocket::bind("127.0.0.1:0").await else { continue };
                if outside.connect(cloud).await.is_err() {
                    continue;
                }
                let outside = Arc::new(outside);
                clients.insert(client, Arc::clone(&outside));
                tokio::spawn(back(Arc::clone(&outside), Arc::clone(&socket), client, Arc::clone(&counters)));
                outside
            }
        };
        if counters.passes(&counters.up, length) {
            let _ = outside.send(&packet[..length]).await;
        }
    }
}

async fn back(outside: Arc<UdpSocket>, socket: Arc<UdpSocket>, client: SocketAddr, counters: Arc<Counters>) {
    let mut packet = vec![0; PACKET_MAX];
    loop {
        // A refused packet shows here as an error; the next one may pass.
        let Ok(length) = outside.recv(&mut packet).await else {
            tokio::task::yield_now().await;
            continue;
        };
        if counters.passes(&counters.down, length) {
            let _ = socket.send_to(&packet[..length], client).await;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use std::time::Duration;

    #[tokio::test]
    async fn packets_pass_until_the_cut_and_after_the_mending() {
        let cloud = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let relay = Relay::start([127, 0, 0, 1].into(), cloud.local_addr().unwrap()).await.unwrap();
        let edge = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        edge.connect(("127.0.0.1", relay.port)).await.unwrap();
        let mut packet = [0; 16];
        edge.send(b"one").await.unwrap();
        let (length, from) = cloud.recv_from(&mut packet).await.unwrap();
        assert_eq!(&packet[..length], b"one");
        cloud.send_to(b"two", from).await.unwrap();
        assert_eq!(edge.recv(&mut packet).await.unwrap(), 3);
        assert_eq!(relay.counters.crossed(), 6);
        relay.cut();
        edge.send(b"lost").await.unwrap();
        let nothing = tokio::time::timeout(Duration::from_millis(200), cloud.recv_from(&mut packet)).await;
        assert!(nothing.is_err());
        assert_eq!(relay.counters.dropped.load(Ordering::Relaxed), 1);
        relay.mend();
        edge.send(b"three").await.unwrap();
        let (length, _) = cloud.recv_from(&mut packet).await.unwrap();
        assert_eq!(&packet[..length], b"three");
    }
}
