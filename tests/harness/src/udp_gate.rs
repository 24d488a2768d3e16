//! A gate on loopback that UDP passes when it is open, as a firewall does that lets QUIC through or not.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::net::UdpSocket;

/// 64 KiB: no packet is larger.
const PACKET: usize = 64 << 10;

/// See the module. Closed at first.
pub(crate) struct UdpGate {
    address: SocketAddr,
    is_open: Arc<AtomicBool>,
}

impl UdpGate {
    /// A gate to `server`, which lives as long as the system that it is made on.
    pub(crate) async fn to(server: SocketAddr) -> UdpGate {
        let front = Rc::new(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap());
        let gate = UdpGate { address: front.local_addr().unwrap(), is_open: Arc::default() };
        let is_open = Arc::clone(&gate.is_open);
        actix_rt::spawn(async move {
            let mut clients = BTreeMap::<SocketAddr, Rc<UdpSocket>>::new();
            let mut packet = vec![0; PACKET];
            loop {
                let Ok((length, client)) = front.recv_from(&mut packet).await else { continue };
                if !is_open.load(Ordering::Relaxed) {
                    continue;
                }
                if let std::collections::btree_map::Entry::Vacant(new) = clients.entry(client) {
                    let back = Rc::new(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap());
                    back.connect(server).await.unwrap();
                    let (front, is_open) = (Rc::clone(&front), Arc::clone(&is_open));
                    let answers = Rc::clone(new.insert(back));
                    actix_rt::spawn(async move {
                        let mut packet = vec![0; PACKET];
                        loop {
                            let Ok(length) = answers.recv(&mut packet).await else { continue };
                            if is_open.load(Ordering::Relaxed) {
                                drop(front.send_to(&packet[..length], client).await);
                            }
                        }
                    });
                }
                drop(clients[&client].send(&packet[..length]).await);
            }
        });
        gate
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn open(&self) {
        self.is_open.store(true, Ordering::Relaxed);
    }
}
