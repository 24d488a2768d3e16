//! HTTP checks: one connection for each request, no certificate verified, redirects as the kubelet follows them.

use std::cell::Cell;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use beehive::Env;
use futures::future::{Either, select};
use http::header::{ACCEPT, AUTHORIZATION, CONNECTION, HOST, LOCATION, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Request};
use http_body_util::{BodyExt as _, Empty};
use httpclient::{Dialect, HeadBounds};
use hyper::body::Bytes;
use k8s_openapi::api::core::v1::HTTPGetAction;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::prober::url::Url;
use crate::prober::{Answer, BODY_MAX, PodDialer, Tried, TryError, cut, dial_error, join, system_error};
use crate::versions;

/// 1 MiB of an answer's head, and 4,096 headers. A kubelet reads 10 MiB (Go's `MaxResponseHeaderBytes`): a hundred pods would fill a small
/// machine's memory with that, and what an application tells a probe in its head is no longer than this.
const HEAD: HeadBounds = HeadBounds { bytes: 1 << 20, headers: 4096 };
/// As many redirects are followed (Go: `defaultCheckRedirect`).
const REDIRECTS_MAX: usize = 10;

/// A request, worked out from a probe's or a hook's `httpGet`.
#[derive(Debug, Clone)]
pub(crate) struct HttpRequest {
    pub(crate) url: Url,
    headers: HeaderMap,
    /// Instead of the URL's.
    host: Option<HeaderValue>,
}

impl HttpRequest {
    /// The request. `agent`: `kube-probe` or `kube-lifecycle`.
    ///
    /// # Errors
    /// A header that HTTP cannot carry.
    pub(crate) fn new(action: &HTTPGetAction, port: u16, ip: &str, agent: &str) -> Result<Self, String> {
        let mut headers = HeaderMap::new();
        for header in action.http_headers.iter().flatten() {
            let name = HeaderName::try_from(header.name.as_str());
            let name = name.map_err(|_| format!("net/http: invalid header field name {:?}", header.name))?;
            let value = HeaderValue::try_from(header.value.as_str())
                .map_err(|_| format!("net/http: invalid header field value for {:?}", header.name))?;
            headers.append(name, value);
        }
        let agent = HeaderValue::try_from(format!("{agent}/{}", versions::RULES))
            .map_err(|error| error.to_string())?;
        for (name, usual) in [(USER_AGENT, agent), (ACCEPT, HeaderValue::from_static("*/*"))] {
            if headers.get(&name).is_some_and(HeaderValue::is_empty) {
                headers.remove(name);
            } else if !headers.contains_key(&name) {
                headers.insert(name, usual);
            }
        }
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
        let host = headers.remove(HOST).filter(|host| !host.is_empty());
        let tls = action.scheme.as_deref().is_some_and(|scheme| scheme.eq_ignore_ascii_case("https"));
        let to = action.host.as_deref().filter(|host| !host.is_empty()).unwrap_or(ip);
        let url = Url::new(tls, to, port, action.path.as_deref().unwrap_or_default());
        Ok(HttpRequest { url, headers, host })
    }

    /// The same without TLS, and so without credentials.
    pub(crate) fn in_plain_text(&self) -> Self {
        let mut plain = self.clone();
        plain.url.tls = false;
        plain.headers.remove(AUTHORIZATION);
        plain
    }
}

/// What a server answered.
#[derive(Debug)]
pub(crate) struct HttpAnswer {
    status: u16,
    location: Option<String>,
    body: Vec<u8>,
}

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum HttpFault {
    /// The request came to nothing.
    Failed(String),
    /// A server of plain HTTP was asked for HTTPS.
    PlainHttp,
    /// It broke off within the body.
    Body(String),
    /// Nobody was asked: there was no place to look the name up from.
    Unasked(String),
}

impl HttpFault {
    /// In Go's words.
    pub(crate) fn text(&self, url: &Url) -> String {
        match self {
            HttpFault::Failed(why) => format!("Get \"{url}\": {why}"),
            HttpFault::PlainHttp => {
                format!("Get \"{url}\": http: server gave HTTP response to HTTPS client")
            }
            HttpFault::Body(why) | HttpFault::Unasked(why) => why.clone(),
        }
    }
}

