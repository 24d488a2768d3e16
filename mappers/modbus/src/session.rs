//! Talking to a device: its place at its line, and what is read.

mod answers;
mod write;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use framework::{Fault, InvalidSetting, Property, Protocol, Session, Settings, Value};
use tokio_modbus::{Request, Response};

use crate::address::Address;
use crate::blocks::{Block, Learned};
use crate::encoding::NotDecoded;
use crate::line::{Line, Lines};
use crate::session::answers::{asked, stranger};
use crate::visitor::{Span, Table, Visitor};

/// The protocol's name in devices and in the mapper's config.
pub const NAME: &str = "modbus";
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
        self.write_value(visitor, value).await
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
            Err(Fault::Device(format!(
                "{} values came instead of the {count} from {offset} on; ask for fewer at once (`maxRegisters`, `maxBits`), or correct `limit`",
                words.len()
            )))
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
