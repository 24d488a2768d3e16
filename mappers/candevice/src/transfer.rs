//! One reading or writing of an object, frame by frame (CiA 301 §7.2.4.3): expedited up to four bytes, in segments beyond. Pure: what
//! the node has answered comes in, what to send next goes out.

use crate::abort;
use crate::object::Object;

/// 4 KiB: a longer object is not read.
pub(crate) const OBJECT_MAX: usize = 4096;
/// The bytes in a frame, beside what says what they are.
const EXPEDITED_MAX: usize = 4;
const SEGMENT_MAX: usize = 7;
/// Bits of the first byte.
const TOGGLE: u8 = 0x10;
const IS_EXPEDITED: u8 = 2;
const HAS_SIZE: u8 = 1;
const IS_LAST: u8 = 1;
const ABORT: u8 = 0x80;

pub(crate) type Payload = [u8; 8];

/// What follows from an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Next {
    /// It is not for this transfer.
    Wait,
    /// This is to be sent.
    Send(Payload),
    /// It is done: what was read, and whether the node has said how long it is.
    Done { bytes: Vec<u8>, has_length: bool },
    /// The node has given up.
    Aborted(u32),
    /// It is wrong: this is to be sent, and why.
    GiveUp(Payload, String),
}

/// What a transfer waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Stage {
    ReadBegun,
    /// The toggle of the segment that was asked for, and how many bytes there are to be.
    Reading {
        toggle: u8,
        size: Option<usize>,
    },
    WriteBegun,
    /// The toggle of the segment that was sent, and how many bytes were.
    Writing {
        toggle: u8,
        sent: usize,
    },
    /// Its only frame was sent.
    Written,
}

/// A transfer.
#[derive(Debug, Clone)]
pub(crate) struct Transfer {
    object: Object,
    stage: Stage,
    /// What was read, or is to be written.
    bytes: Vec<u8>,
}

impl Transfer {
    /// Reads an object; the second is what to send first.
    pub(crate) fn read(object: Object) -> (Self, Payload) {
        let first = begin(0x40, object, [0; 4]);
        (Transfer { object, stage: Stage::ReadBegun, bytes: Vec::new() }, first)
    }

    /// Writes an object.
    pub(crate) fn write(object: Object, bytes: Vec<u8>) -> (Self, Payload) {
        let mut short = [0; EXPEDITED_MAX];
        let (stage, first) = match short.get_mut(..bytes.len()) {
            Some(own) if !bytes.is_empty() => {
                own.copy_from_slice(&bytes);
                let free = u8::try_from(EXPEDITED_MAX - bytes.len()).unwrap_or(0);
                (Stage::Written, begin(0x20 | (free << 2) | IS_EXPEDITED | HAS_SIZE, object, short))
            }
            _ => {
                let size = u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes();
                (Stage::WriteBegun, begin(0x20 | HAS_SIZE, object, size))
            }
        };
        (Transfer { object, stage, bytes }, first)
    }

    /// The node has answered.
    pub(crate) fn answered(&mut self, answer: &Payload) -> Next {
        let [command, first, second, sub, ..] = *answer;
        let is_ours = Object { index: u16::from_le_bytes([first, second]), sub } == self.object;
        if command == ABORT {
            return if is_ours { Next::Aborted(u32::from_le_bytes(last_four(answer))) } else { Next::Wait };
        }
        let kind = command >> 5;
        match self.stage {
            // Another client's, or a late one: only these say of what they are.
            Stage::ReadBegun | Stage::WriteBegun | Stage::Written if !is_ours => Next::Wait,
            Stage::ReadBegun if kind == 2 => self.read_begun(command, last_four(answer)),
            Stage::Reading { toggle, size } if kind == 0 => self.read_segment(command, answer, toggle, size),
            Stage::Written if kind == 3 => self.done(),
            Stage::WriteBegun if kind == 3 => self.write_segment(0, 0),
            Stage::Writing { toggle, sent } if kind == 1 => {
                if command & TOGGLE != toggle {
                    return self.give_up(abort::TOGGLE, "the segments are out of step");
                }
                if sent >= self.bytes.len() { self.done() } else { self.write_segment(toggle ^ TOGGLE, sent) }
            }
            // The begin of another transfer of the same object, by another client or answered late.
            Stage::Reading { .. } | Stage::Writing { .. } if matches!(kind, 2 | 3) => Next::Wait,
            _ => self.give_up(abort::UNKNOWN_COMMAND, "it answers another question"),
        }
    }

