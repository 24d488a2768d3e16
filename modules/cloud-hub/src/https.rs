//! Enrolment over HTTPS: KubeEdge's paths, capped bodies, sentences for people.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use actix_web::dev::ServerHandle;
use actix_web::http::StatusCode;
use actix_web::rt::net::TcpStream;
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use beehive::Env;
use contract::NodeName;
use pki::{Authority, CSR_MAX, TokenKey};
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use thiserror::Error;

use crate::plan::{Living, Refusal};
use crate::vault::{Vault, VaultError};

/// 10 s: a client that has not sent its request by then is cut off.
const REQUEST_DEADLINE: Duration = Duration::from_secs(10);
/// 256 connections at once: a fleet that joins retries.
const CONNECTIONS_MAX: usize = 256;

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

/// What enrolment decides with.
pub struct Enrolment {
    /// The CA.
    pub authority: Authority,
    /// The key of the join tokens.
    pub token_key: TokenKey,
    /// Where the register is kept.
    pub vault: Vault,
    /// How long a node's certificate lives.
    pub certificate_life: Duration,
}

/// The same, with what the server's threads need of the environment.
struct Desk {
    enrolment: Enrolment,
    clock: Arc<dyn beehive::Clock>,
    serials: Box<dyn Fn() -> [u8; 16] + Send + Sync>,
}

/// The running server.
pub struct EnrolmentServer {
    /// Where it listens.
    pub address: SocketAddr,
    handle: ServerHandle,
}

/// The client certificate of a connection.
#[derive(Clone)]
struct Shown(Vec<u8>);

impl EnrolmentServer {
    /// Listens at `address` with the certificate `chain_pem` and its key.
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
        let desk = web::Data::new(Desk { enrolment, clock: env.clock(), serials: env.id_source() });
        let server = HttpServer::new(move || {
            App::new()
                .app_data(desk.clone())
                .app_data(web::PayloadConfig::new(CSR_MAX))
                .route("/ca.crt", web::get().to(ca_certificate))
                .route("/edge.crt", web::get().to(enrol))
                .route("/edge.crt", web::delete().to(release))
        })
        .workers(1)
        .max_connections(CONNECTIONS_MAX)
        .client_request_timeout(REQUEST_DEADLINE)
        .shutdown_timeout(2)
        .disable_signals()
        .on_connect(|connection, extensions| {
            let tls = connection.downcast_ref::<actix_tls::accept::rustls_0_23::TlsStream<TcpStream>>();
            let shown =
                tls.and_then(|tls| tls.get_ref().1.peer_certificates()).and_then(|chain| chain.first());
            if let Some(leaf) = shown {
                extensions.insert(Shown(leaf.to_vec()));
            }
        });
        let listening = |source| EnrolmentError::Listen { address, source };
        let server = server.bind_rustls_0_23(address, tls).map_err(listening)?;
        let address = server.addrs().first().copied().unwrap_or(address);
        let server = server.run();
        let handle = server.handle();
        actix_rt::spawn(async move {
            if let Err(error) = server.await {
                tracing::error!(%error, "enrolment server ended");
            }
        });
        Ok(EnrolmentServer { address, handle })
    }

    /// Stops listening and ends what is open.
    pub async fn stop(self) {
        self.handle.stop(false).await;
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

fn sentence(status: StatusCode, text: impl Into<String>) -> HttpResponse {
    HttpResponse::build(status).content_type("text/plain; charset=utf-8").body(text.into())
}

fn refused(refusal: &Refusal) -> HttpResponse {
    let status = match refusal {
        Refusal::NameTaken(_) => StatusCode::CONFLICT,
        Refusal::TokenUsed => StatusCode::UNAUTHORIZED,
        Refusal::NotLiving(_) => StatusCode::NOT_FOUND,
    };
    sentence(status, refusal.to_string())
}

fn unavailable(error: &VaultError) -> HttpResponse {
    let reason = beehive::Fault::from_error(error).reason;
    tracing::error!(%reason, "enrolment failed");
    sentence(
        StatusCode::SERVICE_UNAVAILABLE,
        "the cloud cannot look into its register now: try again, or see CloudCore's log",
    )
}

async fn ca_certificate(desk: web::Data<Desk>) -> HttpResponse {
    HttpResponse::Ok()
        .content_type("application/octet-stream")
        .body(desk.enrolment.authority.cert_der().to_vec())
}

async fn enrol(request: HttpRequest, desk: web::Data<Desk>, csr: web::Bytes) -> HttpResponse {
    let header =
        |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let Some(jwt) = header("Authorization").strip_prefix("Bearer ") else {
        return sentence(StatusCode::UNAUTHORIZED, "show a join token: print one with `keadm gettoken`");
    };
    let node = match NodeName::parse(header("NodeName")) {
        Ok(node) => node,
        Err(error) => return sentence(StatusCode::BAD_REQUEST, error.to_string()),
    };
    let now = desk.clock.wall();
    let now_unix = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let claims = match desk.enrolment.token_key.verify(jwt, now_unix, node.as_str()) {
        Ok(claims) => claims,
        Err(error) => return sentence(StatusCode::UNAUTHORIZED, error.to_string()),
    };
    let life = desk.enrolment.certificate_life;
    let issued = match desk.enrolment.authority.sign_node(&csr, node.as_str(), now, life, (desk.serials)()) {
        Ok(issued) => issued,
        Err(error) => return sentence(StatusCode::BAD_REQUEST, beehive::Fault::from_error(&error).reason),
    };
    // The certificate leaves only after its name is in the register.
    let living = Living {
        serial: issued.serial.clone(),
        not_after_unix: issued.not_after.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs(),
    };
    let noted = desk.enrolment.vault.change_register(now, |register| {
        register.may_enrol(&node, &claims, now_unix)?;
        register.enrolled(&node, &claims, living.clone());
        Ok(())
    });
    match noted.await {
        Ok(Ok(())) => {
            tracing::info!(%node, serial = issued.serial, "node enrolled");
            HttpResponse::Ok().content_type("application/octet-stream").body(issued.der)
        }
        Ok(Err(refusal)) => refused(&refusal),
        Err(error) => unavailable(&error),
    }
}

async fn release(request: HttpRequest, desk: web::Data<Desk>) -> HttpResponse {
    let Some(Shown(der)) = request.conn_data::<Shown>() else {
        return sentence(StatusCode::UNAUTHORIZED, "show the node's certificate to give its name back");
    };
    let identity = pki::node_of_certificate(der).ok().and_then(|name| NodeName::parse(&name).ok());
    let (Some(node), Ok(serial)) = (identity, pki::serial_of(der)) else {
        return sentence(StatusCode::FORBIDDEN, "this certificate is not a node's");
    };
    let released =
        desk.enrolment.vault.change_register(desk.clock.wall(), |register| register.release(&node, &serial));
    match released.await {
        Ok(Ok(())) => {
            tracing::info!(%node, serial, "node gave its name back");
            sentence(StatusCode::OK, format!("the name `{node}` is free"))
        }
        Ok(Err(refusal)) => refused(&refusal),
        Err(error) => unavailable(&error),
    }
}
