//! The authority in a header block (HPACK, RFC 7541), overwritten where it stands. Pure.
//!
//! A block is a row of representations: an index alone, or a name (by index or spelled out) and a value. They are walked,
//! not decoded, and of a value that belongs to `:authority` every byte is overwritten by a letter. So the block keeps its
//! length, and whoever decodes it keeps the same dynamic table as the client: an entry of the same size where the value was
//! spelled plainly, and where it was Huffman coded one of 8 bits a sign, which is never larger for the letters, digits and
//! marks of a path or a host (they have 5 to 8). A client whose socket's path is of rarer signs and whose table is full to
//! the brim would be told COMPRESSION_ERROR and connect anew; nothing is ever taken for something else.
//!
//! What is no HPACK is left to the library behind, which finds it by the same rules.

use std::collections::VecDeque;

/// `:authority` in HPACK's static table.
const STATIC_AUTHORITY: u32 = 1;
/// The same as an entry: it has no value.
const EMPTY_AUTHORITY: u8 = 0x81;
/// The first index of the dynamic table.
const DYNAMIC_FIRST: u32 = 62;
/// Entries of a dynamic table of 4096 bytes, the most that is ever granted here: an entry counts at least 32.
const ENTRIES_MAX: usize = 4096 / 32;
/// The name, spelled plainly.
const PLAIN: &[u8] = b":authority";
/// The name, Huffman coded: there is one way to write it.
const HUFFMAN: &[u8] = &[0xb8, 0x3b, 0x53, 0x39, 0xec, 0x32, 0x7d, 0x7f];
/// The letter X, plainly and as the 8 bits that it has in Huffman's code.
const PLAIN_LETTER: u8 = b'X';
const HUFFMAN_LETTER: u8 = 0xfc;
/// More than 5 bytes of a number are refused by every decoder.
const SHIFT_MAX: u32 = 28;

/// Where in a representation the next byte is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// At the begin of one.
    Begin,
    /// In the number of an index: an entry's alone, or that of a literal's name.
    Index { value: u32, shift: u32, literal: bool },
    /// In the number of a dynamic table's size.
    TableSize,
    /// At the begin of a text.
    Text(Part),
    /// In the number of a text's length.
    Length { part: Part, value: u32, shift: u32, huffman: bool },
    /// In a text.
    Bytes { part: Part, left: u32, huffman: bool },
    /// What came is no HPACK.
    Broken,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Name,
    Value,
}

/// Walks the header blocks of one connection, in their order.
#[derive(Debug)]
pub(crate) struct HeaderBlocks {
    step: Step,
    /// Of the literal that is being read: whether it becomes an entry of the table.
    inserted: bool,
    /// And whether it is the authority.
    is_authority: bool,
    /// How much of its name is that of the authority; `None`: it is another.
    matched: Option<usize>,
    /// Of each entry of the dynamic table, the newest first, whether it is the authority. The client may have dropped the
    /// last ones, and then it does not name them.
    entries: VecDeque<bool>,
    /// An authority without a sign, in this frame, may be taken out: once.
    may_go: bool,
}

impl Default for HeaderBlocks {
    fn default() -> Self {
        HeaderBlocks {
            step: Step::Begin,
            inserted: false,
            is_authority: false,
            matched: None,
            entries: VecDeque::new(),
            may_go: false,
        }
    }
}

impl HeaderBlocks {
    /// A block begins, of which this frame `is_all`.
    pub(crate) fn begin(&mut self, is_all: bool) {
        self.may_go = is_all;
        if self.step != Step::Broken {
            self.step = Step::Begin;
        }
    }

