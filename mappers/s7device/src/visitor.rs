//! Where a property is within its PLC.

use framework::{InvalidSetting, Kind, Property, Scale, Settings, shown};

use crate::format::{Encoding, Format, LETTERS_MAX, Letters};
use crate::place::Place;

/// Where a property is within its PLC.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Visitor {
    /// The first byte of it.
    pub place: Place,
    /// How it is in its bytes.
    pub encoding: Encoding,
}

impl Visitor {
    /// From `visitors.configData`.
    ///
    /// # Errors
    /// With the key and the cure.
    pub fn read(property: &Property, settings: &Settings) -> Result<Self, InvalidSetting> {
        let place = Place::parse(&settings.text("address")?.unwrap_or_default())?;
        let most = i64::try_from(LETTERS_MAX).unwrap_or(i64::MAX);
        let length = match settings.text("length")? {
            None => None,
            Some(_) => Some(settings.whole_within("length", 1, 1..=most)?),
        };
        let format = match settings.text("dataType")? {
            Some(name) => Format::named(&name, length).ok_or_else(|| {
                let name = shown(&name);
                InvalidSetting::new(format!(
                    "setting `dataType` is `{name}`; write bool, byte, sint, word, uint, int, dword, udint, dint, lword, ulint, lint, \
                     real, lreal, char or string"
                ))
            })?,
            None => usual(property, &place, length)?,
        };
        let encoding = Encoding {
            kind: property.kind,
            format,
            scale: scale(property.kind, settings)?,
            letters: letters(settings)?,
        };
        check(property.kind, &place, format)?;
        if length.is_some() && !matches!(format, Format::Chars(_) | Format::Text(_)) {
            return Err(InvalidSetting::new("setting `length` is for char and string; leave it out"));
        }
        Ok(Visitor { place, encoding })
    }
}

/// What is most likely there, where nothing says it.
fn usual(property: &Property, place: &Place, length: Option<usize>) -> Result<Format, InvalidSetting> {
    let is_signed = property.minimum.is_none_or(|minimum| minimum < 0.0);
    match (property.kind, place.width) {
        _ if place.bit.is_some() => Ok(Format::Bit),
        (Kind::Text, None) => Ok(Format::Text(length.unwrap_or(LETTERS_MAX))),
        (Kind::Float, Some(4)) | (Kind::Double, Some(4)) => Ok(Format::Real),
        (_, Some(bytes)) => Ok(Format::Whole { bytes, is_signed }),
        (Kind::Int | Kind::Bool, None) => Ok(Format::Whole { bytes: 1, is_signed: false }),
        (Kind::Float | Kind::Double, None) => Err(InvalidSetting::new(
            "setting `dataType` is missing; write real for an address as DB1.DBD4, or lreal for one as DB1.DBB4",
        )),
    }
}

fn scale(kind: Kind, settings: &Settings) -> Result<Scale, InvalidSetting> {
    let scale = Scale::read(settings)?;
    if !scale.is_one() && !matches!(kind, Kind::Float | Kind::Double) {
        return Err(InvalidSetting::new("setting `scale` is for FLOAT and DOUBLE; make the property one"));
    }
    Ok(scale)
}

fn letters(settings: &Settings) -> Result<Letters, InvalidSetting> {
    match settings.text("encoding")?.unwrap_or_default().to_ascii_lowercase().as_str() {
        "" | "latin1" | "iso-8859-1" => Ok(Letters::Latin1),
        "utf8" | "utf-8" => Ok(Letters::Utf8),
        other => Err(InvalidSetting::new(format!("setting `encoding` is `{other}`; write latin1 or utf8"))),
    }
}

/// Whether such values can be there.
fn check(kind: Kind, place: &Place, format: Format) -> Result<(), InvalidSetting> {
    let refused = |sentence: &str| Err(InvalidSetting::new(sentence));
    if (format == Format::Bit) != place.bit.is_some() {
        return refused("a bool is at an address with a bit, as DB1.DBX0.3, and nothing else is");
    }
    if let Some(width) = place.width
        && width != format.bytes()
    {
        return Err(InvalidSetting::new(format!(
            "setting `address` names {width} bytes, and `dataType` has {}; write B before its first byte, as DB1.DBB4",
            format.bytes()
        )));
    }
    let is_text = matches!(format, Format::Chars(_) | Format::Text(_));
    match kind {
        Kind::Text if !is_text => refused("the property is a STRING; set `dataType` to char or string"),
        Kind::Text => Ok(()),
        _ if is_text => refused("`dataType` is a text; make the property a STRING"),
        Kind::Int | Kind::Bool if matches!(format, Format::Real | Format::LongReal) => {
            refused("`dataType` is a number with a fraction; make the property a FLOAT or DOUBLE")
        }
        Kind::Float | Kind::Double if format == Format::Bit => {
            refused("a bit is no FLOAT or DOUBLE; make the property a BOOLEAN")
        }
        Kind::Int | Kind::Bool | Kind::Float | Kind::Double => Ok(()),
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
    fn what_is_there_follows_from_the_address_and_the_type_or_is_said() {
        let format = |kind, pairs: &[(&str, &str)]| read(kind, pairs).unwrap().encoding.format;
        let whole = |bytes, is_signed| Format::Whole { bytes, is_signed };
        assert_eq!(format(Kind::Bool, &[("address", "M0.1")]), Format::Bit);
        assert_eq!(format(Kind::Int, &[("address", "MB0")]), whole(1, false));
        assert_eq!(format(Kind::Int, &[("address", "DB1.DBW0")]), whole(2, true));
        assert_eq!(format(Kind::Float, &[("address", "DB1.DBD0")]), Format::Real);
        assert_eq!(format(Kind::Float, &[("address", "IW0"), ("scale", "0.1")]), whole(2, true));
        assert_eq!(format(Kind::Text, &[("address", "DB1.DBB0"), ("length", "20")]), Format::Text(20));
        assert_eq!(format(Kind::Double, &[("address", "DB1.DBB0"), ("dataType", "LReal")]), Format::LongReal);
    }

    #[test]
    fn what_does_not_fit_says_what_to_write() {
        for (kind, pairs, said) in [
            (Kind::Int, vec![], "`address`"),
            (Kind::Bool, vec![("address", "DB1.DBW0"), ("dataType", "bool")], "DB1.DBX0.3"),
            (Kind::Int, vec![("address", "DB1.DBW0"), ("dataType", "dint")], "names 2 bytes"),
            (Kind::Int, vec![("address", "DB1.DBD0"), ("dataType", "real")], "a FLOAT or DOUBLE"),
            (Kind::Float, vec![("address", "M0.0")], "BOOLEAN"),
            (Kind::Float, vec![("address", "MB0")], "`dataType` is missing"),
            (Kind::Text, vec![("address", "DB1.DBW0")], "char or string"),
            (Kind::Int, vec![("address", "DB1.DBB0"), ("dataType", "string")], "a STRING"),
            (Kind::Int, vec![("address", "MB0"), ("dataType", "dtl")], "`dtl`"),
            (Kind::Int, vec![("address", "MB0"), ("length", "2")], "`length`"),
            (Kind::Text, vec![("address", "MB0"), ("length", "255")], "`length`"),
            (Kind::Int, vec![("address", "MB0"), ("scale", "0.1")], "`scale`"),
            (Kind::Text, vec![("address", "MB0"), ("encoding", "ebcdic")], "`ebcdic`"),
        ] {
            let refusal = read(kind, &pairs).unwrap_err();
            assert!(refusal.contains(said), "{refusal}");
        }
    }
}
