//! What every task of a link shares.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::select;
use tokio::io::{AsyncRead, AsyncWriteExt, ReadBuf};

use super::capability::Capabilities;
use super::close_reason::CloseReason;
use super::frame::{self, Frame, FrameError};
use super::ordered_watch::OrderedWatch;
use super::transport::{PeerName, Reader, Traffic, Writer};
use super::version::{Protocol, WireVersion};
use crate::trace::Traces;
use crate::{Clock, Env, Metrics, Moment};

pub(super) struct Core {
    pub(super) peer: PeerName,
    /// Agreed in the hello; only the hello's own frames are spoken before that.
    pub(super) protocol: Protocol,
    pub(super) traffic: Arc<Traffic>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) metrics: Metrics,
    pub(super) traces: Traces,
    heard_micros: AtomicU64,
    ending: OrderedWatch<Option<CloseReason>>,
    /// Whether the other end leaves pings unanswered.
    silent: OrderedWatch<bool>,
}

impl Core {
    pub(super) fn new(env: &Env, peer: PeerName) -> Self {
        let core = Core {
            peer,
            protocol: Protocol::new(WireVersion::ONE, Capabilities::default()),
            traffic: Arc::default(),
            clock: env.clock(),
            metrics: env.metrics().clone(),
            traces: env.traces().clone(),
            heard_micros: AtomicU64::new(0),
            ending: OrderedWatch::new(None),
            silent: OrderedWatch::new(false),
        };
        core.heard(0);
        core
    }

    /// Something came in: the other end lives.
    pub(super) fn heard(&self, bytes: usize) {
        self.traffic.add_received(bytes);
        let micros = u64::try_from(self.clock.now().0.as_micros()).unwrap_or(u64::MAX);
        self.heard_micros.fetch_max(micros, Ordering::Relaxed);
    }

    pub(super) fn last_heard(&self) -> Moment {
        Moment(Duration::from_micros(self.heard_micros.load(Ordering::Relaxed)))
    }

    /// Reads one frame of at most `most` bytes; `None` when the stream ended between frames.
    pub(super) async fn read(&self, reader: &mut Reader, most: usize) -> Result<Option<Frame>, FrameError> {
        match self.read_len(reader, most).await? {
            Some(len) => self.read_rest(reader, len).await.map(Some),
            None => Ok(None),
        }
    }

    /// Reads the declared length of the next frame.
    pub(super) async fn read_len(
        &self,
        reader: &mut Reader,
        most: usize,
    ) -> Result<Option<usize>, FrameError> {
        frame::read_len(&mut CountingReader { core: self, reader }, most).await
    }

    /// Reads what follows a length. Its bytes are a sign of life as they come: a large frame may take a slow link half a
    /// minute.
    pub(super) async fn read_rest(&self, reader: &mut Reader, len: usize) -> Result<Frame, FrameError> {
        frame::read_rest(&mut CountingReader { core: self, reader }, len, self.protocol.version).await
    }

    pub(super) async fn write(&self, writer: &mut Writer, frame: &Frame) -> io::Result<()> {
        let bytes = frame.encode(self.protocol.version);
        writer.write_all(&bytes).await?;
        writer.flush().await?;
        self.traffic.add_sent(bytes.len());
        Ok(())
    }

    pub(super) fn is_up(&self) -> bool {
        self.ending.look(Option::is_none)
    }

    /// Ends the link; the first reason stays.
    pub(super) fn end(&self, why: CloseReason) {
        self.ending.change(|ending| {
            ending.get_or_insert(why);
        });
    }

    /// Why the link has ended, if it has.
    pub(super) fn close_reason(&self) -> Option<CloseReason> {
        self.ending.look(Clone::clone)
    }

    /// Does some work until it is done or the link ends.
    pub(super) async fn until_end(self: Arc<Self>, work: impl Future<Output = ()>) {
        let (work, ended) = (std::pin::pin!(work), std::pin::pin!(self.ended()));
        drop(select(work, ended).await);
    }

    /// Waits for the link's end.
    pub(super) async fn ended(&self) -> CloseReason {
        self.ending.until(Clone::clone).await
    }

    /// The other end leaves pings unanswered, or answers again.
    pub(super) fn note_silence(&self, is_silent: bool) {
        if self.silent.look(|silent| *silent != is_silent) {
            self.silent.change(|silent| *silent = is_silent);
        }
    }

    /// Waits until the other end is silent, or heard again.
    pub(super) async fn until_silent(&self, is_silent: bool) {
        self.silent.until(|silent| (*silent == is_silent).then_some(())).await;
    }

    /// A stream ended in the middle of a frame, or with bytes that are none.
    pub(super) fn stream_broke(&self, error: &FrameError) {
        match error {
            // The connection's own end, told elsewhere.
            FrameError::Io(error) => tracing::debug!(peer = %self.peer, error = %error, "a stream broke off"),
            FrameError::TooLong { .. }
            | FrameError::TooShort(_)
            | FrameError::Version { .. }
            | FrameError::Kind(_)
            | FrameError::Extension(_) => {
                tracing::warn!(peer = %self.peer, error = %error, "bytes that are no frame; their stream is ended");
            }
        }
    }
}

/// A reader that counts bytes as they come, as a sign of life.
struct CountingReader<'a> {
    core: &'a Core,
    reader: &'a mut Reader,
}

impl AsyncRead for CountingReader<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        futures::ready!(Pin::new(&mut *self.reader).poll_read(cx, into))?;
        let bytes = into.filled().len() - before;
        if bytes > 0 {
            self.core.heard(bytes);
        }
        Poll::Ready(Ok(()))
    }
}
