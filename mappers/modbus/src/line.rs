//! A connection that devices share: one at a time asks, in the order in which they came.
//!
//! Many devices take one connection and no second one, and behind a gateway or on a serial line there are many units. So there
//! is one line per place, and a queue before it. It connects when it is needed: a device that closes an idle connection is not
//! noticed.

use std::collections::BTreeMap;
use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::{Arc, Mutex as SyncMutex, PoisonError, Weak};
use std::time::Duration;

use framework::Fault;
use serial2_tokio::rs4xx::{Rs485Config, TransceiverMode};
use serial2_tokio::{CharSize, FlowControl, Parity as SerialParity, SerialPort, Settings, StopBits};
use tokio::net::TcpStream;
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_modbus::client::{Client as _, Context, rtu, tcp};
use tokio_modbus::slave::SlaveContext as _;
use tokio_modbus::{ExceptionCode, Request, Response, Slave};

use crate::address::{Address, Framing, Parity, Place, SerialLine};
use crate::heard::{Counted, HeardBytes};
use crate::own_answers::{ForeignAnswer, OwnAnswers, PassedOver};
use crate::words;

/// 5 s for a TCP connection.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);
/// 1 s: whoever waited behind a failed try to connect fails with it instead of trying again at once.
const FAILED_TOGETHER: Duration = Duration::from_secs(1);
/// 100 ms: what comes within this time after a request was given up on a serial line is its late answer.
const LATE_ANSWERS: Duration = Duration::from_millis(100);

/// The lines that are in use, by their places.
#[derive(Debug, Clone, Default)]
pub(crate) struct Lines(Arc<SyncMutex<BTreeMap<Place, Weak<Line>>>>);

impl Lines {
    pub(crate) fn at(&self, place: &Place) -> Result<Arc<Line>, Fault> {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lines.retain(|_, line| line.strong_count() > 0);
        if let Some(line) = lines.get(place).and_then(Weak::upgrade) {
            return Ok(line);
        }
        if let Some(other) = lines.keys().find(|other| are_one(other, place)) {
            return Err(Fault::NotSent(format!(
                "another device has the same line with other settings ({other:?}); give both the same"
            )));
        }
        let line = Arc::new(Line { place: place.clone(), wire: Mutex::default() });
        lines.insert(place.clone(), Arc::downgrade(&line));
        Ok(line)
    }
}

/// Whether two places can't be used side by side.
fn are_one(one: &Place, other: &Place) -> bool {
    match (one, other) {
        (Place::Serial(one), Place::Serial(other)) => one.path == other.path,
        (Place::Tcp { host, port, .. }, Place::Tcp { host: other, port: at, .. }) => {
            host == other && port == at
        }
        _ => false,
    }
}

#[derive(Debug)]
pub(crate) struct Line {
    place: Place,
    wire: Mutex<Wire>,
}

#[derive(Default)]
struct Wire {
    open: Option<Open>,
    /// A request is under way. Whoever finds it so comes after one that was given up in the middle.
    is_busy: bool,
    /// Nothing is sent before that.
    not_before: Option<Instant>,
    /// Why the last try to connect failed, and when.
    failed: Option<(String, Instant)>,
}

struct Open {
    context: Context,
    /// The same connection, to see without waiting whether it was closed or holds what nobody asked for.
    beside: Beside,
    /// What came under another number than the last request's.
    passed_over: PassedOver,
    /// How much has come since the last request.
    heard: HeardBytes,
}

enum Beside {
    Tcp(std::net::TcpStream),
    Serial(SerialPort),
}

impl std::fmt::Debug for Wire {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Wire").field("open", &self.open.is_some()).finish_non_exhaustive()
    }
}

/// What came of a request: an answer, or the device's refusal.
pub(crate) type Answer = Result<Response, ExceptionCode>;

/// A turn at a line: nobody else asks meanwhile.
pub(crate) struct Turn<'a> {
    wire: MutexGuard<'a, Wire>,
    place: &'a Place,
    address: &'a Address,
}

impl Line {
    /// Waits for the turn.
    pub(crate) async fn turn<'a>(&'a self, address: &'a Address) -> Turn<'a> {
        let mut wire = self.wire.lock().await;
        if std::mem::take(&mut wire.is_busy) {
            wire.give_up();
        }
        Turn { wire, place: &self.place, address }
    }
}

