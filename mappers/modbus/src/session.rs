//! Talking to a device.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use framework::{Fault, InvalidSetting, Property, Protocol, Session, Settings, Value};
use tokio::time::sleep;
use tokio_modbus::{ExceptionCode, Request, Response};

use crate::address::Address;
use crate::blocks::{Block, Learned};
use crate::encoding::{Encoding, NotDecoded};
use crate::line::{Answer, Line, Lines, Turn};
use crate::visitor::{Span, Table, Visitor, WriteFunction};

/// The protocol's name in devices and in the mapper's config.
const NAME: &str = "modbus";
/// A device that is busy (exception 6) is asked again after these.
const BUSY: [Duration; 3] =
    [Duration::from_millis(100), Duration::from_millis(200), Duration::from_millis(400)];
/// 60 s: how long a request may wait for its turn behind those of other devices on the line.
const QUEUE: Duration = Duration::from_secs(60);

/// Modbus over TCP, over a serial line, and as on a serial line over TCP.
#[derive(Debug, Clone, Default)]
pub struct Modbus {
    lines: Lines,
}

/// A device at its line.
#[derive(Debug)]
pub struct ModbusSession {
    line: Arc<Line>,
    address: Address,
    learned: Learned,
    /// Those that did not answer the last time: not asked twice in a row.
    silent: BTreeSet<Span>,
    /// The tables whose single ones are written as many, because the device knows no other function.
    written_as_many: BTreeSet<Table>,
    /// The device knows no function for single bits of a register.
    has_no_mask: bool,
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

    fn connect_deadline(&self, _: &Address) -> Duration {
        QUEUE
    }

    async fn connect(&self, address: &Address) -> Result<ModbusSession, Fault> {
        let line = self.lines.at(&address.place)?;
        line.turn(address).await.open().await?;
        Ok(ModbusSession {
            line,
            address: address.clone(),
            learned: Learned::new(address.sizes),
            silent: BTreeSet::new(),
            written_as_many: BTreeSet::new(),
            has_no_mask: false,
        })
    }
}

impl Session for ModbusSession {
    type Visitor = Visitor;

    /// Each request has its own time-out; this is for the queue before it.
    fn deadline(&self) -> Duration {
        QUEUE + self.address.timing.answer * (self.address.timing.retries + 1) * 4
    }

    async fn read(&mut self, visitor: &Visitor) -> Result<Value, Fault> {
        let block =
            Block { table: visitor.table, offset: visitor.offset, count: visitor.count, members: vec![0] };
        let retries = if self.silent.contains(&visitor.span()) { 0 } else { self.address.timing.retries };
        let registers = self.read_block(&block, retries).await;
        self.remember(visitor, registers.as_ref().err());
        value(visitor, &block, &registers?)
    }

    async fn read_many(&mut self, visitors: &[&Visitor]) -> Vec<(usize, Result<Value, Fault>)> {
        let Some(first) = visitors.first() else { return Vec::new() };
        let block = match self.learned.block(visitors) {
            Some(block) if block.members.len() > 1 => block,
            _ => return vec![(0, self.read(first).await)],
        };
        let members: Vec<(usize, &Visitor)> =
            block.members.iter().filter_map(|at| visitors.get(*at).map(|visitor| (*at, *visitor))).collect();
        let spans: Vec<Span> = members.iter().map(|(_, visitor)| visitor.span()).collect();
        match self.read_block(&block, 0).await {
            Ok(registers) => {
                self.learned.answered(spans);
                let each = |(at, visitor): (usize, &Visitor)| (at, value(visitor, &block, &registers));
                members.into_iter().map(each).collect()
            }
            // Which of them it was, each shows alone.
            Err(Fault::Device(_) | Fault::NoValue(_)) => {
                self.learned.failed(block.table, block.count, &spans, true);
                vec![(0, self.read(first).await)]
            }
            Err(fault) => {
                self.learned.failed(block.table, block.count, &spans, false);
                vec![(0, Err(fault))]
            }
        }
    }

