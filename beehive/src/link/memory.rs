//! A transport inside one process: for tests, and for clusters that live in one.
//!
//! Its cable can be cut: bytes that are on their way then stay there, as they do when packets are dropped, and go on
//! when it is mended.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio::sync::{mpsc, watch};

use super::transport::{Acceptor, Connection, DialError, Dialer, PeerName, Reader, Writer};

/// 64 KiB: what one stream holds in flight.
const STREAM_WINDOW: usize = 64 << 10;
/// 64: streams and connections that wait to be taken.
const BACKLOG: usize = 64;

/// The cable between two ends.
#[derive(Clone, Default)]
pub struct Cable(Arc<Mutex<CableState>>);

#[derive(Default)]
struct CableState {
    cut: bool,
    waiting: Vec<Waker>,
}

impl Cable {
    /// A whole cable.
    pub fn new() -> Self {
        Self::default()
    }

    /// From now on nothing arrives.
    pub fn cut(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).cut = true;
    }

    /// Everything goes on.
    pub fn mend(&self) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.cut = false;
        for waker in state.waiting.drain(..) {
            waker.wake();
        }
    }

    /// Whether nothing arrives now.
    pub fn is_cut(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).cut
    }

    /// Ready while the cable is whole.
    fn poll_whole(&self, cx: &Context<'_>) -> Poll<()> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !state.cut {
            return Poll::Ready(());
        }
        if !state.waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
            state.waiting.push(cx.waker().clone());
        }
        Poll::Pending
    }

    async fn whole(&self) {
        futures::future::poll_fn(|cx| self.poll_whole(cx)).await;
    }
}

struct CableReader {
    cable: Cable,
    end: tokio::io::ReadHalf<DuplexStream>,
}

impl AsyncRead for CableReader {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        futures::ready!(self.cable.poll_whole(cx));
        Pin::new(&mut self.end).poll_read(cx, buf)
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
    opened: mpsc::Sender<Stream>,
    incoming: tokio::sync::Mutex<mpsc::Receiver<Stream>>,
    /// Whether this end, and whether the other end has closed.
    closed: Arc<watch::Sender<bool>>,
}

/// The two ends of a connection over `cable`. Each is told who the other is.
pub fn pair(cable: &Cable, one: PeerName, other: PeerName) -> (MemoryConnection, MemoryConnection) {
    let (to_other, from_one) = mpsc::channel(BACKLOG);
    let (to_one, from_other) = mpsc::channel(BACKLOG);
    let closed = Arc::new(watch::channel(false).0);
    let end = |peer, opened, incoming| MemoryConnection {
        peer,
        cable: cable.clone(),
        opened,
        incoming: tokio::sync::Mutex::new(incoming),
        closed: Arc::clone(&closed),
    };
    (end(other, to_other, from_other), end(one, to_one, from_one))
}

impl MemoryConnection {
    fn halves(&self, end: DuplexStream) -> Stream {
        let (reader, writer) = tokio::io::split(end);
        (Box::new(StreamWriter(writer)), Box::new(CableReader { cable: self.cable.clone(), end: reader }))
    }

    async fn until_closed(&self) {
        // A word about the end crosses the cable like everything else.
        let _ = self.closed.subscribe().wait_for(|closed| *closed).await;
        self.cable.whole().await;
    }
}

fn closed() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionReset, "the connection was closed")
}

impl Connection for MemoryConnection {
    fn open(&self) -> BoxFuture<'_, io::Result<Stream>> {
        Box::pin(async {
            if *self.closed.borrow() {
                return Err(closed());
            }
            let (mine, theirs) = tokio::io::duplex(STREAM_WINDOW);
            self.opened.send(self.halves(theirs)).await.map_err(|_| closed())?;
            Ok(self.halves(mine))
        })
    }

    fn accept(&self) -> BoxFuture<'_, io::Result<Stream>> {
        Box::pin(async {
            let mut incoming = self.incoming.lock().await;
            let next = async {
                let stream = incoming.recv().await;
                self.cable.whole().await;
                stream
            };
            tokio::select! {
                stream = next => stream.ok_or_else(closed),
                () = self.until_closed() => Err(closed()),
            }
        })
    }

    fn peer(&self) -> &PeerName {
        &self.peer
    }

    fn close(&self) {
        self.closed.send_replace(true);
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