/// A probe: 200 to 399 is success, and so is a redirect to another host, with a warning.
pub(super) async fn probe(env: &Env, dialer: PodDialer<'_>, request: &HttpRequest, limit: Duration) -> Tried {
    let (url, has_head) = (&request.url, Cell::new(false));
    let broke_off = |why| Err(TryError { state: "failure", why });
    match env.timeout(limit, follow(dialer, request, &has_head)).await {
        None if has_head.get() => broke_off(
            "context deadline exceeded (Client.Timeout or context cancellation while reading body)"
                .to_owned(),
        ),
        None => Ok(Answer::Failure(format!(
            "Get \"{url}\": context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
        ))),
        Some(Err(HttpFault::Body(why))) => broke_off(why),
        Some(Err(HttpFault::Unasked(why))) => Err(why.into()),
        Some(Err(fault)) => Ok(Answer::Failure(fault.text(url))),
        Some(Ok(answer)) => Ok(match answer.status {
            200..300 => Answer::Success,
            300..400 => {
                let body = cut(&answer.body);
                Answer::Warning(format!("Probe terminated redirects, Response body: {body}"))
            }
            status => Answer::Failure(format!("HTTP probe failed with statuscode: {status}")),
        }),
    }
}

/// Sends a request and follows redirects while the host stays. `has_head`: whether the head of an answer has come, and its body is read.
pub(crate) async fn follow(
    dialer: PodDialer<'_>,
    request: &HttpRequest,
    has_head: &Cell<bool>,
) -> Result<HttpAnswer, HttpFault> {
    let mut url = request.url.clone();
    let mut host = request.host.clone();
    for _ in 0..REDIRECTS_MAX {
        has_head.set(false);
        let answer = get(dialer, &url, (host.as_ref(), &request.headers), has_head).await?;
        let location = answer.location.as_deref().filter(|_| matches!(answer.status, 301..=303 | 307 | 308));
        let Some(location) = location else { return Ok(answer) };
        let Some(next) = url.resolve(location) else {
            return Err(HttpFault::Failed(format!("failed to parse Location header {location:?}")));
        };
        if next.host != request.url.host {
            return Ok(answer);
        }
        // A host of the request's own holds as long as the server doesn't name another.
        if location.contains("//") {
            host = None;
        }
        url = next;
    }
    Err(HttpFault::Failed(format!("stopped after {REDIRECTS_MAX} redirects")))
}

async fn get(
    dialer: PodDialer<'_>,
    url: &Url,
    heads: (Option<&HeaderValue>, &HeaderMap),
    has_head: &Cell<bool>,
) -> Result<HttpAnswer, HttpFault> {
    let address = join(&url.host, url.port());
    let connected = dialer.connect(&url.host, url.port()).await;
    let stream = connected.map_err(|error| match error.kind() {
        std::io::ErrorKind::WouldBlock => HttpFault::Unasked(error.to_string()),
        _ => HttpFault::Failed(dial_error(&address, &error)),
    })?;
    let ends = ends(&stream);
    if !url.tls {
        return exchange((stream, &ends), url, heads, has_head).await;
    }
    let name = ServerName::try_from(url.host.clone());
    let name = name.map_err(|error| HttpFault::Failed(format!("{}: {error}", url.host)))?;
    let connector = tokio_rustls::TlsConnector::from(unverified()?);
    match connector.connect(name, stream).await {
        Ok(stream) => exchange((stream, &ends), url, heads, has_head).await,
        Err(error) if speaks_plain_http(&error) => Err(HttpFault::PlainHttp),
        Err(error) => Err(HttpFault::Failed(broken(&error, &ends).unwrap_or_else(|| system_error(&error)))),
    }
}

/// Both ends of a connection, as Go names them.
fn ends(stream: &tokio::net::TcpStream) -> String {
    let said = |address: std::io::Result<std::net::SocketAddr>| address.map(|at| at.to_string());
    format!(
        "{}->{}",
        said(stream.local_addr()).unwrap_or_default(),
        said(stream.peer_addr()).unwrap_or_default()
    )
}

/// What is no record of TLS at all comes, where HTTPS is asked for, from a server of HTTP.
fn speaks_plain_http(error: &std::io::Error) -> bool {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    matches!(inner, Some(rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType)))
}

async fn exchange(
    (stream, ends): (impl AsyncRead + AsyncWrite + Unpin, &str),
    url: &Url,
    (host, headers): (Option<&HeaderValue>, &HeaderMap),
    has_head: &Cell<bool>,
) -> Result<HttpAnswer, HttpFault> {
    let failed = |error: &dyn std::fmt::Display| HttpFault::Failed(error.to_string());
    let mut request =
        Request::get(url.target.as_str()).body(Empty::<Bytes>::new()).map_err(|e| failed(&e))?;
    *request.headers_mut() = headers.clone();
    let own = || HeaderValue::try_from(url.authority()).map_err(|error| failed(&error));
    let host = host.map_or_else(own, |host| Ok(host.clone()))?;
    request.headers_mut().insert(HOST, host);
    let (mut sender, connection) =
        // Go reads a blank before a colon, too.
        httpclient::handshake_within(HEAD, Dialect::AsGo, stream).await.map_err(|error| failed(&error))?;
    let talk = std::pin::pin!(async move {
        match sender.send_request(request).await {
            Ok(response) => {
                has_head.set(true);
                Ok(read(response, ends).await)
            }
            Err(error) => Err(error),
        }
    });
    let (answer, ended) = match select(talk, std::pin::pin!(connection)).await {
        Either::Left((answer, _)) => (answer, Ok(())),
        // All has come, and is yet to be read.
        Either::Right((ended, talk)) => (talk.await, ended),
    };
    answer.unwrap_or_else(|error| Err(HttpFault::Failed(told(&error, ended.as_ref().err(), ends))))
}

