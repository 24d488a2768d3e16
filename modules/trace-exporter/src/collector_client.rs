//! One post to the collector, over a connection of its own: there is one every 5 s at the most, and nothing to keep for it.

use std::time::Duration;

use beehive::{Env, Lookups};
use bytes::Bytes;
use config::Collector;
use contract::traceexporter::ExportOutcome;
use http_body_util::{BodyExt as _, Full, Limited};
use httpclient::tls::{self, Stream};
use hyper::Request;
use hyper::header::{CONTENT_TYPE, HOST, RETRY_AFTER, USER_AGENT};
use rustls::RootCertStore;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::plan::{Answer, judge};

/// 10 s for all of a post: OTLP's own (`OTEL_EXPORTER_OTLP_TIMEOUT`).
pub(crate) const POST_WITHIN: Duration = Duration::from_secs(10);
/// 64 KiB of an answer are read.
const ANSWER_MAX: usize = 64 << 10;
/// 3 s for one address of a name that has several.
const CONNECT_WITHIN: Duration = Duration::from_secs(3);
/// 4 addresses of a name are tried.
const ADDRESSES_MAX: usize = 4;
const AGENT: &str = concat!("kubehive-trace-exporter/", env!("CARGO_PKG_VERSION"));

/// Posts to a collector.
pub(crate) struct CollectorClient {
    collector: Collector,
    lookups: Lookups,
    env: Env,
    /// Whose certificates are trusted; `None`: the system's CAs, read for each post, so that new ones are seen.
    roots: Option<RootCertStore>,
}

impl CollectorClient {
    pub(crate) fn new(collector: Collector, env: Env) -> Self {
        CollectorClient { collector, lookups: Lookups::at_most(1), env, roots: None }
    }

    /// Posts once.
    pub(crate) async fn post(&self, body: Vec<u8>) -> ExportOutcome {
        let later = |why: String| ExportOutcome::Later { why, retry_after: None };
        match self.env.timeout(POST_WITHIN, self.answer(body)).await {
            Some(Ok(answer)) => judge(&answer),
            Some(Err(why)) => later(why),
            None => later(format!("no answer within {} s", POST_WITHIN.as_secs())),
        }
    }

