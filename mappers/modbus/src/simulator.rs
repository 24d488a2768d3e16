//! A Modbus device to play with: a small heating room whose registers move by themselves.

use std::future::{Future, Ready, ready};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;
use tokio_modbus::server::Service;
use tokio_modbus::server::tcp::Server;
use tokio_modbus::{ExceptionCode, Request, Response};

/// How many bits or registers each table has.
const SIZE: usize = 128;
/// How many may be connected at the same time.
pub const CONNECTIONS_MAX: usize = 64;
/// What one request may ask for, by the protocol.
const BITS_READ_MAX: u16 = 2000;
const REGISTERS_READ_MAX: u16 = 125;

/// What is where: table, offset, what a device model would call it, and what it does.
pub const MAP: [(&str, u16, &str, &str); 13] = [
    ("CoilRegister", 0, "BOOLEAN", "heating, on or off; off at the start"),
    ("CoilRegister", 1, "BOOLEAN", "lamp; nothing depends on it"),
    ("DiscreteInputRegister", 0, "BOOLEAN", "door, opens and closes every 5 s"),
    ("DiscreteInputRegister", 1, "BOOLEAN", "heating works, as coil 0 says"),
    (
        "InputRegister",
        0,
        "FLOAT, limit 1, scale 0.1",
        "temperature, 18.0 to 22.0 within a minute, 5.0 more when heating",
    ),
    ("InputRegister", 1, "INT", "seconds since the start, modulo 65536"),
    ("InputRegister", 2, "FLOAT, limit 2", "pressure, 0.9 to 1.1 within half a minute"),
    ("InputRegister", 4, "INT, limit 2", "pulses, ten in a second"),
    ("HoldingRegister", 0, "FLOAT, limit 1, scale 0.1", "set point, 20.0 at the start"),
    ("HoldingRegister", 1, "INT, dataType int16", "lower limit, -40 at the start"),
    ("HoldingRegister", 2, "FLOAT, limit 2", "gain, 1.5 at the start"),
    ("HoldingRegister", 4, "INT, dataType int32", "offset, -70000 at the start"),
    ("HoldingRegister", 8, "STRING, limit 8", "label, `room 1` at the start"),
];

/// The four tables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Memory {
    /// Bits that can be written.
    pub coils: Vec<bool>,
    /// Bits that can only be read.
    pub discrete_inputs: Vec<bool>,
    /// Registers that can only be read.
    pub input_registers: Vec<u16>,
    /// Registers that can be written.
    pub holding_registers: Vec<u16>,
}

impl Default for Memory {
    fn default() -> Self {
        let mut memory = Memory {
            coils: vec![false; SIZE],
            discrete_inputs: vec![false; SIZE],
            input_registers: vec![0; SIZE],
            holding_registers: vec![0; SIZE],
        };
        let holding = &mut memory.holding_registers;
        put(holding, 0, &200u16.to_be_bytes());
        put(holding, 1, &(-40i16).to_be_bytes());
        put(holding, 2, &1.5f32.to_be_bytes());
        put(holding, 4, &(-70_000i32).to_be_bytes());
        put(holding, 8, b"room 1\0\0");
        memory
    }
}

fn put(registers: &mut [u16], at: usize, bytes: &[u8]) {
    for (register, two) in registers.iter_mut().skip(at).zip(bytes.chunks_exact(2)) {
        *register = u16::from_be_bytes([two[0], two[1]]);
    }
}

impl Memory {
    /// Moves what moves by itself to where it is that long after the start.
    pub fn advance(&mut self, elapsed: Duration) {
        let seconds = elapsed.as_secs_f64();
        let heating = self.coils.first().copied().unwrap_or_default();
        let swing = |period: f64| (seconds * std::f64::consts::TAU / period).sin();
        let warmth = if heating { 50.0 } else { 0.0 };
        // Within 17.9 and 27.1 degrees, and whole after rounding.
        #[allow(clippy::cast_possible_truncation)]
        let temperature = (200.0 + 20.0 * swing(60.0) + warmth).round() as i16;
        #[allow(clippy::cast_possible_truncation)]
        let pressure = (1.0 + 0.1 * swing(30.0)) as f32;
        // Both counters start again at zero when they are full, as such counters do.
        #[allow(clippy::cast_possible_truncation)]
        let (uptime, pulses) = (elapsed.as_secs() as u16, (elapsed.as_millis() / 100) as u32);
        let input = &mut self.input_registers;
        put(input, 0, &temperature.to_be_bytes());
        put(input, 1, &uptime.to_be_bytes());
        put(input, 2, &pressure.to_be_bytes());
        put(input, 4, &pulses.to_be_bytes());
        let moving = [elapsed.as_secs() / 5 % 2 == 1, heating];
        for (input, bit) in self.discrete_inputs.iter_mut().zip(moving) {
            *input = bit;
        }
    }

