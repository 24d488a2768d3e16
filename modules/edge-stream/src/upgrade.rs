//! Upgraded connections to the runtime's streaming server.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use beehive::Clock;
use contract::stream::{RESPONSE_HEADERS, header, passes};
use http::Uri;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;

use crate::error::Refusal;
use crate::splice::{SpliceEnd, splice};

/// 16 KiB: the head of the runtime's answer.
const HEAD_MAX: usize = 16 << 10;
/// 64 header fields of it.
const FIELDS_MAX: usize = 64;
/// 64 KiB of the body of a refusal.
const BODY_MAX: usize = 64 << 10;
/// 30 s for the runtime to take the connection and to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// What of a client's headers the runtime needs for the upgrade.
const HANDED_ON: [&str; 7] = [
    "x-stream-protocol-version",
    "sec-websocket-extensions",
    "sec-websocket-key",
    "sec-websocket-protocol",
    "sec-websocket-version",
    "origin",
    "user-agent",
];

/// A connection to the runtime that it has upgraded.
#[derive(Debug)]
pub(crate) struct Upgraded {
    pub(crate) headers: Vec<(String, String)>,
    runtime: TcpStream,
    /// What came behind the head of its answer.
    begun: Vec<u8>,
    _place: OwnedSemaphorePermit,
}

/// Whether a client asks for an upgrade.
pub(crate) fn is_upgrade(headers: &[(String, String)]) -> bool {
    let asks = |value: &str| value.split(',').any(|token| token.trim().eq_ignore_ascii_case("upgrade"));
    let mut connection = headers.iter().filter(|(name, _)| name == "connection");
    connection.any(|(_, value)| asks(value)) && header(headers, "upgrade").is_some()
}

/// Whether it is one to WebSocket.
pub(crate) fn is_web_socket(headers: &[(String, String)]) -> bool {
    let to = header(headers, "upgrade").is_some_and(|to| to.eq_ignore_ascii_case("websocket"));
    to && is_upgrade(headers)
}

/// Asks the runtime's streaming server at `url` for the upgrade that the client asks for. Only loopback is dialled, whatever
/// the URL says.
pub(crate) async fn connect(
    url: &str,
    method: &str,
    headers: &[(String, String)],
    place: OwnedSemaphorePermit,
    clock: &dyn Clock,
) -> Result<Upgraded, Refusal> {
    let url = address(url)?;
    let talk = async {
        let failed = |error: std::io::Error| {
            Refusal::failed(format!("error dialing the runtime at {}: {error}", url.address))
        };
        let mut runtime = TcpStream::connect(url.address).await.map_err(failed)?;
        let _ = runtime.set_nodelay(true);
        runtime.write_all(request(&url, method, headers).as_bytes()).await.map_err(failed)?;
        let (head, begun) = answer(&mut runtime).await?;
        if head.status == 101 {
            return Ok(Upgraded { headers: head.headers, runtime, begun, _place: place });
        }
        Err(refusal(head, begun, &mut runtime).await)
    };
    tokio::select! {
        answer = talk => answer,
        () = clock.sleep(ANSWER_WITHIN) => Err(Refusal::failed(format!(
            "the runtime at {} did not answer within {} s", url.address, ANSWER_WITHIN.as_secs()
        ))),
    }
}

struct Url {
    address: SocketAddr,
    /// As the runtime wrote them.
    authority: String,
    path: String,
}

fn address(url: &str) -> Result<Url, Refusal> {
    let refused = |what: &str| Refusal::failed(format!("the runtime's streaming URL {what}"));
    let uri: Uri = url.parse().map_err(|_| refused("is none"))?;
    if uri.scheme_str() != Some("http") {
        return Err(refused("is not http; containerd: enable_tls_streaming has to be off"));
    }
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    let ip: Option<IpAddr> = host.parse().ok().filter(IpAddr::is_loopback);
    let ip = ip.ok_or_else(|| refused("is not on loopback; containerd: stream_server_address"))?;
    let port = uri.port_u16().ok_or_else(|| refused("has no port"))?;
    let path = uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
    let authority = uri.authority().map(|authority| authority.as_str().to_owned()).unwrap_or_default();
    Ok(Url { address: SocketAddr::new(ip, port), authority, path })
}

fn request(url: &Url, method: &str, headers: &[(String, String)]) -> String {
    let upgrade = header(headers, "upgrade").unwrap_or_default();
    let mut text = format!(
        "{method} {} HTTP/1.1\r\nhost: {}\r\nconnection: Upgrade\r\nupgrade: {upgrade}\r\n",
        url.path, url.authority
    );
    for (name, value) in headers.iter().filter(|(name, _)| HANDED_ON.contains(&name.as_str())) {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    if method == "POST" {
        text.push_str("content-length: 0\r\n");
    }
    text.push_str("\r\n");
    text
}

#[derive(Debug)]
struct Head {
    status: u16,
    headers: Vec<(String, String)>,
    length: Option<usize>,
}

/// The head of the runtime's answer, and what came behind it.
async fn answer(runtime: &mut TcpStream) -> Result<(Head, Vec<u8>), Refusal> {
    let mut bytes = Vec::new();
    loop {
        if let Some((head, length)) = parse(&bytes)? {
            return Ok((head, bytes.split_off(length)));
        }
        if bytes.len() >= HEAD_MAX {
            return Err(Refusal::failed("the runtime's answer to an upgrade has a head of more than 16 KiB"));
        }
        let read = runtime.read_buf(&mut bytes).await;
        if read.map_err(|error| Refusal::failed(format!("the runtime broke off: {error}")))? == 0 {
            return Err(Refusal::failed("the runtime ended the connection without an answer"));
        }
    }
}

fn parse(bytes: &[u8]) -> Result<Option<(Head, usize)>, Refusal> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut response = httparse::Response::new(&mut fields);
    let parsed = response.parse(bytes);
    let parsed =
        parsed.map_err(|error| Refusal::failed(format!("the runtime's answer is no HTTP: {error}")))?;
    let httparse::Status::Complete(length) = parsed else { return Ok(None) };
    let mut head = Head { status: response.code.unwrap_or_default(), headers: Vec::new(), length: None };
    for field in response.headers.iter() {
        let (name, value) =
            (field.name.to_ascii_lowercase(), String::from_utf8_lossy(field.value).into_owned());
        match name.as_str() {
            "content-length" => head.length = value.parse().ok(),
            _ if passes(RESPONSE_HEADERS, &name, &value) => head.headers.push((name, value)),
            _ => {}
        }
    }
    Ok(Some((head, length)))
}

