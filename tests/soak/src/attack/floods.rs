//! What one hostile certificate does, and what somebody without one does. Each goes on until it is dropped.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use beehive::link::{Connection, Dialer, Urgency};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::task::JoinSet;

use super::cells::{Socket, cell};
use super::raw_link::{Identity, OPEN, PING, RawLink, TELL, Transport, frame};

/// 140 silent connections: as many as the review had.
const SILENT: usize = 140;
/// What a flood does at once.
const AT_ONCE: usize = 16;
/// 5 ms: a pause where an end has nothing to do for the moment.
const PAUSE: Duration = Duration::from_millis(5);

/// A mailbox that is open to every node.
const MAILBOX: &[u8] = b"cloud-edgecontroller";

fn count(done: &AtomicU64) {
    done.fetch_add(1, Ordering::Relaxed);
}

/// A way to attack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flood {
    /// Connections that say nothing, again and again.
    Silent(Transport),
    /// Before the hello: every stream, as many bytes as are taken.
    Strangers(Transport),
    /// A hello, and the next one at once: the link of the same node over and over.
    Links(Transport),
    /// After the hello: every stream filled, named and unnamed, with frames that never end.
    Streams(Transport),
    /// After the hello: streams that come and go, and pings whose answers are not read.
    Resets(Transport),
    /// After the hello: one byte in each cell, on every stream.
    OneByteCells,
    /// Before the hello: the same.
    OneByteStrangers,
    /// Handshakes that are begun and never ended, without a certificate.
    HalfOpen(Transport),
}

impl Flood {
    pub(crate) const ALL: [Flood; 14] = [
        Flood::Silent(Transport::Quic),
        Flood::Silent(Transport::WebSocket),
        Flood::Strangers(Transport::Quic),
        Flood::Strangers(Transport::WebSocket),
        Flood::OneByteStrangers,
        Flood::Links(Transport::Quic),
        Flood::Links(Transport::WebSocket),
        Flood::Streams(Transport::Quic),
        Flood::Streams(Transport::WebSocket),
        Flood::Resets(Transport::Quic),
        Flood::Resets(Transport::WebSocket),
        Flood::OneByteCells,
        Flood::HalfOpen(Transport::Quic),
        Flood::HalfOpen(Transport::WebSocket),
    ];

    pub(crate) fn name(self) -> String {
        match self {
            Flood::Silent(transport) => format!("{SILENT} silent connections, {}", transport.name()),
            Flood::Strangers(transport) => {
                format!("every stream filled before the hello, {}", transport.name())
            }
            Flood::Links(transport) => format!("link upon link, {}", transport.name()),
            Flood::Streams(transport) => {
                format!("frames that never end on every stream, {}", transport.name())
            }
            Flood::Resets(transport) => format!("streams that come and go, {}", transport.name()),
            Flood::OneByteCells => "one-byte cells after the hello".to_owned(),
            Flood::OneByteStrangers => "one-byte cells before the hello".to_owned(),
            Flood::HalfOpen(transport) => format!("half-open handshakes, {}", transport.name()),
        }
    }

    /// Floods for ever, and counts what it did: connections, streams or packets. What CloudCore refuses is tried again.
    pub(crate) async fn run(self, who: &Identity, done: &Arc<AtomicU64>) -> Result<()> {
        let who = Arc::new(who.clone());
        let mut tasks = JoinSet::new();
        let (at_once, transport) = match self {
            Flood::Silent(transport) => (SILENT, transport),
            Flood::OneByteCells => (1, Transport::WebSocket),
            Flood::OneByteStrangers => (4, Transport::WebSocket),
            Flood::Streams(transport) | Flood::Resets(transport) => (1, transport),
            Flood::HalfOpen(Transport::Quic) => (1, Transport::Quic),
            Flood::HalfOpen(Transport::WebSocket) => (300, Transport::WebSocket),
            Flood::Strangers(transport) | Flood::Links(transport) => (AT_ONCE, transport),
        };
        let dialer = who.dialer(transport)?;
        for _ in 0..at_once {
            let (who, dialer, done) = (Arc::clone(&who), Arc::clone(&dialer), Arc::clone(done));
            tasks.spawn(async move {
                loop {
                    // Being refused is what it is for.
                    let _ = self.once(&who, &*dialer, &done).await;
                    tokio::time::sleep(PAUSE).await;
                }
            });
        }
        tasks.join_next().await.context("no flood")?.map_err(Into::into)
    }

    async fn once(self, who: &Identity, dialer: &dyn Dialer, done: &AtomicU64) -> Result<()> {
        match self {
            Flood::Silent(_) => silent(dialer, done).await,
            Flood::Strangers(_) => fill(&*dialer.dial().await?, &[], done).await,
            Flood::Links(_) => {
                let _link = RawLink::link(who, dialer).await?;
                count(done);
                Ok(())
            }
            Flood::Streams(_) => {
                let link = RawLink::link(who, dialer).await?;
                fill(&*link.connection, &frame(1, OPEN, MAILBOX), done).await
            }
            Flood::Resets(_) => resets(who, dialer, done).await,
            Flood::OneByteCells => one_byte_cells(who, true, done).await,
            Flood::OneByteStrangers => one_byte_cells(who, false, done).await,
            Flood::HalfOpen(Transport::Quic) => half_open_quic(who, done).await,
            Flood::HalfOpen(Transport::WebSocket) => half_open_tcp(who, done).await,
        }
    }
}

