//! An upgrade until edgecore is stopped: the checks, the new program in its folder, the backup. Nothing that runs is changed by it.

use std::path::Path;
use std::time::UNIX_EPOCH;

use anyhow::{Context as _, Result, anyhow};
use beehive::Env;

use crate::backup::{self, Backup, Contents};
use crate::checks::{Passed, told};
use crate::exchange::Exchange;
use crate::fetch::{Fetched, Source, Staged, Trust, fetch};
use crate::journal::{Bar, Before, Event, Journal};
use crate::journal_folder::JournalFolder;
use crate::node::{Node, look};
use crate::order::{EDGECORE, KEADM, Order, SETTINGS};
use crate::program::Program;
use crate::version::Version;
use crate::{files, service, store_lock, trusted};

/// What has come of the preparation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prepared {
    /// [`crate::supervise`] does the rest.
    Ready,
    /// What is wanted is there already, and nothing is left to do.
    Already,
}

/// Fetches and looks at the new program, and backs up the old one. [`crate::supervise`] does the rest.
///
/// # Errors
/// With the name of the check that failed, and its cure. Nothing is changed then.
pub async fn prepare(
    order: &Order,
    source: &Source,
    trust: &Trust,
    env: &Env,
    say: &mut dyn FnMut(String),
) -> Result<Prepared> {
    let node = look(order, Event::Upgrade, env, say).await?;
    let mut journal = begin(&node, order, Event::Upgrade, env, say).await?;
    let staged = match fetch(&node, source, trust, &mut journal, env, say).await {
        Ok(Fetched::Already) => {
            journal.exchanges.iter().for_each(Exchange::forget);
            node.journals.put_back(node.last.as_ref())?;
            say(format!(
                "{} is that very program already (edgecore {}): there is nothing to do",
                node.program.display(),
                node.version
            ));
            return Ok(Prepared::Already);
        }
        Ok(Fetched::Staged(staged)) => Ok(staged),
        Err(error) => Err(error),
    };
    finish(&node, order, journal, staged, None, env, say)?;
    Ok(Prepared::Ready)
}

/// Copies what runs on the node, or else the edgecore in the folder of `keadm`, with its settings and its store.
///
/// # Errors
/// When there is no edgecore, an upgrade is under way, or the disk does not take the copies.
pub async fn back_up(config: &Path, keadm: &Path, env: &Env, say: &mut dyn FnMut(String)) -> Result<Backup> {
    let settings = trusted::settings(config, say)?;
    let store = &settings.database.data_source;
    let journals = JournalFolder::of(store);
    let _lock = journals.lock()?.context("an upgrade of this node is under way")?;
    let program = match store_lock::edgecore_on(store) {
        Some(process) => process.program()?,
        None => keadm.with_file_name(EDGECORE),
    };
    let program = std::fs::canonicalize(&program).unwrap_or(program);
    trusted::program(&program)?;
    let version = Program::open(&program)?.version(EDGECORE, env).await?;
    // One that cannot be read has counted, and nobody knows how far.
    let last = journals.load().ok().flatten();
    let copies = Copies {
        version: &version,
        program: &program,
        config,
        store,
        store_may_be_broken: false,
        sequence: next_sequence(last.as_ref(), store)?,
    };
    copies.make(seconds(env), None)
}

