//! How a value is written down in registers.

use std::fmt::{self, Display};

use framework::{Kind, Scale, Value};

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
    /// A whole number, a decimal digit in every four bits.
    Bcd,
    /// Text, two bytes in each register, ended by a zero or by the last register.
    Text,
}

/// How text is written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Charset {
    /// UTF-8, of which ASCII is a part.
    #[default]
    Utf8,
    /// ISO 8859-1: a byte for each letter.
    Latin1,
}

/// Why registers are no value of a property.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotDecoded {
    /// The device says by them that it has none.
    NoValue(String),
    /// They are not what the property's settings say.
    Wrong(String),
}

impl From<String> for NotDecoded {
    fn from(sentence: String) -> Self {
        NotDecoded::Wrong(sentence)
    }
}

/// How a value is written down in registers.
#[derive(Debug, Clone, PartialEq)]
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
    /// The bit that is meant, of one register; 0 is the lowest.
    pub bit: Option<u8>,
    /// What the registers hold when the device has no value: the number as it is there, or its bits.
    pub no_value: Vec<i128>,
    /// How text is written down.
    pub charset: Charset,
}

impl Format {
    /// How many registers it takes. None: as many as one likes.
    pub fn words(self) -> Option<u16> {
        match self {
            Format::U16 | Format::I16 => Some(1),
            Format::U32 | Format::I32 | Format::F32 => Some(2),
            Format::U64 | Format::I64 | Format::F64 => Some(4),
            Format::Bcd | Format::Text => None,
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

impl Display for Format {
    /// By the name that settings have for it (`dataType`, `encoding`).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Format::U16 => "uint16",
            Format::I16 => "int16",
            Format::U32 => "uint32",
            Format::I32 => "int32",
            Format::U64 => "uint64",
            Format::I64 => "int64",
            Format::F32 => "float",
            Format::F64 => "double",
            Format::Bcd => "bcd",
            Format::Text => "string",
        })
    }
}

/// What registers hold, before it is a property's value.
enum Raw {
    Whole(i128),
    Number(f64),
    Text(String),
}

impl Encoding {
    /// 16: so many bits are read as one register.
    pub const BITS_MAX: u16 = 16;

    /// Reads a value from registers.
    ///
    /// # Errors
    /// A sentence, when they hold none.
    pub fn decode(&self, registers: &[u16]) -> Result<Value, NotDecoded> {
        if registers.len() != usize::from(self.words) {
            return Err(format!("{} registers came instead of {}", registers.len(), self.words).into());
        }
        let ordered = self.ordered(registers);
        let raw = self.raw(&ordered)?;
        self.check_no_value(&ordered, &raw)?;
        let raw = match (self.bit, raw) {
            (Some(bit), Raw::Whole(whole)) => Raw::Whole(whole >> bit & 1),
            (_, raw) => raw,
        };
        self.value(raw).map_err(NotDecoded::Wrong)
    }

