//! A transport inside one process: for tests, and for clusters that live in one.
//!
//! Its cable can be cut, both ways or one: bytes that are on their way then stay there, as they do when packets are
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

/// 1200 bytes: what goes over a slow cable at a time, so that streams take turns on it as packets do.
const PACKET: usize = 1200;

/// 16 KiB: what a late cable holds back at a time.
const PIECE: usize = 16 << 10;

/// A direction of a cable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// From the end that dialled.
    ToAcceptor,
    /// From the end that accepted.
    ToDialler,
}

/// The cable between two ends.
#[derive(Clone, Default)]
pub struct Cable(Arc<Mutex<Wires>>);

#[derive(Default)]
struct Wires {
    ways: [Wire; 2],
    /// How often it fell silent: connections that were made before carry nothing.
    silences: u64,
}

/// One direction.
#[derive(Default)]
struct Wire {
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

impl Cable {
    /// A whole cable.
    pub fn new() -> Self {
        Self::default()
    }

    fn wires(&self) -> MutexGuard<'_, Wires> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on nothing arrives.
    pub fn cut(&self) {
        self.cut_way(Way::ToAcceptor);
        self.cut_way(Way::ToDialler);
    }

    /// From now on nothing arrives in this direction.
    pub fn cut_way(&self, way: Way) {
        self.with(way, |wire| wire.cut = true);
    }

    /// Everything goes on.
    pub fn mend(&self) {
        for wire in &mut self.wires().ways {
            wire.cut = false;
            for waker in wire.waiting.drain(..) {
                waker.wake();
            }
        }
    }

    /// From now on all streams together carry so many bytes a second in each direction.
    pub fn slow_down(&self, clock: &Arc<dyn Clock>, bytes_per_second: u64) {
        for wire in &mut self.wires().ways {
            let (clock, bytes_per_second) = (Arc::clone(clock), bytes_per_second.max(1));
            wire.slow = Some(Slow { clock, bytes_per_second, free_at: Moment::default() });
        }
    }

    /// From now on each piece of each stream is held back for what `pause` says then. Order is kept within a stream, and
    /// not between streams.
    pub fn hold_back(&self, clock: &Arc<dyn Clock>, pause: impl Fn() -> Duration + Clone + Send + 'static) {
        for wire in &mut self.wires().ways {
            wire.late = Some(Late { clock: Arc::clone(clock), pause: Box::new(pause.clone()) });
        }
    }

    /// It carries as much as it is given again, and at once.
    pub fn speed_up(&self) {
        for wire in &mut self.wires().ways {
            (wire.slow, wire.late) = (None, None);
        }
    }

    /// Nothing of the connections that it has now ever arrives again, and neither end is told. New ones are carried.
    pub fn fall_silent(&self) {
        self.wires().silences += 1;
    }

    /// Whether nothing arrives now in one direction at least: nobody can connect then.
    pub fn is_cut(&self) -> bool {
        self.wires().ways.iter().any(|wire| wire.cut)
    }

    fn with<T>(&self, way: Way, work: impl FnOnce(&mut Wire) -> T) -> T {
        let [to_acceptor, to_dialler] = &mut self.wires().ways;
        work(match way {
            Way::ToAcceptor => to_acceptor,
            Way::ToDialler => to_dialler,
        })
    }

    fn silences(&self) -> u64 {
        self.wires().silences
    }

    /// Ready while the cable is whole, and has not fallen silent since `born`.
    fn poll_whole(&self, way: Way, born: u64, cx: &Context<'_>) -> Poll<()> {
        if self.silences() != born {
            // Nobody is ever woken: whoever waits gives up by its own clock.
            return Poll::Pending;
        }
        self.with(way, |wire| {
            if !wire.cut {
                return Poll::Ready(());
            }
            if !wire.waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
                wire.waiting.push(cx.waker().clone());
            }
            Poll::Pending
        })
    }

    async fn whole(&self, way: Way, born: u64) {
        futures::future::poll_fn(|cx| self.poll_whole(way, born, cx)).await;
    }

    /// How much goes over it at a time, if it takes its time.
    fn piece(&self, way: Way) -> Option<usize> {
        self.with(way, |wire| match (&wire.slow, &wire.late) {
            (Some(_), _) => Some(PACKET),
            (None, Some(_)) => Some(PIECE),
            (None, None) => None,
        })
    }

