//! Ends that write their frames by hand: one that keeps to the rules and is watched, and those that do not.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use beehive::TokioClock;
use beehive::link::quic_dialer::QuicDialer;
use beehive::link::tls::Credentials;
use beehive::link::ws::WebSocketDialer;
use beehive::link::{Connection, Dialer, Reader, Urgency, Writer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

pub(crate) const OPEN: u8 = 1;
pub(crate) const TELL: u8 = 2;
const HELLO: u8 = 7;
const HELLO_ACK: u8 = 8;
const REFUSE: u8 = 9;
pub(crate) const PING: u8 = 10;
const PONG: u8 = 11;
/// 8 KiB: what is read of CloudCore's first stream is shorter.
const SHORT: u32 = 8 << 10;
/// An answer that takes longer is none.
const ANSWER_WITHIN: Duration = Duration::from_secs(20);

/// What carries a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transport {
    Quic,
    WebSocket,
}

impl Transport {
    pub(crate) const BOTH: [Transport; 2] = [Transport::Quic, Transport::WebSocket];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Transport::Quic => "QUIC",
            Transport::WebSocket => "WebSocket",
        }
    }
}

/// One node of a hand-made fleet: who it is, and where its cloud listens.
#[derive(Clone)]
pub(crate) struct Identity {
    pub(crate) node: String,
    pub(crate) credentials: Credentials,
    /// The address that it dials, and so the one from which it comes.
    pub(crate) host: &'static str,
    pub(crate) quic: u16,
    pub(crate) websocket: u16,
}

impl Identity {
    pub(crate) fn dialer(&self, transport: Transport) -> Result<Arc<dyn Dialer>> {
        let host = self.host;
        Ok(match transport {
            Transport::Quic => Arc::new(QuicDialer::new(host, self.quic, &self.credentials)?),
            Transport::WebSocket => {
                let clock = Arc::new(TokioClock::real());
                Arc::new(WebSocketDialer::new(host, self.websocket, &self.credentials, clock)?)
            }
        })
    }

    /// The hello of this node, as a frame.
    pub(crate) fn hello(&self) -> Vec<u8> {
        let name = format!("system:node:{}", self.node);
        let length = u8::try_from(name.len()).unwrap_or(u8::MAX);
        // Wire version 1 alone, and no capabilities.
        frame(0, HELLO, &[&[1, 1, length], name.as_bytes(), &[0]].concat())
    }
}

/// A frame as bytes.
pub(crate) fn frame(version: u8, kind: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = u32::try_from(16 + body.len()).unwrap_or(u32::MAX).to_be_bytes().to_vec();
    bytes.extend([version, kind]);
    bytes.extend([0; 14]);
    bytes.extend(body);
    bytes
}

async fn next(reader: &mut Reader) -> Result<(u8, Vec<u8>)> {
    let len = reader.read_u32().await?;
    if !(16..=SHORT).contains(&len) {
        bail!("a frame of {len} bytes on the first stream");
    }
    let mut bytes = vec![0; len as usize];
    reader.read_exact(&mut bytes).await?;
    Ok((bytes[1], bytes.split_off(16)))
}

/// A link that was let in. What CloudCore sends on streams of its own is not read.
pub(crate) struct RawLink {
    pub(crate) connection: Box<dyn Connection>,
    pub(crate) writer: Writer,
    pub(crate) reader: Reader,
}

impl RawLink {
    /// Dials and says hello.
    pub(crate) async fn link(identity: &Identity, dialer: &dyn Dialer) -> Result<RawLink> {
        let link = async {
            let connection = dialer.dial().await?;
            let (mut writer, mut reader) = connection.open(Urgency::Link).await?;
            writer.write_all(&identity.hello()).await?;
            writer.flush().await?;
            match next(&mut reader).await? {
                (HELLO_ACK, _) => Ok(RawLink { connection, writer, reader }),
                (REFUSE, why) => bail!("refused: {}", String::from_utf8_lossy(&why)),
                (kind, _) => bail!("a frame of kind {kind} in answer to a hello"),
            }
        };
        tokio::time::timeout(ANSWER_WITHIN, link).await.context("no link in time")?
    }

    /// Asks whether it is there; answers how long the answer took.
    pub(crate) async fn round_trip(&mut self) -> Result<Duration> {
        let begun = Instant::now();
        self.writer.write_all(&frame(1, PING, &[])).await?;
        self.writer.flush().await?;
        let answered = async {
            loop {
                match next(&mut self.reader).await? {
                    (PONG, _) => return anyhow::Ok(()),
                    (PING, _) => {
                        self.writer.write_all(&frame(1, PONG, &[])).await?;
                        self.writer.flush().await?;
                    }
                    _ => {}
                }
            }
        };
        tokio::time::timeout(ANSWER_WITHIN, answered).await.context("no answer to a ping")??;
        Ok(begun.elapsed())
    }
}