    async fn write(&mut self, visitor: &Visitor, value: &Value) -> Result<(), Fault> {
        let line = Arc::clone(&self.line);
        let address = self.address.clone();
        let mut turn = line.turn(&address).await;
        match visitor.table {
            Table::Coils => self.write_coils(&mut turn, visitor, value).await,
            Table::HoldingRegisters if visitor.encoding.bit.is_some() => {
                self.write_bit(&mut turn, visitor, value).await
            }
            Table::HoldingRegisters => self.write_registers(&mut turn, visitor, value).await,
            Table::DiscreteInputs | Table::InputRegisters => Err(Fault::Device(
                "inputs can only be read; make the property ReadOnly, or use a coil or holding register"
                    .to_owned(),
            )),
        }
    }
}

impl ModbusSession {
    async fn read_block(&mut self, block: &Block, retries: u32) -> Result<Vec<u16>, Fault> {
        let Block { table, offset, count, .. } = *block;
        let request = match table {
            Table::Coils => Request::ReadCoils(offset, count),
            Table::DiscreteInputs => Request::ReadDiscreteInputs(offset, count),
            Table::InputRegisters => Request::ReadInputRegisters(offset, count),
            Table::HoldingRegisters => Request::ReadHoldingRegisters(offset, count),
        };
        let mut tries = 0;
        let response = loop {
            // Others have their turn in between.
            let mut turn = self.line.turn(&self.address).await;
            match asked(&mut turn, &request, true).await {
                Err(Fault::Silent(_)) if tries < retries => tries += 1,
                answer => break answer?,
            }
        };
        let words: Vec<u16> = match (table, response) {
            (Table::Coils, Response::ReadCoils(bits))
            | (Table::DiscreteInputs, Response::ReadDiscreteInputs(bits)) => {
                bits.into_iter().map(u16::from).collect()
            }
            (Table::InputRegisters, Response::ReadInputRegisters(registers))
            | (Table::HoldingRegisters, Response::ReadHoldingRegisters(registers)) => registers,
            (_, other) => return Err(stranger(&other)),
        };
        // A device answers bits in whole bytes; the rest is filling.
        let is_right = if table.is_bits() {
            words.len() >= usize::from(count)
        } else {
            words.len() == usize::from(count)
        };
        if is_right {
            Ok(words)
        } else {
            Err(Fault::Device(format!("{} values came instead of {count}", words.len())))
        }
    }

    fn remember(&mut self, visitor: &Visitor, fault: Option<&Fault>) {
        match fault {
            None => {
                self.silent.remove(&visitor.span());
                self.learned.answered([visitor.span()]);
            }
            Some(Fault::Silent(_)) => drop(self.silent.insert(visitor.span())),
            Some(_) => drop(self.silent.remove(&visitor.span())),
        }
    }

    async fn write_coils(
        &mut self,
        turn: &mut Turn<'_>,
        visitor: &Visitor,
        value: &Value,
    ) -> Result<(), Fault> {
        let registers = visitor.encoding.encode(value).map_err(Fault::Device)?;
        let bits = bits(&registers, visitor.count)?;
        let many = Request::WriteMultipleCoils(visitor.offset, bits.clone().into());
        match bits.as_slice() {
            [one] => {
                let single = Request::WriteSingleCoil(visitor.offset, *one);
                self.write_single(turn, visitor, single, many).await
            }
            _ => sent(turn, &many).await,
        }
    }

    async fn write_registers(
        &mut self,
        turn: &mut Turn<'_>,
        visitor: &Visitor,
        value: &Value,
    ) -> Result<(), Fault> {
        if let Value::Bool(_) = value {
            is_a_truth(turn, visitor).await?;
        }
        let registers = visitor.encoding.encode(value).map_err(Fault::Device)?;
        let many = Request::WriteMultipleRegisters(visitor.offset, registers.clone().into());
        match registers.as_slice() {
            [one] => {
                let single = Request::WriteSingleRegister(visitor.offset, *one);
                self.write_single(turn, visitor, single, many).await
            }
            _ => sent(turn, &many).await,
        }
    }

