//! A relay on loopback for one client: of packets or of a byte stream; slow with a deep queue, as an uplink is, or cut.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

/// What a slow way is like, in each direction.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Slow {
    pub(crate) bytes_per_second: u64,
    pub(crate) one_way: Duration,
}

/// 512 packets, some 600 kB: 20 s of 256 kbit/s. A sender that fills it has lost.
const DEEP: usize = 512;

pub(crate) struct Relay {
    pub(crate) port: u16,
    cut: Arc<AtomicBool>,
}

/// One direction: when what comes is over.
struct Way {
    slow: Option<Slow>,
    free_at: Instant,
}

impl Way {
    fn new(slow: Option<Slow>) -> Self {
        Way { slow, free_at: Instant::now() }
    }

    /// When so many bytes have arrived that come now.
    fn arrival(&mut self, bytes: usize) -> Instant {
        let Some(slow) = self.slow else { return Instant::now() };
        let micros = bytes as u64 * 1_000_000 / slow.bytes_per_second;
        self.free_at = self.free_at.max(Instant::now()) + Duration::from_micros(micros);
        self.free_at + slow.one_way
    }
}

impl Relay {
    pub(crate) fn cut(&self) {
        self.cut.store(true, Ordering::Relaxed);
    }

    /// Passes packets on to `server`.
    pub(crate) async fn udp(server: SocketAddr, slow: Option<Slow>) -> Relay {
        let front = Arc::new(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap());
        let back = Arc::new(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap());
        back.connect(server).await.unwrap();
        let port = front.local_addr().unwrap().port();
        let cut = Arc::new(AtomicBool::new(false));
        let (to_client, client) = tokio::sync::watch::channel(None);
        let (put_up, mut up) = mpsc::channel::<(Instant, Vec<u8>)>(DEEP);
        let (put_down, mut down) = mpsc::channel::<(Instant, Vec<u8>)>(DEEP);
        let (receives, sends) = (Arc::clone(&front), Arc::clone(&back));
        tokio::task::spawn_local(async move {
            let (mut way, mut packet) = (Way::new(slow), vec![0; 64 << 10]);
            while let Ok((len, from)) = receives.recv_from(&mut packet).await {
                to_client.send_replace(Some(from));
                // What finds the queue full is lost.
                let _ = put_up.try_send((way.arrival(len), packet[..len].to_vec()));
            }
        });
        let is_cut = Arc::clone(&cut);
        tokio::task::spawn_local(async move {
            while let Some((at, packet)) = up.recv().await {
                sleep_until(at).await;
                if !is_cut.load(Ordering::Relaxed) {
                    let _ = sends.send(&packet).await;
                }
            }
        });
        tokio::task::spawn_local(async move {
            let (mut way, mut packet) = (Way::new(slow), vec![0; 64 << 10]);
            while let Ok(len) = back.recv(&mut packet).await {
                let _ = put_down.try_send((way.arrival(len), packet[..len].to_vec()));
            }
        });
        let is_cut = Arc::clone(&cut);
        tokio::task::spawn_local(async move {
            while let Some((at, packet)) = down.recv().await {
                sleep_until(at).await;
                let client: Option<SocketAddr> = *client.borrow();
                if let Some(client) = client.filter(|_| !is_cut.load(Ordering::Relaxed)) {
                    let _ = front.send_to(&packet, client).await;
                }
            }
        });
        Relay { port, cut }
    }

    /// Passes the bytes of one connection on to `server`.
    pub(crate) async fn tcp(server: SocketAddr, slow: Option<Slow>) -> Relay {
        let front = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = front.local_addr().unwrap().port();
        let cut = Arc::new(AtomicBool::new(false));
        let is_cut = Arc::clone(&cut);
        tokio::task::spawn_local(async move {
            let (client, _) = front.accept().await.unwrap();
            let server = TcpStream::connect(server).await.unwrap();
            client.set_nodelay(true).unwrap();
            server.set_nodelay(true).unwrap();
            let ((from_client, to_client), (from_server, to_server)) =
                (client.into_split(), server.into_split());
            tokio::task::spawn_local(pass(from_client, to_server, slow, Arc::clone(&is_cut)));
            tokio::task::spawn_local(pass(from_server, to_client, slow, is_cut));
        });
        Relay { port, cut }
    }
}

async fn pass(
    mut from: impl AsyncReadExt + Unpin + 'static,
    mut to: impl AsyncWriteExt + Unpin + 'static,
    slow: Option<Slow>,
    cut: Arc<AtomicBool>,
) {
    let (put, mut taken) = mpsc::channel::<(Instant, Vec<u8>)>(DEEP);
    tokio::task::spawn_local(async move {
        let (mut way, mut bytes) = (Way::new(slow), vec![0; 1200]);
        while let Ok(len) = from.read(&mut bytes).await {
            if len == 0 || put.send((way.arrival(len), bytes[..len].to_vec())).await.is_err() {
                return;
            }
        }
    });
    while let Some((at, bytes)) = taken.recv().await {
        if slow.is_some() {
            sleep_until(at).await;
        }
        if cut.load(Ordering::Relaxed) {
            // Nothing arrives, and no end either.
            std::future::pending::<()>().await;
        }
        if to.write_all(&bytes).await.is_err() {
            return;
        }
    }
}
