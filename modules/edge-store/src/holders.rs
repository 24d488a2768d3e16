//! Who has a lock on a file, as the kernel tells it in `/proc/locks`: a lock that is in the way is of no use to a person without
//! the name of who has it.
//!
//! `fcntl` would answer for one byte of an open file. To open the database and close it again gives up this process's own locks on
//! it, though, as POSIX has it.

use std::fmt;
use std::fs::{self, Metadata};
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// 1 MiB: 10,000 locks. The rest is not read.
const LOCKS_MAX: u64 = 1 << 20;
/// A process may have so many files open; further ones are not looked at.
const FILES_MAX: usize = 4096;
/// So many holders are named.
const NAMED: usize = 4;
/// A program's name is cut there.
const NAME_MAX: usize = 256;

/// The processes that have locks on a file, or on one of those beside it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Holders(Vec<Holder>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Holder {
    pid: u32,
    /// Its program's file, or what it calls itself.
    program: Option<String>,
}

impl Holders {
    /// Of the database at `path`: those that write or let nobody in beside them, and where there is none, all that read.
    pub(crate) fn of_database(path: &Path) -> Holders {
        let others = |lock: &Lock| lock.pid != Some(std::process::id());
        let mut index = path.as_os_str().to_owned();
        index.push("-shm");
        let mut locks = on(path);
        locks.extend(on(Path::new(&index)));
        locks.retain(others);
        if locks.iter().any(|lock| lock.is_exclusive) {
            locks.retain(|lock| lock.is_exclusive);
        }
        Holders::named(locks)
    }

    /// Of the lock file `lock`.
    pub(crate) fn of_lock_file(lock: &Path) -> Holders {
        Holders::named(on(lock))
    }

    fn named(locks: Vec<Lock>) -> Holders {
        let mut pids: Vec<u32> = locks.into_iter().filter_map(|lock| lock.pid).collect();
        pids.sort_unstable();
        pids.dedup();
        Holders(pids.into_iter().take(NAMED).map(|pid| Holder { pid, program: program(pid) }).collect())
    }
}

impl fmt::Display for Holders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            // It let go just now, or is in another PID namespace.
            return f.write_str(
                "a program that is not seen from here (`fuser` on the file, on the machine itself, names it)",
            );
        }
        for (at, Holder { pid, program }) in self.0.iter().enumerate() {
            let and = if at == 0 { "" } else { " and " };
            let program = program.as_deref().unwrap_or("a program");
            write!(f, "{and}{program} (pid {pid})")?;
        }
        Ok(())
    }
}

/// One line of `/proc/locks`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Lock {
    /// Not told of locks of open files (`F_OFD_SETLK`), nor of processes in other namespaces.
    pid: Option<u32>,
    is_exclusive: bool,
    device: (u32, u32),
    inode: u64,
}

impl Lock {
    /// `1: POSIX  ADVISORY  WRITE 1234 08:01:5678 0 EOF`; `None`: who waits for a lock (`1: -> …`), or another word.
    fn parse(line: &str) -> Option<Lock> {
        let mut words = line.split_ascii_whitespace();
        let (_number, kind) = (words.next()?, words.next()?);
        let (_advisory, mode, pid, file) = (words.next()?, words.next()?, words.next()?, words.next()?);
        if kind == "->" {
            return None;
        }
        let mut file = file.split(':');
        let (major, minor, inode) = (file.next()?, file.next()?, file.next()?);
        let device = (u32::from_str_radix(major, 16).ok()?, u32::from_str_radix(minor, 16).ok()?);
        Some(Lock {
            pid: pid.parse().ok().filter(|pid| *pid > 0),
            is_exclusive: mode == "WRITE",
            device,
            inode: inode.parse().ok()?,
        })
    }
}

/// The locks on the file at `path`.
fn on(path: &Path) -> Vec<Lock> {
    let Ok(file) = fs::metadata(path) else { return Vec::new() };
    let mut text = String::new();
    if fs::File::open("/proc/locks")
        .and_then(|locks| locks.take(LOCKS_MAX).read_to_string(&mut text))
        .is_err()
    {
        return Vec::new();
    }
    let device = (rustix::fs::major(file.dev()), rustix::fs::minor(file.dev()));
    let is_of_file = |lock: &Lock| {
        lock.inode == file.ino()
            // Some file systems tell programs another device than the kernel knows (btrfs, overlayfs).
            && (lock.device == device || lock.pid.is_some_and(|pid| has_open(pid, &file)))
    };
    text.lines().filter_map(Lock::parse).filter(is_of_file).collect()
}

fn has_open(pid: u32, file: &Metadata) -> bool {
    let Ok(open) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    open.take(FILES_MAX).flatten().any(|entry| {
        fs::metadata(entry.path()).is_ok_and(|own| (own.dev(), own.ino()) == (file.dev(), file.ino()))
    })
}

/// The file of the process's program, or, where that may not be seen, what it calls itself.
fn program(pid: u32) -> Option<String> {
    let file = fs::read_link(format!("/proc/{pid}/exe")).map(|file| file.to_string_lossy().into_owned());
    let name = file.or_else(|_| {
        fs::read(format!("/proc/{pid}/comm")).map(|name| String::from_utf8_lossy(&name).into_owned())
    });
    let name = name.ok()?;
    // Whoever runs it has named it.
    let harmless = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    Some(name.trim_end().chars().take(NAME_MAX).map(harmless).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_who_has_which_file_and_who_waits_has_nothing() {
        let lock = |line| Lock::parse(line);
        let write = Lock { pid: Some(1234), is_exclusive: true, device: (8, 0x1f), inode: 5678 };
        assert_eq!(lock("1: POSIX  ADVISORY  WRITE 1234 08:1f:5678 1073741826 1073742335"), Some(write));
        let read = Lock { is_exclusive: false, ..write };
        assert_eq!(lock("22: FLOCK  ADVISORY  READ  1234 08:1f:5678 0 EOF"), Some(read));
        assert_eq!(lock("3: OFDLCK ADVISORY  WRITE -1 08:1f:5678 0 EOF"), Some(Lock { pid: None, ..write }));
        assert_eq!(lock("1: -> POSIX  ADVISORY  WRITE 99 08:1f:5678 0 EOF"), None);
        for garbage in ["", "1:", "1: POSIX ADVISORY WRITE x 08", "1: POSIX ADVISORY WRITE 1 zz:00:1 0 EOF"] {
            assert_eq!(lock(garbage), None, "{garbage}");
        }
    }

    #[test]
    fn who_has_a_lock_is_named_with_its_program() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("db.lock");
        let file = fs::File::create(&path).unwrap();
        assert_eq!(Holders::of_lock_file(&path), Holders::default());
        file.lock().unwrap();
        let said = Holders::of_lock_file(&path).to_string();
        let own = std::env::current_exe().unwrap();
        assert_eq!(said, format!("{} (pid {})", own.display(), std::process::id()));
        assert_eq!(program(0), None);
    }

    #[test]
    fn several_are_told_in_one_sentence_and_nobody_is_no_empty_word() {
        let of = |pid, program: Option<&str>| Holder { pid, program: program.map(str::to_owned) };
        let both = Holders(vec![of(7, Some("/usr/bin/sqlite3")), of(8, None)]);
        assert_eq!(both.to_string(), "/usr/bin/sqlite3 (pid 7) and a program (pid 8)");
        assert!(Holders::default().to_string().contains("not seen from here"));
    }
}
