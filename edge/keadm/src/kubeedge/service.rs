//! KubeEdge's unit of systemd makes room for the one of this release, and comes back. Its file is renamed and never written.

use std::fs;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;

use anyhow::{Context as _, Result, bail};
use beehive::Env;

use crate::files::{is_there, write};

/// The unit that both have.
pub(super) const UNIT: &str = "edgecore.service";
/// Behind the name of KubeEdge's unit file while it is kept: systemd reads no file that is called so.
const KEPT: &str = ".kubeedge";
/// The unit as this release has it, with the paths that are exchanged for those of the machine.
const OURS: &str = include_str!("../../../deploy/edgecore.service");
const EDGECORE: &str = "/usr/local/bin/edgecore";
const KEADM: &str = "/usr/local/bin/keadm";
/// 64 KiB of a unit file.
const UNIT_MAX: u64 = 64 << 10;

/// What `systemctl` printed.
type Said = Pin<Box<dyn Future<Output = Result<String>>>>;
/// Runs `systemctl` with these arguments.
type Systemctl = Box<dyn Fn(Vec<String>) -> Said>;

/// The machine, as far as a move changes it.
pub struct Machine {
    /// Where an administrator's units lie: `/etc/systemd/system`.
    pub units: PathBuf,
    /// The processes: `/proc`.
    pub proc: PathBuf,
    /// The folder of the programs of this release, `edgecore` and `keadm`.
    pub programs: PathBuf,
    /// Runs `systemctl` with these arguments and answers what it printed; `None`: there is no systemd.
    pub systemctl: Option<Systemctl>,
}

impl Machine {
    /// This one, with the programs that lie beside the running one.
    ///
    /// # Errors
    /// When the running program's own place is not known.
    pub fn here(env: &Env) -> Result<Machine> {
        let own = std::env::current_exe().context("where keadm itself lies is not known")?;
        let programs = own.parent().context("keadm lies in no folder")?.to_owned();
        let env = env.clone();
        let run: Systemctl = Box::new(move |arguments| {
            let env = env.clone();
            Box::pin(async move {
                let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
                nodeupgrade::systemctl(&arguments, &env).await
            })
        });
        Ok(Machine {
            units: PathBuf::from("/etc/systemd/system"),
            proc: PathBuf::from("/proc"),
            programs,
            systemctl: nodeupgrade::has_systemd().then_some(run),
        })
    }

    /// `edgecore` of this release.
    pub(super) fn edgecore(&self) -> PathBuf {
        self.programs.join("edgecore")
    }

    async fn systemctl(&self, arguments: &[&str]) -> Result<String> {
        match &self.systemctl {
            Some(run) => run(arguments.iter().map(|word| (*word).to_owned()).collect()).await,
            None => Ok(String::new()),
        }
    }

    /// Asks systemd about a property of the unit; empty without systemd.
    async fn property(&self, name: &str) -> Result<String> {
        let said = self.systemctl(&["show", &format!("--property={name}"), "--value", UNIT]).await?;
        Ok(said.trim().to_owned())
    }

    /// How the unit is now.
    pub(super) async fn look(&self, config: &Path) -> Result<UnitState> {
        let fragment = self.property("FragmentPath").await?;
        let fragment = Some(PathBuf::from(fragment)).filter(|path| path.is_absolute());
        let is_ours = fragment.as_deref().is_some_and(|path| starts_from(path, config));
        let is_active =
            matches!(self.property("ActiveState").await?.as_str(), "active" | "activating" | "reloading");
        let is_enabled = self.property("UnitFileState").await? == "enabled";
        Ok(UnitState { fragment, is_ours, is_active, is_enabled })
    }

    /// Ends what the unit runs.
    pub(super) async fn stop(&self) -> Result<()> {
        self.systemctl(&["stop", UNIT]).await.context("KubeEdge's edgecore is not stopped").map(drop)
    }

    /// Ends the edgecore of this release, if it has a unit.
    pub(super) async fn stop_ours(&self, exchanged: &Exchanged) -> Result<()> {
        let is_there = exchanged.made.is_some()
            || exchanged.kept.is_some()
            || !self.property("FragmentPath").await?.is_empty();
        if !is_there {
            return Ok(());
        }
        self.systemctl(&["stop", UNIT]).await.context("edgecore is not stopped").map(drop)
    }

    /// Begins it.
    pub(super) async fn start(&self) -> Result<()> {
        self.systemctl(&["start", UNIT]).await.map(drop)
    }

