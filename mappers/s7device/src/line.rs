//! A connection to a PLC, which its Devices share: one at a time asks, in the order in which they came. PLCs have few places for
//! clients. It connects when it is needed; one that the PLC closes while it is idle is not noticed.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex as SyncMutex, PoisonError, Weak};
use std::time::Duration;

use framework::Fault;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::{Instant, timeout};

use crate::address::{Address, Plc};
use crate::code;
use crate::frame::{self, Packet};
use crate::job::{self, Answer, NotAnswered};

/// 3 s for a TCP connection.
const CONNECT_DEADLINE: Duration = Duration::from_secs(3);
/// 1 s: whoever waited behind a failed try to connect fails with it instead of trying again at once.
const FAILED_TOGETHER: Duration = Duration::from_secs(1);
/// What comes before a PDU in a packet, and a little more for packets that say more of themselves.
const PACKET_OVERHEAD: usize = 32;

/// The connections that are in use, by their PLCs.
#[derive(Debug, Clone, Default)]
pub(crate) struct Lines(Arc<SyncMutex<BTreeMap<Plc, Weak<Line>>>>);

impl Lines {
    pub(crate) fn at(&self, plc: &Plc) -> Arc<Line> {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lines.retain(|_, line| line.strong_count() > 0);
        if let Some(line) = lines.get(plc).and_then(Weak::upgrade) {
            return line;
        }
        let line = Arc::new(Line { plc: plc.clone(), wire: Mutex::default() });
        lines.insert(plc.clone(), Arc::downgrade(&line));
        line
    }
}

#[derive(Debug)]
pub(crate) struct Line {
    plc: Plc,
    wire: Mutex<Wire>,
}

#[derive(Debug, Default)]
struct Wire {
    open: Option<Open>,
    /// A request is under way. Whoever finds it so comes after one that was given up in the middle.
    is_busy: bool,
    /// Why the last try to connect failed, and when.
    failed: Option<(String, Instant)>,
    /// The service access point that has taken a connection.
    tsap: Option<u16>,
}

#[derive(Debug)]
struct Open {
    stream: TcpStream,
    pdu: u16,
    reference: u16,
}

/// A turn at a PLC: nobody else asks meanwhile.
pub(crate) struct Turn<'a> {
    wire: MutexGuard<'a, Wire>,
    plc: &'a Plc,
    answer: Duration,
}

impl Line {
    /// Waits for the turn.
    pub(crate) async fn turn(&self, address: &Address) -> Turn<'_> {
        let mut wire = self.wire.lock().await;
        if std::mem::take(&mut wire.is_busy) {
            wire.open = None;
        }
        Turn { wire, plc: &self.plc, answer: address.answer }
    }
}

/// Why there is no answer.
enum Lost {
    Late,
    /// The other side has closed the connection before it said anything.
    Closed(String),
    /// What came is no answer.
    Wrong(String),
    /// Nothing of the request was sent.
    Unsent(String),
}

