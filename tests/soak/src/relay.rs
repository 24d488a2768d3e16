//! The only way between the node and the cloud: a UDP relay that can lie.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::net::UdpSocket;
use tokio::task::{AbortHandle, JoinHandle};

/// 64 KiB: the largest UDP packet.
const PACKET_MAX: usize = 64 << 10;
/// Up to 60 ms: how late a packet is that others overtake, and the copy of one.
const LATE_MILLIS: u64 = 60;

/// What the relay does to packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lie {
    /// Passes them on.
    None,
    /// Drops all.
    Cut,
    /// Drops what the node sends.
    NothingUp,
    /// Drops what the cloud sends.
    NothingDown,
    /// Passes each on this much later.
    Delay(Duration),
    /// Lets every third be overtaken.
    Reorder,
    /// Passes every second on twice.
    Duplicate,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Up,
    Down,
}

/// When copies of a packet go on: none means that it is dropped.
fn copies(lie: Lie, way: Way, dice: &mut SmallRng) -> Vec<Duration> {
    let late = |dice: &mut SmallRng| Duration::from_millis(dice.random_range(1..=LATE_MILLIS));
    match lie {
        Lie::Cut => vec![],
        Lie::NothingUp if way == Way::Up => vec![],
        Lie::NothingDown if way == Way::Down => vec![],
        Lie::None | Lie::NothingUp | Lie::NothingDown => vec![Duration::ZERO],
        Lie::Delay(time) => vec![time],
        Lie::Reorder if dice.random_ratio(1, 3) => vec![late(dice)],
        Lie::Reorder => vec![Duration::ZERO],
        Lie::Duplicate if dice.random_ratio(1, 2) => vec![Duration::ZERO, late(dice)],
        Lie::Duplicate => vec![Duration::ZERO],
    }
}

struct Outside {
    socket: Arc<UdpSocket>,
    back: AbortHandle,
}

struct State {
    lie: Lie,
    dice: SmallRng,
    /// One socket towards the cloud per client, as a NAT has.
    clients: HashMap<SocketAddr, Outside>,
}

struct Shared {
    inside: UdpSocket,
    cloud: SocketAddr,
    state: Mutex<State>,
    passed: AtomicU64,
    dropped: AtomicU64,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn copies(&self, way: Way, length: usize) -> Vec<Duration> {
        let mut state = self.state();
        let lie = state.lie;
        let copies = copies(lie, way, &mut state.dice);
        if copies.is_empty() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        } else {
            self.passed.fetch_add(length as u64, Ordering::Relaxed);
        }
        copies
    }
}

/// The running relay.
pub(crate) struct Relay {
    pub(crate) port: u16,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
        self.rebind();
    }
}

impl Relay {
    /// Listens on every address and passes on to `cloud`.
    pub(crate) async fn start(cloud: SocketAddr, seed: u64) -> Result<Relay> {
        let inside = UdpSocket::bind("0.0.0.0:0").await.context("open the relay's socket")?;
        let port = inside.local_addr()?.port();
        let state = State { lie: Lie::None, dice: SmallRng::seed_from_u64(seed), clients: HashMap::new() };
        let shared = Arc::new(Shared {
            inside,
            cloud,
            state: Mutex::new(state),
            passed: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
        });
        let task = tokio::spawn(forth(Arc::clone(&shared)));
        Ok(Relay { port, shared, task })
    }

    /// From now on packets meet this.
    pub(crate) fn tell(&self, lie: Lie) {
        self.shared.state().lie = lie;
    }

    /// From now on the cloud sees every client at a new port, and what it sends to the old one is lost.
    pub(crate) fn rebind(&self) {
        for (_, outside) in self.shared.state().clients.drain() {
            outside.back.abort();
        }
    }

    /// Bytes that crossed, both ways.
    pub(crate) fn passed(&self) -> u64 {
        self.shared.passed.load(Ordering::Relaxed)
    }

    /// Packets that did not.
    pub(crate) fn dropped(&self) -> u64 {
        self.shared.dropped.load(Ordering::Relaxed)
    }
}

async fn forth(shared: Arc<Shared>) {
    let mut packet = vec![0; PACKET_MAX];
    loop {
        let Ok((length, client)) = shared.inside.recv_from(&mut packet).await else {
            tokio::task::yield_now().await;
            continue;
        };
        let known = shared.state().clients.get(&client).map(|outside| Arc::clone(&outside.socket));
        let outside = match known {
            Some(outside) => outside,
            None => {
                let Ok(outside) = open(&shared, client).await else { continue };
                outside
            }
        };
        for after in shared.copies(Way::Up, length) {
            if after.is_zero() {
                let _ = outside.send(&packet[..length]).await;
                continue;
            }
            let (outside, packet) = (Arc::clone(&outside), packet[..length].to_vec());
            tokio::spawn(async move {
                tokio::time::sleep(after).await;
                let _ = outside.send(&packet).await;
            });
        }
    }
}

