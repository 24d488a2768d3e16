//! The binaries under test.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, bail};

/// Builds `cloudcore`, `edgecore`, `keadm` and the Modbus mapper with its device with this cargo profile and answers their folder.
/// Once a process and profile: tests of one process ask at once, and a daemon must not become another one while it is tested.
///
/// # Errors
/// When cargo cannot build them.
pub fn build(profile: &str) -> Result<PathBuf> {
    static BUILT: Mutex<BTreeMap<String, PathBuf>> = Mutex::new(BTreeMap::new());
    let mut built = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(folder) = built.get(profile) {
        return Ok(folder.clone());
    }
    // Cargo compiles a dependency once for each set of features: those of the tests' own build are the whole workspace's, and
    // with them nothing is compiled again. What ships is built by itself.
    let packages: &[&str] = match profile {
        "dev" => &["--workspace", "--exclude", "benches", "--exclude", "demo", "--exclude", "verify"],
        _ => &["-p", "cloud", "-p", "edge", "-p", "keadm", "-p", "modbus"],
    };
    let status = cargo()
        .args(["build", "--locked", "--bins", "--profile", profile])
        .args(packages)
        .stdin(Stdio::null())
        .status()
        .context("start cargo")?;
    if !status.success() {
        bail!("the binaries do not build");
    }
    let folder = target_folder()?.join(if profile == "dev" { "debug" } else { profile });
    built.insert(profile.to_owned(), folder.clone());
    Ok(folder)
}

/// Builds the same as they are shipped for this kind of machine, and answers their folder and the map of edgecore's linker.
///
/// # Errors
/// When cargo cannot build them.
pub fn build_with_map() -> Result<(PathBuf, PathBuf)> {
    const TARGET: &str = "x86_64-unknown-linux-gnu";
    let target = target_folder()?;
    let map = target.join("edgecore.map");
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).context("the workspace")?;
    let status = cargo()
        .current_dir(root)
        .args(["build", "--config", ".cargo/release.toml", "--locked", "--bins", "--release"])
        .args(["--target", TARGET, "-p", "cloud", "-p", "edge", "-p", "keadm"])
        .env("KUBEHIVE_LINK_MAP", &map)
        .stdin(Stdio::null())
        .status()
        .context("start cargo")?;
    if !status.success() {
        bail!("the binaries do not build");
    }
    Ok((target.join(TARGET).join("release"), map))
}

fn target_folder() -> Result<PathBuf> {
    let out =
        cargo().args(["metadata", "--format-version", "1", "--no-deps"]).output().context("start cargo")?;
    let json: serde_json::Value = serde_json::from_slice(&out.stdout).context("cargo metadata")?;
    Ok(json["target_directory"].as_str().context("cargo metadata names no target folder")?.into())
}

fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(env!("CARGO_MANIFEST_DIR"));
    // A run or a test by cargo tells about this crate. Build scripts that watch those variables would run again.
    for (name, _) in std::env::vars_os() {
        let Some(text) = name.to_str() else { continue };
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            command.env_remove(&name);
        }
    }
    command
}
