//! What the processes of a container hold open: cAdvisor's process families. Blocks.

use std::fs;
use std::path::{Path, PathBuf};

use crate::stats::cgroup::Tree;

/// A container with more processes is not looked at one by one: the figures are then not told.
const PROCESSES_MAX: usize = 1000;

/// The processes of one container.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Processes {
    pub(crate) count: u64,
    /// Files that they have open, and those of them that are sockets; `None`: they are too many to look.
    pub(crate) open_files: Option<u64>,
    pub(crate) sockets: Option<u64>,
    /// How many files the first of them may open; `None`: no bound, or it has ended.
    pub(crate) open_files_limit: Option<u64>,
}

/// The processes in a cgroup; `None`: there is none, or nobody is in it.
pub(crate) fn of(tree: &Tree, path: &str) -> Option<Processes> {
    of_processes(Path::new("/proc"), &tree.processes(path))
}

fn of_processes(proc: &Path, pids: &[u32]) -> Option<Processes> {
    let first = pids.first()?;
    let count = pids.len() as u64;
    let open_files_limit =
        open_files_limit(&fs::read_to_string(proc.join(first.to_string()).join("limits")).ok()?);
    if pids.len() > PROCESSES_MAX {
        return Some(Processes { count, open_files_limit, ..Processes::default() });
    }
    let (mut files, mut sockets) = (0_u64, 0_u64);
    for pid in pids {
        // One that has ended meanwhile holds nothing.
        for file in fs::read_dir(proc.join(pid.to_string()).join("fd")).into_iter().flatten().flatten() {
            files += 1;
            let target: PathBuf = fs::read_link(file.path()).unwrap_or_default();
            sockets += u64::from(target.to_string_lossy().starts_with("socket:"));
        }
    }
    Some(Processes { count, open_files: Some(files), sockets: Some(sockets), open_files_limit })
}

/// The soft limit in `/proc/PID/limits`.
fn open_files_limit(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_and_sockets_of_all_processes_are_counted() {
        let proc = tempfile::tempdir().unwrap();
        let limits = "Limit                     Soft Limit           Hard Limit           Units     \n\
                      Max open files            1024                 4096                 files     \n";
        for (pid, links) in [("7", &["/dev/null", "socket:[12]"][..]), ("9", &["pipe:[3]"])] {
            let folder = proc.path().join(pid).join("fd");
            fs::create_dir_all(&folder).unwrap();
            fs::write(proc.path().join(pid).join("limits"), limits).unwrap();
            for (number, link) in links.iter().enumerate() {
                std::os::unix::fs::symlink(link, folder.join(number.to_string())).unwrap();
            }
        }
        let found = of_processes(proc.path(), &[7, 8, 9]).unwrap();
        let expected =
            Processes { count: 3, open_files: Some(3), sockets: Some(1), open_files_limit: Some(1024) };
        assert_eq!(found, expected);
        assert_eq!(of_processes(proc.path(), &[]), None);
        assert_eq!(
            open_files_limit("Max open files            unlimited            unlimited            files\n"),
            None
        );
        let many: Vec<u32> = std::iter::once(7).chain(0..2000).collect();
        assert_eq!(of_processes(proc.path(), &many).unwrap().open_files, None);
    }
}
