//! Which crates are linked into a program: `cargo tree`, which knows features and targets as a build does, without what only runs
//! while it is built (build scripts, procedural macros).

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow};

use crate::command::output;
use crate::compile::{Workspace, cargo, packages};
use crate::parts::Program;
use crate::target::Target;

/// A crate in one version.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Id {
    /// Its name in the registry.
    pub name: String,
    /// Its version.
    pub version: String,
}

/// The crates below one.
#[derive(Debug, Clone, Default)]
pub struct Graph {
    /// What each crate is linked with.
    pub edges: BTreeMap<Id, BTreeSet<Id>>,
    macros: BTreeSet<Id>,
}

/// What is known of a crate beside its name.
#[derive(Debug, Clone, Default)]
pub struct About {
    /// SHA-256 of its archive, as the lock file has it; `None` for ours.
    pub sha256: Option<String>,
    /// Its licence, as it writes it.
    pub license: Option<String>,
    /// Where its sources lie here.
    pub folder: PathBuf,
}

/// The crates of all `programs` for `target`, from one run, so that features are those of a build of all of them.
///
/// # Errors
/// When cargo does not know them all.
pub fn graph(workspace: &Workspace, programs: &[Program], target: Target) -> Result<Graph> {
    let mut command = cargo(&workspace.root);
    command.args(["tree", "--locked", "--edges", "normal", "--prefix", "depth", "--format", "{p}"]);
    command.args(["--target", target.triple]);
    for package in packages(programs) {
        command.args(["--package", package]);
    }
    parse(&output(&mut command)?)
}

/// Lines as `2serde v1.0.1 (proc-macro) (*)`: how deep, which crate, and marks in brackets. What stands below a crate stands at its first
/// place alone.
fn parse(text: &str) -> Result<Graph> {
    let mut graph = Graph::default();
    let mut above: Vec<Id> = Vec::new();
    for line in text.lines().filter(|line| !line.is_empty()) {
        let wrong = || anyhow!("cargo tree printed `{line}`");
        let digits = line.find(|letter: char| !letter.is_ascii_digit()).ok_or_else(wrong)?;
        let depth: usize = line[..digits].parse().map_err(|_| wrong())?;
        let mut words = line[digits..].split(' ');
        let id = Id {
            name: words.next().ok_or_else(wrong)?.to_owned(),
            version: words.next().and_then(|word| word.strip_prefix('v')).ok_or_else(wrong)?.to_owned(),
        };
        if words.any(|word| word == "(proc-macro)") {
            graph.macros.insert(id.clone());
        }
        if depth > above.len() {
            return Err(wrong());
        }
        above.truncate(depth);
        graph.edges.entry(id.clone()).or_default();
        if let Some(parent) = above.last() {
            graph.edges.entry(parent.clone()).or_default().insert(id.clone());
        }
        above.push(id);
    }
    Ok(graph)
}

impl Graph {
    /// The crates that the program of this package is made of, and itself.
    pub fn linked(&self, package: &str) -> BTreeSet<&Id> {
        let mut next: Vec<&Id> = self.edges.keys().filter(|id| id.name == package).collect();
        let mut found = BTreeSet::new();
        while let Some(id) = next.pop() {
            if !self.macros.contains(id) && found.insert(id) {
                next.extend(self.edges.get(id).into_iter().flatten());
            }
        }
        found
    }
}

/// What the lock file and cargo know of every crate.
///
/// # Errors
/// When there is no lock file.
pub fn about(workspace: &Workspace) -> Result<BTreeMap<Id, About>> {
    let path = workspace.root.join("Cargo.lock");
    let lock = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let sums = sums(&lock);
    let text = |value: &serde_json::Value| value.as_str().map(str::to_owned);
    let known = workspace.packages().iter().filter_map(|package| {
        let id = Id { name: text(&package["name"])?, version: text(&package["version"])? };
        let manifest = text(&package["manifest_path"])?;
        let about = About {
            sha256: sums.get(&id).cloned(),
            license: text(&package["license"]).map(|license| license.replace('/', " OR ").replace("  ", " ")),
            folder: Path::new(&manifest).parent()?.to_owned(),
        };
        Some((id, about))
    });
    Ok(known.collect())
}

/// Out of what cargo writes: `[[package]]`, then a line `key = "value"` for each of these.
fn sums(lock: &str) -> BTreeMap<Id, String> {
    let value = |block: &str, key: &str| {
        let found =
            block.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(" = \"")?.strip_suffix('"'));
        found.map(str::to_owned)
    };
    let blocks = lock.split("[[package]]").skip(1);
    blocks
        .filter_map(|block| {
            let id = Id { name: value(block, "name")?, version: value(block, "version")? };
            Some((id, value(block, "checksum")?))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TREE: &str = "0edge v0.1.0 (/w/edge)\n1serde v1.0.1\n2serde_derive v1.0.1 (proc-macro)\n3syn v2.0.0\n\
                        1tokio v1.2.3\n2libc v0.2.9\n\n0keadm v0.1.0 (/w/edge/keadm)\n1clap v4.0.0\n2syn v2.0.0\n1tokio v1.2.3 (*)\n";

    fn names(graph: &Graph, package: &str) -> Vec<String> {
        graph.linked(package).iter().map(|id| id.name.clone()).collect()
    }

    #[test]
    fn what_only_builds_is_left_out_and_what_is_said_once_is_found() {
        let graph = parse(TREE).unwrap();
        assert_eq!(names(&graph, "edge"), ["edge", "libc", "serde", "tokio"]);
        assert_eq!(names(&graph, "keadm"), ["clap", "keadm", "libc", "syn", "tokio"]);
    }

    #[test]
    fn other_words_are_told() {
        for text in ["edge v0.1.0", "0edge", "1edge v0.1.0", "0edge 0.1.0"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sums_come_from_the_lock_file() {
        let lock = "version = 4\n\n[[package]]\nname = \"a\"\nversion = \"1.0.0\"\nsource = \"r\"\nchecksum = \"12ab\"\n\n\
                    [[package]]\nname = \"ours\"\nversion = \"0.1.0\"\ndependencies = [\n \"a\",\n]\n";
        let sums = sums(lock);
        let id = Id { name: "a".to_owned(), version: "1.0.0".to_owned() };
        assert_eq!((sums.len(), sums.get(&id).map(String::as_str)), (1, Some("12ab")));
    }
}
