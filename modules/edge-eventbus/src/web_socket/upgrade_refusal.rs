//! What is answered to a request that asks for no WebSocket, or for one that we do not speak: tungstenite gives such a request up without
//! a word. What is no HTTP is none of ours to answer.

use tokio_tungstenite::tungstenite::Error;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::http::header::{
    ALLOW, CONNECTION, CONTENT_LENGTH, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use tokio_tungstenite::tungstenite::http::{Response, StatusCode};

/// The one version (RFC 6455, section 4.1).
const VERSION: &str = "13";

/// The answer, or `None` where there was no request.
pub(super) fn answer(error: &Error) -> Option<Vec<u8>> {
    let Error::Protocol(error) = error else { return None };
    let (status, words) = match error {
        ProtocolError::MissingConnectionUpgradeHeader | ProtocolError::MissingUpgradeWebSocketHeader => {
            (StatusCode::UPGRADE_REQUIRED, "here is MQTT over WebSocket: ask for `Upgrade: websocket`\n")
        }
        // RFC 6455, section 4.4.
        ProtocolError::MissingSecWebSocketVersionHeader => (
            StatusCode::UPGRADE_REQUIRED,
            "version 13 of WebSocket is spoken here: Sec-WebSocket-Version: 13\n",
        ),
        ProtocolError::WrongHttpMethod => {
            (StatusCode::METHOD_NOT_ALLOWED, "a WebSocket is asked for with GET\n")
        }
        ProtocolError::WrongHttpVersion => {
            (StatusCode::HTTP_VERSION_NOT_SUPPORTED, "a WebSocket is asked for with HTTP/1.1\n")
        }
        ProtocolError::MissingSecWebSocketKey | ProtocolError::InvalidSecWebSocketKey => {
            (StatusCode::BAD_REQUEST, "Sec-WebSocket-Key has to be 16 bytes in Base64\n")
        }
        _ => return None,
    };
    let answer = Response::builder().status(status).header(CONTENT_LENGTH, words.len());
    let answer = match status {
        StatusCode::UPGRADE_REQUIRED => answer
            .header(CONNECTION, "Upgrade, close")
            .header(UPGRADE, "websocket")
            .header(SEC_WEBSOCKET_VERSION, VERSION),
        StatusCode::METHOD_NOT_ALLOWED => answer.header(CONNECTION, "close").header(ALLOW, "GET"),
        _ => answer.header(CONNECTION, "close"),
    };
    let mut bytes = Vec::new();
    tokio_tungstenite::tungstenite::handshake::server::write_response(&mut bytes, &answer.body(()).ok()?)
        .ok()?;
    bytes.extend_from_slice(words.as_bytes());
    Some(bytes)
}
