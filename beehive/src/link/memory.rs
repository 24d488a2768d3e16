//! A transport inside one process: for tests, and for clusters that live in one.
//!
//! Its path can be cut, in both directions or in one: bytes that are on their way then stay there, as they do when packets are
//! dropped, and go on when it is mended. It can be made slow, and late by a pause that is drawn for each piece of each
//! stream, so that streams overtake each other as QUIC's do. It can fall silent for the connections that it has, as QUIC
//! does when it is re-bound too often: nothing of theirs arrives any more, and no end either.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio::sync::mpsc;

use super::ordered_watch::OrderedWatch;
use super::transport::{
    Acceptor, Connection, DialError, Dialer, PeerName, Reader, Transport, Urgency, Writer,
};
use crate::{Clock, Moment};

/// 64 KiB: what one stream holds in flight.
const STREAM_WINDOW: usize = 64 << 10;
/// 64: streams and connections that wait to be taken.
const BACKLOG: usize = 64;

/// 1200 bytes: what goes over a slow network path at a time, so that streams take turns on it as packets do.
const PACKET: usize = 1200;

/// 16 KiB: what a late network path holds back at a time.
const PIECE: usize = 16 << 10;

/// A direction of a network path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the end that dialled.
    ToAcceptor,
    /// From the end that accepted.
    ToDialler,
}

/// The network path between two ends.
#[derive(Clone, Default)]
pub struct NetworkPath(Arc<Mutex<PathState>>);

#[derive(Default)]
struct PathState {
    directions: [DirectionState; 2],
    /// How often it fell silent: connections that were made before carry nothing.
    silences: u64,
}

/// One direction.
#[derive(Default)]
struct DirectionState {
    cut: bool,
    waiting: Vec<Waker>,
    slow: Option<Slow>,
    late: Option<Late>,
}

struct Late {
    clock: Arc<dyn Clock>,
    pause: Box<dyn Fn() -> Duration + Send>,
}

struct Slow {
    clock: Arc<dyn Clock>,
    bytes_per_second: u64,
    /// When what was put on it so far is over.
    free_at: Moment,
}

impl NetworkPath {
    /// A whole network path.
    pub fn new() -> Self {
        Self::default()
    }

    fn state(&self) -> MutexGuard<'_, PathState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on nothing arrives.
    pub fn cut(&self) {
        self.cut_direction(Direction::ToAcceptor);
        self.cut_direction(Direction::ToDialler);
    }

    /// From now on nothing arrives in this direction.
    pub fn cut_direction(&self, direction: Direction) {
        self.with(direction, |direction_state| direction_state.cut = true);
    }

    /// Everything goes on.
    pub fn mend(&self) {
        for direction_state in &mut self.state().directions {
            direction_state.cut = false;
            for waker in direction_state.waiting.drain(..) {
                waker.wake();
            }
        }
    }

    /// From now on all streams together carry so many bytes a second in each direction.
    pub fn slow_down(&self, clock: &Arc<dyn Clock>, bytes_per_second: u64) {
        for direction_state in &mut self.state().directions {
            let (clock, bytes_per_second) = (Arc::clone(clock), bytes_per_second.max(1));
            direction_state.slow = Some(Slow { clock, bytes_per_second, free_at: Moment::default() });
        }
    }

    /// From now on each piece of each stream is held back for what `pause` says then. Order is kept within a stream, and
    /// not between streams.
    pub fn hold_back(&self, clock: &Arc<dyn Clock>, pause: impl Fn() -> Duration + Clone + Send + 'static) {
        for direction_state in &mut self.state().directions {
            direction_state.late = Some(Late { clock: Arc::clone(clock), pause: Box::new(pause.clone()) });
        }
    }

    /// It carries as much as it is given again, and at once.
    pub fn speed_up(&self) {
        for direction_state in &mut self.state().directions {
            (direction_state.slow, direction_state.late) = (None, None);
        }
    }

    /// Nothing of the connections that it has now ever arrives again, and neither end is told. New ones are carried.
    pub fn fall_silent(&self) {
        self.state().silences += 1;
    }

    /// Whether nothing arrives now in one direction at least: nobody can connect then.
    pub fn is_cut(&self) -> bool {
        self.state().directions.iter().any(|direction_state| direction_state.cut)
    }

    fn with<T>(&self, direction: Direction, work: impl FnOnce(&mut DirectionState) -> T) -> T {
        let [to_acceptor, to_dialler] = &mut self.state().directions;
        work(match direction {
            Direction::ToAcceptor => to_acceptor,
            Direction::ToDialler => to_dialler,
        })
    }

    fn silences(&self) -> u64 {
        self.state().silences
    }

