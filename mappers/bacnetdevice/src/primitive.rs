//! Values as they travel (20.2.2 to 20.2.14). Pure.

use std::fmt;

use crate::tag::{self, Reader, Tag};
use crate::target::ObjectId;

/// Character sets (20.2.9): UTF-8, UCS-4, UCS-2 and ISO 8859-1 are read.
const UTF8: u8 = 0;
const UCS4: u8 = 3;
const UCS2: u8 = 4;
const LATIN1: u8 = 5;
/// What a date or a time has where any is meant.
const ANY: u8 = 255;

/// A value of one of the application types.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Primitive {
    Null,
    Boolean(bool),
    Unsigned(u64),
    Signed(i64),
    Real(f32),
    Double(f64),
    Octets(Vec<u8>),
    Text(String),
    Bits(Vec<bool>),
    Enumerated(u64),
    /// Year since 1900, month, day, day of the week.
    Date([u8; 4]),
    /// Hour, minute, second, hundredths.
    Time([u8; 4]),
    Object(ObjectId),
}

impl Primitive {
    /// The one value in these bytes, which stand where a property's value is.
    ///
    /// # Errors
    /// A sentence, when there is none, or more than one.
    pub(crate) fn only(bytes: &[u8]) -> Result<Self, String> {
        let mut reader = Reader::new(bytes);
        if reader.is_empty() {
            return Err("it is an empty list".to_owned());
        }
        let (tag, content) = reader.next()?;
        let Tag::Application(number) = tag else {
            return Err("it is made of several parts, and no single value".to_owned());
        };
        if !reader.is_empty() {
            return Err("it has several values; write which one as `index`".to_owned());
        }
        Primitive::of(number, content)
    }

    /// From the tag's number and its content.
    ///
    /// # Errors
    /// A sentence.
    pub(crate) fn of(number: u8, content: &[u8]) -> Result<Self, String> {
        let four = || content.try_into().map_err(|_| "a value of four bytes has others".to_owned());
        match number {
            0 if content.is_empty() => Ok(Primitive::Null),
            1 => Ok(Primitive::Boolean(content != [0])),
            2 => Ok(Primitive::Unsigned(tag::unsigned(content)?)),
            3 => signed(content).map(Primitive::Signed),
            4 => Ok(Primitive::Real(f32::from_be_bytes(four()?))),
            5 => {
                let eight = content.try_into().map_err(|_| "a double has not 8 bytes".to_owned())?;
                Ok(Primitive::Double(f64::from_be_bytes(eight)))
            }
            6 => Ok(Primitive::Octets(content.to_vec())),
            7 => text(content).map(Primitive::Text),
            8 => bits(content).map(Primitive::Bits),
            9 => Ok(Primitive::Enumerated(tag::unsigned(content)?)),
            10 => Ok(Primitive::Date(four()?)),
            11 => Ok(Primitive::Time(four()?)),
            12 => Ok(Primitive::Object(ObjectId::from_bits(u32::from_be_bytes(four()?)))),
            _ => Err(format!("it has a value of type {number}, which there is not")),
        }
    }

    /// Appends it with its tag.
    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        match self {
            Primitive::Null => tag::application(out, 0, &[]),
            Primitive::Boolean(value) => tag::boolean(out, *value),
            Primitive::Unsigned(number) => tag::application(out, 2, &tag::unsigned_bytes(*number)),
            Primitive::Signed(number) => tag::application(out, 3, &tag::signed_bytes(*number)),
            Primitive::Real(number) => tag::application(out, 4, &number.to_be_bytes()),
            Primitive::Double(number) => tag::application(out, 5, &number.to_be_bytes()),
            Primitive::Octets(octets) => tag::application(out, 6, octets),
            Primitive::Text(text) => tag::application(out, 7, &[&[UTF8], text.as_bytes()].concat()),
            Primitive::Bits(bits) => tag::application(out, 8, &bit_bytes(bits)),
            Primitive::Enumerated(number) => tag::application(out, 9, &tag::unsigned_bytes(*number)),
            Primitive::Date(bytes) => tag::application(out, 10, bytes),
            Primitive::Time(bytes) => tag::application(out, 11, bytes),
            Primitive::Object(object) => tag::application(out, 12, &object.bits().to_be_bytes()),
        }
    }

    /// What it is, for a person.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Primitive::Null => "null",
            Primitive::Boolean(_) => "a boolean",
            Primitive::Unsigned(_) => "an unsigned whole number",
            Primitive::Signed(_) => "a signed whole number",
            Primitive::Real(_) => "a real number",
            Primitive::Double(_) => "a double",
            Primitive::Octets(_) => "an octet string",
            Primitive::Text(_) => "a text",
            Primitive::Bits(_) => "a bit string",
            Primitive::Enumerated(_) => "an enumerated value",
            Primitive::Date(_) => "a date",
            Primitive::Time(_) => "a time",
            Primitive::Object(_) => "an object identifier",
        }
    }
}

