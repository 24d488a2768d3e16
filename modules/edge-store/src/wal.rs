//! Looks through the write-ahead log before SQLite does.
//!
//! SQLite takes the log up to the first frame that does not hold and drops the rest without a word, which is right
//! after a power cut and hides lost commits after damage. The two differ: a power cut can only tear the last commit,
//! because each one is synced before the next begins. <https://www.sqlite.org/fileformat2.html#the_write_ahead_log>

use std::fs::File;
use std::io::{BufReader, ErrorKind, Read};
use std::path::Path;

use crate::btree::PAGE;

const HEADER: usize = 32;
const FRAME_HEADER: usize = 24;
const MAGIC: u32 = 0x377f_0682;

/// What the log is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wal {
    /// Every commit in it can be read.
    Whole,
    /// The last commit is torn, as by a power cut before it was answered.
    Torn,
    /// Commits that were answered cannot be read; so many are seen behind the damage, which may have swallowed others.
    Lost(u64),
}

/// A log that was looked through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Examined {
    pub(crate) wal: Wal,
    /// Which round of the log its frames are of.
    pub(crate) salts: [u8; 8],
    /// How many frames from the first on hold.
    pub(crate) frames: u32,
}

impl From<Wal> for Examined {
    /// A log without a frame that can be read.
    fn from(wal: Wal) -> Self {
        Examined { wal, salts: [0; 8], frames: 0 }
    }
}

/// Reads the log at `path`; none at all is whole.
pub(crate) fn examine(path: &Path) -> std::io::Result<Examined> {
    match File::open(path) {
        Ok(file) => walk(BufReader::with_capacity(1 << 16, file)),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(Wal::Whole.into()),
        Err(e) => Err(e),
    }
}

fn walk(mut log: impl Read) -> std::io::Result<Examined> {
    let mut header = [0; HEADER];
    if fill(&mut log, &mut header)? < HEADER {
        return Ok(Wal::Whole.into());
    }
    let magic = word(&header, 0);
    let page = word(&header, 8) as usize;
    let mut sums = WalChecksum { big_endian: magic & 1 == 1, at: (0, 0) };
    sums.add(&header[..24]);
    let sized = page.is_power_of_two() && (512..=65536).contains(&page);
    if magic & !1 != MAGIC || !sized || sums.at != (word(&header, 24), word(&header, 28)) {
        return unheaded(log, &header).map(Examined::from);
    }
    let mut salts = [0; 8];
    salts.copy_from_slice(&header[16..24]);
    let mut frame = vec![0; FRAME_HEADER + page];
    let mut frames = 0;
    let filled = loop {
        let filled = fill(&mut log, &mut frame)?;
        if filled < frame.len() {
            break filled;
        }
        sums.add(&frame[..8]);
        sums.add(&frame[FRAME_HEADER..]);
        let is_sound = frame[8..16] == salts && word(&frame, 0) != 0;
        if !is_sound || sums.at != (word(&frame, 16), word(&frame, 20)) {
            break filled;
        }
        frames += 1;
    };
    let behind = Behind::look(frame[..filled].chain(log), &salts, frame.len())?;
    let wal = match behind {
        Behind { commits: 0, .. } => Wal::Whole,
        // A power cut leaves the frames where they are: bytes were taken out, or put in.
        Behind { commits, is_shifted: true } => Wal::Lost(commits),
        // A frame that was not written to its end.
        _ if filled < frame.len() => Wal::Whole,
        Behind { commits: 1, .. } => Wal::Torn,
        Behind { commits, .. } => Wal::Lost(commits),
    };
    Ok(Examined { wal, salts, frames })
}

/// What of this round of the log lies behind the first frame that does not hold.
struct Behind {
    /// Frames that end a commit.
    commits: u64,
    /// Some of them are not where a frame begins.
    is_shifted: bool,
}

impl Behind {
    /// Looks at every place, since bytes may be missing. Frames of an earlier round have other salts.
    fn look(mut log: impl Read, salts: &[u8; 8], frame: usize) -> std::io::Result<Behind> {
        const CHUNK: usize = 1 << 16;
        let mut behind = Behind { commits: 0, is_shifted: false };
        let (mut bytes, mut kept, mut passed) = (vec![0; CHUNK + 16], 0, 0);
        loop {
            let end = kept + fill(&mut log, &mut bytes[kept..kept + CHUNK])?;
            // A frame begins with its page, the size that it gives the file if it ends a commit, and the salts.
            for at in 0..end.saturating_sub(15) {
                if bytes[at + 8..at + 16] == *salts && word(&bytes, at) != 0 && word(&bytes, at + 4) != 0 {
                    behind.commits += 1;
                    behind.is_shifted |= (passed + at) % frame != 0;
                }
            }
            if end < kept + CHUNK {
                return Ok(behind);
            }
            let next = end - 15;
            bytes.copy_within(next..end, 0);
            (kept, passed) = (15, passed + next);
        }
    }
}

