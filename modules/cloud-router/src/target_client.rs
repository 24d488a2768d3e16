//! Posts to the HTTP endpoints that rules lead to: judged addresses, verified certificates, no redirects, bounded answers.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use beehive::{Env, Fault};
use bytes::Bytes;
use http::{Extensions, HeaderMap, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use httpclient::tls::{self, Stream};
use httpclient::{Guard, Guarded, HEAD_MAX, TooManyInformational};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{Connected, Connection, capture_connection};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use targets::TargetAddresses;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tower_service::Service;

/// 4 connections to one target wait for the next message.
const IDLE_OF_TARGET: usize = 4;
/// 30 s that such a connection waits.
const IDLE_FOR: Duration = Duration::from_secs(30);

/// Why the client cannot be made.
#[derive(Debug, Error)]
pub(crate) enum TargetClientError {
    /// The file of CAs cannot be read.
    #[error("targetCAFile `{path}` cannot be read")]
    Read {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It holds no certificate.
    #[error("targetCAFile `{0}` holds no usable certificate in PEM")]
    Pem(String),
    /// The library refuses its own defaults.
    #[error("TLS")]
    Tls(#[from] rustls::Error),
}

/// What a target has answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TargetAnswer {
    /// Its status.
    pub(crate) status: StatusCode,
    /// Its body; `None` where it is longer than was asked for.
    pub(crate) body: Option<Bytes>,
}

/// Posts. Its clones are one.
#[derive(Clone)]
pub(crate) struct TargetClient(Client<TargetConnector, Full<Bytes>>);

impl TargetClient {
    /// For these addresses; certificates are judged by the system's CAs and those in the file. Reads files: on a thread that may wait.
    ///
    /// # Errors
    /// See [`TargetClientError`].
    pub(crate) fn new(
        addresses: TargetAddresses,
        ca_file: &std::path::Path,
    ) -> Result<Self, TargetClientError> {
        let mut roots = tls::system_roots();
        if !ca_file.as_os_str().is_empty() {
            let path = ca_file.display().to_string();
            let pem = std::fs::read(ca_file)
                .map_err(|source| TargetClientError::Read { path: path.clone(), source })?;
            let parsed: Result<Vec<CertificateDer<'static>>, _> =
                CertificateDer::pem_slice_iter(&pem).collect();
            let (added, _) = roots.add_parsable_certificates(parsed.unwrap_or_default());
            if added == 0 {
                return Err(TargetClientError::Pem(path));
            }
        }
        let connector = TargetConnector { addresses: Arc::new(addresses), tls: tls::connector(roots)? };
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_FOR)
            .pool_max_idle_per_host(IDLE_OF_TARGET)
            .http1_max_buf_size(HEAD_MAX)
            .build(connector);
        Ok(TargetClient(client))
    }

    /// Posts `body`, and reads at most `most` bytes of the answer's.
    ///
    /// # Errors
    /// Why there is no answer, in a sentence.
    pub(crate) async fn post(
        &self,
        url: &Uri,
        headers: HeaderMap,
        body: Bytes,
        (most, within): (usize, Duration),
        env: &Env,
    ) -> Result<TargetAnswer, String> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = url.clone();
        *request.headers_mut() = headers;
        let connection = capture_connection(&mut request);
        httpclient::watch(&mut request, move || {
            let mut of_connection = Extensions::new();
            connection.connection_metadata().as_ref()?.get_extras(&mut of_connection);
            of_connection.remove::<Guard>()
        });
        let asked = async {
            let answer = self.0.request(request).await.map_err(|error| Fault::from_error(&error).reason)?;
            if answer.extensions().get().is_some_and(Guard::is_tripped) {
                return Err(TooManyInformational.to_string());
            }
            let status = answer.status();
            match Limited::new(answer.into_body(), most).collect().await {
                Ok(body) => Ok(TargetAnswer { status, body: Some(body.to_bytes()) }),
                Err(error) if error.is::<LengthLimitError>() => Ok(TargetAnswer { status, body: None }),
                Err(error) => Err(format!("its answer broke off: {error}")),
            }
        };
        let answered = env.timeout(within, asked).await;
        answered.unwrap_or_else(|| Err(format!("it has not answered within {} s", within.as_secs())))
    }
}

