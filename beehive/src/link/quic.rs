//! The transport of the daemons: QUIC over s2n-quic with rustls, verified both ways.
//!
//! Three things about s2n-quic shape this file. A client whose certificate is refused sees its connect succeed, so a
//! link counts as up only after the hello was answered. A connection goes silent after its address has changed five
//! times, so the link's own pings decide about life and death. And the peer's certificate can be read only in an event
//! of the handshake.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use futures::future::BoxFuture;
use s2n_quic::connection::{Handle, StreamAcceptor};
use s2n_quic::provider::connection_id::default::Format;
use s2n_quic::provider::event::{ConnectionInfo, ConnectionMeta, Subscriber, events, supervisor};
use s2n_quic::provider::limits::Limits;
use s2n_quic::provider::tls::rustls as quic_tls;
use tokio::sync::{Mutex, Notify};

pub use super::tls::{Credentials, EndpointError, LiveCredentials};

use super::byte_stream::BYTE_STREAMS_MAX;
use super::handshake_limiter::{self, HandshakeLimiter, PendingHandshake};
use super::pending_dials::{PendingDial, PendingDials};
use super::quic_stream::{halves, said};
use super::tls;
use super::transport::{Acceptor, Connection, PeerName, Reader, Transport, Urgency, Writer};
use crate::TokioClock;

/// What this link speaks above QUIC (ALPN, RFC 7301).
pub(super) const PROTOCOL: &[u8] = b"hive-link/0";
/// 30 s: the link's own pings decide far earlier; this only clears up.
const IDLE: Duration = Duration::from_secs(30);
/// 10 s: a handshake that takes longer is given up.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// 200 ms: how soon a handshake that has lost its slot to another address is closed. 512 that look cost a few percent of a core.
const SLOT_CHECK: Duration = Duration::from_millis(200);
/// 100 ms: how soon a dial that nobody needs any more is closed.
const DIAL_CHECK: Duration = Duration::from_millis(100);
/// 1 ms: one that found no slot is closed at once.
const AT_ONCE: Duration = Duration::from_millis(1);
/// 200 ms: the round trip that a handshake assumes at first. First packets are then sent again after 0.6 s, 1.2 s…, so that
/// an attempt that began before the way was whole finds it soon after.
const FIRST_ROUND_TRIP: Duration = Duration::from_millis(200);
/// 1 MiB: what one stream may have on its way, one frame of the largest size.
const STREAM_WINDOW: u64 = 1 << 20;
/// 4 MiB: what one connection may have on its way, so that four full streams do not hold up a fifth.
const CONNECTION_WINDOW: u64 = 4 << 20;
/// 8 bytes, half of what the library takes: every packet carries one, and on an idle link packets are little else. Random
/// ones of 64 bits do not meet.
const ID_BYTES: usize = 8;
/// 1,272: streams that may be open at once from one end; the link itself allows 64 and the byte streams, and refuses the
/// others one by one.
pub(super) const STREAMS: u64 = 72 + BYTE_STREAMS_MAX as u64;
/// 16 KiB of the first stream: what is taken of somebody who was not yet let in. A hello has a few hundred bytes.
const BEFORE_HELLO_MAX: u64 = 16 << 10;

pub(super) fn short_ids() -> Result<Format, EndpointError> {
    let failed = |error: &dyn std::fmt::Display| EndpointError::Limits(error.to_string());
    Format::builder()
        .with_len(ID_BYTES)
        .map_err(|error| failed(&error))?
        .build()
        .map_err(|error| failed(&error))
}

pub(super) fn limits(asked: u64, offered: u64) -> Result<Limits, EndpointError> {
    let build = || {
        Limits::new()
            .with_max_idle_timeout(IDLE)?
            .with_max_handshake_duration(HANDSHAKE)?
            .with_initial_round_trip_time(FIRST_ROUND_TRIP)?
            .with_data_window(CONNECTION_WINDOW)?
            .with_bidirectional_local_data_window(STREAM_WINDOW)?
            .with_bidirectional_remote_data_window(STREAM_WINDOW)?
            .with_max_open_local_bidirectional_streams(asked)?
            .with_max_open_remote_bidirectional_streams(offered)
    };
    build().map_err(|error| EndpointError::Limits(error.to_string()))
}

/// Reads the peer's certificate out of the handshake, looks after those who were not yet let in, and counts the packets that
/// have come to the endpoint: several dials of one server may be under way, and an answer to any of them shows that it is
/// there.
pub(super) struct EndpointEvents {
    pub(super) heard: Arc<AtomicU64>,
    pub(super) handshakes: Handshakes,
}

/// The handshakes of an endpoint, as its side of them has them.
pub(super) enum Handshakes {
    /// Of an accepting end.
    Accepted(HandshakeLimiter),
    /// Of a dialling one.
    Dialled(PendingDials),
}

/// What is known of one connection.
pub(super) struct ConnectionState {
    peer: Option<PeerName>,
    admission: Arc<Admission>,
    /// Until its handshake is over.
    pending: Option<Pending>,
}

