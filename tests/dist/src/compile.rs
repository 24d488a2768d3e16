//! Has cargo build the programs, so that neither the folder nor the user nor the hour is in them.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, anyhow, bail};
use serde_json::Value;

use crate::command::output;
use crate::parts::Program;
use crate::source::Source;
use crate::target::Target;

/// What stands in programs for folders of the machine that built them.
const SOURCES: &str = "/kubehive";
const LIBRARIES: &str = "/cargo/registry";

/// Variables that change what is built, and that a release is built without: what it is built with stands in the repository.
const UNWANTED: [&str; 9] = [
    "RUSTFLAGS",
    "CARGO_ENCODED_RUSTFLAGS",
    "CARGO_BUILD_RUSTFLAGS",
    "CARGO_BUILD_TARGET",
    "CARGO_INCREMENTAL",
    "CFLAGS",
    "CPPFLAGS",
    "HOST_CFLAGS",
    "TARGET_CFLAGS",
];
const UNWANTED_BEGIN: [&str; 5] =
    ["CARGO_PROFILE_", "CARGO_PKG_", "CARGO_MANIFEST_", "CFLAGS_", "AWS_LC_SYS_"];

/// The compiler, as it speaks of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Toolchain {
    /// The machine that it runs on.
    pub host: String,
    /// `1.95.0`.
    pub rustc: String,
    /// The commit of its sources.
    pub commit: String,
    sysroot: PathBuf,
}

impl Toolchain {
    /// Asks rustc.
    ///
    /// # Errors
    /// When it does not run.
    pub fn find() -> Result<Toolchain> {
        let said = output(rustc().arg("-vV"))?;
        let field = |name: &str| {
            let found = said.lines().find_map(|line| line.strip_prefix(name));
            found
                .map(|value| value.trim().to_owned())
                .with_context(|| format!("rustc does not say its {name}"))
        };
        let sysroot = output(rustc().args(["--print", "sysroot"]))?.trim().into();
        Ok(Toolchain {
            host: field("host:")?,
            rustc: field("release:")?,
            commit: field("commit-hash:")?,
            sysroot,
        })
    }

    /// Whether it can build for `target`; for another machine, with which C compiler (`None`: the machine's own, as it is).
    ///
    /// # Errors
    /// Names what is missing, and how to get it.
    pub fn check(&self, target: Target) -> Result<Option<OsString>> {
        let library = self.sysroot.join("lib/rustlib").join(target.triple).join("lib");
        if !library.is_dir() {
            bail!("the Rust toolchain has no standard library for {0}: rustup target add {0}", target.triple);
        }
        if target.triple == self.host {
            return Ok(None);
        }
        let variables = [
            format!("CC_{}", target.triple),
            format!("CC_{}", target.in_variables()),
            "TARGET_CC".to_owned(),
        ];
        let told = variables.iter().find_map(std::env::var_os);
        let compiler = told.unwrap_or_else(|| format!("{}-gcc", target.compiler).into());
        let shown = compiler.to_string_lossy().into_owned();
        let runs = Command::new(&compiler).arg("--version").stdin(Stdio::null()).output();
        if !runs.is_ok_and(|output| output.status.success()) {
            bail!(
                "there is no C compiler for {} ({shown} does not run): apt-get install gcc-{} {}, or name another in {}",
                target.triple,
                target.compiler,
                target.libc_package,
                variables[1],
            );
        }
        Ok(Some(compiler))
    }
}

/// Where the packages are that are built from.
#[derive(Debug, Clone)]
pub struct Workspace {
    /// The repository.
    pub root: PathBuf,
    /// What cargo says about every package, with those of registries.
    pub metadata: Value,
}

impl Workspace {
    /// Asks cargo about the packages that there are for `targets`.
    ///
    /// # Errors
    /// When it does not know all packages.
    pub fn find(root: &Path, targets: &[Target]) -> Result<Workspace> {
        let mut metadata = Value::Null;
        for target in targets {
            let mut command = cargo(root);
            command.args([
                "metadata",
                "--locked",
                "--format-version",
                "1",
                "--filter-platform",
                target.triple,
            ]);
            let said: Value = serde_json::from_str(&output(&mut command)?)
                .context("cargo metadata printed something else")?;
            let more = said["packages"].as_array().cloned().unwrap_or_default();
            match metadata["packages"].as_array_mut() {
                Some(known) => known.extend(more),
                None => metadata = said,
            }
        }
        Ok(Workspace { root: root.to_path_buf(), metadata })
    }