async fn open(shared: &Arc<Shared>, client: SocketAddr) -> std::io::Result<Arc<UdpSocket>> {
    let socket = Arc::new(UdpSocket::bind("127.0.0.1:0").await?);
    socket.connect(shared.cloud).await?;
    let back = tokio::spawn(back(Arc::clone(&socket), Arc::clone(shared), client)).abort_handle();
    shared.state().clients.insert(client, Outside { socket: Arc::clone(&socket), back });
    Ok(socket)
}

async fn back(outside: Arc<UdpSocket>, shared: Arc<Shared>, client: SocketAddr) {
    let mut packet = vec![0; PACKET_MAX];
    loop {
        // A refused packet shows here as an error; the next one may pass.
        let Ok(length) = outside.recv(&mut packet).await else {
            tokio::task::yield_now().await;
            continue;
        };
        for after in shared.copies(Way::Down, length) {
            if after.is_zero() {
                let _ = shared.inside.send_to(&packet[..length], client).await;
                continue;
            }
            let (shared, packet) = (Arc::clone(&shared), packet[..length].to_vec());
            tokio::spawn(async move {
                tokio::time::sleep(after).await;
                let _ = shared.inside.send_to(&packet, client).await;
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(5);

    struct Ends {
        cloud: UdpSocket,
        edge: UdpSocket,
        relay: Relay,
    }

    async fn ends() -> Ends {
        let cloud = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let relay = Relay::start(cloud.local_addr().unwrap(), 1).await.unwrap();
        let edge = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        edge.connect(("127.0.0.1", relay.port)).await.unwrap();
        Ends { cloud, edge, relay }
    }

    async fn heard(cloud: &UdpSocket) -> (Vec<u8>, SocketAddr) {
        let mut packet = [0; 16];
        let (length, from) =
            tokio::time::timeout(SOON, cloud.recv_from(&mut packet)).await.expect("in time").unwrap();
        (packet[..length].to_vec(), from)
    }

    async fn dropped(relay: &Relay, count: u64) {
        let wait = async {
            while relay.dropped() < count {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(SOON, wait).await.expect("in time");
    }

    #[tokio::test]
    async fn a_lie_in_one_way_leaves_the_other() {
        let Ends { cloud, edge, relay } = ends().await;
        edge.send(b"one").await.unwrap();
        let (_, client) = heard(&cloud).await;
        relay.tell(Lie::NothingUp);
        edge.send(b"lost").await.unwrap();
        cloud.send_to(b"heard", client).await.unwrap();
        let mut packet = [0; 16];
        assert_eq!(edge.recv(&mut packet).await.unwrap(), 5);
        dropped(&relay, 1).await;
        relay.tell(Lie::NothingDown);
        cloud.send_to(b"lost", client).await.unwrap();
        edge.send(b"two").await.unwrap();
        assert_eq!(heard(&cloud).await.0, b"two");
        dropped(&relay, 2).await;
        relay.tell(Lie::Cut);
        edge.send(b"lost").await.unwrap();
        dropped(&relay, 3).await;
    }

    #[tokio::test]
    async fn a_rebound_client_has_another_port_and_is_answered_there() {
        let Ends { cloud, edge, relay } = ends().await;
        edge.send(b"one").await.unwrap();
        let (_, before) = heard(&cloud).await;
        relay.rebind();
        edge.send(b"two").await.unwrap();
        let (_, after) = heard(&cloud).await;
        assert_ne!(before, after);
        cloud.send_to(b"to nobody", before).await.unwrap();
        cloud.send_to(b"here", after).await.unwrap();
        let mut packet = [0; 16];
        assert_eq!(edge.recv(&mut packet).await.unwrap(), 4);
    }

    #[test]
    fn what_a_lie_makes_of_a_packet() {
        let mut dice = SmallRng::seed_from_u64(1);
        let mut of = |lie| (0..300).map(|_| copies(lie, Way::Up, &mut dice)).collect::<Vec<_>>();
        assert!(of(Lie::Delay(SOON)).iter().all(|copies| *copies == [SOON]));
        let overtaken = of(Lie::Reorder).iter().filter(|copies| !copies[0].is_zero()).count();
        assert!((50..150).contains(&overtaken), "{overtaken}");
        let twice = of(Lie::Duplicate).iter().filter(|copies| copies.len() == 2).count();
        assert!((100..200).contains(&twice), "{twice}");
    }
}
