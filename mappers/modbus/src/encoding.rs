//! How a value is written down in registers.

use framework::{InvalidSetting, Kind, Value};

/// What the registers hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// A whole number of 16 bits without a sign.
    U16,
    /// A whole number of 16 bits.
    I16,
    /// A whole number of 32 bits without a sign.
    U32,
    /// A whole number of 32 bits.
    I32,
    /// A whole number of 64 bits without a sign.
    U64,
    /// A whole number of 64 bits.
    I64,
    /// IEEE 754 of 32 bits.
    F32,
    /// IEEE 754 of 64 bits.
    F64,
    /// Text, two bytes in each register, ended by a zero or by the last register.
    Text,
}

/// What a number in the device is multiplied with.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scale {
    factor: f64,
    /// Its reciprocal, when that is whole: 235 divided by 10 is 23.5, and 235 times 0.1 is 23.500000000000004.
    divisor: Option<f64>,
}

/// How a value is written down in registers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Encoding {
    /// What the value is to be.
    pub kind: Kind,
    /// What the registers hold.
    pub format: Format,
    /// How many registers.
    pub words: u16,
    /// What a number in the device is multiplied with.
    pub scale: Scale,
    /// The bytes within each register are swapped.
    pub swap_bytes: bool,
    /// The registers come in reverse.
    pub swap_words: bool,
}

impl Format {
    /// How many registers it takes. None: as many as one likes.
    pub fn words(self) -> Option<u16> {
        match self {
            Format::U16 | Format::I16 => Some(1),
            Format::U32 | Format::I32 | Format::F32 => Some(2),
            Format::U64 | Format::I64 | Format::F64 => Some(4),
            Format::Text => None,
        }
    }

    /// A whole number in so many registers.
    pub fn whole(words: u16, signed: bool) -> Option<Self> {
        match (words, signed) {
            (1, false) => Some(Format::U16),
            (1, true) => Some(Format::I16),
            (2, false) => Some(Format::U32),
            (2, true) => Some(Format::I32),
            (4, false) => Some(Format::U64),
            (4, true) => Some(Format::I64),
            _ => None,
        }
    }
}

impl Scale {
    /// No scale.
    pub const ONE: Scale = Scale { factor: 1.0, divisor: None };

    /// A factor other than zero.
    ///
    /// # Errors
    /// When it is zero or no number.
    pub fn new(factor: f64) -> Result<Self, InvalidSetting> {
        if !factor.is_normal() {
            return Err(InvalidSetting::new(format!(
                "setting `scale` is {factor}; write a number other than 0"
            )));
        }
        let reciprocal = (1.0 / factor).round();
        let whole = reciprocal.abs() > 1.0 && (reciprocal * factor - 1.0).abs() < 1e-9;
        Ok(Scale { factor, divisor: whole.then_some(reciprocal) })
    }

    fn apply(self, raw: f64) -> f64 {
        self.divisor.map_or(raw * self.factor, |divisor| raw / divisor)
    }

    fn undo(self, value: f64) -> f64 {
        self.divisor.map_or(value / self.factor, |divisor| value * divisor)
    }

    fn is_one(self) -> bool {
        self == Scale::ONE
    }
}

/// What registers hold, before it is a property's value.
enum Raw {
    Whole(i64),
    Number(f64),
    Text(String),
}

impl Encoding {
    /// Reads a value from registers.
    ///
    /// # Errors
    /// A sentence, when they hold none.
    pub fn decode(&self, registers: &[u16]) -> Result<Value, String> {
        if registers.len() != usize::from(self.words) {
            return Err(format!("{} registers came instead of {}", registers.len(), self.words));
        }
        let raw = self.raw(&self.ordered(registers))?;
        match (self.kind, raw) {
            (Kind::Bool, Raw::Whole(whole)) => Ok(Value::Bool(whole != 0)),
            (Kind::Bool, Raw::Number(number)) => Ok(Value::Bool(number != 0.0)),
            (Kind::Int, Raw::Whole(whole)) if self.scale.is_one() => Ok(Value::Int(whole)),
            (Kind::Int, raw) => whole(self.scaled(&raw)?).map(Value::Int),
            (Kind::Float, raw) => self.scaled(&raw).and_then(narrow).map(Value::Float),
            (Kind::Double, raw) => self.scaled(&raw).map(Value::Double),
            (Kind::Text, Raw::Text(text)) => Ok(Value::Text(text)),
            (Kind::Bool, Raw::Text(_)) => Err("the registers hold text, not true or false".to_owned()),
            (Kind::Text, Raw::Whole(_) | Raw::Number(_)) => {
                Err("the registers hold a number, not text".to_owned())
            }
        }
    }

