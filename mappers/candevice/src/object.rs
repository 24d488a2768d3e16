//! An object of a CANopen node and its values (CiA 301 §7.1), low byte first. Pure.

use framework::{Fault, Kind, Scale, Value, widened};

/// 1 KiB: the longest text that is written.
const TEXT_MAX: usize = 1024;

/// Where an object is within its node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Object {
    /// Its index.
    pub index: u16,
    /// Its subindex.
    pub sub: u8,
}

/// What the bytes of an object are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DataType {
    /// A whole number of 1 to 8 bytes: BOOLEAN, INTEGER8 to 64, UNSIGNED8 to 64.
    Whole {
        /// How many.
        bytes: usize,
        /// Whether it has a sign.
        is_signed: bool,
    },
    /// REAL32.
    Real32,
    /// REAL64.
    Real64,
    /// VISIBLE_STRING, in UTF-8.
    Text,
    /// OCTET_STRING, as hexadecimal digits.
    Octets,
}

impl DataType {
    /// From `dataType`, by the names of CiA 301 in any case.
    pub fn named(name: &str) -> Option<Self> {
        let name = name.to_ascii_lowercase();
        let whole = |bits: &str, is_signed| {
            let bits: usize = bits.parse().ok()?;
            let is_one = bits.is_multiple_of(8) && (8..=64).contains(&bits);
            is_one.then_some(DataType::Whole { bytes: bits / 8, is_signed })
        };
        match name.as_str() {
            "boolean" | "bool" => whole("8", false),
            "real32" | "float" => Some(DataType::Real32),
            "real64" | "double" => Some(DataType::Real64),
            "visible_string" | "string" => Some(DataType::Text),
            "octet_string" => Some(DataType::Octets),
            _ => match (name.strip_prefix("unsigned"), name.strip_prefix("integer")) {
                (Some(bits), _) => whole(bits, false),
                (None, Some(bits)) => whole(bits, true),
                (None, None) => None,
            },
        }
    }

    /// What is most likely there.
    pub(crate) fn usual(kind: Kind) -> Self {
        match kind {
            Kind::Bool => DataType::Whole { bytes: 1, is_signed: false },
            Kind::Int => DataType::Whole { bytes: 4, is_signed: true },
            Kind::Float => DataType::Real32,
            Kind::Double => DataType::Real64,
            Kind::Text => DataType::Text,
        }
    }

    /// Whether it is a text.
    pub(crate) fn is_text(self) -> bool {
        matches!(self, DataType::Text | DataType::Octets)
    }

    /// The value in an object's bytes. `has_length`: the node has said how many there are.
    ///
    /// # Errors
    /// When it is none of the type.
    pub(crate) fn decode(
        self,
        (kind, scale): (Kind, Scale),
        bytes: &[u8],
        has_length: bool,
    ) -> Result<Value, Fault> {
        match self {
            DataType::Whole { bytes: width, is_signed } => {
                let own = exactly(bytes, width, has_length)?;
                scale.value_of_whole(kind, whole(own, is_signed))
            }
            DataType::Real32 => {
                let own = exactly(bytes, 4, has_length)?.try_into().unwrap_or_default();
                scale.value_of(kind, widened(f32::from_le_bytes(own)))
            }
            DataType::Real64 => {
                let own = exactly(bytes, 8, has_length)?.try_into().unwrap_or_default();
                scale.value_of(kind, f64::from_le_bytes(own))
            }
            DataType::Text => {
                let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
                let own = bytes.get(..end).unwrap_or_default().to_vec();
                let text = String::from_utf8(own).map_err(|_| {
                    Fault::Device("this is no text; set `dataType` to octet_string".to_owned())
                })?;
                Ok(Value::Text(text))
            }
            DataType::Octets => Ok(Value::Text(bytes.iter().map(|byte| format!("{byte:02x}")).collect())),
        }
    }

    /// The bytes of a value.
    ///
    /// # Errors
    /// A sentence, when there is no room for it.
    pub(crate) fn encode(self, scale: Scale, value: &Value) -> Result<Vec<u8>, String> {
        match self {
            DataType::Whole { bytes, is_signed } => {
                let number = scale.whole_of(value)?;
                let (least, most) = range(bytes * 8, is_signed);
                if !(least..=most).contains(&number) {
                    return Err(format!(
                        "{number} is not between {least} and {most}, what the object has room for"
                    ));
                }
                Ok(number.to_le_bytes().get(..bytes).unwrap_or_default().to_vec())
            }
            DataType::Real32 => {
                let number = scale.number_of(value)?;
                #[allow(clippy::cast_possible_truncation)]
                let narrow = number as f32;
                if narrow.is_finite() {
                    Ok(narrow.to_le_bytes().to_vec())
                } else {
                    Err(format!("{number} is no number of 32 bits, and the object is one"))
                }
            }
            DataType::Real64 => Ok(scale.number_of(value)?.to_le_bytes().to_vec()),
            DataType::Text => {
                let text = value.to_string();
                if text.len() > TEXT_MAX {
                    return Err(format!("it has {} bytes, and at most {TEXT_MAX} are written", text.len()));
                }
                Ok(text.into_bytes())
            }
            DataType::Octets => octets(&value.to_string()),
        }
    }
}

