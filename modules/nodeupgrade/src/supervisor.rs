//! Does what was prepared, phase by phase, outside of edgecore: it lives on while that is exchanged. And takes up what was not finished.

use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail};
use beehive::Env;
use config::edge::EdgeCore;
use edge_store::HeldStore;

use crate::exchange::When;
use crate::health::{self, Watched};
use crate::journal::{Journal, JournalFolder};
use crate::plan::{Finder, Outcome, Phase};
use crate::process::Process;
use crate::{backup, service};

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
}

/// Does the upgrade or rollback that was prepared for the node of this `edgecore.yaml`, or goes on with it where the supervisor before
/// was ended. Answers how it ended.
///
/// # Errors
/// When there is none, another supervisor does it, or its journal cannot be read.
pub async fn supervise(config: &Path, env: &Env, say: &mut dyn FnMut(String)) -> Result<Journal> {
    let settings = EdgeCore::load(config)?;
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
    let settings = EdgeCore::load(config)?;
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
    let finder = if Process::on_store(store).is_some() { Finder::Supervisor } else { Finder::Boot };
    Ok(TakenUp::Finished(Box::new(found(&journals, journal, finder, env, say).await)))
}

async fn found(
    journals: &JournalFolder,
    mut journal: Journal,
    finder: Finder,
    env: &Env,
    say: &mut dyn FnMut(String),
) -> Journal {
    journal.progress.found_by(finder);
    let mut run = Run { journals, journal, held: None, env };
    run.drive(say).await;
    run.journal
}

struct Run<'a> {
    journals: &'a JournalFolder,
    journal: Journal,
    /// The store, while nobody may start on it.
    held: Option<HeldStore>,
    env: &'a Env,
}

impl Run<'_> {
    async fn drive(&mut self, say: &mut dyn FnMut(String)) {
        while !self.journal.progress.is_done() {
            let phase = self.journal.progress.phase;
            // A phase that is not on the disk is not begun on the way forward; the way back is gone in any case.
            let written = self.journals.save(&self.journal);
            let came = match written {
                Err(error) if Phase::FORWARD.contains(&phase) => Err(error.context("the journal")),
                _ => self.effect(phase).await,
            };
            let came = came.map_err(|error| format!("{error:#}"));
            let sign = if came.is_ok() { "ok    " } else { "failed" };
            say(format!("{sign}  {phase:?}: {}", came.as_ref().unwrap_or_else(|why| why)));
            self.journal.note(self.seconds(), &came);
            match came {
                Ok(_) => self.journal.progress.succeeded(),
                Err(why) => self.journal.progress.failed(&why),
            }
        }
        if self.journal.progress.outcome == Some(Outcome::Refused) {
            self.journal.exchanges.iter().for_each(crate::exchange::Exchange::forget);
        }
        for written in [self.journals.save(&self.journal), self.journals.report(&self.journal)] {
            if let Err(error) = written {
                say(format!("failed  it cannot be written how it ended: {error:#}"));
            }
        }
    }

    fn seconds(&self) -> u64 {
        self.env.wall().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
    }

    async fn effect(&mut self, phase: Phase) -> Result<String> {
        match phase {
            Phase::PreCheck | Phase::BackUp | Phase::Done => bail!("this was to be prepared"),
            Phase::Stop | Phase::RollBack => {
                self.hold().await?;
                Ok("edgecore is stopped".to_owned())
            }
            Phase::BackUpStore => {
                let folder = self.journal.backup.clone();
                backup::refresh_store(&folder, self.hold().await?)?;
                self.journal.is_store_current = true;
                Ok("the store is backed up as edgecore left it".to_owned())
            }
            Phase::Swap => self.swap().await,
            Phase::Start | Phase::Restart => {
                // Whoever starts edgecore wants it.
                self.held = None;
                let program = self.program()?;
                service::start(&self.journal.launch, &program, &self.journal.store, self.env).await
            }
            Phase::Health => self.watch(false).await,
            Phase::CheckRestarted => self.watch(true).await,
            Phase::Confirm => self.confirm(),
            Phase::RestorePrograms => {
                for exchange in self.journal.exchanges.iter().rev() {
                    exchange.restore()?;
                }
                Ok(format!("edgecore {} has its name again", self.journal.from_version))
            }
            Phase::RestoreStore => self.restore_store().await,
        }
    }

    fn program(&self) -> Result<std::path::PathBuf> {
        Ok(self.journal.exchanges.first().context("the journal names no program")?.path.clone())
    }

    /// The store, with edgecore stopped.
    async fn hold(&mut self) -> Result<&HeldStore> {
        let held = match self.held.take() {
            Some(held) => held,
            // systemd waits for this to end, and would not answer.
            None if self.journal.progress.is_booting => edge_store::hold(&self.journal.store)?,
            None => service::stop(&self.journal.launch, &self.journal.store, self.env).await?,
        };
        Ok(self.held.insert(held))
    }

    async fn swap(&mut self) -> Result<String> {
        self.hold().await?;
        for exchange in self.journal.exchanges.iter().filter(|exchange| exchange.when == When::Swap) {
            exchange.swap()?;
        }
        if let Some(from) = self.journal.store_from.clone() {
            let incarnation = self.env.random_id();
            self.hold().await?.put_back(&from, &incarnation).context("the store of the backup")?;
        }
        Ok(format!("edgecore {} has its name", self.journal.to_version))
    }

    async fn watch(&self, only_stays: bool) -> Result<String> {
        let (program, store) = (self.program()?, &self.journal.store);
        let watched = Watched { program: &program, store, bar: &self.journal.bar, only_stays };
        health::wait(&watched, self.env).await
    }

    fn confirm(&self) -> Result<String> {
        let exchanges = &self.journal.exchanges;
        let late = exchanges.iter().filter(|exchange| exchange.when == When::Confirm);
        let swapped: Vec<Result<()>> = late.map(crate::exchange::Exchange::swap).collect();
        for exchange in exchanges {
            exchange.settle()?;
        }
        swapped.into_iter().collect::<Result<()>>()?;
        Ok(format!(
            "edgecore {} stays; the one before is kept in {}",
            self.journal.to_version,
            self.journal.backup.display()
        ))
    }

    /// The store goes back where the release that was there before cannot use it, and where it is of a backup. What the new edgecore
    /// has accepted meanwhile stays in any other case.
    async fn restore_store(&mut self) -> Result<String> {
        let (from, is_current) = (backup::store_in(&self.journal.backup), self.journal.is_store_current);
        let must = self.journal.progress.must_restore_store || self.journal.store_from.is_some();
        if !is_current {
            return Ok("the store is as it was: nobody else has had it".to_owned());
        }
        let incarnation = self.env.random_id();
        let held = self.hold().await?;
        let reason = match held.sound() {
            Ok(()) if !must => {
                return Ok("the store can be read as it is, and stays with what came in meanwhile".to_owned());
            }
            Ok(()) => "it is put back".to_owned(),
            Err(error) => error.to_string(),
        };
        let replaced = held.put_back(&from, &incarnation).with_context(|| format!("the store ({reason})"))?;
        let kept = replaced.map(|path| format!("; that one is {} now", path.display())).unwrap_or_default();
        Ok(format!("the store is the one of before ({reason}){kept}"))
    }
}