    /// What to send when no answer has come.
    pub(crate) fn late(&self) -> Payload {
        begin(ABORT, self.object, abort::LATE.to_le_bytes())
    }

    fn read_begun(&mut self, command: u8, last: [u8; 4]) -> Next {
        let has_size = command & HAS_SIZE != 0;
        if command & IS_EXPEDITED != 0 {
            let free = if has_size { usize::from((command >> 2) & 3) } else { 0 };
            self.bytes = last.get(..EXPEDITED_MAX - free).unwrap_or_default().to_vec();
            return Next::Done { bytes: std::mem::take(&mut self.bytes), has_length: has_size };
        }
        let size = usize::try_from(u32::from_le_bytes(last)).unwrap_or(usize::MAX);
        if has_size && size > OBJECT_MAX {
            return self.give_up(
                abort::NO_MEMORY,
                &format!("it has {size} bytes, and at most {OBJECT_MAX} are read"),
            );
        }
        self.stage = Stage::Reading { toggle: 0, size: has_size.then_some(size) };
        Next::Send(segment(0x60, &[]))
    }

    fn read_segment(&mut self, command: u8, answer: &Payload, toggle: u8, size: Option<usize>) -> Next {
        if command & TOGGLE != toggle {
            return self.give_up(abort::TOGGLE, "the segments are out of step");
        }
        let free = usize::from((command >> 1) & 7);
        let own = answer.get(1..answer.len() - free).unwrap_or_default();
        if self.bytes.len() + own.len() > size.unwrap_or(OBJECT_MAX) {
            return self.give_up(abort::LENGTH, "it sends more than it has said");
        }
        self.bytes.extend_from_slice(own);
        if command & IS_LAST != 0 {
            if size.is_some_and(|size| size != self.bytes.len()) {
                return self.give_up(abort::LENGTH, "it sends less than it has said");
            }
            return self.done();
        }
        if own.is_empty() {
            return self.give_up(abort::UNKNOWN_COMMAND, "it sends segments without anything in them");
        }
        let toggle = toggle ^ TOGGLE;
        self.stage = Stage::Reading { toggle, size };
        Next::Send(segment(0x60 | toggle, &[]))
    }

    fn write_segment(&mut self, toggle: u8, from: usize) -> Next {
        let own: Vec<u8> = self.bytes.iter().skip(from).take(SEGMENT_MAX).copied().collect();
        let sent = from + own.len();
        let is_last = if sent >= self.bytes.len() { IS_LAST } else { 0 };
        let free = u8::try_from(SEGMENT_MAX - own.len()).unwrap_or(0);
        self.stage = Stage::Writing { toggle, sent };
        Next::Send(segment(toggle | (free << 1) | is_last, &own))
    }

    fn done(&mut self) -> Next {
        Next::Done { bytes: std::mem::take(&mut self.bytes), has_length: true }
    }

    fn give_up(&self, code: u32, why: &str) -> Next {
        Next::GiveUp(begin(ABORT, self.object, code.to_le_bytes()), why.to_owned())
    }
}

fn begin(command: u8, object: Object, last: [u8; 4]) -> Payload {
    let ([first, second], [a, b, c, d]) = (object.index.to_le_bytes(), last);
    [command, first, second, object.sub, a, b, c, d]
}

fn segment(command: u8, own: &[u8]) -> Payload {
    let mut payload = [0; 8];
    for (to, byte) in payload.iter_mut().zip([command].iter().chain(own)) {
        *to = *byte;
    }
    payload
}

fn last_four(payload: &Payload) -> [u8; 4] {
    let [.., a, b, c, d] = *payload;
    [a, b, c, d]
}

#[cfg(test)]
mod tests;
