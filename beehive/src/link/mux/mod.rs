//! Many streams over one ordered pipe of messages, for transports that have no streams of their own.
//!
//! An ordered pipe has one queue, and what is put into it first arrives first. Two things keep it short for what is
//! urgent: a message for the pipe is chosen at the last moment, the most urgent stream first and streams of one urgency
//! in turn ([`Urgency`]); and a window (`congestion_window`) bounds the bytes that are on their way, so that a pipe that takes megabytes in
//! advance is not given them. Each stream has a window of its own, so that one that nobody reads stops only its writer.
//!
//! [`over`] makes a [`Connection`] and its two ends of the pipe. Whoever owns the pipe hands each message that came to
//! [`Ingress::take`], and sends what [`Egress`] yields, in order. Dropping either ends the connection.
//!
//! Everything that comes in is hostile until parsed: frames are at most [`MUX_FRAME_MAX`] bytes. Of an end that dialled and was not
//! yet let in ([`Connection::admitted`]) one stream and 16 KiB are taken. After that a stream holds at most its window and a
//! connection at most [`STREAMS_MAX`] streams of the other end and 4 MiB of all of them, in memory of their own: what waits
//! costs no more for coming in small frames. Frames that carry no bytes have an allowance that grows with the bytes of streams and
//! with time (`frame_allowance`). Each stream has a small window of its own, and a wide one out of what they share.

mod flow_control;
mod frame_allowance;
mod mux_frame;
mod state;
mod stream;

use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::Stream;
use futures::future::BoxFuture;

pub use mux_frame::MUX_FRAME_MAX;
use mux_frame::MuxFrame;
use state::State;
pub use state::{ProtocolError, Role, STREAMS_MAX};
use stream::{StreamReader, StreamWriter};

use super::transport::{Connection, PeerName, Reader, Transport, Urgency, Writer};
use crate::Clock;

/// What ingress, egress, the connection and its streams share.
struct Shared {
    state: Mutex<State>,
    clock: Arc<dyn Clock>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection over a pipe whose other end is `peer`, with the pipe's ingress and egress.
pub fn over(role: Role, peer: PeerName, clock: Arc<dyn Clock>) -> (MuxConnection, Ingress, Egress) {
    let shared = Arc::new(Shared { state: Mutex::new(State::new(role)), clock });
    let (ingress, egress) = (Ingress(Arc::clone(&shared)), Egress(Arc::clone(&shared)));
    (MuxConnection { shared, peer, address: None }, ingress, egress)
}

/// Where messages of the pipe go in.
pub struct Ingress(Arc<Shared>);

impl Ingress {
    /// Takes one message that came. Never waits: the streams' windows bound what is held.
    ///
    /// # Errors
    /// When the other end breaks the rules; the connection has ended then, and the pipe should.
    pub fn take(&self, message: Bytes) -> Result<(), ProtocolError> {
        let mut state = self.0.state();
        let taken = MuxFrame::decode(message)
            .map_err(ProtocolError::from)
            .and_then(|frame| state.take(frame, self.0.clock.now()));
        taken.inspect_err(|protocol_error| state.end(io::ErrorKind::InvalidData, &protocol_error.to_string()))
    }
}

impl Ingress {
    /// A message came that is no frame and carries nothing, as a ping of the pipe's own: it counts as a frame without bytes.
    ///
    /// # Errors
    /// As [`Ingress::take`].
    pub fn nothing(&self) -> Result<(), ProtocolError> {
        let mut state = self.0.state();
        let taken = state.without_bytes(self.0.clock.now());
        taken.inspect_err(|protocol_error| state.end(io::ErrorKind::InvalidData, &protocol_error.to_string()))
    }
}

impl Drop for Ingress {
    fn drop(&mut self) {
        self.0.state().end(io::ErrorKind::ConnectionReset, "the pipe ended");
    }
}

/// Where messages for the pipe come out. Ends when the connection was closed and the pipe may be, too.
pub struct Egress(Arc<Shared>);

impl Stream for Egress {
    type Item = Bytes;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let mut state = self.0.state();
        let next = state.poll_frame(cx, self.0.clock.now());
        next.map(|frame| frame.map(|frame| frame.encode()))
    }
}

impl Egress {
    /// Completes once the connection is over or about to be: what is left to say is short.
    pub fn over(&self) -> impl Future<Output = ()> + Send + 'static {
        let shared = Arc::clone(&self.0);
        futures::future::poll_fn(move |cx| shared.state().poll_over(cx))
    }
}

impl Drop for Egress {
    fn drop(&mut self) {
        self.0.state().end(io::ErrorKind::ConnectionReset, "the pipe ended");
    }
}

/// A connection whose streams share one pipe.
pub struct MuxConnection {
    shared: Arc<Shared>,
    peer: PeerName,
    address: Option<IpAddr>,
}

impl MuxConnection {
    /// The same, known to have come from `address`.
    #[must_use]
    pub fn from(mut self, address: IpAddr) -> Self {
        self.address = Some(address);
        self
    }

    fn halves(&self, id: u32) -> (Writer, Reader) {
        let writer = StreamWriter::new(Arc::clone(&self.shared), id);
        let reader = StreamReader::new(Arc::clone(&self.shared), id);
        (Box::new(writer), Box::new(reader))
    }
}

impl Connection for MuxConnection {
    fn open(&self, urgency: Urgency) -> BoxFuture<'_, io::Result<(Writer, Reader)>> {
        Box::pin(async move {
            let id = self.shared.state().open(urgency)?;
            Ok(self.halves(id))
        })
    }

    fn accept(&self) -> BoxFuture<'_, io::Result<(Writer, Reader)>> {
        Box::pin(async {
            let next = futures::future::poll_fn(|cx| self.shared.state().poll_arrival(cx));
            let id = next.await?;
            Ok(self.halves(id))
        })
    }

    fn peer(&self) -> &PeerName {
        &self.peer
    }

    fn transport(&self) -> Transport {
        Transport::WebSocket
    }

    fn address(&self) -> Option<IpAddr> {
        self.address
    }

    fn admitted(&self) {
        self.shared.state().admitted();
    }

    fn close(&self) {
        self.shared.state().close();
    }
}

impl Drop for MuxConnection {
    fn drop(&mut self) {
        self.close();
    }
}
