//! Tags, and what stands behind them (20.2.1): what every value and parameter begins with. Pure.

/// Four bytes is what a length needs at most; an APDU has 1476.
const LENGTH_ESCAPE: u8 = 5;
const OPENING: u8 = 6;
const CLOSING: u8 = 7;
/// A tag number that stands in the next byte.
const NUMBER_ESCAPE: u8 = 15;
/// Application tag 1: a Boolean is in its tag.
const BOOLEAN: u8 = 1;

/// What does not follow the encoding, in words.
pub(crate) type Malformed = &'static str;

const ENDS: Malformed = "it ends in the middle";
const OTHER: Malformed = "something else stands where a parameter is to be";

/// What stands in front of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tag {
    /// A value of this type.
    Application(u8),
    /// A parameter of this number.
    Context(u8),
    Opening(u8),
    Closing(u8),
}

/// Reads tags one after the other.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Reader(bytes)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(ENDS)?;
        self.0 = rest;
        Ok(taken)
    }

    fn number(&mut self, bytes: usize) -> Result<usize, Malformed> {
        let taken = self.take(bytes)?;
        Ok(taken.iter().fold(0, |number, byte| (number << 8) | usize::from(*byte)))
    }

    /// The next tag and its content. A Boolean's content is one byte of 0 or 1.
    pub(crate) fn next(&mut self) -> Result<(Tag, &'a [u8]), Malformed> {
        let first = u8::try_from(self.number(1)?).map_err(|_| ENDS)?;
        let number = match first >> 4 {
            NUMBER_ESCAPE => u8::try_from(self.number(1)?).map_err(|_| ENDS)?,
            number => number,
        };
        let (is_context, length) = (first & 8 != 0, first & 7);
        match (is_context, length) {
            (true, OPENING) => return Ok((Tag::Opening(number), &[])),
            (true, CLOSING) => return Ok((Tag::Closing(number), &[])),
            (false, OPENING | CLOSING) => return Err("it has a tag that there is not"),
            (false, value) if number == BOOLEAN => {
                return Ok((Tag::Application(BOOLEAN), if value == 0 { &[0] } else { &[1] }));
            }
            _ => {}
        }
        let length = match length {
            LENGTH_ESCAPE => match self.number(1)? {
                254 => self.number(2)?,
                255 => self.number(4)?,
                length => length,
            },
            length => length.into(),
        };
        let content = self.take(length)?;
        Ok((if is_context { Tag::Context(number) } else { Tag::Application(number) }, content))
    }

    /// Whether the next tag is this one.
    pub(crate) fn is_next(&self, tag: Tag) -> bool {
        let mut ahead = *self;
        ahead.next().is_ok_and(|(next, _)| next == tag)
    }

    /// The parameter of this number, which has to be there.
    pub(crate) fn context(&mut self, number: u8) -> Result<&'a [u8], Malformed> {
        match self.next()? {
            (Tag::Context(found), content) if found == number => Ok(content),
            _ => Err(OTHER),
        }
    }

    /// The parameter of this number, if it is there.
    pub(crate) fn optional(&mut self, number: u8) -> Result<Option<&'a [u8]>, Malformed> {
        if self.is_next(Tag::Context(number)) { self.context(number).map(Some) } else { Ok(None) }
    }

    /// A value of this type, which has to be there.
    pub(crate) fn application(&mut self, number: u8) -> Result<&'a [u8], Malformed> {
        match self.next()? {
            (Tag::Application(found), content) if found == number => Ok(content),
            _ => Err(OTHER),
        }
    }

    pub(crate) fn opening(&mut self, number: u8) -> Result<(), Malformed> {
        if self.next()?.0 == Tag::Opening(number) { Ok(()) } else { Err(OTHER) }
    }

    /// What stands between the opening and the closing tag of this number, however deep it is.
    pub(crate) fn enclosed(&mut self, number: u8) -> Result<&'a [u8], Malformed> {
        self.opening(number)?;
        let (inside, mut depth) = (self.0, 1_usize);
        loop {
            let before = self.0.len();
            match self.next()?.0 {
                Tag::Opening(_) => depth += 1,
                Tag::Closing(closed) => {
                    depth -= 1;
                    if depth == 0 && closed == number {
                        return inside.get(..inside.len() - before).ok_or(ENDS);
                    }
                    if depth == 0 {
                        return Err(OTHER);
                    }
                }
                Tag::Application(_) | Tag::Context(_) => {}
            }
        }
    }
}

/// A whole number without a sign (20.2.4), up to 64 bits.
pub(crate) fn unsigned(content: &[u8]) -> Result<u64, Malformed> {
    if content.is_empty() || content.len() > 8 {
        return Err("it has a whole number of no length, or of more than 64 bits");
    }
    Ok(content.iter().fold(0, |number, byte| (number << 8) | u64::from(*byte)))
}

/// The same of 32 bits: instances, properties and places are no longer.
pub(crate) fn unsigned32(content: &[u8]) -> Result<u32, Malformed> {
    u32::try_from(unsigned(content)?).map_err(|_| "it has a number of more than 32 bits")
}

/// As few bytes as there may be.
pub(crate) fn unsigned_bytes(number: u64) -> Vec<u8> {
    let all = number.to_be_bytes();
    let zeros = all.iter().take_while(|byte| **byte == 0).count().min(all.len() - 1);
    all.get(zeros..).unwrap_or_default().to_vec()
}