enum Pending {
    Accepted(PendingHandshake),
    Dialled(PendingDial),
}

/// Whether an end was let in, and what it did before.
#[derive(Default)]
struct Admission {
    admitted: AtomicBool,
    sent_early: AtomicBool,
    changed: Notify,
}

impl Admission {
    fn early_traffic(&self) {
        self.sent_early.store(true, Ordering::Relaxed);
        self.changed.notify_waiters();
    }

    async fn sent_early(&self) {
        let mut changed = std::pin::pin!(self.changed.notified());
        // In the line before the look, so that nothing falls between the two.
        changed.as_mut().enable();
        if !self.sent_early.load(Ordering::Relaxed) {
            changed.await;
        }
    }
}

impl Subscriber for EndpointEvents {
    type ConnectionContext = ConnectionState;

    fn create_connection_context(&mut self, meta: &ConnectionMeta, _: &ConnectionInfo) -> ConnectionState {
        let pending = match &self.handshakes {
            Handshakes::Accepted(_) => None,
            Handshakes::Dialled(dials) => {
                Some(Pending::Dialled(dials.begin(meta.timestamp.duration_since_start())))
            }
        };
        let admission = Admission { admitted: pending.is_some().into(), ..Admission::default() };
        ConnectionState { peer: None, admission: Arc::new(admission), pending }
    }

    /// Ends with the handshake.
    fn supervisor_timeout(
        &mut self,
        state: &mut ConnectionState,
        _: &ConnectionMeta,
        _: &supervisor::Context,
    ) -> Option<Duration> {
        Some(match state.pending.as_ref()? {
            Pending::Accepted(handshake) if handshake.has_slot() => SLOT_CHECK,
            Pending::Accepted(_) => AT_ONCE,
            Pending::Dialled(_) => DIAL_CHECK,
        })
    }

    /// Without a CONNECTION_CLOSE: whoever holds the most slots is told nothing, and nothing is kept of it; a dial that has had no answer
    /// has nobody to tell. One that is under way when another is taken is closed in order, so that the other end is done with it, too.
    fn on_supervisor_timeout(
        &mut self,
        state: &mut ConnectionState,
        meta: &ConnectionMeta,
        _: &supervisor::Context,
    ) -> supervisor::Outcome {
        match (&state.pending, &self.handshakes) {
            (Some(Pending::Accepted(handshake)), _) if !handshake.has_slot() => {
                supervisor::Outcome::ImmediateClose { reason: "its slot was given to another address" }
            }
            (Some(Pending::Dialled(dial)), Handshakes::Dialled(dials))
                if dials.is_over(dial, meta.timestamp.duration_since_start()) =>
            {
                supervisor::Outcome::Close { error_code: 0_u8.into() }
            }
            _ => supervisor::Outcome::Continue,
        }
    }

    fn on_connection_started(
        &mut self,
        state: &mut ConnectionState,
        _: &ConnectionMeta,
        event: &events::ConnectionStarted,
    ) {
        let address = handshake_limiter::ip_of(&event.path.remote_addr);
        if let (Handshakes::Accepted(handshakes), Some(address)) = (&self.handshakes, address) {
            state.pending = Some(Pending::Accepted(handshakes.start(address)));
        }
    }

    fn on_handshake_status_updated(
        &mut self,
        state: &mut ConnectionState,
        _: &ConnectionMeta,
        _: &events::HandshakeStatusUpdated,
    ) {
        state.pending = None;
    }

    fn on_connection_closed(
        &mut self,
        state: &mut ConnectionState,
        _: &ConnectionMeta,
        _: &events::ConnectionClosed,
    ) {
        state.pending = None;
    }

    fn on_packet_sent(&mut self, state: &mut ConnectionState, meta: &ConnectionMeta, _: &events::PacketSent) {
        if let Some(Pending::Dialled(dial)) = &mut state.pending {
            dial.sent(meta.timestamp.duration_since_start());
        }
    }

    fn on_packet_received(
        &mut self,
        state: &mut ConnectionState,
        meta: &ConnectionMeta,
        _: &events::PacketReceived,
    ) {
        self.heard.fetch_add(1, Ordering::Relaxed);
        if let (Some(Pending::Dialled(dial)), Handshakes::Dialled(dials)) =
            (&mut state.pending, &self.handshakes)
        {
            dials.answered(dial, meta.timestamp.duration_since_start());
        }
    }

    fn on_frame_received(
        &mut self,
        state: &mut ConnectionState,
        _: &ConnectionMeta,
        event: &events::FrameReceived,
    ) {
        if state.admission.admitted.load(Ordering::Relaxed) {
            return;
        }
        if let events::Frame::Stream { id, offset, len, .. } = &event.frame
            && (*id != 0 || offset.saturating_add(u64::from(*len)) > BEFORE_HELLO_MAX)
        {
            state.admission.early_traffic();
        }
    }

