//! A frame of a CAN bus. Pure.

use std::fmt;

/// 8: the bytes of a frame.
pub(crate) const BYTES_MAX: usize = 8;
const STANDARD_MAX: u32 = 0x7FF;
const EXTENDED_MAX: u32 = 0x1FFF_FFFF;

/// What a frame is called on the bus.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CanId {
    /// 11 bits, or 29.
    pub number: u32,
    /// It has 29 bits.
    pub is_extended: bool,
}

/// A frame with data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Its name.
    pub id: CanId,
    data: [u8; BYTES_MAX],
    length: usize,
}

impl CanId {
    /// One of 11 bits, or of 29; None when the number has more.
    pub fn new(number: u32, is_extended: bool) -> Option<Self> {
        let most = if is_extended { EXTENDED_MAX } else { STANDARD_MAX };
        (number <= most).then_some(CanId { number, is_extended })
    }

    /// The low 11 bits.
    pub(crate) fn standard(number: u32) -> Self {
        CanId { number: number & STANDARD_MAX, is_extended: false }
    }
}

impl fmt::Display for CanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_extended { write!(f, "0x{:08X}", self.number) } else { write!(f, "0x{:03X}", self.number) }
    }
}

impl Frame {
    /// None when there are more than eight bytes.
    pub fn new(id: CanId, bytes: &[u8]) -> Option<Self> {
        let mut data = [0; BYTES_MAX];
        data.get_mut(..bytes.len())?.copy_from_slice(bytes);
        Some(Frame { id, data, length: bytes.len() })
    }

    /// With all of its eight bytes.
    pub(crate) fn full(id: CanId, data: [u8; BYTES_MAX]) -> Self {
        Frame { id, data, length: BYTES_MAX }
    }

    /// Its bytes.
    pub fn bytes(&self) -> &[u8] {
        self.data.get(..self.length).unwrap_or_default()
    }

    /// All eight, those behind its own being 0.
    pub(crate) fn padded(&self) -> [u8; BYTES_MAX] {
        self.data
    }
}
