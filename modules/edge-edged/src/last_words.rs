//! What a container left behind as its termination message. Blocks.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::Path;

use crate::layout;
use crate::observe::ContainerSeen;

/// Kubernetes' bounds: of a message file, and of the log where it stands in for one.
const MESSAGE_MAX: u64 = 4096;
const LOG_MAX: u64 = 2048;
const LOG_LINES: usize = 80;

/// The message of an instance that has ended; empty when there is none.
pub(crate) fn read(root: &Path, uid: &str, instance: &ContainerSeen) -> String {
    let path = layout::last_words(root, uid, &instance.name, instance.attempt);
    let message = tail(&path, MESSAGE_MAX).unwrap_or_default();
    let from_log = instance.message_policy == "FallbackToLogsOnError" && instance.exit_code != 0;
    if message.is_empty() && from_log && !instance.log_path.is_empty() {
        return from_cri_log(&tail(Path::new(&instance.log_path), 4 * LOG_MAX).unwrap_or_default());
    }
    message
}

fn tail(path: &Path, max: u64) -> std::io::Result<String> {
    // A container could have put anything in the file's place; only a plain file is read.
    if !std::fs::symlink_metadata(path)?.is_file() {
        return Ok(String::new());
    }
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(max)))?;
    let mut bytes = Vec::new();
    file.take(max).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The texts of the last lines of a log in CRI's format: time, stream, tag, text.
fn from_cri_log(log: &str) -> String {
    let lines: Vec<&str> = log.lines().filter_map(|line| line.splitn(4, ' ').nth(3)).collect();
    let text = lines[lines.len().saturating_sub(LOG_LINES)..].join("\n");
    let max = usize::try_from(LOG_MAX).unwrap_or(usize::MAX);
    let mut start = text.len().saturating_sub(max);
    while !text.is_char_boundary(start) {
        start += 1;
    }
    text[start..].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_stands_in_for_a_message() {
        let log = "cut\n2026-11-21T00:00:00Z stdout F hello\n2026-11-21T00:00:01Z stderr F bad end\n";
        assert_eq!(from_cri_log(log), "hello\nbad end");
    }

    #[test]
    fn only_the_end_of_a_plain_file_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("m");
        std::fs::write(&path, "x".repeat(9000)).unwrap();
        assert_eq!(tail(&path, MESSAGE_MAX).unwrap().len(), 4096);
        let link = dir.path().join("l");
        std::os::unix::fs::symlink("/etc/passwd", &link).unwrap();
        assert_eq!(tail(&link, MESSAGE_MAX).unwrap(), "");
    }
}
