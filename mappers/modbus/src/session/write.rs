//! What is written, and by which function.

use std::sync::Arc;

use framework::{Fault, Value};
use tokio_modbus::{ExceptionCode, Request, Response};

use crate::encoding::Encoding;
use crate::line::Turn;
use crate::session::ModbusSession;
use crate::session::answers::{answered, asked, confirmed, sent, stranger};
use crate::visitor::{Table, Visitor, WriteFunction};

impl ModbusSession {
    /// Writes a property, in one turn at the line.
    pub(super) async fn write_value(&mut self, visitor: &Visitor, value: &Value) -> Result<(), Fault> {
        let line = Arc::clone(&self.line);
        let address = self.address.clone();
        let mut turn = line.turn(&address).await;
        match visitor.table {
            Table::Coils => self.write_coils(&mut turn, visitor, value).await,
            Table::HoldingRegisters if visitor.encoding.bit.is_some() => {
                self.write_bit(&mut turn, visitor, value).await
            }
            Table::HoldingRegisters => self.write_registers(&mut turn, visitor, value).await,
            Table::DiscreteInputs | Table::InputRegisters => Err(Fault::Unfit(
                "inputs can only be read; make the property ReadOnly, or use a coil or holding register"
                    .to_owned(),
            )),
        }
    }

    async fn write_coils(
        &mut self,
        turn: &mut Turn<'_>,
        visitor: &Visitor,
        value: &Value,
    ) -> Result<(), Fault> {
        let registers = visitor.encoding.encode(value).map_err(Fault::Unfit)?;
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
        let registers = visitor.encoding.encode(value).map_err(Fault::Unfit)?;
        if visitor.write == WriteFunction::ReadBack {
            return write_and_read(turn, visitor.offset, registers).await;
        }
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
            WriteFunction::Single | WriteFunction::Mask | WriteFunction::ReadBack => false,
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
            answer => confirmed(turn.unit(), first, answer),
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
                answer => return confirmed(turn.unit(), &request, answer),
            }
        }
        let there = register(turn, visitor.offset).await?;
        let word = if is_on { there | mask } else { there & !mask };
        let single = Request::WriteSingleRegister(visitor.offset, word);
        let many = Request::WriteMultipleRegisters(visitor.offset, vec![word].into());
        self.write_single(turn, visitor, single, many).await
    }
}

/// Writes, and has the device say in the same answer what it has then.
async fn write_and_read(turn: &mut Turn<'_>, offset: u16, registers: Vec<u16>) -> Result<(), Fault> {
    let count = u16::try_from(registers.len()).unwrap_or(u16::MAX);
    let request = Request::ReadWriteMultipleRegisters(offset, count, offset, registers.clone().into());
    match answered(turn, &request, false).await? {
        Ok(Response::ReadWriteMultipleRegisters(there)) if there == registers => Ok(()),
        Ok(Response::ReadWriteMultipleRegisters(there)) => Err(Fault::Device(format!(
            "it has {there:?} in holding registers from {offset} after it was given {registers:?}; look at their range in its manual"
        ))),
        answer => confirmed(turn.unit(), &request, answer),
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
    // It may hold something else by the next time.
    Err(Fault::Device(format!(
        "the register holds {there:#06x}, which is more than true or false; say with `bit` which of its bits is meant"
    )))
}

async fn register(turn: &mut Turn<'_>, offset: u16) -> Result<u16, Fault> {
    match asked(turn, &Request::ReadHoldingRegisters(offset, 1), true).await? {
        Response::ReadHoldingRegisters(words) => match words.as_slice() {
            [word] => Ok(*word),
            other => Err(Fault::Device(format!(
                "{} registers came instead of holding register {offset} alone; look whether anybody else asks on this line",
                other.len()
            ))),
        },
        other => Err(stranger(&other)),
    }
}

fn bits(registers: &[u16], count: u16) -> Result<Vec<bool>, Fault> {
    let word = registers.first().copied().unwrap_or_default();
    if count < Encoding::BITS_MAX && word >> count != 0 {
        return Err(Fault::Unfit(format!("{word} does not fit into {count} bits")));
    }
    Ok((0..count).map(|at| word >> at & 1 == 1).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_bit_is_the_lowest() {
        assert_eq!(bits(&[0b101], 3), Ok(vec![true, false, true]));
        assert_eq!(bits(&[1], 1), Ok(vec![true]));
        assert!(matches!(bits(&[2], 1), Err(Fault::Unfit(_))));
        assert_eq!(bits(&[0xFFFF], 16), Ok(vec![true; 16]));
    }
}
