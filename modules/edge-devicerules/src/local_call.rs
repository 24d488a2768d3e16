//! A call of an HTTP service on the node or in its private network.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::time::Duration;

use beehive::Env;
use bytes::Bytes;
use crd::LocalUrl;
use http::{HeaderValue, Method, Request, header};
use http_body_util::Full;
use httpclient::agent;
use tokio::net::TcpStream;

/// 5 s for the connection and the head of the answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// Calls it. Anything of 200 to 299 is well; no redirect is followed, and of the answer nothing but its status is read.
///
/// # Errors
/// Why nothing came of it.
pub(crate) async fn call(
    env: &Env,
    own_ports: &BTreeSet<u16>,
    (method, url): (&str, &LocalUrl),
    body: String,
) -> Result<(), String> {
    // At whatever address: which ones are this machine's may change.
    if own_ports.contains(&url.address.port()) {
        return Err(format!("port {} is edgecore's own or a mapper's: no rule calls it", url.address.port()));
    }
    let answered = env.timeout(ANSWER_WITHIN, exchange(method, url, body)).await;
    let status = answered.ok_or("it has not answered within 5 s")??;
    match status.is_success() {
        true => Ok(()),
        false => Err(format!("it answered {}", status.as_u16())),
    }
}

async fn exchange(method: &str, url: &LocalUrl, body: String) -> Result<http::StatusCode, String> {
    let failed = |error: &dyn std::fmt::Display| error.to_string();
    let socket = TcpStream::connect(url.address).await.map_err(|error| failed(&error))?;
    let (mut sender, connection) = httpclient::handshake(socket).await.map_err(|error| failed(&error))?;
    // What it ends with is seen by who waits for the answer.
    let connection = async move {
        let _ = connection.await;
        std::future::pending::<Infallible>().await
    };
    let request = request(method, url, body)?;
    tokio::select! {
        answer = sender.send_request(request) => answer.map(|answer| answer.status()).map_err(|error| failed(&error)),
        never = connection => match never {},
    }
}

fn request(method: &str, url: &LocalUrl, body: String) -> Result<Request<Full<Bytes>>, String> {
    let content = if body.starts_with(['{', '[']) { "application/json" } else { "text/plain; charset=utf-8" };
    let has_body = !body.is_empty();
    let mut request = Request::new(Full::new(Bytes::from(body)));
    *request.method_mut() = Method::from_bytes(method.as_bytes()).map_err(|error| error.to_string())?;
    *request.uri_mut() = url.path.clone().into();
    let host = HeaderValue::from_str(&url.address.to_string()).map_err(|error| error.to_string())?;
    request.headers_mut().insert(header::HOST, host);
    if has_body {
        request.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content));
    }
    // Mappers, at whatever port, do nothing for it.
    request.headers_mut().insert(header::USER_AGENT, HeaderValue::from_static(agent::RULES));
    Ok(request)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    /// Answers one request so, and gives back what came.
    async fn service(listener: TcpListener, answer: &'static [u8]) -> String {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut seen = Vec::new();
        while !String::from_utf8_lossy(&seen).ends_with("{\"a\":1}") {
            let mut piece = [0; 1024];
            let read = stream.read(&mut piece).await.unwrap();
            assert!(read > 0, "the request is whole");
            seen.extend_from_slice(&piece[..read]);
        }
        stream.write_all(answer).await.unwrap();
        String::from_utf8(seen).unwrap()
    }

    async fn called(answer: &'static [u8]) -> (Result<(), String>, String) {
        let env = Env::seeded(1);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = LocalUrl::parse(&format!("http://{}/horn?on=1", listener.local_addr().unwrap())).unwrap();
        let own_ports = BTreeSet::new();
        tokio::join!(
            call(&env, &own_ports, ("POST", &url), "{\"a\":1}".to_owned()),
            service(listener, answer)
        )
    }

    #[tokio::test]
    async fn a_service_is_called_and_its_status_counts() {
        let (outcome, seen) = called(b"HTTP/1.1 204 No Content\r\n\r\n").await;
        assert_eq!(outcome, Ok(()));
        assert!(seen.starts_with("POST /horn?on=1 HTTP/1.1\r\n"), "{seen}");
        assert!(
            seen.contains("content-type: application/json\r\n") && seen.contains("host: 127.0.0.1:"),
            "{seen}"
        );
        assert!(seen.contains("user-agent: edgecore-rules\r\n"), "mappers know it by this: {seen}");
        let (outcome, _) = called(b"HTTP/1.1 302 Found\r\nlocation: http://169.254.169.254/\r\n\r\n").await;
        assert_eq!(outcome, Err("it answered 302".to_owned()), "and is not followed");
        let (outcome, _) = called(b"nonsense\r\n\r\n").await;
        assert!(outcome.is_err());
    }

    #[tokio::test]
    async fn ports_of_edgecore_are_closed_and_nobody_there_is_told() {
        let env = Env::seeded(1);
        let url = LocalUrl::parse("http://127.0.0.1:10350/pods").unwrap();
        let refused = call(&env, &[10350].into(), ("GET", &url), String::new()).await.unwrap_err();
        assert!(refused.contains("edgecore's own"), "{refused}");
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let url = LocalUrl::parse(&format!("http://{free}/")).unwrap();
        let refused = call(&env, &BTreeSet::new(), ("GET", &url), String::new()).await.unwrap_err();
        assert!(refused.contains("refused"), "{refused}");
    }
}