    async fn answer(&self, body: Vec<u8>) -> Result<Answer, String> {
        let stream = self.connect().await?;
        let (mut sender, connection) =
            httpclient::handshake(stream).await.map_err(|error| format!("no connection: {error}"))?;
        // It ends with the sender, or with the collector's end of it.
        let connection = tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "the connection to the collector broke off");
            }
        });
        let request = Request::post(&self.collector.path)
            .header(HOST, self.collector.authority())
            .header(USER_AGENT, AGENT)
            .header(CONTENT_TYPE, otlp::PROTOBUF)
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| format!("no request can be made: {error}"))?;
        let answered = sender.send_request(request).await;
        let answer = answered.map_err(|error| format!("it has closed the connection: {error}"))?;
        let status = answer.status().as_u16();
        let retry_after =
            answer.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let body = Limited::new(answer.into_body(), ANSWER_MAX).collect().await;
        // Whatever else it has to say.
        connection.abort();
        Ok(Answer { status, retry_after, body: body.ok().map(|body| body.to_bytes().to_vec()) })
    }

    async fn connect(&self) -> Result<Stream, String> {
        let Collector { is_tls, host, port, .. } = &self.collector;
        let looked = self.lookups.of(crate::TRACE_EXPORTER, host, *port).await;
        let addresses = looked.map_err(|error| format!("no address: {error}"))?;
        let mut why = "its name has no address".to_owned();
        for address in addresses.into_iter().take(ADDRESSES_MAX) {
            let socket = match self.env.timeout(CONNECT_WITHIN, TcpStream::connect(address)).await {
                Some(Ok(socket)) => socket,
                Some(Err(error)) => {
                    why = format!("no connection to {address}: {error}");
                    continue;
                }
                None => {
                    why = format!("no connection to {address} within {} s", CONNECT_WITHIN.as_secs());
                    continue;
                }
            };
            if !is_tls {
                return Ok(Stream::Left(socket));
            }
            let connector = self.connector().await?;
            let secured = tls::secure(&connector, host, socket).await;
            return secured.map_err(|error| format!("TLS: {error}"));
        }
        Err(why)
    }

    async fn connector(&self) -> Result<TlsConnector, String> {
        let roots = match self.roots.clone() {
            Some(roots) => roots,
            None => self.env.blocking(tls::system_roots).await.map_err(|fault| fault.reason)?,
        };
        tls::connector(roots).map_err(|error| format!("TLS: {error}"))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustls::ServerConfig;
    use rustls_pki_types::PrivateKeyDer;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;

    use super::*;

    fn collector(is_tls: bool, port: u16) -> Collector {
        Collector { is_tls, host: "localhost".to_owned(), port, path: "/v1/traces".to_owned() }
    }

    /// A collector that answers with these bytes, and says what it was asked.
    async fn answering(answer: Vec<u8>) -> (u16, tokio::sync::mpsc::Receiver<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (heard, asked) = tokio::sync::mpsc::channel(8);
        tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                let mut bytes = vec![0; 4096];
                let count = socket.read(&mut bytes).await.unwrap();
                heard.send(String::from_utf8_lossy(&bytes[..count]).into_owned()).await.unwrap();
                // It may be hung up on.
                let _ = socket.write_all(&answer).await;
            }
        });
        (port, asked)
    }

    async fn posted(answer: &[u8]) -> ExportOutcome {
        let (port, _asked) = answering(answer.to_vec()).await;
        CollectorClient::new(collector(false, port), Env::real()).post(vec![1, 2, 3]).await
    }

    #[test]
    fn a_post_is_one_of_otlp_over_http() {
        actix_rt::System::new().block_on(async {
            let (port, mut asked) = answering(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_vec()).await;
            let outcome = CollectorClient::new(collector(false, port), Env::real()).post(vec![b'!'; 3]).await;
            assert_eq!(outcome, ExportOutcome::Taken { rejected: None });
            let heard = asked.recv().await.unwrap().to_ascii_lowercase();
            assert!(heard.starts_with("post /v1/traces http/1.1\r\n"), "{heard}");
            for part in ["content-type: application/x-protobuf", "content-length: 3", "\r\n\r\n!!!"] {
                assert!(heard.contains(part), "{part}: {heard}");
            }
            assert!(heard.contains(&format!("host: localhost:{port}")));
        });
    }

    #[test]
    fn whatever_a_collector_answers_ends_and_says_why() {
        actix_rt::System::new().block_on(async {
            let busy = posted(b"HTTP/1.1 503 No\r\nRetry-After: 7\r\nContent-Length: 4\r\n\r\nbusy").await;
            assert!(
                matches!(&busy, ExportOutcome::Later { retry_after: Some(after), .. } if after.as_secs() == 7),
                "{busy:?}"
            );
            let bad = posted(b"HTTP/1.1 400 Bad\r\nContent-Length: 2\r\n\r\nno").await;
            assert!(matches!(&bad, ExportOutcome::Refused(why) if why.contains("400")), "{bad:?}");
            // More than is read, and more informational heads than are passed over.
            let huge = [b"HTTP/1.1 200 OK\r\nContent-Length: 9000000\r\n\r\n".to_vec(), vec![b'x'; 9_000_000]];
            assert_eq!(posted(&huge.concat()).await, ExportOutcome::Taken { rejected: None });
            for nonsense in [&b"nonsense\r\n\r\n"[..], b"", &b"HTTP/1.1 100 Continue\r\n\r\n".repeat(1000)] {
                let outcome = posted(nonsense).await;
                assert!(matches!(outcome, ExportOutcome::Later { .. }), "{outcome:?}");
            }
            let nobody = CollectorClient::new(collector(false, 1), Env::real()).post(Vec::new()).await;
            assert!(matches!(&nobody, ExportOutcome::Later { why, .. } if why.contains("no connection")), "{nobody:?}");
        });
    }

    #[test]
    fn with_tls_only_whom_a_ca_vouches_for_is_sent_anything() {
        actix_rt::System::new().block_on(async {
            let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
            let certificate = made.cert.der().clone();
            let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
            let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
            let config = ServerConfig::builder_with_provider(provider)
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_no_client_auth()
                .with_single_cert(vec![certificate.clone()], key)
                .unwrap();
            let acceptor = TlsAcceptor::from(Arc::new(config));
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let port = listener.local_addr().unwrap().port();
            tokio::spawn(async move {
                loop {
                    let (socket, _) = listener.accept().await.unwrap();
                    let Ok(mut secured) = acceptor.accept(socket).await else { continue };
                    let mut asked = [0; 4096];
                    if secured.read(&mut asked).await.is_ok_and(|count| count > 0) {
                        secured.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await.unwrap();
                    }
                }
            });
            let mut trusted = RootCertStore::empty();
            trusted.add(certificate).unwrap();
            for (roots, is_trusted) in [(trusted, true), (RootCertStore::empty(), false)] {
                let mut client = CollectorClient::new(collector(true, port), Env::real());
                client.roots = Some(roots);
                match client.post(vec![1]).await {
                    ExportOutcome::Taken { .. } => assert!(is_trusted),
                    ExportOutcome::Later { why, .. } => {
                        assert!(!is_trusted && why.contains("TLS: "), "{why}")
                    }
                    other @ ExportOutcome::Refused(_) => panic!("{other:?}"),
                }
            }
        });
    }
}
