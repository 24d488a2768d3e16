//! Where a property is: an object of its node, or bits of a frame.

use framework::{InvalidSetting, Kind, Property, Scale, Settings, shown};

use crate::frame::{BYTES_MAX, CanId};
use crate::object::{DataType, Object};
use crate::signal::{Bits, Order, Signal};

/// Where a property is.
#[derive(Debug, Clone, PartialEq)]
pub enum Visitor {
    /// An object of a CANopen node.
    Object {
        /// Which one.
        object: Object,
        /// What it is.
        data_type: DataType,
        /// What the property's values are.
        kind: Kind,
        /// What the number in the node is multiplied with.
        scale: Scale,
    },
    /// Bits of a frame.
    Signal {
        /// The frame that it comes in.
        id: CanId,
        /// The frame that it is written in, and how many bytes that has.
        written: (CanId, usize),
        /// Which bits.
        signal: Signal,
    },
}

impl Visitor {
    /// From `visitors.configData`.
    ///
    /// # Errors
    /// With the key and the cure.
    pub fn read(property: &Property, settings: &Settings) -> Result<Self, InvalidSetting> {
        match (settings.text("index")?, settings.text("canID")?) {
            (Some(index), None) => object(property, settings, &index),
            (None, Some(id)) => signal(property, settings, &id),
            (Some(_), Some(_)) => {
                Err(InvalidSetting::new("settings `index` and `canID` are both given; leave one of them out"))
            }
            (None, None) => Err(InvalidSetting::new(
                "setting `index` is missing; write an object's as 0x6041, or `canID` for raw frames",
            )),
        }
    }
}

fn object(property: &Property, settings: &Settings, index: &str) -> Result<Visitor, InvalidSetting> {
    let wrong = |key: &str, most: u32| {
        InvalidSetting::new(format!("setting `{key}` is not between 0 and 0x{most:X}"))
    };
    let index = number(index).and_then(|index| u16::try_from(index).ok());
    let index = index.ok_or_else(|| wrong("index", 0xFFFF))?;
    let sub = settings.text("subIndex")?.map_or(Some(0), |sub| number(&sub));
    let sub = sub.and_then(|sub| u8::try_from(sub).ok()).ok_or_else(|| wrong("subIndex", 0xFF))?;
    let data_type = match settings.text("dataType")? {
        None => DataType::usual(property.kind),
        Some(name) => DataType::named(&name).ok_or_else(|| {
            let name = shown(&name);
            InvalidSetting::new(format!(
                "setting `dataType` is `{name}`; write boolean, integer8 to integer64, unsigned8 to unsigned64, real32, real64, \
                 visible_string or octet_string"
            ))
        })?,
    };
    if data_type.is_text() != (property.kind == Kind::Text) {
        let sentence = "setting `dataType` and the property's type are not both text or both numbers";
        return Err(InvalidSetting::new(sentence));
    }
    let is_real = matches!(data_type, DataType::Real32 | DataType::Real64);
    check_fraction(property.kind, is_real)?;
    let scale = scale(property.kind, settings)?;
    Ok(Visitor::Object { object: Object { index, sub }, data_type, kind: property.kind, scale })
}

fn signal(property: &Property, settings: &Settings, id: &str) -> Result<Visitor, InvalidSetting> {
    let is_extended = settings.flag("extended")?;
    let named = |key: &str, text: &str| {
        let id = number(text).and_then(|id| CanId::new(id, is_extended));
        id.ok_or_else(|| {
            let sentence =
                if is_extended { "has more than 29 bits" } else { "has more than 11 bits; set `extended`" };
            InvalidSetting::new(format!("setting `{key}` is no id of a frame, or {sentence}"))
        })
    };
    let id = named("canID", id)?;
    let written = settings.text("writeID")?.map_or(Ok(id), |id| named("writeID", &id))?;
    let start = settings.whole_within("startBit", 0, 0..=63)?;
    let order = match settings.text("byteOrder")?.unwrap_or_default().to_ascii_lowercase().as_str() {
        "" | "intel" | "little" => Order::Intel,
        "motorola" | "big" => Order::Motorola,
        other => {
            let sentence = format!("setting `byteOrder` is `{other}`; write intel or motorola");
            return Err(InvalidSetting::new(sentence));
        }
    };
    let data_type = settings.text("dataType")?.unwrap_or_default().to_ascii_lowercase();
    let usual = match (property.kind, data_type.as_str()) {
        (Kind::Bool, _) => 1,
        (Kind::Float, "real" | "float") => 32,
        (Kind::Double, "real" | "double") => 64,
        _ => 8,
    };
    let length = settings.whole_within("length", usual, 1..=64)?;
    let is_signed = settings.flag("signed")?;
    let bits = match data_type.as_str() {
        "real" | "float" | "double" if length == 32 || length == 64 => Bits::Real,
        "" | "int" | "integer" | "bool" | "boolean" => Bits::Whole { is_signed },
        other => {
            return Err(InvalidSetting::new(format!(
                "setting `dataType` is `{other}`; leave it out, or write real with a `length` of 32 or 64"
            )));
        }
    };
    if property.kind == Kind::Text {
        return Err(InvalidSetting::new(
            "a STRING is not in a raw frame; make the property a number or a BOOLEAN",
        ));
    }
    check_fraction(property.kind, bits == Bits::Real)?;
    let offset = settings.number("offset")?.unwrap_or(0.0);
    if offset.to_bits() != 0 && !matches!(property.kind, Kind::Float | Kind::Double) {
        return Err(InvalidSetting::new("setting `offset` is for FLOAT and DOUBLE; make the property one"));
    }
    let scale = scale(property.kind, settings)?;
    let signal = Signal { kind: property.kind, bits, start, length, order, scale, offset };
    let bytes = signal.bytes().ok_or_else(|| {
        InvalidSetting::new(format!(
            "`startBit` {start} and `length` {length} go beyond the 64 bits of a frame"
        ))
    })?;
    let size = settings.whole_within("dlc", i64::try_from(BYTES_MAX).unwrap_or(8), 1..=8)?;
    if size < bytes {
        return Err(InvalidSetting::new(format!(
            "setting `dlc` is {size}, and the value is in {bytes} bytes"
        )));
    }
    Ok(Visitor::Signal { id, written: (written, size), signal })
}