impl Turn<'_> {
    /// Connects, unless that is done. How large a PDU may be.
    pub(crate) async fn open(&mut self) -> Result<usize, Fault> {
        if let Some(open) = &self.wire.open {
            return Ok(open.pdu.into());
        }
        let now = Instant::now();
        if let Some((reason, _)) = self.wire.failed.as_ref().filter(|(_, at)| now < *at + FAILED_TOGETHER) {
            return Err(Fault::NotSent(reason.clone()));
        }
        match connect(self.plc, self.wire.tsap, self.answer).await {
            Ok((open, tsap)) => {
                let pdu = open.pdu;
                (self.wire.open, self.wire.tsap, self.wire.failed) = (Some(open), Some(tsap), None);
                Ok(pdu.into())
            }
            Err(reason) => {
                self.wire.failed = Some((reason.clone(), Instant::now()));
                Err(Fault::NotSent(reason))
            }
        }
    }

    /// Asks, within the time that an answer may take. `is_repeatable`: it does no harm to ask twice.
    pub(crate) async fn ask(
        &mut self,
        make: impl Fn(u16) -> Vec<u8>,
        function: u8,
        is_repeatable: bool,
    ) -> Result<Answer, Fault> {
        let is_kept = self.wire.open.as_ref().is_some_and(Open::is_clean);
        if !is_kept {
            self.wire.open = None;
        }
        self.open().await?;
        let answer = match self.once(&make, function).await {
            // Closed while it was idle: that says nothing about the PLC.
            Err(Lost::Closed(_) | Lost::Unsent(_)) if is_kept && is_repeatable => {
                self.open().await?;
                self.once(&make, function).await
            }
            answer => answer,
        };
        match answer {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(refused)) => Err(Fault::Device(code::of_head(refused))),
            Err(Lost::Late) => {
                let millis = self.answer.as_millis();
                Err(Fault::Silent(format!("the PLC has not answered within {millis} ms")))
            }
            Err(Lost::Closed(reason) | Lost::Wrong(reason)) => Err(Fault::Silent(reason)),
            Err(Lost::Unsent(reason)) => Err(Fault::NotSent(reason)),
        }
    }

    async fn once(
        &mut self,
        make: &impl Fn(u16) -> Vec<u8>,
        function: u8,
    ) -> Result<Result<Answer, u16>, Lost> {
        let Wire { open: Some(open), is_busy, .. } = &mut *self.wire else {
            return Err(Lost::Unsent("the connection is not open".to_owned()));
        };
        *is_busy = true;
        let answer = timeout(self.answer, open.exchange(make, function)).await;
        *is_busy = false;
        let lost = match answer {
            Ok(Ok(answer)) => return Ok(Ok(answer)),
            Ok(Err(NotExchanged::Refused(code))) => return Ok(Err(code)),
            Ok(Err(NotExchanged::Lost(lost))) => lost,
            Err(_) => Lost::Late,
        };
        // A late answer would be taken for the next one's.
        self.wire.open = None;
        Err(lost)
    }
}

enum NotExchanged {
    Refused(u16),
    Lost(Lost),
}

impl From<String> for NotExchanged {
    fn from(reason: String) -> Self {
        NotExchanged::Lost(Lost::Wrong(reason))
    }
}

impl Open {
    /// Whether the other side has not closed it, and says nothing that nobody has asked for.
    fn is_clean(&self) -> bool {
        let found = self.stream.try_read(&mut [0; 1]);
        found.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }

    async fn exchange(
        &mut self,
        make: &impl Fn(u16) -> Vec<u8>,
        function: u8,
    ) -> Result<Answer, NotExchanged> {
        self.reference = self.reference.wrapping_add(1);
        let request = frame::data(&make(self.reference));
        if let Err(error) = self.stream.write_all(&request).await {
            return Err(NotExchanged::Lost(Lost::Unsent(words(&error))));
        }
        let most = usize::from(self.pdu) + PACKET_OVERHEAD;
        let mut pdu = Vec::new();
        loop {
            let packet = receive(&mut self.stream, most).await?;
            match frame::understood(&packet)? {
                Packet::Data { part, is_last } => {
                    if pdu.len() + part.len() > most {
                        return Err("it sends more than was agreed".to_owned().into());
                    }
                    pdu.extend_from_slice(part);
                    if is_last {
                        break;
                    }
                }
                Packet::Refused(reason) => {
                    return Err(
                        format!("the PLC has ended the connection {}", code::of_disconnect(reason)).into()
                    );
                }
                Packet::Confirmed => return Err("it confirms a connection that is there".to_owned().into()),
            }
        }
        job::answer(&pdu, self.reference, function).map_err(|refusal| match refusal {
            NotAnswered::Stranger(reason) => reason.into(),
            NotAnswered::Refused(code) => NotExchanged::Refused(code),
        })
    }
}