    fn on_tls_exporter_ready(
        &mut self,
        state: &mut ConnectionState,
        _: &ConnectionMeta,
        event: &events::TlsExporterReady,
    ) {
        state.peer = event
            .session
            .peer_cert_chain_der()
            .ok()
            .and_then(|chain| chain.into_iter().next())
            .and_then(|leaf| tls::peer_of(&leaf));
    }
}

pub(super) struct QuicConnection {
    handle: Handle,
    streams: Mutex<StreamAcceptor>,
    peer: PeerName,
    admission: Arc<Admission>,
}

impl QuicConnection {
    pub(super) fn new(connection: s2n_quic::Connection) -> Option<Self> {
        let state = connection.query_event_context(|state: &ConnectionState| {
            (state.peer.clone(), Arc::clone(&state.admission))
        });
        let (peer, admission) = state.ok()?;
        let peer = peer?;
        let (handle, streams) = connection.split();
        Some(QuicConnection { handle, streams: Mutex::new(streams), peer, admission })
    }
}

impl Connection for QuicConnection {
    // s2n-quic has no priorities: it serves the streams that have something in turn, so that none waits for another.
    fn open(&self, _: Urgency) -> BoxFuture<'_, io::Result<(Writer, Reader)>> {
        let mut handle = self.handle.clone();
        Box::pin(async move {
            let opened = handle.open_bidirectional_stream().await;
            Ok(halves(opened.map_err(|error| said(error.into()))?))
        })
    }

    fn accept(&self) -> BoxFuture<'_, io::Result<(Writer, Reader)>> {
        Box::pin(async {
            let accepted = self.streams.lock().await.accept_bidirectional_stream().await;
            match accepted.map_err(|error| said(error.into()))? {
                Some(stream) => Ok(halves(stream)),
                None => Err(io::Error::new(
                    io::ErrorKind::ConnectionAborted,
                    "the other end closed the connection",
                )),
            }
        })
    }

    fn peer(&self) -> &PeerName {
        &self.peer
    }

    fn transport(&self) -> Transport {
        Transport::Quic
    }

    fn address(&self) -> Option<IpAddr> {
        self.handle.remote_addr().ok().map(|address| address.ip())
    }

    fn admitted(&self) {
        self.admission.admitted.store(true, Ordering::Relaxed);
    }

    fn early_traffic(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.admission.sent_early())
    }

    fn close(&self) {
        self.handle.close(0_u8.into());
    }
}

/// Takes connections on a UDP port.
pub struct QuicAcceptor {
    server: s2n_quic::Server,
    address: SocketAddr,
}

impl QuicAcceptor {
    /// Listens on `listen` (port 0: any). Needs a tokio runtime, whose thread does the protocol's work.
    ///
    /// # Errors
    /// See [`EndpointError`].
    pub fn bind(listen: SocketAddr, credentials: &Credentials) -> Result<Self, EndpointError> {
        QuicAcceptor::bind_live(listen, &LiveCredentials::new(credentials)?)
    }

    /// The same, by credentials that may change.
    ///
    /// # Errors
    /// See [`EndpointError`].
    pub fn bind_live(listen: SocketAddr, credentials: &LiveCredentials) -> Result<Self, EndpointError> {
        let handshakes = HandshakeLimiter::new(Arc::new(TokioClock::real()));
        QuicAcceptor::with_limiter(listen, credentials, &handshakes)
    }

    pub(super) fn with_limiter(
        listen: SocketAddr,
        credentials: &LiveCredentials,
        handshakes: &HandshakeLimiter,
    ) -> Result<Self, EndpointError> {
        let socket = |reason: &dyn std::fmt::Display| EndpointError::Socket {
            address: listen,
            reason: reason.to_string(),
        };
        let tls = quic_tls::Server::from(Arc::new(tls::server_by(credentials, PROTOCOL)?));
        let events_of =
            EndpointEvents { heard: Arc::default(), handshakes: Handshakes::Accepted(handshakes.clone()) };
        let server = s2n_quic::Server::builder()
            .with_tls(tls)
            .map_err(|error| socket(&error))?
            .with_io(listen)
            .map_err(|error| socket(&error))?
            .with_connection_id(short_ids()?)
            .map_err(|error| EndpointError::Limits(error.to_string()))?
            .with_limits(limits(STREAMS, STREAMS)?)
            .map_err(|error| EndpointError::Limits(error.to_string()))?
            .with_endpoint_limits(handshakes.clone())
            .map_err(|error| EndpointError::Limits(error.to_string()))?
            .with_event(events_of)
            .map_err(|error| EndpointError::Limits(error.to_string()))?
            .start()
            .map_err(|error| socket(&error))?;
        let address = server.local_addr().map_err(|error| socket(&error))?;
        Ok(QuicAcceptor { server, address })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Acceptor for QuicAcceptor {
    fn accept(&mut self) -> BoxFuture<'_, Option<Box<dyn Connection>>> {
        Box::pin(async {
            loop {
                match QuicConnection::new(self.server.accept().await?) {
                    Some(connection) => return Some(Box::new(connection) as Box<dyn Connection>),
                    None => tracing::warn!("a certificate without a common name was presented; not let in"),
                }
            }
        })
    }
}