fn check_fraction(kind: Kind, is_real: bool) -> Result<(), InvalidSetting> {
    if is_real && matches!(kind, Kind::Int | Kind::Bool) {
        let sentence = "`dataType` is a number with a fraction; make the property a FLOAT or DOUBLE";
        return Err(InvalidSetting::new(sentence));
    }
    Ok(())
}

fn scale(kind: Kind, settings: &Settings) -> Result<Scale, InvalidSetting> {
    let scale = Scale::read(settings)?;
    if !scale.is_one() && !matches!(kind, Kind::Float | Kind::Double) {
        return Err(InvalidSetting::new("setting `scale` is for FLOAT and DOUBLE; make the property one"));
    }
    Ok(scale)
}

/// Decimal or, with `0x` before it, hexadecimal.
fn number(text: &str) -> Option<u32> {
    let text = text.trim();
    match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => u32::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use framework::Scalar;

    fn read(kind: Kind, pairs: &[(&str, &str)]) -> Result<Visitor, String> {
        let pairs = pairs.iter().map(|(key, value)| (*key, Scalar::Text((*value).to_owned())));
        let read = Visitor::read(&Property::new("p", kind), &Settings::from_pairs(pairs));
        read.map_err(|refusal| refusal.to_string())
    }

    #[test]
    fn an_object_or_bits_of_a_frame() {
        let Visitor::Object { object, data_type, .. } =
            read(Kind::Int, &[("index", "0x6041"), ("subIndex", "2"), ("dataType", "UNSIGNED16")]).unwrap()
        else {
            panic!("an object")
        };
        assert_eq!(object, Object { index: 0x6041, sub: 2 });
        assert_eq!(data_type, DataType::Whole { bytes: 2, is_signed: false });
        let pairs = [
            ("canID", "0x18FF0102"),
            ("extended", "true"),
            ("startBit", "8"),
            ("length", "16"),
            ("scale", "0.5"),
        ];
        let Visitor::Signal { id, written, signal } = read(Kind::Float, &pairs).unwrap() else {
            panic!("a signal")
        };
        assert_eq!((id.number, id.is_extended, written), (0x18FF_0102, true, (id, 8)));
        assert_eq!((signal.start, signal.length, signal.order), (8, 16, Order::Intel));
    }

    #[test]
    fn what_does_not_fit_says_what_to_write() {
        let frame = ("canID", "0x123");
        for (kind, pairs, said) in [
            (Kind::Int, vec![], "0x6041"),
            (Kind::Int, vec![("index", "1"), frame], "both given"),
            (Kind::Int, vec![("index", "0x10000")], "`index`"),
            (Kind::Int, vec![("index", "1"), ("subIndex", "256")], "`subIndex`"),
            (Kind::Int, vec![("index", "1"), ("dataType", "word")], "`word`"),
            (Kind::Int, vec![("index", "1"), ("dataType", "visible_string")], "both text"),
            (Kind::Int, vec![("index", "1"), ("dataType", "real32")], "a FLOAT or DOUBLE"),
            (Kind::Int, vec![("index", "1"), ("scale", "2")], "`scale`"),
            (Kind::Int, vec![("canID", "0x800")], "`extended`"),
            (Kind::Int, vec![("canID", "0x20000000"), ("extended", "true")], "29 bits"),
            (Kind::Int, vec![frame, ("writeID", "x")], "`writeID`"),
            (Kind::Int, vec![frame, ("startBit", "60")], "64 bits"),
            (Kind::Int, vec![frame, ("length", "65")], "`length`"),
            (Kind::Int, vec![frame, ("byteOrder", "middle")], "`middle`"),
            (Kind::Double, vec![frame, ("dataType", "real"), ("length", "16")], "32 or 64"),
            (Kind::Text, vec![frame], "STRING"),
            (Kind::Int, vec![frame, ("offset", "1")], "`offset`"),
            (Kind::Int, vec![frame, ("startBit", "16"), ("dlc", "2")], "`dlc`"),
        ] {
            let refusal = read(kind, &pairs).unwrap_err();
            assert!(refusal.contains(said), "{refusal}");
        }
    }
}