fn octets(text: &str) -> Result<Vec<u8>, String> {
    let digits: Vec<u32> = text
        .chars()
        .map(|letter| letter.to_digit(16))
        .collect::<Option<_>>()
        .filter(|digits: &Vec<u32>| digits.len().is_multiple_of(2))
        .ok_or("it is no pairs of hexadecimal digits")?;
    if digits.len() > TEXT_MAX * 2 {
        return Err(format!("it has {} bytes, and at most {TEXT_MAX} are written", digits.len() / 2));
    }
    let byte = |pair: &[u32]| pair.iter().fold(0, |byte, digit| byte * 16 + digit);
    Ok(digits.chunks(2).map(|pair| u8::try_from(byte(pair)).unwrap_or_default()).collect())
}

/// So many bytes. A node that does not say how many there are sends four.
fn exactly(bytes: &[u8], width: usize, has_length: bool) -> Result<&[u8], Fault> {
    let (own, rest) = bytes.split_at(width.min(bytes.len()));
    let is_right =
        own.len() == width && (rest.is_empty() || (!has_length && rest.iter().all(|byte| *byte == 0)));
    if is_right {
        return Ok(own);
    }
    Err(Fault::Device(format!("the object has {} bytes, and `dataType` has {width}", bytes.len())))
}

/// The smallest and the largest whole number in so many bits.
pub(crate) fn range(bits: usize, is_signed: bool) -> (i128, i128) {
    if is_signed { (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) } else { (0, (1 << bits) - 1) }
}

fn whole(own: &[u8], is_signed: bool) -> i128 {
    let number = own.iter().rev().fold(0i128, |number, byte| (number << 8) | i128::from(*byte));
    let is_negative = is_signed && own.last().is_some_and(|byte| byte & 0x80 != 0);
    if is_negative { number - (1 << (own.len() * 8)) } else { number }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn both_ways(kind: Kind, name: &str, value: &Value) {
        let data_type = DataType::named(name).unwrap();
        let bytes = data_type.encode(Scale::ONE, value).unwrap();
        assert_eq!(data_type.decode((kind, Scale::ONE), &bytes, true), Ok(value.clone()), "{name}");
    }

    #[test]
    fn values_come_through_exactly() {
        for bits in [8, 24, 40, 64] {
            for (name, is_signed) in [(format!("UNSIGNED{bits}"), false), (format!("integer{bits}"), true)] {
                let (least, most) = range(bits, is_signed);
                for number in [least, most, 1] {
                    both_ways(Kind::Int, &name, &Value::Int(number));
                }
                for number in [least - 1, most + 1] {
                    DataType::named(&name).unwrap().encode(Scale::ONE, &Value::Int(number)).unwrap_err();
                }
            }
        }
        both_ways(Kind::Bool, "BOOLEAN", &Value::Bool(true));
        both_ways(Kind::Float, "REAL32", &Value::Float(0.1));
        both_ways(Kind::Double, "REAL32", &Value::Double(0.1));
        both_ways(Kind::Double, "REAL64", &Value::Double(1.0 / 3.0));
        both_ways(Kind::Text, "VISIBLE_STRING", &Value::Text("Tür 7".to_owned()));
        both_ways(Kind::Text, "OCTET_STRING", &Value::Text("00ff7a".to_owned()));
        for wrong in ["unsigned", "unsigned7", "unsigned128", "integer0", "word", ""] {
            assert_eq!(DataType::named(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn lengths_have_to_fit_unless_nobody_has_said_them() {
        let byte = DataType::named("unsigned8").unwrap();
        let read = |bytes: &[u8], has_length| byte.decode((Kind::Int, Scale::ONE), bytes, has_length);
        assert_eq!(read(&[7], true), Ok(Value::Int(7)));
        assert_eq!(read(&[7, 0, 0, 0], false), Ok(Value::Int(7)));
        for (bytes, has_length) in [(&[7, 0, 0, 0][..], true), (&[7, 1, 0, 0], false), (&[], true)] {
            let refused = read(bytes, has_length).unwrap_err();
            assert!(refused.to_string().contains("`dataType` has 1"), "{refused}");
        }
        assert!(DataType::Octets.encode(Scale::ONE, &Value::Text("0".to_owned())).is_err());
        assert!(DataType::Octets.encode(Scale::ONE, &Value::Text("zz".to_owned())).is_err());
        let long = Value::Text("x".repeat(1025));
        assert!(DataType::Text.encode(Scale::ONE, &long).unwrap_err().contains("1024"));
    }
}
