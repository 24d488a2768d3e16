//! The files of containers' logs, and the links to them. Blocks.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::disk::beneath::{Access, Folder};
use crate::disk::layout;
use crate::error::StepError;
use crate::pod::id::PodId;

/// As the kubelet's: collectors of logs pass.
const OPEN: u32 = 0o755;
/// So many names of one folder are looked at.
const NAMES_MAX: usize = 1 << 16;

/// An instance of a container and where its log lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LogOf {
    pub(crate) pod: PodId,
    pub(crate) container: String,
    pub(crate) attempt: u32,
    /// In the runtime.
    pub(crate) id: String,
}

impl std::fmt::Display for LogOf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.path().to_string_lossy())
    }
}

impl LogOf {
    /// The container's folder, below that of the logs.
    pub(crate) fn folder(&self) -> PathBuf {
        layout::pod_logs(&self.pod).join(&self.container)
    }

    /// The file that is written, in that folder.
    pub(crate) fn file(&self) -> String {
        format!("{}.log", self.attempt)
    }

    fn path(&self) -> PathBuf {
        self.folder().join(self.file())
    }

    /// Opens the container's folder; `None` when it is not there.
    pub(crate) fn open(&self, logs: &Path) -> Result<Option<Folder>, StepError> {
        Folder::find_root(logs)?.map_or(Ok(None), |logs| logs.find(&self.folder()))
    }

    /// Makes the link to a log that is there.
    pub(crate) fn link(&self, links: &Path, logs: &Path) -> Result<(), StepError> {
        let is_there = |folder: Folder| folder.file_stat(Path::new(&self.file()));
        if self.open(logs)?.map_or(Ok(None), is_there)?.is_none() {
            return Ok(());
        }
        let folder = Folder::make_root(links, OPEN)?;
        let (name, target) = (layout::log_link(&self.pod, &self.container, &self.id), logs.join(self.path()));
        if folder.link_target(&name).is_some_and(|found| found == target) {
            return Ok(());
        }
        folder.remove(Path::new(&name))?;
        folder.link(&target, &name)
    }

    /// Removes all files of the log, and the link.
    pub(crate) fn remove(&self, links: &Path, logs: &Path) -> Result<(), StepError> {
        if let Some(folder) = self.open(logs)? {
            let file = self.file();
            for name in rotated(&folder, &file)? {
                folder.remove(Path::new(&name))?;
            }
            folder.remove(Path::new(&file))?;
        }
        if let Some(links) = Folder::find_root(links)? {
            links.remove(Path::new(&layout::log_link(&self.pod, &self.container, &self.id)))?;
        }
        Ok(())
    }
}

/// The older files of a log, compressed or not.
pub(crate) fn rotated(folder: &Folder, file: &str) -> Result<Vec<String>, StepError> {
    let older = |name: &String| name.strip_prefix(file).is_some_and(|rest| rest.starts_with('.'));
    let names = folder.names(NAMES_MAX)?.into_iter().filter_map(|name| name.into_string().ok());
    Ok(names.filter(older).collect())
}

/// Removes the links to logs of a pod.
pub(crate) fn remove_links_of(links: &Path, logs: &Path, pod: &PodId) -> Result<(), StepError> {
    let own = logs.join(layout::pod_logs(pod));
    remove_links(links, |_, target| target.starts_with(&own))
}

/// Removes the links to logs that are not there any more; `kept`: the links of containers that run, whose log is between two
/// files for a moment when it is rotated.
pub(crate) fn remove_dangling(links: &Path, logs: &Path, kept: &BTreeSet<String>) -> Result<(), StepError> {
    let Some(folder) = Folder::find_root(logs)? else { return Ok(()) };
    remove_links(links, |name, target| {
        let Ok(at) = target.strip_prefix(logs) else { return false };
        !kept.contains(name) && matches!(folder.file_stat(at), Ok(None))
    })
}

fn remove_links(links: &Path, goes: impl Fn(&str, &Path) -> bool) -> Result<(), StepError> {
    let Some(folder) = Folder::find_root(links)? else { return Ok(()) };
    for name in folder.names(NAMES_MAX)? {
        let Some(name) = name.to_str() else { continue };
        if folder.link_target(name).is_some_and(|target| goes(name, &target)) {
            folder.remove(Path::new(name))?;
        }
    }
    Ok(())
}

/// Makes the folder of a container's logs, with all on the way to it.
pub(crate) fn make_folder(logs: &Path, pod: &PodId, container: &str) -> Result<(), StepError> {
    let folder = layout::pod_logs(pod).join(container);
    Folder::make_root(logs, OPEN)?.make(&folder, Access::mode(OPEN)).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log() -> LogOf {
        let pod = PodId { namespace: "d".into(), name: "p".into(), uid: "u".into() };
        LogOf { pod, container: "c".into(), attempt: 1, id: "abc".into() }
    }

    #[test]
    fn a_log_has_a_link_while_it_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let (links, logs) = (dir.path().join("containers"), dir.path().join("pods"));
        let log = log();
        log.link(&links, &logs).unwrap();
        assert!(!links.exists(), "there is no log yet");
        make_folder(&logs, &log.pod, "c").unwrap();
        let file = logs.join("d_p_u/c/1.log");
        std::fs::write(&file, "x").unwrap();
        log.link(&links, &logs).unwrap();
        log.link(&links, &logs).unwrap();
        let link = links.join("p_d_c-abc.log");
        assert_eq!(std::fs::read_link(&link).unwrap(), file);
        for name in ["1.log.20260101-000000", "1.log.20260101-000000.gz", "10.log", "1.logs"] {
            std::fs::write(logs.join("d_p_u/c").join(name), "").unwrap();
        }
        log.remove(&links, &logs).unwrap();
        assert!(std::fs::symlink_metadata(&link).is_err());
        let mut left: Vec<_> = std::fs::read_dir(logs.join("d_p_u/c"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        left.sort();
        assert_eq!(left, ["1.logs", "10.log"]);
        // Nothing is there twice.
        log.remove(&links, &logs).unwrap();
    }

    #[test]
    fn links_to_nothing_go_but_not_others() {
        let dir = tempfile::tempdir().unwrap();
        let (links, logs) = (dir.path().join("containers"), dir.path().join("pods"));
        std::fs::create_dir_all(&links).unwrap();
        std::fs::create_dir_all(logs.join("d_p_u/c")).unwrap();
        std::fs::write(logs.join("d_p_u/c/0.log"), "").unwrap();
        let link =
            |target: PathBuf, name: &str| std::os::unix::fs::symlink(target, links.join(name)).unwrap();
        link(logs.join("d_p_u/c/0.log"), "there");
        link(logs.join("d_p_u/c/7.log"), "gone");
        link(logs.join("d_p_u/c/8.log"), "rotated");
        link("/nowhere".into(), "foreign");
        std::fs::write(links.join("file"), "").unwrap();
        let names = || {
            let mut all: Vec<_> = std::fs::read_dir(&links)
                .unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect();
            all.sort();
            all
        };
        remove_dangling(&links, &logs, &BTreeSet::from(["rotated".to_owned()])).unwrap();
        assert_eq!(names(), ["file", "foreign", "rotated", "there"]);
        remove_links_of(&links, &logs, &log().pod).unwrap();
        assert_eq!(names(), ["file", "foreign"]);
    }

    #[test]
    fn a_links_name_fits_into_a_folder() {
        let mut log = log();
        log.pod.name = "p".repeat(253);
        let name = layout::log_link(&log.pod, "c", &"a".repeat(64));
        assert!(name.len() == 255 && name.ends_with(".log"), "{name}");
    }
}
