//! Rule 9: a name says what is inside; and the owner's visible root.

use crate::{File, Finding};

const EMPTY: [&str; 8] = ["common", "util", "utils", "helper", "helpers", "misc", "types", "constants"];

const ROOT: [&str; 13] = [
    "Cargo.toml",
    "Cargo.lock",
    "README.md",
    "LICENSE",
    "CHANGELOG.md",
    "beehive",
    "modules",
    "cloud",
    "edge",
    "mappers",
    "config",
    "tests",
    "benches",
];

/// Files and folders whose name says nothing.
pub fn say_nothing(files: &[File]) -> Vec<Finding> {
    let mut found = Vec::new();
    for file in files {
        for part in file.path.split('/') {
            let stem = part.split('.').next().unwrap_or(part).to_ascii_lowercase();
            if EMPTY.contains(&stem.as_str()) {
                let what = format!("the name `{part}` says nothing (rule 9): name it after what is inside");
                found.push(Finding::new(&file.path, 1, what));
            }
        }
    }
    found
}

/// Visible entries of the root that the owner did not list.
pub fn at_the_root(files: &[File]) -> Vec<Finding> {
    let mut found: Vec<Finding> = Vec::new();
    for file in files {
        let top = file.path.split('/').next().unwrap_or_default();
        let listed = ROOT.contains(&top) || top.starts_with('.');
        if !listed && found.iter().all(|finding| finding.path != top) {
            let what = "does not belong to the visible root: put it into one of its folders, or begin its name with a dot";
            found.push(Finding::new(top, 1, what));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(paths: &[&str]) -> Vec<File> {
        paths.iter().map(|path| File::new(path, "")).collect()
    }

    #[test]
    fn a_name_that_says_nothing_is_found_as_file_and_as_folder() {
        let bad = files(&[
            "modules/x/src/util.rs",
            "modules/common/src/lib.rs",
            "beehive/src/Types.rs",
            "edge/misc",
        ]);
        assert_eq!(say_nothing(&bad).len(), 4);
        assert!(say_nothing(&files(&["beehive/src/utility.rs", "tests/harness/src/commonly.rs"])).is_empty());
    }

    #[test]
    fn a_stray_entry_at_the_root_is_told_once() {
        let found = at_the_root(&files(&[
            "scripts/a.py",
            "scripts/b.py",
            "notes.md",
            ".ci/run",
            "benches/src/lib.rs",
        ]));
        let paths: Vec<&str> = found.iter().map(|finding| finding.path.as_str()).collect();
        assert_eq!(paths, ["scripts", "notes.md"]);
    }
}