    /// Serves one request.
    ///
    /// # Errors
    /// With the exception that the device answers.
    pub fn serve(&mut self, request: &Request<'_>) -> Result<Response, ExceptionCode> {
        Ok(match request {
            Request::ReadCoils(at, count) => {
                Response::ReadCoils(part(&self.coils, *at, *count, BITS_READ_MAX)?)
            }
            Request::ReadDiscreteInputs(at, count) => {
                Response::ReadDiscreteInputs(part(&self.discrete_inputs, *at, *count, BITS_READ_MAX)?)
            }
            Request::ReadInputRegisters(at, count) => {
                Response::ReadInputRegisters(part(&self.input_registers, *at, *count, REGISTERS_READ_MAX)?)
            }
            Request::ReadHoldingRegisters(at, count) => Response::ReadHoldingRegisters(part(
                &self.holding_registers,
                *at,
                *count,
                REGISTERS_READ_MAX,
            )?),
            Request::WriteSingleCoil(at, bit) => {
                store(&mut self.coils, *at, &[*bit])?;
                Response::WriteSingleCoil(*at, *bit)
            }
            Request::WriteMultipleCoils(at, bits) => {
                Response::WriteMultipleCoils(*at, store(&mut self.coils, *at, bits)?)
            }
            Request::WriteSingleRegister(at, word) => {
                store(&mut self.holding_registers, *at, &[*word])?;
                Response::WriteSingleRegister(*at, *word)
            }
            Request::WriteMultipleRegisters(at, words) => {
                Response::WriteMultipleRegisters(*at, store(&mut self.holding_registers, *at, words)?)
            }
            Request::MaskWriteRegister(at, and, or) => {
                let there = part(&self.holding_registers, *at, 1, 1)?.first().copied().unwrap_or_default();
                store(&mut self.holding_registers, *at, &[(there & and) | (or & !and)])?;
                Response::MaskWriteRegister(*at, *and, *or)
            }
            _ => return Err(ExceptionCode::IllegalFunction),
        })
    }
}

fn part<T: Copy>(table: &[T], at: u16, count: u16, most: u16) -> Result<Vec<T>, ExceptionCode> {
    if count == 0 || count > most {
        return Err(ExceptionCode::IllegalDataValue);
    }
    let start = usize::from(at);
    let found = table.get(start..start + usize::from(count));
    found.map(<[T]>::to_vec).ok_or(ExceptionCode::IllegalDataAddress)
}

fn store<T: Copy>(table: &mut [T], at: u16, values: &[T]) -> Result<u16, ExceptionCode> {
    let count = u16::try_from(values.len()).map_err(|_| ExceptionCode::IllegalDataValue)?;
    if count == 0 {
        return Err(ExceptionCode::IllegalDataValue);
    }
    let start = usize::from(at);
    let place = table.get_mut(start..start + values.len()).ok_or(ExceptionCode::IllegalDataAddress)?;
    place.copy_from_slice(values);
    Ok(count)
}

/// The device.
#[derive(Debug, Clone)]
pub struct Simulator {
    memory: Arc<Mutex<Memory>>,
    started: Instant,
}

impl Default for Simulator {
    fn default() -> Self {
        Simulator { memory: Arc::default(), started: Instant::now() }
    }
}

impl Simulator {
    /// Its tables, as they are now. Not for keeping: the device answers nobody meanwhile.
    pub fn memory(&self) -> MutexGuard<'_, Memory> {
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        memory.advance(self.started.elapsed());
        memory
    }

    /// Serves Modbus TCP until `end` comes true. Every unit is this device.
    ///
    /// # Errors
    /// When the listener fails.
    pub async fn serve(
        &self,
        listener: TcpListener,
        end: impl Future<Output = ()> + Send + Sync + 'static,
    ) -> io::Result<()> {
        let door = Arc::new(());
        let connected = move |stream: TcpStream, from: SocketAddr| {
            // The door itself, and one for each who is inside.
            let room = Arc::strong_count(&door) <= CONNECTIONS_MAX;
            let connection =
                room.then(|| (Connection { device: self.clone(), _inside: Arc::clone(&door) }, stream));
            if connection.is_none() {
                tracing::warn!(%from, limit = CONNECTIONS_MAX, "too many connections; this one is closed");
            }
            ready(Ok(connection))
        };
        let failed = |error| tracing::debug!(%error, "a connection ended");
        Server::new(listener).serve_until(&connected, failed, end).await.map(drop)
    }
}

struct Connection {
    device: Simulator,
    _inside: Arc<()>,
}

impl Service for Connection {
    type Request = Request<'static>;
    type Response = Response;
    type Exception = ExceptionCode;
    type Future = Ready<Result<Response, ExceptionCode>>;

    fn call(&self, request: Request<'static>) -> Self::Future {
        tracing::debug!(?request, "asked");
        ready(self.device.memory().serve(&request))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registers_move_with_the_time() {
        let mut memory = Memory::default();
        memory.advance(Duration::from_secs(15));
        assert_eq!(memory.input_registers[..2], [220, 15], "a quarter of a minute is the top");
        assert_eq!(memory.input_registers[4..6], [0, 150]);
        assert_eq!(memory.discrete_inputs[..2], [true, false]);
        memory.serve(&Request::WriteSingleCoil(0, true)).unwrap();
        memory.advance(Duration::from_secs(65_536 + 45));
        assert_eq!(memory.input_registers[1], 45);
        assert!(memory.discrete_inputs[1]);
        // 65581 s are 1 s after a full minute's start.
        assert!((250..=252).contains(&memory.input_registers[0]), "{}", memory.input_registers[0]);
    }

    #[test]
    fn what_is_not_there_is_answered_with_an_exception() {
        let mut memory = Memory::default();
        for (request, exception) in [
            (Request::ReadHoldingRegisters(127, 2), ExceptionCode::IllegalDataAddress),
            (Request::ReadHoldingRegisters(65_535, 125), ExceptionCode::IllegalDataAddress),
            (Request::ReadCoils(0, 0), ExceptionCode::IllegalDataValue),
            (Request::ReadInputRegisters(0, 126), ExceptionCode::IllegalDataValue),
            (Request::WriteMultipleRegisters(128, vec![1].into()), ExceptionCode::IllegalDataAddress),
            (Request::WriteMultipleCoils(0, vec![].into()), ExceptionCode::IllegalDataValue),
            (Request::ReportServerId, ExceptionCode::IllegalFunction),
        ] {
            assert_eq!(memory.serve(&request), Err(exception), "{request:?}");
        }
    }
}
