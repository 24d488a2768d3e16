//! MQTT over WebSocket (MQTT 5, section 6): who may open one, and how. tungstenite reads and writes the frames.

mod allowance;
mod frames;
mod upgrade_refusal;

use std::net::IpAddr;

use tokio::io::AsyncWriteExt as _;
use tokio_tungstenite::accept_hdr_async_with_config;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::http::{HeaderValue, StatusCode, header};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

use crate::error::ConnectionError;
use crate::plan;
use crate::stream::Stream;

pub(crate) use allowance::Allowance;
use frames::Frames;

/// Subprotocols that clients ask for: that of MQTT 3.1.1 and 5, and what clients of 3.1 called it.
const PROTOCOLS: [&str; 2] = ["mqtt", "mqttv3.1"];
/// 4 KiB of a frame are read at a time, and as much is kept for each connection.
const READ_BYTES: usize = 4 << 10;

/// Who may open one.
#[derive(Debug, Clone, Default)]
pub(crate) struct Rules {
    path: String,
    origins: Vec<String>,
    /// Bytes of the largest frame: a packet of the largest size fits, with its fixed header.
    frame_bytes: usize,
}

impl Rules {
    pub(crate) fn of(config: &config::edge::EventBus) -> Self {
        let packet = usize::try_from(config.max_message_bytes).unwrap_or(usize::MAX);
        Rules {
            path: config.web_socket.path.clone(),
            origins: config.web_socket.allowed_origins.clone(),
            frame_bytes: packet.saturating_add(5),
        }
    }

    /// The subprotocol to go on with, or why not.
    fn judge(&self, request: &Request) -> Result<&'static str, (StatusCode, &'static str)> {
        if request.uri().path() != self.path {
            return Err((StatusCode::NOT_FOUND, "nothing is here; see modules.eventBus.webSocket.path"));
        }
        let text = |name| request.headers().get(name).and_then(|value: &HeaderValue| value.to_str().ok());
        if !self.is_welcome(text(header::ORIGIN), text(header::HOST)) {
            let what = "pages of this origin may not connect; see modules.eventBus.webSocket.allowedOrigins";
            return Err((StatusCode::FORBIDDEN, what));
        }
        let asked = request.headers().get_all(header::SEC_WEBSOCKET_PROTOCOL).iter();
        let asked = asked.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
        let known = asked.filter_map(|one| PROTOCOLS.into_iter().find(|known| *known == one.trim()));
        known.min().ok_or((StatusCode::BAD_REQUEST, "no subprotocol mqtt in Sec-WebSocket-Protocol"))
    }

    /// Whether a page may connect that comes from `origin`. A browser lets every page of any site try, also with a broker that only
    /// its own machine reaches.
    fn is_welcome(&self, origin: Option<&str>, host: Option<&str>) -> bool {
        // Only browsers say where their page is from.
        let Some(origin) = origin else { return true };
        let is_listed = |known: &String| known == "*" || known.eq_ignore_ascii_case(origin);
        if self.origins.iter().any(is_listed) {
            return true;
        }
        // A name can be made to lead here by whoever has it; an address cannot.
        let from = origin.split_once("://").map(|(_, from)| from);
        match (from, host) {
            (Some(from), Some(host)) => from.eq_ignore_ascii_case(host) && is_address(host),
            _ => false,
        }
    }
}

