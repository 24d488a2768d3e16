//! Talking to a PLC: many values in one request, and each written by one of its own.

use std::sync::Arc;
use std::time::Duration;

use framework::{Fault, InvalidSetting, Property, Protocol, Session, Settings, Value};

use crate::address::Address;
use crate::code;
use crate::format::{Format, STRING_HEAD};
use crate::job::{self, Item};
use crate::line::{Line, Lines};
use crate::place::{Area, Place};
use crate::visitor::Visitor;

/// The protocol's name in devices and in the mapper's config.
pub const NAME: &str = "s7";
/// 60 s: how long a request may wait for its turn behind those of other Devices of the PLC.
const QUEUE: Duration = Duration::from_secs(60);
/// Requests that one value may take: a long text in pieces, twice.
const REQUESTS: u32 = 8;

/// PLCs that speak S7.
#[derive(Debug, Clone, Default)]
pub struct S7 {
    lines: Lines,
}

/// A PLC, by way of the connection that its Devices share.
#[derive(Debug)]
pub struct S7Session {
    line: Arc<Line>,
    address: Address,
}

impl Protocol for S7 {
    type Address = Address;
    type Visitor = Visitor;
    type Session = S7Session;

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

    async fn connect(&self, address: &Address) -> Result<S7Session, Fault> {
        let line = self.lines.at(&address.plc);
        line.turn(address).await.open().await?;
        Ok(S7Session { line, address: address.clone() })
    }
}

impl Session for S7Session {
    type Visitor = Visitor;

    /// Each request has its own time-out; this is for the queue before it.
    fn deadline(&self) -> Duration {
        QUEUE + self.address.answer * REQUESTS
    }

    async fn read(&mut self, visitor: &Visitor) -> Result<Value, Fault> {
        match self.read_many(&[visitor]).await.pop() {
            Some((_, read)) => read,
            None => Err(Fault::Device("nothing was read".to_owned())),
        }
    }

    async fn read_many(&mut self, visitors: &[&Visitor]) -> Vec<(usize, Result<Value, Fault>)> {
        let items: Vec<Item> = visitors.iter().map(|visitor| item(visitor)).collect();
        let Some(first) = items.first() else { return Vec::new() };
        // A turn for each request: others have theirs in between.
        let mut turn = self.line.turn(&self.address).await;
        let read = match turn.open().await {
            Err(fault) => Err(fault),
            Ok(pdu) if first.bytes > job::readable(pdu) => {
                drop(turn);
                self.read_long(first, pdu).await.map(|bytes| vec![bytes])
            }
            Ok(pdu) => {
                let asked = items.get(..job::fitting(&items, pdu)).unwrap_or_default();
                let answer = turn.ask(|reference| job::read(reference, asked), job::READ, true).await;
                answer.and_then(|answer| job::values(&answer, asked).map_err(Fault::Device))
            }
        };
        match read {
            Ok(values) => {
                let each = |(at, (visitor, bytes)): (usize, (&&Visitor, Result<Vec<u8>, u8>))| {
                    (at, value(visitor, bytes))
                };
                visitors.iter().zip(values).enumerate().map(each).collect()
            }
            Err(fault) => vec![(0, Err(fault))],
        }
    }

    async fn write(&mut self, visitor: &Visitor, value: &Value) -> Result<(), Fault> {
        let Visitor { mut place, encoding } = *visitor;
        if place.area == Area::Inputs {
            let sentence = "inputs are read only: the PLC takes them from its terminals in each cycle";
            return Err(Fault::Unfit(sentence.to_owned()));
        }
        let mut bytes = encoding.encode(value).map_err(Fault::Unfit)?;
        if let Format::Text(room) = encoding.format {
            bytes = self.with_room(&place, room, bytes).await?;
        }
        let mut turn = self.line.turn(&self.address).await;
        let most = job::writable(turn.open().await?);
        if bytes.len() > most {
            return Err(Fault::Unfit(format!(
                "it has {} bytes, and at most {most} can be written at once to this PLC",
                bytes.len()
            )));
        }
        // A bit is one, and never the whole byte that it is in.
        if encoding.format != Format::Bit {
            place.bit = None;
        }
        let answer = turn.ask(|reference| job::write(reference, &place, &bytes), job::WRITE, false).await?;
        match job::written(&answer).map_err(Fault::Device)? {
            None => Ok(()),
            Some(refused) => Err(Fault::Device(code::of_item(refused))),
        }
    }
}

impl S7Session {
    /// What does not fit into one answer, in several. It may be torn where the PLC writes it meanwhile.
    async fn read_long(&self, item: &Item, pdu: usize) -> Result<Result<Vec<u8>, u8>, Fault> {
        let mut all = Vec::with_capacity(item.bytes);
        while all.len() < item.bytes {
            let bytes = (item.bytes - all.len()).min(job::readable(pdu));
            let part = Item { place: further(&item.place, all.len()), bytes };
            let mut turn = self.line.turn(&self.address).await;
            let answer = turn.ask(|reference| job::read(reference, &[part]), job::READ, true).await?;
            match job::values(&answer, &[part]).map_err(Fault::Device)?.pop() {
                Some(Ok(bytes)) => all.extend(bytes),
                Some(Err(code)) => return Ok(Err(code)),
                None => return Err(Fault::Device("nothing was read".to_owned())),
            }
        }
        Ok(Ok(all))
    }

    /// A STRING as it is written: with the room that the PLC says it has, or as is said here where it says nothing yet.
    async fn with_room(&self, place: &Place, room: usize, written: Vec<u8>) -> Result<Vec<u8>, Fault> {
        let head = Item { place: *place, bytes: STRING_HEAD };
        let mut turn = self.line.turn(&self.address).await;
        let answer = turn.ask(|reference| job::read(reference, &[head]), job::READ, true).await?;
        let there = job::values(&answer, &[head]).map_err(Fault::Device)?.pop().unwrap_or(Err(0));
        let there = there.map_err(|refused| Fault::Device(code::of_item(refused)))?;
        let has_room = match there.first().copied().map(usize::from) {
            Some(0 | 255) | None => room,
            Some(has_room) => has_room,
        };
        let letters = written.len().saturating_sub(1);
        if letters > has_room {
            return Err(Fault::Unfit(format!(
                "it has {letters} letters, and the PLC has room for {has_room}"
            )));
        }
        Ok([vec![u8::try_from(has_room).unwrap_or(u8::MAX)], written].concat())
    }
}

fn item(visitor: &Visitor) -> Item {
    // Of a bit the byte is read: every PLC answers that in the same way.
    Item { place: Place { bit: None, ..visitor.place }, bytes: visitor.encoding.format.bytes() }
}

fn further(place: &Place, bytes: usize) -> Place {
    Place { byte: place.byte.saturating_add(u32::try_from(bytes).unwrap_or(u32::MAX)), ..*place }
}

fn value(visitor: &Visitor, bytes: Result<Vec<u8>, u8>) -> Result<Value, Fault> {
    let bytes = bytes.map_err(|refused| Fault::Device(code::of_item(refused)))?;
    visitor.encoding.decode(&bytes, visitor.place.bit)
}
