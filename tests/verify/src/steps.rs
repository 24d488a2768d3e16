//! The steps, and how one is run.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::Context as _;

use crate::deny::{self, Check};
use crate::{crate_folder, packages, room};

/// How a step that did not fail ended.
pub(crate) enum Outcome {
    /// It looked, and all is well.
    Passed,
    /// It could not look, and that is allowed; the text says why.
    Skipped(String),
}

/// Why a step failed, and what the reader can do about it.
pub(crate) struct Failure {
    pub(crate) what: anyhow::Error,
    pub(crate) cure: String,
}

/// The checkout, and the cargo that looks at it.
pub(crate) struct Workspace {
    root: PathBuf,
    cargo: OsString,
    /// Where all steps build, so that no dependency is compiled twice for the same purpose.
    target: PathBuf,
    /// Whether anybody builds or debugs here again: not in a continuous run, whose folder is thrown away.
    kept: bool,
    nextest: bool,
}

impl Workspace {
    /// The checkout that this program belongs to.
    pub(crate) fn here() -> anyhow::Result<Self> {
        let folder = crate_folder();
        let root = folder
            .ancestors()
            .nth(2)
            .map(Path::to_path_buf)
            .with_context(|| format!("no workspace above {}", folder.display()))?;
        let target = match std::env::var_os("CARGO_TARGET_DIR").filter(|folder| !folder.is_empty()) {
            // A relative folder means relative to where the user stands, and the steps stand elsewhere.
            Some(folder) => std::path::absolute(&folder).context("CARGO_TARGET_DIR is not a path")?,
            None => root.join("target"),
        };
        let mut workspace = Workspace {
            root,
            cargo: std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()),
            target,
            kept: std::env::var_os("CI").is_none_or(|ci| ci != "true"),
            nextest: false,
        };
        workspace.nextest = workspace.has(&["nextest", "--version"]);
        Ok(workspace)
    }

    /// Where everything is built.
    pub(crate) fn target(&self) -> &Path {
        &self.target
    }

    /// Runs cargo. A failure names `cure`.
    pub(crate) fn run(&self, arguments: &[&str], cure: &str) -> Result<Outcome, Failure> {
        let told = format!("cargo {}", arguments.join(" "));
        crate::say(&format!("      {told}"));
        let failure = |what| Failure { what, cure: cure.to_owned() };
        let status = self
            .cargo(arguments)
            .status()
            .with_context(|| format!("{told} did not start"))
            .map_err(failure)?;
        if status.success() {
            Ok(Outcome::Passed)
        } else {
            Err(failure(anyhow::anyhow!("{told} ended with {status}")))
        }
    }

    /// All tests but the documentation's examples.
    fn tests(&self, cure: &str) -> Result<Outcome, Failure> {
        if !self.nextest {
            return self.run(PLAIN, cure);
        }
        // Most tests wait for a peer, a disk or a clock. Those that compute count twice (.config/nextest.toml).
        let threads = std::thread::available_parallelism().map_or(2, |cores| 2 * cores.get()).to_string();
        self.run(&[NEXTEST, &["--test-threads", &threads]].concat(), cure)
    }

    /// A call of cargo that finds the tools which we brought ourselves.
    pub(crate) fn cargo(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.cargo);
        let machine = std::env::var_os("PATH").unwrap_or_default();
        let tools = deny::folder(&self.target).join("bin");
        let path = std::env::join_paths(std::env::split_paths(&machine).chain([tools])).unwrap_or(machine);
        command
            .args(arguments)
            .current_dir(&self.root)
            .env("PATH", path)
            .env("CARGO_TARGET_DIR", &self.target)
            .stdin(Stdio::null());
        // `cargo run` tells its child about this crate. Build scripts that watch those variables would run again.
        for (name, _) in std::env::vars_os() {
            let Some(text) = name.to_str() else { continue };
            if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
                command.env_remove(&name);
            }
        }
        if !self.kept {
            command.envs(THROWN_AWAY.iter().copied());
        }
        command
    }

    /// Whether this subcommand of cargo is installed.
    pub(crate) fn has(&self, arguments: &[&str]) -> bool {
        self.cargo(arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    }
}

/// What only a build to come or a debugger needs is two thirds of a folder of 40 GB: more than the disk of a continuous run may have.
const THROWN_AWAY: &[(&str, &str)] = &[
    ("CARGO_INCREMENTAL", "0"),
    ("CARGO_PROFILE_DEV_DEBUG", "0"),
    // The standard library's too.
    ("CARGO_PROFILE_DEV_STRIP", "debuginfo"),
];

/// One thing that is looked at.
pub(crate) struct Step {
    pub(crate) name: &'static str,
    work: Work,
    cure: &'static str,
}

enum Work {
    Packages,
    Room,
    Cargo(&'static [&'static str]),
    Tests,
    /// Brings cargo-deny.
    DenyTool,
    Deny(Check),
}

