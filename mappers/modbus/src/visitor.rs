//! Where a property's value is within its device.

use framework::{InvalidSetting, Kind, Property, Scale, Settings, shown};

use crate::encoding::{Charset, Encoding, Format};

/// What one request can read.
const REGISTERS_READ_MAX: u16 = 125;
/// What one request can write.
const REGISTERS_WRITTEN_MAX: u16 = 123;
/// What one request can write that reads as well (MAP §6.17).
const REGISTERS_WRITTEN_AND_READ_MAX: u16 = 121;
/// 16: marks of no value that one property may have.
const NO_VALUES_MAX: usize = 16;

/// The four tables of a Modbus device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
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

/// A place that a value is read from: table, first one, how many.
pub(crate) type Span = (Table, u16, u16);

/// How a value is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WriteFunction {
    /// As most devices like it, and otherwise if they don't.
    #[default]
    Auto,
    /// By function 05 or 06.
    Single,
    /// By function 15 or 16.
    Multiple,
    /// A bit by function 22.
    Mask,
    /// By function 23, which reads back in the same request.
    ReadBack,
}

/// Where a property's value is within its device.
#[derive(Debug, Clone, PartialEq)]
pub struct Visitor {
    /// The table.
    pub table: Table,
    /// The first bit or register, counted from 0.
    pub offset: u16,
    /// How many bits or registers.
    pub count: u16,
    /// How they are read; bits are read as one register, the first one lowest.
    pub encoding: Encoding,
    /// How they are written.
    pub write: WriteFunction,
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
        let scale = Scale::read(settings)?;
        let (swap_bytes, swap_words) = order(settings)?;
        let data_type = settings.text("dataType")?.map(|name| name.to_ascii_lowercase());
        let limit = (limit > 0).then_some(limit);
        let kind = property.kind;
        let (count, format, swap_bytes, swap_words) = if table.is_bits() {
            (bits(kind, data_type.as_deref(), limit)?, Format::U16, false, false)
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
        let bit = bit(settings, kind, table, words)?;
        let (format, charset) = letters(settings, format)?;
        let no_value = no_value(settings)?;
        let write = write_function(settings, bit)?;
        if write == WriteFunction::ReadBack
            && (table != Table::HoldingRegisters || bit.is_some() || count > REGISTERS_WRITTEN_AND_READ_MAX)
        {
            return Err(InvalidSetting::new(format!(
                "setting `writeFunction` is readBack, which is for at most {REGISTERS_WRITTEN_AND_READ_MAX} whole holding registers"
            )));
        }
        Ok(Visitor {
            table,
            offset,
            count,
            encoding: Encoding { kind, format, words, scale, swap_bytes, swap_words, bit, no_value, charset },
            write,
        })
    }

    /// What of the device it is.
    pub(crate) fn span(&self) -> Span {
        (self.table, self.offset, self.count)
    }

    /// The first bit or register behind it.
    pub(crate) fn end(&self) -> u32 {
        u32::from(self.offset) + u32::from(self.count)
    }
}

/// Whether bytes and registers are swapped: by `byteOrder`, else by KubeEdge's two flags.
fn order(settings: &Settings) -> Result<(bool, bool), InvalidSetting> {
    let flags = (settings.flag("isSwap")?, settings.flag("isRegisterSwap")?);
    match settings.text("byteOrder")?.unwrap_or_default().to_ascii_uppercase().as_str() {
        "" => Ok(flags),
        "ABCD" => Ok((false, false)),
        "BADC" => Ok((true, false)),
        "CDAB" => Ok((false, true)),
        "DCBA" => Ok((true, true)),
        other => Err(InvalidSetting::new(format!(
            "setting `byteOrder` is `{other}`; write ABCD, BADC, CDAB or DCBA"
        ))),
    }
}

fn bit(settings: &Settings, kind: Kind, table: Table, words: u16) -> Result<Option<u8>, InvalidSetting> {
    let Some(bit) = settings.whole("bit")? else { return Ok(None) };
    let number = u8::try_from(bit).ok().filter(|bit| *bit < 16).ok_or_else(|| {
        InvalidSetting::new(format!("setting `bit` is {bit}, which is not between 0 and 15"))
    })?;
    if table.is_bits() || words != 1 || !matches!(kind, Kind::Bool | Kind::Int) {
        let sentence = "setting `bit` is for a BOOLEAN or INT in one register";
        return Err(InvalidSetting::new(sentence));
    }
    Ok(Some(number))
}

