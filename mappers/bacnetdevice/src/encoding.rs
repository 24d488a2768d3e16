//! Values of a device and of a property. Pure.

use framework::{Fault, Kind, Scale, Value, shown, widened};

use crate::data_type::DataType;
use crate::primitive::Primitive;

/// The two states of a binary, as a text says them.
const STATES: [&str; 2] = ["inactive", "active"];
/// Of status flags (21, BACnetStatusFlags): fault and out of service.
const FAULT: usize = 1;
const OUT_OF_SERVICE: usize = 3;

/// How a value is in a device.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Encoding {
    /// What the property's values are.
    pub kind: Kind,
    /// As what they are written.
    pub data_type: DataType,
    /// What the number in the device is multiplied with.
    pub scale: Scale,
    /// The present value of a binary: its states have names.
    pub is_binary: bool,
    /// The present value of a multi-state: its states count from 1.
    pub is_multi_state: bool,
}

impl Encoding {
    /// The value of what the device has.
    ///
    /// # Errors
    /// When there is none, or none of the property's type.
    pub(crate) fn decode(&self, found: &Primitive) -> Result<Value, Fault> {
        match found {
            Primitive::Null => return Err(Fault::NoValue("it is null".to_owned())),
            Primitive::Enumerated(state) if self.kind == Kind::Text && self.is_binary => {
                let name = usize::try_from(*state).ok().and_then(|state| STATES.get(state));
                return Ok(Value::Text(name.map_or(state.to_string(), |name| (*name).to_owned())));
            }
            _ if self.kind == Kind::Text => return Ok(Value::Text(found.to_string())),
            _ => {}
        }
        match found {
            Primitive::Boolean(yes) => self.whole(i128::from(*yes), found),
            Primitive::Unsigned(number) | Primitive::Enumerated(number) => {
                self.whole((*number).into(), found)
            }
            Primitive::Signed(number) => self.whole((*number).into(), found),
            Primitive::Real(number) if self.has_fraction() => {
                self.scale.value_of(self.kind, widened(*number))
            }
            Primitive::Double(number) if self.has_fraction() => self.scale.value_of(self.kind, *number),
            Primitive::Real(_) | Primitive::Double(_) => {
                Err(Fault::Device(format!("it is {}; make the property a FLOAT or DOUBLE", found.name())))
            }
            other => Err(Fault::Device(format!("it is {}; make the property a STRING", other.name()))),
        }
    }

    fn has_fraction(&self) -> bool {
        matches!(self.kind, Kind::Float | Kind::Double)
    }

    fn whole(&self, number: i128, found: &Primitive) -> Result<Value, Fault> {
        if self.kind == Kind::Bool && !(0..=1).contains(&number) {
            return Err(Fault::Device(format!(
                "{} {number} is no truth; make the property an INT",
                found.name()
            )));
        }
        self.scale.value_of_whole(self.kind, number)
    }

    /// What the device is given of a value.
    ///
    /// # Errors
    /// A sentence, when there is nothing like it.
    pub(crate) fn encode(&self, value: &Value) -> Result<Primitive, String> {
        match (self.data_type, value) {
            (DataType::Boolean, Value::Bool(yes)) => Ok(Primitive::Boolean(*yes)),
            (DataType::Text, value) => Ok(Primitive::Text(value.to_string())),
            (DataType::Octets, value) => octets(&value.to_string()).map(Primitive::Octets),
            (DataType::Enumerated, Value::Text(name)) if self.is_binary => {
                let state = STATES.iter().position(|state| state.eq_ignore_ascii_case(name));
                let state = state.and_then(|state| u64::try_from(state).ok());
                state
                    .map(Primitive::Enumerated)
                    .ok_or_else(|| format!("`{}` is neither active nor inactive", shown(name)))
            }
            (DataType::Real, value) => {
                let number = self.scale.number_of(&self.number(value)?)?;
                #[allow(clippy::cast_possible_truncation)]
                let narrow = number as f32;
                if narrow.is_finite() {
                    Ok(Primitive::Real(narrow))
                } else {
                    Err(format!("{number} is more than 32 bits have room for"))
                }
            }
            (DataType::Double, value) => Ok(Primitive::Double(self.scale.number_of(&self.number(value)?)?)),
            (data_type, value) => self.whole_of(data_type, self.scale.whole_of(&self.number(value)?)?),
        }
    }