/// Says nothing until it is shown out.
async fn silent(dialer: &dyn Dialer, done: &AtomicU64) -> Result<()> {
    let connection = dialer.dial().await?;
    count(done);
    let _ = connection.accept().await;
    Ok(())
}

/// Opens every stream that it may: half of them with as much as is taken of `first` and a frame of 1 MiB that never ends,
/// the others with a part of a length.
async fn fill(connection: &dyn Connection, first: &[u8], done: &AtomicU64) -> Result<()> {
    let piece = [first, &frame(1, TELL, &vec![0; (1 << 20) - 1])[..900_000]].concat();
    let mut streams = Vec::new();
    for number in 0..64 {
        let Ok(opened) = tokio::time::timeout(Duration::from_secs(1), connection.open(Urgency::Work)).await
        else {
            break;
        };
        let (mut writer, reader) = opened?;
        count(done);
        let bytes = if number % 2 == 0 { &piece[..] } else { &[0, 0, 1] };
        // What is not taken is not waited for.
        let _ = tokio::time::timeout(Duration::from_millis(100), writer.write_all(bytes)).await;
        streams.push((writer, reader));
    }
    // Until it is ended.
    while connection.accept().await.is_ok() {}
    Ok(())
}

/// Streams that are opened and left, and pings whose answers nobody reads.
async fn resets(who: &Identity, dialer: &dyn Dialer, done: &AtomicU64) -> Result<()> {
    let RawLink { connection, mut writer, .. } = RawLink::link(who, dialer).await?;
    let streams = async {
        for number in 0_u64.. {
            let (mut stream, reader) = connection.open(Urgency::Work).await?;
            match number % 3 {
                0 => stream.write_all(&frame(1, OPEN, b"nobody")).await?,
                1 => stream.write_all(&[0xff; 40]).await?,
                _ => stream.write_all(&[0]).await?,
            }
            drop((stream, reader));
            count(done);
            tokio::task::yield_now().await;
        }
        anyhow::Ok(())
    };
    let pings = async {
        let many = frame(1, PING, &[]).repeat(100);
        loop {
            writer.write_all(&many).await?;
            writer.flush().await?;
        }
    };
    tokio::select! {
        ended = streams => ended,
        ended = pings => ended,
    }
}

/// Every stream that the other end takes, one byte in each cell.
async fn one_byte_cells(who: &Identity, admitted: bool, done: &AtomicU64) -> Result<()> {
    let mut socket = Socket::dial(who).await?;
    socket.send(vec![1, 0, 0, 0, 1, 0]).await?;
    if admitted {
        socket.send(cell(2, 1, &who.hello())).await?;
        socket.answered().await?;
    }
    for number in 1..72 {
        socket.feed([vec![1], (2 * number + 1_u32).to_be_bytes().to_vec(), vec![2]].concat()).await?;
    }
    // As much as a stream's own window, byte by byte; a named mailbox is never reached.
    for _ in 0..32 << 10 {
        for number in 1..72 {
            socket.feed(cell(2, 2 * number + 1, &[0])).await?;
            count(done);
        }
    }
    socket.flush().await?;
    socket.until_ended().await
}

/// First packets of QUIC whose sender never answers.
async fn half_open_quic(who: &Identity, done: &AtomicU64) -> Result<()> {
    // A client that dials this socket instead makes true first packets.
    let catch = UdpSocket::bind((who.host, 0)).await?;
    let away = Identity { quic: catch.local_addr()?.port(), ..who.clone() };
    let mut dials = JoinSet::new();
    let mut packet = vec![0; 2048];
    loop {
        let dialer = away.dialer(Transport::Quic)?;
        for _ in 0..20 {
            let dialer = Arc::clone(&dialer);
            dials.spawn(async move {
                let _ = dialer.dial().await;
            });
        }
        for _ in 0..20 {
            let received = tokio::time::timeout(Duration::from_secs(1), catch.recv_from(&mut packet)).await;
            let Ok(Ok((len, _))) = received else { break };
            let from = UdpSocket::bind((who.host, 0)).await?;
            from.send_to(&packet[..len], (who.host, who.quic)).await?;
            count(done);
        }
        dials.abort_all();
        while dials.join_next().await.is_some() {}
    }
}

/// A TCP socket over which TLS never begins, or begins with half a word.
async fn half_open_tcp(who: &Identity, done: &AtomicU64) -> Result<()> {
    let mut socket = TcpStream::connect((who.host, who.websocket)).await?;
    count(done);
    socket.write_all(&[0x16, 3, 1, 0x40, 0, 1]).await?;
    let mut rest = [0; 64];
    while socket.read(&mut rest).await? > 0 {}
    Ok(())
}