impl Turn<'_> {
    /// The unit that is asked.
    pub(crate) fn unit(&self) -> u8 {
        self.address.unit
    }

    /// Connects, unless the line is open.
    pub(crate) async fn open(&mut self) -> Result<(), Fault> {
        if self.wire.open.is_some() {
            return Ok(());
        }
        let now = Instant::now();
        if let Some((reason, _)) = self.wire.failed.as_ref().filter(|(_, at)| now < *at + FAILED_TOGETHER) {
            return Err(Fault::NotSent(reason.clone()));
        }
        match connect(self.place).await {
            Ok(open) => self.wire.open = Some(open),
            Err(reason) => {
                self.wire.failed = Some((reason.clone(), Instant::now()));
                return Err(Fault::NotSent(reason));
            }
        }
        self.wire.failed = None;
        self.wire.pause(self.address.timing.after_connect);
        Ok(())
    }

    /// Asks, within the time that an answer may take. `is_repeatable`: it does no harm to ask twice.
    pub(crate) async fn ask(
        &mut self,
        request: &Request<'static>,
        is_repeatable: bool,
    ) -> Result<Answer, Fault> {
        let is_kept = self.wire.open.as_mut().is_some_and(Open::is_clean);
        if !is_kept {
            self.wire.open = None;
        }
        self.open().await?;
        let answer = match self.once(request).await {
            // Closed while it was idle: that says nothing about the device.
            Err(Lost::Closed(_)) if is_kept && is_repeatable => {
                self.open().await?;
                self.once(request).await
            }
            answer => answer,
        };
        answer.map_err(|lost| match lost {
            Lost::Late => Fault::Silent(format!(
                "unit {} has not answered within {} ms; look at `slaveID`, and whether the device has power and its cable, or give it more time \
                 (`timeoutMs`)",
                self.address.unit,
                self.address.timing.answer.as_millis()
            )),
            Lost::Closed(reason) => Fault::Silent(reason),
            Lost::UnderAnotherId(answer) => Fault::Silent(words::under_another_id(answer)),
            Lost::Garbled(bytes) => Fault::Silent(words::garbled(bytes, self.place, self.address.unit)),
        })
    }

    async fn once(&mut self, request: &Request<'static>) -> Result<Answer, Lost> {
        if let Some(at) = self.wire.not_before.take() {
            sleep_until(at).await;
        }
        let Wire { open: Some(open), is_busy, .. } = &mut *self.wire else {
            return Err(Lost::Closed("the line is not open".to_owned()));
        };
        open.discard();
        open.heard.take();
        *is_busy = true;
        open.context.set_slave(Slave(self.address.unit));
        let answer = timeout(self.address.timing.answer, open.context.call(request.clone())).await;
        *is_busy = false;
        let (passed_over, heard) = (open.passed_over.take(), open.heard.take());
        self.wire.pause(self.address.timing.between);
        match answer {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(tokio_modbus::Error::Transport(error))) => {
                self.wire.give_up();
                let is_garbled = heard > 0 && error.kind() == io::ErrorKind::InvalidData;
                let lost = || {
                    if is_garbled { Lost::Garbled(heard) } else { Lost::Closed(words::of_connection(&error)) }
                };
                Err(lost())
            }
            Ok(Err(tokio_modbus::Error::Protocol(error))) => {
                self.wire.give_up();
                tracing::debug!(%error, "an answer is no answer to what was asked");
                Err(passed_over
                    .map_or_else(|| Lost::Closed(words::out_of_step(&error)), Lost::UnderAnotherId))
            }
            Err(_) => {
                self.wire.give_up();
                let silent = if heard > 0 { Lost::Garbled(heard) } else { Lost::Late };
                Err(passed_over.map_or(silent, Lost::UnderAnotherId))
            }
        }
    }
}

/// Why there is no answer.
enum Lost {
    Late,
    Closed(String),
    /// Answers came, and none under the request's own transaction id.
    UnderAnotherId(ForeignAnswer),
    /// So many bytes came, which are no answer.
    Garbled(usize),
}

impl Wire {
    /// The connection is of no use any more: a late answer would be taken for the next one's.
    fn give_up(&mut self) {
        let was_serial = self.open.take().is_some_and(|open| matches!(open.beside, Beside::Serial(_)));
        if was_serial {
            self.pause(LATE_ANSWERS);
        }
    }

    fn pause(&mut self, pause: Duration) {
        if !pause.is_zero() {
            self.not_before = self.not_before.max(Some(Instant::now() + pause));
        }
    }
}

impl Open {
    /// Whether the other side has not closed it. What waits there, nobody has asked for: it is thrown away.
    fn is_clean(&mut self) -> bool {
        let Beside::Tcp(stream) = &mut self.beside else { return true };
        let mut stray = [0; 512];
        loop {
            match stream.read(&mut stray) {
                Ok(0) => return false,
                Ok(_) => {}
                Err(error) => return error.kind() == io::ErrorKind::WouldBlock,
            }
        }
    }

