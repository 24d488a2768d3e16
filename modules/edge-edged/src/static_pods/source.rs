//! The static pods as the files describe them: what a look at the files changes. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use beehive::Moment;

use crate::pod::parsed_pod::fnv1a;
use crate::static_pods::manifest::{self, StaticPod};

/// What a look has found of each file.
pub(crate) type Files = BTreeMap<PathBuf, FileRead>;

/// A file as a look has found it.
#[derive(Debug, Clone)]
pub(crate) struct FileRead {
    print: u64,
    /// What it describes, or why that makes no sense or cannot be read; `None` when it is as it was.
    found: Option<Result<StaticPod, String>>,
}

impl FileRead {
    /// Of a file at `path` with this content, or that cannot be read, which had the print `known` before. `seen`: the time, for what is
    /// new. May take seconds.
    pub(crate) fn new(
        path: &Path,
        content: Result<Vec<u8>, String>,
        known: Option<u64>,
        (node, seen): (&str, &str),
    ) -> FileRead {
        let print = content.as_ref().map_or_else(|why| fnv1a(why.as_bytes()), |bytes| fnv1a(bytes));
        let is_other = known != Some(print);
        let found = is_other.then(|| content.and_then(|bytes| manifest::read(&bytes, path, node, seen)));
        FileRead { print, found }
    }
}

/// 1 s: a file that makes no sense for so long is not one that is being written.
const SETTLED: Duration = Duration::from_secs(1);

/// What is kept of a file.
#[derive(Debug, Clone)]
struct Described {
    print: u64,
    /// Since when it is so.
    since: Moment,
    /// The pod as the file described it last so that it made sense. One who edits a file in its place does not want the pod
    /// to end in between.
    pod: Option<StaticPod>,
    /// Why it makes no sense now, and whether that was said.
    fault: Option<String>,
    is_told: bool,
    /// Another file describes a pod of that name, or uid: that one counts.
    double: Option<String>,
}

/// What a look has changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct FilesChange {
    /// Whether other pods should run.
    pub(crate) changed: bool,
    /// Files that make no sense, and why, when that is news.
    pub(crate) faults: Vec<(PathBuf, String)>,
    /// When to look again at files that make no sense yet.
    pub(crate) again: Option<Moment>,
}

/// The static pods.
#[derive(Debug, Default)]
pub(crate) struct StaticPods {
    files: BTreeMap<PathBuf, Described>,
    /// Whether the files were looked at: before that nothing is known not to be there.
    pub(crate) is_known: bool,
}

impl StaticPods {
    /// The files that are known, each with its print.
    pub(crate) fn prints(&self) -> BTreeMap<PathBuf, u64> {
        self.files.iter().map(|(file, described)| (file.clone(), described.print)).collect()
    }

    /// Takes a look in. What is valid counts at once, as in a kubelet; what is not may be half of a file that somebody writes, and is told
    /// of when it stays so.
    pub(crate) fn look(&mut self, found: Files, now: Moment) -> FilesChange {
        let before = self.identities();
        let was_known = std::mem::replace(&mut self.is_known, true);
        let mut looked = FilesChange::default();
        self.files.retain(|file, _| found.contains_key(file));
        for (file, FileRead { print, found }) in found {
            let known = self.files.remove(&file);
            let mut described = match (known, found) {
                (Some(known), None) => known,
                (Some(known), Some(_)) if known.print == print => known,
                (known, Some(read)) => {
                    let (pod, fault) = match read {
                        Ok(pod) => (Some(pod), None),
                        Err(why) => (known.and_then(|known| known.pod), Some(why)),
                    };
                    Described { print, since: now, pod, fault, is_told: false, double: None }
                }
                // Another look has forgotten it meanwhile: the next one reads it.
                (None, None) => continue,
            };
            if let Some(why) = described.fault.as_ref().filter(|_| !described.is_told) {
                if described.since + SETTLED <= now {
                    looked.faults.push((file.clone(), why.clone()));
                    described.is_told = true;
                } else {
                    let at = described.since + SETTLED;
                    looked.again = looked.again.into_iter().chain([at]).min();
                }
            }
            self.files.insert(file, described);
        }
        self.refuse_doubles(&mut looked.faults);
        looked.changed = !was_known || before != self.identities();
        looked
    }

    /// Of two files that describe pods of one name, or of one uid, the first counts.
    fn refuse_doubles(&mut self, faults: &mut Vec<(PathBuf, String)>) {
        let (mut names, mut uids) = (BTreeSet::new(), BTreeSet::new());
        for (file, described) in &mut self.files {
            let Some(pod) = &described.pod else { continue };
            let id = &pod.parsed.id;
            let is_first = names.insert(id.namespaced_name()) && uids.insert(id.uid.clone());
            let double = (!is_first).then(|| {
                format!(
                    "Error validating pod {}_{} from file due to duplicate pod name \"{}\", ignoring",
                    id.name, id.namespace, id.name
                )
            });
            if let Some(why) = double.as_ref().filter(|why| described.double.as_ref() != Some(why)) {
                faults.push((file.clone(), why.clone()));
            }
            described.double = double;
        }
    }

    fn identities(&self) -> Vec<String> {
        self.pods().map(|pod| pod.hash().to_owned()).collect()
    }

    /// The pods that should run.
    pub(crate) fn pods(&self) -> impl Iterator<Item = &StaticPod> {
        self.files.values().filter(|own| own.double.is_none()).filter_map(|own| own.pod.as_ref())
    }

