//! Talking to a device.

use std::{fmt, io};

use framework::{Fault, InvalidSetting, Property, Protocol, Session, Settings, Value};
use tokio::net::TcpStream;
use tokio_modbus::client::{Client as _, Context, tcp};
use tokio_modbus::{ExceptionCode, Request, Response, Slave};

use crate::address::Address;
use crate::visitor::{Table, Visitor};

/// The protocol's name in devices and in the mapper's config.
const NAME: &str = "modbus";

/// Modbus over TCP.
#[derive(Debug, Clone, Copy, Default)]
pub struct Modbus;

/// A connection to a device.
pub struct ModbusSession {
    context: Context,
}

impl fmt::Debug for ModbusSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ModbusSession").finish_non_exhaustive()
    }
}

impl Protocol for Modbus {
    type Address = Address;
    type Visitor = Visitor;
    type Session = ModbusSession;

    fn name(&self) -> &'static str {
        NAME
    }

    fn address(&self, settings: &Settings) -> Result<Address, InvalidSetting> {
        Address::read(settings)
    }

    fn visitor(&self, property: &Property, settings: &Settings) -> Result<Visitor, InvalidSetting> {
        Visitor::read(property, settings)
    }

    async fn connect(&self, address: &Address) -> Result<ModbusSession, Fault> {
        let Address { host, port, unit } = address;
        let failed =
            |error: io::Error| Fault::Link(format!("no connection to {host}:{port}: {}", words(&error)));
        let stream = TcpStream::connect((host.as_str(), *port)).await.map_err(failed)?;
        // A request is one small packet; waiting for more to send would only delay it.
        stream.set_nodelay(true).map_err(failed)?;
        Ok(ModbusSession { context: tcp::attach_slave(stream, Slave(*unit)) })
    }
}

impl Session for ModbusSession {
    type Visitor = Visitor;

    async fn read(&mut self, visitor: &Visitor) -> Result<Value, Fault> {
        let Visitor { table, offset, count, encoding } = *visitor;
        let request = match table {
            Table::Coils => Request::ReadCoils(offset, count),
            Table::DiscreteInputs => Request::ReadDiscreteInputs(offset, count),
            Table::InputRegisters => Request::ReadInputRegisters(offset, count),
            Table::HoldingRegisters => Request::ReadHoldingRegisters(offset, count),
        };
        let registers = match (table, self.ask(request).await?) {
            (Table::Coils, Response::ReadCoils(bits))
            | (Table::DiscreteInputs, Response::ReadDiscreteInputs(bits)) => vec![pack(&bits, count)?],
            (Table::InputRegisters, Response::ReadInputRegisters(registers))
            | (Table::HoldingRegisters, Response::ReadHoldingRegisters(registers)) => registers,
            (_, other) => return Err(stranger(&other)),
        };
        encoding.decode(&registers).map_err(Fault::Device)
    }

    async fn write(&mut self, visitor: &Visitor, value: &Value) -> Result<(), Fault> {
        let Visitor { table, offset, count, encoding } = *visitor;
        let registers = encoding.encode(value).map_err(Fault::Device)?;
        let request = match table {
            Table::Coils => coils(offset, &registers, count)?,
            Table::HoldingRegisters => match registers.as_slice() {
                [one] => Request::WriteSingleRegister(offset, *one),
                _ => Request::WriteMultipleRegisters(offset, registers.into()),
            },
            Table::DiscreteInputs | Table::InputRegisters => {
                let sentence =
                    "inputs can only be read; make the property ReadOnly, or use a coil or holding register";
                return Err(Fault::Device(sentence.to_owned()));
            }
        };
        let sent = request.clone();
        let answer = self.ask(request).await?;
        if confirms(&sent, &answer) { Ok(()) } else { Err(stranger(&answer)) }
    }
}

impl ModbusSession {
    /// Not the library's own readers and writers: those assert in debug builds that a device answers as it should.
    async fn ask(&mut self, request: Request<'_>) -> Result<Response, Fault> {
        match self.context.call(request).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(exception)) => Err(refused(exception)),
            Err(error) => Err(lost(&error)),
        }
    }
}

/// Bits as one register, the first one lowest. A device answers in whole bytes; the rest is filling.
fn pack(bits: &[bool], count: u16) -> Result<u16, Fault> {
    let count = usize::from(count);
    let wanted = bits.get(..count).filter(|wanted| wanted.len() <= 16);
    let wanted =
        wanted.ok_or_else(|| Fault::Device(format!("{} bits came instead of {count}", bits.len())))?;
    Ok(wanted.iter().rev().fold(0, |word, bit| (word << 1) | u16::from(*bit)))
}

