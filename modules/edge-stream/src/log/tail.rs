//! Where the last lines of a log file begin.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

/// 64 KiB at a time.
const BLOCK: u64 = 64 << 10;

/// A search from the end of a file towards its beginning, in steps.
#[derive(Debug)]
pub(crate) struct TailSearch {
    /// Line ends that are still to be found.
    wanted: u64,
    /// All from here on was looked at.
    looked_from: u64,
}

/// What a step came to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// The last lines begin here.
    Found(u64),
    Further,
}

impl TailSearch {
    /// For the last `lines` of a file that has `length` bytes. A line without an end does not count, and comes with them.
    pub(crate) fn new(length: u64, lines: u64) -> TailSearch {
        TailSearch { wanted: lines.saturating_add(1), looked_from: length }
    }

    /// Looks at the block before. Blocks.
    pub(crate) fn step(&mut self, file: &File) -> io::Result<Step> {
        let from = self.looked_from.saturating_sub(BLOCK);
        let mut block = vec![0; usize::try_from(self.looked_from - from).unwrap_or_default()];
        // A file that has become shorter meanwhile begins anew.
        match file.read_exact_at(&mut block, from) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(Step::Found(0)),
            read => read?,
        }
        let ends = block.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n');
        for (at, _) in ends {
            self.wanted -= 1;
            if self.wanted == 0 {
                return Ok(Step::Found(from + at as u64 + 1));
            }
        }
        self.looked_from = from;
        Ok(if from == 0 { Step::Found(0) } else { Step::Further })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    fn tail(text: &[u8], lines: u64) -> u64 {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(text).unwrap();
        let mut search = TailSearch::new(text.len() as u64, lines);
        loop {
            if let Step::Found(at) = search.step(&file).unwrap() {
                return at;
            }
        }
    }

    #[test]
    fn the_last_lines_begin_after_the_end_of_the_one_before() {
        assert_eq!(tail(b"a\nbb\nccc\n", 0), 9);
        assert_eq!(tail(b"a\nbb\nccc\n", 1), 5);
        assert_eq!(tail(b"a\nbb\nccc\n", 2), 2);
        assert_eq!(tail(b"a\nbb\nccc\n", 3), 0);
        assert_eq!(tail(b"a\nbb\nccc\n", u64::MAX), 0);
        assert_eq!(tail(b"a\nbb\nhalf", 1), 2, "one without an end does not count");
        assert_eq!(tail(b"", 5), 0);
        assert_eq!(tail(b"\n\n\n", 2), 1);
    }

    #[test]
    fn lines_longer_than_a_block_are_found() {
        let line = [vec![b'x'; 3 * BLOCK as usize], vec![b'\n']].concat();
        let text = [b"first\n".to_vec(), line.clone(), line.clone()].concat();
        assert_eq!(tail(&text, 1), (6 + line.len()) as u64);
        assert_eq!(tail(&text, 2), 6);
    }
}
