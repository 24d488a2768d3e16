//! A call's way to the CloudCore that has its node: a connection of its own, whose ends have proven who they are, and which costs a known
//! time where the other end is gone or hangs.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use beehive::{Clock, Fault};
use bytes::Bytes;
use contract::rule_stream::ANSWER_MAX;
use http::{HeaderMap, Method, Request, Response, Uri};
use http_body_util::{Either, Full};
use httpclient::http2::{self, SendRequest};
use hyper::body::Incoming;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;

use crate::capped_body::CappedBody;
use crate::peer_plan::{BEYOND, CONNECT_WITHIN, PassError, Peer};
use crate::peer_settings::{ALPN, PeerSettings};

/// What the caller sends.
pub(crate) type PassedBody = Either<Full<Bytes>, CappedBody<Incoming>>;

/// A call that is passed on.
pub(crate) struct PassedCall {
    pub(crate) method: Method,
    /// Path and query, as the caller has them.
    pub(crate) path: String,
    /// Those that go on.
    pub(crate) headers: HeaderMap,
    pub(crate) body: PassedBody,
    /// How much of a body there may be.
    pub(crate) most: u64,
}

/// What drives a connection, until it is dropped.
struct Driver(JoinHandle<()>);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A connection to another CloudCore.
pub(crate) struct PeerConnection {
    peer: Peer,
    sender: SendRequest<PassedBody>,
    driver: Driver,
}

/// Connects to a CloudCore, and to no other that is at its address.
///
/// # Errors
/// [`PassError::Unreached`].
pub(crate) async fn connect(
    peer: &Peer,
    settings: &PeerSettings,
    clock: &dyn Clock,
) -> Result<PeerConnection, PassError> {
    let connected = tokio::select! {
        connected = dial(peer, settings) => connected,
        () = clock.sleep(CONNECT_WITHIN) => {
            Err(io::Error::other(format!("it has not answered within {} s", CONNECT_WITHIN.as_secs())))
        }
    };
    connected
        .map_err(|error| PassError::Unreached { peer: peer.clone(), why: Fault::from_error(&error).reason })
}

async fn dial(peer: &Peer, settings: &PeerSettings) -> io::Result<PeerConnection> {
    let name = ServerName::try_from(peer.identity.clone()).map_err(io::Error::other)?;
    let socket = TcpStream::connect(peer.at).await?;
    socket.set_nodelay(true)?;
    let stream = TlsConnector::from(settings.client()).connect(name, socket).await?;
    if stream.get_ref().1.alpn_protocol() != Some(ALPN) {
        return Err(io::Error::other("it does not speak HTTP/2"));
    }
    let (sender, connection) = http2::handshake(stream).await.map_err(io::Error::other)?;
    let driver = tokio::spawn(async move {
        // Its request hears of it.
        let _ = connection.await;
    });
    Ok(PeerConnection { peer: peer.clone(), sender, driver: Driver(driver) })
}

impl PeerConnection {
    /// Makes the call, within `within` until the head of its answer has come.
    ///
    /// # Errors
    /// See [`PassError`]. What was sent by then may have been done.
    pub(crate) async fn call(
        self,
        call: PassedCall,
        within: Duration,
        clock: &dyn Clock,
    ) -> Result<Response<https::Body>, PassError> {
        let PeerConnection { peer, mut sender, driver } = self;
        let lost = |why: String| PassError::Lost { peer: peer.clone(), why };
        let PassedCall { method, path, headers, body, most } = call;
        let url: Result<Uri, _> = format!("https://{}{path}", peer.identity).parse();
        let url = url.map_err(|_| PassError::Unreached {
            peer: peer.clone(),
            why: "the path of the call is none".to_owned(),
        })?;
        let is_too_long: Option<Arc<AtomicBool>> = match &body {
            Either::Left(_) => None,
            Either::Right(capped) => Some(capped.is_too_long()),
        };
        let mut request = Request::new(body);
        (*request.method_mut(), *request.uri_mut(), *request.headers_mut()) = (method, url, headers);
        let answered = tokio::select! {
            answered = sender.send_request(request) => answered,
            () = clock.sleep(within + BEYOND) => return Err(PassError::Late { peer, within }),
        };
        let answer = match answered {
            Ok(answer) => answer,
            Err(_) if is_too_long.is_some_and(|is| is.load(Ordering::Relaxed)) => {
                return Err(PassError::TooLong { most });
            }
            Err(error) => return Err(lost(Fault::from_error(&error).reason)),
        };
        Ok(answer.map(|body| {
            // A body that breaks off ends the caller's connection: nobody takes half an answer for a whole one.
            let passed = CappedBody::new(body, ANSWER_MAX).keeping((sender, driver));
            https::Body::new(passed)
        }))
    }
}