fn letters(settings: &Settings, format: Format) -> Result<(Format, Charset), InvalidSetting> {
    let encoding = settings.text("encoding")?.unwrap_or_default().to_ascii_lowercase();
    let is_unsigned = matches!(format, Format::U16 | Format::U32 | Format::U64);
    match (encoding.as_str(), format) {
        ("", _) | ("utf8" | "utf-8" | "ascii", Format::Text) => Ok((format, Charset::Utf8)),
        ("latin1" | "iso-8859-1", Format::Text) => Ok((format, Charset::Latin1)),
        ("bcd", _) if is_unsigned => Ok((Format::Bcd, Charset::Utf8)),
        (other, _) => Err(InvalidSetting::new(format!(
            "setting `encoding` is `{other}`; write utf8 or latin1 for a STRING, and bcd for a number without a sign"
        ))),
    }
}

/// A number, a list of them, or its text; each decimal or hexadecimal.
fn no_value(settings: &Settings) -> Result<Vec<i128>, InvalidSetting> {
    let text = settings.text("noValue")?.unwrap_or_default();
    let wrong = |what: &str| {
        InvalidSetting::new(format!(
            "setting `noValue` has `{what}`; write up to {NO_VALUES_MAX} numbers such as 65535 or 0x8000"
        ))
    };
    let mut marks = Vec::new();
    let plain = text.trim().trim_start_matches('[').trim_end_matches(']');
    for part in plain.split(',').map(|part| part.trim().trim_matches('"')).filter(|part| !part.is_empty()) {
        let hexadecimal = part.strip_prefix("0x").or_else(|| part.strip_prefix("0X"));
        let mark = match hexadecimal {
            Some(digits) => u64::from_str_radix(digits, 16).map(i128::from),
            None => part.parse(),
        };
        marks.push(mark.map_err(|_| wrong(&shown(part)))?);
    }
    if marks.len() > NO_VALUES_MAX {
        return Err(wrong("too many"));
    }
    Ok(marks)
}

fn write_function(settings: &Settings, bit: Option<u8>) -> Result<WriteFunction, InvalidSetting> {
    match settings.text("writeFunction")?.unwrap_or_default().to_ascii_lowercase().as_str() {
        "" | "auto" => Ok(WriteFunction::Auto),
        "single" => Ok(WriteFunction::Single),
        "multiple" => Ok(WriteFunction::Multiple),
        "mask" if bit.is_some() => Ok(WriteFunction::Mask),
        "readback" => Ok(WriteFunction::ReadBack),
        other => Err(InvalidSetting::new(format!(
            "setting `writeFunction` is `{other}`; write auto, single, multiple, readBack, or with a `bit` mask"
        ))),
    }
}

fn bits(kind: Kind, data_type: Option<&str>, limit: Option<u16>) -> Result<u16, InvalidSetting> {
    let count = limit.unwrap_or(1);
    if let Some(other @ ("float" | "float32" | "float64" | "double" | "string")) = data_type {
        return Err(InvalidSetting::new(format!(
            "setting `dataType` is `{other}`, which is not in bits; leave it out, or use a register"
        )));
    }
    match kind {
        Kind::Bool if count != 1 => {
            Err(InvalidSetting::new(format!("setting `limit` is {count}; a BOOLEAN is one bit")))
        }
        Kind::Text => Err(InvalidSetting::new("a STRING is not in bits; use a register")),
        Kind::Float | Kind::Double => Err(InvalidSetting::new(
            "setting `register` names bits, which are no FLOAT or DOUBLE: make the property a BOOLEAN (or INT, of several bits), or use a register",
        )),
        Kind::Int | Kind::Bool if count <= Encoding::BITS_MAX => Ok(count),
        Kind::Int | Kind::Bool => Err(InvalidSetting::new(format!(
            "setting `limit` is {count}; at most {} bits make a number",
            Encoding::BITS_MAX
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
        // In one register it is a scaled whole number, which is common with KubeEdge's mapper.
        Some("float" | "double") if limit == Some(1) => whole(1)?,
        Some("double") if limit == Some(2) => Format::F32,
        Some("float") if limit == Some(4) => Format::F64,
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
mod tests;