    fn value(&self, raw: Raw) -> Result<Value, String> {
        match (self.kind, raw) {
            (Kind::Bool, Raw::Whole(whole)) => Ok(Value::Bool(whole != 0)),
            (Kind::Bool, Raw::Number(number)) => Ok(Value::Bool(number != 0.0)),
            (Kind::Int, Raw::Whole(whole)) if self.scale.is_one() => Ok(Value::Int(whole)),
            (Kind::Int, Raw::Whole(whole)) if self.scale.whole().is_some() => {
                let scaled = self.scale.whole().and_then(|factor| whole.checked_mul(factor));
                scaled
                    .filter(fits)
                    .map(Value::Int)
                    .ok_or_else(|| format!("{whole} is too large when scaled; make the property a DOUBLE"))
            }
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
            Format::Bcd => self.bcd(value)?,
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
        let short = || format!("{} registers are not what {} takes", registers.len(), self.format);
        let two = || <[u8; 2]>::try_from(bytes.as_slice()).map_err(|_| short());
        let four = || <[u8; 4]>::try_from(bytes.as_slice()).map_err(|_| short());
        let eight = || <[u8; 8]>::try_from(bytes.as_slice()).map_err(|_| short());
        Ok(match self.format {
            Format::U16 => Raw::Whole(u16::from_be_bytes(two()?).into()),
            Format::I16 => Raw::Whole(i16::from_be_bytes(two()?).into()),
            Format::U32 => Raw::Whole(u32::from_be_bytes(four()?).into()),
            Format::I32 => Raw::Whole(i32::from_be_bytes(four()?).into()),
            Format::U64 => Raw::Whole(u64::from_be_bytes(eight()?).into()),
            Format::I64 => Raw::Whole(i64::from_be_bytes(eight()?).into()),
            Format::F32 => Raw::Number(widen(f32::from_be_bytes(four()?))),
            Format::F64 => Raw::Number(f64::from_be_bytes(eight()?)),
            Format::Bcd => Raw::Whole(from_bcd(&bytes)?),
            Format::Text => {
                let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
                let bytes = bytes.get(..end).unwrap_or_default();
                let text = match self.charset {
                    Charset::Latin1 => bytes.iter().copied().map(char::from).collect(),
                    Charset::Utf8 => std::str::from_utf8(bytes)
                        .map_err(|_| "the registers hold no UTF-8 text; set `encoding` to latin1".to_owned())?
                        .to_owned(),
                };
                // Devices fill up with blanks.
                Raw::Text(text.trim_end().to_owned())
            }
        })
    }

    /// A number that is none, or one that the device uses for that.
    fn check_no_value(&self, registers: &[u16], raw: &Raw) -> Result<(), NotDecoded> {
        if let Raw::Number(number) = raw
            && !number.is_finite()
        {
            return Err(NotDecoded::NoValue(format!("it says {number}")));
        }
        if self.no_value.is_empty() || registers.len() > 4 {
            return Ok(());
        }
        let bits = registers.iter().fold(0i128, |bits, word| bits << 16 | i128::from(*word));
        let is_marked = |mark: &i128| *mark == bits || matches!(raw, Raw::Whole(whole) if whole == mark);
        match self.no_value.iter().find(|mark| is_marked(mark)) {
            Some(mark) => Err(NotDecoded::NoValue(format!("it says {mark:#x}, its mark for that"))),
            None => Ok(()),
        }
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

    fn int<T: TryFrom<i128>>(&self, value: &Value) -> Result<T, String> {
        let number = match value {
            Value::Int(number) if self.scale.is_one() => *number,
            // Exact where it is a multiple.
            Value::Int(number) if self.scale.whole().is_some_and(|factor| number % factor == 0) => {
                self.scale.whole().map_or(*number, |factor| number / factor)
            }
            Value::Int(_) | Value::Float(_) | Value::Double(_) | Value::Bool(_) | Value::Text(_) => {
                whole(self.unscaled(value)?)?
            }
        };
        T::try_from(number)
            .map_err(|_| format!("{} does not fit into {}", in_registers(value, number), self.format))
    }

    fn text(&self, value: &Value) -> Result<Vec<u8>, String> {
        let text = value.to_string();
        let mut bytes = match self.charset {
            Charset::Utf8 => text.into_bytes(),
            Charset::Latin1 => {
                let byte = |c| u8::try_from(c).map_err(|_| format!("`{c}` is no letter of ISO 8859-1"));
                text.chars().map(byte).collect::<Result<_, _>>()?
            }
        };
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

    fn bcd(&self, value: &Value) -> Result<Vec<u8>, String> {
        let number: u64 = self.int(value)?;
        let digits = usize::from(self.words) * 4;
        let text = format!("{number:0digits$}");
        if text.len() > digits {
            return Err(format!("{} has more than {digits} digits", in_registers(value, number)));
        }
        let digit = |byte: u8| byte - b'0';
        Ok(text.as_bytes().chunks_exact(2).map(|two| digit(two[0]) << 4 | digit(two[1])).collect())
    }
}

fn from_bcd(bytes: &[u8]) -> Result<i128, String> {
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 0xF]);
    digits.map(i128::from).try_fold(0i128, |number, digit| {
        if digit < 10 {
            Ok(number * 10 + digit)
        } else {
            Err("the registers hold no decimal digits; leave `encoding` out, or look at `offset`".to_owned())
        }
    })
}

/// A number for the registers, beside the value that it was made of where scaling made another of it.
fn in_registers(value: &Value, number: impl Display) -> String {
    let (value, number) = (value.to_string(), number.to_string());
    if value == number { number } else { format!("{value}, which is {number} in the registers,") }
}

/// Whether 64 bits can hold it, with a sign or without one.
fn fits(number: &i128) -> bool {
    (i128::from(i64::MIN)..=i128::from(u64::MAX)).contains(number)
}

fn finite(number: f64) -> Result<f64, String> {
    if number.is_finite() { Ok(number) } else { Err(format!("{number} is not a value")) }
}

/// The number that a person would write: 0.1 of 32 bits is 0.1.
fn widen(number: f32) -> f64 {
    number.to_string().parse().unwrap_or_else(|_| f64::from(number))
}

#[allow(clippy::cast_possible_truncation)]
fn narrow(number: f64) -> Result<f32, String> {
    let narrow = number as f32;
    if narrow.is_finite() {
        Ok(narrow)
    } else {
        Err(format!("{number} does not fit into a number of 32 bits (FLOAT), which ends at 3.4e38"))
    }
}

/// The nearest whole number. KubeEdge's mapper cuts: its 0.29 of 100 is 28.
#[allow(clippy::cast_possible_truncation)]
fn whole(number: f64) -> Result<i128, String> {
    let near = number.round();
    // 2^63 and 2^64 are the first that do not fit, and exact in 64 bits.
    if (-9_223_372_036_854_775_808.0..18_446_744_073_709_551_616.0).contains(&near) {
        Ok(near as i128)
    } else {
        Err(format!("{number} is not a whole number of 64 bits"))
    }
}

#[cfg(test)]
mod tests;