    /// Ready while the network path is whole, and has not fallen silent since `born`.
    fn poll_whole(&self, direction: Direction, born: u64, cx: &Context<'_>) -> Poll<()> {
        if self.silences() != born {
            // Nobody is ever woken: whoever waits gives up by its own clock.
            return Poll::Pending;
        }
        self.with(direction, |direction_state| {
            if !direction_state.cut {
                return Poll::Ready(());
            }
            if !direction_state.waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
                direction_state.waiting.push(cx.waker().clone());
            }
            Poll::Pending
        })
    }

    async fn whole(&self, direction: Direction, born: u64) {
        futures::future::poll_fn(|cx| self.poll_whole(direction, born, cx)).await;
    }

    /// How much goes over it at a time, if it takes its time.
    fn piece(&self, direction: Direction) -> Option<usize> {
        self.with(direction, |direction_state| match (&direction_state.slow, &direction_state.late) {
            (Some(_), _) => Some(PACKET),
            (None, Some(_)) => Some(PIECE),
            (None, None) => None,
        })
    }

    /// Completes when so many bytes are over: behind all that were put on it before, and after their own pause.
    fn carry(&self, direction: Direction, bytes: usize) -> BoxFuture<'static, ()> {
        self.with(direction, |direction_state| {
            let slow = direction_state.slow.as_mut().map(|slow| {
                let now = slow.clock.now();
                let micros = (bytes as u64).saturating_mul(1_000_000) / slow.bytes_per_second;
                slow.free_at = slow.free_at.max(now) + Duration::from_micros(micros);
                (Arc::clone(&slow.clock), slow.free_at.since(now))
            });
            let late = direction_state.late.as_ref().map(|late| (Arc::clone(&late.clock), (late.pause)()));
            match (slow, late) {
                (None, None) => Box::pin(std::future::ready(())),
                (Some((clock, pause)), None) | (None, Some((clock, pause))) => clock.sleep(pause),
                (Some((clock, slow)), Some((_, late))) => clock.sleep(slow + late),
            }
        })
    }
}

struct PathReader {
    network_path: NetworkPath,
    direction: Direction,
    born: u64,
    end: tokio::io::ReadHalf<DuplexStream>,
    /// What is on a slow or late network path, and what it still takes.
    packet: Option<(Bytes, BoxFuture<'static, ()>)>,
}

impl AsyncRead for PathReader {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        futures::ready!(this.network_path.poll_whole(this.direction, this.born, cx));
        if this.packet.is_none() {
            let Some(piece) = this.network_path.piece(this.direction) else {
                return Pin::new(&mut this.end).poll_read(cx, buf);
            };
            let mut bytes = vec![0; piece];
            let mut packet = ReadBuf::new(&mut bytes);
            futures::ready!(Pin::new(&mut this.end).poll_read(cx, &mut packet))?;
            let bytes = Bytes::copy_from_slice(packet.filled());
            let over = this.network_path.carry(this.direction, bytes.len());
            this.packet = Some((bytes, over));
        }
        let Some((bytes, over)) = &mut this.packet else { return Poll::Pending };
        if !bytes.is_empty() {
            futures::ready!(over.poll_unpin(cx));
            // What has come may be taken in parts.
            *over = Box::pin(std::future::ready(()));
        }
        buf.put_slice(&bytes.split_to(bytes.len().min(buf.remaining())));
        if bytes.is_empty() {
            this.packet = None;
        }
        Poll::Ready(Ok(()))
    }
}

struct StreamWriter(tokio::io::WriteHalf<DuplexStream>);

impl Drop for StreamWriter {
    fn drop(&mut self) {
        // The halves share the pipe: without this, the other end would wait for a writer that is gone.
        let _ = self.0.shutdown_now();
    }
}

trait ShutdownNow {
    fn shutdown_now(&mut self) -> io::Result<()>;
}

impl ShutdownNow for tokio::io::WriteHalf<DuplexStream> {
    fn shutdown_now(&mut self) -> io::Result<()> {
        tokio::io::AsyncWriteExt::shutdown(self).now_or_never().unwrap_or(Ok(()))
    }
}

