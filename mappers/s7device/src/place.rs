//! Where a value is within a PLC: `DB1.DBD4`, `M10.0`, `IW4`. Pure.

use framework::{InvalidSetting, shown};

/// The last byte that an address of 24 bits, which counts bits, leads to.
const BYTE_MAX: u32 = (1 << 21) - 1;

/// A part of a PLC's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Area {
    /// What its program sees of its inputs.
    Inputs,
    /// What its program tells its outputs.
    Outputs,
    /// Bit memory, which is called merkers, too.
    Memory,
    /// A data block by its number.
    Block(u16),
}

impl Area {
    /// Its number on the wire, and that of the block.
    pub(crate) fn codes(self) -> (u8, u16) {
        match self {
            Area::Inputs => (0x81, 0),
            Area::Outputs => (0x82, 0),
            Area::Memory => (0x83, 0),
            Area::Block(number) => (0x84, number),
        }
    }
}

/// Where a value is within a PLC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The part of its memory.
    pub area: Area,
    /// The first byte.
    pub byte: u32,
    /// The bit in it, of which 0 is the lowest.
    pub bit: Option<u8>,
    /// How many bytes the address names: of `W` 2, of `D` 4; of `B` any number begins there.
    pub width: Option<usize>,
}

impl Place {
    /// From `address`, in German letters as well (`E`, `A`); `V` is a LOGO!'s memory, which is its block 1.
    ///
    /// # Errors
    /// A sentence, when it is none.
    pub fn parse(address: &str) -> Result<Self, InvalidSetting> {
        let upper = address.trim().to_ascii_uppercase();
        let shown = shown(address);
        let wrong = || {
            InvalidSetting::new(format!(
                "setting `address` is `{shown}`; write one as DB1.DBX0.3, DB1.DBW2, DB1.DBD4, M10.0, IW4 or QB0"
            ))
        };
        let (area, rest) = match upper.strip_prefix("DB") {
            Some(block) => {
                let (number, rest) = block.split_once('.').ok_or_else(wrong)?;
                (
                    Area::Block(number.parse().map_err(|_| wrong())?),
                    rest.strip_prefix("DB").ok_or_else(wrong)?,
                )
            }
            None => {
                let area = match upper.chars().next() {
                    Some('I' | 'E') => Area::Inputs,
                    Some('Q' | 'A') => Area::Outputs,
                    Some('M') => Area::Memory,
                    Some('V') => Area::Block(1),
                    Some('T' | 'C' | 'Z') => {
                        return Err(InvalidSetting::new(format!(
                            "setting `address` is `{shown}`; timers and counters are not read: have the program copy them into a data block"
                        )));
                    }
                    _ => return Err(wrong()),
                };
                (area, upper.get(1..).unwrap_or_default())
            }
        };
        let (width, rest) = match rest.chars().next() {
            Some('B') => (None, rest.get(1..)),
            Some('W') => (Some(2), rest.get(1..)),
            Some('D') => (Some(4), rest.get(1..)),
            Some('X') => (Some(0), rest.get(1..)),
            Some(_) if !matches!(area, Area::Block(_)) || upper.starts_with('V') => (Some(0), Some(rest)),
            _ => return Err(wrong()),
        };
        let is_bit = width == Some(0);
        let (byte, bit) = match rest.unwrap_or_default().split_once('.') {
            Some((byte, bit)) if is_bit => {
                (byte, Some(bit.parse::<u8>().ok().filter(|bit| *bit < 8).ok_or_else(wrong)?))
            }
            None if !is_bit => (rest.unwrap_or_default(), None),
            _ => return Err(wrong()),
        };
        if byte.is_empty() || !byte.bytes().all(|digit| digit.is_ascii_digit()) {
            return Err(wrong());
        }
        let byte = byte.parse::<u32>().ok().filter(|byte| *byte <= BYTE_MAX).ok_or_else(wrong)?;
        Ok(Place { area, byte, bit, width: width.filter(|width| *width > 0) })
    }

    /// The address that is on the wire, which counts bits.
    pub(crate) fn bits(&self) -> u32 {
        self.byte * 8 + u32::from(self.bit.unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_programs_have_them() {
        let place = |text| Place::parse(text).unwrap();
        let at = |area, byte, bit, width| Place { area, byte, bit, width };
        assert_eq!(place("DB1.DBX0.3"), at(Area::Block(1), 0, Some(3), None));
        assert_eq!(place(" db65535.dbb9"), at(Area::Block(65_535), 9, None, None));
        assert_eq!(place("DB2.DBW2"), at(Area::Block(2), 2, None, Some(2)));
        assert_eq!(place("DB2.DBD2097151"), at(Area::Block(2), 2_097_151, None, Some(4)));
        assert_eq!(place("M10.0"), at(Area::Memory, 10, Some(0), None));
        assert_eq!(place("EW4"), at(Area::Inputs, 4, None, Some(2)));
        assert_eq!(place("QB0"), at(Area::Outputs, 0, None, None));
        assert_eq!(place("a0.7"), at(Area::Outputs, 0, Some(7), None));
        assert_eq!(place("VW100"), at(Area::Block(1), 100, None, Some(2)));
        assert_eq!(place("V3.1"), at(Area::Block(1), 3, Some(1), None));
        assert_eq!(place("DB1.DBX2.5").bits(), 21);
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for wrong in [
            "",
            "DB",
            "DB1",
            "DB1.",
            "DB1.DB",
            "DB1.DBW",
            "DB1.DBX0",
            "DB1.DBX0.8",
            "DB1.DBW2.1",
            "DB1.W2",
            "DB65536.DBW0",
            "DB1.DBB2097152",
            "DB1.DBB-1",
            "DB1.DBB+1",
            "M10",
            "M10.",
            "MB",
            "X1.0",
            "DBX.DBW0",
            "M1.0.0",
            "MÄ",
            "Ä",
        ] {
            let refusal = Place::parse(wrong).expect_err(wrong).to_string();
            assert!(refusal.contains("DB1.DBW2"), "{refusal}");
        }
        assert!(Place::parse("T5").unwrap_err().to_string().contains("timers"));
    }
}
