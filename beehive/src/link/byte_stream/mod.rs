//! Byte streams: bulk bytes beside the mailboxes of a link.
//!
//! Either end opens one with a header, which means nothing here, on a stream of the transport of its own. It is read and
//! written as any other pipe ([`ByteStream`]) on any thread.
//!
//! * Urgent first: what is on its way is bounded ([`send_budget`]), so that pings and mailboxes pass on a slow way; streams
//!   take turns by bytes.
//! * A reader that does not read stops the writer of its own stream and nobody else: each stream has a window
//!   ([`receive_window`]), and what has come is taken from the transport at once, whoever reads it.
//! * A thousand idle ones cost little: each has a task that waits and a few hundred bytes, no timer and no buffer. One timer for all
//!   runs while any has a wide window.
//!
//! What has come is told on the link's own stream (`StreamArrived`), for all streams together, as are windows
//! (`StreamWindow`, `StreamWindowReturn`) and that nobody reads any more (`StreamStop`). A stream of the transport is never
//! broken off while both ends keep to the rules: a byte stream that ends without its last chunk has broken off, and what was
//! sent always arrives and is counted.

mod chunk;
mod halves;
mod receive_window;
mod send_budget;
mod state;
mod stream;
mod task;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Context;
use std::time::Duration;

use futures::future::poll_fn;
use thiserror::Error;
use tokio::sync::oneshot;

use state::State;
pub use stream::ByteStream;

use super::core::Core;
use super::frame::{FIXED, Frame};
use super::transport::{Connection, PeerName, Reader, Transport, Writer};
use crate::{Env, Moment};

/// 32 KiB: the largest header.
pub const BYTE_STREAM_HEADER_MAX: usize = 32 << 10;
/// 1,200: byte streams that one end of a link may have open at once. An end has some hundred mailboxes' worth of work of
/// which a few may be followed each, and a thousand that are followed and idle are expected; the rest is for short ones
/// beside them.
pub const BYTE_STREAMS_MAX: usize = 1200;
/// 2 s: how long a stream has nothing to send before it gives back what it may send beyond what a new one may.
const SILENT_AFTER: Duration = Duration::from_secs(2);
/// 1 KiB of a refusal's sentence are sent and read.
const REASON_MAX: usize = 1 << 10;

/// What an end that takes byte streams says in its hello.
pub(super) const CAPABILITY: &str = "byte-streams";

/// Why a byte stream is not wanted.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("refused with code {code}: {reason}")]
pub struct ByteStreamRefusal {
    /// For a program. Its meaning is the handler's own.
    pub code: u16,
    /// For a person. What is longer than 1 KiB is cut.
    pub reason: String,
}

/// Why no byte stream came about.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ByteStreamError {
    /// The link is down, for this reason.
    #[error("{0}")]
    LinkDown(String),
    /// This end has 1,200 open already, or the other end says so.
    #[error("{BYTE_STREAMS_MAX} byte streams are open already")]
    TooMany,
    /// The header is larger than 32 KiB.
    #[error("a header of {0} bytes; a byte stream takes at most {BYTE_STREAM_HEADER_MAX}")]
    HeaderTooLarge(usize),
    /// The other end takes no byte streams.
    #[error("the other end takes no byte streams")]
    Unsupported,
    /// The handler at the other end does not want it.
    #[error("{0}")]
    Refused(ByteStreamRefusal),
    /// It broke off before there was an answer, for this reason.
    #[error("the byte stream broke off before it was answered: {0}")]
    Broken(String),
}

/// Takes the byte streams that the other end of a link opens.
pub trait ByteStreamHandler: Send + Sync {
    /// A stream was opened with `header`, which is hostile until parsed. Called on the hive's thread: the stream is handed on.
    /// What is written to it before this returns follows the answer.
    ///
    /// # Errors
    /// When it is not wanted. The stream breaks off, whoever holds it.
    fn accept(&self, peer: &PeerName, header: Vec<u8>, stream: ByteStream) -> Result<(), ByteStreamRefusal>;
}

/// A stream that is to be opened.
struct OpenRequest {
    id: u64,
    header: Vec<u8>,
    answer: oneshot::Sender<Result<ByteStream, ByteStreamError>>,
}

/// What the tasks of a link's byte streams share.
pub(super) struct Shared {
    core: Arc<Core>,
    state: Mutex<State>,
}