fn coils(offset: u16, registers: &[u16], count: u16) -> Result<Request<'static>, Fault> {
    let word = registers.first().copied().unwrap_or_default();
    if count < 16 && word >> count != 0 {
        return Err(Fault::Device(format!("{word} does not fit into {count} bits")));
    }
    let bits: Vec<bool> = (0..count).map(|at| word >> at & 1 == 1).collect();
    Ok(match bits.as_slice() {
        [one] => Request::WriteSingleCoil(offset, *one),
        _ => Request::WriteMultipleCoils(offset, bits.into()),
    })
}

/// A device answers a write with what it wrote.
fn confirms(request: &Request<'_>, answer: &Response) -> bool {
    match (request, answer) {
        (Request::WriteSingleCoil(to, bit), Response::WriteSingleCoil(at, done)) => to == at && bit == done,
        (Request::WriteSingleRegister(to, word), Response::WriteSingleRegister(at, done)) => {
            to == at && word == done
        }
        (Request::WriteMultipleCoils(to, bits), Response::WriteMultipleCoils(at, done)) => {
            to == at && bits.len() == usize::from(*done)
        }
        (Request::WriteMultipleRegisters(to, words), Response::WriteMultipleRegisters(at, done)) => {
            to == at && words.len() == usize::from(*done)
        }
        _ => false,
    }
}

/// A connection that does not carry a question and its answer.
fn lost(error: &tokio_modbus::Error) -> Fault {
    Fault::Link(match error {
        tokio_modbus::Error::Transport(error) => words(error),
        tokio_modbus::Error::Protocol(error) => error.to_string(),
    })
}

/// What went wrong, for a person. Where nobody acknowledges what was sent, the kernel's word is that of TCP's user timeout, or that
/// of a queue that has waited in vain: both say that the device is silent.
fn words(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
            "timed out: nothing answers there; look whether the device has power and its network".to_owned()
        }
        _ => error.to_string(),
    }
}

fn stranger(answer: &Response) -> Fault {
    Fault::Device(format!("the answer (function {}) does not belong to the request", answer.function_code()))
}

fn refused(exception: ExceptionCode) -> Fault {
    match exception {
        // A gateway that does not reach the device: the device is away, and nothing else is known.
        ExceptionCode::GatewayPathUnavailable | ExceptionCode::GatewayTargetDevice => {
            Fault::Link(format!("the gateway says: {exception}"))
        }
        other => Fault::Device(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_bit_is_the_lowest() {
        assert_eq!(pack(&[true, false, true, true, false, false, false, false], 4), Ok(0b1101));
        assert_eq!(pack(&[true; 16], 16), Ok(0xFFFF));
        assert!(pack(&[true], 2).is_err());
        assert!(pack(&[true; 24], 17).is_err());
        assert_eq!(coils(3, &[0b101], 3), Ok(Request::WriteMultipleCoils(3, vec![true, false, true].into())));
        assert_eq!(coils(3, &[1], 1), Ok(Request::WriteSingleCoil(3, true)));
        assert!(coils(3, &[2], 1).is_err());
        assert!(coils(3, &[0xFFFF], 16).is_ok());
    }

    #[test]
    fn an_answer_to_something_else_is_no_confirmation() {
        assert!(confirms(&Request::WriteSingleRegister(1, 2), &Response::WriteSingleRegister(1, 2)));
        assert!(!confirms(&Request::WriteSingleRegister(1, 2), &Response::WriteSingleRegister(1, 3)));
        assert!(!confirms(&Request::WriteSingleRegister(1, 2), &Response::WriteMultipleRegisters(1, 1)));
        let many = Request::WriteMultipleRegisters(1, vec![1, 2].into());
        assert!(confirms(&many, &Response::WriteMultipleRegisters(1, 2)));
        assert!(!confirms(&many, &Response::WriteMultipleRegisters(1, 1)));
    }

    #[test]
    fn a_silent_device_timed_out_whatever_the_kernel_calls_it() {
        for kernels in [11, 110] {
            let error = tokio_modbus::Error::Transport(io::Error::from_raw_os_error(kernels));
            let Fault::Link(reason) = lost(&error) else { panic!("no lost link") };
            assert!(reason.starts_with("timed out") && !reason.contains("os error"), "{reason}");
        }
    }

    #[test]
    fn a_gateway_without_its_device_is_a_lost_link() {
        assert!(matches!(refused(ExceptionCode::GatewayTargetDevice), Fault::Link(_)));
        assert!(matches!(refused(ExceptionCode::IllegalDataAddress), Fault::Device(_)));
    }
}
