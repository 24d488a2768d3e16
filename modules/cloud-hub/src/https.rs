//! Enrolment's port: HTTPS on a thread of its own, one request to a connection.
//!
//! Nobody waits for anybody: a connection has a deadline as a whole, so many of one address and so many together may be open,
//! and those that have shown no credential go first (see [`Places`]).

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use beehive::link::door::Places;
use beehive::{Env, Moment};
use futures::future::select;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use thiserror::Error;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, oneshot};
use tokio_rustls::TlsAcceptor;

use crate::enrolment::{Desk, Enrolment};
use crate::knocks::Knocks;

/// 256 connections at once: a fleet that joins retries. 64 of one address (IPv6: of one /64): a site behind one address that
/// joins as a whole. The oldest goes first, whatever its age.
const PLACES: (usize, usize, Duration) = (256, 64, Duration::ZERO);
/// 5 s for the TLS handshake: four round trips of the worst link that is used (600 ms), and its losses.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(5);
/// 10 s from the first byte to the last of the request; keadm gives up after 9.
const REQUEST_DEADLINE: Duration = Duration::from_secs(10);
/// 30 s more for the register, and to write the answer: what is begun there is not broken off because a client is slow.
const ANSWER_DEADLINE: Duration = Duration::from_secs(30);
/// 16 KiB: the longest head of a request; the longest token has 4.
const HEAD_MAX: usize = 16 << 10;
/// 32 header fields; keadm sends four.
const FIELDS_MAX: usize = 32;
/// 100 ms: the pause after the system had no socket for us.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// One line a minute about connections that were cut.
const CUT_WORD_EVERY: Duration = Duration::from_secs(60);

/// Why the server could not be started.
#[derive(Debug, Error)]
pub enum EnrolmentError {
    /// The port is taken or the address is not ours.
    #[error("cannot listen at {address} for enrolment: free the port, or change modules.cloudHub.https")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The server's certificate is not usable.
    #[error("server certificate is not usable: {0}")]
    Certificate(String),
}

/// The running server.
pub struct EnrolmentServer {
    /// Where it listens.
    pub address: SocketAddr,
    thread: actix_rt::Arbiter,
    stop: oneshot::Sender<()>,
    ended: oneshot::Receiver<()>,
}

impl EnrolmentServer {
    /// Listens at `address` with the certificate `chain_pem` and its key. Needs an actix system.
    ///
    /// # Errors
    /// See [`EnrolmentError`].
    pub fn start(
        address: SocketAddr,
        chain_pem: &str,
        key_pem: &str,
        enrolment: Enrolment,
        env: &Env,
    ) -> Result<Self, EnrolmentError> {
        let tls = tls_config(chain_pem, key_pem, enrolment.authority.cert_der())?;
        let listening = |source| EnrolmentError::Listen { address, source };
        let listener = std::net::TcpListener::bind(address).map_err(listening)?;
        listener.set_nonblocking(true).map_err(listening)?;
        let address = listener.local_addr().map_err(listening)?;
        let desk = Desk { enrolment, clock: env.clock(), serials: env.id_source() };
        let (stop, stopped) = oneshot::channel();
        let (end, ended) = oneshot::channel();
        let thread = actix_rt::Arbiter::new();
        thread.spawn_fn(move || {
            actix_rt::spawn(async move {
                let serving = std::pin::pin!(serve(listener, tls, desk));
                select(serving, stopped).await;
                let _ = end.send(());
            });
        });
        Ok(EnrolmentServer { address, thread, stop, ended })
    }

    /// Stops listening and ends what is open.
    pub async fn stop(self) {
        let _ = self.stop.send(());
        let _ = self.ended.await;
        // The tasks of open connections end with their thread.
        self.thread.stop();
    }
}

fn tls_config(chain: &str, key: &str, ca_der: &[u8]) -> Result<rustls::ServerConfig, EnrolmentError> {
    let bad = |error: &dyn std::fmt::Display| EnrolmentError::Certificate(error.to_string());
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(chain.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|error| bad(&error))?;
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|error| bad(&error))?;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from(ca_der.to_vec())).map_err(|error| bad(&error))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    // A node that joins has no certificate yet; one that is shown must be ours.
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
        .allow_unauthenticated()
        .build()
        .map_err(|error| bad(&error))?;
    rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| bad(&error))?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .map_err(|error| bad(&error))
}

/// What all connections share.
struct Hall {
    desk: Desk,
    tls: TlsAcceptor,
    places: RefCell<Places>,
    /// By number: how one is told to go.
    cuts: RefCell<std::collections::BTreeMap<u64, Rc<Notify>>>,
    cut: Cell<(u64, Option<Moment>)>,
    knocks: RefCell<Knocks>,
}

