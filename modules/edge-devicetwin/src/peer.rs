//! The process at the other end of a Unix socket.
//!
//! The kernel keeps who connected (or, seen from the other side, who listened). From Linux 6.5 on it hands out that very
//! process as a pidfd, so that a number which has passed to another process cannot be taken for it. Before, the number is
//! all there is: it is held by a pidfd while the files below `/proc` are read, and what is left is a process that ends,
//! and whose number passes on, between its connecting and the accepting.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::OnceLock;

use contract::devicetwin::DmiCaller;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tokio::net::UnixStream;

use crate::procfs::{self, CgroupOwner, PROC_MAX};

/// Tells who is at the other end of a connection.
pub trait PeerResolver: Send + Sync {
    /// Who connected, or who listened.
    ///
    /// # Errors
    /// A sentence, when that cannot be said for certain.
    fn identify(&self, stream: &UnixStream) -> Result<DmiCaller, String>;

    /// Whether the process of a [`DmiCaller`] still runs.
    fn runs(&self, process: &str) -> bool;
}

/// What the kernel says.
#[derive(Debug, Clone, Copy)]
pub struct KernelPeerResolver;

impl PeerResolver for KernelPeerResolver {
    fn identify(&self, stream: &UnixStream) -> Result<DmiCaller, String> {
        let failed = |error: &dyn std::fmt::Display| format!("who is at the other end is not known: {error}");
        let credentials = stream.peer_cred().map_err(|error| failed(&error))?;
        // 0 and nothing: a process that this one's pid namespace does not hold.
        let pid = credentials.pid().filter(|pid| *pid > 0).ok_or_else(|| failed(&"it has no number here"))?;
        let held = hold(stream.as_fd(), pid).map_err(|error| failed(&error))?;
        let stat = read(pid, "stat").map_err(|error| failed(&error))?;
        let cgroups = read(pid, "cgroup").map_err(|error| failed(&error))?;
        let began = procfs::began(&stat).ok_or_else(|| failed(&"it has ended"))?;
        if !still(&held, pid, began) {
            return Err(failed(&"it has ended"));
        }
        let pod = match procfs::cgroup_owner(&cgroups) {
            Ok(CgroupOwner::Pod(uid)) => Some(uid),
            Ok(CgroupOwner::Host) => None,
            Err(reason) => return Err(failed(&reason)),
        };
        Ok(DmiCaller { pod, uid: credentials.uid(), process: format!("{}/{pid}/{began}", boot()) })
    }

    fn runs(&self, process: &str) -> bool {
        let mut parts = process.split('/');
        let (Some(booted), Some(pid), Some(began)) = (parts.next(), parts.next(), parts.next()) else {
            return false;
        };
        let (Ok(pid), Ok(began)) = (pid.parse::<i32>(), began.parse::<u64>()) else { return false };
        booted == boot() && read(pid, "stat").ok().and_then(|stat| procfs::began(&stat)) == Some(began)
    }
}

/// The process itself, where the kernel has such a thing.
fn hold(socket: BorrowedFd<'_>, pid: i32) -> io::Result<Option<OwnedFd>> {
    match nix::sys::socket::getsockopt(&socket, nix::sys::socket::sockopt::PeerPidfd) {
        Ok(process) => return Ok(Some(process)),
        // Before Linux 6.5.
        Err(nix::errno::Errno::ENOPROTOOPT) => {}
        Err(error) => return Err(error.into()),
    }
    let pid = Pid::from_raw(pid).ok_or(io::ErrorKind::InvalidData)?;
    match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(process) => Ok(Some(process)),
        // Before Linux 5.3: its start has to do.
        Err(rustix::io::Errno::NOSYS) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Whether the process that was held is the one that was read about.
fn still(held: &Option<OwnedFd>, pid: i32, began: u64) -> bool {
    match held {
        Some(process) => {
            let info = read_capped(&format!("/proc/self/fdinfo/{}", process.as_raw_fd()), PROC_MAX);
            info.ok().and_then(|info| procfs::of_pidfd(&info)) == Some(pid)
        }
        None => read(pid, "stat").ok().and_then(|stat| procfs::began(&stat)) == Some(began),
    }
}

fn read(pid: i32, name: &str) -> io::Result<String> {
    read_capped(&format!("/proc/{pid}/{name}"), PROC_MAX)
}

/// What the kernel says in a file of `/proc`, at most `most` bytes.
pub(crate) fn read_capped(path: &str, most: u64) -> io::Result<String> {
    let mut bytes = Vec::new();
    File::open(path)?.take(most + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        return Err(io::Error::other(format!("{path} has more than {most} bytes")));
    }
    // The name of a program or of a cgroup need not be UTF-8; what is replaced matches nothing.
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Numbers of processes begin anew with each boot.
fn boot() -> &'static str {
    static BOOT: OnceLock<String> = OnceLock::new();
    BOOT.get_or_init(|| {
        let id = read_capped("/proc/sys/kernel/random/boot_id", PROC_MAX).unwrap_or_default();
        id.trim().to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn this_process_is_known_from_both_ends() {
        let (one, other) = UnixStream::pair().unwrap();
        let me = KernelPeerResolver.identify(&one).unwrap();
        assert_eq!(KernelPeerResolver.identify(&other).unwrap(), me);
        assert_eq!(me.uid, rustix::process::geteuid().as_raw());
        assert!(KernelPeerResolver.runs(&me.process));
        for other in ["", "x", &format!("{}/1", boot()), &me.process.replacen(boot(), "another boot", 1)] {
            assert!(!KernelPeerResolver.runs(other), "{other}");
        }
        let (process, began) = me.process.rsplit_once('/').unwrap();
        assert!(
            !KernelPeerResolver.runs(&format!("{process}/{}", began.parse::<u64>().unwrap() + 1)),
            "another with its number"
        );
    }
}
