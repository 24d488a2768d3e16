//! A value in the bits of a frame, as DBC files describe it. Pure.

use framework::{Fault, Kind, Scale, Value, widened};

use crate::object::range;

/// In which order the bits of a value are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Low byte first; the start is the lowest bit.
    Intel,
    /// High byte first; the start is the highest bit.
    Motorola,
}

/// What the bits are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bits {
    /// A whole number, with a sign or without one.
    Whole {
        /// Whether it has a sign.
        is_signed: bool,
    },
    /// A number with a fraction, of 32 or 64 bits.
    Real,
}

/// A value in the bits of a frame.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Signal {
    /// What the property's values are.
    pub kind: Kind,
    /// What the bits are.
    pub bits: Bits,
    /// Bit 0 is the lowest of the first byte, bit 8 that of the second.
    pub start: usize,
    /// How many bits: 1 to 64.
    pub length: usize,
    /// In which order they are.
    pub order: Order,
    /// The value is the number times this,
    pub scale: Scale,
    /// and this is added.
    pub offset: f64,
}

impl Signal {
    /// The place of each bit in the eight bytes, the lowest first. None when one of them is in no frame.
    fn places(&self) -> Option<Vec<usize>> {
        let places: Vec<usize> = match self.order {
            Order::Intel => (self.start..self.start + self.length).collect(),
            Order::Motorola => {
                // From the highest down within its byte, then from the highest of the next one.
                let mut places = Vec::with_capacity(self.length);
                let mut at = self.start;
                for _ in 0..self.length {
                    places.push(at);
                    at = if at.is_multiple_of(8) { at + 15 } else { at - 1 };
                }
                places.reverse();
                places
            }
        };
        places.iter().all(|place| *place < 64).then_some(places)
    }

    /// How many bytes a frame has at least that has the whole value. None: no frame has it.
    pub(crate) fn bytes(&self) -> Option<usize> {
        self.places()?.iter().max().map(|place| place / 8 + 1)
    }

    /// The value in a frame.
    ///
    /// # Errors
    /// When the frame is too short, or what is there is no value.
    pub(crate) fn decode(&self, frame: &[u8]) -> Result<Value, Fault> {
        let mut number = 0i128;
        for (at, place) in self.places().unwrap_or_default().into_iter().enumerate() {
            let byte = frame.get(place / 8).ok_or_else(|| {
                Fault::Device(format!(
                    "the frame has {} bytes, and the value is not within them",
                    frame.len()
                ))
            })?;
            number |= i128::from((byte >> (place % 8)) & 1) << at;
        }
        match self.bits {
            Bits::Whole { is_signed } => {
                let is_negative = is_signed && number >> (self.length - 1) & 1 == 1;
                let number = if is_negative { number - (1 << self.length) } else { number };
                self.shifted(self.scale.value_of_whole(self.kind, number)?)
            }
            Bits::Real => {
                let bits = u64::try_from(number).unwrap_or_default();
                let real = match u32::try_from(bits) {
                    Ok(bits) if self.length == 32 => widened(f32::from_bits(bits)),
                    _ => f64::from_bits(bits),
                };
                self.shifted(self.scale.value_of(self.kind, real)?)
            }
        }
    }

    #[allow(clippy::cast_possible_truncation)]
    fn shifted(&self, value: Value) -> Result<Value, Fault> {
        if self.offset.to_bits() == 0 {
            return Ok(value);
        }
        match value.number().map(|number| (number + self.offset, self.kind)) {
            Some((number, Kind::Double)) if number.is_finite() => Ok(Value::Double(number)),
            Some((number, Kind::Float)) if (number as f32).is_finite() => Ok(Value::Float(number as f32)),
            Some((number, Kind::Float | Kind::Double)) => Err(Fault::Device(format!(
                "{number}, with `offset`, is no number of the property's type; make the property a DOUBLE, or correct `offset` and `scale`"
            ))),
            _ => Ok(value),
        }
    }

