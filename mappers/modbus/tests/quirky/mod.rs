//! A Modbus device that has one quirk or another, which no library's server has.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep, timeout};

/// What is odd about a device.
#[derive(Clone, Default)]
pub(crate) struct Quirks {
    /// It takes one connection; further ones are closed at once.
    pub(crate) takes_one: bool,
    /// It closes a connection on which nothing was asked for so long.
    pub(crate) closes_idle: Option<Duration>,
    /// What comes earlier than that after a connection or an answer is lost.
    pub(crate) deaf_after_connect: Duration,
    pub(crate) deaf_between: Duration,
    /// Functions that it does not know.
    pub(crate) unknown: BTreeSet<u8>,
    /// It refuses more registers at once with this exception.
    pub(crate) most: Option<(u16, u8)>,
    /// Registers that never answer, and those that are not there.
    pub(crate) silent: BTreeSet<u16>,
    pub(crate) missing: BTreeSet<u16>,
    /// It answers so many requests with exception 6 first.
    pub(crate) busy: usize,
    /// The next answer comes that late.
    pub(crate) late: Duration,
    /// It closes the connection instead of answering writes.
    pub(crate) cuts_at_writes: bool,
    /// Units that a gateway does not reach.
    pub(crate) unreached: BTreeSet<u8>,
    /// It answers each request under this transaction id.
    pub(crate) answers_under: Option<u16>,
    /// RTU frames instead of those of TCP.
    pub(crate) is_rtu: bool,
    /// It closes each connection before it has heard anything.
    pub(crate) closes_at_once: bool,
    /// It refuses everything with this exception.
    pub(crate) refuses_with: Option<u8>,
    /// The last byte of each answer is another one, which in RTU is of the checksum.
    pub(crate) spoils_the_end: bool,
    /// It says this whatever it is asked.
    pub(crate) says: Option<&'static [u8]>,
}

#[derive(Default)]
pub(crate) struct Inside {
    pub(crate) quirks: Quirks,
    pub(crate) registers: BTreeMap<u16, u16>,
    pub(crate) coils: BTreeMap<u16, bool>,
    /// Unit, function, address and count or value of each request.
    pub(crate) asked: Vec<(u8, u8, u16, u16)>,
    pub(crate) connections: usize,
    open: usize,
}

#[derive(Clone)]
pub(crate) struct Quirky {
    pub(crate) inside: Arc<Mutex<Inside>>,
    pub(crate) address: SocketAddr,
}

impl Quirky {
    pub(crate) async fn start(quirks: Quirks) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let device = Quirky { inside: Arc::new(Mutex::new(Inside { quirks, ..Inside::default() })), address };
        let serving = device.clone();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let is_refused = {
                    let mut inside = serving.inside.lock().unwrap();
                    inside.connections += 1;
                    inside.quirks.closes_at_once || inside.quirks.takes_one && inside.open > 0
                };
                if !is_refused {
                    serving.inside.lock().unwrap().open += 1;
                    tokio::spawn(serving.clone().connection(stream));
                }
            }
        });
        device
    }

    pub(crate) fn set(&self, register: u16, value: u16) {
        self.inside.lock().unwrap().registers.insert(register, value);
    }

    pub(crate) fn get(&self, register: u16) -> u16 {
        self.inside.lock().unwrap().registers.get(&register).copied().unwrap_or_default()
    }

    pub(crate) fn change(&self, change: impl FnOnce(&mut Quirks)) {
        change(&mut self.inside.lock().unwrap().quirks);
    }

    pub(crate) fn asked(&self, function: u8) -> usize {
        self.inside.lock().unwrap().asked.iter().filter(|(_, asked, ..)| *asked == function).count()
    }

    async fn connection(self, mut stream: TcpStream) {
        self.serve(&mut stream).await;
        self.inside.lock().unwrap().open -= 1;
    }

    async fn serve(&self, stream: &mut TcpStream) {
        let quirks = self.inside.lock().unwrap().quirks.clone();
        let mut hears_from = Instant::now() + quirks.deaf_after_connect;
        loop {
            let request = self.request(stream);
            let request = match quirks.closes_idle {
                Some(idle) => timeout(idle, request).await.unwrap_or(None),
                None => request.await,
            };
            let Some((head, unit, pdu)) = request else { return };
            if Instant::now() < hears_from {
                continue;
            }
            let word = |at: usize| u16::from_be_bytes([pdu[at], pdu[at + 1]]);
            let (function, address, number) = (pdu[0], word(1), word(3));
            let answer = {
                let mut inside = self.inside.lock().unwrap();
                inside.asked.push((unit, function, address, number));
                inside.answer(unit, &pdu)
            };
            let quirks = self.inside.lock().unwrap().quirks.clone();
            if quirks.cuts_at_writes && function > 4 {
                return;
            }
            let Some(answer) = answer else { continue };
            let late = std::mem::take(&mut self.inside.lock().unwrap().quirks.late);
            sleep(late).await;
            let head = quirks.answers_under.map_or(head, u16::to_be_bytes);
            let mut frame = framed(quirks.is_rtu, &head, unit, &answer);
            if let Some(last) = frame.last_mut().filter(|_| quirks.spoils_the_end) {
                *last ^= 0x55;
            }
            if stream.write_all(quirks.says.unwrap_or(&frame)).await.is_err() {
                return;
            }
            hears_from = Instant::now() + quirks.deaf_between;
        }
    }

    /// The head's transaction, the unit and what is asked.
    async fn request(&self, stream: &mut TcpStream) -> Option<([u8; 2], u8, Vec<u8>)> {
        if !self.inside.lock().unwrap().quirks.is_rtu {
            let mut head = [0; 7];
            stream.read_exact(&mut head).await.ok()?;
            let mut pdu = vec![0; usize::from(u16::from_be_bytes([head[4], head[5]])) - 1];
            stream.read_exact(&mut pdu).await.ok()?;
            return Some(([head[0], head[1]], head[6], pdu));
        }
        let mut fixed = [0; 6];
        stream.read_exact(&mut fixed).await.ok()?;
        let mut frame = fixed.to_vec();
        if matches!(fixed[1], 15 | 16) {
            frame.push(stream.read_u8().await.ok()?);
        }
        let rest = if matches!(fixed[1], 15 | 16) { usize::from(frame[6]) } else { 0 };
        let mut more = vec![0; rest + 2];
        stream.read_exact(&mut more).await.ok()?;
        frame.extend(more);
        let checked = frame.len() - 2;
        assert_eq!(crc(&frame[..checked]).to_le_bytes(), frame[checked..], "a bad checksum");
        Some(([0, 0], frame[0], frame[1..checked].to_vec()))
    }
}

