//! What of a program has run, and when, by the log of an emulator that writes a line for each block of code that it runs.

use std::fmt;

use super::link_map::LinkMap;

/// Into so many parts the time is divided.
pub(crate) const PARTS: u32 = u32::BITS;
/// A line of the log has a function's name at its end.
const LINE_MAX: usize = 16_384;

/// The log of `qemu-x86_64 -d exec,nochain`: `Trace 0: HOST [CODE-SEGMENT/ADDRESS/FLAGS/FLAGS] SYMBOL`.
pub(crate) struct Trace {
    entry: u64,
    /// What is added to addresses of the program's file: known with the first line, which is of its entry.
    moved_by: Option<u64>,
    /// For each byte of code: a bit for each part of the time in which a block began there.
    ran: Vec<u32>,
    /// A line that has not come to its end.
    rest: String,
    /// Blocks that have run.
    pub(crate) blocks: u64,
}

/// A log that is none of this emulator's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NoTrace;

impl fmt::Display for NoTrace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the emulator's log has a line of more than 16 KiB: is it one of qemu's?")
    }
}

impl Trace {
    /// Of a program that was linked so.
    pub(crate) fn of(map: &LinkMap) -> Trace {
        let length = usize::try_from(map.end()).unwrap_or_default();
        Trace { entry: map.entry, moved_by: None, ran: vec![0; length], rest: String::new(), blocks: 0 }
    }

    /// Takes more of the log, which was written in this part of the time, one of [`PARTS`]. Lines that tell of something else are
    /// passed over.
    pub(crate) fn read(&mut self, bytes: &[u8], part: u32) -> Result<(), NoTrace> {
        // A million lines a second: the standard library's search in text is fast in every profile.
        let text = String::from_utf8_lossy(bytes);
        let Some((rest, _)) = text.rsplit_once('\n') else { return self.keep(&text) };
        let mut lines = rest;
        if !self.rest.is_empty() {
            let (end, others) = rest.split_once('\n').unwrap_or((rest, ""));
            lines = others;
            self.keep(end)?;
            let line = std::mem::take(&mut self.rest);
            self.line(&line, part);
        }
        while !lines.is_empty() {
            let (line, others) = lines.split_once('\n').unwrap_or((lines, ""));
            self.line(line, part);
            lines = others;
        }
        self.keep(&text[rest.len() + 1..])
    }

    fn keep(&mut self, text: &str) -> Result<(), NoTrace> {
        if self.rest.len() + text.len() > LINE_MAX {
            return Err(NoTrace);
        }
        self.rest.push_str(text);
        Ok(())
    }

    fn line(&mut self, line: &str, part: u32) {
        let Some(address) = address(line) else { return };
        self.blocks += 1;
        let moved_by = *self.moved_by.get_or_insert(address.wrapping_sub(self.entry));
        let at = usize::try_from(address.wrapping_sub(moved_by)).unwrap_or(usize::MAX);
        if let Some(ran) = self.ran.get_mut(at) {
            *ran |= 1 << part.min(PARTS - 1);
        }
    }

    /// In which parts anything of these bytes ran, a bit for each.
    pub(crate) fn ran(&self, start: u64, size: u64) -> u32 {
        let end = start.checked_add(size).and_then(|end| usize::try_from(end).ok());
        let bytes = usize::try_from(start).ok().zip(end).and_then(|(start, end)| self.ran.get(start..end));
        bytes.unwrap_or_default().iter().fold(0, |parts, ran| parts | ran)
    }
}

fn address(line: &str) -> Option<u64> {
    let (_, rest) = line.strip_prefix("Trace ")?.split_once('/')?;
    let (digits, _) = rest.split_once('/')?;
    u64::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trace() -> Trace {
        let map = "1000 1000 2000 1 .text\n1000 1000 10 1         a.o:(.text)\n1000 1000 10 1                 _start\n\
                   1010 1010 20 1         a.o:(.text.f)\n";
        Trace::of(&LinkMap::read(map).unwrap())
    }

    fn block(address: u64) -> String {
        format!("Trace 0: 0x7f5c14000100 [0000000000000000/{address:016x}/1040c0b3/00000200] name\n")
    }

    #[test]
    fn when_each_section_ran_is_kept_wherever_the_log_is_cut() {
        let base = 0x40_0000_0000;
        let log =
            [block(base + 0x1000), "Linking TBs\n".to_owned(), block(base + 0x1018), block(0x7777)].concat();
        for cut in 0..log.len() {
            let mut trace = trace();
            trace.read(&log.as_bytes()[..cut], 2).unwrap();
            trace.read(&log.as_bytes()[cut..], 2).unwrap();
            assert_eq!((trace.ran(0x1000, 0x10), trace.ran(0x1010, 0x20), trace.blocks), (0b100, 0b100, 3));
            trace.read(block(base + 0x102f).as_bytes(), 3).unwrap();
            trace.read(block(base + 0x1018).as_bytes(), 0).unwrap();
            assert_eq!((trace.ran(0x1000, 0x10), trace.ran(0x1010, 0x20)), (0b100, 0b1101));
            assert_eq!((trace.ran(0x1010, 8), trace.ran(0x1010, u64::MAX), trace.ran(0x1030, 1)), (0, 0, 0));
            trace.read(block(base + 0x1000).as_bytes(), 99).unwrap();
            assert_eq!(trace.ran(0x1000, 0x10), 1 << 31 | 0b100);
        }
    }

    #[test]
    fn a_log_of_something_else_is_not_kept_in_memory() {
        let mut trace = trace();
        trace.read(&[b'x'; LINE_MAX], 0).unwrap();
        assert_eq!(trace.read(b"y", 0), Err(NoTrace));
        for line in
            ["Trace 0: 0x1 [0/zz/", "Trace 0: 0x1 [0/11112222333344445/x", "Trace 0: 0x1 [0//", "Trace"]
        {
            assert_eq!(address(line), None, "{line}");
        }
    }
}
