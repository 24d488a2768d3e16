//! A WebSocket whose cells are written by hand.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use beehive::link::{tls, ws};
use futures::{SinkExt, StreamExt};
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::{HeaderValue, header};
use tokio_tungstenite::{WebSocketStream, client_async};

use super::raw_link::Identity;

/// An answer that takes longer is none.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

pub(super) struct Socket(WebSocketStream<TlsStream<TcpStream>>);

/// A cell with bytes.
pub(super) fn cell(kind: u8, stream: u32, bytes: &[u8]) -> Vec<u8> {
    [&[kind], &stream.to_be_bytes()[..], bytes].concat()
}

impl Socket {
    pub(super) async fn dial(who: &Identity) -> Result<Socket> {
        let config = tls::client(&who.credentials, ws::ALPN)?;
        let socket = TcpStream::connect((who.host, who.websocket)).await?;
        let name = ServerName::try_from(who.host)?;
        let tls = TlsConnector::from(Arc::new(config)).connect(name, socket).await?;
        let mut request = format!("wss://localhost{}", ws::PATH).into_client_request()?;
        request.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(ws::PROTOCOL));
        let (socket, _) = client_async(request, tls).await?;
        Ok(Socket(socket))
    }

    pub(super) async fn send(&mut self, cell: Vec<u8>) -> Result<()> {
        Ok(self.0.send(Message::Binary(cell.into())).await?)
    }

    /// Sends it with the next ones.
    pub(super) async fn feed(&mut self, cell: Vec<u8>) -> Result<()> {
        Ok(self.0.feed(Message::Binary(cell.into())).await?)
    }

    pub(super) async fn flush(&mut self) -> Result<()> {
        Ok(self.0.flush().await?)
    }

    /// Waits for bytes on the first stream: the answer to a hello.
    pub(super) async fn answered(&mut self) -> Result<()> {
        let answer = async {
            loop {
                match self.0.next().await.context("it ended")?? {
                    Message::Binary(cell) if matches!(cell.first(), Some(2 | 3)) => {
                        // Length, version, kind: 8 lets it in.
                        return if cell.get(10) == Some(&8) { Ok(()) } else { bail!("refused") };
                    }
                    _ => {}
                }
            }
        };
        tokio::time::timeout(ANSWER_WITHIN, answer).await.context("no answer to a hello")?
    }

    pub(super) async fn until_ended(&mut self) -> Result<()> {
        while let Some(message) = self.0.next().await {
            message?;
        }
        Ok(())
    }
}
