//! What a power cut leaves of pods' networks on the disk. CNI's library and its host-local plugin write their files without waiting for the disk,
//! so that those of the last seconds may be empty afterwards. The library then refuses to take such a network down
//! (`failed to get network … cached result`), with each try, so that its sandbox can neither be stopped nor removed; and an empty file of host-local
//! keeps an address for nobody.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::{Mode, OFlags};
use serde::de::IgnoredAny;

/// Where CNI's library and plugins keep what they have made; containerd leaves it where it is.
pub const STATE: &str = "/var/lib/cni";
/// 1 MiB: a result has a few kilobytes, and host-local's an id.
const FILE_MAX: u64 = 1 << 20;
/// 100,000 files of a folder are looked at.
const FILES_MAX: usize = 100_000;
/// 100 ms: nobody needs as long between the making of such a small file and its content.
const ONCE_MORE_AFTER: Duration = Duration::from_millis(100);
/// A clock that was set a little in between makes no file one of the future.
const AHEAD: Duration = Duration::from_secs(5);

/// Whose files may have been torn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// At any time: this is the first start since the machine's, and no clock is asked. One that stands still at the machine's end, as where there
    /// is no battery, calls the last files before it new.
    AtAnyTime,
    /// Before this time, when the machine started, or in the future of the other.
    Before(SystemTime, SystemTime),
}

/// Removes what is torn below CNI's folder. What is written at this moment is not: it is looked at once more. Answers what it has removed. Blocks,
/// for a tenth of a second where something is torn.
///
/// # Errors
/// When a folder that is there cannot be read.
pub fn clear(state: &Path, written: Written) -> io::Result<Vec<PathBuf>> {
    let torn = torn(state, written)?;
    if torn.is_empty() {
        return Ok(torn);
    }
    std::thread::sleep(ONCE_MORE_AFTER);
    let mut still = self::torn(state, written)?;
    still.retain(|path| torn.contains(path) && fs::remove_file(path).is_ok());
    Ok(still)
}

fn torn(state: &Path, written: Written) -> io::Result<Vec<PathBuf>> {
    let before = |path: &Path| {
        let Written::Before(started, now) = written else { return true };
        let at = fs::symlink_metadata(path).and_then(|metadata| metadata.modified());
        at.is_ok_and(|at| at < started || at > now + AHEAD)
    };
    let mut torn: Vec<PathBuf> = files(&state.join("results"))?
        .into_iter()
        .filter(|path| before(path) && content(path).is_some_and(|text| !is_json(&text)))
        .collect();
    for network in folders(&state.join("networks"))? {
        let is_address = |path: &PathBuf| {
            let name = path.file_name().and_then(|name| name.to_str());
            name.is_some_and(|name| name.parse::<IpAddr>().is_ok())
        };
        let reserved = files(&network)?.into_iter().filter(is_address);
        torn.extend(
            reserved.filter(|path| before(path) && content(path).is_some_and(|text| is_empty(&text))),
        );
    }
    Ok(torn)
}

/// When the machine started, by its clock of now.
///
/// # Errors
/// When the kernel does not say.
pub fn machine_started() -> io::Result<SystemTime> {
    let stat = fs::read_to_string("/proc/stat")?;
    let seconds = stat.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse::<u64>().ok());
    let seconds = seconds.ok_or_else(|| io::Error::other("/proc/stat has no btime"))?;
    Ok(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
}

/// An empty one, and one of zeros: the length was on the disk before the content.
fn is_empty(text: &[u8]) -> bool {
    text.iter().all(|byte| *byte == 0 || byte.is_ascii_whitespace())
}

fn is_json(text: &[u8]) -> bool {
    serde_json::from_slice::<IgnoredAny>(text).is_ok()
}

/// `None`: it cannot be read, or is larger than any of them.
fn content(path: &Path) -> Option<Vec<u8>> {
    let how = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::open(path, how, Mode::empty()).ok()?);
    let metadata = file.metadata().ok()?;
    if !metadata.is_file() || metadata.len() > FILE_MAX {
        return None;
    }
    let mut text = Vec::new();
    file.take(FILE_MAX).read_to_end(&mut text).ok()?;
    Some(text)
}

fn files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    of_kind(folder, fs::FileType::is_file)
}

fn folders(folder: &Path) -> io::Result<Vec<PathBuf>> {
    of_kind(folder, fs::FileType::is_dir)
}

fn of_kind(folder: &Path, is_meant: impl Fn(&fs::FileType) -> bool) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let meant = entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| is_meant(&kind)));
    Ok(meant.map(|entry| entry.path()).take(FILES_MAX).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_power_cut_has_torn_goes_and_what_is_whole_or_new_stays() {
        let folder = tempfile::tempdir().unwrap();
        let (results, network) = (folder.path().join("results"), folder.path().join("networks/bridge"));
        fs::create_dir_all(&results).unwrap();
        fs::create_dir_all(&network).unwrap();
        let now = SystemTime::now();
        let (hour, started) = (Duration::from_secs(3600), now - Duration::from_secs(60));
        let write = |path: PathBuf, text: &str, at: SystemTime| {
            fs::write(&path, text).unwrap();
            File::options().write(true).open(&path).unwrap().set_modified(at).unwrap();
        };
        for (name, text, at) in [
            ("whole", r#"{"kind":"cniCacheV1","containerId":"a"}"#, now - hour),
            ("empty", "", now - hour),
            ("zeros", "\0\0\0\0", now - hour),
            ("half", r#"{"kind":"cniCac"#, now - hour),
            // A clock that began anew with the machine.
            ("ahead", "", now + hour),
            // Somebody writes it at this moment.
            ("new", "", now),
        ] {
            write(results.join(name), text, at);
        }
        std::os::unix::fs::symlink("/nowhere", results.join("link")).unwrap();
        for (name, text) in [
            ("10.88.0.2", "a\r\neth0"),
            ("10.88.0.3", ""),
            ("fd00::7", "\0\0"),
            ("lock", ""),
            ("last_reserved_ip.0", ""),
        ] {
            write(network.join(name), text, now - hour);
        }
        let by_clock = Written::Before(started, now);
        let mut gone: Vec<String> = clear(folder.path(), by_clock)
            .unwrap()
            .iter()
            .map(|path| path.file_name().unwrap().to_str().unwrap().to_owned())
            .collect();
        gone.sort();
        assert_eq!(gone, ["10.88.0.3", "ahead", "empty", "fd00::7", "half", "zeros"]);
        let mut left: Vec<PathBuf> = files(&results).unwrap();
        left.extend(files(&network).unwrap());
        assert_eq!(left.len(), 2 + 3);
        assert_eq!(clear(folder.path(), by_clock).unwrap(), [] as [PathBuf; 0]);
        // A clock that stood still makes the last files before the cut as new as this one.
        assert_eq!(clear(folder.path(), Written::AtAnyTime).unwrap(), [results.join("new")]);
        assert_eq!(clear(&folder.path().join("none"), Written::AtAnyTime).unwrap(), [] as [PathBuf; 0]);
        assert!(machine_started().unwrap() < now);
    }
}
