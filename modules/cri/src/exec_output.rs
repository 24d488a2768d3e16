//! What a command printed, read as it comes: of each output the beginning is kept and the rest passes. Pure.
//!
//! A container chooses how much its commands print, up to the runtime's own bound of 16 MiB for each output, and nobody who asks for
//! a probe or a hook looks at more than the first KiB. So an `ExecSyncResponse` is never held whole where its beginning is enough.

use prost::Message as _;

use crate::v1::ExecSyncResponse;

/// A number has 10 bytes at the most (Protocol Buffers).
const NUMBER_MAX: u32 = 10;

/// The message is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed;

/// A number, as far as it was read.
#[derive(Debug, Clone, Copy, Default)]
struct Number {
    value: u64,
    read: u32,
}

impl Number {
    /// Reads one byte more; `Some` when that was the last.
    fn take(&mut self, byte: u8) -> Result<Option<u64>, Malformed> {
        if self.read == NUMBER_MAX {
            return Err(Malformed);
        }
        self.value |= u64::from(byte & 0x7f).checked_shl(7 * self.read).unwrap_or_default();
        self.read += 1;
        Ok((byte < 0x80).then_some(self.value))
    }
}

/// The fields that are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    Stdout,
    Stderr,
    ExitCode,
    Other,
}

#[derive(Debug, Clone, Copy)]
enum State {
    /// Between two fields, or in the number that says which one comes.
    Key(Number),
    /// In a value that is a number.
    Value(Field, Number),
    /// In the length of what comes.
    Length(Field, Number),
    /// In bytes, of which so many are to come.
    Bytes(Field, u64),
}

/// Reads an `ExecSyncResponse` in pieces of any size.
#[derive(Debug)]
pub(crate) struct ExecOutput {
    most: usize,
    state: State,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    exit_code: i32,
}

impl ExecOutput {
    /// Keeps the first `most` bytes of each output.
    pub(crate) fn keeping(most: usize) -> ExecOutput {
        let state = State::Key(Number::default());
        ExecOutput { most, state, stdout: Vec::new(), stderr: Vec::new(), exit_code: 0 }
    }

    /// Reads the next bytes of the message.
    pub(crate) fn feed(&mut self, mut bytes: &[u8]) -> Result<(), Malformed> {
        while let Some((byte, rest)) = bytes.split_first() {
            if let State::Bytes(field, left) = self.state {
                let length = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
                let (now, rest) = bytes.split_at(length);
                self.keep(field, now);
                self.state = after(field, left - length as u64);
                bytes = rest;
                continue;
            }
            self.state = self.next(*byte)?;
            bytes = rest;
        }
        Ok(())
    }

    fn next(&mut self, byte: u8) -> Result<State, Malformed> {
        Ok(match self.state {
            State::Key(mut number) => match number.take(byte)? {
                None => State::Key(number),
                Some(key) => self.begin(key)?,
            },
            State::Value(field, mut number) => match number.take(byte)? {
                None => State::Value(field, number),
                Some(value) => {
                    if field == Field::ExitCode {
                        // Negative numbers are written with 64 bits.
                        self.exit_code = value as i32;
                    }
                    State::Key(Number::default())
                }
            },
            State::Length(field, mut number) => match number.take(byte)? {
                None => State::Length(field, number),
                Some(length) => after(field, length),
            },
            // Bytes are taken many at a time.
            bytes @ State::Bytes(..) => bytes,
        })
    }

    fn begin(&mut self, key: u64) -> Result<State, Malformed> {
        let field = match key >> 3 {
            1 => Field::Stdout,
            2 => Field::Stderr,
            3 => Field::ExitCode,
            _ => Field::Other,
        };
        match (key & 7, field) {
            (0, Field::ExitCode | Field::Other) => Ok(State::Value(field, Number::default())),
            (2, Field::Stdout | Field::Stderr | Field::Other) => {
                // Of a field that comes twice the last counts.
                self.output(field).clear();
                Ok(State::Length(field, Number::default()))
            }
            (1, Field::Other) => Ok(State::Bytes(field, 8)),
            (5, Field::Other) => Ok(State::Bytes(field, 4)),
            _ => Err(Malformed),
        }
    }

