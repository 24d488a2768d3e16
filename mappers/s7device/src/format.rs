//! Values in the bytes of a PLC, high byte first. Pure.

use framework::{Fault, Kind, Scale, Value, widened};

/// 254: the letters of the longest STRING.
pub(crate) const LETTERS_MAX: usize = 254;
/// What a STRING has before its letters: how many there is room for, and how many there are.
pub(crate) const STRING_HEAD: usize = 2;

/// What the bytes of a value are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// A bit (BOOL).
    Bit,
    /// A whole number of so many bytes, with a sign or without one (BYTE, WORD, INT, DINT and the rest).
    Whole {
        /// 1, 2, 4 or 8.
        bytes: usize,
        /// Whether it has a sign.
        is_signed: bool,
    },
    /// REAL.
    Real,
    /// LREAL.
    LongReal,
    /// So many letters (CHAR), filled up with blanks.
    Chars(usize),
    /// A STRING with room for so many letters.
    Text(usize),
}

/// In which letters a text is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Letters {
    /// One byte for each: the PLC's own.
    #[default]
    Latin1,
    /// UTF-8, where a program puts that in.
    Utf8,
}

/// How a value is in the bytes of a PLC.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Encoding {
    /// What the property's values are.
    pub kind: Kind,
    /// What the bytes are.
    pub format: Format,
    /// What the number in the PLC is multiplied with.
    pub scale: Scale,
    /// In which letters a text is.
    pub letters: Letters,
}

impl Format {
    /// From `dataType`, by the names of IEC 61131-3, in any case.
    pub fn named(name: &str, length: Option<usize>) -> Option<Self> {
        let whole = |bytes, is_signed| Some(Format::Whole { bytes, is_signed });
        match name.to_ascii_lowercase().as_str() {
            "bool" | "boolean" => Some(Format::Bit),
            "byte" | "usint" => whole(1, false),
            "sint" => whole(1, true),
            "word" | "uint" => whole(2, false),
            "int" => whole(2, true),
            "dword" | "udint" => whole(4, false),
            "dint" | "time" => whole(4, true),
            "lword" | "ulint" => whole(8, false),
            "lint" => whole(8, true),
            "real" | "float" => Some(Format::Real),
            "lreal" | "double" => Some(Format::LongReal),
            "char" => Some(Format::Chars(length.unwrap_or(1))),
            "string" => Some(Format::Text(length.unwrap_or(LETTERS_MAX))),
            _ => None,
        }
    }

    /// How many bytes are read.
    pub fn bytes(self) -> usize {
        match self {
            Format::Bit => 1,
            Format::Whole { bytes, .. } => bytes,
            Format::Real => 4,
            Format::LongReal => 8,
            Format::Chars(length) => length,
            Format::Text(room) => STRING_HEAD + room,
        }
    }

    /// The smallest and the largest whole number.
    fn range(self) -> (i128, i128) {
        match self {
            Format::Whole { bytes, is_signed: true } => (-(1 << (bytes * 8 - 1)), (1 << (bytes * 8 - 1)) - 1),
            Format::Whole { bytes, .. } => (0, (1 << (bytes * 8)) - 1),
            _ => (0, 1),
        }
    }
}