    /// Writes a value down.
    ///
    /// # Errors
    /// A sentence, when the registers cannot hold it.
    pub fn encode(&self, value: &Value) -> Result<Vec<u16>, String> {
        let bytes = match self.format {
            Format::U16 => self.int::<u16>(value)?.to_be_bytes().to_vec(),
            Format::I16 => self.int::<i16>(value)?.to_be_bytes().to_vec(),
            Format::U32 => self.int::<u32>(value)?.to_be_bytes().to_vec(),
            Format::I32 => self.int::<i32>(value)?.to_be_bytes().to_vec(),
            Format::U64 => self.int::<u64>(value)?.to_be_bytes().to_vec(),
            Format::I64 => self.int::<i64>(value)?.to_be_bytes().to_vec(),
            Format::F32 => narrow(self.unscaled(value)?)?.to_be_bytes().to_vec(),
            Format::F64 => self.unscaled(value)?.to_be_bytes().to_vec(),
            Format::Text => self.text(value)?,
        };
        let words: Vec<u16> = bytes.chunks_exact(2).map(|two| u16::from_be_bytes([two[0], two[1]])).collect();
        Ok(self.ordered(&words))
    }

    /// Swaps what is to be swapped; twice is as before.
    fn ordered(&self, registers: &[u16]) -> Vec<u16> {
        let swapped = |word: &u16| if self.swap_bytes { word.swap_bytes() } else { *word };
        if self.swap_words {
            registers.iter().rev().map(swapped).collect()
        } else {
            registers.iter().map(swapped).collect()
        }
    }

    fn raw(&self, registers: &[u16]) -> Result<Raw, String> {
        let bytes: Vec<u8> = registers.iter().flat_map(|word| word.to_be_bytes()).collect();
        let short = || format!("{} registers are not what {:?} takes", registers.len(), self.format);
        let two = || <[u8; 2]>::try_from(bytes.as_slice()).map_err(|_| short());
        let four = || <[u8; 4]>::try_from(bytes.as_slice()).map_err(|_| short());
        let eight = || <[u8; 8]>::try_from(bytes.as_slice()).map_err(|_| short());
        Ok(match self.format {
            Format::U16 => Raw::Whole(u16::from_be_bytes(two()?).into()),
            Format::I16 => Raw::Whole(i16::from_be_bytes(two()?).into()),
            Format::U32 => Raw::Whole(u32::from_be_bytes(four()?).into()),
            Format::I32 => Raw::Whole(i32::from_be_bytes(four()?).into()),
            Format::U64 => {
                let number = u64::from_be_bytes(eight()?);
                Raw::Whole(
                    i64::try_from(number).map_err(|_| format!("{number} is larger than a value can be"))?,
                )
            }
            Format::I64 => Raw::Whole(i64::from_be_bytes(eight()?)),
            Format::F32 => Raw::Number(widen(f32::from_be_bytes(four()?))?),
            Format::F64 => Raw::Number(finite(f64::from_be_bytes(eight()?))?),
            Format::Text => {
                let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
                let text = bytes.get(..end).unwrap_or_default().to_vec();
                Raw::Text(String::from_utf8(text).map_err(|_| "the registers hold no UTF-8 text".to_owned())?)
            }
        })
    }

    #[allow(clippy::cast_precision_loss)]
    fn scaled(&self, raw: &Raw) -> Result<f64, String> {
        match raw {
            Raw::Whole(whole) => Ok(self.scale.apply(*whole as f64)),
            Raw::Number(number) => finite(self.scale.apply(*number)),
            Raw::Text(_) => Err("the registers hold text, not a number".to_owned()),
        }
    }

    fn unscaled(&self, value: &Value) -> Result<f64, String> {
        let number = match value {
            Value::Bool(yes) => f64::from(u8::from(*yes)),
            Value::Int(_) | Value::Float(_) | Value::Double(_) | Value::Text(_) => {
                value.number().ok_or_else(|| "text cannot be written as a number".to_owned())?
            }
        };
        if self.kind == Kind::Bool { Ok(number) } else { finite(self.scale.undo(number)) }
    }

    fn int<T: TryFrom<i64>>(&self, value: &Value) -> Result<T, String> {
        let number = match value {
            Value::Int(number) if self.scale.is_one() => *number,
            Value::Int(_) | Value::Float(_) | Value::Double(_) | Value::Bool(_) | Value::Text(_) => {
                whole(self.unscaled(value)?)?
            }
        };
        T::try_from(number).map_err(|_| format!("{number} does not fit into {:?}", self.format))
    }

    fn text(&self, value: &Value) -> Result<Vec<u8>, String> {
        let mut bytes = value.to_string().into_bytes();
        let room = usize::from(self.words) * 2;
        if bytes.len() > room {
            return Err(format!("{} bytes do not fit into {} registers", bytes.len(), self.words));
        }
        if bytes.contains(&0) {
            return Err("text with a zero byte would end there".to_owned());
        }
        bytes.resize(room, 0);
        Ok(bytes)
    }
}

