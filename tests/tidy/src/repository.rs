//! What the rules look at: the files of the checkout, and what cargo says about its crates.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};
use serde_json::Value;

/// A file of the repository.
#[derive(Debug, Clone)]
pub struct File {
    /// From the root, with `/` between.
    pub path: String,
    /// Empty when the file is not text.
    pub text: String,
}

impl File {
    /// A file that need not exist.
    pub fn new(path: &str, text: &str) -> Self {
        File { path: path.to_owned(), text: text.to_owned() }
    }

    pub(crate) fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }
}

/// One dependency as a manifest declares it.
#[derive(Debug, Clone, Default)]
pub struct Dependency {
    /// The crate's name in the registry, whatever it is renamed to.
    pub name: String,
    /// The features that are asked for.
    pub features: Vec<String>,
    /// Only tests see it.
    pub only_for_tests: bool,
}

/// One crate of the workspace.
#[derive(Debug, Clone, Default)]
pub struct Package {
    /// The crate's name.
    pub name: String,
    /// Its `Cargo.toml`, from the root.
    pub manifest: String,
    /// What that file says.
    pub manifest_text: String,
    /// What it depends on.
    pub dependencies: Vec<Dependency>,
    /// The first file of its library and of each of its programs, from the root.
    pub entries: Vec<String>,
}

impl Package {
    /// The line of the manifest where a dependency is declared, or 1.
    pub(crate) fn line_of_dependency(&self, name: &str) -> usize {
        self.manifest_text
            .lines()
            .position(|line| {
                let rest = line.trim_start().strip_prefix(name);
                rest.is_some_and(|rest| rest.starts_with(['.', ' ', '=']))
            })
            .map_or(1, |at| at + 1)
    }
}

/// A checkout, read once.
#[derive(Debug, Clone)]
pub struct Repository {
    /// All files that are committed or about to be.
    pub files: Vec<File>,
    /// All crates of the workspace.
    pub packages: Vec<Package>,
}

impl Repository {
    /// Reads the checkout that this crate belongs to.
    ///
    /// # Errors
    ///
    /// A sentence that names the file or the program that could not be read or run.
    pub fn read() -> anyhow::Result<Self> {
        // As cargo says at run time, because a clone may be moved after a build.
        let folder = std::env::var_os("CARGO_MANIFEST_DIR")
            .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
        let root = folder.ancestors().nth(2).context("no workspace above this crate")?;
        let mut paths = match listed_by_git(root) {
            Some(paths) => paths,
            None => walked(root)?,
        };
        paths.sort();
        paths.dedup();
        let mut files = Vec::with_capacity(paths.len());
        for path in paths {
            // A deleted file that is not committed yet is still listed; another hand may delete one meanwhile.
            if let Ok(bytes) = std::fs::read(root.join(&path)) {
                files.push(File { path, text: String::from_utf8(bytes).unwrap_or_default() });
            }
        }
        let packages = packages(root)?;
        Ok(Repository { files, packages })
    }

    /// A file's text.
    pub fn text(&self, path: &str) -> Option<&str> {
        self.files.iter().find(|file| file.path == path).map(|file| file.text.as_str())
    }
}

/// What git tracks or would add; `None` in a tree without git.
fn listed_by_git(root: &Path) -> Option<Vec<String>> {
    let output = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(root)
        .stdin(Stdio::null())
        .output()
        .ok()?;
    let listed = String::from_utf8(output.stdout).ok()?;
    let paths: Vec<String> = listed.split('\0').filter(|path| !path.is_empty()).map(str::to_owned).collect();
    // An unpacked archive inside somebody else's repository lists nothing of ours.
    (output.status.success() && paths.iter().any(|path| path == "Cargo.toml")).then_some(paths)
}

fn walked(root: &Path) -> anyhow::Result<Vec<String>> {
    let mut paths = Vec::new();
    let mut folders = vec![root.to_path_buf()];
    while let Some(folder) = folders.pop() {
        let entries = std::fs::read_dir(&folder).with_context(|| format!("reading {}", folder.display()))?;
        for entry in entries {
            let entry = entry.with_context(|| format!("reading {}", folder.display()))?;
            let path = entry.path();
            if path == root.join("target") || path == root.join(".git") {
                continue;
            }
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                folders.push(path);
            } else if let Some(path) = path.strip_prefix(root).ok().and_then(Path::to_str) {
                paths.push(path.to_owned());
            }
        }
    }
    Ok(paths)
}

fn packages(root: &Path) -> anyhow::Result<Vec<Package>> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--offline", "--no-deps", "--format-version", "1"])
        .current_dir(root)
        .stdin(Stdio::null())
        .output()
        .context("cargo metadata did not start")?;
    if !output.status.success() {
        bail!(
            "cargo metadata ended with {}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    let metadata: Value =
        serde_json::from_slice(&output.stdout).context("reading what cargo metadata said")?;
    // Cargo resolves links in the root's path, so that only its own word for it can be cut off.
    let root = metadata["workspace_root"].as_str().context("cargo metadata names no workspace root")?;
    list(&metadata["packages"]).iter().map(|package| parse(package, Path::new(root))).collect()
}

fn parse(package: &Value, root: &Path) -> anyhow::Result<Package> {
    let name = text(&package["name"]);
    let full = text(&package["manifest_path"]);
    let manifest_text = std::fs::read_to_string(&full).with_context(|| format!("reading {full}"))?;
    let dependencies = list(&package["dependencies"])
        .iter()
        .map(|dependency| Dependency {
            name: text(&dependency["name"]),
            features: list(&dependency["features"]).iter().map(text).collect(),
            only_for_tests: dependency["kind"].as_str() == Some("dev"),
        })
        .collect();
    let entries = list(&package["targets"])
        .iter()
        .filter(|target| {
            list(&target["kind"]).iter().any(|kind| matches!(kind.as_str(), Some("lib" | "bin")))
        })
        .map(|target| below(root, &text(&target["src_path"])))
        .collect();
    Ok(Package { name, manifest: below(root, &full), manifest_text, dependencies, entries })
}

fn below(root: &Path, full: &str) -> String {
    Path::new(full).strip_prefix(root).ok().and_then(Path::to_str).unwrap_or(full).to_owned()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}