/// As a property of type STRING has it.
impl fmt::Display for Primitive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Primitive::Null => f.write_str("null"),
            Primitive::Boolean(value) => value.fmt(f),
            Primitive::Unsigned(number) | Primitive::Enumerated(number) => number.fmt(f),
            Primitive::Signed(number) => number.fmt(f),
            Primitive::Real(number) => number.fmt(f),
            Primitive::Double(number) => number.fmt(f),
            Primitive::Octets(octets) => octets.iter().try_for_each(|octet| write!(f, "{octet:02x}")),
            Primitive::Text(text) => f.write_str(text),
            Primitive::Bits(bits) => {
                bits.iter().try_for_each(|bit| f.write_str(if *bit { "1" } else { "0" }))
            }
            Primitive::Date([year, month, day, _]) => {
                match year {
                    &ANY => f.write_str("*")?,
                    year => write!(f, "{:04}", 1900 + u16::from(*year))?,
                }
                [month, day].into_iter().try_for_each(|part| part_of(f, "-", *part))
            }
            Primitive::Time([hour, minute, second, hundredths]) => {
                part_of(f, "", *hour)?;
                [minute, second].into_iter().try_for_each(|part| part_of(f, ":", *part))?;
                part_of(f, ".", *hundredths)
            }
            Primitive::Object(object) => object.fmt(f),
        }
    }
}

fn part_of(f: &mut fmt::Formatter<'_>, before: &str, part: u8) -> fmt::Result {
    if part == ANY { write!(f, "{before}*") } else { write!(f, "{before}{part:02}") }
}

fn signed(content: &[u8]) -> Result<i64, String> {
    if content.is_empty() || content.len() > 8 {
        return Err("it has a whole number of no length, or of more than 64 bits".to_owned());
    }
    let sign = if content.first().is_some_and(|byte| byte & 0x80 != 0) { -1 } else { 0 };
    Ok(content.iter().fold(sign, |number, byte| (number << 8) | i64::from(*byte)))
}

fn text(content: &[u8]) -> Result<String, String> {
    let (set, letters) = content.split_first().ok_or("a text names no character set")?;
    let wrong = |what: &str| format!("it is no {what}, and says that it is");
    match *set {
        UTF8 => String::from_utf8(letters.to_vec()).map_err(|_| wrong("UTF-8")),
        UCS4 => {
            let letters = letters.chunks(4).map(|letter| {
                letter.try_into().ok().and_then(|letter| char::from_u32(u32::from_be_bytes(letter)))
            });
            letters.collect::<Option<_>>().ok_or_else(|| wrong("UCS-4"))
        }
        UCS2 => {
            let units: Option<Vec<u16>> =
                letters.chunks(2).map(|unit| unit.try_into().ok().map(u16::from_be_bytes)).collect();
            let text = units.and_then(|units| String::from_utf16(&units).ok());
            text.ok_or_else(|| wrong("UCS-2"))
        }
        LATIN1 => Ok(letters.iter().map(|letter| char::from(*letter)).collect()),
        other => {
            Err(format!("its character set {other} is not read; UTF-8, UCS-2, UCS-4 and ISO 8859-1 are"))
        }
    }
}

fn bits(content: &[u8]) -> Result<Vec<bool>, String> {
    let (unused, bytes) = content.split_first().ok_or("a bit string has no length")?;
    let all = bytes.len() * 8;
    let count = all.checked_sub(usize::from(*unused)).filter(|_| *unused < 8);
    let count = count.ok_or("a bit string has more unused bits than bits")?;
    Ok(bytes.iter().flat_map(|byte| (0..8).map(move |at| byte & (0x80 >> at) != 0)).take(count).collect())
}

