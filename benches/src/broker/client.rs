//! The client program: raw MQTT 3.1.1, as little of it as a measurement needs, so that what is slow is the broker.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use futures::future::try_join_all;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Interval, MissedTickBehavior, interval, timeout};

/// A reading with its name, time and unit.
const PAYLOAD: usize = 64;
/// 16 messages of one connection on the way: fewer than either broker stops at (20).
const WINDOW: usize = 16;
/// How much one round of a flood sends in all, and one of a pace.
const FLOOD: usize = 20_000;
const PACED: usize = 1_000;
const SOON: Duration = Duration::from_secs(60);

/// What is sent in one round.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    qos: u8,
    clients: usize,
    /// Messages of each connection.
    messages: usize,
    /// Between two of one connection; `None`: as fast as the window allows.
    pause: Option<Duration>,
}

impl Load {
    pub(crate) fn paced(qos: u8, clients: usize, pause: Duration) -> Load {
        Load { qos, clients, messages: PACED / clients, pause: Some(pause) }
    }

    pub(crate) fn flood(qos: u8, clients: usize) -> Load {
        Load { qos, clients, messages: FLOOD / clients, pause: None }
    }
}

/// What one round came to.
pub(crate) struct Measured {
    /// In microseconds, from the write to what was read.
    pub(crate) latencies: Vec<f64>,
    took: Duration,
}

impl Measured {
    pub(crate) fn percentile(&self, percent: usize) -> Option<f64> {
        let mut sorted = self.latencies.clone();
        sorted.sort_by(f64::total_cmp);
        sorted.get((sorted.len() * percent).div_ceil(100).saturating_sub(1)).copied()
    }

    /// Microseconds a message.
    #[allow(clippy::cast_precision_loss)] // a few thousand
    pub(crate) fn a_message(&self) -> f64 {
        self.took.as_secs_f64() * 1e6 / self.latencies.len() as f64
    }
}

/// One round.
pub(crate) async fn measure(broker: SocketAddr, load: Load) -> Result<Measured> {
    let mut clients = Vec::new();
    // One after the other: of those that have not said who they are ours takes 64 at once.
    for number in 0..load.clients {
        let client = timeout(SOON, Client::connect(broker, number, load.qos)).await;
        clients.push(client.context("broker lets nobody in")??);
    }
    let begun = Instant::now();
    let running = clients.into_iter().map(|client| client.run(load));
    let all = timeout(SOON, try_join_all(running)).await.context("messages do not come")??;
    Ok(Measured { latencies: all.concat(), took: begun.elapsed() })
}

struct Client {
    socket: TcpStream,
    topic: String,
    qos: u8,
    incoming: Vec<u8>,
    outgoing: Vec<u8>,
    /// When each message was written.
    sent: Vec<Instant>,
    latencies: Vec<f64>,
    /// Handshakes of our own messages that have not ended.
    open: usize,
}

impl Client {
    async fn connect(broker: SocketAddr, number: usize, qos: u8) -> Result<Client> {
        let mut socket = TcpStream::connect(broker).await?;
        socket.set_nodelay(true)?;
        let id = format!("bench-{number}");
        let topic = format!("bench/{number}");
        let connect = packet(0x10, &[b"\x00\x04MQTT\x04\x02\x00\x00", &text(&id)]);
        let subscribe = packet(0x82, &[b"\x00\x01", &text(&topic), &[qos]]);
        socket.write_all(&[connect, subscribe].concat()).await?;
        let mut welcome = [0; 9];
        socket.read_exact(&mut welcome).await?;
        if welcome != [0x20, 2, 0, 0, 0x90, 3, 0, 1, qos] {
            bail!("broker answers {welcome:x?}");
        }
        let (incoming, outgoing, sent, latencies) = Default::default();
        Ok(Client { socket, topic, qos, incoming, outgoing, sent, latencies, open: 0 })
    }