/// Why there is no answer, in Go's words. What ended a connection before the request was taken is the `connection`'s to say.
fn told(error: &httpclient::Error, connection: Option<&hyper::Error>, ends: &str) -> String {
    let is_canceled = match error {
        httpclient::Error::Exchange(error) | httpclient::Error::Unsent(error) => error.is_canceled(),
        _ => false,
    };
    let of_connection = connection.and_then(|ended| broken(ended, ends));
    let of_either = broken(error, ends).or(of_connection);
    let ended = error.is_incomplete_message() || is_canceled;
    of_either.unwrap_or_else(|| match error {
        _ if ended => "EOF".to_owned(),
        _ if error.is_head_too_large() => format!(
            "net/http: HTTP/1.x transport connection broken: net/http: server response headers exceeded {} bytes; aborted",
            HEAD.bytes
        ),
        httpclient::Error::Exchange(inner) | httpclient::Error::Unsent(inner) if inner.is_parse() => {
            format!("net/http: HTTP/1.x transport connection broken: malformed HTTP response ({error})")
        }
        _ => error.to_string(),
    })
}

/// Whether such an error of reading is behind it.
fn is_of_kind(error: &(dyn std::error::Error + 'static), kind: std::io::ErrorKind) -> bool {
    let mut causes = std::iter::successors(Some(error), |error| error.source());
    causes.any(|error| error.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == kind))
}

/// What the system said of a connection that broke, in Go's words; `None`: it was not the system.
fn broken(error: &(dyn std::error::Error + 'static), ends: &str) -> Option<String> {
    use std::io::ErrorKind;
    let causes = std::iter::successors(Some(error), |error| error.source());
    let system = causes.filter_map(|error| error.downcast_ref::<std::io::Error>()).next()?;
    match system.kind() {
        ErrorKind::UnexpectedEof => Some("EOF".to_owned()),
        ErrorKind::BrokenPipe => Some(format!("write tcp {ends}: write: {}", system_error(system))),
        _ if system.raw_os_error().is_some() => {
            Some(format!("read tcp {ends}: read: {}", system_error(system)))
        }
        _ => None,
    }
}

async fn read(response: http::Response<hyper::body::Incoming>, ends: &str) -> Result<HttpAnswer, HttpFault> {
    let status = response.status().as_u16();
    let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let (mut incoming, mut body) = (response.into_body(), Vec::new());
    while body.len() < BODY_MAX
        && let Some(frame) = incoming.frame().await
    {
        let frame = frame.map_err(|error| {
            let why = broken(&error, ends).unwrap_or_else(|| error.to_string());
            HttpFault::Body(match why.as_str() {
                "EOF" => "unexpected EOF".to_owned(),
                _ if error.is_incomplete_message() => "unexpected EOF".to_owned(),
                _ if is_of_kind(&error, std::io::ErrorKind::InvalidInput) => {
                    "invalid byte in chunk length".to_owned()
                }
                _ => why,
            })
        })?;
        if let Some(data) = frame.data_ref() {
            body.extend_from_slice(&data[..data.len().min(BODY_MAX - body.len())]);
        }
    }
    Ok(HttpAnswer { status, location, body })
}

/// TLS that trusts whoever answers, as a kubelet's probes do: they ask whether something answers, and send no secret that
/// the pod did not put into the probe itself.
fn unverified() -> Result<Arc<ClientConfig>, HttpFault> {
    static CONFIG: OnceLock<Option<Arc<ClientConfig>>> = OnceLock::new();
    let make = || {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let schemes = provider.signature_verification_algorithms.supported_schemes();
        let builder =
            ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().ok()?;
        let any = Arc::new(AnyCertificate(schemes));
        let config = builder.dangerous().with_custom_certificate_verifier(any).with_no_client_auth();
        Some(Arc::new(config))
    };
    CONFIG.get_or_init(make).clone().ok_or_else(|| HttpFault::Failed("tls: no protocol versions".to_owned()))
}

#[derive(Debug)]
struct AnyCertificate(Vec<SignatureScheme>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.clone()
    }
}

#[cfg(test)]
mod tests;