impl AsyncWrite for StreamWriter {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

type Stream = (Writer, Reader);

/// One end of a connection in memory.
pub struct MemoryConnection {
    peer: PeerName,
    network_path: NetworkPath,
    /// The direction that leads here.
    here: Direction,
    born: u64,
    opened: mpsc::Sender<Stream>,
    incoming: tokio::sync::Mutex<mpsc::Receiver<Stream>>,
    /// Whether this end, and whether the other end has closed.
    closed: Arc<OrderedWatch<bool>>,
}

/// The two ends of a connection over `network_path`: of `one`, who dialled, and of `other`, who accepted. Each is told who the
/// other is.
pub fn pair(
    network_path: &NetworkPath,
    one: PeerName,
    other: PeerName,
) -> (MemoryConnection, MemoryConnection) {
    let (to_other, from_one) = mpsc::channel(BACKLOG);
    let (to_one, from_other) = mpsc::channel(BACKLOG);
    let closed = Arc::new(OrderedWatch::new(false));
    let born = network_path.silences();
    let end = |peer, here, opened, incoming| MemoryConnection {
        peer,
        network_path: network_path.clone(),
        here,
        born,
        opened,
        incoming: tokio::sync::Mutex::new(incoming),
        closed: Arc::clone(&closed),
    };
    (
        end(other, Direction::ToDialler, to_other, from_other),
        end(one, Direction::ToAcceptor, to_one, from_one),
    )
}

impl MemoryConnection {
    /// The halves at the end of the network path that `here` leads to.
    fn halves(&self, here: Direction, end: DuplexStream) -> Stream {
        let (reader, writer) = tokio::io::split(end);
        let reader = PathReader {
            network_path: self.network_path.clone(),
            direction: here,
            born: self.born,
            end: reader,
            packet: None,
        };
        (Box::new(StreamWriter(writer)), Box::new(reader))
    }

    fn there(&self) -> Direction {
        match self.here {
            Direction::ToAcceptor => Direction::ToDialler,
            Direction::ToDialler => Direction::ToAcceptor,
        }
    }

    async fn until_closed(&self) {
        // A word about the end crosses the network path like everything else.
        self.closed.until(|closed| closed.then_some(())).await;
        self.network_path.whole(self.here, self.born).await;
    }
}

fn closed() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionReset, "the connection was closed")
}

impl Connection for MemoryConnection {
    fn open(&self, _: Urgency) -> BoxFuture<'_, io::Result<Stream>> {
        Box::pin(async {
            if self.closed.look(|closed| *closed) {
                return Err(closed());
            }
            let (mine, theirs) = tokio::io::duplex(STREAM_WINDOW);
            self.opened.send(self.halves(self.there(), theirs)).await.map_err(|_| closed())?;
            Ok(self.halves(self.here, mine))
        })
    }

    fn accept(&self) -> BoxFuture<'_, io::Result<Stream>> {
        Box::pin(async {
            let mut incoming = self.incoming.lock().await;
            let next = async {
                let stream = incoming.recv().await;
                self.network_path.whole(self.here, self.born).await;
                stream
            };
            tokio::select! {
                // What was opened before the end is still taken.
                biased;
                stream = next => stream.ok_or_else(closed),
                () = self.until_closed() => Err(closed()),
            }
        })
    }

    fn peer(&self) -> &PeerName {
        &self.peer
    }

    fn transport(&self) -> Transport {
        Transport::Memory
    }

    fn close(&self) {
        self.closed.change(|closed| *closed = true);
    }
}

impl Drop for MemoryConnection {
    fn drop(&mut self) {
        self.close();
    }
}

/// Where connections in memory arrive.
pub struct MemoryAcceptor(mpsc::Receiver<MemoryConnection>);

impl Acceptor for MemoryAcceptor {
    fn accept(&mut self) -> BoxFuture<'_, Option<Box<dyn Connection>>> {
        Box::pin(async { self.0.recv().await.map(|connection| Box::new(connection) as Box<dyn Connection>) })
    }
}

/// The place that [`MemoryDialer`]s reach.
#[derive(Clone)]
pub struct MemoryPort {
    name: PeerName,
    arrivals: mpsc::Sender<MemoryConnection>,
}

/// A place to be reached under `name`, and what arrives there.
pub fn listen(name: PeerName) -> (MemoryPort, MemoryAcceptor) {
    let (arrivals, incoming) = mpsc::channel(BACKLOG);
    (MemoryPort { name, arrivals }, MemoryAcceptor(incoming))
}

impl MemoryPort {
    /// A dialer of this place that is known there as `name` and whose connections go over `network_path`.
    pub fn dialer(&self, name: PeerName, network_path: NetworkPath) -> MemoryDialer {
        MemoryDialer { port: self.clone(), name, network_path }
    }
}

/// Dials a [`MemoryPort`].
pub struct MemoryDialer {
    port: MemoryPort,
    name: PeerName,
    network_path: NetworkPath,
}

impl Dialer for MemoryDialer {
    fn dial(&self) -> BoxFuture<'_, Result<Box<dyn Connection>, DialError>> {
        Box::pin(async {
            let refused = |reason: &str| DialError::Connect {
                target: self.port.name.to_string(),
                reason: reason.to_owned(),
            };
            if self.network_path.is_cut() {
                return Err(refused("the network path is cut"));
            }
            let (mine, theirs) = pair(&self.network_path, self.name.clone(), self.port.name.clone());
            self.port.arrivals.send(theirs).await.map_err(|_| refused("nobody listens"))?;
            Ok(Box::new(mine) as Box<dyn Connection>)
        })
    }
}
