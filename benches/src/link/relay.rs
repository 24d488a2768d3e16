//! A UDP relay for one client that counts what crosses it.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result};
use tokio::net::UdpSocket;

/// 64 KiB: the largest UDP packet.
const PACKET_MAX: usize = 64 << 10;

/// The running relay.
pub(super) struct Relay {
    pub(super) port: u16,
    crossed: Arc<AtomicU64>,
    task: tokio::task::JoinHandle<()>,
}

impl Relay {
    /// Listens on loopback and passes on to `server`.
    pub(super) async fn start(server: SocketAddr) -> Result<Relay> {
        let front = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.context("open the relay's socket")?;
        let back = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.context("open the relay's socket")?;
        back.connect(server).await?;
        let port = front.local_addr()?.port();
        let crossed = Arc::new(AtomicU64::new(0));
        let task = actix_rt::spawn(pass(front, back, Arc::clone(&crossed)));
        Ok(Relay { port, crossed, task })
    }

    /// Payload bytes of all packets, both ways.
    pub(super) fn crossed(&self) -> u64 {
        self.crossed.load(Ordering::Relaxed)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn pass(front: UdpSocket, back: UdpSocket, crossed: Arc<AtomicU64>) {
    let (mut there, mut here) = (vec![0; PACKET_MAX], vec![0; PACKET_MAX]);
    let mut client = None;
    loop {
        // What cannot be passed on is lost, as on any way.
        tokio::select! {
            Ok((length, from)) = front.recv_from(&mut there) => {
                client = Some(from);
                crossed.fetch_add(length as u64, Ordering::Relaxed);
                drop(back.send(&there[..length]).await);
            }
            Ok(length) = back.recv(&mut here) => {
                crossed.fetch_add(length as u64, Ordering::Relaxed);
                if let Some(client) = client {
                    drop(front.send_to(&here[..length], client).await);
                }
            }
        }
    }
}