fn bit_bytes(bits: &[bool]) -> Vec<u8> {
    let unused = u8::try_from((8 - bits.len() % 8) % 8).unwrap_or_default();
    let mut bytes = vec![unused];
    for eight in bits.chunks(8) {
        let byte = eight.iter().enumerate().map(|(at, bit)| if *bit { 0x80 >> at } else { 0 });
        bytes.push(byte.sum());
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(value: &Primitive) -> Vec<u8> {
        let mut out = Vec::new();
        value.put(&mut out);
        out
    }

    #[test]
    fn values_are_as_the_standards_examples_show_them() {
        // 20.2.2 to 20.2.14.
        for (value, bytes, shown) in [
            (Primitive::Null, &[0x00][..], "null"),
            (Primitive::Boolean(false), &[0x10], "false"),
            (Primitive::Boolean(true), &[0x11], "true"),
            (Primitive::Unsigned(72), &[0x21, 0x48], "72"),
            (Primitive::Signed(72), &[0x31, 0x48], "72"),
            (Primitive::Signed(-2), &[0x31, 0xFE], "-2"),
            (Primitive::Real(72.0), &[0x44, 0x42, 0x90, 0, 0], "72"),
            (Primitive::Double(72.0), &[0x55, 8, 0x40, 0x52, 0, 0, 0, 0, 0, 0], "72"),
            (Primitive::Octets(vec![0x12, 0x34, 0xFF]), &[0x63, 0x12, 0x34, 0xFF], "1234ff"),
            (
                Primitive::Text("This is a BACnet string!".to_owned()),
                b"\x75\x19\x00This is a BACnet string!",
                "This is a BACnet string!",
            ),
            (Primitive::Bits(vec![true, false, true, false, true]), &[0x82, 0x03, 0b1010_1000], "10101"),
            (Primitive::Enumerated(0), &[0x91, 0], "0"),
            (Primitive::Date([91, 1, 24, 4]), &[0xA4, 0x5B, 0x01, 0x18, 0x04], "1991-01-24"),
            (Primitive::Date([255, 255, 24, 4]), &[0xA4, 0xFF, 0xFF, 0x18, 0x04], "*-*-24"),
            (Primitive::Time([17, 35, 45, 17]), &[0xB4, 0x11, 0x23, 0x2D, 0x11], "17:35:45.17"),
            (
                Primitive::Object(ObjectId::new(3, 15).unwrap()),
                &[0xC4, 0x00, 0xC0, 0x00, 0x0F],
                "binary-input,15",
            ),
        ] {
            assert_eq!(put(&value), bytes, "{value}");
            assert_eq!(Primitive::only(bytes), Ok(value.clone()));
            assert_eq!(value.to_string(), shown);
        }
    }

    #[test]
    fn texts_of_the_usual_sets_are_read_and_others_named() {
        let read = |content: &[u8]| text(content);
        assert_eq!(read(&[5, 0xE9]), Ok("é".to_owned()));
        assert_eq!(read(&[4, 0, 0xE9, 0x26, 0x03]), Ok("é☃".to_owned()));
        assert_eq!(read(&[3, 0, 1, 0xF6, 0]), Ok("😀".to_owned()));
        for content in [&[][..], &[0, 0xFF], &[4, 0], &[4, 0xD8, 0], &[3, 0, 0, 0], &[3, 0xFF, 0, 0, 0]] {
            read(content).unwrap_err();
        }
        assert!(read(&[1, 3, 84]).unwrap_err().contains("character set 1"));
    }

    #[test]
    fn what_is_no_single_value_says_what_it_is() {
        for (bytes, said) in [
            (&[][..], "empty list"),
            (&[0x21, 1, 0x21, 2], "`index`"),
            (&[0x2E, 0x21, 1, 0x2F], "several parts"),
            (&[0x09, 1], "several parts"),
            (&[0x20], "no length"),
            (&[0x43, 0, 0, 0], "four bytes"),
            (&[0x54, 0, 0, 0, 0], "8 bytes"),
            (&[0x82, 9, 0], "unused bits"),
            (&[0x81, 1], "unused bits"),
            (&[0xD1, 0], "type 13"),
            (&[0x01, 0], "type 0"),
        ] {
            let refusal = Primitive::only(bytes).unwrap_err();
            assert!(refusal.contains(said), "{bytes:?}: {refusal}");
        }
    }

    proptest::proptest! {
        #[test]
        fn nothing_that_comes_ends_the_mapper(bytes: Vec<u8>) {
            if let Ok(value) = Primitive::only(&bytes) {
                drop((value.to_string(), value.name()));
                // Whatever was read is written so that it is read again.
                let again = Primitive::only(&put(&value));
                assert_eq!(again.map(|again| again.to_string()), Ok(value.to_string()));
            }
        }
    }
}
