//! Where a property's value is within its device.

use framework::{InvalidSetting, Kind, Property, Settings};

use crate::encoding::{Encoding, Format, Scale};

/// What one request can read.
const REGISTERS_READ_MAX: u16 = 125;
/// What one request can write.
const REGISTERS_WRITTEN_MAX: u16 = 123;
/// As many bits as make a number.
const BITS_MAX: u16 = 16;

/// The four tables of a Modbus device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Table {
    /// Bits that can be written.
    Coils,
    /// Bits that can only be read.
    DiscreteInputs,
    /// Registers that can only be read.
    InputRegisters,
    /// Registers that can be written.
    HoldingRegisters,
}

/// Where a property's value is within its device.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Visitor {
    /// The table.
    pub table: Table,
    /// The first bit or register, counted from 0.
    pub offset: u16,
    /// How many bits or registers.
    pub count: u16,
    /// How they are read; bits are read as one register, the first one lowest.
    pub encoding: Encoding,
}

impl Table {
    /// From `register`, in any case.
    pub fn named(name: &str) -> Option<Self> {
        match name.to_ascii_lowercase().as_str() {
            "coilregister" => Some(Table::Coils),
            "discreteinputregister" => Some(Table::DiscreteInputs),
            "inputregister" => Some(Table::InputRegisters),
            "holdingregister" => Some(Table::HoldingRegisters),
            _ => None,
        }
    }

    /// Whether it holds bits.
    pub fn is_bits(self) -> bool {
        match self {
            Table::Coils | Table::DiscreteInputs => true,
            Table::InputRegisters | Table::HoldingRegisters => false,
        }
    }
}

impl Visitor {
    /// From `visitors.configData`.
    ///
    /// # Errors
    /// With the key and the cure.
    pub fn read(property: &Property, settings: &Settings) -> Result<Self, InvalidSetting> {
        let register = settings.text("register")?.unwrap_or_default();
        let table = Table::named(&register).ok_or_else(|| {
            InvalidSetting::new(format!(
                "setting `register` is `{register}`; write CoilRegister, DiscreteInputRegister, InputRegister or \
                 HoldingRegister"
            ))
        })?;
        let offset = settings.whole("offset")?.unwrap_or(0);
        let offset = u16::try_from(offset).map_err(|_| {
            InvalidSetting::new(format!("setting `offset` is {offset}, which is not between 0 and 65535"))
        })?;
        let limit = settings.whole("limit")?.unwrap_or(0);
        let limit =
            u16::try_from(limit).ok().filter(|limit| *limit <= REGISTERS_READ_MAX).ok_or_else(|| {
                InvalidSetting::new(format!(
                    "setting `limit` is {limit}, which is not between 1 and {REGISTERS_READ_MAX}"
                ))
            })?;
        let scale = match settings.number("scale")? {
            // Zero is what an absent number becomes in KubeEdge's messages.
            None | Some(0.0) => Scale::ONE,
            Some(factor) => Scale::new(factor)?,
        };
        let swap_bytes = settings.flag("isSwap")?;
        let swap_words = settings.flag("isRegisterSwap")?;
        let data_type = settings.text("dataType")?.map(|name| name.to_ascii_lowercase());
        let limit = (limit > 0).then_some(limit);
        let kind = property.kind;
        let (count, format, swap_bytes, swap_words) = if table.is_bits() {
            (bits(kind, limit)?, Format::U16, false, false)
        } else {
            let signed = property.minimum.is_some_and(|minimum| minimum < 0.0);
            let (format, words) = registers(kind, data_type.as_deref(), limit, signed)?;
            (words, format, swap_bytes, swap_words)
        };
        if u32::from(offset) + u32::from(count) > 65_536 {
            return Err(InvalidSetting::new(format!(
                "`offset` {offset} and `limit` {count} go beyond the last address, 65535"
            )));
        }
        if property.writable && table == Table::HoldingRegisters && count > REGISTERS_WRITTEN_MAX {
            let sentence =
                format!("setting `limit` is {count}; at most {REGISTERS_WRITTEN_MAX} can be written at once");
            return Err(InvalidSetting::new(sentence));
        }
        let words = if table.is_bits() { 1 } else { count };
        Ok(Visitor {
            table,
            offset,
            count,
            encoding: Encoding { kind, format, words, scale, swap_bytes, swap_words },
        })
    }
}

