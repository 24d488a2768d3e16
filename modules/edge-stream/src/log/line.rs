//! The lines of a log file as CRI writes them, `TIME STREAM TAGS TEXT`, made into what `kubectl logs` prints.
//!
//! What a container says has any length, so no line is ever held: only its beginning, up to the text, is. The text passes
//! through as it comes.

use jiff::Timestamp;
use thiserror::Error;

use crate::log::options::{LogOptions, Stream};

/// 256 bytes before the text of a line: a time has 35, a stream 6, and tags a few.
const HEAD_MAX: usize = 256;
/// 256 bytes of a line that is none are shown.
const SHOWN_MAX: usize = 256;

/// The file is no log of CRI's.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("failed to get parse function: unsupported log format: {0:?}")]
pub(crate) struct UnsupportedFormat(String);

/// Whether more is to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fed {
    More,
    /// All that was asked for has come.
    Done,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before the text.
    Head,
    /// Within the text of a line.
    Text { shown: bool, partial: bool, empty: bool },
    /// Within a line that is none.
    Skipped,
}

/// Makes output of a log file's bytes, in pieces of any size.
#[derive(Debug)]
pub(crate) struct Lines {
    stream: Stream,
    timestamps: bool,
    since: Option<Timestamp>,
    /// Bytes of output that are left.
    bytes: u64,
    /// Lines that are left; `None`: all.
    lines: Option<u64>,
    head: Vec<u8>,
    state: State,
    /// What comes next begins a line of the container's, and continues none.
    is_new_line: bool,
    /// A line of CRI's was read, so that one that is none is passed over.
    is_known: bool,
}

impl Lines {
    pub(crate) fn new(options: &LogOptions, now: Timestamp) -> Lines {
        Lines {
            stream: options.stream,
            timestamps: options.timestamps,
            since: options.since_at(now),
            bytes: options.limit.unwrap_or(u64::MAX),
            // Who follows gets what comes after them, too.
            lines: options.tail.filter(|_| !options.follow),
            head: Vec::new(),
            state: State::Head,
            is_new_line: true,
            is_known: false,
        }
    }

    /// Whether nothing is to be read at all.
    pub(crate) fn is_done(&self) -> bool {
        self.lines == Some(0) || self.bytes == 0
    }

    /// Reads the next bytes of the file; what they come to is put at the end of `out`.
    pub(crate) fn feed(&mut self, mut bytes: &[u8], out: &mut Vec<u8>) -> Result<Fed, UnsupportedFormat> {
        while !bytes.is_empty() {
            if self.is_done() {
                return Ok(Fed::Done);
            }
            bytes = match self.state {
                State::Head => self.head(bytes, out)?,
                State::Text { .. } => self.text(bytes, out),
                State::Skipped => match bytes.iter().position(|byte| *byte == b'\n') {
                    Some(end) => {
                        self.state = State::Head;
                        &bytes[end + 1..]
                    }
                    None => &[],
                },
            };
        }
        Ok(if self.is_done() { Fed::Done } else { Fed::More })
    }

    /// The file has ended; what comes next is of another one.
    pub(crate) fn end_of_file(&mut self) -> Result<(), UnsupportedFormat> {
        if !self.head.is_empty() {
            self.no_line()?;
        }
        if let State::Text { .. } = self.state {
            self.line_ended();
        }
        self.state = State::Head;
        Ok(())
    }

    /// Within a line's beginning: answers what is left of `bytes`.
    fn head<'a>(&mut self, bytes: &'a [u8], out: &mut Vec<u8>) -> Result<&'a [u8], UnsupportedFormat> {
        for (at, byte) in bytes.iter().enumerate() {
            let rest = &bytes[at + 1..];
            match byte {
                b'\n' => {
                    self.no_line()?;
                    self.state = State::Head;
                    return Ok(rest);
                }
                _ if self.head.len() >= HEAD_MAX => {
                    self.no_line()?;
                    self.state = State::Skipped;
                    return Ok(rest);
                }
                b' ' if self.head.iter().filter(|byte| **byte == b' ').count() == 2 => {
                    match self.begin_line(out) {
                        Some(begun) => {
                            self.head.clear();
                            self.state = begun;
                        }
                        None => {
                            self.no_line()?;
                            self.state = State::Skipped;
                        }
                    }
                    return Ok(rest);
                }
                byte => self.head.push(*byte),
            }
        }
        Ok(&[])
    }

    /// The beginning is whole: time, stream and tags.
    fn begin_line(&mut self, out: &mut Vec<u8>) -> Option<State> {
        let head = std::str::from_utf8(&self.head).ok()?;
        let mut words = head.splitn(3, ' ');
        let (time, stream, tags) = (words.next()?, words.next()?, words.next()?);
        let at: Timestamp = time.parse().ok()?;
        let wanted = match stream {
            "stdout" => self.stream != Stream::Stderr,
            "stderr" => self.stream != Stream::Stdout,
            _ => return None,
        };
        let shown = wanted && self.since.is_none_or(|since| at >= since);
        let prefix = (shown && self.timestamps && self.is_new_line).then(|| nine_digits(time));
        let partial = tags.split(':').next() == Some("P");
        self.is_known = true;
        if let Some(prefix) = prefix {
            self.say(format!("{prefix} ").as_bytes(), out);
        }
        Some(State::Text { shown, partial, empty: true })
    }

    fn text<'a>(&mut self, bytes: &'a [u8], out: &mut Vec<u8>) -> &'a [u8] {
        let State::Text { shown, partial, empty } = self.state else { return bytes };
        let end = bytes.iter().position(|byte| *byte == b'\n');
        let text = &bytes[..end.unwrap_or(bytes.len())];
        if shown {
            self.say(text, out);
        }
        let empty = empty && text.is_empty();
        self.state = State::Text { shown, partial, empty };
        let Some(end) = end else { return &[] };
        // A piece is joined with the next one.
        if shown && !partial {
            self.say(b"\n", out);
        }
        self.line_ended();
        &bytes[end + 1..]
    }

    fn line_ended(&mut self) {
        if let State::Text { partial, empty, .. } = self.state {
            self.is_new_line = !partial || empty;
        }
        self.state = State::Head;
        self.lines = self.lines.map(|left| left.saturating_sub(1));
    }

    fn say(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        let length = usize::try_from(self.bytes).unwrap_or(usize::MAX).min(bytes.len());
        out.extend_from_slice(&bytes[..length]);
        self.bytes -= length as u64;
    }

    /// What was read is no line. The first one decides what the file is.
    fn no_line(&mut self) -> Result<(), UnsupportedFormat> {
        let head = std::mem::take(&mut self.head);
        if self.is_known {
            return Ok(());
        }
        let shown = String::from_utf8_lossy(&head[..head.len().min(SHOWN_MAX)]).into_owned();
        Err(UnsupportedFormat(shown))
    }
}

/// The time as a kubelet prints it: nine digits of a second, the zone as in the file.
fn nine_digits(time: &str) -> String {
    let Some(zone) = time.rfind(['Z', '+', '-']).filter(|at| *at > "2006-01-02T".len()) else {
        return time.to_owned();
    };
    let (clock, zone) = time.split_at(zone);
    let (seconds, fraction) = clock.split_once('.').unwrap_or((clock, ""));
    let fraction: String = fraction.chars().take(9).collect();
    format!("{seconds}.{fraction:0<9}{zone}")
}

#[cfg(test)]
#[path = "line_tests.rs"]
mod tests;