    async fn run(mut self, load: Load) -> Result<Vec<f64>> {
        let mut pace = load.pause.map(|pause| {
            let mut pace = interval(pause);
            pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
            pace
        });
        let mut buffer = vec![0; 16 << 10];
        while self.latencies.len() < load.messages || self.open > 0 {
            let room = self.sent.len() < load.messages && self.sent.len() - self.latencies.len() < WINDOW;
            if pace.is_none() && room {
                while self.sent.len() < load.messages && self.sent.len() - self.latencies.len() < WINDOW {
                    self.publish()?;
                }
            }
            if !self.outgoing.is_empty() {
                self.socket.write_all(&self.outgoing).await?;
                self.outgoing.clear();
            }
            tokio::select! {
                () = tick(pace.as_mut()), if room && pace.is_some() => self.publish()?,
                read = self.socket.read(&mut buffer) => {
                    let count = read?;
                    if count == 0 {
                        bail!("broker closes the connection");
                    }
                    self.incoming.extend_from_slice(&buffer[..count]);
                    self.take()?;
                }
            }
        }
        let _ = self.socket.write_all(&packet(0xe0, &[])).await;
        Ok(self.latencies)
    }

    fn publish(&mut self) -> Result<()> {
        let number = self.sent.len();
        // Never the same for two that are on the way.
        let pkid = u16::try_from(1 + number % 10_000)?;
        let mut payload = [b'x'; PAYLOAD];
        payload[..8].copy_from_slice(&u64::try_from(number)?.to_be_bytes());
        let topic = text(&self.topic);
        let pkid = if self.qos > 0 { pkid.to_be_bytes().to_vec() } else { Vec::new() };
        self.outgoing.extend(packet(0x30 | self.qos << 1, &[&topic, &pkid, &payload]));
        self.open += usize::from(self.qos > 0);
        self.sent.push(Instant::now());
        Ok(())
    }

    /// Takes the packets that are there.
    fn take(&mut self) -> Result<()> {
        let mut at = 0;
        while let Some(&[first, length]) = self.incoming.get(at..at + 2) {
            // Nothing here is longer than 127 bytes.
            let end = at + 2 + usize::from(length);
            let Some(body) = self.incoming.get(at + 2..end) else { break };
            let pkid = [body.first().copied().unwrap_or_default(), body.get(1).copied().unwrap_or_default()];
            match first >> 4 {
                3 => {
                    let qos = (first >> 1) & 3;
                    let name = 2 + self.topic.len();
                    let after = name + if qos > 0 { 2 } else { 0 };
                    let number: [u8; 8] = body.get(after..after + 8).context("short message")?.try_into()?;
                    let sent = self
                        .sent
                        .get(usize::try_from(u64::from_be_bytes(number))?)
                        .context("foreign message")?;
                    self.latencies.push(sent.elapsed().as_secs_f64() * 1e6);
                    let pkid = body.get(name..after).unwrap_or_default();
                    match qos {
                        1 => self.outgoing.extend(packet(0x40, &[pkid])),
                        2 => self.outgoing.extend(packet(0x50, &[pkid])),
                        _ => {}
                    }
                }
                4 | 7 => self.open -= 1,
                5 => self.outgoing.extend(packet(0x62, &[&pkid])),
                6 => self.outgoing.extend(packet(0x70, &[&pkid])),
                other => bail!("broker sends a packet of type {other}"),
            }
            at = end;
        }
        self.incoming.drain(..at);
        Ok(())
    }
}

async fn tick(pace: Option<&mut Interval>) {
    if let Some(pace) = pace {
        pace.tick().await;
    }
}

fn text(text: &str) -> Vec<u8> {
    let length = u16::try_from(text.len()).unwrap_or(u16::MAX);
    [length.to_be_bytes().as_slice(), text.as_bytes()].concat()
}

/// A packet of at most 127 bytes behind its header.
fn packet(first: u8, parts: &[&[u8]]) -> Vec<u8> {
    let body = parts.concat();
    let length = u8::try_from(body.len()).unwrap_or(u8::MAX);
    [[first, length].as_slice(), &body].concat()
}
