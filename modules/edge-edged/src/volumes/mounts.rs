//! Mounting and unmounting on the node.

use std::ffi::CString;
use std::fs;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind, mount_change, unmount,
};

use crate::error::StepError;

/// All mount points at `path` and below, in the order in which they were mounted.
pub(super) fn at_or_below(path: &Path) -> Vec<PathBuf> {
    let table = fs::read("/proc/self/mountinfo").unwrap_or_default();
    let points =
        table.split(|byte| *byte == b'\n').filter_map(|line| line.split(|byte| *byte == b' ').nth(4));
    points.map(unescape).filter(|point| point.starts_with(path)).collect()
}

/// The kernel writes blanks and the like as `\040`.
fn unescape(field: &[u8]) -> PathBuf {
    let mut out = Vec::with_capacity(field.len());
    let mut at = 0;
    while let Some(byte) = field.get(at) {
        let octal = field.get(at + 1..at + 4).and_then(|digits| std::str::from_utf8(digits).ok());
        let code = octal.and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match (byte, code) {
            (b'\\', Some(code)) => {
                out.push(code);
                at += 4;
            }
            _ => {
                out.push(*byte);
                at += 1;
            }
        }
    }
    PathBuf::from(std::ffi::OsString::from_vec(out))
}

pub(super) fn is_mount(path: &Path) -> bool {
    at_or_below(path).iter().any(|point| point == path)
}

/// A file system in memory; `size` in bytes.
pub(super) fn tmpfs(path: &Path, size: Option<i64>) -> Result<(), Errno> {
    let data = size.filter(|size| *size > 0).and_then(|size| CString::new(format!("size={size}")).ok());
    mount("tmpfs", path, "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, data.as_deref())
}

/// Shows `from` at `to`; what is mounted there before goes.
pub(super) fn bind(from: &Path, to: &Path) -> Result<(), StepError> {
    detach(to)?;
    mount_bind(from, to).map_err(|error| StepError::file("bind-mount at", to, &error))?;
    // Nothing that happens under the source later shall show here.
    mount_change(to, MountPropagationFlags::PRIVATE)
        .map_err(|error| StepError::file("make private", to, &error))
}

/// Unmounts `path` until nothing is mounted there.
pub(super) fn detach(path: &Path) -> Result<(), StepError> {
    while is_mount(path) {
        let flags = UnmountFlags::DETACH | UnmountFlags::NOFOLLOW;
        unmount(path, flags).map_err(|error| StepError::file("unmount", path, &error))?;
    }
    Ok(())
}

/// Unmounts everything at `path` and below, the latest first.
pub(super) fn detach_below(path: &Path) -> Result<(), StepError> {
    let mut points = at_or_below(path);
    points.reverse();
    for point in points {
        detach(&point)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_escapes_are_read() {
        assert_eq!(unescape(br"/a\040b\134c"), PathBuf::from("/a b\\c"));
        assert_eq!(unescape(br"/plain\"), PathBuf::from("/plain\\"));
    }
}
