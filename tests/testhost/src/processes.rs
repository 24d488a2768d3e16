//! The processes of a host, found by the socket of its runtime.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

pub(crate) fn pause(how_long: Duration) {
    std::thread::sleep(how_long);
}

/// The shims that belong to the runtime at `socket`, and everything below them.
pub(crate) fn of_runtime(socket: &Path) -> Vec<u32> {
    let wanted = socket.display().to_string();
    let mut parents: BTreeMap<u32, u32> = BTreeMap::new();
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        if let Some(parent) = parent_of(pid) {
            parents.insert(pid, parent);
        }
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let words: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
        let is_shim = words.first().is_some_and(|program| program.ends_with(b"containerd-shim-runc-v2"));
        if is_shim && words.contains(&wanted.as_bytes()) {
            found.push(pid);
        }
    }
    let mut at = 0;
    while let Some(parent) = found.get(at).copied() {
        found.extend(parents.iter().filter(|(_, p)| **p == parent).map(|(pid, _)| *pid));
        at += 1;
    }
    found
}

fn parent_of(pid: u32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name is in parentheses and may hold anything; state and parent follow the last one.
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

/// The cgroups that a process is in, as folders.
pub(crate) fn cgroups_of(pid: u32) -> Vec<std::path::PathBuf> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    let mut folders = Vec::new();
    for line in text.lines() {
        let mut parts = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next()) else {
            continue;
        };
        let path = path.trim_start_matches('/');
        if path.is_empty() {
            continue;
        }
        let root = Path::new("/sys/fs/cgroup");
        let controller = controllers.trim_start_matches("name=");
        folders.push(if controller.is_empty() { root.join(path) } else { root.join(controller).join(path) });
    }
    folders
}

/// SIGKILL by process id. One that has ended already is no error.
pub(crate) fn kill(pids: &[u32]) {
    if pids.is_empty() {
        return;
    }
    let mut command = Command::new("kill");
    command.arg("-KILL").arg("--").args(pids.iter().map(u32::to_string));
    drop(command.output());
}

/// Waits until none of `pids` is alive any more.
pub(crate) fn wait_gone(pids: &[u32], limit: Duration) {
    let step = Duration::from_millis(10);
    let mut waited = Duration::ZERO;
    while waited < limit && pids.iter().any(|pid| is_alive(*pid)) {
        pause(step);
        waited += step;
    }
}

fn is_alive(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .ok()
        .and_then(|stat| {
            stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().next().map(str::to_owned))
        })
        .is_some_and(|state| state != "Z" && state != "X")
}