    /// Files that make no sense, and why.
    pub(crate) fn faults(&self) -> BTreeMap<String, String> {
        let faults = self
            .files
            .iter()
            .filter_map(|(file, own)| Some((file, own.fault.as_ref().or(own.double.as_ref())?)));
        faults.map(|(file, why)| (file.display().to_string(), why.clone())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str, image: &str) -> Result<Vec<u8>, String> {
        Ok(format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec: {{containers: [{{name: c, image: '{image}'}}]}}\n"
        )
        .into_bytes())
    }

    fn at(milliseconds: u64) -> Moment {
        Moment(Duration::from_millis(milliseconds))
    }

    fn look_at(pods: &mut StaticPods, files: &[(&str, Result<Vec<u8>, String>)], now: Moment) -> FilesChange {
        let prints = pods.prints();
        let read = |(file, content): &(&str, Result<Vec<u8>, String>)| {
            let file = PathBuf::from(file);
            let read = FileRead::new(&file, content.clone(), prints.get(&file).copied(), ("edge-1", "now"));
            (file, read)
        };
        pods.look(files.iter().map(read).collect(), now)
    }

    /// Twice, a second after each other: whether the first changed anything, and the files of which the second said something.
    fn look(pods: &mut StaticPods, files: &[(&str, Result<Vec<u8>, String>)]) -> (bool, Vec<String>) {
        let first = look_at(pods, files, at(0));
        let second = look_at(pods, files, at(1000));
        assert!(!second.changed && second.again.is_none());
        let faults = first.faults.into_iter().chain(second.faults);
        (first.changed, faults.map(|(file, _)| file.display().to_string()).collect())
    }

    fn names(pods: &StaticPods) -> Vec<String> {
        pods.pods().map(|pod| pod.parsed.id.name.clone()).collect()
    }

    #[test]
    fn a_bad_file_is_named_once_and_holds_up_nothing() {
        let mut pods = StaticPods::default();
        assert!(look(&mut pods, &[]).0 && pods.is_known, "that there is nothing is news");
        let bad = || Ok(b"kind: Pod\n".to_vec());
        let files =
            [("/a", pod("a", "x")), ("/b", bad()), ("/c", Err("no right".to_owned())), ("/d", pod("d", "x"))];
        assert_eq!(look(&mut pods, &files), (true, vec!["/b".to_owned(), "/c".to_owned()]));
        assert_eq!(names(&pods), ["a-edge-1", "d-edge-1"]);
        assert_eq!(look(&mut pods, &files), (false, vec![]));
        assert_eq!(pods.faults().len(), 2);
    }

    #[test]
    fn a_pod_outlives_a_file_that_makes_no_sense_but_not_one_that_is_gone() {
        let mut pods = StaticPods::default();
        look(&mut pods, &[("/a", pod("a", "x:1"))]);
        let before = pods.pods().next().unwrap().hash().to_owned();
        assert_eq!(look(&mut pods, &[("/a", Ok(b"kind: Po".to_vec()))]), (false, vec!["/a".to_owned()]));
        assert_eq!(pods.pods().next().unwrap().hash(), before);
        assert_eq!(look(&mut pods, &[("/a", pod("a", "x:1"))]), (false, vec![]), "as it was");
        assert_eq!(look(&mut pods, &[("/a", pod("a", "x:2"))]), (true, vec![]));
        assert_ne!(pods.pods().next().unwrap().hash(), before);
        assert_eq!(look(&mut pods, &[]), (true, vec![]));
        assert_eq!(pods.pods().count(), 0);
    }

    #[test]
    fn a_file_that_is_being_written_is_no_fault_until_it_stays_so() {
        let mut pods = StaticPods::default();
        let part = |bytes: &str| [("/a", Ok(bytes.as_bytes().to_vec()))];
        // An empty file, and one more part each 900 ms.
        for (part, now) in
            [(part(""), 0), (part("apiVersion: v1\nkind: "), 900), (part("apiVersion: v1\nkind: [P"), 1800)]
        {
            let looked = look_at(&mut pods, &part, at(now));
            assert_eq!((looked.faults, looked.again), (vec![], Some(at(now + 1000))));
        }
        assert!(look_at(&mut pods, &[("/a", pod("a", "x"))], at(2700)).changed);
        let bad = part("kind: Po");
        assert_eq!(look_at(&mut pods, &bad, at(5000)).again, Some(at(6000)));
        assert_eq!(look_at(&mut pods, &bad, at(5999)).again, Some(at(6000)));
        assert_eq!(look_at(&mut pods, &bad, at(6000)).faults.len(), 1);
        assert_eq!(look_at(&mut pods, &bad, at(7000)), FilesChange::default(), "it is said once");
        assert_eq!(pods.pods().count(), 1);
    }

    #[test]
    fn of_two_files_with_one_pod_the_first_counts_until_it_goes() {
        let mut pods = StaticPods::default();
        let two = [("/a", pod("p", "x:1")), ("/b", pod("p", "x:2"))];
        assert_eq!(look(&mut pods, &two), (true, vec!["/b".to_owned()]));
        assert_eq!((names(&pods).len(), look(&mut pods, &two)), (1, (false, vec![])));
        let first = pods.pods().next().unwrap().hash().to_owned();
        assert_eq!(look(&mut pods, &[("/b", pod("p", "x:2"))]), (true, vec![]));
        assert_ne!(pods.pods().next().unwrap().hash(), first);
    }
}
