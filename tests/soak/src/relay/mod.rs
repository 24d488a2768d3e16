//! The only way between the node and the cloud: a relay for UDP, and for TCP where asked, that can inject faults.

mod capture;
mod delay;
mod narrow;
mod tcp;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::net::UdpSocket;
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::Instant;

use capture::Capture;
pub(crate) use capture::Packet;
pub(crate) use tcp::TcpRelay;

/// 64 KiB: the largest UDP packet.
const PACKET_MAX: usize = 64 << 10;
/// Up to 60 ms: how late a packet is that others overtake, and the copy of one.
const LATE_MILLIS: u64 = 60;

/// What the relay does to packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LinkFault {
    /// Passes them on.
    None,
    /// Drops all.
    Cut,
    /// Drops what the node sends.
    NothingUp,
    /// Drops what the cloud sends.
    NothingDown,
    /// Drops what is UDP.
    NoUdp,
    /// Passes each on this much later, in order.
    Delay(Duration),
    /// Passes on so many bytes of the node's a second, in order; what waits longer than half a second is dropped.
    NarrowUp(u32),
    /// Lets every third be overtaken.
    Reorder,
    /// Passes every second on twice.
    Duplicate,
}

/// From the node, or to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    Up,
    Down,
}

impl LinkFault {
    /// Whether TCP gets through. It has none of the finer faults: what gets lost or late below it is what QUIC is told.
    fn lets_tcp(self, direction: Direction) -> bool {
        match self {
            LinkFault::Cut => false,
            LinkFault::NothingUp => direction == Direction::Down,
            LinkFault::NothingDown => direction == Direction::Up,
            LinkFault::None
            | LinkFault::NoUdp
            | LinkFault::Delay(_)
            | LinkFault::NarrowUp(_)
            | LinkFault::Reorder
            | LinkFault::Duplicate => true,
        }
    }
}

/// When copies of a packet go on: none means that it is dropped.
fn copies(fault: LinkFault, direction: Direction, length: usize, state: &mut State) -> Vec<Duration> {
    let random = &mut state.random;
    let late = |random: &mut SmallRng| Duration::from_millis(random.random_range(1..=LATE_MILLIS));
    match fault {
        LinkFault::NarrowUp(rate) if direction == Direction::Up => {
            state.line.put(Instant::now(), length, rate).into_iter().collect()
        }
        LinkFault::Cut | LinkFault::NoUdp => vec![],
        LinkFault::NothingUp if direction == Direction::Up => vec![],
        LinkFault::NothingDown if direction == Direction::Down => vec![],
        LinkFault::None | LinkFault::NothingUp | LinkFault::NothingDown | LinkFault::NarrowUp(_) => {
            vec![Duration::ZERO]
        }
        LinkFault::Delay(time) => vec![time],
        LinkFault::Reorder if random.random_ratio(1, 3) => vec![late(random)],
        LinkFault::Reorder => vec![Duration::ZERO],
        LinkFault::Duplicate if random.random_ratio(1, 2) => vec![Duration::ZERO, late(random)],
        LinkFault::Duplicate => vec![Duration::ZERO],
    }
}

#[derive(Clone)]
struct ClientFlow {
    socket: Arc<UdpSocket>,
    back: AbortHandle,
    late: delay::DelayQueue,
}

struct State {
    random: SmallRng,
    line: narrow::Line,
    /// One socket towards the cloud per client, as a NAT has.
    clients: HashMap<SocketAddr, ClientFlow>,
}

impl State {
    fn new(seed: u64) -> State {
        State {
            random: SmallRng::seed_from_u64(seed),
            line: narrow::Line::default(),
            clients: HashMap::new(),
        }
    }
}