/// Whether `HOST[:PORT]` has an address, or `localhost`.
fn is_address(host: &str) -> bool {
    let bare = match host.rsplit_once(':') {
        Some((bare, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) && !bare.ends_with(':') => bare,
        _ => host,
    };
    let bare = bare.strip_prefix('[').and_then(|bare| bare.strip_suffix(']')).unwrap_or(bare);
    bare.eq_ignore_ascii_case("localhost") || bare.parse::<IpAddr>().is_ok()
}

/// The handshake. As long as `allowance` is not lifted, little is read that is not handed on.
#[allow(clippy::result_large_err, reason = "tungstenite's callback has this form")]
pub(crate) async fn accept(
    stream: Stream,
    rules: &Rules,
    allowance: &Allowance,
) -> Result<Stream, ConnectionError> {
    let judge = |request: &Request, mut response: Response| match rules.judge(request) {
        Ok(protocol) => {
            response.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(protocol));
            Ok(response)
        }
        Err((status, what)) => Err(refusal(status, what)),
    };
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BYTES)
        // Each write goes out as it is: what is written together was put together before.
        .write_buffer_size(0)
        .max_message_size(Some(rules.frame_bytes))
        .max_frame_size(Some(rules.frame_bytes));
    let mut metered = allowance.meter(stream);
    match accept_hdr_async_with_config(metered.clone(), judge, Some(config)).await {
        Ok(opened) => Ok(Stream::Layered(Box::pin(Frames::new(opened)))),
        Err(error) => {
            if let Some(answer) = upgrade_refusal::answer(&error) {
                // Whether it is taken changes nothing: the connection ends.
                let _ = metered.write_all(&answer).await;
                let _ = metered.shutdown().await;
            }
            Err(ConnectionError::Upgrade(Box::new(error)))
        }
    }
}

fn refusal(status: StatusCode, what: &str) -> ErrorResponse {
    let mut response = ErrorResponse::new(Some(format!("{what}\n")));
    *response.status_mut() = status;
    response
}

impl Allowance {
    /// For a connection whose CONNECT is still to come: the request, and the frame that the CONNECT is in.
    pub(crate) fn of_newcomer() -> Self {
        Allowance::new(plan::UPGRADE_BYTES + plan::CONNECT_BYTES)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(path: &str, headers: &[(&str, &str)]) -> Request {
        let mut request = tokio_tungstenite::tungstenite::http::Request::builder().uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap()
    }

    fn rules(origins: &[&str]) -> Rules {
        let origins = origins.iter().map(|origin| (*origin).to_owned()).collect();
        Rules { path: "/mqtt".to_owned(), origins, frame_bytes: 1024 }
    }

    #[test]
    fn a_client_names_the_path_and_the_subprotocol() {
        let judged = |path: &str, protocol: &str| {
            rules(&[])
                .judge(&request(path, &[("sec-websocket-protocol", protocol)]))
                .map_err(|(status, _)| status)
        };
        assert_eq!(judged("/mqtt", "mqtt"), Ok("mqtt"));
        assert_eq!(judged("/mqtt?x=1", "chat, mqttv3.1,mqtt"), Ok("mqtt"));
        assert_eq!(judged("/mqtt", "mqttv3.1"), Ok("mqttv3.1"));
        assert_eq!(judged("/mqtt", "chat"), Err(StatusCode::BAD_REQUEST));
        assert_eq!(judged("/", "mqtt"), Err(StatusCode::NOT_FOUND));
        let none = rules(&[]).judge(&request("/mqtt", &[])).map_err(|(status, _)| status);
        assert_eq!(none, Err(StatusCode::BAD_REQUEST));
    }

    #[test]
    fn a_page_connects_from_the_listeners_own_address_or_a_listed_origin() {
        let welcome = |rules: Rules, origin: &str, host: &str| rules.is_welcome(Some(origin), Some(host));
        assert!(rules(&[]).is_welcome(None, Some("127.0.0.1:8083")));
        for (origin, host) in [
            ("http://127.0.0.1:8083", "127.0.0.1:8083"),
            ("https://[fd00::1]:8083", "[fd00::1]:8083"),
            ("http://localhost", "LOCALHOST"),
        ] {
            assert!(welcome(rules(&[]), origin, host), "{origin}");
        }
        for (origin, host) in [
            ("https://evil.example", "127.0.0.1:8083"),
            // A name that its owner has lead here.
            ("http://evil.example:8083", "evil.example:8083"),
            ("null", "127.0.0.1:8083"),
            ("http://127.0.0.1:8084", "127.0.0.1:8083"),
        ] {
            assert!(!welcome(rules(&["https://panel.example"]), origin, host), "{origin}");
            assert!(welcome(rules(&["*"]), origin, host), "{origin}");
        }
        assert!(welcome(rules(&["https://panel.example"]), "https://PANEL.example", "edge-1:8083"));
    }
}