    /// Throws away what has come since.
    fn discard(&mut self) {
        if let Beside::Serial(port) = &self.beside
            && let Err(error) = port.discard_input_buffer()
        {
            tracing::debug!(%error, "cannot empty the line");
        }
    }
}

async fn connect(place: &Place) -> Result<Open, String> {
    match place {
        Place::Tcp { host, port, framing } => {
            let failed = |error: &io::Error| {
                format!("no connection to {host}:{port}: {}", words::of_connection(error))
            };
            let found = framework::host::addresses(host, *port).await;
            let found = found.map_err(|reason| format!("no connection to {host}:{port}: {reason}"))?;
            let connecting = timeout(CONNECT_DEADLINE, TcpStream::connect(found.as_slice()));
            let stream = match connecting.await {
                Ok(stream) => stream.map_err(|error| failed(&error))?,
                Err(_) => return Err(failed(&io::ErrorKind::TimedOut.into())),
            };
            // A request is one small packet; waiting for more to send would only delay it.
            stream.set_nodelay(true).map_err(|error| failed(&error))?;
            let beside: OwnedFd = stream.as_fd().try_clone_to_owned().map_err(|error| failed(&error))?;
            let (passed_over, heard) = (PassedOver::default(), HeardBytes::default());
            let stream = Counted::of(stream, heard.clone());
            let of_tcp = |stream: Counted<TcpStream>, takes_any: bool| {
                tcp::attach_slave(OwnAnswers::of(stream, takes_any, passed_over.clone()), Slave(0))
            };
            let context = match framing {
                Framing::Tcp => of_tcp(stream, false),
                Framing::TcpWithoutIds => of_tcp(stream, true),
                Framing::Rtu => rtu::attach_slave(stream, Slave(0)),
            };
            Ok(Open { context, beside: Beside::Tcp(beside.into()), passed_over, heard })
        }
        Place::Serial(line) => {
            let failed = |error: &io::Error| words::of_serial(error, &line.path);
            let port = serial(line).map_err(|error| failed(&error))?;
            let beside = port.try_clone().map_err(|error| failed(&error))?;
            let heard = HeardBytes::default();
            let context = rtu::attach_slave(Counted::of(port, heard.clone()), Slave(0));
            Ok(Open { context, beside: Beside::Serial(beside), passed_over: PassedOver::default(), heard })
        }
    }
}

fn serial(line: &SerialLine) -> io::Result<SerialPort> {
    let port = SerialPort::open(&line.path, |mut settings: Settings| {
        settings.set_raw();
        settings.set_baud_rate(line.baud_rate)?;
        settings.set_char_size(if line.data_bits == 7 { CharSize::Bits7 } else { CharSize::Bits8 });
        settings.set_stop_bits(if line.stop_bits == 2 { StopBits::Two } else { StopBits::One });
        settings.set_parity(match line.parity {
            Parity::None => SerialParity::None,
            Parity::Even => SerialParity::Even,
            Parity::Odd => SerialParity::Odd,
        });
        settings.set_flow_control(FlowControl::None);
        Ok(settings)
    })?;
    // Converters on USB switch by themselves and have no such setting.
    if line.rs485
        && let Err(error) = port.set_rs4xx_mode(TransceiverMode::Rs485(Rs485Config::new()))
    {
        tracing::debug!(path = line.path, %error, "the port does not switch directions by itself");
    }
    Ok(port)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_name_that_is_not_found_is_no_device_without_power() {
        let place = Address::tcp("no-such-device.invalid", 502, 1).place;
        let reason = connect(&place).await.err().unwrap();
        assert!(reason.contains("the name `no-such-device.invalid` is not found"), "{reason}");
        assert!(!reason.contains("power"), "{reason}");
    }

    #[test]
    fn devices_with_the_same_place_share_a_line_and_other_settings_of_it_are_refused() {
        let lines = Lines::default();
        let one = lines.at(&Address::tcp("h", 502, 1).place).unwrap();
        let two = lines.at(&Address::tcp("h", 502, 2).place).unwrap();
        assert!(Arc::ptr_eq(&one, &two));
        let rtu = Place::Tcp { host: "h".to_owned(), port: 502, framing: Framing::Rtu };
        assert!(matches!(lines.at(&rtu), Err(Fault::NotSent(_))));
        drop((one, two));
        lines.at(&rtu).unwrap();
    }
}
