//! What a container left behind as its termination message. Blocks.

use std::path::Path;

use contract::pod_status::TERMINATION_MESSAGE_MAX;

use crate::disk::beneath::Folder;
use crate::disk::layout;
use crate::pod::id::PodId;
use crate::runtime::pods::RuntimeContainer;

/// Kubernetes' bounds: of a message file, and of the log where it stands in for one.
const MESSAGE_MAX: u64 = TERMINATION_MESSAGE_MAX as u64;
const LOG_MAX: u64 = 2048;
const LOG_LINES: usize = 80;

/// The message of an instance that has ended; empty when there is none. Where the log lies is ours to know: what the
/// runtime says of it is not asked.
pub(crate) fn read(root: &Path, logs: &Path, id: &PodId, instance: &RuntimeContainer) -> String {
    let at = layout::termination_message(&id.uid, &instance.name, instance.attempt);
    let message = tail(root, &at, MESSAGE_MAX);
    let from_log = instance.message_policy == "FallbackToLogsOnError" && instance.exit_code != 0;
    if message.is_empty() && from_log {
        let at = layout::pod_logs(id).join(layout::log(&instance.name, instance.attempt));
        return from_cri_log(&tail(logs, &at, 4 * LOG_MAX));
    }
    message
}

/// The end of a plain file; whatever else a container put in its place counts as nothing.
fn tail(root: &Path, at: &Path, max: u64) -> String {
    let read = || Folder::find_root(root).ok()??.tail(at, max).ok()?;
    String::from_utf8_lossy(&read().unwrap_or_default()).into_owned()
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
        std::fs::write(dir.path().join("m"), "x".repeat(9000)).unwrap();
        assert_eq!(tail(dir.path(), Path::new("m"), MESSAGE_MAX).len(), 4096);
        std::os::unix::fs::symlink("/etc/passwd", dir.path().join("l")).unwrap();
        assert_eq!(tail(dir.path(), Path::new("l"), MESSAGE_MAX), "");
        assert_eq!(tail(dir.path(), Path::new("../etc/passwd"), MESSAGE_MAX), "");
    }

    #[test]
    fn the_log_is_ours_whatever_the_runtime_says_and_nothing_is_read_through_a_link() {
        let (root, logs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let id = PodId { namespace: "d".into(), name: "p".into(), uid: "u".into() };
        let status = cri::v1::ContainerStatus {
            log_path: "/etc/passwd".into(),
            exit_code: 1,
            annotations: [(
                crate::runtime::container::MESSAGE_POLICY.to_owned(),
                "FallbackToLogsOnError".to_owned(),
            )]
            .into(),
            labels: [(cri::pods::CONTAINER_NAME.to_owned(), "c".to_owned())].into(),
            ..Default::default()
        };
        let seen = crate::runtime::pods::container_of(&status, "s");
        let words = || read(root.path(), logs.path(), &id, &seen);
        assert_eq!(words(), "");
        let folder = logs.path().join("d_p_u/c");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("0.log"), "2026-11-21T00:00:00Z stdout F mine\n").unwrap();
        assert_eq!(words(), "mine");
        std::fs::rename(&folder, logs.path().join("moved")).unwrap();
        std::os::unix::fs::symlink(logs.path().join("moved"), &folder).unwrap();
        assert_eq!(words(), "", "a link to its folder");
        let hostile = RuntimeContainer { name: "../../moved".to_owned(), ..seen.clone() };
        assert_eq!(read(root.path(), logs.path(), &id, &hostile), "");
    }
}
