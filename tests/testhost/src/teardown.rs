//! Taking a host down. Nothing here fails loudly: what is gone already is what was wanted.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::{TestHost, processes};

impl Drop for TestHost {
    fn drop(&mut self) {
        if let Some(mut child) = self.containerd.take() {
            drop(child.kill());
            drop(child.wait());
        }
        self.end_containers();
        drop(Command::new("ip").args(["netns", "delete", &self.netns]).output());
        drop(std::fs::remove_dir_all(&self.dir));
    }
}

impl TestHost {
    /// Ends the shims and all that runs below them, with their mounts and cgroups.
    pub(crate) fn end_containers(&self) {
        let pids = processes::of_runtime(&self.socket());
        let cgroups: BTreeSet<PathBuf> = pids.iter().flat_map(|pid| processes::cgroups_of(*pid)).collect();
        processes::kill(&pids);
        processes::wait_gone(&pids, Duration::from_secs(10));
        remove_what_shims_left(&self.dir);
        unmount_below(&self.dir);
        remove_cgroups(&cgroups);
    }
}

/// What killed shims leave behind outside the runtime's folders: their sockets, and what runc wrote down about their
/// containers.
fn remove_what_shims_left(dir: &Path) {
    let tasks = dir.join("state/io.containerd.runtime.v2.task/k8s.io");
    for bundle in std::fs::read_dir(tasks).into_iter().flatten().flatten() {
        drop(std::fs::remove_dir_all(Path::new("/run/containerd/runc/k8s.io").join(bundle.file_name())));
        let Ok(address) = std::fs::read_to_string(bundle.path().join("address")) else { continue };
        if let Some(path) = address.trim().strip_prefix("unix://") {
            drop(std::fs::remove_file(path));
        }
    }
}

fn unmount_below(dir: &Path) {
    let mounts = mountinfo::here().unwrap_or_default().into_iter().map(|mount| mount.point);
    let mut points: Vec<PathBuf> = mounts.filter(|point| point.starts_with(dir) && point != dir).collect();
    // The deepest and the latest first.
    points.reverse();
    for chunk in points.chunks(64) {
        drop(Command::new("umount").arg("--lazy").args(chunk).output());
    }
}

/// Removes the cgroups of the host's processes, and their parents as far as they are empty.
fn remove_cgroups(cgroups: &BTreeSet<PathBuf>) {
    for cgroup in cgroups {
        let mut at = cgroup.as_path();
        // A controller's own root is never empty, so the walk ends there at the latest.
        while at.components().count() > 5 || (at == cgroup && at.components().count() > 4) {
            if std::fs::remove_dir(at).is_err() {
                break;
            }
            match at.parent() {
                Some(parent) => at = parent,
                None => break,
            }
        }
    }
}
