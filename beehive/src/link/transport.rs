//! What is below the frames: something that dials, something that accepts, and connections with streams.

use std::io;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use futures::future::{BoxFuture, select_all};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};

/// The receiving half of a stream.
pub type Reader = Box<dyn AsyncRead + Send + Unpin>;
/// The sending half of a stream.
pub type Writer = Box<dyn AsyncWrite + Send + Unpin>;

/// Who is at the other end: the common name and the serial number of its verified certificate, when that is valid, and nothing else.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerName {
    name: String,
    serial: String,
    valid: Option<(u64, u64)>,
}

impl PeerName {
    /// A name and a serial number (lower-case hex) as a transport found them in a certificate that it has verified.
    pub fn verified(name: impl Into<String>, serial: impl Into<String>) -> Self {
        PeerName { name: name.into(), serial: serial.into(), valid: None }
    }

    /// The same, with when the certificate begins and ends, in seconds since 1970.
    #[must_use]
    pub fn valid(self, begins: u64, ends: u64) -> Self {
        PeerName { valid: Some((begins, ends)), ..self }
    }

    /// When the certificate begins and ends, in seconds since 1970; `None`: it has no end.
    pub fn validity_unix(&self) -> Option<(u64, u64)> {
        self.valid
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.name
    }

    /// The serial number of the certificate.
    pub fn serial(&self) -> &str {
        &self.serial
    }
}

impl std::fmt::Display for PeerName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.name)
    }
}

/// Why no connection could be made.
#[derive(Debug, Error)]
pub enum DialError {
    /// The address does not resolve.
    #[error("cannot find the address of `{0}`")]
    Resolve(String),
    /// Nobody answered, or the other end is not who it should be.
    #[error("no connection to `{target}`: {reason}")]
    Connect {
        /// Whom.
        target: String,
        /// Why.
        reason: String,
    },
    /// Not a single packet came back: nobody is there, or something on the way drops them.
    #[error("nothing came back from `{target}`")]
    Unanswered {
        /// Whom.
        target: String,
    },
    /// The other end answered that it takes nobody now.
    #[error("`{target}` takes nobody now and asks to wait {} s", .wait.as_secs())]
    Busy {
        /// Whom.
        target: String,
        /// How long it asks to wait.
        wait: Duration,
    },
}

/// What goes first where streams share one way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Urgency {
    /// The link's own stream: hello, pings, the end.
    Link,
    /// A control lane.
    Control,
    /// A work lane.
    Work,
    /// A byte stream: what the others leave.
    Bulk,
}

/// What carries a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Transport {
    /// QUIC: streams that do not wait for each other.
    Quic,
    /// WebSocket over TLS, where UDP is blocked: all streams share one ordered connection.
    WebSocket,
    /// One process.
    Memory,
}

impl Transport {
    /// Whether it sends what is urgent first ([`Urgency`]). s2n-quic serves all streams alike.
    pub(crate) fn knows_urgency(self) -> bool {
        match self {
            Transport::WebSocket => true,
            Transport::Quic | Transport::Memory => false,
        }
    }
}

impl std::fmt::Display for Transport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Transport::Quic => "QUIC",
            Transport::WebSocket => "WebSocket",
            Transport::Memory => "memory",
        })
    }
}

/// Makes connections.
pub trait Dialer: Send + Sync {
    /// One attempt.
    fn dial(&self) -> BoxFuture<'_, Result<Box<dyn Connection>, DialError>>;

    /// How many packets have come from there so far, to any attempt; always 0 where that cannot be told.
    fn heard(&self) -> u64 {
        0
    }
}

/// Takes connections.
pub trait Acceptor: Send {
    /// The next connection whose peer was verified; `None` when the acceptor has ended. Dropping the future loses no
    /// connection.
    fn accept(&mut self) -> BoxFuture<'_, Option<Box<dyn Connection>>>;
}

/// Several acceptors as one: a place that is reached in more than one way.
pub struct Acceptors(Vec<Box<dyn Acceptor>>);

impl Acceptors {
    /// Takes what any of them brings. It ends when all have ended.
    pub fn new(acceptors: Vec<Box<dyn Acceptor>>) -> Self {
        Acceptors(acceptors)
    }
}

impl Acceptor for Acceptors {
    fn accept(&mut self) -> BoxFuture<'_, Option<Box<dyn Connection>>> {
        Box::pin(async {
            loop {
                if self.0.is_empty() {
                    return None;
                }
                // The first in the row is asked first: each has its turn, so that a storm at one does not close another.
                self.0.rotate_left(1);
                let (next, at, _) = select_all(self.0.iter_mut().map(|acceptor| acceptor.accept())).await;
                match next {
                    Some(connection) => return Some(connection),
                    None => drop(self.0.remove(at)),
                }
            }
        })
    }
}

/// One connection with many streams.
pub trait Connection: Send + Sync {
    /// Opens a stream.
    fn open(&self, urgency: Urgency) -> BoxFuture<'_, io::Result<(Writer, Reader)>>;
    /// The next stream that the other end opened.
    fn accept(&self) -> BoxFuture<'_, io::Result<(Writer, Reader)>>;
    /// Who is at the other end.
    fn peer(&self) -> &PeerName;
    /// What carries it.
    fn transport(&self) -> Transport;
    /// From where it came, where there are addresses.
    fn address(&self) -> Option<IpAddr> {
        None
    }
    /// The hello of the other end is about to be answered: from now on it may do more than say it.
    fn admitted(&self) {}
    /// Completes when the other end does more than say its hello before that was answered. Never where the transport itself
    /// refuses that.
    fn early_traffic(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::pending())
    }
    /// Ends it, and all its streams.
    fn close(&self);
}

/// What crossed one link: bytes of frames with their headers, byte streams among them.
#[derive(Debug, Default)]
pub struct Traffic {
    received: AtomicU64,
    sent: AtomicU64,
    byte_streams: AtomicUsize,
    byte_stream_received: AtomicU64,
    byte_stream_sent: AtomicU64,
}

impl Traffic {
    pub(crate) fn add_received(&self, bytes: usize) {
        self.received.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn add_sent(&self, bytes: usize) {
        self.sent.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn add_byte_stream_received(&self, bytes: usize) {
        self.byte_stream_received.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn add_byte_stream_sent(&self, bytes: usize) {
        self.byte_stream_sent.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn set_byte_streams(&self, open: usize) {
        self.byte_streams.store(open, Ordering::Relaxed);
    }

    /// Bytes that came in, all together.
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// Bytes that went out, all together.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Byte streams that are open now, whoever opened them.
    pub fn byte_streams(&self) -> usize {
        self.byte_streams.load(Ordering::Relaxed)
    }

    /// Bytes that came in on byte streams, as their readers see them.
    pub fn byte_stream_received(&self) -> u64 {
        self.byte_stream_received.load(Ordering::Relaxed)
    }

    /// Bytes that went out on byte streams, as their writers gave them.
    pub fn byte_stream_sent(&self) -> u64 {
        self.byte_stream_sent.load(Ordering::Relaxed)
    }
}