/// Connects to addresses that are open to rules.
#[derive(Clone)]
struct TargetConnector {
    addresses: Arc<TargetAddresses>,
    tls: TlsConnector,
}

impl TargetConnector {
    async fn connect(self, url: Uri) -> io::Result<TargetStream> {
        let is_tls = url.scheme_str() == Some("https");
        let host = url.host().unwrap_or_default();
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host).to_owned();
        let port = url.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        let found = tokio::net::lookup_host((host.as_str(), port)).await;
        let found = found.map_err(|error| io::Error::new(error.kind(), format!("name `{host}`: {error}")))?;
        let socket = self.dial(&host, found).await?;
        socket.set_nodelay(true)?;
        if !is_tls {
            return Ok(TargetStream(Guarded::new(Stream::Left(socket))));
        }
        Ok(TargetStream(Guarded::new(tls::secure(&self.tls, &host, socket).await?)))
    }

    /// Each address is judged and then dialled as it was judged.
    async fn dial(&self, host: &str, found: impl Iterator<Item = SocketAddr>) -> io::Result<TcpStream> {
        let mut failed = io::Error::new(io::ErrorKind::NotFound, format!("name `{host}` has no address"));
        for address in found {
            if let Err(what) = self.addresses.check(address.ip()) {
                let ip = address.ip();
                let words = format!(
                    "`{host}` is {ip}, {what}: closed to rules, unless modules.router.allowedTargets has it"
                );
                failed = io::Error::new(io::ErrorKind::PermissionDenied, words);
                continue;
            }
            match TcpStream::connect(address).await {
                Ok(socket) => return Ok(socket),
                Err(error) => failed = io::Error::new(error.kind(), format!("{address}: {error}")),
            }
        }
        Err(failed)
    }
}

impl Service<Uri> for TargetConnector {
    type Response = TokioIo<TargetStream>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<TokioIo<TargetStream>>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, url: Uri) -> Self::Future {
        let connector = self.clone();
        Box::pin(async move { connector.connect(url).await.map(TokioIo::new) })
    }
}

/// A connection to a target.
struct TargetStream(Guarded<Stream>);

impl Connection for TargetStream {
    fn connected(&self) -> Connected {
        // What a request finds the guard of its connection by.
        Connected::new().extra(self.0.guard())
    }
}

impl AsyncRead for TargetStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, into)
    }
}

impl AsyncWrite for TargetStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

    /// A target that answers the requests of each connection with 3 informational heads and 204, or with such heads for ever. Its URL.
    async fn target(is_endless: bool) -> Uri {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            loop {
                let (mut socket, _) = listener.accept().await.unwrap();
                let mut asked = [0; 4096];
                while socket.read(&mut asked).await.is_ok_and(|count| count > 0) {
                    let heads = CONTINUE.repeat(3);
                    while is_endless && socket.write_all(&heads).await.is_ok() {}
                    let answer = [&heads, &b"HTTP/1.1 204 No Content\r\n\r\n"[..]].concat();
                    if socket.write_all(&answer).await.is_err() {
                        break;
                    }
                }
            }
        });
        format!("http://127.0.0.1:{port}/").parse().unwrap()
    }

    #[tokio::test]
    async fn a_target_that_goes_on_informing_is_given_up_and_one_that_informs_a_little_is_not() {
        let addresses = TargetAddresses::new(&["127.0.0.0/8".to_owned()]);
        let client = TargetClient::new(addresses, std::path::Path::new("")).unwrap();
        let env = Env::real();
        let bounds = (1024, Duration::from_secs(60));
        let (good, endless) = (target(false).await, target(true).await);
        // Two on one connection: each has its own count.
        for _ in 0..2 {
            let answer = client.post(&good, HeaderMap::new(), Bytes::new(), bounds, &env).await.unwrap();
            assert_eq!(answer.status, StatusCode::NO_CONTENT);
        }
        let why = client.post(&endless, HeaderMap::new(), Bytes::new(), bounds, &env).await.unwrap_err();
        assert!(why.ends_with("the peer answers with more than 5 informational heads"), "{why}");
    }
}