impl Inside {
    /// None: it stays silent.
    fn answer(&mut self, unit: u8, pdu: &[u8]) -> Option<Vec<u8>> {
        let word = |at: usize| u16::from_be_bytes([pdu[at], pdu[at + 1]]);
        let (function, address, number) = (pdu[0], word(1), word(3));
        let refused = |exception| Some(vec![function | 0x80, exception]);
        if let Some(exception) = self.quirks.refuses_with {
            return refused(exception);
        }
        if self.quirks.unreached.contains(&unit) {
            return refused(11);
        }
        if self.quirks.busy > 0 {
            self.quirks.busy -= 1;
            return refused(6);
        }
        if self.quirks.unknown.contains(&function) {
            return refused(1);
        }
        let span = match function {
            1..=4 | 15 | 16 => address..address + number,
            _ => address..address + 1,
        };
        if let Some((most, exception)) = self.quirks.most
            && number > most
            && function == 3
        {
            return refused(exception);
        }
        if span.clone().any(|at| self.quirks.silent.contains(&at)) {
            return None;
        }
        if span.clone().any(|at| self.quirks.missing.contains(&at)) {
            return refused(2);
        }
        let register = |inside: &Self, at: u16| inside.registers.get(&at).copied().unwrap_or_default();
        Some(match function {
            1 => {
                let bits = span
                    .enumerate()
                    .map(|(at, of)| u16::from(self.coils.get(&of).copied().unwrap_or_default()) << at);
                vec![1, 1, u8::try_from(bits.sum::<u16>()).unwrap()]
            }
            3 | 4 => {
                let words = span.flat_map(|at| register(self, at).to_be_bytes());
                [vec![function, u8::try_from(number * 2).unwrap()], words.collect()].concat()
            }
            5 => {
                self.coils.insert(address, number == 0xFF00);
                pdu.to_vec()
            }
            6 => {
                self.registers.insert(address, number);
                pdu.to_vec()
            }
            15 => {
                for (at, of) in span.enumerate() {
                    self.coils.insert(of, pdu[6 + at / 8] >> (at % 8) & 1 == 1);
                }
                pdu[..5].to_vec()
            }
            16 => {
                for (at, of) in span.enumerate() {
                    self.registers.insert(of, word(6 + at * 2));
                }
                pdu[..5].to_vec()
            }
            22 => {
                let (and, or) = (number, word(5));
                let there = register(self, address);
                self.registers.insert(address, (there & and) | (or & !and));
                pdu.to_vec()
            }
            _ => return refused(1),
        })
    }
}

fn framed(is_rtu: bool, head: &[u8; 2], unit: u8, pdu: &[u8]) -> Vec<u8> {
    if !is_rtu {
        let length = u16::try_from(pdu.len() + 1).unwrap().to_be_bytes();
        return [head.as_slice(), &[0, 0], &length, &[unit], pdu].concat();
    }
    let frame = [&[unit], pdu].concat();
    let sum = crc(&frame).to_le_bytes();
    [frame, sum.to_vec()].concat()
}

/// Modbus over Serial Line §6.2.2.
fn crc(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0xFFFF, |sum, byte| {
        (0..8)
            .fold(sum ^ u16::from(*byte), |sum, _| if sum & 1 == 1 { (sum >> 1) ^ 0xA001 } else { sum >> 1 })
    })
}
