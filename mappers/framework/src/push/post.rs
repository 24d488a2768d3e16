//! HTTP posts to a target, over one connection that is kept. Redirects are not followed.

use std::time::Duration;

use beehive::Env;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use httpclient::{SendRequest, handshake};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HOST, HeaderName, HeaderValue, USER_AGENT};
use hyper::{Method, Request, Response, StatusCode};

use crate::payload::beginning;
use crate::push::endpoint::Endpoint;
use crate::push::stream::{Tls, dial};
use crate::push::trouble::Trouble;

/// 64 KiB of an answer are read: it says whether the target has taken something, and why not.
const ANSWER_MAX: usize = 64 << 10;

/// What a target has answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    /// `None` where it is longer than anybody reads, or broke off.
    pub(crate) body: Option<Bytes>,
}

/// Posts to one place.
pub(crate) struct Posts {
    endpoint: Endpoint,
    tls: Tls,
    /// How long an answer may take.
    within: Duration,
    sender: Option<SendRequest<Full<Bytes>>>,
}

impl Posts {
    pub(crate) fn to(endpoint: Endpoint, tls: Tls, within: Duration) -> Self {
        Posts { endpoint, tls, within, sender: None }
    }

    /// Posts. A kept connection that turns out to be closed is made anew once: what is pushed may come twice.
    pub(crate) async fn post(
        &mut self,
        path: &str,
        headers: &[(HeaderName, HeaderValue)],
        kind: &'static str,
        body: &Bytes,
        env: &Env,
    ) -> Result<Answer, Trouble> {
        let was_kept = self.sender.is_some();
        match self.once(path, headers, kind, body, env).await {
            Err(Trouble::Away(_)) if was_kept => self.once(path, headers, kind, body, env).await,
            outcome => outcome,
        }
    }

    async fn once(
        &mut self,
        path: &str,
        headers: &[(HeaderName, HeaderValue)],
        kind: &'static str,
        body: &Bytes,
        env: &Env,
    ) -> Result<Answer, Trouble> {
        let mut sender = match self.sender.take().filter(|sender| !sender.is_closed()) {
            Some(sender) => sender,
            None => self.connect(env).await.map_err(Trouble::Away)?,
        };
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(path)
            .header(HOST, self.endpoint.authority())
            .header(USER_AGENT, concat!("kubehive-mapper/", env!("CARGO_PKG_VERSION")))
            .header(CONTENT_TYPE, kind);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let request = request.body(Full::new(body.clone()));
        let request =
            request.map_err(|error| Trouble::Refused(format!("no request can be made of it: {error}")))?;
        let asked = async {
            let answer = sender.send_request(request).await?;
            Ok::<_, httpclient::Error>(read(answer).await)
        };
        let answer = match env.timeout(self.within, asked).await {
            Some(Ok(answer)) => answer,
            Some(Err(error)) => {
                return Err(Trouble::Away(format!("{} has closed the connection: {error}", self.endpoint)));
            }
            None => {
                let seconds = self.within.as_secs();
                return Err(Trouble::Away(format!("{} has not answered within {seconds} s", self.endpoint)));
            }
        };
        // One whose answer was not read to its end is of no use.
        self.sender = answer.body.is_some().then_some(sender);
        Ok(answer)
    }

    async fn connect(&self, env: &Env) -> Result<SendRequest<Full<Bytes>>, String> {
        let stream = dial(&self.endpoint, &self.tls, env).await?;
        let made = handshake(stream).await;
        let (sender, connection) =
            made.map_err(|error| format!("no connection to {}: {error}", self.endpoint))?;
        // It ends with the sender, or with the target's end of it.
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection to a target broke off");
            }
        });
        Ok(sender)
    }
}

async fn read(answer: Response<Incoming>) -> Answer {
    let status = answer.status();
    let body = Limited::new(answer.into_body(), ANSWER_MAX).collect().await;
    Answer { status, body: body.ok().map(|body| body.to_bytes()) }
}

impl Answer {
    /// Whether the target has taken it, by the status alone.
    pub(crate) fn taken(&self) -> Result<(), Trouble> {
        let status = self.status;
        if status.is_success() {
            return Ok(());
        }
        let body = beginning(self.body.as_deref().unwrap_or_default());
        let said = format!("it answers {status}: {}", body.trim());
        let said = said.trim_end_matches([':', ' ']).to_owned();
        Err(match status {
            // It is about what was sent, and will be the same the next time.
            StatusCode::BAD_REQUEST
            | StatusCode::PAYLOAD_TOO_LARGE
            | StatusCode::UNSUPPORTED_MEDIA_TYPE
            | StatusCode::UNPROCESSABLE_ENTITY => Trouble::Refused(said),
            status if status.is_redirection() => Trouble::Away(format!(
                "{said}; it wants to be asked elsewhere, which is not followed: write that address"
            )),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                Trouble::Away(format!("{said}; check what the mapper's environment says"))
            }
            _ => Trouble::Away(said),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustls::{RootCertStore, ServerConfig};
    use rustls_pki_types::{CertificateDer, PrivateKeyDer};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;

    use super::*;

    /// A server of this certificate that answers each request with 204. Its port.
    async fn serve(certificate: CertificateDer<'static>, key: PrivateKeyDer<'static>) -> u16 {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                let Ok(mut secured) = acceptor.accept(socket).await else { continue };
                let mut asked = [0; 4096];
                while secured.read(&mut asked).await.is_ok_and(|count| count > 0) {
                    secured.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
                }
            }
        });
        port
    }

    #[tokio::test]
    async fn with_tls_only_whom_a_ca_vouches_for_is_sent_anything() {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let certificate = made.cert.der().clone();
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let port = serve(certificate.clone(), key).await;
        let endpoint = Endpoint { is_tls: true, host: "localhost".to_owned(), port };
        let mut roots = RootCertStore::empty();
        roots.add(certificate).unwrap();
        let env = Env::real();
        for (roots, is_trusted) in [(roots, true), (RootCertStore::empty(), false)] {
            let mut posts = Posts::to(endpoint.clone(), Tls::trusting(roots), Duration::from_secs(10));
            // The second one goes over the connection that is kept.
            for _ in 0..2 {
                let answer = posts.post("/", &[], "text/plain", &Bytes::from_static(b"x"), &env).await;
                match answer.and_then(|answer| answer.taken()) {
                    Ok(()) => assert!(is_trusted),
                    Err(Trouble::Away(reason)) => {
                        assert!(!is_trusted && reason.contains("TLS: "), "{reason}")
                    }
                    other => panic!("{other:?}"),
                }
            }
        }
    }
}