    /// The processes that have a file open, by number: whoever writes it may be among them.
    ///
    /// # Errors
    /// When the processes cannot be listed. One that ends meanwhile is passed over.
    pub(super) fn holders(&self, file: &Path) -> Result<Vec<u32>> {
        let Ok(file) = file.canonicalize() else { return Ok(Vec::new()) };
        let shown = || format!("cannot list the processes in {}", self.proc.display());
        let mut holders = Vec::new();
        for process in fs::read_dir(&self.proc).with_context(shown)? {
            let process = process.with_context(shown)?;
            let Some(number) = process.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
                continue;
            };
            let Ok(open) = fs::read_dir(process.path().join("fd")) else { continue };
            let has = open.flatten().any(|open| fs::read_link(open.path()).is_ok_and(|to| to == file));
            if has {
                holders.push(number);
            }
        }
        holders.sort_unstable();
        Ok(holders)
    }

    /// What an exchange changes. `before`: what [`Machine::look`] found.
    pub(super) fn exchange_of(&self, before: &UnitState) -> Exchanged {
        if self.systemctl.is_none() || before.is_ours {
            return Exchanged::default();
        }
        let own = before.fragment.clone().filter(|path| path.starts_with(&self.units));
        Exchanged { kept: own, made: Some(self.units.join(UNIT)) }
    }

    /// Puts the unit of this release in the place of KubeEdge's.
    pub(super) async fn exchange(&self, exchange: &Exchanged, config: &Path) -> Result<()> {
        let Some(unit) = &exchange.made else { return Ok(()) };
        // Links of the targets that want it, which the new file makes anew.
        self.systemctl(&["disable", UNIT]).await?;
        if let Some(own) = &exchange.kept {
            let kept = kept(own);
            if is_there(&kept) {
                bail!("{} is there already: move it away, it is of an earlier move", kept.display());
            }
            fs::rename(own, &kept).with_context(|| format!("cannot rename {}", own.display()))?;
        }
        self.systemctl(&["daemon-reload"]).await?;
        // That of a package of this release, which KubeEdge's had hidden.
        let packaged = self.property("FragmentPath").await?;
        if !starts_from(Path::new(&packaged), config) {
            write(unit, &self.unit(config)?, 0o644)?;
            self.systemctl(&["daemon-reload"]).await?;
        }
        Ok(())
    }

    /// Starts the unit of this release, now and with the machine.
    pub(super) async fn begin(&self) -> Result<()> {
        self.systemctl(&["enable", "--now", UNIT]).await.map(drop)
    }

    /// Puts KubeEdge's unit back as it was, however far an exchange has come.
    pub(super) async fn restore(
        &self,
        exchange: &Exchanged,
        before: &UnitState,
        config: &Path,
    ) -> Result<()> {
        let Some(made) = &exchange.made else { return Ok(()) };
        // What cannot be disabled has no links, or keeps them for the unit that comes back.
        drop(self.systemctl(&["disable", UNIT]).await);
        if starts_from(made, config) {
            fs::remove_file(made).with_context(|| format!("cannot remove {}", made.display()))?;
        }
        if let Some(own) = &exchange.kept {
            let kept = kept(own);
            if is_there(&kept) {
                fs::rename(&kept, own).with_context(|| format!("cannot rename {}", kept.display()))?;
            }
        }
        self.systemctl(&["daemon-reload"]).await?;
        if before.is_enabled {
            self.systemctl(&["enable", UNIT]).await?;
        }
        Ok(())
    }

    /// The unit with the paths of this machine.
    fn unit(&self, config: &Path) -> Result<String> {
        let path = |path: &Path| -> Result<String> {
            let text = path.to_str().filter(|text| text.bytes().all(is_plain));
            let cure =
                || format!("{} has letters that a unit of systemd takes for something else", path.display());
            text.map(str::to_owned).with_context(cure)
        };
        let text = OURS
            .replace(EDGECORE, &path(&self.edgecore())?)
            .replace(KEADM, &path(&self.programs.join("keadm"))?)
            .replace(config::edge::DEFAULT_PATH, &path(config)?);
        Ok(text)
    }
}

/// Whether a letter means itself in a command line of a unit.
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"/._-+".contains(&byte)
}

/// How a unit is.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) struct UnitState {
    /// Its file.
    pub(super) fragment: Option<PathBuf>,
    /// It starts the edgecore of this release.
    pub(super) is_ours: bool,
    pub(super) is_active: bool,
    /// It starts with the machine.
    pub(super) is_enabled: bool,
}

/// What an exchange changes.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) struct Exchanged {
    /// KubeEdge's unit file, which gets another name.
    pub(super) kept: Option<PathBuf>,
    /// The unit file of this release, unless a package brings one.
    pub(super) made: Option<PathBuf>,
}

fn kept(unit: &Path) -> PathBuf {
    let mut name = unit.as_os_str().to_owned();
    name.push(KEPT);
    PathBuf::from(name)
}

/// Whether a unit file starts an edgecore from `config`.
fn starts_from(unit: &Path, config: &Path) -> bool {
    let small = fs::metadata(unit).is_ok_and(|found| found.is_file() && found.len() <= UNIT_MAX);
    let text = if small { fs::read_to_string(unit).unwrap_or_default() } else { String::new() };
    let Some(config) = config.to_str() else { return false };
    let starts = |line: &str| {
        line.trim_start().starts_with("ExecStart=") && line.split_whitespace().any(|word| word == config)
    };
    text.lines().any(starts)
}