impl Encoding {
    /// The value in these bytes; of a bit in the byte that it is in.
    ///
    /// # Errors
    /// When there is none.
    pub fn decode(&self, bytes: &[u8], bit: Option<u8>) -> Result<Value, Fault> {
        let wanted = self.format.bytes();
        let own = bytes
            .get(..wanted)
            .ok_or_else(|| Fault::Device(format!("{} bytes came instead of {wanted}", bytes.len())))?;
        match self.format {
            Format::Bit => {
                let byte = own.first().copied().unwrap_or_default();
                self.scale.value_of_whole(self.kind, i128::from((byte >> bit.unwrap_or(0)) & 1))
            }
            Format::Whole { bytes, is_signed } => {
                self.scale.value_of_whole(self.kind, whole(own, bytes, is_signed))
            }
            Format::Real => {
                let number = f32::from_be_bytes(own.try_into().unwrap_or_default());
                self.scale.value_of(self.kind, widened(number))
            }
            Format::LongReal => {
                self.scale.value_of(self.kind, f64::from_be_bytes(own.try_into().unwrap_or_default()))
            }
            Format::Chars(_) => Ok(Value::Text(self.text(own)?.trim_end_matches([' ', '\0']).to_owned())),
            Format::Text(room) => {
                let (has_room, length) = match own {
                    [has_room, length, ..] => (usize::from(*has_room), usize::from(*length)),
                    _ => (0, 0),
                };
                if length > has_room.max(room) || length > room {
                    return Err(Fault::Device(format!(
                        "this is no STRING with room for {room} letters: it says {has_room}, and that it has {length}"
                    )));
                }
                let letters = own.get(STRING_HEAD..STRING_HEAD + length).unwrap_or_default();
                Ok(Value::Text(self.text(letters)?))
            }
        }
    }

    fn text(&self, letters: &[u8]) -> Result<String, Fault> {
        match self.letters {
            Letters::Latin1 => Ok(letters.iter().map(|letter| char::from(*letter)).collect()),
            Letters::Utf8 => String::from_utf8(letters.to_vec())
                .map_err(|_| Fault::Device("this is no UTF-8; leave out `encoding`".to_owned())),
        }
    }

    /// The bytes of a value; of a STRING those behind its first byte, which is how much room it has.
    ///
    /// # Errors
    /// A sentence, when there is no room for it.
    pub fn encode(&self, value: &Value) -> Result<Vec<u8>, String> {
        match self.format {
            Format::Bit | Format::Whole { .. } => {
                let number = self.scale.whole_of(value)?;
                let (least, most) = self.format.range();
                if !(least..=most).contains(&number) {
                    return Err(format!(
                        "{number} is not between {least} and {most}, what the PLC has room for there"
                    ));
                }
                let all = number.to_be_bytes();
                Ok(all.get(all.len() - self.format.bytes()..).unwrap_or_default().to_vec())
            }
            Format::Real => {
                let number = self.scale.number_of(value)?;
                #[allow(clippy::cast_possible_truncation)]
                let narrow = number as f32;
                if narrow.is_finite() {
                    Ok(narrow.to_be_bytes().to_vec())
                } else {
                    Err(format!("{number} is no number of 32 bits, and the PLC has a REAL there"))
                }
            }
            Format::LongReal => Ok(self.scale.number_of(value)?.to_be_bytes().to_vec()),
            Format::Chars(length) => {
                let mut letters = self.letters_of(value, length)?;
                letters.resize(length, b' ');
                Ok(letters)
            }
            Format::Text(room) => {
                let letters = self.letters_of(value, room)?;
                let length = u8::try_from(letters.len()).unwrap_or(u8::MAX);
                Ok([vec![length], letters].concat())
            }
        }
    }

    fn letters_of(&self, value: &Value, room: usize) -> Result<Vec<u8>, String> {
        let text = value.to_string();
        let letters: Vec<u8> = match self.letters {
            Letters::Utf8 => text.into_bytes(),
            Letters::Latin1 => {
                let one = |letter: char| {
                    u8::try_from(u32::from(letter)).map_err(|_| format!("`{letter}` is no letter of Latin-1"))
                };
                text.chars().map(one).collect::<Result<_, _>>()?
            }
        };
        if letters.len() > room {
            return Err(format!("it has {} letters, and the PLC has room for {room}", letters.len()));
        }
        Ok(letters)
    }
}

fn whole(own: &[u8], bytes: usize, is_signed: bool) -> i128 {
    let number = own.iter().fold(0i128, |number, byte| (number << 8) | i128::from(*byte));
    let is_negative = is_signed && own.first().is_some_and(|byte| byte & 0x80 != 0);
    if is_negative { number - (1 << (bytes * 8)) } else { number }
}

#[cfg(test)]
mod tests;