impl Shared {
    pub(super) fn new(core: &Arc<Core>, transport: Transport, dialled: bool) -> Arc<Self> {
        let state = State::new(dialled, transport.knows_urgency());
        Arc::new(Shared { core: Arc::clone(core), state: Mutex::new(state) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Moment {
        self.core.clock.now()
    }

    fn count(&self) {
        self.core.traffic.set_byte_streams(self.state().open());
    }

    /// If the link has ended, so do all its streams, whichever task is the first to know.
    fn note_link_end(&self) {
        if let Some(why) = self.core.close_reason() {
            self.end(why);
        }
    }

    fn end(&self, why: impl std::fmt::Display) {
        self.state().end(format!("the link to `{}` is down: {why}", self.core.peer));
        self.count();
    }

    /// The next frame of the link's own stream about byte streams.
    pub(super) async fn next_frame(&self) -> Frame {
        poll_fn(|cx| self.state().poll_frame(cx, self.now())).await
    }

    /// Takes a frame of the link's own stream; answers whether it was about byte streams.
    pub(super) fn take(&self, frame: &Frame) -> bool {
        self.state().take(frame, self.now())
    }

    /// Opens what is asked for, until the link ends.
    pub(super) async fn run(self: Arc<Self>, env: Env, connection: Arc<dyn Connection>) {
        let _end = LinkEnd(Arc::clone(&self));
        let opening = async {
            loop {
                let request = poll_fn(|cx: &mut Context<'_>| self.state().poll_request(cx)).await;
                let open = task::open(Arc::clone(&self), Arc::clone(&connection), request);
                env.spawn(Arc::clone(&self.core).until_end(open));
            }
        };
        let sweeping = async {
            loop {
                poll_fn(|cx: &mut Context<'_>| self.state().poll_wide(cx)).await;
                self.core.clock.sleep(SILENT_AFTER).await;
                self.state().sweep();
            }
        };
        let both = async {
            futures::join!(opening, sweeping);
        };
        Arc::clone(&self.core).until_end(both).await;
    }

    /// Serves a stream that the other end opened with this frame.
    pub(super) fn accept(
        self: &Arc<Self>,
        env: &Env,
        handler: Option<Arc<dyn ByteStreamHandler>>,
        first: Frame,
        writer: Writer,
        reader: Reader,
    ) {
        let accept = task::accept(Arc::clone(self), handler, first, writer, reader);
        env.spawn(Arc::clone(&self.core).until_end(accept));
    }
}

/// The end of the link, or of the thread that it lived on.
struct LinkEnd(Arc<Shared>);

impl Drop for LinkEnd {
    fn drop(&mut self) {
        self.0.note_link_end();
        self.0.end("this end has stopped");
    }
}

/// Opens byte streams to the other end of a link. Lives on when the link has ended, and opens nothing then.
#[derive(Clone)]
pub struct ByteStreams(Arc<Shared>);

impl std::fmt::Debug for ByteStreams {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ByteStreams({})", self.0.core.peer)
    }
}

impl ByteStreams {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        ByteStreams(shared)
    }

    /// Whether the link is up.
    pub fn is_up(&self) -> bool {
        self.0.core.is_up()
    }

    /// Opens a stream with `header` and waits until the other end has accepted it. Who drops the future withdraws it.
    ///
    /// # Errors
    /// See [`ByteStreamError`].
    pub async fn open(&self, header: Vec<u8>) -> Result<ByteStream, ByteStreamError> {
        if header.len() > BYTE_STREAM_HEADER_MAX {
            return Err(ByteStreamError::HeaderTooLarge(header.len()));
        }
        if !self.0.core.protocol.capabilities.has(CAPABILITY) {
            return Err(ByteStreamError::Unsupported);
        }
        let (answer, opened) = oneshot::channel();
        {
            let mut state = self.0.state();
            if let Some(why) = state.why_over() {
                return Err(ByteStreamError::LinkDown(why.to_owned()));
            }
            let size = FIXED + header.len();
            if !state.request(size, |id| OpenRequest { id, header, answer }) {
                return Err(ByteStreamError::TooMany);
            }
        }
        self.0.count();
        match opened.await {
            Ok(answer) => answer,
            Err(_) => Err(self.link_down()),
        }
    }

    fn link_down(&self) -> ByteStreamError {
        let why = self.0.state().why_over().map(str::to_owned);
        ByteStreamError::LinkDown(
            why.unwrap_or_else(|| format!("the link to `{}` is down", self.0.core.peer)),
        )
    }
}