    /// Completes when so many bytes are over: behind all that were put on it before, and after their own pause.
    fn carry(&self, way: Way, bytes: usize) -> BoxFuture<'static, ()> {
        self.with(way, |wire| {
            let slow = wire.slow.as_mut().map(|slow| {
                let now = slow.clock.now();
                let micros = (bytes as u64).saturating_mul(1_000_000) / slow.bytes_per_second;
                slow.free_at = slow.free_at.max(now) + Duration::from_micros(micros);
                (Arc::clone(&slow.clock), slow.free_at.since(now))
            });
            let late = wire.late.as_ref().map(|late| (Arc::clone(&late.clock), (late.pause)()));
            match (slow, late) {
                (None, None) => Box::pin(std::future::ready(())),
                (Some((clock, pause)), None) | (None, Some((clock, pause))) => clock.sleep(pause),
                (Some((clock, slow)), Some((_, late))) => clock.sleep(slow + late),
            }
        })
    }
}

struct CableReader {
    cable: Cable,
    way: Way,
    born: u64,
    end: tokio::io::ReadHalf<DuplexStream>,
    /// What is on a slow or late cable, and what it still takes.
    packet: Option<(Bytes, BoxFuture<'static, ()>)>,
}

impl AsyncRead for CableReader {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        futures::ready!(this.cable.poll_whole(this.way, this.born, cx));
        if this.packet.is_none() {
            let Some(piece) = this.cable.piece(this.way) else {
                return Pin::new(&mut this.end).poll_read(cx, buf);
            };
            let mut bytes = vec![0; piece];
            let mut packet = ReadBuf::new(&mut bytes);
            futures::ready!(Pin::new(&mut this.end).poll_read(cx, &mut packet))?;
            let bytes = Bytes::copy_from_slice(packet.filled());
            let over = this.cable.carry(this.way, bytes.len());
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
    cable: Cable,
    /// The direction that leads here.
    here: Way,
    born: u64,
    opened: mpsc::Sender<Stream>,
    incoming: tokio::sync::Mutex<mpsc::Receiver<Stream>>,
    /// Whether this end, and whether the other end has closed.
    closed: Arc<OrderedWatch<bool>>,
}

/// The two ends of a connection over `cable`: of `one`, who dialled, and of `other`, who accepted. Each is told who the
/// other is.
pub fn pair(cable: &Cable, one: PeerName, other: PeerName) -> (MemoryConnection, MemoryConnection) {
    let (to_other, from_one) = mpsc::channel(BACKLOG);
    let (to_one, from_other) = mpsc::channel(BACKLOG);
    let closed = Arc::new(OrderedWatch::new(false));
    let born = cable.silences();
    let end = |peer, here, opened, incoming| MemoryConnection {
        peer,
        cable: cable.clone(),
        here,
        born,
        opened,
        incoming: tokio::sync::Mutex::new(incoming),
        closed: Arc::clone(&closed),
    };
    (end(other, Way::ToDialler, to_other, from_other), end(one, Way::ToAcceptor, to_one, from_one))
}

impl MemoryConnection {
    /// The halves at the end of the cable that `here` leads to.
    fn halves(&self, here: Way, end: DuplexStream) -> Stream {
        let (reader, writer) = tokio::io::split(end);
        let reader =
            CableReader { cable: self.cable.clone(), way: here, born: self.born, end: reader, packet: None };
        (Box::new(StreamWriter(writer)), Box::new(reader))
    }

    fn there(&self) -> Way {
        match self.here {
            Way::ToAcceptor => Way::ToDialler,
            Way::ToDialler => Way::ToAcceptor,
        }
    }

    async fn until_closed(&self) {
        // A word about the end crosses the cable like everything else.
        self.closed.until(|closed| closed.then_some(())).await;
        self.cable.whole(self.here, self.born).await;
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
                self.cable.whole(self.here, self.born).await;
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
    /// A dialer of this place that is known there as `name` and whose connections go over `cable`.
    pub fn dialer(&self, name: PeerName, cable: Cable) -> MemoryDialer {
        MemoryDialer { port: self.clone(), name, cable }
    }
}

/// Dials a [`MemoryPort`].
pub struct MemoryDialer {
    port: MemoryPort,
    name: PeerName,
    cable: Cable,
}

impl Dialer for MemoryDialer {
    fn dial(&self) -> BoxFuture<'_, Result<Box<dyn Connection>, DialError>> {
        Box::pin(async {
            let refused = |reason: &str| DialError::Connect {
                target: self.port.name.to_string(),
                reason: reason.to_owned(),
            };
            if self.cable.is_cut() {
                return Err(refused("the cable is cut"));
            }
            let (mine, theirs) = pair(&self.cable, self.name.clone(), self.port.name.clone());
            self.port.arrivals.send(theirs).await.map_err(|_| refused("nobody listens"))?;
            Ok(Box::new(mine) as Box<dyn Connection>)
        })
    }
}