    /// Puts a value into the eight bytes of a frame; all other bits stay as they are.
    ///
    /// # Errors
    /// A sentence, when there is no room for it.
    pub(crate) fn encode(&self, value: &Value, frame: &mut [u8; 8]) -> Result<(), String> {
        let value = match value.number().filter(|_| self.offset.to_bits() != 0) {
            Some(number) => Value::Double(number - self.offset),
            None => value.clone(),
        };
        let number = match self.bits {
            Bits::Whole { is_signed } => {
                let number = self.scale.whole_of(&value)?;
                let (least, most) = range(self.length, is_signed);
                if !(least..=most).contains(&number) {
                    return Err(format!(
                        "{number} is not between {least} and {most}, what {} bits have room for",
                        self.length
                    ));
                }
                number
            }
            Bits::Real => {
                let real = self.scale.number_of(&value)?;
                #[allow(clippy::cast_possible_truncation)]
                let narrow = real as f32;
                match self.length {
                    32 if !narrow.is_finite() => return Err(format!("{real} is no number of 32 bits")),
                    32 => i128::from(narrow.to_bits()),
                    _ => i128::from(real.to_bits()),
                }
            }
        };
        for (at, place) in self.places().unwrap_or_default().into_iter().enumerate() {
            let bit = u8::from(number >> at & 1 == 1) << (place % 8);
            if let Some(byte) = frame.get_mut(place / 8) {
                *byte = (*byte & !(1 << (place % 8))) | bit;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signal(start: usize, length: usize, order: Order, is_signed: bool) -> Signal {
        let bits = Bits::Whole { is_signed };
        Signal { kind: Kind::Int, bits, start, length, order, scale: Scale::ONE, offset: 0.0 }
    }

    #[test]
    fn bits_are_counted_as_in_dbc_files() {
        let frame = [0x12, 0x34, 0x56, 0x78, 0x9A, 0xBC, 0xDE, 0xF0];
        let read = |start, length, order| signal(start, length, order, false).decode(&frame);
        assert_eq!(read(0, 16, Order::Intel), Ok(Value::Int(0x3412)));
        assert_eq!(read(7, 16, Order::Motorola), Ok(Value::Int(0x1234)));
        assert_eq!(read(4, 8, Order::Intel), Ok(Value::Int(0x41)));
        assert_eq!(read(3, 8, Order::Motorola), Ok(Value::Int(0x23)));
        assert_eq!(read(0, 64, Order::Intel), Ok(Value::Int(0xF0DE_BC9A_7856_3412)));
        assert_eq!(read(7, 64, Order::Motorola), Ok(Value::Int(0x1234_5678_9ABC_DEF0)));
        assert_eq!(read(8, 1, Order::Intel), Ok(Value::Int(0)));
        assert_eq!(read(10, 1, Order::Motorola), Ok(Value::Int(1)));
        assert_eq!(signal(56, 8, Order::Intel, true).decode(&frame), Ok(Value::Int(-16)));
        assert_eq!(signal(60, 8, Order::Intel, false).bytes(), None);
        assert_eq!(signal(56, 8, Order::Motorola, false).bytes(), None, "its second bit is in a ninth byte");
        assert!(signal(8, 16, Order::Intel, false).decode(&frame[..2]).is_err(), "too short");
    }

    #[test]
    fn values_have_scale_and_offset_and_leave_their_neighbours_alone() {
        let celsius = Signal {
            kind: Kind::Double,
            scale: Scale::new(0.1).unwrap(),
            offset: -40.0,
            ..signal(12, 10, Order::Intel, false)
        };
        let mut frame = [0xFF; 8];
        celsius.encode(&Value::Double(21.5), &mut frame).unwrap();
        assert_eq!(celsius.decode(&frame), Ok(Value::Double(21.5)));
        assert_eq!((frame[0], frame[1] & 0x0F, frame[2] & 0xC0, frame[3]), (0xFF, 0x0F, 0xC0, 0xFF));
        assert!(celsius.encode(&Value::Double(63.0), &mut frame).unwrap_err().contains("10 bits"));
        assert!(celsius.encode(&Value::Double(-40.1), &mut frame).is_err());
        let real = |length, kind| Signal { kind, bits: Bits::Real, ..signal(0, length, Order::Intel, false) };
        for (length, kind, value) in
            [(32, Kind::Float, Value::Float(0.1)), (64, Kind::Double, Value::Double(1.0 / 3.0))]
        {
            let signal = real(length, kind);
            signal.encode(&value, &mut frame).unwrap();
            assert_eq!(signal.decode(&frame), Ok(value));
        }
        assert!(real(32, Kind::Double).encode(&Value::Double(1e39), &mut frame).is_err());
        // A number that the device has, and that its offset carries beyond 32 bits.
        let far = Signal { offset: 3e38, ..real(32, Kind::Float) };
        frame[..4].copy_from_slice(&3e38f32.to_le_bytes());
        assert!(matches!(far.decode(&frame), Err(Fault::Device(said)) if said.contains("`offset`")));
    }

    proptest::proptest! {
        #[test]
        fn what_is_put_in_is_what_is_read(start in 0..64usize, length in 1..=64usize, is_motorola: bool, is_signed: bool, number: u64, frame: [u8; 8]) {
            let order = if is_motorola { Order::Motorola } else { Order::Intel };
            let signal = signal(start, length, order, is_signed);
            if signal.bytes().is_some() {
                let (least, most) = range(length, is_signed);
                let number = least + i128::from(number) % (most - least + 1);
                let mut written = frame;
                signal.encode(&Value::Int(number), &mut written).unwrap();
                assert_eq!(signal.decode(&written), Ok(Value::Int(number)));
                let changed: u32 = written.iter().zip(frame).map(|(new, old)| (new ^ old).count_ones()).sum();
                assert!(changed as usize <= length);
            }
        }
    }
}