fn bits(kind: Kind, limit: Option<u16>) -> Result<u16, InvalidSetting> {
    let count = limit.unwrap_or(1);
    match kind {
        Kind::Bool if count != 1 => {
            Err(InvalidSetting::new(format!("setting `limit` is {count}; a BOOLEAN is one bit")))
        }
        Kind::Text => Err(InvalidSetting::new("a STRING is not in bits; use a register")),
        Kind::Int | Kind::Float | Kind::Double | Kind::Bool if count <= BITS_MAX => Ok(count),
        Kind::Int | Kind::Float | Kind::Double | Kind::Bool => Err(InvalidSetting::new(format!(
            "setting `limit` is {count}; at most {BITS_MAX} bits make a number"
        ))),
    }
}

fn registers(
    kind: Kind,
    data_type: Option<&str>,
    limit: Option<u16>,
    signed: bool,
) -> Result<(Format, u16), InvalidSetting> {
    let whole = |words| {
        Format::whole(words, signed).ok_or_else(|| {
            InvalidSetting::new(format!(
                "setting `limit` is {words}; a whole number is in 1, 2 or 4 registers"
            ))
        })
    };
    let format = match data_type {
        Some("int16") => Format::I16,
        Some("uint16") => Format::U16,
        Some("int32") => Format::I32,
        Some("uint32") => Format::U32,
        Some("int64") => Format::I64,
        Some("uint64") => Format::U64,
        Some("float" | "float32") => Format::F32,
        Some("double" | "float64") => Format::F64,
        Some("string") => Format::Text,
        Some("int" | "integer" | "boolean" | "bool") => whole(limit.unwrap_or(1))?,
        Some(other) => {
            return Err(InvalidSetting::new(format!(
                "setting `dataType` is `{other}`; write int16, uint16, int32, uint32, int64, uint64, float, double or \
                 string"
            )));
        }
        None => match (kind, limit) {
            (Kind::Text, _) => Format::Text,
            (Kind::Int | Kind::Bool, limit) => whole(limit.unwrap_or(1))?,
            (Kind::Float, None) | (Kind::Float | Kind::Double, Some(2)) => Format::F32,
            (Kind::Double, None) | (Kind::Float | Kind::Double, Some(4)) => Format::F64,
            (Kind::Float | Kind::Double, Some(limit)) => whole(limit)?,
        },
    };
    if (kind == Kind::Text) != (format == Format::Text) {
        return Err(InvalidSetting::new(
            "setting `dataType` and the property's type are not both text or both numbers",
        ));
    }
    match (format.words(), limit) {
        (Some(words), None) => Ok((format, words)),
        (Some(words), Some(limit)) if words == limit => Ok((format, words)),
        (Some(words), Some(limit)) => Err(InvalidSetting::new(format!(
            "setting `limit` is {limit}; such a value is in {words} registers"
        ))),
        (None, Some(limit)) => Ok((format, limit)),
        (None, None) => {
            Err(InvalidSetting::new("setting `limit` is missing; a STRING needs its number of registers"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use framework::Scalar;

    fn property(kind: Kind) -> Property {
        Property { name: "p".to_owned(), kind, writable: true, minimum: None, maximum: None }
    }

    fn read(kind: Kind, pairs: &[(&str, Scalar)]) -> Result<Visitor, String> {
        let settings = Settings::from_pairs(pairs.iter().cloned());
        let visitor = Visitor::read(&property(kind), &settings).map_err(|refusal| refusal.to_string());
        if visitor.is_ok() {
            assert_eq!(settings.unread_keys(), Vec::<String>::new());
        }
        visitor
    }

    fn holding(limit: i64, data_type: &str) -> Vec<(&'static str, Scalar)> {
        vec![
            ("register", Scalar::Text("HoldingRegister".to_owned())),
            ("offset", Scalar::Float(2.0)),
            ("limit", Scalar::Int(limit)),
            ("dataType", Scalar::Text(data_type.to_owned())),
        ]
    }

    fn format(kind: Kind, limit: i64, data_type: &str) -> Option<Format> {
        read(kind, &holding(limit, data_type)).ok().map(|visitor| visitor.encoding.format)
    }

    #[test]
    fn kubeedges_sample_is_read() {
        let visitor = read(
            Kind::Int,
            &[
                ("register", Scalar::Text("HoldingRegister".to_owned())),
                ("offset", Scalar::Float(2.0)),
                ("limit", Scalar::Float(1.0)),
                ("scale", Scalar::Float(1.0)),
                ("isSwap", Scalar::Bool(true)),
                ("isRegisterSwap", Scalar::Bool(true)),
            ],
        )
        .unwrap();
        assert_eq!((visitor.table, visitor.offset, visitor.count), (Table::HoldingRegisters, 2, 1));
        assert_eq!(visitor.encoding.format, Format::U16);
        assert!(visitor.encoding.swap_bytes && visitor.encoding.swap_words);
    }

    #[test]
    fn formats_follow_from_type_and_size() {
        assert_eq!(format(Kind::Int, 0, ""), Some(Format::U16));
        assert_eq!(format(Kind::Int, 2, ""), Some(Format::U32));
        assert_eq!(format(Kind::Int, 2, "INT32"), Some(Format::I32));
        assert_eq!(format(Kind::Int, 0, "int32"), Some(Format::I32));
        assert_eq!(format(Kind::Int, 2, "float"), Some(Format::F32), "rounded");
        assert_eq!(format(Kind::Float, 0, ""), Some(Format::F32));
        assert_eq!(format(Kind::Float, 1, ""), Some(Format::U16), "scaled");
        assert_eq!(format(Kind::Double, 0, ""), Some(Format::F64));
        assert_eq!(format(Kind::Double, 2, ""), Some(Format::F32));
        assert_eq!(format(Kind::Bool, 0, ""), Some(Format::U16));
        assert_eq!(format(Kind::Text, 8, ""), Some(Format::Text));
        for (kind, limit, data_type) in [
            (Kind::Int, 3, ""),
            (Kind::Int, 1, "int32"),
            (Kind::Float, 1, "float"),
            (Kind::Text, 0, ""),
            (Kind::Text, 2, "int32"),
            (Kind::Int, 2, "string"),
            (Kind::Int, 1, "decimal"),
            (Kind::Text, 124, ""),
            (Kind::Text, 126, ""),
            (Kind::Int, -1, ""),
        ] {
            assert_eq!(format(kind, limit, data_type), None, "{kind:?} {limit} {data_type}");
        }
    }

    #[test]
    fn a_minimum_below_zero_makes_it_signed() {
        let below = Property { minimum: Some(-40.0), ..property(Kind::Int) };
        let visitor = Visitor::read(&below, &Settings::from_pairs(holding(1, ""))).unwrap();
        assert_eq!(visitor.encoding.format, Format::I16);
        let visitor = Visitor::read(&below, &Settings::from_pairs(holding(1, "uint16"))).unwrap();
        assert_eq!(visitor.encoding.format, Format::U16, "what is said counts more");
    }

    #[test]
    fn bits_are_booleans_or_small_numbers() {
        let coil = |kind, limit| {
            let register = Scalar::Text("CoilRegister".to_owned());
            read(
                kind,
                &[("register", register), ("limit", Scalar::Int(limit)), ("isSwap", Scalar::Bool(true))],
            )
        };
        let visitor = coil(Kind::Bool, 1).unwrap();
        assert_eq!((visitor.count, visitor.encoding.words, visitor.encoding.swap_bytes), (1, 1, false));
        assert_eq!(coil(Kind::Int, 8).unwrap().count, 8);
        assert!(coil(Kind::Bool, 2).is_err());
        assert!(coil(Kind::Int, 17).is_err());
        assert!(coil(Kind::Text, 1).is_err());
    }

    #[test]
    fn addresses_end_where_the_table_does() {
        let at = |offset| {
            let register = Scalar::Text("inputregister".to_owned());
            read(Kind::Float, &[("register", register), ("offset", Scalar::Int(offset))])
        };
        assert!(at(65_534).is_ok());
        assert!(at(65_535).unwrap_err().contains("65535"));
        assert!(at(-1).is_err());
        assert!(read(Kind::Int, &[]).unwrap_err().contains("`register`"));
    }
}
