//! A daemon's log, read while it is written.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::PathBuf;

use anyhow::{Context, Result};

/// What EdgeCore says when a link is up, and when it is gone.
pub(crate) const NODE_LINKED: &str = "linked to the cloud";
/// See [`NODE_LINKED`].
pub(crate) const NODE_UNLINKED: &str = "link to the cloud ended";
/// What CloudCore says when a node's link is gone.
pub(crate) const CLOUD_UNLINKED: &str = "node's link ended";

/// Reads whole lines from where it stands. The log goes on in the same file when its daemon is started again.
pub(crate) struct Log {
    path: PathBuf,
    at: u64,
}

impl Log {
    /// From its beginning on.
    pub(crate) fn whole(path: PathBuf) -> Log {
        Log { path, at: 0 }
    }

    /// What is written from now on.
    pub(crate) fn from_now(path: PathBuf) -> Result<Log> {
        let at = std::fs::metadata(&path).with_context(|| format!("read {}", path.display()))?.len();
        Ok(Log { path, at })
    }

    /// The lines that have come since the last look. A line that is not whole yet is for the next one.
    pub(crate) fn lines(&mut self) -> Result<Vec<String>> {
        let what = || format!("read {}", self.path.display());
        let mut file = File::open(&self.path).with_context(what)?;
        file.seek(SeekFrom::Start(self.at)).with_context(what)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).with_context(what)?;
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        self.at += whole as u64;
        let text = String::from_utf8_lossy(&bytes[..whole]);
        Ok(text.lines().map(str::to_owned).collect())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn a_line_is_told_once_and_when_it_is_whole() {
        let path = std::env::temp_dir().join(format!("soak-log-{}", std::process::id()));
        let mut file = File::create(&path).unwrap();
        write!(file, "one\ntwo\nthr").unwrap();
        let mut log = Log::whole(path.clone());
        assert_eq!(log.lines().unwrap(), ["one", "two"]);
        assert!(log.lines().unwrap().is_empty());
        let mut late = Log::from_now(path.clone()).unwrap();
        writeln!(file, "ee").unwrap();
        assert_eq!(log.lines().unwrap(), ["three"]);
        assert_eq!(late.lines().unwrap(), ["ee"]);
        std::fs::remove_file(path).unwrap();
    }
}
