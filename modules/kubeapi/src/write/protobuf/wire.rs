//! The protobuf encoding: keys, varints and lengths. Nothing is read beyond its end.

/// Why bytes are no protobuf.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum WireError {
    #[error("the bytes end in the middle of a number")]
    CutNumber,
    #[error("a number is longer than 64 bits")]
    LongNumber,
    #[error("a length of {length} goes beyond the {left} bytes that are left")]
    Length { length: u64, left: usize },
    #[error("field number {0} cannot be")]
    Number(u64),
    #[error("wire type {0} is not known")]
    WireType(u8),
}

/// What is behind a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Payload<'a> {
    Varint(u64),
    Bytes(&'a [u8]),
    /// Four or eight bytes as they are. No Kubernetes kind has such fields.
    Fixed,
}

/// Reads a message from its first byte on.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(rest: &'a [u8]) -> Self {
        Reader { rest }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next field; `None` at the end.
    pub(super) fn field(&mut self) -> Result<Option<(u32, Payload<'a>)>, WireError> {
        if self.is_empty() {
            return Ok(None);
        }
        let key = self.varint()?;
        // Field numbers have 29 bits.
        let number = u32::try_from(key >> 3).ok().filter(|number| (1..1 << 29).contains(number));
        let number = number.ok_or(WireError::Number(key >> 3))?;
        let payload = match (key & 7) as u8 {
            0 => Payload::Varint(self.varint()?),
            1 => self.take(8).map(|_| Payload::Fixed)?,
            2 => {
                let length = self.varint()?;
                Payload::Bytes(self.take(length)?)
            }
            5 => self.take(4).map(|_| Payload::Fixed)?,
            other => return Err(WireError::WireType(other)),
        };
        Ok(Some((number, payload)))
    }

    pub(super) fn varint(&mut self) -> Result<u64, WireError> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.rest.split_first().ok_or(WireError::CutNumber)?;
            self.rest = rest;
            // Of the tenth byte only one bit has room.
            if shift == 63 && *byte > 1 {
                return Err(WireError::LongNumber);
            }
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(WireError::LongNumber)
    }

    fn take(&mut self, length: u64) -> Result<&'a [u8], WireError> {
        let split = usize::try_from(length).ok().and_then(|length| self.rest.split_at_checked(length));
        let (taken, rest) = split.ok_or(WireError::Length { length, left: self.rest.len() })?;
        self.rest = rest;
        Ok(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_and_checked() {
        assert_eq!(Reader::new(&[0x96, 0x01]).varint(), Ok(150));
        let all = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
        assert_eq!(Reader::new(&all).varint(), Ok(u64::MAX));
        let more = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02];
        assert_eq!(Reader::new(&more).varint(), Err(WireError::LongNumber));
        assert_eq!(Reader::new(&[0x80; 11]).varint(), Err(WireError::LongNumber));
        assert_eq!(Reader::new(&[0x80]).varint(), Err(WireError::CutNumber));
    }

    #[test]
    fn fields_are_read_and_checked() {
        let mut reader = Reader::new(&[0x0a, 1, b'x', 0x10, 5, 0x1d, 1, 2, 3, 4]);
        assert_eq!(reader.field(), Ok(Some((1, Payload::Bytes(b"x")))));
        assert_eq!(reader.field(), Ok(Some((2, Payload::Varint(5)))));
        assert_eq!(reader.field(), Ok(Some((3, Payload::Fixed))));
        assert_eq!(reader.field(), Ok(None));
        let error = |bytes: &[u8]| Reader::new(bytes).field().unwrap_err();
        assert_eq!(error(&[0x0a, 2, b'x']), WireError::Length { length: 2, left: 1 });
        let huge = [0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
        assert_eq!(error(&huge), WireError::Length { length: u64::MAX, left: 0 });
        assert_eq!(error(&[0x02, 0]), WireError::Number(0));
        assert_eq!(error(&[0x0b]), WireError::WireType(3));
        assert_eq!(error(&[0x1d, 1, 2]), WireError::Length { length: 4, left: 2 });
    }
}
