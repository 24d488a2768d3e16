//! The node that is upgraded, as it is found: which edgecore runs, or would, how it is started, and whether anything speaks against
//! touching it.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use beehive::Env;
use config::edge::EdgeCore;

use crate::checks::{self, Passed, told};
use crate::journal::{Before, Event, Journal, Launch};
use crate::journal_folder::{JournalFolder, JournalLock};
use crate::order::{EDGECORE, Order};
use crate::plan::{Outcome, Phase};
use crate::process::Process;
use crate::program::Program;
use crate::version::Version;
use crate::{backup, service, store_lock, trusted};

/// What is said of an edgecore that does not say its version, and of which no journal knows it.
const UNKNOWN: &str = "0.0.0-unknown";

/// The node.
pub(crate) struct Node {
    pub(crate) settings: EdgeCore,
    pub(crate) journals: JournalFolder,
    _lock: JournalLock,
    /// edgecore's program.
    pub(crate) program: PathBuf,
    pub(crate) version: Version,
    pub(crate) launch: Launch,
    pub(crate) before: Before,
    /// The journal of the last upgrade or rollback.
    pub(crate) last: Option<Journal>,
}

impl Node {
    /// Its store.
    pub(crate) fn store(&self) -> &Path {
        &self.settings.database.data_source
    }
}

/// Looks at the node. A rollback is for the time when edgecore does not run, too, and does not say its version.
///
/// # Errors
/// With the name of the check that failed, and its cure.
pub(crate) async fn look(
    order: &Order,
    event: Event,
    env: &Env,
    say: &mut dyn FnMut(String),
) -> Result<Node> {
    let settings = trusted::settings(&order.config, say)?;
    let store = &settings.database.data_source;
    let journals = JournalFolder::of(store);
    let lock = journals.lock()?.context(
        "Lock: another upgrade of this node is under way: `keadm upgrade edge --status` shows how far it is",
    )?;
    let last =
        journals.load().context("Lock: `keadm upgrade edge --take-up` sets a damaged journal aside")?;
    if let Some(last) = &last
        && !last.progress.is_done()
        && !matches!(last.progress.phase, Phase::PreCheck | Phase::BackUp)
    {
        bail!(
            "Lock: the last upgrade was ended in the phase {:?} and is not finished: `keadm upgrade edge --take-up` finishes it",
            last.progress.phase
        );
    }
    let (program, launch, runs) = match (store_lock::edgecore_on(store), event) {
        (None, Event::Rollback) => {
            let program = where_it_was(last.as_ref(), store);
            let says = |path: &PathBuf| format!("none runs; {} is exchanged", path.display());
            let program = told("EdgeCore", program, says, say)?;
            (program, service::launch_without(last.as_ref(), &order.config, env).await, false)
        }
        _ => {
            let says = |found: &(Process, PathBuf)| {
                format!("{} runs (process {})", found.1.display(), found.0.pid())
            };
            let (process, program) = told("EdgeCore", checks::running(store), says, say)?;
            let launch = match service::launch_of(&process, env).await {
                // It ends again and again, and has done so meanwhile.
                Err(_) if event == Event::Rollback && !process.runs() => {
                    service::launch_without(last.as_ref(), &order.config, env).await
                }
                launch => launch?,
            };
            (program, launch, true)
        }
    };
    let version = match Program::open(&program) {
        Ok(program) => program.version(EDGECORE, env).await,
        Err(error) => Err(error),
    };
    let version = match (version, event) {
        (Err(_), Event::Rollback) => Ok(as_it_was(last.as_ref())),
        (version, _) => version,
    };
    let says = |version: &Version| format!("edgecore {version} {}", if runs { "runs" } else { "is there" });
    let version = told("Version", version, says, say)?;
    let held = match (checks::not_held(store), event) {
        // edgecore says it of itself in the log, and mends it.
        (Err(checks::NotSeen::Unreadable(error)), Event::Rollback) => Ok(Passed::Unknown(format!(
            "nobody knows whether this node is held, as its store cannot be read ({error})"
        ))),
        (Err(error), _) => Err(error.into()),
        (Ok(()), _) => Ok("nobody holds this node as it is".to_owned().into()),
    };
    told("Held", held, Passed::clone, say)?;
    let (ready, before) = if runs {
        let before = checks::before(&settings, env).await;
        (checks::ready(&settings, order.offline_ok, env).await, before)
    } else {
        let words = "edgecore does not run: it is enough that the one of before answers and stays";
        (Ok(words.to_owned()), Before::Down)
    };
    told("NodeReady", ready, String::clone, say)?;
    Ok(Node { settings, journals, _lock: lock, program, version, launch, before, last })
}

/// Where edgecore is that does not run: as the last upgrade knew it, else as the newest backup does.
fn where_it_was(last: Option<&Journal>, store: &Path) -> Result<PathBuf> {
    let known = last.and_then(Journal::program).map(Path::to_owned);
    let known = match known {
        Some(path) => Some(path),
        None => backup::list(store)?.iter().find_map(|one| Some(one.file(EDGECORE)?.path.clone())),
    };
    let path = known.context("none runs, and no upgrade or backup of this node says where it was")?;
    if !path.is_file() {
        bail!("{} is gone: install that release again", path.display());
    }
    trusted::program(&path)?;
    Ok(path)
}

/// Which version that is, if it does not say so itself.
fn as_it_was(last: Option<&Journal>) -> Version {
    let known = last.map(|last| match last.progress.outcome {
        Some(Outcome::Confirmed) => &last.to_version,
        _ => &last.from_version,
    });
    known.and_then(|known| Version::parse(known)).unwrap_or_else(|| Version::unknown(UNKNOWN))
}