fn finite(number: f64) -> Result<f64, String> {
    if number.is_finite() { Ok(number) } else { Err(format!("{number} is not a value")) }
}

/// The number that a person would write: 0.1 of 32 bits is 0.1.
fn widen(number: f32) -> Result<f64, String> {
    finite(number.to_string().parse().unwrap_or_else(|_| f64::from(number)))
}

#[allow(clippy::cast_possible_truncation)]
fn narrow(number: f64) -> Result<f32, String> {
    let narrow = number as f32;
    if narrow.is_finite() { Ok(narrow) } else { Err(format!("{number} does not fit into 32 bits")) }
}

/// The nearest whole number. KubeEdge's mapper cuts: its 0.29 of 100 is 28.
#[allow(clippy::cast_possible_truncation)]
fn whole(number: f64) -> Result<i64, String> {
    let near = number.round();
    // 2^63 is the first that does not fit, and exact in 64 bits.
    if (-9_223_372_036_854_775_808.0..9_223_372_036_854_775_808.0).contains(&near) {
        Ok(near as i64)
    } else {
        Err(format!("{number} is not a whole number of 64 bits"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn encoding(kind: Kind, format: Format) -> Encoding {
        let words = format.words().unwrap_or(4);
        Encoding { kind, format, words, scale: Scale::ONE, swap_bytes: false, swap_words: false }
    }

    fn swapped(encoding: Encoding, swap_bytes: bool, swap_words: bool) -> Encoding {
        Encoding { swap_bytes, swap_words, ..encoding }
    }

    #[test]
    fn orders_are_as_devices_have_them() {
        // 0x01020304, in the four orders that are around: ABCD, BADC, CDAB, DCBA.
        let value = Ok(Value::Int(0x0102_0304));
        for (bytes, words, registers) in [
            (false, false, [0x0102, 0x0304]),
            (true, false, [0x0201, 0x0403]),
            (false, true, [0x0304, 0x0102]),
            (true, true, [0x0403, 0x0201]),
        ] {
            let encoding = swapped(encoding(Kind::Int, Format::U32), bytes, words);
            assert_eq!(encoding.decode(&registers), value);
            assert_eq!(encoding.encode(&Value::Int(0x0102_0304)), Ok(registers.to_vec()));
        }
    }

    #[test]
    fn known_bit_patterns() {
        assert_eq!(encoding(Kind::Float, Format::F32).decode(&[0x41BC, 0x0000]), Ok(Value::Float(23.5)));
        assert_eq!(encoding(Kind::Double, Format::F64).decode(&[0xC004, 0, 0, 0]), Ok(Value::Double(-2.5)));
        assert_eq!(encoding(Kind::Int, Format::I16).decode(&[0xFFD8]), Ok(Value::Int(-40)));
        assert_eq!(encoding(Kind::Int, Format::U16).decode(&[0xFFD8]), Ok(Value::Int(65_496)));
        assert_eq!(encoding(Kind::Int, Format::I32).encode(&Value::Int(-1)), Ok(vec![0xFFFF, 0xFFFF]));
        assert_eq!(encoding(Kind::Bool, Format::U16).decode(&[2]), Ok(Value::Bool(true)));
        assert_eq!(encoding(Kind::Bool, Format::U16).encode(&Value::Bool(true)), Ok(vec![1]));
        let text = encoding(Kind::Text, Format::Text);
        assert_eq!(text.decode(&[0x4142, 0x4300, 0x4142, 0]), Ok(Value::Text("ABC".to_owned())));
        assert_eq!(text.encode(&Value::Text("ABC".to_owned())), Ok(vec![0x4142, 0x4300, 0, 0]));
    }

    #[test]
    fn scaled_numbers_are_those_that_a_person_would_write() {
        let tenths = |kind, format| Encoding { scale: Scale::new(0.1).unwrap(), ..encoding(kind, format) };
        let double = tenths(Kind::Double, Format::I16);
        for (raw, shown) in [(235u16, "23.5"), (233, "23.3"), (3, "0.3"), (0xFFFF, "-0.1")] {
            assert_eq!(double.decode(&[raw]).unwrap().to_string(), shown);
        }
        assert_eq!(tenths(Kind::Float, Format::U16).encode(&Value::Float(23.5)), Ok(vec![235]));
        assert_eq!(tenths(Kind::Int, Format::U16).decode(&[289]), Ok(Value::Int(29)), "the nearest");
        assert_eq!(tenths(Kind::Int, Format::U16).encode(&Value::Int(29)), Ok(vec![290]));
        let hundred = Encoding { scale: Scale::new(100.0).unwrap(), ..encoding(Kind::Int, Format::U16) };
        assert_eq!(hundred.decode(&[7]), Ok(Value::Int(700)));
        assert_eq!(hundred.encode(&Value::Int(700)), Ok(vec![7]));
        let float = tenths(Kind::Float, Format::F32);
        assert_eq!(float.decode(&float.encode(&Value::Float(0.7)).unwrap()), Ok(Value::Float(0.7)));
        for bad in [0.0, f64::NAN, f64::INFINITY] {
            assert!(Scale::new(bad).is_err());
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        assert!(encoding(Kind::Int, Format::U16).encode(&Value::Int(-1)).is_err());
        assert!(encoding(Kind::Int, Format::I16).encode(&Value::Int(32_768)).is_err());
        assert!(encoding(Kind::Double, Format::F32).encode(&Value::Double(1e300)).is_err());
        assert!(encoding(Kind::Text, Format::Text).encode(&Value::Text("nine byte".to_owned())).is_err());
        assert!(encoding(Kind::Float, Format::F32).decode(&[0x7FC0, 0]).is_err(), "NaN is not a value");
        assert!(encoding(Kind::Int, Format::U32).decode(&[1]).is_err());
        assert!(encoding(Kind::Int, Format::U64).decode(&[0xFFFF; 4]).is_err());
        assert!(encoding(Kind::Text, Format::Text).decode(&[0xFFFF; 4]).is_err());
    }

    proptest! {
        #[test]
        fn whole_numbers_come_back(number in any::<i64>(), bytes: bool, words: bool) {
            for (format, low, high) in [
                (Format::U16, 0, i64::from(u16::MAX)),
                (Format::I16, i64::from(i16::MIN), i64::from(i16::MAX)),
                (Format::U32, 0, i64::from(u32::MAX)),
                (Format::I32, i64::from(i32::MIN), i64::from(i32::MAX)),
                (Format::U64, 0, i64::MAX),
                (Format::I64, i64::MIN, i64::MAX),
            ] {
                let encoding = swapped(encoding(Kind::Int, format), bytes, words);
                let inside = number.clamp(low, high);
                let registers = encoding.encode(&Value::Int(inside)).unwrap();
                prop_assert_eq!(registers.len(), usize::from(encoding.words));
                prop_assert_eq!(encoding.decode(&registers), Ok(Value::Int(inside)));
                prop_assert_eq!(encoding.encode(&Value::Int(number)).is_ok(), inside == number);
            }
        }

        #[test]
        fn numbers_come_back(number in any::<f32>(), wide in any::<f64>(), bytes: bool, words: bool) {
            let float = swapped(encoding(Kind::Float, Format::F32), bytes, words);
            let double = swapped(encoding(Kind::Double, Format::F64), bytes, words);
            if number.is_finite() {
                prop_assert_eq!(float.decode(&float.encode(&Value::Float(number)).unwrap()), Ok(Value::Float(number)));
            }
            if wide.is_finite() {
                prop_assert_eq!(double.decode(&double.encode(&Value::Double(wide)).unwrap()), Ok(Value::Double(wide)));
            }
        }

        #[test]
        fn scaled_registers_come_back(raw: u16, step in 0usize..6) {
            let factor = [0.001, 0.01, 0.1, 0.5, 2.0, 10.0][step];
            let scale = Scale::new(factor).unwrap();
            for format in [Format::U16, Format::I16] {
                let encoding = Encoding { scale, ..encoding(Kind::Double, format) };
                prop_assert_eq!(encoding.encode(&encoding.decode(&[raw]).unwrap()), Ok(vec![raw]));
            }
        }

        #[test]
        fn text_comes_back(text in "[a-zA-Z0-9 .:/-]{0,8}", bytes: bool, words: bool) {
            let encoding = swapped(encoding(Kind::Text, Format::Text), bytes, words);
            prop_assert_eq!(encoding.decode(&encoding.encode(&Value::Text(text.clone())).unwrap()), Ok(Value::Text(text)));
        }

        #[test]
        fn nothing_from_a_device_panics(registers in proptest::collection::vec(any::<u16>(), 0..6), at in 0usize..9, step in 0usize..5) {
            let formats = [
                Format::U16, Format::I16, Format::U32, Format::I32, Format::U64, Format::I64, Format::F32, Format::F64,
                Format::Text,
            ];
            let kinds = [Kind::Int, Kind::Float, Kind::Double, Kind::Bool, Kind::Text];
            let mut encoding = encoding(kinds[step], formats[at]);
            encoding.scale = Scale::new(1e300).unwrap();
            drop(encoding.decode(&registers));
            encoding.words = u16::try_from(registers.len()).unwrap();
            drop(encoding.decode(&registers));
        }
    }
}
