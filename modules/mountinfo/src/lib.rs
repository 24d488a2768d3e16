//! The kernel's table of mounts (`/proc/self/mountinfo`, proc_pid_mountinfo(5)).
//!
//! # Owns
//! Nothing.
//! # Accepts
//! The table's bytes. A mount point is whatever a name may be: no text, blanks, line ends. One that is odd takes nothing from the
//! others, and a line that cannot be understood is left out.
//! # Tells
//! Nobody.
//! # Keeps across a restart
//! Nothing.
//! # Never
//! Asks a file system: one that does not answer is in the table all the same.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

/// Where the kernel has the table of this process.
pub const TABLE: &str = "/proc/self/mountinfo";

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// The kernel's number of it.
    pub id: u64,
    /// `major:minor` of what it shows.
    pub device: String,
    /// Which part of the file system it shows.
    pub root: PathBuf,
    /// Where.
    pub point: PathBuf,
    /// What is mounted or unmounted in it is in others, too.
    pub is_shared: bool,
    /// What the file system is on, as the file system says it: a device, an export, a word.
    pub source: OsString,
}

/// The mounts of this process, in the order in which the kernel lists them. Blocks.
///
/// # Errors
/// When the kernel's table cannot be read.
pub fn here() -> io::Result<Vec<Mount>> {
    fs::read(TABLE).map(|table| parse(&table))
}

/// Whether something is mounted at a place, by the kernel's table. Links may lead to the place's folder; the place itself is not
/// followed. Blocks.
///
/// # Errors
/// When the kernel's table cannot be read.
pub fn is_mounted(at: &Path) -> io::Result<bool> {
    let real = match (at.parent().map(fs::canonicalize), at.file_name()) {
        (Some(Ok(parent)), Some(name)) => parent.join(name),
        _ => return Ok(false),
    };
    Ok(here()?.iter().any(|mount| mount.point == real))
}

/// The mounts of a table.
pub fn parse(table: &[u8]) -> Vec<Mount> {
    table.split(|byte| *byte == b'\n').filter_map(one).collect()
}

/// `36 35 98:0 /mnt1 /mnt2 rw,noatime shared:1 - ext3 /dev/root rw`
fn one(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|byte| *byte == b' ');
    let id = std::str::from_utf8(fields.next()?).ok()?.parse().ok()?;
    let device = std::str::from_utf8(fields.nth(1)?).ok()?.to_owned();
    let (root, point) = (unescaped(fields.next()?).into(), unescaped(fields.next()?).into());
    // Behind the options come any number of words, up to a dash.
    let mut words = fields.skip(1);
    // All of them are gone through, so that the dash is behind us.
    let options = words.by_ref().take_while(|word| *word != b"-");
    let is_shared = options.filter(|word| word.starts_with(b"shared:")).count() > 0;
    let source = unescaped(words.nth(1).unwrap_or_default());
    Some(Mount { id, device, root, point, is_shared, source })
}

/// The kernel writes blanks and the like as `\040`.
fn unescaped(field: &[u8]) -> OsString {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((byte, after)) = rest.split_first() {
        let digits = after.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        let code = digits.filter(|_| *byte == b'\\').and_then(|digits| u8::from_str_radix(digits, 8).ok());
        out.push(code.unwrap_or(*byte));
        rest = if code.is_some() { after.get(3..).unwrap_or_default() } else { after };
    }
    OsString::from_vec(out)
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt as _;

    use super::*;

    const TABLE: &[u8] = b"22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw\n\
        36 22 98:0 /sub /a\\040b\\134c rw,noatime master:1 - nfs nas:/x rw\n\
        nonsense\n\
        37 22 98:0 / /data/\xff\xfe rw propagate_from:2 shared:7 - tmpfs none\\040it rw\n\
        38 22 98:0 / /plain\\ rw - tmpfs\n\
        39 22 98:0 / /last rw - tmpfs t rw\n";

    #[test]
    fn every_mount_is_read_however_odd_another_one_is() {
        let all = parse(TABLE);
        let points: Vec<&OsStr> = all.iter().map(|mount| mount.point.as_os_str()).collect();
        let odd = OsStr::from_bytes(b"/data/\xff\xfe");
        assert_eq!(
            points,
            [OsStr::new("/"), OsStr::new("/a b\\c"), odd, OsStr::new("/plain\\"), OsStr::new("/last")]
        );
        assert_eq!(
            all.iter().map(|mount| mount.is_shared).collect::<Vec<_>>(),
            [true, false, true, false, false]
        );
        assert_eq!(
            (all[1].id, all[1].device.as_str(), all[1].root.as_path()),
            (36, "98:0", Path::new("/sub"))
        );
        assert_eq!((&*all[1].source, &*all[2].source), (OsStr::new("nas:/x"), OsStr::new("none it")));
        assert_eq!(parse(b""), []);
        assert_eq!(parse(b"\xff\n1\n1 2\n1 2 3:4 /\n"), []);
    }

    #[test]
    fn what_is_mounted_here_is_known_and_what_is_not_there_is_not_mounted() {
        assert!(is_mounted(Path::new("/proc")).unwrap());
        assert!(
            !is_mounted(Path::new("/proc/self")).unwrap() && !is_mounted(Path::new("/nowhere/x")).unwrap()
        );
    }
}