pub(crate) fn seconds(env: &Env) -> u64 {
    env.wall().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// One more than all before have.
fn next_sequence(last: Option<&Journal>, store: &Path) -> Result<u64> {
    let newest = backup::list(store)?.first().map_or(0, |newest| newest.sequence);
    Ok(newest.max(last.map_or(0, |last| last.sequence)).saturating_add(1))
}

/// The journal, on the disk before anything is made.
pub(crate) async fn begin(
    node: &Node,
    order: &Order,
    event: Event,
    env: &Env,
    say: &mut dyn FnMut(String),
) -> Result<Journal> {
    let config = std::path::absolute(&order.config).context("where edgecore.yaml is")?;
    let seen_to = service::see_to_take_up(&node.launch, &order.keadm, &config, env).await;
    told("TakeUp", seen_to, Passed::clone, say)?;
    let mut journal = Journal::new(event, node.version.as_str(), "", &config, node.store());
    journal.sequence = next_sequence(node.last.as_ref(), node.store())?;
    journal.launch = node.launch.clone();
    let socket = node.settings.modules.edge_stream.socket().map(Path::to_owned);
    // Of a node whose edgecore does not run nobody knows whether it would be linked.
    let offline_ok = order.offline_ok || node.before == Before::Down;
    journal.bar = Bar { socket, offline_ok, within: order.within, before: node.before };
    // Whatever is staged until it is known what that is goes with an end in the middle.
    let candidates = [node.program.clone(), node.program.with_file_name(KEADM), config];
    journal.exchanges = candidates.into_iter().map(Exchange::candidate).collect();
    node.journals.keep_room(&journal)?;
    node.journals.save(&journal)?;
    Ok(journal)
}

/// Backs up what runs, and leaves the journal where the supervisor begins; or notes why it does not come to that.
pub(crate) fn finish(
    node: &Node,
    order: &Order,
    mut journal: Journal,
    staged: Result<Vec<Staged>>,
    spared: Option<&Path>,
    env: &Env,
    say: &mut dyn FnMut(String),
) -> Result<()> {
    let now = seconds(env);
    let came = staged.and_then(|staged| {
        journal.note(now, &Ok(format!("{} may follow {}", journal.to_version, journal.from_version)));
        journal.exchanges =
            staged.iter().map(|staged| exchange(staged, Path::new(""))).collect::<Result<_>>()?;
        journal.progress.succeeded();
        node.journals.save(&journal)?;
        let copies = Copies {
            version: &node.version,
            program: &node.program,
            config: &order.config,
            store: node.store(),
            store_may_be_broken: journal.event == Event::Rollback,
            sequence: journal.sequence,
        };
        let backup = copies.make(now, spared)?;
        journal.exchanges =
            staged.iter().map(|staged| exchange(staged, &backup.folder)).collect::<Result<_>>()?;
        journal.backup.clone_from(&backup.folder);
        Ok(backup)
    });
    match came {
        Ok(backup) => {
            let said = format!("{} is backed up in {}", backup.version, backup.folder.display());
            say(format!("ok      BackUp: {said}"));
            journal.note(now, &Ok(said));
            journal.progress.succeeded();
            node.journals.save(&journal)
        }
        Err(error) => {
            let why = format!("{error:#}");
            journal.note(now, &Err(why.clone()));
            journal.progress.failed(&why);
            for path in [&node.program, &node.program.with_file_name(KEADM), &order.config] {
                drop(files::remove(&Exchange::staged(path)));
            }
            // The cause is told to whoever waits; a disk that is full keeps nothing.
            drop(node.journals.report(&journal));
            drop(node.journals.save(&journal));
            Err(anyhow!("{why}. Nothing was changed"))
        }
    }
}

/// What is backed up.
struct Copies<'a> {
    version: &'a Version,
    program: &'a Path,
    config: &'a Path,
    store: &'a Path,
    store_may_be_broken: bool,
    sequence: u64,
}

impl Copies<'_> {
    fn make(&self, now: u64, spared: Option<&Path>) -> Result<Backup> {
        let keadm = self.program.with_file_name(KEADM);
        let mut files = vec![(EDGECORE, self.program), (SETTINGS, self.config)];
        if keadm.is_file() {
            files.push((KEADM, &keadm));
        }
        let of = Contents {
            version: self.version,
            files: &files,
            store: self.store,
            store_may_be_broken: self.store_may_be_broken,
            sequence: self.sequence,
            now,
        };
        backup::make(&of, spared).context("BackUp")
    }
}

fn exchange(staged: &Staged, backup: &Path) -> Result<Exchange> {
    let old =
        files::sum_of_file(&staged.path)?.with_context(|| format!("{} is gone", staged.path.display()))?;
    let (path, new, when) = (staged.path.clone(), staged.sum.clone(), staged.when);
    let is_edited = staged.name == SETTINGS;
    let backup = backup.join(staged.name);
    Ok(Exchange { path, old, new, when, backup, is_edited, is_update: false })
}
