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
    /// Commits that were answered cannot be read.
    Lost,
}

/// Reads the log at `path`; none at all is whole.
pub(crate) fn examine(path: &Path) -> std::io::Result<Wal> {
    match File::open(path) {
        Ok(file) => walk(BufReader::with_capacity(1 << 16, file)),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(Wal::Whole),
        Err(e) => Err(e),
    }
}

fn walk(mut log: impl Read) -> std::io::Result<Wal> {
    let mut header = [0; HEADER];
    if !fill(&mut log, &mut header)? {
        return Ok(Wal::Whole);
    }
    let magic = word(&header, 0);
    let page = word(&header, 8) as usize;
    let mut sums = WalChecksum { big_endian: magic & 1 == 1, at: (0, 0) };
    sums.add(&header[..24]);
    let sized = page.is_power_of_two() && (512..=65536).contains(&page);
    if magic & !1 != MAGIC || !sized || sums.at != (word(&header, 24), word(&header, 28)) {
        return unheaded(log, &header);
    }
    let salts = &header[16..24];
    let mut frame = vec![0; FRAME_HEADER + page];
    let (mut sound, mut behind) = (true, 0);
    while fill(&mut log, &mut frame)? {
        let ours = frame[8..16] == *salts;
        let commits = word(&frame, 4) != 0;
        if sound {
            sums.add(&frame[..8]);
            sums.add(&frame[FRAME_HEADER..]);
            sound = ours && word(&frame, 0) != 0 && sums.at == (word(&frame, 16), word(&frame, 20));
        }
        // Frames of an earlier round of the log have other salts.
        if !sound && ours && commits {
            behind += 1;
        }
    }
    Ok(match behind {
        0 => Wal::Whole,
        1 => Wal::Torn,
        _ => Wal::Lost,
    })
}

/// A log without a header. It is synced before the first frame, so frames behind a bad one were answered.
fn unheaded(mut log: impl Read, header: &[u8]) -> std::io::Result<Wal> {
    let mut frame = [0; FRAME_HEADER];
    let any = fill(&mut log, &mut frame)?;
    // A file that grew and was never filled is all zero.
    let blank = frame.iter().chain(header).all(|byte| *byte == 0);
    Ok(if any && !blank { Wal::Lost } else { Wal::Whole })
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
    if !fill(&mut log, &mut header)? {
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
    while fill(&mut log, &mut frame)? {
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

/// Whether there was enough to fill `into`.
fn fill(from: &mut impl Read, into: &mut [u8]) -> std::io::Result<bool> {
    match from.read_exact(into) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == ErrorKind::UnexpectedEof => Ok(false),
        Err(e) => Err(e),
    }
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
        assert_eq!(walk(bytes.as_slice()).unwrap(), Wal::Whole);
        for end in (0..bytes.len()).step_by(97) {
            assert_eq!(walk(&bytes[..end]).unwrap(), Wal::Whole, "{end}");
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
        assert_eq!(examine(&dir.path().join("db-wal")).unwrap(), Wal::Whole);
    }

    #[test]
    fn lost_commits_are_told_from_a_torn_one() {
        let (bytes, frames) = log(6);
        let flipped = |at: usize| {
            let mut bytes = bytes.clone();
            bytes[at] ^= 0x10;
            walk(bytes.as_slice()).unwrap()
        };
        assert_eq!(flipped(frames[0] + 100), Wal::Lost);
        assert_eq!(flipped(frames[frames.len() - 1] + 100), Wal::Torn);
        for at in 0..HEADER {
            assert_eq!(flipped(at), Wal::Lost, "{at}");
        }
        assert_eq!(walk([0; 9000].as_slice()).unwrap(), Wal::Whole);
        assert_eq!(walk([7; 9000].as_slice()).unwrap(), Wal::Lost);
        assert_eq!(examine(Path::new("/nonexistent/db-wal")).unwrap(), Wal::Whole);
    }
}