struct Shared {
    inside: UdpSocket,
    cloud: SocketAddr,
    fault: watch::Sender<LinkFault>,
    state: Mutex<State>,
    capture: Capture,
    passed: AtomicU64,
    dropped: AtomicU64,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn copies(&self, direction: Direction, length: usize) -> Vec<Duration> {
        let fault = *self.fault.borrow();
        let copies = copies(fault, direction, length, &mut self.state());
        if copies.is_empty() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        } else {
            self.passed.fetch_add(length as u64, Ordering::Relaxed);
            self.capture.add(direction, length);
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
        let state = State::new(seed);
        let shared = Arc::new(Shared {
            inside,
            cloud,
            fault: watch::Sender::new(LinkFault::None),
            state: Mutex::new(state),
            capture: Capture::default(),
            passed: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
        });
        let task = tokio::spawn(forth(Arc::clone(&shared)));
        Ok(Relay { port, shared, task })
    }

    /// From now on packets meet this.
    pub(crate) fn inject(&self, fault: LinkFault) {
        self.shared.fault.send_replace(fault);
    }

    fn faults(&self) -> watch::Receiver<LinkFault> {
        self.shared.fault.subscribe()
    }

    /// From now on the cloud sees every client at a new port, and what it sends to the old one is lost.
    pub(crate) fn rebind(&self) {
        for (_, outside) in self.shared.state().clients.drain() {
            outside.back.abort();
        }
    }

    /// From now on every packet that is passed on is written down, and what was before is forgotten.
    pub(crate) fn capture(&self) {
        self.shared.capture.begin();
    }

    /// What was written down so far.
    pub(crate) fn captured(&self) -> Vec<Packet> {
        self.shared.capture.shown()
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
        let known = shared.state().clients.get(&client).cloned();
        let outside = match known {
            Some(outside) => outside,
            None => {
                let Ok(outside) = open(&shared, client).await else { continue };
                outside
            }
        };
        for after in shared.copies(Direction::Up, length) {
            if after.is_zero() {
                let _ = outside.socket.send(&packet[..length]).await;
                continue;
            }
            if in_order(&shared) {
                outside.late.put(after, &packet[..length]);
                continue;
            }
            let (socket, packet) = (Arc::clone(&outside.socket), packet[..length].to_vec());
            tokio::spawn(async move {
                tokio::time::sleep(after).await;
                let _ = socket.send(&packet).await;
            });
        }
    }
}

/// Whether what is late stays in order: what is late by chance does not.
fn in_order(shared: &Shared) -> bool {
    matches!(*shared.fault.borrow(), LinkFault::Delay(_) | LinkFault::NarrowUp(_))
}

async fn open(shared: &Arc<Shared>, client: SocketAddr) -> std::io::Result<ClientFlow> {
    let socket = Arc::new(UdpSocket::bind("127.0.0.1:0").await?);
    socket.connect(shared.cloud).await?;
    let back = tokio::spawn(back(Arc::clone(&socket), Arc::clone(shared), client)).abort_handle();
    let to_cloud = Arc::clone(&socket);
    let late = delay::DelayQueue::start(move |packet| {
        let to_cloud = Arc::clone(&to_cloud);
        async move {
            let _ = to_cloud.send(&packet).await;
        }
    });
    let outside = ClientFlow { socket, back, late };
    shared.state().clients.insert(client, outside.clone());
    Ok(outside)
}

async fn back(outside: Arc<UdpSocket>, shared: Arc<Shared>, client: SocketAddr) {
    let mut packet = vec![0; PACKET_MAX];
    let to_client = Arc::clone(&shared);
    let late = delay::DelayQueue::start(move |packet| {
        let to_client = Arc::clone(&to_client);
        async move {
            let _ = to_client.inside.send_to(&packet, client).await;
        }
    });
    loop {
        // A refused packet shows here as an error; the next one may pass.
        let Ok(length) = outside.recv(&mut packet).await else {
            tokio::task::yield_now().await;
            continue;
        };
        for after in shared.copies(Direction::Down, length) {
            if after.is_zero() {
                let _ = shared.inside.send_to(&packet[..length], client).await;
                continue;
            }
            if in_order(&shared) {
                late.put(after, &packet[..length]);
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
mod tests;