    /// The next bytes of a block, in which the authority is overwritten. Answers the place of the one byte that is one without a sign, and
    /// is to go.
    pub(crate) fn rewrite(&mut self, mut bytes: &mut [u8]) -> Option<usize> {
        let (length, mut goes) = (bytes.len(), None);
        while !bytes.is_empty() {
            if let Step::Bytes { part, left, huffman } = self.step {
                let here = bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                let (text, rest) = bytes.split_at_mut(here);
                self.text(part, huffman, text);
                bytes = rest;
                let left = left.saturating_sub(u32::try_from(here).unwrap_or(u32::MAX));
                self.step = Step::Bytes { part, left, huffman };
                if left == 0 {
                    self.end_of_text(part);
                }
                continue;
            }
            let Some((first, rest)) = bytes.split_first_mut() else { return goes };
            let byte = *first;
            bytes = rest;
            if self.step == Step::Begin && byte == EMPTY_AUTHORITY && std::mem::take(&mut self.may_go) {
                goes = Some(length - bytes.len() - 1);
                continue;
            }
            self.step = match self.step {
                Step::Begin => self.representation(byte),
                Step::Index { value, shift, literal } => match number(byte, value, shift) {
                    Number::More { value, shift } => Step::Index { value, shift, literal },
                    Number::Whole(index) if literal => self.named_by(index),
                    Number::Whole(_) => Step::Begin,
                    Number::TooLarge => Step::Broken,
                },
                // Its value does not matter here; its end does.
                Step::TableSize if byte & 0x80 == 0 => Step::Begin,
                Step::TableSize => Step::TableSize,
                Step::Text(part) => {
                    let huffman = byte & 0x80 != 0;
                    match u32::from(byte & 0x7f) {
                        0x7f => Step::Length { part, value: 0x7f, shift: 0, huffman },
                        length => self.begin_text(part, length, huffman),
                    }
                }
                Step::Length { part, value, shift, huffman } => match number(byte, value, shift) {
                    Number::More { value, shift } => Step::Length { part, value, shift, huffman },
                    Number::Whole(length) => self.begin_text(part, length, huffman),
                    Number::TooLarge => Step::Broken,
                },
                Step::Bytes { .. } => Step::Broken,
                Step::Broken => return goes,
            };
        }
        goes
    }

    /// The first byte of a representation (RFC 7541, 6).
    fn representation(&mut self, byte: u8) -> Step {
        let (prefix, literal) = match byte {
            0x80.. => (0x7f, false),
            0x40..=0x7f => (0x3f, true),
            0x20..=0x3f if byte & 0x1f == 0x1f => return Step::TableSize,
            0x20..=0x3f => return Step::Begin,
            _ => (0x0f, true),
        };
        self.inserted = literal && byte & 0x40 != 0;
        match u32::from(byte & prefix) {
            value if value == u32::from(prefix) => Step::Index { value, shift: 0, literal },
            index if literal => self.named_by(index),
            _ => Step::Begin,
        }
    }

    /// A literal whose name is that of an entry; 0: its name follows.
    fn named_by(&mut self, index: u32) -> Step {
        self.matched = Some(0);
        if index == 0 {
            return Step::Text(Part::Name);
        }
        self.is_authority = match index.checked_sub(DYNAMIC_FIRST) {
            None => index == STATIC_AUTHORITY,
            Some(at) => {
                usize::try_from(at).ok().and_then(|at| self.entries.get(at)).copied().unwrap_or(false)
            }
        };
        Step::Text(Part::Value)
    }

    fn begin_text(&mut self, part: Part, length: u32, huffman: bool) -> Step {
        if length > 0 {
            return Step::Bytes { part, left: length, huffman };
        }
        self.end_of_text(part);
        self.step
    }

    fn text(&mut self, part: Part, huffman: bool, text: &mut [u8]) {
        match part {
            Part::Name => {
                let name = if huffman { HUFFMAN } else { PLAIN };
                self.matched = self.matched.and_then(|at| {
                    let end = at.checked_add(text.len())?;
                    (name.get(at..end)? == text).then_some(end)
                });
                let whole = self.matched == Some(name.len());
                self.is_authority = whole;
            }
            Part::Value if self.is_authority => {
                text.fill(if huffman { HUFFMAN_LETTER } else { PLAIN_LETTER });
            }
            Part::Value => {}
        }
    }

    fn end_of_text(&mut self, part: Part) {
        match part {
            Part::Name => {
                // An empty name is nobody's.
                if self.matched == Some(0) {
                    self.is_authority = false;
                }
                self.step = Step::Text(Part::Value);
            }
            Part::Value => {
                if self.inserted {
                    self.entries.push_front(self.is_authority);
                    self.entries.truncate(ENTRIES_MAX);
                }
                self.step = Step::Begin;
            }
        }
    }
}

enum Number {
    More { value: u32, shift: u32 },
    Whole(u32),
    TooLarge,
}

/// One more byte of a number (RFC 7541, 5.1).
fn number(byte: u8, value: u32, shift: u32) -> Number {
    if shift > SHIFT_MAX - 7 {
        return Number::TooLarge;
    }
    let value = value.saturating_add(u32::from(byte & 0x7f) << shift);
    if byte & 0x80 == 0 { Number::Whole(value) } else { Number::More { value, shift: shift + 7 } }
}