async fn serve(listener: std::net::TcpListener, tls: rustls::ServerConfig, desk: Desk) {
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(%error, "enrolment does not listen");
            return;
        }
    };
    let (most, each, yields_after) = PLACES;
    let hall = Rc::new(Hall {
        desk,
        tls: TlsAcceptor::from(Arc::new(tls)),
        places: RefCell::new(Places::new(most, each, yields_after)),
        cuts: RefCell::default(),
        cut: Cell::default(),
        knocks: RefCell::default(),
    });
    loop {
        match listener.accept().await {
            Ok((socket, address)) => hall.receive(socket, address.ip()),
            Err(error) => {
                tracing::warn!(%error, "enrolment cannot take a connection");
                hall.desk.clock.sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

impl Hall {
    fn receive(self: &Rc<Self>, socket: TcpStream, address: IpAddr) {
        let place = self.places.borrow_mut().enter(address, self.desk.clock.now());
        let Some((id, cut)) = place else { return self.note_cut() };
        if let Some(told) = cut.and_then(|id| self.cuts.borrow_mut().remove(&id)) {
            told.notify_one();
            self.note_cut();
        }
        let told = Rc::new(Notify::new());
        self.cuts.borrow_mut().insert(id, Rc::clone(&told));
        let visit =
            Visit { hall: Rc::clone(self), id, until: Cell::new(self.desk.clock.now() + HANDSHAKE_DEADLINE) };
        actix_rt::spawn(async move {
            let visit = Rc::new(visit);
            let talk = std::pin::pin!(visit.talk(socket));
            let end = std::pin::pin!(select(Box::pin(told.notified()), Box::pin(visit.deadline())));
            select(talk, end).await;
        });
    }

    /// A flood makes no flood of lines.
    fn note_cut(&self) {
        let (count, said) = self.cut.get();
        let now = self.desk.clock.now();
        if said.is_none_or(|said| now.since(said) >= CUT_WORD_EVERY) {
            tracing::warn!(count = count + 1, "enrolment is full: silent connections are cut");
            self.cut.set((0, Some(now)));
        } else {
            self.cut.set((count + 1, said));
        }
    }
}

/// One connection.
pub(crate) struct Visit {
    hall: Rc<Hall>,
    id: u64,
    until: Cell<Moment>,
}

impl Visit {
    pub(crate) fn desk(&self) -> &Desk {
        &self.hall.desk
    }

    /// Whether this credential may ask for something now.
    pub(crate) fn knock(
        &self,
        with: impl FnOnce(&mut Knocks, Moment) -> Result<(), Duration>,
    ) -> Result<(), Duration> {
        with(&mut self.hall.knocks.borrow_mut(), self.hall.desk.clock.now())
    }

    /// It has shown a good credential: it is not cut for others.
    pub(crate) fn trust(&self) {
        self.hall.places.borrow_mut().keep(self.id);
    }

    /// Its request is whole: what follows has more time.
    pub(crate) fn begin_work(&self) {
        self.until.set(self.hall.desk.clock.now() + ANSWER_DEADLINE);
    }

    /// Completes at the deadline, which moves.
    async fn deadline(&self) {
        loop {
            let left = self.until.get().since(self.hall.desk.clock.now());
            if left.is_zero() {
                return;
            }
            self.hall.desk.clock.sleep(left).await;
        }
    }

    async fn talk(self: &Rc<Self>, socket: TcpStream) {
        let begun = self.hall.desk.clock.now();
        let Ok(stream) = self.hall.tls.accept(socket).await else { return };
        self.until.set(begun + REQUEST_DEADLINE);
        let shown = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
        let shown = shown.map(|leaf| leaf.to_vec());
        let service = service_fn(move |request: Request<Incoming>| {
            let (visit, shown) = (Rc::clone(self), shown.clone());
            async move { Ok::<Response<Full<Bytes>>, Infallible>(visit.answer(request, shown.as_deref()).await) }
        });
        let served = http1::Builder::new()
            .keep_alive(false)
            .max_buf_size(HEAD_MAX)
            .max_headers(FIELDS_MAX)
            .serve_connection(TokioIo::new(stream), service)
            .await;
        if let Err(error) = served {
            tracing::debug!(%error, "a connection to enrolment broke off");
        }
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        self.hall.places.borrow_mut().leave(self.id);
        self.hall.cuts.borrow_mut().remove(&self.id);
    }
}
