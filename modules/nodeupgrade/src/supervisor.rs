//! Who does what was prepared: a supervisor outside of edgecore, which lives on while that is exchanged, and whoever finds it unfinished.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use beehive::Env;

use crate::journal::{Journal, Launch};
use crate::journal_folder::JournalFolder;
use crate::plan::Finder;
use crate::process;
use crate::run::Run;
use crate::{store_lock, trusted};

/// 10 s in which whoever prepared it lets go of the journal.
const LOCK_WITHIN: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// What was found where an unfinished upgrade would be.
#[derive(Debug)]
pub enum TakenUp {
    /// None.
    Nothing,
    /// One that a living supervisor does.
    Supervised,
    /// One that is finished now.
    Finished(Box<Journal>),
    /// One of which all is done that can be before edgecore runs. [`supervise`] does the rest, beside whoever starts edgecore, and
    /// [`end_unwatched`] ends it where nobody can.
    AwaitsStart(Box<Journal>),
}

/// Does the upgrade or rollback that was prepared for the node of this `edgecore.yaml`, or goes on with it where the supervisor before
/// was ended. Answers how it ended.
///
/// # Errors
/// When there is none, another supervisor does it, or its journal cannot be read.
pub async fn supervise(config: &Path, env: &Env, say: &mut dyn FnMut(String)) -> Result<Journal> {
    let settings = trusted::settings(config, say)?;
    let journals = JournalFolder::of(&settings.database.data_source);
    let until = env.now() + LOCK_WITHIN;
    let _lock = loop {
        match journals.lock()? {
            Some(lock) => break lock,
            None if env.now() < until => env.sleep(LOOK_EVERY).await,
            None => bail!("another supervisor is at work"),
        }
    };
    let journal = journals.load()?.context("nothing was prepared")?;
    if journal.progress.is_done() {
        return Ok(journal);
    }
    Ok(found(&journals, journal, Finder::Supervisor, env, say).await)
}

/// Finishes an upgrade that was ended in the middle, before edgecore is started: by a power cut, or with its supervisor. Where edgecore
/// runs, it does the rest as its supervisor would have.
///
/// # Errors
/// When the journal cannot be read, and is of a release to come. One that is damaged is set aside: each program is whole, whichever it
/// is.
pub async fn take_up(config: &Path, env: &Env, say: &mut dyn FnMut(String)) -> Result<TakenUp> {
    let settings = trusted::settings(config, say)?;
    let store = &settings.database.data_source;
    let journals = JournalFolder::of(store);
    if !journals.document().exists() {
        return Ok(TakenUp::Nothing);
    }
    let Some(_lock) = journals.lock()? else { return Ok(TakenUp::Supervised) };
    let journal = match journals.load() {
        Ok(Some(journal)) if !journal.progress.is_done() => journal,
        Ok(_) => return Ok(TakenUp::Nothing),
        Err(error) if format!("{error:#}").contains("newer release") => return Err(error),
        Err(error) => {
            let aside = journals.set_aside()?;
            say(format!(
                "{error:#}: it is set aside as {}, and the program stays that is there",
                aside.display()
            ));
            return Ok(TakenUp::Nothing);
        }
    };
    let finder =
        finder(store_lock::edgecore_on(store).is_some(), &journal.launch, process::own_unit().as_deref());
    let journal = Box::new(found(&journals, journal, finder, env, say).await);
    Ok(match journal.progress.awaits_start() {
        true => TakenUp::AwaitsStart(journal),
        false => TakenUp::Finished(journal),
    })
}

/// Whoever is called by the unit before edgecore is started may neither ask systemd for its end nor wait for its health, both of which
/// would wait for him: an edgecore that runs all the same is in the way.
fn finder(runs: bool, launch: &Launch, own_unit: Option<&str>) -> Finder {
    let is_of_unit = matches!(launch, Launch::Unit(unit) if own_unit == Some(unit));
    if runs && !is_of_unit { Finder::Supervisor } else { Finder::Boot }
}

/// Ends an upgrade of which only is left to look how edgecore is, where nobody can. Answers how it ended; `None`: there is nothing to
/// end, or somebody looks.
///
/// # Errors
/// When its journal cannot be read or written.
pub fn end_unwatched(config: &Path, say: &mut dyn FnMut(String)) -> Result<Option<Journal>> {
    let journals = JournalFolder::of(&trusted::settings(config, say)?.database.data_source);
    let Some(_lock) = journals.lock()? else { return Ok(None) };
    let Some(mut journal) = journals.load()?.filter(|journal| journal.progress.awaits_start()) else {
        return Ok(None);
    };
    journal.progress.unwatched();
    journals.save(&journal)?;
    journals.report(&journal)?;
    Ok(Some(journal))
}

async fn found(
    journals: &JournalFolder,
    mut journal: Journal,
    finder: Finder,
    env: &Env,
    say: &mut dyn FnMut(String),
) -> Journal {
    journal.progress.found_by(finder, &process::boot_id());
    Run::of(journals, journal, env).through(say).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_the_unit_calls_before_edgecore_does_not_wait_for_that_unit() {
        let unit = Launch::Unit("edgecore.service".to_owned());
        assert_eq!(finder(true, &unit, Some("edgecore.service")), Finder::Boot);
        assert_eq!(finder(true, &unit, Some("sshd.service")), Finder::Supervisor);
        assert_eq!(finder(true, &unit, None), Finder::Supervisor);
        assert_eq!(finder(false, &unit, None), Finder::Boot);
    }
}
