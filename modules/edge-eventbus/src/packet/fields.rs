//! The fields of one packet, taken from hostile bytes one after the other. Pure.

use crate::error::MalformedPacket;

/// What is left of a packet's body.
pub(super) struct Fields<'a> {
    pub(super) rest: &'a [u8],
    /// The packet's name, for errors.
    pub(super) of: &'static str,
}

impl<'a> Fields<'a> {
    pub(super) fn take(&mut self, count: usize) -> Result<&'a [u8], MalformedPacket> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(MalformedPacket::Fields(self.of))?;
        self.rest = rest;
        Ok(taken)
    }

    pub(super) fn u8(&mut self) -> Result<u8, MalformedPacket> {
        Ok(self.take(1)?.iter().fold(0, |_, byte| *byte))
    }

    pub(super) fn u32(&mut self) -> Result<u32, MalformedPacket> {
        Ok(self.take(4)?.iter().fold(0, |number, byte| (number << 8) | u32::from(*byte)))
    }

    /// A number of one to four bytes, in the shortest form.
    pub(super) fn varint(&mut self) -> Result<usize, MalformedPacket> {
        let mut number = 0;
        for place in 0..4 {
            let byte = self.u8()?;
            number |= usize::from(byte & 0x7f) << (7 * place);
            if byte & 0x80 == 0 {
                return if place > 0 && byte == 0 { Err(MalformedPacket::Length) } else { Ok(number) };
            }
        }
        Err(MalformedPacket::Length)
    }

    pub(super) fn u16(&mut self) -> Result<u16, MalformedPacket> {
        Ok(self.take(2)?.iter().fold(0, |number, byte| (number << 8) | u16::from(*byte)))
    }

    pub(super) fn pkid(&mut self) -> Result<u16, MalformedPacket> {
        match self.u16()? {
            0 => Err(MalformedPacket::Forbidden("packet identifier is 0")),
            pkid => Ok(pkid),
        }
    }

    pub(super) fn binary(&mut self) -> Result<&'a [u8], MalformedPacket> {
        let length = self.u16()?;
        self.take(usize::from(length))
    }

    pub(super) fn text(&mut self) -> Result<String, MalformedPacket> {
        let text = std::str::from_utf8(self.binary()?)
            .map_err(|_| MalformedPacket::Forbidden("text is not UTF-8"))?;
        if text.contains('\0') {
            return Err(MalformedPacket::Forbidden("text contains NUL"));
        }
        Ok(text.to_owned())
    }

    pub(super) fn remaining(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }

    pub(super) fn end(&self) -> Result<(), MalformedPacket> {
        if self.rest.is_empty() { Ok(()) } else { Err(MalformedPacket::Fields(self.of)) }
    }
}
