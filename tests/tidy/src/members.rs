//! What every crate of the workspace has: its folder's name, the workspace's lints, and something inside.

use crate::masked;
use crate::{Finding, Package, Repository};

/// Lines of code up to which a first file holds nothing.
const STUB: usize = 3;

/// Crates whose folder has another name.
pub fn folder_names(packages: &[Package]) -> Vec<Finding> {
    packages
        .iter()
        .filter(|package| package.manifest.rsplit('/').nth(1) != Some(package.name.as_str()))
        .map(|package| {
            let line = line_starting(&package.manifest_text, "name");
            Finding::new(
                &package.manifest,
                line,
                format!("the folder is not named `{}`, as its crate", package.name),
            )
        })
        .collect()
}

/// Crates that do not take the workspace's lints.
pub fn lints(packages: &[Package]) -> Vec<Finding> {
    packages
        .iter()
        .filter(|package| {
            let lints = package.manifest_text.lines().map(str::trim).skip_while(|line| *line != "[lints]");
            !lints
                .skip(1)
                .take_while(|line| !line.starts_with('['))
                .any(|line| line.replace(' ', "") == "workspace=true")
        })
        .map(|package| {
            let line = line_starting(&package.manifest_text, "[lints]");
            Finding::new(&package.manifest, line, "no `[lints]` with `workspace = true`")
        })
        .collect()
}

/// First files of libraries and programs that hold nothing.
pub fn stubs(repository: &Repository) -> Vec<Finding> {
    let mut found = Vec::new();
    for package in &repository.packages {
        for entry in &package.entries {
            let Some(text) = repository.text(entry) else {
                continue;
            };
            let lines = masked::code(text).lines().filter(|line| !line.trim().is_empty()).count();
            if lines <= STUB {
                let what = format!("{lines} lines of code: a crate is born when what it is for is written");
                found.push(Finding::new(entry, 1, what));
            }
        }
    }
    found
}

fn line_starting(text: &str, with: &str) -> usize {
    text.lines().position(|line| line.trim_start().starts_with(with)).map_or(1, |at| at + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::File;

    fn package(folder: &str, name: &str, rest: &str) -> Package {
        Package {
            name: name.to_owned(),
            manifest: format!("{folder}/Cargo.toml"),
            manifest_text: format!("[package]\nname = \"{name}\"\n{rest}"),
            entries: vec![format!("{folder}/src/lib.rs")],
            ..Package::default()
        }
    }

    #[test]
    fn a_folder_with_another_name_is_found() {
        let found =
            folder_names(&[package("modules/hub", "edge-hub", ""), package("beehive", "beehive", "")]);
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].path.as_str(), found[0].line), ("modules/hub/Cargo.toml", 2));
    }

    #[test]
    fn missing_and_switched_off_lints_are_found() {
        let found = lints(&[
            package("a", "a", "[lints]\nworkspace = true\n"),
            package("b", "b", ""),
            package("c", "c", "[lints]\nworkspace = false\n"),
            package("d", "d", "[lints]\n[x]\nworkspace = true\n"),
        ]);
        let paths: Vec<&str> = found.iter().map(|finding| finding.path.as_str()).collect();
        assert_eq!(paths, ["b/Cargo.toml", "c/Cargo.toml", "d/Cargo.toml"]);
    }

    #[test]
    fn comments_do_not_fill_a_stub() {
        let repository = Repository {
            packages: vec![package("a", "a", ""), package("b", "b", "")],
            files: vec![
                File::new("a/src/lib.rs", "//! One.\n//! Two.\n/* Three.\nFour. */\n\nfn main() {}\n"),
                File::new("b/src/lib.rs", "mod a;\nmod b;\nmod c;\npub use a::A;\n"),
            ],
        };
        let found = stubs(&repository);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].path, "a/src/lib.rs");
    }
}