    /// Where cargo puts what it builds.
    ///
    /// # Errors
    /// When cargo does not say it.
    pub fn target_folder(&self) -> Result<PathBuf> {
        let folder = self.metadata["target_directory"].as_str();
        Ok(PathBuf::from(folder.context("cargo metadata names no target folder")?))
    }

    /// The packages that cargo knows.
    pub fn packages(&self) -> &[Value] {
        self.metadata["packages"].as_array().map_or(&[], Vec::as_slice)
    }

    /// The folders of this machine that programs would name, each with what stands for it; of two that fit, the later counts.
    fn folders(&self, toolchain: &Toolchain) -> Result<Vec<(PathBuf, String)>> {
        let mut folders = vec![
            (self.root.clone(), SOURCES.to_owned()),
            (self.target_folder()?, format!("{SOURCES}/target")),
            // The standard library names this place by itself, unless its sources are on the machine.
            (toolchain.sysroot.join("lib/rustlib/src/rust"), format!("/rustc/{}", toolchain.commit)),
        ];
        let from_elsewhere = self.packages().iter().filter(|package| !package["source"].is_null());
        for package in from_elsewhere {
            let folder =
                package["manifest_path"].as_str().and_then(|path| Path::new(path).ancestors().nth(2));
            let folder = folder.context("cargo metadata names a package without a folder")?;
            if folders.iter().all(|(known, _)| known != folder) {
                folders.push((folder.to_owned(), LIBRARIES.to_owned()));
            }
        }
        Ok(folders)
    }
}

/// Builds `programs` for `target` and answers the folder that holds them.
///
/// # Errors
/// When the toolchain cannot, or cargo fails.
pub fn build(
    workspace: &Workspace,
    programs: &[Program],
    target: Target,
    toolchain: &Toolchain,
    source: &Source,
    profile: &str,
) -> Result<PathBuf> {
    let compiler = toolchain.check(target)?;
    let folders = workspace.folders(toolchain)?;
    let mut command = cargo(&workspace.root);
    command.args(["build", "--config", ".cargo/release.toml", "--locked", "--profile", profile]);
    command.args(["--target", target.triple]);
    let remap: Result<Vec<String>> =
        folders.iter().map(|(from, to)| Ok(format!("--remap-path-prefix={}={to}", utf8(from)?))).collect();
    // A list of strings is written alike in JSON and in TOML.
    command.arg("--config").arg(format!(
        "target.{}.rustflags={}",
        target.triple,
        serde_json::to_string(&remap?)?
    ));
    if let Some(compiler) = &compiler {
        let linker = format!("CARGO_TARGET_{}_LINKER", target.in_variables().to_uppercase());
        if std::env::var_os(&linker).is_none() {
            command.env(linker, compiler);
        }
    }
    for package in packages(programs) {
        command.args(["--package", package]);
    }
    for program in programs {
        command.args(["--bin", program.name]);
    }
    // The compiler of C has spaces between its options, and no way to write one within.
    let of_c = folders.iter().map(|(from, to)| -> Result<String> {
        let from = utf8(from)?;
        if from.contains(char::is_whitespace) {
            bail!("{from} has a space in its name, which the compiler's CFLAGS cannot have: build elsewhere");
        }
        Ok(format!("-ffile-prefix-map={from}={to}"))
    });
    command
        .env(format!("CFLAGS_{}", target.in_variables()), of_c.collect::<Result<Vec<String>>>()?.join(" "));
    command.env("SOURCE_DATE_EPOCH", source.time.to_string());
    command.env("KUBEHIVE_COMMIT", source.commit.as_deref().unwrap_or_default());
    // Archives of objects without the time and the user; words and hours of nobody's country.
    command.env("ZERO_AR_DATE", "1").env("LC_ALL", "C").env("TZ", "UTC");
    let status = command.stdin(Stdio::null()).status().context("cargo does not start")?;
    if !status.success() {
        bail!("the programs do not build for {}: cargo said why above", target.triple);
    }
    let folder = if profile == "dev" { "debug" } else { profile };
    Ok(workspace.target_folder()?.join(target.triple).join(folder))
}