    fn output(&mut self, field: Field) -> &mut Vec<u8> {
        if field == Field::Stderr { &mut self.stderr } else { &mut self.stdout }
    }

    fn keep(&mut self, field: Field, bytes: &[u8]) {
        if matches!(field, Field::Stdout | Field::Stderr) {
            let most = self.most;
            let output = self.output(field);
            output.extend_from_slice(&bytes[..bytes.len().min(most.saturating_sub(output.len()))]);
        }
    }

    /// The message is whole: it again, with what was kept.
    pub(crate) fn shortened(&mut self) -> Result<Vec<u8>, Malformed> {
        match self.state {
            State::Key(Number { read: 0, .. }) => {}
            State::Key(_) | State::Value(..) | State::Length(..) | State::Bytes(..) => return Err(Malformed),
        }
        let (stdout, stderr) = (std::mem::take(&mut self.stdout), std::mem::take(&mut self.stderr));
        Ok(ExecSyncResponse { stdout, stderr, exit_code: self.exit_code }.encode_to_vec())
    }
}

/// In bytes, or behind them.
fn after(field: Field, left: u64) -> State {
    if left == 0 { State::Key(Number::default()) } else { State::Bytes(field, left) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8], most: usize, piece: usize) -> Result<ExecSyncResponse, Malformed> {
        let mut output = ExecOutput::keeping(most);
        for piece in bytes.chunks(piece) {
            output.feed(piece)?;
        }
        Ok(ExecSyncResponse::decode(output.shortened()?.as_slice()).unwrap())
    }

    #[test]
    fn of_each_output_the_beginning_is_kept_however_it_comes() {
        for exit_code in [0, 3, -1, i32::MIN, i32::MAX] {
            let whole = ExecSyncResponse { stdout: vec![b'o'; 1000], stderr: vec![b'e'; 300], exit_code };
            let bytes = whole.encode_to_vec();
            for piece in [1, 2, 7, 4096] {
                assert_eq!(read(&bytes, 1000, piece).unwrap(), whole);
                let short = read(&bytes, 10, piece).unwrap();
                assert_eq!((short.stdout.len(), short.stderr.len()), (10, 10));
                assert_eq!(short.exit_code, exit_code, "it comes behind the outputs");
            }
        }
        assert_eq!(read(&[], 10, 1).unwrap(), ExecSyncResponse::default());
    }

    #[test]
    fn fields_of_later_releases_are_passed_over() {
        let known = ExecSyncResponse { stdout: b"a".to_vec(), exit_code: 7, ..ExecSyncResponse::default() };
        // Field 9 as a number, as 8 and as 4 bytes, and as a text; and the first output again.
        let more =
            [&[0x48, 0xff, 1][..], &[0x49; 9], &[0x4d; 5], &[0x4a, 2, b'x', b'y'], &[0x0a, 1, b'b']].concat();
        let read = read(&[known.encode_to_vec(), more].concat(), 10, 3).unwrap();
        assert_eq!((read.stdout.as_slice(), read.exit_code), (&b"b"[..], 7));
    }

    #[test]
    fn what_is_no_message_is_refused() {
        let cut = [&[0x0a, 5, b'a'][..], &[0x0a], &[0x18], &[0x18, 0x80]];
        let odd = [
            &[0x0b][..],
            &[0x08, 1],
            &[0x1a, 0],
            &[0xff; 11],
            &[0x18, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1],
        ];
        for bytes in cut.into_iter().chain(odd) {
            assert_eq!(read(bytes, 10, 1), Err(Malformed), "{bytes:?}");
        }
        // A length beyond all bounds holds nothing.
        let mut output = ExecOutput::keeping(10);
        output.feed(&[0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]).unwrap();
        output.feed(&[0; 4096]).unwrap();
        assert_eq!((output.stdout.len(), output.shortened()), (10, Err(Malformed)));
    }
}