/// The same with a sign (20.2.5).
pub(crate) fn signed_bytes(number: i64) -> Vec<u8> {
    let all = number.to_be_bytes();
    let bits = 64 - if number < 0 { number.leading_ones() } else { number.leading_zeros() };
    let bytes = usize::try_from(bits / 8 + 1).unwrap_or(8);
    all.get(all.len() - bytes.min(all.len())..).unwrap_or_default().to_vec()
}

fn put(out: &mut Vec<u8>, number: u8, class: u8, content: &[u8]) {
    let length = content.len();
    let short = u8::try_from(length).ok().filter(|length| *length < LENGTH_ESCAPE);
    // Numbers are ours, and below 15.
    out.push((number << 4) | class | short.unwrap_or(LENGTH_ESCAPE));
    if short.is_none() {
        match u8::try_from(length) {
            Ok(length) if length < 254 => out.push(length),
            _ => {
                out.push(254);
                out.extend(u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes());
            }
        }
    }
    out.extend_from_slice(content);
}

/// A value of this type.
pub(crate) fn application(out: &mut Vec<u8>, number: u8, content: &[u8]) {
    put(out, number, 0, content);
}

/// A Boolean, which is in its tag.
pub(crate) fn boolean(out: &mut Vec<u8>, value: bool) {
    out.push((BOOLEAN << 4) | u8::from(value));
}

/// A parameter of this number.
pub(crate) fn context(out: &mut Vec<u8>, number: u8, content: &[u8]) {
    put(out, number, 8, content);
}

pub(crate) fn opening(out: &mut Vec<u8>, number: u8) {
    out.push((number << 4) | 8 | OPENING);
}

pub(crate) fn closing(out: &mut Vec<u8>, number: u8) {
    out.push((number << 4) | 8 | CLOSING);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_as_the_standard_shows_them() {
        // 20.2.1.3.1 and its examples: lengths in the tag, in a byte, in two; numbers beyond 14.
        let read =
            |bytes: &'static [u8]| Reader::new(bytes).next().map(|(tag, content)| (tag, content.len()));
        assert_eq!(read(&[0x21, 72]), Ok((Tag::Application(2), 1)));
        assert_eq!(read(&[0x29, 5]), Ok((Tag::Context(2), 1)));
        assert_eq!(read(&[0x65, 6, 1, 2, 3, 4, 5, 6]), Ok((Tag::Application(6), 6)));
        assert_eq!(read(&[0xF9, 27, 7]), Ok((Tag::Context(27), 1)));
        assert_eq!(read(&[0x3E]), Ok((Tag::Opening(3), 0)));
        assert_eq!(read(&[0xFF, 200]), Ok((Tag::Closing(200), 0)));
        assert_eq!(read(&[0x10]), Ok((Tag::Application(1), 1)));
        let mut long = vec![0x75, 254, 1, 44];
        long.extend([7; 300]);
        assert_eq!(Reader::new(&long).next().unwrap().1.len(), 300);
        let mut written = Vec::new();
        application(&mut written, 7, &[7; 300]);
        assert_eq!(written, long);
        let mut written = Vec::new();
        context(&mut written, 2, &[5]);
        context(&mut written, 0, &[6; 253]);
        assert_eq!(written[..4], [0x29, 5, 0x0D, 253]);
    }

    #[test]
    fn what_ends_too_early_or_claims_too_much_is_refused_before_anything_is_kept() {
        for bytes in [
            &[][..],
            &[0x22, 1],
            &[0x25],
            &[0x25, 254, 1],
            &[0x25, 255, 0xFF, 0xFF, 0xFF, 0xFF],
            &[0xF1],
            &[0x26],
        ] {
            assert!(Reader::new(bytes).next().is_err(), "{bytes:?}");
        }
        assert!(
            unsigned(&[]).is_err() && unsigned(&[0; 9]).is_err() && unsigned32(&[1, 0, 0, 0, 0]).is_err()
        );
    }

    #[test]
    fn what_is_enclosed_ends_with_its_own_closing_tag() {
        let mut reader = Reader::new(&[0x3E, 0x1E, 0x21, 5, 0x1F, 0x3F, 0x21, 6]);
        assert_eq!(reader.enclosed(3), Ok(&[0x1E, 0x21, 5, 0x1F][..]));
        assert_eq!(reader.application(2), Ok(&[6][..]));
        assert!(Reader::new(&[0x3E, 0x21, 5]).enclosed(3).is_err());
        assert!(Reader::new(&[0x3E, 0x4F]).enclosed(3).is_err());
        assert!(Reader::new(&[0x3E, 0x3F]).enclosed(3).unwrap().is_empty());
        assert!(Reader::new(&vec![0x3E; 100_000]).enclosed(3).is_err(), "no depth costs anything");
    }

    #[test]
    fn whole_numbers_have_no_more_bytes_than_they_need() {
        for (number, bytes) in [(0, &[0][..]), (255, &[255]), (256, &[1, 0]), (u64::MAX, &[255; 8])] {
            assert_eq!(unsigned_bytes(number), bytes);
            assert_eq!(unsigned(bytes), Ok(number));
        }
        for (number, bytes) in [
            (0, &[0][..]),
            (127, &[127]),
            (128, &[0, 128]),
            (-1, &[255]),
            (-128, &[128]),
            (-129, &[255, 127]),
            (i64::MIN, &[128, 0, 0, 0, 0, 0, 0, 0]),
            (i64::MAX, &[127, 255, 255, 255, 255, 255, 255, 255]),
        ] {
            assert_eq!(signed_bytes(number), bytes, "{number}");
        }
    }
}