    /// A text that stands for a number is one: the property may be a STRING for what it is when it is read.
    fn number(&self, value: &Value) -> Result<Value, String> {
        match value {
            Value::Text(text) => Value::parse(Kind::Int, text)
                .or_else(|_| Value::parse(Kind::Double, text))
                .map_err(|_| format!("`{}` is no number", shown(text))),
            Value::Bool(yes) => Ok(Value::Int((*yes).into())),
            other => Ok(other.clone()),
        }
    }

    fn whole_of(&self, data_type: DataType, number: i128) -> Result<Primitive, String> {
        let out_of = |most: &str| Err(format!("{number} is not between {most}"));
        if self.is_multi_state && number < 1 {
            return Err(format!("{number} is no state: they count from 1"));
        }
        match data_type {
            DataType::Boolean if !(0..=1).contains(&number) => {
                Err(format!("{number} is neither true nor false"))
            }
            DataType::Boolean => Ok(Primitive::Boolean(number == 1)),
            DataType::Signed => i64::try_from(number)
                .map_or_else(|_| out_of("-2^63 and 2^63-1"), |number| Ok(Primitive::Signed(number))),
            DataType::Enumerated if self.is_binary && !(0..=1).contains(&number) => {
                Err(format!("{number} is neither 0 (inactive) nor 1 (active)"))
            }
            DataType::Enumerated => u32::try_from(number)
                .map_or_else(|_| out_of("0 and 2^32-1"), |number| Ok(Primitive::Enumerated(number.into()))),
            _ => u64::try_from(number)
                .map_or_else(|_| out_of("0 and 2^64-1"), |number| Ok(Primitive::Unsigned(number))),
        }
    }
}

fn octets(text: &str) -> Result<Vec<u8>, String> {
    let digits: Option<Vec<u32>> = text.chars().map(|digit| digit.to_digit(16)).collect();
    let digits = digits.filter(|digits| digits.len().is_multiple_of(2));
    let digits = digits.ok_or_else(|| format!("`{}` is no bytes in hexadecimal, as 01ff", shown(text)))?;
    Ok(digits.chunks(2).map(|pair| pair.iter().fold(0, |byte, digit| (byte << 4) | *digit as u8)).collect())
}