/// How far the log was written, as its index says. SQLite writes that after the log is on the disk, so a log that is shorter
/// has lost commits that were answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct WalIndex {
    /// Which round of the log it is of.
    pub(crate) salts: [u8; 8],
    /// Frames up to the last commit.
    pub(crate) frames: u32,
}

impl WalIndex {
    /// Reads the index at `path`; `None`: there is none that holds. It is only ever in memory that a kill leaves as it is, so
    /// after a power cut it is older, or nothing. <https://www.sqlite.org/walformat.html#the_wal_index_header>
    pub(crate) fn read(path: &Path) -> std::io::Result<Option<WalIndex>> {
        let mut bytes = [0; 96];
        match File::open(path) {
            Ok(file) => {
                let is_filled = fill(file, &mut bytes)? == bytes.len();
                Ok(is_filled.then(|| Self::parse(&bytes)).flatten())
            }
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    fn parse(bytes: &[u8; 96]) -> Option<WalIndex> {
        const VERSION: u32 = 3_007_000;
        let native = |at: usize| {
            let mut word = [0; 4];
            word.copy_from_slice(&bytes[at..at + 4]);
            u32::from_ne_bytes(word)
        };
        let mut sums = WalChecksum { big_endian: cfg!(target_endian = "big"), at: (0, 0) };
        sums.add(&bytes[..40]);
        let is_sound = native(0) == VERSION
            && bytes[12] == 1
            && bytes[..48] == bytes[48..96]
            && sums.at == (native(40), native(44));
        let mut salts = [0; 8];
        salts.copy_from_slice(&bytes[32..40]);
        is_sound.then(|| WalIndex { salts, frames: native(16) })
    }
}

/// A log without a header. It is synced before the first frame, so frames behind a bad one were answered.
fn unheaded(mut log: impl Read, header: &[u8]) -> std::io::Result<Wal> {
    let mut frame = [0; FRAME_HEADER];
    let any = fill(&mut log, &mut frame)? == frame.len();
    // A file that grew and was never filled is all zero.
    let blank = frame.iter().chain(header).all(|byte| *byte == 0);
    Ok(if any && !blank { Wal::Lost(1) } else { Wal::Whole })
}

/// Hands every page of the log's commits to `put`, oldest first, up to the first frame that does not hold, as SQLite takes
/// them; says how many pages the file has after the last of them. `None`: there is no commit, or the pages are no store's.
///
/// # Errors
/// When the log cannot be read, or `put` fails.
pub(crate) fn replay(
    path: &Path,
    mut put: impl FnMut(u32, &[u8]) -> std::io::Result<()>,
) -> std::io::Result<Option<u32>> {
    let open = || match File::open(path) {
        Ok(file) => Ok(Some(BufReader::with_capacity(1 << 16, file))),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    };
    // Twice: which frames belong to a commit is only known behind them.
    let (mut frames, mut committed) = (0_u64, None);
    let Some(log) = open()? else { return Ok(None) };
    sound_frames(log, |frame| {
        frames += 1;
        if word(frame, 4) != 0 {
            committed = Some((frames, word(frame, 4)));
        }
        Ok(())
    })?;
    let (Some((last, pages)), Some(log)) = (committed, open()?) else { return Ok(None) };
    let mut frames = 0_u64;
    sound_frames(log, |frame| {
        frames += 1;
        if frames > last { Ok(()) } else { put(word(frame, 0), &frame[FRAME_HEADER..]) }
    })?;
    Ok(Some(pages))
}

fn sound_frames(
    mut log: impl Read,
    mut each: impl FnMut(&[u8]) -> std::io::Result<()>,
) -> std::io::Result<()> {
    let mut header = [0; HEADER];
    if fill(&mut log, &mut header)? < HEADER {
        return Ok(());
    }
    let magic = word(&header, 0);
    let mut sums = WalChecksum { big_endian: magic & 1 == 1, at: (0, 0) };
    sums.add(&header[..24]);
    let is_ours = magic & !1 == MAGIC && word(&header, 8) as usize == PAGE;
    if !is_ours || sums.at != (word(&header, 24), word(&header, 28)) {
        return Ok(());
    }
    let mut frame = vec![0; FRAME_HEADER + PAGE];
    while fill(&mut log, &mut frame)? == frame.len() {
        sums.add(&frame[..8]);
        sums.add(&frame[FRAME_HEADER..]);
        let is_sound = frame[8..16] == header[16..24] && word(&frame, 0) != 0;
        if !is_sound || sums.at != (word(&frame, 16), word(&frame, 20)) {
            break;
        }
        each(&frame)?;
    }
    Ok(())
}

/// SQLite's own sum over words.
struct WalChecksum {
    big_endian: bool,
    at: (u32, u32),
}

impl WalChecksum {
    fn add(&mut self, bytes: &[u8]) {
        let read = if self.big_endian { u32::from_be_bytes } else { u32::from_le_bytes };
        let (pairs, _) = bytes.as_chunks::<8>();
        for &[a, b, c, d, e, f, g, h] in pairs {
            self.at.0 = self.at.0.wrapping_add(read([a, b, c, d])).wrapping_add(self.at.1);
            self.at.1 = self.at.1.wrapping_add(read([e, f, g, h])).wrapping_add(self.at.0);
        }
    }
}

fn word(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_be_bytes(word)
}

/// Fills `into` as far as there is something, and says how far.
fn fill(mut from: impl Read, into: &mut [u8]) -> std::io::Result<usize> {
    let mut filled = 0;
    while filled < into.len() {
        match from.read(&mut into[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A log as SQLite writes it, with `commits` transactions in it, and where each of its frames begins.
    fn log(commits: u32) -> (Vec<u8>, Vec<usize>) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("db");
        let conn = rusqlite::Connection::open(&path).unwrap();
        conn.execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE t (x)").unwrap();
        for n in 1..commits {
            conn.execute("INSERT INTO t VALUES (?1)", [n]).unwrap();
        }
        let bytes = std::fs::read(dir.path().join("db-wal")).unwrap();
        let frames = (HEADER..bytes.len()).step_by(FRAME_HEADER + 4096).collect();
        (bytes, frames)
    }

    #[test]
    fn a_log_as_sqlite_leaves_it_is_whole_wherever_a_kill_cuts_it() {
        let (bytes, _) = log(6);
        assert_eq!(walk(bytes.as_slice()).unwrap().wal, Wal::Whole);
        for end in (0..bytes.len()).step_by(97) {
            assert_eq!(walk(&bytes[..end]).unwrap().wal, Wal::Whole, "{end}");
        }
        // A second round over the frames of the first.
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("db");
        let conn = rusqlite::Connection::open(&path).unwrap();
        conn.execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE t (x)").unwrap();
        for n in 0..30 {
            conn.execute("INSERT INTO t VALUES (?1)", [n]).unwrap();
        }
        conn.query_row("PRAGMA wal_checkpoint(RESTART)", [], |_| Ok(())).unwrap();
        conn.execute("INSERT INTO t VALUES (1)", []).unwrap();
        assert_eq!(examine(&dir.path().join("db-wal")).unwrap().wal, Wal::Whole);
    }

    #[test]
    fn lost_commits_are_told_from_a_torn_one() {
        let (bytes, frames) = log(6);
        let flipped = |at: usize| {
            let mut bytes = bytes.clone();
            bytes[at] ^= 0x10;
            walk(bytes.as_slice()).unwrap().wal
        };
        assert_eq!(flipped(frames[0] + 100), Wal::Lost(6));
        assert_eq!(flipped(frames[frames.len() - 2] + 100), Wal::Lost(2));
        assert_eq!(flipped(frames[frames.len() - 1] + 100), Wal::Torn);
        for at in 0..HEADER {
            assert_eq!(flipped(at), Wal::Lost(1), "{at}");
        }
        assert_eq!(walk([0; 9000].as_slice()).unwrap().wal, Wal::Whole);
        assert_eq!(walk([7; 9000].as_slice()).unwrap().wal, Wal::Lost(1));
        assert_eq!(examine(Path::new("/nonexistent/db-wal")).unwrap().wal, Wal::Whole);
    }

    #[test]
    fn bytes_that_are_missing_in_the_middle_are_seen_wherever_they_were() {
        let (bytes, frames) = log(6);
        let last = frames[frames.len() - 1];
        // Up to the last commit's frame: behind a cut that reaches into it nothing of this log is left to be seen.
        for from in (HEADER..last).step_by(211) {
            for length in [1, 100, 5000] {
                let to = (from + length).min(last);
                let cut = [&bytes[..from], &bytes[to..]].concat();
                let Wal::Lost(commits) = walk(cut.as_slice()).unwrap().wal else {
                    panic!("{from}, {length}")
                };
                let behind = frames.iter().filter(|frame| **frame >= to).count() as u64;
                assert!((1..=behind + 1).contains(&commits), "{from}, {length}: {commits} of {behind}");
            }
        }
    }

    #[test]
    fn the_index_says_how_far_the_log_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("db");
        let conn = rusqlite::Connection::open(&path).unwrap();
        conn.execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE t (x)").unwrap();
        let seen = || {
            let index = WalIndex::read(&dir.path().join("db-shm")).unwrap().unwrap();
            let log = examine(&dir.path().join("db-wal")).unwrap();
            assert!(index.salts != log.salts || index.frames == log.frames, "{index:?} {log:?}");
            index.frames
        };
        let before = seen();
        assert!(before > 0);
        conn.execute("INSERT INTO t VALUES (1)", []).unwrap();
        assert_eq!(seen(), before + 1);
        for how in ["PASSIVE", "RESTART", "TRUNCATE"] {
            conn.query_row(&format!("PRAGMA wal_checkpoint({how})"), [], |_| Ok(())).unwrap();
            seen();
        }
        conn.execute("INSERT INTO t VALUES (2)", []).unwrap();
        assert_eq!(seen(), 1);
        for garbage in [vec![], vec![0; 32_768], vec![0xa5; 32_768]] {
            let other = dir.path().join("other");
            std::fs::write(&other, garbage).unwrap();
            assert_eq!(WalIndex::read(&other).unwrap(), None);
        }
    }
}
