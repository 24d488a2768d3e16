//! Volumes that are block devices: a file of 1 MiB behind a loop device of the machine.

use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::mount::mount_bind;

/// 1 MiB.
const BYTES: u64 = 1 << 20;

fn losetup(arguments: &[&str]) -> std::io::Result<String> {
    let output = Command::new("losetup").args(arguments).output()?;
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    match output.status.success() {
        true => Ok(said(&output.stdout)),
        false => Err(std::io::Error::other(format!("losetup {arguments:?}: {}", said(&output.stderr)))),
    }
}

/// Makes the file a device.
pub(crate) fn attach(file: &Path) -> std::io::Result<PathBuf> {
    std::fs::File::options().create(true).append(true).open(file)?.set_len(BYTES)?;
    losetup(&["--find", "--show", &file.to_string_lossy()]).map(PathBuf::from)
}

/// Undoes it.
pub(crate) fn detach(device: &Path) -> std::io::Result<()> {
    losetup(&["--detach", &device.to_string_lossy()]).map(drop)
}

/// Shows a device at a place, which it makes.
pub(crate) fn show(device: &Path, target: &Path) -> std::io::Result<()> {
    std::fs::File::create(target)?;
    Ok(mount_bind(device, target)?)
}