/// The next packet, without its head.
async fn receive(stream: &mut TcpStream, most: usize) -> Result<Vec<u8>, NotExchanged> {
    let mut head = [0; frame::HEAD];
    let closed = |error: io::Error| NotExchanged::Lost(Lost::Closed(words(&error)));
    stream.read_exact(&mut head).await.map_err(closed)?;
    let mut packet = vec![0; frame::length(head, most)?];
    stream.read_exact(&mut packet).await.map_err(|error| words(&error))?;
    Ok(packet)
}

/// Connects at the first service access point that takes it, and which that was.
async fn connect(plc: &Plc, known: Option<u16>, answer: Duration) -> Result<(Open, u16), String> {
    let Plc { host, port, local_tsap, .. } = plc;
    let failed = |reason: &str| format!("no connection to {host}:{port}: {reason}");
    let found = framework::host::addresses(host, *port).await.map_err(|reason| failed(&reason))?;
    let others = plc.remote_tsaps.iter().copied().filter(|tsap| known != Some(*tsap));
    let mut refusals = Vec::new();
    for tsap in known.into_iter().chain(others) {
        let connecting = timeout(CONNECT_DEADLINE, TcpStream::connect(found.as_slice())).await;
        let stream = match connecting {
            Ok(stream) => stream.map_err(|error| failed(&words(&error)))?,
            Err(_) => return Err(failed(&words(&io::ErrorKind::TimedOut.into()))),
        };
        // A request is one small packet; waiting for more to send would only delay it.
        stream.set_nodelay(true).map_err(|error| failed(&words(&error)))?;
        match timeout(answer, agree(stream, *local_tsap, tsap, plc.pdu)).await {
            Ok(Ok(open)) => return Ok((open, tsap)),
            Ok(Err(reason)) => refusals.push(format!("at TSAP {tsap:04X} {reason}")),
            // One that does not answer would not at another, either.
            Err(_) => return Err(failed("it takes the connection and does not answer; is it a PLC?")),
        }
    }
    let refusals = refusals.join(", ");
    Err(failed(&format!("{refusals}; check `rack` and `slot`, or it has no free place for a client")))
}

async fn agree(mut stream: TcpStream, local_tsap: u16, remote_tsap: u16, pdu: u16) -> Result<Open, String> {
    let request = frame::connect(local_tsap, remote_tsap);
    stream.write_all(&request).await.map_err(|error| words(&error))?;
    let packet = receive(&mut stream, usize::from(pdu) + PACKET_OVERHEAD).await.map_err(sentence)?;
    match frame::understood(&packet)? {
        Packet::Confirmed => {}
        Packet::Refused(reason) => return Err(format!("refused {}", code::of_disconnect(reason))),
        Packet::Data { .. } => return Err("it sends before it was asked".to_owned()),
    }
    let mut open = Open { stream, pdu, reference: 0 };
    let answer = open.exchange(&|reference| job::setup(reference, pdu), job::SETUP).await;
    open.pdu = job::agreed(&answer.map_err(sentence)?, pdu)?;
    Ok(open)
}

fn sentence(refusal: NotExchanged) -> String {
    match refusal {
        NotExchanged::Refused(refused) => code::of_head(refused),
        NotExchanged::Lost(Lost::Closed(reason) | Lost::Wrong(reason) | Lost::Unsent(reason)) => reason,
        NotExchanged::Lost(Lost::Late) => "it does not answer".to_owned(),
    }
}

/// What went wrong, for a person.
fn words(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
            "timed out: nothing answers there; look whether the PLC has power and its network".to_owned()
        }
        io::ErrorKind::BrokenPipe | io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => {
            "the PLC has closed the connection".to_owned()
        }
        io::ErrorKind::ConnectionRefused => {
            "connection refused: nothing listens there; look at the address and the port, and whether the PLC lets others in (PUT/GET)"
                .to_owned()
        }
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
            "no way leads there; look at the address, and at the network and routes of the node".to_owned()
        }
        _ => format!("{error}; look at the network of the node"),
    }
}
