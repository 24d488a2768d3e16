//! Lines for systemd's journal: each says how grave it is, so that `journalctl -p warning` finds it.
//!
//! The journal takes the number in angle brackets off again (`sd-daemon(3)`). On a terminal or in a file it would stand in
//! the way, so it is there only where the standard error is the journal's.

use std::ffi::OsStr;
use std::io::{self, Write};
use std::os::fd::AsFd;

use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

/// Where systemd says which socket is the journal's: its device and inode, with a colon between (`systemd.exec(5)`).
pub(crate) const STREAM: &str = "JOURNAL_STREAM";

/// Whether `output` is the socket of the journal that systemd has named in `stream`. Whoever sends it elsewhere leaves the
/// variable as it was, so both are compared.
pub(crate) fn is_at(output: impl AsFd, stream: Option<&OsStr>) -> bool {
    let named = stream.and_then(OsStr::to_str).and_then(|stream| stream.split_once(':'));
    let number = |text: &str| text.parse::<u64>().ok();
    let named = named.and_then(|(device, inode)| Some((number(device)?, number(inode)?)));
    let found = rustix::fs::fstat(output).ok().map(|found| (found.st_dev, found.st_ino));
    named.is_some() && named == found
}

/// What stands before a line of this level, of the priorities of `syslog(3)`.
fn priority(level: Level) -> &'static str {
    match level {
        Level::ERROR => "<3>",
        Level::WARN => "<4>",
        Level::INFO => "<6>",
        Level::DEBUG | Level::TRACE => "<7>",
    }
}

/// Makes the writers of another maker say how grave each line is, if `is_journal`.
#[derive(Debug, Clone)]
pub(crate) struct Graded<W> {
    pub(crate) writer: W,
    pub(crate) is_journal: bool,
}

impl<'a, W: MakeWriter<'a>> MakeWriter<'a> for Graded<W> {
    type Writer = GradedWriter<W::Writer>;

    fn make_writer(&'a self) -> Self::Writer {
        GradedWriter { writer: self.writer.make_writer(), before: "" }
    }

    fn make_writer_for(&'a self, metadata: &Metadata<'_>) -> Self::Writer {
        let before = if self.is_journal { priority(*metadata.level()) } else { "" };
        GradedWriter { writer: self.writer.make_writer_for(metadata), before }
    }
}

/// Writes an event, whose lines are whole.
pub(crate) struct GradedWriter<W> {
    writer: W,
    before: &'static str,
}

impl<W: Write> Write for GradedWriter<W> {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        if self.before.is_empty() {
            return self.writer.write(event);
        }
        // In one piece, so that no other thread's line comes between.
        let lines = event.split_inclusive(|byte| *byte == b'\n');
        let graded: Vec<u8> = lines.flat_map(|line| [self.before.as_bytes(), line].concat()).collect();
        self.writer.write_all(&graded)?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn the_journal_is_known_by_the_socket_that_systemd_names() {
        let (ours, other) = UnixStream::pair().unwrap();
        let found = rustix::fs::fstat(&ours).unwrap();
        let named = format!("{}:{}", found.st_dev, found.st_ino);
        assert!(is_at(&ours, Some(OsStr::new(&named))));
        assert!(!is_at(&other, Some(OsStr::new(&named))), "somebody has sent it elsewhere");
        assert!(!is_at(tempfile::tempfile().unwrap(), Some(OsStr::new(&named))));
        assert!(!is_at(&ours, None));
        for wrong in ["", ":", "1:", ":1", "0:0", &format!("{named}:1"), &format!("{named} "), "x:y"] {
            assert!(!is_at(&ours, Some(OsStr::new(wrong))), "{wrong}");
        }
    }

    #[test]
    fn each_line_of_an_event_says_how_grave_it_is_and_only_to_the_journal() {
        let write = |is_journal: bool| {
            let (read, write) = io::pipe().unwrap();
            let writer = move || write.try_clone().unwrap();
            let lines = tracing_subscriber::fmt()
                .with_max_level(Level::TRACE)
                .with_ansi(false)
                .without_time()
                .with_writer(Graded { writer, is_journal })
                .finish();
            tracing::subscriber::with_default(lines, || {
                tracing::error!("a");
                tracing::warn!("b\nof two lines");
                tracing::info!("c");
                tracing::debug!("d");
                tracing::trace!("e");
            });
            io::read_to_string(read).unwrap()
        };
        let plain = write(false);
        let graded = write(true);
        let begins: Vec<&str> = graded.lines().map(|line| &line[..3]).collect();
        assert_eq!(begins, ["<3>", "<4>", "<4>", "<6>", "<7>", "<7>"], "{graded}");
        let stripped: Vec<&str> = graded.lines().map(|line| &line[3..]).collect();
        assert_eq!(stripped, plain.lines().collect::<Vec<_>>());
    }
}