    /// By the function for one or by that for many, whichever the device knows.
    async fn write_single(
        &mut self,
        turn: &mut Turn<'_>,
        visitor: &Visitor,
        single: Request<'static>,
        many: Request<'static>,
    ) -> Result<(), Fault> {
        let as_many = match visitor.write {
            WriteFunction::Auto => self.written_as_many.contains(&visitor.table),
            WriteFunction::Multiple => true,
            WriteFunction::Single | WriteFunction::Mask => false,
        };
        let (first, second) = if as_many { (&many, &single) } else { (&single, &many) };
        match answered(turn, first, false).await? {
            // A function that the device does not know has done nothing.
            Err(ExceptionCode::IllegalFunction) if visitor.write == WriteFunction::Auto => {
                sent(turn, second).await?;
                if as_many {
                    self.written_as_many.remove(&visitor.table);
                } else {
                    self.written_as_many.insert(visitor.table);
                }
                Ok(())
            }
            answer => confirmed(first, answer),
        }
    }

    /// One bit, and the others as they are.
    async fn write_bit(
        &mut self,
        turn: &mut Turn<'_>,
        visitor: &Visitor,
        value: &Value,
    ) -> Result<(), Fault> {
        let Some(mask) = visitor.encoding.bit.map(|bit| 1u16 << bit) else { return Ok(()) };
        let is_on = matches!(value, Value::Bool(true) | Value::Int(1));
        // In the device the bytes of a register may be swapped.
        let mask = if visitor.encoding.swap_bytes { mask.swap_bytes() } else { mask };
        if !self.has_no_mask || visitor.write == WriteFunction::Mask {
            let or = if is_on { mask } else { 0 };
            let request = Request::MaskWriteRegister(visitor.offset, !mask, or);
            match answered(turn, &request, false).await? {
                Err(ExceptionCode::IllegalFunction) if visitor.write != WriteFunction::Mask => {
                    self.has_no_mask = true;
                }
                answer => return confirmed(&request, answer),
            }
        }
        let there = register(turn, visitor.offset).await?;
        let word = if is_on { there | mask } else { there & !mask };
        let single = Request::WriteSingleRegister(visitor.offset, word);
        let many = Request::WriteMultipleRegisters(visitor.offset, vec![word].into());
        self.write_single(turn, visitor, single, many).await
    }
}

/// A register that holds more than a truth is not overwritten with one.
async fn is_a_truth(turn: &mut Turn<'_>, visitor: &Visitor) -> Result<(), Fault> {
    if visitor.count != 1 {
        return Ok(());
    }
    let there = register(turn, visitor.offset).await?;
    let there = if visitor.encoding.swap_bytes { there.swap_bytes() } else { there };
    if there <= 1 {
        return Ok(());
    }
    Err(Fault::Device(format!(
        "the register holds {there:#06x}, which is more than true or false; say with `bit` which of its bits is meant"
    )))
}

async fn register(turn: &mut Turn<'_>, offset: u16) -> Result<u16, Fault> {
    match asked(turn, &Request::ReadHoldingRegisters(offset, 1), true).await? {
        Response::ReadHoldingRegisters(words) => match words.as_slice() {
            [word] => Ok(*word),
            other => Err(Fault::Device(format!("{} registers came instead of 1", other.len()))),
        },
        other => Err(stranger(&other)),
    }
}

/// Asks, again while the device is busy.
async fn answered(
    turn: &mut Turn<'_>,
    request: &Request<'static>,
    is_repeatable: bool,
) -> Result<Answer, Fault> {
    for pause in BUSY {
        match turn.ask(request, is_repeatable).await? {
            // It has done nothing.
            Err(ExceptionCode::ServerDeviceBusy) => sleep(pause).await,
            answer => return Ok(answer),
        }
    }
    turn.ask(request, is_repeatable).await
}

async fn asked(
    turn: &mut Turn<'_>,
    request: &Request<'static>,
    is_repeatable: bool,
) -> Result<Response, Fault> {
    answered(turn, request, is_repeatable).await?.map_err(refused)
}