/// The packages of programs, each once.
pub(crate) fn packages(programs: &[Program]) -> Vec<&'static str> {
    let mut packages: Vec<&str> = programs.iter().map(|program| program.package).collect();
    packages.dedup();
    packages
}

fn utf8(path: &Path) -> Result<&str> {
    path.to_str().ok_or_else(|| anyhow!("{} is not written in UTF-8: build elsewhere", path.display()))
}

/// cargo, at `root`, without what would make its work another's.
pub(crate) fn cargo(root: &Path) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root);
    for (name, _) in std::env::vars_os() {
        if is_unwanted(&name) {
            command.env_remove(&name);
        }
    }
    command
}

fn is_unwanted(name: &OsStr) -> bool {
    let Some(name) = name.to_str() else { return false };
    UNWANTED.contains(&name)
        || UNWANTED_BEGIN.iter().any(|begin| name.starts_with(begin))
        || (name.starts_with("CARGO_TARGET_") && name.ends_with("_RUSTFLAGS"))
}

fn rustc() -> Command {
    Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::TARGETS;

    #[test]
    fn a_target_without_a_toolchain_is_refused_with_the_cure() {
        let sysroot = tempfile::tempdir().unwrap();
        let toolchain = Toolchain {
            host: TARGETS[0].triple.to_owned(),
            rustc: "1".to_owned(),
            commit: "c".to_owned(),
            sysroot: sysroot.path().to_owned(),
        };
        let arm = TARGETS[1];
        let error = toolchain.check(arm).unwrap_err().to_string();
        assert!(error.contains("rustup target add aarch64-unknown-linux-gnu"), "{error}");
        std::fs::create_dir_all(sysroot.path().join("lib/rustlib/aarch64-unknown-linux-gnu/lib")).unwrap();
        if !Path::new("/usr/bin/aarch64-linux-gnu-gcc").exists() {
            let error = toolchain.check(arm).unwrap_err().to_string();
            assert!(error.contains("apt-get install gcc-aarch64-linux-gnu libc6-dev-arm64-cross"), "{error}");
        }
    }

    #[test]
    fn what_changes_programs_is_kept_from_cargo() {
        for name in ["RUSTFLAGS", "CFLAGS_x86_64_unknown_linux_gnu", "CARGO_PROFILE_RELEASE_LTO"] {
            assert!(is_unwanted(OsStr::new(name)), "{name}");
        }
        assert!(is_unwanted(OsStr::new("CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUSTFLAGS")));
        for name in ["PATH", "CARGO_HOME", "CC_aarch64_unknown_linux_gnu", "CARGO_TARGET_DIR"] {
            assert!(!is_unwanted(OsStr::new(name)), "{name}");
        }
    }

    #[test]
    fn every_folder_of_this_machine_has_another_name() {
        let metadata = serde_json::json!({
            "target_directory": "/w/target",
            "packages": [
                { "source": null, "manifest_path": "/w/a/Cargo.toml" },
                { "source": "registry+x", "manifest_path": "/home/me/.cargo/registry/src/x-1/b-1.0.0/Cargo.toml" },
                { "source": "registry+x", "manifest_path": "/home/me/.cargo/registry/src/x-1/c-1.0.0/Cargo.toml" },
            ],
        });
        let toolchain = Toolchain {
            host: String::new(),
            rustc: String::new(),
            commit: "c0ffee".to_owned(),
            sysroot: "/home/me/.rustup/t".into(),
        };
        let workspace = Workspace { root: "/w".into(), metadata };
        let found = workspace.folders(&toolchain).unwrap();
        let found: Vec<(&str, &str)> =
            found.iter().map(|(from, to)| (from.to_str().unwrap(), to.as_str())).collect();
        assert_eq!(
            found,
            [
                ("/w", "/kubehive"),
                ("/w/target", "/kubehive/target"),
                ("/home/me/.rustup/t/lib/rustlib/src/rust", "/rustc/c0ffee"),
                ("/home/me/.cargo/registry/src/x-1", "/cargo/registry"),
            ]
        );
    }
}
