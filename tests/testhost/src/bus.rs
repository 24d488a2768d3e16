//! A D-Bus of a test's alone: Debian's `dbus-daemon`, with a socket in a folder.

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::daemon::Daemon;

/// 30 s: what it is given to begin on a machine that is busy.
const BEGINS_WITHIN: Duration = Duration::from_secs(30);
/// 10 ms between looks whether it has.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// A bus on which everybody may have any name. It ends when it is dropped.
pub struct PrivateBus {
    _daemon: Daemon,
    socket: PathBuf,
}

impl PrivateBus {
    /// Starts one, with its socket `bus` in `folder`, and waits until it takes connections.
    ///
    /// # Errors
    /// When `dbus-daemon` is not installed (Debian: `dbus-daemon`), or does not begin: with the end of its log.
    pub fn start(folder: &Path) -> Result<PrivateBus> {
        let (socket, file) = (folder.join("bus"), folder.join("bus.conf"));
        let config = format!(
            "<!DOCTYPE busconfig PUBLIC '-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN' \
             'http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd'><busconfig><type>system</type>\
             <listen>unix:path={}</listen><auth>EXTERNAL</auth><policy context='default'>\
             <allow send_destination='*' eavesdrop='true'/><allow eavesdrop='true'/><allow own='*'/>\
             </policy></busconfig>",
            socket.display()
        );
        std::fs::write(&file, config).context("write the configuration of a bus")?;
        let mut command = Command::new("dbus-daemon");
        command.arg(format!("--config-file={}", file.display())).args(["--nofork", "--nopidfile"]);
        let started = Daemon::start("dbus-daemon", folder, &mut command);
        let mut daemon = started.context("is dbus-daemon installed (Debian: dbus-daemon)?")?;
        let begun = Instant::now();
        while UnixStream::connect(&socket).is_err() {
            daemon.check()?;
            if begun.elapsed() > BEGINS_WITHIN {
                bail!("dbus-daemon takes no connection:\n{}", daemon.tail());
            }
            std::thread::sleep(LOOK_EVERY);
        }
        Ok(PrivateBus { _daemon: daemon, socket })
    }

    /// Its socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }
}