async fn sent(turn: &mut Turn<'_>, request: &Request<'static>) -> Result<(), Fault> {
    let answer = answered(turn, request, false).await?;
    confirmed(request, answer)
}

fn confirmed(request: &Request<'_>, answer: Answer) -> Result<(), Fault> {
    match answer {
        Ok(answer) if confirms(request, &answer) => Ok(()),
        Ok(answer) => Err(stranger(&answer)),
        // Accepted, and it takes its time: it is read back later.
        Err(ExceptionCode::Acknowledge) => Ok(()),
        Err(exception) => Err(refused(exception)),
    }
}

/// The value of one visitor within what a block brought.
fn value(visitor: &Visitor, block: &Block, words: &[u16]) -> Result<Value, Fault> {
    let from = usize::from(visitor.offset - block.offset);
    let own = words.get(from..from + usize::from(visitor.count)).unwrap_or_default();
    let decoded = if visitor.table.is_bits() {
        // The first one is the lowest.
        let word = own.iter().rev().fold(0u16, |word, bit| (word << 1) | bit);
        visitor.encoding.decode(&[word])
    } else {
        visitor.encoding.decode(own)
    };
    decoded.map_err(|error| match error {
        NotDecoded::NoValue(reason) => Fault::NoValue(reason),
        NotDecoded::Wrong(reason) => Fault::Device(reason),
    })
}

fn bits(registers: &[u16], count: u16) -> Result<Vec<bool>, Fault> {
    let word = registers.first().copied().unwrap_or_default();
    if count < Encoding::BITS_MAX && word >> count != 0 {
        return Err(Fault::Device(format!("{word} does not fit into {count} bits")));
    }
    Ok((0..count).map(|at| word >> at & 1 == 1).collect())
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
        (Request::MaskWriteRegister(to, and, or), Response::MaskWriteRegister(at, kept, set)) => {
            to == at && and == kept && or == set
        }
        _ => false,
    }
}

fn stranger(answer: &Response) -> Fault {
    Fault::Device(format!("the answer (function {}) does not belong to the request", answer.function_code()))
}

fn refused(exception: ExceptionCode) -> Fault {
    match exception {
        // A gateway that does not reach the device: this one is away, and nothing else is known.
        ExceptionCode::GatewayPathUnavailable | ExceptionCode::GatewayTargetDevice => {
            Fault::Silent(format!("the gateway says: {exception}"))
        }
        other => Fault::Device(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_bit_is_the_lowest() {
        assert_eq!(bits(&[0b101], 3), Ok(vec![true, false, true]));
        assert_eq!(bits(&[1], 1), Ok(vec![true]));
        assert!(bits(&[2], 1).is_err());
        assert_eq!(bits(&[0xFFFF], 16), Ok(vec![true; 16]));
    }

    #[test]
    fn an_answer_to_something_else_is_no_confirmation() {
        assert!(confirms(&Request::WriteSingleRegister(1, 2), &Response::WriteSingleRegister(1, 2)));
        assert!(!confirms(&Request::WriteSingleRegister(1, 2), &Response::WriteSingleRegister(1, 3)));
        assert!(!confirms(&Request::WriteSingleRegister(1, 2), &Response::WriteMultipleRegisters(1, 1)));
        let many = Request::WriteMultipleRegisters(1, vec![1, 2].into());
        assert!(confirms(&many, &Response::WriteMultipleRegisters(1, 2)));
        assert!(!confirms(&many, &Response::WriteMultipleRegisters(1, 1)));
        let mask = Request::MaskWriteRegister(1, !8, 8);
        assert!(confirms(&mask, &Response::MaskWriteRegister(1, !8, 8)));
    }

    #[test]
    fn a_gateway_without_its_device_is_a_silent_device() {
        assert!(matches!(refused(ExceptionCode::GatewayTargetDevice), Fault::Silent(_)));
        assert!(matches!(refused(ExceptionCode::IllegalDataAddress), Fault::Device(_)));
    }
}