/// Why a value is doubted, by the object's status flags.
pub(crate) fn doubt(flags: &Primitive) -> Option<String> {
    let Primitive::Bits(bits) = flags else { return None };
    let is = |at: usize| bits.get(at) == Some(&true);
    let said = [(FAULT, "the object is in fault"), (OUT_OF_SERVICE, "the object is out of service")];
    let said: Vec<&str> = said.iter().filter(|(at, _)| is(*at)).map(|(_, words)| *words).collect();
    (!said.is_empty()).then(|| said.join(", and "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoding(kind: Kind, data_type: DataType) -> Encoding {
        Encoding { kind, data_type, scale: Scale::ONE, is_binary: false, is_multi_state: false }
    }

    #[test]
    fn values_go_both_ways_exactly() {
        for (kind, data_type, primitive, value) in [
            (Kind::Int, DataType::Unsigned, Primitive::Unsigned(u64::MAX), Value::Int(u64::MAX.into())),
            (Kind::Int, DataType::Signed, Primitive::Signed(i64::MIN), Value::Int(i64::MIN.into())),
            (Kind::Int, DataType::Enumerated, Primitive::Enumerated(7), Value::Int(7)),
            (Kind::Bool, DataType::Enumerated, Primitive::Enumerated(1), Value::Bool(true)),
            (Kind::Bool, DataType::Boolean, Primitive::Boolean(true), Value::Bool(true)),
            (Kind::Float, DataType::Real, Primitive::Real(0.1), Value::Float(0.1)),
            (Kind::Double, DataType::Real, Primitive::Real(0.1), Value::Double(0.1)),
            (Kind::Double, DataType::Double, Primitive::Double(1.0 / 3.0), Value::Double(1.0 / 3.0)),
            (Kind::Double, DataType::Unsigned, Primitive::Unsigned(7), Value::Double(7.0)),
            (Kind::Text, DataType::Text, Primitive::Text("a".to_owned()), Value::Text("a".to_owned())),
            (Kind::Text, DataType::Octets, Primitive::Octets(vec![1, 255]), Value::Text("01ff".to_owned())),
            (Kind::Text, DataType::Unsigned, Primitive::Unsigned(7), Value::Text("7".to_owned())),
        ] {
            let encoding = encoding(kind, data_type);
            assert_eq!(encoding.decode(&primitive), Ok(value.clone()));
            assert_eq!(encoding.encode(&value), Ok(primitive));
        }
        let binary = Encoding { is_binary: true, ..encoding(Kind::Text, DataType::Enumerated) };
        assert_eq!(binary.decode(&Primitive::Enumerated(1)), Ok(Value::Text("active".to_owned())));
        assert_eq!(binary.encode(&Value::Text("Inactive".to_owned())), Ok(Primitive::Enumerated(0)));
        let tenths =
            Encoding { scale: Scale::new(0.1).unwrap(), ..encoding(Kind::Double, DataType::Unsigned) };
        assert_eq!(tenths.decode(&Primitive::Unsigned(3)), Ok(Value::Double(0.3)));
        assert_eq!(tenths.encode(&Value::Double(0.3)), Ok(Primitive::Unsigned(3)));
    }

    #[test]
    fn what_is_no_value_of_the_property_says_what_it_is() {
        for (kind, primitive, said) in [
            (Kind::Int, Primitive::Real(1.5), "FLOAT or DOUBLE"),
            (Kind::Int, Primitive::Text("7".to_owned()), "make the property a STRING"),
            (Kind::Bool, Primitive::Unsigned(2), "make the property an INT"),
            (Kind::Double, Primitive::Date([0; 4]), "a date"),
        ] {
            let fault = encoding(kind, DataType::Unsigned).decode(&primitive).unwrap_err();
            assert!(matches!(&fault, Fault::Device(reason) if reason.contains(said)), "{fault}");
        }
        for primitive in [Primitive::Null, Primitive::Real(f32::NAN)] {
            let fault = encoding(Kind::Double, DataType::Real).decode(&primitive).unwrap_err();
            assert!(matches!(fault, Fault::NoValue(_)), "{fault}");
        }
    }

    #[test]
    fn what_has_no_room_is_refused_before_it_is_sent() {
        let state = Encoding { is_multi_state: true, ..encoding(Kind::Int, DataType::Unsigned) };
        let binary = Encoding { is_binary: true, ..encoding(Kind::Int, DataType::Enumerated) };
        let named = Encoding { is_binary: true, ..encoding(Kind::Text, DataType::Enumerated) };
        let text = |text: &str| Value::Text(text.to_owned());
        for (encoding, value, said) in [
            (state, Value::Int(0), "count from 1"),
            (binary, Value::Int(2), "neither 0"),
            (named, text("on"), "neither active"),
            (encoding(Kind::Int, DataType::Unsigned), Value::Int(-1), "0 and 2^64-1"),
            (encoding(Kind::Int, DataType::Signed), Value::Int(u64::MAX.into()), "2^63-1"),
            (encoding(Kind::Int, DataType::Enumerated), Value::Int(1 << 32), "2^32-1"),
            (encoding(Kind::Int, DataType::Boolean), Value::Int(2), "neither true"),
            (encoding(Kind::Double, DataType::Real), Value::Double(1e39), "32 bits"),
            (encoding(Kind::Text, DataType::Real), text("warm"), "no number"),
            (encoding(Kind::Text, DataType::Octets), text("0x1"), "hexadecimal"),
        ] {
            let refusal = encoding.encode(&value).unwrap_err();
            assert!(refusal.contains(said), "{refusal}");
        }
    }

    #[test]
    fn a_doubt_is_in_the_flags() {
        let flags = |bits: [bool; 4]| doubt(&Primitive::Bits(bits.to_vec()));
        assert_eq!(flags([true, false, true, false]), None, "in alarm, and overridden by hand");
        assert_eq!(flags([false, true, false, false]).unwrap(), "the object is in fault");
        assert!(flags([false, true, false, true]).unwrap().ends_with("out of service"));
        assert_eq!(doubt(&Primitive::Null), None);
    }
}