const NEXTEST: &[&str] = &["nextest", "run", "--workspace", "--locked", "--no-fail-fast"];
/// Everything but the documentation's examples, which have a step of their own.
const PLAIN: &[&str] =
    &["test", "--workspace", "--locked", "--no-fail-fast", "--lib", "--bins", "--tests", "--examples"];

/// Cheap ones first, so that a small mistake is told within seconds.
pub(crate) fn all() -> Vec<Step> {
    vec![
        Step { name: "packages", work: Work::Packages, cure: "" },
        Step { name: "room on the disk", work: Work::Room, cure: "" },
        Step {
            name: "formatting",
            work: Work::Cargo(&["fmt", "--all", "--check"]),
            cure: "cargo fmt --all (and rustup component add rustfmt, if it is not there)",
        },
        Step {
            name: "lints",
            work: Work::Cargo(&[
                "clippy",
                "--workspace",
                "--all-targets",
                "--locked",
                "--",
                "-D",
                "warnings",
            ]),
            cure: "mend what clippy names above; an exception is an `#[expect]` with its reason beside the code",
        },
        Step {
            name: "lints of the half of kubeapi that reads",
            work: Work::Cargo(&[
                "clippy",
                "--package",
                "kubeapi",
                "--no-default-features",
                "--locked",
                "--",
                "-D",
                "warnings",
            ]),
            cure: "keep what writes behind the feature `write`: the edge builds without it",
        },
        Step {
            name: "build of the tests",
            work: Work::Cargo(&["test", "--workspace", "--locked", "--no-run"]),
            cure: "mend what the compiler names above; if it is the lock file, run cargo build and commit Cargo.lock",
        },
        Step {
            name: "tests",
            work: Work::Tests,
            cure: "run the failing one alone: cargo test -p CRATE NAME -- --nocapture",
        },
        Step {
            name: "examples in the documentation",
            work: Work::Cargo(&["test", "--workspace", "--locked", "--doc"]),
            cure: "run the failing one alone: cargo test -p CRATE --doc",
        },
        Step { name: "cargo-deny", work: Work::DenyTool, cure: "" },
        Step {
            name: "licences, bans and sources of dependencies",
            work: Work::Deny(Check::Dependencies),
            cure: "leave the dependency out, or add an exception with its reason to .deny.toml",
        },
        Step {
            name: "advisories about dependencies",
            work: Work::Deny(Check::Advisories),
            cure: "update the crate, or add an exception with its reason to .deny.toml",
        },
    ]
}

impl Step {
    /// Does the work, with the output going straight to the reader.
    pub(crate) fn run(&self, workspace: &Workspace) -> Result<Outcome, Failure> {
        match self.work {
            Work::Packages => packages::install(),
            Work::Room => Ok(room::look(&workspace.target, workspace.kept)),
            Work::Cargo(arguments) => workspace.run(arguments, self.cure),
            Work::Tests => workspace.tests(self.cure),
            Work::DenyTool => deny::install(workspace),
            Work::Deny(check) => deny::run(check, workspace, self.cure),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workspace(cargo: &str) -> Workspace {
        Workspace {
            root: std::env::temp_dir(),
            cargo: cargo.into(),
            target: std::env::temp_dir(),
            kept: false,
            nextest: false,
        }
    }

    fn step(work: Work) -> Step {
        Step { name: "a step", work, cure: "do this" }
    }

    #[test]
    fn a_step_passes_only_when_its_command_does() {
        let step = step(Work::Cargo(&[]));
        assert!(matches!(step.run(&workspace("/bin/true")), Ok(Outcome::Passed)));
        let failure = step.run(&workspace("/bin/false")).err().expect("a failure");
        assert_eq!(failure.cure, "do this");
        assert!(failure.what.to_string().contains("exit status: 1"));
        assert!(step.run(&workspace("/nowhere/cargo")).is_err());
    }

    #[test]
    fn a_missing_cargo_deny_is_said_and_not_failed() {
        for work in [Work::DenyTool, Work::Deny(Check::Dependencies), Work::Deny(Check::Advisories)] {
            let outcome = step(work).run(&workspace("/bin/false"));
            let Ok(Outcome::Skipped(why)) = outcome else { panic!("not skipped") };
            assert!(why.contains("cargo-deny"), "{why}");
        }
    }

    #[test]
    fn every_failure_has_a_cure() {
        assert!(all().iter().all(|step| {
            matches!(step.work, Work::Packages | Work::Room | Work::DenyTool) || !step.cure.is_empty()
        }));
    }

    #[test]
    fn warnings_are_denied() {
        let lints = all().into_iter().find(|step| step.name == "lints").expect("lints");
        let Work::Cargo(arguments) = lints.work else { panic!("lints are cargo's") };
        assert!(arguments.ends_with(&["--", "-D", "warnings"]));
    }

    #[test]
    fn a_continuous_run_keeps_nothing_for_a_build_to_come() {
        let command = workspace("/bin/true").cargo(&[]);
        for (name, value) in THROWN_AWAY {
            let set = command.get_envs().any(|(set, to)| set == *name && to.is_some_and(|to| to == *value));
            assert!(set, "{name}");
        }
    }
}