/// What the runtime said instead of upgrading.
async fn refusal(head: Head, mut body: Vec<u8>, runtime: &mut TcpStream) -> Refusal {
    if head.status < 400 {
        return Refusal::failed(format!("invalid upgrade response: status code {}", head.status));
    }
    let wanted = head.length.unwrap_or(0).min(BODY_MAX);
    while body.len() < wanted {
        match runtime.read_buf(&mut body).await {
            Ok(1..) => {}
            Ok(0) | Err(_) => break,
        }
    }
    body.truncate(wanted);
    let mut refusal = Refusal::new(head.status, String::from_utf8_lossy(&body).into_owned());
    // Whether the connection goes on is each connection's own business.
    refusal.headers = head.headers.into_iter().filter(|(name, _)| name != "connection").collect();
    refusal
}

impl Upgraded {
    /// Hands bytes on, both ways, until that is over. What the runtime has not read by then is thrown away if it is over before both
    /// sides have ended: else the kernel would keep it for a runtime that reads nothing.
    pub(crate) async fn splice(
        mut self,
        client: &mut (impl AsyncRead + AsyncWrite + Unpin),
        clock: &dyn Clock,
    ) -> Result<(), SpliceEnd> {
        client.write_all(&self.begun).await.map_err(SpliceEnd::Client)?;
        self.begun = Vec::new();
        let ended = splice(client, &mut self.runtime, clock).await;
        if ended.is_err() {
            let _ = self.runtime.set_zero_linger();
        }
        ended
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_is_dialled() {
        let url = address("http://127.0.0.1:41000/exec/abc").unwrap();
        assert_eq!((url.address.to_string().as_str(), url.path.as_str()), ("127.0.0.1:41000", "/exec/abc"));
        assert_eq!(address("http://[::1]:80/x").unwrap().address.to_string(), "[::1]:80");
        for url in [
            "http://192.0.2.1:80/exec/abc",
            "http://localhost:80/",
            "https://127.0.0.1:80/",
            "http://127.0.0.1/",
            "//",
            "http://127.0.0.1@192.0.2.1:80/",
        ] {
            assert_eq!(address(url).err().map(|refusal| refusal.status), Some(500), "{url}");
        }
    }

    #[test]
    fn an_upgrade_is_told_by_both_headers() {
        let of = |headers: &[(&str, &str)]| {
            headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect::<Vec<_>>()
        };
        assert!(is_upgrade(&of(&[("connection", "keep-alive, Upgrade"), ("upgrade", "SPDY/3.1")])));
        assert!(!is_upgrade(&of(&[("upgrade", "SPDY/3.1")])));
        assert!(!is_upgrade(&of(&[("connection", "upgrade")])));
        assert!(is_web_socket(&of(&[("connection", "Upgrade"), ("upgrade", "WebSocket")])));
        assert!(!is_web_socket(&of(&[("connection", "Upgrade"), ("upgrade", "SPDY/3.1")])));
    }

    #[test]
    fn the_runtime_hears_of_no_header_but_the_upgrades() {
        let headers = [
            ("upgrade", "SPDY/3.1"),
            ("connection", "Upgrade"),
            ("x-stream-protocol-version", "v4.channel.k8s.io"),
            ("x-stream-protocol-version", "v3.channel.k8s.io"),
            ("accept", "*/*"),
        ];
        let headers: Vec<_> =
            headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let url = address("http://127.0.0.1:41000/exec/abc").unwrap();
        let expected = "POST /exec/abc HTTP/1.1\r\nhost: 127.0.0.1:41000\r\nconnection: Upgrade\r\nupgrade: SPDY/3.1\r\n\
                        x-stream-protocol-version: v4.channel.k8s.io\r\nx-stream-protocol-version: v3.channel.k8s.io\r\n\
                        content-length: 0\r\n\r\n";
        assert_eq!(request(&url, "POST", &headers), expected);
    }

    #[test]
    fn an_answer_is_read_when_it_is_whole() {
        let text = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\nSet-Cookie: a\r\n\r\nrest";
        assert!(parse(&text[..40]).unwrap().is_none());
        let (head, length) = parse(text).unwrap().unwrap();
        assert_eq!((head.status, &text[length..]), (101, &b"rest"[..]));
        let names: Vec<&str> = head.headers.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["connection", "upgrade"]);
        assert_eq!(parse(b"SSH-2.0\r\n\r\n").unwrap_err().status, 500);
    }
}
