//! What every task of a link shares.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWriteExt, ReadBuf};
use tokio::sync::watch;

use super::frame::{self, Frame, FrameError};
use super::session::Ending;
use super::transport::{PeerName, Reader, Traffic, Writer};
use crate::{Clock, Moment};

pub(super) struct Core {
    pub(super) peer: PeerName,
    pub(super) traffic: Arc<Traffic>,
    pub(super) clock: Arc<dyn Clock>,
    heard_micros: AtomicU64,
    ending: watch::Sender<Option<Ending>>,
}

impl Core {
    pub(super) fn new(peer: PeerName, clock: Arc<dyn Clock>, traffic: Arc<Traffic>) -> Self {
        let core =
            Core { peer, traffic, clock, heard_micros: AtomicU64::new(0), ending: watch::channel(None).0 };
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

    /// Reads one frame. Its bytes are a sign of life as they come: a large frame may take a slow link half a minute.
    pub(super) async fn read(&self, reader: &mut Reader) -> Result<Option<Frame>, FrameError> {
        frame::read(&mut Heard { core: self, reader }).await
    }

    pub(super) async fn write(&self, writer: &mut Writer, frame: &Frame) -> io::Result<()> {
        let bytes = frame.encode();
        writer.write_all(&bytes).await?;
        writer.flush().await?;
        self.traffic.add_sent(bytes.len());
        Ok(())
    }

    pub(super) fn is_up(&self) -> bool {
        self.ending.borrow().is_none()
    }

    /// Ends the link; the first reason stays.
    pub(super) fn end(&self, why: Ending) {
        self.ending.send_if_modified(|ending| {
            let first = ending.is_none();
            if first {
                *ending = Some(why);
            }
            first
        });
    }

    /// Waits for the link's end.
    pub(super) async fn ended(&self) -> Ending {
        let mut ending = self.ending.subscribe();
        match ending.wait_for(Option::is_some).await {
            Ok(ending) => ending.clone().unwrap_or(Ending::Closed),
            Err(_) => Ending::Closed,
        }
    }

    /// A stream ended in the middle of a frame, or with bytes that are none.
    pub(super) fn stream_broke(&self, error: &FrameError) {
        match error {
            // The connection's own end, told elsewhere.
            FrameError::Io(error) => tracing::debug!(peer = %self.peer, error = %error, "a stream broke off"),
            FrameError::TooLong(_)
            | FrameError::TooShort(_)
            | FrameError::Version(_)
            | FrameError::Kind(_)
            | FrameError::Extension(_) => {
                tracing::warn!(peer = %self.peer, error = %error, "bytes that are no frame; their stream is ended");
            }
        }
    }
}

/// A stream whose bytes are heard.
struct Heard<'a> {
    core: &'a Core,
    reader: &'a mut Reader,
}

impl AsyncRead for Heard<'_> {
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
